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
 * - a large folio of a region that was made with UMEM_CREATE_HUGE is mapped page by page
 *   then, so that the right to write is granted for a page at a time; of another, for all
 *   of it. A collection takes all of a large folio out of the mappings; a reference to any
 *   of its pages keeps the bits of all that were told.
 *
 * From 6.5 on the memory manager refuses to pin pages for long through a mapping that
 * has page_mkwrite. So it is there only while needed: umem_guest_track().
 */
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
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
	/* Who clears the bit sees the page: umem_track_collect_page(). */
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

/* Set all bits, of which there may be very many. */
static void umem_track_fill(unsigned long *dirty, size_t bytes)
{
	size_t done, part;

	for (done = 0; done < bytes; done += part) {
		part = min_t(size_t, bytes - done, SZ_1M);
		memset((u8 *)dirty + done, 0xff, part);
		cond_resched();
	}
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

	mutex_lock(&region->mode_lock);
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
	umem_track_fill(dirty, bytes);
	umem_guest_track(region, dirty);
	/* Marks that did not see it are over: the first collection sees what they are of. */
	synchronize_rcu();
unlock:
	mutex_unlock(&region->mode_lock);
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

	mutex_lock(&region->mode_lock);
	dirty = rcu_dereference_protected(region->dirty, lockdep_is_held(&region->mode_lock));
	if (dirty)
		umem_guest_track(region, NULL);
	mutex_unlock(&region->mode_lock);
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
	smp_rmb();	/* as above */
	return atomic_read(&folio->_mapcount) != mapped ||
	       refs != mapped + 1 + 2;	/* the page cache and us */
}

/* The chunk being collected, and the pages of it that were told */
struct umem_track_chunk {
	struct umem_span span;
	pgoff_t told;
	unsigned long bits[8];
};

#define UMEM_TRACK_CHUNK_PAGES	\
	(sizeof_field(struct umem_track_chunk, bits) * BITS_PER_BYTE)

static pgoff_t umem_track_next(const unsigned long *dirty, pgoff_t end, pgoff_t index)
{
	/* What is marked meanwhile, behind this, is told by the next call. */
	return data_race(find_next_bit(dirty, end, index));
}

static void umem_track_tell(struct umem_track_chunk *chunk, unsigned long *dirty, pgoff_t index)
{
	clear_bit(index, dirty);
	__set_bit(index - chunk->span.start, chunk->bits);
	chunk->told++;
}

/*
 * The pages of a large folio from the first dirty one on. Who marks another one because it
 * may be written to holds the folio's lock; for the other marks either order will do.
 */
static void umem_track_collect_large(unsigned long *dirty, struct folio *folio, pgoff_t first,
				     struct umem_track_chunk *chunk)
{
	pgoff_t end = min(folio_next_index(folio), chunk->span.end), index = first;

	while ((index = umem_track_next(dirty, end, index + 1)) < end)
		umem_track_tell(chunk, dirty, index);
	unmap_mapping_pages(folio->mapping, folio->index, folio_nr_pages(folio), false);
	/* Nothing maps it any more. The page cache has a reference for each page, we one. */
	if (folio_ref_count(folio) == folio_nr_pages(folio) + 1)
		return;
	for (index = first; index < end; index++)
		if (test_bit(index - chunk->span.start, chunk->bits))
			set_bit(index, dirty);
}

static void umem_track_collect_page(struct umem_region *region, unsigned long *dirty,
				    pgoff_t index, struct umem_track_chunk *chunk)
{
	struct folio *folio;

	/*
	 * Either umem_track_mark() sets the bit after this, or this finds its folio, and waits
	 * until the mapping is there to be cleaned. A page without a folio is mapped nowhere.
	 */
	umem_track_tell(chunk, dirty, index);
	smp_mb__after_atomic();	/* pairs with smp_mb() of umem_track_mark() */
	folio = filemap_lock_folio(region->file->f_mapping, index);
	if (IS_ERR_OR_NULL(folio))
		return;
	if (folio_test_large(folio)) {
		umem_track_collect_large(dirty, folio, index, chunk);
	} else {
		folio_mkclean(folio);
		if (umem_track_is_pinned(folio))
			set_bit(index, dirty);
	}
	folio_unlock(folio);
	folio_put(folio);
}

/* Tell which pages of a chunk are dirty. */
static void umem_track_collect_chunk(struct umem_region *region, unsigned long *dirty,
				     struct umem_track_chunk *chunk)
{
	pgoff_t end = chunk->span.end, index;

	chunk->told = 0;
	bitmap_zero(chunk->bits, UMEM_TRACK_CHUNK_PAGES);
	index = umem_track_next(dirty, end, chunk->span.start);
	while (index < end) {
		umem_track_collect_page(region, dirty, index, chunk);
		cond_resched();
		index = umem_track_next(dirty, end, index + 1);
	}
	cond_resched();
}

/* The caller was not told: they are as dirty as before. */
static void umem_track_restore(struct umem_region *region, struct umem_track_chunk *chunk)
{
	pgoff_t i;

	for_each_set_bit(i, chunk->bits, UMEM_TRACK_CHUNK_PAGES)
		umem_track_mark_page(region, chunk->span.start + i);
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
	struct umem_track_chunk chunk;
	unsigned long *dirty;
	pgoff_t start, end;
	size_t bytes;
	int err = 0;

	if (mutex_lock_killable(&region->mode_lock))
		return -EINTR;
	dirty = rcu_dereference_protected(region->dirty, lockdep_is_held(&region->mode_lock));
	if (!dirty)
		err = -ENODATA;
	for (start = span.start; !err && start < span.end; start = end) {
		end = min(start + UMEM_TRACK_CHUNK_PAGES, span.end);
		chunk.span = (struct umem_span){ start, end };
		umem_track_collect_chunk(region, dirty, &chunk);
		bytes = BITS_TO_LONGS(end - start) * sizeof(long);
		if (copy_to_user(to, chunk.bits, bytes)) {
			umem_track_restore(region, &chunk);
			err = -EFAULT;
		} else {
			*pages += chunk.told;
			to += bytes;
		}
		if (fatal_signal_pending(current))
			err = err ?: -EINTR;
	}
	mutex_unlock(&region->mode_lock);
	return err;
}
