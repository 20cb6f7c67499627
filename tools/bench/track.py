#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What dirty tracking costs, in instructions, in a host that counts them.

usage: track.py [MODULE...]     (default: umem.ko as make builds it; others beside it)

For each module in turn, in one host: rounds of collection of a region of 256 MiB of which a hundredth
or all is written to in between, the same of memory that a guest of KVM reads or writes, and the
faults of a region that was never tracked, is tracked, and is tracked no longer. Figures are medians, a
page, of three passes. Writes build/bench/track.json.
"""

import sys
from pathlib import Path

import counted
from counted import lab


def measure(host, module):
    host.run(f"insmod {module}", check=True)
    figures = counted.medians(host, "track")
    host.run("rmmod umem", check=True)
    return figures


def main(modules):
    with counted.host() as host:
        figures = [measure(host, module) for module in modules]
    for name in figures[0]:
        print(f"{name:32}" + "".join(f"{each[name]:10.0f}" for each in figures))
    counted.save("track", dict(zip(map(str, modules), figures)))


if __name__ == "__main__":
    counted.run(main, [Path(module).resolve() for module in sys.argv[1:]] or [lab.module()])
