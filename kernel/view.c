// SPDX-License-Identifier: GPL-2.0-only
/*
 * Views: how a region is seen. A guest view shows present pages and waits for
 * missing ones; the fill view shows missing pages and never waits.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/huge_mm.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>

#include "umem.h"

/* Largest folio of shmem; a fault may map all of a folio. */
#define UMEM_BLOCK_PAGES	(1UL << (PMD_SHIFT - PAGE_SHIFT))

/* shmem's own operations for a mapping, learnt from the first one */
static DEFINE_MUTEX(umem_guest_vm_ops_lock);
static struct vm_operations_struct umem_guest_vm_ops;
static const struct vm_operations_struct *umem_shmem_vm_ops;

/* Is every page of the blocks that the range touches present? */
static bool umem_blocks_present(const struct umem_region *region, pgoff_t first, pgoff_t last)
{
	pgoff_t start = round_down(first, UMEM_BLOCK_PAGES);
	pgoff_t end = min(round_up(last + 1, UMEM_BLOCK_PAGES), region->nr_pages);

	if (!atomic_long_read(&region->nr_missing) && !atomic_long_read(&region->nr_poisoned))
		return true;
	return find_next_bit(region->missing, end, start) >= end;
}

/* Map one page of a large folio whose other pages may be missing. */
static vm_fault_t umem_insert_page(struct vm_fault *vmf, struct page *page)
{
	int err = vm_insert_page(vmf->vma, vmf->address & PAGE_MASK, page);

	/* EBUSY: another thread was faster. */
	return err == -ENOMEM ? VM_FAULT_OOM : err && err != -EBUSY ? VM_FAULT_SIGBUS :
	       VM_FAULT_NOPAGE;
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
	if (umem_region_charge(region, vmf->pgoff))
		return VM_FAULT_OOM;

	ret = umem_shmem_vm_ops->fault(vmf);
	if (!(ret & VM_FAULT_LOCKED))
		return ret;

	/*
	 * The page may have been marked missing meanwhile. Its contents are
	 * dropped under this lock, so either the bit is seen here, or whoever
	 * set it waits for the lock and undoes the mapping.
	 */
	folio = page_folio(vmf->page);
	umem_track_mark_page(region, vmf->pgoff);
	if (umem_page_missing(region, vmf->pgoff)) {
		ret = VM_FAULT_NOPAGE;
	} else if (folio_test_large(folio) &&
		   !umem_blocks_present(region, vmf->pgoff, vmf->pgoff)) {
		ret = umem_insert_page(vmf, vmf->page);
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

	/*
	 * Pairs with synchronize_rcu() in umem_region_mark_missing() and in
	 * umem_track_start().
	 */
	rcu_read_lock();
	if (end < region->nr_pages && !rcu_access_pointer(region->tracker) &&
	    umem_blocks_present(region, start, end))
		ret = umem_shmem_vm_ops->map_pages(vmf, start, end);
	rcu_read_unlock();
	return ret;
}

/* A fork may have copied what maps its pages, or a mapping was split. */
static void umem_guest_open(struct vm_area_struct *vma)
{
	struct umem_span span = { vma->vm_pgoff, vma->vm_pgoff + vma_pages(vma) };

	umem_track_mark(vma->vm_file->private_data, span);
}

static const struct vm_operations_struct *
umem_guest_vm_ops_from(const struct vm_operations_struct *shmem)
{
	mutex_lock(&umem_guest_vm_ops_lock);
	if (!umem_shmem_vm_ops) {
		umem_guest_vm_ops = *shmem;
		umem_guest_vm_ops.open = umem_guest_open;
		umem_guest_vm_ops.fault = umem_guest_fault;
		umem_guest_vm_ops.map_pages = umem_guest_map_pages;
		umem_shmem_vm_ops = shmem;
	}
	mutex_unlock(&umem_guest_vm_ops_lock);
	return &umem_guest_vm_ops;
}

/**
 * umem_guest_mmap - make a mapping a guest view
 * @region: the region; @vma->vm_file is one of its files
 * @vma: the mapping
 *
 * Return: 0, or -EINVAL for a private mapping: it would keep copies of its own.
 */
int umem_guest_mmap(struct umem_region *region, struct vm_area_struct *vma)
{
	int err;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	err = vfs_mmap(region->file, vma);
	if (err)
		return err;
	vma->vm_ops = umem_guest_vm_ops_from(vma->vm_ops);
	/*
	 * MIXEDMAP allows a single page of a large folio to be mapped, and
	 * DONTEXPAND keeps the kernel from collapsing pages, which would fill
	 * missing ones with zeroes. Guest memory does not belong in a core dump.
	 */
	vm_flags_set(vma, VM_MIXEDMAP | VM_DONTEXPAND | VM_DONTDUMP);
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
	if (IS_ERR(folio)) {
		ret = vmf_error(PTR_ERR(folio));
		goto unlock;
	}
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
	vma_set_file(vma, file);
	fput(file);
	vma->vm_private_data = pager_file;
	vma->vm_ops = &umem_fill_vm_ops;
	vm_flags_set(vma, VM_MIXEDMAP | VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY);
	umem_fill_open(vma);
	return 0;
}
