// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What people and programs tell umem-qemu: lines of the monitor, requests at the control
 * socket, URIs. What is understood can be done, and can be said again.
 *
 * Input: which of them (1), then the text.
 */
#include "fuzz.h"

#include "common/util.h"
#include "umem-qemu/hmp.h"
#include "umem-qemu/request.h"

static void check_uri_text(const char *text)
{
	char error[URI_ERROR_MAX] = "", again[URI_TEXT_MAX + 32];
	struct uri uri, other;
	int err = uri_parse(&uri, text, error, sizeof(error));

	if (err) {
		must(error[0] && strlen(error) < sizeof(error));
		return;
	}
	switch (uri.kind) {
	case URI_TCP:
		if (strchr(uri.host, '['))	/* no host, but nobody can tell yet */
			break;
		uri_format_tcp(again, sizeof(again), uri.host, uri.port);
		must(!uri_parse(&other, again, error, sizeof(error)));
		must(other.kind == URI_TCP && other.port == uri.port);
		must(!strcmp(other.host, uri.host));
		break;
	case URI_UNIX:
		must(uri.rest[0] && strlen(uri.rest) <= URI_PATH_MAX);
		break;
	case URI_FD:
		must(uri.fd >= 0 && uri.fd <= UINT16_MAX);
		break;
	case URI_EXEC:
		must(uri.rest[0]);
		break;
	case URI_DEFER:
		must(!uri_names_peer(&uri));
		break;
	}
}

static void check_peer(const char *text)
{
	char error[URI_ERROR_MAX];
	struct uri uri;

	must(!uri_parse(&uri, text, error, sizeof(error)) && uri_names_peer(&uri));
}

static void check_command(const struct hmp_command *command)
{
	must(memchr(command->word, 0, sizeof(command->word)));
	switch (command->kind) {
	case HMP_MIGRATE_EITHER:
		must(command->precopy && !command->no_push);
		if (command->error[0])
			break;
		/* fall through */
	case HMP_MIGRATE:
		check_peer(command->uri);
		must(command->forward <= HMP_PREFAULT_MAX && command->backward <= HMP_PREFAULT_MAX);
		break;
	case HMP_INCOMING:
		check_peer(command->uri);
		break;
	case HMP_CHANNELS:
		must(command->channels >= 1 && command->channels <= HMP_URGENT_CHANNELS_MAX);
		break;
	case HMP_CPU:
		must(command->cpu >= 0);
		break;
	case HMP_ERROR:
		must(command->error[0]);
		break;
	default:
		break;
	}
	must(memchr(command->error, 0, sizeof(command->error)));
}

static void check_line(const char *line)
{
	struct hmp_command command;

	for (int incoming = 0; incoming < 2; incoming++) {
		hmp_parse(&command, line, incoming);
		check_command(&command);
	}
}

static void check_request(const char *text)
{
	json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	struct request request;
	char *error;

	if (json_is_object(object)) {
		if (request_decode(&request, object, &error)) {
			must(error && error[0]);
		} else if (request.kind == REQUEST_MIGRATE) {
			must(request.command.kind == HMP_MIGRATE && request.command.detach);
			must(!(request.command.precopy && request.command.no_push));
			check_command(&request.command);
		}
		free(error);
	}
	json_decref(object);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const checks[])(const char *text) = {
		check_uri_text, check_line, check_request,
	};
	struct input input = { data, size };
	uint8_t which = input_u8(&input);
	char *text = input_string(&input);

	json_object_seed(1);
	checks[which % ARRAY_SIZE(checks)](text);
	free(text);
	return 0;
}
