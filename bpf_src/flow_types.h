/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Keys and values of the packet programs' maps: what is remembered of connections, of fragments and of devices.
 */
#ifndef KUBEPROXY_FLOW_TYPES_H
#define KUBEPROXY_FLOW_TYPES_H

#include "map_types.h"

/* Where a packet is met: on its way into this node or out of it. */
enum flow_hook {
	FLOW_INGRESS = 1,
	FLOW_EGRESS = 2,
};

/* flows and opening_flows: a packet's tuple as it arrives at a hook -> struct flow. */
struct flow_key {
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 hook; /* enum flow_hook */
	__u16 pad;
};

/* Two to the power of it jiffies are a tick of flows: between a quarter of a second and two and a half. */
enum { FLOW_TICK = 8 };

enum flow_state {
	FLOW_REQUEST = 1, /* the way of the one who opened it; else the replies' */
	FLOW_FIN = 4,     /* TCP: seen this way */
	FLOW_RST = 8,
	FLOW_SWEPT = 16,        /* nobody's: the next sweep deletes it, unless its other way is in use */
	FLOW_MASQUERADED = 32,  /* a request that gets an address of this node as its source on its way out */
	FLOW_REFUSED = 64,      /* a request that this node itself answers, from a port that nobody listens to */
	FLOW_RETIRED = 128,     /* nobody's: it has ended, or another connection took its place; does not come back */
	FLOW_UNASSURED = 256,   /* a request whose connection could not stay when that was last tried */
	FLOW_UNCONFIRMED = 512, /* a request of which nothing but SYNs came: anybody may have sent them */
};

/*
 * One way of a connection: all of the rewrite.  The other way has an entry of its own, under the tuple that answers
 * what this one becomes.
 */
struct flow {
	struct address source; /* what the packet's become */
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__u32 backend; /* backend id, and its generation when the flow began */
	__u32 generation;
	__u32 service; /* 0: what only changes the source, on the way out, knows none */
	__u32 seen;    /* when the last packet went this way: jiffies, without their lowest FLOW_TICK bits */
	__u32 state;   /* enum flow_state */
};

enum { FLOW_ROOM_SHARE = 64 }; /* entries that a CPU takes at once */

/* flow_room: one entry. */
struct flow_room {
	__s64 entries; /* of flows, that may be taken */
};

/* flow_room_shares: one entry for each CPU. */
struct flow_room_share {
	__u64 entries; /* taken, and not used yet */
};

/* fragments: what all fragments of a packet have in common -> what only its first one has. */
struct fragment_key {
	struct address source;
	struct address destination;
	__be32 id; /* IPv4's has two bytes, at the end */
	__u8 protocol;
	__u8 hook; /* enum flow_hook */
	__u16 pad;
};

struct fragment_ports {
	__be16 source;
	__be16 destination;
};

/* devices: interface index -> what packets that leave by it may have as their source. */
struct device {
	struct address sources[2]; /* IPv4, IPv6; unspecified: none */
};

/* sweep_state: one entry, of the sweep at work. */
struct sweep_state {
	__u64 standing;   /* entries that it left as they are; 0 when it begins */
	__u64 kept;       /* these, and what it marked */
	__u32 is_crowded; /* user space says so: what has ended makes room sooner */
	__u32 pad;
};

#endif
