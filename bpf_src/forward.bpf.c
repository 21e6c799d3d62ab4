/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Services for whoever is not a socket of this node: packets that come in for a frontend go to a backend, and what
 * comes back goes out under the frontend's name.  The stack routes in between, by whatever rules the node has.
 */
#include "packet_client.h"

#include "counters.h"
#include "flow.h"
#include "judge.h"
#include "rewrite.h"

/* Pass is UNSPEC: OK would keep other people's filters from the packet. */
enum {
	TC_ACT_UNSPEC = -1,
	TC_ACT_SHOT = 2,
};

static __always_inline int refuse_packet(__u32 service, __u8 reason)
{
	__u8 verdict = reason_verdict(reason);

	reason_count(reason);
	if (service)
		refusal_count(service);
	return verdict == VERDICT_PASS ? TC_ACT_UNSPEC : TC_ACT_SHOT;
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
		return refuse_packet(frontend->service, reason);
	flow.source = packet->tuple.source;
	flow.source_port = packet->tuple.source_port;
	flow.destination = choice.backend->address;
	flow.destination_port = choice.port;
	flow.backend = choice.id;
	flow.generation = choice.generation;
	flow.service = frontend->service;
	flow.state = FLOW_REQUEST;
	if (flow_begin(&packet->tuple, &flow))
		return refuse_packet(frontend->service, REASON_MISSING_ENTRY);
	connection_count(frontend->service);
	return packet_rewrite(skb, packet, &flow) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
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
	return reason == REASON_NONE ? TC_ACT_UNSPEC : refuse_packet(0, reason);
}

static __always_inline int packet_forward(struct __sk_buff *skb, __u32 network, __u8 hook)
{
	struct packet ALIGNED packet;
	struct flow ALIGNED rewrite;
	struct flow *flow;

	if (!packet_read(skb, network, hook, &packet))
		return TC_ACT_UNSPEC;
	flow = flow_read(&packet, &rewrite);
	if (flow && flow_goes_on(&rewrite, &packet)) {
		flow_track(flow, &packet);
		return packet_rewrite(skb, &packet, &rewrite) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
	}
	if (hook != FLOW_INGRESS || !packet_opens(&packet))
		return TC_ACT_UNSPEC;
	if (flow)
		flow_forget(&packet.tuple, &rewrite);
	return packet_judge(skb, &packet);
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

char _license[] SEC("license") = "Dual BSD/GPL";
