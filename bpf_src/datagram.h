/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What a UDP socket has sent to: frontends, and the backends behind them.  It makes an unconnected socket keep its
 * backends, and it gives replies the address that was asked.  This must not forget: the first pair has a
 * place in an array, more get storage of the socket's own, and what does not fit there goes to a hash.
 *
 * The kernel holds the socket's lock around every program that comes here, but for sock_release, which is the
 * last one.
 */
#ifndef KUBEPROXY_DATAGRAM_H
#define KUBEPROXY_DATAGRAM_H

#include "socket_origins.h"
#include "sole_origins.h"

/*
 * Whether a socket has no port, so that no reply can come: nothing need be looked up for it.  Mostly it is new;
 * one that was disconnected (AF_UNSPEC) is like that too, but still has what it remembered.
 */
static __always_inline bool socket_is_unbound(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return !sk || !FIELD_READ(sk, src_port);
}

/* Remembers a pair that is not the socket's first: its storage takes over. Returns 0, or -1 if there is no room. */
static __always_inline int datagram_remember_further(struct bpf_sock_addr *ctx, struct sole_origin *sole,
                                                     const struct socket_origin *pair)
{
	if (sole) {
		if (socket_origins_begin(ctx, &sole->pair))
			return -1;
		sole_origin_give_back(sole);
	}
	return socket_origin_remember(ctx, pair);
}

/*
 * What datagram_remember() is told besides the frontend's address, in two words to hand on.  With NO_BACKEND, what is
 * called a frontend is no Service's: the socket sends to it directly.
 */
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
	const struct backend *backend;
	struct socket_origin ALIGNED pair = {
		.frontend_port = route.frontend_port,
		.origin = route.origin,
		.backend_id = route.backend_id,
		.generation = route.generation,
	};
	struct sole_origin *sole;
	__u64 cookie;

	address_set_halves(&pair.frontend, frontend_first, frontend_second);
	if (route.backend_id == NO_BACKEND) {
		pair.backend = pair.frontend;
		pair.backend_port = pair.frontend_port;
	} else {
		backend = bpf_map_lookup_elem(&backends, &route.backend_id);
		if (!backend)
			return -1;
		pair.backend = backend->address;
		pair.backend_port = backend->port;
	}
	cookie = bpf_get_socket_cookie(ctx);
	sole = sole_origin_get(cookie);
	if (!sole && !socket_origins_get(ctx)) {
		sole = sole_origin_take(cookie);
		if (sole) {
			sole->pair = pair;
			return 0;
		}
	}
	return datagram_remember_further(ctx, sole, &pair);
}

/* Finds the pair by which a socket's datagrams for a frontend go, if all of it still stands. */
static __always_inline struct socket_origin *
datagram_route_find(struct bpf_sock_addr *ctx, const struct frontend_key *asked, const struct frontend_key *key)
{
	struct sole_origin *sole = sole_origin_get(bpf_get_socket_cookie(ctx));
	struct socket_origins *storage = sole ? NULL : socket_origins_get(ctx);
	struct socket_origin *pair = NULL;
	struct frontend frontend;
	struct choice choice;

	if (sole && entry_is_frontend(&sole->pair, &asked->address, asked->port))
		pair = &sole->pair;
	else if (storage)
		pair = socket_origin_to(storage, &asked->address, asked->port);
	if (!pair || !origin_read(pair->origin, key, &frontend) ||
	    !backend_read(pair->backend_id, frontend.service, &choice) || choice.generation != pair->generation)
		return NULL;
	if (storage)
		pair->used = ++storage->clock;
	return pair;
}

/* Whether a socket has used a backend through a frontend, so that its replies carry the frontend's address. */
GLOBAL bool datagram_backend_is_known(struct bpf_sock_addr *ctx, __u64 peer_first, __u64 peer_second, __be16 port)
{
	struct sole_origin *sole = sole_origin_get(bpf_get_socket_cookie(ctx));
	struct socket_origins *storage = sole ? NULL : socket_origins_get(ctx);
	struct address ALIGNED peer;

	address_set_halves(&peer, peer_first, peer_second);
	if (sole)
		return entry_is_backend(&sole->pair, &peer, port);
	return storage && (socket_origin_of(storage, &peer, port) || overflow_origin_of(ctx, storage, &peer, port));
}

/* Whether a socket has used any frontend. */
static __always_inline bool datagram_is_known(struct bpf_sock_addr *ctx)
{
	return sole_origin_get(bpf_get_socket_cookie(ctx)) || socket_origins_get(ctx);
}

/* Shows the frontend in place of the backend that a datagram came from, or that a socket is connected to. */
static __always_inline void datagram_peer_rename(struct bpf_sock_addr *ctx, bool ipv6)
{
	struct sole_origin *sole = sole_origin_get(bpf_get_socket_cookie(ctx));
	struct socket_origins *storage = sole ? NULL : socket_origins_get(ctx);
	const struct overflow_origin *displaced;
	const struct socket_origin *pair = NULL;
	struct address ALIGNED peer;
	__be16 port = ctx->user_port;

	user_address_read(ctx, ipv6, &peer);
	if (sole && entry_is_backend(&sole->pair, &peer, port))
		pair = &sole->pair;
	else if (storage)
		pair = socket_origin_of(storage, &peer, port);
	if (pair) {
		user_address_write(ctx, ipv6, &pair->frontend, pair->frontend_port);
		return;
	}
	displaced = storage ? overflow_origin_of(ctx, storage, &peer, port) : NULL;
	if (displaced)
		user_address_write(ctx, ipv6, &displaced->frontend, displaced->frontend_port);
}

/* By another name the compiler describes the struct itself; else only that it exists, and the verifier refuses it. */
typedef struct bpf_sock closing_socket;

/* Takes the oldest pair of a socket that is being closed out of the overflow; false: there is none. */
GLOBAL bool datagram_oldest_forget(closing_socket *sk)
{
	struct overflow_key ALIGNED key = {.cookie = bpf_get_socket_cookie(sk)};
	struct socket_origins *storage = bpf_sk_storage_get(&socket_origins, sk, NULL, 0);

	return storage && overflow_take_oldest(storage, &key, true);
}

/* Gives back what a socket that is being closed has; its storage goes by itself. */
static __always_inline void datagram_socket_forget(struct bpf_sock *sk)
{
	struct sole_origin *sole = sole_origin_get(bpf_get_socket_cookie(sk));
	struct socket_origins *storage;

	if (sole) {
		sole_origin_give_back(sole);
		return;
	}
	storage = bpf_sk_storage_get(&socket_origins, sk, NULL, 0);
	if (!storage || !storage->overflow_count)
		return;
#pragma clang loop unroll(disable)
	for (int i = 0; i < SOCKET_OVERFLOW_LIMIT; i++)
		if (!datagram_oldest_forget(sk))
			return;
}

#endif
