/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The client is nobody's socket: it is described, and what is not known of it is left unspecified.
 */
#ifndef KUBEPROXY_DESCRIBED_CLIENT_H
#define KUBEPROXY_DESCRIBED_CLIENT_H

#include "select.h"
#include "source_ranges.h"

struct client {
	struct address source;   /* unspecified: not known */
	struct address affinity; /* what affinity knows it by */
	__u32 from;              /* enum source */
	__u32 number;            /* picks a member of a set */
};

/* Whether the client lives in the host's network namespace; anyone may while that is not known. */
static __always_inline bool client_is_on_host(const struct client *client, const struct settings *settings)
{
	return !settings->host_netns_cookie || client->from == SOURCE_NODE;
}

static __always_inline bool client_is_outside(const struct client *client)
{
	return client->from == SOURCE_OUTSIDE;
}

static __always_inline void client_affinity_read(const struct client *client, struct address *key)
{
	*key = client->affinity;
}

static __always_inline void client_source_read(const struct client *client, bool ipv4, struct address *source)
{
	(void)ipv4;
	*source = client->source;
}

static __always_inline bool client_is_in_ranges(const struct client *client, bool ipv4, __u32 service)
{
	const struct settings *settings = settings_get();
	struct address ALIGNED source = client->source;

	if (address_is_unspecified(&source)) {
		/* Of the destination's family, so that ranges for everybody let it in. */
		source.words[2] = ipv4 ? IPV4_MAPPED : 0;
		if (client->from == SOURCE_NODE && settings)
			host_source_read(settings, &source);
	}
	return source_is_in_ranges(service, &source);
}

static __always_inline __u32 client_number(const struct client *client, const struct frontend *frontend, __u8 protocol)
{
	(void)frontend;
	(void)protocol;
	return client->number;
}

#endif
