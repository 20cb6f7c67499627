# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of one migration, the same way for umem and for QEMU's own post-copy."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import vm
import guest

PORT = 5555


@dataclass(frozen=True)
class Figures:
    downtime_ms: float  # longest gap the guest saw, the time it stood still included
    stopped_ms: float   # of that, from STOP at the source to RESUME at the destination
    total_ms: float     # from the command to the last page


def figures(stopped_ms, total_ms, reports):
    """A guest's clock stands still while the guest does, and its first report at the destination
    covers the switch: its longest gap is added to the time from STOP to RESUME."""
    gaps = [report.gap_us / 1000 for report in reports]
    return Figures(max(stopped_ms + gaps[0], *gaps[1:]), stopped_ms, total_ms)


def migrate_with_umem(source, destination, command, then=None):
    """Type the command at the source's monitor, do what comes then, wait for the last page."""
    offset = {guest: guest.host.clock_offset() for guest in (source, destination)}

    def when(guest, event):
        return guest.wait_event(event, 180).time - offset[guest]

    started = time.time()
    source.type(command)
    if then:
        then(source)
    ended = when(destination, "END")
    stopped_ms = (when(destination, "RESUME") - when(source, "STOP")) * 1000
    destination.wait_more_reports(3)
    return figures(stopped_ms, (ended - started) * 1000, destination.reports())


def migrate_with_qemu(a, b, mode="postcopy"):
    """QEMU's own migration of the same guest between the same hosts, with nothing left behind."""
    source, destination = guest.Guest(a, "stock-source"), guest.Guest(b, "stock-destination")
    with vm.booting():
        destination.start("qemu-system-x86_64", "-incoming defer")
        source.start("qemu-system-x86_64")
        source.wait_ready()
    source.wait_reports(10)
    result = guest.migrate_with_qemu(source, destination, f"{b.ip}:{PORT}", mode)
    for side in (source, destination):
        side.qemu.kill()
    return figures(result.stopped_ms, result.total_ms, destination.reports())


def run_bench(main, runs):
    """The command line of a bench that takes a number of runs: main() of it, or of @runs."""
    if len(sys.argv) > 2 or not all(arg.isdigit() and int(arg) for arg in sys.argv[1:]):
        sys.exit(f"usage: {Path(sys.argv[0]).name} [RUNS]")
    try:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else runs)
    except (vm.Failure, vm.lab.LabError) as problem:
        sys.exit(f"bench failed: {problem}")
