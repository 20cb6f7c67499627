# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts to test in: virtual machines (QEMU, TCG) that boot the distribution's stock kernel, or the
one that UMEM_KERNEL names.

    with lab.Host("a") as h:
        h.load_module()
        print(h.run("uname -r").out)

    with lab.pair() as (a, b):        # 10.77.0.1 and 10.77.0.2
        a.run("ping -c 3 10.77.0.2", check=True)

The root of a host is this machine's own /, read-only, as it was when the host first looked at each
file; /tmp and /run are its own. run_dir() is writable and has the same path here and in all hosts;
host.dir below it gets what jobs write and can be read while that grows. A host that is left without
an exception has its kernel log checked. Hosts never outlive the program that started them, whatever
ends it.
"""

import atexit
import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import kernel
import kernels
from kernel import BUILD, REPO, LabError

HERE = REPO / "tools" / "testing" / "lab"
BOOT_TIMEOUT = 180
HOST_MODULES = ["virtio_pci", "virtio_console", "9p", "9pnet_virtio", "overlay", "virtio_net"]

KERNEL_COMPLAINTS = re.compile(
    # The kernel has data races of its own.
    r"(?<!Overflow: )WARNING:|BUG:(?! KCSAN: (?!.*umem))|Oops|kernel BUG|Call Trace|Kernel panic"
    r"|general protection fault"
    r"|possible (circular|recursive|irq lock|deadlock)|inconsistent lock state|suspicious RCU"
    r"|lock held when returning|rcu.*(detected stall|self-detected|stalls on)"
    r"|soft lockup|hard LOCKUP|blocked for more than|KASAN|UBSAN|Bad (page|rss)"
    r"|page allocation failure|kmemleak: [1-9]|refcount_t:|corrupted stack end|umem:.*leak"
    # umemd was refused a system call, other than those it is made to try: open, socket, execve
    r"|type=1326 .* comm=\"umemd.* syscall=(?!2 |41 |59 )")

# What a full memory cgroup has to say is no complaint: tests fill some.
CGROUP_IS_FULL = re.compile(r"invoked oom-killer:(?:(?!invoked oom-killer).)*?</TASK>"
                            r"(?=[^\n]*\n[^\n]*memory: usage )", re.S)

boot_retries = 0
_hosts = []
_scratch = None
_run_dir = None


class HostDied(LabError):
    pass


class BootTimeout(LabError):
    pass


class JobTimeout(LabError):
    pass


class KernelComplaint(LabError):
    pass


class SilentGuest(LabError):
    pass


@dataclass(frozen=True)
class Result:
    rc: int
    out: str


def module():
    """umem.ko as make builds it for the hosts' kernel."""
    return REPO / "build" / f"kernel-{kernels.of_hosts().release}" / "umem.ko"


def run_dir():
    """Where this program's hosts leave their logs: build/lab/run-<time>, linked as latest."""
    global _run_dir
    if _run_dir is None:
        name = datetime.now().strftime("run-%Y%m%d-%H%M%S") + f"-{os.getpid()}"
        _run_dir = BUILD / name
        _run_dir.mkdir(parents=True)
        latest = BUILD / f".latest-{os.getpid()}"
        latest.symlink_to(name)
        latest.rename(BUILD / "latest")
    return _run_dir


def _scratch_path(name):
    """A short path for a socket: their names are limited to 107 bytes."""
    global _scratch
    if _scratch is None:
        _sweep_scratch()
        _scratch = tempfile.mkdtemp(prefix=f"umem-lab-{os.getpid()}-")
    return f"{_scratch}/{name}"


def _sweep_scratch():
    """Remove what programs left that were killed."""
    for path in Path(tempfile.gettempdir()).glob("umem-lab-*-*"):
        if not Path(f"/proc/{path.name.split('-')[2]}").exists():
            shutil.rmtree(path, ignore_errors=True)


def _take_down():
    for host in list(_hosts):
        host.kill()
    if _scratch is not None:
        shutil.rmtree(_scratch, ignore_errors=True)


def _prepare_exit():
    """Have every way this program can end, SIGTERM included, pass through _take_down."""
    if threading.current_thread() is not threading.main_thread():
        raise LabError("hosts are started from the main thread: they die with the thread that did")
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(128 + signal.SIGHUP))


atexit.register(_take_down)
_libc = ctypes.CDLL(None)


def _die_with_parent():
    pr_set_pdeathsig = 1
    _libc.prctl(pr_set_pdeathsig, signal.SIGKILL)


class Job:
    """A shell command that runs in a host."""

    def __init__(self, host, number, cmd, output):
        self.host = host
        self.cmd = cmd
        self.path = output  # what it has written, both streams, growing while it runs
        self.rc = None
        self._number = number

    def poll(self):
        """Exit code (128 + N after signal N), or None while it runs."""
        if self.rc is None:
            self.host.check_alive()
        return self.rc

    def wait(self, timeout=180):
        self.host.wait_for(lambda: self.rc is not None, timeout, self)
        return self.rc

    def wait_output(self, pattern, timeout=180, start=0):
        """Wait till the output from character start on matches; give the match."""
        deadline = time.monotonic() + timeout
        while True:
            ended = self.rc is not None
            match = re.compile(pattern, re.M).search(self.output(), start)
            if match:
                return match
            if ended:
                raise LabError(f"{self} ended with {self.rc} and did not say {pattern!r}: "
                               f"{self.output()[-2000:]}")
            self.host.check_alive()
            if time.monotonic() > deadline:
                raise JobTimeout(f"{self} did not say {pattern!r} within {timeout} s: "
                                 f"{self.output()[-2000:]}")
            time.sleep(0.02)

    def write(self, text):
        self.host.send({"write": self._number, "data": text})

    def close(self):
        """End of its standard input."""
        self.host.send({"close": self._number})

    def kill(self, number=signal.SIGKILL):
        """Send a signal to the job's process group."""
        self.host.send({"kill": self._number, "signal": int(number)})

    def output(self):
        return self.path.read_text(errors="replace") if self.path.exists() else ""

    def __str__(self):
        return f"host {self.host.name}: `{self.cmd}`"


class Host:
    """One virtual machine, up between entering and leaving `with`.

    kvm=True gives it SVM, so that guests run in it under KVM; then keep smp at 1 (QEMU 7.2's
    emulated SVM corrupts the host with more). nic is what follows `-netdev stream,id=nic,` and ip
    its address; pair() sets both. counting=True makes each instruction a nanosecond of its clock.
    append is more of the kernel's command line.
    """

    def __init__(self, name, mem_mib=1024, smp=1, kvm=True, nic=None, ip=None, writable_root=False,
                 counting=False, append=""):
        self.name = name
        self.mem_mib = mem_mib
        self.smp = smp
        self.kvm = kvm
        self.nic = nic
        self.ip = ip
        self.writable_root = writable_root
        self.counting = counting
        self.append = append
        self.dir = run_dir() / name
        self.boot_seconds = None
        self._qemu = None
        self._port = None
        self._listener = None

    def __enter__(self):
        _boot([self])
        return self

    def __exit__(self, kind, _value, _traceback):
        try:
            if kind is None:
                self.check_kernel_log()
        finally:
            self.kill()

    # Life

    @property
    def pid(self):
        """The process of the virtual machine here."""
        return self._qemu.pid

    def running(self):
        return self._qemu.poll() is None

    def launch(self):
        """Start the machine without waiting for it."""
        _prepare_exit()
        self._jobs = {}
        self._answers = {}
        self._next = 0
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._dead = None
        self._checked = 0
        self.release = None
        if self.dir.exists():
            self.dir.rename(self.dir.with_name(f"{self.name}.{time.time_ns()}"))
        self.dir.mkdir(parents=True)
        self.console = self.dir / "console.log"
        self._started = time.monotonic()
        argv = self._command_line()
        (self.dir / "qemu.cmd").write_text(" ".join(argv) + "\n")
        with open(self.dir / "qemu.log", "w") as log:
            self._qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          process_group=0, preexec_fn=_die_with_parent)
        _hosts.append(self)
        self._connect(self._agent_path)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def wait_ready(self):
        try:
            self.wait_for(lambda: self.release, BOOT_TIMEOUT * kernels.of_hosts().patience,
                          "its boot")
        except HostDied as error:
            # An emulated processor may run what another one has just patched away.
            kind = BootTimeout if "Oops: int3" in self.kernel_log() else HostDied
            raise kind(f"{error}: {self.kernel_log()[-500:].strip()}") from None
        except JobTimeout as error:
            raise BootTimeout(f"{error}: {self.kernel_log()[-500:].strip()}") from None
        self.boot_seconds = time.monotonic() - self._started
        if self.kvm and not self.counting:
            threading.Thread(target=self._keep_awake, daemon=True).start()

    def _keep_awake(self):
        """An emulated processor with SVM that sleeps now and then misses its timer, once in some
        thirty boots of a guest, and sleeps on until something else interrupts it."""
        with contextlib.suppress(HostDied):
            while True:
                self.send({"wake": 0})
                time.sleep(1)

    def kill(self):
        """Power cut."""
        if self._qemu is None:
            return
        self._qemu.kill()
        self._qemu.wait()
        if self._port:
            self._port.close()
        if self._listener:
            self._listener.join()   # what it says of this life is not of the next one
        if self in _hosts:
            _hosts.remove(self)

    def _command_line(self):
        chosen = kernels.of_hosts()
        initrd = _initramfs(chosen, self.kvm)
        self._agent_path = _scratch_path(f"{self.name}.agent")
        self.shell_path = _scratch_path(f"{self.name}.shell")
        for path in (self._agent_path, self.shell_path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        settings = {"name": self.name, "repo": REPO, "share": run_dir(), "output": self.dir,
                    "modules": chosen.root / "lib" / "modules",
                    "kvm": int(self.kvm) or "", "writable": int(self.writable_root) or "",
                    "ip": f"{self.ip}/24" if self.ip else ""}
        for key, value in settings.items():
            if re.search(r"[\s,:]", str(value)):
                raise LabError(f"{key} {value!r}: the lab cannot do with blanks, ',' or ':' in it")
        # With no more than one processor ever, QEMU emulates locked instructions as plain ones, while
        # its devices read the rings of virtio at the same time: now and then a card was not told
        # that there was something to send, and sent nothing any more. Where there may be two Linux
        # does not trust this processor's TSC, and reads its clocks from a device; QEMU's are one.
        smp = f"{self.smp},maxcpus={max(self.smp, 2)}"
        append = ("console=ttyS0 panic=-1 oops=panic printk.devkmsg=on mitigations=off "
                  "tsc=reliable "
                  + " ".join(f"lab.{key}={value}" for key, value in settings.items())
                  + f" {self.append}")
        argv = ["qemu-system-x86_64", "-name", f"umem-lab-{self.name}", "-nodefaults",
                "-no-user-config", "-display", "none", "-no-reboot",
                "-accel", f"tcg,thread={'single' if self.counting else 'multi'}", "-cpu", "EPYC,+svm,+npt" if self.kvm else "EPYC,-svm",
                "-m", str(self.mem_mib * min(chosen.patience, 2)), "-smp", smp,
                "-kernel", str(chosen.vmlinux), "-initrd", str(initrd), "-append", append,
                "-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console",
                "-device", "virtio-serial-pci",
                "-chardev", f"socket,id=agent,server=on,wait=off,path={self._agent_path}",
                "-device", "virtserialport,chardev=agent,name=umem.lab",
                "-chardev", f"socket,id=shell,server=on,wait=off,path={self.shell_path}",
                "-device", "virtconsole,chardev=shell",
                "-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,"
                           "multidevs=remap",
                "-virtfs", f"local,path={run_dir()},mount_tag=share,security_model=none,"
                           "multidevs=remap"]
        if self.counting:
            argv += ["-icount", "shift=0"]
        if self.nic:
            # Packets of 9000 bytes, as networks for migration have them: this card leaves cutting
            # what is sent into packets, which others do themselves, to the emulated processor.
            mac = "52:54:00:77:00:" + format(int(self.ip.split(".")[-1]), "02x")
            argv += ["-netdev", f"stream,id=nic,{self.nic}",
                     "-device", f"virtio-net-pci,netdev=nic,mac={mac},host_mtu=9000,romfile="]
        return argv

    def _connect(self, path):
        self._port = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + 10
        while True:
            try:
                self._port.connect(path)
                return
            except (FileNotFoundError, ConnectionRefusedError):
                if self._qemu.poll() is not None or time.monotonic() > deadline:
                    message = (self.dir / "qemu.log").read_text().strip()
                    self.kill()
                    raise LabError(f"host {self.name}: QEMU did not start: {message}") from None
                time.sleep(0.01)

    # The agent

    def _listen(self):
        with contextlib.suppress(OSError), self._port.makefile("r") as lines:
            for line in lines:
                with self._changed:
                    self._receive(json.loads(line))
                    self._changed.notify_all()
        with self._changed:
            self._dead = f"host {self.name} has gone down, see {self.console}"
            self._changed.notify_all()

    def _receive(self, message):
        if "ready" in message:
            self.release = message["ready"]
        elif "exit" in message:
            self._jobs.pop(message["exit"]).rc = message["rc"]
        elif "clock" in message:
            self._answers[message["clock"]] = message["ns"]

    def send(self, message):
        self.check_alive()
        try:
            with self._sending:
                self._port.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise HostDied(f"host {self.name} has gone ({error}), see {self.console}") from None

    def check_alive(self):
        if self._dead:
            raise HostDied(self._dead)

    def wait_for(self, condition, timeout, what):
        with self._changed:
            met = self._changed.wait_for(lambda: condition() or self._dead, timeout)
            if condition():
                return
            self.check_alive()
            if not met:
                raise JobTimeout(f"host {self.name}: {what} took more than {timeout} s")

    def _number(self):
        with self._changed:
            self._next += 1
            return self._next

    # Commands

    def start(self, cmd, stdin=False, name=None):
        """Start a shell command; name (the first word by default) is part of its output file's."""
        number = self._number()
        if name is None:
            name = re.sub(r"[^\w.-]", "", cmd.split()[0].split("/")[-1])
        output = f"{number:03d}-{name}.out"
        job = Job(self, number, cmd, self.dir / output)
        self._jobs[number] = job
        self.send({"start": number, "cmd": cmd, "output": output, "stdin": stdin})
        return job

    def run(self, cmd, timeout=180, check=False):
        """Run a shell command to its end; with check, raise if it fails."""
        job = self.start(cmd)
        try:
            job.wait(timeout)
        except JobTimeout as error:
            job.kill()
            raise JobTimeout(f"{error}; it had said: {job.output()[-2000:]}") from None
        result = Result(job.rc, job.output())
        if check and result.rc:
            raise LabError(f"{job} ended with {result.rc}: {result.out[-2000:].strip()}")
        return result

    def limit_link(self, rate, delay=None):
        """What this host sends goes at no more than @rate and takes @delay, as tc writes them;
        no rate: at any, and at once."""
        if not rate:
            self.run("tc qdisc del dev eth0 root", check=True)
        elif delay:
            self.run(f"modprobe sch_netem && tc qdisc replace dev eth0 root netem rate {rate}"
                     f" delay {delay} limit 10000", check=True)
        else:
            self.run(f"modprobe sch_tbf && tc qdisc replace dev eth0 root tbf rate {rate}"
                     " burst 64kb latency 50ms", check=True)

    def load_module(self, parameters=""):
        """Load umem.ko as make builds it."""
        if not module().exists():
            raise LabError(f"{module()} is missing: run make")
        self.run(f"insmod {module()} {parameters}", check=True)

    def clock_offset(self):
        """Seconds the host's CLOCK_REALTIME is ahead of this machine's (quickest of 20 answers)."""
        best = None
        for _ in range(20):
            number = self._number()
            before = time.time_ns()
            self.send({"clock": number})
            self.wait_for(lambda: number in self._answers, 10, "telling the time")
            after = time.time_ns()
            offset = (self._answers.pop(number) - (before + after) / 2) / 1e9
            if best is None or after - before < best[0]:
                best = (after - before, offset)
        return best[1]

    # The kernel log

    def kernel_log(self):
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def mark(self, text):
        """Write a line into the kernel log and wait till it has come out on the console."""
        start = len(self.kernel_log())
        text = f"lab: {text}"
        self.send({"log": text})
        deadline = time.monotonic() + 30
        while text not in self.kernel_log()[start:]:
            self.check_alive()
            if time.monotonic() > deadline:
                raise LabError(f"host {self.name}: the kernel log does not reach {self.console}")
            time.sleep(0.01)

    def check_kernel_log(self):
        """Raise KernelComplaint if the kernel has complained since the last check."""
        if self._qemu.poll() is None and not self._dead:
            self.mark("checking the kernel log")
        log = self.kernel_log()
        new, self._checked = CGROUP_IS_FULL.sub("", log[self._checked:]), len(log)
        match = KERNEL_COMPLAINTS.search(new)
        if match:
            start = new.rfind("\n", 0, match.start()) + 1
            lines = new[start:].splitlines()[:60]
            raise KernelComplaint(f"host {self.name}: the kernel complained ({self.console}):\n"
                                  + "\n".join(lines))


def _initramfs(chosen, kvm):
    path = _scratch_path("host-kvm.cpio" if kvm else "host.cpio")
    if not os.path.exists(path):
        modules = HOST_MODULES + (["kvm-amd"] if kvm else [])
        kernel.initramfs(path, chosen, HERE / "host-init", modules,
                         [(kernel.BUSYBOX, "bin/busybox")])
    return path


def _count_retry(error):
    global boot_retries
    boot_retries += 1
    print(f"lab: boot retry {boot_retries}: {error}", file=sys.stderr, flush=True)


def _boot(hosts):
    """Boot hosts side by side; all of them once more if one goes silent."""
    for last in (False, True):
        try:
            for host in hosts:
                host.launch()
            for host in hosts:
                host.wait_ready()
            return
        except BaseException as error:
            for host in hosts:
                host.kill()
            if last or not isinstance(error, BootTimeout):
                raise
            _count_retry(error)


@contextlib.contextmanager
def pair(names=("a", "b"), **options):
    """Two hosts, 10.77.0.1 and 10.77.0.2, joined by a network; options are Host's."""
    wire = _scratch_path("wire")
    address = f"addr.type=unix,addr.path={wire}"
    first = Host(names[0], nic=f"server=on,{address}", ip="10.77.0.1", **options)
    second = Host(names[1], nic=f"server=off,{address}", ip="10.77.0.2", **options)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(wire)
    _boot([first, second])
    with contextlib.ExitStack() as stack:
        for host in (first, second):
            stack.push(host)
        yield first, second


@contextlib.contextmanager
def with_guests(hosts, boot):
    """Fresh hosts from hosts() and what boot(hosts) gives; both once more if boot goes silent.

    An emulated host hangs once in some thirty boots of a guest. Nothing but a boot is tried again.
    """
    for last in (False, True):
        try:
            with hosts() as up:
                try:
                    guests = boot(up)
                except JobTimeout as error:
                    raise SilentGuest(str(error)) from error
                yield up, guests
                return
        except SilentGuest as error:
            if last:
                raise
            _count_retry(error)
