/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Takes connections out of `flows` whose time is over: an iterator, which the kernel runs over the whole map, each time
 * that somebody reads it.  What is over is marked in one sweep and deleted in a later one: by then nobody can be in the
 * middle of reading it.  The time-outs are nf_conntrack's, as kube-proxy sets them.
 */
#include <stddef.h>

#include "vmlinux.h"

#include "flow_maps.h"
#include "lookup.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sweep_state);
} sweep_state SEC(".maps");

/* In seconds. */
const volatile __u32 tcp_established_timeout = 86400;
const volatile __u32 tcp_close_wait_timeout = 3600;
const volatile __u32 tcp_time_wait_timeout = 120;
const volatile __u32 tcp_close_timeout = 10;
const volatile __u32 tcp_unconfirmed_timeout = 60;
const volatile __u32 udp_timeout = 120;

static __always_inline __u32 seconds_since(__u32 seen, __u32 now)
{
	/* Another CPU may have noted a later tick than this one read. */
	__s32 ticks = now - seen;

	return ticks > 0 ? ((__u64)ticks << FLOW_TICK) / jiffies_per_second : 0;
}

static __always_inline const struct flow *other_way_find(const struct flow_key *key, const struct flow *flow)
{
	struct flow_key ALIGNED other_key;
	const struct flow *other;

	other_way_key(key, flow, &other_key);
	other = bpf_map_lookup_elem(&flows, &other_key);
	return other && leads_back(other, key) ? other : NULL;
}

/*
 * The state of a connection is what was seen of both of its ways; of one whose other way is gone, nothing more will
 * come. In a crowded table one that was closed stays no longer than one that was reset.
 */
static __always_inline __u32 timeout_seconds(__u8 protocol, const struct flow *flow, const struct flow *other,
                                             bool is_crowded)
{
	__u32 state = READ_ONCE(flow->state), other_state = other ? READ_ONCE(other->state) : 0;

	if (protocol == IPPROTO_UDP)
		return udp_timeout;
	if ((state | other_state) & FLOW_RST)
		return tcp_close_timeout;
	if (!other || !READ_ONCE(flow->seen) || !READ_ONCE(other->seen) || (state | other_state) & FLOW_UNCONFIRMED)
		return tcp_unconfirmed_timeout;
	if (state & other_state & FLOW_FIN)
		return is_crowded ? tcp_close_timeout : tcp_time_wait_timeout;
	return (state | other_state) & FLOW_FIN ? tcp_close_wait_timeout : tcp_established_timeout;
}

/* Whether a connection's time is over, in this direction and in the other. */
static __always_inline bool flow_is_over(const struct flow_key *key, const struct flow *flow, const struct flow *other,
                                         bool is_crowded)
{
	__u32 now = tick_now(), idle = seconds_since(READ_ONCE(flow->seen), now);

	if (other) {
		__u32 other_idle = seconds_since(READ_ONCE(other->seen), now);

		if (other_idle < idle)
			idle = other_idle;
	}
	return idle > timeout_seconds(key->protocol, flow, other, is_crowded);
}

SEC("iter/bpf_map_elem")
int sweep(struct bpf_iter__bpf_map_elem *ctx)
{
	const struct flow_key *found = ctx->key;
	const struct flow *other;
	struct flow *flow = ctx->value;
	struct flow_key ALIGNED key;
	struct sweep_state *state;
	__u32 only = 0;
	bool is_over;

	state = bpf_map_lookup_elem(&sweep_state, &only);
	if (!state || !found || !flow)
		return 0;
	key = *found;
	other = other_way_find(&key, flow);
	is_over = flow_is_over(&key, flow, other, state->is_crowded);
	state->kept++;
	if (!(flow->state & FLOW_SWEPT)) {
		if (is_over || flow->state & FLOW_RETIRED)
			flow->state |= FLOW_SWEPT; /* lost to a packet that comes meanwhile, as it should be */
		else
			state->standing++;
	} else if (flow->state & FLOW_RETIRED || is_over || !other || other->state & FLOW_SWEPT) {
		bpf_map_delete_elem(&flows, &key);
		state->kept--;
	} else {
		/* The other way was used after this one was marked, and before it could be. */
		flow->state &= ~FLOW_SWEPT;
	}
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
