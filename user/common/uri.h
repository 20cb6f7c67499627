/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The URIs of "migrate" and "-incoming", as QEMU spells them. */
#ifndef COMMON_URI_H
#define COMMON_URI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define URI_TEXT_MAX	512	/* with the NUL: enough for a quote of any URI */
#define URI_ERROR_MAX	1024
#define URI_PATH_MAX	107	/* what the address of a unix socket has room for */

/* What messages and help texts say of a URI that names another host. */
#define URI_WANTED	"tcp:HOST:PORT, unix:PATH, fd:NUMBER or exec:COMMAND"

enum uri_kind {
	URI_TCP,	/* tcp:HOST:PORT, tcp:[V6]:PORT, tcp::PORT */
	URI_UNIX,	/* unix:PATH */
	URI_FD,		/* fd:NUMBER */
	URI_EXEC,	/* exec:COMMAND */
	URI_DEFER,	/* defer */
};

/**
 * struct uri - a parsed URI
 * @kind: which transport
 * @host: URI_TCP: as written, without brackets; empty for every address
 * @port: URI_TCP
 * @fd: URI_FD
 * @rest: the others: what follows the first colon
 */
struct uri {
	enum uri_kind kind;
	uint16_t port;
	int fd;
	char host[256];
	char rest[URI_TEXT_MAX];
};

/**
 * uri_parse - take a URI apart
 * @uri: result, valid if 0 is returned
 * @text: the URI
 * @error: on failure, a sentence that quotes @text and says what is wanted
 * @size: of @error, URI_ERROR_MAX is always enough
 *
 * Return: 0, or -EINVAL with @error filled.
 */
int uri_parse(struct uri *uri, const char *text, char *error, size_t size);

/* Is it a way to another umemd, one that URI_WANTED names? */
bool uri_names_peer(const struct uri *uri);

/**
 * uri_format_tcp - HOST and PORT to tcp:HOST:PORT, with brackets if needed
 */
void uri_format_tcp(char *text, size_t size, const char *host, uint16_t port);

#endif
