/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Counting decisions, each CPU for itself. */
#ifndef KUBEPROXY_COUNTERS_H
#define KUBEPROXY_COUNTERS_H

#include "maps.h"

/* The counter of a service; a service beyond the map's end shares that of id 0. */
static __always_inline struct service_counter *service_counter_get(__u32 service)
{
	struct service_counter *counter = bpf_map_lookup_elem(&service_counters, &service);
	__u32 shared = 0;

	return counter ? counter : bpf_map_lookup_elem(&service_counters, &shared);
}

static __always_inline void connection_count(__u32 service)
{
	struct service_counter *counter = service_counter_get(service);

	if (counter)
		counter->connections++;
}

static __always_inline void refusal_count(__u32 service)
{
	struct service_counter *counter = service_counter_get(service);

	if (counter)
		counter->refused++;
}

static __always_inline void reason_count(__u32 reason)
{
	__u64 *count = bpf_map_lookup_elem(&reason_counters, &reason);

	if (count)
		++*count;
}

#endif
