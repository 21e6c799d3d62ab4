/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What does not fit a UDP socket's storage: a hash by socket and backend.  Each socket's entries are a chain from the
 * oldest to the newest, so that closing it finds them all.  A pair is here or in the storage, never in both.
 */
#ifndef KUBEPROXY_OVERFLOW_H
#define KUBEPROXY_OVERFLOW_H

#include "select.h"

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

/* What is inserted, to be filled where it stands: a whole one would not fit the stack of all calls together. */
static const struct overflow_origin no_origin;

static __always_inline void socket_backend_set(struct socket_backend *backend, const struct socket_origin *entry)
{
	backend->address = entry->backend;
	backend->port = entry->backend_port;
}

/* Makes a place at the end of a socket's overflow. Returns NULL if there is no room. */
static __always_inline struct overflow_origin *overflow_append(struct socket_origins *storage, struct overflow_key *key,
                                                               const struct socket_origin *entry)
{
	struct overflow_origin *origin, *newest;

	socket_backend_set(&key->backend, entry);
	if (bpf_map_update_elem(&socket_origins_overflow, key, &no_origin, BPF_NOEXIST))
		return NULL;
	origin = bpf_map_lookup_elem(&socket_origins_overflow, key);
	if (!origin)
		return NULL;
	origin->previous = storage->newest;
	key->backend = storage->newest;
	newest = storage->overflow_count ? bpf_map_lookup_elem(&socket_origins_overflow, key) : NULL;
	if (newest)
		socket_backend_set(&newest->next, entry);
	else
		socket_backend_set(&storage->oldest, entry);
	socket_backend_set(&storage->newest, entry);
	storage->overflow_count++;
	return origin;
}

/* Moves a pair from a socket's storage to its overflow. Returns 0, or -1 if there is no room. */
static __noinline int socket_origin_displace(struct bpf_sock_addr *ctx, struct socket_origins *storage,
                                             struct socket_origin *entry)
{
	struct overflow_key ALIGNED key;
	struct overflow_origin *origin;

	if (backend_is_stale(entry->backend_id, entry->generation))
		return 0;
	overflow_key_set(&key, bpf_get_socket_cookie(ctx), &entry->backend, entry->backend_port);
	/* It may be there already: the same backend, through a frontend that was used before this one. */
	origin = bpf_map_lookup_elem(&socket_origins_overflow, &key);
	if (!origin) {
		if (storage->overflow_count >= SOCKET_OVERFLOW_LIMIT && !overflow_take_oldest(storage, &key, false))
			return -1;
		origin = overflow_append(storage, &key, entry);
	}
	if (!origin)
		return -1;
	origin->frontend = entry->frontend;
	origin->frontend_port = entry->frontend_port;
	origin->backend_id = entry->backend_id;
	origin->generation = entry->generation;
	return 0;
}

static __always_inline bool socket_backend_equal(const struct socket_backend *a, const struct socket_backend *b)
{
	return a->port == b->port && address_equal(&a->address, &b->address);
}

/* Takes a pair out of a socket's overflow, if it is there: it returns to the storage, and makes room for another. */
static __noinline int overflow_take_back(struct bpf_sock_addr *ctx, struct socket_origins *storage,
                                         const struct socket_origin *pair)
{
	struct socket_backend ALIGNED previous, ALIGNED next;
	struct overflow_origin *entry, *neighbour;
	struct overflow_key ALIGNED key;
	bool is_oldest, is_newest;

	overflow_key_set(&key, bpf_get_socket_cookie(ctx), &pair->backend, pair->backend_port);
	entry = bpf_map_lookup_elem(&socket_origins_overflow, &key);
	if (!entry || entry->frontend_port != pair->frontend_port || !address_equal(&entry->frontend, &pair->frontend))
		return 0;
	previous = entry->previous;
	next = entry->next;
	is_oldest = socket_backend_equal(&key.backend, &storage->oldest);
	is_newest = socket_backend_equal(&key.backend, &storage->newest);
	bpf_map_delete_elem(&socket_origins_overflow, &key);
	storage->overflow_count--;
	key.backend = previous;
	neighbour = is_oldest ? NULL : bpf_map_lookup_elem(&socket_origins_overflow, &key);
	if (neighbour)
		neighbour->next = next;
	else
		storage->oldest = next;
	key.backend = next;
	neighbour = is_newest ? NULL : bpf_map_lookup_elem(&socket_origins_overflow, &key);
	if (neighbour)
		neighbour->previous = previous;
	else
		storage->newest = previous;
	return 0;
}

/* Finds the frontend that a displaced backend of a socket stands for. */
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

#endif
