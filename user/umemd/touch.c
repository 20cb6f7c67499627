// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/touch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
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

/* A piece of a region that is mapped in a process. */
static void add_map(struct touch *touch, int memory, uint32_t region,
		    const struct touch_line *line)
{
	touch->maps[touch->nr_maps++] = (struct touch_map){
		.memory = memory,
		.region = region,
		.start = line->start,
		.length = line->end - line->start,
		.offset = line->offset,
	};
}

/* Which region a line is about; @nr_regions if about none. */
static uint32_t region_of(const struct touch_line *line, const struct stat *regions,
			  uint32_t nr_regions)
{
	uint32_t i = 0;

	while (i < nr_regions && (line->inode != regions[i].st_ino ||
				  line->device != regions[i].st_dev))
		i++;
	return i;
}

static FILE *open_maps(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	return fopen(path, "re");
}

static int open_memory(pid_t pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int add_maps(struct touch *touch, pid_t pid, const struct stat *regions,
		    uint32_t nr_regions)
{
	FILE *file = open_maps(pid);
	int memory = -1, err = 0;
	struct touch_line line;
	char *text = NULL;
	size_t size = 0;

	while (file && !err && touch->nr_maps < TOUCH_MAPS_MAX && getline(&text, &size, file) > 0) {
		uint32_t region = nr_regions;

		if (!touch_parse(text, &line))
			region = region_of(&line, regions, nr_regions);
		if (region == nr_regions)
			continue;
		if (memory < 0) {
			memory = touch->nr_processes < TOUCH_PROCESSES_MAX ? open_memory(pid) :
									      -EMFILE;
			if (memory >= 0)
				touch->processes[touch->nr_processes++] = memory;
		}
		if (memory < 0)
			err = memory;
		else
			add_map(touch, memory, region, &line);
	}
	free(text);
	if (file)
		fclose(file);
	return err;
}

/* The children of one thread; they are those of the whole process together. */
static int add_children(struct touch *touch, pid_t parent, const char *thread,
			const struct stat *regions, uint32_t nr_regions)
{
	int pid, err = 0;
	char path[300];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%s/children", (int)parent, thread);
	file = fopen(path, "re");
	if (!file)
		return 0;
	while (!err && fscanf(file, "%d", &pid) == 1)
		err = add_maps(touch, pid, regions, nr_regions);
	fclose(file);
	return err;
}

int touch_find(struct touch *touch, pid_t parent, const int *fds, uint32_t nr_regions)
{
	struct stat regions[REGIONS_MAX];
	struct dirent *entry;
	char path[64];
	DIR *threads;
	int err = 0;

	touch->nr_maps = touch->nr_processes = 0;
	for (uint32_t i = 0; i < nr_regions; i++) {
		if (fstat(fds[i], &regions[i]))
			return -errno;
	}
	snprintf(path, sizeof(path), "/proc/%d/task", (int)parent);
	threads = opendir(path);
	if (!threads)
		return -errno;
	while (!err && (entry = readdir(threads))) {
		if (entry->d_name[0] != '.')
			err = add_children(touch, parent, entry->d_name, regions, nr_regions);
	}
	closedir(threads);
	return err || touch->nr_maps ? err : -ENOENT;
}

static int touch_page(struct touch *touch, const struct touch_map *map, uint64_t offset)
{
	uint8_t byte;
	ssize_t n;

	if (offset < map->offset || offset - map->offset >= map->length)
		return 0;
	n = pread(map->memory, &byte, 1, (off_t)(map->start + (offset - map->offset)));
	if (n < 0)
		return -errno;
	touch->touched += (uint64_t)n;
	return n ? 0 : -ESRCH;
}

int touch_pages(struct touch *touch, uint32_t region, const uint64_t *pages, uint32_t count)
{
	for (uint32_t i = 0; i < touch->nr_maps; i++) {
		if (touch->maps[i].region != region)
			continue;
		for (uint32_t k = 0; k < count; k++) {
			int err = touch_page(touch, &touch->maps[i], pages[k] * PAGE_BYTES);

			if (err)
				return err;
		}
	}
	return 0;
}
