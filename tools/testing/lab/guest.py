# SPDX-License-Identifier: GPL-2.0-or-later
"""The checking guest in a host: starting it, talking to it, migrating it with QEMU's own means.

    source = guest.Guest(a, "source")
    source.start("qemu-system-x86_64")
    source.wait_ready()
    source.sweep(2)

See tools/testing/guest/guest.c for what it reports.
"""

import json
import re
import time
from dataclasses import dataclass

from kernel import REPO, LabError

IMAGES = REPO / "build" / "guest"
BOOT_TIMEOUT = 90
REPORT = re.compile(r"^umem-guest: t=(\d+) ops=(\d+) gap_us=(\d+) stall_us=(\d+) mismatches=(\d+) "
                    r"checked=(\d+) sweeps=(\d+)$", re.M)


@dataclass(frozen=True)
class Report:
    t_ms: int
    ops: int
    gap_us: int
    stall_us: int
    mismatches: int
    checked: int
    sweeps: int


def reports(text):
    return [Report(*map(int, match)) for match in REPORT.findall(text)]


class Qmp:
    """A client of the QMP socket at path in a host. Event times are the host's."""

    def __init__(self, host, path):
        self._job = host.start(f"exec socat - UNIX:{path}", stdin=True, name="qmp")
        self._serial = 0
        self.execute("qmp_capabilities")

    def _messages(self):
        lines = self._job.output().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def execute(self, command, timeout=60, **arguments):
        self._serial += 1
        request = {"execute": command, "id": self._serial,
                   "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}
        self._job.write(json.dumps(request) + "\n")
        self._job.wait_output(rf'"id": {self._serial}\b.*\n', timeout)
        answer, = (message for message in self._messages() if message.get("id") == self._serial)
        if "error" in answer:
            raise LabError(f"{self._job}: {command}: {answer['error']['desc']}")
        return answer["return"]

    def events(self, name):
        """Times in seconds of the events of this name so far."""
        return [message["timestamp"]["seconds"] + message["timestamp"]["microseconds"] / 1e6
                for message in self._messages() if message.get("event") == name]

    def wait_event(self, name, timeout=60):
        """Time of the first event of this name."""
        self._job.wait_output(rf'"event": "{name}".*\n', timeout)
        return self.events(name)[0]


class Guest:
    """One QEMU with the checking guest, or one that waits for it to come by migration."""

    def __init__(self, host, name="guest", mem_mib=256, append=""):
        self.host = host
        self.name = name
        self.mem_mib = mem_mib
        self.append = append
        self.qemu = self.port = self.qmp = None

    def options(self):
        """QEMU options of the guest; source and destination have the same but for file names."""
        base = f"/tmp/{self.name}"
        return (f"-accel kvm -cpu host -m {self.mem_mib} -nodefaults -display none "
                f"-kernel {IMAGES}/vmlinux -initrd {IMAGES}/guest.cpio "
                f"-append 'console=ttyS0 quiet panic=-1 umem.port=virtio {self.append}' -no-reboot "
                f"-serial file:{self.host.dir}/{self.name}.console -device virtio-serial-pci "
                f"-chardev socket,id=port,path={base}.port,server=on,wait=off "
                f"-device virtserialport,chardev=port,name=umem.guest "
                f"-qmp unix:{base}.qmp,server=on,wait=off")

    def start(self, program, options=""):
        """Start program (QEMU or what takes its options) with the guest's options and these."""
        for file in ("vmlinux", "guest.cpio"):
            if not (IMAGES / file).exists():
                raise LabError(f"{IMAGES / file} is missing: run make -C tools/testing/guest")
        self.qemu = self.host.start(f"exec {program} {self.options()} {options}", stdin=True,
                                    name=self.name)
        deadline = time.monotonic() + 30
        while self.host.run(f"[ -S /tmp/{self.name}.port -a -S /tmp/{self.name}.qmp ]").rc:
            if self.qemu.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"{self.qemu} has no monitor: {self.qemu.output()[-2000:]}")
        self.port = self.host.start(f"exec socat - UNIX:/tmp/{self.name}.port", stdin=True,
                                    name=f"{self.name}-port")
        self.qmp = Qmp(self.host, f"/tmp/{self.name}.qmp")

    def wait_ready(self, timeout=BOOT_TIMEOUT):
        """Wait till the table is filled; gives its number of pages."""
        return int(self.port.wait_output(r"umem-guest: ready pages=(\d+)\n", timeout).group(1))

    def reports(self):
        return reports(self.port.output())

    def wait_reports(self, number, timeout=60):
        """Wait for that many more lines of reports; gives them."""
        before = len(self.reports())
        deadline = time.monotonic() + timeout
        while len(self.reports()) < before + number:
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} made {len(self.reports()) - before} reports in "
                               f"{timeout} s, {number} wanted")
            self.qemu.poll()
            time.sleep(0.05)
        return self.reports()[before:]

    def sweep(self, rounds=1, timeout=120):
        """Have it check its whole table; gives (pages checked, mismatches it ever found)."""
        return self._ask(f"sweep {rounds}", r"sweep done pages=(\d+) mismatches=(\d+)\n", timeout)

    def storm(self, timeout=120):
        """Have its 64 threads touch pages at once; gives (threads, mismatches it ever found)."""
        return self._ask("storm", r"storm done threads=(\d+) mismatches=(\d+)\n", timeout)

    def _ask(self, command, answer, timeout):
        start = len(self.port.output())
        self.port.write(command + "\n")
        match = self.port.wait_output(f"umem-guest: {answer}", timeout, start)
        return tuple(map(int, match.groups()))

    def l0_time(self, host_time):
        """What this machine's clock said when the host's said host_time."""
        return host_time - self.host.clock_offset()


@dataclass(frozen=True)
class Migration:
    """One migration as seen from outside and by the guest."""

    stopped_ms: float  # STOP at the source to RESUME at the destination (QMP events)
    gap_ms: float      # the longest time after RESUME in which the guest did nothing (its reports)
    total_ms: float    # command to completion
    bytes: int         # RAM transferred as QEMU counts it

    @property
    def downtime_ms(self):
        return self.stopped_ms + self.gap_ms


def stopped_ms(source, destination):
    """STOP at the source to RESUME at the destination, on one clock."""
    stop = source.l0_time(source.qmp.wait_event("STOP"))
    resume = destination.l0_time(destination.qmp.wait_event("RESUME"))
    return (resume - stop) * 1000


def migrate_with_qemu(source, destination, address, mode="postcopy", timeout=180):
    """QEMU's own migration of a ready guest; mode is precopy, postcopy or preempt.

    destination was started with -incoming defer. Post-copy begins as soon as it can.
    """
    names = {"precopy": [], "postcopy": ["postcopy-ram"],
             "preempt": ["postcopy-ram", "postcopy-preempt"]}[mode]
    capabilities = [{"capability": name, "state": True} for name in ["events", *names]]
    for side in (destination, source):
        side.qmp.execute("migrate-set-capabilities", capabilities=capabilities)
    destination.qmp.execute("migrate-incoming", uri=f"tcp:{address}")
    begin = time.monotonic()
    source.qmp.execute("migrate", uri=f"tcp:{address}")
    if names:
        source.qmp.execute("migrate-start-postcopy")
    while True:
        state = source.qmp.execute("query-migrate")
        if state["status"] == "completed":
            break
        if state["status"] == "failed" or time.monotonic() > begin + timeout:
            raise LabError(f"QEMU's own migration: {state}")
        time.sleep(0.1)
    total = time.monotonic() - begin
    destination.wait_reports(10)
    gap = max(report.gap_us for report in destination.reports())
    return Migration(stopped_ms(source, destination), gap / 1000, total * 1000,
                     state["ram"]["transferred"])
