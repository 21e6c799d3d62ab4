/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Services for whoever is not a socket of this node: packets that come in for a frontend go to a backend, and what
 * comes back goes out under the frontend's name.  The stack routes in between, by whatever rules the node has.
 */
#include "packet_client.h"

#include "counters.h"
#include "flow.h"
#include "fragment.h"
#include "icmp_error.h"
#include "judge.h"
#include "refuse_packet.h"
#include "rewrite.h"
#include "snat.h"

/* Makes of a packet what its flow says. */
static __always_inline int flow_carry_out(struct __sk_buff *skb, const struct packet *packet, const struct flow *flow)
{
	if (flow->state & FLOW_MASQUERADED)
		skb->mark |= masquerade_mark;
	return packet_rewrite(skb, packet, flow) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* A connection's first packet to a frontend. */
static __always_inline int frontend_forward(struct __sk_buff *skb, const struct request *request,
                                            const struct frontend *frontend)
{
	const struct packet *packet = request->client->packet;
	struct flow ALIGNED flow = {};
	struct service_view view;
	struct choice choice;
	__u8 reason;

	reason = frontend_judge(request, frontend, &view, &choice);
	if (reason != REASON_NONE)
		return packet_refuse(skb, packet, frontend->service, reason);
	flow.source = packet->tuple.source;
	flow.source_port = packet->tuple.source_port;
	flow.destination = choice.backend->address;
	flow.destination_port = choice.port;
	flow.backend = choice.id;
	flow.generation = choice.generation;
	flow.service = frontend->service;
	flow.state = FLOW_REQUEST | (choice.flags & BACKEND_LOCAL ? 0 : FLOW_MASQUERADED);
	if (flow_begin(&packet->tuple, &flow))
		return packet_refuse(skb, packet, frontend->service, REASON_NO_FREE_PORT);
	connection_count(frontend->service);
	return flow_carry_out(skb, packet, &flow);
}

static __always_inline int packet_judge(struct __sk_buff *skb, const struct packet *packet)
{
	struct client client = {.packet = packet};
	struct frontend_key ALIGNED asked = {
		.address = packet->tuple.destination,
		.port = packet->tuple.destination_port,
		.protocol = packet->tuple.protocol,
	};
	struct frontend_key ALIGNED aliased;
	struct request request = {
		.client = &client,
		.settings = settings_get(),
		.asked = &asked,
		.key = &asked,
	};
	struct frontend frontend;
	__u8 reason;

	if (!request.settings || !request_prepare(&request, &aliased))
		return TC_ACT_UNSPEC;
	if (frontend_find(request.key, &frontend))
		return frontend_forward(skb, &request, &frontend);
	reason = miss_judge(&request);
	return reason == REASON_NONE ? TC_ACT_UNSPEC : packet_refuse(skb, packet, 0, reason);
}

/* Carries out what was decided for a packet's connection; false: there is none, or it has ended. */
static __always_inline bool known_flow_apply(struct __sk_buff *skb, const struct packet *packet, int *action)
{
	struct flow ALIGNED rewrite;
	struct flow *flow = flow_read(packet, &rewrite);

	if (!flow)
		return false;
	if (!flow_goes_on(&rewrite, packet)) {
		if (rewrite.state & FLOW_REQUEST)
			flow_forget(&packet->tuple, &rewrite);
		return false;
	}
	flow_track(flow, packet);
	*action = flow_carry_out(skb, packet, &rewrite);
	return true;
}

/*
 * Reads a packet, and deals with those that are no connection's own.  Returns whether there is more to do; what became
 * of it is in `action` if not.
 */
static __always_inline bool packet_read(struct __sk_buff *skb, __u32 network, __u8 hook, struct packet *packet,
                                        int *action)
{
	*action = TC_ACT_UNSPEC;
	if (!network_read(skb, network, hook, packet))
		return false;
	if (is_icmp(packet)) {
		*action = ACTION_ICMP;
		return false;
	}
	return transport_read(skb, packet) && !known_flow_apply(skb, packet, action);
}

/* What comes in. `network` is where the IP header begins. */
static __noinline int ingress_forward(struct __sk_buff *skb, __u32 network)
{
	struct packet ALIGNED packet;
	int action;

	if (!packet_read(skb, network, FLOW_INGRESS, &packet, &action))
		return action;
	return packet_opens(&packet) ? packet_judge(skb, &packet) : TC_ACT_UNSPEC;
}

/* What leaves. */
static __noinline int egress_forward(struct __sk_buff *skb, __u32 network)
{
	bool is_masqueraded = skb->mark & masquerade_mark;
	struct packet ALIGNED packet;
	struct flow ALIGNED flow;
	int action;
	__u8 reason;

	if (is_masqueraded)
		skb->mark &= ~masquerade_mark;
	if (!packet_read(skb, network, FLOW_EGRESS, &packet, &action))
		return action;
	if (!is_masqueraded)
		return TC_ACT_UNSPEC;
	reason = snat_begin(skb, &packet, &flow);
	return reason == REASON_NONE ? flow_carry_out(skb, &packet, &flow) : packet_refuse(skb, &packet, 0, reason);
}

static __always_inline int packet_forward(struct __sk_buff *skb, __u32 network, __u8 hook)
{
	int action = packet_is_fragment(skb, network) ? fragment_meet(skb, network, hook) : ACTION_GO_ON;

	if (action == ACTION_GO_ON)
		action = hook == FLOW_INGRESS ? ingress_forward(skb, network) : egress_forward(skb, network);
	if (action != ACTION_ICMP)
		return action;
	return icmp_error_translate(skb, network, hook) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

SEC("tc")
int forward_ingress(struct __sk_buff *skb)
{
	return packet_forward(skb, ETHERNET_HEADER_SIZE, FLOW_INGRESS);
}

SEC("tc")
int forward_egress(struct __sk_buff *skb)
{
	return packet_forward(skb, ETHERNET_HEADER_SIZE, FLOW_EGRESS);
}

/* On devices whose packets begin with IP's header: tunnels, WireGuard. */
SEC("tc")
int forward_ingress_ip(struct __sk_buff *skb)
{
	return packet_forward(skb, 0, FLOW_INGRESS);
}

SEC("tc")
int forward_egress_ip(struct __sk_buff *skb)
{
	return packet_forward(skb, 0, FLOW_EGRESS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
