// SPDX-License-Identifier: GPL-2.0-only
/*
 * Requests: one for each missing page that somebody asked for, however many
 * wait for it. A request belongs to the page. It outlives the thread that asked
 * first and the pager it was delivered to; it ends when the page is present,
 * poisoned or the region gone.
 */
#include <linux/file.h>
#include <linux/hash.h>
#include <linux/mm.h>
#include <linux/pid.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/uio.h>

#include "trace.h"
#include "umem.h"

/**
 * struct umem_request - somebody asked for this page
 * @node: in the bucket, under its lock
 * @link: in umem_region.queue while not delivered, under queue_lock; added to it under
 *	the bucket lock as well
 * @refs: one for the bucket, one for each waiter, one while being delivered
 * @index: the page
 * @answered: the page is present or poisoned; set under the bucket lock
 * @waiters: threads that sleep until then
 * @pid: who asked first
 * @time: when, CLOCK_MONOTONIC
 */
struct umem_request {
	struct hlist_node node;
	struct list_head link;
	refcount_t refs;
	pgoff_t index;
	bool answered;
	wait_queue_head_t waiters;
	struct pid *pid;
	u64 time;
};

/* A range that the guest discarded, to be told to the pager. */
struct umem_discard {
	struct list_head link;
	struct umem_span span;
	u64 time;
};

static struct kmem_cache *umem_request_cache;

/**
 * umem_request_init - make the cache of requests
 *
 * Return: 0 or -ENOMEM.
 */
int umem_request_init(void)
{
	umem_request_cache = KMEM_CACHE(umem_request, SLAB_ACCOUNT);
	return umem_request_cache ? 0 : -ENOMEM;
}

/**
 * umem_request_exit - with all regions gone, undo umem_request_init()
 */
void umem_request_exit(void)
{
	kmem_cache_destroy(umem_request_cache);
}

static struct umem_bucket *umem_bucket_of(struct umem_region *region, pgoff_t index)
{
	return &region->buckets[hash_long(index, UMEM_HASH_BITS)];
}

#define umem_for_each_bucket(region, bucket)			\
	for (bucket = (region)->buckets;			\
	     bucket < (region)->buckets + (1 << UMEM_HASH_BITS); bucket++)

/**
 * umem_requests_create - give a new region what its requests need
 * @region: the region
 *
 * Return: 0 or -ENOMEM; umem_requests_destroy() undoes either.
 */
int umem_requests_create(struct umem_region *region)
{
	struct umem_bucket *bucket;

	spin_lock_init(&region->queue_lock);
	INIT_LIST_HEAD(&region->queue);
	INIT_LIST_HEAD(&region->discards);
	init_waitqueue_head(&region->readers);
	region->buckets = kcalloc(1 << UMEM_HASH_BITS, sizeof(*region->buckets),
				  GFP_KERNEL_ACCOUNT);
	if (!region->buckets)
		return -ENOMEM;
	umem_for_each_bucket(region, bucket) {
		spin_lock_init(&bucket->lock);
		INIT_HLIST_HEAD(&bucket->requests);
	}
	return 0;
}

/* A request of the current thread: the one that it has to spare, or a new one. */
static struct umem_request *umem_request_alloc(const struct umem_wait *wait, gfp_t gfp)
{
	struct umem_thread *thread = wait->thread;
	struct umem_request *req = thread ? thread->spare : NULL;

	if (req) {
		thread->spare = NULL;
	} else {
		req = kmem_cache_alloc(umem_request_cache, gfp);
		if (!req)
			return NULL;
		req->pid = get_task_pid(current, PIDTYPE_PID);
	}
	INIT_LIST_HEAD(&req->link);
	refcount_set(&req->refs, 1);
	req->index = wait->index;
	req->answered = false;
	init_waitqueue_head(&req->waiters);
	req->time = wait->since;
	return req;
}

/**
 * umem_request_free - free a request that nobody refers to
 * @req: that, or NULL
 */
void umem_request_free(struct umem_request *req)
{
	if (req) {
		put_pid(req->pid);
		kmem_cache_free(umem_request_cache, req);
	}
}

static void umem_request_put(struct umem_request *req)
{
	if (refcount_dec_and_test(&req->refs))
		umem_request_free(req);
}

/* The current thread keeps its request for the next time if nobody else does. */
static void umem_request_put_or_spare(struct umem_request *req, struct umem_thread *thread)
{
	if (!refcount_dec_and_test(&req->refs))
		return;
	if (thread && !thread->spare && req->pid == thread->pid)
		thread->spare = req;
	else
		umem_request_free(req);
}

/**
 * umem_requests_destroy - undo umem_requests_create()
 * @region: which is gone, and so is everybody who waited
 */
void umem_requests_destroy(struct umem_region *region)
{
	struct umem_bucket *bucket;
	struct umem_request *req;
	struct hlist_node *next;

	if (!region->buckets)
		return;
	umem_discards_drop(region);
	umem_for_each_bucket(region, bucket) {
		hlist_for_each_entry_safe(req, next, &bucket->requests, node)
			umem_request_put(req);
	}
	kfree(region->buckets);
}

static struct umem_request *umem_bucket_find(struct umem_bucket *bucket, pgoff_t index)
{
	struct umem_request *req;

	lockdep_assert_held(&bucket->lock);
	hlist_for_each_entry(req, &bucket->requests, node)
		if (req->index == index)
			return req;
	return NULL;
}

static bool umem_queue_is_empty(const struct umem_region *region)
{
	return list_empty(&region->queue) && list_empty(&region->discards);
}

/* Whoever sleeps has found nothing to read: the first that is queued wakes them. */
static void umem_request_queue(struct umem_region *region, struct umem_request *req)
{
	bool first;

	spin_lock(&region->queue_lock);
	first = umem_queue_is_empty(region);
	list_add_tail(&req->link, &region->queue);
	spin_unlock(&region->queue_lock);
	if (first)
		wake_up_interruptible(&region->readers);
}

/*
 * Take an answered request off the queue if nobody has read it. Who waits has mostly been
 * read long ago: then no lock is taken that others share.
 */
static void umem_request_unqueue(struct umem_region *region, struct umem_request *req)
{
	/* Pairs with list_del_init_careful() in umem_event_take(). */
	if (list_empty_careful(&req->link))
		return;
	spin_lock(&region->queue_lock);
	list_del_init(&req->link);
	spin_unlock(&region->queue_lock);
}

/*
 * Add a request to its bucket and to the queue, unless the page has another or
 * is no longer missing. Return the page's request if it has one now.
 */
static struct umem_request *umem_request_add(struct umem_region *region,
					     struct umem_bucket *bucket, struct umem_request *req)
{
	struct umem_request *old;

	lockdep_assert_held(&bucket->lock);
	old = umem_bucket_find(bucket, req->index);
	if (old)
		return old;

	hlist_add_head(&req->node, &bucket->requests);
	/*
	 * Either this sees the page present, or who makes it present sees the
	 * request: pairs with umem_requests_answer().
	 */
	smp_mb();
	if (!umem_page_fillable(region, req->index)) {
		hlist_del(&req->node);
		return NULL;
	}
	refcount_inc(&req->refs);
	umem_count(region, UMEM_REQUESTS, 1);
	trace_umem_request(region, req->index);
	umem_request_queue(region, req);
	return req;
}

/*
 * The request of a missing page, made and queued if there is none, with a
 * reference. NULL if the page is no longer missing, -ENOMEM if out of memory.
 */
static struct umem_request *umem_request_get(struct umem_region *region,
					     const struct umem_wait *wait, gfp_t gfp)
{
	struct umem_bucket *bucket = umem_bucket_of(region, wait->index);
	struct umem_request *fresh = NULL, *req;

	spin_lock(&bucket->lock);
	req = umem_bucket_find(bucket, wait->index);
	if (!req) {
		spin_unlock(&bucket->lock);
		fresh = umem_request_alloc(wait, gfp);
		if (!fresh)
			return ERR_PTR(-ENOMEM);
		spin_lock(&bucket->lock);
		req = umem_request_add(region, bucket, fresh);
	}
	if (req)
		refcount_inc(&req->refs);
	spin_unlock(&bucket->lock);
	if (fresh)
		umem_request_put_or_spare(fresh, wait->thread);
	return req;
}

/**
 * umem_requests_answer - wake who waits for a page
 * @region: the region
 * @index: a page that is no longer missing, or poisoned now
 */
void umem_requests_answer(struct umem_region *region, pgoff_t index)
{
	struct umem_bucket *bucket = umem_bucket_of(region, index);
	struct umem_request *req;

	/* Pairs with smp_mb() in umem_request_add(). */
	smp_mb();
	if (hlist_empty(&bucket->requests))
		return;

	spin_lock(&bucket->lock);
	req = umem_bucket_find(bucket, index);
	if (req) {
		hlist_del(&req->node);
		umem_request_unqueue(region, req);
		WRITE_ONCE(req->answered, true);
	}
	spin_unlock(&bucket->lock);
	if (!req)
		return;
	/* What was the bucket's reference keeps it: many may wait, and none for the lock. */
	trace_umem_wake(region, index);
	wake_up_all(&req->waiters);
	umem_request_put(req);
}

/**
 * umem_requests_renew - queue every request once more, for a new pager
 * @region: the region
 */
void umem_requests_renew(struct umem_region *region)
{
	struct umem_bucket *bucket;
	struct umem_request *req;

	umem_for_each_bucket(region, bucket) {
		spin_lock(&bucket->lock);
		spin_lock(&region->queue_lock);
		hlist_for_each_entry(req, &bucket->requests, node)
			if (list_empty(&req->link))
				list_add_tail(&req->link, &region->queue);
		spin_unlock(&region->queue_lock);
		spin_unlock(&bucket->lock);
	}
}

/**
 * umem_requests_wake_all - make everybody who waits look again
 * @region: the region
 */
void umem_requests_wake_all(struct umem_region *region)
{
	struct umem_bucket *bucket;
	struct umem_request *req;

	umem_for_each_bucket(region, bucket) {
		spin_lock(&bucket->lock);
		hlist_for_each_entry(req, &bucket->requests, node)
			wake_up_all(&req->waiters);
		spin_unlock(&bucket->lock);
	}
}

/**
 * umem_requests_to_bitmap - set a bit for each page that has a request
 * @region: the region
 * @span: the pages to look at
 * @bits: one for each of them
 */
void umem_requests_to_bitmap(struct umem_region *region, struct umem_span span,
			     unsigned long *bits)
{
	struct umem_bucket *bucket;
	struct umem_request *req;

	umem_for_each_bucket(region, bucket) {
		spin_lock(&bucket->lock);
		hlist_for_each_entry(req, &bucket->requests, node)
			if (req->index >= span.start && req->index < span.end)
				__set_bit(req->index - span.start, bits);
		spin_unlock(&bucket->lock);
	}
}

/* Without a pager, is it the rule not to wait? */
static bool umem_region_refuses(struct umem_region *region)
{
	return READ_ONCE(region->sigbus) && !READ_ONCE(region->pager);
}

static unsigned int umem_wait_state(unsigned int flags)
{
	/*
	 * A fault in kernel mode is retried whatever signal is pending, so the
	 * second time round only a fatal one may end the wait: it would spin.
	 */
	if ((flags & FAULT_FLAG_INTERRUPTIBLE) &&
	    ((flags & FAULT_FLAG_USER) || !(flags & FAULT_FLAG_TRIED)))
		return TASK_INTERRUPTIBLE;
	return TASK_KILLABLE;
}

/*
 * A kernel thread that works in the memory of a process (vhost, KVM's asynchronous page
 * faults) gets no signal, and keeps the process or its memory until it is done. So it
 * must not wait when the process is to end. Only the owner of @mm, to which such a
 * thread has a reference, is to be found; other processes that share @mm are left alone.
 */
static bool umem_waits_for_nobody(struct mm_struct *mm)
{
#ifdef CONFIG_MEMCG
	struct task_struct *owner;
	bool nobody;

	if (!(current->flags & PF_KTHREAD))
		return false;
	rcu_read_lock();
	owner = rcu_dereference(mm->owner);
	nobody = !owner || (READ_ONCE(owner->signal->flags) & SIGNAL_GROUP_EXIT);
	rcu_read_unlock();
	return nobody;
#else
	return false;
#endif
}

/* Nothing wakes a kernel thread whose process is to end: it has to look. */
static void umem_request_sleep(void)
{
	if (current->flags & PF_KTHREAD)
		schedule_timeout(HZ);
	else
		schedule();
}

/* Return: whether it was the page that ended it. */
static bool umem_request_wait(struct umem_region *region, struct umem_request *req,
			      struct mm_struct *mm, unsigned int state)
{
	DEFINE_WAIT(wait);

	atomic_inc(&region->nr_waiters);
	do {
		prepare_to_wait(&req->waiters, &wait, state);
		if (READ_ONCE(req->answered) || umem_region_refuses(region) ||
		    umem_waits_for_nobody(mm) || signal_pending_state(state, current))
			break;
		umem_request_sleep();
	} while (!READ_ONCE(req->answered));
	finish_wait(&req->waiters, &wait);
	atomic_dec(&region->nr_waiters);
	return READ_ONCE(req->answered);
}

/**
 * umem_request_page - ask for a missing page and wait for it
 * @vmf: the fault that found it missing
 * @region: the region
 *
 * Waits with no lock held where the caller allows that, does not wait
 * otherwise.
 *
 * Return: what a fault handler returns; VM_FAULT_RETRY if the lock
 * was released.
 */
vm_fault_t umem_request_page(struct vm_fault *vmf, struct umem_region *region)
{
	bool nowait = vmf->flags & FAULT_FLAG_RETRY_NOWAIT;
	struct mm_struct *mm = vmf->vma->vm_mm;
	struct umem_wait wait = { .index = vmf->pgoff };
	struct umem_request *req;
	struct file *file;
	bool answered;

	if (umem_page_poisoned(region, vmf->pgoff))
		return VM_FAULT_HWPOISON;
	if (!(vmf->flags & FAULT_FLAG_ALLOW_RETRY))
		return VM_FAULT_SIGBUS;
	/* A dying thread has nobody left to kill it out of a wait. */
	if (current->flags & (PF_EXITING | PF_DUMPCORE))
		return VM_FAULT_SIGBUS;
	if (umem_region_refuses(region) || umem_waits_for_nobody(mm))
		return VM_FAULT_SIGBUS;

	umem_count(region, UMEM_FAULTS, 1);
	trace_umem_fault(region, vmf->pgoff, !nowait);
	umem_wait_prepare(region, &wait);
	req = umem_request_get(region, &wait, nowait ? GFP_NOWAIT : GFP_KERNEL);
	if (!req)
		return VM_FAULT_NOPAGE;
	if (nowait) {
		/* Without memory for a request it is asked for when waited for. */
		if (!IS_ERR(req))
			umem_request_put_or_spare(req, wait.thread);
		return VM_FAULT_RETRY;
	}
	if (IS_ERR(req))
		return VM_FAULT_OOM;

	/*
	 * The file keeps the region, and the module until this thread is back
	 * in user mode, since fput() releases a file no earlier.
	 */
	file = get_file(vmf->vma->vm_file);
	release_fault_lock(vmf);
	umem_wait_begin(region, &wait);
	answered = umem_request_wait(region, req, mm, umem_wait_state(vmf->flags));
	umem_wait_end(region, &wait, answered);
	umem_request_put_or_spare(req, wait.thread);
	fput(file);
	return VM_FAULT_RETRY;
}

/**
 * umem_discard_alloc - memory for umem_discard_queue()
 *
 * Return: that, or NULL.
 */
struct umem_discard *umem_discard_alloc(void)
{
	return kzalloc(sizeof(struct umem_discard), GFP_KERNEL_ACCOUNT);
}

/**
 * umem_discard_free - give back what was not queued
 * @discard: that, or NULL
 */
void umem_discard_free(struct umem_discard *discard)
{
	kfree(discard);
}

/**
 * umem_discard_queue - tell the pager of a discard
 * @region: the region
 * @discard: from umem_discard_alloc(), and no longer the caller's
 * @span: what was discarded
 *
 * If there is no pager, the next one reads the bitmap.
 */
void umem_discard_queue(struct umem_region *region, struct umem_discard *discard,
			struct umem_span span)
{
	discard->span = span;
	discard->time = ktime_get_ns();
	spin_lock(&region->queue_lock);
	if (region->pager) {
		list_add_tail(&discard->link, &region->discards);
		discard = NULL;
	}
	spin_unlock(&region->queue_lock);
	umem_discard_free(discard);
	wake_up_interruptible(&region->readers);
}

/**
 * umem_discards_drop - forget the discards that were not read
 * @region: the region
 */
void umem_discards_drop(struct umem_region *region)
{
	struct umem_discard *discard, *next;
	LIST_HEAD(list);

	spin_lock(&region->queue_lock);
	list_splice_init(&region->discards, &list);
	spin_unlock(&region->queue_lock);
	list_for_each_entry_safe(discard, next, &list, link)
		umem_discard_free(discard);
}

/**
 * umem_events_pending - whether the pager has something to read
 * @region: the region
 *
 * Return: whether it has.
 */
bool umem_events_pending(struct umem_region *region)
{
	bool pending;

	spin_lock(&region->queue_lock);
	pending = !umem_queue_is_empty(region);
	spin_unlock(&region->queue_lock);
	return pending;
}

static bool umem_event_to_user(const struct umem_event *event, struct iov_iter *to)
{
	size_t copied = copy_to_iter(event, sizeof(*event), to);

	if (copied == sizeof(*event))
		return true;
	/* All or nothing: half a record would be lost to the reader. */
	iov_iter_revert(to, copied);
	return false;
}

/* Take what is next off the queue, a discard or a request with a reference, if any is. */
static void umem_event_take(struct umem_region *region, struct umem_discard **discard,
			    struct umem_request **req)
{
	*req = NULL;
	spin_lock(&region->queue_lock);
	*discard = list_first_entry_or_null(&region->discards, struct umem_discard, link);
	if (*discard) {
		list_del(&(*discard)->link);
	} else {
		*req = list_first_entry_or_null(&region->queue, struct umem_request, link);
		if (*req) {
			refcount_inc(&(*req)->refs);
			/* Pairs with list_empty_careful() in umem_request_unqueue(). */
			list_del_init_careful(&(*req)->link);
		}
	}
	spin_unlock(&region->queue_lock);
}

static bool umem_discard_deliver(struct umem_region *region, struct umem_discard *discard,
				 struct iov_iter *to)
{
	struct umem_event event = {
		.type = UMEM_EVENT_DISCARD,
		.offset = (u64)discard->span.start << PAGE_SHIFT,
		.length = (u64)(discard->span.end - discard->span.start) << PAGE_SHIFT,
		.time_ns = discard->time,
	};

	if (umem_event_to_user(&event, to)) {
		umem_discard_free(discard);
		return true;
	}
	spin_lock(&region->queue_lock);
	list_add(&discard->link, &region->discards);
	spin_unlock(&region->queue_lock);
	wake_up_interruptible(&region->readers);
	return false;
}

/* Put back a request that was taken off the queue and not delivered. */
static void umem_request_unread(struct umem_region *region, struct umem_request *req)
{
	struct umem_bucket *bucket = umem_bucket_of(region, req->index);

	spin_lock(&bucket->lock);
	if (!req->answered) {
		spin_lock(&region->queue_lock);
		if (list_empty(&req->link))
			list_add(&req->link, &region->queue);
		spin_unlock(&region->queue_lock);
	}
	spin_unlock(&bucket->lock);
	wake_up_interruptible(&region->readers);
}

static bool umem_request_deliver(struct umem_region *region, struct umem_request *req,
				 struct iov_iter *to)
{
	struct umem_event event = {
		.type = UMEM_EVENT_REQUEST,
		.tid = pid_vnr(req->pid),
		.offset = (u64)req->index << PAGE_SHIFT,
		.length = UMEM_PAGE_SIZE,
		.time_ns = req->time,
	};
	bool delivered = umem_event_to_user(&event, to);

	if (delivered) {
		umem_count(region, UMEM_DELIVERED, 1);
		trace_umem_deliver(region, req->index);
	} else {
		umem_request_unread(region, req);
	}
	umem_request_put(req);
	return delivered;
}

/* 1 if something was read, 0 if there was nothing, -EFAULT. */
static int umem_event_read(struct umem_region *region, struct iov_iter *to)
{
	struct umem_discard *discard;
	struct umem_request *req;
	bool delivered;

	/* What comes meanwhile is for the next read. */
	if (umem_queue_is_empty(region))
		return 0;
	umem_event_take(region, &discard, &req);
	if (!discard && !req)
		return 0;
	delivered = discard ? umem_discard_deliver(region, discard, to) :
			      umem_request_deliver(region, req, to);
	return delivered ? 1 : -EFAULT;
}

/**
 * umem_events_read - deliver what is pending, discards first
 * @region: the region
 * @to: where to
 *
 * Return: bytes, 0 if nothing was pending, -EFAULT if not even one record could
 * be written; what could not be is still pending.
 */
ssize_t umem_events_read(struct umem_region *region, struct iov_iter *to)
{
	ssize_t done = 0;
	int ret;

	while (iov_iter_count(to) >= sizeof(struct umem_event)) {
		ret = umem_event_read(region, to);
		if (ret < 0)
			return done ?: ret;
		if (!ret)
			break;
		done += sizeof(struct umem_event);
		cond_resched();
	}
	return done;
}
