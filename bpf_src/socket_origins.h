/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The pairs of frontend and backend that a UDP socket has used, in storage of the socket's own: eight of
 * them; beyond that the one used least recently moves to the overflow.
 */
#ifndef KUBEPROXY_SOCKET_ORIGINS_H
#define KUBEPROXY_SOCKET_ORIGINS_H

#include "overflow.h"

static __always_inline struct socket_origins *socket_origins_get(struct bpf_sock_addr *ctx)
{
	return ctx->sk ? bpf_sk_storage_get(&socket_origins, ctx->sk, NULL, 0) : NULL;
}

/* The same; made if there is none. NULL: there is no room. */
static __always_inline struct socket_origins *socket_origins_make(struct bpf_sock_addr *ctx)
{
	return ctx->sk ? bpf_sk_storage_get(&socket_origins, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
}

/*
 * How long ago an entry was used, and in the lowest bits which one it is: with the ages one compares the entries.  One
 * number that the verifier does not know, where it would follow every order of known ones.
 */
static __always_inline __u64 socket_origin_age(const struct socket_origins *storage, __u32 number)
{
	return (__u64)(storage->clock - storage->entries[number].used) * SOCKET_ORIGINS + number;
}

static __always_inline bool entry_is_frontend(const struct socket_origin *entry, const struct address *address,
                                              __be16 port)
{
	return entry->frontend_port == port && address_equal(&entry->frontend, address);
}

static __always_inline bool entry_is_backend(const struct socket_origin *entry, const struct address *address,
                                             __be16 port)
{
	return entry->backend_port == port && address_equal(&entry->backend, address);
}

/* An entry by its number; bounded where the verifier sees it, however the compiler came to it. */
static __always_inline struct socket_origin *socket_origin_entry(struct socket_origins *storage, __u64 number)
{
	asm volatile("%0 &= %1" : "+r"(number) : "i"(SOCKET_ORIGINS - 1));
	return &storage->entries[number];
}

/* Another backend of the same frontend is no longer current. */
static __always_inline void socket_origin_supersede(struct socket_origins *storage, const struct socket_origin *pair)
{
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SOCKET_ORIGINS && i < storage->count; i++)
		if (entry_is_frontend(&storage->entries[i], &pair->frontend, pair->frontend_port))
			storage->entries[i].current = 0;
}

/* Chooses the entry of a storage for a pair: its own, a free one, or the one used least recently. */
static __always_inline __u64 socket_origin_place(struct socket_origins *storage, const struct socket_origin *pair)
{
	__u64 oldest = 0;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SOCKET_ORIGINS && i < storage->count; i++)
		if (entry_is_frontend(&storage->entries[i], &pair->frontend, pair->frontend_port) &&
		    entry_is_backend(&storage->entries[i], &pair->backend, pair->backend_port))
			return i;
	if (storage->count < SOCKET_ORIGINS)
		return storage->count;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SOCKET_ORIGINS; i++) {
		__u64 age = socket_origin_age(storage, i);

		if (age > oldest)
			oldest = age;
	}
	return oldest % SOCKET_ORIGINS;
}

/* Makes a socket's storage, with the pair that it has used so far. Returns 0, or -1 if there is no room. */
static __always_inline int socket_origins_begin(struct bpf_sock_addr *ctx, const struct socket_origin *first)
{
	struct socket_origins *storage = socket_origins_make(ctx);

	if (!storage)
		return -1;
	storage->entries[0] = *first;
	storage->entries[0].current = 1;
	storage->entries[0].used = storage->clock = 1;
	storage->count = 1;
	return 0;
}

/* Remembers a pair as the one used last. Returns 0, or -1 if there is no room. */
static __noinline int socket_origin_remember(struct bpf_sock_addr *ctx, const struct socket_origin *pair)
{
	struct socket_origins *storage = socket_origins_make(ctx);
	struct socket_origin *entry;
	__u64 place;

	if (!storage)
		return -1;
	socket_origin_supersede(storage, pair);
	place = socket_origin_place(storage, pair);
	entry = socket_origin_entry(storage, place);
	if (place >= storage->count) {
		storage->count = place + 1;
	} else if (!entry_is_backend(entry, &pair->backend, pair->backend_port) ||
	           !entry_is_frontend(entry, &pair->frontend, pair->frontend_port)) {
		if (storage->overflow_count)
			overflow_take_back(ctx, storage, pair);
		if (socket_origin_displace(ctx, storage, entry))
			return -1;
	}
	*entry = *pair;
	entry->current = 1;
	entry->used = ++storage->clock;
	return 0;
}

/* Finds the pair that datagrams for a frontend go by now. */
static __always_inline struct socket_origin *socket_origin_to(struct socket_origins *storage,
                                                              const struct address *frontend, __be16 port)
{
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SOCKET_ORIGINS && i < storage->count; i++) {
		struct socket_origin *entry = &storage->entries[i];

		if (entry->current && entry_is_frontend(entry, frontend, port))
			return entry;
	}
	return NULL;
}

/* Finds the frontend that a backend of the socket stands for; the one used last, if there are two. */
static __always_inline struct socket_origin *socket_origin_of(struct socket_origins *storage,
                                                              const struct address *backend, __be16 port)
{
	__u64 latest = ~0ULL;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SOCKET_ORIGINS && i < storage->count; i++) {
		__u64 age = socket_origin_age(storage, i);

		if (entry_is_backend(&storage->entries[i], backend, port) && age < latest)
			latest = age;
	}
	return latest != ~0ULL ? socket_origin_entry(storage, latest) : NULL;
}

#endif
