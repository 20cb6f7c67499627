#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""umem against QEMU's own post-copy: the same guest, the same hosts, one after the other.

usage: migrate.py [RUNS]     (default 7 of each, in turn)

Prints a line a run, the medians, and the ratios of the medians; writes build/bench/migrate.json.
Every run is checked: a guest with a corrupt page ends the bench.
"""

import statistics
import sys
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "testing" / "e2e"))
import measure  # noqa: E402
import vm  # noqa: E402
from vm import lab  # noqa: E402

REPORT = lab.REPO / "build" / "bench" / "migrate.json"
FIELDS = ("downtime_ms", "stopped_ms", "total_ms")


def with_umem(a, b):
    destination = vm.Guest(b, "destination", incoming=f"tcp:0:{vm.PORT}", **vm.WHOLE).start()
    source = vm.Guest(a, "source", **vm.WHOLE).boot()
    source.wait_ops(1000)
    figures = measure.migrate_with_umem(source, destination,
                                        f"migrate -d -p tcp:{b.ip}:{vm.PORT}")
    pages, corrupt = destination.sweep(1)
    if corrupt or not pages:
        raise vm.Failure(f"{corrupt} of {pages} pages are corrupt")
    source.stop()
    destination.stop()
    return figures


WAYS = {"qemu": measure.migrate_with_qemu, "umem": with_umem}


def run_both():
    """Figures by way, of one migration each on the same hosts."""
    figures = {}
    with lab.pair() as (a, b):
        for host in (a, b):
            host.load_module()
        for name, way in WAYS.items():
            figures[name] = way(a, b)
            print(f"{name:5} " + "  ".join(f"{field} {getattr(figures[name], field):8.1f}"
                                           for field in FIELDS), flush=True)
    return figures


def main(runs):
    vm.build_guests()
    turns = [vm.with_one_more_boot(run_both) for _ in range(runs)]
    results = {name: [turn[name] for turn in turns] for name in WAYS}
    medians = {name: {field: statistics.median(getattr(figures, field) for figures in all_figures)
                      for field in FIELDS} for name, all_figures in results.items()}
    ratios = {field: round(medians["umem"][field] / medians["qemu"][field], 3)
              for field in FIELDS}
    print(f"\nmedians of {runs} runs, and umem as a ratio to QEMU's own post-copy")
    for field in FIELDS:
        print(f"  {field:12} qemu {medians['qemu'][field]:8.1f}  umem {medians['umem'][field]:8.1f}"
              f"  ratio {ratios[field]:.3f}")
    vm.write_json(REPORT, {"runs": {name: [asdict(figures) for figures in all_figures]
                                    for name, all_figures in results.items()},
                           "medians": medians, "ratios": ratios})
    print(f"The runs are in {REPORT.relative_to(lab.REPO)}.")


if __name__ == "__main__":
    measure.run_bench(main, 7)
