/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Services for whoever is not a socket of this node: packets that come in for a frontend go to a backend, and what
 * comes back goes out under the frontend's name.  The stack routes in between, by whatever rules the node has.
 */
#include "packet_client.h"

#include "counters.h"
#include "flow_begin.h"
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

/* Begins a connection to a frontend. Returns why there is none; no reason: `flow` says what becomes of it. */
static __always_inline __u8 connection_begin(struct __sk_buff *skb, const struct request *request,
                                             const struct frontend *frontend, struct flow *flow)
{
	const struct packet *packet = request->client->packet;
	struct service_view view;
	struct choice choice;
	__u8 reason;

	reason = frontend_judge(request, frontend, &view, &choice);
	if (reason != REASON_NONE)
		return reason;
	*flow = (struct flow){
		.source = packet->tuple.source,
		.source_port = packet->tuple.source_port,
		.destination = choice.backend->address,
		.destination_port = choice.port,
		.backend = choice.id,
		.generation = choice.generation,
		.service = frontend->service,
		.state = FLOW_REQUEST | (choice.flags & BACKEND_LOCAL ? 0 : FLOW_MASQUERADED),
	};
	switch (flow_begin(&packet->tuple, flow)) {
	case FLOW_WITHOUT_PORT:
		return REASON_NO_FREE_PORT;
	case FLOW_BEGUN:
		connection_count(frontend->service);
		packet_event_send(skb, packet, frontend->service, REASON_NONE, choice.id);
		break;
	case FLOW_WAS_BEGUN:
		break;
	}
	return REASON_NONE;
}

/*
 * Carries on with a connection of which a SYN is not the first; false: it is.  Also where the SYN is nobody's by now:
 * what follows it would be treated as that connection's.
 */
static __always_inline bool syn_follow(struct __sk_buff *skb, const struct packet *packet, struct flow *flow,
                                       int *action)
{
	if (packet->tuple.protocol != IPPROTO_TCP || !flow_was_begun(&packet->tuple, flow))
		return false;
	*action = flow_carry_out(skb, packet, flow);
	return true;
}

/* Decides on what opens a connection. One that goes on is not refused because its first packet came again. */
static __always_inline int packet_judge(struct __sk_buff *skb, const struct packet *packet, struct flow *flow)
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
	struct frontend frontend = {};
	__u8 reason = REASON_NONE;
	int action;

	if (!request.settings)
		return TC_ACT_UNSPEC;
	if (request_prepare(&request, &aliased)) {
		if (frontend_find(request.key, &frontend)) {
			reason = connection_begin(skb, &request, &frontend, flow);
			if (reason == REASON_NONE)
				return flow_carry_out(skb, packet, flow);
		} else {
			reason = miss_judge(&request);
		}
	}
	if (syn_follow(skb, packet, flow, &action))
		return action;
	return reason == REASON_NONE ? TC_ACT_UNSPEC : packet_refuse(skb, packet, frontend.service, reason);
}

/*
 * Carries out what was decided for a packet's connection, which is kept at one place and read at another; false: it has
 * ended.
 */
static __always_inline bool flow_apply(struct __sk_buff *skb, const struct packet *packet, struct flow *kept,
                                       const struct flow *rewrite, int *action)
{
	if (!flow_goes_on(rewrite, packet))
		return false;
	flow_track(kept, packet);
	*action = flow_carry_out(skb, packet, rewrite);
	return true;
}

/* The same, of whatever connection it is; false: there is none that is known of. */
static __always_inline bool known_flow_apply(struct __sk_buff *skb, const struct packet *packet, struct flow *copy,
                                             int *action)
{
	struct flow *kept = standing_flow_find(&packet->tuple);

	if (kept)
		return flow_apply(skb, packet, kept, kept, action);
	/* Most of these are the first of their connection; of another one, flow_begin() becomes aware. */
	if (packet->tuple.protocol == IPPROTO_TCP && packet_opens(packet))
		return false;
	kept = opening_flow_follow(packet, copy);
	return kept && flow_apply(skb, packet, kept, copy, action);
}

/*
 * Reads a packet, and deals with those of a connection, and with those that are no connection's own.  Returns whether
 * there is more to do; what became of it is in `action` if not.  `flow`: room for one, as the stack is small.
 */
static __always_inline bool packet_read(struct __sk_buff *skb, __u32 network, __u8 hook, struct packet *packet,
                                        struct flow *flow, int *action)
{
	*action = TC_ACT_UNSPEC;
	if (!network_read(skb, network, hook, packet))
		return false;
	if (is_icmp(packet)) {
		*action = ACTION_ICMP;
		return false;
	}
	return transport_read(skb, packet) && !known_flow_apply(skb, packet, flow, action);
}

/* What comes in. `network` is where the IP header begins. */
static __noinline int ingress_forward(struct __sk_buff *skb, __u32 network)
{
	struct packet ALIGNED packet;
	struct flow ALIGNED flow;
	int action;

	if (!packet_read(skb, network, FLOW_INGRESS, &packet, &flow, &action))
		return action;
	return packet_opens(&packet) ? packet_judge(skb, &packet, &flow) : TC_ACT_UNSPEC;
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
	if (!packet_read(skb, network, FLOW_EGRESS, &packet, &flow, &action))
		return action;
	if (!is_masqueraded) {
		if (packet_opens(&packet) && syn_follow(skb, &packet, &flow, &action))
			return action;
		return TC_ACT_UNSPEC;
	}
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
