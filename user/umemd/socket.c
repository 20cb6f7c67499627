// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/runtime.h"
#include "common/util.h"

static int resolve_tcp(const struct uri *uri, int listen, struct socket_address *addresses,
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
		snprintf(error, SOCKET_ERROR_MAX, "cannot resolve host \"%s\": %s", uri->host,
			 err == EAI_SYSTEM ? strerror(errno) : gai_strerror(err));
		return -ENOENT;
	}
	*count = 0;
	for (info = found; info && *count < SOCKET_ADDRESSES_MAX; info = info->ai_next) {
		struct socket_address *address = &addresses[*count];

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

static int resolve_unix(const struct uri *uri, struct socket_address *address, char *error)
{
	struct sockaddr_un *local = (struct sockaddr_un *)&address->address;

	if (strlen(uri->rest) >= sizeof(local->sun_path)) {
		snprintf(error, SOCKET_ERROR_MAX, "path \"%s\" has %zu characters, at most %zu are possible",
			 uri->rest, strlen(uri->rest), sizeof(local->sun_path) - 1);
		return -ENAMETOOLONG;
	}
	memset(address, 0, sizeof(*address));
	local->sun_family = AF_UNIX;
	strcpy(local->sun_path, uri->rest);
	address->size = sizeof(*local);
	return 0;
}

int socket_resolve(const struct uri *uri, int listen, struct socket_address *addresses,
		   unsigned int *count, char *error)
{
	if (uri->kind == URI_TCP)
		return resolve_tcp(uri, listen, addresses, count, error);
	*count = 1;
	return resolve_unix(uri, addresses, error);
}

void socket_text(char text[SOCKET_TEXT_MAX], const struct socket_address *address)
{
	char host[64], port[8];

	if (address->address.ss_family == AF_UNIX)
		snprintf(text, SOCKET_TEXT_MAX, "%s",
			 ((const struct sockaddr_un *)&address->address)->sun_path);
	else if (getnameinfo((const struct sockaddr *)&address->address, address->size, host,
			     sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(text, SOCKET_TEXT_MAX, "an address of family %d",
			 address->address.ss_family);
	else
		snprintf(text, SOCKET_TEXT_MAX, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static int listen_at(const struct socket_address *address)
{
	int one = 1, fd, err;

	fd = socket(address->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)&address->address, address->size) ||
	    listen(fd, SOMAXCONN)) {	/* a flood is not to fill it */
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

static int actual_tcp(int fd, char actual[URI_TEXT_MAX])
{
	struct socket_address bound = { .size = sizeof(bound.address) };
	char host[64], port[8];

	if (getsockname(fd, (struct sockaddr *)&bound.address, &bound.size))
		return -errno;
	if (getnameinfo((struct sockaddr *)&bound.address, bound.size, host, sizeof(host), port,
			sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		return -EINVAL;
	uri_format_tcp(actual, URI_TEXT_MAX, host, (uint16_t)strtoul(port, NULL, 10));
	return 0;
}

static int listen_tcp(const struct uri *uri, struct socket_listener *listener,
		      char actual[URI_TEXT_MAX], char *error)
{
	struct socket_address addresses[SOCKET_ADDRESSES_MAX];
	char text[SOCKET_TEXT_MAX];
	unsigned int count;
	int err;

	err = resolve_tcp(uri, 1, addresses, &count, error);
	if (err)
		return err;
	listener->fd = -ENOENT;
	for (unsigned int i = 0; i < count && listener->fd < 0; i++) {
		listener->fd = listen_at(&addresses[i]);
		if (listener->fd < 0) {
			socket_text(text, &addresses[i]);
			snprintf(error, SOCKET_ERROR_MAX, "cannot listen on tcp:%s:%u (%s): %s",
				 uri->host, uri->port, text, strerror(-listener->fd));
		}
	}
	if (listener->fd < 0)
		return listener->fd;
	err = actual_tcp(listener->fd, actual);
	if (err) {
		snprintf(error, SOCKET_ERROR_MAX, "cannot tell the address listened on: %s",
			 strerror(-err));
		socket_unlisten(listener);
	}
	return err;
}

/* Does nobody listen at this socket's file any more? Then it is in the way. */
static int remove_stale(const char *path, char *error)
{
	int err = runtime_clear(path);

	if (err == -EEXIST)
		snprintf(error, SOCKET_ERROR_MAX, "cannot listen on unix:%s: there is a file that is no socket, wanted nothing there or a socket that nobody listens on",
			 path);
	else if (err == -EADDRINUSE)
		snprintf(error, SOCKET_ERROR_MAX, "cannot listen on unix:%s: somebody listens there already, wanted a socket that nobody listens on",
			 path);
	return err;
}

static int listen_unix(const struct uri *uri, struct socket_listener *listener,
		       char actual[URI_TEXT_MAX], char *error)
{
	struct socket_address address;
	struct stat st;
	int err = resolve_unix(uri, &address, error);

	if (err)
		return err;
	error[0] = '\0';
	listener->fd = listen_at(&address);
	if (listener->fd == -EADDRINUSE) {
		err = remove_stale(uri->rest, error);
		listener->fd = err ? err : listen_at(&address);
	}
	if (listener->fd < 0) {
		if (!error[0])
			snprintf(error, SOCKET_ERROR_MAX, "cannot listen on unix:%s: %s",
				 uri->rest, strerror(-listener->fd));
		return listener->fd;
	}
	strcpy(listener->path, uri->rest);
	if (!lstat(listener->path, &st)) {
		listener->device = st.st_dev;
		listener->inode = st.st_ino;
	}
	snprintf(actual, URI_TEXT_MAX, "unix:%s", listener->path);
	return 0;
}

int socket_listen(const struct uri *uri, struct socket_listener *listener,
		  char actual[URI_TEXT_MAX], char *error)
{
	*listener = (struct socket_listener){ .fd = -1 };
	if (uri->kind == URI_TCP)
		return listen_tcp(uri, listener, actual, error);
	return listen_unix(uri, listener, actual, error);
}

void socket_remove(const struct socket_listener *listener)
{
	struct stat st;

	if (listener->path[0] && !lstat(listener->path, &st) && st.st_dev == listener->device &&
	    st.st_ino == listener->inode)
		unlink(listener->path);
}

void socket_unlisten(struct socket_listener *listener)
{
	if (listener->fd < 0)
		return;
	socket_remove(listener);
	close(listener->fd);
	listener->fd = -1;
}

static void no_delay(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* Who connects to a path has no address. */
static void of_process(int fd, char text[SOCKET_TEXT_MAX], uint64_t *origin)
{
	struct ucred peer = { 0 };
	socklen_t size = sizeof(peer);

	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
	snprintf(text, SOCKET_TEXT_MAX, "process %d of uid %u", peer.pid, peer.uid);
	*origin = peer.uid;
}

static uint64_t origin_of(const struct sockaddr_storage *address)
{
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
	uint32_t four = 0;
	uint64_t net;

	if (address->ss_family == AF_INET)
		four = ((const struct sockaddr_in *)address)->sin_addr.s_addr;
	else if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
		memcpy(&four, &six->sin6_addr.s6_addr[12], sizeof(four));
	if (four)
		return four;
	memcpy(&net, &six->sin6_addr, sizeof(net));
	return net;
}

int socket_accept(int listener, int *fd, char peer[SOCKET_TEXT_MAX], uint64_t *origin)
{
	struct socket_address address = { .size = sizeof(address.address) };

	*fd = accept4(listener, (struct sockaddr *)&address.address, &address.size,
		      SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (*fd < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	if (address.address.ss_family == AF_UNIX) {
		of_process(*fd, peer, origin);
	} else {
		socket_text(peer, &address);
		*origin = origin_of(&address.address);
	}
	no_delay(*fd);
	return 0;
}

int socket_connect(const struct socket_address *address, int *fd)
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

int socket_connected(int fd)
{
	socklen_t size = sizeof(int);
	int err = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size))
		return -errno;
	return -err;
}

int socket_peer(int fd, struct socket_address *address)
{
	address->size = sizeof(address->address);
	return getpeername(fd, (struct sockaddr *)&address->address, &address->size) ? -errno : 0;
}

bool socket_is_remote(const struct socket_address *address)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->address;
	const struct in6_addr *v6 = &((const struct sockaddr_in6 *)&address->address)->sin6_addr;

	if (address->address.ss_family == AF_INET)
		return ntohl(v4->sin_addr.s_addr) >> 24 != IN_LOOPBACKNET;
	return address->address.ss_family == AF_INET6 && !IN6_IS_ADDR_LOOPBACK(v6) &&
	       !(IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == IN_LOOPBACKNET);
}

void socket_limit_unsent(int fd, int bytes)
{
	/* Of a unix socket what the other side has not read is what is unsent. */
	if (setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof(bytes)))
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

int socket_get_path(int fd, struct socket_path *path)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size))
		return -errno;
	if (!info.tcpi_delivery_rate || !info.tcpi_min_rtt || info.tcpi_min_rtt == ~0U)
		return -ENODATA;
	path->rate = info.tcpi_delivery_rate;
	path->rtt_ns = info.tcpi_min_rtt * NSEC_PER_USEC;
	return 0;
}
