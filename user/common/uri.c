// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/uri.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	enum uri_kind kind;
} uri_schemes[] = {
	{ "tcp", URI_TCP },
	{ "unix", URI_UNIX },
	{ "fd", URI_FD },
	{ "exec", URI_EXEC },
};

static int __attribute__((format(printf, 3, 4)))
refuse(char *error, size_t size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, size, format, args);
	va_end(args);
	return -EINVAL;
}

/* A port or a descriptor: both are 0 to 65535. */
static int parse_number(const char *text, uint16_t *number)
{
	unsigned long value = 0;

	if (!*text || strlen(text) > 5)
		return -EINVAL;
	for (; *text; text++) {
		if (!isdigit((unsigned char)*text))
			return -EINVAL;
		value = value * 10 + (unsigned long)(*text - '0');
	}
	if (value > UINT16_MAX)
		return -EINVAL;
	*number = (uint16_t)value;
	return 0;
}

static int parse_tcp(struct uri *uri, const char *text, char *error, size_t size)
{
	const char *rest = text + strlen("tcp:");
	const char *host, *colon;
	size_t length;

	if (*rest == '[') {
		const char *end = strchr(rest, ']');

		if (!end || end[1] != ':')
			return refuse(error, size, "URI \"%s\": wanted tcp:[ADDRESS]:PORT", text);
		host = rest + 1;
		length = (size_t)(end - host);
		colon = end + 1;
		if (!length)
			return refuse(error, size, "URI \"%s\": no address between the brackets",
				      text);
	} else {
		host = rest;
		colon = strchr(rest, ':');
		if (!colon)
			return refuse(error, size, "URI \"%s\": no port; wanted tcp:HOST:PORT",
				      text);
		length = (size_t)(colon - host);
		if (strchr(colon + 1, ':'))
			return refuse(error, size,
				      "URI \"%s\": too many colons; an IPv6 address needs brackets, tcp:[::1]:4444",
				      text);
	}
	if (length >= sizeof(uri->host))
		return refuse(error, size, "URI \"%s\": the host has %zu characters, at most %zu are possible",
			      text, length, sizeof(uri->host) - 1);
	if (parse_number(colon + 1, &uri->port))
		return refuse(error, size, "URI \"%s\": port is \"%s\", wanted 0 to 65535",
			      text, colon + 1);

	memcpy(uri->host, host, length);
	uri->host[length] = '\0';
	uri->kind = URI_TCP;
	return 0;
}

static int parse_unix(struct uri *uri, const char *text, char *error, size_t size)
{
	size_t length = strlen(uri->rest);

	if (length <= URI_PATH_MAX)
		return 0;
	return refuse(error, size, "URI \"%s\": the path has %zu characters, at most %d are possible",
		      text, length, URI_PATH_MAX);
}

static int parse_fd(struct uri *uri, const char *text, char *error, size_t size)
{
	uint16_t fd;

	if (parse_number(uri->rest, &fd))
		return refuse(error, size, "URI \"%s\": descriptor is \"%s\", wanted 0 to 65535",
			      text, uri->rest);
	uri->fd = fd;
	return 0;
}

int uri_parse(struct uri *uri, const char *text, char *error, size_t size)
{
	const char *colon = strchr(text, ':');

	memset(uri, 0, sizeof(*uri));
	if (strlen(text) >= URI_TEXT_MAX)
		return refuse(error, size, "URI has %zu characters, at most %d are possible",
			      strlen(text), URI_TEXT_MAX - 1);
	for (const char *c = text; *c; c++) {
		if (iscntrl((unsigned char)*c))
			return refuse(error, size, "URI has the control character 0x%02x at position %zu",
				      (unsigned char)*c, (size_t)(c - text));
	}
	if (!strcmp(text, "defer")) {
		uri->kind = URI_DEFER;
		return 0;
	}
	if (!colon)
		return refuse(error, size, "URI \"%s\": no scheme; wanted " URI_WANTED
			      ", or defer for -incoming", text);

	for (size_t i = 0; i < sizeof(uri_schemes) / sizeof(uri_schemes[0]); i++) {
		const char *name = uri_schemes[i].name;

		if (strlen(name) != (size_t)(colon - text) || strncmp(name, text, strlen(name)))
			continue;
		if (uri_schemes[i].kind == URI_TCP)
			return parse_tcp(uri, text, error, size);
		if (!colon[1])
			return refuse(error, size, "URI \"%s\": nothing after the colon", text);
		uri->kind = uri_schemes[i].kind;
		strcpy(uri->rest, colon + 1);
		if (uri->kind == URI_UNIX)
			return parse_unix(uri, text, error, size);
		if (uri->kind == URI_FD)
			return parse_fd(uri, text, error, size);
		return 0;
	}
	return refuse(error, size, "URI \"%s\": scheme \"%.*s\" is unknown; wanted " URI_WANTED
		      ", or defer for -incoming",
		      text, (int)(colon - text), text);
}

bool uri_names_peer(const struct uri *uri)
{
	return uri->kind != URI_DEFER;
}

void uri_format_tcp(char *text, size_t size, const char *host, uint16_t port)
{
	if (strchr(host, ':'))
		snprintf(text, size, "tcp:[%s]:%u", host, port);
	else
		snprintf(text, size, "tcp:%s:%u", host, port);
}
