/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Loopback addresses: as destinations they may have NodePorts, as sources they reach next to nothing.
 */
#ifndef KUBEPROXY_LOOPBACK_H
#define KUBEPROXY_LOOPBACK_H

#include "select.h"
#include "settings.h"

enum { LOOPBACK_SLOTS_TRIED = 32 };

/* The destination that is looked up in place of 127.0.0.0/8; false if there is nothing to look up. */
static __always_inline bool loopback_destination(struct bpf_sock_addr *ctx, const struct settings *settings,
                                                 struct address *destination)
{
	if (!(settings->flags & SETTINGS_LOCALHOST_NODE_PORTS) || !is_host_namespace(ctx, settings))
		return false;
	destination->words[3] = IPV4_LOOPBACK;
	return true;
}

/* From a loopback source the kernel sends to loopback and to its own addresses, and refuses all else. */
static __always_inline bool loopback_reaches(struct bpf_sock_addr *ctx, const struct settings *settings,
                                             const struct address *backend)
{
	struct address ALIGNED address = *backend;

	if (address_is_loopback(&address))
		return true;
	if (!is_host_namespace(ctx, settings))
		return false;
	return address_equal(&address, &settings->host_source_ipv4) ||
	       address_equal(&address, &settings->host_source_ipv6) || address_kinds(&address) & ADDRESS_NODE;
}

/* Picks a backend that a loopback source reaches, from a random slot on. */
GLOBAL __u32 loopback_pick(struct bpf_sock_addr *ctx, __u64 set, __u32 service)
{
	const struct settings *settings = settings_get();
	__u32 count = set_count(set), offset = bpf_get_prandom_u32();
	struct choice choice;

	if (!settings || !count)
		return NO_BACKEND;
	offset = (__u64)offset * count >> 32;
	for (__u32 tried = 0; tried < LOOPBACK_SLOTS_TRIED && tried < count; tried++) {
		if (slot_read(set_base(set) + offset, service, &choice) &&
		    loopback_reaches(ctx, settings, &choice.backend->address))
			return choice.id;
		if (++offset == count)
			offset = 0;
	}
	return NO_BACKEND;
}

#endif
