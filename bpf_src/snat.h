/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Connections to endpoints on other nodes get the address of the device that the route chose, so that what answers them
 * comes back here.  It happens on the way out: a packet that came in with an address of this node as its source would
 * be dropped by the stack.
 */
#ifndef KUBEPROXY_SNAT_H
#define KUBEPROXY_SNAT_H

#include "device.h"
#include "flow_begin.h"

/*
 * The mark that says from one hook to the next: this one is to be masqueraded.  Gone once that is done.  Others have
 * taken 0x4000 and 0x8000 (kube-proxy), 0xf00 (Cilium), 0x80 (AWS), 0x2000 (portmap) and all above 0xffff (Calico).
 */
const volatile __u32 masquerade_mark = 0x1000;

/* Gives a new connection the address of the device that it leaves by; no reason: it has one. */
static __always_inline __u8 snat_begin(struct __sk_buff *skb, const struct packet *packet, struct flow *flow)
{
	const struct address *address = device_address(skb, packet->ipv6);

	if (!address)
		return REASON_NO_DEVICE_ADDRESS;
	*flow = (struct flow){
		.source = *address,
		.source_port = masquerade_port(packet->tuple.source_port),
		.destination = packet->tuple.destination,
		.destination_port = packet->tuple.destination_port,
		.state = FLOW_REQUEST,
	};
	return flow_begin(&packet->tuple, flow) == FLOW_WITHOUT_PORT ? REASON_NO_FREE_PORT : REASON_NONE;
}

#endif
