/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * From what a client addresses to the service it belongs to.
 *
 * An element of a hash may be recycled between its look-up and the reading of its value, so what is read
 * is one word, an origin id, and the origin says whether it is the right one.
 */
#ifndef KUBEPROXY_LOOKUP_H
#define KUBEPROXY_LOOKUP_H

#include "address.h"
#include "maps.h"

#define READ_ONCE(place) (*(const volatile __typeof__(place) *)&(place))

/* Reads two or more fields that are published as one word, by one load: the compiler must not see that they are many.
 */
static __always_inline __u64 word_read(const void *place)
{
	return *(const volatile __u64 *)place;
}

#define IPPROTO_TCP   6
#define IPPROTO_UDP   17
#define IPPROTO_MPTCP 262

enum { LOOKUP_ATTEMPTS = 3 };

/* A frontend that was found, and what it leads to. */
struct frontend {
	__u32 origin;
	__u32 service;
	__u32 kind; /* enum frontend_kind */
};

/* The protocol that Services know a socket by; 0: they have none for it. */
static __always_inline __u8 service_protocol(__u32 protocol)
{
	if (protocol == IPPROTO_MPTCP)
		return IPPROTO_TCP;
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP ? protocol : 0;
}

/* Bits of enum address_kind; 0: nobody's. */
static __always_inline __u32 address_kinds(const struct address *address)
{
	const __u32 *kinds = bpf_map_lookup_elem(&addresses, address);

	return kinds ? READ_ONCE(*kinds) : 0;
}

static __always_inline bool frontend_key_equal(const struct frontend_key *a, const struct frontend_key *b)
{
	return address_equal(&a->address, &b->address) && a->port == b->port && a->protocol == b->protocol;
}

/* Reads an origin if it is in use and stands for the key. */
static __always_inline bool origin_read(__u32 id, const struct frontend_key *key, struct frontend *frontend)
{
	const struct origin *origin = bpf_map_lookup_elem(&origins, &id);
	union {
		__u64 word;
		struct {
			__u32 service, kind;
		};
	} owner;

	if (!origin || !frontend_key_equal(&origin->frontend, key))
		return false;
	owner.word = word_read(&origin->service);
	frontend->origin = id;
	frontend->service = owner.service;
	frontend->kind = owner.kind;
	return owner.kind != 0;
}

static __always_inline bool frontend_find(const struct frontend_key *key, struct frontend *frontend)
{
#pragma clang loop unroll(disable)
	for (int attempt = 0; attempt < LOOKUP_ATTEMPTS; attempt++) {
		const __u32 *origin = bpf_map_lookup_elem(&frontends, key);

		if (!origin)
			return false;
		if (origin_read(READ_ONCE(*origin), key, frontend))
			return true;
	}
	return false;
}

#endif
