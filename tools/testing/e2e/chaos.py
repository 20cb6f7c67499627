# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that move back and forth between two hosts while everything that may die does.

What is done to which migration is schedule.py's to say, here it is done. CHAOS_N and CHAOS_SEED of
the environment choose how many migrations and which; CHAOS_ONLY="7 12" does those only.
"""

import os
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import migrations
import recovery
import schedule
import vm
from vm import BIN, expect, lab

GUESTS = 4
GUEST = {"memory_mib": 96, "pages": 2000, "threads": 2, "rate": 20}
SLOW = "8mbit"     # till all that is to be done was
FAST = "400mbit"
SLOW_FOR = 5, 20   # seconds after GO, at least and at most
PATIENCE = 300     # seconds, of a migration with all that happens to it

hosts = migrations.hosts


class Link:
    """What a guest's migrations go over: a part of the hosts' link with its own delay and loss."""

    def __init__(self, pair, number):
        self.port = vm.PORT + number
        self.pair = pair
        self._band = number + 2
        self._last = None

    @classmethod
    def several(cls, pair, count):
        links = [cls(pair, number) for number in range(count)]
        commands = ["modprobe -a sch_prio sch_netem cls_u32", "tc qdisc replace dev eth0 root"
                    f" handle 1: prio bands {count + 1} priomap{' 0' * 16}"]
        for link in links:
            commands += ["tc filter add dev eth0 parent 1: protocol ip u32 match ip protocol 6"
                         f" 0xff match ip {end} {link.port} 0xffff flowid 1:{link._band}"
                         for end in ("sport", "dport")]
            commands.append(link._command(FAST))
        for host in pair:
            host.run(" && ".join(commands), check=True)
        return links

    def _command(self, rate, delay="0ms", loss="0%"):
        return (f"tc qdisc replace dev eth0 parent 1:{self._band} handle {self._band}0: netem"
                f" rate {rate} delay {delay} loss {loss} limit 10000")

    def _set(self, host, *parameters, **named):
        host.run(self._command(*parameters, **named), check=True)

    def shape(self, rate, shape="plain"):
        self._last = (rate, schedule.SHAPES[shape])
        for host in self.pair:
            self._set(host, rate, **schedule.SHAPES[shape])

    def cut(self):
        for host in self.pair:
            self._set(host, FAST, loss="100%")

    def mend(self):
        rate, shape = self._last
        for host in self.pair:
            self._set(host, rate, **shape)

    def reset(self, host):
        """Both ends of each connection are told that it is over. Gives how many there were."""
        killed = host.run(f"ss -HKt '( sport = :{self.port} or dport = :{self.port} )'", check=True)
        return len(killed.out.splitlines())


class Guest(vm.Guest):
    """One whose umem-qemu may be followed by another: all of them speak as one."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._before = ""

    def output(self):
        return self._before + self.job.output()

    def history(self):
        return vm.Event.all_in(self.output())

    def umemd(self):
        """The last one's process, and has it ended; None if there never was one."""
        last = None
        for event in self.history():
            pid = event.text.split(" ")[0].removeprefix("pid=")
            if event.name == "UMEMD-STARTED":
                last = pid, False
            elif event.name == "UMEMD-ENDED" and last == (pid, False):
                last = pid, True
        return last

    def kill_umem_qemu(self):
        recovery.kill_umem_qemu(self)

    def adopt(self):
        """Returns false if there is nothing to adopt any more."""
        self._before = self.output()
        try:
            recovery.adopt(self)
        except vm.Failure:
            return False
        return True

    def ctl(self, command):
        """Nothing if umemctl has done it, else what it says."""
        result = self.host.run(f"{BIN}/umemctl {command} --guest {self.name}")
        return result.out.strip() if result.rc else ""

    def end(self):
        """Take it away, whatever state it is in."""
        self.job.kill()
        umemd = self.umemd()
        self.host.run(f"pkill -9 -f {self.qemu}" + (f"; kill -9 {umemd[0]}" if umemd else ""))
        self.forget()


class Migration:
    """From where the guest is to a fresh destination, by a plan."""

    def __init__(self, plan, link, source, name):
        self.plan = plan
        self.link = link
        self.source = source
        self.destination = None
        self._name = name
        self._other = next(host for host in link.pair if host is not source.host)
        self.done = Counter()    # faults, by kind and the last step seen
        self.resets = 0          # connections
        self._lines = []
        self._began = time.monotonic()
        self._deadline = self._began + PATIENCE
        self._attempts = 0
        self._seen = {}          # when, by step

    # What is seen

    def _has(self, side, name, text=""):
        skip = self._skipped[side]
        return any(event.name == name and text in event.text
                   for event in getattr(self, side).history()[skip:])

    def _reached(self, step):
        return {
            "command": lambda: True,
            "advise": lambda: self._has("source", "STATE", "role=source state=advise"),
            "stop": lambda: self._has("source", "STOP"),
            "ready": lambda: self._has("destination", "READY"),
            "go": lambda: self._has("source", "GO"),
            "resume": lambda: self._has("destination", "RESUME"),
            "recover": lambda: self._has("destination", "STATE", "state=recover"),
            "end": lambda: self._has("destination", "END"),
        }[step]()

    def _look(self):
        now = time.monotonic()
        for step in schedule.STEPS:
            if step not in self._seen and self._reached(step):
                self._seen[step] = now

    def _failed(self):
        return self._has("source", "FAILED", "role=source")

    def _complete(self):
        if "end" not in self._seen:
            return False
        # One that was adopted cannot know that all is there, see operations.rst
        nobody = self._has("source", "ADOPTED") and self.destination.umemd()[1]
        return self._has("source", "END", "role=source") or nobody

    # What is done

    def _strike(self, fault):
        guest = getattr(self, fault.side)
        seen = list(self._seen)[-1]
        outcome = getattr(self, f"_{fault.kind}")(guest, fault)
        self.done[fault.kind, seen] += 1
        self._lines.append(f"{fault} (after {seen}{', ' + outcome if outcome else ''})")

    def _later(self, seconds, undo):
        self._undo.append((time.monotonic() + seconds, undo))

    def _signal(self, guest, signal):
        umemd = guest.umemd()
        if not umemd or umemd[1] or guest.host.run(f"kill -{signal} {umemd[0]}").rc:
            return "there was none"
        return ""

    def _kill(self, guest, _fault):
        return self._signal(guest, "KILL")

    def _abort(self, guest, _fault):
        return self._signal(guest, "ABRT")

    def _reset(self, guest, _fault):
        count = self.link.reset(guest.host)
        self.resets += count
        return f"{count} of them"

    def _outage(self, _guest, fault):
        self.link.cut()
        self._later(fault.seconds, self.link.mend)

    def _restart(self, guest, _fault):
        return guest.ctl("pager restart")

    def _pause(self, guest, fault):
        refused = guest.ctl("pause")
        if not refused:
            self._later(fault.seconds, lambda: self._recover(guest))
        return refused

    def _recover(self, guest):
        refused = guest.ctl("recover")
        expect(not refused or "nothing is left to do" in refused, f"umemctl recover: {refused}")

    def _adopt(self, guest, fault):
        guest.kill_umem_qemu()
        self._dead.add(guest)
        self._later(fault.seconds, lambda: self._adopted(guest))

    def _adopted(self, guest):
        if guest.adopt():
            self._dead.remove(guest)
        else:
            expect(guest is self.destination and not self._reached("go"),
                   f"nobody can adopt {guest.name}: {guest.job.output()}")

    # The way

    def _check_alive(self):
        if self.source not in self._dead:
            expect(self.source.alive(), "umem-qemu has ended at the source")
        if self.destination not in self._dead and "go" in self._seen:
            expect(self.destination.alive(), "umem-qemu has ended at the destination after GO")

    def _is_enough(self, faults, now):
        """Nothing is left to be done while pages still come."""
        since_go = now - self._seen.get("go", now)
        least, most = SLOW_FOR
        return since_go > most or since_go > least and all(fault.step in ("recover", "end")
                                                           for fault in faults)

    def _attempt(self, faults):
        """True when the guest has arrived, false when it is where it was."""
        self._attempts += 1
        self._skipped = {side: len(getattr(self, side).history()) for side in schedule.SIDES}
        self._seen, self._undo, self._dead = {}, [], set()
        faults = list(faults)
        shape = self.plan.shape if faults else "plain"
        self.link.shape(SLOW if faults else FAST, shape)
        slow = bool(faults)
        precopy = self.plan.way == "precopy"
        source, uri = self.source, f"tcp:{self._other.ip}:{self.link.port}"
        source.type(f"migrate_set_capability postcopy-ram {'on' if precopy else 'off'}")
        source.type(f"migrate -d {'' if precopy else '-p'} {uri} {self.plan.prefault}")
        if precopy:
            self._later(2, lambda: source.type("migrate_start_postcopy"))
        while True:
            self._look()
            now = time.monotonic()
            for fault in [*faults]:
                if now >= self._seen.get(fault.step, now + 1) + fault.after:
                    faults.remove(fault)
                    self._strike(fault)
            for due in [*self._undo]:
                if now >= due[0]:
                    self._undo.remove(due)
                    due[1]()
            if slow and not self._undo and self._is_enough(faults, now):
                slow = False
                self.link.shape(FAST)
            self._check_alive()
            if not self._undo and (self._failed() or self._complete()):
                return not self._failed()
            expect(now < self._deadline, f"it did not end within {PATIENCE} s")
            time.sleep(0.05)

    def _need_destination(self):
        """A fresh one, unless there is one that waits for a source."""
        if self.destination:
            # QEMU quits late, and then not of itself, if it waits for a page
            with suppress(lab.JobTimeout):
                self.destination.job.wait(30 if self._has("destination", "FAILED") else 2)
            if self.destination.alive() and not self._reached("ready"):
                return
            self.destination.end()
        self.destination = Guest(self._other, f"{self._name}-{self._attempts}",
                                 incoming=f"tcp:0:{self.link.port}", **GUEST).start()
        self.destination.wait_event("LISTENING")

    def _check_source_runs(self):
        expect(not self._has("destination", "RESUME"),
               "the guest runs at the destination, and the source says that it failed")
        self.source.ask("info status", r"VM status: running")
        self.source.wait_ops(10)

    def _check_arrived(self):
        source, destination = self.source, self.destination
        info = destination.info()
        expect(info["Migration status"] == "completed" and
               info["pages present"] == info["pages total"] and info["checksum errors"] == "0",
               f"info migrate at the destination says {info}")
        source.ask("cont", r"has moved to")
        source.ask("info status", r"paused \(postmigrate\)")
        source.type("quit")
        pages, mismatches = destination.sweep(1)
        expect(pages == GUEST["pages"] and mismatches == 0,
               f"{mismatches} of {pages} pages are corrupt")
        destination.wait_ops(10)
        if self._has("source", "END", "role=source"):
            source.job.wait(60)
            source.forget()
        else:  # it would wait for the destination for ever
            source.end()

    def run(self):
        """Gives the guest at the destination."""
        faults = self.plan.faults
        while True:
            self._need_destination()
            if self._attempt(faults):
                break
            self._check_source_runs()
            expect(self._attempts < 3, "without any fault it failed again")
            faults = ()
        self._check_arrived()
        return self.destination

    def __str__(self):
        again = f", by attempt {self._attempts}" if self._attempts > 1 else ""
        return (f"{self.plan.number}. {self.source.name} to {self._other.name}, {self.plan.how}:"
                f" {'; '.join(self._lines) or 'no fault in time'}:"
                f" {time.monotonic() - self._began:.0f} s{again}")

    def state(self):
        """For who looks for what went wrong."""
        text = [f"planned: {self.plan}", f"seen: {', '.join(self._seen)}"]
        for guest in (self.source, self.destination):
            if guest:
                lines = guest.output().splitlines()[-25:] + guest.text().splitlines()[-2:]
                text += [f"{guest.name}:", *(f"  {line}" for line in lines)]
        return "\n".join(text)


class Travels:
    """All that the guests go through, each at its own pace."""

    def __init__(self, pair, plans):
        self._pair = pair
        self._plans = plans
        self._stop = False
        self.migrations = []
        self._links = Link.several(pair, GUESTS)

    def boot(self, number):
        return Guest(self._pair[number % 2], f"guest{number}", **GUEST).boot()

    def go(self, number, guest):
        """Take one guest through its migrations."""
        for plan in self._plans[number::GUESTS]:
            if self._stop:
                return
            migration = Migration(plan, self._links[number], guest, f"guest{number}-{plan.number}")
            self.migrations.append(migration)
            try:
                guest = migration.run()
            except Exception as error:
                self._stop = True
                details = traceback.format_exc() if not isinstance(error, vm.Failure) else error
                text = f"FAILED {migration}: {details}\n{migration.state()}"
                print("".join(f"# {line}\n" for line in text.splitlines()), end="", flush=True)
                raise vm.Failure(f"migration {plan.number} of what is above: {error}") from error
            print(f"# {migration}", flush=True)

    def side_by_side(self, step, *arguments):
        """A step of each guest."""
        with ThreadPoolExecutor(GUESTS) as pool:
            return list(pool.map(step, range(GUESTS), *arguments))


def numbers(name, text):
    words = text.split()
    expect(all(word.isdigit() and int(word) for word in words),
           f"{name} is {text!r}, wanted numbers from 1 on")
    return [int(word) for word in words]


def chosen_plans():
    count, seed, only = (os.environ.get(f"CHAOS_{name}") or default
                         for name, default in (("N", "20"), ("SEED", "1"), ("ONLY", "")))
    print(f"# chaos: N={count} SEED={seed}" + (f" ONLY=\"{only}\"" if only else ""), flush=True)
    chosen = numbers("ONLY", only) or range(1, numbers("N", count)[0] + 1)
    return [schedule.plan(seed, number) for number in chosen]


def guests_move_through_chaos_alive_and_whole(pair):
    travels = Travels(pair, chosen_plans())
    travels.side_by_side(travels.go, travels.side_by_side(travels.boot))
    done = sum((migration.done for migration in travels.migrations), Counter())
    for kind, words in schedule.Fault.WORDS.items():
        steps = ", ".join(f"{done[kind, step]} after {step}" for step in schedule.STEPS
                          if done[kind, step])
        print(f"# {words}: {steps or 'never'}")
    resets = sum(times for (kind, _), times in done.items() if kind == "reset")
    expect(not resets or sum(migration.resets for migration in travels.migrations),
           "no reset found a connection: can ss -K of these hosts do it?")


TESTS = [guests_move_through_chaos_alive_and_whole]
