/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * How many requests are answered in a second, side by side: so many by each connection until it is closed.
 * usage: rate ROUNDS MILLISECONDS THREADS REQUESTS SIDE...
 * Prints a line "round side requests-a-second" as each side's turn in a round ends. Every answer is checked.
 */
#include "side.h"

#include <pthread.h>
#include <stdatomic.h>

/* What closed connections still cost must be paid in their own turn, or in nobody's. */
enum { WARM_UP_US = 50000, REST_US = 50000 };

struct worker {
	const struct side *side;
	uint64_t seed;
	pthread_t thread;
};

static atomic_ulong next_source;
static atomic_ulong done;
static atomic_bool stop;
static unsigned int requests;

static void ask(const struct side *side, const struct target *target, int fd)
{
	in_addr_t answer = 0;

	if (write(fd, "?", 1) != 1 || read(fd, &answer, sizeof(answer)) != sizeof(answer))
		die("%s: no answer: %s", side->name, strerror(errno));
	target_check(side, target, answer);
	atomic_fetch_add(&done, 1);
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	uint64_t state = worker->seed;

	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		const struct target *target = side_pick(worker->side, &state);
		int fd = socket_bind_next(SOCK_STREAM, atomic_fetch_add(&next_source, 1));

		target_connect(worker->side, target, fd);
		for (unsigned int i = 0; i < requests && !atomic_load_explicit(&stop, memory_order_relaxed); i++)
			ask(worker->side, target, fd);
		close(fd);
	}
	return NULL;
}

static void side_run(struct side *side, unsigned int round, unsigned int milliseconds, unsigned int threads)
{
	struct worker workers[threads];
	uint64_t start, time, counted;

	side_enter(side);
	atomic_store(&next_source, side->next_source);
	atomic_store(&done, 0);
	atomic_store(&stop, false);
	for (unsigned int i = 0; i < threads; i++) {
		workers[i] = (struct worker){.side = side, .seed = random_seed(round * threads + i)};
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			die("cannot start a thread");
	}
	usleep(WARM_UP_US);
	counted = atomic_load(&done);
	start = now_ns();
	usleep(milliseconds * 1000);
	counted = atomic_load(&done) - counted;
	time = now_ns() - start;
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < threads; i++)
		pthread_join(workers[i].thread, NULL);
	side->next_source = atomic_load(&next_source);
	printf("%u %s %.0f\n", round, side->name, counted * 1e9 / time);
	fflush(stdout);
	usleep(REST_US);
}

int main(int argc, char **argv)
{
	unsigned int sides = argc - 5, order[argc];
	struct side *side;

	if (argc < 6)
		die("usage: rate ROUNDS MILLISECONDS THREADS REQUESTS SIDE...");
	requests = atoi(argv[4]);
	side = calloc(sides, sizeof(*side));
	for (unsigned int i = 0; i < sides; i++)
		side[i] = side_parse(argv[5 + i]);
	for (unsigned int round = 0; round < (unsigned int)atoi(argv[1]); round++) {
		order_shuffle(order, sides, round);
		for (unsigned int i = 0; i < sides; i++)
			side_run(&side[order[i]], round, atoi(argv[2]), atoi(argv[3]));
	}
}
