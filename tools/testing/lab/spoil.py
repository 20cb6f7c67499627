# SPDX-License-Identifier: GPL-2.0-or-later
"""Zero pages of the checking guest's table in the file that is its memory: spoil.py FILE NUMBER."""

import sys

PAGE = 4096
STEP = 0x9e3779b97f4a7c15  # from guest.c: the difference of neighbouring words of a page


def is_of_the_table(page):
    words = [int.from_bytes(page[i:i + 8], "little") for i in range(0, 64, 8)]
    return words[0] and all((b - a) % 2**64 == STEP for a, b in zip(words, words[1:]))


def main(name, number):
    found = 0
    with open(name, "r+b") as memory:
        while page := memory.read(PAGE):
            if found < number and is_of_the_table(page):
                memory.seek(-PAGE, 1)
                memory.write(bytes(PAGE))
                found += 1
    return found != number


sys.exit(main(sys.argv[1], int(sys.argv[2])))
