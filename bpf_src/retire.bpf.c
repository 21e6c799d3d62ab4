/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Ends one way of a connection, as asked for from user space: a packet holds its key (BPF_PROG_TEST_RUN).  User space
 * could delete an entry by itself, and with it what a packet is in the middle of reading.
 */
#include <stddef.h>

#include <linux/pkt_cls.h>

#include "flow_maps.h"

enum { KEY_OFFSET = 16 }; /* behind an Ethernet header, which the kernel wants to see */

SEC("tc")
int retire(struct __sk_buff *skb)
{
	struct flow_key ALIGNED key;

	if (!bpf_skb_load_bytes(skb, KEY_OFFSET, &key, sizeof(key)))
		flow_retire(&key);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
