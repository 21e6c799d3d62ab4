/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What would become of a connection: the decision of the other programs, asked for from user space.  It runs once for
 * each question (BPF_PROG_TEST_RUN), on a packet that holds the question and takes the answer; it is attached nowhere.
 * Loaded with dry_run set, it writes no map.
 */
#include <linux/pkt_cls.h>

#include "described_client.h"

#include "judge.h"
#include "masquerade.h"
#include "trace_types.h"

static __always_inline void frontend_answer(const struct request *request, const struct frontend *frontend,
                                            struct trace_answer *answer)
{
	const struct client *client = request->client;
	struct service_view view = {};
	struct choice choice = {};

	answer->reason = frontend_judge(request, frontend, &view, &choice);
	answer->verdict = reason_verdict(answer->reason);
	answer->set = view.set;
	answer->service = frontend->service;
	answer->service_flags = view.flags;
	answer->frontend_kind = frontend->kind;
	answer->affinity_seconds = view.affinity_seconds;
	answer->is_local_set = view.in_set_flag == BACKEND_IN_LOCAL_SET;
	if (answer->reason != REASON_NONE)
		return;
	answer->backend = choice.id;
	answer->by_affinity = view.affinity_seconds &&
	                      affinity_find(address_half(&client->affinity, 0), address_half(&client->affinity, 1),
	                                    frontend->service, view.affinity_seconds, view.in_set_flag) == choice.id;
	answer->masquerade =
		is_masqueraded(request->settings, service_masquerades(view.flags, frontend->kind, client->from),
	                       &client->source, &choice.backend->address);
}

static __always_inline void request_answer(struct request *request, struct trace_answer *answer)
{
	struct frontend_key ALIGNED aliased;
	struct frontend frontend;

	answer->verdict = VERDICT_PASS;
	if (request_prepare(request, &aliased)) {
		if (frontend_find(request->key, &frontend)) {
			frontend_answer(request, &frontend, answer);
		} else {
			answer->reason = miss_judge(request);
			if (answer->reason != REASON_NONE)
				answer->verdict = reason_verdict(answer->reason);
		}
	}
	answer->address_kinds = address_kinds(&request->key->address);
}

SEC("tc")
int trace(struct __sk_buff *skb)
{
	struct trace_question ALIGNED question;
	struct trace_answer ALIGNED answer = {};
	struct request request = {
		.settings = settings_get(),
		.asked = &question.destination,
		.key = &question.destination,
	};
	struct client ALIGNED client;

	if (!request.settings || bpf_skb_load_bytes(skb, TRACE_OFFSET, &question, sizeof(question)))
		return TC_ACT_UNSPEC;
	client = (struct client){
		.source = question.source,
		.affinity = question.affinity_client,
		.from = question.from,
		.number = question.number,
	};
	request.client = &client;
	request_answer(&request, &answer);
	bpf_skb_store_bytes(skb, TRACE_OFFSET + sizeof(question), &answer, sizeof(answer), 0);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
