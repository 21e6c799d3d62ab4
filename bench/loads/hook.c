/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * How long connect() takes on new sockets when nothing happens but the hook and the look-up of a route: it is run
 * where no route leads anywhere, and each kind of destination fails with an error of its own, which proves what the
 * hook made of the address.
 * usage: hook ROUNDS CONNECTS SIDE-TEXT,PROTOCOL,ERRNO,USE...
 * PROTOCOL is tcp or udp; ERRNO the number that must come out; USE is which connect() of a socket is timed: 1 or 2.
 * Prints a line "round side median p90" (nanoseconds) as each side's turn in a round ends.
 */
#include "side.h"

struct trial {
	struct side side;
	int type;
	int error;
	int use;
};

static struct trial trial_parse(char *text)
{
	char *fields[3];
	struct trial trial = {0};

	for (int i = 2; i >= 0; i--) {
		char *comma = strrchr(text, ',');

		if (!comma)
			die("too few fields: %s", text);
		fields[i] = comma + 1;
		*comma = '\0';
	}
	trial.type = strcmp(fields[0], "tcp") ? SOCK_DGRAM : SOCK_STREAM;
	trial.error = atoi(fields[1]);
	trial.use = atoi(fields[2]);
	trial.side = side_parse(text);
	return trial;
}

static uint64_t connect_time(const struct trial *trial, const struct target *picked)
{
	struct sockaddr_in address = picked->address; /* its cache miss is nobody's fault */
	int fd = socket(AF_INET, trial->type, 0), result = 0;
	uint64_t start = 0, time;

	for (int i = 0; i < trial->use; i++) {
		start = now_ns();
		result = connect(fd, (struct sockaddr *)&address, sizeof(address));
	}
	time = now_ns() - start;
	if (!result || errno != trial->error)
		die("%s: connect to %s: %s, not %s", trial->side.name, inet_ntoa(address.sin_addr),
		    result ? strerror(errno) : "success", strerror(trial->error));
	close(fd);
	return time;
}

/* As many connects as are timed come first: the sockets of the turn before must have gone back to the kernel's caches.
 */
static void trial_run(const struct trial *trial, unsigned int round, unsigned int connects, uint64_t *times)
{
	uint64_t state = random_seed(round);

	side_enter(&trial->side);
	for (unsigned int i = 0; i < connects; i++)
		connect_time(trial, side_pick(&trial->side, &state));
	for (unsigned int i = 0; i < connects; i++)
		times[i] = connect_time(trial, side_pick(&trial->side, &state));
	qsort(times, connects, sizeof(*times), compare_u64);
	printf("%u %s %lu %lu\n", round, trial->side.name, times[connects / 2], times[connects * 9 / 10]);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	unsigned int rounds, connects, trials = argc - 3;
	unsigned int order[argc];
	struct trial *trial;
	uint64_t *times;

	if (argc < 4)
		die("usage: hook ROUNDS CONNECTS TRIAL...");
	rounds = atoi(argv[1]);
	connects = atoi(argv[2]);
	trial = calloc(trials, sizeof(*trial));
	times = calloc(connects, sizeof(*times));
	for (unsigned int i = 0; i < trials; i++)
		trial[i] = trial_parse(argv[3 + i]);
	processor_keep();
	for (unsigned int round = 0; round < rounds; round++) {
		order_shuffle(order, trials, round);
		for (unsigned int i = 0; i < trials; i++)
			trial_run(&trial[order[i]], round, connects, times);
	}
}
