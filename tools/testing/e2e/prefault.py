# SPDX-License-Identifier: GPL-2.0-or-later
"""What -n, -m, forward, backward and -postcopy-flags do, seen in counters."""

import contextlib

import vm
from migrations import INCOMING, PORT, hosts, pages_of  # noqa: F401
from vm import expect

SHMEM_ENABLED = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
# An idle guest: what it waits for is what it is told to touch, and a little of its own.
IDLE = {"mode": "storm", "memory_mib": 128, "pages": 4200}


def migrate(source, destination, options, reach="", event="RESUME"):
    """Migrate and wait until the guest is at the destination."""
    destination.wait_event("LISTENING")
    source.type(f"migrate -d -p {options} tcp:{destination.host.ip}:{PORT} {reach}")
    destination.wait_event(event)


def only_requested(source, reach):
    """Pages that were asked for have crossed and at most `reach` neighbours of each: `info`."""
    def settled():
        info = source.info_json()
        asked = info["requests"] - info["prefault_hits"]
        return info if info["pages_sent"] == asked + info["prefault_pages"] else None

    info = source.info_json()
    expect(info["bulk_bytes"] < vm.PAGE and info["duplicates"] == 0, f"the source says {info}")
    info = source.wait_for(settled, 10, f"send as many pages as were asked for: {info}")
    expect(info["prefault_pages"] <= reach * info["requests"], f"the source says {info}")
    return info


def without_push_only_what_is_asked_for_crosses(pair):
    a, b = pair
    destination = vm.Guest(b, "destination", incoming=INCOMING, **IDLE).start()
    source = vm.Guest(a, "source", **IDLE).boot()
    migrate(source, destination, "-n")
    destination.tell_guest("storm")
    destination.wait_text(r"storm done threads=64 mismatches=0")
    info = only_requested(source, 8 + 8)
    expect(info["prefault_pages"] > 0, f"nothing was sent along: {info}")

    # and who waited, for how long
    info = destination.info_json()
    counts = [bucket["count"] for bucket in info["fault_histogram"]]
    expect(0 <= info["faults"] - sum(counts) < 5, f"the histogram has other faults: {info}")
    vcpu = info["blocktime"][0]
    expect(vcpu["cpu"] == 0 and 0 < vcpu["blocktime_ms"] < info["total_time_ms"],
           f"the destination says {info}")
    expect("blocktime vcpu0" in destination.info(), f"info migrate says {destination.info()}")


def faults_of_reader(guest):
    """How many pages a guest waited for that reads 4096 pages one after another."""
    # Whatever a guest does for a command is here when it is given the second time.
    guest.read_in_order(0, 104)
    before = guest.info_json()["faults"]
    guest.read_in_order(104, 4096)
    return guest.info_json()["faults"] - before


def reader_faults_20_times_less_with_32_pages_forward(pair):
    """Than with 0 0, and then each page that crosses is one that was asked for."""
    a, b = pair
    there = vm.Guest(b, "there", incoming=INCOMING, **IDLE).start()
    source = vm.Guest(a, "source", **IDLE).boot()
    migrate(source, there, "-n", "32 0")
    with_32 = faults_of_reader(there)
    only_requested(source, 32)
    # Without push it ends when all has been asked for.
    pages_of(there)
    vm.wait_end(source, there)
    source.stop()

    back = vm.Guest(a, "back", incoming=INCOMING, **IDLE).start()
    migrate(there, back, "-n", "0 0")
    with_0 = faults_of_reader(back)
    only_requested(there, 0)
    expect(with_0 >= max(4096, 20 * with_32), f"{with_0} faults with 0 0, {with_32} with 32 0")


def background_follows_a_request(pair):
    """With -m it goes on behind the requested page and its 8 neighbours.

    The guest is paused, another process asks. Bulk sends about 250 pages a second: it cannot have
    come to the middle of memory by itself.
    """
    a, b = pair
    destination = vm.Guest(b, "destination", incoming=INCOMING, options="-S", **vm.WHOLE).start()
    source = vm.Guest(a, "source", **vm.WHOLE).boot()
    source.type("migrate_set_parameter max-postcopy-bandwidth 1M")
    migrate(source, destination, "-m", "8 0", "GO")

    def waited_for(first, count):
        before = destination.info_json()["faults"]
        pages_of(destination, first, count)
        return destination.info_json()["faults"] - before

    far = 40000
    expect(waited_for(far, 1) == 1, f"page {far} is there, wanted one that has not come")
    pushed = destination.info_json()["pages_present"] + 200
    destination.wait_for(lambda: destination.info_json()["pages_present"] >= pushed, 20,
                         "get 200 pages more")
    after = waited_for(far, 1 + 8 + 150)
    expect(after == 0, f"{after} of 150 pages behind the requested one had to be waited for")
    for other in far - 1, far + 10000:
        expect(waited_for(other, 1) == 1, f"page {other} is there, wanted one that has not come")


def faults_of_vcpu(guest):
    """Times its thread found a page of the host's not mapped, whether it had to wait or not."""
    tid = guest.ask("info cpus", r"thread_id=(\d+)")[1]
    stat = guest.host.run(f"cat /proc/{tid}/task/{tid}/stat", check=True).out
    fields = stat.rsplit(") ", 1)[1].split()
    return int(fields[7]) + int(fields[9])  # minflt, majflt


@contextlib.contextmanager
def small_folios(pair):
    for host in pair:
        host.run(f"echo deny >{SHMEM_ENABLED}", check=True)
    yield
    for host in pair:
        host.run(f"echo never >{SHMEM_ENABLED}", check=True)


def pages_that_were_touched_are_no_fault_to_the_guest(pair):
    """With -postcopy-flags 1; all pages come before the guest runs. With 0 it faults on them.

    In folios of 2 MiB there are next to no faults either way: there are none of them here.
    """
    a, b = pair

    def faults_after(source, host, name, flags):
        guest = vm.Guest(host, name, incoming=INCOMING, **IDLE,
                         options=f"-S -postcopy-flags {flags}").start()
        migrate(source, guest, "", event="END")
        source.wait_event("END")
        guest.ask("cont\ninfo status", r"VM status: running")
        guest.read_in_order(0, 104)
        before = faults_of_vcpu(guest)
        guest.read_in_order(104, 4096)
        return guest, faults_of_vcpu(guest) - before

    with small_folios(pair):
        source = vm.Guest(a, "source", **IDLE).boot()
        there, touched = faults_after(source, b, "there", 1)
        source.stop()
        _, untouched = faults_after(there, a, "back", 0)
    # The kernel maps up to 16 pages a fault, and what the guest touched meanwhile has had its fault.
    expect(touched <= 8 and untouched >= 4096 / 16 / 2,
           f"{touched} faults on 4096 pages with -postcopy-flags 1, {untouched} with 0")


TESTS = [
    without_push_only_what_is_asked_for_crosses,
    reader_faults_20_times_less_with_32_pages_forward,
    background_follows_a_request,
    pages_that_were_touched_are_no_fault_to_the_guest,
]
