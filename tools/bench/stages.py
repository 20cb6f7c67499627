#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Pre-copy, post-copy and both in turn (hybrid), with the same three guests.

usage: stages.py [RUNS]     (default 3 of each)

The guests rewrite none of their table of pages, a quarter of it each second, and all of it as
fast as it goes, over a link that is slower than that. Prints the medians as a table in the form of
reStructuredText; writes build/bench/stages.json. A guest with a corrupt page ends the
bench, and so does pre-copy alone that ends where it should not, or the other way round.
"""

import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "testing" / "e2e"))
import measure  # noqa: E402
import vm  # noqa: E402
from vm import lab  # noqa: E402

REPORT = lab.REPO / "build" / "bench" / "stages.json"
LINK = "45mbit"
PAGES = 4096
GUESTS = {
    "idle": {"mode": "storm"},
    "25 % a second": {"rate": PAGES // 4},
    "all, as fast as it goes": {"rate": None},
}
HEAD_START = 1  # seconds of pre-copy before migrate_start_postcopy
PATIENCE = 60  # seconds in which pre-copy of the last guest is to come to no end


@dataclass(frozen=True)
class Run:
    ended: bool
    downtime_ms: float
    total_ms: float
    mib: float    # on the wire, both directions
    work: float   # operations of the guest between command and end, as a part of those it does
                  # in the same time when it is left alone
    rounds: int


def operations(guest):
    last = guest.last()
    return last.ops if last else 0


def speed(guest, seconds=3):
    """Operations a second of a guest that is left alone."""
    guest.wait_more_reports(1)
    first, began = operations(guest), time.monotonic()
    time.sleep(seconds)
    guest.wait_more_reports(1)
    return (operations(guest) - first) / (time.monotonic() - began)


def transferred(info):
    return sum(int(info[f"transferred {channel}"].split()[0])
               for channel in ("urgent", "bulk", "control")) / 2**20


def start_post_copy(source):
    """A part of memory goes while the guest runs; what it rewrites meanwhile goes twice."""
    source.wait_for(lambda: source.info().get("round", "0") != "0", 60,
                    "begin the first round")
    time.sleep(HEAD_START)
    source.type("migrate_start_postcopy")


def run_one(a, b, way, settings):
    destination = vm.Guest(b, "destination", incoming=f"tcp:0:{vm.PORT}", pages=PAGES,
                           memory_mib=256, **settings).start()
    source = vm.Guest(a, "source", pages=PAGES, memory_mib=256, **settings).boot()
    destination.wait_event("LISTENING")
    alone = speed(source)
    before, began = operations(source), time.monotonic()
    ended = True
    downtime = total = 0
    if way != "post-copy":
        source.type("migrate_set_capability postcopy-ram on")
    command = f"migrate -d {'-p ' if way == 'post-copy' else ''}tcp:{b.ip}:{vm.PORT}"
    if way == "pre-copy" and settings == GUESTS["all, as fast as it goes"]:
        source.type(command)
        time.sleep(PATIENCE)
        ended = bool(source.event("GO"))
        info = source.info()
        source.ask("migrate_cancel", r"cancelled; the guest runs on here")
        arrived = source
    else:
        figures = measure.migrate_with_umem(source, destination, command,
                                            then=start_post_copy if way == "hybrid" else None)
        downtime, total = figures.downtime_ms, figures.total_ms
        info = source.info()
        arrived = destination
    seconds = time.monotonic() - began
    work = (operations(arrived) - before) / seconds / alone if alone else 1.0
    pages, corrupt = arrived.sweep(1)
    if corrupt or not pages:
        raise vm.Failure(f"{corrupt} of {pages} pages are corrupt")
    for guest in (source, destination):
        guest.stop()
    return Run(ended, downtime, total, transferred(info), work, int(info.get("round", 0)))


def run_all():
    results = {}
    with lab.pair() as (a, b):
        for host in (a, b):
            host.load_module()
            host.limit_link(LINK)
        for name, settings in GUESTS.items():
            for way in ("pre-copy", "post-copy", "hybrid"):
                run = run_one(a, b, way, settings)
                results[name, way] = run
                print(f"{name:24} {way:10} {run}", flush=True)
    return results


def median(runs, field):
    return statistics.median(getattr(run, field) for run in runs)


def main(runs):
    vm.build_guests()
    turns = [vm.with_one_more_boot(run_all) for _ in range(runs)]
    rows = []
    for key in turns[0]:
        same = [turn[key] for turn in turns]
        ended = all(run.ended for run in same)
        if ended == (key == ("all, as fast as it goes", "pre-copy")):
            raise vm.Failure(f"{key[1]} of the guest \"{key[0]}\" "
                             + ("ended" if ended else "did not end"))
        rows.append((*key, f"{median(same, 'downtime_ms'):.0f} ms" if ended else "--",
                     f"{median(same, 'total_ms') / 1000:.1f} s" if ended else "never ends",
                     f"{median(same, 'mib'):.0f} MiB", f"{median(same, 'work') * 100:.0f} %",
                     f"{median(same, 'rounds'):.0f}"))
    heads = ("guest rewrites", "way", "downtime", "total time", "on the wire", "guest work",
             "rounds")
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    line = "  ".join("=" * width for width in widths)
    print(f"\nmedians of {runs} runs, link of {LINK}, table of {PAGES} pages\n\n{line}")
    print("  ".join(head.ljust(width) for head, width in zip(heads, widths)).rstrip())
    print(line)
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print(line)
    busy = "all, as fast as it goes"
    passes = median([turn[busy, "hybrid"] for turn in turns], "total_ms") \
        / median([turn[busy, "post-copy"] for turn in turns], "total_ms")
    print(f"\nhybrid of the last guest: {passes:.2f} times one pass over memory, which post-copy is")
    vm.write_json(REPORT, {"link": LINK, "pages": PAGES,
                           "runs": [{"guest": key[0], "way": key[1],
                                     "runs": [asdict(turn[key]) for turn in turns]}
                                    for key in turns[0]]})
    print(f"\nThe runs are in {REPORT.relative_to(lab.REPO)}.")


if __name__ == "__main__":
    measure.run_bench(main, 3)
