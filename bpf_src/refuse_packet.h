/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What a packet's verdict is if it gets no backend.  A refusal is the kernel's own: the packet goes to this node
 * itself, to port 0, which nobody can listen to, and the kernel answers with a reset or an ICMP error as for any closed
 * port. What it answers is translated as every answer is, so that it comes from the address that the client used.
 */
#ifndef KUBEPROXY_REFUSE_PACKET_H
#define KUBEPROXY_REFUSE_PACKET_H

#include <linux/pkt_cls.h>

#include "counters.h"
#include "device.h"
#include "flow_begin.h"
#include "packet_event.h"
#include "rewrite.h"
#include "verdict.h"

/* Beside TC_ACT_SHOT and, to pass, TC_ACT_UNSPEC: OK would keep other people's filters from the packet. */
enum {
	/* No actions of the kernel's: there is more to do, for functions that each need much of the stack. */
	ACTION_GO_ON = 100,
	ACTION_ICMP = 101,
};

/* Lets the kernel refuse a packet; where it cannot, the packet is lost. */
static __always_inline int packet_reject(struct __sk_buff *skb, const struct packet *packet)
{
	const struct address *address = device_address(skb, packet->ipv6);
	struct flow ALIGNED flow;

	if (!address)
		return TC_ACT_SHOT;
	flow = (struct flow){
		.source = packet->tuple.source,
		.source_port = packet->tuple.source_port,
		.destination = *address,
		.state = FLOW_REQUEST | FLOW_REFUSED,
	};
	/* One that was begun this moment is another CPU's, which did not refuse it. */
	if (flow_begin(&packet->tuple, &flow) != FLOW_BEGUN || packet_rewrite(skb, packet, &flow))
		return TC_ACT_SHOT;
	return TC_ACT_UNSPEC;
}

static __always_inline int packet_refuse(struct __sk_buff *skb, const struct packet *packet, __u32 service, __u8 reason)
{
	reason_count(reason);
	packet_event_send(skb, packet, service, reason, NO_BACKEND);
	if (service)
		refusal_count(service);
	switch (reason_verdict(reason)) {
	case VERDICT_PASS:
		return TC_ACT_UNSPEC;
	case VERDICT_REJECT:
		return packet_reject(skb, packet);
	default:
		return TC_ACT_SHOT;
	}
}

#endif
