/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Gives a packet other addresses and ports.  The transport checksum is told of the addresses and of the ports apart:
 * where it is only to be computed by the device (CHECKSUM_PARTIAL) it covers the addresses by now, and not the ports.
 */
#ifndef KUBEPROXY_REWRITE_H
#define KUBEPROXY_REWRITE_H

#include "packet.h"

enum {
	IPV4_CHECKSUM_PLACE = 10, /* in their headers, in bytes */
	IPV4_ADDRESSES_PLACE = 12,
	IPV6_ADDRESSES_PLACE = 8,
	TCP_CHECKSUM_PLACE = 16,
	UDP_CHECKSUM_PLACE = 6,
};

/* What a packet is to become, and what it is; in the order of the headers. */
struct endpoints {
	struct address source;
	struct address destination;
};

struct ports {
	__be16 source;
	__be16 destination;
};

/* Where the checksum of a packet's transport is, from the packet's beginning. */
static __always_inline __u32 checksum_place(const struct packet *packet)
{
	return packet->transport + (packet->tuple.protocol == IPPROTO_TCP ? TCP_CHECKSUM_PLACE : UDP_CHECKSUM_PLACE);
}

/* Returns 0, or less if the packet cannot be changed; then the kernel is out of memory, and the packet is lost. */
static __always_inline int addresses_store(struct __sk_buff *skb, __u32 network, bool ipv6, const struct endpoints *new,
                                           __s64 difference)
{
	__be32 pair[2] = {new->source.words[3], new->destination.words[3]};

	/* IPv6 has no checksum of its own that would make up for the change in a sum over the whole packet. */
	if (ipv6)
		return bpf_skb_store_bytes(skb, network + IPV6_ADDRESSES_PLACE, new, sizeof(*new),
		                           BPF_F_RECOMPUTE_CSUM);
	if (bpf_l3_csum_replace(skb, network + IPV4_CHECKSUM_PLACE, 0, difference, 0))
		return -1;
	return bpf_skb_store_bytes(skb, network + IPV4_ADDRESSES_PLACE, pair, sizeof(pair), 0);
}

/* Rewrites a packet as its flow says. Returns as addresses_store(). No pointer into the packet is valid afterwards. */
static __noinline int packet_rewrite(struct __sk_buff *skb, const struct packet *packet, const struct flow *flow)
{
	bool tcp = packet->tuple.protocol == IPPROTO_TCP;
	struct ports old_ports = {packet->tuple.source_port, packet->tuple.destination_port};
	struct ports new_ports = {flow->source_port, flow->destination_port};
	struct endpoints ALIGNED old = {packet->tuple.source, packet->tuple.destination};
	struct endpoints ALIGNED new = {flow->source, flow->destination};
	__u32 checksum = checksum_place(packet);
	/* A UDP checksum of zero is none; one that comes out as zero is written as its other zero. */
	__u64 flags = tcp ? 0 : BPF_F_MARK_MANGLED_0;
	__s64 difference;

	difference = bpf_csum_diff((void *)&old, sizeof(old), (void *)&new, sizeof(new), 0);
	if (bpf_l4_csum_replace(skb, checksum, 0, difference, flags | BPF_F_PSEUDO_HDR) ||
	    addresses_store(skb, packet->network, packet->ipv6, &new, difference))
		return -1;
	difference = bpf_csum_diff((void *)&old_ports, sizeof(old_ports), (void *)&new_ports, sizeof(new_ports), 0);
	if (difference && bpf_l4_csum_replace(skb, checksum, 0, difference, flags))
		return -1;
	return bpf_skb_store_bytes(skb, packet->transport, &new_ports, sizeof(new_ports), 0);
}

#endif
