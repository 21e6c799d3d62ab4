/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Telling whoever listens what was decided about a packet. */
#ifndef KUBEPROXY_PACKET_EVENT_H
#define KUBEPROXY_PACKET_EVENT_H

#include "event.h"
#include "packet.h"
#include "settings.h"

/* Copies the beginning of a packet; returns how many bytes. The kernel wants to see that they are one at least. */
static __always_inline __u32 packet_copy(struct __sk_buff *skb, __u8 *copy)
{
	__u32 size = skb->len < PACKET_COPIED ? skb->len : PACKET_COPIED;

	size = ((size - 1) & (PACKET_COPIED - 1)) + 1;
	return bpf_skb_load_bytes(skb, 0, copy, size) ? 0 : size;
}

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
	struct packet_event *sent;

	if (!settings || !(settings->flags & SETTINGS_LISTENING))
		return 0;
	sent = bpf_ringbuf_reserve(&events, sizeof(*sent), 0);
	if (!sent)
		return 0;
	event_fill(&sent->event, &packet->tuple.destination, decision, backend);
	sent->event.source = packet->tuple.source;
	sent->event.source_port = packet->tuple.source_port;
	sent->event.device = skb->ifindex;
	sent->length = skb->len;
	sent->network = packet->network;
	sent->pad = 0;
	sent->copied = packet_copy(skb, sent->packet);
	bpf_ringbuf_submit(sent, 0);
	return 0;
}

#endif
