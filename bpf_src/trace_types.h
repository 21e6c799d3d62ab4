/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What trace.bpf.c is asked, and what it answers: the payload of its packet.  kubeproxy_ebpf/datapath/trace.py has
 * the same layout, and a test compares them.
 */
#ifndef KUBEPROXY_TRACE_TYPES_H
#define KUBEPROXY_TRACE_TYPES_H

#include "map_types.h"

/* Where the question begins: after an Ethernet header of zeros, on a multiple of eight. */
enum { TRACE_OFFSET = 16 };

struct trace_question {
	struct frontend_key destination;
	__u32 from;                     /* enum source */
	struct address source;          /* what the client sends from; unspecified: not known */
	struct address affinity_client; /* as in affinity_key; zero: one that was never here */
	__u32 number;                   /* picks a member of the set */
	__u32 pad;
};

struct trace_answer {
	__u64 set; /* the one that applies; 0 without a frontend */
	__u32 service;
	__u32 service_flags;
	__u32 frontend_kind; /* 0: no frontend */
	__u32 address_kinds;
	__u32 affinity_seconds;
	__u32 backend; /* the one that was picked, if the verdict is DNAT */
	__u8 verdict;  /* enum verdict */
	__u8 reason;   /* enum reason */
	__u8 is_local_set;
	__u8 by_affinity; /* the backend is the one that affinity remembers */
	__u8 masquerade;
	__u8 pad[3];
};

#endif
