/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _UMEM_H
#define _UMEM_H

#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/cache.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/pgtable.h>
#include <linux/refcount.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/uidgid.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/umem.h>
#include <linux/umem_netlink.h>

struct iov_iter;
struct mem_cgroup;
struct pid;
struct umem_pager;
struct umem_request;
struct umem_thread_bucket;

#define UMEM_HASH_BITS	8

/* The largest folio of shmem, 2 MiB; a fault may map all of a folio. */
#define UMEM_BLOCK_PAGES	(1UL << (PMD_SHIFT - PAGE_SHIFT))

/* In the order of UMEM_A_COUNTERS_*, which tells them */
enum umem_counter {
	UMEM_FAULTS,
	UMEM_REQUESTS,
	UMEM_DELIVERED,
	UMEM_PUBLISHED,
	UMEM_COPIED,
	UMEM_ZEROED,
	UMEM_DISCARDED,
	UMEM_POISONED,
	UMEM_DUPLICATES,
	UMEM_PAGERS_LOST,
	UMEM_HUGE_FOLIOS,
	UMEM_HUGE_FALLBACKS,
	UMEM_NR_COUNTERS
};

/* The last one is of waits of 2^39 ns, nine minutes, and more. */
#define UMEM_NR_LATENCIES	40

/**
 * struct umem_stats - what happened in a region, on one processor
 * @counters: by enum umem_counter
 * @waits: that have ended
 * @wait_ns: how long they were, summed up
 * @latencies: waits ended by the page, by the logarithm of their length
 */
struct umem_stats {
	u64 counters[UMEM_NR_COUNTERS];
	u64 waits;
	u64 wait_ns;
	u64 latencies[UMEM_NR_LATENCIES];
};

/* The requests of the pages that hash here */
struct umem_bucket {
	spinlock_t lock;
	struct hlist_head requests;
};

/**
 * struct umem_region - one block of memory
 * @refs: one for each open file, each pager, each /dev/umem file bound to it
 * @file: the shmem file, with shmem's own operations; never given to user space
 * @nr_pages: length in pages
 * @huge: 2 MiB folios are wanted
 * @missing: a bit set for each page that guest views must not show
 * @poisoned: those of @missing that never come; NULL until the first one
 * @nr_missing: bits in @missing; all is present once there is none
 * @nr_poisoned: bits in @poisoned
 * @nr_fill_views: mappings of the pager fd
 * @fill_lock: held for reading while one page is filled, for writing while the
 *	state of a range changes
 * @buckets: requests of missing pages
 * @nr_waiters: threads asleep
 * @queue_lock: protects @queue and @discards
 * @queue: requests to be delivered, in the order they came
 * @discards: discards to be delivered
 * @readers: the pager waits here for @queue and @discards
 * @pager_lock: serialises attach and detach
 * @pager: the pager that is attached, or NULL
 * @sigbus: touching a missing page without a pager raises SIGBUS
 * @mode_lock: serialises what changes how guest views are: dirty tracking, and pages
 *	that become missing
 * @dirty: a bit for each page seen to become dirty, by RCU; NULL while dirty pages
 *	are not tracked
 * @guarded: guest views must allow single pages of a folio to be mapped, and must not
 *	have theirs collapsed into large folios, because pages may be missing
 * @relax: ends that when no page is missing any more
 * @relaxing: @relax was queued at least once
 * @view_lock: protects @views, @guarded and changes of @dirty
 * @views: guest views, of struct umem_view
 * @memcg: pays for the pages
 * @uid: the creator
 * @pid: the creating process
 * @id: for UMEM_OPEN
 * @stats: what happened
 * @threads: who waited, by their struct pid. Those that have ended are forgotten when
 *	another comes to their bucket, and when there is no room
 * @nr_threads: of them
 * @threads_swept: when those that have ended were last looked for everywhere
 * @sweep_lock: held meanwhile
 * @name: for people
 *
 * Lock order: @pager_lock, @mode_lock, mmap_lock, @view_lock, VMA lock, @fill_lock,
 * inode lock, folio lock, i_mmap_rwsem, bucket lock, @queue_lock. Nothing that runs
 * under mmap_lock (fault, mmap, open, close) takes one of the first two; the release of
 * a pager fd does, but the last fput() of a mapping puts that off to where no lock is
 * held.
 *
 * A page turns missing in this order: guest views guarded, bit set, RCU grace period
 * (fault-around runs under RCU), contents dropped, which takes each folio's lock (faults
 * look at the bit again under it). It turns present in this order: contents
 * complete, fill view unmapped, bit cleared, waiters woken.
 */
struct umem_region {
	refcount_t refs;
	struct file *file;
	unsigned long nr_pages;
	bool huge;
	unsigned long *missing;
	unsigned long *poisoned;
	atomic_long_t nr_missing;
	atomic_long_t nr_poisoned;
	atomic_t nr_fill_views;
	struct rw_semaphore fill_lock;

	struct umem_bucket *buckets;
	/* Here and not further up is what each wait writes to. */
	atomic_t nr_waiters ____cacheline_aligned_in_smp;
	spinlock_t queue_lock;
	struct list_head queue;
	struct list_head discards;
	wait_queue_head_t readers;

	struct mutex pager_lock;
	struct umem_pager *pager;
	bool sigbus;

	struct mutex mode_lock;
	unsigned long __rcu *dirty;
	bool guarded;
	bool relaxing;
	struct work_struct relax;
	struct mutex view_lock;
	struct list_head views;

	struct mem_cgroup *memcg;
	kuid_t uid;
	struct pid *pid;
	u32 id;
	struct umem_stats __percpu *stats;
	struct umem_thread_bucket *threads;
	atomic_t nr_threads;
	unsigned long threads_swept;
	struct mutex sweep_lock;
	char name[UMEM_NAME_MAX];
};

/**
 * struct umem_pager - what a pager fd holds
 * @region: the region, with a reference
 */
struct umem_pager {
	struct umem_region *region;
};

/* A range of pages */
struct umem_span {
	pgoff_t start;
	pgoff_t end;	/* first page after it */
};

static inline bool umem_page_missing(const struct umem_region *region, pgoff_t index)
{
	/* Pairs with the ordered test_and_clear_bit() of umem_page_set_present(). */
	return test_bit_acquire(index, region->missing);
}

static inline bool umem_page_poisoned(const struct umem_region *region, pgoff_t index)
{
	/* Pairs with smp_store_release() in umem_region_alloc_poisoned(). */
	const unsigned long *poisoned = smp_load_acquire(&region->poisoned);

	return poisoned && test_bit(index, poisoned);
}

/* How many pages the pager may still fill */
static inline unsigned long umem_region_nr_fillable(const struct umem_region *region)
{
	long poisoned = atomic_long_read(&region->nr_poisoned);

	/* One that is discarded between the two is no longer in the second. */
	return max(atomic_long_read(&region->nr_missing) - poisoned, 0L);
}

/* The pager may still fill this page. */
static inline bool umem_page_fillable(const struct umem_region *region, pgoff_t index)
{
	return umem_page_missing(region, index) && !umem_page_poisoned(region, index);
}

static inline void umem_count(struct umem_region *region, enum umem_counter which, s64 n)
{
	this_cpu_add(region->stats->counters[which], n);
}

/* region.c */
extern const struct file_operations umem_region_fops;
extern const struct file_operations umem_fill_fops;
int umem_region_init(void);
void umem_region_exit(void);
struct umem_region *umem_region_create(u64 length, const char *name, u32 flags);
struct umem_region *umem_region_find(u32 id);
struct umem_region *umem_region_get_by_id(u32 id);
struct umem_region *umem_region_get_from(u32 id, unsigned int *changes);
void umem_region_get(struct umem_region *region);
void umem_region_put(struct umem_region *region);
struct file *umem_region_open_file(struct umem_region *region, int flags);
void umem_region_fill_info(struct umem_region *region, struct umem_info *info);
int umem_region_span(const struct umem_region *region, u64 offset, u64 length,
		     struct umem_span *span);
struct folio *umem_region_lock_folio(struct umem_region *region, pgoff_t index);
struct folio *umem_region_lock_unused(struct umem_region *region, pgoff_t index);
bool umem_region_has_folio(struct umem_region *region, pgoff_t index);
int umem_region_charge(struct umem_region *region, pgoff_t index);
int umem_region_alloc_poisoned(struct umem_region *region);
void umem_region_unmap_fill(struct umem_region *region, struct umem_span span);
int umem_region_mark_missing(struct umem_region *region, struct umem_span span,
			     u64 *changed);
bool umem_page_set_present(struct umem_region *region, pgoff_t index);
void umem_region_relax(struct umem_region *region);

/* view.c */
int umem_guest_mmap(struct umem_region *region, struct vm_area_struct *vma);
void umem_guest_track(struct umem_region *region, unsigned long *dirty);
void umem_guest_guard(struct umem_region *region, bool guarded);
int umem_fill_mmap(struct file *pager_file, struct vm_area_struct *vma);

/* track.c */
int umem_track_start(struct umem_region *region);
int umem_track_stop(struct umem_region *region);
int umem_track_collect(struct umem_region *region, struct umem_span span, u8 __user *to,
		       u64 *pages);
void umem_track_mark(struct umem_region *region, struct umem_span span);

static inline void umem_track_mark_page(struct umem_region *region, pgoff_t index)
{
	umem_track_mark(region, (struct umem_span){ index, index + 1 });
}

/* request.c */
int umem_request_init(void);
void umem_request_exit(void);
int umem_requests_create(struct umem_region *region);
void umem_requests_destroy(struct umem_region *region);
vm_fault_t umem_request_page(struct vm_fault *vmf, struct umem_region *region);
void umem_request_free(struct umem_request *req);
void umem_requests_answer(struct umem_region *region, pgoff_t index);
void umem_requests_renew(struct umem_region *region);
void umem_requests_wake_all(struct umem_region *region);
void umem_requests_to_bitmap(struct umem_region *region, struct umem_span span,
			     unsigned long *bits);
struct umem_discard *umem_discard_alloc(void);
void umem_discard_free(struct umem_discard *discard);
void umem_discard_queue(struct umem_region *region, struct umem_discard *discard,
			struct umem_span span);
void umem_discards_drop(struct umem_region *region);
bool umem_events_pending(struct umem_region *region);
ssize_t umem_events_read(struct umem_region *region, struct iov_iter *to);

/* stat.c */

/**
 * struct umem_thread - how long a thread has waited in a region
 * @node: in its bucket, under its lock
 * @pid: the thread
 * @waits: how often, the one that goes on not counted
 * @wait_ns: the sum of those
 * @longest_ns: the longest of those
 * @since: when the one that goes on began, 0 if none does
 * @index: the page it waits for
 * @spare: memory for its next request, or NULL; the thread's own
 */
struct umem_thread {
	struct hlist_node node;
	struct pid *pid;
	u64 waits;
	u64 wait_ns;
	u64 longest_ns;
	u64 since;
	pgoff_t index;
	struct umem_request *spare;
};

/* Where umem_threads_walk() goes on */
struct umem_thread_pos {
	unsigned int bucket;
	unsigned int skip;
};

/* A wait: @since when the current thread, @thread if it is listed, waits for @index */
struct umem_wait {
	pgoff_t index;
	u64 since;
	struct umem_thread *thread;
};

int umem_stats_create(struct umem_region *region);
void umem_stats_destroy(struct umem_region *region);
void umem_stats_sum(const struct umem_region *region, struct umem_stats *sum);
unsigned int umem_threads_changes(void);
int umem_threads_walk(struct umem_region *region, struct umem_thread_pos *pos,
		      int (*show)(const struct umem_thread *thread, void *arg), void *arg);
void umem_wait_prepare(struct umem_region *region, struct umem_wait *wait);
void umem_wait_begin(struct umem_region *region, struct umem_wait *wait);
void umem_wait_end(struct umem_region *region, const struct umem_wait *wait, bool answered);

/* netlink.c */
int umem_netlink_init(void);
void umem_netlink_exit(void);
void umem_notify(struct umem_region *region, u8 cmd, const struct umem_span *span);

/* pager.c */
struct file *umem_pager_create(struct umem_region *region, u32 flags);
long umem_pager_mark_missing(struct umem_pager *pager, struct umem_range *range);
long umem_pager_publish(struct umem_pager *pager, struct umem_range *range);
long umem_pager_zero(struct umem_pager *pager, struct umem_range *range);
long umem_pager_poison(struct umem_pager *pager, struct umem_range *range);
long umem_pager_copy(struct umem_pager *pager, struct umem_copy *copy);
long umem_pager_get_bitmap(struct umem_pager *pager, struct umem_bitmap *bitmap);
long umem_pager_track(struct umem_pager *pager, struct umem_track *track);

/* ioctl.c */
long umem_device_ioctl(struct file *file, unsigned int cmd, unsigned long arg);
long umem_region_ioctl(struct file *file, unsigned int cmd, unsigned long arg);
long umem_pager_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

#endif /* _UMEM_H */
