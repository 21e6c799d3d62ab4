/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Services at sockets: a Service's address becomes a backend's once, when a socket connects or
 * first sends, and the socket's owner keeps seeing the Service.  What is no Service's is left as it is.
 */
#include "datagram.h"
#include "kernel_socket.h"
#include "peer_names.h"
#include "translate.h"

/* The kernel asks for connect() of a multipath TCP socket's first subflow, and for getpeername() of the whole. */
static __always_inline __u64 connected_cookie(struct bpf_sock_addr *ctx)
{
	return ctx->protocol == IPPROTO_MPTCP ? multipath_first_cookie(ctx) : bpf_get_socket_cookie(ctx);
}

static __always_inline int peer_rename(struct bpf_sock_addr *ctx, bool ipv6)
{
	__u8 protocol = service_protocol(ctx->protocol);
	const struct origin *origin;
	struct address ALIGNED peer;

	if (protocol == IPPROTO_UDP)
		datagram_peer_rename(ctx, ipv6);
	if (protocol != IPPROTO_TCP)
		return PROCEED;
	user_address_read(ctx, ipv6, &peer);
	origin = peer_name_find(connected_cookie(ctx), &peer, ctx->user_port);
	if (origin)
		user_address_write(ctx, ipv6, &origin->frontend.address, origin->frontend.port);
	return PROCEED;
}

static __always_inline int reply_rename(struct bpf_sock_addr *ctx, bool ipv6)
{
	if (ctx->protocol == IPPROTO_UDP)
		datagram_peer_rename(ctx, ipv6);
	return PROCEED;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return destination_translate(ctx, (struct hook){.ipv6 = false, .sendmsg = false});
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	return destination_translate(ctx, (struct hook){.ipv6 = true, .sendmsg = false});
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return destination_translate(ctx, (struct hook){.ipv6 = false, .sendmsg = true});
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	return destination_translate(ctx, (struct hook){.ipv6 = true, .sendmsg = true});
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	return reply_rename(ctx, false);
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	return reply_rename(ctx, true);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	return peer_rename(ctx, false);
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	return peer_rename(ctx, true);
}

SEC("cgroup/sock_release")
int sock_release(struct bpf_sock *ctx)
{
	if (ctx->protocol == IPPROTO_UDP)
		datagram_socket_forget(ctx);
	return PROCEED;
}

char _license[] SEC("license") = "Dual BSD/GPL";
