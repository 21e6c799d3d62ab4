/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The system's clock for one process, preloaded: it is wrong by as many seconds as the file JUMPING_CLOCK holds, as
 * one 64-bit number. Every other clock, and whatever waits, is the kernel's own.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *wrong_by;

__attribute__((constructor)) static void open_clock(void)
{
	int fd = open(getenv("JUMPING_CLOCK"), O_RDONLY | O_CLOEXEC);
	void *memory = mmap(NULL, sizeof(*wrong_by), PROT_READ, MAP_SHARED, fd, 0);

	if (memory == MAP_FAILED)
		abort();
	wrong_by = memory;
	close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int result = syscall(SYS_clock_gettime, clock, now);

	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
		now->tv_sec += *wrong_by;
	return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec precise;
	int result = clock_gettime(CLOCK_REALTIME, &precise);

	(void)zone; /* which nobody uses any more */
	now->tv_sec = precise.tv_sec;
	now->tv_usec = precise.tv_nsec / 1000;
	return result;
}

time_t time(time_t *place)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (place)
		*place = now.tv_sec;
	return now.tv_sec;
}
