/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * From what a socket connects or sends to, to what becomes of it: a backend, a refusal, or nothing at all.
 */
#ifndef KUBEPROXY_TRANSLATE_H
#define KUBEPROXY_TRANSLATE_H

#include "affinity.h"
#include "datagram.h"
#include "loopback.h"
#include "peer_names.h"
#include "reject.h"
#include "source_ranges.h"

/* Which hook a program serves; known at compile time. */
struct hook {
	bool ipv6;
	bool sendmsg;
};

/* A destination on its way through the programs. */
struct request {
	struct bpf_sock_addr *ctx;
	const struct settings *settings;
	const struct frontend_key *asked; /* by the socket */
	const struct frontend_key *key;   /* looked up for it */
	bool in_service_cidr;
	__u32 address_kinds; /* not known yet in a service CIDR */
};

static __always_inline void source_read(struct bpf_sock_addr *ctx, struct hook hook, bool ipv4, struct address *source)
{
	struct address ALIGNED named;

	bound_address_read(ctx, ipv4, source);
	/* A datagram may name its source (IP_PKTINFO); only these hooks can see it. */
	if (!hook.sendmsg)
		return;
	address_set_ipv4(&named, 0);
	if (!hook.ipv6) {
		named.words[3] = FIELD_READ(ctx, msg_src_ip4);
	} else {
		named.words[0] = FIELD_READ(ctx, msg_src_ip6[0]);
		named.words[1] = FIELD_READ(ctx, msg_src_ip6[1]);
		named.words[2] = FIELD_READ(ctx, msg_src_ip6[2]);
		named.words[3] = FIELD_READ(ctx, msg_src_ip6[3]);
	}
	if (!address_is_unspecified(&named))
		*source = named;
}

/*
 * Whether a datagram goes to the socket's own peer.  The kernel asks for those too if an IPv6 socket is
 * connected to an IPv4 address: then connect() has decided already.
 */
static __always_inline bool is_connected_to(struct bpf_sock_addr *ctx, struct hook hook, const struct frontend_key *to)
{
	struct bpf_sock *sk = ctx->sk;

	return hook.sendmsg && !hook.ipv6 && sk && FIELD_READ(sk, dst_ip4) == to->address.words[3] &&
	       (__be16)FIELD_READ(sk, dst_port) == to->port;
}

static __always_inline int pass_untouched(const struct request *request, struct hook hook)
{
	const struct address *address = &request->asked->address;

	if (request->asked->protocol == IPPROTO_UDP && !socket_is_new(request->ctx) &&
	    datagram_is_known(request->ctx) && !is_connected_to(request->ctx, hook, request->asked))
		direct_use_remember(request->ctx, address_half(address, 0), address_half(address, 1),
		                    request->asked->port);
	return PROCEED;
}

/* No frontend: a ClusterIP has no such port, the address is nobody's, or it is not for us to judge. */
static __always_inline int miss_judge(const struct request *request, struct hook hook)
{
	const struct settings *settings = request->settings;
	const struct address *address = &request->key->address;
	__u32 kinds = request->in_service_cidr ? address_kinds(address) : request->address_kinds;

	if (kinds & ADDRESS_EXCLUDED)
		return pass_untouched(request, hook);
	if (kinds & ADDRESS_CLUSTER_IP)
		return refuse(request->ctx, hook.ipv6, request->asked, 0, REASON_UNKNOWN_PORT);
	if (!kinds && request->in_service_cidr &&
	    !prefixes_contain(settings->excluded_cidrs, READ_ONCE(settings->excluded_cidr_count), address))
		return refuse(request->ctx, hook.ipv6, request->asked, 0, REASON_UNALLOCATED_ADDRESS);
	return pass_untouched(request, hook);
}

/* Chooses a backend of a set that is not empty. Returns a reason if there is none to be had. */
static __always_inline __u8 backend_select(const struct request *request, struct hook hook,
                                           const struct frontend *frontend, const struct service_view *view,
                                           __u64 cookie, struct choice *choice)
{
	bool udp = request->asked->protocol == IPPROTO_UDP;
	__u32 number = udp ? socket_hash(cookie, frontend->origin) : bpf_get_prandom_u32();
	struct bpf_sock_addr *ctx = request->ctx;
	__u32 kept = NO_BACKEND;
	struct address ALIGNED source;

	if (view->affinity_seconds)
		kept = affinity_find(ctx, frontend->service, view->affinity_seconds, view->in_set_flag);
	if (kept == NO_BACKEND || !backend_read(kept, frontend->service, choice))
		if (!set_pick(view->set, number, frontend->service, choice))
			return REASON_MISSING_ENTRY;

	source_read(ctx, hook, address_is_ipv4(&request->key->address), &source);
	if (address_is_loopback(&source) && !loopback_reaches(ctx, request->settings, &choice->backend->address)) {
		kept = loopback_pick(ctx, view->set, frontend->service);
		if (kept == NO_BACKEND || !backend_read(kept, frontend->service, choice))
			return REASON_LOOPBACK_SOURCE;
	}
	if (view->affinity_seconds && kept == NO_BACKEND)
		affinity_remember(ctx, frontend->service, choice->id, choice->generation);
	return REASON_NONE;
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

	return datagram_remember(request->ctx, address_half(asked, 0), address_half(asked, 1), route.words[0],
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
		event_send(request->ctx, address_half(asked, 0), address_half(asked, 1), decision.word, choice->id);
}

/* A new connection to a frontend, or a socket's first datagram to it. */
static __always_inline int frontend_translate(const struct request *request, struct hook hook,
                                              const struct frontend *frontend)
{
	bool ipv4 = address_is_ipv4(&request->key->address), udp = request->asked->protocol == IPPROTO_UDP;
	const struct frontend_key *asked = request->asked;
	struct bpf_sock_addr *ctx = request->ctx;
	__u32 service = frontend->service;
	struct service_view view;
	struct choice choice;
	__u64 cookie;
	__u8 reason;

	if (!service_read(frontend, &view))
		return refuse(ctx, hook.ipv6, asked, service, REASON_MISSING_ENTRY);
	/* Before all else, also without endpoints. */
	if (frontend->kind == FRONTEND_LOAD_BALANCER && view.flags & SERVICE_SOURCE_RANGES) {
		struct address ALIGNED source;

		source_read(ctx, hook, ipv4, &source);
		if (!source_is_allowed(ctx, service, address_half(&source, 0), address_half(&source, 1)))
			return refuse(ctx, hook.ipv6, asked, service, REASON_SOURCE_NOT_ALLOWED);
	}
	if (!set_count(view.set))
		return refuse(ctx, hook.ipv6, asked, service,
		              view.flags & SERVICE_HAS_ENDPOINTS ? REASON_NO_LOCAL_ENDPOINTS : REASON_NO_ENDPOINTS);
	cookie = bpf_get_socket_cookie(ctx);
	reason = backend_select(request, hook, frontend, &view, cookie, &choice);
	if (reason == REASON_NONE && udp && route_remember(request, frontend, &choice))
		reason = REASON_SOCKET_ORIGINS_FULL;
	if (reason != REASON_NONE)
		return refuse(ctx, hook.ipv6, asked, service, reason);
	if (!udp)
		peer_name_remember(cookie, frontend->origin, request->key, &choice.backend->address, choice.port);
	translation_report(request, frontend, &choice);
	user_address_write(ctx, hook.ipv6, &choice.backend->address, choice.port);
	return PROCEED;
}

/* Where most destinations are no Service's, their address is asked for first: one look-up, and they are done. */
static __always_inline int request_serve(struct request *request, struct hook hook)
{
	const struct socket_origin *kept;
	struct frontend frontend;

	if (!request->in_service_cidr) {
		request->address_kinds = address_kinds(&request->key->address);
		if (!request->address_kinds || request->address_kinds & ADDRESS_EXCLUDED)
			return pass_untouched(request, hook);
	}
	if (request->asked->protocol == IPPROTO_UDP && !socket_is_new(request->ctx)) {
		kept = datagram_route_find(request->ctx, request->asked, request->key);
		if (kept) {
			user_address_write(request->ctx, hook.ipv6, &kept->backend, kept->backend_port);
			return PROCEED;
		}
	}
	if (!frontend_find(request->key, &frontend))
		return miss_judge(request, hook);
	return frontend_translate(request, hook, &frontend);
}

static __always_inline int destination_translate(struct bpf_sock_addr *ctx, struct hook hook)
{
	const struct settings *settings = settings_get();
	struct frontend_key ALIGNED asked, ALIGNED aliased;
	struct request request = {.ctx = ctx, .settings = settings, .asked = &asked, .key = &asked};

	asked.protocol = service_protocol(ctx->protocol);
	if (!asked.protocol || !settings)
		return PROCEED;
	user_address_read(ctx, hook.ipv6, &asked.address);
	asked.port = ctx->user_port;
	asked.pad = 0;
	if (address_is_ipv4(&asked.address) && ipv4_is_loopback(asked.address.words[3])) {
		aliased = asked;
		if (!loopback_destination(ctx, settings, &aliased.address))
			return pass_untouched(&request, hook);
		request.key = &aliased;
	}
	request.in_service_cidr =
		prefixes_contain(settings->service_cidrs, READ_ONCE(settings->service_cidr_count), &asked.address);
	return request_serve(&request, hook);
}

#endif
