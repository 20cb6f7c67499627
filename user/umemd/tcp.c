// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int tcp_resolve(const struct uri *uri, int listen, struct tcp_address *addresses,
		unsigned int *count, char *error)
{
	struct addrinfo hints = {
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICSERV | (listen ? AI_PASSIVE : 0),
	};
	struct addrinfo *found, *info;
	char port[8];
	int err;

	snprintf(port, sizeof(port), "%u", uri->port);
	err = getaddrinfo(uri->host[0] ? uri->host : NULL, port, &hints, &found);
	if (err) {
		snprintf(error, TCP_ERROR_MAX, "cannot resolve host \"%s\": %s", uri->host,
			 err == EAI_SYSTEM ? strerror(errno) : gai_strerror(err));
		return -ENOENT;
	}
	*count = 0;
	for (info = found; info && *count < TCP_ADDRESSES_MAX; info = info->ai_next) {
		struct tcp_address *address = &addresses[*count];

		if (info->ai_addrlen > sizeof(address->address))
			continue;
		memset(address, 0, sizeof(*address));
		memcpy(&address->address, info->ai_addr, info->ai_addrlen);
		address->size = info->ai_addrlen;
		++*count;
	}
	freeaddrinfo(found);
	return 0;
}

void tcp_text(char text[TCP_TEXT_MAX], const struct tcp_address *address)
{
	char host[64], port[8];

	if (getnameinfo((const struct sockaddr *)&address->address, address->size, host,
			sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(text, TCP_TEXT_MAX, "an address of family %d",
			 address->address.ss_family);
	else
		snprintf(text, TCP_TEXT_MAX, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static int listen_at(const struct tcp_address *address)
{
	int one = 1, fd, err;

	fd = socket(address->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)&address->address, address->size) ||
	    listen(fd, 16)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

int tcp_listen(const struct uri *uri, int *fd, char actual[URI_TEXT_MAX], char *error)
{
	struct tcp_address addresses[TCP_ADDRESSES_MAX];
	struct tcp_address bound = { .size = sizeof(bound.address) };
	char text[TCP_TEXT_MAX], host[64], port[8];
	unsigned int count;
	int err;

	err = tcp_resolve(uri, 1, addresses, &count, error);
	if (err)
		return err;
	*fd = -ENOENT;
	for (unsigned int i = 0; i < count && *fd < 0; i++) {
		*fd = listen_at(&addresses[i]);
		if (*fd < 0) {
			tcp_text(text, &addresses[i]);
			snprintf(error, TCP_ERROR_MAX, "cannot listen on tcp:%s:%u (%s): %s",
				 uri->host, uri->port, text, strerror(-*fd));
		}
	}
	if (*fd < 0)
		return *fd;

	if (getsockname(*fd, (struct sockaddr *)&bound.address, &bound.size) ||
	    getnameinfo((struct sockaddr *)&bound.address, bound.size, host, sizeof(host), port,
			sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV)) {
		snprintf(error, TCP_ERROR_MAX, "cannot tell the address listened on: %s",
			 strerror(errno));
		close(*fd);
		return -EINVAL;
	}
	snprintf(actual, URI_TEXT_MAX, strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host,
		 port);
	return 0;
}

static void no_delay(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

int tcp_accept(int listener, int *fd, char peer[TCP_TEXT_MAX])
{
	struct tcp_address address = { .size = sizeof(address.address) };

	*fd = accept4(listener, (struct sockaddr *)&address.address, &address.size,
		      SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (*fd < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	tcp_text(peer, &address);
	no_delay(*fd);
	return 0;
}

int tcp_connect(const struct tcp_address *address, int *fd)
{
	int err;

	*fd = socket(address->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (*fd < 0)
		return -errno;
	no_delay(*fd);
	if (!connect(*fd, (const struct sockaddr *)&address->address, address->size) ||
	    errno == EINPROGRESS)
		return 0;
	err = -errno;
	close(*fd);
	*fd = -1;
	return err;
}

int tcp_connected(int fd)
{
	socklen_t size = sizeof(int);
	int err = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size))
		return -errno;
	return -err;
}

void tcp_limit_unsent(int fd, int bytes)
{
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof(bytes));
}
