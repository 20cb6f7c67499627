/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * umem: memory whose pages may be missing until a pager brings them
 *
 * This header is the manual of the kernel interface. Terms:
 *
 * region     one block of memory, backed by a shmem file of the module. It is
 *            born with every page present and zero.
 * page       4 KiB of a region, UMEM_PAGE_SIZE, whatever folios back it.
 * missing    a page whose contents have not arrived. Nobody sees the contents
 *            of a missing page through a guest view: touching one waits.
 * guest view any MAP_SHARED mapping of a region file descriptor.
 * pager      who fills missing pages; holds the region's pager fd.
 * fill view  a MAP_SHARED mapping of the pager fd: gives the missing pages,
 *            never waits, raises SIGBUS on a present page.
 * request    "somebody waits for this page", read from the pager fd.
 *
 * Every structure starts with its size in bytes. A structure shorter than the
 * first published one is refused with EINVAL, a longer one is accepted if all
 * that this kernel does not know is zero and refused with E2BIG otherwise.
 * Unknown flags are refused with EOPNOTSUPP, non-zero reserved fields with
 * EINVAL. Offsets and lengths are in bytes and multiples of UMEM_PAGE_SIZE.
 *
 * One errno has one meaning:
 *
 * ENOTTY      this ioctl does not belong to this kind of file descriptor
 * EFAULT      an address given by the caller cannot be read or written
 * EINVAL      size too short, reserved field not zero, range unaligned,
 *             empty or not inside the region, name not terminated, no entry
 *             or too many, room for events without an address or the reverse
 * E2BIG       the structure is longer than known and its rest is not zero, or it
 *             is longer than a page
 * EOPNOTSUPP  unknown flag or value of an enumeration
 * EOVERFLOW   offset plus length overflows
 * ENOSPC      a limit of the module is reached (max_regions, max_user_regions, max_mib)
 * ENOENT      no region has this id
 * EPERM       the region belongs to another user
 * EBUSY       the region has a pager
 * EBADF       a pager attaches through a descriptor that is not open for writing
 * EMFILE      the process has no file descriptor left
 * ENXIO       this descriptor has no region yet
 * ENOMEM      out of memory, or the creator's memory cgroup is
 * EALREADY    dirty pages are tracked already
 * ENODATA     dirty pages are not tracked
 * EINTR       a fatal signal came; the fields for output tell what was done
 * EAGAIN      read() of a pager with O_NONBLOCK and nothing to read; read() of a
 *             region that begins at a missing page
 * EIO         read() of a region that begins at a poisoned page
 */
#ifndef _UAPI_LINUX_UMEM_H
#define _UAPI_LINUX_UMEM_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define UMEM_PAGE_SHIFT	12
#define UMEM_PAGE_SIZE	(1UL << UMEM_PAGE_SHIFT)
#define UMEM_NAME_MAX	64	/* with the terminating NUL */
#define UMEM_COPY_MAX	1024	/* entries of one UMEM_COPY */

#define UMEM_IOCTL_TYPE	0xB9

/* on /dev/umem */
#define UMEM_CREATE		_IO(UMEM_IOCTL_TYPE, 0x00)
#define UMEM_OPEN		_IO(UMEM_IOCTL_TYPE, 0x01)
/* on a region fd, or on a /dev/umem fd that mmap() has bound to a region */
#define UMEM_ATTACH		_IO(UMEM_IOCTL_TYPE, 0x10)
#define UMEM_INFO		_IO(UMEM_IOCTL_TYPE, 0x11)
/* on a pager fd */
#define UMEM_MARK_MISSING	_IO(UMEM_IOCTL_TYPE, 0x20)
#define UMEM_PUBLISH		_IO(UMEM_IOCTL_TYPE, 0x21)
#define UMEM_COPY		_IO(UMEM_IOCTL_TYPE, 0x22)
#define UMEM_ZERO		_IO(UMEM_IOCTL_TYPE, 0x23)
#define UMEM_POISON		_IO(UMEM_IOCTL_TYPE, 0x24)
#define UMEM_GET_BITMAP		_IO(UMEM_IOCTL_TYPE, 0x25)
#define UMEM_TRACK		_IO(UMEM_IOCTL_TYPE, 0x26)

/**
 * enum umem_create_flags - flags of UMEM_CREATE
 * @UMEM_CREATE_HUGE: back the region with folios of 2 MiB where there is memory for
 *	them, with smaller ones otherwise. Its pages are missing and present one by one all
 *	the same. A part of it less than 2 MiB at its end has pages
 */
enum umem_create_flags {
	UMEM_CREATE_HUGE = 1 << 0,
};

/**
 * struct umem_create - ioctl(UMEM_CREATE)
 * @size: sizeof(struct umem_create)
 * @flags: of enum umem_create_flags
 * @length: bytes, a positive multiple of UMEM_PAGE_SIZE
 * @out_fd: the region fd, close-on-exec
 * @out_id: the region's id, for UMEM_OPEN
 * @name: NUL-terminated name, for people; may be empty
 *
 * Makes a region owned by the caller's effective uid; its memory is charged to
 * the caller's memory cgroup, whoever touches it. The region lives as long as
 * a descriptor, a mapping or a pager of it does.
 */
struct umem_create {
	__u32 size;
	__u32 flags;
	__aligned_u64 length;
	__s32 out_fd;
	__u32 out_id;
	char name[UMEM_NAME_MAX];
};

/**
 * struct umem_open - ioctl(UMEM_OPEN)
 * @size: sizeof(struct umem_open)
 * @flags: must be 0
 * @id: the region's id
 * @out_fd: a new region fd, close-on-exec
 *
 * Opens a living region for its creator's uid or a holder of CAP_SYS_ADMIN.
 */
struct umem_open {
	__u32 size;
	__u32 flags;
	__u32 id;
	__s32 out_fd;
};

/**
 * enum umem_attach_flags - flags of UMEM_ATTACH
 * @UMEM_ATTACH_SIGBUS: when this pager goes while pages are missing, touching
 *	one raises SIGBUS until the next pager attaches. Without it the
 *	touchers wait for that next pager.
 */
enum umem_attach_flags {
	UMEM_ATTACH_SIGBUS = 1 << 0,
};

/**
 * struct umem_attach - ioctl(UMEM_ATTACH)
 * @size: sizeof(struct umem_attach)
 * @flags: of enum umem_attach_flags
 * @out_fd: the pager fd, close-on-exec
 * @__reserved: must be 0
 *
 * One pager at a time: EBUSY while another pager fd or a mapping of it is
 * open. Every request that no earlier pager answered is delivered again.
 */
struct umem_attach {
	__u32 size;
	__u32 flags;
	__s32 out_fd;
	__u32 __reserved;
};

/**
 * struct umem_info - ioctl(UMEM_INFO)
 * @size: sizeof(struct umem_info)
 * @flags: must be 0
 * @id: the region's id
 * @pager: 1 while a pager is attached
 * @length: bytes
 * @missing: bytes missing now, poisoned ones not counted
 * @poisoned: bytes poisoned now
 * @waiters: threads waiting now
 * @faults: times a thread found a page missing
 * @requests: requests queued; many threads waiting for a page are one
 * @delivered: requests read by pagers, a second delivery counted again
 * @published: pages made present by UMEM_PUBLISH
 * @copied: pages made present by UMEM_COPY
 * @zeroed: pages made present by UMEM_ZERO
 * @discarded: missing pages made present and zero by a punched hole
 * @duplicates: pages that PUBLISH, COPY, ZERO or POISON found present
 * @pagers_lost: times a pager went while pages were missing
 * @name: as created
 * @huge_folios: folios of 2 MiB that were allocated
 * @huge_fallbacks: smaller ones that were allocated for want of one of 2 MiB
 */
struct umem_info {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 pager;
	__aligned_u64 length;
	__aligned_u64 missing;
	__aligned_u64 poisoned;
	__aligned_u64 waiters;
	__aligned_u64 faults;
	__aligned_u64 requests;
	__aligned_u64 delivered;
	__aligned_u64 published;
	__aligned_u64 copied;
	__aligned_u64 zeroed;
	__aligned_u64 discarded;
	__aligned_u64 duplicates;
	__aligned_u64 pagers_lost;
	char name[UMEM_NAME_MAX];
	__aligned_u64 huge_folios;
	__aligned_u64 huge_fallbacks;
};

/**
 * enum umem_event_type - what a read() from a pager fd tells
 * @UMEM_EVENT_REQUEST: a thread waits for the page at @offset
 * @UMEM_EVENT_DISCARD: missing pages of the range are now present and zero,
 *	because the guest discarded them; there is no need to bring them
 */
enum umem_event_type {
	UMEM_EVENT_REQUEST = 1,
	UMEM_EVENT_DISCARD = 2,
};

/**
 * struct umem_event - record read from a pager fd
 * @type: of enum umem_event_type
 * @tid: thread that asked, in the pid namespace of the reader; 0 if not in it
 * @offset: bytes from the start of the region
 * @length: bytes; UMEM_PAGE_SIZE for a request
 * @time_ns: CLOCK_MONOTONIC when it happened
 *
 * read() gives whole records, as many as fit, and waits for the first one
 * unless O_NONBLOCK; a buffer shorter than one record is EINVAL. An EFAULT
 * loses nothing: what could not be written is delivered again.
 */
struct umem_event {
	__u32 type;
	__u32 tid;
	__aligned_u64 offset;
	__aligned_u64 length;
	__aligned_u64 time_ns;
};

/**
 * enum umem_fill_flags - flags of UMEM_COPY and of UMEM_ZERO
 * @UMEM_FILL_UNPUBLISHED: the pages stay missing and nobody is woken: what is put
 *	there may be put again, and is what UMEM_PUBLISH shows
 */
enum umem_fill_flags {
	UMEM_FILL_UNPUBLISHED = 1 << 0,
};

/**
 * struct umem_range - ioctl(UMEM_MARK_MISSING, PUBLISH, ZERO, POISON)
 * @size: sizeof(struct umem_range)
 * @flags: of enum umem_fill_flags for UMEM_ZERO, else must be 0
 * @offset: bytes from the start of the region
 * @length: bytes
 * @out_pages: pages whose state this call changed, or that it filled
 * @out_skipped: pages it left as they were
 *
 * UMEM_MARK_MISSING drops the contents of the range and makes its pages
 * missing, poisoned ones too; a page already missing keeps its waiters.
 * UMEM_PUBLISH makes missing pages present with what the fill view or an
 * unpublished UMEM_COPY or UMEM_ZERO put there last, zeroes where nothing was put
 * since they became missing. UMEM_ZERO makes missing pages present and zero.
 * UMEM_POISON makes missing pages raise SIGBUS (BUS_MCEERR_AR), for good,
 * until the guest discards them or they are marked missing again. The last
 * three wake who waits. A present page is skipped by them, and a poisoned one.
 */
struct umem_range {
	__u32 size;
	__u32 flags;
	__aligned_u64 offset;
	__aligned_u64 length;
	__aligned_u64 out_pages;
	__aligned_u64 out_skipped;
};

/**
 * struct umem_copy_entry - one range of a UMEM_COPY
 * @offset: where in the region, bytes
 * @addr: address of the contents in the caller
 * @length: bytes
 */
struct umem_copy_entry {
	__aligned_u64 offset;
	__aligned_u64 addr;
	__aligned_u64 length;
};

/**
 * struct umem_copy - ioctl(UMEM_COPY)
 * @size: sizeof(struct umem_copy)
 * @flags: of enum umem_fill_flags
 * @entries: address of an array of struct umem_copy_entry
 * @nr_entries: how many, 1 to UMEM_COPY_MAX
 * @__reserved: must be 0
 * @out_pages: pages filled, and made present unless @flags has
 *	UMEM_FILL_UNPUBLISHED
 * @out_skipped: pages left alone because they were present or poisoned
 * @events: address of an array of struct umem_event, or 0
 * @nr_events: how many fit there, at least 1; 0 if @events is
 * @out_events: how many were put there
 *
 * Fills missing pages from the caller's memory, makes them present and wakes
 * who waits, in the order of the entries, a page or a few of one folio at a time. All ranges are
 * checked before the first page is touched. When a later step fails the first
 * @out_pages + @out_skipped pages are done and the rest is untouched.
 *
 * With @events, and if all of the pages are done, it then gives what a read() would
 * give that does not wait: the events that are pending, as many as fit. @out_events is 0
 * if there are none. An EFAULT about @events comes after the pages are done, as @out_pages
 * and @out_skipped tell, and loses nothing: what could not be written is delivered
 * again. The structure may end before @events, as it did when it was first published.
 */
struct umem_copy {
	__u32 size;
	__u32 flags;
	__aligned_u64 entries;
	__u32 nr_entries;
	__u32 __reserved;
	__aligned_u64 out_pages;
	__aligned_u64 out_skipped;
	__aligned_u64 events;
	__u32 nr_events;
	__u32 out_events;
};

/**
 * enum umem_bitmap_kind - which bitmap UMEM_GET_BITMAP gives
 * @UMEM_BITMAP_PRESENT: pages that are present
 * @UMEM_BITMAP_REQUESTED: missing pages that somebody waits or waited for
 * @UMEM_BITMAP_POISONED: pages that are poisoned
 */
enum umem_bitmap_kind {
	UMEM_BITMAP_PRESENT = 0,
	UMEM_BITMAP_REQUESTED = 1,
	UMEM_BITMAP_POISONED = 2,
};

/**
 * struct umem_bitmap - ioctl(UMEM_GET_BITMAP)
 * @size: sizeof(struct umem_bitmap)
 * @kind: of enum umem_bitmap_kind
 * @offset: bytes from the start of the region
 * @length: bytes
 * @bits: address of an array of __u64, ceil(pages / 64) of them; bit n % 64 of
 *	word n / 64 is the n-th page of the range, bits past the range are 0
 */
struct umem_bitmap {
	__u32 size;
	__u32 kind;
	__aligned_u64 offset;
	__aligned_u64 length;
	__aligned_u64 bits;
};

/**
 * enum umem_track_op - what UMEM_TRACK is to do
 * @UMEM_TRACK_START: begin to track which pages of the region become dirty; all of
 *	them are dirty now
 * @UMEM_TRACK_STOP: track no longer; the end of the pager does that too
 * @UMEM_TRACK_COLLECT: tell which pages of a range are dirty, and make them clean
 */
enum umem_track_op {
	UMEM_TRACK_START = 0,
	UMEM_TRACK_STOP = 1,
	UMEM_TRACK_COLLECT = 2,
};

/**
 * struct umem_track - ioctl(UMEM_TRACK)
 * @size: sizeof(struct umem_track)
 * @op: of enum umem_track_op
 * @offset: bytes from the start of the region; 0 unless @op is COLLECT
 * @length: bytes; 0 unless @op is COLLECT
 * @bits: address of an array of __u64 as in struct umem_bitmap; 0 unless @op is
 *	COLLECT
 * @out_pages: pages told as dirty
 *
 * A page is dirty if it may have been written to since it was last collected, by
 * whatever means: through a mapping, by KVM, by the kernel, by a device. A write
 * after COLLECT is told by the next COLLECT, and who reads a page after the
 * COLLECT that told it sees every write before. A page that was told is told again
 * while something holds a reference to it, which includes the first moments after it
 * was allocated, and once more then. So pages that a device has pinned to write to
 * are told every time, for as long as they are pinned, and for a folio larger than a page
 * what holds one of its pages holds all. From Linux 6.5 on pages cannot be pinned for long anew
 * (VFIO, AF_XDP, io_uring: EFAULT) while they are tracked; pins made before stay.
 * When COLLECT fails what was not told stays dirty, and what was told before is in
 * @bits, to be found there if they were 0 before.
 */
struct umem_track {
	__u32 size;
	__u32 op;
	__aligned_u64 offset;
	__aligned_u64 length;
	__aligned_u64 bits;
	__aligned_u64 out_pages;
};

#endif /* _UAPI_LINUX_UMEM_H */
