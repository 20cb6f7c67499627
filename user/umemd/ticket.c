// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/ticket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int invalid(char *error, const char *what, const char *wanted)
{
	wrong(error, "the session to go on with has no good \"%s\", wanted %s", what, wanted);
	return -EINVAL;
}

json_t *ticket_encode(const struct ticket *ticket)
{
	char id[2 * SESSION_SIZE + 1];
	json_t *regions = json_array();

	for (size_t i = 0; i < SESSION_SIZE; i++)
		sprintf(id + 2 * i, "%02x", ticket->session[i]);
	for (uint32_t i = 0; i < ticket->nr_regions; i++)
		json_array_append_new(regions, json_string(ticket->names[i]));
	return json_pack("{s:s, s:I, s:o}", "id", id, "features", (json_int_t)ticket->features,
			 "regions", regions);
}

static int decode_id(uint8_t session[SESSION_SIZE], const char *text)
{
	size_t size = 2 * SESSION_SIZE;

	if (!text || strlen(text) != size || strspn(text, "0123456789abcdef") != size)
		return -EINVAL;
	for (size_t i = 0; i < SESSION_SIZE; i++) {
		unsigned int byte;

		sscanf(text + 2 * i, "%2x", &byte);
		session[i] = (uint8_t)byte;
	}
	return 0;
}

static int decode_regions(struct ticket *ticket, json_t *regions)
{
	json_t *name;
	size_t i;

	if (!json_array_size(regions) || json_array_size(regions) > REGIONS_MAX)
		return -EINVAL;
	json_array_foreach(regions, i, name) {
		if (!json_is_string(name) ||
		    !region_name_valid(json_string_value(name), json_string_length(name)))
			return -EINVAL;
		strcpy(ticket->names[i], json_string_value(name));
	}
	ticket->nr_regions = (uint32_t)json_array_size(regions);
	return 0;
}

int ticket_decode(struct ticket *ticket, json_t *json, char *error)
{
	json_t *features = json_object_get(json, "features");
	json_t *gone = json_object_get(json, "gone"), *run = json_object_get(json, "run");

	memset(ticket, 0, sizeof(*ticket));
	if (decode_id(ticket->session, json_string_value(json_object_get(json, "id"))))
		return invalid(error, "id", "32 hexadecimal digits");
	ticket->features = (uint64_t)json_integer_value(features);
	if (!json_is_integer(features) || ticket->features & ~FEATURES_KNOWN)
		return invalid(error, "features", "a number of features that are known here");
	if (decode_regions(ticket, json_object_get(json, "regions")))
		return invalid(error, "regions", "1 to 256 names");
	if (!json_is_boolean(gone))
		return invalid(error, "gone", "a boolean");
	if (!json_is_boolean(run))
		return invalid(error, "run", "a boolean");
	ticket->gone = json_is_true(gone);
	ticket->run = json_is_true(run);
	return 0;
}

int ticket_read(struct ticket *ticket, int fd, char *error)
{
	json_error_t json_error;
	json_t *json = json_loadfd(fd, 0, &json_error);
	int err;

	close(fd);
	if (!json) {
		wrong(error, "--resume %d: %s, wanted a JSON object", fd, json_error.text);
		return -EINVAL;
	}
	err = ticket_decode(ticket, json, error);
	json_decref(json);
	return err;
}

static bool find(const struct hello_region *ours, uint32_t count, const char *name,
		 uint32_t *index)
{
	for (*index = 0; *index < count; ++*index) {
		if (!strcmp(ours[*index].name, name))
			return true;
	}
	return false;
}

int ticket_match(const struct ticket *ticket, const struct hello_region *ours, uint32_t count,
		 uint32_t *index, char *error)
{
	for (uint32_t i = 0; i < ticket->nr_regions; i++) {
		if (find(ours, count, ticket->names[i], &index[i]))
			continue;
		wrong(error, "region \"%s\" of the session to go on with is not here",
		      ticket->names[i]);
		return -EINVAL;
	}
	if (ticket->nr_regions == count)
		return 0;
	wrong(error, "the session to go on with has %u regions, here there are %u",
	      ticket->nr_regions, count);
	return -EINVAL;
}
