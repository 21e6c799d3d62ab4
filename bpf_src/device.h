/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * This node's own addresses, by the device that a packet passes.
 */
#ifndef KUBEPROXY_DEVICE_H
#define KUBEPROXY_DEVICE_H

#include "address.h"
#include "flow_types.h"

/* interface index -> its addresses; user space. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct device);
} devices SEC(".maps");

/* Returns the address of the device that a packet comes in or leaves by; NULL: it has none of that family. */
static __always_inline const struct address *device_address(const struct __sk_buff *skb, bool ipv6)
{
	__u32 index = skb->ifindex;
	const struct device *device = bpf_map_lookup_elem(&devices, &index);
	__u64 family = ipv6;

	if (!device)
		return NULL;
	asm volatile("%0 &= 1" : "+r"(family)); /* where the verifier sees it */
	return address_is_unspecified(&device->sources[family]) ? NULL : &device->sources[family];
}

#endif
