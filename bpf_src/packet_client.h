/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The client is whoever sent a packet: nothing is known of it but what the packet says.
 */
#ifndef KUBEPROXY_PACKET_CLIENT_H
#define KUBEPROXY_PACKET_CLIENT_H

#include "packet.h"
#include "select.h"
#include "source_ranges.h"

struct client {
	const struct packet *packet;
};

static __always_inline bool client_is_on_host(const struct client *client, const struct settings *settings)
{
	(void)client;
	(void)settings;
	return false;
}

static __always_inline bool client_is_outside(const struct client *client)
{
	(void)client;
	return true;
}

/* Affinity knows a client by its address, whichever port it comes from. */
static __always_inline void client_affinity_read(const struct client *client, struct address *key)
{
	*key = client->packet->tuple.source;
}

static __always_inline void client_source_read(const struct client *client, bool ipv4, struct address *source)
{
	(void)ipv4;
	*source = client->packet->tuple.source;
}

static __always_inline bool client_is_in_ranges(const struct client *client, bool ipv4, __u32 service)
{
	struct address ALIGNED source = client->packet->tuple.source;

	(void)ipv4;
	return source_is_in_ranges(service, &source);
}

static __always_inline __u32 client_number(const struct client *client, const struct frontend *frontend, __u8 protocol)
{
	(void)client;
	(void)frontend;
	(void)protocol;
	return bpf_get_prandom_u32();
}

#endif
