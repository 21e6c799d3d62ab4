/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What each reason leads to. */
#ifndef KUBEPROXY_VERDICT_H
#define KUBEPROXY_VERDICT_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "map_types.h"

static __always_inline __u8 reason_verdict(__u8 reason)
{
	switch (reason) {
	case REASON_NONE:
		return VERDICT_DNAT;
	case REASON_NO_ENDPOINTS:
	case REASON_UNKNOWN_PORT:
	case REASON_LOOPBACK_SOURCE:
		return VERDICT_REJECT;
	case REASON_MISSING_ENTRY:
		return VERDICT_PASS;
	default:
		return VERDICT_DROP;
	}
}

#endif
