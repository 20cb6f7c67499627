#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the lab itself and of the guests."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import guest  # noqa: E402
import kernel  # noqa: E402
import kernels  # noqa: E402
import lab  # noqa: E402


def alive(pid):
    """Whether the process runs; a zombie does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until(condition, timeout=10):
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


REFUSED = ('audit: type=1326 audit(1763733071.100:2): auid=0 uid=0 gid=0 ses=1 subj=unconfined pid=77'
           ' comm="{}" exe="/usr/bin/it" sig=0 arch=c000003e syscall={} compat=0 ip=0x7f code=0x50000')


class KernelComplaints(unittest.TestCase):
    def test_every_kind_is_recognised(self):
        for line in ("WARNING: CPU: 0 PID: 1 at mm/memory.c:1 fault+0x1/0x2 [umem]",
                     "BUG: unable to handle page fault for address: 0000000000001000",
                     "BUG: Bad page state in process umemd  pfn:12345",
                     "BUG: Bad rss-counter state mm:00000000 type:MM_SHMEMPAGES val:1",
                     "kernel BUG at mm/shmem.c:100!",
                     "Oops: 0002 [#1] PREEMPT SMP NOPTI",
                     "general protection fault, probably for non-canonical address",
                     "Call Trace:",
                     "WARNING: possible circular locking dependency detected",
                     "WARNING: inconsistent lock state",
                     "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
                     "rcu: INFO: rcu_preempt self-detected stall on CPU",
                     "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [qemu:1]",
                     "INFO: task umemd:77 blocked for more than 60 seconds.",
                     "BUG: KASAN: slab-use-after-free in umem_fault+0x1/0x2",
                     "UBSAN: array-index-out-of-bounds in kernel/region.c:1:2",
                     "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
                     "refcount_t: underflow; use-after-free.",
                     REFUSED.format("umemd-errands", 262),
                     "Kernel panic - not syncing: Fatal exception"):
            with self.subTest(line):
                self.assertRegex(line, lab.KERNEL_COMPLAINTS)

    def test_boot_messages_are_not_complaints(self):
        for line in ("Speculative Return Stack Overflow: WARNING: See https://kernel.org/doc",
                     "umem: loading out-of-tree module taints kernel.",
                     "rcu: Hierarchical SRCU implementation.",
                     REFUSED.format("umemd", 2), REFUSED.format("qemu", 262)):
            with self.subTest(line):
                self.assertNotRegex(line, lab.KERNEL_COMPLAINTS)

    def test_a_full_memory_cgroup_is_no_complaint_and_a_full_machine_is(self):
        report = ("owner invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n"
                  "Call Trace:\n <TASK>\n dump_stack_lvl+0x44/0x5c\n </TASK>\n{}\n")
        cgroup = report.format("memory: usage 8192kB, limit 8192kB, failcnt 40")
        machine = report.format("Mem-Info:")
        self.assertNotRegex(lab.CGROUP_IS_FULL.sub("", cgroup + cgroup), lab.KERNEL_COMPLAINTS)
        self.assertRegex(lab.CGROUP_IS_FULL.sub("", cgroup + machine), lab.KERNEL_COMPLAINTS)
        self.assertRegex(lab.CGROUP_IS_FULL.sub("", machine + cgroup), lab.KERNEL_COMPLAINTS)


class Kernels(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def add(self, release):
        for name in (f"boot/vmlinux-{release}", f"lib/modules/{release}/build"):
            (self.folder / name).mkdir(parents=True)

    def test_a_folder_with_a_kernel_is_one(self):
        self.add("9.9-none")
        found = kernels.find(str(self.folder))
        self.assertEqual((found.release, found.vmlinux, found.headers),
                         ("9.9-none", self.folder / "boot/vmlinux-9.9-none",
                          self.folder / "lib/modules/9.9-none/build"))

    def test_a_folder_without_one_or_with_two_is_refused(self):
        with self.assertRaisesRegex(lab.LabError, "it has 0 kernels in boot/; wanted 6.12, "):
            kernels.find(str(self.folder))
        self.add("9.9-none")
        self.add("9.9-other")
        with self.assertRaisesRegex(lab.LabError, "it has 2 kernels"):
            kernels.find(str(self.folder))

    def test_a_release_that_is_not_installed_is_refused(self):
        with self.assertRaisesRegex(lab.LabError, "KERNEL=9.9: there is no .*9.9; wanted 6.12, "):
            kernels.find("9.9")


class OneHost(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.host = cls.enterClassContext(lab.Host("one"))

    def test_a_command_gives_both_outputs_and_its_exit_code(self):
        result = self.host.run("uname -r; echo wrong >&2; exit 3")
        self.assertEqual(result, lab.Result(3, f"{kernel.stock().release}\nwrong\n"))

    def test_check_raises_with_what_the_command_said(self):
        with self.assertRaisesRegex(lab.LabError, "no such thing"):
            self.host.run("echo no such thing; false", check=True)

    def test_jobs_run_side_by_side(self):
        begin = time.monotonic()
        jobs = [self.host.start("sleep 3") for _ in range(5)]
        self.assertEqual([job.poll() for job in jobs], [None] * 5)
        self.assertEqual([job.wait() for job in jobs], [0] * 5)
        self.assertLess(time.monotonic() - begin, 12)

    def test_a_job_reads_what_is_written_and_shows_its_output_live(self):
        job = self.host.start("cat; exit 4", stdin=True)
        job.write("first\n")
        job.wait_output("^first$", 10)
        self.assertIsNone(job.poll())
        long = "x" * 1000000 + "\n"
        job.write(long)
        job.close()
        self.assertEqual(job.wait(), 4)
        self.assertEqual(job.output(), "first\n" + long)

    def test_a_signal_reaches_the_whole_job(self):
        job = self.host.start("echo up; sleep 1000; true")
        job.wait_output("up")
        job.kill(signal.SIGTERM)
        self.assertEqual(job.wait(), 128 + signal.SIGTERM)
        self.assertEqual(self.host.run("pidof sleep").rc, 1)

    def test_a_command_that_takes_too_long_is_killed_and_named(self):
        with self.assertRaisesRegex(lab.JobTimeout, "sleep 999.*it had said: begun"):
            self.host.run("echo begun; sleep 999", timeout=2)
        self.assertTrue(wait_until(lambda: self.host.run("pidof sleep").rc == 1))

    def test_output_that_does_not_come_is_named(self):
        with self.assertRaisesRegex(lab.LabError, "ended with 0 and did not say 'b'.*a"):
            self.host.start("echo a").wait_output("b")
        with self.assertRaisesRegex(lab.JobTimeout, "did not say 'b' within 1 s"):
            self.host.start("echo a; sleep 3").wait_output("b", 1)

    def test_the_root_is_read_only_and_the_run_directory_is_not(self):
        self.assertNotEqual(self.host.run("touch /usr/here").rc, 0)
        self.host.run(f"echo text >{self.host.dir}/file", check=True)
        self.assertEqual((self.host.dir / "file").read_text(), "text\n")

    def test_devices_and_modules_are_there(self):
        self.host.run("test -c /dev/kvm && echo x | cat /dev/fd/0 && modprobe sch_netem",
                      check=True)

    def test_the_clock_offset_is_right(self):
        offset = self.host.clock_offset()
        before = time.time()
        there = float(self.host.run("date +%s.%N").out)
        after = time.time()
        self.assertLess(before - 0.005, there - offset)
        self.assertLess(there - offset, after + 0.005)

    def test_a_kernel_warning_is_caught_once(self):
        self.host.check_kernel_log()
        self.host.run("echo '<4>WARNING: CPU: 0 PID: 1 at lab/selftest.c:1 +0x1/0x2' >/dev/kmsg")
        with self.assertRaisesRegex(lab.KernelComplaint, "host one: .*\n.*lab/selftest.c:1"):
            self.host.check_kernel_log()
        self.host.check_kernel_log()


class HostLife(unittest.TestCase):
    def test_a_warning_fails_who_leaves_the_host(self):
        with self.assertRaises(lab.KernelComplaint):
            with lab.Host("warned") as host:
                host.run("echo '<2>kernel BUG at lab/selftest.c:1!' >/dev/kmsg")
        self.assertFalse(alive(host.pid))

    def test_an_exception_in_the_body_comes_first(self):
        with self.assertRaises(ZeroDivisionError):
            with lab.Host("warned") as host:
                host.run("echo '<2>kernel BUG at lab/selftest.c:1!' >/dev/kmsg")
                raise ZeroDivisionError
        self.assertFalse(alive(host.pid))

    def test_a_power_cut_ends_jobs_with_host_died(self):
        with lab.Host("cut") as host:
            job = host.start("sleep 1000")
            host.kill()
            with self.assertRaisesRegex(lab.HostDied, "host cut has gone"):
                job.wait()
            with self.assertRaises(lab.HostDied):
                host.run("true")

    def test_a_panic_ends_the_host_and_is_a_complaint(self):
        with self.assertRaisesRegex(lab.KernelComplaint, "sysrq triggered crash"):
            with lab.Host("panic") as host:
                with self.assertRaises(lab.HostDied):
                    host.run("echo c >/proc/sysrq-trigger; sleep 1000")

    def test_a_silent_boot_is_tried_once_more_and_counted(self):
        before, timeout = lab.boot_retries, lab.BOOT_TIMEOUT
        lab.BOOT_TIMEOUT = 0.5
        try:
            with self.assertRaisesRegex(lab.BootTimeout, "took more than 0.5 s"):
                with lab.Host("silent"):
                    pass
        finally:
            lab.BOOT_TIMEOUT = timeout
        self.assertEqual(lab.boot_retries, before + 1)

    def test_a_silent_guest_gets_fresh_hosts_once(self):
        pids = []

        def boot(host):
            pids.append(host.pid)
            host.start("true").wait_output("ready", 0 if len(pids) == 1 else 10)

        with self.assertRaisesRegex(lab.LabError, "did not say 'ready'"):
            with lab.with_guests(lambda: lab.Host("guest"), boot):
                self.fail("the guest did not boot")
        self.assertEqual(len(set(pids)), 2)
        self.assertFalse(any(alive(pid) for pid in pids))

    def test_a_writable_root_builds_and_loads_a_module(self):
        with lab.Host("writable", mem_mib=2048, kvm=False, writable_root=True) as host:
            (host.dir / "hello.c").write_text(
                '#include <linux/module.h>\nstatic int __init hello(void)\n'
                '{\n\tpr_info("hello\\n");\n\treturn 0;\n}\nmodule_init(hello);\n'
                'MODULE_LICENSE("GPL");\n')
            (host.dir / "Kbuild").write_text("obj-m := hello.o\n")
            host.run(f"mkdir /usr/src/hello && cp {host.dir}/hello.c {host.dir}/Kbuild "
                     "/usr/src/hello && make -C /lib/modules/$(uname -r)/build M=/usr/src/hello "
                     "modules modules_install && depmod && modprobe hello && "
                     "dmesg | grep hello", timeout=300, check=True)


class TearDown(unittest.TestCase):
    """A program that started a host ends in some way, and the host with it."""

    PROGRAM = ("import sys, time; sys.path.insert(0, {path!r}); import lab\n"
               "host = lab.Host('left')\n"
               "host.launch()\n"
               "print(host.pid, flush=True)\n"
               "{rest}\n")

    def start(self, rest):
        program = self.PROGRAM.format(path=str(HERE), rest=rest)
        process = subprocess.Popen([sys.executable, "-B", "-c", program], stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, text=True, start_new_session=True)
        self.addCleanup(process.stdout.close)
        pid = int(process.stdout.readline())
        self.addCleanup(lambda: alive(pid) and os.kill(pid, signal.SIGKILL))
        return process, pid

    def check(self, rest, number=None, code=0):
        process, pid = self.start(rest)
        if number:
            self.assertTrue(alive(pid))
            os.killpg(process.pid, number)
        self.assertEqual(process.wait(30), code)
        self.assertTrue(wait_until(lambda: not alive(pid)))

    def test_at_its_end(self):
        self.check("pass")

    def test_at_an_exception(self):
        self.check("raise ValueError", code=1)

    def test_at_ctrl_c(self):
        self.check("time.sleep(1000)", signal.SIGINT, -signal.SIGINT)

    def test_at_sigterm(self):
        self.check("time.sleep(1000)", signal.SIGTERM, 128 + signal.SIGTERM)

    def test_at_sigkill(self):
        self.check("time.sleep(1000)", signal.SIGKILL, -signal.SIGKILL)


class Command(unittest.TestCase):
    def lab(self, *arguments):
        done = subprocess.run([HERE / "lab", *arguments], stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return done.returncode, done.stdout, done.stderr

    def test_run_gives_output_and_exit_code_of_both_hosts(self):
        code, out, _ = self.lab("run", "--hosts", "2", "--", "echo I am $(uname -n); "
                                "[ $(uname -n) = a ] || exit 7")
        self.assertEqual((code, sorted(out.splitlines())), (7, ["a: I am a", "b: I am b"]))

    def test_run_fails_on_a_kernel_warning(self):
        code, out, err = self.lab("run", "--", "echo '<4>WARNING: lab/selftest' >/dev/kmsg")
        self.assertEqual((code, out), (1, ""))
        self.assertRegex(err, "host a: the kernel complained")

    def test_shell_without_a_terminal_is_refused(self):
        code, _, err = self.lab("shell")
        self.assertEqual((code, err), (1, "lab: lab shell needs a terminal; for scripts there is "
                                          "lab run\n"))

    def test_wrong_usage_is_refused(self):
        self.assertEqual(self.lab("run", "--hosts", "3", "--", "true")[0], 2)
        self.assertEqual(self.lab()[0], 2)


class Guests(unittest.TestCase):
    def test_two_hosts_migrate_the_checking_guest(self):
        def boot(hosts):
            first, second = (guest.Guest(host, name, append="umem.pages=8192")
                             for host, name in zip(hosts, ("source", "destination")))
            first.start("qemu-system-x86_64")
            second.start("qemu-system-x86_64", "-incoming defer")
            self.assertEqual(first.wait_ready(), 8192)
            return first, second

        with lab.with_guests(lambda: lab.pair(mem_mib=1024), boot) as (_, (first, second)):
            first.wait_reports(10)
            done = guest.migrate_with_qemu(first, second, "10.77.0.2:4444")
            self.assertGreater(done.downtime_ms, 0)
            self.assertEqual(second.sweep(2), (2 * 8192, 0))
            self.assertEqual(second.storm(), (64, 0))
            before, *_, after = second.wait_reports(10)
            self.assertGreater(after.ops, before.ops)
            self.assertEqual((after.sweeps, after.mismatches), (2, 0))

    def test_the_checking_guest_sees_its_memory_spoilt_from_outside(self):
        def boot(host):
            one = guest.Guest(host, append="umem.pages=1024 umem.mode=storm")
            host.run("fallocate -l 256M /dev/shm/ram", check=True)
            one.start("qemu-system-x86_64", "-machine memory-backend=ram -object "
                      "memory-backend-file,id=ram,size=256M,share=on,mem-path=/dev/shm/ram")
            one.wait_ready()
            return one

        with lab.with_guests(lambda: lab.Host("spoilt"), boot) as (host, one):
            self.assertEqual(one.sweep(), (1024, 0))
            host.run(f"/usr/bin/python3 {HERE}/spoil.py /dev/shm/ram 3", check=True)
            self.assertEqual(one.sweep(), (1024, 3))

    def test_the_disk_guest_finds_its_files_right(self):
        def boot(host):
            with open(host.dir / "disk.img", "wb") as image:
                image.truncate(64 << 20)
            job = host.start(
                "exec qemu-system-x86_64 -accel kvm -cpu host -m 256 -nodefaults -display none "
                f"-serial stdio -kernel {guest.IMAGES}/vmlinux "
                f"-initrd {guest.IMAGES}/disk-guest.cpio -append 'console=ttyS0 quiet' "
                f"-drive file={host.dir}/disk.img,if=virtio,format=raw,cache=none")
            job.wait_output("umem-disk: ready", guest.BOOT_TIMEOUT)
            return job

        with lab.with_guests(lambda: lab.Host("disk"), boot) as (_, job):
            job.wait_output("umem-disk: files=20 bad=0\r?\n", 60)


class Tap(unittest.TestResult):
    """A line of TAP for each test, when it is over."""

    number = 0

    def _line(self, test, passed, details=""):
        self.number += 1
        print("".join(f"# {line}\n" for line in details.splitlines())
              + f"{'ok' if passed else 'not ok'} {self.number} {test.id().split('.', 1)[-1]}",
              flush=True)

    def addSuccess(self, test):
        self._line(test, True)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._line(test, False, self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self._line(test, False, self.errors[-1][1])


if __name__ == "__main__":
    result = Tap()
    loader = unittest.defaultTestLoader
    module = sys.modules["__main__"]
    (loader.loadTestsFromNames(sys.argv[1:], module) if sys.argv[1:]
     else loader.loadTestsFromModule(module)).run(result)
    print(f"1..{result.number}")
    sys.exit(not result.wasSuccessful())
