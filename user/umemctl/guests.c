// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemctl/guests.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/report.h"
#include "common/runtime.h"
#include "common/text.h"
#include "umemctl/client.h"

void guests_add(struct guests *guests, pid_t pid, const char *name, const char *state,
		const char *path)
{
	struct guest *guest;

	guests->guest = memory_or_exit(reallocarray(guests->guest, guests->nr + 1,
						    sizeof(*guests->guest)));
	guest = &guests->guest[guests->nr++];
	*guest = (struct guest){
		.pid = pid,
		.name = text_copy(name),
		.state = text_copy(state),
		.path = text_copy(path),
	};
	report_clean(guest->name);
	report_clean(guest->state);
}

void guests_free(struct guests *guests)
{
	for (size_t i = 0; i < guests->nr; i++) {
		free(guests->guest[i].name);
		free(guests->guest[i].state);
		free(guests->guest[i].path);
	}
	free(guests->guest);
	*guests = (struct guests){ 0 };
}

/* ---- looking for them ---- */

static const char *string_in(json_t *reply, const char *object, const char *name,
			     const char *otherwise)
{
	const char *string = json_string_value(json_object_get(json_object_get(reply, object),
							       name));

	return string ? string : otherwise;
}

static void ask_guest(struct guests *guests, pid_t pid, struct client *client)
{
	char *error;
	json_t *reply = client_ask(client, json_pack("{s:s}", "cmd", "info"), &error);

	guests_add(guests, pid, string_in(reply, "guest", "name", ""),
		   string_in(reply, "info", "status", "silent"), client->path);
	json_decref(reply);
	free(error);
}

static void look_at(struct guests *guests, const char *path, pid_t pid)
{
	struct client client;
	struct stat st;
	int err;

	if (lstat(path, &st) || !S_ISSOCK(st.st_mode) || st.st_uid != geteuid())
		return;
	err = client_open(&client, path);
	if (!err) {
		ask_guest(guests, pid, &client);
		client_close(&client);
	} else if (err == -ECONNREFUSED && kill(pid, 0) && errno == ESRCH) {
		unlink(path);
	} else if (err == -EAGAIN) {
		guests_add(guests, pid, "", "silent", path);
	}
}

static void look_in(struct guests *guests, const char *folder)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		pid_t pid = runtime_file_pid(entry->d_name, RUNTIME_SOCKET);
		char *path;

		if (!pid)
			continue;
		path = text_format("%s/%s", folder, entry->d_name);
		look_at(guests, path, pid);
		free(path);
	}
	if (dir)
		closedir(dir);
}

static int by_pid(const void *a, const void *b)
{
	const struct guest *one = a, *other = b;

	return (one->pid > other->pid) - (one->pid < other->pid);
}

void guests_find(struct guests *guests)
{
	char *folders[RUNTIME_FOLDERS_MAX];
	size_t nr = runtime_folders(folders);

	*guests = (struct guests){ 0 };
	for (size_t i = 0; i < nr; i++) {
		look_in(guests, folders[i]);
		free(folders[i]);
	}
	if (guests->nr)
		qsort(guests->guest, guests->nr, sizeof(*guests->guest), by_pid);
}

/* ---- choosing one ---- */

static bool is_pid(const struct guest *guest, const char *wanted)
{
	char *pid = text_format("%d", (int)guest->pid);
	bool is = !strcmp(pid, wanted);

	free(pid);
	return is;
}

static bool is_name(const struct guest *guest, const char *wanted)
{
	return *wanted && !strcmp(guest->name, wanted);
}

static size_t count(const struct guests *guests, const char *wanted,
		    bool (*is)(const struct guest *guest, const char *wanted),
		    const struct guest **found)
{
	size_t nr = 0;

	for (size_t i = 0; i < guests->nr; i++) {
		if (is && !is(&guests->guest[i], wanted))
			continue;
		*found = &guests->guest[i];
		nr++;
	}
	return nr;
}

static char *list(const struct guests *guests)
{
	struct text text = { 0 };

	for (size_t i = 0; i < guests->nr; i++) {
		const struct guest *guest = &guests->guest[i];

		text_add(&text, "%s%d%s%s%s", i ? ", " : "", (int)guest->pid,
			 *guest->name ? " (" : "", guest->name, *guest->name ? ")" : "");
	}
	return text_take(&text);
}

static char *why_not(const struct guests *guests, const char *wanted, size_t nr)
{
	char *all, *why;

	if (!guests->nr)
		return text_copy("no umem-qemu of this user runs, wanted one");
	all = list(guests);
	if (!wanted)
		why = text_format("%zu umem-qemus run, wanted --guest with one of: %s", nr, all);
	else if (!nr)
		why = text_format("--guest is \"%s\", wanted one of: %s, or the path of a control socket",
				  wanted, all);
	else
		why = text_format("--guest is \"%s\", the name of %zu guests, wanted the process id of one of: %s",
				  wanted, nr, all);
	free(all);
	return why;
}

const struct guest *guests_choose(const struct guests *guests, const char *wanted, char **error)
{
	const struct guest *found = NULL;
	size_t nr;

	*error = NULL;
	nr = count(guests, wanted, wanted ? is_pid : NULL, &found);
	if (!nr && wanted)
		nr = count(guests, wanted, is_name, &found);
	if (nr == 1)
		return found;
	*error = why_not(guests, wanted, nr);
	return NULL;
}

char *guests_table(const struct guests *guests)
{
	struct text text = { 0 };

	text_add(&text, "%8s  %-20s %s\n", "PID", "NAME", "STATE");
	for (size_t i = 0; i < guests->nr; i++) {
		const struct guest *guest = &guests->guest[i];

		text_add(&text, "%8d  %-20s %s\n", (int)guest->pid,
			 *guest->name ? guest->name : "-", guest->state);
	}
	return text_take(&text);
}

json_t *guests_json(const struct guests *guests)
{
	json_t *all = json_array();

	for (size_t i = 0; i < guests->nr; i++) {
		const struct guest *guest = &guests->guest[i];

		json_array_append_new(all, json_pack("{s:i, s:o, s:o}", "pid", (int)guest->pid, "name",
						     jsonl_string(guest->name), "state",
						     jsonl_string(guest->state)));
	}
	return all;
}
