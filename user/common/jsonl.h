/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON objects over a stream, one a line. Works with blocking and non-blocking
 * descriptors; what the peer may make us hold is bounded in both directions.
 */
#ifndef COMMON_JSONL_H
#define COMMON_JSONL_H

#include <jansson.h>
#include <stddef.h>

#define JSONL_ERROR_MAX	256

/**
 * struct jsonl - one stream; not to be touched from outside
 */
struct jsonl {
	int fd;
	size_t max_line;
	size_t max_unsent;
	char *in;
	size_t in_start, in_used, in_size;
	char *out;
	size_t out_start, out_used, out_size;
};

/**
 * jsonl_init - begin to speak over @fd
 * @max_line: longest line accepted, without its newline
 * @max_unsent: most bytes queued while the peer does not read
 *
 * @fd stays the caller's.
 */
void jsonl_init(struct jsonl *jsonl, int fd, size_t max_line, size_t max_unsent);

/**
 * jsonl_destroy - free the buffers; unsent lines are lost
 */
void jsonl_destroy(struct jsonl *jsonl);

/**
 * jsonl_send - queue an object and write what can be written now
 * @object: taken over, also on failure; NULL (out of memory) is -ENOMEM
 *
 * Return: 0 sent or queued; -ENOBUFS the queue is full, nothing was queued;
 * -ENOMEM; -EPIPE and other errors of write().
 */
int jsonl_send(struct jsonl *jsonl, json_t *object);

/**
 * jsonl_flush - write what is queued
 *
 * Return: 0 nothing is left; -EAGAIN the peer does not take more now; another
 * negative errno of write().
 */
int jsonl_flush(struct jsonl *jsonl);

/**
 * jsonl_unsent - bytes queued: poll for POLLOUT while it is not 0
 */
size_t jsonl_unsent(const struct jsonl *jsonl);

/**
 * jsonl_receive - read once from the descriptor
 *
 * Take all objects with jsonl_next() before calling it again.
 *
 * Return: 1 something came; 0 end of stream; -EAGAIN; -ENOMEM; another
 * negative errno of read().
 */
int jsonl_receive(struct jsonl *jsonl);

/**
 * jsonl_next - the next complete object that was received
 * @object: the object, the caller's from now on
 * @error: JSONL_ERROR_MAX bytes for a sentence, on -EPROTO and -EMSGSIZE
 *
 * Empty lines are passed over.
 *
 * Return: 1 an object; 0 none is complete yet; -EPROTO a line is not a JSON
 * object: that line is gone, the next may be good; -EMSGSIZE a line is longer
 * than allowed: the stream is of no more use.
 */
int jsonl_next(struct jsonl *jsonl, json_t **object, char *error);

/**
 * jsonl_string - any text as a JSON string
 *
 * Where @text is not UTF-8, each of its bytes above 0x7f becomes a '?'.
 *
 * Return: a string, the caller's; NULL out of memory.
 */
json_t *jsonl_string(const char *text);

#endif
