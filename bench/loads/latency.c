/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * How long connect() and close() of a TCP connection take, side by side.
 * usage: latency ROUNDS CONNECTIONS SERVER-PORT SERVER-NETNS:SIDE...
 * Prints a line "round side median p90" (nanoseconds) as each side's turn in a round ends,
 * in another order in every round. Nobody accepts during a turn, so that no wake-up of another process is measured: the
 * whole way there and back runs on one processor. After the turn every connection is accepted and asked where it came
 * out.
 */
#include "match.h"

/* Of one turn. */
static size_t picked[BACKLOG];
static uint64_t times[BACKLOG];

static uint64_t connection_time(struct side *side, size_t pick)
{
	struct target target = side->targets[pick]; /* its cache miss is nobody's fault */
	int fd = socket_bind_next(SOCK_STREAM, side->next_source++);
	uint64_t start = now_ns(), time;

	target_connect(side, &target, fd);
	close(fd);
	time = now_ns() - start;
	if (time > LOST_NS)
		die("%s: a connection took %lu ms: packets were lost", side->name, time / 1000000);
	return time;
}

static void match_run(struct match *match, unsigned int round, unsigned int connections)
{
	uint64_t state = random_seed(round);

	side_enter(&match->side);
	for (unsigned int i = 0; i < connections; i++)
		picked[i] = random_next(&state) % match->side.count;
	for (unsigned int i = 0; i < connections; i++)
		times[i] = connection_time(&match->side, picked[i]);
	for (unsigned int i = 0; i < connections; i++)
		close(match_accept(match, &match->side.targets[picked[i]])); /* in the order in which they came */
	qsort(times, connections, sizeof(*times), compare_u64);
	if (round == 0)
		return; /* to get warm */
	printf("%u %s %lu %lu\n", round, match->side.name, times[connections / 2], times[connections * 9 / 10]);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	unsigned int rounds, connections, sides = argc - 4;
	unsigned int order[argc];
	struct match *matches;

	if (argc < 5)
		die("usage: latency ROUNDS CONNECTIONS SERVER-PORT SERVER-NETNS:SIDE...");
	rounds = atoi(argv[1]);
	connections = atoi(argv[2]);
	if (connections > BACKLOG)
		die("at most %d connections a turn", BACKLOG);
	matches = matches_parse(argv + 4, sides, socket_listen, atoi(argv[3]));
	processor_keep();
	for (unsigned int round = 0; round <= rounds; round++) {
		order_shuffle(order, sides, round);
		for (unsigned int i = 0; i < sides; i++)
			match_run(&matches[order[i]], round, connections);
	}
}
