#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What dirty tracking costs, in instructions, in a host that counts them.

usage: track.py [MODULE...]     (default: umem.ko as make builds it; others beside it)

For each module in turn, in one host: rounds of collection of a region of 256 MiB of which a hundredth
or all is written to in between, the same of memory that a guest of KVM reads or writes, and the
faults of a region that was never tracked, is tracked, and is tracked no longer. Figures are medians, a
page, of three passes. Writes build/bench/track.json.
"""

import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "testing" / "e2e"))
import vm  # noqa: E402
from vm import lab  # noqa: E402

BENCH = lab.REPO / "build" / "bench"


def build():
    subprocess.run(["make", "--no-print-directory", "-s", "-C", HERE, f"BUILD={BENCH}"], check=True)


def measure(host, module):
    """Medians by name."""
    host.run(f"insmod {module}", check=True)
    values = defaultdict(list)
    for line in host.run(f"{BENCH / 'track'}", timeout=400, check=True).out.splitlines():
        name, value = line.rsplit(" ", 1)
        values[name].append(float(value))
    host.run("rmmod umem", check=True)
    return {name: statistics.median(numbers) for name, numbers in values.items()}


def main(modules):
    build()
    with lab.Host("bench", mem_mib=2048, counting=True) as host:
        figures = [measure(host, module) for module in modules]
    for name in figures[0]:
        print(f"{name:32}" + "".join(f"{each[name]:10.0f}" for each in figures))
    vm.write_json(BENCH / "track.json", dict(zip(map(str, modules), figures)))
    print(f"The figures are in {(BENCH / 'track.json').relative_to(lab.REPO)}.")


if __name__ == "__main__":
    try:
        main([Path(module).resolve() for module in sys.argv[1:]] or [lab.module()])
    except lab.LabError as problem:
        sys.exit(f"bench failed: {problem}")
