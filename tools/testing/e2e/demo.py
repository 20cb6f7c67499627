#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Move a running guest between two hosts, check every page of it, and report.

Two virtual machines play the hosts: the distribution's stock kernel with umem.ko loaded, joined by
a network. In one of them a Linux guest runs under KVM in the distribution's QEMU and keeps
rewriting and checking its memory. It is moved with `migrate -p`; then its old host is powered off.
Exit code 0 only if the guest runs on, no page is corrupt and the source is gone.
"""

import sys
import time
from pathlib import Path

import measure
import vm
from vm import lab

REPORT = lab.REPO / "build" / "demo" / "report.json"
GUEST_MIB = 256
_started = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - _started:5.1f} s] {text}", flush=True)


def show_progress(destination):
    """A line a second until the last page is there."""
    shown = 0
    while destination.alive() and not destination.event("END"):
        if time.monotonic() - shown >= 1 and destination.event("RESUME"):
            shown = time.monotonic()
            info = destination.info()
            total, present = int(info["pages total"]), int(info["pages present"])
            say(f"  the guest runs; {present * 100 // total:3d} % of its pages are here, "
                f"{info['faults']} were waited for")
        time.sleep(0.1)


class Watched(vm.Guest):
    """A destination that shows progress while its END is waited for."""

    def wait_event(self, name, timeout=60):
        if name == "END":
            show_progress(self)
        return super().wait_event(name, timeout)


def with_umem(a, b):
    destination = Watched(b, "destination", incoming=f"tcp:0:{vm.PORT}", **vm.WHOLE).start()
    say("starting the guest: umem-qemu -accel kvm -m 256 ... -monitor stdio")
    source = vm.Guest(a, "source", **vm.WHOLE).boot()
    source.wait_ops(1000)
    say(f"the guest runs on host a: {source.last().ops} pages rewritten and checked")
    say(f"(qemu) migrate -p tcp:{b.ip}:{vm.PORT}")
    figures = measure.migrate_with_umem(source, destination, f"migrate -p tcp:{b.ip}:{vm.PORT}")
    say(f"every page is on host b after {figures.total_ms / 1000:.1f} s; "
        f"the guest stood still for {figures.downtime_ms:.0f} ms")
    return destination, figures


def check_memory(destination):
    """Two sweeps over the guest's table, and the guest goes on working."""
    pages, mismatches = destination.sweep(2)
    destination.wait_ops(100)
    return pages, max(mismatches, destination.last().mismatches)


def report_of(destination, figures, pages, corrupt, source_gone):
    latency = destination.fault_latency()
    good = not corrupt and pages > 0 and destination.alive() and source_gone
    return {
        "result": "ok" if good else "failed",
        "corrupt_pages": corrupt,
        "pages_checked": pages,
        "downtime_ms": round(figures.downtime_ms, 1),
        "stopped_ms": round(figures.stopped_ms, 1),
        "total_ms": round(figures.total_ms, 1),
        "faults": destination.count("faults"),
        "fault_p50_us": latency["p50"],
        "fault_p99_us": latency["p99"],
        "bytes_on_wire": sum(destination.count(f"transferred {channel}")
                             for channel in ("urgent", "bulk", "control")),
        "guest_mib": GUEST_MIB,
    }


def run():
    """One migration of each kind, on hosts of its own."""
    say("booting two hosts")
    with lab.pair() as (a, b):
        for host in (a, b):
            host.load_module()
        say(f"the hosts are up ({a.boot_seconds:.0f} s) with umem.ko loaded")
        say("for comparison, QEMU's own post-copy with the same guest on the same hosts")
        baseline = measure.migrate_with_qemu(a, b)
        say(f"QEMU's own post-copy: {baseline.total_ms / 1000:.1f} s in all, "
            f"the guest stood still for {baseline.downtime_ms:.0f} ms")
        destination, figures = with_umem(a, b)
        a.check_kernel_log()
        a.kill()
        say("host a is powered off; checking every page of the guest's table twice")
        pages, corrupt = check_memory(destination)
        report = report_of(destination, figures, pages, corrupt, source_gone=not a.running())
    report["downtime_ratio_to_qemu_postcopy"] = round(
        figures.downtime_ms / baseline.downtime_ms, 3)
    report["total_ratio_to_qemu_postcopy"] = round(figures.total_ms / baseline.total_ms, 3)
    return report


def main():
    vm.build_guests()
    report = vm.with_one_more_boot(run)
    vm.write_json(REPORT, report)
    print()
    for key, value in report.items():
        print(f"  {key:32} {value}")
    print(f"\nThe report is in {REPORT.relative_to(lab.REPO)}; the hosts' logs are in "
          f"{lab.run_dir().relative_to(lab.REPO)}.")
    return 0 if report["result"] == "ok" else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (vm.Failure, lab.LabError) as error:
        sys.exit(f"demo failed: {error}\nThe hosts' logs are in {Path(lab.run_dir())}.")
