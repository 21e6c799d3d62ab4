/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Telling whoever listens what was decided. A listener that is too slow sees a gap, nobody waits for it. */
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

/* Writes down what was decided about a destination. */
static __always_inline void event_fill(struct event *event, const struct address *destination, union decision decision,
                                       __u32 backend)
{
	struct choice choice;

	__builtin_memset(event, 0, sizeof(*event));
	event->time = bpf_ktime_get_boot_ns();
	event->destination = *destination;
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
}

#endif
