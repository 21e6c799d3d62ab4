/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What a UDP socket has sent to: frontends, and the backends behind them.  It makes an unconnected socket keep its
 * backends, and it gives replies the address that was asked.  This must not forget: eight pairs are
 * kept with the socket, those used least recently move to a hash.
 *
 * The kernel holds the socket's lock around every program that comes here, but for sock_release, which is the
 * last one.
 */
#ifndef KUBEPROXY_SOCKET_ORIGINS_H
#define KUBEPROXY_SOCKET_ORIGINS_H

#include "lookup.h"
#include "select.h"

static __always_inline struct socket_origins *socket_origins_get(struct bpf_sock_addr *ctx)
{
	return ctx->sk ? bpf_sk_storage_get(&socket_origins, ctx->sk, NULL, 0) : NULL;
}

static __always_inline bool is_later(__u32 a, __u32 b)
{
	return (__s32)(a - b) > 0;
}

/* Whether a remembered backend serves no more: then a reply of it may be forgotten to make room. */
static __always_inline bool backend_is_stale(__u32 id, __u32 generation)
{
	const struct backend *backend = bpf_map_lookup_elem(&backends, &id);

	return backend && READ_ONCE(backend->generation) != generation;
}

static __always_inline void overflow_key_set(struct overflow_key *key, __u64 cookie, const struct address *backend,
					     __be16 port)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->cookie = cookie;
	key->backend.address = *backend;
	key->backend.port = port;
}

/* Takes the oldest pair out of a socket's overflow; only if it is stale, unless all must go. Spoils the key. */
static __always_inline bool overflow_take_oldest(struct socket_origins *storage, struct overflow_key *key, bool all)
{
	struct overflow_origin *oldest;

	key->backend = storage->oldest;
	oldest = bpf_map_lookup_elem(&socket_origins_overflow, key);
	if (!storage->overflow_count || !oldest)
		return false;
	if (!all && !backend_is_stale(oldest->backend_id, oldest->generation))
		return false;
	storage->oldest = oldest->next;
	storage->overflow_count--;
	bpf_map_delete_elem(&socket_origins_overflow, key);
	return true;
}

/* Moves a pair from a socket's storage to its overflow. Returns 0, or -1 if there is no room. */
static __noinline int socket_origin_displace(struct bpf_sock_addr *ctx, struct socket_origins *storage,
					     struct socket_origin *entry)
{
	struct overflow_origin ALIGNED origin = {
		.frontend = entry->frontend,
		.frontend_port = entry->frontend_port,
		.backend_id = entry->backend_id,
		.generation = entry->generation,
	};
	struct overflow_origin *other;
	struct overflow_key ALIGNED key;

	if (backend_is_stale(entry->backend_id, entry->generation))
		return 0;
	overflow_key_set(&key, bpf_get_socket_cookie(ctx), &entry->backend, entry->backend_port);
	other = bpf_map_lookup_elem(&socket_origins_overflow, &key);
	if (other) { /* the same backend, through a frontend that was used before this one */
		origin.next = other->next;
		*other = origin;
		return 0;
	}
	if (storage->overflow_count >= SOCKET_OVERFLOW_LIMIT && !overflow_take_oldest(storage, &key, false))
		return -1;
	overflow_key_set(&key, key.cookie, &entry->backend, entry->backend_port);
	if (bpf_map_update_elem(&socket_origins_overflow, &key, &origin, BPF_NOEXIST))
		return -1;
	key.backend = storage->newest;
	other = bpf_map_lookup_elem(&socket_origins_overflow, &key);
	overflow_key_set(&key, key.cookie, &entry->backend, entry->backend_port);
	if (storage->overflow_count && other)
		other->next = key.backend;
	else
		storage->oldest = key.backend;
	storage->newest = key.backend;
	storage->overflow_count++;
	return 0;
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

/*
 * Chooses the entry of a storage for a pair: its own, a free one, or the one used least recently.  Another
 * backend of the same frontend is no longer current.
 */
static __always_inline __u32 socket_origin_place(struct socket_origins *storage, const struct socket_origin *pair)
{
	__u32 own = SOCKET_ORIGINS, oldest = 0, oldest_used = storage->clock, count = storage->count;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SOCKET_ORIGINS && i < count; i++) {
		struct socket_origin *entry = &storage->entries[i];

		if (entry_is_frontend(entry, &pair->frontend, pair->frontend_port)) {
			entry->current = 0;
			if (entry_is_backend(entry, &pair->backend, pair->backend_port))
				own = i;
		}
		if (!is_later(entry->used, oldest_used)) {
			oldest = i;
			oldest_used = entry->used;
		}
	}
	if (own < SOCKET_ORIGINS)
		return own;
	return count < SOCKET_ORIGINS ? count : oldest;
}

/* Remembers a pair as the one used last. Returns 0, or -1 if there is no room. */
static __noinline int socket_origin_remember(struct bpf_sock_addr *ctx, const struct socket_origin *pair)
{
	struct socket_origins *storage;
	struct socket_origin *entry;
	__u32 place;

	storage = ctx->sk ? bpf_sk_storage_get(&socket_origins, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
	if (!storage)
		return -1;
	place = socket_origin_place(storage, pair);
	if (place >= SOCKET_ORIGINS)
		return -1;
	entry = &storage->entries[place];
	if (place >= storage->count)
		storage->count = place + 1;
	else if (!entry_is_backend(entry, &pair->backend, pair->backend_port) ||
		 !entry_is_frontend(entry, &pair->frontend, pair->frontend_port))
		if (socket_origin_displace(ctx, storage, entry))
			return -1;
	*entry = *pair;
	entry->current = 1;
	entry->used = ++storage->clock;
	return 0;
}

/* What datagram_remember() is told besides the frontend's address; in two words to hand on. */
union datagram_route {
	__u64 words[2];
	struct {
		__u32 origin;
		__be16 frontend_port;
		__u16 pad;
		__u32 backend_id;
		__u32 generation;
	};
};

/* Remembers which backend a frontend's datagrams go to. Returns 0, or -1 if there is no room. */
GLOBAL int datagram_remember(struct bpf_sock_addr *ctx, __u64 frontend_first, __u64 frontend_second, __u64 route_first,
			     __u64 route_second)
{
	union datagram_route route = {.words = {route_first, route_second}};
	const struct backend *backend = bpf_map_lookup_elem(&backends, &route.backend_id);
	struct socket_origin ALIGNED pair = {
		.frontend_port = route.frontend_port,
		.origin = route.origin,
		.backend_id = route.backend_id,
		.generation = route.generation,
	};

	if (!backend)
		return -1;
	address_set_halves(&pair.frontend, frontend_first, frontend_second);
	pair.backend = backend->address;
	pair.backend_port = backend->port;
	return socket_origin_remember(ctx, &pair);
}

/* Finds the backend that a socket keeps for a frontend, if both still stand. */
static __always_inline struct socket_origin *socket_origin_find(struct socket_origins *storage,
								const struct frontend_key *asked,
								const struct frontend_key *key)
{
	struct frontend frontend;
	struct choice choice;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SOCKET_ORIGINS && i < storage->count; i++) {
		struct socket_origin *entry = &storage->entries[i];

		if (!entry->current || !entry_is_frontend(entry, &asked->address, asked->port))
			continue;
		if (!origin_read(entry->origin, key, &frontend) ||
		    !backend_read(entry->backend_id, frontend.service, &choice) ||
		    choice.generation != entry->generation)
			return NULL;
		entry->used = ++storage->clock;
		return entry;
	}
	return NULL;
}

/* Finds the frontend that a backend of the socket stands for; the one used last, if there are two. */
static __always_inline struct socket_origin *socket_origin_of(struct socket_origins *storage,
							      const struct address *backend, __be16 port)
{
	__u32 latest = SOCKET_ORIGINS, latest_used = 0;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SOCKET_ORIGINS && i < storage->count; i++) {
		struct socket_origin *entry = &storage->entries[i];

		if (!entry_is_backend(entry, backend, port))
			continue;
		if (latest == SOCKET_ORIGINS || is_later(entry->used, latest_used)) {
			latest = i;
			latest_used = entry->used;
		}
	}
	return latest < SOCKET_ORIGINS ? &storage->entries[latest] : NULL;
}

/* The same among those that were displaced. */
static __always_inline struct overflow_origin *overflow_origin_of(struct bpf_sock_addr *ctx,
								  const struct socket_origins *storage,
								  const struct address *backend, __be16 port)
{
	struct overflow_key ALIGNED key;

	if (!storage->overflow_count)
		return NULL;
	overflow_key_set(&key, bpf_get_socket_cookie(ctx), backend, port);
	return bpf_map_lookup_elem(&socket_origins_overflow, &key);
}

/* A socket that used a backend through a frontend now sends to it directly: its replies are its own again. */
GLOBAL int direct_use_remember(struct bpf_sock_addr *ctx, __u64 peer_first, __u64 peer_second, __be16 port)
{
	struct socket_origins *storage = socket_origins_get(ctx);
	struct socket_origin ALIGNED direct = {
		.frontend_port = port,
		.backend_port = port,
		.backend_id = NO_BACKEND,
	};

	address_set_halves(&direct.frontend, peer_first, peer_second);
	address_set_halves(&direct.backend, peer_first, peer_second);
	if (!storage || (!socket_origin_of(storage, &direct.backend, direct.backend_port) &&
			 !overflow_origin_of(ctx, storage, &direct.backend, direct.backend_port)))
		return 0;
	return socket_origin_remember(ctx, &direct);
}

/* Shows the frontend in place of the backend that a datagram came from, or that a socket is connected to. */
static __always_inline void datagram_peer_rename(struct bpf_sock_addr *ctx, bool ipv6)
{
	struct socket_origins *storage = socket_origins_get(ctx);
	const struct overflow_origin *displaced;
	const struct socket_origin *origin;
	struct address ALIGNED peer;
	__be16 port = ctx->user_port;

	if (!storage)
		return;
	user_address_read(ctx, ipv6, &peer);
	origin = socket_origin_of(storage, &peer, port);
	if (origin) {
		user_address_write(ctx, ipv6, &origin->frontend, origin->frontend_port);
		return;
	}
	displaced = overflow_origin_of(ctx, storage, &peer, port);
	if (displaced)
		user_address_write(ctx, ipv6, &displaced->frontend, displaced->frontend_port);
}

#endif
