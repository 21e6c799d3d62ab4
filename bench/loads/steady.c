/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Short connections at a fixed rate, and connections that stay, whatever happens meanwhile.
 * usage: steady SIDE CONNECTIONS-A-SECOND STREAMS
 * Prints "ready" when all streams are connected, and, for each byte that it is sent and when its standard input ends,
 * one line of JSON on what there was since the last: how many connections ended, how many of them failed and why, how
 * many streams broke, and how long the slowest answer took, from connect() on or from the question of a stream
 * (nanoseconds). Nobody begins later because others still wait.
 */
#include "side.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
	STREAM_REST_US = 200000,
	MOST_ERRORS = 256,
	STACK = 65536,
};
static const struct timeval PATIENCE = {1, 0}, STREAM_PATIENCE = {2, 0}, STREAM_CONNECT_PATIENCE = {10, 0};

struct worker {
	pthread_t thread;
	unsigned int number;
};

static struct side side;
static unsigned int rate;
static uint64_t start;
static atomic_ulong next_source, ended, connected_streams, broken, slowest;
static atomic_ulong failed[MOST_ERRORS]; /* by error */
static atomic_bool stop;

/* Whom a connection asks; the error that it ended with. */
static int ask(int fd, const struct target *target)
{
	in_addr_t answer;
	ssize_t size;

	errno = 0;
	if (write(fd, "?", 1) != 1)
		return errno;
	size = read(fd, &answer, sizeof(answer));
	if (size != sizeof(answer))
		return size < 0 ? errno : ECONNRESET;
	target_check(&side, target, answer);
	return 0;
}

static void patience_set(int fd, struct timeval patience)
{
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
}

static int open_connection(const struct target *target, struct timeval patience, int *error)
{
	int fd = socket_bind_next(SOCK_STREAM, atomic_fetch_add(&next_source, 1));

	patience_set(fd, patience);
	*error = connect(fd, (const struct sockaddr *)&target->address, sizeof(target->address)) ? errno : 0;
	return fd;
}

static void sleep_until(uint64_t ns)
{
	struct timespec time = {ns / 1000000000, ns % 1000000000};

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

static void slowest_note(uint64_t time)
{
	unsigned long known = atomic_load(&slowest);

	while (time > known && !atomic_compare_exchange_weak(&slowest, &known, time))
		;
}

/* One connection a second, each worker at a time of its own. */
static void *connect_forever(void *argument)
{
	const struct worker *worker = argument;
	uint64_t next = start + worker->number * 1000000000ull / rate, state = random_seed(worker->number);

	for (;; next += 1000000000ull) {
		const struct target *target = side_pick(&side, &state);
		uint64_t began, time;
		int error, fd;

		sleep_until(next);
		if (atomic_load(&stop))
			return NULL;
		began = now_ns();
		fd = open_connection(target, PATIENCE, &error);
		if (!error)
			error = ask(fd, target);
		time = now_ns() - began;
		slowest_note(time);
		close(fd);
		atomic_fetch_add(&ended, 1);
		if (!error && time > LOST_NS)
			error = ETIMEDOUT;
		if (error)
			atomic_fetch_add(&failed[error == EAGAIN || error == EINPROGRESS ? ETIMEDOUT : error], 1);
	}
}

static void *stream_forever(void *argument)
{
	const struct worker *worker = argument;
	const struct target *target = &side.targets[worker->number % side.count];
	int error, fd = open_connection(target, STREAM_CONNECT_PATIENCE, &error);

	if (error)
		die("%s: connect to %s: %s", side.name, inet_ntoa(target->address.sin_addr), strerror(error));
	patience_set(fd, STREAM_PATIENCE);
	atomic_fetch_add(&connected_streams, 1);
	while (!atomic_load(&stop)) {
		uint64_t asked = now_ns();

		error = ask(fd, target);
		slowest_note(now_ns() - asked);
		if (error) {
			atomic_fetch_add(&broken, 1);
			break;
		}
		usleep(STREAM_REST_US);
	}
	close(fd);
	return NULL;
}

static void run(struct worker *worker, unsigned int number, void *(*function)(void *))
{
	pthread_attr_t attributes;

	worker->number = number;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK);
	if (pthread_create(&worker->thread, &attributes, function, worker))
		die("cannot start a thread");
	pthread_attr_destroy(&attributes);
}

static void print_outcome(void)
{
	unsigned long counts[MOST_ERRORS], sum = 0;
	const char *separator = "";

	for (int i = 0; i < MOST_ERRORS; i++)
		sum += counts[i] = atomic_exchange(&failed[i], 0);
	printf("{\"ended\": %lu, \"failed\": %lu, \"broken\": %lu, \"slowest\": %lu, \"errors\": {",
	       atomic_exchange(&ended, 0), sum, atomic_exchange(&broken, 0), atomic_exchange(&slowest, 0));
	for (int i = 0; i < MOST_ERRORS; i++) {
		if (!counts[i])
			continue;
		printf("%s\"%s\": %lu", separator, strerror(i), counts[i]);
		separator = ", ";
	}
	puts("}}");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	unsigned int streams;
	struct worker *workers;
	char unused;

	if (argc != 4)
		die("usage: steady SIDE CONNECTIONS-A-SECOND STREAMS");
	side = side_parse(argv[1]);
	rate = atoi(argv[2]);
	streams = atoi(argv[3]);
	side_enter(&side);
	atomic_store(&next_source, side.next_source);
	workers = calloc(rate + streams, sizeof(*workers));
	for (unsigned int i = 0; i < streams; i++)
		run(&workers[rate + i], i, stream_forever);
	while (atomic_load(&connected_streams) < streams)
		usleep(1000);
	puts("ready");
	fflush(stdout);
	start = now_ns();
	for (unsigned int i = 0; i < rate; i++)
		run(&workers[i], i, connect_forever);
	while (read(STDIN_FILENO, &unused, 1) > 0)
		print_outcome();
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < rate + streams; i++)
		pthread_join(workers[i].thread, NULL);
	print_outcome();
}
