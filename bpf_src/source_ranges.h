/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * loadBalancerSourceRanges: which sources may use a service's load balancer addresses.
 */
#ifndef KUBEPROXY_SOURCE_RANGES_H
#define KUBEPROXY_SOURCE_RANGES_H

#include "settings.h"

static __always_inline bool source_is_in_ranges(__u32 service, const struct address *source)
{
	struct source_range_key ALIGNED key = {
		.prefix_length = 8 * (sizeof(key.service) + sizeof(key.address)),
		.service = service,
		.address = *source,
	};

	return bpf_map_lookup_elem(&source_ranges, &key);
}

/* The host has many addresses; user space knows which one the kernel prefers. Source has the family that is meant. */
static __always_inline bool host_source_read(const struct settings *settings, struct address *source)
{
	const struct address *published =
		source->words[2] == IPV4_MAPPED ? &settings->host_source_ipv4 : &settings->host_source_ipv6;

	if (address_is_unspecified(published))
		return false;
	*source = *published;
	return true;
}

#endif
