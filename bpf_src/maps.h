/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Every map: key -> value, and who writes it.  The sizes are defaults; the loader sets others.
 */
#ifndef KUBEPROXY_MAPS_H
#define KUBEPROXY_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "map_types.h"

/* The sockets, at most, that keep their only frontend in an array; a power of two. */
enum { SOLE_ORIGINS = 1 << 15 };

/* A place of sole_origins: free while its cookie is 0. Not in map_types.h, as nobody else knows what a lock is. */
struct sole_origin {
	struct bpf_spin_lock lock;
	__u32 pad;
	__u64 cookie;
	struct socket_origin pair;
};

/* address -> bits of enum address_kind; user space. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct address);
	__type(value, __u32);
} addresses SEC(".maps");

/* what a client addresses -> origin id; user space. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1048576);
	__type(key, struct frontend_key);
	__type(value, __u32);
} frontends SEC(".maps");

/* origin id -> the frontend, its service and kind; user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__type(value, struct origin);
} origins SEC(".maps");

/* service id -> sets, affinity, flags; user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__type(value, struct service);
} services SEC(".maps");

/* slot -> backend id; user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1048576);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

/* backend id -> one endpoint; user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

/* service id and prefix -> 1: sources that may use its load balancer addresses; user space. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct source_range_key);
	__type(value, __u32);
} source_ranges SEC(".maps");

/* service id and client -> its backend and last connection; the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct affinity_key);
	__type(value, struct affinity_record);
} affinity SEC(".maps");

/* a TCP socket's cookie, modulo the size -> the origin it connected to; the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1048576);
	__type(key, __u32);
	__type(value, struct peer_name);
} peer_names SEC(".maps");

/* a UDP socket's cookie, modulo the size -> the only frontend it sent to; the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOLE_ORIGINS);
	__type(key, __u32);
	__type(value, struct sole_origin);
} sole_origins SEC(".maps");

/* a UDP socket -> the frontends it sent to, if they are more; the programs. Freed with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct socket_origins);
} socket_origins SEC(".maps");

/* a UDP socket and backend -> the frontend that stands before it; the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct overflow_key);
	__type(value, struct overflow_origin);
} socket_origins_overflow SEC(".maps");

/* service id -> what Kubernetes calls it; user space, for itself. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__type(value, struct service_name);
} service_names SEC(".maps");

/* one entry: what the operator decided; user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* service id -> decisions counted; the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct service_counter);
} service_counters SEC(".maps");

/* enum reason -> refusals counted; the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASON_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} reason_counters SEC(".maps");

/* decisions as struct event, while somebody listens; the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

#endif
