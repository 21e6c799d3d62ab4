/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * sessionAffinity ClientIP.  Clients travel as halves of what stands for them in the key.
 */
#ifndef KUBEPROXY_AFFINITY_H
#define KUBEPROXY_AFFINITY_H

#include "select.h"
#include "settings.h"

static __always_inline void affinity_key_set(__u32 service, __u64 client_first, __u64 client_second,
                                             struct affinity_key *key)
{
	key->service = service;
	key->pad = 0;
	address_set_halves(&key->client, client_first, client_second);
}

/* Finds the backend that the client must go back to, and starts its time anew. */
GLOBAL __u32 affinity_find(__u64 client_first, __u64 client_second, __u32 service, __u32 seconds, __u32 in_set_flag)
{
	struct affinity_key ALIGNED key;
	struct affinity_record *record;
	struct choice choice;
	__u64 now;

	affinity_key_set(service, client_first, client_second, &key);
	record = bpf_map_lookup_elem(&affinity, &key);
	if (!record)
		return NO_BACKEND;
	/* The endpoint may have gone, or left the set that applies here: then it is as if there were no record. */
	if (!(backend_read(READ_ONCE(record->backend), service, &choice) & in_set_flag) ||
	    choice.generation != READ_ONCE(record->generation))
		return NO_BACKEND;
	now = bpf_ktime_get_boot_ns();
	/* Signed, as another CPU may have stored a later time since this one read the clock. */
	if ((__s64)(now - READ_ONCE(record->last_connection)) >= (__s64)seconds * 1000000000)
		return NO_BACKEND;
	if (!dry_run)
		record->last_connection = now;
	return choice.id;
}

GLOBAL int affinity_remember(__u64 client_first, __u64 client_second, __u32 service, __u32 backend, __u32 generation)
{
	struct affinity_record record = {
		.backend = backend,
		.generation = generation,
		.last_connection = bpf_ktime_get_boot_ns(),
	};
	struct affinity_key ALIGNED key;

	if (dry_run)
		return 0;
	affinity_key_set(service, client_first, client_second, &key);
	return bpf_map_update_elem(&affinity, &key, &record, BPF_ANY);
}

#endif
