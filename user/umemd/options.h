/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef UMEMD_OPTIONS_H
#define UMEMD_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/uri.h"
#include "umemd/codec.h"
#include "umemd/credentials.h"
#include "umemd/scheduler.h"
#include "umemd/session.h"

#define OPTIONS_ERROR_MAX	(URI_ERROR_MAX + 256)
#define PREFAULT_MAX		(1ULL << 32)

struct options {
	enum session_role role;
	int control_fd;
	int state_fd;
	int resume_fd;		/* what an earlier umemd knew of the session; -1: a new one */
	int listen_fd;		/* destination: listens already; -1: nobody does */
	struct uri uri;
	char uri_text[URI_TEXT_MAX];
	struct credentials_setup tls;	/* its strings are those of the command line */

	struct hello_region regions[REGIONS_MAX];
	int region_fds[REGIONS_MAX];
	uint32_t nr_regions;

	struct scheduler_policy policy;
	uint64_t max_bulk_bandwidth;	/* bytes a second; 0: no limit */
	bool precopy;
	bool checksum;
	bool compress;
	bool preallocate;
	bool touch;
	unsigned int connect_timeout;	/* seconds */
	bool verbose;
};

enum options_result {
	OPTIONS_RUN,
	OPTIONS_HELP,
	OPTIONS_VERSION,
	OPTIONS_WRONG,
};

/**
 * options_parse - the command line
 * @error: OPTIONS_ERROR_MAX bytes, on OPTIONS_WRONG a sentence
 */
enum options_result options_parse(struct options *options, int argc, char **argv, char *error);

extern const char options_help[];

#endif
