/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Packets in several pieces.  Only the first one has ports: they are remembered, and what becomes of the others follows
 * from them.  One that comes before the first is left to the stack, or dropped where the address is a Service's alone.
 */
#ifndef KUBEPROXY_FRAGMENT_H
#define KUBEPROXY_FRAGMENT_H

#include "counters.h"
#include "flow.h"
#include "refuse_packet.h"
#include "rewrite.h"
#include "snat.h"

/* What fragments have in common -> ports; the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct fragment_key);
	__type(value, struct fragment_ports);
} fragments SEC(".maps");

/* IPv6's, behind its header (RFC 8200, 4.5). */
struct ipv6_fragment_header {
	__u8 next_header;
	__u8 reserved;
	__be16 fragment;
	__be32 id;
};

struct fragment {
	struct fragment_key key;
	__u32 transport; /* where the first one's transport header begins */
	bool first;
};

/* What says of either header whether there are fragments: its seventh byte, or that and the next. */
struct header_start {
	__u8 other[6];
	union {
		__u8 next_header; /* IPv6 */
		__be16 fragment;  /* IPv4 */
	};
};

/* Whether a packet is a fragment, at the price of a look. */
static __always_inline bool packet_is_fragment(struct __sk_buff *skb, __u32 network)
{
	const struct header_start *start = header_fetch(skb, network, sizeof(*start));

	if (!start)
		return false;
	if (skb->protocol == ETH_P_IPV6)
		return start->next_header == IPV6_FRAGMENT;
	return skb->protocol == ETH_P_IP && start->fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_PLACE);
}

static __always_inline bool ipv4_fragment_read(struct __sk_buff *skb, __u32 network, struct fragment *fragment)
{
	const struct ipv4_header *header = header_at(skb, network, sizeof(*header));

	if (!header || !ipv4_header_adds_up(header))
		return false;
	address_set_ipv4(&fragment->key.source, header->source);
	address_set_ipv4(&fragment->key.destination, header->destination);
	fragment->key.id = bpf_htonl(bpf_ntohs(header->id));
	fragment->key.protocol = header->protocol;
	fragment->first = !(header->fragment & IPV4_FRAGMENT_PLACE);
	fragment->transport = network + 4 * (header->version_and_length & 15);
	return true;
}

static __always_inline bool ipv6_fragment_read(struct __sk_buff *skb, __u32 network, struct fragment *fragment)
{
	const struct ipv6_header *start = header_at(skb, network, sizeof(*start));
	struct ipv6_fragment_header header;
	__u32 place = network + sizeof(*start);

	if (!start || !ipv6_header_adds_up(start))
		return false;
	__builtin_memcpy(&fragment->key.source, start->source, sizeof(start->source));
	__builtin_memcpy(&fragment->key.destination, start->destination, sizeof(start->destination));
	if (bpf_skb_load_bytes(skb, place, &header, sizeof(header)))
		return false;
	fragment->key.id = header.id;
	fragment->key.protocol = header.next_header;
	fragment->first = !(header.fragment & IPV6_FRAGMENT_PLACE);
	fragment->transport = place + sizeof(header);
	/* As everywhere: these are on no wire. */
	return !address_is_ipv4(&fragment->key.source) && !address_is_ipv4(&fragment->key.destination);
}

/* Remembers the ports of a packet, which its first fragment has. */
static __always_inline void fragment_remember(struct __sk_buff *skb, const struct fragment *fragment)
{
	struct fragment_ports ports;

	if (!bpf_skb_load_bytes(skb, fragment->transport, &ports, sizeof(ports)))
		bpf_map_update_elem(&fragments, &fragment->key, &ports, BPF_ANY);
}

/*
 * Whether one that nobody knows is of a Service's packet: its address is nobody else's.  On its way out it is if it was
 * to get an address of this node.
 */
static __always_inline bool fragment_is_lost(const struct __sk_buff *skb, const struct fragment_key *key)
{
	const struct settings *settings = settings_get();
	__u32 kinds;

	if (key->hook == FLOW_EGRESS)
		return skb->mark & masquerade_mark;
	kinds = address_kinds(&key->destination);
	return kinds & (ADDRESS_CLUSTER_IP | ADDRESS_EXTERNAL) && !(kinds & ADDRESS_EXCLUDED) && settings &&
	       !is_host_address(settings, &key->destination);
}

/* Finds what became of a packet's first fragment. */
static __always_inline bool fragment_flow_read(const struct fragment_key *key, const struct fragment_ports *ports,
                                               struct flow *flow)
{
	struct flow_key ALIGNED tuple = {
		.source = key->source,
		.destination = key->destination,
		.source_port = ports->source,
		.destination_port = ports->destination,
		.protocol = key->protocol,
		.hook = key->hook,
	};

	return flow_copy(&tuple, flow);
}

/* Gives a later fragment the addresses that its first one got. Returns an action. */
static __always_inline int fragment_follow(struct __sk_buff *skb, __u32 network, const struct fragment_key *key)
{
	const struct fragment_ports *ports = bpf_map_lookup_elem(&fragments, key);
	struct endpoints old = {&key->source, &key->destination}, new;
	struct flow ALIGNED flow;
	bool ipv6 = skb->protocol == ETH_P_IPV6;
	__u32 change;

	if (!ports || !fragment_flow_read(key, ports, &flow)) {
		if (!fragment_is_lost(skb, key))
			return TC_ACT_UNSPEC;
		reason_count(REASON_LOST_FRAGMENT);
		return TC_ACT_SHOT;
	}
	skb->mark = (skb->mark & ~masquerade_mark) | (flow.state & FLOW_MASQUERADED ? masquerade_mark : 0);
	new = (struct endpoints){&flow.source, &flow.destination};
	change = addresses_change(old, new, ipv6);
	if (ipv6)
		bpf_csum_update(skb, change); /* nothing in this packet makes up for it */
	return addresses_write(skb, network, ipv6, new, change) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* Deals with a fragment. Returns an action; of the first one, ACTION_GO_ON: it is a packet like others. */
GLOBAL int fragment_meet(struct __sk_buff *skb, __u32 network, __u32 hook)
{
	struct fragment ALIGNED fragment = {.key.hook = hook};

	/* All of it, as it is to be written to. */
	if (network > ETHERNET_HEADER_SIZE ||
	    !header_fetch(skb, network,
	                  skb->protocol == ETH_P_IPV6 ? sizeof(struct ipv6_header) : sizeof(struct ipv4_header)) ||
	    !(skb->protocol == ETH_P_IPV6 ? ipv6_fragment_read(skb, network, &fragment)
	                                  : ipv4_fragment_read(skb, network, &fragment)) ||
	    (fragment.key.protocol != IPPROTO_TCP && fragment.key.protocol != IPPROTO_UDP))
		return ACTION_GO_ON;
	if (!fragment.first)
		return fragment_follow(skb, network, &fragment.key);
	fragment_remember(skb, &fragment);
	return ACTION_GO_ON;
}

#endif
