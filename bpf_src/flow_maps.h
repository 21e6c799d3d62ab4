/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Where connections are remembered: two entries each, one for either way, under the tuple that comes to the hook.
 */
#ifndef KUBEPROXY_FLOW_MAPS_H
#define KUBEPROXY_FLOW_MAPS_H

#include "address.h"
#include "flow_types.h"

/* A packet's tuple -> its rewrite, of connections that stand; the programs. Swept. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* The same of connections that may be forgotten; the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct flow);
} opening_flows SEC(".maps");

/* How many jiffies a second has; user space finds out. */
const volatile __u32 jiffies_per_second = 250;

/* Jiffies are read at next to no price; what asks a clock costs as much as a look-up. */
static __always_inline __u32 tick_now(void)
{
	return bpf_jiffies64() >> FLOW_TICK;
}

/* The key under which the other way of a flow stands. Both ways of one that stays on this node pass different hooks. */
static __always_inline void other_way_key(const struct flow_key *key, const struct flow *flow, struct flow_key *other)
{
	other->source = flow->destination;
	other->destination = flow->source;
	other->source_port = flow->destination_port;
	other->destination_port = flow->source_port;
	other->protocol = key->protocol;
	other->hook = key->hook == FLOW_INGRESS ? FLOW_EGRESS : FLOW_INGRESS;
	other->pad = 0;
}

/*
 * Whether an entry is the other way of a connection.  Of one that has ended, the key may be another's by now: two that
 * look alike to their common backend have one after the other.
 */
static __always_inline bool leads_back(const struct flow *other, const struct flow_key *key)
{
	return !(address_difference(&other->source, &key->destination) |
	         address_difference(&other->destination, &key->source) | (other->source_port ^ key->destination_port) |
	         (other->destination_port ^ key->source_port));
}

/*
 * The entry of a packet that stays.  The sweep deletes it only a period after it marked it: whoever has found it can
 * read it to the end.
 */
static __always_inline struct flow *standing_flow_find(const struct flow_key *key)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);

	return flow && !(flow->state & (FLOW_SWEPT | FLOW_RETIRED)) ? flow : NULL;
}

/* The entry of a key, in either table. What is about to be deleted is nobody's, and hides nothing. */
static __always_inline struct flow *flow_find(const struct flow_key *key)
{
	struct flow *standing = standing_flow_find(key);

	return standing ? standing : bpf_map_lookup_elem(&opening_flows, key);
}

/* Ends a connection that stands, in one direction. */
static __always_inline void standing_flow_retire(const struct flow_key *key)
{
	struct flow *standing = bpf_map_lookup_elem(&flows, key);

	if (standing)
		standing->state |= FLOW_RETIRED;
}

/* Makes an entry nobody's, in whichever table it is. */
static __always_inline void flow_retire(const struct flow_key *key)
{
	standing_flow_retire(key);
	bpf_map_delete_elem(&opening_flows, key);
}

#endif
