# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of this folder that print a line "NAME NUMBER" for each figure, in a host whose clock counts
instructions: a nanosecond is one."""

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


def host():
    subprocess.run(["make", "--no-print-directory", "-s", "-C", HERE, f"BUILD={BENCH}"], check=True)
    return lab.Host("bench", mem_mib=2048, counting=True)


def medians(where, program):
    """Of what it prints in that host, by name."""
    values = defaultdict(list)
    for line in where.run(f"{BENCH / program}", timeout=550, check=True).out.splitlines():
        name, value = line.rsplit(" ", 1)
        values[name].append(float(value))
    return {name: statistics.median(numbers) for name, numbers in values.items()}


def measure(program):
    """The same in a host of its own, with the module as make builds it."""
    with host() as where:
        where.load_module()
        return medians(where, program)


def save(program, figures):
    report = BENCH / f"{program}.json"
    vm.write_json(report, figures)
    print(f"The figures are in {report.relative_to(lab.REPO)}.")


def run(main, *arguments):
    try:
        main(*arguments)
    except lab.LabError as problem:
        sys.exit(f"bench failed: {problem}")
