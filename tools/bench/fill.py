#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What bringing pages in bulk costs, in instructions, in a host that counts them.

64 MiB are filled, 256 KiB a call, and then each page is written to: through userfaultfd (UFFDIO_COPY of a
memfd), and with UMEM_COPY of regions of pages and of folios of 2 MiB, whose memory is allocated ahead or
not. Figures are medians, a page, of five passes in one host, and the ratio of filling and touching to
userfaultfd's. Writes build/bench/fill.json.
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


def measure():
    values = defaultdict(list)
    with lab.Host("bench", mem_mib=2048, counting=True) as host:
        host.load_module()
        for line in host.run(f"{BENCH / 'fill'}", timeout=550, check=True).out.splitlines():
            name, value = line.rsplit(" ", 1)
            values[name].append(float(value))
    return {name: statistics.median(numbers) for name, numbers in values.items()}


def main():
    subprocess.run(["make", "--no-print-directory", "-s", "-C", HERE, f"BUILD={BENCH}",
                    BENCH / "fill"], check=True)
    figures = measure()
    ways = list(dict.fromkeys(name.split("/")[0] for name in figures))
    total = {way: figures[f"{way}/fill"] + figures[f"{way}/touch"] for way in ways}
    print(f"{'instructions a page':28}{'ahead':>8}{'fill':>8}{'touch':>8}{'ratio':>8}")
    for way in ways:
        print(f"{way:28}" + "".join(f"{figures[f'{way}/{what}']:8.0f}"
                                    for what in ("ahead", "fill", "touch")) +
              f"{total[way] / total[BASE]:8.2f}")
    vm.write_json(BENCH / "fill.json", figures)
    print(f"The figures are in {(BENCH / 'fill.json').relative_to(lab.REPO)}.")


if __name__ == "__main__":
    try:
        main()
    except lab.LabError as problem:
        sys.exit(f"bench failed: {problem}")
