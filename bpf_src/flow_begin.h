/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * How a connection begins: both ways of it are remembered, under tuples that are no other connection's.
 */
#ifndef KUBEPROXY_FLOW_BEGIN_H
#define KUBEPROXY_FLOW_BEGIN_H

#include "flow.h"
#include "flow_room.h"

enum {
	FIRST_LOW_PORT = 1024,
	LOW_PORTS = 30000 - FIRST_LOW_PORT,
	FIRST_HIGH_PORT = 61000,
	HIGH_PORTS = 65536 - FIRST_HIGH_PORT,
	PORTS_TRIED = 8,
};

/* 0: both make the same of a packet. */
static __always_inline __u64 rewrite_difference(const struct flow *one, const struct flow *other)
{
	return address_difference(&one->source, &other->source) |
	       address_difference(&one->destination, &other->destination) | (one->source_port ^ other->source_port) |
	       (one->destination_port ^ other->destination_port);
}

/*
 * Remembers what becomes of replies, unless they would be taken for another connection's.  Returns 0, or less if the
 * key is another's.  What stands is asked for last: it may just have moved there.
 */
static __noinline int reply_begin(const struct flow_key *key, const struct flow *reply)
{
	int error = bpf_map_update_elem(&opening_flows, key, reply, BPF_NOEXIST);
	const struct flow *other = standing_flow_find(key);

	if (!other && !error)
		return 0;
	if (!other)
		other = bpf_map_lookup_elem(&opening_flows, key);
	if (!other || !rewrite_difference(other, reply))
		return bpf_map_update_elem(&opening_flows, key, reply, BPF_ANY);
	if (!error)
		bpf_map_delete_elem(&opening_flows, key);
	return -1;
}

/*
 * Takes the key of replies from a connection that was reset, that both sides have closed, or of which only half is
 * left. `is_last`: it is enough that nobody has shown who its client is.  Returns as reply_begin().
 */
static __noinline int reply_take_over(const struct flow_key *key, const struct flow *reply, bool is_last)
{
	const struct flow *standing = standing_flow_find(key);
	const struct flow *flow = standing ? standing : bpf_map_lookup_elem(&opening_flows, key), *other;
	struct flow_key ALIGNED other_key;

	if (flow) {
		other_way_key(key, flow, &other_key);
		other = flow_find(&other_key);
		if (other && leads_back(other, key)) {
			__u32 state = flow->state | other->state;

			if (!(state & FLOW_RST) && !(flow->state & other->state & FLOW_FIN) &&
			    !(is_last && (!standing || state & FLOW_UNCONFIRMED)))
				return -1;
			flow_retire(&other_key);
		}
		flow_retire(key);
	}
	return bpf_map_update_elem(&opening_flows, key, reply, BPF_ANY);
}

/* A port that is neither a NodePort by default nor one that the kernel gives to sockets; in network order. */
static __always_inline __be16 random_port(void)
{
	__u32 number = bpf_get_prandom_u32() % (LOW_PORTS + HIGH_PORTS);

	return bpf_htons(number < LOW_PORTS ? FIRST_LOW_PORT + number : FIRST_HIGH_PORT + number - LOW_PORTS);
}

/*
 * The port to try first for a connection that gets an address of this node: the client's own, unless it may be a
 * NodePort or that of a socket of this node, whose connections it would take over.
 */
static __always_inline __be16 masquerade_port(__be16 port)
{
	__u16 number = bpf_ntohs(port);
	bool is_free = (number >= FIRST_LOW_PORT && number < FIRST_LOW_PORT + LOW_PORTS) || number >= FIRST_HIGH_PORT;

	return is_free ? port : random_port();
}

/*
 * Remembers what becomes of replies.  Two of a client's connections through different frontends may come to look alike
 * to their common backend: then the later one gets another source port.  Returns 0, or less if there is none.
 */
static __noinline int reply_port_find(const struct flow_key *key, struct flow *request)
{
	struct flow_key ALIGNED reply_key;
	struct flow ALIGNED reply;

	other_way_key(key, request, &reply_key);
	reply_make(key, request, &reply);
	if (!reply_begin(&reply_key, &reply) || !reply_take_over(&reply_key, &reply, false))
		return 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < PORTS_TRIED; i++) {
		reply_key.destination_port = random_port();
		request->source_port = reply_key.destination_port;
		if (!reply_begin(&reply_key, &reply))
			return 0;
	}
	return reply_take_over(&reply_key, &reply, true);
}

/*
 * Whether somebody else has begun the connection: its first packet comes again, or the next one is faster.  Then
 * `request` becomes what was begun.
 */
static __noinline bool flow_was_begun(const struct flow_key *key, struct flow *request)
{
	struct flow ALIGNED begun;

	if (!flow_copy(key, &begun) || !opening_goes_on(key, &begun))
		return false;
	*request = begun;
	return true;
}

/*
 * Lets a TCP connection stand from its first packet on: so it is written once, and each packet of it asks one table.
 * Returns 0, -EEXIST if its key is taken, or less if it has to begin as others do.
 */
static __noinline int flow_begin_standing(const struct flow_key *key, struct flow *request)
{
	struct flow_key ALIGNED reply_key;
	struct flow ALIGNED reply;
	int error;

	request->seen = tick_now();
	if (key->protocol != IPPROTO_TCP || request->state & FLOW_REFUSED || !flow_room_take())
		return -ENOSPC;
	request->state |= FLOW_UNCONFIRMED;
	error = bpf_map_update_elem(&flows, key, request, BPF_NOEXIST);
	request->state &= ~FLOW_UNCONFIRMED;
	if (error) {
		flow_room_return();
		return error;
	}
	if (bpf_map_lookup_elem(&opening_flows, key)) {
		error = -EEXIST;
	} else {
		other_way_key(key, request, &reply_key);
		reply_make(key, request, &reply);
		error = bpf_map_update_elem(&flows, &reply_key, &reply, BPF_NOEXIST);
		if (!error && !bpf_map_lookup_elem(&opening_flows, &reply_key))
			return 0;
		/* Answers would be taken for another connection's. */
		if (!error)
			standing_flow_retire(&reply_key);
		error = -ENOSPC;
	}
	standing_flow_retire(key);
	return error;
}

enum flow_beginning {
	FLOW_BEGUN,
	FLOW_WAS_BEGUN, /* before, and it goes on */
	FLOW_WITHOUT_PORT,
};

/* Remembers both ways of a new connection. */
static __always_inline enum flow_beginning flow_begin(const struct flow_key *key, struct flow *request)
{
	__be16 port = request->source_port;
	int error = flow_begin_standing(key, request);

	if (!error)
		return FLOW_BEGUN;
	/* What another CPU begins at this moment is in either table. */
	error = bpf_map_update_elem(&opening_flows, key, request, BPF_NOEXIST);
	if (error || (key->protocol == IPPROTO_TCP && standing_flow_find(key))) {
		if (flow_was_begun(key, request)) {
			if (!error)
				bpf_map_delete_elem(&opening_flows, key);
			return FLOW_WAS_BEGUN;
		}
		if (bpf_map_update_elem(&opening_flows, key, request, BPF_ANY))
			return FLOW_WITHOUT_PORT;
	}
	if (reply_port_find(key, request)) {
		bpf_map_delete_elem(&opening_flows, key);
		return FLOW_WITHOUT_PORT;
	}
	if (request->source_port != port && bpf_map_update_elem(&opening_flows, key, request, BPF_ANY)) {
		bpf_map_delete_elem(&opening_flows, key);
		return FLOW_WITHOUT_PORT;
	}
	return FLOW_BEGUN;
}

#endif
