/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Room that connections may take among those that stand before anybody has shown who their client is.  User space gives
 * it after each sweep: what is left of half of the table, so that a flood can take no more than that.
 */
#ifndef KUBEPROXY_FLOW_ROOM_H
#define KUBEPROXY_FLOW_ROOM_H

#include "flow_maps.h"

/* How many entries are left for all CPUs; user space, and the programs as they take some. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_room);
} flow_room SEC(".maps");

/* What each CPU has taken of them, and not used yet; the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_room_share);
} flow_room_shares SEC(".maps");

enum { ROOM_WAYS = 2 }; /* of a connection */

static __always_inline struct flow_room_share *flow_room_share_get(void)
{
	__u32 only = 0;

	return bpf_map_lookup_elem(&flow_room_shares, &only);
}

static __always_inline bool flow_room_share_refill(struct flow_room_share *share)
{
	__u32 only = 0;
	struct flow_room *room = bpf_map_lookup_elem(&flow_room, &only);

	if (!room || READ_ONCE(room->entries) < FLOW_ROOM_SHARE)
		return false;
	/* Not __sync_fetch_and_add(): newer compilers make of it what kernels before 5.12 do not know. */
	__atomic_fetch_add(&room->entries, -FLOW_ROOM_SHARE, __ATOMIC_RELAXED);
	share->entries += FLOW_ROOM_SHARE;
	return true;
}

/* Takes room for both ways of a connection; false: there is none. */
static __always_inline bool flow_room_take(void)
{
	struct flow_room_share *share = flow_room_share_get();

	if (!share || (share->entries < ROOM_WAYS && !flow_room_share_refill(share)))
		return false;
	share->entries -= ROOM_WAYS;
	return true;
}

/* Gives back what was taken in vain. */
static __always_inline void flow_room_return(void)
{
	struct flow_room_share *share = flow_room_share_get();

	if (share)
		share->entries += ROOM_WAYS;
}

#endif
