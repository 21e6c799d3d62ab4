/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * From what a socket connects or sends to, to what becomes of it: a backend, a refusal, or nothing at all.
 */
#ifndef KUBEPROXY_TRANSLATE_H
#define KUBEPROXY_TRANSLATE_H

#include "datagram.h"
#include "peer_names.h"
#include "reject.h"
#include "socket_client.h"

#include "judge.h"

/*
 * Whether a datagram goes to the socket's own peer.  The kernel asks for those too if an IPv6 socket is
 * connected to an IPv4 address: then connect() has decided already.
 */
static __always_inline bool is_connected_to(const struct client *client, const struct frontend_key *to)
{
	struct bpf_sock *sk = client->ctx->sk;

	return client->hook.sendmsg && !client->hook.ipv6 && sk && FIELD_READ(sk, dst_ip4) == to->address.words[3] &&
	       (__be16)FIELD_READ(sk, dst_port) == to->port;
}

/* A socket that used a backend through a frontend now sends to it directly: its replies are its own again. */
static __always_inline void direct_use_remember(struct bpf_sock_addr *ctx, const struct frontend_key *peer)
{
	__u64 first = address_half(&peer->address, 0), second = address_half(&peer->address, 1);
	union datagram_route direct = {.frontend_port = peer->port, .backend_id = NO_BACKEND};

	if (datagram_backend_is_known(ctx, first, second, peer->port))
		datagram_remember(ctx, first, second, direct.words[0], direct.words[1]);
}

static __always_inline int pass_untouched(const struct request *request)
{
	struct bpf_sock_addr *ctx = request->client->ctx;

	if (request->asked->protocol == IPPROTO_UDP && !socket_is_unbound(ctx) && datagram_is_known(ctx) &&
	    !is_connected_to(request->client, request->asked))
		direct_use_remember(ctx, request->asked);
	return PROCEED;
}

static __always_inline int refuse_request(const struct request *request, __u32 service, __u8 reason)
{
	return refuse(request->client->ctx, request->client->hook.ipv6, request->asked, service, reason);
}

/* Returns 0, or -1 if the socket's memory is full. */
static __always_inline int route_remember(const struct request *request, const struct frontend *frontend,
                                          const struct choice *choice)
{
	const struct address *asked = &request->asked->address;
	union datagram_route route = {
		.origin = frontend->origin,
		.frontend_port = request->asked->port,
		.backend_id = choice->id,
		.generation = choice->generation,
	};

	return datagram_remember(request->client->ctx, address_half(asked, 0), address_half(asked, 1), route.words[0],
	                         route.words[1]);
}

static __always_inline void translation_report(const struct request *request, const struct frontend *frontend,
                                               const struct choice *choice)
{
	const struct address *asked = &request->asked->address;
	union decision decision = {
		.service = frontend->service,
		.port = request->asked->port,
		.protocol = request->asked->protocol,
		.reason = REASON_NONE,
	};

	connection_count(frontend->service);
	if (request->settings->flags & SETTINGS_LISTENING)
		event_send(request->client->ctx, address_half(asked, 0), address_half(asked, 1), decision.word,
		           choice->id);
}

/* A new connection to a frontend, or a socket's first datagram to it. */
static __always_inline int frontend_translate(const struct request *request, const struct frontend *frontend)
{
	bool udp = request->asked->protocol == IPPROTO_UDP;
	struct bpf_sock_addr *ctx = request->client->ctx;
	struct service_view view;
	struct choice choice;
	__u8 reason;

	reason = frontend_judge(request, frontend, &view, &choice);
	if (reason == REASON_NONE && udp && route_remember(request, frontend, &choice))
		reason = REASON_SOCKET_ORIGINS_FULL;
	if (reason != REASON_NONE)
		return refuse_request(request, frontend->service, reason);
	if (!udp)
		peer_name_remember(bpf_get_socket_cookie(ctx), frontend->origin, request->key, &choice.backend->address,
		                   choice.port);
	translation_report(request, frontend, &choice);
	user_address_write(ctx, request->client->hook.ipv6, &choice.backend->address, choice.port);
	return PROCEED;
}

static __always_inline int request_serve(const struct request *request)
{
	struct bpf_sock_addr *ctx = request->client->ctx;
	const struct socket_origin *kept;
	struct frontend frontend;
	__u8 reason;

	if (request->asked->protocol == IPPROTO_UDP && !socket_is_unbound(ctx)) {
		kept = datagram_route_find(ctx, request->asked, request->key);
		if (kept) {
			user_address_write(ctx, request->client->hook.ipv6, &kept->backend, kept->backend_port);
			return PROCEED;
		}
	}
	if (frontend_find(request->key, &frontend))
		return frontend_translate(request, &frontend);
	reason = miss_judge(request);
	return reason == REASON_NONE ? pass_untouched(request) : refuse_request(request, 0, reason);
}

static __always_inline int destination_translate(struct bpf_sock_addr *ctx, struct hook hook)
{
	struct client client = {.ctx = ctx, .hook = hook};
	struct frontend_key ALIGNED asked, ALIGNED aliased;
	struct request request = {
		.client = &client,
		.settings = settings_get(),
		.asked = &asked,
		.key = &asked,
	};

	asked.protocol = service_protocol(ctx->protocol);
	if (!asked.protocol || !request.settings)
		return PROCEED;
	user_address_read(ctx, hook.ipv6, &asked.address);
	asked.port = ctx->user_port;
	asked.pad = 0;
	return request_prepare(&request, &aliased) ? request_serve(&request) : pass_untouched(&request);
}

#endif
