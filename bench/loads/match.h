/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A side whose endpoints' socket is the load's own, so that it sees what arrives. On the command line:
 *   server's netns file:side
 */
#ifndef MATCH_H
#define MATCH_H

#include "side.h"

struct match {
	struct side side;
	const char *server;
	int socket; /* the endpoints' */
};

static const struct timeval ARRIVAL_PATIENCE = {2, 0};

static inline void server_enter(const char *server)
{
	int netns = side_open(server, O_RDONLY);

	if (setns(netns, CLONE_NEWNET))
		die("%s: %s", server, strerror(errno));
	close(netns);
}

/* Reads the one at an index. `server_open` makes the endpoints' socket; sides with the same server share it. */
static inline void match_parse(struct match *matches, unsigned int index, char *text, int (*server_open)(int), int port)
{
	struct match *match = &matches[index];

	match->server = strsep(&text, ":");
	if (!text)
		die("a side is preceded by the server's namespace and a colon");
	match->socket = -1;
	for (unsigned int i = 0; i < index; i++)
		if (!strcmp(matches[i].server, match->server))
			match->socket = matches[i].socket;
	if (match->socket < 0) {
		server_enter(match->server);
		match->socket = server_open(port);
		/* What went to another server does not arrive here. */
		setsockopt(match->socket, SOL_SOCKET, SO_RCVTIMEO, &ARRIVAL_PATIENCE, sizeof(ARRIVAL_PATIENCE));
	}
	match->side = side_parse(text);
}

static inline struct match *matches_parse(char **texts, unsigned int count, int (*server_open)(int), int port)
{
	struct match *matches = calloc(count, sizeof(*matches));

	for (unsigned int i = 0; i < count; i++)
		match_parse(matches, i, texts[i], server_open, port);
	return matches;
}

/* Accepts a connection that was made before; it must have come to an endpoint of its target. */
static inline int match_accept(const struct match *match, const struct target *target)
{
	struct sockaddr_in local = {0};
	socklen_t size = sizeof(local);
	int fd = accept4(match->socket, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0 || getsockname(fd, (struct sockaddr *)&local, &size))
		die("%s: accept: %s", match->side.name, strerror(errno));
	target_check(&match->side, target, local.sin_addr.s_addr);
	return fd;
}

#endif
