// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/tracker.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/util.h"
#include "libumem.h"

static int start(struct tracker *tracker, const char *name, uint64_t length, int fd, char *error)
{
	int pager, err = umem_attach(fd, 0, &pager);

	if (err) {
		snprintf(error, CODEC_ERROR_MAX, "region \"%s\": cannot become its pager through descriptor %d to track what the guest writes: %s",
			 name, fd, strerror(-err));
		return err;
	}
	tracker->pagers[tracker->nr_regions] = pager;
	tracker->lengths[tracker->nr_regions++] = length;
	err = umem_track_start(pager);
	if (err)
		snprintf(error, CODEC_ERROR_MAX, "region \"%s\": cannot track what the guest writes: %s",
			 name, strerror(-err));
	return err;
}

int tracker_start(struct tracker *tracker, const struct hello_region *regions, const int *fds,
		  uint32_t nr_regions, char *error)
{
	int err = 0;

	*tracker = (struct tracker){ 0 };
	for (uint32_t i = 0; i < nr_regions && !err; i++)
		err = start(tracker, regions[i].name, regions[i].length, fds[i], error);
	if (err)
		tracker_stop(tracker);
	return err;
}

void tracker_stop(struct tracker *tracker)
{
	for (uint32_t i = 0; i < tracker->nr_regions; i++)
		close(tracker->pagers[i]);
	tracker->nr_regions = 0;
}

void tracker_rewind(struct tracker *tracker)
{
	tracker->region = 0;
	tracker->offset = 0;
}

bool tracker_is_done(const struct tracker *tracker)
{
	return tracker->region == tracker->nr_regions;
}

int tracker_step(struct tracker *tracker, struct scheduler *scheduler, uint32_t *region,
		 struct page_range *range)
{
	uint64_t bits[TRACKER_STEP / PAGE_BYTES / 64] = { 0 };
	uint64_t left = tracker->lengths[tracker->region] - tracker->offset;
	uint64_t length = min(left, TRACKER_STEP);
	uint64_t first = tracker->offset / PAGE_BYTES, pages = length / PAGE_BYTES;
	int err = umem_track_collect(tracker->pagers[tracker->region], tracker->offset, length,
				     bits, NULL);

	if (err)
		return err;
	scheduler_dirty(scheduler, tracker->region, first, bits, (uint32_t)((pages + 63) / 64));
	if (range) {
		*region = tracker->region;
		*range = (struct page_range){ first, first + pages };
	}
	tracker->offset += length;
	if (length == left) {
		tracker->region++;
		tracker->offset = 0;
	}
	return 0;
}
