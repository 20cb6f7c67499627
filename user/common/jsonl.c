// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/jsonl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_STEP	4096

void jsonl_init(struct jsonl *jsonl, int fd, size_t max_line, size_t max_unsent)
{
	*jsonl = (struct jsonl){ .fd = fd, .max_line = max_line, .max_unsent = max_unsent };
}

void jsonl_destroy(struct jsonl *jsonl)
{
	free(jsonl->in);
	free(jsonl->out);
	jsonl->in = NULL;
	jsonl->out = NULL;
	jsonl->fd = -1;
}

size_t jsonl_unsent(const struct jsonl *jsonl)
{
	return jsonl->out_used - jsonl->out_start;
}

/* Make room for @more bytes behind @used, moving what is left to the front. */
static int reserve(char **buffer, size_t *start, size_t *used, size_t *size, size_t more)
{
	size_t live = *used - *start;
	char *grown;

	if (*start) {
		memmove(*buffer, *buffer + *start, live);
		*start = 0;
		*used = live;
	}
	if (live + more <= *size)
		return 0;
	grown = realloc(*buffer, live + more);
	if (!grown)
		return -ENOMEM;
	*buffer = grown;
	*size = live + more;
	return 0;
}

/* A peer that went away is an error to return, not a signal to die from. */
static ssize_t write_quietly(int fd, const void *data, size_t size)
{
	ssize_t n = send(fd, data, size, MSG_NOSIGNAL);

	if (n < 0 && errno == ENOTSOCK)
		n = write(fd, data, size);
	return n;
}

int jsonl_flush(struct jsonl *jsonl)
{
	while (jsonl_unsent(jsonl)) {
		ssize_t n = write_quietly(jsonl->fd, jsonl->out + jsonl->out_start,
					  jsonl_unsent(jsonl));

		if (n >= 0)
			jsonl->out_start += (size_t)n;
		else if (errno != EINTR)
			return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	}
	return 0;
}

int jsonl_send(struct jsonl *jsonl, json_t *object)
{
	char *text;
	size_t length;
	int err;

	if (!object)
		return -ENOMEM;
	text = json_dumps(object, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(object);
	if (!text)
		return -ENOMEM;
	length = strlen(text);
	if (jsonl_unsent(jsonl) + length + 1 > jsonl->max_unsent) {
		free(text);
		return -ENOBUFS;
	}
	err = reserve(&jsonl->out, &jsonl->out_start, &jsonl->out_used, &jsonl->out_size,
		      length + 1);
	if (err) {
		free(text);
		return err;
	}
	memcpy(jsonl->out + jsonl->out_used, text, length);
	jsonl->out[jsonl->out_used + length] = '\n';
	jsonl->out_used += length + 1;
	free(text);

	err = jsonl_flush(jsonl);
	return err == -EAGAIN ? 0 : err;
}

int jsonl_receive(struct jsonl *jsonl)
{
	ssize_t n;
	int err;

	err = reserve(&jsonl->in, &jsonl->in_start, &jsonl->in_used, &jsonl->in_size, READ_STEP);
	if (err)
		return err;
	do {
		n = read(jsonl->fd, jsonl->in + jsonl->in_used, READ_STEP);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	jsonl->in_used += (size_t)n;
	return n > 0;
}

static int parse_line(const char *line, size_t length, json_t **object, char *error)
{
	json_error_t why;

	*object = json_loadb(line, length, JSON_REJECT_DUPLICATES, &why);
	if (!*object) {
		snprintf(error, JSONL_ERROR_MAX, "line \"%.*s\" is not JSON: %s",
			 (int)(length < 60 ? length : 60), line, why.text);
		return -EPROTO;
	}
	if (!json_is_object(*object)) {
		json_decref(*object);
		*object = NULL;
		snprintf(error, JSONL_ERROR_MAX, "line \"%.*s\" is not a JSON object",
			 (int)(length < 60 ? length : 60), line);
		return -EPROTO;
	}
	return 1;
}

int jsonl_next(struct jsonl *jsonl, json_t **object, char *error)
{
	*object = NULL;
	while (jsonl->in_used > jsonl->in_start) {
		char *line = jsonl->in + jsonl->in_start;
		size_t live = jsonl->in_used - jsonl->in_start;
		char *end = memchr(line, '\n', live);
		size_t length = end ? (size_t)(end - line) : live;

		if (length > jsonl->max_line) {
			snprintf(error, JSONL_ERROR_MAX, "a line has more than %zu characters",
				 jsonl->max_line);
			return -EMSGSIZE;
		}
		if (!end)
			return 0;
		jsonl->in_start += length + 1;
		if (length && line[length - 1] == '\r')
			length--;
		if (length)
			return parse_line(line, length, object, error);
	}
	return 0;
}

json_t *jsonl_string(const char *text)
{
	json_t *string = json_string(text);
	char *copy;

	if (string)
		return string;
	copy = strdup(text);
	if (!copy)
		return NULL;
	for (char *c = copy; *c; c++) {
		if ((unsigned char)*c > 0x7f)
			*c = '?';
	}
	string = json_string(copy);
	free(copy);
	return string;
}
