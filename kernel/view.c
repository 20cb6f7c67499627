// SPDX-License-Identifier: GPL-2.0-only
/*
 * Views: how a region is seen. A guest view shows present pages and waits for
 * missing ones; the fill view shows missing pages and never waits.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/huge_mm.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/userfaultfd_k.h>

#include "umem.h"

/* A mapping that is a guest view; its vm_private_data points here. */
struct umem_view {
	struct list_head link;
	struct vm_area_struct *vma;
	bool guarded;	/* has UMEM_GUARD */
};

/*
 * What a view has while pages may be missing. MIXEDMAP allows a single page of a large
 * folio to be mapped; a folio must not be mapped whole then, since the memory manager would
 * not count that mapping when it goes (vma_is_special_huge()). Both keep the kernel from
 * collapsing pages, which would fill missing ones with zeroes.
 */
#define UMEM_GUARD	(VM_MIXEDMAP | VM_DONTEXPAND)

/* How many pages are mapped with one that is touched: what fault-around does by default */
#define UMEM_AROUND_PAGES	16UL

/*
 * shmem's own operations for a mapping, learnt from the first one, and ours while
 * dirty pages are not tracked and while they are
 */
static DEFINE_MUTEX(umem_guest_vm_ops_lock);
static const struct vm_operations_struct *umem_shmem_vm_ops;
static struct vm_operations_struct umem_plain_vm_ops;
static struct vm_operations_struct umem_tracking_vm_ops;

/* Is every page of the blocks that the range touches present? */
static bool umem_blocks_present(const struct umem_region *region, pgoff_t first, pgoff_t last)
{
	pgoff_t start = round_down(first, UMEM_BLOCK_PAGES);
	pgoff_t end = min(round_up(last + 1, UMEM_BLOCK_PAGES), region->nr_pages);

	if (!atomic_long_read(&region->nr_missing))
		return true;
	/* What becomes present meanwhile is mapped when it is touched. */
	return data_race(find_next_bit(region->missing, end, start)) >= end;
}

/* Map one page of a large folio, and nothing else of it. */
static vm_fault_t umem_insert_page(struct vm_fault *vmf, struct page *page)
{
	int err;

	if (WARN_ON_ONCE(!(vmf->vma->vm_flags & VM_MIXEDMAP)))
		return VM_FAULT_SIGBUS;
	err = vm_insert_page(vmf->vma, vmf->address & PAGE_MASK, page);

	/* EBUSY: another thread was faster. */
	return err == -ENOMEM ? VM_FAULT_OOM : err && err != -EBUSY ? VM_FAULT_SIGBUS :
	       VM_FAULT_NOPAGE;
}

/* Map those pages of a run that are not mapped yet. */
static void umem_insert_run(struct vm_area_struct *vma, struct folio *folio, pgoff_t index,
			    unsigned long nr)
{
	struct page *pages[UMEM_AROUND_PAGES];
	unsigned long i, left = nr;

	for (i = 0; i < nr; i++)
		/* Where pages are is found with bits of their flags that do not change. */
		pages[i] = data_race(folio_file_page(folio, index + i));
	for (i = 0; i < nr; i = nr - left + 1) {
		unsigned long addr = vma->vm_start + ((index + i - vma->vm_pgoff) << PAGE_SHIFT);

		left = nr - i;
		/* EBUSY: the first of those left is mapped. Nobody waits for any of them. */
		if (vm_insert_pages(vma, addr, pages + i, &left) != -EBUSY)
			break;
	}
}

/*
 * Fault-around for a large folio in a mapping that is guarded: the whole folio if nothing of its
 * block is missing, else the few pages that follow the one that was touched and are present.
 * A bit that is set from now on is set by who waits for the folio's lock.
 */
static void umem_insert_around(struct vm_fault *vmf, struct umem_region *region,
			       struct folio *folio)
{
	struct vm_area_struct *vma = vmf->vma;
	pgoff_t index = vmf->pgoff + 1, end, nr;

	if (folio_test_has_hwpoisoned(folio))
		return;
	end = min3(folio_next_index(folio), vma->vm_pgoff + vma_pages(vma), region->nr_pages);
	if (umem_blocks_present(region, vmf->pgoff, vmf->pgoff)) {
		index = max(folio->index, vma->vm_pgoff);
	} else {
		end = min(end, index + UMEM_AROUND_PAGES);
		/* What becomes present meanwhile is mapped when it is touched. */
		end = data_race(find_next_bit(region->missing, end, index));
	}
	for (; index < end; index += nr) {
		nr = min(end - index, UMEM_AROUND_PAGES);
		umem_insert_run(vma, folio, index, nr);
	}
}

static vm_fault_t umem_guest_fault(struct vm_fault *vmf)
{
	struct umem_region *region = vmf->vma->vm_file->private_data;
	struct folio *folio;
	vm_fault_t ret;

	if (vmf->pgoff >= region->nr_pages)
		return VM_FAULT_SIGBUS;
	if (umem_page_missing(region, vmf->pgoff))
		return umem_request_page(vmf, region);
	/*
	 * It is the creator who is out of memory, beyond what killing could free: whoever
	 * touches the page could try again for ever.
	 */
	if (umem_region_charge(region, vmf->pgoff))
		return VM_FAULT_SIGBUS;

	ret = umem_shmem_vm_ops->fault(vmf);
	if (!(ret & VM_FAULT_LOCKED))
		return ret;

	/* The word that tells is one of a list in folios that are not large. */
	folio = data_race(page_folio(vmf->page));
	/*
	 * The page may have been marked missing meanwhile. Its contents are
	 * dropped under this lock, so either the bit is seen here, or whoever
	 * set it waits for the lock and undoes the mapping.
	 */
	if (umem_page_missing(region, vmf->pgoff)) {
		ret = VM_FAULT_NOPAGE;
	} else if (folio_test_large(folio) && (vmf->vma->vm_flags & VM_MIXEDMAP)) {
		ret = umem_insert_page(vmf, vmf->page);
		umem_insert_around(vmf, region, folio);
	} else {
		return ret;
	}
	folio_unlock(folio);
	folio_put(folio);
	vmf->page = NULL;
	return ret;
}

static vm_fault_t umem_guest_map_pages(struct vm_fault *vmf, pgoff_t start, pgoff_t end)
{
	struct umem_region *region = vmf->vma->vm_file->private_data;
	vm_fault_t ret = 0;

	/* A large folio would be mapped whole, here and there whatever the end is. */
	if (vmf->vma->vm_flags & VM_MIXEDMAP)
		return 0;
	/* Pairs with synchronize_rcu() in umem_region_mark_parts(). */
	rcu_read_lock();
	if (end < region->nr_pages && umem_blocks_present(region, start, end))
		ret = umem_shmem_vm_ops->map_pages(vmf, start, end);
	rcu_read_unlock();
	return ret;
}

/*
 * A mapping is about to get the right to write to the page; see track.c. If the page is
 * being marked missing, that waits for the lock, and undoes the mapping.
 */
static vm_fault_t umem_guest_page_mkwrite(struct vm_fault *vmf)
{
	struct umem_region *region = vmf->vma->vm_file->private_data;
	struct folio *folio = page_folio(vmf->page);
	struct umem_span span;

	folio_lock(folio);
	if (folio->mapping != region->file->f_mapping) {
		folio_unlock(folio);
		return VM_FAULT_NOPAGE;
	}
	if (vmf->vma->vm_flags & VM_MIXEDMAP)
		span = (struct umem_span){ vmf->pgoff, vmf->pgoff + 1 };
	else	/* it may be granted for all of a large folio */
		span = (struct umem_span){ folio->index, folio_next_index(folio) };
	umem_track_mark(region, span);
	return VM_FAULT_LOCKED;
}

/* Besides us, who wants to see the first write to a page: as vma_wants_writenotify(). */
static bool umem_view_wants_writenotify(struct vm_area_struct *vma)
{
	return userfaultfd_wp(vma) ||
	       (IS_ENABLED(CONFIG_MEM_SOFT_DIRTY) && !(vma->vm_flags & VM_SOFTDIRTY));
}

static bool umem_view_is_tracked(const struct umem_view *view)
{
	return view->vma->vm_ops == &umem_tracking_vm_ops;
}

/* Is somebody at work who found that pages of the view may be collapsed? */
static bool umem_view_may_be_collapsing(const struct umem_region *region,
					const struct umem_view *view)
{
	const struct umem_view *other;
	long mappings = 0;

	/* A file was opened for each mapping that was made: split and copied ones share it. */
	list_for_each_entry(other, &region->views, link)
		mappings += other->vma->vm_file == view->vma->vm_file;
	return umem_may_be_collapsing(view->vma->vm_file, mappings);
}

/*
 * The locks of the mapping are held for writing: what is unmapped here stays unmapped. Nobody
 * begins to collapse its pages from when DONTEXPAND is set; whoever has begun is waited for,
 * which means that the view stays as it is for now.
 */
static void umem_view_set_guarded(const struct umem_region *region, struct umem_view *view,
				  bool guarded)
{
	struct vm_area_struct *vma = view->vma;

	if (view->guarded == guarded)
		return;
	if (!guarded) {
		vm_flags_clear(vma, UMEM_GUARD);
	} else {
		vm_flags_set(vma, VM_DONTEXPAND);
		if (umem_view_may_be_collapsing(region, view))
			return;
		unmap_mapping_pages(vma->vm_file->f_mapping, vma->vm_pgoff, vma_pages(vma), false);
		vm_flags_set(vma, UMEM_GUARD);
	}
	view->guarded = guarded;
}

/* Also to track single pages of the large folios that a region was made with. */
static bool umem_views_are_guarded(const struct umem_region *region)
{
	lockdep_assert_held(&region->view_lock);
	return region->guarded || (region->huge && rcu_access_pointer(region->dirty));
}

/*
 * A mapping with page_mkwrite must have pages mapped read-only at first. The memory
 * manager does that for one that had it from its start, and at each mprotect(); here is
 * vma_set_page_prot(), which is not exported. Without it faults for reading, fault-around
 * and (from 6.3 on) the migration of a page would grant the right to write unasked.
 *
 * Nobody faults in the mapping: it is new, or its locks are held for writing.
 */
static void umem_view_set_tracked(struct umem_view *view, bool tracked)
{
	struct vm_area_struct *vma = view->vma;
	bool notify = tracked || umem_view_wants_writenotify(vma);

	vma->vm_ops = tracked ? &umem_tracking_vm_ops : &umem_plain_vm_ops;
	/* Migration reads it without these locks, but has the folio's until a page is mapped. */
	WRITE_ONCE(vma->vm_page_prot,
		   vm_get_page_prot(vma->vm_flags & ~(notify ? VM_SHARED : VM_NONE)));
}

/* A mapping was made, copied by a fork, moved or split. */
static void umem_guest_open(struct vm_area_struct *vma)
{
	struct umem_region *region = vma->vm_file->private_data;
	struct umem_view *view = kmalloc(sizeof(*view), GFP_KERNEL_ACCOUNT | __GFP_NOFAIL);

	view->vma = vma;
	view->guarded = vma->vm_flags & VM_MIXEDMAP;
	/* What a copy has is the original's, until here. */
	vma->vm_private_data = view;
	mutex_lock(&region->view_lock);
	list_add(&view->link, &region->views);
	umem_view_set_tracked(view, rcu_access_pointer(region->dirty));
	mutex_unlock(&region->view_lock);
}

static void umem_guest_close(struct vm_area_struct *vma)
{
	struct umem_region *region = vma->vm_file->private_data;
	struct umem_view *view = vma->vm_private_data;

	mutex_lock(&region->view_lock);
	list_del(&view->link);
	mutex_unlock(&region->view_lock);
	kfree(view);
}

static void umem_guest_learn_vm_ops(const struct vm_operations_struct *shmem)
{
	mutex_lock(&umem_guest_vm_ops_lock);
	if (!umem_shmem_vm_ops) {
		umem_plain_vm_ops = *shmem;
		umem_plain_vm_ops.open = umem_guest_open;
		umem_plain_vm_ops.close = umem_guest_close;
		umem_plain_vm_ops.fault = umem_guest_fault;
		umem_plain_vm_ops.map_pages = umem_guest_map_pages;
		umem_tracking_vm_ops = umem_plain_vm_ops;
		umem_tracking_vm_ops.page_mkwrite = umem_guest_page_mkwrite;
		umem_shmem_vm_ops = shmem;
	}
	mutex_unlock(&umem_guest_vm_ops_lock);
}

static bool umem_view_is_settled(const struct umem_region *region, const struct umem_view *view)
{
	return umem_view_is_tracked(view) == !!rcu_access_pointer(region->dirty) &&
	       view->guarded == umem_views_are_guarded(region);
}

/*
 * An address space, with a reference, some of whose views are not yet as they should
 * be. One without users faults in nothing any more and may be left as it is; it exists
 * at least until its views were closed.
 */
static struct mm_struct *umem_guest_next_mm(struct umem_region *region)
{
	struct mm_struct *mm = NULL;
	struct umem_view *view;

	mutex_lock(&region->view_lock);
	list_for_each_entry(view, &region->views, link) {
		if (!umem_view_is_settled(region, view) && mmget_not_zero(view->vma->vm_mm)) {
			mm = view->vma->vm_mm;
			break;
		}
	}
	mutex_unlock(&region->view_lock);
	return mm;
}

/* mmap_lock keeps faults out of the mappings, and the mappings in @views. */
static bool umem_guest_settle_mm(struct umem_region *region, struct mm_struct *mm)
{
	struct umem_view *view;
	bool settled = true;

	mmap_write_lock(mm);
	mutex_lock(&region->view_lock);
	list_for_each_entry(view, &region->views, link) {
		if (view->vma->vm_mm != mm)
			continue;
		vma_start_write(view->vma);
		umem_view_set_tracked(view, rcu_access_pointer(region->dirty));
		umem_view_set_guarded(region, view, umem_views_are_guarded(region));
		settled &= umem_view_is_settled(region, view);
	}
	mutex_unlock(&region->view_lock);
	mmap_write_unlock(mm);
	return settled;
}

static void umem_guest_settle(struct umem_region *region)
{
	struct mm_struct *mm;

	lockdep_assert_held(&region->mode_lock);
	while ((mm = umem_guest_next_mm(region))) {
		if (!umem_guest_settle_mm(region, mm))
			schedule_timeout_uninterruptible(1);
		/* The last reference may wait for I/O, and that for our pager. */
		mmput_async(mm);
	}
}

/**
 * umem_guest_track - dirty tracking begins or ends
 * @region: the region, with mode_lock held
 * @dirty: the bitmap, or NULL
 *
 * A view made from the change of @region->dirty on is as it should be from its start;
 * the others are once this returns.
 */
void umem_guest_track(struct umem_region *region, unsigned long *dirty)
{
	mutex_lock(&region->view_lock);
	rcu_assign_pointer(region->dirty, dirty);
	mutex_unlock(&region->view_lock);
	umem_guest_settle(region);
}

/**
 * umem_guest_guard - pages may be missing from now on, or none is any more
 * @region: the region, with mode_lock held
 * @guarded: which of both
 *
 * No page may be missing while a view is not guarded. A mapping that is made is guarded
 * first, whatever the region is; a copy of one as that is, which takes the same lock.
 */
void umem_guest_guard(struct umem_region *region, bool guarded)
{
	mutex_lock(&region->view_lock);
	region->guarded = guarded;
	mutex_unlock(&region->view_lock);
	umem_guest_settle(region);
}

/**
 * umem_guest_mmap - make a mapping a guest view
 * @region: the region; @vma->vm_file is one of its files, or of /dev/umem
 * @vma: the mapping
 *
 * Return: 0, or -EINVAL for a private mapping: it would keep copies of its own.
 */
int umem_guest_mmap(struct umem_region *region, struct vm_area_struct *vma)
{
	struct file *file;
	int err;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	/* One of its own: see umem_view_may_be_collapsing(). */
	file = umem_region_open_file(region, vma->vm_file->f_flags & O_ACCMODE);
	if (IS_ERR(file))
		return PTR_ERR(file);
	vma_set_file(vma, file);
	fput(file);
	err = vfs_mmap(region->file, vma);
	if (err)
		return err;
	umem_guest_learn_vm_ops(vma->vm_ops);
	/*
	 * Guest memory does not belong in a core dump. The guard makes sure, too, that the
	 * memory manager does not merge the mapping with one beside it, now that its flags
	 * are others.
	 */
	vm_flags_set(vma, UMEM_GUARD | VM_DONTDUMP);
	umem_guest_open(vma);
	if (!atomic_long_read(&region->nr_missing))
		umem_region_relax(region);
	return 0;
}

static vm_fault_t umem_fill_fault(struct vm_fault *vmf)
{
	struct umem_region *region = vmf->vma->vm_file->private_data;
	vm_fault_t ret = VM_FAULT_SIGBUS;
	struct folio *folio;

	if (vmf->pgoff >= region->nr_pages)
		return VM_FAULT_SIGBUS;

	/* Against UMEM_PUBLISH and discards, until the page is mapped. */
	down_read(&region->fill_lock);
	if (!umem_page_fillable(region, vmf->pgoff))
		goto unlock;
	folio = umem_region_lock_folio(region, vmf->pgoff);
	if (IS_ERR(folio))
		goto unlock;
	/* Against UMEM_COPY, which makes the page present under its lock. */
	if (umem_page_fillable(region, vmf->pgoff))
		ret = umem_insert_page(vmf, folio_file_page(folio, vmf->pgoff));
	folio_unlock(folio);
	folio_put(folio);
unlock:
	up_read(&region->fill_lock);
	return ret;
}

/* vm_private_data is the pager's file, which a fill view keeps open. */
static void umem_fill_open(struct vm_area_struct *vma)
{
	struct umem_region *region = vma->vm_file->private_data;

	get_file(vma->vm_private_data);
	atomic_inc(&region->nr_fill_views);
}

static void umem_fill_close(struct vm_area_struct *vma)
{
	struct umem_region *region = vma->vm_file->private_data;

	atomic_dec(&region->nr_fill_views);
	fput(vma->vm_private_data);
}

static const struct vm_operations_struct umem_fill_vm_ops = {
	.open	= umem_fill_open,
	.close	= umem_fill_close,
	.fault	= umem_fill_fault,
};

/**
 * umem_fill_mmap - make a mapping a fill view
 * @pager_file: the pager fd's file; the mapping keeps it open
 * @vma: the mapping
 *
 * The mapping moves to a file of the region, for rmap to find its pages.
 * Return: 0 or a negative errno.
 */
int umem_fill_mmap(struct file *pager_file, struct vm_area_struct *vma)
{
	struct umem_pager *pager = pager_file->private_data;
	struct file *file;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	file = umem_region_open_file(pager->region, O_RDWR);
	if (IS_ERR(file))
		return PTR_ERR(file);
	/*
	 * Through the mapping nobody gets at more: no hole, no guest view. The
	 * file's reference to the module is for either of these operations.
	 */
	file->f_op = &umem_fill_fops;
	vma_set_file(vma, file);
	fput(file);
	vma->vm_private_data = pager_file;
	vma->vm_ops = &umem_fill_vm_ops;
	vm_flags_set(vma, VM_MIXEDMAP | VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY);
	umem_fill_open(vma);
	return 0;
}
