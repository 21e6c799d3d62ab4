/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A connection's life once it has begun: it stays once it is answered, goes on and ends.  An entry is all that a packet
 * needs.
 *
 * What has not been answered yet is in a table of its own unless there is plenty of room, one that forgets what was
 * used least: a flood of openings pushes out other openings, and never a connection that stands.
 */
#ifndef KUBEPROXY_FLOW_H
#define KUBEPROXY_FLOW_H

#include <linux/errno.h>

#include "counters.h"
#include "flow_maps.h"
#include "packet.h"
#include "select.h"

enum { ANSWER_TICKS = 16 }; /* for so long after an answer a SYN is a stray one: some seconds, forty at most */

/* A TCP segment that opens a connection: nothing else makes a flow. */
static __always_inline bool packet_opens(const struct packet *packet)
{
	if (packet->tuple.protocol == IPPROTO_UDP)
		return true;
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

/* Whether the backend that a flow was given serves still; one without a backend needs none. */
static __always_inline bool flow_backend_stands(const struct flow *flow)
{
	struct choice choice;

	return !flow->service ||
	       (backend_read(flow->backend, flow->service, &choice) && choice.generation == flow->generation);
}

/*
 * Whether a SYN is another one of a connection that there is.  After the end of one it begins a new one, and so it does
 * once the backend is gone and has not answered of late.  `other`: the other way, NULL: there is none.
 */
static __always_inline bool syn_is_repeated(const struct flow *flow, const struct flow *other)
{
	__u32 state = flow->state;
	bool is_answered = false;

	if (other) {
		state |= other->state;
		is_answered = other->seen && tick_now() - other->seen < ANSWER_TICKS;
	}
	return !(state & (FLOW_FIN | FLOW_RST | FLOW_REFUSED)) && (is_answered || flow_backend_stands(flow));
}

/* Whether a datagram belongs to the flow that its tuple had before. What was refused is judged anew. */
static __always_inline bool datagram_goes_on(const struct flow *flow)
{
	return !(flow->state & FLOW_REFUSED) && flow_backend_stands(flow);
}

/*
 * Whether what opens a connection belongs to the one that its tuple had before.  UDP leaves a backend that serves no
 * more; a TCP connection goes on for as long as its endpoint does.  One whose answers are another's by now is over.
 * What is over is forgotten: it makes room.
 */
static __noinline bool opening_goes_on(const struct flow_key *key, const struct flow *flow)
{
	struct flow_key ALIGNED other_key;
	const struct flow *other;
	bool is_halved;

	other_way_key(key, flow, &other_key);
	other = flow_find(&other_key);
	is_halved = other && !leads_back(other, key);
	if (!is_halved && (key->protocol == IPPROTO_TCP ? syn_is_repeated(flow, other) : datagram_goes_on(flow)))
		return true;
	if (flow->state & FLOW_REQUEST) {
		if (!is_halved)
			flow_retire(&other_key);
		flow_retire(key);
	}
	return false;
}

/* The same of any packet: what opens nothing goes on. Next to all of UDP's do so, too, at no more than a look. */
static __always_inline bool flow_goes_on(const struct flow *flow, const struct packet *packet)
{
	if (!packet_opens(packet) || (packet->tuple.protocol == IPPROTO_UDP && datagram_goes_on(flow)))
		return true;
	return opening_goes_on(&packet->tuple, flow);
}

/* Notes that a packet went this way. */
static __always_inline void flow_track(struct flow *flow, const struct packet *packet)
{
	__u32 state = flow->state, now = tick_now();

	if (packet->tcp_flags & TCP_FIN)
		state |= FLOW_FIN;
	/* Whoever is not who it says cannot go on: an endpoint answers what does not fit with a reset. */
	if (!(packet->tcp_flags & TCP_SYN))
		state &= ~FLOW_UNCONFIRMED;
	/* A reset that its receiver did not believe in has ended nothing. */
	state = packet->tcp_flags & TCP_RST ? state | FLOW_RST : state & ~FLOW_RST;
	/* Writing what is there already would take the cache line from other CPUs. */
	if (flow->state != state)
		flow->state = state;
	if (flow->seen != now)
		flow->seen = now;
}

/* What answers a request: under which tuple it comes, and what becomes of it. */
static __always_inline void reply_make(const struct flow_key *request_key, const struct flow *request,
                                       struct flow *reply)
{
	*reply = *request;
	reply->source = request_key->destination;
	reply->destination = request_key->source;
	reply->source_port = request_key->destination_port;
	reply->destination_port = request_key->source_port;
	reply->seen = 0;
	reply->state = 0;
}

/* Lets one way of a connection stay. Returns 0, or less if there is no room, or another one in its place. */
static __always_inline int flow_keep(const struct flow_key *key, const struct flow *flow)
{
	int error = bpf_map_update_elem(&flows, key, flow, BPF_NOEXIST);

	if (error == -E2BIG)
		reason_count(REASON_FLOWS_FULL);
	return error;
}

/*
 * A request that comes after an answer shows that its client is who it says: from now on the connection stays.  Where
 * there is no room for it, it goes on as one that may be forgotten.  Returns whether it stays.
 */
static __noinline bool flow_assure(const struct flow_key *key, const struct flow *opening)
{
	struct flow_key ALIGNED reply_key;
	struct flow ALIGNED flow;
	const struct flow *reply;

	/* One that was swept may be in its place still. */
	if (bpf_map_lookup_elem(&flows, key))
		return false;
	other_way_key(key, opening, &reply_key);
	reply = bpf_map_lookup_elem(&opening_flows, &reply_key);
	if (!reply) {
		reply_make(key, opening, &flow);
		bpf_map_update_elem(&opening_flows, &reply_key, &flow, BPF_NOEXIST);
		return false;
	}
	if (!READ_ONCE(reply->seen) || !leads_back(reply, key))
		return false;
	reply_make(key, opening, &flow);
	flow.seen = tick_now();
	flow.state = READ_ONCE(reply->state);
	if (flow_keep(&reply_key, &flow))
		return false;
	if (flow_keep(key, opening)) {
		standing_flow_retire(&reply_key);
		return false;
	}
	bpf_map_delete_elem(&opening_flows, key);
	bpf_map_delete_elem(&opening_flows, &reply_key);
	return true;
}

/*
 * Finds the entry of a connection that is not answered yet, and copies it.  The kernel gives its place to another at
 * any moment: what was read counts if the place is still the key's afterwards.
 */
static __always_inline struct flow *opening_flow_read(const struct flow_key *key, struct flow *copy)
{
	struct flow *flow = bpf_map_lookup_elem(&opening_flows, key);

	if (!flow)
		return NULL;
	*copy = *flow;
	return bpf_map_lookup_elem(&opening_flows, key) == flow ? flow : NULL;
}

/* Copies what becomes of packets with a tuple, for those that only follow a connection; false: there is none. */
static __always_inline bool flow_copy(const struct flow_key *key, struct flow *copy)
{
	const struct flow *standing = standing_flow_find(key);

	if (!standing)
		return opening_flow_read(key, copy);
	*copy = *standing;
	return true;
}

/* Whether a packet may show that its connection was answered. What was in vain is not tried again in the same tick. */
static __always_inline bool may_assure(const struct packet *packet, const struct flow *opening)
{
	bool was_in_vain = opening->state & FLOW_UNASSURED && opening->seen == tick_now();

	return opening->state & FLOW_REQUEST && !(packet->tcp_flags & TCP_SYN) && !was_in_vain;
}

/*
 * Copies what becomes of a packet of a connection that was not answered when it was last looked at, and returns where
 * that is kept; NULL: there is none.
 */
static __always_inline struct flow *opening_flow_follow(const struct packet *packet, struct flow *copy)
{
	struct flow *flow = opening_flow_read(&packet->tuple, copy), *moved;
	bool is_assured;

	if (!flow || !may_assure(packet, copy))
		return flow;
	copy->state &= ~FLOW_UNASSURED;
	is_assured = flow_assure(&packet->tuple, copy);
	/* If it stays now, by whomever, its old place may be another's. */
	moved = standing_flow_find(&packet->tuple);
	if (moved)
		return moved;
	if (!is_assured && bpf_map_lookup_elem(&opening_flows, &packet->tuple) == flow)
		flow->state |= FLOW_UNASSURED;
	return flow;
}

#endif
