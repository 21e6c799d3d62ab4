/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * How long a program of tc takes for a packet, as the kernel itself measures it (BPF_PROG_TEST_RUN).
 * usage: packets ROUNDS RUNS SIDE,PROGRAM,PACKET,OUTCOME,KIND...
 * PROGRAM is where it is pinned; PACKET and OUTCOME are files with the packet before and after. KIND is
 *   same   one packet over and over, in one go: an even number of runs must lead back to the packet, one to OUTCOME
 *   other  each time another connection's first: its source port (TCP over IPv4) and checksum change, by one each
 * Prints a line "round side median p90" (nanoseconds) as each side's turn in a round ends.
 */
#include "side.h"

#include <linux/bpf.h>
#include <sys/syscall.h>

enum {
	MOST_BYTES = 256,
	SOURCE_PORT = 34, /* Ethernet, IPv4 without options */
	CHECKSUM = 50,
	SAMPLES = 16, /* of a turn in which one packet is run twice RUNS times in one go */
};

struct frame {
	uint8_t bytes[MOST_BYTES];
	size_t size;
};

struct trial {
	const char *name;
	int program;
	struct frame packet, outcome;
	bool is_same;
};

static struct frame frame_read(const char *path)
{
	struct frame frame = {0};
	FILE *file = fopen(path, "re");

	if (!file)
		die("%s: %s", path, strerror(errno));
	frame.size = fread(frame.bytes, 1, sizeof(frame.bytes), file);
	fclose(file);
	return frame;
}

static struct trial trial_parse(char *text)
{
	struct trial trial = {.name = strsep(&text, ",")};
	const char *program = strsep(&text, ","), *packet = strsep(&text, ","), *outcome = strsep(&text, ",");
	union bpf_attr attributes = {.pathname = (uintptr_t)program};

	if (!text)
		die("a side is name,program,packet,outcome,kind");
	trial.program = syscall(SYS_bpf, BPF_OBJ_GET, &attributes, sizeof(attributes));
	if (trial.program < 0)
		die("%s: %s", program, strerror(errno));
	trial.packet = frame_read(packet);
	trial.outcome = frame_read(outcome);
	trial.is_same = !strcmp(text, "same");
	return trial;
}

/* Runs it so many times on one packet; returns the nanoseconds of each. */
static uint32_t trial_time(const struct trial *trial, uint32_t repeat, const struct frame *expected)
{
	uint8_t out[2 * MOST_BYTES];
	union bpf_attr attributes = {.test = {
					     .prog_fd = trial->program,
					     .data_in = (uintptr_t)trial->packet.bytes,
					     .data_size_in = trial->packet.size,
					     .data_out = (uintptr_t)out,
					     .data_size_out = sizeof(out),
					     .repeat = repeat,
				     }};

	if (syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attributes, sizeof(attributes)))
		die("%s: cannot be run: %s", trial->name, strerror(errno));
	if ((int32_t)attributes.test.retval != -1)
		die("%s: returned %d in place of TC_ACT_UNSPEC", trial->name, attributes.test.retval);
	if (attributes.test.data_size_out != expected->size || memcmp(out, expected->bytes, expected->size))
		die("%s: made another packet of it than it should", trial->name);
	return attributes.test.duration;
}

/* A number more at one place and, in ones' complement, one less in the checksum (RFC 1624). */
static void frame_count(struct frame *frame)
{
	uint16_t port = frame->bytes[SOURCE_PORT] << 8 | frame->bytes[SOURCE_PORT + 1];
	uint32_t checksum = frame->bytes[CHECKSUM] << 8 | frame->bytes[CHECKSUM + 1];
	uint32_t sum = (uint16_t)~checksum + (uint16_t)~port;

	port++;
	sum += port;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	frame->bytes[SOURCE_PORT] = port >> 8;
	frame->bytes[SOURCE_PORT + 1] = port;
	frame->bytes[CHECKSUM] = ~sum >> 8;
	frame->bytes[CHECKSUM + 1] = ~sum;
}

static void trial_run(struct trial *trial, unsigned int round, unsigned int runs, uint64_t *times)
{
	unsigned int count = trial->is_same ? SAMPLES : runs;

	if (trial->is_same)
		trial_time(trial, 1, &trial->outcome);
	for (unsigned int i = 0; i < count; i++) {
		if (trial->is_same) {
			times[i] = trial_time(trial, 2 * runs, &trial->packet);
			continue;
		}
		frame_count(&trial->packet);
		frame_count(&trial->outcome);
		times[i] = trial_time(trial, 1, &trial->outcome);
	}
	qsort(times, count, sizeof(*times), compare_u64);
	if (round == 0)
		return; /* to get warm */
	printf("%u %s %lu %lu\n", round, trial->name, times[count / 2], times[count * 9 / 10]);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	unsigned int rounds, runs, sides = argc - 3, order[argc];
	struct trial *trials;
	uint64_t *times;

	if (argc < 4)
		die("usage: packets ROUNDS RUNS SIDE...");
	rounds = atoi(argv[1]);
	runs = atoi(argv[2]);
	trials = calloc(sides, sizeof(*trials));
	times = calloc(runs + SAMPLES, sizeof(*times));
	for (unsigned int i = 0; i < sides; i++)
		trials[i] = trial_parse(argv[3 + i]);
	processor_keep();
	for (unsigned int round = 0; round <= rounds; round++) {
		order_shuffle(order, sides, round);
		for (unsigned int i = 0; i < sides; i++)
			trial_run(&trials[order[i]], round, runs, times);
	}
}
