// SPDX-License-Identifier: GPL-2.0-only
/*
 * A region: a shmem file of a private mount, a bitmap of its missing pages,
 * and the files that user space holds of it.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/falloc.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/idr.h>
#include <linux/memcontrol.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/overflow.h>
#include <linux/pagemap.h>
#include <linux/pid.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/shmem_fs.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uio.h>

#include "trace.h"
#include "umem.h"

static unsigned int max_regions = 4096;
module_param(max_regions, uint, 0644);
MODULE_PARM_DESC(max_regions, "how many regions may exist (default 4096)");

static unsigned int max_user_regions = 2048;
module_param(max_user_regions, uint, 0644);
MODULE_PARM_DESC(max_user_regions,
		 "how many regions a user without CAP_SYS_RESOURCE may have (default 2048)");

static unsigned long max_mib = 16UL << 20;
module_param(max_mib, ulong, 0644);
MODULE_PARM_DESC(max_mib, "total length of all regions in MiB (default 16 TiB)");

/* How many pages are looked through before others may run */
#define UMEM_SCAN_PAGES	((pgoff_t)SZ_1M)

/*
 * How many pages become missing, or are dropped, at a time: nobody waits for long, and a
 * large region does not take a step for each of its pages.
 */
#define UMEM_MARK_PAGES		((pgoff_t)SZ_64M >> PAGE_SHIFT)

static struct vfsmount *umem_mnt;
static struct vfsmount *umem_huge_mnt;	/* NULL where there are no huge folios */

/* Protects all of this. A region's inode has its id as its number. */
static DEFINE_SPINLOCK(umem_regions_lock);
static DEFINE_IDR(umem_regions);
static unsigned int umem_nr_regions;
static u64 umem_total_pages;
static unsigned int umem_region_changes;	/* how often one was registered or went */

static u64 umem_max_pages(void)
{
	return (u64)READ_ONCE(max_mib) << (20 - PAGE_SHIFT);
}

static int umem_region_reserve(u64 nr_pages)
{
	int err = 0;

	spin_lock(&umem_regions_lock);
	if (umem_nr_regions >= READ_ONCE(max_regions) || nr_pages > umem_max_pages() ||
	    umem_total_pages > umem_max_pages() - nr_pages) {
		err = -ENOSPC;
	} else {
		umem_nr_regions++;
		umem_total_pages += nr_pages;
	}
	spin_unlock(&umem_regions_lock);
	return err;
}

static void umem_region_unreserve(u64 nr_pages)
{
	spin_lock(&umem_regions_lock);
	umem_nr_regions--;
	umem_total_pages -= nr_pages;
	spin_unlock(&umem_regions_lock);
}

static bool umem_user_may_have_more(kuid_t uid)
{
	struct umem_region *region;
	unsigned int nr = 0;
	int id;

	lockdep_assert_held(&umem_regions_lock);
	idr_for_each_entry(&umem_regions, region, id)
		nr += uid_eq(region->uid, uid);
	return nr < READ_ONCE(max_user_regions) || capable(CAP_SYS_RESOURCE);
}

/* Last step of making a region: from here on others find it. */
static int umem_region_register(struct umem_region *region)
{
	int id = -ENOSPC;

	idr_preload(GFP_KERNEL);
	spin_lock(&umem_regions_lock);
	if (umem_user_may_have_more(region->uid))
		id = idr_alloc_cyclic(&umem_regions, region, 1, 0, GFP_NOWAIT);
	if (id >= 0) {
		region->id = id;
		umem_region_changes++;
		file_inode(region->file)->i_ino = id;
	}
	spin_unlock(&umem_regions_lock);
	idr_preload_end();
	return id < 0 ? id : 0;
}

static void umem_region_unregister(struct umem_region *region)
{
	spin_lock(&umem_regions_lock);
	idr_remove(&umem_regions, region->id);
	umem_region_changes++;
	spin_unlock(&umem_regions_lock);
}

static void umem_region_free(struct umem_region *region)
{
	umem_requests_destroy(region);
	umem_stats_destroy(region);
	put_pid(region->pid);
	mem_cgroup_put(region->memcg);
	kvfree(region->poisoned);
	kvfree(region->missing);
	kfree(region);
}

/* With nothing missing, let the memory manager treat guest views as it does any other. */
static void umem_region_relax_now(struct work_struct *work)
{
	struct umem_region *region = container_of(work, struct umem_region, relax);

	mutex_lock(&region->mode_lock);
	if (!atomic_long_read(&region->nr_missing))
		umem_guest_guard(region, false);
	mutex_unlock(&region->mode_lock);
}

/**
 * umem_region_relax - see to it that views of a complete region are not guarded for long
 * @region: to which the caller has a reference
 *
 * The locks of the views are taken, so that is done later, in a process of its own.
 */
void umem_region_relax(struct umem_region *region)
{
	WRITE_ONCE(region->relaxing, true);
	schedule_work(&region->relax);
}

static struct umem_region *umem_region_alloc(u64 nr_pages, const char *name)
{
	struct umem_region *region;

	region = kzalloc(sizeof(*region), GFP_KERNEL_ACCOUNT);
	if (!region)
		return NULL;

	refcount_set(&region->refs, 1);
	region->nr_pages = nr_pages;
	init_rwsem(&region->fill_lock);
	mutex_init(&region->pager_lock);
	mutex_init(&region->mode_lock);
	mutex_init(&region->view_lock);
	INIT_LIST_HEAD(&region->views);
	INIT_WORK(&region->relax, umem_region_relax_now);
	region->uid = current_euid();
	region->pid = get_task_pid(current, PIDTYPE_TGID);
	region->memcg = get_mem_cgroup_from_mm(current->mm);
	strscpy(region->name, name, sizeof(region->name));
	region->missing = kvcalloc(BITS_TO_LONGS(nr_pages), sizeof(long), GFP_KERNEL_ACCOUNT);
	if (!region->missing || umem_requests_create(region) || umem_stats_create(region)) {
		umem_region_free(region);
		return NULL;
	}
	return region;
}

static struct file *umem_region_new_file(struct umem_region *region)
{
	struct vfsmount *mnt = region->huge ? umem_huge_mnt : umem_mnt;
	char name[UMEM_NAME_MAX + 5];
	struct inode *inode;
	struct file *file;

	snprintf(name, sizeof(name), "umem:%s", region->name);
	file = shmem_file_setup_with_mnt(mnt, name, (loff_t)region->nr_pages << PAGE_SHIFT,
					 mk_vma_flags(VMA_NORESERVE_BIT));
	/* The mount has no limits: this is what shmem says if it has no memory for an inode. */
	if (file == ERR_PTR(-ENOSPC))
		return ERR_PTR(-ENOMEM);
	if (IS_ERR(file))
		return file;

	inode = file_inode(file);
	inode->i_mode = S_IFREG | 0600;
	/* Files opened from here on are ours; @file keeps shmem's operations. */
	inode->i_fop = &umem_region_fops;
	/* Nobody changes the length, which the bitmaps have. */
	SHMEM_I(inode)->seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW;
	return file;
}

/**
 * umem_region_create - make a region
 * @length: bytes, checked here
 * @name: NUL-terminated
 * @flags: of enum umem_create_flags, checked
 *
 * Return: the region with one reference, or an ERR_PTR.
 */
struct umem_region *umem_region_create(u64 length, const char *name, u32 flags)
{
	u64 nr_pages = length >> PAGE_SHIFT;
	struct umem_region *region;
	int err;

	if (!length || !PAGE_ALIGNED(length) || length > MAX_LFS_FILESIZE)
		return ERR_PTR(-EINVAL);

	err = umem_region_reserve(nr_pages);
	if (err)
		return ERR_PTR(err);

	region = umem_region_alloc(nr_pages, name);
	if (!region) {
		err = -ENOMEM;
		goto err_unreserve;
	}
	region->huge = umem_huge_mnt && (flags & UMEM_CREATE_HUGE);
	region->file = umem_region_new_file(region);
	if (IS_ERR(region->file)) {
		err = PTR_ERR(region->file);
		goto err_free;
	}
	err = umem_region_register(region);
	if (err)
		goto err_fput;
	umem_notify(region, UMEM_CMD_REGION_CREATED_NTF, NULL);
	return region;

err_fput:
	fput(region->file);
err_free:
	umem_region_free(region);
err_unreserve:
	umem_region_unreserve(nr_pages);
	return ERR_PTR(err);
}

/**
 * umem_region_get - take one more reference
 * @region: to which the caller has one
 */
void umem_region_get(struct umem_region *region)
{
	refcount_inc(&region->refs);
}

/**
 * umem_region_put - give a reference back; the region goes with the last one
 * @region: the region
 */
void umem_region_put(struct umem_region *region)
{
	if (!refcount_dec_and_test(&region->refs))
		return;
	umem_notify(region, UMEM_CMD_REGION_REMOVED_NTF, NULL);
	umem_region_unregister(region);
	umem_region_unreserve(region->nr_pages);
	if (READ_ONCE(region->relaxing))
		cancel_work_sync(&region->relax);
	fput(region->file);
	umem_region_free(region);
}

static struct umem_region *umem_region_get_live(struct umem_region *region)
{
	lockdep_assert_held(&umem_regions_lock);
	return region && refcount_inc_not_zero(&region->refs) ? region : NULL;
}

static struct umem_region *umem_region_of_inode(struct inode *inode)
{
	struct umem_region *region;

	lockdep_assert_held(&umem_regions_lock);
	region = idr_find(&umem_regions, inode->i_ino);
	return region && file_inode(region->file) == inode ? region : NULL;
}

/**
 * umem_region_find - find a region
 * @id: from umem_create.out_id
 *
 * Return: the region with a reference, or NULL.
 */
struct umem_region *umem_region_find(u32 id)
{
	struct umem_region *region;

	spin_lock(&umem_regions_lock);
	region = umem_region_get_live(idr_find(&umem_regions, id));
	spin_unlock(&umem_regions_lock);
	return region;
}

/**
 * umem_region_get_from - find the first region that lives from an id on
 * @id: the id
 * @changes: set to how many times the set of regions had changed
 *
 * Return: the region with a reference, or NULL.
 */
struct umem_region *umem_region_get_from(u32 id, unsigned int *changes)
{
	struct umem_region *region;
	unsigned long next = id;

	spin_lock(&umem_regions_lock);
	/* One that has no references any more is about to be unregistered. */
	do {
		region = idr_get_next_ul(&umem_regions, &next);
		next++;
	} while (region && !umem_region_get_live(region));
	*changes = umem_region_changes;
	spin_unlock(&umem_regions_lock);
	return region;
}

/**
 * umem_region_get_by_id - find a region that the caller may open
 * @id: from umem_create.out_id
 *
 * Return: the region with a reference, -ENOENT or -EPERM.
 */
struct umem_region *umem_region_get_by_id(u32 id)
{
	struct umem_region *region = umem_region_find(id);

	if (!region)
		return ERR_PTR(-ENOENT);
	if (!uid_eq(region->uid, current_euid()) && !capable(CAP_SYS_ADMIN)) {
		umem_region_put(region);
		return ERR_PTR(-EPERM);
	}
	return region;
}

/**
 * umem_region_open_file - open a region
 * @region: the region
 * @flags: O_*
 *
 * Return: a new file with a reference of its own, or an ERR_PTR.
 */
struct file *umem_region_open_file(struct umem_region *region, int flags)
{
	return dentry_open(&region->file->f_path, flags, current_cred());
}

/**
 * umem_region_fill_info - say what there is to say of a region
 * @region: the region
 * @info: all but its head is set
 */
void umem_region_fill_info(struct umem_region *region, struct umem_info *info)
{
	struct umem_stats stats;

	umem_stats_sum(region, &stats);
	info->id = region->id;
	info->pager = !!READ_ONCE(region->pager);
	info->length = (u64)region->nr_pages << PAGE_SHIFT;
	info->missing = (u64)umem_region_nr_fillable(region) << PAGE_SHIFT;
	info->poisoned = (u64)atomic_long_read(&region->nr_poisoned) << PAGE_SHIFT;
	info->waiters = atomic_read(&region->nr_waiters);
	info->faults = stats.counters[UMEM_FAULTS];
	info->requests = stats.counters[UMEM_REQUESTS];
	info->delivered = stats.counters[UMEM_DELIVERED];
	info->published = stats.counters[UMEM_PUBLISHED];
	info->copied = stats.counters[UMEM_COPIED];
	info->zeroed = stats.counters[UMEM_ZEROED];
	info->discarded = stats.counters[UMEM_DISCARDED];
	info->duplicates = stats.counters[UMEM_DUPLICATES];
	info->pagers_lost = stats.counters[UMEM_PAGERS_LOST];
	info->huge_folios = stats.counters[UMEM_HUGE_FOLIOS];
	info->huge_fallbacks = stats.counters[UMEM_HUGE_FALLBACKS];
	strscpy(info->name, region->name, sizeof(info->name));
}

/**
 * umem_region_span - check a range given by user space
 * @region: the region
 * @offset: bytes
 * @length: bytes
 * @span: the range in pages
 *
 * Return: 0, -EOVERFLOW, or -EINVAL if unaligned, empty or past the end.
 */
int umem_region_span(const struct umem_region *region, u64 offset, u64 length,
		     struct umem_span *span)
{
	u64 end;

	if (check_add_overflow(offset, length, &end))
		return -EOVERFLOW;
	if (!length || !PAGE_ALIGNED(offset) || !PAGE_ALIGNED(length))
		return -EINVAL;
	if (end >> PAGE_SHIFT > region->nr_pages)
		return -EINVAL;
	span->start = offset >> PAGE_SHIFT;
	span->end = end >> PAGE_SHIFT;
	return 0;
}

/* Is the page in a block of 2 MiB that the region has all of? */
static bool umem_region_wants_huge(const struct umem_region *region, pgoff_t index)
{
	return region->huge && round_up(index + 1, UMEM_BLOCK_PAGES) <= region->nr_pages;
}

/* Two who allocate a folio at the same time may both count it. */
static void umem_region_count_folio(struct umem_region *region, struct folio *folio)
{
	umem_count(region, folio_nr_pages(folio) >= UMEM_BLOCK_PAGES ? UMEM_HUGE_FOLIOS :
		   UMEM_HUGE_FALLBACKS, 1);
}

/**
 * umem_region_lock_folio - the folio of a page, allocated if there is none
 * @region: whose creator pays
 * @index: page of the region
 *
 * Return: the folio, uptodate, locked and with a reference, or an ERR_PTR.
 */
struct folio *umem_region_lock_folio(struct umem_region *region, pgoff_t index)
{
	struct address_space *mapping = region->file->f_mapping;
	bool count = umem_region_wants_huge(region, index) &&
		     !umem_region_has_folio(region, index);
	struct mem_cgroup *old_memcg;
	struct folio *folio;
	struct page *page;

	old_memcg = set_active_memcg(region->memcg);
	for (;;) {
		page = shmem_read_mapping_page_gfp(mapping, index, mapping_gfp_mask(mapping));
		if (IS_ERR(page)) {
			folio = ERR_CAST(page);
			break;
		}
		folio = page_folio(page);
		folio_lock(folio);
		if (likely(folio->mapping == mapping))
			break;
		/* Swapped out between the lookup and the lock. */
		folio_unlock(folio);
		folio_put(folio);
	}
	set_active_memcg(old_memcg);
	if (count && !IS_ERR(folio))
		umem_region_count_folio(region, folio);
	return folio;
}

/**
 * umem_region_lock_unused - the folio of a page that will be overwritten whole
 * @region: whose creator pays
 * @index: page of the region
 *
 * Memory that was allocated ahead (fallocate) and not used yet is not cleared
 * for nothing: its folio is not uptodate. The caller either writes the whole
 * page and then calls folio_mark_uptodate(), or leaves the folio as it is.
 * Memory that broke is replaced: what was filled in is lost, and not needed.
 *
 * Return: the folio, locked and with a reference, or an ERR_PTR.
 */
struct folio *umem_region_lock_unused(struct umem_region *region, pgoff_t index)
{
	struct address_space *mapping = region->file->f_mapping;
	struct folio *folio = filemap_lock_folio(mapping, index);

	if (IS_ERR_OR_NULL(folio))
		return umem_region_lock_folio(region, index);
	if (folio_test_hwpoison(folio) && umem_page_fillable(region, index))
		generic_error_remove_folio(mapping, folio);
	else if (folio_test_uptodate(folio) || !folio_test_large(folio))
		return folio;
	/* One page of a large folio cannot be made uptodate. */
	folio_unlock(folio);
	folio_put(folio);
	return umem_region_lock_folio(region, index);
}

/**
 * umem_region_has_folio - whether a page has contents, in memory or in swap
 * @region: the region
 * @index: the page
 *
 * Return: false if it is a hole, which is zero.
 */
bool umem_region_has_folio(struct umem_region *region, pgoff_t index)
{
	return xa_load(&region->file->f_mapping->i_pages, index);
}

/**
 * umem_region_charge - make shmem's fault find a page that the creator pays
 * @region: the region
 * @index: page about to be faulted in, which shmem would charge to the toucher
 *
 * Return: 0 or a negative errno.
 */
int umem_region_charge(struct umem_region *region, pgoff_t index)
{
	struct folio *folio;

	if (umem_region_has_folio(region, index))
		return 0;
	folio = umem_region_lock_folio(region, index);
	if (IS_ERR(folio))
		return PTR_ERR(folio);
	folio_unlock(folio);
	folio_put(folio);
	return 0;
}

/**
 * umem_region_alloc_poisoned - have a bitmap of the poisoned pages
 * @region: the region, with fill_lock held for writing
 *
 * Return: 0 or -ENOMEM.
 */
int umem_region_alloc_poisoned(struct umem_region *region)
{
	unsigned long *poisoned;

	lockdep_assert_held_write(&region->fill_lock);
	if (region->poisoned)
		return 0;
	poisoned = kvcalloc(BITS_TO_LONGS(region->nr_pages), sizeof(long), GFP_KERNEL_ACCOUNT);
	if (!poisoned)
		return -ENOMEM;
	/* Pairs with smp_load_acquire() in umem_page_poisoned(). */
	smp_store_release(&region->poisoned, poisoned);
	return 0;
}

/**
 * umem_region_unmap_fill - take missing pages out of the fill views
 * @region: the region, with fill_lock held
 * @span: the pages, before they become present
 *
 * Guest views do not have them, and there is nothing to do if nobody mapped the
 * pager: a fill view made from now on finds the pages present, or waits for fill_lock.
 */
void umem_region_unmap_fill(struct umem_region *region, struct umem_span span)
{
	lockdep_assert_held(&region->fill_lock);
	if (atomic_read(&region->nr_fill_views))
		unmap_mapping_pages(region->file->f_mapping, span.start, span.end - span.start,
				    false);
}

/* The first page from @index on that has contents; @end if none has. */
static pgoff_t umem_region_next_folio(struct umem_region *region, pgoff_t index, pgoff_t end)
{
	unsigned long found = index;

	return xa_find(&region->file->f_mapping->i_pages, &found, end - 1, XA_PRESENT) ? found :
	       end;
}

static int umem_region_punch(struct umem_region *region, struct umem_span span)
{
	struct file *file = region->file;

	return file->f_op->fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     (loff_t)span.start << PAGE_SHIFT,
				     (loff_t)(span.end - span.start) << PAGE_SHIFT);
}

/* The next part, up to @end, of what is done @nr pages at a time */
static struct umem_span umem_part(pgoff_t start, pgoff_t end, pgoff_t nr)
{
	return (struct umem_span){ start, min(round_down(start, nr) + nr, end) };
}

/* Make a poisoned page a missing one again. */
static void umem_page_cure(struct umem_region *region, pgoff_t index)
{
	lockdep_assert_held_write(&region->fill_lock);
	if (region->poisoned && test_and_clear_bit(index, region->poisoned))
		atomic_long_dec(&region->nr_poisoned);
}

/* Set the bits of a part. Returns how many pages were present or poisoned. */
static u64 umem_part_set_missing(struct umem_region *region, struct umem_span part)
{
	long missing = 0, cured = 0;
	pgoff_t index, next;

	/* Nobody else changes them: that is done with fill_lock held. */
	lockdep_assert_held_write(&region->fill_lock);
	for (index = part.start; index < part.end; index = next) {
		unsigned long *word = &region->missing[BIT_WORD(index)], mask;

		next = min(round_down(index, BITS_PER_LONG) + BITS_PER_LONG, part.end);
		mask = BITMAP_FIRST_WORD_MASK(index) & BITMAP_LAST_WORD_MASK(next);
		missing += hweight_long(mask & ~*word);
		WRITE_ONCE(*word, *word | mask);
		if (region->poisoned) {
			word = &region->poisoned[BIT_WORD(index)];
			cured += hweight_long(*word & mask);
			WRITE_ONCE(*word, *word & ~mask);
		}
	}
	atomic_long_add(missing, &region->nr_missing);
	atomic_long_sub(cured, &region->nr_poisoned);
	return missing + cured;
}

/* Drop what the missing pages of a part have. One that was filled meanwhile keeps that. */
static int umem_part_drop(struct umem_region *region, struct umem_span part)
{
	struct umem_span run = { .end = part.start };
	int err = 0;

	while (!err) {
		run.start = find_next_bit(region->missing, part.end, run.end);
		if (run.start >= part.end)
			break;
		run.end = find_next_zero_bit(region->missing, part.end, run.start);
		err = umem_region_punch(region, run);
		/* What was being collapsed was mapped then, if at all. */
		unmap_mapping_pages(region->file->f_mapping, run.start, run.end - run.start,
				    false);
	}
	return err;
}

/*
 * Part after part, with the pager and discards let in between. A fatal signal leaves the
 * rest as it was; what has become missing by then is dropped all the same.
 */
static int umem_region_mark_parts(struct umem_region *region, struct umem_span span,
				  u64 *changed)
{
	struct umem_span part = { .end = span.start };
	pgoff_t end;
	int err = 0, ret;

	while (part.end < span.end) {
		if (down_write_killable(&region->fill_lock)) {
			err = -EINTR;
			break;
		}
		part = umem_part(part.end, span.end, UMEM_MARK_PAGES);
		*changed += umem_part_set_missing(region, part);
		up_write(&region->fill_lock);
		cond_resched();
	}
	/* Fault-around that saw the old bits is over; the punch undoes it. */
	synchronize_rcu();
	end = part.end;
	part.end = span.start;
	/* Pages that get contents behind our back get them after they became missing. */
	while (part.end < end) {
		part.start = umem_region_next_folio(region, part.end, end);
		if (part.start == end)
			break;
		part = umem_part(part.start, end, UMEM_MARK_PAGES);
		down_write(&region->fill_lock);
		ret = umem_part_drop(region, part);
		up_write(&region->fill_lock);
		err = err ?: ret;
		cond_resched();
	}
	return err;
}

/**
 * umem_region_mark_missing - drop the contents of a range, make it missing
 * @region: the region
 * @span: the range
 * @changed: pages that were present or poisoned
 *
 * Return: 0 or a negative errno; @changed tells what was done before it.
 */
int umem_region_mark_missing(struct umem_region *region, struct umem_span span,
			     u64 *changed)
{
	int err;

	*changed = 0;
	if (mutex_lock_killable(&region->mode_lock))
		return -EINTR;
	umem_guest_guard(region, true);
	err = umem_region_mark_parts(region, span, changed);
	/* Whose pages were all brought meanwhile, or not taken away, is complete again. */
	if (!atomic_long_read(&region->nr_missing))
		umem_region_relax(region);
	mutex_unlock(&region->mode_lock);
	return err;
}

/**
 * umem_page_set_present - show a page
 * @region: the region
 * @index: a page whose contents are complete, and that no fill view maps
 *
 * The caller tells umem_track_mark() and umem_requests_answer().
 *
 * Return: whether it was missing.
 */
bool umem_page_set_present(struct umem_region *region, pgoff_t index)
{
	if (!test_and_clear_bit(index, region->missing))
		return false;
	trace_umem_publish(region, index, index + 1);
	if (atomic_long_dec_and_test(&region->nr_missing)) {
		umem_notify(region, UMEM_CMD_COMPLETE_NTF, NULL);
		umem_region_relax(region);
	}
	return true;
}

/* Returns how many pages of the part were missing, or an errno. */
static long umem_part_discard(struct umem_region *region, struct umem_span part)
{
	pgoff_t index = part.start;
	long changed = 0;
	int err;

	/* With the pager kept out, what it had filled in goes as well. */
	if (down_write_killable(&region->fill_lock))
		return -EINTR;
	/* What has no contents reads as zeroes already. */
	err = umem_region_next_folio(region, part.start, part.end) < part.end ?
	      umem_region_punch(region, part) : 0;
	if (err)
		goto unlock;
	for_each_set_bit_from(index, region->missing, part.end) {
		umem_page_cure(region, index);
		changed += umem_page_set_present(region, index);
		umem_requests_answer(region, index);
	}
	umem_track_mark(region, part);
unlock:
	up_write(&region->fill_lock);
	return err ?: changed;
}

/* The guest gives memory back: it reads zeroes from now on, missing or not. */
static int umem_region_discard(struct umem_region *region, struct umem_span span)
{
	struct umem_span part = { .end = span.start };
	struct umem_discard *discard;
	u64 changed = 0;
	long ret = 0;

	discard = umem_discard_alloc();
	if (!discard)
		return -ENOMEM;

	while (part.end < span.end) {
		part = umem_part(part.end, span.end, UMEM_MARK_PAGES);
		ret = umem_part_discard(region, part);
		if (ret < 0) {
			span.end = part.start;
			break;
		}
		changed += ret;
		cond_resched();
	}
	if (changed) {
		umem_count(region, UMEM_DISCARDED, changed);
		trace_umem_discard(region, span.start, span.end);
		umem_notify(region, UMEM_CMD_DISCARD_NTF, &span);
		umem_discard_queue(region, discard, span);
		discard = NULL;
	}
	umem_discard_free(discard);
	return min(ret, 0L);
}

/*
 * As fallocate() of shmem, which leaves it to the first use to clear a folio: for one of
 * 2 MiB that is when a guest waits for one of its pages. Clear it now.
 */
static int umem_region_populate(struct umem_region *region, struct umem_span span)
{
	pgoff_t index = span.start;
	struct folio *folio;

	while (index < span.end) {
		if (signal_pending(current))
			return -EINTR;
		folio = umem_region_lock_folio(region, index);
		if (IS_ERR(folio))
			return PTR_ERR(folio);
		/* A clean one may be dropped again. */
		folio_mark_dirty(folio);
		index = folio_next_index(folio);
		folio_unlock(folio);
		folio_put(folio);
		cond_resched();
	}
	return 0;
}

static long umem_region_fallocate(struct file *file, int mode, loff_t offset, loff_t length)
{
	struct umem_region *region = file->private_data;
	struct file *shmem = region->file;
	struct mem_cgroup *old_memcg;
	struct umem_span span;
	int err;

	if (mode & FALLOC_FL_PUNCH_HOLE) {
		err = umem_region_span(region, offset, length, &span);
		return err ?: umem_region_discard(region, span);
	}
	if (region->huge && !(mode & ~FALLOC_FL_KEEP_SIZE) &&
	    !umem_region_span(region, offset, length, &span))
		return umem_region_populate(region, span);
	old_memcg = set_active_memcg(region->memcg);
	err = shmem->f_op->fallocate(shmem, mode, offset, length);
	set_active_memcg(old_memcg);
	return err;
}

/* The first page from @index on that is missing, or that is not; @end if none is. */
static pgoff_t umem_region_next(struct umem_region *region, pgoff_t index, pgoff_t end,
				bool missing)
{
	while (index < end) {
		pgoff_t stop = min(round_down(index, UMEM_SCAN_PAGES) + UMEM_SCAN_PAGES, end);

		/* What changes meanwhile is told as it was, or as it is. */
		index = data_race(missing ? find_next_bit(region->missing, stop, index) :
					    find_next_zero_bit(region->missing, stop, index));
		if (index < stop)
			return index;
		cond_resched();
	}
	return end;
}

/*
 * Data is what shmem has and what is missing: who skips holes as zeroes must
 * not skip a page that has yet to come.
 */
static loff_t umem_region_seek_data(struct file *file, loff_t offset, loff_t size)
{
	struct umem_region *region = file->private_data;
	loff_t data = region->file->f_op->llseek(file, offset, SEEK_DATA);
	pgoff_t index, end;

	if (offset < 0 || offset >= size || (data < 0 && data != -ENXIO))
		return data;
	end = data < 0 ? region->nr_pages : data >> PAGE_SHIFT;
	index = umem_region_next(region, offset >> PAGE_SHIFT, end, true);
	if (index < end)
		return vfs_setpos(file, max((loff_t)index << PAGE_SHIFT, offset), size);
	return data;
}

static loff_t umem_region_seek_hole(struct file *file, loff_t offset, loff_t size)
{
	struct umem_region *region = file->private_data;

	while (!fatal_signal_pending(current)) {
		loff_t hole = region->file->f_op->llseek(file, offset, SEEK_HOLE);
		pgoff_t index = hole >> PAGE_SHIFT;

		if (hole < 0 || hole >= size || !test_bit(index, region->missing))
			return hole;
		index = umem_region_next(region, index, region->nr_pages, false);
		offset = (loff_t)index << PAGE_SHIFT;
		if (offset >= size)
			return vfs_setpos(file, size, size);
		cond_resched();
	}
	return -EINTR;
}

static loff_t umem_region_llseek(struct file *file, loff_t offset, int whence)
{
	loff_t size = i_size_read(file_inode(file));

	switch (whence) {
	case SEEK_DATA:
		return umem_region_seek_data(file, offset, size);
	case SEEK_HOLE:
		return umem_region_seek_hole(file, offset, size);
	}
	return generic_file_llseek(file, offset, whence);
}

static int umem_region_open(struct inode *inode, struct file *file)
{
	struct umem_region *region;

	spin_lock(&umem_regions_lock);
	region = umem_region_get_live(umem_region_of_inode(inode));
	spin_unlock(&umem_regions_lock);
	file->private_data = region;
	return region ? 0 : -ENXIO;
}

static int umem_region_release(struct inode *inode, struct file *file)
{
	umem_region_put(file->private_data);
	return 0;
}

/* Where 2 MiB of a folio can be mapped as one: shmem knows. */
static unsigned long umem_region_get_unmapped_area(struct file *file, unsigned long addr,
						   unsigned long length, unsigned long pgoff,
						   unsigned long flags)
{
	struct umem_region *region = file->private_data;
	struct file *shmem = region->file;

	return shmem->f_op->get_unmapped_area(shmem, addr, length, pgoff, flags);
}

static int umem_region_mmap(struct file *file, struct vm_area_struct *vma)
{
	return umem_guest_mmap(file->private_data, vma);
}

/* A part of one page. Taken to the side: no fault may come under fill_lock. */
static ssize_t umem_region_read_part(struct umem_region *region, loff_t pos, size_t length,
				     void *side)
{
	pgoff_t index = pos >> PAGE_SHIFT;
	ssize_t ret;

	if (down_read_killable(&region->fill_lock))
		return -EINTR;
	if (umem_page_poisoned(region, index))
		ret = -EIO;
	else if (umem_page_missing(region, index))
		ret = -EAGAIN;
	else	/* and it stays present: a hole is read without filling it */
		ret = kernel_read(region->file, side, length, &pos);
	up_read(&region->fill_lock);
	return ret;
}

static ssize_t umem_region_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct umem_region *region = iocb->ki_filp->private_data;
	loff_t size = (loff_t)region->nr_pages << PAGE_SHIFT;
	void *side = (void *)__get_free_page(GFP_KERNEL);
	ssize_t ret = 0, done = 0;

	if (!side)
		return -ENOMEM;
	while (iov_iter_count(to) && iocb->ki_pos < size) {
		size_t length = min_t(size_t, PAGE_SIZE - offset_in_page(iocb->ki_pos),
				      iov_iter_count(to));
		size_t copied;

		ret = umem_region_read_part(region, iocb->ki_pos, length, side);
		if (ret <= 0)
			break;
		copied = copy_to_iter(side, ret, to);
		iocb->ki_pos += copied;
		done += copied;
		if (copied < ret) {
			ret = -EFAULT;
			break;
		}
		cond_resched();
	}
	free_page((unsigned long)side);
	return done ?: ret;
}

/*
 * No write: it would be a second way past the pager. Read does not wait, and ends
 * before a missing page. The owner keeps the module while a file is open.
 */
const struct file_operations umem_region_fops = {
	.owner		= THIS_MODULE,
	.open		= umem_region_open,
	.release	= umem_region_release,
	.llseek		= umem_region_llseek,
	.read_iter	= umem_region_read_iter,
	.mmap		= umem_region_mmap,
	.get_unmapped_area = umem_region_get_unmapped_area,
	.fsync		= noop_fsync,
	.fallocate	= umem_region_fallocate,
	.unlocked_ioctl	= umem_region_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
};

/* What a fill view has open of the region: its pages, and nothing else. */
const struct file_operations umem_fill_fops = {
	.owner		= THIS_MODULE,
	.release	= umem_region_release,
};

/**
 * umem_region_init - mount what backs the regions
 *
 * Return: 0 or a negative errno.
 */
int umem_region_init(void)
{
	struct file_system_type *type = get_fs_type("tmpfs");

	if (!type)
		return -ENODEV;
	umem_mnt = vfs_kern_mount(type, SB_KERNMOUNT, type->name, NULL);
	if (IS_ERR(umem_mnt))
		return PTR_ERR(umem_mnt);
	/* Refused by a kernel or a processor that has no huge folios: then there are none. */
	umem_huge_mnt = vfs_kern_mount(type, SB_KERNMOUNT, type->name,
				       (char []){ "huge=within_size" });
	if (IS_ERR(umem_huge_mnt))
		umem_huge_mnt = NULL;
	return 0;
}

/**
 * umem_region_exit - with all regions gone, undo umem_region_init()
 */
void umem_region_exit(void)
{
	if (umem_huge_mnt)
		kern_unmount(umem_huge_mnt);
	kern_unmount(umem_mnt);
	idr_destroy(&umem_regions);
}
