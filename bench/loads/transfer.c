/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * How much one TCP connection carries, and what that costs, side by side.
 * usage: transfer ROUNDS MILLISECONDS SERVER-PORT SERVER-NETNS:SIDE...
 * Prints two lines as each side's turn in a round ends: "round side gigabits-a-second" and "round side-cpu seconds",
 * the time of all processors, whoever had it, for a gigabit. What counts is what has arrived; the receiver drops it
 * without looking.
 */
#include "match.h"

#include <pthread.h>
#include <stdatomic.h>

enum { PIECE = 1 << 16, WARM_UP_MS = 100 };

static uint64_t now_ms(void)
{
	return now_ns() / 1000000;
}

/* All that processors have done since the machine came up (proc(5): user nice system idle iowait irq softirq). */
static double busy_seconds(void)
{
	unsigned long user, nice, system, idle, waiting, irq, softirq;
	FILE *file = fopen("/proc/stat", "re");

	if (!file || fscanf(file, "cpu %lu %lu %lu %lu %lu %lu %lu", &user, &nice, &system, &idle, &waiting, &irq,
	                    &softirq) != 7)
		die("/proc/stat cannot be read");
	fclose(file);
	return (double)(user + nice + system + irq + softirq) / sysconf(_SC_CLK_TCK);
}

static atomic_ulong arrived;

static void *receive_forever(void *argument)
{
	int fd = *(int *)argument;
	ssize_t size;

	while ((size = recv(fd, NULL, 1 << 20, MSG_TRUNC)) > 0)
		atomic_fetch_add(&arrived, size);
	return NULL;
}

static void send_for(const struct match *match, int fd, uint64_t milliseconds)
{
	static const char piece[PIECE];
	uint64_t end = now_ms() + milliseconds;

	while (now_ms() < end)
		if (send(fd, piece, sizeof(piece), 0) <= 0)
			die("%s: send: %s", match->side.name, strerror(errno));
}

static void match_run(struct match *match, unsigned int round, unsigned int milliseconds)
{
	uint64_t state = random_seed(round), bytes, time;
	const struct target *target = side_pick(&match->side, &state);
	double busy, gigabits;
	pthread_t receiver;
	int fd, received;

	side_enter(&match->side);
	fd = socket_bind_next(SOCK_STREAM, match->side.next_source++);
	target_connect(&match->side, target, fd);
	received = match_accept(match, target);
	if (pthread_create(&receiver, NULL, receive_forever, &received))
		die("cannot start a thread");
	send_for(match, fd, WARM_UP_MS);
	busy = busy_seconds();
	bytes = atomic_load(&arrived);
	time = now_ns();
	send_for(match, fd, milliseconds);
	time = now_ns() - time;
	bytes = atomic_load(&arrived) - bytes;
	busy = busy_seconds() - busy;
	close(fd);
	pthread_join(receiver, NULL);
	close(received);
	gigabits = bytes * 8 / 1e9;
	printf("%u %s %.4f\n%u %s-cpu %.6f\n", round, match->side.name, gigabits * 1e9 / time, round, match->side.name,
	       busy / gigabits);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	unsigned int sides = argc - 4, order[argc];
	struct match *matches;

	if (argc < 5)
		die("usage: transfer ROUNDS MILLISECONDS SERVER-PORT SERVER-NETNS:SIDE...");
	matches = matches_parse(argv + 4, sides, socket_listen, atoi(argv[3]));
	for (unsigned int round = 0; round < (unsigned int)atoi(argv[1]); round++) {
		order_shuffle(order, sides, round);
		for (unsigned int i = 0; i < sides; i++)
			match_run(&matches[order[i]], round, atoi(argv[2]));
	}
}
