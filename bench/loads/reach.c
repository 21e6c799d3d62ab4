/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * When a change is in effect for new connections. Commands come on standard input, one after the other.
 * usage: reach SIDE NODE-NETNS DEVICE PORT
 *
 *   all SECONDS
 *        Asks one target of the side after the other, each until its endpoints answer. Prints "effect TIME", or "effect
 * 0" when that takes longer. await ADDRESS PORT FIRST LAST, then another such line New connections end at the first
 * line's endpoints now, and soon at the second's (0.0.0.0: at nobody's). Prints "probing" when the first line was seen
 * to be true, and "effect TIME LOST ARRIVAL..." when the second is.
 *
 * Times are CLOCK_MONOTONIC in nanoseconds. TIME: somebody new was connected to, or the first connection was begun that
 * nobody answered. LOST: connections without an answer although both lines name endpoints. ARRIVAL: data came to the
 * node from that TCP port through that device since the command.
 */
#include "side.h"

#include <linux/if_ether.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netpacket/packet.h>

enum {
	SHORTEST_REST_US = 250,
	LONGEST_REST_US = 20000,
	REST_SHARE = 100, /* of the time that has passed: what asking rarely makes of the error */
	CONFIRMATIONS = 3,
	MOST_ARRIVALS = 32,
};
static const uint64_t TOO_LATE_NS = 900 * 1000000000ull;
static const struct timeval CONNECT_PATIENCE = {0, 8000}, ANSWER_PATIENCE = {1, 0};

struct tap {
	int socket;
	in_port_t port;
};

/* Sees what arrives at the node, while this process asks as a pod. */
static struct tap tap_open(const char *netns, const char *device, int port)
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP)};
	struct tap tap = {.port = htons(port)};
	int node = side_open(netns, O_RDONLY), on = 1;

	if (setns(node, CLONE_NEWNET))
		die("%s: %s", netns, strerror(errno));
	close(node);
	address.sll_ifindex = if_nametoindex(device);
	tap.socket = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (tap.socket < 0 || setsockopt(tap.socket, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) ||
	    bind(tap.socket, (struct sockaddr *)&address, sizeof(address)))
		die("listen to %s: %s", device, strerror(errno));
	return tap;
}

static int64_t monotonic_from_realtime(void)
{
	struct timespec realtime, monotonic;

	clock_gettime(CLOCK_REALTIME, &realtime);
	clock_gettime(CLOCK_MONOTONIC, &monotonic);
	return (monotonic.tv_sec - realtime.tv_sec) * 1000000000ll + monotonic.tv_nsec - realtime.tv_nsec;
}

static bool packet_has_data(const struct tap *tap, const unsigned char *packet, ssize_t size)
{
	const struct iphdr *ip = (const struct iphdr *)packet;
	const struct tcphdr *tcp;

	if (size < (ssize_t)sizeof(*ip) || ip->protocol != IPPROTO_TCP || size < ip->ihl * 4 + (ssize_t)sizeof(*tcp))
		return false;
	tcp = (const struct tcphdr *)(packet + ip->ihl * 4);
	return tcp->source == tap->port && ntohs(ip->tot_len) > ip->ihl * 4 + tcp->doff * 4;
}

/* Prints when packets with data came since the last call, or nothing. */
static void tap_drain(const struct tap *tap, bool prints)
{
	unsigned char packet[128], control[CMSG_SPACE(sizeof(struct timespec))];
	int64_t offset = monotonic_from_realtime();
	int arrivals = 0;

	for (;;) {
		struct iovec vector = {packet, sizeof(packet)};
		struct msghdr message = {
			.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
		ssize_t size = recvmsg(tap->socket, &message, MSG_DONTWAIT);
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		struct timespec time;

		if (size < 0)
			return;
		if (!prints || arrivals == MOST_ARRIVALS || !header || !packet_has_data(tap, packet, size))
			continue;
		memcpy(&time, CMSG_DATA(header), sizeof(time));
		printf(" %lld", (long long)(time.tv_sec * 1000000000ll + time.tv_nsec + offset));
		arrivals++;
	}
}

/* Who answers a new connection, 0 if nobody; and when it was connected. */
static in_addr_t ask(struct side *side, const struct target *target, uint64_t *connected)
{
	int fd = socket_bind_next(SOCK_STREAM, side->next_source++);
	in_addr_t answer = 0;

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &CONNECT_PATIENCE, sizeof(CONNECT_PATIENCE));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &ANSWER_PATIENCE, sizeof(ANSWER_PATIENCE));
	if (!connect(fd, (const struct sockaddr *)&target->address, sizeof(target->address))) {
		*connected = now_ns();
		if (write(fd, "?", 1) != 1 || read(fd, &answer, sizeof(answer)) != sizeof(answer))
			answer = 0;
	}
	close(fd);
	return answer;
}

/* The longer it takes, the less it matters when exactly it is seen. */
static void rest(uint64_t start)
{
	uint64_t us = (now_ns() - start) / 1000 / REST_SHARE;

	usleep(us < SHORTEST_REST_US ? SHORTEST_REST_US : us > LONGEST_REST_US ? LONGEST_REST_US : us);
}

static void all(struct side *side, uint64_t patience_ns)
{
	uint64_t start = now_ns(), connected = 0;
	in_addr_t answer;

	for (size_t i = 0; i < side->count; i++) {
		const struct target *target = &side->targets[i];

		while (!(answer = ask(side, target, &connected)) && now_ns() - start < patience_ns)
			rest(start);
		if (!answer) {
			puts("effect 0");
			return;
		}
		target_check(side, target, answer);
	}
	printf("effect %lu\n", connected);
}

static void await(struct side *side, const struct tap *tap, const struct target *before, const struct target *after)
{
	uint64_t start, begun, connected, effect = 0;
	unsigned int confirmed = 0, lost = 0;
	in_addr_t answer;

	if (endpoints_have(&after->endpoints, ask(side, before, &connected)))
		die("%s: %s: nothing would change", side->name, inet_ntoa(before->address.sin_addr));
	tap_drain(tap, false);
	puts("probing");
	fflush(stdout);
	start = now_ns();
	while (confirmed < CONFIRMATIONS) {
		rest(start);
		begun = now_ns();
		if (begun - start > TOO_LATE_NS)
			die("%s: no effect after %lu s", side->name, (begun - start) / 1000000000);
		answer = ask(side, before, &connected);
		if (endpoints_have(&after->endpoints, answer)) {
			if (!confirmed++)
				effect = answer ? connected : begun;
			continue;
		}
		confirmed = 0;
		if (!answer && before->endpoints.first)
			lost++;
		else
			target_check(side, before, answer);
	}
	printf("effect %lu %u", effect, lost);
	tap_drain(tap, true);
	puts("");
}

static void line_read(char *line, int size)
{
	if (!fgets(line, size, stdin))
		die("the end of a command is missing");
}

int main(int argc, char **argv)
{
	char line[256];
	struct side side;
	struct tap tap;

	if (argc != 5)
		die("usage: reach SIDE NODE-NETNS DEVICE PORT");
	tap = tap_open(argv[2], argv[3], atoi(argv[4]));
	side = side_parse(argv[1]);
	side_enter(&side);
	while (fgets(line, sizeof(line), stdin)) {
		struct target before, after;

		if (!strncmp(line, "all ", 4)) {
			all(&side, strtoull(line + 4, NULL, 10) * 1000000000ull);
		} else if (!strncmp(line, "await ", 6) && target_parse(&before, line + 6)) {
			line_read(line, sizeof(line));
			if (!target_parse(&after, line))
				die("not a target: %s", line);
			await(&side, &tap, &before, &after);
		} else {
			die("not a command: %s", line);
		}
		fflush(stdout);
	}
}
