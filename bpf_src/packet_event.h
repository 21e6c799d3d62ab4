/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Telling whoever listens what was decided about a packet. */
#ifndef KUBEPROXY_PACKET_EVENT_H
#define KUBEPROXY_PACKET_EVENT_H

#include "event.h"
#include "packet.h"
#include "settings.h"

/* Sends an event, if somebody listens: what becomes of a packet to a service, and by which backend. */
static __noinline int packet_event_send(struct __sk_buff *skb, const struct packet *packet, __u32 service, __u8 reason,
                                        __u32 backend)
{
	const struct settings *settings = settings_get();
	union decision decision = {
		.service = service,
		.port = packet->tuple.destination_port,
		.protocol = packet->tuple.protocol,
		.reason = reason,
	};
	struct event *event;

	if (!settings || !(settings->flags & SETTINGS_LISTENING))
		return 0;
	event = event_begin(&packet->tuple.destination, decision, backend);
	if (!event)
		return 0;
	event->source = packet->tuple.source;
	event->source_port = packet->tuple.source_port;
	event->device = skb->ifindex;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

#endif
