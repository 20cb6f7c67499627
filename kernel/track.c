// SPDX-License-Identifier: GPL-2.0-only
/*
 * Dirty tracking: which pages of a region may have been written to since the
 * pager last collected them.
 *
 * While dirty pages are tracked, guest views have page_mkwrite, and the memory
 * manager maps pages read-only until it has asked there for the right to write. So
 *
 * - page_mkwrite sets the page's bit in @dirty, under the folio's lock, which the
 *   memory manager then holds until a mapping has the right to write;
 * - a collection visits the pages whose bits are set. It clears the bit, and under
 *   the folio's lock folio_mkclean() takes the right to write out of every mapping,
 *   KVM's follow through the MMU notifier. So without a bit no mapping may write,
 *   nor may one that a fork copies or that is moved, and one that goes has been told;
 * - changes through the pager or a punched hole set bits, too;
 * - a page that somebody holds a reference to keeps its bit: who pinned it while a
 *   mapping had the right to write (O_DIRECT, a device) writes without a mapping,
 *   for as long as the reference lasts. The page is told once more when the
 *   reference is gone;
 * - and so does a page of a large folio, always, for the sake of simplicity.
 *
 * From 6.5 on the memory manager refuses to pin pages for long through a mapping that
 * has page_mkwrite. So it is there only while needed: umem_guest_track().
 */
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "umem.h"

/**
 * umem_track_mark - pages may have become dirty
 * @region: the region
 * @span: the pages; they may reach past the end
 *
 * Costs a load while dirty pages are not tracked.
 */
void umem_track_mark(struct umem_region *region, struct umem_span span)
{
	unsigned long *dirty;
	pgoff_t index, end = min(span.end, region->nr_pages);

	rcu_read_lock();
	dirty = rcu_dereference(region->dirty);
	if (!dirty)
		goto unlock;
	/* Who clears the bit sees the page: test_and_clear_bit() of umem_track_collect_page(). */
	smp_mb();
	for (index = span.start; index < end;) {
		if (!(index % BITS_PER_LONG) && end - index >= BITS_PER_LONG) {
			/* Against bits that are cleared meanwhile, any order will do. */
			WRITE_ONCE(dirty[BIT_WORD(index)], ~0UL);
			index += BITS_PER_LONG;
		} else {
			set_bit(index++, dirty);
		}
	}
unlock:
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
	size_t bytes = BITS_TO_LONGS(region->nr_pages) * sizeof(long);
	unsigned long *dirty;
	int err = 0;

	mutex_lock(&region->track_lock);
	if (rcu_access_pointer(region->dirty)) {
		err = -EALREADY;
		goto unlock;
	}
	dirty = kvmalloc(bytes, GFP_KERNEL_ACCOUNT);
	if (!dirty) {
		err = -ENOMEM;
		goto unlock;
	}
	/* What mappings may write to until then, the first collection cleans. */
	memset(dirty, 0xff, bytes);
	umem_guest_track(region, dirty);
	/* Marks that did not see it are over: the first collection sees what they are of. */
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
	unsigned long *dirty;

	mutex_lock(&region->track_lock);
	dirty = rcu_dereference_protected(region->dirty, lockdep_is_held(&region->track_lock));
	if (dirty)
		umem_guest_track(region, NULL);
	mutex_unlock(&region->track_lock);
	if (!dirty)
		return -ENODATA;
	synchronize_rcu();
	kvfree(dirty);
	return 0;
}

/* The folio is locked and no mapping may write to it: may somebody else? */
static bool umem_track_is_pinned(struct folio *folio)
{
	int mapped = atomic_read(&folio->_mapcount), refs;

	/* A mapping that comes or goes meanwhile makes it look pinned, no harm. */
	smp_rmb();
	refs = folio_ref_count(folio);
	smp_rmb();
	return atomic_read(&folio->_mapcount) != mapped ||
	       refs != mapped + 1 + 2;	/* the page cache and us */
}

static void umem_track_collect_page(struct umem_region *region, unsigned long *dirty,
				    pgoff_t index)
{
	struct folio *folio;

	/*
	 * A full barrier, against umem_track_mark(): either that sets the bit after this, or
	 * this finds its folio, and waits until the mapping is there to be cleaned. A page
	 * without a folio is mapped nowhere.
	 */
	test_and_clear_bit(index, dirty);
	folio = filemap_lock_folio(region->file->f_mapping, index);
	if (IS_ERR_OR_NULL(folio))
		return;
	folio_mkclean(folio);
	if (folio_test_large(folio) || umem_track_is_pinned(folio))
		set_bit(index, dirty);
	folio_unlock(folio);
	folio_put(folio);
}

/* Returns how many pages of @chunk are dirty, and sets their bits. */
static pgoff_t umem_track_collect_chunk(struct umem_region *region, unsigned long *dirty,
					struct umem_span chunk, unsigned long *bits)
{
	pgoff_t index = chunk.start, told = 0;

	bitmap_zero(bits, chunk.end - chunk.start);
	for_each_set_bit_from(index, dirty, chunk.end) {
		umem_track_collect_page(region, dirty, index);
		__set_bit(index - chunk.start, bits);
		told++;
		cond_resched();
	}
	cond_resched();
	return told;
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
	unsigned long *dirty;
	struct umem_span chunk;
	size_t bytes;
	int err = 0;

	if (mutex_lock_killable(&region->track_lock))
		return -EINTR;
	dirty = rcu_dereference_protected(region->dirty, lockdep_is_held(&region->track_lock));
	if (!dirty)
		err = -ENODATA;
	for (chunk.start = span.start; !err && chunk.start < span.end; chunk.start = chunk.end) {
		pgoff_t told;

		chunk.end = min(chunk.start + nr_chunk, span.end);
		told = umem_track_collect_chunk(region, dirty, chunk, bits);
		bytes = BITS_TO_LONGS(chunk.end - chunk.start) * sizeof(long);
		if (copy_to_user(to, bits, bytes)) {
			umem_track_restore(region, chunk, bits);
			err = -EFAULT;
		} else {
			*pages += told;
			to += bytes;
		}
		if (fatal_signal_pending(current))
			err = err ?: -EINTR;
	}
	mutex_unlock(&region->track_lock);
	return err;
}
