# SPDX-License-Identifier: GPL-2.0-or-later
"""What dies at each message of the protocol, and what fails before GO: the guest is on one side.

One guest goes to and fro between two hosts. A relay holds a migration before a message, something
is killed, the relay goes on; then the guest runs at the source if GO was not said, else at the
destination, and nowhere else. Which messages there are is what migrations show that nobody
disturbs.
"""

import contextlib
import json
import re
import time
from dataclasses import dataclass

import migrations
import vm
from vm import BIN, expect, lab

hosts = migrations.hosts
SETTINGS = {"memory_mib": 96, "pages": 2000, "rate": 2000}
SAY_PID = "echo umem-qemu is $$;"
ALL = ("QEMU", "umem-qemu", "umemd")
SIDES = ("source", "destination")
AGAIN = 50      # what comes that often is a boundary in its midst, too
MIDST = 5
TIMED = "PING"  # it comes by the clock and has no contents
FAILURES = 3
RECORDS = "/run/umem"
FILL, EMPTY = f"cat /dev/zero >{RECORDS}/full", f"rm -f {RECORDS}/full"


@dataclass(frozen=True)
class Way:
    """A kind of migration that shows messages that others have not."""
    precopy: bool = False
    loses: tuple = ()


WAYS = [Way(), Way(loses=("after bulk source PAGES#3",)), Way(precopy=True)]


@dataclass(frozen=True)
class Case:
    at: str
    way: Way
    side: str
    victims: tuple
    drop: bool = False      # what is held is lost with its sender

    def is_last(self):
        """Nothing of the guest follows."""
        return bool(re.search(" (ALL_SENT|END)#", self.at))

    def __str__(self):
        return f"{' and '.join(self.victims)} of the {self.side} at {self.at}" \
               + (", which is lost" if self.drop else "")


class Side(vm.Guest):
    """One side of a migration, whose processes may be killed, each by itself."""

    def __init__(self, host, name, shell, port):
        super().__init__(host, name, incoming=port and f"tcp:127.0.0.1:{port}", **SETTINGS)
        self.command = self.command.replace(" exec ", f" {SAY_PID} exec ", 1)
        self.shell = shell
        self.port = port
        self.said = ""      # by umem-qemus that have ended
        self.ended = False
        self.mark = 0

    def output(self):
        return self.said + self.job.output()

    def events(self):
        """Of this migration: a source may have tried before."""
        return vm.Event.all_in(self.output()[self.mark:])

    def moved(self):
        return self.says("GO", "role=source") or self.says("ADOPTED", "role=source moved=true")

    def _pids(self, name):
        pattern = {"umem-qemu": r"umem-qemu is (\d+)", "umemd": r"event UMEMD-STARTED pid=(\d+)"}
        return re.findall(pattern[name], self.output())

    def pids(self, *names):
        """Of those that run now, for a shell."""
        pid = self._pids("umem-qemu")[-1]
        now = {"QEMU": f"$(pgrep -f {self.qemu})", "umem-qemu": pid,
               "umemd": f"$(pgrep -P {pid} -x umemd)"}
        return " ".join(now[name] for name in names or ALL)

    def kill(self, *names):
        """At once."""
        self.shell.do(f"kill -9 {self.pids(*names)}")

    def adopt(self):
        self.job.wait(90)
        self.said += self.job.output()
        self.job = self.host.start(
            f"{SAY_PID} exec {BIN}/umem-qemu --adopt {self.name} -monitor stdio",
            stdin=True, name=f"{self.name}-adopted")
        # a QEMU that was loading may have ended when the stream did
        self.job.wait_output("event ADOPTED|its QEMU .*: No such process|has left a record", 90)

    def stop(self):
        if self.ended:
            return
        self.ended = True
        if self._pids("umem-qemu"):
            self.host.run(f"kill -9 {self.pids()} {' '.join(self._pids('umemd'))}")
        self.job.kill()


class Shell:
    """A shell that is there already: what is to be killed dies now."""

    def __init__(self, host):
        self.job = host.start("exec bash", stdin=True, name="shell")
        self._done = 0

    def do(self, command):
        self._done += 1
        self.job.write(f"{command}; echo done {self._done}\n")
        self.job.wait_output(f"^done {self._done}$", 90)


class Relay:
    def __init__(self, host):
        self.job = host.start(f"exec {vm.HERE}/relay {vm.PORT}", stdin=True, name="relay")
        self.job.wait_output("^listening", 90)
        self._start = 0

    def session(self, port, steps):
        self._start = len(self.job.output())
        self.tell("\t".join(["session", str(port), *steps]))
        self.job.wait_output("^ready", 90, self._start)

    def tell(self, line):
        self.job.write(line + "\n")

    def holds(self, key):
        return f"held {key}\n" in self.job.output()[self._start:]

    def holds_soon(self, key):
        deadline = time.monotonic() + 3
        while not self.holds(key) and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.holds(key)

    def counts(self):
        self.tell("counts")
        return json.loads(self.job.wait_output(r"^\{.*\}$", 90, self._start)[0])


class Shuttle:
    """The guest that goes to and fro, and what is ready for it."""

    def __init__(self, pair):
        self._pair = pair
        self._shells = {host: Shell(host) for host in pair}
        self._relays = {host: Relay(host) for host in pair}
        self._spares = {}
        self._number = 0
        self.boot()

    def close(self):
        for helper in (*self._relays.values(), *self._shells.values()):
            helper.job.kill()

    def boot(self):
        self._spares = {}
        self.source = self._side(self._pair[0])
        self.source.boot()
        self.source.wait_ops(200)
        for host in self._pair:
            self._spare(host)

    def start_again(self):
        for host in self._pair:
            for side in vm.guests_of(host):
                side.stop()
        self.boot()

    def _side(self, host, port=None):
        self._number += 1
        return Side(host, f"{host.name}{self._number}", self._shells[host], port)

    def _spare(self, host):
        """The next destination there, while there is time."""
        self._spares[host] = self._side(host, 5000 + self._number).start()

    def _end(self, side):
        side.stop()
        self._spare(side.host)

    def next(self):
        """A destination that waits where the guest is not."""
        a, b = self._pair
        destination = self._spares.pop(b if self.source.host is a else a)
        destination.wait_event("LISTENING")
        return destination

    def migrate(self, destination, way=Way(), holds=()):
        """Begin it; gives the relay."""
        source, relay = self.source, self._relays[destination.host]
        relay.session(destination.port, [f"lose {key}" for key in way.loses]
                      + [f"hold {key}" for key in holds])
        source.mark = len(source.output())
        if way.precopy:
            source.type("migrate_set_capability postcopy-ram on")
            source.type("migrate_set_parameter downtime-limit 10000")
        source.type(f"migrate -d {'' if way.precopy else '-p '}"
                    f"tcp:{destination.host.ip}:{vm.PORT}")
        return relay

    def stays(self, destination, reason="."):
        """The guest runs at the source and did not elsewhere."""
        source = self.source
        failed = source.says("FAILED", "role=source")
        expect(failed and not source.moved(), f"{source.name} has {source.moved()} and {failed}")
        expect(re.search(reason, failed[0].text), f"wanted {reason!r} in: {failed[0].text}")
        source.ask("info status", r"VM status: running")
        source.wait_more_reports(2)
        source.wait_ops(10)
        expect(not destination.reports(), "the guest ran at the destination as well")
        self._end(destination)

    def goes(self, destination):
        """The guest runs at the destination, not at the source any more, and gets all its pages."""
        source = self.source
        source.wait_for(source.moved, 10, "say GO, but the guest runs at the destination")
        seen = len(source.reports())
        destination.wait_event("END")
        source.ask("cont", r"has moved to")
        source.ask("info status", r"paused \(postmigrate\)")
        destination.read_in_order(0, SETTINGS["pages"])
        destination.wait_more_reports(2)
        expect(destination.last().mismatches == 0, f"{destination.last()}")
        expect(len(source.reports()) == seen, "the guest runs at the source as well")
        self.source = destination
        self._end(source)

    def settle(self, destination):
        source = self.source
        # a umem-qemu may die between starting the guest and saying so
        source.wait_for(lambda: destination.reports() or source.says("FAILED", "role=source"),
                        60, f"fail, nor did {destination.name} start the guest")
        if destination.reports():
            self.goes(destination)
        else:
            self.stays(destination)

    def crash(self, cases):
        """In one migration; gives those that it did not come to."""
        destination = self.next()
        relay = self.migrate(destination, cases[0].way, [case.at for case in cases])
        done = 0
        for case in cases:
            # the destination says END before the source has answered its END
            self.source.wait_for(lambda: relay.holds(case.at) or self.source.says("FAILED") or
                                 destination.says("END") and self.source.says("END"),
                                 60, f"come to {case.at}")
            # what was said last may be on its way to the relay when both have said END
            if not relay.holds_soon(case.at):
                break
            victim = self.source if case.side == "source" else destination
            victim.kill(*case.victims)
            relay.tell("drop" if case.drop else "go")
            if case.victims == ("umem-qemu",):
                victim.adopt()
            done += 1
        self.settle(destination)
        return cases[done:]

    def messages(self):
        """Keys of all that is sent, each with the way to have it sent."""
        found = {}
        for way in WAYS:
            destination = self.next()
            relay = self.migrate(destination, way)
            destination.wait_event("RESUME")
            self.goes(destination)
            for key, count in relay.counts().items():
                phase, *_, kind = key.split()
                # after GO the midst is the same as when it has been resumed
                for number in (1, MIDST) if count >= AGAIN and phase != "after" else (1,):
                    if kind != TIMED:
                        found.setdefault(f"{key}#{number}", way)
        return found


def try_all(shuttle, chains):
    """Those that were not met are tried once more: not every message comes every time. The first
    of its chain goes before each, which may be what brings it on.
    """
    failures = []
    for last in (False, True):
        missed = []
        for chain in chains:
            started = time.monotonic()
            words = "; ".join(map(str, chain))
            try:
                missed += [[case] if case is chain[0] else [chain[0], case]
                           for case in shuttle.crash(chain)]
            except lab.HostDied:
                raise
            except (vm.Failure, lab.LabError) as error:
                failures.append(f"{words}: {error}")
                print(f"# {failures[-1]}", flush=True)
                expect(len(failures) < FAILURES, "\n".join(failures))
                shuttle.start_again()
            print(f"# {time.monotonic() - started:.1f} s {words}", flush=True)
        chains = missed
        if missed and not last:
            print(f"# once more: {len(missed)} that were not met", flush=True)
    expect(not failures, "\n".join(failures))
    expect(not missed, "\n".join(f"did not come to {chain[-1]}" for chain in missed))


def umemd_cases(shuttle, *phases):
    """At each message of these phases, on either side."""
    messages = {at: way for at, way in shuttle.messages().items() if at.split()[0] in phases}
    print(f"# {len(messages)} messages", flush=True)
    cases = [Case(at, way, side, ("umemd",)) for at, way in messages.items() for side in SIDES]
    # as if its sender's host went down with it
    return cases + [Case(at, way, at.split()[2], ("umemd",), drop=True)
                    for at, way in messages.items() if re.search(" (READY|GO|END|RESUME)[/#]", at)]


def umemd_dies_at_each_message_before_go(pair):
    with contextlib.closing(Shuttle(pair)) as shuttle:
        try_all(shuttle, [[case] for case in umemd_cases(shuttle, "before")])


def umemd_dies_at_each_message_after_go(pair):
    """Whoever dies first brings on what is said after a loss, so several go into one migration."""
    with contextlib.closing(Shuttle(pair)) as shuttle:
        cases = umemd_cases(shuttle, "after", "resumed")
        first = [[case] for case in cases if case.at.startswith("after")]
        carriers = [chain for chain in first if not chain[0].is_last()]
        later = sorted((case for case in cases if case.at.startswith("resumed")), key=Case.is_last)
        for number, case in enumerate(later):
            chain = carriers[number % len(carriers)]
            # Whoever died at the last may have been the one to say more; and what was held once is
            # not held again.
            if chain[-1].is_last() or case.at in (other.at for other in chain):
                chain = chain[:1]
                first.append(chain)
            chain.append(case)
        try_all(shuttle, first)


# Where the protocol is in another state, or nobody knows whether it is.
STATES = {
    "before control source STATE#1": WAYS[0],
    "before control source STATE_END#1": WAYS[0],
    "before control destination READY#1": WAYS[0],
    "before control source GO/1#1": WAYS[0],
    "after bulk source PAGES#3": WAYS[0],
    "after control source END#1": WAYS[0],
    "resumed control destination BITMAP#1": WAYS[1],
}


def umem_qemu_and_whole_destinations_die_in_each_state(pair):
    with contextlib.closing(Shuttle(pair)) as shuttle:
        cases = [Case(at, way, side, ("umem-qemu",)) for at, way in STATES.items()
                 for side in SIDES]
        # READY goes down with its host: one that has left it is answered by GO, and the guest gone
        cases += [Case(at, way, "destination", ALL, drop=" READY" in at)
                  for at, way in STATES.items() if at.startswith("before") and " GO" not in at]
        try_all(shuttle, [[case] for case in cases])


# How a destination fails: each spoils something, lets the migration come to an event, may do more,
# and gives the reason that is told at the source.

def qemu_dies_while_it_loads(_, destination):
    destination.shell.do(f"pkill -STOP -f {destination.qemu}")
    yield "STOP"
    destination.kill("QEMU")
    yield r"QEMU .*signal 9"


def qemu_does_not_load(_, destination):
    destination.shell.do(f"pkill -STOP -f {destination.qemu}")
    yield "STOP"
    yield "was not ready 30 s after the guest was stopped"


def umemd_does_not_answer(_, destination):
    destination.shell.do(f"kill -STOP {destination.pids('umemd')}")
    yield "UMEMD-STARTED"
    yield "did not answer within 10 seconds"


def disk_is_full_at_the_source(source, _):
    source.shell.do(FILL)
    yield "STOP"
    yield "hand-over cannot be recorded: .*No space left"


def disk_is_full_at_the_destination(_, destination):
    destination.shell.do(FILL)
    yield "STOP"
    yield "loaded cannot be recorded: .*No space left"


FAILING = [
    qemu_dies_while_it_loads,
    qemu_does_not_load,
    umemd_does_not_answer,
    disk_is_full_at_the_source,
    disk_is_full_at_the_destination,
]


def destination_fails_before_go(pair):
    for host in pair:
        host.run(f"mkdir -p {RECORDS} && mount -t tmpfs -o size=128k,mode=700 none {RECORDS}",
                 check=True)
    with contextlib.closing(Shuttle(pair)) as shuttle:
        source = shuttle.source
        for fail in FAILING:
            started = time.monotonic()
            destination = shuttle.next()
            failing = fail(source, destination)
            event = next(failing)
            shuttle.migrate(destination)
            source.wait_for(lambda: source.says(event), 180, f"come to {event}: {fail.__name__}")
            reason = next(failing)
            source.wait_for(lambda: source.says("FAILED"), 180, f"fail: {fail.__name__}")
            for side in (source, destination):
                side.shell.do(EMPTY)
            shuttle.stays(destination, reason)
            print(f"# {time.monotonic() - started:.1f} s {fail.__name__}:"
                  f" {source.says('FAILED')[0].text}", flush=True)
        destination = shuttle.next()
        shuttle.migrate(destination)
        destination.wait_event("RESUME")
        shuttle.goes(destination)


TESTS = [
    umemd_dies_at_each_message_before_go,
    umemd_dies_at_each_message_after_go,
    umem_qemu_and_whole_destinations_die_in_each_state,
    destination_fails_before_go,
]
