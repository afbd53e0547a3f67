#!/usr/bin/env python3
"""plyfs, kernel overlayfs and fuse-overlayfs on the same jobs, interleaved; prints Markdown.

As root: scripts/bench.py [--rounds 5] [--dir DIR] [--only NAME,...] [--drivers] [--json FILE]
Every round of every job gets a fresh upper and a fresh mount; the order of the filesystems turns
from round to round. DIR (default /var/tmp) needs 5 GiB on the filesystem to be measured.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
DIRS, FILES, GIB = 200, 50, 1 << 30


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


def quiet(*command):
    run(*command, stdout=subprocess.DEVNULL)


def text(*command):
    return run(*command, capture_output=True, text=True).stdout.strip()


# What is measured: how each filesystem is mounted, by name.
def stack(at):
    return f"lowerdir={at / 'lower'},upperdir={at / 'upper'},workdir={at / 'work'}"


def plyfs(at, *flags):
    run(TOP / "target/release/plyfs", "mount", *flags, "-o", stack(at), at / "mnt")


TARGETS = {
    "plyfs": plyfs,
    "overlayfs": lambda at: run("mount", "-t", "overlay", "overlay", "-o", stack(at), at / "mnt"),
    "fuse-overlayfs": lambda at: run("fuse-overlayfs", "-o", stack(at), at / "mnt"),
}


# The jobs. Each checks its effect outside of the timed part: (job, check).
def create(mnt):
    os.mkdir(mnt / "new")
    for n in range(10_000):
        with open(mnt / "new" / str(n), "wb", buffering=0) as file:
            file.write(b"content\n")


def first_write(mnt):
    file = os.open(mnt / "big", os.O_RDWR)
    os.pwrite(file, b"x" * 4096, 0)
    os.close(file)


def count(path):
    return sum(len(names) for _, _, names in os.walk(path))


JOBS = {
    "find, just mounted": (lambda m: quiet("find", m, "-size", "+1"), None),
    "find, again": (lambda m: quiet("find", m, "-size", "+1"), None),
    "grep -r, 10,000 files": (
        lambda m: subprocess.run(["grep", "-r", "no such text", m / "tree"], check=False),
        None,
    ),
    "create 10,000 files": (create, lambda m: count(m / "new") == 10_000),
    "rm -rf of 10,000 lower files": (
        lambda m: run("rm", "-rf", m / "tree"),
        lambda m: not (m / "tree").exists(),
    ),
    "chmod -R of 10,000 lower files": (
        lambda m: run("chmod", "-R", "go-r", m / "tree"),
        lambda m: (m / "tree/0/0").stat().st_mode & 0o077 == 0,
    ),
    "read 1 GiB": (
        lambda m: run("dd", f"if={m / 'big'}", "of=/dev/null", "bs=1M", "status=none"),
        None,
    ),
    "write 1 GiB": (
        lambda m: run("dd", "if=/dev/zero", f"of={m / 'new'}", "bs=1M", "count=1024", "status=none"),
        lambda m: (m / "new").stat().st_size == GIB,
    ),
    "first 4 KiB into a 1 GiB lower file": (
        first_write,
        lambda m: (m / "big").stat().st_size == GIB
        and (m / "big").open("rb").read(4097) == b"x" * 4096 + b"b",
    ),
}
TWICE = {"find, again"}


def make_lower(at):
    for number in range(DIRS):
        directory = at / "tree" / str(number)
        directory.mkdir(parents=True)
        for file in range(FILES):
            size = 200 << ((number + file) % 8)  # 200 bytes to 25 KiB
            (directory / str(file)).write_bytes(b"some text\n" * (size // 10))
    with open(at / "big", "wb") as file:
        for _ in range(1024):
            file.write(b"b" * (1 << 20))


def measure(at, target, name):
    """One round of one job on one filesystem: seconds."""
    job, check = JOBS[name]
    for directory in ("upper", "work"):
        shutil.rmtree(at / directory, ignore_errors=True)
        (at / directory).mkdir()
    os.sync()
    TARGETS[target](at)
    try:
        if name in TWICE:
            job(at / "mnt")
        start = time.perf_counter()
        job(at / "mnt")
        seconds = time.perf_counter() - start
        if check and not check(at / "mnt"):
            sys.exit(f"bench: {target} did not do its job: {name}")
    finally:
        run("umount", at / "mnt")
    return seconds


def version(target):
    if target == "overlayfs":
        return f"Linux {platform.release()}, mount options at their defaults"
    program = TOP / "target/release/plyfs" if target.startswith("plyfs") else target
    return text(program, "--version").splitlines()[0]


def cell(samples):
    low, mid, high = (1000 * f(samples) for f in (min, statistics.median, max))
    return f"{mid:,.1f} ({low:,.1f} to {high:,.1f})"


def report(results, rounds, at):
    print(f"{rounds} interleaved rounds; median (least to most) in milliseconds; ratio of medians,")
    print("plyfs to the other: below 1 is faster.\n")
    others = [target for target in TARGETS if target != "plyfs"]
    print("| job | " + " | ".join(TARGETS) + " | to " + " | to ".join(others) + " |")
    print("|---" * (len(TARGETS) + len(others) + 1) + "|")
    for name, by_target in results.items():
        median = {target: statistics.median(samples) for target, samples in by_target.items()}
        ratios = [f"{median['plyfs'] / median[t]:.2f}" for t in others]
        print(f"| {name} | " + " | ".join(map(cell, by_target.values())), end=" | ")
        print(" | ".join(ratios), "|")
    load, memory = os.getloadavg()[0], os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    print(f"\nMachine: {os.cpu_count()} CPUs, {memory / GIB:.0f} GiB of memory, Linux", end=" ")
    print(f"{platform.release()}, {text('findmnt', '-no', 'FSTYPE', '-T', at)}; load {load:.1f}.")
    for target in TARGETS:
        print(f"{target}: {version(target)}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default="/var/tmp")
    parser.add_argument("--only", help="substrings of job names, separated by commas")
    parser.add_argument("--drivers", action="store_true", help="also plyfs on the crate fuser")
    parser.add_argument("--json", help="also write every sample to this file")
    arguments = parser.parse_args()
    if arguments.drivers:
        TARGETS["plyfs, driver fuser"] = lambda at: plyfs(at, "--driver=fuser")
    wanted = (arguments.only or "").split(",")
    names = [name for name in JOBS if any(part in name for part in wanted)]
    at = Path(tempfile.mkdtemp(prefix="plyfs-bench.", dir=arguments.dir))
    try:
        for directory in ("lower", "mnt"):
            (at / directory).mkdir()
        make_lower(at / "lower")
        results = {name: {target: [] for target in TARGETS} for name in names}
        for number in range(arguments.rounds):
            turn = number % len(TARGETS)
            for name in names:
                for target in [*TARGETS][turn:] + [*TARGETS][:turn]:
                    results[name][target].append(measure(at, target, name))
                    print(f"round {number + 1}: {name}: {target}", file=sys.stderr)
        report(results, arguments.rounds, at)
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(results, indent=1))
    finally:
        shutil.rmtree(at)


if __name__ == "__main__":
    main()
