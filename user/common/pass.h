/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptors that go with what is sent through a unix socket. */
#ifndef COMMON_PASS_H
#define COMMON_PASS_H

#include <sys/types.h>

/**
 * pass_send - as send(), never raising SIGPIPE
 * @fd: a descriptor that goes with the first byte, or -1
 * @flags: of sendmsg(), beside MSG_NOSIGNAL
 *
 * Return: bytes sent, or -1 with errno.
 */
ssize_t pass_send(int socket, const void *data, size_t size, int fd, int flags);

#endif
