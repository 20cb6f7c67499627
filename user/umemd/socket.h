/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connections of their own for every channel: tcp: and unix: URIs. */
#ifndef UMEMD_SOCKET_H
#define UMEMD_SOCKET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/uri.h"

#define SOCKET_ADDRESSES_MAX	8
#define SOCKET_ERROR_MAX		(URI_ERROR_MAX + 256)
#define SOCKET_TEXT_MAX		128	/* a unix path fits */

struct socket_address {
	struct sockaddr_storage address;
	socklen_t size;
};

/**
 * struct socket_listener - what socket_listen() opened
 * @path: file of a unix socket; empty for others
 * @device: and which file it is,
 * @inode: for its path may become another's
 */
struct socket_listener {
	int fd;
	char path[SOCKET_TEXT_MAX];
	dev_t device;
	ino_t inode;
};

/* A function that fails returns -errno and puts a sentence into @error. */

/**
 * socket_resolve - the addresses of a tcp: or unix: URI
 * @listen: for listening; an empty host is then every address
 * @count: how many were found, at most SOCKET_ADDRESSES_MAX
 * @error: SOCKET_ERROR_MAX bytes
 */
int socket_resolve(const struct uri *uri, int listen, struct socket_address *addresses,
		   unsigned int *count, char *error);

/* "10.0.0.1:4444", "[::1]:4444" or a path */
void socket_text(char text[SOCKET_TEXT_MAX], const struct socket_address *address);

/**
 * socket_listen - a listening socket on the first address that works
 * @actual: URI with the real port
 * @error: SOCKET_ERROR_MAX bytes
 *
 * A unix socket's file that nobody listens on is replaced, any other file refused.
 */
int socket_listen(const struct uri *uri, struct socket_listener *listener,
		  char actual[URI_TEXT_MAX], char *error);

/* Removes the file that it made, unless another is there now. */
void socket_remove(const struct socket_listener *listener);

/* Closes it, and removes the file that it made. Nothing if @fd is -1. */
void socket_unlisten(struct socket_listener *listener);

/**
 * socket_accept - the next connection
 * @peer: who it is
 * @origin: equal for connections that one person can have made as easily as one: of an
 *	IPv4 address, of a /64 of IPv6, of a user
 *
 * Return: 0; -EAGAIN nobody is there any more; another -errno.
 */
int socket_accept(int listener, int *fd, char peer[SOCKET_TEXT_MAX], uint64_t *origin);

/* Begin to connect; ready when writable, then socket_connected() tells how it went. */
int socket_connect(const struct socket_address *address, int *fd);
int socket_connected(int fd);

/* Where the other end of a connection is. Return: 0 or -errno. */
int socket_peer(int fd, struct socket_address *address);

/* Is it reached through a network? */
bool socket_is_remote(const struct socket_address *address);

/**
 * struct socket_path - what TCP knows of the way to the other side
 * @rate: bytes a second that arrived lately
 * @rtt_ns: the shortest time there and back that was seen
 */
struct socket_path {
	uint64_t rate;
	uint64_t rtt_ns;
};

/* Return: 0; -errno: not a TCP socket, or nothing is known yet. */
int socket_get_path(int fd, struct socket_path *path);

/* Keep at most this many unsent bytes in the kernel. */
void socket_limit_unsent(int fd, int bytes);

#endif
