#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a wait for a page costs, in instructions, in a host that counts them.

One thread, and then 1,024 at once, write to or read missing pages that one pager brings: through
userfaultfd, with read() and UMEM_COPY, and with UMEM_COPY alone, which gives the next request; and both
with memory that was allocated ahead, as umemd does. Figures are medians, a
page, of three passes in one host, and their ratios to userfaultfd and to one thread. Writes
build/bench/faults.json.
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
BASE = "userfaultfd"


def build():
    subprocess.run(["make", "--no-print-directory", "-s", "-C", HERE, f"BUILD={BENCH}"], check=True)


def measure():
    """Medians, by what brings the pages and how many wait."""
    values = defaultdict(list)
    with lab.Host("bench", mem_mib=2048, counting=True) as host:
        host.load_module()
        for line in host.run(f"{BENCH / 'faults'}", timeout=550, check=True).out.splitlines():
            name, value = line.rsplit(" ", 1)
            values[name].append(float(value))
    return {name: statistics.median(numbers) for name, numbers in values.items()}


def main():
    build()
    figures = measure()
    ways = list(dict.fromkeys(name.rsplit("/")[0] for name in figures))
    print(f"{'instructions a wait':40}{'1 thread':>10}{'ratio':>7}{'1024':>10}{'ratio':>7}"
          f"{'1024 to 1':>11}")
    for way in ways:
        base = f"{way.split(', ')[0]}, {BASE}"
        one, many = figures[f"{way}/1"], figures[f"{way}/1024"]
        print(f"{way:40}{one:10.0f}{one / figures[f'{base}/1']:7.2f}"
              f"{many:10.0f}{many / figures[f'{base}/1024']:7.2f}{many / one:11.2f}")
    vm.write_json(BENCH / "faults.json", figures)
    print(f"The figures are in {(BENCH / 'faults.json').relative_to(lab.REPO)}.")


if __name__ == "__main__":
    try:
        main()
    except lab.LabError as problem:
        sys.exit(f"bench failed: {problem}")
