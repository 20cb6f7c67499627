#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel's own tools say of the module, its interface and its tests: nothing, or it fails.

checkpatch, which sees the programs as well, kernel-doc, sparse, smatch where there is one, and Coccinelle, with the scripts of the
distribution's kernel source; and that the selftests are taken by the tests of a kernel tree.
The short form is what takes seconds.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lab"))
import kbuild  # noqa: E402
import kernels  # noqa: E402
import source  # noqa: E402
from kernel import REPO, LabError  # noqa: E402

SELFTESTS = REPO / "tools" / "testing" / "selftests" / "umem"
MODULE = sorted([*REPO.glob("kernel/**/*.[ch]"), *REPO.glob("uapi/**/*.h")])
PROGRAMS = sorted(file for top in ("user", "tools") for file in (REPO / top).rglob("*.[ch]"))
OUTSIDE = ("user/", "tools/")

# What checkpatch says of these is not so: type, files, why
ACCEPTED = [
    ("LINUX_VERSION_CODE", "kernel/compat/", "they are there for that"),
    ("CONSTANT_COMPARISON", "kernel/compat/", "LINUX_VERSION_CODE is no constant"),
    ("UNCOMMENTED_DEFINITION", "kernel/umem.h", "kernel-doc above it says what a lock protects"),
    ("CONST_STRUCT", "kernel/view.c", "made from shmem's when the first region is mapped"),
    ("MACRO_ARG_REUSE", ("kernel/request.c", "kernel/stat.c"), "loops over what does not change"),
    ("PARENTHESIS_ALIGNMENT", "kernel/trace.h", "the form that all trace events have"),
    ("OPEN_ENDED_LINE", "kernel/trace.h", "the same"),
    ("BIT_MACRO", "uapi/linux/umem.h", "a size, and no header of user space has BIT()"),
    ("VOLATILE", OUTSIDE, "an access is what is tested"),
    ("MACRO_ARG_", OUTSIDE, "loops, and checks that name what they check"),
    ("MACRO_WITH_FLOW_CONTROL", OUTSIDE, "a test ends where a check fails"),
    ("COMPLEX_MACRO", OUTSIDE, "a loop"),
    ("SUSPECT_CODE_INDENT", "user/umemd/tests/", "loops over all there is, side by side"),
    ("CAMELCASE", OUTSIDE, "_Atomic, and what libraries name so"),
    ("LINE_SPACING", "tools/testing/", "_Atomic is no type to it"),
    ("SPACING", ("tools/testing/", "user/umemd/tests/"), "_Thread_local and compound literals"),
    ("EMBEDDED_FUNCTION_NAME", OUTSIDE, "the name of what was called, or a word"),
    ("ASSIGN_IN_IF", OUTSIDE, "what is read and looked at"),
    ("MULTIPLE_ASSIGNMENTS", OUTSIDE, "several that are to be the same"),
    ("COMPARISON_TO_NULL", OUTSIDE, "its result is a number"),
    ("UNNECESSARY_PARENTHESES", OUTSIDE, "a comparison of comparisons"),
    ("LONG_LINE", OUTSIDE, "messages, and tables of the tests"),
    ("SPLIT_STRING", OUTSIDE, "texts"),
    ("QUOTED_WHITESPACE_BEFORE_NEWLINE", OUTSIDE, "what is said, or taken apart"),
    ("PARENTHESIS_ALIGNMENT", OUTSIDE, "objects of JSON, and texts"),
    ("OPEN_ENDED_LINE", OUTSIDE, "the same"),
] + [(kind, OUTSIDE, "of the kernel, and not to be had outside") for kind in (
    "ARCH_DEFINES", "ARRAY_SIZE", "AVOID_EXTERNS", "BIT_MACRO", "MINMAX", "MSLEEP", "NAKED_SSCANF",
    "NEW_TYPEDEFS", "PREFER_DEFINED_ATTRIBUTE_MACRO", "PREFER_FALLTHROUGH", "PREFER_KERNEL_TYPES",
    "SSCANF_TO_KSTRTO", "STATIC_CONST_CHAR_ARRAY", "STRCPY")]

_number = 0


def verdict(name, findings):
    global _number
    _number += 1
    for finding in findings:
        print(f"# {finding}")
    print(f"{'not ' if findings else ''}ok {_number} {name}", flush=True)
    return not findings


def skip(name, why):
    global _number
    _number += 1
    print(f"ok {_number} {name} # SKIP {why}", flush=True)


def run(*argv, cwd=REPO):
    return subprocess.run([str(arg) for arg in argv], cwd=cwd, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def lines(text):
    return [line for line in text.splitlines() if line.strip()]


def accepted(finding):
    path, kind = finding.group("path"), finding.group("type")
    return any(kind.startswith(a_type) and path.startswith(a_path) for a_type, a_path, _ in ACCEPTED)


def checkpatch(tree, files):
    findings = []
    said = run("perl", tree / "scripts" / "checkpatch.pl", "--strict", "--no-tree", "--terse",
               "--show-types", "--no-summary", "--max-line-length=100", f"--root={tree}", "-f",
               *(file.relative_to(REPO) for file in files), cwd=REPO).stdout
    for line in lines(said):
        finding = re.match(r"(?P<path>[^:]+):\d+: \w+:(?P<type>\w+): ", line)
        if not finding or not accepted(finding):
            findings.append(line)
    for stray in REPO.glob(".checkpatch-camelcase.*"):
        stray.unlink()
    return verdict("checkpatch --strict", findings)


def kernel_doc(tree):
    said = run("perl", tree / "scripts" / "kernel-doc", "-none", "-Wall", "-Werror", *MODULE)
    return verdict("kernel-doc -Wall", lines(said.stdout) or ["failed"] * (said.returncode != 0))


def documented():
    """Each function that other files call has a comment for kernel-doc."""
    findings = []
    for file in REPO.glob("kernel/*.c"):
        text = file.read_text()
        for function in re.finditer(r"^(?!static )[a-z][\w *]*?\b(umem_\w+)\((?=[^;]*?^{)", text, re.M):
            name = function.group(1)
            if not re.search(rf"^/\*\*\n \* {name} - ", text, re.M):
                findings.append(f"{file.relative_to(REPO)}: {name}() has no kernel-doc")
    return verdict("functions have kernel-doc", findings)


def checker(kernel, name, *settings):
    """The module built with a checker in front of the compiler."""
    with tempfile.TemporaryDirectory() as work:
        kbuild.copy_sources(Path(work))
        code, said = kbuild.build(kernel, Path(work), *settings)
    findings = [line for line in lines(said) if not line.startswith("Skipping BTF")]
    return verdict(name, findings or ["make failed"] * (code != 0))


def smatch(kernel):
    if not shutil.which("smatch"):
        skip("smatch", "the distribution has no package of it")
        return True
    return checker(kernel, "smatch", "C=2", "CHECK=smatch -p=kernel")


def coccinelle(tree):
    """What make coccicheck does, less the scripts that need a compiler of OCaml."""
    findings = []
    for script in sorted((tree / "scripts" / "coccinelle").rglob("*.cocci")):
        text = script.read_text()
        if "virtual report" not in text or re.search(r"^@\s*\w+:ocaml", text, re.M):
            continue
        options = " ".join(re.findall(r"^// Options: *(.*)", text, re.M)).split()
        said = subprocess.run(["spatch", "-D", "report", "--no-show-diff", "--very-quiet",
                               "--cocci-file", str(script), *options, "--dir", "kernel",
                               "-I", "uapi"],
                              cwd=REPO, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        findings += lines(said.stdout)
        if said.returncode:
            findings.append(f"{script.name}: {said.stderr[-500:]}")
    return verdict("Coccinelle", findings)


def in_kernel_tree(tree):
    """The selftests, put where a kernel tree would have them, are built and installed by its make."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "linux"
        shutil.copytree(tree, copy, symlinks=True)
        shutil.copytree(SELFTESTS, copy / "tools" / "testing" / "selftests" / "umem")
        headers = copy / "usr" / "include" / "linux"
        headers.mkdir(parents=True)
        for header in REPO.glob("uapi/linux/*.h"):
            shutil.copy(header, headers)
        made = run("make", "-s", "-C", copy / "tools" / "testing" / "selftests", "TARGETS=umem",
                   f"INSTALL_PATH={scratch}/installed", "install")
        installed = [path.name for path in Path(scratch, "installed", "umem").glob("*")]
        listed = Path(scratch, "installed", "kselftest-list.txt")
        named = listed.read_text().split() if listed.exists() else []
    findings = lines(made.stdout)[-20:] if made.returncode else []
    findings += [line for line in lines(made.stdout) if "warning:" in line]
    makefile = (SELFTESTS / "Makefile").read_text().replace("\\\n", "")
    wanted = re.search(r"^TEST_GEN_PROGS := (.*)", makefile, re.M).group(1).split()
    findings += [f"{name} is not installed" for name in wanted
                 if name not in installed or f"umem:{name}" not in named]
    return verdict("make -C tools/testing/selftests TARGETS=umem of a kernel tree", findings)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true",
                        help="no programs, smatch and Coccinelle, and no kernel tree")
    short = parser.parse_args().short
    tree = source.scripts()
    kernel = kernels.of_hosts()
    good = [checkpatch(tree, MODULE + (sorted(SELFTESTS.glob("*.[ch]")) if short else PROGRAMS)),
            kernel_doc(tree), documented(),
            checker(kernel, "sparse", "C=2", "CF=-D__CHECK_ENDIAN__")]
    if not short:
        good += [smatch(kernel), coccinelle(tree), in_kernel_tree(tree)]
    print(f"1..{_number}")
    return 0 if all(good) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"form: {error}")
