// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/tests/holdings.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/util.h"

#define KIB_A_PAGE	4
#define LAZY_SLACK	6	/* 6.12 keeps more; and that is less than one a region */
#define SYSFS_LONGEST	4095	/* of an attribute, without the NUL that comes after it */
#define DROPS		3	/* what was used lately stays the first time */

static int write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

/*
 * A cache counts as in use what is free on a slab that a CPU allocates from, until it is
 * shrunk. The files to do that with stay open: to open them fills the caches.
 */
static int open_shrinkers(int *shrinkers, size_t *nr)
{
	static const char folder[] = "/sys/kernel/slab";
	struct dirent *entry;
	char path[320];
	DIR *dir = opendir(folder);

	if (!dir)
		return -errno;
	while (*nr < HOLDINGS_MAX && (entry = readdir(dir))) {
		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;	/* links are other names of the same */
		snprintf(path, sizeof(path), "%s/%s/shrink", folder, entry->d_name);
		shrinkers[*nr] = open(path, O_WRONLY | O_CLOEXEC);
		if (shrinkers[*nr] >= 0)
			++*nr;
	}
	closedir(dir);
	return 0;
}

/*
 * sysfs copies what is written into memory of these caches: a 1 alone makes a whole slab of
 * kmalloc-8 one that a CPU allocates from, 512 objects. One of a page has 8.
 */
static int shrink_slabs(void)
{
	static const char text[SYSFS_LONGEST] = "1";
	static int shrinkers[HOLDINGS_MAX];
	static size_t nr;
	int err = nr ? 0 : open_shrinkers(shrinkers, &nr);

	for (size_t i = 0; !err && i < nr; i++) {
		if (write(shrinkers[i], text, sizeof(text)) < 0)
			err = -errno;
	}
	return err;
}

static void add(struct holdings *holdings, const char *name, long count, bool exact)
{
	if (holdings->nr == HOLDINGS_MAX)
		return;
	snprintf(holdings->list[holdings->nr].name, sizeof(holdings->list[0].name), "%s", name);
	holdings->list[holdings->nr].count = count;
	holdings->list[holdings->nr++].exact = exact;
}

/* Calls @take with each line of the file. */
static int each_line(struct holdings *holdings, const char *path,
		     void (*take)(struct holdings *holdings, const char *line))
{
	FILE *file = fopen(path, "re");
	char line[512];

	if (!file)
		return -errno;
	while (fgets(line, sizeof(line), file))
		take(holdings, line);
	fclose(file);
	return 0;
}

static void take_slab(struct holdings *holdings, const char *line)
{
	char name[32];
	long objects;

	/* A kernel with DEBUG_OBJECTS keeps what it knew of objects that are gone. */
	if (sscanf(line, "%31s %ld", name, &objects) == 2 && strcmp(name, "debug_objects_cache"))
		add(holdings, name, objects, false);
}

static void take_memory(struct holdings *holdings, const char *line)
{
	long kib;

	if (sscanf(line, "PageTables: %ld", &kib) == 1)
		add(holdings, "page tables", kib / KIB_A_PAGE, false);
	else if (sscanf(line, "Shmem: %ld", &kib) == 1)
		add(holdings, "shared memory", kib / KIB_A_PAGE, false);
}

static void take_tasks(struct holdings *holdings, const char *line)
{
	long tasks;

	if (sscanf(line, "%*s %*s %*s %*d/%ld", &tasks) == 1)
		add(holdings, "tasks", tasks, false);
}

static void take_threads(struct holdings *holdings, const char *line)
{
	long threads;

	if (sscanf(line, "Threads: %ld", &threads) == 1)
		add(holdings, "threads of this process", threads, true);
}

static void take_references(struct holdings *holdings, const char *line)
{
	long references;

	if (sscanf(line, "%ld", &references) == 1)
		add(holdings, "references to the module", references, true);
}

static int take_descriptors(struct holdings *holdings)
{
	DIR *dir = opendir("/proc/self/fd");
	long count = 0;

	if (!dir)
		return -errno;
	while (readdir(dir))
		count++;
	closedir(dir);
	add(holdings, "descriptors of this process", count, true);
	return 0;
}

int holdings_take(struct holdings *holdings)
{
	static const struct {
		const char *path;
		void (*take)(struct holdings *holdings, const char *line);
	} files[] = {
		{ "/proc/slabinfo", take_slab },
		{ "/proc/meminfo", take_memory },
		{ "/proc/loadavg", take_tasks },
		{ "/proc/self/status", take_threads },
		{ "/sys/module/umem/refcnt", take_references },
	};
	int err = 0;

	holdings->nr = 0;
	for (int i = 0; !err && i < DROPS; i++)
		err = write_to("/proc/sys/vm/drop_caches", "3");
	if (!err)
		err = shrink_slabs();
	for (size_t i = 0; !err && i < ARRAY_SIZE(files); i++)
		err = each_line(holdings, files[i].path, files[i].take);
	return err ? err : take_descriptors(holdings);
}

/* What was not there before was none. */
static long count_of(const struct holdings *holdings, const char *name)
{
	for (size_t i = 0; i < holdings->nr; i++) {
		if (!strcmp(holdings->list[i].name, name))
			return holdings->list[i].count;
	}
	return 0;
}

/* What the kernel frees when it likes, and other programs have it make. */
static bool is_lazy(const char *name)
{
	static const char *const lazy[] = {
		"dentry", "proc_inode_cache", "lsm_inode_cache", "vmap_area",
	};

	for (size_t i = 0; i < ARRAY_SIZE(lazy); i++) {
		if (!strcmp(name, lazy[i]))
			return true;
	}
	return false;
}

static long slack_of(const struct holdings *holdings, size_t i, long slack)
{
	if (holdings->list[i].exact)
		return 0;
	return is_lazy(holdings->list[i].name) ? LAZY_SLACK * slack : slack;
}

unsigned int holdings_grown(const struct holdings *before, const struct holdings *after,
			    long slack, void (*tell)(const char *name, long before, long after))
{
	unsigned int grown = 0;

	for (size_t i = 0; i < after->nr; i++) {
		long was = count_of(before, after->list[i].name), is = after->list[i].count;

		if (is - was <= slack_of(after, i, slack))
			continue;
		grown++;
		tell(after->list[i].name, was, is);
	}
	return grown;
}
