/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Where a socket will send from.  A socket program runs before the kernel chooses a source, so the address that it
 * will choose is foretold: the one the socket is bound to, what user space published for the host's namespace, or
 * the first global address of the socket's own namespace.
 */
#ifndef KUBEPROXY_SOCKET_SOURCE_H
#define KUBEPROXY_SOCKET_SOURCE_H

#include "kernel_socket.h"
#include "source_ranges.h"

/* From the kernel's interface: linux/if.h, linux/if_addr.h, linux/rtnetlink.h. */
#define IFF_UP            0x1
#define IFF_LOOPBACK      0x8
#define IFA_F_DADFAILED   0x08
#define IFA_F_DEPRECATED  0x20
#define IFA_F_TENTATIVE   0x40
#define RT_SCOPE_UNIVERSE 0
#define IFA_F_UNUSABLE    (IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE)

enum {
	DEVICES_WALKED = 16,
	ADDRESSES_WALKED = 8,
};

/*
 * Both walks are verified apart from the one over devices, once, not again for each device: so a device goes in and the
 * place of an address comes out as what they are to the verifier, numbers.
 */
GLOBAL __u64 device_find_ipv4(__u64 device)
{
	struct in_device *in_device = BPF_CORE_READ((struct net_device *)device, ip_ptr);
	struct in_ifaddr *entry = in_device ? BPF_CORE_READ(in_device, ifa_list) : NULL;

	for (int i = 0; i < ADDRESSES_WALKED && entry; i++) {
		if (BPF_CORE_READ(entry, ifa_scope) == RT_SCOPE_UNIVERSE &&
		    !(BPF_CORE_READ(entry, ifa_flags) & IFA_F_UNUSABLE))
			return (__u64)entry + bpf_core_field_offset(entry->ifa_local);
		entry = BPF_CORE_READ(entry, ifa_next);
	}
	return 0;
}

static __always_inline bool ipv6_is_global(const struct address *address)
{
	/* fe80::/10 is a link's own, ff00::/8 nobody's. */
	return (address->words[0] & bpf_htonl(0xffc00000)) != bpf_htonl(0xfe800000) &&
	       (address->words[0] & bpf_htonl(0xff000000)) != bpf_htonl(0xff000000) && !address_is_loopback(address);
}

GLOBAL __u64 device_find_ipv6(__u64 device)
{
	struct inet6_dev *inet6_dev = BPF_CORE_READ((struct net_device *)device, ip6_ptr);
	struct inet6_ifaddr *none = NULL;
	struct list_head *head, *entry;
	struct address ALIGNED found;

	/* A kernel without IPv6 does not know the structure. */
	if (!inet6_dev || !bpf_core_field_exists(none->if_list))
		return 0;
	head = (void *)inet6_dev + bpf_core_field_offset(inet6_dev->addr_list);
	entry = BPF_CORE_READ(head, next);
	for (int i = 0; i < ADDRESSES_WALKED && entry && entry != head; i++) {
		struct inet6_ifaddr *address = (void *)entry - bpf_core_field_offset(none->if_list);

		bpf_core_read(&found, sizeof(found), &address->addr);
		if (ipv6_is_global(&found) && !(BPF_CORE_READ(address, flags) & IFA_F_UNUSABLE))
			return (__u64)address + bpf_core_field_offset(address->addr);
		entry = BPF_CORE_READ(entry, next);
	}
	return 0;
}

static __always_inline void address_read_kernel(struct address *address, bool ipv4, __u64 place)
{
	__be32 ipv4_address = 0;

	if (!ipv4) {
		bpf_probe_read_kernel(address, sizeof(*address), (const void *)place);
		return;
	}
	bpf_probe_read_kernel(&ipv4_address, sizeof(ipv4_address), (const void *)place);
	address_set_ipv4(address, ipv4_address);
}

/* Finds the first global address of the socket's namespace; source stays unspecified if there is none. */
static __always_inline void source_find(struct bpf_sock_addr *ctx, struct address *source)
{
	struct net *namespace = socket_namespace(ctx);
	bool ipv4 = source->words[2] == IPV4_MAPPED;
	struct net_device *none = NULL;
	struct list_head *head, *entry;

	if (!namespace)
		return;
	head = (void *)namespace + bpf_core_field_offset(namespace->dev_base_head);
	entry = BPF_CORE_READ(head, next);
	for (int i = 0; i < DEVICES_WALKED && entry && entry != head; i++) {
		struct net_device *device = (void *)entry - bpf_core_field_offset(none->dev_list);
		__u32 flags = BPF_CORE_READ(device, flags);
		__u64 found = 0;

		if (flags & IFF_UP && !(flags & IFF_LOOPBACK))
			found = ipv4 ? device_find_ipv4((__u64)device) : device_find_ipv6((__u64)device);
		if (found) {
			address_read_kernel(source, ipv4, found);
			return;
		}
		entry = BPF_CORE_READ(entry, next);
	}
}

/* In the host's namespace user space knows it; false elsewhere. */
static __always_inline bool host_socket_source_read(struct bpf_sock_addr *ctx, struct address *source)
{
	const struct settings *settings = settings_get();

	return settings && settings->host_netns_cookie && bpf_get_netns_cookie(ctx) == settings->host_netns_cookie &&
	       host_source_read(settings, source);
}

/*
 * Whether a service lets a socket in.  The source is what the socket is bound to, or unspecified in the
 * destination's family; then it is found here.
 */
GLOBAL bool socket_is_in_ranges(struct bpf_sock_addr *ctx, __u32 service, __u64 source_first, __u64 source_second)
{
	struct address ALIGNED source;

	address_set_halves(&source, source_first, source_second);
	if (address_is_unspecified(&source) && !host_socket_source_read(ctx, &source))
		source_find(ctx, &source);
	return source_is_in_ranges(service, &source);
}

#endif
