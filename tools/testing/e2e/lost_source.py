# SPDX-License-Identifier: GPL-2.0-or-later
"""A source that is lost for good, with a part of the guest's memory: poison, and going on."""

import re

import migrations
import vm
from vm import expect

PORT = vm.PORT
CTL = vm.BIN / "umemctl"
PAGES = 20000
# A guest that takes machine checks as Intel's processors give them, which is what QEMU 7.2 injects.
# Linux as a guest of AMD's wants a feature (SUCCOR) that QEMU 7.2 does not have, and panics.
CPU = "-cpu Westmere"

hosts = migrations.hosts


def half_way(pair):
    """A guest whose kernel has come and whose table has not, all of it, and will not."""
    a, b = pair
    settings = {"pages": PAGES, "rate": 1000, "options": CPU}
    destination = vm.Guest(b, "destination", incoming=migrations.INCOMING, **settings).start()
    source = vm.Guest(a, "source", **settings).boot()
    for line in ("migrate_set_capability postcopy-ram on",
                 "migrate_set_parameter downtime-limit 0",
                 "migrate_set_parameter max-bandwidth 24M",
                 "migrate_set_parameter max-postcopy-bandwidth 1"):
        source.type(line)
    source.type(f"migrate -d tcp:{b.ip}:{PORT} 0 0")
    source.wait_for(lambda: int(source.info().get("round", 0)) >= 2, 120, "come to round 2")
    source.type("migrate_start_postcopy")
    destination.wait_event("RESUME")
    destination.wait_ops(2000)
    destination.ask("migrate_give_up", r"the source is connected \(state running\)")
    source.stop()
    destination.wait_for(lambda: destination.info()["Migration status"] == "paused", 60,
                         "be paused")
    return destination


def given_up_the_guest_loses_pages_and_goes_on(pair):
    destination = half_way(pair)
    host = destination.host
    missing = destination.count("pages remaining")
    expect(missing > 500, f"{missing} pages are missing, too few to show anything")

    def ctl(command, rc=0):
        result = host.run(f"{CTL} {command}")
        expect(result.rc == rc, f"umemctl {command} ended with {result.rc}: {result.out}")
        return result.out

    ctl("set lost-source poison")
    destination.ask("info migrate_parameters", r"lost-source: poison\b")
    expect(not destination.event("GONE"), "pages were poisoned that nobody gave up")
    ctl("give-up")
    gone = destination.wait_event("GONE").text
    destination.wait_text(r"umem-guest: lost pages=\d+", 60)
    destination.wait_ops(2000)
    lost = int(re.findall(r"lost pages=(\d+)", destination.text())[-1])
    expect(lost > 0 and destination.last().mismatches == 0,
           f"{lost} pages are lost, {destination.last().mismatches} wrong")

    # the whole table: what did not come is lost, what came is right, and nothing waits
    destination.sweep(1)
    destination.wait_more_reports()
    lost = int(re.findall(r"lost pages=(\d+)", destination.text())[-1])
    expect(destination.last().mismatches == 0, f"{destination.last().mismatches} pages are wrong")
    info = destination.info()
    expect(info["Migration status"].startswith("failed") and "gone" in info["Migration status"],
           f"info migrate says {info}")
    expect(lost <= int(info["pages gone"]) <= missing,
           f"{missing} pages were missing, {lost} lost, info migrate says {info}")
    expect(f"pages={info['pages gone']}" in gone, f"the event says {gone}")
    named = sum(int(line.split()[2], 16) for line in ctl("gone").splitlines())
    expect(named == int(info["pages gone"]) * vm.PAGE, f"umemctl gone names {named} bytes")
    expect("injected" in destination.job.output(), "QEMU says nothing of machine checks")
    expect(not host.run("pgrep -x umemd").out, "umemd goes on")
    ctl("give-up", 1)
    destination.ask(f"migrate -p tcp:elsewhere:{PORT}", "never arrived here")


TESTS = [
    given_up_the_guest_loses_pages_and_goes_on,
]
