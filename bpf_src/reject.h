/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Refusals, and the forms in which a socket learns of them.  A socket program that returns 0 gives its caller EPERM,
 * unless bpf_set_retval() names another error; EPERM makes clients in the kernel try again for ever.
 */
#ifndef KUBEPROXY_REJECT_H
#define KUBEPROXY_REJECT_H

#include <linux/errno.h>

#include "counters.h"
#include "socket_event.h"
#include "settings.h"

/* What a program returns. */
enum { REFUSE = 0, PROCEED = 1 };

/* Where no error can be named: nobody listens there, tcpmux is long dead. Port 0 is refused for datagrams. */
#define CLOSED_PORT bpf_htons(1)

static __always_inline int reason_error(__u8 reason)
{
	if (reason == REASON_SOCKET_ORIGINS_FULL)
		return -ENOBUFS;
	return reason_verdict(reason) == VERDICT_REJECT ? -ECONNREFUSED : -ETIMEDOUT;
}

/* Counts and tells a decision that is not DNAT. */
GLOBAL int refusal_report(struct bpf_sock_addr *ctx, __u64 wanted_first, __u64 wanted_second, __u64 decision_word)
{
	union decision decision = {.word = decision_word};
	const struct settings *settings = settings_get();

	reason_count(decision.reason);
	if (decision.service && reason_verdict(decision.reason) != VERDICT_PASS)
		refusal_count(decision.service);
	if (settings && settings->flags & SETTINGS_LISTENING)
		event_send(ctx, wanted_first, wanted_second, decision_word, NO_BACKEND);
	return 0;
}

/* Carries out what a reason demands. Returns the program's answer. */
static __always_inline int refuse(struct bpf_sock_addr *ctx, bool ipv6, const struct frontend_key *wanted,
                                  __u32 service, __u8 reason)
{
	struct address loopback = {{0, 0, 0, bpf_htonl(1)}};
	union decision decision = {
		.service = service,
		.port = wanted->port,
		.protocol = wanted->protocol,
		.reason = reason,
	};

	refusal_report(ctx, address_half(&wanted->address, 0), address_half(&wanted->address, 1), decision.word);
	if (reason_verdict(reason) == VERDICT_PASS)
		return PROCEED;
	if (verdict_form == VERDICT_FORM_RETVAL) {
		bpf_set_retval(reason_error(reason));
		return REFUSE;
	}
	if (reason_verdict(reason) != VERDICT_REJECT)
		return REFUSE;
	if (address_is_ipv4(&wanted->address))
		address_set_ipv4(&loopback, IPV4_LOOPBACK);
	user_address_write(ctx, ipv6, &loopback, CLOSED_PORT);
	return PROCEED;
}

#endif
