/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Gives a packet other addresses and ports.  The transport checksum is told of the addresses and of the ports apart:
 * where it is only to be computed by the device (CHECKSUM_PARTIAL) it covers the addresses by now, and not the ports.
 */
#ifndef KUBEPROXY_REWRITE_H
#define KUBEPROXY_REWRITE_H

#include "checksum.h"
#include "packet.h"

enum {
	TCP_CHECKSUM_PLACE = 16, /* in their headers, in bytes */
	UDP_CHECKSUM_PLACE = 6,
};

/* Where the checksum of a packet's transport is, from the packet's beginning. */
static __always_inline __u32 checksum_place(const struct packet *packet)
{
	return packet->transport + (packet->tuple.protocol == IPPROTO_TCP ? TCP_CHECKSUM_PLACE : UDP_CHECKSUM_PLACE);
}

static __always_inline int ipv4_addresses_write(struct __sk_buff *skb, __u32 network, struct endpoints new,
                                                __u32 change)
{
	struct ipv4_header *header = header_at(skb, network, sizeof(*header));

	if (!header)
		return -1;
	header->checksum = header_checksum(header->checksum, change);
	header->source = new.source->words[3];
	header->destination = new.destination->words[3];
	return 0;
}

static __always_inline int ipv6_addresses_write(struct __sk_buff *skb, __u32 network, struct endpoints new)
{
	struct ipv6_header *header = header_at(skb, network, sizeof(*header));

	if (!header)
		return -1;
	__builtin_memcpy(header->source, new.source, sizeof(header->source));
	__builtin_memcpy(header->destination, new.destination, sizeof(header->destination));
	return 0;
}

/* `change`: addresses_change(). Returns 0, or less if the header cannot be written, and the packet is lost. */
static __always_inline int addresses_write(struct __sk_buff *skb, __u32 network, bool ipv6, struct endpoints new,
                                           __u32 change)
{
	return ipv6 ? ipv6_addresses_write(skb, network, new) : ipv4_addresses_write(skb, network, new, change);
}

/* Of TCP and UDP alike. Returns as addresses_write(). */
static __always_inline int ports_write(struct __sk_buff *skb, __u32 transport, struct ports new)
{
	struct ports *ports = header_at(skb, transport, sizeof(*ports));

	if (!ports)
		return -1;
	*ports = new;
	return 0;
}

/*
 * Tells a transport's checksum that the addresses have changed.  Returns 0, or less if it is not there.  The kernel
 * believes that a sum over the whole packet, if there is one, changes by that: so it does with IPv4, whose header has a
 * checksum of its own, and with IPv6 it does not.
 */
static __always_inline int addresses_account(struct __sk_buff *skb, __u32 checksum, __u32 change, bool ipv6,
                                             __u64 flags)
{
	if (bpf_l4_csum_replace(skb, checksum, 0, change, flags | BPF_F_PSEUDO_HDR))
		return -1;
	if (ipv6)
		bpf_csum_update(skb, change);
	return 0;
}

/* Rewrites a packet as its flow says. Returns as addresses_write(). No pointer into the packet is valid afterwards. */
static __always_inline int packet_rewrite(struct __sk_buff *skb, const struct packet *packet, const struct flow *flow)
{
	struct ports old_ports = {packet->tuple.source_port, packet->tuple.destination_port};
	struct ports new_ports = {flow->source_port, flow->destination_port};
	struct endpoints old = {&packet->tuple.source, &packet->tuple.destination};
	struct endpoints new = {&flow->source, &flow->destination};
	/* A UDP checksum of zero is none; one that comes out as zero is written as its other zero. */
	__u64 flags = packet->tuple.protocol == IPPROTO_TCP ? 0 : BPF_F_MARK_MANGLED_0;
	__u32 checksum = checksum_place(packet), addresses = addresses_change(old, new, packet->ipv6);

	if (ports_write(skb, packet->transport, new_ports) ||
	    addresses_write(skb, packet->network, packet->ipv6, new, addresses) ||
	    addresses_account(skb, checksum, addresses, packet->ipv6, flags))
		return -1;
	if (old_ports.source == new_ports.source && old_ports.destination == new_ports.destination)
		return 0;
	return bpf_l4_csum_replace(skb, checksum, 0, ports_change(old_ports, new_ports), flags);
}

#endif
