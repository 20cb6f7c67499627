#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the guest waits for a page, with and without background push, one after the other.

usage: waits.py [RUNS [RATE [DELAY]]]     (default 5 of each, in turn; 1gbit; 0.5ms)

The link is shaped to the rate and the delay in each direction. Prints a line a run, the
medians, and the ratio of the percentiles of `migrate -p` to those of `migrate -p -n`; writes
build/bench/waits.json.
"""

import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "testing" / "e2e"))
import latency  # noqa: E402
import vm  # noqa: E402
from vm import lab  # noqa: E402

REPORT = lab.REPO / "build" / "bench" / "waits.json"
WAYS = ("-p -n", "-p")
FIELDS = ("p50", "p90", "p99", "max")


def run_both(rate, delay):
    figures = {}
    with latency.shaped(rate, delay) as pair:
        for options in WAYS:
            figures[options] = latency.migrate_while_touched(pair, options)
            print(f"{options:6} " + "  ".join(f"{key} {value:7}"
                                              for key, value in figures[options].items()),
                  flush=True)
    return figures


def main(runs=5, rate=latency.RATE, delay=latency.DELAY):
    vm.build_guests()
    turns = [vm.with_one_more_boot(lambda: run_both(rate, delay)) for _ in range(int(runs))]
    medians = {way: {field: statistics.median(turn[way][field] for turn in turns)
                     for field in FIELDS} for way in WAYS}
    ratios = {field: round(medians["-p"][field] / medians["-p -n"][field], 2) for field in FIELDS}
    print(f"\nmedians of {runs} runs, microseconds, and -p as a ratio to -p -n")
    for field in FIELDS:
        print(f"  {field:4} -p -n {medians['-p -n'][field]:8.0f}  -p {medians['-p'][field]:8.0f}"
              f"  ratio {ratios[field]:.2f}")
    vm.write_json(REPORT, {"runs": turns, "medians": medians, "ratios": ratios})
    print(f"The runs are in {REPORT.relative_to(lab.REPO)}.")


if __name__ == "__main__":
    if len(sys.argv) > 4 or not all(arg.isdigit() and int(arg) for arg in sys.argv[1:2]):
        sys.exit("usage: waits.py [RUNS [RATE [DELAY]]]")
    try:
        main(*sys.argv[1:])
    except (vm.Failure, lab.LabError) as problem:
        sys.exit(f"bench failed: {problem}")
