#!/usr/bin/env python3
"""The power goes at any moment while programs change, sync and rename files through a mount.

As root: scripts/powercut.py [--fs ext4,xfs] [--on plyfs,plain,volatile] [--rounds N]
[--seconds N] [--cuts N] [--seed N] [--dir DIR (/dev/shm)]. PLYFS is the binary
(target/release/plyfs).

Layers, upper and work lie on a file system whose disk is recorded (scripts/recorder.py). Programs
write down what they do, and where the recording stands before and after each call. Then for many
moments a disk is made as a power cut would leave it; it is mounted, plyfs on it, and looked at:

* names, types, modes, attributes, links are those after some number of a program's calls: each
  call is wholly there or not at all, and all that were before the last object that was synced;
* of a file, what was there when it was synced last (or in the lower layer, or nothing), or any
  part of what was written since;
* the work directory is empty, the lower layer as it was; the mount takes changes.

`plain` is the same in a plain directory: the rules are not stricter than the file system. On
`volatile` plyfs must refuse the upper; with its mark removed something must be missing, or the
suite could not find anything. It cannot show what a disk does that loses flushed data.
"""

import argparse
import ctypes
import errno
import hashlib
import mmap
import multiprocessing
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from recorder import Player, recorded

TOP = Path(__file__).resolve().parent.parent
PLYFS = os.environ.get("PLYFS", TOP / "target/release/plyfs")
LIBC = ctypes.CDLL(None, use_errno=True)
NEVER = 1 << 62
PROGRAMS = 3
NAMES = ["a", "b", "c", "l1", "l2", "d", "d/a", "d/b", "d/sub", "d/sub/x", "e", "e/a", "e/f", "n"]
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F", "-O", "^orphan_file"], "xfs": ["mkfs.xfs", "-q"],
        "btrfs": ["mkfs.btrfs", "-q"]}
SIZE = {"ext4": 96 << 20, "xfs": 320 << 20, "btrfs": 256 << 20}


def run(*command):
    subprocess.run([str(word) for word in command], check=True)


class Node:
    """An object of the model. `stable` is the content that must not be less; `later` what may have
    become of it, as (offset, data, size); `touched` the last call that changed a name or an
    attribute, `born` its lower path or the call that made it, `floor` the least size since it was
    synced: beyond, anything may be zero."""

    def __init__(self, kind, mode, stable=b"", target="", born=None):
        self.kind, self.mode, self.target, self.born = kind, mode, target, born
        self.stable, self.content, self.later = stable, bytearray(stable), []
        self.attr, self.names, self.touched, self.floor = None, 1, -1, len(stable)

    def change(self, offset, data):
        self.content[offset:offset + len(data)] = data
        self.later.append((offset, data, len(self.content)))
        self.floor = min(self.floor, len(self.content))

    def synced(self):
        self.stable, self.later, self.floor = bytes(self.content), [], len(self.content)

    def synced_range(self, offset, data):
        """O_DSYNC and msync say nothing of the rest."""
        end = offset + len(data)
        self.stable = self.stable[:end].ljust(end, b"\0") + self.stable[end:]
        self.stable = self.stable[:offset] + data + self.stable[end:]
        older, self.later = self.later, []
        for at, what, size in older:
            size = max(size, end)
            self.later.append((at, what[:max(0, offset - at)], size))
            if at + len(what) > end:
                cut = max(0, end - at)
                self.later.append((at + cut, what[cut:], size))


def lower_tree(seed):
    """path -> Node, as the lower layer of a program has it."""
    rng = random.Random(seed)
    tree = {"": Node("dir", 0o755), "d": Node("dir", 0o755), "d/sub": Node("dir", 0o750),
            "e": Node("dir", 0o700), "s": Node("link", 0o777, target="d/a")}
    for path in ("a", "b", "l1", "d/a", "d/b", "d/sub/x", "e/f"):
        tree[path] = Node("file", 0o644, rng.randbytes(rng.randrange(1, 20000)))
    for path, node in tree.items():
        node.born = path
    tree["l2"] = tree["l1"]
    tree["l1"].names = 2
    return tree


class Model:
    """What one program's calls make of its directory."""

    def __init__(self, seed, cut=NEVER):
        self.tree, self.cut, self.durable = lower_tree(seed), cut, -1
        self.first = dict(self.tree)
        self.born = {node.born: node for node in self.tree.values()}

    def shown(self):
        """Equal texts, equal trees; contents are not in it."""
        first, out = {}, {}
        for path in sorted(self.tree):
            node = self.tree[path]
            link = first.setdefault(node, path)
            out[path] = (node.kind, node.mode, node.attr, node.target,
                         (link, node.names) if node.kind == "file" else None)
        return out

    def make(self, index, path, *what):
        self.tree[path] = self.born[index] = Node(*what, born=index)
        self.touch(index, path)

    def touch(self, index, *paths):
        for path in paths:
            self.tree[path].touched = index
            self.tree[os.path.dirname(path)].touched = index

    def sync(self, index, node, end, metadata=True):
        if end > self.cut:
            return  # nobody was told that it was done
        if metadata:
            self.durable = max(self.durable, node.touched)
        node.synced()

    def apply(self, index, call, end):
        what, *words = call
        getattr(self, "do_" + what)(index, end, *words)

    def do_create(self, index, end, path, mode):
        self.make(index, path, "file", mode)

    def do_mkdir(self, index, end, path):
        self.make(index, path, "dir", 0o755)

    def do_symlink(self, index, end, path, target):
        self.make(index, path, "link", 0o777, b"", target)

    def do_write(self, index, end, path, offset, data):
        node = self.tree[path]
        node.content.extend(bytes(max(0, offset - len(node.content))))
        node.change(offset, data)

    def do_dsync(self, index, end, path, offset, data):
        self.do_write(index, end, path, offset, data)
        if end <= self.cut:
            self.tree[path].synced_range(offset, data)

    do_mapped = do_dsync

    def do_truncate(self, index, end, path, size):
        node = self.tree[path]
        del node.content[size:]
        node.content.extend(bytes(size - len(node.content)))
        node.change(size, b"")

    def do_chmod(self, index, end, path, mode):
        self.tree[path].mode = mode
        self.tree[path].touched = index

    def do_setxattr(self, index, end, path, value):
        self.tree[path].attr = value
        self.tree[path].touched = index

    def do_link(self, index, end, path, other):
        self.tree[other] = self.tree[path]
        self.tree[path].names += 1
        self.touch(index, other)

    def do_unlink(self, index, end, path):
        self.touch(index, path)
        self.tree.pop(path).names -= 1

    do_rmdir = do_unlink

    def do_rename(self, index, end, path, other, flags):
        moved, gone = self.tree[path], self.tree.get(other)
        if moved is gone:
            return
        self.touch(index, path)
        under = lambda top: {p[len(top):]: self.tree.pop(p) for p in list(self.tree)
                             if p == top or p.startswith(top + "/")}
        one, two = under(path), under(other)
        for rest, node in one.items():
            self.tree[other + rest] = node
        if flags & 2:
            for rest, node in two.items():
                self.tree[path + rest] = node
            self.touch(index, path)
        elif gone:
            gone.names -= 1
        self.touch(index, other)

    def do_fsync(self, index, end, path):
        self.sync(index, self.tree[path], end)

    def do_fdatasync(self, index, end, path):
        self.sync(index, self.tree[path], end, False)

    def do_held(self, index, end, path):
        """fsync by a descriptor from before everything, for reading only."""
        self.sync(index, self.first[path], end)

    def do_umount(self, index, end):
        if end <= self.cut:
            self.durable = index
            for node in {*self.tree.values()}:
                node.synced()


def choose(rng):
    """The next calls: a few that belong together, or one at random."""
    one, other = rng.choice(NAMES), rng.choice(NAMES)
    data = rng.randbytes(rng.choice((1, 100, 4096, 9000)))
    if rng.random() < 0.1:  # how an editor saves
        return [("create", "n", 0o640), ("write", "n", 0, data), ("fsync", "n"),
                ("rename", "n", one, 0)]
    calls = [("create", one, 0o600 | rng.randrange(64)), ("write", one, rng.randrange(9000), data),
             ("write", one, rng.randrange(9000), data), ("truncate", one, rng.randrange(30000)),
             ("chmod", one, 0o600 | rng.randrange(64)),
             ("setxattr", one, b"%d" % rng.randrange(99)),
             ("mkdir", one), ("symlink", one, other), ("link", one, other), ("unlink", one),
             ("rmdir", one), ("rename", one, other, rng.choice((0, 0, 1, 2))),
             ("rename", one, other, 0), ("dsync", one, rng.randrange(9000), data),
             ("mapped", one, rng.randrange(5000), data)]
    sync = [("fsync", one), ("fsync", os.path.dirname(one)), ("fdatasync", one),
            ("held", rng.choice(("", "a", "l1", "d", "d/sub/x")))]
    return [rng.choice(calls if rng.random() < 0.85 else sync)]


class Program:
    """Does calls in its directory and writes down what it did."""

    def __init__(self, at, number, seed, position, done):
        self.at, self.position, self.done = at / f"w{number}", position, done
        self.rng = random.Random(seed)
        self.model = Model(number)
        for index, (_, end, call) in enumerate(done):
            self.model.apply(index, call, end)
        self.held = {}
        names = {node: path for path, node in self.model.tree.items()}
        for path in ("", "a", "l1", "d", "d/sub/x"):
            now = names.get(self.model.first[path])
            if now is not None:
                self.held[path] = os.open(self.at / now, os.O_RDONLY)

    def work(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for call in choose(self.rng):
                if not self.call(call):
                    break

    def call(self, call):
        what, *words = call
        for path in words[:2 if what in ("link", "rename") else 1]:
            above = self.model.tree.get(os.path.dirname(path))
            if above is None or above.kind != "dir":
                return False  # or by way of a symbolic link
        begin = self.position()
        try:
            getattr(self, "do_" + what)(*words)
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) in (errno.EIO, errno.ESTALE, errno.ENOTCONN):
                raise
            return False
        self.done.append((begin, self.position(), call))
        # Its own bookkeeping must be right, or nothing means anything.
        self.model.apply(len(self.done) - 1, call, 0)
        return True

    def path(self, path, kind="file"):
        """A file, never by way of a symbolic link."""
        mode = os.lstat(self.at / path).st_mode
        if kind == "file" and not stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            raise ValueError
        return self.at / path

    def opened(self, path, flags, act, kind="file"):
        fd = os.open(self.path(path, kind), flags | os.O_NOFOLLOW)
        try:
            act(fd)
        finally:
            os.close(fd)

    def do_create(self, path, mode):
        os.close(os.open(self.at / path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))

    def do_mkdir(self, path):
        os.mkdir(self.at / path, 0o755)

    def do_symlink(self, path, target):
        os.symlink(target, self.at / path)

    def do_write(self, path, offset, data):
        self.opened(path, os.O_WRONLY, lambda fd: os.pwrite(fd, data, offset))

    def do_dsync(self, path, offset, data):
        self.opened(path, os.O_WRONLY | os.O_DSYNC, lambda fd: os.pwrite(fd, data, offset))

    def do_mapped(self, path, offset, data):
        def act(fd):
            size = os.fstat(fd).st_size
            if offset + len(data) > size:
                raise ValueError
            with mmap.mmap(fd, size) as view:
                view[offset:offset + len(data)] = data
                view.flush()
        self.opened(path, os.O_RDWR, act)

    def do_truncate(self, path, size):
        self.opened(path, os.O_WRONLY, lambda fd: os.ftruncate(fd, size))

    def do_chmod(self, path, mode):
        os.chmod(self.path(path), mode)

    def do_setxattr(self, path, value):
        os.setxattr(self.path(path, "any"), "user.x", value)

    def do_link(self, path, other):
        os.link(self.path(path), self.at / other)

    def do_unlink(self, path):
        os.unlink(self.at / path)

    def do_rmdir(self, path):
        os.rmdir(self.at / path)

    def do_rename(self, path, other, flags):
        names = os.fsencode(self.at / path), os.fsencode(self.at / other)
        if LIBC.renameat2(-100, names[0], -100, names[1], flags) != 0:
            raise OSError(ctypes.get_errno(), "rename")

    def do_fsync(self, path):
        self.opened(path, os.O_RDONLY, os.fsync, "any")

    def do_fdatasync(self, path):
        self.opened(path, os.O_RDONLY, os.fdatasync)

    def do_held(self, path):
        if path not in self.held:
            raise ValueError
        os.fsync(self.held[path])


def child(pipe, *arguments):
    os.umask(0)
    program = Program(*arguments[:-1])
    try:
        program.work(arguments[-1])
        pipe.send(program.done)
    except BaseException as error:
        pipe.send(f"{type(error).__name__}: {error}")
        raise


def seen(at):
    """As Model.shown, of a directory; and the contents of files."""
    out, contents, first = {}, {}, {}
    paths = [""]
    for top, dirs, files in os.walk(at):
        paths += [os.path.relpath(os.path.join(top, name), at) for name in dirs + files]
    for path in sorted(paths):
        whole = os.path.join(at, path) if path else str(at)
        got = os.lstat(whole)
        kinds = {stat.S_IFDIR: "dir", stat.S_IFREG: "file", stat.S_IFLNK: "link"}
        kind = kinds[stat.S_IFMT(got.st_mode)]
        link = first.setdefault(got.st_ino, path)
        attr = None
        if kind != "link" and "user.x" in os.listxattr(whole):
            attr = os.getxattr(whole, "user.x")
        out[path] = (kind, stat.S_IMODE(got.st_mode), attr,
                     os.readlink(whole) if kind == "link" else "",
                     (link, got.st_nlink) if kind == "file" else None)
        if kind == "file":
            contents[path] = Path(whole).read_bytes()
    return out, contents


def wrong_content(node, got):
    """Why this cannot be what a cut left of the file, if it cannot."""
    sizes = [len(node.stable), *(size for _, _, size in node.later)]
    if not min(sizes) <= len(got) <= max(sizes):
        return f"{len(got)} bytes, not {min(sizes)} to {max(sizes)}"
    good = bytearray(len(got))
    for at in range(0, len(got), 512):
        if got[at:at + 512] == node.stable[at:at + 512]:
            good[at:at + 512] = b"\1" * len(got[at:at + 512])
    for at in range(len(got)):
        if not good[at] and at < len(node.stable) and got[at] == node.stable[at]:
            good[at] = 1
        if got[at] == 0 and at >= node.floor:
            good[at] = 1
    for offset, data, _ in node.later:
        for at in range(offset, min(offset + len(data), len(got))):
            if got[at] == data[at - offset]:
                good[at] = 1
    if 0 in good:
        at = good.index(0)
        return (f"{good.count(0)} bytes that nobody wrote, first {got[at:at + 8].hex()} at {at}; "
                f"{len(got)} bytes, {len(node.stable)} synced, later "
                f"{[(at, len(data), size) for at, data, size in node.later]}")
    return None


def replay(number, begun, cut):
    """The model before the first and after each of the calls."""
    model = Model(number, cut)
    yield -1, model
    for index, (_, end, call) in enumerate(begun):
        model.apply(index, call, end)
        yield index, model


def wrong(at, number, done, cut):
    """What is wrong with a program's directory after the cut, if anything is."""
    begun = [entry for entry in done if entry[0] <= cut]
    *_, (_, full) = replay(number, begun, cut)
    try:
        tree, contents = seen(at)
    except OSError as error:
        return f"cannot be read: {error}"
    why, durable = None, None
    for index, model in replay(number, begun, cut):
        shown = model.shown() if index >= full.durable else None
        durable = durable or shown
        if shown and shown == tree:
            whys = [(path, wrong_content(full.born[model.tree[path].born], content))
                    for path, content in contents.items()]
            why = [f"{path}: {why}" for path, why in whys if why]
            if not why:
                return None
    if why:
        return "\n".join(why)
    lines = [f"  - {path} {durable.get(path)}\n  + {path} {tree.get(path)}"
             for path in sorted({*durable, *tree}) if durable.get(path) != tree.get(path)]
    calls = [f"  {entry[:2]} {str(entry[2])[:60]}" for entry in begun[max(full.durable, 0):][:30]]
    return "\n".join(["no state that there was; against the last one that was synced:", *lines,
                      "calls from there:", *calls])


class Trial:
    """One recording on one file system."""

    def __init__(self, options, fs, kind, base):
        self.fs, self.kind, self.base, self.options = fs, kind, base, options
        self.image, self.disk = base / "image", base / "at"
        self.disk.mkdir()
        self.mnt = base / "mnt"
        self.mnt.mkdir()
        self.dones = [[] for _ in range(PROGRAMS)]

    def mounted(self, device, act):
        more = ["-o", "nouuid"] if self.fs == "xfs" else []
        run("mount", *more, device, self.disk)
        try:
            return act()
        finally:
            run("umount", self.disk)

    def prepare(self):
        with open(self.image, "wb") as file:
            file.truncate(SIZE[self.fs])
        run(*MAKE[self.fs], self.image)
        self.mounted(self.image, self.fill)

    def fill(self):
        for name in ("lower", "upper", "work"):
            (self.disk / name).mkdir()
        for number in range(PROGRAMS):
            top, firsts = self.disk / f"lower/w{number}", {}
            for path, node in lower_tree(number).items():
                at = top / path
                if node in firsts:
                    os.link(firsts[node], at)
                elif node.kind == "dir":
                    at.mkdir()
                elif node.kind == "link":
                    at.symlink_to(node.target)
                else:
                    at.write_bytes(node.stable)
                firsts[node] = at
                if node.kind != "link":
                    at.chmod(node.mode)
        run("cp", "-a", self.disk / "lower", self.disk / "plain")
        self.lower = self.digest()

    def digest(self):
        whole = hashlib.sha256()
        for path in sorted((self.disk / "lower").rglob("*")):
            got = path.lstat()
            whole.update(f"{path.name} {got.st_mode} {got.st_size} {got.st_mtime_ns}".encode())
            if stat.S_ISREG(got.st_mode):
                whole.update(path.read_bytes())
        return whole.digest()

    def mount(self):
        """Where the programs work."""
        stack = "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work".format(self.disk)
        if self.kind == "plain":
            return self.disk / "plain"
        if self.kind == "overlayfs":
            stack += ",redirect_dir=on,index=on,metacopy=on"
            run("mount", "-t", "overlay", "overlay", "-o", stack, self.mnt)
        else:
            stack += ",volatile" * (self.kind == "volatile")
            run(PLYFS, "mount", "-o", stack, self.mnt)
        return self.mnt

    def umount(self):
        if self.kind == "plain":
            run("sync", "--file-system", self.disk)
        elif self.kind == "overlayfs":
            run("umount", self.mnt)
        else:
            run(PLYFS, "umount", self.mnt)

    def record(self):
        """Lets the programs work, and plyfs be unmounted now and then."""
        with recorded(self.base, self.image) as disk:
            self.mounted(disk.device, lambda: self.rounds(disk))

    def rounds(self, disk):
        self.start = disk.position()
        for turn in range(self.options.rounds):
            at = self.mount()
            try:
                self.one_round(at, disk, turn)
            finally:
                begin = disk.position()
                self.umount()
                for done in self.dones:
                    done.append((begin, disk.position(), ("umount",)))
        self.end = disk.position()

    def one_round(self, at, disk, turn):
        children = []
        for number in range(PROGRAMS):
            here, there = multiprocessing.Pipe(False)
            seed = (self.options.seed * 100 + turn) * 10 + number
            arguments = (at, number, seed, disk.position, self.dones[number], self.options.seconds)
            process = multiprocessing.Process(target=child, args=(there, *arguments))
            process.start()
            there.close()
            children.append((process, here))
        for number, (process, here) in enumerate(children):
            done = here.recv()
            process.join()
            if isinstance(done, str):
                raise RuntimeError(f"program {number}: {done}")
            self.dones[number] = done

    def cuts(self):
        """Half of them at any time, half of them right after something was synced; and those right
        after plyfs was unmounted."""
        rng = random.Random(self.options.seed)
        acknowledged = [end for done in self.dones for _, end, call in done
                        if call[0] in ("fsync", "fdatasync", "held", "dsync", "mapped", "umount")]
        anywhere = range(self.start, self.end + 1)
        ends = [end for _, end, call in self.dones[0] if call[0] == "umount"]
        yield from ((end, 0) for end in ends)
        for _ in range(self.options.cuts - len(ends)):
            when = rng.choice(rng.choice((anywhere, acknowledged)))
            yield when, rng.choice((0, 0, .2, .5, .9, 1))

    def check(self, cut):
        """What is wrong with the disk in the file `scratch`."""
        return self.mounted(self.base / "scratch", lambda: self.look(cut))

    def look(self, cut):
        if self.digest() != self.lower:
            return "the lower layer was changed"
        marked = self.disk / "work/work/incompat"
        if self.kind == "volatile" and marked.exists():
            if self.refuses() is False:
                return "a volatile upper is taken"
            shutil.rmtree(marked)
        try:
            at = self.mount()
        except subprocess.CalledProcessError:
            return "cannot be mounted"
        try:
            left = os.listdir(self.disk / "work/work") if self.kind == "plyfs" else []
            if any(not name.startswith("#whiteout-") for name in left):
                return f"left in the work directory: {left}"
            for number, done in enumerate(self.dones):
                why = wrong(at / f"w{number}", number, done, cut)
                if why:
                    return f"program {number}: {why}"
                (at / f"w{number}/new").write_text("new")
                os.rename(at / f"w{number}", at / f"x{number}")
        finally:
            self.umount()
        at = self.mount()
        try:
            kept = [(at / f"x{number}/new").read_text() for number in range(PROGRAMS)]
            return None if kept == ["new"] * PROGRAMS else "does not keep what is written to it now"
        finally:
            self.umount()

    def refuses(self):
        stack = "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work".format(self.disk)
        done = subprocess.run([PLYFS, "mount", "-o", stack, self.mnt], capture_output=True)
        if done.returncode == 0:
            run(PLYFS, "umount", self.mnt)
        return done.returncode != 0 and b"volatile" in done.stderr


def trial(options, fs, kind, base):
    """True if it went as it should."""
    this = Trial(options, fs, kind, base)
    this.prepare()
    this.record()
    player, bad, doubt = Player(this.image, base / "log"), [], 0
    for cut, share in sorted(this.cuts()):
        player.advance(cut)
        doubt += player.cut(base / "scratch", share)
        why = this.check(cut)
        if why:
            bad.append(why)
            if kind != "volatile":
                print(f"cut at {cut}, {share:.0%} of what was not flushed: {why}", flush=True)
    calls = sum(map(len, this.dones))
    synced = sum(call[0] in ("fsync", "fdatasync", "held", "dsync", "mapped")
                 for done in this.dones for *_, call in done)
    print(f"powercut on {fs}, {kind}, seed {options.seed}: {calls} calls, {synced} of them sync; "
          f"{this.end - this.start} writes and flushes; {options.cuts} cuts, {doubt} writes in "
          f"doubt: {len(bad)} wrong", flush=True)
    if kind == "volatile":
        refused = not any("volatile" in why for why in bad)
        return refused and bool(bad)
    return not bad


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--fs", default="ext4,xfs")
    parser.add_argument("--on", default="plyfs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=os.getpid())
    parser.add_argument("--dir", default="/dev/shm")
    options = parser.parse_args()
    good = True
    for fs in options.fs.split(","):
        for kind in options.on.split(","):
            base = Path(tempfile.mkdtemp(prefix="powercut.", dir=options.dir))
            try:
                good &= trial(options, fs, kind, base)
            finally:
                shutil.rmtree(base, ignore_errors=True)
    sys.exit(not good)


if __name__ == "__main__":
    main()
