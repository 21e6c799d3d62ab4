/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What getpeername() says of a TCP socket: the frontend it asked for.  An array that is written without
 * locks and may forget; what it says is checked.
 */
#ifndef KUBEPROXY_PEER_NAMES_H
#define KUBEPROXY_PEER_NAMES_H

#include "lookup.h"
#include "settings.h"

union peer_name_word {
	__u64 word;
	struct peer_name name;
};

/* A check sum of who connected, what it asked for and where it was sent: a multilinear hash. */
static __always_inline __u32 peer_check(__u64 cookie, const struct frontend_key *frontend, const struct address *peer,
                                        __be16 peer_port)
{
	__u64 sum = (cookie + 1) * 0x9e3779b97f4a7c15ULL;

	sum += address_half(&frontend->address, 0) * 0xbf58476d1ce4e5b9ULL;
	sum += address_half(&frontend->address, 1) * 0x94d049bb133111ebULL;
	sum += address_half(peer, 0) * 0xd6e8feb86659fd93ULL;
	sum += address_half(peer, 1) * 0xa0761d6478bd642fULL;
	sum += ((__u64)frontend->port << 16 | peer_port) * 0xe7037ed1a0b428dbULL;
	return sum >> 32;
}

static __always_inline void peer_name_remember(__u64 cookie, __u32 origin, const struct frontend_key *frontend,
                                               const struct address *peer, __be16 peer_port)
{
	__u32 slot = cookie & peer_name_mask;
	struct peer_name *entry = bpf_map_lookup_elem(&peer_names, &slot);
	union peer_name_word new = {.name = {peer_check(cookie, frontend, peer, peer_port), origin}};

	if (entry)
		*(volatile __u64 *)entry = new.word;
}

/* Returns the origin that a socket reached its peer through, or NULL. */
static __always_inline const struct origin *peer_name_find(__u64 cookie, const struct address *peer, __be16 peer_port)
{
	__u32 slot = cookie & peer_name_mask;
	const struct peer_name *entry = bpf_map_lookup_elem(&peer_names, &slot);
	const struct origin *origin;
	union peer_name_word seen;

	if (!entry)
		return NULL;
	seen.word = word_read(entry);
	origin = bpf_map_lookup_elem(&origins, &seen.name.origin);
	if (!origin || !READ_ONCE(origin->kind))
		return NULL;
	return peer_check(cookie, &origin->frontend, peer, peer_port) == seen.name.check ? origin : NULL;
}

#endif
