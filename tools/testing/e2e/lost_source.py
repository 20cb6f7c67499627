# SPDX-License-Identifier: GPL-2.0-or-later
"""A source that is lost for good, with a part of the guest's memory: poison, and going on.

What a guest's kernel does not find it dies of, so what is missing here is only the guest's
table: that alone is in a region of its own, a DIMM of another NUMA node whose memory is movable.
Pages come only when they are asked for: all of the other region is, and a few of the table, before
the source is lost and never comes back.

The guest has no asynchronous page faults: where it has, KVM raises the machine check for a page
that was waited for in whatever the guest does then, and its kernel panics.
"""

import re

import migrations
import vm
from vm import expect

CTL = vm.BIN / "umemctl"
SUCCOR = vm.REGION.parent / "succor.so"
PAGES = 1500
TOUCHED = range(0, PAGES, 250)  # few, for an emulated processor now and then resets at one
ARRIVED = TOUCHED[:2]
GUEST = {
    "memory_mib": "256M,slots=1,maxmem=512M",
    "pages": PAGES,
    "mode": "storm",
    "append": "umem.node=1 memhp_default_state=online_movable no-kvmapf loglevel=0",
    "options": "-object memory-backend-ram,id=kernel,size=256M"
               " -object memory-backend-ram,id=table,size=128M"
               " -numa node,nodeid=0,memdev=kernel -numa node,nodeid=1"
               " -device pc-dimm,id=dimm,memdev=table,node=1",
}
PAUSED_LIMIT = 1

hosts = migrations.hosts


def launcher(*options):
    """The hosts have AMD's processors, of which QEMU 7.2 cannot tell a guest that they recover."""
    return " ".join((f"env LD_PRELOAD={SUCCOR} {vm.BIN / 'umem-qemu'}", *options))


def regions(guest):
    """Pages of each region that are missing, and poisoned."""
    text = guest.host.run(f"{vm.REGION} info $(pgrep -f {guest.qemu})", check=True).out
    return {name: (int(missing), int(poisoned)) for name, missing, poisoned in
            re.findall(r"^(\S+) missing=(\d+) poisoned=(\d+)$", text, re.M)}


def lost_without_its_table(pair):
    """A guest that has all of its memory but a part of its table, whose source is no more."""
    a, b = pair
    destination = vm.Guest(b, "destination", incoming=migrations.INCOMING,
                           launcher=launcher("-postcopy"), **GUEST).start()
    source = vm.Guest(a, "source", launcher=launcher(), **GUEST).boot()
    destination.type(f"migrate_set_parameter paused-limit {PAUSED_LIMIT}")
    source.type(f"migrate -d -p -n tcp:{b.ip}:{vm.PORT} 32 0")
    destination.wait_event("RESUME")
    migrations.pages_of(destination)
    expect(regions(destination)["kernel"] == (0, 0), f"the kernel misses {regions(destination)}")
    for page in ARRIVED:
        destination.read_in_order(page, 1)
    destination.ask("migrate_give_up", r"the source is connected \(state running\)")
    b.run(f"{CTL} pause", check=True)
    source.stop()
    destination.type("migrate_recover")
    destination.wait_event("PAUSED-LIMIT")
    return destination


def injected(destination):
    """Addresses in the guest that QEMU says it has raised machine checks for."""
    return {int(address, 16) for address in
            re.findall(r"GUEST addr (0x[0-9a-f]+) of type BUS_MCEERR_AR injected",
                       destination.job.output())}


def lost_pages(destination):
    destination.wait_more_reports()
    counts = re.findall(r"umem-guest: lost pages=(\d+)", destination.text())
    return int(counts[-1]) if counts else 0


def a_guest_survives_the_pages_that_are_gone(pair):
    destination = lost_without_its_table(pair)
    host = destination.host

    def ctl(command, rc=0):
        result = host.run(f"{CTL} {command}")
        expect(result.rc == rc, f"umemctl {command} ended with {result.rc}: {result.out}")
        return result.out

    # it waits, and nobody has given anything up
    missing, poisoned = regions(destination)["table"]
    expect(not destination.event("GONE") and not poisoned, "pages were poisoned too early")
    ctl("set lost-source poison")
    gone = destination.wait_event("GONE").text

    # what did not come is lost, what came is right, and nothing waits
    for page in TOUCHED:
        destination.read_in_order(page, 1)
    lost = lost_pages(destination)
    # what else came is what lies behind those of ARRIVED
    expect(2 < lost <= len(TOUCHED) - len(ARRIVED),
           f"{lost} of {len(TOUCHED)} pages are lost, {len(ARRIVED)} came before the source was")
    destination.wait_more_reports()

    info = destination.info()
    expect(info["Migration status"].startswith("failed") and "gone" in info["Migration status"],
           f"info migrate says {info}")
    expect(regions(destination) == {"kernel": (0, 0), "table": (0, int(info["pages gone"]))},
           f"{regions(destination)}, and info migrate says {info}")
    expect(f"pages={missing} ranges: table:" in gone and info["pages gone"] == str(missing),
           f"{missing} pages were missing, info migrate says {info}, the event {gone}")

    # which they are
    named = [(name, int(offset, 16), int(length, 16)) for name, offset, length in
             (line.split() for line in ctl("gone").splitlines())]
    expect({name for name, _, _ in named} == {"table"} and
           sum(length for _, _, length in named) == missing * vm.PAGE,
           f"umemctl gone names {named}")
    base = int(destination.ask("info memory-devices", r"addr: (0x[0-9a-f]+)")[1], 16)
    checks = injected(destination)
    expect(len(checks) == lost, f"{lost} pages are lost, of {len(checks)} QEMU says it")
    strangers = [address for address in checks
                 if not any(base + offset <= address < base + offset + length
                            for _, offset, length in named)]
    expect(not strangers, f"machine checks at {strangers}, which umemctl gone does not name")

    expect(not host.run("pgrep -x umemd").out, "umemd goes on")
    ctl("give-up", 1)
    destination.ask(f"migrate -p tcp:elsewhere:{vm.PORT}", "never arrived here")


TESTS = [
    a_guest_survives_the_pages_that_are_gone,
]
