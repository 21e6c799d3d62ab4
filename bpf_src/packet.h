/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What a packet says of itself, as far as Services care: its tuple, and where its headers are.  Nothing is read that is
 * not known to be there.  The kernel has checked IPv4 headers only on the way in, and IPv6 extensions not at all: a
 * packet that does not add up is nobody's here, and the stack's.
 */
#ifndef KUBEPROXY_PACKET_H
#define KUBEPROXY_PACKET_H

#include "address.h"
#include "flow_types.h"
#include "lookup.h"

#define IPPROTO_ICMP   1
#define IPPROTO_ICMPV6 58

#define ETH_P_IP   bpf_htons(0x0800)
#define ETH_P_IPV6 bpf_htons(0x86dd)

enum {
	ETHERNET_HEADER_SIZE = 14,
	LONGEST_IPV6_EXTENSIONS = 6, /* more in one packet serve nobody but attackers */
	FARTHEST_HEADER = 511,       /* from the packet's beginning, in bytes; all bits set */
};

enum ipv6_extension {
	IPV6_HOP_BY_HOP = 0,
	IPV6_ROUTING = 43,
	IPV6_FRAGMENT = 44,
	IPV6_AUTHENTICATION = 51,
	IPV6_DESTINATION = 60,
};

/* Fields by their bytes, as headers are where the packet has them: on no boundary in particular. */
struct ipv4_header {
	__u8 version_and_length; /* in words of four bytes */
	__u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment; /* flags and offset */
	__u8 ttl;
	__u8 protocol;
	__sum16 checksum;
	__be32 source;
	__be32 destination;
};

struct ipv6_header {
	__be32 version_and_flow;
	__be16 payload_length;
	__u8 next_header;
	__u8 hop_limit;
	__be32 source[4];
	__be32 destination[4];
};

struct ipv6_extension_header {
	__u8 next_header;
	__u8 length;
	__be16 fragment; /* of a fragment header: offset and flag */
};

struct tcp_header {
	__be16 source_port;
	__be16 destination_port;
	__be32 sequence;
	__be32 acknowledgement;
	__u8 length;
	__u8 flags;
	__be16 window;
	__sum16 checksum;
	__be16 urgent;
};

struct udp_header {
	__be16 source_port;
	__be16 destination_port;
	__be16 length;
	__sum16 checksum;
};

enum tcp_flag {
	TCP_FIN = 1,
	TCP_SYN = 2,
	TCP_RST = 4,
	TCP_ACK = 16,
};

#define IPV4_MORE_FRAGMENTS bpf_htons(0x2000)
#define IPV4_FRAGMENT_PLACE bpf_htons(0x1fff)
#define IPV6_FRAGMENT_PLACE bpf_htons(0xfff8)

struct packet {
	struct flow_key tuple;
	__u32 network;   /* where the IP header begins, in bytes */
	__u32 transport; /* where the TCP or UDP header begins */
	__u8 tcp_flags;  /* 0: UDP */
	bool ipv6;
};

/*
 * Returns a header if it is in the part of the packet that can be read at once, else NULL.  The place is bounded where
 * the verifier sees it, whatever it has forgotten of a number that was on the stack meanwhile.
 */
static __always_inline void *header_at(struct __sk_buff *skb, __u64 place, __u32 size)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	asm volatile("%0 &= %1" : "+r"(place) : "i"(FARTHEST_HEADER));
	return data + place + size > end ? NULL : data + place;
}

/* As header_at(); a header that lies elsewhere is fetched, after which no pointer into the packet is valid any more. */
static __always_inline void *header_fetch(struct __sk_buff *skb, __u32 place, __u32 size)
{
	void *header = header_at(skb, place, size);

	if (header)
		return header;
	if (bpf_skb_pull_data(skb, place + size))
		return NULL;
	return header_at(skb, place, size);
}

/*
 * Walks the extensions of an IPv6 packet.  Returns where the transport header begins, and in the lowest byte which it
 * is; 0: it is not there, or too far away.
 */
GLOBAL __u32 ipv6_transport_find(struct __sk_buff *skb, __u32 offset, __u32 next_header)
{
	struct ipv6_extension_header extension;

	for (int i = 0; i < LONGEST_IPV6_EXTENSIONS; i++) {
		if (next_header == IPPROTO_TCP || next_header == IPPROTO_UDP || next_header == IPPROTO_ICMPV6)
			return offset << 8 | next_header;
		if (bpf_skb_load_bytes(skb, offset, &extension, sizeof(extension)))
			return 0;
		switch (next_header) {
		case IPV6_HOP_BY_HOP:
		case IPV6_ROUTING:
		case IPV6_DESTINATION:
			offset += 8 + 8 * extension.length;
			break;
		case IPV6_AUTHENTICATION:
			offset += 8 + 4 * extension.length;
			break;
		case IPV6_FRAGMENT:
			if (extension.fragment & IPV6_FRAGMENT_PLACE)
				return 0;
			offset += 8;
			break;
		default:
			return 0;
		}
		next_header = extension.next_header;
	}
	return 0;
}

static __always_inline bool ipv4_header_adds_up(const struct ipv4_header *header)
{
	return header->version_and_length >> 4 == 4 && (header->version_and_length & 15) * 4 >= sizeof(*header);
}

static __always_inline bool ipv6_header_adds_up(const struct ipv6_header *header)
{
	return (header->version_and_flow & bpf_htonl(0xf0000000)) == bpf_htonl(0x60000000);
}

/* Reads addresses, protocol and the place of the transport header; false: no packet of a Service. */
static __always_inline bool ipv4_read(struct __sk_buff *skb, struct packet *packet)
{
	const struct ipv4_header *header = header_fetch(skb, packet->network, sizeof(*header));

	if (!header || !ipv4_header_adds_up(header) || header->fragment & IPV4_FRAGMENT_PLACE)
		return false;
	address_set_ipv4(&packet->tuple.source, header->source);
	address_set_ipv4(&packet->tuple.destination, header->destination);
	packet->tuple.protocol = header->protocol;
	packet->transport = packet->network + 4 * (header->version_and_length & 15);
	return true;
}

static __always_inline bool ipv6_read(struct __sk_buff *skb, struct packet *packet)
{
	const struct ipv6_header *header = header_fetch(skb, packet->network, sizeof(*header));
	__u32 found;
	__u8 next;

	if (!header || !ipv6_header_adds_up(header))
		return false;
	__builtin_memcpy(&packet->tuple.source, header->source, sizeof(header->source));
	__builtin_memcpy(&packet->tuple.destination, header->destination, sizeof(header->destination));
	/* On no wire (RFC 4291, 2.5.5.2); here they would be taken for IPv4. */
	if (address_is_ipv4(&packet->tuple.source) || address_is_ipv4(&packet->tuple.destination))
		return false;
	next = header->next_header;
	packet->transport = packet->network + sizeof(*header);
	packet->tuple.protocol = next;
	if (next == IPPROTO_TCP || next == IPPROTO_UDP || next == IPPROTO_ICMPV6)
		return true;
	found = ipv6_transport_find(skb, packet->transport, next);
	packet->transport = found >> 8;
	packet->tuple.protocol = found;
	return found;
}

static __always_inline bool tcp_read(struct __sk_buff *skb, struct packet *packet)
{
	const struct tcp_header *header = header_fetch(skb, packet->transport, sizeof(*header));

	if (!header)
		return false;
	packet->tuple.source_port = header->source_port;
	packet->tuple.destination_port = header->destination_port;
	packet->tcp_flags = header->flags;
	return true;
}

/* Reads what UDP's header says; of TCP's it is the ports, which are at the same place. */
static __always_inline bool ports_read(struct __sk_buff *skb, struct packet *packet)
{
	const struct udp_header *header = header_fetch(skb, packet->transport, sizeof(*header));

	if (!header)
		return false;
	packet->tuple.source_port = header->source_port;
	packet->tuple.destination_port = header->destination_port;
	packet->tcp_flags = 0;
	return true;
}

static __always_inline bool transport_read(struct __sk_buff *skb, struct packet *packet)
{
	if (packet->transport > FARTHEST_HEADER)
		return false;
	if (packet->tuple.protocol == IPPROTO_TCP)
		return tcp_read(skb, packet);
	return packet->tuple.protocol == IPPROTO_UDP && ports_read(skb, packet);
}

/*
 * Reads the IP header that begins at a place, and those below the transport; false: it is none, or not the first
 * fragment of its packet: those have no ports.
 */
static __always_inline bool network_read(struct __sk_buff *skb, __u32 network, __u8 hook, struct packet *packet)
{
	packet->network = network;
	packet->ipv6 = skb->protocol == ETH_P_IPV6;
	packet->tuple.hook = hook;
	packet->tuple.pad = 0;
	if (packet->ipv6)
		return ipv6_read(skb, packet);
	return skb->protocol == ETH_P_IP && ipv4_read(skb, packet);
}

#endif
