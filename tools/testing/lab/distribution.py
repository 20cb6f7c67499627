# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels of another release of the distribution, each in a root of its own with what builds
modules for it: its headers need that release's compiler and libc. Nothing of the machine's own
package lists or packages changes.
"""

import contextlib
import os
import shutil
from pathlib import Path

from kernel import BUILD, Kernel, LabError, output, trim

# Kernel: the release of the distribution and the suite of it that has such a kernel
SUITES = {"6.12": ("trixie", "trixie"), "7": ("trixie", "trixie-backports")}
PACKAGES = ["linux-image-amd64", "linux-headers-amd64", "gcc", "make", "base-files", "bash", "dash",
            "coreutils", "sed", "grep", "findutils", "diffutils", "mawk"]

APT_CONF = """\
Dir "{top}";
Dir::Etc "{top}/etc";
Dir::Etc::TrustedParts "/etc/apt/trusted.gpg.d";
Dir::State "{top}/state";
Dir::State::status "/dev/null";
Dir::Cache "{top}/cache";
Dir::Log "{top}/log";
APT::Sandbox::User "{user}";
APT::Install-Recommends "false";
Acquire::Languages "none";
"""


def kernel(name):
    """The newest kernel of that name when first asked for; in build/lab/kernel-<name>."""
    root = BUILD / f"kernel-{name}"
    if not root.exists():
        _make(name, root)
    release, = (path.name for path in (root / "lib" / "modules").iterdir())
    return Kernel(release, root, Path(f"/lib/modules/{release}/build"), root)


def _make(name, root):
    release, suite = SUITES[name]
    scratch = BUILD / f".kernel-{name}"
    shutil.rmtree(scratch, ignore_errors=True)
    print(f"lab: downloading the kernel of {suite} and what builds modules for it", flush=True)
    try:
        _download(scratch / "apt", release, suite)
        _unpack(scratch / "root", scratch / "apt" / "cache" / "archives")
        version, = (path.name for path in (scratch / "root" / "lib" / "modules").iterdir())
        trim(scratch / "root" / "lib" / "modules" / version / "kernel")
        output(f"indexing the modules of {version}", "/sbin/depmod", "-b", str(scratch / "root"),
               version)
        (scratch / "root").rename(root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _mirror():
    """Where this machine gets its own release from."""
    with open("/etc/os-release") as file:
        settings = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    codename = settings.get("VERSION_CODENAME", "")
    found = output("looking for the mirror", "apt-get", "indextargets", "--format", "$(REPO_URI)",
                   "Created-By: Packages", f"Codename: {codename}").split()
    if not found:
        raise LabError(f"apt-get indextargets names no mirror of {codename!r}: run apt-get update")
    return found[0]


def _download(top, release, suite):
    for folder in ("etc/apt.conf.d", "etc/preferences.d", "state/lists/partial",
                   "cache/archives/partial", "log"):
        (top / folder).mkdir(parents=True)
    user = "root" if os.geteuid() == 0 else ""
    (top / "apt.conf").write_text(APT_CONF.format(top=top, user=user))
    (top / "etc" / "sources.list").write_text(
        "".join(f"deb {_mirror()} {name} main\n" for name in sorted({release, suite})))
    apt = ["env", f"APT_CONFIG={top}/apt.conf", "apt-get", "-q=2"]
    output(f"reading the package lists of {suite}", *apt, "update")
    output(f"downloading the kernel of {suite}", *apt, "--yes", "--download-only", "-t", suite,
           "install", *PACKAGES)


def _unpack(root, archives):
    root.mkdir()
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for package in sorted(archives.glob("*.deb")):
        output(f"unpacking {package.name}", "dpkg", "-x", str(package), str(root))
    # What the packages' scripts would have done
    for name, target in (("awk", "mawk"), ("sh", "dash")):
        with contextlib.suppress(FileExistsError):
            (root / "usr" / "bin" / name).symlink_to(target)
    for name in ("dev", "mnt"):
        (root / name).mkdir(exist_ok=True)
