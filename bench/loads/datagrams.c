/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What one datagram of 64 bytes costs from a client's socket to an endpoint's, side by side.
 * usage: datagrams ROUNDS DATAGRAMS SERVER-PORT SERVER-NETNS:SIDE...
 * Prints a line "round side nanoseconds" as each side's turn in a round ends. A turn is one socket, whose first
 * datagram is answered before. Nobody receives during a turn, so that all of the way runs on one processor; afterwards
 * every datagram must be there.
 */
#include "match.h"

enum { SIZE = 64, RECEIVE_BUFFER = 1 << 26 };
static const struct timeval PATIENCE = {1, 0};

static int receiver_open(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	int size = RECEIVE_BUFFER, on = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (bind(fd, (struct sockaddr *)&address, sizeof(address)))
		die("bind to port %d: %s", port, strerror(errno));
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) ||
	    setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on)))
		die("prepare the socket of an endpoint: %s", strerror(errno));
	return fd;
}

/* Answers a datagram under the address that it was sent to, which must be one of the target's endpoints. */
static void datagram_answer(const struct match *match, const struct target *target)
{
	char data[SIZE], control[CMSG_SPACE(sizeof(struct in_pktinfo))];
	struct sockaddr_in from;
	struct iovec part = {data, sizeof(data)};
	struct msghdr message = {&from, sizeof(from), &part, 1, control, sizeof(control), 0};
	struct in_pktinfo *info = (struct in_pktinfo *)CMSG_DATA(CMSG_FIRSTHDR(&message));

	if (recvmsg(match->socket, &message, 0) != SIZE)
		die("%s: the first datagram was lost: %s", match->side.name, strerror(errno));
	target_check(&match->side, target, info->ipi_addr.s_addr);
	info->ipi_spec_dst = info->ipi_addr;
	info->ipi_ifindex = 0;
	if (sendmsg(match->socket, &message, 0) != SIZE)
		die("%s: an endpoint cannot answer: %s", match->side.name, strerror(errno));
}

static void datagram_send(const struct match *match, int fd)
{
	static const char data[SIZE];

	if (send(fd, data, SIZE, 0) != SIZE)
		die("%s: send: %s", match->side.name, strerror(errno));
}

static void datagrams_receive(const struct match *match, unsigned int count)
{
	char data[SIZE];

	while (count--)
		if (recv(match->socket, data, SIZE, 0) != SIZE)
			die("%s: %u datagrams were lost: %s", match->side.name, count + 1, strerror(errno));
}

static int connection_open(struct match *match, const struct target *target)
{
	int fd = socket_bind_next(SOCK_DGRAM, match->side.next_source++);
	char data[SIZE];

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &PATIENCE, sizeof(PATIENCE)))
		die("%s: %s", match->side.name, strerror(errno));
	target_connect(&match->side, target, fd);
	datagram_send(match, fd);
	datagram_answer(match, target);
	if (recv(fd, data, SIZE, 0) != SIZE)
		die("%s: no answer: %s", match->side.name, strerror(errno));
	datagram_send(match, fd);
	datagrams_receive(match, 1);
	return fd;
}

static void match_run(struct match *match, unsigned int round, unsigned int count)
{
	uint64_t state = random_seed(round), time;
	int fd;

	side_enter(&match->side);
	fd = connection_open(match, side_pick(&match->side, &state));
	time = now_ns();
	for (unsigned int i = 0; i < count; i++)
		datagram_send(match, fd);
	time = now_ns() - time;
	datagrams_receive(match, count);
	close(fd);
	if (round == 0)
		return; /* to get warm */
	printf("%u %s %.1f\n", round, match->side.name, (double)time / count);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	unsigned int rounds, sides = argc - 4, order[argc];
	struct match *matches;

	if (argc < 5)
		die("usage: datagrams ROUNDS DATAGRAMS SERVER-PORT SERVER-NETNS:SIDE...");
	rounds = atoi(argv[1]);
	matches = matches_parse(argv + 4, sides, receiver_open, atoi(argv[3]));
	processor_keep();
	for (unsigned int round = 0; round <= rounds; round++) {
		order_shuffle(order, sides, round);
		for (unsigned int i = 0; i < sides; i++)
			match_run(&matches[order[i]], round, atoi(argv[2]));
	}
}
