// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Another process than QEMU that maps a guest's memory, as a vhost-user back end
 * would. usage: region PID prints the XXH3 of each page, a line each, of the first
 * region that process PID has open.
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

/* Touches every page once; one that is missing is waited for. */
static void show_pages(int fd)
{
	off_t length = lseek(fd, 0, SEEK_END);
	const char *memory;

	if (length <= 0)
		err(1, "length of the region");
	memory = mmap(NULL, (size_t)length, PROT_READ, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		err(1, "mmap of the region");
	for (off_t offset = 0; offset < length; offset += UMEM_PAGE_SIZE)
		printf("%016" PRIx64 "\n",
		       (uint64_t)XXH3_64bits(memory + offset, UMEM_PAGE_SIZE));
}

static bool show_region_of(const char *pid)
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
		show_pages(fd);
		close(fd);
		found = true;
	}
	closedir(dir);
	return found;
}

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(2, "usage: region PID");
	if (!show_region_of(argv[1]))
		errx(1, "process %s has no region open", argv[1]);
	return 0;
}
