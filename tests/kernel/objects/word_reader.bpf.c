/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Reads one published word over and over, the two halves of which are equal: for tests of publishing. */
#include <linux/types.h>

#include "lookup.h"

struct words {
	__u64 runs;
	__u64 changed; /* runs that read different words */
	__u64 torn;    /* runs that read a word whose halves are not equal */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct words);
} words SEC(".maps");

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *context)
{
	__u32 only = 0, one = 1;
	struct words *seen = bpf_map_lookup_elem(&words, &only);
	const struct service *service = bpf_map_lookup_elem(&services, &one);
	__u64 first, changed = 0, torn = 0;

	if (!seen || !service)
		return 1;
	first = word_read(&service->cluster_set);
	/* Without a branch, each of which the verifier would follow on both sides. */
#pragma clang loop unroll(disable)
	for (int i = 0; i < READS; i++) {
		__u64 word = word_read(&service->cluster_set);

		torn |= (word >> 32) ^ (__u32)word;
		changed |= word ^ first;
	}
	__sync_fetch_and_add(&seen->runs, 1);
	if (changed)
		__sync_fetch_and_add(&seen->changed, 1);
	if (torn)
		__sync_fetch_and_add(&seen->torn, 1);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
