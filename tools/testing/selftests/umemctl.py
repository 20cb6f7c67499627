#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""umemctl and the scripts of tools/ against the module, in a host. usage: umemctl.py UMEMCTL"""

import ctypes
import fcntl
import json
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

UMEMCTL = sys.argv[1]
STAGES = Path(__file__).resolve().parents[2] / "umem-stages.bt"
PAGE = 4096
NR = 16
UMEM_CREATE, UMEM_ATTACH, UMEM_MARK_MISSING, UMEM_ZERO = 0xb900, 0xb910, 0xb920, 0xb923


class Region:
    """A region of NR missing pages with a pager."""

    def __init__(self, name):
        create = bytearray(struct.pack("=IIQiI64s", 88, 0, NR * PAGE, 0, 0, name.encode()))
        device = os.open("/dev/umem", os.O_RDWR)
        fcntl.ioctl(device, UMEM_CREATE, create)
        os.close(device)
        self.name = name
        self.fd, self.id = struct.unpack_from("=iI", create, 16)
        attach = bytearray(struct.pack("=IIiI", 16, 0, 0, 0))
        fcntl.ioctl(self.fd, UMEM_ATTACH, attach)
        self.pager = struct.unpack_from("=i", attach, 8)[0]
        self.range(UMEM_MARK_MISSING, 0, NR)
        self.view = mmap.mmap(self.fd, NR * PAGE)

    def range(self, command, page, pages):
        fcntl.ioctl(self.pager, command,
                    bytearray(struct.pack("=IIQQQQ", 40, 0, page * PAGE, pages * PAGE, 0, 0)))

    def wait_for(self, page, seconds=0.0):
        """Let a thread wait for the page for that long; as a pager does, read its request."""
        # Without the interpreter's lock, which the pager needs.
        libc = ctypes.CDLL(None)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.view)) + page * PAGE
        touch = threading.Thread(target=lambda: libc.strlen(ctypes.c_void_p(address)))
        touch.start()
        os.read(self.pager, 32)
        time.sleep(seconds)
        self.range(UMEM_ZERO, page, 1)
        touch.join()

    def close(self):
        os.close(self.pager)
        os.close(self.fd)


def umemctl(*arguments):
    return subprocess.run([UMEMCTL, *arguments], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)


def said(*arguments):
    result = umemctl(*arguments)
    assert result.returncode == 0, f"umemctl {arguments} ended with {result}"
    return result.stdout


def told(*arguments):
    return json.loads(said(*arguments, "--json"))


def list_has_regions_below_guests():
    region = Region("ram0")
    guests, regions = said("list").split("\n\n")
    assert guests.split() == ["PID", "NAME", "STATE"], guests
    row = regions.splitlines()[1].split()
    assert row == [str(region.id), "ram0", "64", "KiB", "64", "KiB", "0", "yes", "0",
                   str(os.getpid())], row
    everything = told("list")
    assert everything["guests"] == [], everything
    assert [one["id"] for one in everything["regions"]] == [region.id], everything


def show_has_one_or_all():
    one, other = Region("one"), Region("other")
    assert told("show", "other")["id"] == other.id
    assert told("show", str(one.id))["name"] == "one"
    assert [region["name"] for region in told("show")] == ["one", "other"], told("show")
    assert f"region {other.id}\n" in said("show", "other")
    result = umemctl("show", "third")
    wanted = f'region is "third", wanted one of: {one.id} (one), {other.id} (other)'
    assert result.returncode == 1 and wanted in result.stdout, result


def stat_tells_who_waited():
    region, other = Region("waits"), Region("quiet")
    region.wait_for(3, 0.05)
    stats = told("stat", "waits")
    assert stats["counters"]["faults"] == 1 and stats["waits"] == 1, stats
    assert stats["wait_time_ns"] > 50e6, stats
    assert [bar["waits"] for bar in stats["latency"]] == [1], stats
    assert [one["counters"]["faults"] for one in told("stat")] == [1, 0], told("stat")
    text = said("stat", "waits")
    assert "  faults: 1\n" in text and "  50 % of them below: " in text, text
    other.close()


def events_are_told_as_they_happen():
    follow = subprocess.Popen([UMEMCTL, "events", "--json"], stdout=subprocess.PIPE, text=True)
    plain = subprocess.Popen([UMEMCTL, "events"], stdout=subprocess.PIPE, text=True)
    names = []
    try:
        # Nothing tells when it has joined: until the first event comes, make one after another.
        stop = threading.Event()
        makes = threading.Thread(target=lambda: [Region("first").close()
                                                 for _ in iter(lambda: stop.wait(0.1), True)])
        makes.start()
        for listener in (follow, plain):
            listener.stdout.readline()
        stop.set()
        makes.join()
        region = Region("events")
        region.range(UMEM_ZERO, 0, NR)
        while len(names) < 3:
            event = json.loads(follow.stdout.readline())
            names += [event["event"]] if event["id"] == region.id else []
        assert names == ["region-created", "pager-attached", "complete"], names
        while "complete" not in (line := plain.stdout.readline()) or "(events)" not in line:
            assert line
    finally:
        for listener in (follow, plain):
            listener.kill()
            listener.wait()


def the_stages_of_faults_are_measured():
    if not shutil.which("bpftrace"):
        return "bpftrace is not installed"
    if " trace_call_bpf\n" not in Path("/proc/kallsyms").read_text():
        return "the kernel has no CONFIG_BPF_EVENTS"
    region = Region("stages")
    # Nothing tells when it has attached: some seconds of faults, or more, the last of which it sees.
    for seconds in (6, 30, 90):
        trace = subprocess.Popen([str(STAGES), str(region.id)], stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True)
        line = trace.stdout.readline()
        assert line.startswith("Attaching"), line + trace.stdout.read()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.3)
            region.range(UMEM_MARK_MISSING, 0, 2)
            region.wait_for(0)
            region.wait_for(1)
        trace.send_signal(signal.SIGINT)
        text = trace.communicate(timeout=120)[0]
        if all(f"@{stage}:" in text
               for stage in ("asked", "delivered", "answered", "resumed", "in_all")):
            return None
    raise AssertionError(text)


TESTS = [list_has_regions_below_guests, show_has_one_or_all, stat_tells_who_waited,
         events_are_told_as_they_happen, the_stages_of_faults_are_measured]


def main():
    print(f"TAP version 13\n1..{len(TESTS)}", flush=True)
    failed = 0
    for number, test in enumerate(TESTS, 1):
        # Each in a process of its own: its regions go with it.
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            try:
                why = test()
                print(f"ok {number} {test.__name__}{f' # SKIP {why}' if why else ''}", flush=True)
            except BaseException as error:
                text = f"{type(error).__name__}: {error}".replace("\n", "\n# ")
                print(f"# {text}\nnot ok {number} {test.__name__}", flush=True)
                os._exit(1)
            os._exit(0)
        failed += os.waitpid(pid, 0)[1] != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
