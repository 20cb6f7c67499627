/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libumem: the kernel interface of umem as C functions
 *
 * <linux/umem.h> explains the terms, the structures and what each error means.
 *
 * Every function returns 0 or a negative errno; none touches errno as a way of
 * telling something, none prints, none keeps state, and all may be called from
 * several threads. Descriptors they make are close-on-exec. Lengths and offsets
 * are bytes and multiples of UMEM_PAGE_SIZE.
 */
#ifndef LIBUMEM_H
#define LIBUMEM_H

#include <linux/umem.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UMEM_DEVICE	"/dev/umem"

/**
 * struct umem_done - what a call did, in pages
 * @pages: pages whose state it changed
 * @skipped: pages it left as they were
 *
 * Filled whether the call succeeds or fails: after an error it tells how far
 * the call came.
 */
struct umem_done {
	uint64_t pages;
	uint64_t skipped;
};

/**
 * umem_device_open - open /dev/umem
 * @device: the new descriptor
 *
 * Return: 0 or -errno of open(): -ENOENT when the module is not loaded, -EACCES
 * when the caller may not use it.
 */
int umem_device_open(int *device);

/**
 * umem_create - make a region, all of it present and zero
 * @device: from umem_device_open()
 * @length: bytes
 * @flags: of enum umem_create_flags
 * @name: for people, shorter than UMEM_NAME_MAX; NULL is the empty name
 * @region: the new region's descriptor
 * @id: the new region's id; may be NULL
 *
 * Return: 0 or -errno; -ENAMETOOLONG when @name does not fit.
 */
int umem_create(int device, uint64_t length, uint32_t flags, const char *name, int *region,
		uint32_t *id);

/**
 * umem_open - another descriptor of a living region
 * @device: from umem_device_open()
 * @id: as told by umem_create() or umem_info()
 * @region: the new descriptor
 *
 * Return: 0 or -errno.
 */
int umem_open(int device, uint32_t id, int *region);

/**
 * umem_attach - become the pager of a region
 * @region: the region's descriptor
 * @flags: of enum umem_attach_flags
 * @pager: the new pager descriptor
 *
 * Return: 0 or -errno; -EBUSY while another pager is there.
 */
int umem_attach(int region, uint32_t flags, int *pager);

/**
 * umem_info - state and counters of a region
 * @region: the region's descriptor
 * @info: filled
 *
 * Return: 0 or -errno.
 */
int umem_info(int region, struct umem_info *info);

/**
 * umem_mark_missing - drop contents and make pages missing
 * @pager: from umem_attach()
 * @offset: where in the region
 * @length: how much
 * @done: what was changed; may be NULL
 *
 * Return: 0 or -errno.
 */
int umem_mark_missing(int pager, uint64_t offset, uint64_t length, struct umem_done *done);

/**
 * umem_publish - make missing pages present with what was put there unpublished
 * @pager: from umem_attach()
 * @offset: where in the region
 * @length: how much
 * @done: what was changed; may be NULL
 *
 * Return: 0 or -errno.
 */
int umem_publish(int pager, uint64_t offset, uint64_t length, struct umem_done *done);

/**
 * umem_zero - make missing pages present and zero
 * @pager: from umem_attach()
 * @flags: of enum umem_fill_flags
 * @offset: where in the region
 * @length: how much
 * @done: what was changed; may be NULL
 *
 * Return: 0 or -errno.
 */
int umem_zero(int pager, uint32_t flags, uint64_t offset, uint64_t length, struct umem_done *done);

/**
 * umem_poison - make missing pages raise SIGBUS
 * @pager: from umem_attach()
 * @offset: where in the region
 * @length: how much
 * @done: what was changed; may be NULL
 *
 * Return: 0 or -errno.
 */
int umem_poison(int pager, uint64_t offset, uint64_t length, struct umem_done *done);

/**
 * umem_copy - fill missing pages from memory and make them present
 * @pager: from umem_attach()
 * @flags: of enum umem_fill_flags
 * @entries: what goes where, done in this order
 * @count: how many entries, 1 to UMEM_COPY_MAX
 * @done: what was changed; may be NULL
 *
 * Return: 0 or -errno.
 */
int umem_copy(int pager, uint32_t flags, const struct umem_copy_entry *entries, uint32_t count,
	      struct umem_done *done);

/**
 * umem_copy_events - umem_copy(), and then what umem_read_events() gives without waiting
 * @pager: from umem_attach()
 * @flags: of enum umem_fill_flags
 * @entries: what goes where, done in this order
 * @entries_count: how many entries, 1 to UMEM_COPY_MAX
 * @done: what was changed; may be NULL
 * @events: filled from the start, if all of the pages are done
 * @max: room in @events; with 0 this is umem_copy()
 * @count: how many were filled, 0 if nothing has happened, or after an error
 *
 * Return: 0 or -errno.
 */
int umem_copy_events(int pager, uint32_t flags, const struct umem_copy_entry *entries,
		     uint32_t entries_count, struct umem_done *done, struct umem_event *events,
		     uint32_t max, size_t *count);

/**
 * umem_get_bitmap - which pages of a range are present, requested or poisoned
 * @pager: from umem_attach()
 * @kind: of enum umem_bitmap_kind
 * @offset: where in the region
 * @length: how much
 * @bits: one bit a page, room for umem_bitmap_words(@length) words
 *
 * Return: 0 or -errno.
 */
int umem_get_bitmap(int pager, uint32_t kind, uint64_t offset, uint64_t length, uint64_t *bits);

/**
 * umem_track_start - begin to track which pages become dirty; all of them are now
 * @pager: from umem_attach(); its end stops tracking
 *
 * Return: 0 or -errno, -EALREADY if they are tracked.
 */
int umem_track_start(int pager);

/**
 * umem_track_stop - track dirty pages no longer
 * @pager: from umem_attach()
 *
 * Return: 0 or -errno, -ENODATA if they were not tracked.
 */
int umem_track_stop(int pager);

/**
 * umem_track_collect - tell which pages of a range are dirty, and make them clean
 * @pager: from umem_attach()
 * @offset: where in the region
 * @length: how much
 * @bits: one bit a page, room for umem_bitmap_words(@length) words
 * @pages: how many are dirty; may be NULL
 *
 * A write after this is told by the next call. On failure what was not told stays
 * dirty; what was told before the failure is in @bits, if they were 0 before.
 * Return: 0 or -errno.
 */
int umem_track_collect(int pager, uint64_t offset, uint64_t length, uint64_t *bits,
		       uint64_t *pages);

/**
 * umem_bitmap_words - words a bitmap of @length bytes of a region takes
 */
static inline size_t umem_bitmap_words(uint64_t length)
{
	uint64_t pages = length >> UMEM_PAGE_SHIFT;

	return (size_t)(pages / 64 + (pages % 64 != 0));
}

/**
 * umem_read_events - what happened in the region
 * @pager: from umem_attach()
 * @events: filled from the start
 * @max: room in @events, at least 1
 * @count: how many were filled
 *
 * Waits for the first event unless @pager has O_NONBLOCK.
 *
 * Return: 0 with @count at least 1, or -errno; -EAGAIN when it would wait;
 * -EINTR when a signal came first.
 */
int umem_read_events(int pager, struct umem_event *events, size_t max, size_t *count);

/**
 * umem_map_guest - map a guest view
 * @region: the region's descriptor
 * @offset: where in the region
 * @length: how much
 * @prot: PROT_READ, PROT_WRITE
 * @address: the mapping
 *
 * Touching a missing page of it waits for the pager.
 *
 * Return: 0 or -errno.
 */
int umem_map_guest(int region, uint64_t offset, uint64_t length, int prot, void **address);

/**
 * umem_map_fill - map the fill view
 * @pager: from umem_attach()
 * @offset: where in the region
 * @length: how much
 * @address: the mapping, readable and writable
 *
 * It gives the missing pages, never waits, and raises SIGBUS on present ones.
 *
 * Return: 0 or -errno.
 */
int umem_map_fill(int pager, uint64_t offset, uint64_t length, void **address);

/**
 * umem_unmap - end a mapping of either view
 * @address: as mapped
 * @length: as mapped
 *
 * Return: 0 or -errno.
 */
int umem_unmap(void *address, uint64_t length);

/**
 * umem_allocate - take the memory of a range now
 * @region: the region's descriptor
 * @offset: where in the region
 * @length: how much
 *
 * Changes no page's state and no page's contents.
 *
 * Return: 0 or -errno; -ENOMEM, or -ENOSPC from the memory below, when there
 * is not enough.
 */
int umem_allocate(int region, uint64_t offset, uint64_t length);

/**
 * umem_discard - punch a hole, as a balloon does
 * @region: the region's descriptor
 * @offset: where in the region
 * @length: how much
 *
 * The range reads as zeroes from now on, missing pages become present, and the
 * pager is told.
 *
 * Return: 0 or -errno.
 */
int umem_discard(int region, uint64_t offset, uint64_t length);

#ifdef __cplusplus
}
#endif

#endif /* LIBUMEM_H */
