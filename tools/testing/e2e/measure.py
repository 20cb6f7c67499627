# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of one migration, the same way for umem and for QEMU's own post-copy."""

import time
from dataclasses import dataclass

import vm


@dataclass(frozen=True)
class Figures:
    downtime_ms: float  # longest gap the guest saw, the time it stood still included
    stopped_ms: float   # of that, from STOP at the source to RESUME at the destination
    total_ms: float     # from the command to the last page


class Clocks:
    """Times of two hosts' events on one clock, that of this machine."""

    def __init__(self, source, destination):
        self._offset = {source.host: source.host.clock_offset(),
                        destination.host: destination.host.clock_offset()}

    def time(self, guest, name):
        return guest.wait_event(name).time - self._offset[guest.host]


def migrate(source, destination, command):
    """Type the command at the source's monitor, wait for the end and give the Figures.

    A guest's clock stands still while the guest does, so its own longest gap is added to the time
    from STOP to RESUME where its first report after the switch covers both.
    """
    clocks = Clocks(source, destination)
    started = time.time()
    source.type(command)
    resume = clocks.time(destination, "RESUME")
    ended = clocks.time(destination, "END")
    destination.wait_more_reports(2)
    stopped_ms = (resume - clocks.time(source, "STOP")) * 1000
    gaps = [report.gap_us / 1000 for report in destination.reports()]
    return Figures(max(stopped_ms + gaps[0], *gaps[1:]), stopped_ms, (ended - started) * 1000)
