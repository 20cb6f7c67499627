# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a page is waited for, with background push and without, over a shaped link."""

import time

import vm
from vm import expect, lab

RATE, DELAY = "1gbit", "0.5ms"  # each way, so there and back 1 ms
TOUCHED_MS = 4000


def hosts():
    return _Pair()


class _Pair:
    """Two hosts with the module loaded and the link between them shaped."""

    def __init__(self, rate=RATE, delay=DELAY):
        self._pair = lab.pair(kvm=False)
        self._link = rate, delay

    def __enter__(self):
        both = self._pair.__enter__()
        for host in both:
            host.load_module()
            host.limit_link(*self._link)
        return both

    def __exit__(self, *error):
        return self._pair.__exit__(*error)


def shaped(rate, delay):
    return _Pair(rate, delay)


def migrate_while_touched(pair, options):
    """Percentiles of the waits in microseconds, and the counters, of a guest that stands still
    while another process touches its pages: the host has one processor, and what a guest does
    on it would be measured, too."""
    a, b = pair
    settings = {"kvm": False, "options": "-S", "memory_mib": 256}
    destination = vm.Guest(b, "destination", incoming=f"tcp:0:{vm.PORT}", **settings).start()
    source = vm.Guest(a, "source", **settings).start()
    destination.wait_event("LISTENING")
    a.run(f"{vm.REGION} fill $(pgrep -f {source.qemu})", check=True)
    toucher = b.start(f"{vm.REGION} touch $(pgrep -f {destination.qemu}) {TOUCHED_MS}", stdin=True)
    toucher.wait_output("ready", 90)
    source.type(f"migrate -d {options} tcp:{b.ip}:{vm.PORT}")
    destination.wait_event("GO")
    started = time.monotonic()
    toucher.write("\n")
    if "-n" not in options:
        vm.wait_end(source, destination)
    total_ms = round((time.monotonic() - started) * 1000)
    toucher.wait()
    figures = destination.fault_latency()
    info = destination.info()
    figures |= {"faults": int(info["faults"].split()[0]), "total_ms": total_ms,
                "bulk": int(info["transferred bulk"].split()[0]),
                "urgent": int(info["transferred urgent"].split()[0])}
    source.stop()
    destination.stop()
    return figures


def requests_overtake_background(pair):
    """Both are at work at once; tools/bench/waits.py has the ratio of the waits by medians."""
    figures = {options: migrate_while_touched(pair, options) for options in ("-p -n", "-p")}
    for options, values in figures.items():
        print(f"# {options:6} " + "  ".join(f"{key} {value}" for key, value in values.items()))
    alone, beside = figures["-p -n"], figures["-p"]
    expect(alone["faults"] > 100 and beside["faults"] > 100, "too few pages were waited for")
    expect(alone["bulk"] < 1000, f"-n pushed {alone['bulk']} bytes")
    expect(beside["bulk"] > beside["urgent"], "the background did not push most of the pages")


TESTS = [requests_overtake_background]
