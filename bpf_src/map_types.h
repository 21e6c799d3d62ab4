/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Keys and values of every map that user space shares with the programs; those of connections are in flow_types.h.
 *
 * The single source of these layouts: clang compiles it into the programs, cffi reads it
 * for the binding, and a test compares it with kubeproxy_ebpf/map_schema.py and with the
 * BTF of the built objects.
 *
 * Contract: addresses and ports are in network byte order everywhere in maps; every other
 * number is in host order.  Padding is explicit and zero.  The values of arrays are multiples
 * of eight bytes, as the kernel rounds their stride up to that.  Id 0 of every array means
 * "none" to the programs' readers and is never given to a Service; only the self-test
 * borrows it.
 */
#ifndef KUBEPROXY_MAP_TYPES_H
#define KUBEPROXY_MAP_TYPES_H

#ifndef KUBEPROXY_CFFI
#include <linux/types.h>
#endif

/* Changes when a map's meaning or layout does; the loader refuses a layout it does not know. */
enum { LAYOUT_VERSION = 1 };

enum { MAX_CIDRS = 8 };

/* An IPv6 address, or an IPv4 address mapped into one (RFC 4291, 2.5.5.2). */
struct address {
	__be32 words[4];
};

/* addresses: address -> kind bits. Asked before frontends where most traffic is no Service's. */
enum address_kind {
	ADDRESS_CLUSTER_IP = 1, /* its unknown ports are refused */
	ADDRESS_EXTERNAL = 2,   /* externalIP or load balancer VIP: unknown ports are not ours */
	ADDRESS_NODE = 4,       /* has NodePorts: unknown ports are not ours */
	ADDRESS_EXCLUDED = 8,   /* opted out: never translated, never dropped */
};

/* What a frontend is, which decides the traffic policy that applies to it. */
enum frontend_kind {
	FRONTEND_CLUSTER_IP = 1,
	FRONTEND_EXTERNAL_IP = 2,
	FRONTEND_LOAD_BALANCER = 3,
	FRONTEND_NODE_PORT = 4,
};

/* frontends: frontend_key -> origin id (__u32). */
struct frontend_key {
	struct address address;
	__be16 port;
	__u8 protocol; /* IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP */
	__u8 pad;
};

/*
 * origins: origin id -> the frontend itself.  It is what a reader compares its key with, as an
 * element of the frontends hash may be recycled under its hands, and what getpeername() and
 * recvmsg() show.  The last eight bytes are one word to publish.
 */
struct origin {
	struct frontend_key frontend;
	__u32 pad;
	__u32 service; /* service id; 0: not in use */
	__u32 kind;    /* enum frontend_kind */
};

enum service_flag {
	SERVICE_INTERNAL_LOCAL = 1, /* internalTrafficPolicy: Local */
	SERVICE_EXTERNAL_LOCAL = 2, /* externalTrafficPolicy: Local */
	SERVICE_HAS_ENDPOINTS = 4,  /* some endpoint is usable somewhere: an empty set is DROP, not REJECT */
	SERVICE_SOURCE_RANGES = 8,  /* load balancer VIPs ask source_ranges */
	/* Whose connections get an address of this node as their source: three bits, one for each enum source. */
	SERVICE_MASQUERADE_CLUSTER_IP = 16, /* to ClusterIPs */
	SERVICE_MASQUERADE_EXTERNAL = 128,  /* to all other frontends */
	/* Which endpoints are in the sets: two bits each, enum set_rule. For people only. */
	SERVICE_CLUSTER_RULE = 1024,
	SERVICE_LOCAL_RULE = 4096,
};

/* Where a connection comes from, seen from this node. */
enum source {
	SOURCE_POD = 0,
	SOURCE_NODE = 1,
	SOURCE_OUTSIDE = 2,
};

enum set_rule {
	SET_READY = 0,       /* all that are ready */
	SET_NODE_HINTS = 1,  /* those that are ready and hinted for this node */
	SET_ZONE_HINTS = 2,  /* those that are ready and hinted for its zone */
	SET_TERMINATING = 3, /* as none is ready: those that are serving and terminating */
};

/*
 * services: service id -> one service port of one family.  A set is one word,
 * base << 32 | count: a range of slots.  {affinity_seconds, flags} is one word to publish.
 */
struct service {
	__u64 cluster_set;
	__u64 local_set;
	__u32 affinity_seconds; /* 0: no session affinity */
	__u32 flags;            /* enum service_flag */
	__u64 pad;
};

/* slots: slot -> backend id. */
struct slot {
	__u32 backend;
	__u32 pad;
};

enum backend_flag {
	BACKEND_ALLOCATED = 1, /* owned by a service; a free entry keeps only its generation */
	BACKEND_IN_CLUSTER_SET = 2,
	BACKEND_IN_LOCAL_SET = 4,
	BACKEND_LOCAL = 8, /* the endpoint runs on this node */
};

/*
 * backends: backend id -> one endpoint of one service port.  The last eight bytes are one word to
 * publish.  The generation moves on when the endpoint stops serving, and when the
 * entry changes hands: whoever remembered the old one knows that the backend is not it any more.
 */
struct backend {
	struct address address;
	__u32 service; /* the service id it belongs to */
	__u32 node;    /* node id, for tunnel and DSR; 0: unknown */
	__u32 generation;
	__u16 flags; /* enum backend_flag */
	__be16 port;
};

/* service_names: service id -> what Kubernetes calls it; NUL padded. Read by people and at restart only. */
struct service_name {
	char service_namespace[64];
	char name[64];
	char port[64];
	__u8 family; /* 4 or 6 */
	__u8 protocol;
	__u8 pad[6];
};

/* source_ranges: longest prefix match -> 1. prefix_length counts the service's 32 bits too. */
struct source_range_key {
	__u32 prefix_length;
	__u32 service;
	struct address address;
};

/* affinity: the client is an address, or {0, 0, netns cookie} at a socket (the cookie in host order). */
struct affinity_key {
	__u32 service;
	__u32 pad;
	struct address client;
};

struct affinity_record {
	__u32 backend;
	__u32 generation;
	__u64 last_connection; /* bpf_ktime_get_boot_ns() */
};

/*
 * peer_names: a TCP socket's cookie, direct mapped -> which origin it connected to. One word, for the programs alone.
 * The check is over the cookie, the frontend and the peer: neither another socket, nor an origin id that
 * changed hands, nor a socket that connected elsewhere since can be taken for this one.
 */
struct peer_name {
	__u32 check;
	__u32 origin;
};

enum {
	SOCKET_ORIGINS = 8,           /* frontends that a UDP socket remembers by itself; a power of two */
	SOCKET_OVERFLOW_LIMIT = 1024, /* displaced ones that one socket may have in socket_origins_overflow */
};

/* A frontend that a UDP socket has sent to, and where its datagrams went. Only the programs know these. */
struct socket_origin {
	struct address frontend;
	struct address backend;
	__be16 frontend_port;
	__be16 backend_port;
	__u32 origin; /* origin id of the frontend */
	__u32 backend_id;
	__u32 generation; /* of the backend, when it was picked */
	__u32 used;       /* the socket's clock when it was last sent to: of two with one backend, the later wins */
	__u32 current;    /* 0: replies may still come, but the frontend has another backend by now */
};

/* A backend's address and port, without the socket. */
struct socket_backend {
	struct address address;
	__be16 port;
	__u8 pad[6];
};

/* socket_origins: storage of a UDP socket. The overflow is a chain from the oldest to the newest. */
struct socket_origins {
	__u32 clock;
	__u32 count;
	__u32 overflow_count;
	__u32 pad;
	struct socket_origin entries[SOCKET_ORIGINS];
	struct socket_backend oldest;
	struct socket_backend newest;
};

/* socket_origins_overflow: what did not fit a socket's storage, until it returns there or the socket is closed. */
struct overflow_key {
	__u64 cookie;
	struct socket_backend backend;
};

struct overflow_origin {
	struct address frontend;
	__be16 frontend_port;
	__u16 pad;
	__u32 backend_id;
	__u32 generation;
	__u32 pad2;
	struct socket_backend previous; /* of the oldest, nothing; likewise next of the newest */
	struct socket_backend next;
};

struct prefix {
	struct address network;
	struct address mask;
};

enum settings_flag {
	SETTINGS_LOCALHOST_NODE_PORTS = 1, /* 127.0.0.0/8 stands for 127.0.0.1, which has NodePorts */
	SETTINGS_LISTENING = 2,            /* somebody reads events */
};

/* settings: one entry, changed while the programs run. */
struct settings {
	__u32 flags; /* enum settings_flag */
	__u32 pad;
	__u32 service_cidr_count; /* {count, count} is one word to publish */
	__u32 excluded_cidr_count;
	__u64 host_netns_cookie;
	struct address host_source_ipv4; /* preferred source addresses of the host's namespace */
	struct address host_source_ipv6;
	struct prefix service_cidrs[MAX_CIDRS];
	struct prefix excluded_cidrs[MAX_CIDRS];
};

/* service_counters: per CPU, by service id; ids past its end are counted at 0. */
struct service_counter {
	__u64 connections; /* DNAT decisions: connect(), or a datagram's first use of a backend */
	__u64 refused;     /* REJECT and DROP decisions */
};

/* reason_counters: per CPU, by reason. Also the reason in an event. */
enum reason {
	REASON_NONE = 0,
	REASON_NO_ENDPOINTS = 1,        /* REJECT: no usable endpoint anywhere */
	REASON_NO_LOCAL_ENDPOINTS = 2,  /* DROP: policy Local, endpoints only elsewhere */
	REASON_SOURCE_NOT_ALLOWED = 3,  /* DROP: outside loadBalancerSourceRanges */
	REASON_UNKNOWN_PORT = 4,        /* REJECT: a ClusterIP without this port */
	REASON_UNALLOCATED_ADDRESS = 5, /* DROP: in a ServiceCIDR, nobody's */
	REASON_LOOPBACK_SOURCE = 6,     /* REJECT: bound to loopback, which cannot reach the endpoint */
	REASON_SOCKET_ORIGINS_FULL = 7, /* ENOBUFS: too many origins to remember on one socket */
	REASON_MISSING_ENTRY = 8,       /* a slot or backend that is not there: a bug, passed on untouched */
	REASON_NO_FREE_PORT = 9,        /* DROP: no port is left under which answers could be told apart */
	REASON_NO_DEVICE_ADDRESS = 10, /* DROP: the device that the route chose has no address of the packet's family */
	REASON_LOST_FRAGMENT = 11,     /* DROP: a later fragment whose first one was not seen */
	REASON_FLOWS_FULL = 12,        /* no verdict: a connection that stands is one that may be forgotten */
	REASON_COUNT = 13,
};

enum verdict {
	VERDICT_PASS = 0,
	VERDICT_DNAT = 1,
	VERDICT_REJECT = 2,
	VERDICT_DROP = 3,
};

/* How a refusal is said to the socket: the programs' constant verdict_form, set before they are loaded. */
enum verdict_form {
	VERDICT_FORM_LOOPBACK = 0, /* without bpf_set_retval(): REJECT leads to a closed port, DROP is EPERM */
	VERDICT_FORM_RETVAL = 1,   /* REJECT is ECONNREFUSED, DROP is ETIMEDOUT */
};

/* events: ring buffer. */
struct event {
	__u64 time; /* bpf_ktime_get_boot_ns() */
	__u64 socket_cookie;
	__u64 netns_cookie;
	struct address source;      /* of a packet; zero: a socket, which has none yet */
	struct address destination; /* what was asked for */
	struct address endpoint;    /* where it was sent; zero without DNAT */
	__be16 source_port;
	__be16 destination_port;
	__be16 endpoint_port;
	__u8 protocol;
	__u8 verdict; /* enum verdict */
	__u8 reason;  /* enum reason */
	__u8 pad[3];
	__u32 service;
	__u32 backend;
	__u32 device;     /* interface index that a packet came in or leaves by */
	char command[16]; /* of a socket's process */
};

enum { PACKET_COPIED = 128 }; /* bytes; a power of two */

/* events: what is about a packet. */
struct packet_event {
	struct event event;
	__u32 length; /* of the packet, in bytes */
	__u16 copied; /* of these, the first ones, as the packet came */
	__u8 network; /* where the IP header begins; 0: there is no Ethernet header */
	__u8 pad;
	__u8 packet[PACKET_COPIED];
};

#endif
