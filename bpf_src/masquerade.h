/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Which connections get an address of this node as their source.  User space decided for whom; here it is looked up.
 */
#ifndef KUBEPROXY_MASQUERADE_H
#define KUBEPROXY_MASQUERADE_H

#include "select.h"
#include "settings.h"

/* A service's answer for a kind of frontend and enum source. */
static __always_inline bool service_masquerades(__u32 service_flags, __u32 frontend_kind, __u32 from)
{
	__u32 bits = frontend_kind == FRONTEND_CLUSTER_IP ? SERVICE_MASQUERADE_CLUSTER_IP : SERVICE_MASQUERADE_EXTERNAL;

	return service_flags & bits << from;
}

/* Whether a connection to a backend is: one that comes back to its client always, one to the host itself never. */
static __always_inline bool is_masqueraded(const struct settings *settings, bool by_service,
                                           const struct address *source, const struct address *backend)
{
	struct address ALIGNED address = *backend;

	return !is_host_address(settings, &address) && (by_service || address_equal(source, &address));
}

#endif
