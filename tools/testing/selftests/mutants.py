#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Break each promise of the module in turn and see a test fail.

A mutant is one change of the source. It must build, and the program named with it must fail; a
mutant that passes shows that a promise has no test. usage: mutants.py [NAME...]
"""

import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lab"))
import kbuild  # noqa: E402
import kernels  # noqa: E402
import lab  # noqa: E402

WORK = lab.REPO / "build" / "mutants"
USER = lab.REPO / "build" / "user"
COMMANDS = {"crowd": f"{USER / 'loopback'} {USER / 'umemd'} 'in a loop'"}


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    program: str
    times: int = 1


MUTANTS = [
    Mutant("1-fault-shows-missing", "view.c",
           "	if (umem_page_missing(region, vmf->pgoff))\n		return umem_request_page",
           "	if (0)\n		return umem_request_page", "presence"),
    Mutant("1-fault-around-shows-missing", "view.c",
           "umem_blocks_present(region, start, end))\n		ret", "true)\n		ret", "presence"),
    Mutant("1-mark-keeps-mappings", "region.c",
           "		ret = umem_part_drop(region, part);", "		ret = 0;", "presence"),
    Mutant("1-private-mapping", "view.c",
           "	if (!(vma->vm_flags & VM_MAYSHARE))\n		return -EINVAL;\n	/* One of",
           "	/* One of", "presence"),
    Mutant("1-length-changes", "region.c", "F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW", "0",
           "presence"),
    Mutant("1-waits-where-it-cannot", "request.c",
           "	if (!(vmf->flags & FAULT_FLAG_ALLOW_RETRY))\n		return VM_FAULT_SIGBUS;",
           "	if (!(vmf->flags & FAULT_FLAG_ALLOW_RETRY))\n		return VM_FAULT_NOPAGE;",
           "presence"),
    Mutant("2-copy-overwrites", "pager.c",
           "if (!umem_page_fillable(region, index))", "if (0)", "presence", 2),
    Mutant("2-publish-leaves-fill-view", "pager.c",
           "			umem_region_unmap_fill(region, chunk);\n", "", "presence"),
    Mutant("2-copy-leaves-fill-view", "pager.c",
           "	if (folio_test_large(folio) || folio_mapped(folio))\n"
           "		umem_region_unmap_fill(region, span);\n", "	(void)span;\n", "presence"),
    Mutant("3-a-request-a-thread", "request.c",
           "		if (req->index == index)\n			return req;",
           "		if (req->index == index && !index)\n			return req;", "requests"),
    Mutant("3-pending-lost-with-pager", "request.c",
           "			if (list_empty(&req->link))\n"
           "				list_add_tail(&req->link, &region->queue);",
           "			;", "requests"),
    Mutant("3-efault-loses-requests", "request.c",
           "		umem_request_unread(region, req);\n", "", "requests"),
    Mutant("3-copy-loses-requests-it-cannot-count", "ioctl.c",
           "	return put_user(0, &user->out_events);", "	return 0 && user;", "requests"),
    Mutant("3-failed-copy-takes-requests", "pager.c",
           "	if (!ret && copy->events)\n", "	if (copy->events)\n", "requests"),
    Mutant("3-answered-is-delivered", "request.c",
           "		umem_request_unqueue(region, req);\n", "", "requests"),
    Mutant("3-nobody-is-woken-to-read", "request.c",
           "	first = umem_queue_is_empty(region);\n	list_add_tail(&req->link, &region->queue);\n",
           "	list_add_tail(&req->link, &region->queue);\n	first = umem_queue_is_empty(region);\n",
           "requests"),
    Mutant("4-not-killable", "request.c", "	return TASK_KILLABLE;",
           "	return TASK_UNINTERRUPTIBLE;", "requests"),
    Mutant("4-no-signal-handled", "request.c", "		return TASK_INTERRUPTIBLE;",
           "		return TASK_KILLABLE;", "requests"),
    Mutant("4-spins-on-a-signal", "request.c", "	return TASK_KILLABLE;",
           "	return TASK_INTERRUPTIBLE;", "requests"),
    Mutant("4-holds-the-mmap-lock", "request.c",
           "	release_fault_lock(vmf);\n	umem_wait_begin(region, &wait);\n"
           "	answered = umem_request_wait(region, req, mm, umem_wait_state(vmf->flags));\n",
           "	umem_wait_begin(region, &wait);\n"
           "	answered = umem_request_wait(region, req, mm, umem_wait_state(vmf->flags));\n"
           "	release_fault_lock(vmf);\n", "requests"),
    Mutant("5-death-wakes-with-zeroes", "pager.c",
           "	umem_requests_renew(region);\n",
           "	umem_requests_renew(region);\n"
           "	bitmap_zero(region->missing, region->nr_pages);\n"
           "	umem_requests_wake_all(region);\n", "requests"),
    Mutant("5-no-next-pager", "pager.c",
           "	umem_region_set_pager(region, NULL);\n", "", "requests"),
    Mutant("5-sigbus-does-not-wake", "pager.c",
           "	if (region->sigbus)\n		umem_requests_wake_all(region);\n", "", "requests"),
    Mutant("6-discard-stays-missing", "region.c",
           "		changed += umem_page_set_present(region, index);\n"
           "		umem_requests_answer(region, index);\n",
           "		changed++;\n", "discard"),
    Mutant("6-discard-keeps-filled", "region.c",
           "	      umem_region_punch(region, part) : 0;", "	      0 : 0;", "discard"),
    Mutant("6-pager-not-told", "region.c",
           "		umem_discard_queue(region, discard, span);\n		discard = NULL;\n", "",
           "discard"),
    Mutant("6-waiter-not-woken", "region.c",
           "		umem_requests_answer(region, index);\n", "", "discard"),
    Mutant("7-unloads-under-a-region", "region.c",
           "	.owner		= THIS_MODULE,\n	.open		= umem_region_open,",
           "	.open		= umem_region_open,", "lifetime"),
    Mutant("7-waiter-does-not-pin", "request.c",
           "	file = get_file(vmf->vma->vm_file);\n", "	file = NULL;\n", "lifetime"),
    Mutant("7-toucher-pays", "region.c", "	old_memcg = set_active_memcg(region->memcg);\n"
           "	for (;;) {", "	old_memcg = set_active_memcg(NULL);\n	for (;;) {", "owner"),
    Mutant("7-no-limit", "region.c", "		err = -ENOSPC;", "		err = 0;", "owner"),
    Mutant("7-bitmap-is-not-freed", "region.c", "	kvfree(region->missing);\n", "", "crowd"),
    Mutant("7-pager-is-not-freed", "pager.c",
           "	umem_region_put(pager->region);\n	kfree(pager);\n",
           "	umem_region_put(pager->region);\n", "crowd"),
    Mutant("7-pager-keeps-its-region", "pager.c",
           "	umem_region_put(pager->region);\n	kfree(pager);\n", "	kfree(pager);\n", "crowd"),
    Mutant("memory-kernel-threads-wait-for-nobody", "request.c",
           "	nobody = !owner ||", "	nobody = false &&", "access"),
    Mutant("memory-dying-threads-wait", "request.c",
           "	if (current->flags & (PF_EXITING | PF_DUMPCORE))", "	if (0)", "access"),
    Mutant("memory-is-dumped", "view.c",
           "	vm_flags_set(vma, UMEM_GUARD | VM_DONTDUMP);", "	vm_flags_set(vma, UMEM_GUARD);",
           "access"),
    Mutant("memory-fill-view-punches-holes", "view.c",
           "	file->f_op = &umem_fill_fops;\n", "", "mappings"),
    Mutant("memory-fill-view-is-inherited", "view.c",
           "VM_MIXEDMAP | VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY",
           "VM_MIXEDMAP | VM_DONTEXPAND | VM_DONTDUMP", "mappings"),
    Mutant("memory-broken-is-shown", "region.c",
           "	if (folio_test_hwpoison(folio) && ", "	if (0 && ", "placement"),
    Mutant("owner-may-be-anyone", "region.c",
           "	if (!uid_eq(region->uid, current_euid()) && !capable(CAP_SYS_ADMIN)) {",
           "	if (0) {", "owner"),
    Mutant("owner-is-any-root", "region.c",
           "current_euid()) && !capable(CAP_SYS_ADMIN)) {",
           "current_euid()) && !ns_capable(current_user_ns(), CAP_SYS_ADMIN)) {", "owner"),
    Mutant("owner-may-have-any-number", "region.c",
           "	return nr < READ_ONCE(max_user_regions) ||", "	return true ||", "owner"),
    Mutant("owner-out-of-memory-spins", "view.c",
           "	if (umem_region_charge(region, vmf->pgoff))\n		return VM_FAULT_SIGBUS;",
           "	if (umem_region_charge(region, vmf->pgoff))\n		return VM_FAULT_OOM;", "owner"),
    Mutant("track-not-cleaned", "track.c", "	folio_mkclean(folio);\n", "", "track"),
    Mutant("track-forgets-writes", "view.c",
           "	umem_track_mark(region, span);\n	return VM_FAULT_LOCKED;",
           "	(void)span;\n	return VM_FAULT_LOCKED;", "track"),
    Mutant("track-forgets-new-views", "view.c",
           "	umem_view_set_tracked(view, rcu_access_pointer(region->dirty));\n	mutex_unlock",
           "	umem_view_set_tracked(view, false);\n	mutex_unlock", "track"),
    Mutant("track-forgets-forks", "view.c",
           "	umem_view_set_tracked(view, rcu_access_pointer(region->dirty));\n	mutex_unlock",
           "	umem_view_set_tracked(view, vma->vm_mm == current->mm &&\n"
           "			      rcu_access_pointer(region->dirty));\n	mutex_unlock", "track"),
    Mutant("track-forgets-old-views", "view.c",
           "	rcu_assign_pointer(region->dirty, dirty);\n"
           "	mutex_unlock(&region->view_lock);\n	umem_guest_settle(region);",
           "	rcu_assign_pointer(region->dirty, dirty);\n"
           "	mutex_unlock(&region->view_lock);\n	if (!dirty)\n		umem_guest_settle(region);",
           "track"),
    Mutant("track-maps-for-writing-what-is-read", "view.c",
           "	bool notify = tracked || umem_view_wants_writenotify(vma);",
           "	bool notify = umem_view_wants_writenotify(vma);", "track"),
    Mutant("track-stays-in-views", "view.c",
           "	rcu_assign_pointer(region->dirty, dirty);\n"
           "	mutex_unlock(&region->view_lock);\n	umem_guest_settle(region);",
           "	rcu_assign_pointer(region->dirty, dirty);\n"
           "	mutex_unlock(&region->view_lock);\n	if (dirty)\n		umem_guest_settle(region);",
           "track"),
    Mutant("track-leaves-pages-read-only", "view.c",
           "	bool notify = tracked || umem_view_wants_writenotify(vma);",
           "	bool notify = true;", "track"),
    Mutant("track-forgets-references", "track.c",
           "		if (umem_track_is_pinned(folio))\n			set_bit(index, dirty);",
           "		umem_track_is_pinned(folio);", "track_pin"),
    Mutant("track-forgets-copy", "pager.c",
           "	umem_page_set_present(region, index);\n	umem_track_mark_page(region, index);\n"
           "	return 1;", "	umem_page_set_present(region, index);\n	return 1;", "track"),
    Mutant("track-forgets-publish", "pager.c",
           "		umem_track_mark_page(region, index);\n		umem_requests_answer",
           "		umem_requests_answer", "track"),
    Mutant("track-forgets-discards", "region.c",
           "	umem_track_mark(region, part);\n", "", "track"),
    Mutant("track-forgets-what-it-could-not-tell", "track.c",
           "			umem_track_restore(region, &chunk);\n", "", "track"),
    Mutant("track-starts-clean", "track.c",
           "		memset((u8 *)dirty + done, 0xff, part);",
           "		memset((u8 *)dirty + done, 0, part);", "track"),
    Mutant("track-outlives-the-pager", "pager.c",
           "	umem_track_stop(region);\n	umem_requests_renew", "	umem_requests_renew", "track"),
    Mutant("huge-shows-neighbours", "view.c",
           "	} else if (folio_test_large(folio) && (vmf->vma->vm_flags & VM_MIXEDMAP)) {",
           "	} else if (0) {", "huge"),
    Mutant("huge-shows-those-around", "view.c",
           "		end = data_race(find_next_bit(region->missing, end, index));\n", "", "huge"),
    Mutant("huge-collapses-what-is-missing", "region.c",
           "	umem_guest_guard(region, true);\n", "", "huge"),
    Mutant("huge-is-never-collapsed", "region.c",
           "		umem_notify(region, UMEM_CMD_COMPLETE_NTF, NULL);\n"
           "		umem_region_relax(region);",
           "		umem_notify(region, UMEM_CMD_COMPLETE_NTF, NULL);", "huge"),
    Mutant("huge-stays-mapped-whole", "view.c",
           "		unmap_mapping_pages(vma->vm_file->f_mapping, vma->vm_pgoff, vma_pages(vma), false);\n",
           "", "huge"),
    Mutant("huge-tracks-whole-folios", "view.c",
           "	return region->guarded || (region->huge && rcu_access_pointer(region->dirty));",
           "	return region->guarded;", "huge"),
    Mutant("huge-track-leaves-mappings", "track.c",
           "	unmap_mapping_pages(folio->mapping, folio->index, folio_nr_pages(folio), false);\n",
           "", "huge"),
    Mutant("huge-track-forgets-references", "track.c",
           "	if (folio_ref_count(folio) == folio_nr_pages(folio) + 1)\n		return;",
           "	return;", "huge"),
    Mutant("huge-allocates-nothing", "region.c",
           "		return umem_region_populate(region, span);", "		return 0;", "huge"),
    Mutant("netlink-all-see-all", "netlink.c",
           "	       file_ns_capable(file, &init_user_ns, CAP_SYS_ADMIN);", "	       true;", "netlink"),
    Mutant("netlink-root-of-a-namespace-sees-all", "netlink.c",
           "file_ns_capable(file, &init_user_ns, CAP_SYS_ADMIN)",
           "file_ns_capable(file, file->f_cred->user_ns, CAP_SYS_ADMIN)", "netlink"),
    Mutant("netlink-dumps-hide-changes", "netlink.c",
           "		genl_dump_check_consistent(cb, header);\n", "		;\n", "netlink"),
    Mutant("netlink-dumps-forget-threads", "netlink.c",
           "		cb->seq += umem_threads_changes();\n", "		;\n", "netlink"),
    Mutant("netlink-poison-is-complete", "region.c",
           "	if (atomic_long_dec_and_test(&region->nr_missing)) {",
           "	if (atomic_long_dec_return(&region->nr_missing) ==\n"
           "	    atomic_long_read(&region->nr_poisoned)) {", "netlink"),
    Mutant("stat-signals-end-it", "stat.c", "	if (answered)\n", "	if (true)\n", "netlink"),
    Mutant("stat-never-forgets", "stat.c",
           "	ended = !pid_task(thread->pid, PIDTYPE_PID);", "	ended = false;", "netlink"),
    Mutant("stat-lists-without-end", "stat.c",
           ">= READ_ONCE(max_threads))", ">= INT_MAX)", "netlink"),
    Mutant("trace-has-no-waker", "request.c", "	trace_umem_wake(region, index);\n", "",
           "tracepoints"),
    Mutant("errno-unknown-flag", "ioctl.c",
           "	if (call.arg.head.flags & ~op->flags)\n		return -EOPNOTSUPP;\n", "", "bad_input"),
    Mutant("errno-past-the-end", "region.c",
           "	if (end >> PAGE_SHIFT > region->nr_pages)\n		return -EINVAL;\n",
           "	if (end >> PAGE_SHIFT > region->nr_pages + 1)\n		return -EINVAL;\n",
           "bad_input"),
]


def build(mutant):
    """The mutant's umem.ko, in a folder of its own."""
    work = WORK / mutant.name
    kbuild.copy_sources(work)
    source = work / "kernel" / mutant.file
    text = source.read_text()
    if text.count(mutant.old) != mutant.times:
        raise lab.LabError(f"{mutant.name}: its text stands {text.count(mutant.old)} times in "
                           f"{mutant.file}, not {mutant.times}")
    source.write_text(text.replace(mutant.old, mutant.new))
    code, said = kbuild.build(kernels.of_hosts(), work, "KCFLAGS=-Wno-error -Wno-unused")
    if code:
        raise lab.LabError(f"{mutant.name} does not build: {said[-2000:]}")
    return work / "kernel" / "umem.ko"


def is_caught(mutant, module):
    """What caught it, or None. A mutant may well take the host down."""
    program = COMMANDS.get(mutant.program, lab.REPO / "build" / "selftests" / mutant.program)
    try:
        with lab.Host("mutant", smp=2, kvm=False) as host:
            host.run(f"insmod {module}", check=True)
            job = host.start(str(program))
            while job.poll() is None and "\nnot ok " not in job.output():
                time.sleep(0.1)
            failed = re.search(r"^not ok \d+ (.*)", job.output(), re.M)
            return failed[1] if failed else "the program failed" if job.poll() else None
    except (lab.HostDied, lab.JobTimeout, lab.KernelComplaint) as error:
        return f"the host: {str(error).splitlines()[0][:100]}"


def main():
    wanted = [m for m in MUTANTS if not sys.argv[1:] or m.name in sys.argv[1:]]
    survivors = 0
    print(f"1..{len(wanted)}")
    for number, mutant in enumerate(wanted, 1):
        caught = is_caught(mutant, build(mutant))
        survivors += not caught
        print(f"{'ok' if caught else 'not ok'} {number} {mutant.name} is caught by "
              f"{caught or 'nothing in ' + mutant.program}", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
