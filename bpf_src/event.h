/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Telling whoever listens what was decided. */
#ifndef KUBEPROXY_EVENT_H
#define KUBEPROXY_EVENT_H

#include "address.h"
#include "maps.h"
#include "select.h"
#include "verdict.h"

/* Of a decision about a socket's destination, all but the addresses; in one word to hand on. */
union decision {
	__u64 word;
	struct {
		__u32 service;
		__be16 port;
		__u8 protocol;
		__u8 reason; /* enum reason; none: DNAT */
	};
};

/* Sends an event: to which destination (given by halves) what was done, and by which backend. */
GLOBAL int event_send(struct bpf_sock_addr *ctx, __u64 wanted_first, __u64 wanted_second, __u64 decision_word,
                      __u32 backend)
{
	union decision decision = {.word = decision_word};
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	struct choice choice;

	if (!event)
		return 0; /* the listener is too slow; it sees a gap, nobody waits for it */
	__builtin_memset(event, 0, sizeof(*event));
	event->time = bpf_ktime_get_boot_ns();
	event->socket_cookie = bpf_get_socket_cookie(ctx);
	event->netns_cookie = bpf_get_netns_cookie(ctx);
	address_set_halves(&event->destination, wanted_first, wanted_second);
	event->destination_port = decision.port;
	event->protocol = decision.protocol;
	event->verdict = reason_verdict(decision.reason);
	event->reason = decision.reason;
	event->service = decision.service;
	if (backend != NO_BACKEND && backend_read(backend, decision.service, &choice)) {
		event->backend = backend;
		event->endpoint = choice.backend->address;
		event->endpoint_port = choice.port;
	}
	bpf_get_current_comm(event->command, sizeof(event->command));
	bpf_ringbuf_submit(event, 0);
	return 0;
}

#endif
