/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Addresses in their one form of sixteen bytes, and how a socket program reads and rewrites its own.
 * Everything is in network byte order.  `ipv6` tells the programs of the IPv6 hooks from the others
 * at compile time: the verifier lets each touch the fields of its own family only.
 */
#ifndef KUBEPROXY_ADDRESS_H
#define KUBEPROXY_ADDRESS_H

#include <stdbool.h>

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "map_types.h"

#define AF_INET  2
#define AF_INET6 10

/* The verifier wants aligned accesses to the stack; addresses are compared by halves. */
#define ALIGNED __attribute__((aligned(8)))

/*
 * A global function: the verifier looks at it once, and not again in every state that its callers may be in.  It
 * takes the context and numbers only (5.10 knows no other arguments), so addresses travel as halves.
 */
#define GLOBAL __noinline

#define IPV4_MAPPED   bpf_htonl(0x0000ffff)
#define IPV4_LOOPBACK bpf_htonl(0x7f000001)

static __always_inline __u64 address_half(const struct address *address, int half)
{
	return ((const __u64 *)address)[half];
}

static __always_inline void address_set_halves(struct address *address, __u64 first, __u64 second)
{
	((__u64 *)address)[0] = first;
	((__u64 *)address)[1] = second;
}

/* 0: they are the same. One question for the processor, and for the verifier, who follows both answers to each. */
static __always_inline __u64 address_difference(const struct address *a, const struct address *b)
{
	return (address_half(a, 0) ^ address_half(b, 0)) | (address_half(a, 1) ^ address_half(b, 1));
}

static __always_inline bool address_equal(const struct address *a, const struct address *b)
{
	return !address_difference(a, b);
}

static __always_inline bool address_is_ipv4(const struct address *address)
{
	return address->words[2] == IPV4_MAPPED && address_half(address, 0) == 0;
}

/* For sources: an IPv4 address may be given as 0.0.0.0, IPv6 as ::. */
static __always_inline bool address_is_unspecified(const struct address *address)
{
	return !address->words[3] && !address_half(address, 0) && (!address->words[2] || address_is_ipv4(address));
}

static __always_inline bool ipv4_is_loopback(__be32 address)
{
	return (address & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
}

static __always_inline bool address_is_loopback(const struct address *address)
{
	if (address_is_ipv4(address))
		return ipv4_is_loopback(address->words[3]);
	return address->words[3] == bpf_htonl(1) && !address->words[2] && !address_half(address, 0);
}

static __always_inline void address_set_ipv4(struct address *address, __be32 ipv4)
{
	address->words[0] = 0;
	address->words[1] = 0;
	address->words[2] = IPV4_MAPPED;
	address->words[3] = ipv4;
}

/*
 * Reads and writes of 32-bit fields of a program's context and its socket.  In assembly, as the compiler likes to merge
 * accesses by computing a field's address first, and the verifier lets nobody compute with these pointers.
 */
#define FIELD_READ(pointer, field)                                                                                     \
	({                                                                                                             \
		__u64 value;                                                                                           \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                                                                  \
		             : "=r"(value)                                                                             \
		             : "r"(pointer), "i"(__builtin_offsetof(__typeof__(*(pointer)), field)));                  \
		(__u32) value;                                                                                         \
	})

#define FIELD_WRITE(pointer, field, value)                                                                             \
	asm volatile("*(u32 *)(%0 + %1) = %2"                                                                          \
	             :                                                                                                 \
	             : "r"(pointer), "i"(__builtin_offsetof(__typeof__(*(pointer)), field)), "r"((__u64)(value))       \
	             : "memory")

/* The address a program was called for: a destination, or a peer that it may rename. */
static __always_inline void user_address_read(const struct bpf_sock_addr *ctx, bool ipv6, struct address *address)
{
	if (!ipv6) {
		address_set_ipv4(address, FIELD_READ(ctx, user_ip4));
		return;
	}
	address->words[0] = FIELD_READ(ctx, user_ip6[0]);
	address->words[1] = FIELD_READ(ctx, user_ip6[1]);
	address->words[2] = FIELD_READ(ctx, user_ip6[2]);
	address->words[3] = FIELD_READ(ctx, user_ip6[3]);
}

static __always_inline void user_address_write(struct bpf_sock_addr *ctx, bool ipv6, const struct address *address,
                                               __be16 port)
{
	FIELD_WRITE(ctx, user_port, port);
	if (!ipv6) {
		FIELD_WRITE(ctx, user_ip4, address->words[3]);
		return;
	}
	FIELD_WRITE(ctx, user_ip6[0], address->words[0]);
	FIELD_WRITE(ctx, user_ip6[1], address->words[1]);
	FIELD_WRITE(ctx, user_ip6[2], address->words[2]);
	FIELD_WRITE(ctx, user_ip6[3], address->words[3]);
}

/*
 * The source that a socket is bound to, or has got by connecting; unspecified if none.  An IPv6 socket that
 * speaks IPv4 keeps its mapped source as IPv4 too.
 */
static __always_inline void bound_address_read(struct bpf_sock_addr *ctx, bool ipv4, struct address *address)
{
	struct bpf_sock *sk = ctx->sk;

	address_set_ipv4(address, 0);
	if (!ipv4)
		address->words[2] = 0;
	if (!sk)
		return;
	if (ipv4) {
		address->words[3] = FIELD_READ(sk, src_ip4);
		return;
	}
	address->words[0] = FIELD_READ(sk, src_ip6[0]);
	address->words[1] = FIELD_READ(sk, src_ip6[1]);
	address->words[2] = FIELD_READ(sk, src_ip6[2]);
	address->words[3] = FIELD_READ(sk, src_ip6[3]);
}

#endif
