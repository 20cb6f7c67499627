// SPDX-License-Identifier: GPL-2.0-only
/*
 * Dirty tracking: which pages of a region may have been written to since the
 * pager last collected them.
 *
 * A page is collected under its folio's lock: folio_mkclean() takes the right to
 * write out of every mapping, KVM's follow through the MMU notifier, and says
 * whether one had that right. The next write faults in the memory manager, which
 * grants it again without asking us. So a page counts as dirty if
 *
 * - a mapping may write to it: it was written to, or faulted in for reading, which
 *   in a shared mapping grants the right to write as well;
 * - it was faulted in, or its mappings were copied by a fork, or its state or
 *   contents were changed through the pager or a punched hole: bits in @dirty;
 * - it is mapped more or less often than when it was last collected: a mapping
 *   that went took its dirty bit along, to the folio, whose own dirty bit tells
 *   nothing (shmem's are always dirty, or reclaim would drop them);
 * - somebody holds a reference: who pinned it before (O_DIRECT, a device) writes
 *   without a mapping, and for as long as the reference lasts. The page then
 *   counts as dirty once more when the reference is gone.
 *
 * Fault-around would map pages unseen, and is off while dirty pages are tracked.
 */
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "umem.h"

/* In umem_tracker::mapped: dirty when collected next, whatever is found */
#define UMEM_MAPPED_UNKNOWN	U8_MAX

/**
 * struct umem_tracker - what a region knows of its dirty pages
 * @dirty: a bit for each page seen to become dirty
 * @mapped: how often each page was mapped when it was last collected
 */
struct umem_tracker {
	unsigned long *dirty;
	u8 *mapped;
};

static void umem_track_free(struct umem_tracker *tracker)
{
	if (!tracker)
		return;
	kvfree(tracker->dirty);
	kvfree(tracker->mapped);
	kfree(tracker);
}

static struct umem_tracker *umem_track_alloc(pgoff_t nr_pages)
{
	struct umem_tracker *tracker = kzalloc(sizeof(*tracker), GFP_KERNEL_ACCOUNT);

	if (!tracker)
		return NULL;
	tracker->dirty = kvcalloc(BITS_TO_LONGS(nr_pages), sizeof(long), GFP_KERNEL_ACCOUNT);
	tracker->mapped = kvmalloc(nr_pages, GFP_KERNEL_ACCOUNT);
	if (!tracker->dirty || !tracker->mapped) {
		umem_track_free(tracker);
		return NULL;
	}
	memset(tracker->mapped, UMEM_MAPPED_UNKNOWN, nr_pages);
	return tracker;
}

/**
 * umem_track_mark - pages may have become dirty
 * @region: the region
 * @span: the pages; they may reach past the end
 *
 * Costs a load while dirty pages are not tracked.
 */
void umem_track_mark(struct umem_region *region, struct umem_span span)
{
	struct umem_tracker *tracker;
	pgoff_t index, end = min(span.end, region->nr_pages);

	rcu_read_lock();
	tracker = rcu_dereference(region->tracker);
	for (index = span.start; tracker && index < end;) {
		if (!(index % BITS_PER_LONG) && end - index >= BITS_PER_LONG) {
			/* Against umem_track_collect_page(), any order will do. */
			WRITE_ONCE(tracker->dirty[BIT_WORD(index)], ~0UL);
			index += BITS_PER_LONG;
		} else {
			set_bit(index++, tracker->dirty);
		}
	}
	rcu_read_unlock();
}

/**
 * umem_track_start - begin to track, with every page dirty
 * @region: the region
 *
 * Return: 0, -EALREADY or -ENOMEM.
 */
int umem_track_start(struct umem_region *region)
{
	struct umem_tracker *tracker;
	int err = 0;

	mutex_lock(&region->track_lock);
	if (rcu_access_pointer(region->tracker)) {
		err = -EALREADY;
		goto unlock;
	}
	tracker = umem_track_alloc(region->nr_pages);
	if (!tracker) {
		err = -ENOMEM;
		goto unlock;
	}
	rcu_assign_pointer(region->tracker, tracker);
	/*
	 * Fault-around that did not see it is over. A fault that did not see it
	 * has its folio locked until the page is mapped, and so is collected.
	 */
	synchronize_rcu();
unlock:
	mutex_unlock(&region->track_lock);
	return err;
}

/**
 * umem_track_stop - track no longer
 * @region: the region
 *
 * Return: 0 or -ENODATA.
 */
int umem_track_stop(struct umem_region *region)
{
	struct umem_tracker *tracker;

	mutex_lock(&region->track_lock);
	tracker = rcu_replace_pointer(region->tracker, NULL, lockdep_is_held(&region->track_lock));
	mutex_unlock(&region->track_lock);
	if (!tracker)
		return -ENODATA;
	synchronize_rcu();
	umem_track_free(tracker);
	return 0;
}

/* The folio is locked: nobody faults it in. */
static bool umem_track_collect_folio(struct umem_region *region, struct umem_tracker *tracker,
				     pgoff_t index, struct folio *folio)
{
	struct umem_span span = { folio->index, folio->index + folio_nr_pages(folio) };
	bool dirty = folio_mkclean(folio);
	int mapped, refs;

	/* Its pages are cleaned together and told one by one. */
	if (folio_test_large(folio)) {
		if (dirty)
			umem_track_mark(region, span);
		clear_bit(index, tracker->dirty);
		tracker->mapped[index] = UMEM_MAPPED_UNKNOWN;
		return true;
	}

	dirty |= test_and_clear_bit(index, tracker->dirty);
	mapped = atomic_read(&folio->_mapcount) + 1;
	/* A mapping that goes between the two is missed by none but the next. */
	smp_rmb();
	refs = folio_ref_count(folio) - mapped - 2;	/* the page cache and us */
	dirty |= refs || mapped != tracker->mapped[index];
	tracker->mapped[index] = refs ? UMEM_MAPPED_UNKNOWN :
			       min(mapped, (int)UMEM_MAPPED_UNKNOWN);
	return dirty || tracker->mapped[index] == UMEM_MAPPED_UNKNOWN;
}

static bool umem_track_collect_page(struct umem_region *region, struct umem_tracker *tracker,
				    pgoff_t index)
{
	struct folio *folio = filemap_lock_folio(region->file->f_mapping, index);
	bool dirty;

	if (IS_ERR_OR_NULL(folio)) {
		/* Nobody maps it. Who faults it in from now on marks it. */
		dirty = test_and_clear_bit(index, tracker->dirty) || tracker->mapped[index];
		tracker->mapped[index] = 0;
		return dirty;
	}
	dirty = umem_track_collect_folio(region, tracker, index, folio);
	folio_unlock(folio);
	folio_put(folio);
	return dirty;
}

/* Returns how many pages of @chunk are dirty, and sets their bits. */
static pgoff_t umem_track_collect_chunk(struct umem_region *region, struct umem_tracker *tracker,
					struct umem_span chunk, unsigned long *bits)
{
	pgoff_t index, dirty = 0;

	bitmap_zero(bits, chunk.end - chunk.start);
	for (index = chunk.start; index < chunk.end; index++) {
		if (umem_track_collect_page(region, tracker, index)) {
			__set_bit(index - chunk.start, bits);
			dirty++;
		}
		cond_resched();
	}
	return dirty;
}

/* The caller was not told: they are as dirty as before. */
static void umem_track_restore(struct umem_region *region, struct umem_span chunk,
			       unsigned long *bits)
{
	pgoff_t i;

	for_each_set_bit(i, bits, chunk.end - chunk.start)
		umem_track_mark_page(region, chunk.start + i);
}

/**
 * umem_track_collect - tell which pages are dirty, and make them clean
 * @region: the region
 * @span: the pages to look at
 * @to: a bit for each of them, in user space
 * @pages: how many are dirty
 *
 * A write after this is told by the next call. Reads of the pages told, made
 * after this, see every write before it.
 *
 * Return: 0, -ENODATA, -ENOMEM, -EINTR or -EFAULT; what was not told stays dirty.
 */
int umem_track_collect(struct umem_region *region, struct umem_span span, u8 __user *to,
		       u64 *pages)
{
	const pgoff_t nr_chunk = 8 * BITS_PER_LONG;
	unsigned long bits[8];
	struct umem_tracker *tracker;
	struct umem_span chunk;
	size_t bytes;
	int err = 0;

	if (mutex_lock_killable(&region->track_lock))
		return -EINTR;
	tracker = rcu_dereference_protected(region->tracker, lockdep_is_held(&region->track_lock));
	if (!tracker)
		err = -ENODATA;
	for (chunk.start = span.start; !err && chunk.start < span.end; chunk.start = chunk.end) {
		pgoff_t dirty;

		chunk.end = min(chunk.start + nr_chunk, span.end);
		dirty = umem_track_collect_chunk(region, tracker, chunk, bits);
		bytes = BITS_TO_LONGS(chunk.end - chunk.start) * sizeof(long);
		if (copy_to_user(to, bits, bytes)) {
			umem_track_restore(region, chunk, bits);
			err = -EFAULT;
		} else {
			*pages += dirty;
			to += bytes;
		}
		if (fatal_signal_pending(current))
			err = err ?: -EINTR;
	}
	mutex_unlock(&region->track_lock);
	return err;
}
