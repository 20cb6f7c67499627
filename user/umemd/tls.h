/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A session of TLS on a descriptor that does not block. Opens no file. */
#ifndef UMEMD_TLS_H
#define UMEMD_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "umemd/codec.h"
#include "umemd/credentials.h"

#define TLS_RECORD_MAX	16384	/* bytes that go, or come, at once */

struct tls;

/**
 * tls_new - nothing is sent yet
 * @credentials: outlive it
 * @fd: stays the caller's
 *
 * Return: a session; NULL: out of memory.
 */
struct tls *tls_new(const struct credentials *credentials, int fd);
void tls_free(struct tls *tls);

/**
 * tls_handshake - go on with it as far as it goes now
 *
 * Return: 0 the other side is the one wanted; -EAGAIN; -EBADMSG it is not, or went
 * away, see tls_why(). It was told.
 */
int tls_handshake(struct tls *tls);

/* Did tls_handshake() give 0? */
bool tls_is_up(const struct tls *tls);

/* Does tls_handshake() wait to write, or for its first call? Else to read. */
bool tls_wants_write(const struct tls *tls);

/**
 * tls_receive - as recv(), TLS_RECORD_MAX bytes at most
 *
 * Return: bytes; 0 the other side closed; -EAGAIN; -EBADMSG, see tls_why(); another
 * negative errno.
 */
ssize_t tls_receive(struct tls *tls, void *buffer, size_t size);

/* Would tls_receive() give something that no poll tells of? */
bool tls_has_more(const struct tls *tls);

/**
 * tls_send - as writev(), TLS_RECORD_MAX bytes at most
 *
 * After -EAGAIN the next call has to be with the same bytes first.
 *
 * Return: bytes; -EAGAIN; -EBADMSG, see tls_why(); another negative errno.
 */
ssize_t tls_send(struct tls *tls, const struct iovec *iov, size_t count);

/* A sentence about -EBADMSG. */
const char *tls_why(const struct tls *tls);

#endif
