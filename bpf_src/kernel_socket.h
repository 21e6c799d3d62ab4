/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What only the kernel's own structures tell of a socket.
 */
#ifndef KUBEPROXY_KERNEL_SOCKET_H
#define KUBEPROXY_KERNEL_SOCKET_H

#include <stddef.h>

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/*
 * The address of the kernel's struct sock, as a number.  The verifier lets nobody compute with ctx->sk itself;
 * read back from the stack it is no pointer to it any more.
 */
static __always_inline void *socket_address(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	void *address = NULL;

	if (sk)
		bpf_probe_read_kernel(&address, sizeof(address), &sk);
	return address;
}

/* The network namespace that a socket was made in; not its task's, as sockets outlive setns() and are passed on. */
static __always_inline struct net *socket_namespace(struct bpf_sock_addr *ctx)
{
	struct sock_common *sock = socket_address(ctx);

	return sock ? BPF_CORE_READ(sock, skc_net.net) : NULL;
}

/* The cookie of the TCP socket that a multipath TCP socket connected first; 0 if there is none. */
static __always_inline __u64 multipath_first_cookie(struct bpf_sock_addr *ctx)
{
	struct mptcp_sock *multipath = socket_address(ctx);
	struct sock_common *first;

	if (!multipath || !bpf_core_field_exists(multipath->first))
		return 0;
	first = BPF_CORE_READ(multipath, first);
	return first ? BPF_CORE_READ(first, skc_cookie.counter) : 0;
}

#endif
