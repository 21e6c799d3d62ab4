/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * One side of a comparison: where a load runs (network namespace, cgroup), what it connects to, and
 * from which source addresses. Written on the command line as
 *   name,netns file or -,cgroup.procs file or -,targets file,first source tuple
 * A targets file has one target a line: address, port, the first and the last of the endpoints that may answer. The
 * same place in the files of two sides is the same Service, so that sides of a round ask for the same ones.
 */
#ifndef SIDE_H
#define SIDE_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	BACKLOG = 4096,
	FIRST_PORT = 1024,
	PORTS = 64000,
	SOURCE_NETWORK = 0x0ac80000, /* 10.200.0.0 */
};

/* A packet that has to be sent again takes a second. */
static const uint64_t LOST_NS = 950 * 1000000ull;

struct endpoints {
	uint32_t first, last; /* in host order; 0: none */
};

struct target {
	struct sockaddr_in address;
	struct endpoints endpoints;
};

struct side {
	const char *name;
	int netns;  /* -1: stay */
	int cgroup; /* -1: stay */
	struct target *targets;
	size_t count;
	uint64_t next_source; /* tuples are numbered; none is used twice */
};

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

static inline int side_open(const char *path, int flags)
{
	int fd;

	if (!strcmp(path, "-"))
		return -1;
	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	return fd;
}

static inline bool endpoints_have(const struct endpoints *endpoints, in_addr_t address)
{
	return ntohl(address) >= endpoints->first && ntohl(address) <= endpoints->last;
}

/* "address port", and the endpoints' "first last" unless there are none. */
static inline bool target_parse(struct target *target, const char *line)
{
	char address[64], first[64] = "0.0.0.0", last[64] = "0.0.0.0";
	unsigned int port;

	if (sscanf(line, "%63s %u %63s %63s", address, &port, first, last) < 2)
		return false;
	*target = (struct target){.address = {.sin_family = AF_INET, .sin_port = htons(port)}};
	target->endpoints = (struct endpoints){ntohl(inet_addr(first)), ntohl(inet_addr(last))};
	return inet_aton(address, &target->address.sin_addr);
}

/* A targets file is mapped from text once; rounds only read the array. */
static inline void side_read_targets(struct side *side, const char *path)
{
	char line[256];
	size_t room = 0;
	FILE *file = fopen(path, "re");

	if (!file)
		die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		struct target target;

		if (!target_parse(&target, line))
			die("%s: cannot read %s", path, line);
		if (side->count == room) {
			room = room ? 2 * room : 1024;
			side->targets = realloc(side->targets, room * sizeof(target));
		}
		side->targets[side->count++] = target;
	}
	fclose(file);
	if (!side->count)
		die("%s: no targets", path);
}

static inline struct side side_parse(char *text)
{
	char *name = strsep(&text, ","), *netns = strsep(&text, ","), *cgroup = strsep(&text, ",");
	char *targets = strsep(&text, ",");
	struct side side = {.name = name};

	if (!text)
		die("a side is name,netns,cgroup.procs,targets,first source");
	side.netns = side_open(netns, O_RDONLY);
	side.cgroup = side_open(cgroup, O_WRONLY);
	side.next_source = strtoull(text, NULL, 10);
	side_read_targets(&side, targets);
	return side;
}

/* Sockets made from now on are this side's. */
static inline void side_enter(const struct side *side)
{
	if (side->netns >= 0 && setns(side->netns, CLONE_NEWNET))
		die("enter the network namespace of %s: %s", side->name, strerror(errno));
	if (side->cgroup >= 0 && write(side->cgroup, "0", 1) != 1)
		die("enter the cgroup of %s: %s", side->name, strerror(errno));
}

/* Going from one processor to another in the middle of a turn would be measured as well. */
static inline void processor_keep(void)
{
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET(sched_getcpu(), &here);
	if (sched_setaffinity(0, sizeof(here), &here))
		die("cannot stay on a processor: %s", strerror(errno));
}

/* The same sequence for every side of a round, so that all ask for the same Services. */
static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static inline uint64_t random_seed(unsigned int round)
{
	return 0x9e3779b97f4a7c15ull * (round + 1);
}

/* Another order in every round: whoever comes after a side may find its mess, so that must not always be the same one.
 */
static inline void order_shuffle(unsigned int *order, unsigned int sides, unsigned int round)
{
	uint64_t state = random_seed(round);

	for (unsigned int i = 0; i < sides; i++) {
		unsigned int other = random_next(&state) % (i + 1);

		order[i] = order[other];
		order[other] = i;
	}
}

static inline const struct target *side_pick(const struct side *side, uint64_t *state)
{
	return &side->targets[random_next(state) % side->count];
}

static inline uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* A socket bound to a tuple that no earlier connection had. */
static inline int socket_bind_next(int type, uint64_t source)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(SOURCE_NETWORK + source / PORTS),
		.sin_port = htons(FIRST_PORT + source % PORTS),
	};
	int fd = socket(AF_INET, type, 0);

	if (fd < 0)
		die("socket: %s", strerror(errno));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)))
		die("bind to %s:%u: %s", inet_ntoa(address.sin_addr), ntohs(address.sin_port), strerror(errno));
	return fd;
}

/* Whoever was reached must be one of the target's endpoints. */
static inline void target_check(const struct side *side, const struct target *target, in_addr_t answer)
{
	if (endpoints_have(&target->endpoints, answer))
		return;
	fprintf(stderr, "%s: %s was answered ", side->name, inet_ntoa(target->address.sin_addr));
	die("by %s, which is none of its endpoints", inet_ntoa((struct in_addr){answer}));
}

static inline void target_connect(const struct side *side, const struct target *target, int fd)
{
	if (connect(fd, (struct sockaddr *)&target->address, sizeof(target->address)))
		die("%s: connect to %s: %s", side->name, inet_ntoa(target->address.sin_addr), strerror(errno));
}

static inline int socket_listen(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, BACKLOG))
		die("listen on port %d: %s", port, strerror(errno));
	return fd;
}

static inline int compare_u64(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

#endif
