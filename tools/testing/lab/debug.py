# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that look for bugs, built from the distribution's source with no more than a host needs.

One takes some 10 minutes to build, and stays in the cache, named after the version of the source
and its configuration.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import source
from kernel import REPO, Kernel, LabError, lock, output

PATIENCE = 6
CONFIGS = {name: ["host.config", f"{name}.config"] for name in ("debug", "kcsan")}


def _config(name):
    folder = REPO / "tools" / "testing" / "lab" / "config"
    return "".join((folder / part).read_text() for part in CONFIGS[name])


def _root(name):
    key = hashlib.sha256(_config(name).encode()).hexdigest()[:12]
    return source.CACHE / f"kernel-{name}-{source.version()}-{key}"


def is_cached(name):
    return _root(name).exists()


def kernel(name):
    root = _root(name)
    with lock(source.CACHE):
        if not root.exists():
            _build(name, root)
    release, = (path.name for path in (root / "lib" / "modules").iterdir())
    return Kernel(release, root, root / "lib" / "modules" / release / "build", patience=PATIENCE)


def _build(name, root):
    print(f"lab: building the kernel {name}, once; some 10 minutes", flush=True)
    with tempfile.TemporaryDirectory(dir=source.CACHE, prefix=".build-") as scratch:
        tree = source.unpack(Path(scratch))
        _configure(name, tree)
        output(f"building the kernel {name}", "make", "-s", f"-j{os.cpu_count()}", "vmlinux",
               "modules", cwd=tree)
        _install(name, tree, Path(scratch) / "root")
        (Path(scratch) / "root").rename(root)


def _install(name, built, root):
    what = f"installing the kernel {name}"
    output(what, "make", "-s", f"INSTALL_MOD_PATH={root}", "modules_install", cwd=built)
    modules, = (root / "lib" / "modules").iterdir()
    (root / "boot").mkdir()
    shutil.copy(built / "vmlinux", root / "boot" / f"vmlinux-{modules.name}")
    (modules / "build").unlink(missing_ok=True)
    output(what, "make", "-s", "run-command", "KBUILD_RUN_COMMAND="
           f"$(srctree)/scripts/package/install-extmod-build {modules / 'build'}", cwd=built)


def _configure(name, tree):
    wanted = tree / "wanted.config"
    wanted.write_text(_config(name))
    output(f"configuring the kernel {name}", "make", "-s", f"KCONFIG_ALLCONFIG={wanted}",
           "allnoconfig", cwd=tree)
    got = set((tree / ".config").read_text().splitlines())
    for line in wanted.read_text().splitlines():
        option, _, value = line.partition("=")
        if not option.startswith("CONFIG_"):
            continue
        honoured = line in got or value == "n" and not any(have.startswith(f"{option}=")
                                                           for have in got)
        if not honoured:
            raise LabError(f"the kernel {name} cannot have {line}: something it needs is missing")


if __name__ == "__main__":
    if sys.argv[1:2] != ["cached"] or sys.argv[2:] == [] or sys.argv[2] not in CONFIGS:
        sys.exit(f"usage: {sys.argv[0]} cached {'|'.join(CONFIGS)}")
    try:
        sys.exit(not is_cached(sys.argv[2]))
    except LabError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
