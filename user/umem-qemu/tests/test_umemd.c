// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/umemd.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/text.h"
#include "common/util.h"

static struct region_option regions[] = { { "pc.ram", 1 << 20 }, { "dimm0", 4096 } };
static const int region_fds[] = { 20, 21 };

static char *joined(char **argv)
{
	struct text text = { 0 };

	for (size_t i = 0; argv[i]; i++)
		text_add(&text, "%s%s", i ? " " : "", argv[i]);
	options_free_argv(argv);
	return text_take(&text);
}

static void test_source_gets_regions_prefault_and_push(void **state)
{
	struct hmp_command command = { .forward = 32, .backward = 5, .no_push = true, .follow = true,
					.compress = true };
	struct umemd_setup setup = {
		.role = MIGRATION_SOURCE, .uri = "tcp:h:1", .command = &command,
		.regions = regions, .region_fds = region_fds, .nr_regions = 2,
	};
	char *text;

	(void)state;
	text = joined(umemd_argv(&setup, 7, 8));
	assert_string_equal(text, "umemd source --control-fd=7 --state-fd=8 --uri=tcp:h:1 "
			    "--region=pc.ram:20:1048576 --region=dimm0:21:4096 "
			    "--forward=32 --backward=5 --no-push --follow --compress=zstd");
	free(text);
	command = (struct hmp_command){ .precopy = true };
	text = joined(umemd_argv(&setup, 7, 8));
	assert_non_null(strstr(text, " --precopy"));
	assert_null(strstr(text, "--no-push"));
	assert_null(strstr(text, "--follow"));
	assert_null(strstr(text, "--compress"));
	free(text);
}

static void test_destination_gets_regions_and_touch(void **state)
{
	struct umemd_setup setup = {
		.role = MIGRATION_DESTINATION, .uri = "tcp:0:1", .touch = true, .listener = -1,
		.regions = regions, .region_fds = region_fds, .nr_regions = 1,
	};
	char *text;

	(void)state;
	text = joined(umemd_argv(&setup, 7, 8));
	assert_string_equal(text, "umemd destination --control-fd=7 --state-fd=8 --uri=tcp:0:1 "
			    "--region=pc.ram:20:1048576 --touch");
	free(text);
	setup.touch = false;
	text = joined(umemd_argv(&setup, 7, 8));
	assert_null(strstr(text, "--touch"));
	free(text);
}

static void test_both_get_their_part_of_tls(void **state)
{
	struct hmp_command command = { .forward = 8 };
	struct umemd_setup setup = {
		.role = MIGRATION_SOURCE, .uri = "tcp:h:1", .command = &command,
		.tls = json_pack("{s:s, s:s, s:s, s:b}", "type", "tls-creds-x509", "dir", "/p",
				 "hostname", "b", "verify-peer", 1),
		.listener = -1,
	};
	char *text;

	(void)state;
	text = joined(umemd_argv(&setup, 7, 8));
	assert_string_equal(text, "umemd source --control-fd=7 --state-fd=8 --uri=tcp:h:1 "
			    "--tls-x509=/p --tls-hostname=b --forward=8 --backward=0");
	free(text);
	setup.role = MIGRATION_DESTINATION;
	text = joined(umemd_argv(&setup, 7, 8));
	assert_string_equal(text, "umemd destination --control-fd=7 --state-fd=8 --uri=tcp:h:1 "
			    "--tls-x509=/p");
	free(text);
	json_decref(setup.tls);
}

static void test_one_that_goes_on_gets_a_session_and_no_device_state(void **state)
{
	struct hmp_command command = { .precopy = true };
	struct umemd_setup setup = {
		.role = MIGRATION_SOURCE, .uri = "tcp:h:1", .command = &command,
		.regions = regions, .region_fds = region_fds, .nr_regions = 1,
		.listener = 9, .session = json_object(),
	};
	char *text;

	(void)state;
	text = joined(umemd_argv(&setup, 7, 8));
	assert_string_equal(text, "umemd source --control-fd=7 --resume=8 --uri=tcp:h:1 "
			    "--region=pc.ram:20:1048576 --forward=0 --backward=0");
	free(text);
	setup.role = MIGRATION_DESTINATION;
	text = joined(umemd_argv(&setup, 7, 8));
	assert_string_equal(text, "umemd destination --control-fd=7 --resume=8 --uri=tcp:h:1 "
			    "--region=pc.ram:20:1048576 --listen-fd=9");
	free(text);
	json_decref(setup.session);
}

/* ---- a process ---- */

struct seen {
	char events[256];
	char gone[64];
};

static void event(void *context, struct umemd *umemd, json_t *event)
{
	struct seen *seen = context;

	(void)umemd;
	strcat(seen->events, json_string_value(json_object_get(event, "event")));
	strcat(seen->events, " ");
}

static void gone(void *context, struct umemd *umemd, const char *how, bool clean)
{
	struct seen *seen = context;

	(void)umemd;
	snprintf(seen->gone, sizeof(seen->gone), "%s%s", how, clean ? "" : "!");
}

static const struct umemd_ops ops = { .event = event, .gone = gone };

/* A program in umemd's place: $3 and $4 are --control-fd=N and --state-fd=N. */
static char *write_script(const char *body)
{
	char *path = text_copy("/tmp/umem-test-umemd-XXXXXX");
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_true(dprintf(fd, "#!/bin/bash\nC=${2#*=}\nS=${3#*=}\n%s\n", body) > 0);
	fchmod(fd, 0700);
	close(fd);
	return path;
}

static struct umemd *start_with(const char *path, struct seen *seen, int *stream,
				json_t *session)
{
	struct hmp_command command = { 0 };
	struct umemd_setup setup = {
		.path = path, .role = MIGRATION_SOURCE, .uri = "tcp:h:1", .command = &command,
		.listener = -1, .session = session,
	};
	char *error = NULL;
	struct umemd *umemd = umemd_start(&setup, &ops, seen, stream, &error);

	if (!umemd)
		fail_msg("%s", error);
	return umemd;
}

static struct umemd *start(const char *path, struct seen *seen, int *stream)
{
	return start_with(path, seen, stream, NULL);
}

static void reap(struct umemd *umemd)
{
	int status;

	assert_int_equal(waitpid(umemd_pid(umemd), &status, 0), umemd_pid(umemd));
	umemd_reaped(umemd, status);
}

static void test_session_is_read_to_its_end(void **state)
{
	char *path = write_script("[ \"$(cat <&$S)\" = '{\"id\":\"secret\"}' ] && exit 3");
	json_t *session = json_pack("{s:s}", "id", "secret");
	struct seen seen = { 0 };
	int stream;

	(void)state;
	reap(start_with(path, &seen, &stream, session));
	assert_int_equal(stream, -1);
	assert_string_equal(seen.gone, "exited with status 3!");
	json_decref(session);
	unlink(path);
	free(path);
}

static void test_commands_and_events_and_the_stream_pass(void **state)
{
	char *path = write_script("read -r -u $C line; echo \"{\\\"event\\\":\\\"got\\\"}\" >&$C\n"
				  "[ \"$line\" = '{\"cmd\":\"stopped\"}' ] || exit 3\n"
				  "read -r -u $S line; [ \"$line\" = state ] || exit 4\n"
				  "echo \"{\\\"event\\\":\\\"last\\\"}\" >&$C; exit 0");
	struct seen seen = { 0 };
	int stream;
	struct umemd *umemd = start(path, &seen, &stream);

	(void)state;
	umemd_tell(umemd, json_pack("{s:s}", "cmd", "stopped"));
	assert_int_equal(write(stream, "state\n", 6), 6);
	close(stream);
	reap(umemd);
	assert_string_equal(seen.gone, "exited with status 0");
	assert_string_equal(seen.events, "got last ");
	unlink(path);
	free(path);
}

static void test_descriptor_of_the_uri_is_given_away(void **state)
{
	char *path = write_script("echo \"${4#--uri=}\" >&${4#--uri=fd:}");
	struct hmp_command command = { 0 };
	struct umemd_setup setup = { .path = path, .role = MIGRATION_SOURCE, .command = &command };
	char uri[16], text[16] = "", *error = NULL;
	struct seen seen = { 0 };
	struct umemd *umemd;
	int pair[2], stream;

	(void)state;
	assert_int_equal(pipe(pair), 0);
	sprintf(uri, "fd:%d", pair[1]);
	setup.uri = uri;
	umemd = umemd_start(&setup, &ops, &seen, &stream, &error);
	assert_non_null(umemd);
	assert_int_equal(fcntl(pair[1], F_GETFD), -1);
	assert_true(read(pair[0], text, sizeof(text) - 1) > 0);
	assert_memory_equal(text, uri, strlen(uri));
	assert_int_equal(read(pair[0], text, 1), 0);
	close(pair[0]);
	close(stream);
	reap(umemd);
	unlink(path);
	free(path);
}

static void test_descriptor_that_is_not_to_be_had_is_told(void **state)
{
	struct umemd_setup setup = { .path = "/bin/true", .role = MIGRATION_DESTINATION };
	char uri[16], *error = NULL;
	int own = open("/dev/null", O_RDWR | O_CLOEXEC), stream;

	(void)state;
	setup.uri = "fd:999";
	assert_null(umemd_start(&setup, &ops, NULL, &stream, &error));
	assert_non_null(strstr(error, "descriptor 999 is not open, wanted one that umem-qemu inherited"));
	free(error);
	setup.uri = "fd:2";
	assert_null(umemd_start(&setup, &ops, NULL, &stream, &error));
	assert_non_null(strstr(error, "descriptor 2 is a standard one"));
	free(error);
	sprintf(uri, "fd:%d", own);
	setup.uri = uri;
	assert_null(umemd_start(&setup, &ops, NULL, &stream, &error));
	assert_non_null(strstr(error, "umem-qemu's own"));
	free(error);
	assert_true(fcntl(own, F_GETFD) >= 0);
	close(own);
}

static void test_dismissed_one_that_does_not_end_is_killed(void **state)
{
	char *path = write_script("exec sleep 60");
	struct seen seen = { 0 };
	int stream;
	struct umemd *umemd = start(path, &seen, &stream);
	uint64_t before = now_ns();

	(void)state;
	close(stream);
	umemd_dismiss(umemd);
	while (now_ns() - before < 2900 * NSEC_PER_MSEC)
		usleep(50000);
	assert_int_equal(waitpid(umemd_pid(umemd), NULL, WNOHANG), 0);
	loop_once();
	reap(umemd);
	assert_string_equal(seen.gone, "was killed by signal 9 (Killed)!");
	unlink(path);
	free(path);
}

/* What a process gets that wants a priority of -15: not everybody may have it. */
static int best_priority(void)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		setpriority(PRIO_PROCESS, 0, -15);
		_exit(getpriority(PRIO_PROCESS, 0) + 20);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WEXITSTATUS(status) - 20;
}

static void test_it_goes_before_others_once_the_guest_waits(void **state)
{
	char *path = write_script("sleep 60 & echo \"{\\\"event\\\":\\\"$!\\\"}\" >&$C; wait");
	struct hmp_command command = { .precopy = true };
	struct umemd_setup setup = {
		.path = path, .role = MIGRATION_SOURCE, .uri = "tcp:h:1", .command = &command,
	};
	int best = best_priority(), stream;
	struct seen seen = { 0 };
	struct umemd *umemd;
	char *error = NULL;
	id_t child;

	(void)state;
	umemd = umemd_start(&setup, &ops, &seen, &stream, &error);
	assert_non_null(umemd);
	while (!*seen.events)
		loop_once();
	child = (id_t)atoi(seen.events);
	assert_int_equal(getpriority(PRIO_PROCESS, (id_t)umemd_pid(umemd)),
			 getpriority(PRIO_PROCESS, 0));
	umemd_hurry(umemd);
	assert_int_equal(getpriority(PRIO_PROCESS, (id_t)umemd_pid(umemd)), best);
	assert_int_equal(getpriority(PRIO_PROCESS, child), best);
	kill(-umemd_pid(umemd), SIGKILL);
	close(stream);
	reap(umemd);

	command.precopy = false;
	umemd = umemd_start(&setup, &ops, &seen, &stream, &error);
	assert_non_null(umemd);
	assert_int_equal(getpriority(PRIO_PROCESS, (id_t)umemd_pid(umemd)), best);
	kill(-umemd_pid(umemd), SIGKILL);
	close(stream);
	reap(umemd);
	unlink(path);
	free(path);
}

static void test_program_that_is_none_is_told(void **state)
{
	struct umemd_setup setup = { .path = "/dev/null", .role = MIGRATION_DESTINATION, .uri = "tcp:0:1" };
	char *error = NULL;
	int stream;

	(void)state;
	assert_null(umemd_start(&setup, &ops, NULL, &stream, &error));
	assert_non_null(strstr(error, "/dev/null"));
	assert_non_null(strstr(error, "Permission denied"));
	free(error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_source_gets_regions_prefault_and_push),
		cmocka_unit_test(test_destination_gets_regions_and_touch),
		cmocka_unit_test(test_one_that_goes_on_gets_a_session_and_no_device_state),
		cmocka_unit_test(test_both_get_their_part_of_tls),
		cmocka_unit_test(test_commands_and_events_and_the_stream_pass),
		cmocka_unit_test(test_session_is_read_to_its_end),
		cmocka_unit_test(test_descriptor_of_the_uri_is_given_away),
		cmocka_unit_test(test_descriptor_that_is_not_to_be_had_is_told),
		cmocka_unit_test(test_dismissed_one_that_does_not_end_is_killed),
		cmocka_unit_test(test_it_goes_before_others_once_the_guest_waits),
		cmocka_unit_test(test_program_that_is_none_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
