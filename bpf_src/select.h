/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * From a service to one of its backends.  A set is one word, so a reader sees all of an old one or all of a new
 * one; its slots and their backends stay as they are until every reader that may have seen it is done.
 */
#ifndef KUBEPROXY_SELECT_H
#define KUBEPROXY_SELECT_H

#include "lookup.h"

/* Where a function returns a backend id: there is none. */
#define NO_BACKEND 0xffffffffU

/* What a service says at one moment. */
struct service_view {
	__u64 set;         /* the one that applies here */
	__u32 in_set_flag; /* enum backend_flag of its members */
	__u32 affinity_seconds;
	__u32 flags; /* enum service_flag */
};

/* A backend that was picked. */
struct choice {
	const struct backend *backend;
	__u32 id;
	__u32 generation;
	__u16 flags; /* enum backend_flag */
	__be16 port;
};

static __always_inline __u32 set_base(__u64 set)
{
	return set >> 32;
}

static __always_inline __u32 set_count(__u64 set)
{
	return set;
}

/*
 * Reads a service, and which of its sets applies: internalTrafficPolicy decides for ClusterIPs; for everything else
 * externalTrafficPolicy does, but only for clients outside.  Pods and processes of the node use the whole
 * cluster's endpoints, as if they came through the load balancer.
 */
static __always_inline bool service_read(const struct frontend *frontend, bool outside, struct service_view *view)
{
	const struct service *service = bpf_map_lookup_elem(&services, &frontend->service);
	union {
		__u64 word;
		struct {
			__u32 affinity_seconds, flags;
		};
	} rules;

	if (!service)
		return false;
	/* Policy and set are two words.  An empty set may just have become so, and the policy with it another one. */
	for (int attempt = 0; attempt < 2; attempt++) {
		rules.word = word_read(&service->affinity_seconds);
		if (frontend->kind == FRONTEND_CLUSTER_IP ? rules.flags & SERVICE_INTERNAL_LOCAL
		                                          : outside && rules.flags & SERVICE_EXTERNAL_LOCAL) {
			view->set = READ_ONCE(service->local_set);
			view->in_set_flag = BACKEND_IN_LOCAL_SET;
		} else {
			view->set = READ_ONCE(service->cluster_set);
			view->in_set_flag = BACKEND_IN_CLUSTER_SET;
		}
		if (set_count(view->set))
			break;
	}
	view->affinity_seconds = rules.affinity_seconds;
	view->flags = rules.flags;
	return true;
}

/* Reads a backend; returns its flags, 0 if it is not the service's. */
static __always_inline __u16 backend_read(__u32 id, __u32 service, struct choice *choice)
{
	const struct backend *backend = bpf_map_lookup_elem(&backends, &id);
	union {
		__u64 word;
		struct {
			__u32 generation;
			__u16 flags;
			__be16 port;
		};
	} state;

	if (!backend || backend->service != service)
		return 0;
	state.word = word_read(&backend->generation);
	choice->backend = backend;
	choice->id = id;
	choice->generation = state.generation;
	choice->flags = state.flags;
	choice->port = state.port;
	return state.flags;
}

static __always_inline bool slot_read(__u32 slot, __u32 service, struct choice *choice)
{
	const struct slot *entry = bpf_map_lookup_elem(&slots, &slot);

	return entry && backend_read(READ_ONCE(entry->backend), service, choice);
}

/* Takes the member of a set that a number stands for; every number of 32 bits is as good as another. */
static __always_inline bool set_pick(__u64 set, __u32 number, __u32 service, struct choice *choice)
{
	__u32 offset = (__u64)number * set_count(set) >> 32;

	return slot_read(set_base(set) + offset, service, choice);
}

/*
 * A UDP socket comes to the same backend of a frontend whenever it asks, as long as the set is the same.
 * The multiplier is 2^64 divided by the golden ratio: consecutive cookies spread evenly.
 */
static __always_inline __u32 socket_hash(__u64 cookie, __u32 origin)
{
	return (cookie + ((__u64)origin << 32)) * 0x9e3779b97f4a7c15ULL >> 32;
}

#endif
