// SPDX-License-Identifier: GPL-2.0-or-later
#include <gnutls/gnutls.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "umemd/destination.h"
#include "umemd/options.h"
#include "umemd/sandbox.h"
#include "umemd/source.h"

/* What only TLS needs is for credentials_load(), not for each start. */
GNUTLS_SKIP_GLOBAL_INIT

static int close_others(const struct options *options)
{
	int keep[REGIONS_MAX + 5];
	size_t nr = 0;

	for (uint32_t i = 0; i < options->nr_regions; i++)
		keep[nr++] = options->region_fds[i];
	keep[nr++] = options->control_fd;
	keep[nr++] = options->state_fd;
	keep[nr++] = options->resume_fd;
	keep[nr++] = options->listen_fd;
	if (options->uri.kind == URI_FD)
		keep[nr++] = options->uri.fd;
	return sandbox_close_others(keep, nr);
}

int main(int argc, char **argv)
{
	static struct options options;
	char error[OPTIONS_ERROR_MAX];
	int err;

	log_init("umemd", LOG_LEVEL_INFO);
	switch (options_parse(&options, argc, argv, error)) {
	case OPTIONS_HELP:
		fputs(options_help, stdout);
		return 0;
	case OPTIONS_VERSION:
		printf("umemd %s, protocol %d to %d\n", UMEM_VERSION, PROTOCOL_MIN_VERSION,
		       PROTOCOL_VERSION);
		return 0;
	case OPTIONS_WRONG:
		log_error("%s", error);
		return 2;
	case OPTIONS_RUN:
		break;
	}
	signal(SIGPIPE, SIG_IGN);
	err = close_others(&options);
	if (err) {
		log_error("cannot close descriptors that are not in the options: %s", strerror(-err));
		return 1;
	}
	/* ^C at a terminal is for the launcher, which decides what it means. */
	signal(SIGINT, SIG_IGN);

	if (options.role == ROLE_SOURCE) {
		log_init("umemd source", options.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
		return source_run(&options);
	}
	log_init("umemd destination", options.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
	return destination_run(&options);
}
