# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own post-copy with the checking guest, in the form that measure.py takes."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "testing" / "e2e"))
import vm  # noqa: E402

PORT = 5555


class StockGuest(vm.Guest):
    """The guest in QEMU alone; a job beside it tells QEMU's events with their times."""

    def __init__(self, host, name, **settings):
        self._qmp = f"/run/{name}.qmp"
        super().__init__(host, name, launcher="qemu-system-x86_64",
                         options=f"-qmp unix:{self._qmp},server=on,wait=off", **settings)

    def start(self):
        super().start()
        self._events = self.host.start(f"exec {HERE / 'qmp-events'} {self._qmp}",
                                       name=f"{self.name}-events")
        self._events.wait_output("^listening", 60)
        return self

    def events(self):
        return vm.Event.all_in(self._events.output())

    def stop(self):
        super().stop()
        self._events.wait(30)


def pair(a, b, capabilities=("postcopy-ram",), **settings):
    """A guest that runs on host a, and a QEMU on host b that waits for it."""
    destination = StockGuest(b, "stock-destination", incoming=f"tcp:0:{PORT}", **settings).start()
    source = StockGuest(a, "stock-source", **settings).boot()
    for guest in (source, destination):
        for name in ("events", *capabilities):
            guest.type(f"migrate_set_capability {name} on")
        guest.ask("info migrate_capabilities", r"postcopy-ram: on")
    source.wait_ops(1000)
    return source, destination


def command(b):
    """Post-copy from the start, as migrate -p is."""
    return f"migrate -d tcp:{b.ip}:{PORT}\nmigrate_start_postcopy"
