// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/qmp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/pass.h"
#include "common/text.h"

#define QMP_LINE_MAX	(64u << 20)	/* the answer to "info tlb" is long */
#define USEC_PER_SEC	1000000ULL

/* A command whose reply is due. */
struct qmp_command {
	struct qmp_command *next;
	uint64_t id;
	qmp_reply_fn *reply;
	void *context;
};

/* A line not yet sent, and the descriptor that goes with its first byte. */
struct qmp_output {
	struct qmp_output *next;
	char *line;
	size_t length, sent;
	int fd;
};

static void capabilities_done(void *context, json_t *result, const char *error)
{
	struct qmp *qmp = context;

	(void)result;
	qmp->ops->ready(qmp->context, error);
}

void qmp_init(struct qmp *qmp, int fd, const struct qmp_ops *ops, void *context)
{
	*qmp = (struct qmp){ .fd = fd, .ops = ops, .context = context, .next_id = 1 };
	qmp->output_end = &qmp->output;
	jsonl_init(&qmp->input, fd, QMP_LINE_MAX, 0);
}

static void drop_output(struct qmp *qmp)
{
	struct qmp_output *output = qmp->output;

	qmp->output = output->next;
	if (!qmp->output)
		qmp->output_end = &qmp->output;
	if (output->fd >= 0)
		close(output->fd);
	free(output->line);
	free(output);
}

void qmp_destroy(struct qmp *qmp)
{
	while (qmp->waiting) {
		struct qmp_command *command = qmp->waiting;

		qmp->waiting = command->next;
		if (command->reply)
			command->reply(command->context, NULL, "QEMU is gone");
		free(command);
	}
	while (qmp->output)
		drop_output(qmp);
	jsonl_destroy(&qmp->input);
}

bool qmp_unsent(const struct qmp *qmp)
{
	return qmp->greeted && qmp->output;
}

int qmp_flush(struct qmp *qmp)
{
	while (qmp_unsent(qmp)) {
		struct qmp_output *output = qmp->output;
		ssize_t n = pass_send(qmp->fd, output->line + output->sent,
				      output->length - output->sent, output->fd, MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EWOULDBLOCK ? -EAGAIN : -errno;
		if (output->fd >= 0) {
			close(output->fd);
			output->fd = -1;
		}
		output->sent += (size_t)n;
		if (output->sent == output->length)
			drop_output(qmp);
	}
	return 0;
}

static struct qmp_output *queue(struct qmp *qmp, const char *name, json_t *arguments, int fd,
				qmp_reply_fn *reply, void *context)
{
	struct qmp_command *command = memory_or_exit(calloc(1, sizeof(*command)));
	struct qmp_output *output = memory_or_exit(calloc(1, sizeof(*output)));
	struct qmp_command **end = &qmp->waiting;
	struct text line = { 0 };
	json_t *object;
	char *json;

	*command = (struct qmp_command){ .id = qmp->next_id++, .reply = reply, .context = context };
	while (*end)
		end = &(*end)->next;
	*end = command;

	object = memory_or_exit(json_pack("{s:s, s:I}", "execute", name, "id",
					  (json_int_t)command->id));
	if (arguments)
		json_object_set_new(object, "arguments", arguments);
	json = memory_or_exit(json_dumps(object, JSON_COMPACT | JSON_ENSURE_ASCII));
	json_decref(object);
	text_add(&line, "%s\n", json);
	free(json);

	output->length = line.used;
	output->line = text_take(&line);
	output->fd = fd;
	return output;
}

void qmp_execute(struct qmp *qmp, const char *name, json_t *arguments, int fd,
		 qmp_reply_fn *reply, void *context)
{
	struct qmp_output *output = queue(qmp, name, arguments, fd, reply, context);

	*qmp->output_end = output;
	qmp->output_end = &output->next;
	/* An error shows again when QEMU's end is read. */
	qmp_flush(qmp);
}

/* Before all that was to be executed meanwhile. */
static void answer_greeting(struct qmp *qmp)
{
	struct qmp_output *output = queue(qmp, "qmp_capabilities", NULL, -1, capabilities_done,
					  qmp);

	output->next = qmp->output;
	qmp->output = output;
	if (!output->next)
		qmp->output_end = &output->next;
	qmp->greeted = true;
	qmp_flush(qmp);
}

static void deliver_reply(struct qmp *qmp, json_t *object)
{
	json_t *result = json_object_get(object, "return");
	json_t *refusal = json_object_get(object, "error");
	const char *error = json_string_value(json_object_get(refusal, "desc"));
	uint64_t id = (uint64_t)json_integer_value(json_object_get(object, "id"));
	struct qmp_command **at, *command;

	for (at = &qmp->waiting; *at; at = &(*at)->next) {
		if ((*at)->id == id)
			break;
	}
	command = *at;
	if (!command) {
		log_warning("QMP: a reply with an id that belongs to no command: %llu",
			    (unsigned long long)id);
		return;
	}
	*at = command->next;
	if (!result && !error)
		error = "QEMU gave no reason";
	if (command->reply)
		command->reply(command->context, error ? NULL : result, error);
	free(command);
}

static void deliver_event(struct qmp *qmp, json_t *object)
{
	json_t *timestamp = json_object_get(object, "timestamp");
	struct qmp_event event = {
		.name = json_string_value(json_object_get(object, "event")),
		.data = json_object_get(object, "data"),
	};
	json_int_t seconds = json_integer_value(json_object_get(timestamp, "seconds"));
	json_int_t micro = json_integer_value(json_object_get(timestamp, "microseconds"));

	/* QEMU writes -1 when it could not tell the time. */
	if (seconds > 0 && micro >= 0)
		event.time_us = (uint64_t)seconds * USEC_PER_SEC + (uint64_t)micro;
	if (event.name)
		qmp->ops->event(qmp->context, &event);
}

static void deliver(struct qmp *qmp, json_t *object)
{
	if (json_object_get(object, "event"))
		deliver_event(qmp, object);
	else if (json_object_get(object, "return") || json_object_get(object, "error"))
		deliver_reply(qmp, object);
	else if (json_object_get(object, "QMP") && !qmp->greeted)
		answer_greeting(qmp);
	else
		log_warning("QMP: an object that is neither event nor reply");
}

int qmp_receive(struct qmp *qmp)
{
	char error[JSONL_ERROR_MAX];
	json_t *object;
	int got, err;

	got = jsonl_receive(&qmp->input);
	if (got == -EAGAIN)
		return 1;
	if (got <= 0)
		return got;
	for (;;) {
		err = jsonl_next(&qmp->input, &object, error);
		if (!err)
			return 1;
		if (err == -EMSGSIZE) {
			log_error("QMP: %s", error);
			return err;
		}
		if (err < 0) {
			log_warning("QMP: %s", error);
			continue;
		}
		deliver(qmp, object);
		json_decref(object);
	}
}
