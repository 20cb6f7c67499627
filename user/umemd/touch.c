// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/touch.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "umemd/codec.h"

int touch_parse(const char *text, struct touch_line *line)
{
	unsigned int major, minor;

	if (sscanf(text, "%" SCNx64 "-%" SCNx64 " %*4s %" SCNx64 " %x:%x %" SCNu64, &line->start,
		   &line->end, &line->offset, &major, &minor, &line->inode) != 6 ||
	    line->end <= line->start)
		return -EINVAL;
	line->device = makedev(major, minor);
	return 0;
}

static void add_maps(struct touch *touch, pid_t pid, const struct stat *regions,
		     uint32_t nr_regions)
{
	char path[64], *text = NULL;
	struct touch_line line;
	size_t size = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return;
	while (touch->nr_maps < TOUCH_MAPS_MAX && getline(&text, &size, file) > 0) {
		if (touch_parse(text, &line))
			continue;
		for (uint32_t i = 0; i < nr_regions; i++) {
			if (line.inode != regions[i].st_ino || line.device != regions[i].st_dev)
				continue;
			touch->maps[touch->nr_maps++] = (struct touch_map){
				.pid = pid,
				.region = i,
				.start = line.start,
				.length = line.end - line.start,
				.offset = line.offset,
			};
			break;
		}
	}
	free(text);
	fclose(file);
}

/* The children of one thread; they are those of the whole process together. */
static void add_children(struct touch *touch, pid_t parent, const char *thread,
			 const struct stat *regions, uint32_t nr_regions)
{
	char path[300];
	FILE *file;
	int pid;

	snprintf(path, sizeof(path), "/proc/%d/task/%s/children", (int)parent, thread);
	file = fopen(path, "re");
	if (!file)
		return;
	while (fscanf(file, "%d", &pid) == 1) {
		if (pid != getpid())
			add_maps(touch, pid, regions, nr_regions);
	}
	fclose(file);
}

int touch_find(struct touch *touch, pid_t parent, const int *fds, uint32_t nr_regions)
{
	struct stat regions[REGIONS_MAX];
	struct dirent *entry;
	char path[64];
	DIR *threads;

	touch->nr_maps = 0;
	for (uint32_t i = 0; i < nr_regions; i++) {
		if (fstat(fds[i], &regions[i]))
			return -errno;
	}
	snprintf(path, sizeof(path), "/proc/%d/task", (int)parent);
	threads = opendir(path);
	if (!threads)
		return -errno;
	while ((entry = readdir(threads))) {
		if (entry->d_name[0] != '.')
			add_children(touch, parent, entry->d_name, regions, nr_regions);
	}
	closedir(threads);
	return touch->nr_maps ? 0 : -ENOENT;
}

static int touch_map(struct touch *touch, const struct touch_map *map, const uint64_t *pages,
		     uint32_t count)
{
	struct iovec there[TOUCH_PAGES_MAX];
	uint8_t bytes[TOUCH_PAGES_MAX];
	struct iovec here = { bytes, 0 };
	ssize_t n;

	for (uint32_t i = 0; i < count; i++) {
		uint64_t offset = pages[i] * PAGE_BYTES;

		if (offset < map->offset || offset - map->offset >= map->length)
			continue;
		there[here.iov_len++] = (struct iovec){
			(void *)(uintptr_t)(map->start + (offset - map->offset)), 1,
		};
	}
	if (!here.iov_len)
		return 0;
	n = process_vm_readv(map->pid, &here, 1, there, here.iov_len, 0);
	if (n < 0)
		return -errno;
	touch->touched += (uint64_t)n;
	return 0;
}

int touch_pages(struct touch *touch, uint32_t region, const uint64_t *pages, uint32_t count)
{
	for (uint32_t i = 0; i < touch->nr_maps; i++) {
		int err;

		if (touch->maps[i].region != region)
			continue;
		err = touch_map(touch, &touch->maps[i], pages, count);
		if (err)
			return err;
	}
	return 0;
}
