#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a wait for a page costs, in instructions, in a host that counts them.

One thread, and then 1,024 at once, write to or read missing pages that one pager brings: through
userfaultfd, with read() and UMEM_COPY, and with UMEM_COPY alone, which gives the next request; and both
with memory that was allocated ahead, as umemd does. Figures are medians, a
page, of three passes in one host, and their ratios to userfaultfd and to one thread. Writes
build/bench/faults.json.
"""

import counted

BASE = "userfaultfd"


def main():
    figures = counted.measure("faults")
    ways = list(dict.fromkeys(name.rsplit("/")[0] for name in figures))
    print(f"{'instructions a wait':40}{'1 thread':>10}{'ratio':>7}{'1024':>10}{'ratio':>7}"
          f"{'1024 to 1':>11}")
    for way in ways:
        base = f"{way.split(', ')[0]}, {BASE}"
        one, many = figures[f"{way}/1"], figures[f"{way}/1024"]
        print(f"{way:40}{one:10.0f}{one / figures[f'{base}/1']:7.2f}"
              f"{many:10.0f}{many / figures[f'{base}/1024']:7.2f}{many / one:11.2f}")
    counted.save("faults", figures)


if __name__ == "__main__":
    counted.run(main)
