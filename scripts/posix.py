#!/usr/bin/env python3
"""Other people's file system suites on plyfs and on the plain ext4 directory below it.

As root: scripts/posix.py SUITE [--fs ext4,plyfs,overlayfs,fuse-overlayfs] [--only WORD] [--dir DIR]
[--user]: with it, plyfs and the suite belong to a user without privileges.
SUITE is pjdfstest, fsx, stress or fio. What fails on plyfs and passes on ext4 is a failure of ours;
the exit status is 1 then, unless KNOWN says what forces it. Every run has an ext4 of its own in a
file of DIR (default /var/tmp); the test directory comes from the lower layer wherever files can.
PLYFS is the binary (default target/release/plyfs), PLYFS_MOUNT_FLAGS are more words for its mount.
"""

import argparse
import errno
import hashlib
import mmap
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
PLYFS = os.environ.get("PLYFS", TOP / "target/release/plyfs")
FLAGS = shlex.split(os.environ.get("PLYFS_MOUNT_FLAGS", ""))
IMAGE = 6 << 30

# Words before the commands of a user without privileges; none unless --user.
AS = []
NOBODY = 65534

# (suite, test): what forces it. Read docs/TESTING.md before adding a line.
KNOWN = {
    ("stress", "fiemap"): "FUSE has no FIEMAP: fs/ioctl.c, ioctl_fiemap() finds no i_op->fiemap",
}


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


def as_user(function, *arguments):
    """What it returns, a string, when the user for whom the mount is calls it: root may not look
    into that."""
    if not AS:
        return function(*arguments)
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            AS.clear()
            said = function(*arguments)
        except BaseException as error:
            said = f"failed: {error!r}"
        os.write(there, said.encode()[:4000])
        os._exit(0)
    os.close(there)
    with open(here) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def available(command, at):
    """A copy of a program where everybody may run it."""
    return shutil.copy(shutil.which(command), at)


def attempt(limit, *command, cwd="/", env=None):
    """Status and output of a command that is killed, with its children, after `limit` seconds."""
    words = [*AS, *(str(word) for word in command)]
    process = subprocess.Popen(words, cwd=cwd, env=env, text=True, errors="replace",
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
    try:
        said, _ = process.communicate(timeout=limit)
        return process.returncode, said
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        try:
            said, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            said = "does not even die\n"
        return "hangs", said


def digest(directory):
    """Of all names, modes, sizes, times and contents below it."""
    whole = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        stat = path.lstat()
        whole.update(f"{path} {stat.st_mode} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        if path.is_file():
            whole.update(path.read_bytes())
    return whole.digest()


class Stand:
    """A file system to be tested, on a fresh ext4: `at` is its root, `second` another one."""

    def __init__(self, kind, base, fill):
        self.kind, self.base, self.mounted = kind, Path(tempfile.mkdtemp(prefix="p", dir=base)), []
        self.disk, self.second = self.base / "disk", self.base / "second"
        self.fill = fill

    def mount(self, target, *command):
        target.is_dir() or target.exists() or target.mkdir()
        run(*command)
        self.mounted.append(target)

    def __enter__(self):
        try:
            self.base.chmod(0o755) # other users are to get in
            return self.set_up()
        except BaseException:
            self.__exit__()
            raise

    def set_up(self):
        image = self.base / "image"
        with open(image, "wb") as file:
            file.truncate(IMAGE)
        run("mkfs.ext4", "-q", "-F", image)
        self.mount(self.disk, "mount", "-o", "loop", image, self.disk)
        self.mount(self.second, "mount", "-t", "tmpfs", "tmpfs", self.second)
        if AS:
            # One that everybody may open, as on most machines; seen by us alone (see main).
            os.mknod(self.second / "fuse", 0o020666, os.makedev(10, 229))
            (self.second / "fuse").chmod(0o666)
            self.mount(Path("/dev/fuse"), "mount", "--bind", self.second / "fuse", "/dev/fuse")
        for name in ("lower", "upper", "work"):
            (self.disk / name).mkdir()
        self.fill(self.disk / "lower")
        stack = "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work".format(self.disk)
        self.at = self.base / "mnt"
        self.at.mkdir()
        if AS:
            run("chown", "--recursive", f"{NOBODY}:{NOBODY}", self.base)
        self.was = digest(self.disk / "lower") if self.kind != "ext4" else None
        if self.kind == "ext4":
            self.at = self.disk / "lower"
        elif self.kind == "plyfs":
            program = available(PLYFS, self.base)
            self.mount(self.at, *AS, program, "mount", *FLAGS, "-o", stack, self.at)
        elif self.kind == "overlayfs":
            stack += ",redirect_dir=on,index=on,metacopy=on,xino=on"
            self.mount(self.at, "mount", "-t", "overlay", "overlay", "-o", stack, self.at)
        elif self.kind == "fuse-overlayfs":
            self.mount(self.at, "fuse-overlayfs", "-o", stack, self.at)
        else:
            sys.exit(f"posix.py: there is no file system {self.kind}")
        return self

    def __exit__(self, *_):
        for target in reversed(self.mounted):
            if subprocess.run(["umount", target], stderr=subprocess.DEVNULL).returncode != 0:
                subprocess.run(["umount", "--lazy", target])
        shutil.rmtree(self.base, ignore_errors=True)

    def untouched(self):
        """Whether nothing was written to the lower layer."""
        return not self.was or digest(self.disk / "lower") == self.was

    def left_over(self):
        """What lies in the work directory, but for directories, links and marks of what lives."""
        for _ in range(20): # what is closed last is removed after that
            left = [str(path) for path in (self.disk / "work").rglob("*")
                    if not path.is_dir() and path.relative_to(self.disk / "work").parts[0]
                    not in ("index", "plyfs")]
            if not left:
                break
            time.sleep(0.1)
        return left

    def alive(self):
        """Whether the file system still answers."""
        return attempt(30, "stat", "-f", self.at)[0] == 0


def tree(lower):
    """What is in the lower layer of suites that make their own files: directories to work in."""
    (lower / "dir/sub").mkdir(parents=True)
    (lower / "dir/file").write_bytes(b"lower\n")
    (lower / "dir").chmod(0o777)


# pjdfstest: one test, one answer.
PJDFSTEST = """
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
allow_remount = REMOUNT
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
"""


def pjdfstest(kind, options):
    with Stand(kind, options.dir, tree) as stand:
        # A remount is the kernel's: mount(8) would look for a program that mounts a fuse.plyfs.
        (stand.base / "bin").mkdir()
        (stand.base / "bin/mount").write_text(f'#!/bin/sh\nexec {shutil.which("mount")} -i "$@"\n')
        (stand.base / "bin/mount").chmod(0o755)
        # Those that remount by themselves: what others left open for writing would be in the way.
        results = pjdfstest_run(stand, "false", *filter(None, [options.only]))
        results.update(pjdfstest_run(stand, "true", "erofs"))
        if results.get("link::link_count_max", "") is None:
            # It takes the limit from pathconf(3), which knows it by the name of a file system.
            results["link::link_count_max"] = as_user(link_count_max, stand.at / "dir")
        results["the lower layer"] = "" if stand.untouched() else "failed: was changed"
        return {name: why for name, why in results.items() if (options.only or "") in name}


def link_count_max(at, limit=65000):
    (at / "links").mkdir()
    (at / "links/0").write_bytes(b"")
    for n in range(1, limit):
        os.link(at / "links/0", at / f"links/{n}")
    try:
        os.link(at / "links/0", at / f"links/{limit}")
    except OSError as error:
        return "" if error.errno == errno.EMLINK else f"failed: {error}"
    return f"failed: {limit + 1} links on ext4"


def pjdfstest_run(stand, remount, *patterns):
    config = stand.base / "config.toml"
    config.write_text(PJDFSTEST.replace("REMOUNT", remount))
    command = [available("pjdfstest", stand.base), "-c", config, "-p", stand.at / "dir", "-s", stand.second, *patterns]
    status, said = attempt(3600, *command, env={
        **os.environ, "PATH": f"{stand.base}/bin:{os.environ['PATH']}",
        "NO_COLOR": "1", "RUST_BACKTRACE": "0"})
    results, name = {}, None
    for line in said.splitlines():
        found = re.fullmatch(r"(\S+)\s+(ok|FAILED|skipped)", line)
        if found:
            name = found[1]
            results[name] = {"ok": "", "skipped": None}.get(found[2], "failed:")
        elif name and results[name] and not line.startswith("Summary"):
            results[name] += " " + line.strip()
    if "Summary" not in said:
        results["pjdfstest itself"] = f"failed: {status}: {said[-300:]}"
    return results


# fsx: random reads, writes, mappings, truncations of one file, each read checked.
WEIGHTS = """
[weights]
close_open = CLOSE
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = SIZE
fsync = 0.2
fdatasync = 0.2
posix_fallocate = SIZE
punch_hole = 2
sendfile = 2
posix_fadvise = 1
copy_file_range = 2
"""
SEEDS = [int(seed) for seed in os.environ.get("PLYFS_FSX_SEEDS", "1 2").split()]
FLEN = 1 << 20


def fsx_lower(lower):
    tree(lower)
    for seed in SEEDS:
        for name in ("truncated", "rewritten", "link"):
            (lower / f"{name}-{seed}").write_bytes(random.Random(seed).randbytes(FLEN))
        os.link(lower / f"link-{seed}", lower / f"other-{seed}")


def fsx(kind, options):
    steps = os.environ.get("PLYFS_FSX_STEPS", "10000")
    results = {}
    with Stand(kind, options.dir, fsx_lower) as stand:
        free = stand.base / "free.toml"
        head = f"flen = {FLEN}\n"
        free.write_text(head + WEIGHTS.replace("CLOSE", "2").replace("SIZE", "3"))
        block = stand.base / "block.toml"
        block.write_text(head + "blockmode = true\n"
                         + WEIGHTS.replace("CLOSE", "0").replace("SIZE", "0"))
        for seed in SEEDS:
            for name, config in (("new", free), ("truncated", free), ("rewritten", block),
                                 ("link", block)):
                results[f"{name}, seed {seed}"] = as_user(
                    fsx_one, stand, stand.at / f"{name}-{seed}",
                    [available("fsx", stand.base), "-f", config, "-N", steps, "-S", seed])
        results["the lower layer"] = "" if stand.untouched() else "failed: was changed"
    return {name: why for name, why in results.items() if (options.only or "") in name}


def fsx_one(stand, path, arguments):
    """Runs it while the file is held open and mapped from before its copy-up: both must follow."""
    held = view = None
    if path.exists():
        held = open(path, "rb")
        view = mmap.mmap(held.fileno(), FLEN, access=mmap.ACCESS_READ)
        assert len(view[:]) == FLEN
    status, said = attempt(1800, *arguments, "-P", stand.base, path)
    if status != 0:
        told = [line for line in said.splitlines() if re.search("rror:|panicked|expected", line)]
        return f"failed: {status}: {' | '.join(told or [said[:300]])}"
    if held:
        now = path.read_bytes()
        if os.pread(held.fileno(), FLEN, 0) != now:
            return "failed: who opened it before reads something else"
        # A mapping past the end of a file that was truncated must not be touched.
        if len(now) == FLEN and view[:] != now:
            return "failed: who mapped it before sees something else"
        if "link" in path.name:
            other = path.with_name(path.name.replace("link", "other"))
            if other.read_bytes() != now or other.stat().st_nlink != 2:
                return "failed: the other name of it is another file"
    return ""


# stress-ng: every stressor of the class by itself, two instances, and then one of each together.
# bind-mount works on the root, and stress-ng itself says that it may hang the machine; binderfs
# brings a file system of its own.
ELSEWHERE = ["bind-mount", "binderfs"]


def stress(kind, options):
    seconds = int(os.environ.get("PLYFS_STRESS_SECONDS", "5"))
    listed = attempt(30, "stress-ng", "--class", "filesystem?")[1].split(":", 1)[1].split()
    jobs = {name: ([f"--{name}", "2"], seconds) for name in listed if name not in ELSEWHERE}
    together = ["--class", "filesystem", "--all", "1", "--exclude", ",".join(ELSEWHERE)]
    jobs["all at once"] = (together, 12 * seconds)
    results = {}
    for name, (words, limit) in jobs.items():
        if not options.only or name in options.only.split(","):
            results[name] = stress_one(kind, options, words, limit)
            if options.verbose:
                print(f"  {name}: {results[name]}", flush=True)
    return results


def stress_one(kind, options, words, seconds):
    with Stand(kind, options.dir, tree) as stand:
        status, said = attempt(seconds + 120, "stress-ng", *words, "--verify", "--metrics-brief",
                               "--timeout", f"{seconds}s", "--temp-path", stand.at / "dir")
        if not stand.alive():
            return "failed: the mount is gone"
        if kind == "plyfs" and (left := stand.left_over()):
            return f"failed: left in the work directory: {left[:5]}"
        if not stand.untouched():
            return "failed: the lower layer was changed"
        # A stressor that finds out that it cannot run says so, but ends well.
        did = re.search(r"metrc: \[\d+\] \S+ +[1-9]\d* +\d+\.", said)
        if status in (3, 4) or (status == 0 and not did):
            return None
        lines = [line for line in said.splitlines() if re.search(r"fail|error", line)]
        return "" if status == 0 else f"failed: {status} {' | '.join(lines)[:600]}"


# fio: what is written is read back and checked, by each engine, on files of both layers.
FIO = {
    "lower, only read": ["--filename=written", "--rw=read", "--bs=4k"],
    "lower, rewritten": ["--filename=old1", "--rw=randwrite", "--ioengine=psync", "--bs=4k"],
    "lower, rewritten by mmap": ["--filename=old2", "--rw=randwrite", "--ioengine=mmap", "--bs=4k"],
    "lower, rewritten directly": ["--filename=old3", "--rw=randwrite", "--ioengine=libaio",
                                  "--direct=1", "--iodepth=16", "--bs=4k"],
    "new, odd sizes": ["--rw=randwrite", "--ioengine=sync", "--bsrange=512-128k",
                       "--bs_unaligned"],
    "new, four writers": ["--rw=randrw", "--ioengine=pvsync2", "--numjobs=4", "--bs=16k",
                          "--verify_backlog=64"],
    "new, one file, four writers": ["--filename=shared", "--rw=write", "--ioengine=psync",
                                    "--numjobs=4", "--offset_increment=32m", "--size=32m",
                                    "--bs=64k"],
    "new, mmap": ["--rw=randwrite", "--ioengine=mmap", "--bs=4k"],
    "new, direct": ["--rw=randwrite", "--ioengine=libaio", "--direct=1", "--iodepth=32",
                    "--bs=8k"],
    "new, io_uring": ["--rw=randwrite", "--ioengine=io_uring", "--iodepth=32", "--bs=4k"],
    "new, posix aio": ["--rw=randwrite", "--ioengine=posixaio", "--iodepth=16", "--bs=4k"],
    "new, fsync each 16": ["--rw=randwrite", "--ioengine=psync", "--fsync=16", "--bs=4k",
                           "--size=8m"],
    "new, no fallocate": ["--rw=randwrite", "--ioengine=psync", "--fallocate=none", "--bs=4k"],
    "new, 64 files": ["--rw=randwrite", "--ioengine=psync", "--nrfiles=64", "--bs=4k"],
    "new, splice": ["--rw=write", "--ioengine=splice", "--bs=64k"],
}


def fio_words(at, arguments):
    """The directory counts for a --filename after it only."""
    return ["fio", "--name=job", f"--directory={at}", "--size=32m", "--verify=crc32c",
            "--verify_fatal=1", "--verify_state_save=0", "--group_reporting", "--minimal",
            *arguments]


def fio_lower(lower):
    tree(lower)
    make = ["--filename=written", "--rw=write", "--bs=4k", "--do_verify=0"]
    run(*fio_words(lower, make), stdout=subprocess.DEVNULL)
    for name in ("old1", "old2", "old3"):
        (lower / name).write_bytes(os.urandom(32 << 20))


def fio(kind, options):
    results = {}
    with Stand(kind, options.dir, fio_lower) as stand:
        for name, arguments in FIO.items():
            if (options.only or "") in name:
                at = stand.at if "--filename=" in arguments[0] else stand.at / "dir"
                status, said = attempt(900, *fio_words(at, arguments), cwd=stand.base)
                lines = [line for line in said.splitlines() if not line.startswith("3;")]
                results[name] = "" if status == 0 else f"failed: {status} {' '.join(lines)[:600]}"
        results["the lower layer"] = "" if stand.untouched() else "failed: was changed"
        if not stand.alive():
            results["the end"] = "failed: the mount is gone"
    return results


SUITES = {"pjdfstest": pjdfstest, "fsx": fsx, "stress": stress, "fio": fio}


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--fs", default="ext4,plyfs")
    parser.add_argument("--only")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--dir", type=Path, default="/var/tmp")
    parser.add_argument("--user", action="store_true")
    options = parser.parse_args()
    if options.user:
        if not os.environ.get("PLYFS_OWN_NAMESPACE"):
            os.environ["PLYFS_OWN_NAMESPACE"] = "1"
            os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])
        AS.extend(["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)) # by way of the unmounting
    base, bad = None, 0
    for kind in options.fs.split(","):
        results = SUITES[options.suite](kind, options)
        base = base or results
        failed = {name for name, why in results.items() if why}
        skipped = sum(why is None for why in results.values())
        beyond = {name for name in failed if base.get(name) == ""}
        lost = {name for name in base if base[name] == "" and results.get(name, None) is None}
        print(f"{options.suite} on {kind}: {len(results)} tests, {len(failed)} failed, {skipped} "
              f"skipped; {len(beyond | lost)} beyond {options.fs.split(',')[0]}", flush=True)
        for name in sorted(failed | lost)[:100]:
            known = KNOWN.get((options.suite, name))
            note = "" if name in beyond | lost else " (there too)"
            print(f"  {name}{note}: {known or (results.get(name) or 'not run')[:300]}", flush=True)
            bad += kind == "plyfs" and name in beyond | lost and not known
    sys.exit(min(bad, 1))


if __name__ == "__main__":
    main()
