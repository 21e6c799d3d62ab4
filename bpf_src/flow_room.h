/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Room that connections may take among those that stand before they are answered.  User space gives it after each
 * sweep: what is left of half of the table, so that a flood can take no more than that.
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

enum {
	ROOM_WAYS = 2,   /* of a connection */
	ROOM_SHARE = 64, /* entries that a CPU takes at once */
	ROOM_PAUSE = 60, /* seconds without, after there was none */
};

static __always_inline bool flow_room_share_refill(struct flow_room_share *share, __u32 only)
{
	struct flow_room *room = bpf_map_lookup_elem(&flow_room, &only);

	if (!room || READ_ONCE(room->entries) < ROOM_SHARE) {
		share->empty_at = tick_now();
		return false;
	}
	__sync_fetch_and_add(&room->entries, -ROOM_SHARE);
	share->entries += ROOM_SHARE;
	return true;
}

/*
 * Takes room for both ways of a connection; false: there is none.  Nor is there any soon after there was none: what
 * began then is in the other table, where its first packet would not be looked for if it came again.
 */
static __always_inline bool flow_room_take(void)
{
	__u32 only = 0, pause = ROOM_PAUSE * jiffies_per_second >> FLOW_TICK;
	struct flow_room_share *share = bpf_map_lookup_elem(&flow_room_shares, &only);

	if (!share || (share->empty_at && (__u32)tick_now() - share->empty_at < pause))
		return false;
	if (share->entries < ROOM_WAYS && !flow_room_share_refill(share, only))
		return false;
	share->entries -= ROOM_WAYS;
	return true;
}

#endif
