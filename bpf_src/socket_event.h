/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Telling whoever listens what was decided about a socket. */
#ifndef KUBEPROXY_SOCKET_EVENT_H
#define KUBEPROXY_SOCKET_EVENT_H

#include "event.h"

/* Sends an event: to which destination (given by halves) what was done, and by which backend. */
GLOBAL int event_send(struct bpf_sock_addr *ctx, __u64 wanted_first, __u64 wanted_second, __u64 decision_word,
                      __u32 backend)
{
	union decision decision = {.word = decision_word};
	struct address ALIGNED wanted;
	struct event *event;

	address_set_halves(&wanted, wanted_first, wanted_second);
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	event_fill(event, &wanted, decision, backend);
	event->socket_cookie = bpf_get_socket_cookie(ctx);
	event->netns_cookie = bpf_get_netns_cookie(ctx);
	bpf_get_current_comm(event->command, sizeof(event->command));
	bpf_ringbuf_submit(event, 0);
	return 0;
}

#endif
