// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/text.h"

/*
 * The guest waits for umemd, and its vCPUs use what time they get: on a busy host pages came half
 * as fast and faults lasted twice as long without this, and umem-qemu's steps to where the guest
 * is stopped took 0.75 s, with it 0.38 (one CPU, one busy vCPU).
 */
#define HURRY_NICE	(-15)

/* What children have that are in no hurry, once we are. */
static int usual_nice;
static bool hurried;

void child_hurry(pid_t pid)
{
	if (!pid && !hurried)
		usual_nice = getpriority(PRIO_PROCESS, 0);
	hurried = hurried || !pid;
	setpriority(pid ? PRIO_PGRP : PRIO_PROCESS, (id_t)pid, HURRY_NICE);
}

static int take_null(int fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	return null < 0 || dup2(null, fd) < 0 ? -1 : 0;
}

static int prepare(const struct child_setup *setup)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (setup->own_session)
		setsid();
	if (setup->hurry)
		child_hurry(0);
	else if (hurried)
		setpriority(PRIO_PROCESS, 0, usual_nice);
	if ((setup->no_input && take_null(STDIN_FILENO)) ||
	    (setup->no_output && take_null(STDOUT_FILENO)))
		return -1;
	for (size_t i = 0; i < setup->nr_fds; i++) {
		if (fcntl(setup->fds[i], F_SETFD, 0))
			return -1;
	}
	return 0;
}

/* Runs in the new process; what goes wrong is told through @report. */
static void __attribute__((noreturn)) become(const struct child_setup *setup, int report)
{
	int err;

	if (!prepare(setup))
		execv(setup->path, setup->argv);
	err = errno;
	if (write(report, &err, sizeof(err)) < 0)
		_exit(126);
	_exit(127);
}

pid_t child_start(const struct child_setup *setup)
{
	int report[2], err = 0;
	ssize_t n;
	pid_t pid;

	if (pipe2(report, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid < 0) {
		err = errno;
		close(report[0]);
		close(report[1]);
		return -err;
	}
	if (!pid)
		become(setup, report[1]);

	close(report[1]);
	do {
		n = read(report[0], &err, sizeof(err));
	} while (n < 0 && errno == EINTR);
	close(report[0]);
	if (n <= 0)
		return pid;
	child_wait(pid);
	return -err;
}

int child_wait(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

char *child_ended(int status)
{
	if (WIFEXITED(status))
		return text_format("exited with status %d", WEXITSTATUS(status));
	return text_format("was killed by signal %d (%s)", WTERMSIG(status),
			   strsignal(WTERMSIG(status)));
}

int child_exit_status(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool is_program(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode) && !access(path, X_OK);
}

char *child_find(const char *name)
{
	const char *path = getenv("PATH");
	char *folders, *folder, *rest, *found = NULL;

	if (strchr(name, '/'))
		return is_program(name) ? text_copy(name) : NULL;
	folders = text_copy(path ? path : "/usr/local/bin:/usr/bin:/bin");
	rest = folders;
	while (!found && (folder = strsep(&rest, ":"))) {
		found = text_format("%s/%s", *folder ? folder : ".", name);
		if (!is_program(found)) {
			free(found);
			found = NULL;
		}
	}
	free(folders);
	return found;
}
