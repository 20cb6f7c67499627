# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests under umem-qemu in the lab's hosts: start them, type at their monitor, read their reports.

    source = vm.Guest(a, "source").start()
    destination = vm.Guest(b, "destination", incoming="tcp:0:4444").start()
    source.wait_ready()
    source.type("migrate -p tcp:10.77.0.2:4444")
    destination.wait_event("END")
"""

import contextlib
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lab"))
import lab  # noqa: E402
from guest import reports  # noqa: E402

BIN = lab.REPO / "build" / "user"
GUEST = lab.REPO / "build" / "guest"
HERE = lab.REPO / "tools" / "testing" / "e2e"
REGION = lab.REPO / "build" / "e2e" / "region"
PORT = 4444
PAGE = 4096
WHOLE = {"memory_mib": 256, "pages": None, "rate": None}  # it writes most of its memory, as it can
BOOT_TIMEOUT = 90
boots_retried = 0
_guests = {}


def guests_of(host):
    """The guests that were made in the host, which are forgotten now."""
    return _guests.pop(host, [])


class Failure(AssertionError):
    """A test's finding; the message says what was seen and what was wanted."""


class GuestBootHung(Exception):
    """An emulated host now and then hangs while a guest boots in it."""


@contextlib.contextmanager
def booting():
    try:
        yield
    except (lab.JobTimeout, lab.HostDied) as error:
        raise GuestBootHung(str(error)[:300]) from error


def with_one_more_boot(run, renew=lambda: None):
    """Run, and once more in fresh hosts if a guest's boot hung, counted and said. Nothing but a
    boot is ever tried again, least of all a migration."""
    global boots_retried
    try:
        return run()
    except GuestBootHung as error:
        boots_retried += 1
        print(f"# a guest did not boot, tried once more in fresh hosts: {error}", flush=True)
        renew()
        return run()


def expect(condition, message):
    if not condition:
        raise Failure(message)


@dataclass(frozen=True)
class Event:
    """A line `umem-qemu: TIME event NAME text`; time in seconds of the host's clock."""
    time: float
    name: str
    text: str

    PATTERN = re.compile(r"umem-qemu: (\S+Z) event (\S+) ?(.*)$", re.M)

    @classmethod
    def all_in(cls, text):
        return [cls(datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ")
                    .replace(tzinfo=timezone.utc).timestamp(), name, rest)
                for stamp, name, rest in cls.PATTERN.findall(text)]


class Guest:
    """One QEMU in a host, with its monitor on standard input and the guest's port in a log."""

    def __init__(self, host, name, incoming=None, memory_mib=128, threads=4, pages=4000,
                 mode="churn", rate=4000, options="", append="", launcher=None, kvm=True,
                 user=None):
        self.host = host
        self.name = name
        self.log = host.dir / f"{name}.guest.log"
        self._port = f"/run/{name}.port"
        launcher = launcher or f"{BIN / 'umem-qemu'} {'-postcopy' if incoming else ''}"
        console = f"file:{host.dir}/{name}.console.log"
        if user:
            launcher = f"setpriv --reuid={user} --regid={user} --clear-groups {launcher}"
            console = "null"  # the folder is root's
        append = f"console=ttyS0 quiet panic=-1 {append} umem.port=virtio umem.threads={threads}" \
                 f" umem.mode={mode}" + (f" umem.pages={pages}" if pages else "") \
                 + (f" umem.rate={rate}" if rate else "")
        # A virtio port wants its other end open at all times, which a FIFO is.
        self.command = (
            f"rm -f {self._port}.*; mkfifo -m 666 {self._port}.in {self._port}.out;"
            f" cat {self._port}.out >{self.log} &"
            f" exec {launcher} -name {name} {'-accel kvm -cpu host' if kvm else '-accel tcg'}"
            f" -m {memory_mib} -nodefaults -no-reboot -display none -vga none"
            f" -kernel {GUEST / 'vmlinux'} -initrd {GUEST / 'guest.cpio'} -append '{append}'"
            f" -device virtio-serial-pci"
            f" -chardev pipe,id=guest,path={self._port}"
            f" -device virtserialport,chardev=guest"
            f" -serial {console} -monitor stdio"
            + (f" -incoming {incoming}" if incoming else "") + (f" {options}" if options else ""))
        self.job = None
        _guests.setdefault(host, []).append(self)

    def start(self):
        self.log.unlink(missing_ok=True)
        self.job = self.host.start(self.command, stdin=True, name=self.name)
        return self

    @property
    def qemu(self):
        """A pattern for pgrep -f that QEMU's command line matches and pgrep's own shell does not."""
        return f"'[q]emu-system-x86_64.*-name {self.name} '"

    def boot(self, ready=None):
        """Start, and wait for the guest, or for what `ready` waits for."""
        with booting():
            self.start()
            (ready or self.wait_ready)()
        return self

    # What it says

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def reports(self):
        return reports(self.text())

    def last(self):
        reports = self.reports()
        return reports[-1] if reports else None

    def wait_text(self, pattern, timeout=180, start=0):
        return self.wait_for(lambda: re.compile(pattern, re.M).search(self.text(), start), timeout,
                          f"say {pattern!r}")

    def wait_file(self, path, pattern, timeout=180):
        """Wait till a file that the guest's QEMU writes matches."""
        self.wait_for(lambda: path.exists() and re.search(pattern, path.read_text(errors="replace")),
                   timeout, f"write {pattern!r} to {path.name}")

    def wait_ready(self):
        return self.wait_text(r"umem-guest: ready pages=(\d+)", BOOT_TIMEOUT)

    def wait_ops(self, count, timeout=180):
        """Wait till so many more operations are done: the guest runs."""
        start = self.last().ops if self.last() else 0
        self.wait_for(lambda: self.last() and self.last().ops >= start + count, timeout,
                   f"do {count} operations")

    def wait_more_reports(self, count=3, timeout=180):
        seen = len(self.reports())
        self.wait_for(lambda: len(self.reports()) >= seen + count, timeout, "report")

    def wait_for(self, condition, timeout, what):
        deadline = time.monotonic() + timeout
        while True:
            ended = self.job.poll() is not None
            value = condition()
            if value:
                return value
            if ended:
                raise Failure(f"{self.name} ended with {self.job.rc} and did not {what}:"
                              f" {self.job.output()[-2000:]}")
            if time.monotonic() > deadline:
                raise lab.JobTimeout(f"{self.name} did not {what} within {timeout} s: "
                                     f"{self.job.output()[-1000:]} {self.text()[-300:]}\n"
                                     f"{self._where_its_threads_are()}")
            time.sleep(0.05)

    def _where_its_threads_are(self):
        """Those of QEMU twice, a second apart, and who waits in its regions."""
        threads = (f"for t in /proc/$(pgrep -of {self.qemu})/task/*; do"
                   " echo $(cat $t/comm $t/wchan) $(cut -d' ' -f14,15 $t/stat); cat $t/stack; done")
        return self.host.run(f"{threads}; sleep 1; {threads}; {BIN / 'umemctl'} stat").out

    # What it is told

    def type(self, line):
        """A line at the monitor; gives the length of the output so far."""
        position = len(self.job.output())
        self.job.write(line + "\n")
        return position

    def ask(self, line, pattern, timeout=90):
        return self.job.wait_output(pattern, timeout, self.type(line))

    def tell_guest(self, line):
        """A line to the program in the guest."""
        self.host.run(f"echo '{line}' >{self._port}.in", check=True)

    def read_in_order(self, first, count, timeout=180):
        """Have the guest check pages of its table, one after another."""
        position = len(self.text())
        self.tell_guest(f"read {first} {count}")
        match = self.wait_text(r"read done first=\d+ mismatches=(\d+)", timeout, position)
        expect(match[1] == "0", f"{match[1]} pages are corrupt")

    def sweep(self, rounds, timeout=540):
        """Have the guest check every page of its table; gives (pages, mismatches)."""
        position = len(self.text())
        self.tell_guest(f"sweep {rounds}")
        match = self.wait_text(r"sweep done pages=(\d+) mismatches=(\d+)", timeout, position)
        return int(match[1]), int(match[2])

    # umem-qemu's events

    def events(self):
        return Event.all_in(self.job.output())

    def says(self, name, words=""):
        return [event for event in self.events() if event.name == name and words in event.text]

    def event(self, name):
        return next(iter(self.says(name)), None)

    def wait_event(self, name, timeout=180):
        return self.wait_for(lambda: self.event(name), timeout, f"come to the event {name}")

    def info(self):
        """What `info migrate` says, by key."""
        self.ask("info migrate", r"Migration status:(?:.|\n)*?\n\(qemu\)")
        text = self.job.output()
        lines = text[text.rindex("Migration status:"):].splitlines()
        return dict(line.split(": ", 1) for line in lines if ": " in line)

    def count(self, key):
        """A number of `info migrate`."""
        return int(self.info()[key].split()[0])

    def info_json(self):
        """What `umemctl info --json` says, once what has happened so far is in it.

        umemd reports four times a second.
        """
        time.sleep(0.5)
        return json.loads(self.host.run(f"{BIN / 'umemctl'} info --json --guest {self.name}",
                                        check=True).out)

    def fault_latency(self):
        """Microseconds by percentile: p50, p90, p99, max."""
        return {name: int(value) for name, value in
                re.findall(r"(p\d+|max) (\d+) us", self.info()["fault latency"])}

    # End

    def stop(self):
        if self.job and self.job.poll() is None:
            self.job.kill()
            self.job.wait(90)
        # umem-qemu killed outright leaves QEMU and umemd running: a promise, not a leak
        self.host.run(f"pkill -9 -f {self.qemu}; pkill -9 -x umemd")

    def alive(self):
        return self.job.poll() is None

    def forget(self):
        """It has ended, and nothing is left of it."""
        _guests[self.host].remove(self)


def migrate(source, destination, options="-p"):
    """Migrate and wait until the guest runs at the destination."""
    source.type(f"migrate -d {options} tcp:{destination.host.ip}:{PORT}")
    destination.wait_event("RESUME")


def wait_end(source, destination, timeout=540):
    destination.wait_event("END", timeout)
    source.wait_event("END")


def build_guests():
    """The guests and the programs that tests run in hosts."""
    for folder, build in (("guest", GUEST), ("e2e", REGION.parent)):
        subprocess.run(["make", "--no-print-directory", "-s", "-C", HERE.parent / folder,
                        f"BUILD={build}"], check=True)


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
