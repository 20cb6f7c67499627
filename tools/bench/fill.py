#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What bringing pages in bulk costs, in instructions, in a host that counts them.

64 MiB are filled, 256 KiB a call, and then each page is written to: through userfaultfd (UFFDIO_COPY of a
memfd), and with UMEM_COPY of regions of pages and of folios of 2 MiB, whose memory is allocated ahead or
not. Figures are medians, a page, of five passes in one host, and the ratio of filling and touching to
userfaultfd's. Writes build/bench/fill.json.
"""

import counted

BASE = "userfaultfd"


def main():
    figures = counted.measure("fill")
    ways = list(dict.fromkeys(name.split("/")[0] for name in figures))
    total = {way: figures[f"{way}/fill"] + figures[f"{way}/touch"] for way in ways}
    print(f"{'instructions a page':28}{'ahead':>8}{'fill':>8}{'touch':>8}{'ratio':>8}")
    for way in ways:
        print(f"{way:28}" + "".join(f"{figures[f'{way}/{what}']:8.0f}"
                                    for what in ("ahead", "fill", "touch")) +
              f"{total[way] / total[BASE]:8.2f}")
    counted.save("fill", figures)


if __name__ == "__main__":
    counted.run(main)
