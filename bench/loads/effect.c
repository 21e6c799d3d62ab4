/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * How long it takes from a changed manifest to the first connect() that is treated accordingly.
 * usage: effect MANIFEST SIDE FILE=ERRNO...
 * Each FILE in turn is renamed to MANIFEST; then the side's first target is connected to over and over until
 * connect() fails with ERRNO (see hook.c). Prints a line "round side nanoseconds" for each.
 */
#include "side.h"

enum { REST_US = 50000 };
static const uint64_t TOO_LATE_NS = 30 * 1000000000ull;

static int connect_error(const struct side *side)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), result, error;

	result = connect(fd, (struct sockaddr *)&side->targets[0].address, sizeof(side->targets[0].address));
	error = result ? errno : 0;
	close(fd);
	return error;
}

static uint64_t time_until(const struct side *side, const char *from, const char *to, int expected)
{
	uint64_t start, time = 0;

	if (connect_error(side) == expected)
		die("%s would change nothing", from);
	start = now_ns();
	if (rename(from, to))
		die("rename %s to %s: %s", from, to, strerror(errno));
	while (connect_error(side) != expected && time < TOO_LATE_NS)
		time = now_ns() - start;
	if (time >= TOO_LATE_NS)
		die("%s has no effect: %s, not %s", from, strerror(connect_error(side)), strerror(expected));
	return now_ns() - start;
}

int main(int argc, char **argv)
{
	struct side side;

	if (argc < 4)
		die("usage: effect MANIFEST SIDE FILE=ERRNO...");
	side = side_parse(argv[2]);
	side_enter(&side);
	for (int i = 3; i < argc; i++) {
		char *from = strsep(&argv[i], "=");

		if (!argv[i])
			die("a file is followed by = and the number of an error");
		printf("%d %s %lu\n", i - 3, side.name, time_until(&side, from, argv[1], atoi(argv[i])));
		fflush(stdout);
		usleep(REST_US);
	}
}
