// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/text.h"
#include "umem-qemu/adopt.h"
#include "umem-qemu/host.h"
#include "umem-qemu/options.h"
#include "umem-qemu/supervisor.h"

/* "-cpu help" and the like: nothing for us to add. */
static int become_qemu(const struct options *options, const struct host *host)
{
	char **argv = options_qemu_argv(options, host->qemu, host->region_fds, -1,
					false);

	execv(host->qemu, argv);
	log_error("%s cannot be started: %s", host->qemu, strerror(errno));
	options_free_argv(argv);
	return 1;
}

static int run(const struct options *options)
{
	struct host host = { 0 };
	char *error = NULL;
	int status = 1;

	if (options->lists ? host_find_qemu(&host, options, &error) :
	    host_prepare(&host, options, &error))
		log_error("%s", error);
	else if (options->lists)
		status = become_qemu(options, &host);
	else
		status = supervisor_run(options, &host, NULL);
	free(error);
	host_destroy(&host);
	return status;
}

static int adopt(struct options *options)
{
	struct host host = { 0 };
	struct adoption adoption;
	char *error = NULL;
	int status = 1;

	if (adopt_find(&adoption, options, &host, &error))
		log_error("--adopt %s: %s", options->adopt, error);
	else
		status = supervisor_run(options, &host, &adoption);
	free(error);
	adopt_destroy(&adoption);
	host_destroy(&host);
	return status;
}

int main(int argc, char **argv)
{
	struct options options;
	char *error;
	int status = 0;

	log_init("umem-qemu", LOG_LEVEL_INFO);
	if (options_parse(&options, argc, argv, &error)) {
		log_error("%s", error);
		free(error);
		status = 1;
	} else if (options.help) {
		fputs(options_help(), stdout);
	} else if (options.version) {
		puts("umem-qemu " UMEM_VERSION);
	} else {
		status = options.adopt ? adopt(&options) : run(&options);
	}
	options_destroy(&options);
	return status;
}
