/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * From who asks for what to what shall become of it, whatever the client is: nothing is carried out here.
 *
 * A program includes the kind of client that it serves before this: struct client, and the functions client_*.
 */
#ifndef KUBEPROXY_JUDGE_H
#define KUBEPROXY_JUDGE_H

#include "affinity.h"
#include "loopback.h"
#include "verdict.h"

/* A destination on its way through the programs. */
struct request {
	const struct client *client;
	const struct settings *settings;
	const struct frontend_key *asked; /* by the client */
	const struct frontend_key *key;   /* looked up for it */
	__u32 address_kinds;              /* 0: in a service CIDR, where they are asked for last */
};

/*
 * Prepares a request whose destination is set; false: it is not for us to judge.  Where most destinations are no
 * Service's, their address is asked for first: one look-up, and they are done.
 */
static __always_inline bool request_prepare(struct request *request, struct frontend_key *aliased)
{
	const struct settings *settings = request->settings;
	const struct address *asked = &request->asked->address;

	if (address_is_ipv4(asked) && ipv4_is_loopback(asked->words[3])) {
		/* 127.0.0.0/8 stands for 127.0.0.1, on the host and if that has NodePorts. */
		if (!(settings->flags & SETTINGS_LOCALHOST_NODE_PORTS) || !client_is_on_host(request->client, settings))
			return false;
		*aliased = *request->asked;
		aliased->address.words[3] = IPV4_LOOPBACK;
		request->key = aliased;
	}
	if (prefixes_contain(settings->service_cidrs, READ_ONCE(settings->service_cidr_count), asked))
		return true;
	request->address_kinds = address_kinds(&request->key->address);
	return request->address_kinds && !(request->address_kinds & ADDRESS_EXCLUDED);
}

/*
 * No frontend: a ClusterIP has no such port, or the address is nobody's. Returns why it is refused; no reason: it is
 * not for us to judge.
 */
static __always_inline __u8 miss_judge(const struct request *request)
{
	const struct settings *settings = request->settings;
	const struct address *address = &request->key->address;
	bool in_service_cidr = !request->address_kinds;
	__u32 kinds = in_service_cidr ? address_kinds(address) : request->address_kinds;

	if (kinds & ADDRESS_EXCLUDED)
		return REASON_NONE;
	if (kinds & ADDRESS_CLUSTER_IP)
		return REASON_UNKNOWN_PORT;
	if (!kinds && in_service_cidr &&
	    !prefixes_contain(settings->excluded_cidrs, READ_ONCE(settings->excluded_cidr_count), address))
		return REASON_UNALLOCATED_ADDRESS;
	return REASON_NONE;
}

/* Chooses a backend of a set that is not empty. Returns a reason if there is none to be had. */
static __always_inline __u8 backend_select(const struct request *request, const struct frontend *frontend,
                                           const struct service_view *view, struct choice *choice)
{
	__u32 number = client_number(request->client, frontend, request->asked->protocol);
	const struct client *client = request->client;
	struct address ALIGNED affinity_client;
	struct address ALIGNED source;
	__u32 kept = NO_BACKEND;
	bool on_host;

	if (view->affinity_seconds) {
		client_affinity_read(client, &affinity_client);
		kept = affinity_find(address_half(&affinity_client, 0), address_half(&affinity_client, 1),
		                     frontend->service, view->affinity_seconds, view->in_set_flag);
	}
	if (kept != NO_BACKEND && !backend_read(kept, frontend->service, choice))
		kept = NO_BACKEND;
	if (kept == NO_BACKEND && !set_pick(view->set, number, frontend->service, choice))
		return REASON_MISSING_ENTRY;

	client_source_read(client, address_is_ipv4(&request->key->address), &source);
	if (address_is_loopback(&source)) {
		on_host = client_is_on_host(client, request->settings);
		if (!loopback_reaches(on_host, request->settings, &choice->backend->address)) {
			kept = loopback_pick(on_host, view->set, number, frontend->service);
			if (kept == NO_BACKEND || !backend_read(kept, frontend->service, choice))
				return REASON_LOOPBACK_SOURCE;
		}
	}
	if (view->affinity_seconds && kept == NO_BACKEND)
		affinity_remember(address_half(&affinity_client, 0), address_half(&affinity_client, 1),
		                  frontend->service, choice->id, choice->generation);
	return REASON_NONE;
}

/* Judges a new connection to a frontend. Without a reason against it there is a choice. */
static __always_inline __u8 frontend_judge(const struct request *request, const struct frontend *frontend,
                                           struct service_view *view, struct choice *choice)
{
	bool ipv4 = address_is_ipv4(&request->key->address);

	if (!service_read(frontend, client_is_outside(request->client), view))
		return REASON_MISSING_ENTRY;
	/* Before all else, also without endpoints. */
	if (frontend->kind == FRONTEND_LOAD_BALANCER && view->flags & SERVICE_SOURCE_RANGES &&
	    !client_is_in_ranges(request->client, ipv4, frontend->service))
		return REASON_SOURCE_NOT_ALLOWED;
	if (!set_count(view->set))
		return view->flags & SERVICE_HAS_ENDPOINTS ? REASON_NO_LOCAL_ENDPOINTS : REASON_NO_ENDPOINTS;
	return backend_select(request, frontend, view, choice);
}

#endif
