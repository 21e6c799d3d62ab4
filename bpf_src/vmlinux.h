/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The kernel's own structures, as far as the programs touch them.  Offsets here mean nothing:
 * CO-RE replaces them by those of the running kernel.
 */
#ifndef KUBEPROXY_VMLINUX_H
#define KUBEPROXY_VMLINUX_H

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head {
	struct list_head *next;
};

struct net {
	struct list_head dev_base_head;
};

typedef struct {
	struct net *net;
} possible_net_t;

typedef struct {
	__s64 counter;
} atomic64_t;

struct sock_common {
	possible_net_t skc_net;
	atomic64_t skc_cookie;
};

struct mptcp_sock {
	struct sock_common *first;
};

struct in_ifaddr {
	struct in_ifaddr *ifa_next;
	__be32 ifa_local;
	__u32 ifa_flags;
	unsigned char ifa_scope;
};

struct in_device {
	struct in_ifaddr *ifa_list;
};

struct in6_addr {
	__u8 bytes[16];
};

struct inet6_ifaddr {
	struct in6_addr addr;
	__u32 flags;
	struct list_head if_list;
};

struct inet6_dev {
	struct list_head addr_list;
};

struct net_device {
	struct list_head dev_list;
	unsigned int flags;
	struct in_device *ip_ptr;
	struct inet6_dev *ip6_ptr;
};

struct bpf_iter__bpf_map_elem {
	void *key;
	void *value;
};

#pragma clang attribute pop

#endif
