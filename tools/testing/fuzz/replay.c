// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * replay TARGET FILE...: gives each file to a target once, and says in TAP that nothing
 * came of it. For compilers without a fuzzer of their own.
 */
#include "fuzz.h"

static void replay(const char *path)
{
	FILE *file = fopen(path, "rb");
	uint8_t *data = malloc(1 << 20);
	size_t size;

	must(data);
	if (!file) {
		perror(path);
		exit(2);
	}
	size = fread(data, 1, 1 << 20, file);
	fclose(file);
	data = realloc(data, size ? size : 1);	/* what reads beyond is found */
	LLVMFuzzerTestOneInput(data, size);
	free(data);
}

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: %s TARGET FILE...\n", argv[0]);
		return 2;
	}
	LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 2; i < argc; i++) {
		/* To be read if this is the one that ends it all. */
		fprintf(stderr, "%s\n", argv[i]);
		replay(argv[i]);
	}
	printf("ok - fuzz_%s: %d files of the corpus\n", argv[1], argc - 2);
	return 0;
}
