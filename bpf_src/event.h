/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Telling whoever listens what was decided. */
#ifndef KUBEPROXY_EVENT_H
#define KUBEPROXY_EVENT_H

#include "address.h"
#include "maps.h"
#include "select.h"

/* A decision about a socket's destination. */
struct decision {
	struct frontend_key wanted;
	__u32 service;
	__u32 backend; /* of a DNAT; its address is in the map */
	__u8 verdict;  /* enum verdict */
	__u8 reason;   /* enum reason */
};

static __noinline int event_send(struct bpf_sock_addr *ctx, const struct decision *decision)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	struct choice choice;

	if (!event)
		return 0; /* the listener is too slow; it sees a gap, nobody waits for it */
	__builtin_memset(event, 0, sizeof(*event));
	event->time = bpf_ktime_get_boot_ns();
	event->socket_cookie = bpf_get_socket_cookie(ctx);
	event->netns_cookie = bpf_get_netns_cookie(ctx);
	event->destination = decision->wanted.address;
	event->destination_port = decision->wanted.port;
	event->protocol = decision->wanted.protocol;
	event->verdict = decision->verdict;
	event->reason = decision->reason;
	event->service = decision->service;
	if (decision->verdict == VERDICT_DNAT && backend_read(decision->backend, decision->service, &choice)) {
		event->backend = decision->backend;
		event->endpoint = choice.backend->address;
		event->endpoint_port = choice.port;
	}
	bpf_get_current_comm(event->command, sizeof(event->command));
	bpf_ringbuf_submit(event, 0);
	return 0;
}

static __noinline int translation_report(struct bpf_sock_addr *ctx, const struct frontend_key *wanted, __u32 service,
					 __u32 backend)
{
	struct decision decision = {
		.wanted = *wanted,
		.service = service,
		.backend = backend,
		.verdict = VERDICT_DNAT,
	};

	return event_send(ctx, &decision);
}

#endif
