// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Another process than QEMU that maps a guest's memory, as a vhost-user back end
 * would. usage: region PID [FIRST COUNT] prints the XXH3 of each page, or of COUNT
 * pages from FIRST on, a line each, of the first region that process PID has open.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/umem.h>
#include <xxhash.h>

#define PAGE	((off_t)UMEM_PAGE_SIZE)

struct range {
	off_t first, count;	/* pages; a count of 0: all */
};

/* Touches every page once; one that is missing is waited for. */
static void show_pages(int fd, const struct range *range)
{
	off_t length = lseek(fd, 0, SEEK_END);
	off_t start = range->first * PAGE;
	off_t end = range->count ? start + range->count * PAGE : length;
	const char *memory;

	if (length <= 0)
		err(1, "length of the region");
	if (start < 0 || end <= start || end > length)
		errx(1, "pages %lld and %lld more are not in a region of %lld",
		     (long long)range->first, (long long)range->count,
		     (long long)(length / PAGE));
	memory = mmap(NULL, (size_t)length, PROT_READ, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		err(1, "mmap of the region");
	for (off_t offset = start; offset < end; offset += PAGE)
		printf("%016" PRIx64 "\n",
		       (uint64_t)XXH3_64bits(memory + offset, PAGE));
}

static bool show_region_of(const char *pid, const struct range *range)
{
	char folder[64], path[400], target[64];
	struct dirent *entry;
	bool found = false;
	ssize_t n;
	DIR *dir;
	int fd;

	snprintf(folder, sizeof(folder), "/proc/%s/fd", pid);
	dir = opendir(folder);
	if (!dir)
		err(1, "%s", folder);
	while (!found && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		n = readlink(path, target, sizeof(target) - 1);
		if (n < 6 || strncmp(target, "/umem:", 6))
			continue;
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			err(1, "%s", path);
		show_pages(fd, range);
		close(fd);
		found = true;
	}
	closedir(dir);
	return found;
}

int main(int argc, char **argv)
{
	struct range range = { 0 };

	if (argc != 2 && argc != 4)
		errx(2, "usage: region PID [FIRST COUNT]");
	if (argc == 4) {
		range.first = atoll(argv[2]);
		range.count = atoll(argv[3]);
	}
	if (!show_region_of(argv[1], &range))
		errx(1, "process %s has no region open", argv[1]);
	return 0;
}
