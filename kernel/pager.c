// SPDX-License-Identifier: GPL-2.0-only
/*
 * The pager: who fills the missing pages of a region. Its file delivers
 * requests and takes the ioctls that change the state of pages.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uio.h>

#include "trace.h"
#include "umem.h"

/* How many pages change state under one hold of fill_lock */
#define UMEM_CHUNK_PAGES	512UL

static void umem_region_set_pager(struct umem_region *region, struct umem_pager *pager)
{
	lockdep_assert_held(&region->pager_lock);
	spin_lock(&region->queue_lock);
	WRITE_ONCE(region->pager, pager);
	spin_unlock(&region->queue_lock);
}

static void umem_pager_detach(struct umem_pager *pager)
{
	struct umem_region *region = pager->region;

	mutex_lock(&region->pager_lock);
	trace_umem_pager_detach(region);
	umem_region_set_pager(region, NULL);
	umem_discards_drop(region);
	umem_track_stop(region);
	umem_requests_renew(region);
	if (umem_region_nr_fillable(region)) {
		umem_count(region, UMEM_PAGERS_LOST, 1);
		umem_notify(region, UMEM_CMD_PAGER_LOST_NTF, NULL);
	} else {
		umem_notify(region, UMEM_CMD_PAGER_DETACHED_NTF, NULL);
	}
	if (region->sigbus)
		umem_requests_wake_all(region);
	mutex_unlock(&region->pager_lock);
}

static int umem_pager_release(struct inode *inode, struct file *file)
{
	struct umem_pager *pager = file->private_data;

	umem_pager_detach(pager);
	umem_region_put(pager->region);
	kfree(pager);
	return 0;
}

static ssize_t umem_pager_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct file *file = iocb->ki_filp;
	struct umem_pager *pager = file->private_data;
	struct umem_region *region = pager->region;
	ssize_t done;
	int err;

	if (iov_iter_count(to) < sizeof(struct umem_event))
		return -EINVAL;
	for (;;) {
		done = umem_events_read(region, to);
		if (done)
			return done;
		if ((file->f_flags & O_NONBLOCK) || (iocb->ki_flags & IOCB_NOWAIT))
			return -EAGAIN;
		err = wait_event_interruptible(region->readers, umem_events_pending(region));
		if (err)
			return err;
	}
}

static __poll_t umem_pager_poll(struct file *file, poll_table *wait)
{
	struct umem_pager *pager = file->private_data;

	poll_wait(file, &pager->region->readers, wait);
	return umem_events_pending(pager->region) ? EPOLLIN | EPOLLRDNORM : 0;
}

static const struct file_operations umem_pager_fops = {
	.owner		= THIS_MODULE,
	.release	= umem_pager_release,
	.read_iter	= umem_pager_read_iter,
	.poll		= umem_pager_poll,
	.mmap		= umem_fill_mmap,
	.unlocked_ioctl	= umem_pager_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.llseek		= noop_llseek,
};

static struct file *umem_pager_new_file(struct umem_region *region)
{
	struct umem_pager *pager;
	struct file *file;

	pager = kzalloc(sizeof(*pager), GFP_KERNEL_ACCOUNT);
	if (!pager)
		return ERR_PTR(-ENOMEM);
	pager->region = region;
	file = anon_inode_getfile("[umem-pager]", &umem_pager_fops, pager, O_RDWR);
	if (IS_ERR(file)) {
		kfree(pager);
		return file;
	}
	file->f_mode |= FMODE_NOWAIT;
	umem_region_get(region);
	umem_region_set_pager(region, pager);
	return file;
}

/**
 * umem_pager_create - attach a pager to a region
 * @region: the region
 * @flags: of enum umem_attach_flags, checked
 *
 * Return: the pager's file, -EBUSY if the region has one, or another ERR_PTR.
 */
struct file *umem_pager_create(struct umem_region *region, u32 flags)
{
	struct file *file = ERR_PTR(-EBUSY);

	mutex_lock(&region->pager_lock);
	if (!region->pager) {
		file = umem_pager_new_file(region);
		if (!IS_ERR(file)) {
			WRITE_ONCE(region->sigbus, flags & UMEM_ATTACH_SIGBUS);
			trace_umem_pager_attach(region);
			umem_notify(region, UMEM_CMD_PAGER_ATTACHED_NTF, NULL);
		}
	}
	mutex_unlock(&region->pager_lock);
	return file;
}

/*
 * Change the state of a range, chunk after chunk, each under fill_lock and with
 * no fill view of it. @change returns how many pages it changed, or an errno;
 * @counter counts them, UMEM_NR_COUNTERS if none does.
 */
static long umem_pager_change(struct umem_pager *pager, struct umem_range *range,
			      enum umem_counter counter,
			      long (*change)(struct umem_region *, struct umem_span))
{
	struct umem_region *region = pager->region;
	struct umem_span span, chunk;
	long ret;

	ret = umem_region_span(region, range->offset, range->length, &span);
	if (ret)
		return ret;

	for (chunk.start = span.start; chunk.start < span.end; chunk.start = chunk.end) {
		chunk.end = min(round_down(chunk.start + UMEM_CHUNK_PAGES, UMEM_CHUNK_PAGES),
				span.end);
		if (down_write_killable(&region->fill_lock))
			return -EINTR;
		ret = 0;
		if (find_next_bit(region->missing, chunk.end, chunk.start) < chunk.end) {
			umem_region_unmap_fill(region, chunk);
			ret = change(region, chunk);
		}
		up_write(&region->fill_lock);
		if (ret < 0)
			return ret;
		range->out_pages += ret;
		range->out_skipped += chunk.end - chunk.start - ret;
		if (counter < UMEM_NR_COUNTERS)
			umem_count(region, counter, ret);
		umem_count(region, UMEM_DUPLICATES, chunk.end - chunk.start - ret);
		cond_resched();
	}
	return 0;
}

static long umem_chunk_publish(struct umem_region *region, struct umem_span chunk)
{
	pgoff_t index = chunk.start;
	long changed = 0;

	for_each_set_bit_from(index, region->missing, chunk.end) {
		if (umem_page_poisoned(region, index))
			continue;
		changed += umem_page_set_present(region, index);
		umem_track_mark_page(region, index);
		umem_requests_answer(region, index);
	}
	return changed;
}

/**
 * umem_pager_publish - make missing pages present with what they have
 * @pager: the region's
 * @range: given by user space; its results are set
 *
 * Return: 0 or a negative errno; the results tell what was done before it.
 */
long umem_pager_publish(struct umem_pager *pager, struct umem_range *range)
{
	return umem_pager_change(pager, range, UMEM_PUBLISHED, umem_chunk_publish);
}

static void umem_folio_written(struct folio *folio)
{
	folio_mark_uptodate(folio);
	folio_mark_dirty(folio);
}

/* A hole is zero already, and stays one. */
static int umem_page_clear(struct umem_region *region, pgoff_t index)
{
	struct folio *folio;

	if (!umem_region_has_folio(region, index))
		return 0;
	folio = umem_region_lock_unused(region, index);
	if (IS_ERR(folio))
		return PTR_ERR(folio);
	clear_highpage(folio_file_page(folio, index));
	umem_folio_written(folio);
	folio_unlock(folio);
	folio_put(folio);
	return 0;
}

static long umem_chunk_clear(struct umem_region *region, struct umem_span chunk)
{
	pgoff_t index = chunk.start;
	long cleared = 0;
	int err;

	for_each_set_bit_from(index, region->missing, chunk.end) {
		if (umem_page_poisoned(region, index))
			continue;
		err = umem_page_clear(region, index);
		if (err)
			return err;
		cleared++;
	}
	return cleared;
}

static long umem_chunk_zero(struct umem_region *region, struct umem_span chunk)
{
	long ret = umem_chunk_clear(region, chunk);

	return ret < 0 ? ret : umem_chunk_publish(region, chunk);
}

/**
 * umem_pager_zero - make missing pages zero, and present unless told not to
 * @pager: the region's
 * @range: given by user space; its results are set
 *
 * Return: 0 or a negative errno; the results tell what was done before it.
 */
long umem_pager_zero(struct umem_pager *pager, struct umem_range *range)
{
	if (range->flags & UMEM_FILL_UNPUBLISHED)
		return umem_pager_change(pager, range, UMEM_NR_COUNTERS, umem_chunk_clear);
	return umem_pager_change(pager, range, UMEM_ZEROED, umem_chunk_zero);
}

static long umem_chunk_poison(struct umem_region *region, struct umem_span chunk)
{
	pgoff_t index = chunk.start;
	long changed = 0;
	int err;

	err = umem_region_alloc_poisoned(region);
	if (err)
		return err;
	for_each_set_bit_from(index, region->missing, chunk.end) {
		if (test_and_set_bit(index, region->poisoned))
			continue;
		atomic_long_inc(&region->nr_poisoned);
		umem_requests_answer(region, index);
		changed++;
	}
	trace_umem_poison(region, chunk.start, chunk.end);
	return changed;
}

/**
 * umem_pager_poison - have missing pages that never come raise SIGBUS
 * @pager: the region's
 * @range: given by user space; its results are set
 *
 * Return: 0 or a negative errno; the results tell what was done before it.
 */
long umem_pager_poison(struct umem_pager *pager, struct umem_range *range)
{
	long ret = umem_pager_change(pager, range, UMEM_POISONED, umem_chunk_poison);
	struct umem_span span;

	if (range->out_pages &&
	    !umem_region_span(pager->region, range->offset, range->length, &span))
		umem_notify(pager->region, UMEM_CMD_POISONED_NTF, &span);
	return ret;
}

/**
 * umem_pager_mark_missing - drop pages, to be brought by the pager
 * @pager: the region's
 * @range: given by user space; its results are set
 *
 * Return: 0 or a negative errno.
 */
long umem_pager_mark_missing(struct umem_pager *pager, struct umem_range *range)
{
	struct umem_region *region = pager->region;
	struct umem_span span;
	int err;

	err = umem_region_span(region, range->offset, range->length, &span);
	if (err)
		return err;
	err = umem_region_mark_missing(region, span, &range->out_pages);
	if (!err)
		range->out_skipped = span.end - span.start - range->out_pages;
	return err;
}

/* How many pages of one folio are copied under its lock, which faults nearby wait for */
#define UMEM_RUN_PAGES		32UL

/* 1 if the page was filled, 0 if it needs no filling, -EAGAIN if @src went. */
static int umem_folio_copy(struct umem_region *region, struct folio *folio, pgoff_t index,
			   const void __user *src, bool publish)
{
	struct umem_span span = { index, index + 1 };
	unsigned long left;
	void *kaddr;

	if (!umem_page_fillable(region, index))
		return 0;
	kaddr = kmap_local_folio(folio, offset_in_folio(folio, (u64)index << PAGE_SHIFT));
	pagefault_disable();
	left = copy_from_user(kaddr, src, PAGE_SIZE);
	pagefault_enable();
	kunmap_local(kaddr);
	if (left)
		return -EAGAIN;

	flush_dcache_folio(folio);
	umem_folio_written(folio);
	if (!publish)
		return 1;
	/* What is mapped of a large folio may be others of its pages. */
	if (folio_test_large(folio) || folio_mapped(folio))
		umem_region_unmap_fill(region, span);
	umem_page_set_present(region, index);
	umem_track_mark_page(region, index);
	return 1;
}

/*
 * Fill the pages of a run that one folio has. Moves the start of @run on, by what was
 * filled or needed no filling. -EAGAIN if @src went.
 */
static int umem_run_copy(struct umem_region *region, struct umem_span *run,
			 const void __user *src, struct umem_copy *copy)
{
	bool publish = !(copy->flags & UMEM_FILL_UNPUBLISHED);
	pgoff_t index = run->start, start = index, end;
	struct folio *folio;
	int ret;

	if (down_read_killable(&region->fill_lock))
		return -EINTR;
	if (!umem_page_fillable(region, index)) {
		up_read(&region->fill_lock);
		run->start++;
		copy->out_skipped++;
		return 0;
	}
	folio = umem_region_lock_unused(region, index);
	if (IS_ERR(folio)) {
		up_read(&region->fill_lock);
		return PTR_ERR(folio);
	}
	end = min(folio_next_index(folio), run->end);
	for (; index < end; index++, src += PAGE_SIZE) {
		ret = umem_folio_copy(region, folio, index, src, publish);
		if (ret < 0)
			break;
		copy->out_pages += ret;
		copy->out_skipped += !ret;
	}
	folio_unlock(folio);
	folio_put(folio);
	up_read(&region->fill_lock);
	run->start = index;
	if (publish)
		for (index = start; index < run->start; index++)
			umem_requests_answer(region, index);
	return min(ret, 0);
}

static long umem_copy_entry(struct umem_region *region, const struct umem_copy_entry *entry,
			    struct umem_copy *copy)
{
	const void __user *src = u64_to_user_ptr(entry->addr);
	struct umem_span span, run;
	pgoff_t start;
	int ret;

	ret = umem_region_span(region, entry->offset, entry->length, &span);
	if (ret)
		return ret;
	start = span.start;
	for (run.start = start; run.start < span.end;) {
		const void __user *from = src + ((run.start - start) << PAGE_SHIFT);

		run.end = min(run.start + UMEM_RUN_PAGES, span.end);
		if (fault_in_readable(from, PAGE_SIZE))
			return -EFAULT;
		if (fatal_signal_pending(current))
			return -EINTR;
		/* The caller's pages may go again before the lock is taken. */
		ret = umem_run_copy(region, &run, from, copy);
		if (ret < 0 && ret != -EAGAIN)
			return ret;
		cond_resched();
	}
	return 0;
}

static long umem_copy_entries(struct umem_region *region, const struct umem_copy_entry *entries,
			      struct umem_copy *copy)
{
	struct umem_span span;
	long ret = 0;
	u32 i;

	for (i = 0; i < copy->nr_entries && !ret; i++)
		ret = umem_region_span(region, entries[i].offset, entries[i].length, &span);
	for (i = 0; i < copy->nr_entries && !ret; i++)
		ret = umem_copy_entry(region, &entries[i], copy);
	if (!(copy->flags & UMEM_FILL_UNPUBLISHED))
		umem_count(region, UMEM_COPIED, copy->out_pages);
	umem_count(region, UMEM_DUPLICATES, copy->out_skipped);
	return ret;
}

static long umem_copy_events(struct umem_region *region, struct umem_copy *copy)
{
	size_t length = array_size(copy->nr_events, sizeof(struct umem_event));
	void __user *events = u64_to_user_ptr(copy->events);
	struct iov_iter to;
	ssize_t done;

	if (!access_ok(events, length))
		return -EFAULT;
	iov_iter_ubuf(&to, ITER_DEST, events, length);
	done = umem_events_read(region, &to);
	if (done < 0)
		return done;
	copy->out_events = done / sizeof(struct umem_event);
	return 0;
}

/**
 * umem_pager_copy - fill missing pages, and make them present unless told not to
 * @pager: the region's
 * @copy: given by user space; its results are set
 *
 * Return: 0 or a negative errno; the results tell what was done before it.
 */
long umem_pager_copy(struct umem_pager *pager, struct umem_copy *copy)
{
	struct umem_copy_entry few[4], *entries = few;
	long ret;

	if (copy->__reserved || !copy->nr_entries || copy->nr_entries > UMEM_COPY_MAX)
		return -EINVAL;
	if (copy->nr_entries > ARRAY_SIZE(few)) {
		entries = memdup_user(u64_to_user_ptr(copy->entries),
				      array_size(copy->nr_entries, sizeof(*entries)));
		if (IS_ERR(entries))
			return PTR_ERR(entries);
	} else if (copy_from_user(few, u64_to_user_ptr(copy->entries),
				  copy->nr_entries * sizeof(*few))) {
		return -EFAULT;
	}
	ret = umem_copy_entries(pager->region, entries, copy);
	if (entries != few)
		kfree(entries);
	if (!ret && copy->events)
		ret = umem_copy_events(pager->region, copy);
	return ret;
}

/* The 64 bits that start at bit @pos, zeroes past the end. */
static u64 umem_bits_at(const unsigned long *map, pgoff_t pos, pgoff_t nr)
{
	unsigned long word = pos / BITS_PER_LONG, shift = pos % BITS_PER_LONG;
	u64 bits = READ_ONCE(map[word]) >> shift;

	if (shift && word + 1 < BITS_TO_LONGS(nr))
		bits |= READ_ONCE(map[word + 1]) << (BITS_PER_LONG - shift);
	return bits;
}

static void umem_bitmap_chunk(struct umem_region *region, u32 kind, struct umem_span chunk,
			      unsigned long *bits)
{
	pgoff_t nr = chunk.end - chunk.start, i;

	bitmap_zero(bits, nr);
	if (kind == UMEM_BITMAP_REQUESTED) {
		umem_requests_to_bitmap(region, chunk, bits);
		return;
	}
	for (i = 0; i < nr; i += BITS_PER_LONG) {
		pgoff_t pos = chunk.start + i;
		u64 word = 0;

		if (kind == UMEM_BITMAP_PRESENT)
			word = ~umem_bits_at(region->missing, pos, region->nr_pages);
		else if (READ_ONCE(region->poisoned))
			word = umem_bits_at(region->poisoned, pos, region->nr_pages);
		if (nr - i < BITS_PER_LONG)
			word &= BITMAP_LAST_WORD_MASK(nr - i);
		bits[i / BITS_PER_LONG] = word;
	}
}

/**
 * umem_pager_get_bitmap - tell the state of each page of a range
 * @pager: the region's
 * @bitmap: given by user space
 *
 * Return: 0 or a negative errno.
 */
long umem_pager_get_bitmap(struct umem_pager *pager, struct umem_bitmap *bitmap)
{
	const pgoff_t nr_chunk = PAGE_SIZE * BITS_PER_BYTE;
	struct umem_region *region = pager->region;
	u8 __user *to = u64_to_user_ptr(bitmap->bits);
	struct umem_span span, chunk;
	unsigned long *bits;
	size_t bytes;
	long ret;

	if (bitmap->kind > UMEM_BITMAP_POISONED)
		return -EOPNOTSUPP;
	ret = umem_region_span(region, bitmap->offset, bitmap->length, &span);
	if (ret)
		return ret;
	bits = kmalloc(PAGE_SIZE, GFP_KERNEL);
	if (!bits)
		return -ENOMEM;
	for (chunk.start = span.start; chunk.start < span.end; chunk.start = chunk.end) {
		chunk.end = min(chunk.start + nr_chunk, span.end);
		umem_bitmap_chunk(region, bitmap->kind, chunk, bits);
		bytes = BITS_TO_LONGS(chunk.end - chunk.start) * sizeof(long);
		if (copy_to_user(to, bits, bytes)) {
			ret = -EFAULT;
			break;
		}
		to += bytes;
		cond_resched();
	}
	kfree(bits);
	return ret;
}

/* Starting and stopping are of the whole region. */
static bool umem_track_has_range(const struct umem_track *track)
{
	return track->offset || track->length || track->bits;
}

/**
 * umem_pager_track - start, stop or collect what dirty tracking finds
 * @pager: the region's
 * @track: given by user space; its result is set
 *
 * Return: 0 or a negative errno.
 */
long umem_pager_track(struct umem_pager *pager, struct umem_track *track)
{
	struct umem_region *region = pager->region;
	struct umem_span span;
	int err;

	switch (track->op) {
	case UMEM_TRACK_START:
		return umem_track_has_range(track) ? -EINVAL : umem_track_start(region);
	case UMEM_TRACK_STOP:
		return umem_track_has_range(track) ? -EINVAL : umem_track_stop(region);
	case UMEM_TRACK_COLLECT:
		err = umem_region_span(region, track->offset, track->length, &span);
		return err ?: umem_track_collect(region, span, u64_to_user_ptr(track->bits),
						 &track->out_pages);
	}
	return -EOPNOTSUPP;
}
