/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Loopback addresses: as destinations they may have NodePorts, as sources they reach next to nothing.
 */
#ifndef KUBEPROXY_LOOPBACK_H
#define KUBEPROXY_LOOPBACK_H

#include "select.h"
#include "settings.h"

enum { LOOPBACK_SLOTS_TRIED = 32 };

/* From a loopback source the kernel sends to loopback and to its own addresses, and refuses all else. */
static __always_inline bool loopback_reaches(bool on_host, const struct settings *settings,
                                             const struct address *backend)
{
	struct address ALIGNED address = *backend;

	return address_is_loopback(&address) || (on_host && is_host_address(settings, &address));
}

/* Returns the backend in a slot, if a loopback source reaches it. */
GLOBAL __u32 loopback_slot_read(bool on_host, __u32 slot, __u32 service)
{
	const struct settings *settings = settings_get();
	struct choice choice;

	if (!settings || !slot_read(slot, service, &choice) ||
	    !loopback_reaches(on_host, settings, &choice.backend->address))
		return NO_BACKEND;
	return choice.id;
}

/* Picks a backend that a loopback source reaches, from the slot on that a number stands for. */
GLOBAL __u32 loopback_pick(bool on_host, __u64 set, __u32 number, __u32 service)
{
	__u32 count = set_count(set), offset = (__u64)number * count >> 32;

	for (__u32 tried = 0; tried < LOOPBACK_SLOTS_TRIED && tried < count; tried++) {
		__u32 backend = loopback_slot_read(on_host, set_base(set) + offset, service);

		if (backend != NO_BACKEND)
			return backend;
		if (++offset == count)
			offset = 0;
	}
	return NO_BACKEND;
}

#endif
