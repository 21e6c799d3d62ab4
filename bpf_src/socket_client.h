/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The client is a socket of this node: a pod's or a process's.  It is asked for what is needed when it is needed, as
 * each answer costs.
 */
#ifndef KUBEPROXY_SOCKET_CLIENT_H
#define KUBEPROXY_SOCKET_CLIENT_H

#include "select.h"
#include "socket_source.h"

/* Which hook a program serves; known at compile time. */
struct hook {
	bool ipv6;
	bool sendmsg;
};

struct client {
	struct bpf_sock_addr *ctx;
	struct hook hook;
};

/* Whether the client lives in the host's network namespace; anyone may while that is not known. */
static __always_inline bool client_is_on_host(const struct client *client, const struct settings *settings)
{
	return !settings->host_netns_cookie || bpf_get_netns_cookie(client->ctx) == settings->host_netns_cookie;
}

static __always_inline bool client_is_outside(const struct client *client)
{
	(void)client;
	return false;
}

/* What affinity knows a client by: its network namespace. A pod has one, and one address of each family in it. */
static __always_inline void client_affinity_read(const struct client *client, struct address *key)
{
	address_set_halves(key, 0, bpf_get_netns_cookie(client->ctx));
}

/* What the client sends from, as far as that is settled; else unspecified, in the family that is asked for. */
static __always_inline void client_source_read(const struct client *client, bool ipv4, struct address *source)
{
	struct bpf_sock_addr *ctx = client->ctx;
	struct address ALIGNED named;

	bound_address_read(ctx, ipv4, source);
	/* A datagram may name its source (IP_PKTINFO); only these hooks can see it. */
	if (!client->hook.sendmsg)
		return;
	address_set_ipv4(&named, 0);
	if (!client->hook.ipv6) {
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

/* Whether a service's source ranges let the client in. */
static __always_inline bool client_is_in_ranges(const struct client *client, bool ipv4, __u32 service)
{
	struct address ALIGNED source;

	client_source_read(client, ipv4, &source);
	return socket_is_in_ranges(client->ctx, service, address_half(&source, 0), address_half(&source, 1));
}

/* The number that picks a member of a set. */
static __always_inline __u32 client_number(const struct client *client, const struct frontend *frontend, __u8 protocol)
{
	if (protocol == IPPROTO_UDP)
		return socket_hash(bpf_get_socket_cookie(client->ctx), frontend->origin);
	return bpf_get_prandom_u32();
}

#endif
