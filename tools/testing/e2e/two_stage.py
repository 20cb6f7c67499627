# SPDX-License-Identifier: GPL-2.0-or-later
"""Pre-copy first: the guest runs at the source while its memory is sent, then it moves."""

import json

import migrations
import vm
from vm import expect

PORT = vm.PORT
INCOMING = migrations.INCOMING
CTL = vm.BIN / "umemctl"
PAGES = 4000  # that the guest writes, so that a round takes seconds, not minutes

hosts = migrations.hosts


def listening(host, **settings):
    """A destination; the capability is typed on it, too, as QEMU's own post-copy wants it."""
    destination = vm.Guest(host, "destination", incoming=INCOMING, **settings).start()
    destination.wait_event("LISTENING")
    answered = destination.type("migrate_set_capability postcopy-ram on")
    destination.ask("info status", r"VM status: paused \(inmigrate\)")
    expect("Error" not in destination.job.output()[answered:],
           f"the destination refuses the capability: {destination.job.output()[answered:]}")
    return destination


def endless(source):
    """Limits under which pre-copy does not end by itself while the guest writes."""
    source.type("migrate_set_parameter downtime-limit 0")
    source.type("migrate_set_parameter max-bandwidth 8M")


def begin(source, destination):
    source.type("migrate_set_capability postcopy-ram on")
    source.type(f"migrate -d tcp:{destination.host.ip}:{PORT}")


def wait_round(source, count):
    source.wait_for(lambda: int(source.info().get("round", 0)) >= count, 360,
                    f"come to round {count}")
    info = source.info()
    expect(info["Migration status"] == "precopy", f"info migrate says {info}")
    expect({"pages dirty", "transferred precopy"} <= set(info),
           f"info migrate says {info}")


def watch_priority(host):
    """Those of umemd and its process for errands, a line each, until they end. Who looks must not
    wait for the CPU until then.
    """
    return host.start("renice -n -20 $$ >/dev/null; of=$(pgrep -d, '^umemd');"
                      " while ps -o ni= -p $of; do sleep 0.1; done", name="priority")


def hybrid_moves_when_it_is_told(pair):
    a, b = pair
    destination = listening(b, pages=PAGES)
    source = vm.Guest(a, "source", pages=PAGES).boot()
    source.ask("migrate_start_postcopy", r"no migration is under way")
    endless(source)
    begin(source, destination)
    wait_round(source, 2)
    source.wait_ops(200)
    source.ask("migrate tcp:nowhere:1", r"state precopy.*migrate_cancel")
    expect(not source.event("STOP"), "the guest was stopped before anybody wanted it")
    priority = watch_priority(a)
    priority.wait_output(r"\A +0\n +0\n")

    source.type("migrate_set_parameter max-postcopy-bandwidth 10k")
    source.type("migrate_start_postcopy")
    source.wait_event("GO")
    priority.wait_output(r"^-15\n-15\n")
    source.type("migrate_set_parameter max-postcopy-bandwidth 0")
    destination.wait_event("RESUME")
    source.ask("migrate_start_postcopy", r"has moved to")
    source.ask("migrate_cancel", r"cannot be called back")
    vm.wait_end(source, destination)
    info = source.info()
    expect(int(info["round"]) >= 2, f"info migrate says {info}")
    expect(int(info["transferred precopy"].split()[0]) > 0, f"info migrate says {info}")
    expect("downtime, stop to GO" in info, f"info migrate says {info}")
    expect("downtime, GO to resume" in destination.info(), f"{destination.info()}")
    check_settings(source, destination)
    migrations.check_guest(destination)


def check_settings(source, destination):
    """As the user made them on both sides."""
    for guest in (source, destination):
        guest.ask("info migrate_capabilities", r"postcopy-ram: on")
        guest.ask("info migrate_capabilities", r"x-ignore-shared: off")
    source.ask("info migrate_parameters", r"max-bandwidth: 8388608 bytes/second")


def told_while_it_connects_it_moves_at_once(pair):
    """The command is typed right behind migrate; it may come before the first round."""
    a, b = pair
    destination = listening(b, pages=PAGES)
    source = vm.Guest(a, "source", pages=PAGES).boot()
    endless(source)
    begin(source, destination)
    source.type("migrate_start_postcopy")
    vm.wait_end(source, destination)
    migrations.check_guest(destination)


def idle_guest_converges_and_moves_by_itself(pair):
    a, b = pair
    destination = listening(b, mode="storm", pages=4096)
    source = vm.Guest(a, "source", mode="storm", pages=4096).boot()
    begin(source, destination)
    vm.wait_end(source, destination)
    expect(source.event("CONVERGED"), "it moved before it had converged")
    info = destination.info()
    expect(info["pages present"] == info["pages total"], f"info migrate says {info}")
    pages, mismatches = destination.sweep(2)
    expect(pages > 0 and mismatches == 0, f"{mismatches} of {pages} pages are corrupt")


def paused_and_continued_in_precopy_it_is_cancelled_and_runs(pair):
    a, b = pair
    destination = listening(b, pages=PAGES)
    source = vm.Guest(a, "source", pages=PAGES).boot()
    endless(source)
    begin(source, destination)
    wait_round(source, 1)
    source.ask("stop\ncont\ninfo status", r"VM status: running")
    source.ask("migrate_cancel", r"cancelled; the guest runs on here")
    source.ask("info migrate", r"Migration status: cancelled")
    source.ask("migrate_start_postcopy", r"no migration is under way")
    migrations.check_guest(source)

    # and it can move after all, even to where it was expected before
    expect("cancelled" in destination.wait_event("REFUSED").text, "wanted the reason to be told")
    begin(source, destination)
    wait_round(source, 2)
    source.type("migrate_start_postcopy")
    vm.wait_end(source, destination)
    migrations.check_guest(destination)


def all_of_it_from_a_shell(pair):
    a, b = pair
    destination = listening(b, pages=PAGES)
    source = vm.Guest(a, "source", pages=PAGES).boot()
    endless(source)
    uri = f"tcp:{b.ip}:{PORT}"

    def info():
        return json.loads(a.run(f"{CTL} info --json", check=True).out)

    def refused(command, words):
        result = a.run(f"{CTL} {command}")
        expect(result.rc in (1, 2) and words in result.out,
               f"umemctl {command} ended with {result.rc}: {result.out}")

    def wait_precopy(count):
        source.wait_for(lambda: info().get("round", 0) >= count, 360, f"come to round {count}")
        expect(info()["status"] == "precopy", f"umemctl info --json says {info()}")

    refused("start-postcopy", "no migration is under way")
    refused(f"migrate -n {uri}", "wanted migrate -p -n URI")
    a.run(f"{CTL} migrate -d {uri}", check=True)
    wait_precopy(1)
    refused(f"migrate {uri}", "state precopy")
    a.run(f"{CTL} cancel", check=True)
    source.wait_for(lambda: info()["status"] == "cancelled", 90, "be cancelled")
    destination.wait_event("REFUSED")
    source.wait_ops(200)

    waiting = a.start(f"exec {CTL} migrate {uri}")
    wait_precopy(2)
    a.run(f"{CTL} start-postcopy", check=True)
    vm.wait_end(source, destination)
    expect(waiting.wait(90) == 0, f"umemctl migrate ended with {waiting.rc}: {waiting.output()}")
    expect("round" in waiting.output() and "completed" in waiting.output(),
           f"umemctl migrate says {waiting.output()}")
    refused("cancel", "cannot be called back")
    migrations.check_guest(destination)


TESTS = [
    hybrid_moves_when_it_is_told,
    told_while_it_connects_it_moves_at_once,
    idle_guest_converges_and_moves_by_itself,
    paused_and_continued_in_precopy_it_is_cancelled_and_runs,
    all_of_it_from_a_shell,
]
