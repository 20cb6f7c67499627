/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef UMEMD_TCP_H
#define UMEMD_TCP_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/uri.h"

#define TCP_ADDRESSES_MAX	8
#define TCP_ERROR_MAX		(URI_ERROR_MAX + 256)
#define TCP_TEXT_MAX		80

struct tcp_address {
	struct sockaddr_storage address;
	socklen_t size;
};

/* A function that fails returns -errno and puts a sentence into @error. */

/**
 * tcp_resolve - the addresses of a tcp: URI
 * @listen: for listening; an empty host is then every address
 * @count: how many were found, at most TCP_ADDRESSES_MAX
 */
int tcp_resolve(const struct uri *uri, int listen, struct tcp_address *addresses,
		unsigned int *count, char *error);

/* "10.0.0.1:4444" or "[::1]:4444" */
void tcp_text(char text[TCP_TEXT_MAX], const struct tcp_address *address);

/**
 * tcp_listen - a listening socket on the first address that works
 * @actual: URI with the real port
 */
int tcp_listen(const struct uri *uri, int *fd, char actual[URI_TEXT_MAX], char *error);

/* The new connection, and who it is. -EAGAIN when nobody is there any more. */
int tcp_accept(int listener, int *fd, char peer[TCP_TEXT_MAX]);

/* Begin to connect; ready when writable, then tcp_connected() tells how it went. */
int tcp_connect(const struct tcp_address *address, int *fd);
int tcp_connected(int fd);

/* Keep at most this many unsent bytes in the kernel. */
void tcp_limit_unsent(int fd, int bytes);

#endif
