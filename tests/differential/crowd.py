"""What one of several processes does at once in one tree; what it prints is the same in every tree
that behaves as a plain directory does, whatever the others do meanwhile.

    crowd.py fill DIR COUNT SEED LAYER     makes a layer
    crowd.py run DIR NUMBER SEED STEPS     does, and prints
    crowd.py tree DIR                      prints the tree

Each process has a directory of its own, where it does anything: it keeps files and directories
open, mapped and locked while it renames, replaces and truncates them. What is shared it changes in
ways that commute: its own pages of files that have a name in every directory, its own names in a
directory, a counter under a lock, lines appended to a log.
"""

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import random
import shutil
import signal
import stat
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE
FILES = ["a", "b", "c", "link", "d/a", "d/b", "d/sub/x", "e/a", "new", "e/new"]
DIRS = ["", "d", "d/sub", "e", "f", "e/g"]
SHARED = ["r0", "r1", "r2"]
REGION = 2 * PAGE  # of a shared file, for each process
LOCKS = ["flock", "posix", "ofd"]
F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38
SLOTS = 4


def fill(at, count, seed, layer):
    """The lowest layer has everything; others some of it."""
    rng = random.Random(seed * 7 + layer)
    some = lambda: layer == 0 or rng.random() < 0.3
    os.makedirs(f"{at}/shared", exist_ok=True)
    for name in SHARED if layer == 0 else []:
        with open(f"{at}/shared/{name}", "wb") as file:
            file.write(rng.randbytes(count * REGION))
        os.setxattr(f"{at}/shared/{name}", "user.below", b"1")
    if layer == 0:
        os.mkdir(f"{at}/common")
        for name in LOCKS:
            with open(f"{at}/shared/{name}", "w") as file:
                file.write("0".zfill(8))
        with open(f"{at}/shared/log", "w") as file:
            file.write("the layer's\n")
    for number in range(count):
        top = f"{at}/p{number}"
        for name in ("d/sub", "e", "f"):
            if some():
                os.makedirs(f"{top}/{name}", exist_ok=True)
        # Not over one name of a hard link: the other would still count it.
        for name in ("a", "b", "c", "d/a", "d/b", "d/sub/x", "e/a")[layer > 0:]:
            if some() and os.path.isdir(os.path.dirname(f"{top}/{name}")):
                with open(f"{top}/{name}", "wb") as file:
                    file.write(rng.randbytes(rng.randrange(1, 5 * PAGE)))
        if layer == 0:
            # For one alone, files of their own: not everybody keeps hard links of layers together.
            give = os.link if count > 1 else shutil.copy
            give(f"{top}/a", f"{top}/link")
            for name in SHARED:
                give(f"{at}/shared/{name}", f"{top}/{name}")


class Process:
    def __init__(self, at, number, seed):
        self.at, self.top, self.number = at, f"{at}/p{number}", number
        self.rng = random.Random(seed * 1000 + number)
        self.held, self.maps, self.dirs, self.turn = {}, {}, {}, 0
        self.appended = 0

    def run(self, steps):
        acts = [(weight, name) for weight, name in WEIGHTS]
        for self.turn in range(steps):
            act = self.rng.choices([name for _, name in acts], [weight for weight, _ in acts])[0]
            words = getattr(self, "pick_" + act, self.pick)()
            try:
                said = getattr(self, act)(*words)
            except OSError as error:
                said = errno.errorcode[error.errno]
            print(self.turn, act, *words, "->", "ok" if said is None else said)

    # What an act is done to.

    def pick(self):
        return (self.rng.choice(FILES),)

    def bytes(self, limit=2 * PAGE):
        return bytes([self.rng.randrange(256)]) * self.rng.randrange(1, limit)

    def two(self):
        return self.rng.choice(FILES), self.rng.choice(FILES)

    def slot(self):
        return (self.rng.randrange(SLOTS),)

    def own(self, path):
        return f"{self.top}/{path}"

    # Names.

    def create(self, path):
        os.close(os.open(self.own(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))

    def unlink(self, path):
        os.unlink(self.own(path))

    pick_link = two

    def link(self, path, other):
        os.link(self.own(path), self.own(other))

    def pick_rename(self):
        one = self.rng.choice(FILES + DIRS[1:])
        return one, self.rng.choice(FILES + DIRS[1:]), self.rng.choice((0, 0, 1, 2))

    def rename(self, path, other, flags):
        self.rename_at(self.own(path), self.own(other), flags)

    def rename_at(self, path, other, flags=0):
        if LIBC.renameat2(-100, path.encode(), -100, other.encode(), flags) != 0:
            failed = ctypes.get_errno()
            if failed == errno.EEXIST and flags == 0:
                failed = errno.ENOTEMPTY  # XFS calls it the other
            raise OSError(failed, "rename")

    def pick_mkdir(self):
        return (self.rng.choice(DIRS[1:]),)

    pick_rmdir = pick_mkdir

    def mkdir(self, path):
        os.mkdir(self.own(path), 0o750)

    def rmdir(self, path):
        os.rmdir(self.own(path))

    def stat(self, path):
        got = os.lstat(self.own(path))
        return self.shown(got)

    def shown(self, got):
        kind = stat.S_IFMT(got.st_mode)
        return f"{got.st_mode:o} {got.st_size if kind == stat.S_IFREG else ''}"

    def listing(self, path):
        return " ".join(sorted(os.listdir(self.own(path))))

    def pick_listing(self):
        return (self.rng.choice(DIRS),)

    def chmod(self, path):
        os.chmod(self.own(path), 0o600 | self.turn % 64)

    def xattr(self, path):
        os.setxattr(self.own(path), "user.x", str(self.turn).encode())

    # Contents, by descriptors that last for one act.

    def opened(self, path, flags, act):
        """A regular file; not one that others change, too."""
        if not stat.S_ISREG(os.lstat(self.own(path)).st_mode):
            return "no file"
        fd = os.open(self.own(path), flags)
        try:
            return act(fd)
        finally:
            os.close(fd)

    def read(self, path):
        return self.opened(path, os.O_RDONLY, digest)

    def pick_write(self):
        return self.rng.choice(FILES), self.rng.randrange(4 * PAGE), self.rng.randrange(1, 9000)

    def write(self, path, offset, length):
        data = self.data(length)
        return self.opened(path, os.O_WRONLY, lambda fd: os.pwrite(fd, data, offset))

    def data(self, length):
        return random.Random(self.turn).randbytes(length)

    def pick_truncate(self):
        return self.rng.choice(FILES), self.rng.randrange(6 * PAGE)

    def truncate(self, path, size):
        return self.opened(path, os.O_WRONLY, lambda fd: os.ftruncate(fd, size))

    def empty(self, path):
        return self.opened(path, os.O_WRONLY | os.O_TRUNC, lambda fd: None)

    # Files that stay open, mapped, locked.

    def pick_hold(self):
        return (*self.slot(), self.rng.choice(FILES),
                self.rng.choice((os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND)))

    def hold(self, slot, path, flags):
        if not stat.S_ISREG(os.lstat(self.own(path)).st_mode):
            return "no file"
        fd = os.open(self.own(path), flags)
        self.drop(slot)
        self.held[slot] = fd

    pick_drop = slot

    def drop(self, slot):
        if slot in self.held:
            os.close(self.held.pop(slot))

    def fd(self, slot):
        if slot not in self.held:
            raise OSError(errno.EBADF, "none")
        return self.held[slot]

    pick_held_read = slot

    def held_read(self, slot):
        return digest(self.fd(slot))

    def pick_held_write(self):
        return (*self.slot(), self.rng.randrange(4 * PAGE), self.rng.randrange(1, 9000))

    def held_write(self, slot, offset, length):
        # With O_APPEND the offset does not count, as everywhere on Linux.
        return os.pwrite(self.fd(slot), self.data(length), offset)

    def pick_held_truncate(self):
        return (*self.slot(), self.rng.randrange(6 * PAGE))

    def held_truncate(self, slot, size):
        os.ftruncate(self.fd(slot), size)

    pick_held_stat = slot

    def held_stat(self, slot):
        return self.shown(os.fstat(self.fd(slot)))

    pick_held_sync = slot

    def held_sync(self, slot):
        os.fsync(self.fd(slot))

    def pick_map(self):
        return (*self.slot(), *self.slot(), self.rng.choice(("shared", "private", "look")))

    def map(self, slot, held, how):
        fd = self.fd(held)
        size = os.fstat(fd).st_size
        if size == 0:
            return "empty"
        flags = mmap.MAP_PRIVATE if how == "private" else mmap.MAP_SHARED
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if how != "look" else 0)
        view = mmap.mmap(fd, size, flags, prot)
        self.unmap(slot)
        self.maps[slot] = (view, os.dup(fd), how)

    pick_unmap = slot

    def unmap(self, slot):
        if slot in self.maps:
            view, fd, _ = self.maps.pop(slot)
            view.close()
            os.close(fd)

    def mapped(self, slot):
        """The mapping, and how much of it may be touched: past the file's end is SIGBUS."""
        if slot not in self.maps:
            raise OSError(errno.EBADF, "none")
        view, fd, how = self.maps[slot]
        return view, min(len(view), os.fstat(fd).st_size), how

    pick_map_read = slot

    def map_read(self, slot):
        view, size, _ = self.mapped(slot)
        return hashlib.md5(view[:size]).hexdigest()[:8]

    def pick_map_write(self):
        return (*self.slot(), self.rng.randrange(4 * PAGE), self.rng.randrange(1, 9000))

    def map_write(self, slot, offset, length):
        view, size, how = self.mapped(slot)
        if how == "look":
            return "for looking at"
        end = min(offset + length, size)
        if offset >= end:
            return "past the end"
        view[offset:end] = self.data(end - offset)

    pick_map_sync = slot

    def map_sync(self, slot):
        view, _, how = self.mapped(slot)
        if how == "shared":
            view.flush()

    pick_map_past = slot

    def map_past(self, slot):
        """Beyond the page that the file ends in is nothing."""
        view, size, _ = self.mapped(slot)
        past = -(-size // PAGE) * PAGE
        if past >= len(view):
            return "not cut"
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGBUS, signal.SIG_DFL)
            view[past]
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "read"

    def pick_flock(self):
        return (*self.slot(), self.rng.choice((fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN)))

    def flock(self, slot, how):
        fcntl.flock(self.fd(slot), how | fcntl.LOCK_NB)

    def pick_ofd(self):
        return (*self.slot(), self.rng.choice((fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK)),
                self.rng.randrange(3), self.rng.randrange(3))

    def ofd(self, slot, how, start, length):
        fcntl.fcntl(self.fd(slot), F_OFD_SETLK, lock(how, start, length))

    def posix(self, slot, how, start, length):
        fcntl.fcntl(self.fd(slot), fcntl.F_SETLK, lock(how, start, length))

    pick_posix = pick_locked = pick_ofd

    def locked(self, slot, how, start, length):
        """Who would be in the way."""
        if how == fcntl.F_UNLCK:
            how = fcntl.F_WRLCK
        got = fcntl.fcntl(self.fd(slot), F_OFD_GETLK, lock(how, start, length))
        return struct.unpack("hhqqi4x", got)[:4]

    # Directories that stay open.

    def pick_dir_hold(self):
        return (*self.slot(), self.rng.choice(DIRS))

    def dir_hold(self, slot, path):
        fd = os.open(self.own(path), os.O_RDONLY | os.O_DIRECTORY)
        if slot in self.dirs:
            os.close(self.dirs[slot])
        self.dirs[slot] = fd

    pick_dir_list = slot

    def dir_list(self, slot):
        if slot not in self.dirs:
            return "none"
        return " ".join(sorted(os.listdir(self.dirs[slot])))

    def pick_dir_create(self):
        return (*self.slot(), self.rng.choice(("a", "new", "other")))

    def dir_create(self, slot, name):
        if slot not in self.dirs:
            return "none"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        os.close(os.open(name, flags, 0o600, dir_fd=self.dirs[slot]))

    # What is shared.

    def pick_region(self):
        return (self.rng.choice(SHARED), self.rng.choice(("here", "there")),
                self.rng.choice(("write", "map", "read")), self.rng.randrange(REGION),
                self.rng.randrange(1, PAGE))

    def region(self, name, which, how, offset, length):
        """One's own pages, by either name."""
        path = self.own(name) if which == "here" else f"{self.at}/shared/{name}"
        length, base = min(length, REGION - offset), self.number * REGION
        fd = os.open(path, os.O_RDONLY if how == "read" else os.O_RDWR)
        try:
            if how == "write":
                return os.pwrite(fd, self.data(length), base + offset)
            if how == "map":
                with mmap.mmap(fd, REGION, offset=base) as view:
                    view[offset:offset + length] = self.data(length)
                return None
            return hashlib.md5(os.pread(fd, REGION, base)).hexdigest()[:8]
        finally:
            os.close(fd)

    def pick_shared_name(self):
        return (self.rng.choice(SHARED), self.rng.choice(("unlink", "link", "again")))

    def shared_name(self, name, how):
        """One's own names of the shared files."""
        if how == "unlink":
            os.unlink(self.own(name))
        elif how == "link":
            os.link(f"{self.at}/shared/{name}", self.own(name))
        else:
            os.link(self.own(name), self.own(f"{name}-{self.turn}"))

    def pick_shared_xattr(self):
        return (self.rng.choice(SHARED),)

    def shared_xattr(self, name):
        os.setxattr(f"{self.at}/shared/{name}", f"user.p{self.number}", str(self.turn).encode())

    def pick_common(self):
        return self.rng.choice(FILES + DIRS[1:]), self.rng.choice("xyz"), self.rng.random() < 0.5

    def common(self, path, name, there):
        """Into the directory that all use, and back."""
        one, other = self.own(path), f"{self.at}/common/p{self.number}-{name}"
        self.rename_at(*((one, other) if there else (other, one)))

    def pick_common_list(self):
        return ()

    def common_list(self):
        mine = f"p{self.number}-"
        return " ".join(sorted(n for n in os.listdir(f"{self.at}/common") if n.startswith(mine)))

    def pick_count(self):
        return (self.rng.choice(LOCKS),)

    def count(self, how):
        fd = os.open(f"{self.at}/shared/{how}", os.O_RDWR)
        try:
            if how == "flock":
                fcntl.flock(fd, fcntl.LOCK_EX)
            else:
                setlk = {"posix": fcntl.F_SETLKW, "ofd": F_OFD_SETLKW}[how]
                fcntl.fcntl(fd, setlk, lock(fcntl.F_WRLCK, 0, 8))
            value = int(os.pread(fd, 8, 0))
            os.pwrite(fd, str(value + 1).zfill(8).encode(), 0)
        finally:
            os.close(fd)

    def pick_append(self):
        return ()

    def append(self):
        self.appended += 1
        with open(f"{self.at}/shared/log", "ab", buffering=0) as log:
            log.write(f"{self.number} {self.appended}\n".encode())


WEIGHTS = [(3, "create"), (3, "unlink"), (2, "link"), (5, "rename"), (2, "mkdir"), (1, "rmdir"),
           (2, "stat"), (2, "listing"), (2, "chmod"), (2, "xattr"), (3, "read"), (4, "write"),
           (3, "truncate"), (1, "empty"), (5, "hold"), (1, "drop"), (4, "held_read"),
           (4, "held_write"), (3, "held_truncate"), (2, "held_stat"), (1, "held_sync"), (4, "map"),
           (1, "unmap"), (4, "map_read"), (4, "map_write"), (2, "map_sync"), (1, "map_past"),
           (3, "flock"), (3, "ofd"), (3, "posix"), (3, "locked"), (2, "dir_hold"), (3, "dir_list"),
           (2, "dir_create"), (6, "region"), (2, "shared_name"), (1, "shared_xattr"),
           (4, "common"), (1, "common_list"), (3, "count"), (2, "append")]


def lock(how, start, length):
    return struct.pack("hhqqi4x", how, os.SEEK_SET, start, length, 0)


def digest(fd):
    size = os.fstat(fd).st_size
    data = os.pread(fd, size + 1, 0)
    return f"{len(data)} {hashlib.md5(data).hexdigest()[:8]}"


def tree(at):
    """Everything but times; the log's lines sorted, since they come as they come."""
    first = {}
    for top, dirs, files in os.walk(at):
        dirs.sort()
        for name in sorted([*dirs, *files]):
            path = os.path.join(top, name)
            got, shown = os.lstat(path), os.path.relpath(path, at)
            line = [shown, f"{got.st_mode:o}", f"{got.st_uid}:{got.st_gid}"]
            if not stat.S_ISDIR(got.st_mode):
                line += [f"x{got.st_nlink}", "=" + first.setdefault(got.st_ino, shown)]
            if stat.S_ISREG(got.st_mode):
                with open(path, "rb") as file:
                    data = file.read()
                if shown == "shared/log":
                    data = b"".join(sorted(data.splitlines(True)))
                line += [str(len(data)), hashlib.md5(data).hexdigest()]
            if not stat.S_ISLNK(got.st_mode):
                line += [f"{name}={os.getxattr(path, name)}" for name in sorted(os.listxattr(path))]
            print(*line)


if __name__ == "__main__":
    os.umask(0)
    what, where, *numbers = sys.argv[1:]
    numbers = [int(number) for number in numbers]
    if what == "fill":
        fill(where, *numbers)
    elif what == "tree":
        tree(where)
    else:
        Process(where, *numbers[:2]).run(numbers[2])
