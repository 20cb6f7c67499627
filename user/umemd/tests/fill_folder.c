// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Credentials for tests: a CA that nobody else has, and the same in each folder.
 *
 *	fill_folder HOST FOLDER...
 */
#include <stdio.h>

#include "umemd/tests/folder.h"

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: fill_folder HOST FOLDER...\n");
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		folder_fill(argv[i], &(struct folder_setup){ .host = argv[1] });
		folder_keys(argv[i], NULL);
	}
	return 0;
}
