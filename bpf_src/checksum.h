/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The Internet checksum (RFC 1071) of what changes: old words leave the sum as their complements, new ones join it
 * (RFC 1624).  In which order a word's bytes are does not matter, as long as it is the same everywhere.
 */
#ifndef KUBEPROXY_CHECKSUM_H
#define KUBEPROXY_CHECKSUM_H

#include "address.h"

/* What a packet says, or is to say. */
struct endpoints {
	const struct address *source;
	const struct address *destination;
};

struct ports {
	__be16 source;
	__be16 destination;
};

/* What one word in place of another adds to a sum. Sums are of 32 bits; many of them fit into 64. */
static __always_inline __u64 word_change(__u32 old, __u32 new)
{
	return (__u64)(__u32)~old + new;
}

/* A sum as it is kept in 32 bits. */
static __always_inline __u32 sum_narrow(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return sum + (sum >> 32);
}

/* A sum as it is written into a header, but for the complement. */
static __always_inline __u16 sum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return sum + (sum >> 16);
}

/* Both addresses are of the family that they were of, so only one word of IPv4's can change. */
static __always_inline __u32 addresses_change(struct endpoints old, struct endpoints new, bool ipv6)
{
	__u64 sum = word_change(old.source->words[3], new.source->words[3]) +
	            word_change(old.destination->words[3], new.destination->words[3]);

	if (ipv6)
		for (int i = 0; i < 3; i++)
			sum += word_change(old.source->words[i], new.source->words[i]) +
			       word_change(old.destination->words[i], new.destination->words[i]);
	return sum_narrow(sum);
}

static __always_inline __u32 ports_change(struct ports old, struct ports new)
{
	return (__u32)(__u16)~old.source + (__u16)~old.destination + new.source + new.destination;
}

/* The checksum of a header that covers nothing else, after a change. */
static __always_inline __u16 header_checksum(__u16 checksum, __u32 change)
{
	return ~sum_fold(sum_narrow((__u64)(__u16)~checksum + change));
}

#endif
