// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ioctls: one table for each kind of file. Here is what all of them share,
 * the size that a structure starts with, flags, and new file descriptors.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/uaccess.h>

#include "umem.h"

union umem_arg {
	struct {
		u32 size;
		u32 flags;
	} head;
	struct umem_create create;
	struct umem_open open;
	struct umem_attach attach;
	struct umem_info info;
	struct umem_range range;
	struct umem_copy copy;
	struct umem_bitmap bitmap;
	struct umem_track track;
};

/* One ioctl under way. A handler that makes a file leaves it in @file. */
struct umem_call {
	struct file *target;
	void *object;
	void __user *uarg;
	union umem_arg arg;
	struct file *file;
	s32 *out_fd;
};

struct umem_ioctl {
	unsigned int cmd;
	u32 size;
	u32 min_size;
	u32 flags;
	long (*handler)(struct umem_call *call);
};

#define UMEM_IOCTL(_cmd, _type, _last, _flags, _handler) {	\
	.cmd = _cmd,						\
	.size = sizeof(_type),					\
	.min_size = offsetofend(_type, _last),			\
	.flags = _flags,					\
	.handler = _handler,					\
}

static long umem_ioctl_new_file(struct umem_call *call, struct umem_region *region, s32 *out_fd)
{
	if (IS_ERR(region))
		return PTR_ERR(region);
	call->file = umem_region_open_file(region, O_RDWR);
	call->out_fd = out_fd;
	umem_region_put(region);
	return PTR_ERR_OR_ZERO(call->file);
}

static long umem_ioctl_create(struct umem_call *call)
{
	struct umem_create *create = &call->arg.create;
	struct umem_region *region;

	if (create->out_id || strnlen(create->name, UMEM_NAME_MAX) == UMEM_NAME_MAX)
		return -EINVAL;
	region = umem_region_create(create->length, create->name, create->flags);
	if (!IS_ERR(region))
		create->out_id = region->id;
	return umem_ioctl_new_file(call, region, &create->out_fd);
}

static long umem_ioctl_open(struct umem_call *call)
{
	struct umem_open *open = &call->arg.open;

	return umem_ioctl_new_file(call, umem_region_get_by_id(open->id), &open->out_fd);
}

static long umem_ioctl_attach(struct umem_call *call)
{
	struct umem_attach *attach = &call->arg.attach;

	if (!(call->target->f_mode & FMODE_WRITE))
		return -EBADF;
	if (attach->__reserved)
		return -EINVAL;
	call->file = umem_pager_create(call->object, attach->flags);
	call->out_fd = &attach->out_fd;
	return PTR_ERR_OR_ZERO(call->file);
}

static long umem_ioctl_info(struct umem_call *call)
{
	umem_region_fill_info(call->object, &call->arg.info);
	return 0;
}

static long umem_range_call(struct umem_call *call,
			    long (*fn)(struct umem_pager *, struct umem_range *))
{
	call->arg.range.out_pages = 0;
	call->arg.range.out_skipped = 0;
	return fn(call->object, &call->arg.range);
}

static long umem_ioctl_mark_missing(struct umem_call *call)
{
	return umem_range_call(call, umem_pager_mark_missing);
}

static long umem_ioctl_publish(struct umem_call *call)
{
	return umem_range_call(call, umem_pager_publish);
}

static long umem_ioctl_zero(struct umem_call *call)
{
	return umem_range_call(call, umem_pager_zero);
}

static long umem_ioctl_poison(struct umem_call *call)
{
	return umem_range_call(call, umem_pager_poison);
}

/* Can it be said how many events were given? Else they were lost to the caller. */
static long umem_copy_check_events(struct umem_call *call)
{
	struct umem_copy __user *user = call->uarg;
	struct umem_copy *copy = &call->arg.copy;

	if (!copy->events)
		return copy->nr_events ? -EINVAL : 0;
	if (!copy->nr_events)
		return -EINVAL;
	if (copy->size < offsetofend(struct umem_copy, out_events))
		return -EINVAL;
	return put_user(0, &user->out_events);
}

static long umem_ioctl_copy(struct umem_call *call)
{
	struct umem_copy *copy = &call->arg.copy;
	long err;

	copy->out_pages = 0;
	copy->out_skipped = 0;
	copy->out_events = 0;
	err = umem_copy_check_events(call);
	return err ?: umem_pager_copy(call->object, copy);
}

static long umem_ioctl_get_bitmap(struct umem_call *call)
{
	return umem_pager_get_bitmap(call->object, &call->arg.bitmap);
}

static long umem_ioctl_track(struct umem_call *call)
{
	call->arg.track.out_pages = 0;
	return umem_pager_track(call->object, &call->arg.track);
}

static const struct umem_ioctl umem_device_ioctls[] = {
	UMEM_IOCTL(UMEM_CREATE, struct umem_create, name, UMEM_CREATE_HUGE, umem_ioctl_create),
	UMEM_IOCTL(UMEM_OPEN, struct umem_open, out_fd, 0, umem_ioctl_open),
	{}
};

static const struct umem_ioctl umem_region_ioctls[] = {
	UMEM_IOCTL(UMEM_ATTACH, struct umem_attach, __reserved, UMEM_ATTACH_SIGBUS,
		   umem_ioctl_attach),
	UMEM_IOCTL(UMEM_INFO, struct umem_info, huge_fallbacks, 0, umem_ioctl_info),
	{}
};

static const struct umem_ioctl umem_pager_ioctls[] = {
	UMEM_IOCTL(UMEM_MARK_MISSING, struct umem_range, out_skipped, 0,
		   umem_ioctl_mark_missing),
	UMEM_IOCTL(UMEM_PUBLISH, struct umem_range, out_skipped, 0, umem_ioctl_publish),
	UMEM_IOCTL(UMEM_COPY, struct umem_copy, out_skipped, UMEM_FILL_UNPUBLISHED,
		   umem_ioctl_copy),
	UMEM_IOCTL(UMEM_ZERO, struct umem_range, out_skipped, UMEM_FILL_UNPUBLISHED,
		   umem_ioctl_zero),
	UMEM_IOCTL(UMEM_POISON, struct umem_range, out_skipped, 0, umem_ioctl_poison),
	/* The second word of these is no flags; the handler checks it. */
	UMEM_IOCTL(UMEM_GET_BITMAP, struct umem_bitmap, bits, ~0U, umem_ioctl_get_bitmap),
	UMEM_IOCTL(UMEM_TRACK, struct umem_track, out_pages, ~0U, umem_ioctl_track),
	{}
};

static const struct umem_ioctl *umem_ioctl_find(const struct umem_ioctl *table,
						unsigned int cmd)
{
	for (; table->cmd; table++)
		if (table->cmd == cmd)
			return table;
	return NULL;
}

/* Give the answer to the caller; the new descriptor appears only if that works. */
static long umem_call_reply(struct umem_call *call, const struct umem_ioctl *op, u32 size,
			    void __user *uarg)
{
	int fd = -1;

	if (call->file) {
		fd = get_unused_fd_flags(O_CLOEXEC);
		if (fd < 0) {
			fput(call->file);
			return fd;
		}
		*call->out_fd = fd;
	}
	call->arg.head.size = size;
	if (copy_to_user(uarg, &call->arg, min(size, op->size))) {
		if (call->file) {
			put_unused_fd(fd);
			fput(call->file);
		}
		return -EFAULT;
	}
	if (call->file)
		fd_install(fd, call->file);
	return 0;
}

static long umem_ioctl(struct file *target, void *object, const struct umem_ioctl *op,
		       void __user *uarg)
{
	struct umem_call call = { .target = target, .object = object, .uarg = uarg };
	u32 size;
	long ret, err;

	if (get_user(size, (u32 __user *)uarg))
		return -EFAULT;
	if (size < op->min_size)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	err = copy_struct_from_user(&call.arg, op->size, uarg, size);
	if (err)
		return err;
	if (call.arg.head.flags & ~op->flags)
		return -EOPNOTSUPP;

	ret = op->handler(&call);
	if (IS_ERR(call.file))
		call.file = NULL;
	/* What was done before an error is told as well. */
	err = umem_call_reply(&call, op, size, uarg);
	return ret ?: err;
}

/**
 * umem_device_ioctl - the calls on /dev/umem
 * @file: open; once it is mapped it takes those on a region, too
 * @cmd: UMEM_*
 * @arg: address of its struct
 *
 * Return: 0 or what linux/umem.h lists for the call.
 */
long umem_device_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	const struct umem_ioctl *op = umem_ioctl_find(umem_device_ioctls, cmd);

	if (op)
		return umem_ioctl(file, NULL, op, (void __user *)arg);
	/* Pairs with cmpxchg_release() in umem_device_mmap(). */
	if (umem_ioctl_find(umem_region_ioctls, cmd) && !smp_load_acquire(&file->private_data))
		return -ENXIO;
	return umem_region_ioctl(file, cmd, arg);
}

/**
 * umem_region_ioctl - the calls on a region fd
 * @file: open
 * @cmd: UMEM_*
 * @arg: address of its struct
 *
 * Return: 0 or what linux/umem.h lists for the call.
 */
long umem_region_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	const struct umem_ioctl *op = umem_ioctl_find(umem_region_ioctls, cmd);

	if (!op)
		return -ENOTTY;
	return umem_ioctl(file, file->private_data, op, (void __user *)arg);
}

/**
 * umem_pager_ioctl - the calls on a pager fd
 * @file: open
 * @cmd: UMEM_*
 * @arg: address of its struct
 *
 * Return: 0 or what linux/umem.h lists for the call.
 */
long umem_pager_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	const struct umem_ioctl *op = umem_ioctl_find(umem_pager_ioctls, cmd);

	if (!op)
		return -ENOTTY;
	return umem_ioctl(file, file->private_data, op, (void __user *)arg);
}
