# SPDX-License-Identifier: GPL-2.0-or-later
"""The distribution's stock kernel, unpacked but not installed, and initramfs images for kernels."""

import contextlib
import fcntl
import lzma
import os
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
BUILD = REPO / "build" / "lab"
BUSYBOX = Path("/bin/busybox")
# Of 4000 modules, the drivers a virtual machine may need; indexing all takes it minutes.
DRIVERS = {"block", "char", "crypto", "dma", "net", "vdpa", "vfio", "vhost", "virtio"}


class LabError(Exception):
    """Something the person at the keyboard has to know; the message says what to do."""


def output(what, *argv, cwd=None):
    try:
        return subprocess.run(argv, cwd=cwd, check=True, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout
    except FileNotFoundError:
        raise LabError(f"{what}: the program {argv[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip() or f"exit code {error.returncode}"
        raise LabError(f"{what}: {' '.join(argv)}: {reason}") from None


@dataclass(frozen=True)
class Kernel:
    release: str
    root: Path  # what the package has: boot/ and lib/modules/
    headers: Path  # what modules are built with, a path below build_root
    build_root: Path = Path("/")  # the root that has the headers and their compiler
    patience: int = 1  # how many times as long as others it may take, with twice the memory

    @property
    def image(self):
        beside = self.modules / "vmlinuz"
        return beside if beside.exists() else self.root / "boot" / f"vmlinuz-{self.release}"

    @property
    def vmlinux(self):
        """The image decompressed: an emulated host boots it in half the time."""
        own = self.root / "boot" / f"vmlinux-{self.release}"
        return own if own.exists() else BUILD / f"vmlinux-{self.release}"

    @property
    def modules(self):
        return self.root / "lib" / "modules" / self.release

    def _built_in(self):
        entries = (self.modules / "modules.builtin.modinfo").read_bytes().split(b"\0")
        return {entry.split(b".")[0].decode().replace("-", "_") for entry in entries}

    def load_order(self, names):
        """Paths of the modules and of all they depend on, in the order for insmod."""
        depends = {}
        built_in = self._built_in()
        for line in (self.modules / "modules.dep").read_text().splitlines():
            path, _, needs = line.partition(":")
            depends[path] = needs.split()
        by_name = {Path(path).name.split(".ko")[0].replace("-", "_"): path for path in depends}
        order = []
        for name in names:
            if name.replace("-", "_") in built_in:
                continue
            path = by_name.get(name.replace("-", "_"))
            if path is None:
                raise LabError(f"kernel {self.release} has no module {name} in {self.modules}")
            # modules.dep names the direct dependency first and the deepest one last
            for module in [*reversed(depends[path]), path]:
                if module not in order:
                    order.append(module)
        return [self.modules / module for module in order]


@contextlib.contextmanager
def lock(folder=BUILD):
    """One at a time adds to a folder, which need not be there."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def stock():
    """The kernel linux-image-amd64 stands for, downloaded once into build/lab/kernel-<release>."""
    release = _stock_release()
    kernel = Kernel(release, BUILD / f"kernel-{release}", Path(f"/lib/modules/{release}/build"))
    with lock():
        if not kernel.root.exists():
            _unpack(kernel)
        if not kernel.vmlinux.exists():
            decompress(kernel)
    return kernel


def _stock_release():
    prefix = "linux-image-"
    for line in output("looking for the stock kernel",
                       "apt-cache", "depends", f"{prefix}amd64").splitlines():
        word = line.split()[-1]
        if "Depends:" in line and word.startswith(prefix):
            return word.removeprefix(prefix)
    raise LabError("apt-cache knows no package linux-image-amd64: run apt-get update")


def _unpack(kernel):
    package = f"linux-image-{kernel.release}-unsigned"
    print(f"lab: downloading {package}", flush=True)
    with tempfile.TemporaryDirectory(dir=BUILD, prefix=".kernel-") as scratch:
        os.chmod(scratch, 0o755)
        output(f"downloading {package} (run apt-get update?)",
               "apt-get", "download", package, cwd=scratch)
        deb, = Path(scratch).glob("*.deb")
        root = Path(scratch) / "root"
        output(f"unpacking {package}", "dpkg", "-x", str(deb), str(root))
        trim(root / "lib" / "modules" / kernel.release / "kernel")
        output(f"indexing the modules of {package}",
               "/sbin/depmod", "-b", str(root), kernel.release)
        root.rename(kernel.root)


def decompress(kernel):
    """The payload of a bzImage, see Documentation/x86/boot.rst of the kernel."""
    image = kernel.image.read_bytes()
    sectors = image[0x1f1] + 1
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[sectors * 512 + offset:][:length]
    scratch = BUILD / ".vmlinux"
    if payload.startswith(b"\xfd7zXZ\0"):
        scratch.write_bytes(lzma.LZMADecompressor().decompress(payload))
    elif payload.startswith(b"\x28\xb5\x2f\xfd"):
        scratch.with_suffix(".zst").write_bytes(payload[:-4])  # the length follows the frame
        output(f"decompressing {kernel.image}", "zstd", "-dqf", "--rm",
               str(scratch.with_suffix(".zst")), "-o", str(scratch))
    else:
        raise LabError(f"{kernel.image}: its payload begins with {payload[:6]!r}, wanted xz or zstd")
    scratch.rename(kernel.vmlinux)


def trim(modules):
    shutil.rmtree(modules / "sound")
    for folder in (modules / "drivers").iterdir():
        if folder.name not in DRIVERS:
            shutil.rmtree(folder)
    for folder in (modules / "drivers" / "net").iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)


def initramfs(path, kernel, init, modules=(), files=()):
    """Write a cpio archive: init, the modules, /modules naming them in load order, and files.

    files are pairs (path on this machine, path in the archive).
    """
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        for name in ("bin", "dev", "proc", "sys", "tmp", "modules.d", "newroot"):
            (top / name).mkdir()
        for source, target in [(init, "init"), *files]:
            if not Path(source).exists():
                hint = ": install busybox-static" if source == BUSYBOX else ""
                raise LabError(f"{path}: {source} is missing{hint}")
            shutil.copy(source, top / target)
            (top / target).chmod(0o755)
        order = kernel.load_order(modules)
        for module in order:
            (top / "modules.d" / _plain_name(module)).write_bytes(_plain_module(module))
        (top / "modules").write_text("".join(f"/modules.d/{_plain_name(m)}\n" for m in order))
        names = b"\0".join(os.fsencode(p.relative_to(top)) for p in sorted(top.rglob("*")))
        with open(path, "wb") as archive:
            subprocess.run(["cpio", "--quiet", "-0o", "-H", "newc", "-R", "0:0"], cwd=top,
                           input=names, stdout=archive, check=True)
    return path


def _plain_name(module):
    return module.name.removesuffix(".xz")


def _plain_module(module):
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data
