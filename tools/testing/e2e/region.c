// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Another process than QEMU that maps a guest's memory, as a vhost-user back end
 * would: of the first region that process PID has open
 *
 *   region info PID
 *		prints the name of each that it has open, and how many of its pages are
 *		missing and how many poisoned
 *   region show PID [FIRST COUNT]
 *		prints the XXH3 of each page, or of COUNT pages from FIRST on, a line each
 *   region fill PID
 *		writes noise to all pages
 *   region touch PID MS
 *		says "ready", and once it is given a line reads pages at random for MS
 *		milliseconds, in four threads that rest a little after each page that
 *		they had to wait for
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <linux/umem.h>
#include <xxhash.h>

#define USAGE	\
	"usage: region info PID, region show PID [FIRST COUNT], region fill PID or " \
	"region touch PID MS"
#define FOLDER_MAX	64
#define TOUCHERS	4
#define REST_US		2000
#define WAITED_NS	100000	/* no page that is there takes that long */

struct region {
	char *memory;
	size_t length;
	uint64_t end_ns;	/* of touching */
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Touches every page once; one that is missing is waited for. */
static void show(const struct region *region, size_t first, size_t count)
{
	size_t pages = region->length / UMEM_PAGE_SIZE;

	if (!count || first >= pages || count > pages - first)
		errx(1, "%zu pages from %zu on are not in a region of %zu", count, first, pages);
	for (size_t page = first; page < first + count; page++)
		printf("%016" PRIx64 "\n",
		       (uint64_t)XXH3_64bits(region->memory + page * UMEM_PAGE_SIZE,
					     UMEM_PAGE_SIZE));
}

static void fill(struct region *region)
{
	uint64_t *words = (uint64_t *)region->memory, state = 1;

	for (size_t i = 0; i < region->length / sizeof(*words); i++)
		words[i] = next_random(&state);
}

static void *touch_pages(void *argument)
{
	struct region *region = argument;
	uint64_t state = (uintptr_t)&state, before = now_ns(), after;

	while (before < region->end_ns) {
		size_t page = next_random(&state) % (region->length / UMEM_PAGE_SIZE);

		before = now_ns();
		*(volatile char *)(region->memory + page * UMEM_PAGE_SIZE);
		after = now_ns();
		if (after - before > WAITED_NS)
			usleep(REST_US);
	}
	return NULL;
}

static void touch(struct region *region, uint64_t ms)
{
	pthread_t threads[TOUCHERS];

	puts("ready");
	fflush(stdout);
	getchar();
	region->end_ns = now_ns() + ms * 1000000;
	for (int i = 0; i < TOUCHERS; i++) {
		if (pthread_create(&threads[i], NULL, touch_pages, region))
			errx(1, "no thread");
	}
	for (int i = 0; i < TOUCHERS; i++)
		pthread_join(threads[i], NULL);
}

static struct region map_region(int fd)
{
	off_t length = lseek(fd, 0, SEEK_END);
	struct region region = { .length = (size_t)length };

	if (length <= 0)
		err(1, "length of the region");
	region.memory = mmap(NULL, region.length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (region.memory == MAP_FAILED)
		err(1, "mmap of the region");
	return region;
}

/* The next region that the process of the folder has open; -1: there is none. */
static int next_region(DIR *dir, const char *folder)
{
	char path[400], target[64];
	struct dirent *entry;
	ssize_t n;
	int fd;

	while ((entry = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		n = readlink(path, target, sizeof(target) - 1);
		if (n < 6 || strncmp(target, "/umem:", 6))
			continue;
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			err(1, "%s", path);
		return fd;
	}
	return -1;
}

static void print_info(int fd)
{
	struct umem_info info = { .size = sizeof(info) };

	if (ioctl(fd, UMEM_INFO, &info))
		err(1, "UMEM_INFO");
	printf("%s missing=%llu poisoned=%llu\n", info.name, info.missing / UMEM_PAGE_SIZE,
	       info.poisoned / UMEM_PAGE_SIZE);
}

static DIR *open_folder(const char *pid, char folder[static FOLDER_MAX])
{
	DIR *dir;

	snprintf(folder, FOLDER_MAX, "/proc/%s/fd", pid);
	dir = opendir(folder);
	if (!dir)
		err(1, "%s", folder);
	return dir;
}

static int open_region_of(const char *pid)
{
	char folder[FOLDER_MAX];
	DIR *dir = open_folder(pid, folder);
	int fd = next_region(dir, folder);

	closedir(dir);
	if (fd < 0)
		errx(1, "process %s has no region open", pid);
	return fd;
}

static int print_infos(const char *pid)
{
	char folder[FOLDER_MAX];
	DIR *dir = open_folder(pid, folder);
	int fd;

	while ((fd = next_region(dir, folder)) >= 0) {
		print_info(fd);
		close(fd);
	}
	closedir(dir);
	return 0;
}

int main(int argc, char **argv)
{
	const char *verb = argv[1];
	struct region region;

	if (argc < 3)
		errx(2, USAGE);
	if (!strcmp(verb, "info") && argc == 3)
		return print_infos(argv[2]);
	region = map_region(open_region_of(argv[2]));
	if (!strcmp(verb, "show") && argc == 3)
		show(&region, 0, region.length / UMEM_PAGE_SIZE);
	else if (!strcmp(verb, "show") && argc == 5)
		show(&region, strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
	else if (!strcmp(verb, "fill") && argc == 3)
		fill(&region);
	else if (!strcmp(verb, "touch") && argc == 4)
		touch(&region, strtoull(argv[3], NULL, 10));
	else
		errx(2, USAGE);
	return 0;
}
