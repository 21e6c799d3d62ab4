/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A program that takes its time, and says when it is under way: for tests of the grace period. */
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

struct progress {
	__u64 begun;
	__u64 ended;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct progress);
} progress SEC(".maps");

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *context)
{
	__u32 only = 0;
	struct progress *runs = bpf_map_lookup_elem(&progress, &only);
	__u64 sum = 0;

	if (!runs)
		return 1;
	__sync_fetch_and_add(&runs->begun, 1);
#pragma clang loop unroll(disable)
	for (int i = 0; i < 60000; i++)
		sum += bpf_ktime_get_ns();
	__sync_fetch_and_add(&runs->ended, sum ? 1 : 0);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
