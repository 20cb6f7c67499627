// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/umem: makes and opens regions; mapping it makes one without a name.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>

#include "umem.h"

static int umem_device_open(struct inode *inode, struct file *file)
{
	file->private_data = NULL;
	return 0;
}

static int umem_device_release(struct inode *inode, struct file *file)
{
	if (file->private_data)
		umem_region_put(file->private_data);
	return 0;
}

/* The first mapping makes a region of its length, later ones map that. */
static struct umem_region *umem_device_bind(struct file *file, struct vm_area_struct *vma)
{
	/* Pairs with cmpxchg_release() below. */
	struct umem_region *region = smp_load_acquire(&file->private_data), *old;

	if (region)
		return region;
	region = umem_region_create((u64)(vma->vm_pgoff + vma_pages(vma)) << PAGE_SHIFT, "", 0);
	if (IS_ERR(region))
		return region;
	old = cmpxchg_release(&file->private_data, NULL, region);
	if (!old)
		return region;
	umem_region_put(region);
	return old;
}

static int umem_device_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct umem_region *region;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	region = umem_device_bind(file, vma);
	if (IS_ERR(region))
		return PTR_ERR(region);
	return umem_guest_mmap(region, vma);
}

/* Without llseek it is ESPIPE: nobody takes the device for a file of length 0. */
static const struct file_operations umem_device_fops = {
	.owner		= THIS_MODULE,
	.open		= umem_device_open,
	.release	= umem_device_release,
	.mmap		= umem_device_mmap,
	.unlocked_ioctl	= umem_device_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
};

static struct miscdevice umem_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "umem",
	.mode	= 0660,
	.fops	= &umem_device_fops,
};

static int __init umem_init(void)
{
	int err;

	err = umem_request_init();
	if (err)
		return err;
	err = umem_region_init();
	if (err)
		goto err_request;
	err = umem_netlink_init();
	if (err)
		goto err_region;
	err = misc_register(&umem_device);
	if (err)
		goto err_netlink;
	return 0;

err_netlink:
	umem_netlink_exit();
err_region:
	umem_region_exit();
err_request:
	umem_request_exit();
	return err;
}

static void __exit umem_exit(void)
{
	misc_deregister(&umem_device);
	umem_netlink_exit();
	umem_region_exit();
	umem_request_exit();
}

module_init(umem_init);
module_exit(umem_exit);

MODULE_DESCRIPTION("Memory whose missing pages a pager brings: post-copy migration");
MODULE_VERSION("0.1.0");
MODULE_LICENSE("GPL");
