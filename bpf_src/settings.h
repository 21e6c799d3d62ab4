/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What was decided before the programs were loaded (constants) and what may change while they run (one map entry).
 */
#ifndef KUBEPROXY_SETTINGS_H
#define KUBEPROXY_SETTINGS_H

#include "lookup.h"

/* enum verdict_form; the verifier removes what it rules out, calls of unknown helpers among it. */
const volatile __u32 verdict_form = VERDICT_FORM_LOOPBACK;

/* Only asked what would be decided: nothing is remembered. The verifier removes every write that is left then. */
const volatile bool dry_run = false;

/* The number of peer_names, a power of two, less one. */
const volatile __u32 peer_name_mask = (1 << 20) - 1;

static __always_inline const struct settings *settings_get(void)
{
	__u32 only = 0;

	return bpf_map_lookup_elem(&settings, &only);
}

static __always_inline bool prefixes_contain(const struct prefix *prefixes, __u32 count, const struct address *address)
{
	__u64 high = address_half(address, 0), low = address_half(address, 1);

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < MAX_CIDRS && i < count; i++) {
		const struct prefix *prefix = &prefixes[i];

		if ((low & address_half(&prefix->mask, 1)) == address_half(&prefix->network, 1) &&
		    (high & address_half(&prefix->mask, 0)) == address_half(&prefix->network, 0))
			return true;
	}
	return false;
}

/* Whether an address is known to be the host's own: one it sends from, or one that has NodePorts. */
static __always_inline bool is_host_address(const struct settings *settings, const struct address *address)
{
	return address_equal(address, &settings->host_source_ipv4) ||
	       address_equal(address, &settings->host_source_ipv6) || address_kinds(address) & ADDRESS_NODE;
}

#endif
