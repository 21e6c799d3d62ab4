/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The real way from a frontend to a backend, with a pause after every look-up, between finding an entry and reading
 * it: for tests of what writers may do to a reader that is under way.
 *
 * Frontend n is 10.96.0.n:80, and only endpoints 10.1.n.x:8000+n ever belong to it, so that the outcome tells of any
 * id that changed hands on the way.  Macros: FRONTENDS, how many there are; KEPT, how many of them, the first ones, are
 * always there; PAUSE, how often the clock is read in a pause.
 */
#include <linux/types.h>

#include "maps.h"

/* A variable for .rodata, where the compiler puts initialisers, too: with these alone, 5.10 refuses the object's BTF. */
const volatile __u32 kept = KEPT;

struct outcomes {
	__u64 runs;
	__u64 right;
	__u64 absent;  /* no such frontend: right for those that come and go */
	__u64 lost;    /* no such frontend, though it is always there */
	__u64 missing; /* a service without a set or slot, or a slot with a backend that is not the service's */
	__u64 retired; /* a backend of this very frontend that is marked as free, though its set was just read */
	__u64 foreign; /* a backend that was another frontend's, or no one's */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct outcomes);
} outcomes SEC(".maps");

/* Global: the verifier walks the loop once, not at each of its callers. */
__noinline int pause_here(void)
{
	__u64 sum = 0;

#pragma clang loop unroll(disable)
	for (int i = 0; i < PAUSE; i++)
		sum += bpf_ktime_get_ns();
	return sum;
}

static __always_inline void *delayed_lookup(void *map, const void *key)
{
	void *value = bpf_map_lookup_elem(map, key);

	pause_here();
	return value;
}

#define bpf_map_lookup_elem delayed_lookup
#include "select.h"
#undef bpf_map_lookup_elem

static __always_inline bool is_of(__u32 number, const struct choice *choice)
{
	const struct address *address = &choice->backend->address;
	__u32 host = bpf_ntohl(READ_ONCE(address->words[3]));

	return address_is_ipv4(address) && host >> 8 == (10 << 16 | 1 << 8 | number) &&
	       bpf_ntohs(choice->port) == 8000 + number;
}

static __always_inline __u64 *read_like_a_client(struct outcomes *seen, __u32 number)
{
	struct frontend_key ALIGNED key = { .port = bpf_htons(80), .protocol = IPPROTO_TCP };
	struct frontend frontend = {};
	struct service_view view = {};
	struct choice choice = {};
	bool picked;

	key.address.words[2] = IPV4_MAPPED;
	key.address.words[3] = bpf_htonl(10 << 24 | 96 << 16 | number);
	if (!frontend_find(&key, &frontend))
		return number <= kept ? &seen->lost : &seen->absent;
	if (!service_read(&frontend, false, &view) || !set_count(view.set))
		return &seen->missing;
	picked = set_pick(view.set, bpf_get_prandom_u32(), frontend.service, &choice);
	if (!choice.backend)
		return &seen->missing;
	pause_here();
	if (!is_of(number, &choice))
		return &seen->foreign;
	return picked ? &seen->right : &seen->retired;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *context)
{
	__u32 only = 0;
	struct outcomes *seen = bpf_map_lookup_elem(&outcomes, &only);

	if (!seen)
		return 1;
	__sync_fetch_and_add(read_like_a_client(seen, 1 + bpf_get_prandom_u32() % FRONTENDS), 1);
	__sync_fetch_and_add(&seen->runs, 1);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
