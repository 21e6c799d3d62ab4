/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Every map with its real layout, and programs that only answer, for tests of the loader: it must not matter
 * to it what the programs do.  Macros make the other versions that an upgrade meets:
 *   ANSWER=n       what connect4 returns: 1 lets pass, 0 refuses (EPERM)
 *   WIDER_SLOT     the slots map has values of another size
 *   PLACES=n       the array whose size the programs have built in has n places
 *   NEW_MAP        there is a map that the version before did not have
 *   WITHOUT_IPV6   there are fewer programs
 *   REFUSED        the verifier refuses sock_release, the last program
 */
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

#include "map_types.h"

#ifndef ANSWER
#define ANSWER 1
#endif

const volatile __u32 answer = ANSWER;
const volatile __u32 peer_name_mask = 0;

#define ARRAY_OF(map_name, struct_name)                                                                                \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                      \
		__uint(map_flags, BPF_F_MMAPABLE);                                                                     \
		__uint(max_entries, 1);                                                                                \
		__type(key, __u32);                                                                                    \
		__type(value, struct struct_name);                                                                     \
	} map_name SEC(".maps")

#define KEYED(map_name, map_type, flags, key_type, value_type)                                                         \
	struct {                                                                                                       \
		__uint(type, map_type);                                                                                \
		__uint(map_flags, flags);                                                                              \
		__uint(max_entries, 1);                                                                                \
		__type(key, key_type);                                                                                 \
		__type(value, value_type);                                                                             \
	} map_name SEC(".maps")

#ifdef WIDER_SLOT
struct wider_slot {
	struct slot slot;
	__u64 more;
};
ARRAY_OF(slots, wider_slot);
#else
ARRAY_OF(slots, slot);
#endif
ARRAY_OF(services, service);
ARRAY_OF(backends, backend);
ARRAY_OF(origins, origin);
ARRAY_OF(settings, settings);
KEYED(addresses, BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC, struct address, __u32);
KEYED(frontends, BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC, struct frontend_key, __u32);
KEYED(source_ranges, BPF_MAP_TYPE_LPM_TRIE, BPF_F_NO_PREALLOC, struct source_range_key, __u32);
KEYED(service_names, BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC, __u32, struct service_name);
KEYED(affinity, BPF_MAP_TYPE_LRU_HASH, 0, struct affinity_key, struct affinity_record);
ARRAY_OF(peer_names, peer_name);
KEYED(service_counters, BPF_MAP_TYPE_PERCPU_ARRAY, 0, __u32, struct service_counter);
KEYED(socket_origins_overflow, BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC, struct overflow_key, struct overflow_origin);
#ifndef PLACES
#define PLACES 4
#endif

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PLACES);
	__type(key, __u32);
	__type(value, __u64);
} sole_origins SEC(".maps");

#ifdef NEW_MAP
KEYED(new_map, BPF_MAP_TYPE_HASH, 0, __u32, __u32);
#endif

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

/* Counts each of its runs at service 0, and tells its constant. */
SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *context)
{
	struct service_counter *counter;
	__u32 zero = 0, mask = peer_name_mask;

	counter = bpf_map_lookup_elem(&service_counters, &zero);
	if (counter)
		counter->connections++;
	bpf_ringbuf_output(&events, &mask, sizeof(mask), 0);
	return answer;
}

#define PASSING(name)                                                                                                  \
	SEC("cgroup/" #name)                                                                                           \
	int name(struct bpf_sock_addr *context)                                                                        \
	{                                                                                                              \
		return 1;                                                                                              \
	}

PASSING(sendmsg4)
PASSING(recvmsg4)
PASSING(getpeername4)
#ifndef WITHOUT_IPV6
PASSING(connect6)
PASSING(sendmsg6)
PASSING(recvmsg6)
PASSING(getpeername6)
#endif

SEC("cgroup/sock_release")
int sock_release(struct bpf_sock *context)
{
#ifdef REFUSED
	return *(volatile int *)0;
#else
	return 1;
#endif
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
