/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * ICMP errors quote the packet that they are about, as it was where they arose.  Whoever sent that one gets the error
 * about the packet that it sent: the quotation is translated back, and where the endpoint itself complains, the
 * frontend does.  Without this no path MTU is found through a Service, and no refusal of a datagram is heard of.
 *
 * The quoted packet went the other way.  Its tuple turned around is one that an answer to it would have here, so what
 * becomes of answers says what becomes of the error.
 */
#ifndef KUBEPROXY_ICMP_ERROR_H
#define KUBEPROXY_ICMP_ERROR_H

#include "flow.h"
#include "rewrite.h"

struct icmp_header {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 rest; /* MTU, pointer */
};

enum {
	ICMP_CHECKSUM_PLACE = 2, /* in its header, in bytes */
	ICMP_UNREACHABLE = 3,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETER_PROBLEM = 12,
	ICMPV6_LAST_ERROR = 127,
};

static __always_inline bool icmp_type_is_error(__u8 type, bool ipv6)
{
	if (ipv6)
		return type <= ICMPV6_LAST_ERROR;
	return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER_PROBLEM;
}

static __always_inline bool is_icmp(const struct packet *packet)
{
	return packet->tuple.protocol == (packet->ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
}

/* Reads as much of a quoted packet as every error has: eight bytes of its transport. */
static __always_inline bool quotation_read(struct __sk_buff *skb, const struct packet *error, struct packet *quoted)
{
	const struct icmp_header *header;

	if (error->transport + sizeof(*header) > FARTHEST_HEADER)
		return false;
	header = header_fetch(skb, error->transport, sizeof(*header));
	if (!header || !icmp_type_is_error(header->type, error->ipv6))
		return false;
	if (!network_read(skb, error->transport + sizeof(*header), error->tuple.hook, quoted))
		return false;
	if (quoted->transport > FARTHEST_HEADER ||
	    (quoted->tuple.protocol != IPPROTO_TCP && quoted->tuple.protocol != IPPROTO_UDP))
		return false;
	return ports_read(skb, quoted);
}

/* The flow of what would answer the quoted packet. */
static __always_inline bool quoted_flow_read(const struct packet *quoted, struct flow *flow)
{
	struct flow_key ALIGNED answer = {
		.source = quoted->tuple.destination,
		.destination = quoted->tuple.source,
		.source_port = quoted->tuple.destination_port,
		.destination_port = quoted->tuple.source_port,
		.protocol = quoted->tuple.protocol,
		.hook = quoted->tuple.hook,
	};

	return flow_copy(&answer, flow);
}

/* Where a quoted packet's own checksum is, if the quotation reaches that far and there is one; else 0. */
static __always_inline __u32 quoted_checksum_place(struct __sk_buff *skb, const struct packet *quoted)
{
	__u32 place = checksum_place(quoted);
	__sum16 checksum;

	if (bpf_skb_load_bytes(skb, place, &checksum, sizeof(checksum)))
		return 0;
	return checksum || quoted->tuple.protocol == IPPROTO_TCP ? place : 0;
}

/*
 * Gives a quoted packet the addresses and ports that it was sent with, and `error`'s checksum what changes by that.  Of
 * a word and the checksum over it, the changes cancel each other out in a sum that has both.
 */
static __noinline int quotation_rewrite(struct __sk_buff *skb, const struct packet *quoted, __u32 error_checksum,
                                        const struct flow *flow)
{
	struct ports old_ports = {quoted->tuple.source_port, quoted->tuple.destination_port};
	struct ports new_ports = {flow->destination_port, flow->source_port};
	struct endpoints old = {&quoted->tuple.source, &quoted->tuple.destination};
	struct endpoints new = {&flow->destination, &flow->source};
	__u32 addresses = addresses_change(old, new, quoted->ipv6), ports = ports_change(old_ports, new_ports);
	__u32 checksum = quoted_checksum_place(skb, quoted);

	if (checksum &&
	    (bpf_l4_csum_replace(skb, checksum, 0, addresses, 0) || bpf_l4_csum_replace(skb, checksum, 0, ports, 0)))
		return -1;
	if (addresses_write(skb, quoted->network, quoted->ipv6, new, addresses) ||
	    ports_write(skb, quoted->transport, new_ports))
		return -1;
	if (checksum)
		return quoted->ipv6 ? 0 : bpf_l4_csum_replace(skb, error_checksum, 0, (__u32)~addresses, 0);
	if (quoted->ipv6 && bpf_l4_csum_replace(skb, error_checksum, 0, addresses, 0))
		return -1;
	return bpf_l4_csum_replace(skb, error_checksum, 0, ports, 0);
}

/*
 * Translates an error in a packet whose IP header begins at a place.  Returns 0, or less if the packet cannot be
 * changed; what is about no flow stays as it is.
 */
GLOBAL int icmp_error_translate(struct __sk_buff *skb, __u32 network, __u32 hook)
{
	struct endpoints old, new;
	struct packet ALIGNED error, ALIGNED quoted;
	struct flow ALIGNED flow;
	__u32 checksum, change;

	if (network > ETHERNET_HEADER_SIZE || !network_read(skb, network, hook, &error) || !is_icmp(&error) ||
	    !quotation_read(skb, &error, &quoted) || !quoted_flow_read(&quoted, &flow))
		return 0;
	checksum = error.transport + ICMP_CHECKSUM_PLACE;
	if (quotation_rewrite(skb, &quoted, checksum, &flow))
		return -1;
	old = (struct endpoints){&error.tuple.source, &error.tuple.destination};
	new = (struct endpoints){&error.tuple.source, &flow.destination};
	if (address_equal(&error.tuple.source, &quoted.tuple.destination))
		new.source = &flow.source;
	change = addresses_change(old, new, error.ipv6);
	if (error.ipv6 && addresses_account(skb, checksum, change, true, 0))
		return -1;
	return addresses_write(skb, error.network, error.ipv6, new, change);
}

#endif
