# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations of real guests between two hosts."""

import json
import re
import time

import vm
from vm import expect, lab

PORT = vm.PORT
INCOMING = f"tcp:0:{PORT}"


def hosts(mem_mib=1024):
    return _Pair(mem_mib)


class _Pair:
    """Two hosts with the module loaded."""

    def __init__(self, mem_mib):
        self._pair = lab.pair(mem_mib=mem_mib)

    def __enter__(self):
        both = self._pair.__enter__()
        for host in both:
            host.load_module()
        return both

    def __exit__(self, *error):
        return self._pair.__exit__(*error)


def check_guest(guest, rounds=2):
    """Every page is right, twice over, and the guest goes on."""
    pages, mismatches = guest.sweep(rounds)
    expect(pages > 0 and mismatches == 0, f"{mismatches} of {pages} pages are corrupt")
    guest.wait_ops(200)
    expect(guest.last().mismatches == 0, f"the guest saw {guest.last().mismatches} bad pages")


def guest_moves_and_every_page_is_right(pair):
    a, b = pair
    destination = vm.Guest(b, "destination", incoming=INCOMING).start()
    source = vm.Guest(a, "source").boot()
    source.wait_ops(1000)
    vm.migrate(source, destination)
    vm.wait_end(source, destination)

    info = destination.info()
    expect(info["Migration status"] == "completed", f"info migrate says {info}")
    expect(info["pages present"] == info["pages total"] == "32768", f"info migrate says {info}")
    expect(int(info["faults"]) > 0, "nothing was waited for")
    expect(info["checksum errors"] == "0", f"info migrate says {info}")
    source.ask("info status", r"paused \(postmigrate\)")
    for guest in (source, destination):
        expect(guest.job.output().count("travel unencrypted") == 1,
               f"the {guest.name} does not say once that it is not encrypted")
    # the source must never run the guest again
    source.ask("cont", r"has moved to|runs at")
    source.ask("info status", r"paused \(postmigrate\)")
    check_guest(destination)
    # and when the source is gone
    source.stop()
    check_guest(destination, 1)


def sixty_four_threads_touch_missing_pages_at_once(pair):
    a, b = pair
    settings = {"mode": "storm", "pages": 4096}
    destination = vm.Guest(b, "destination", incoming=INCOMING, **settings).start()
    source = vm.Guest(a, "source", **settings).boot()
    # without background push what nobody touches stays missing
    vm.migrate(source, destination, "-p -n")
    before = destination.count("faults")
    position = len(destination.text())
    destination.tell_guest("storm")
    done = destination.wait_text(r"storm done threads=(\d+) mismatches=(\d+)", 360, position)
    expect(done[1] == "64" and done[2] == "0", f"the guest says {done[0]}")
    faults = destination.count("faults") - before
    expect(faults >= 64, f"only {faults} pages were waited for")


def background_is_limited_while_it_runs_and_compressed(pair):
    a, b = pair
    destination = vm.Guest(b, "destination", incoming=INCOMING).start()
    source = vm.Guest(a, "source").boot()
    source.type("migrate_set_parameter max-postcopy-bandwidth 10k")
    source.type("migrate_set_parameter multifd-compression zstd")
    vm.migrate(source, destination)
    started = time.monotonic()
    time.sleep(3)
    source.wait_for(lambda: int(source.info()["requests"]) > 100, 180, "be asked")
    info, limit = source.info(), 20_000 * (time.monotonic() - started) + 100_000
    expect(int(info["transferred bulk"].split()[0]) < limit, f"{limit}: info migrate says {info}")
    source.ask("info migrate_parameters", r"max-postcopy-bandwidth: 10240\b")
    # as QEMU says it, and then as before
    source.ask("migrate_set_parameter max-postcopy-bandwidth x", r"non-negative number below 2\^64")
    source.ask("migrate_set_parameter max-postcopy-bandwidth 8E", r"wanted less than 8E")
    source.type("migrate_set_parameter max-postcopy-bandwidth 0")
    vm.wait_end(source, destination)
    info = source.info()
    expect("compressed pages" in info, f"info migrate says {info}")
    expect(destination.info()["checksum errors"] == "0", f"the destination says {info}")
    check_guest(destination)


def paused_guest_moves_and_another_process_sees_it(pair):
    """-S on both sides; a second process maps the region, too, while its pages come.

    Without kvmclock, whose time KVM writes into a guest's memory when it loads the guest's state.
    """
    a, b = pair
    cpu = "-cpu host,kvmclock=off"
    destination = vm.Guest(b, "destination", incoming=INCOMING, options=f"{cpu} -S").start()
    source = vm.Guest(a, "source", options=cpu).boot()
    source.wait_ops(500)
    source.ask("stop\ninfo status", r"paused\s*\n\(qemu\)")
    before = pages_of(source)
    destination.wait_event("LISTENING")

    source.type(f"migrate -d -p tcp:{b.ip}:{PORT}")
    destination.wait_event("GO")
    # This maps the region beside QEMU and waits for each page as it comes to it.
    arrived = pages_of(destination)
    vm.wait_end(source, destination)
    expect(pages_of(source) == before, "the source changed its memory while it was paused")
    other = [n for n in range(len(before)) if arrived[n] != before[n]]
    expect(len(arrived) == 32768 and not other,
           f"{len(other)} pages are not as at the source: {other[:20]}")
    destination.ask("info status", r"VM status: paused")
    expect(not destination.event("RESUME"), "the guest was started though it had been paused")
    destination.ask("cont\ninfo status", r"VM status: running")
    check_guest(destination)


def pages_of(guest, first=None, count=None):
    """A checksum of each page of the guest's memory, read through a mapping of another process.

    Of all pages, or of `count` pages from `first` on.
    """
    pages = "" if first is None else f" {first} {count}"
    return guest.host.run(f"{vm.REGION} show $(pgrep -f {guest.qemu}){pages}", timeout=180,
                          check=True).out.split()


def never_started_guest_moves(pair):
    """Started with -S and never run: it starts at the destination, by cont."""
    a, b = pair
    destination = vm.Guest(b, "destination", incoming=INCOMING).start()
    source = vm.Guest(a, "source", options="-S").start()
    destination.wait_event("LISTENING")
    source.ask("info status", r"paused \(prelaunch\)")
    source.type(f"migrate -d -p tcp:{b.ip}:{PORT}")
    vm.wait_end(source, destination)
    destination.ask("cont\ninfo status", r"VM status: running")
    with vm.booting():
        destination.wait_ready()
    check_guest(destination, 1)


def guest_moves_through_a_command(pair):
    """One stream, which socat carries, in place of three connections."""
    a, b = pair
    destination = vm.Guest(b, "destination",
                           incoming=f"'exec:exec socat - TCP-LISTEN:{PORT},reuseaddr'").start()
    source = vm.Guest(a, "source").boot()
    source.wait_ops(500)
    destination.wait_event("LISTENING")
    source.type(f'migrate -d -p "exec:exec socat - TCP:{b.ip}:{PORT}"')
    vm.wait_end(source, destination)
    check_guest(destination)


ORDINARY = 4242


def guest_of_an_ordinary_user_moves(pair):
    """Who may open /dev/umem and /dev/kvm needs no more; umemd only gets no better priority."""
    a, b = pair
    for host in pair:
        host.run(f"chgrp {ORDINARY} /dev/umem /dev/kvm && chmod 660 /dev/umem /dev/kvm", check=True)
    destination = vm.Guest(b, "destination", incoming=INCOMING, user=ORDINARY,
                           options="-postcopy-flags 1").start()
    source = vm.Guest(a, "source", user=ORDINARY).boot()
    source.type("migrate_set_capability postcopy-ram on")
    source.wait_ops(500)
    source.type("migrate_set_parameter max-postcopy-bandwidth 100k")
    source.type(f"migrate -d tcp:{b.ip}:{PORT}")
    source.type("migrate_start_postcopy")
    destination.wait_event("RESUME")
    for host, processes in ((a, 2), (b, 2)):
        seen = host.run("ps -o ni=,uid= -p $(pgrep -d, '^umemd')", check=True).out.split()
        expect(seen == ["0", str(ORDINARY)] * processes,
               f"nice and uid of umemd and its errands are {seen}")
        status = host.run("grep -h 'Seccomp:' $(pgrep '^umemd' | sed 's,.*,/proc/&/status,')").out
        expect(status.split() == ["Seccomp:", "2"] * processes, f"their status says {status}")
    source.type("migrate_set_parameter max-postcopy-bandwidth 0")
    vm.wait_end(source, destination)
    # A host that is emulated measures its TSC's frequency by emulated timers, each anew.
    expected = "unencrypted|TSC frequency mismatch"
    for guest in (source, destination):
        said = [line for line in guest.job.output().splitlines()
                if re.search("warning:|error:", line) and not re.search(expected, line)]
        expect(not said, f"{guest.name} says {said}")
    check_guest(destination)


def destination_killed_before_go_leaves_the_guest_running(pair):
    a, b = pair
    destination = vm.Guest(b, "destination", incoming=INCOMING).start()
    source = vm.Guest(a, "source").boot()
    destination.wait_event("LISTENING")
    # A QEMU that cannot load the state keeps the destination before READY.
    b.run(f"pkill -STOP -f {destination.qemu}", check=True)
    position = source.type(f"migrate -d -p tcp:{b.ip}:{PORT}")
    source.wait_event("STOP")
    destination.stop()
    source.wait_event("RESUME")
    source.job.wait_output(r"migrate: .*; the guest runs on here", 90, position)
    source.ask("info status", r"VM status: running")
    source.ask("info migrate", r"Migration status: failed")
    check_guest(source)

    # and it can move after all
    destination = vm.Guest(b, "second", incoming=INCOMING).start()
    destination.wait_event("LISTENING")
    source.type(f"migrate -d -p tcp:{b.ip}:{PORT}")
    destination.wait_event("END", 180)
    check_guest(destination)


def cancel_before_go_leaves_the_guest_running(pair):
    a, b = pair
    destination = vm.Guest(b, "destination", incoming=INCOMING).start()
    source = vm.Guest(a, "source").boot()
    destination.wait_event("LISTENING")
    b.run(f"pkill -STOP -f {destination.qemu}", check=True)
    source.type(f"migrate -d -p tcp:{b.ip}:{PORT}")
    source.wait_event("STOP")
    source.ask("migrate_cancel", r"cancelled; the guest runs on here")
    source.wait_event("RESUME")
    source.ask("info migrate", r"Migration status: cancelled")
    check_guest(source)


def distribution_guest_keeps_its_files(pair):
    """The stock kernel and busybox, doing file I/O on a virtio disk both hosts can reach."""
    a, b = pair
    disk = lab.run_dir() / "disk.img"
    disk.write_bytes(b"")
    with open(disk, "r+b") as image:
        image.truncate(64 << 20)
    options = (f"-initrd {vm.GUEST / 'disk-guest.cpio'} -append 'console=ttyS0 quiet panic=-1'"
               f" -drive file={disk},format=raw,if=virtio,cache=none,aio=threads")
    destination = vm.Guest(b, "destination", incoming=INCOMING, options=options).start()
    source = vm.Guest(a, "source", options=options)
    console = a.dir / "source.console.log"
    source.boot(lambda: source.wait_file(console, r"umem-disk: files=5 bad=0", 180))
    vm.migrate(source, destination)
    files = int(re.findall(r"files=(\d+)", console.read_text(errors="replace"))[-1])
    vm.wait_end(source, destination)
    console = b.dir / "destination.console.log"
    destination.wait_file(console, rf"umem-disk: files={files + 10} bad=0", 180)
    expect("mismatch" not in console.read_text(errors="replace"), "a file changed")


def guest_survives_a_helper_that_is_stopped(pair):
    """A pager that does nothing for a while: the guest waits and goes on."""
    a, b = pair
    destination = vm.Guest(b, "destination", incoming=INCOMING).start()
    source = vm.Guest(a, "source").boot()
    a.limit_link("20mbit")  # else all pages may be there before it is stopped
    vm.migrate(source, destination)
    b.run("pkill -STOP umemd", check=True)
    a.limit_link(None)
    reports = len(destination.reports())
    b.run("sleep 3; pkill -CONT umemd", check=True)
    vm.wait_end(source, destination)
    destination.wait_more_reports(3)
    expect(len(destination.reports()) > reports, "the guest did not go on")
    check_guest(destination)


def huge_pages_of(guest):
    """How QEMU maps its regions: KiB in all, and KiB by huge pages."""
    text = guest.host.run(f"cat /proc/$(pgrep -f {guest.qemu})/smaps", check=True).out
    sizes = {"Size": 0, "ShmemPmdMapped": 0}
    region = False
    for line in text.splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            region = "/umem:" in line
        elif region and line.split(":")[0] in sizes:
            sizes[line.split(":")[0]] += int(line.split()[1])
    return sizes["Size"], sizes["ShmemPmdMapped"]


def memory_that_has_arrived_is_mapped_by_huge_pages(pair):
    """It came page by page, and blocks were mapped page by page: in the end they are not."""
    a, b = pair
    destination = vm.Guest(b, "destination", incoming=INCOMING, **vm.WHOLE).start()
    source = vm.Guest(a, "source", **vm.WHOLE).boot()
    source.wait_ops(1000)
    vm.migrate(source, destination)
    vm.wait_end(source, destination)
    size, at_end = huge_pages_of(destination)
    destination.wait_more_reports(2)  # the first may tell of a wait for the last pages
    reports = len(destination.reports())
    destination.wait_event("COLLAPSED", 360)
    destination.wait_more_reports(1)
    gap = max(report.gap_us for report in destination.reports()[reports:]) / 1000
    mapped = huge_pages_of(destination)[1]
    check_guest(destination)
    small, large = (int(b.run(f"cat /sys/kernel/debug/kvm/pages_{kind}", check=True).out)
                    for kind in ("4k", "2m"))

    stats = json.loads(b.run(f"{vm.BIN / 'umemctl'} stat --json", check=True).out)
    folios, fallbacks = (sum(region["counters"][counter] for region in stats)
                         for counter in ("huge_folios", "huge_fallbacks"))
    print(f"# of {size >> 10} MiB {at_end >> 10} were mapped by huge pages when all had arrived,"
          f" {mapped >> 10} after {when(destination, 'COLLAPSED') - when(destination, 'END'):.1f} s"
          f" in which the guest's longest gap was {gap:.0f} ms; KVM maps {large} huge pages and"
          f" {small} small ones, {folios} folios are huge, {fallbacks} were to be", flush=True)
    expect(size == 256 * 1024, f"QEMU maps {size} KiB of regions, wanted 256 MiB")
    expect(folios > 0, f"the kernel's counters say {stats}")
    expect(mapped >= size * 0.95, f"{mapped} of {size} KiB are mapped by huge pages")
    expect(large * 512 >= small * 19, f"KVM maps {large} huge pages, and {small} small ones")


def when(guest, event):
    return guest.event(event).time


TESTS = [
    guest_moves_and_every_page_is_right,
    memory_that_has_arrived_is_mapped_by_huge_pages,
    sixty_four_threads_touch_missing_pages_at_once,
    background_is_limited_while_it_runs_and_compressed,
    paused_guest_moves_and_another_process_sees_it,
    never_started_guest_moves,
    guest_moves_through_a_command,
    guest_of_an_ordinary_user_moves,
    destination_killed_before_go_leaves_the_guest_running,
    cancel_before_go_leaves_the_guest_running,
    distribution_guest_keeps_its_files,
    guest_survives_a_helper_that_is_stopped,
]


def guest_of_2_gib_moves(pair):
    a, b = pair
    settings = {"memory_mib": 2048, "pages": 40000}
    destination = vm.Guest(b, "destination", incoming=INCOMING, **settings).start()
    source = vm.Guest(a, "source", **settings).boot()
    vm.migrate(source, destination)
    vm.wait_end(source, destination, 400)
    info = destination.info()
    expect(info["pages present"] == info["pages total"] == str(2048 * 256),
           f"info migrate says {info}")
    check_guest(destination)


class Big:
    TESTS = [guest_of_2_gib_moves]

    @staticmethod
    def hosts():
        return hosts(mem_mib=3200)
