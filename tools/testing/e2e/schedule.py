#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done to migrations, and when: a function of a seed, and of nothing else.

    schedule.py [N [SEED]]    prints it

Each migration has a theme, and mostly more faults after the hand-over. Every 20 migrations in a
row have all themes, so that each protocol step sees its reset however few there are.
"""

import random
import sys
from dataclasses import dataclass, replace

# What a migration comes through, in this order: when it is seen is in chaos.py.
STEPS = ("command", "advise", "stop", "ready", "go", "resume", "recover", "end")
BEFORE_GO = STEPS[:4]
SIDES = ("source", "destination")
LONGEST_OUTAGE = 10.0

SHAPES = {  # what the two hosts are connected by, besides its rate
    "plain": {},
    "loss 5 %": {"loss": "5%"},
    "delay 50 ms": {"delay": "50ms"},
    # long enough for a fault to fall between a message and its answer
    "delay 150 ms": {"delay": "150ms"},
}


@dataclass(frozen=True)
class Fault:
    """Done so many seconds after a step; for so many seconds where it has an end."""
    kind: str
    side: str
    step: str
    after: float
    seconds: float = 0.0

    WORDS = {"kill": "kill -9 umemd", "abort": "abort umemd", "reset": "reset connections",
             "outage": "outage", "restart": "pager restart", "pause": "pause and recover",
             "adopt": "kill -9 umem-qemu and adopt"}

    def __str__(self):
        lasts = f" for {self.seconds:.1f} s" if self.seconds else ""
        where = "" if self.kind == "outage" else f" at the {self.side}"
        return f"{self.step}+{self.after:.1f} {self.WORDS[self.kind]}{where}{lasts}"


@dataclass(frozen=True)
class Plan:
    number: int
    way: str        # -p, or precopy
    prefault: str   # FORWARD BACKWARD
    shape: str
    faults: tuple

    @property
    def how(self):
        return f"{self.way} {self.prefault}".strip() + f", {self.shape}"

    def __str__(self):
        return f"{self.how}: {'; '.join(map(str, self.faults))}"


def _after(step, rng):
    return round(rng.uniform(0, 0.3) if step in BEFORE_GO + ("end",) else rng.uniform(0, 4), 1)


def _fault(kind, rng, steps, sides=SIDES):
    step = rng.choice(steps)
    lasts = {"outage": (1, LONGEST_OUTAGE), "pause": (0.5, 4), "adopt": (0, 3)}.get(kind)
    return Fault(kind, rng.choice(sides), step, _after(step, rng),
                 round(rng.uniform(*lasts), 1) if lasts else 0.0)


AFTER_GO = ("go", "resume")
THEMES = (
    [lambda rng, step=step: replace(_fault("reset", rng, (step,)), after=0.0) for step in STEPS]
    + [lambda rng, side=side, steps=steps: _fault("kill", rng, steps, (side,))
       for side in SIDES for steps in (BEFORE_GO, AFTER_GO)]
    + [lambda rng, kind=kind: _fault(kind, rng, AFTER_GO) for kind in ("abort", "restart", "pause")]
    + [lambda rng: replace(_fault("outage", rng, AFTER_GO), seconds=LONGEST_OUTAGE),
       lambda rng: _fault("outage", rng, BEFORE_GO),
       lambda rng: _fault("adopt", rng, BEFORE_GO)]
    + [lambda rng, side=side: _fault("adopt", rng, AFTER_GO, (side,)) for side in SIDES])

MORE = ("kill", "kill", "abort", "reset", "reset", "outage", "restart", "pause", "adopt")
BY_HAND = ("restart", "pause", "adopt")  # commands to umem-qemu, which has to be there


def _more(theme, rng):
    """Others after the hand-over; commands by hand do not meet at one side."""
    faults = [theme]
    if theme.step == "recover":  # something has to be recovered from
        faults.append(Fault("reset", theme.side, "resume", round(rng.uniform(0, 2), 1)))
    for kind in rng.sample(MORE, rng.choice((0, 1, 1, 2))):
        fault = _fault(kind, rng, AFTER_GO + ("recover", "end"))
        if kind in BY_HAND and any(other.kind in BY_HAND and other.side == fault.side
                                   for other in faults):
            continue
        faults.append(fault)
    return tuple(sorted(faults, key=lambda fault: (STEPS.index(fault.step), fault.after)))


def plan(seed, number):
    """Of the migration of this number, from 1 on; what the others are does not matter."""
    block, place = divmod(number - 1, len(THEMES))
    themes = random.Random(f"{seed} block {block}").sample(THEMES, len(THEMES))
    rng = random.Random(f"{seed} migration {number}")
    theme = themes[place](rng)
    shape = rng.choice(tuple(SHAPES)[:3])
    if theme.step in ("stop", "ready", "go") and rng.random() < 0.7:
        shape = "delay 150 ms"
    return Plan(number, rng.choice(("-p", "-p", "precopy")), rng.choice(("", "32 0", "8 8")),
                shape, _more(theme, rng))


def main():
    migrations, seed = (sys.argv[1:] + ["20", "1"][len(sys.argv) - 1:])[:2]
    for number in range(1, int(migrations) + 1):
        print(f"{number}. {plan(seed, number)}")


if __name__ == "__main__":
    main()
