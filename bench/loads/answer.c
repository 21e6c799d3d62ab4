/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The endpoints: one process that answers for every address of its namespace on one port. Whoever sends a
 * byte is told which address it reached (four bytes, network order), for each byte again; who just leaves is seen off.
 * usage: answer PORT THREADS; prints "ready" when it listens.
 */
#include "side.h"

#include <pthread.h>

static int listener;

static void serve(int fd)
{
	struct sockaddr_in local;
	socklen_t size = sizeof(local);
	char byte;

	getsockname(fd, (struct sockaddr *)&local, &size);
	while (read(fd, &byte, 1) == 1) /* until the client has closed: the client keeps TIME_WAIT */
		if (write(fd, &local.sin_addr, sizeof(local.sin_addr)) != sizeof(local.sin_addr))
			break;
	close(fd);
}

static void *serve_forever(void *unused)
{
	(void)unused;
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			die("accept: %s", strerror(errno));
		serve(fd);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	if (argc != 3)
		die("usage: answer PORT THREADS");
	listener = socket_listen(atoi(argv[1]));
	puts("ready");
	fflush(stdout);
	for (int i = 1; i < atoi(argv[2]); i++)
		if (pthread_create(&thread, NULL, serve_forever, NULL))
			die("cannot start a thread");
	serve_forever(NULL);
}
