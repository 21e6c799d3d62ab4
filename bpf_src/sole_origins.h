/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The only pair of frontend and backend that a UDP socket has used.  Most never use another, a resolver's least of
 * all, and making storage for a socket costs more than all else that is done for it here: so the first pair
 * is kept in an array, at a place that the socket's cookie names, if nobody has it.
 *
 * A place is taken under its lock and given back when the socket is closed, or when it uses a second pair and gets
 * its storage.  In between only its owner reads or writes it.
 */
#ifndef KUBEPROXY_SOLE_ORIGINS_H
#define KUBEPROXY_SOLE_ORIGINS_H

#include "lookup.h"

static __always_inline struct sole_origin *sole_origin_place(__u64 cookie)
{
	__u32 place = cookie & (SOLE_ORIGINS - 1);

	return bpf_map_lookup_elem(&sole_origins, &place);
}

/* Returns the socket's place if it has one. */
static __always_inline struct sole_origin *sole_origin_get(__u64 cookie)
{
	struct sole_origin *sole = sole_origin_place(cookie);

	return sole && READ_ONCE(sole->cookie) == cookie ? sole : NULL;
}

/* Takes the socket's place; NULL if another socket has it. */
static __always_inline struct sole_origin *sole_origin_take(__u64 cookie)
{
	struct sole_origin *sole = sole_origin_place(cookie);
	bool is_free = false;

	if (!sole || READ_ONCE(sole->cookie))
		return NULL;
	bpf_spin_lock(&sole->lock);
	if (!sole->cookie) {
		sole->cookie = cookie;
		is_free = true;
	}
	bpf_spin_unlock(&sole->lock);
	return is_free ? sole : NULL;
}

/* Under the lock, so that the owner's last look at the pair comes before the next owner's first write to it. */
static __always_inline void sole_origin_give_back(struct sole_origin *sole)
{
	bpf_spin_lock(&sole->lock);
	sole->cookie = 0;
	bpf_spin_unlock(&sole->lock);
}

#endif
