#!/usr/bin/env python3
"""A disk that remembers every write, for the suite `powercut`.

A regular file with a FUSE file system mounted on it, and a loop device on that: what the device
writes comes here one request after the other, as do its cache flushes (a loop device turns them
into fsync). From the log an image of the disk can be made as it may be after the power went at any
moment: all that was flushed is there; of what was written since, any part.
"""

import contextlib
import ctypes
import mmap
import os
import random
import struct
import subprocess

LIBC = ctypes.CDLL(None, use_errno=True)
HEADER = struct.Struct("<IIQQIIIHH")
RECORD = struct.Struct("<QQ")  # where, how long; a flush is (FLUSH, 0)
FLUSH, SECTOR = (1 << 64) - 1, 512
MAX_WRITE = 1 << 20
(FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSHED, INIT, INTERRUPT,
 BATCH_FORGET, FALLOCATE) = 2, 3, 4, 14, 15, 16, 17, 18, 20, 25, 26, 36, 42, 43
ENOSYS, EOPNOTSUPP = 38, 95


class Recorder:
    """Serves the file at `path`, which holds `image`; appends what is written to `log` and counts
    the records in `count`, before it answers."""

    def __init__(self, image, path, log, count):
        self.image = os.open(image, os.O_RDWR)
        self.size = os.fstat(self.image).st_size
        self.log, self.count = open(log, "wb", buffering=0), count
        self.written = 0
        self.fuse = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.fuse},rootmode=100000,user_id=0,group_id=0,max_read={MAX_WRITE}"
        if LIBC.mount(b"recorder", os.fsencode(path), b"fuse", 6, options.encode()) != 0:
            raise OSError(ctypes.get_errno(), "cannot mount the recorder")

    def serve(self):
        """Until it is unmounted."""
        while True:
            try:
                request = os.read(self.fuse, MAX_WRITE + 8192)
            except InterruptedError:
                continue
            except OSError:
                return  # ENODEV
            _, opcode, unique, *_ = HEADER.unpack_from(request)
            if opcode in (FORGET, INTERRUPT, BATCH_FORGET):
                continue
            answer = self.answer(opcode, memoryview(request)[HEADER.size:])
            error, body = (answer, b"") if isinstance(answer, int) else (0, answer)
            os.write(self.fuse, struct.pack("<IiQ", 16 + len(body), -error, unique) + body)

    def answer(self, opcode, body):
        if opcode == INIT:
            major, minor, readahead, flags = struct.unpack_from("<IIII", body)
            wanted = flags & (1 | 1 << 5 | 1 << 22)  # asynchronous reads, big writes, many pages
            return struct.pack("<IIIIHHIIHHIII", 7, min(minor, 38), readahead, wanted, 16, 12,
                               MAX_WRITE, 1, MAX_WRITE >> 12, 0, 0, 0, 0) + bytes(20)
        if opcode in (GETATTR, SETATTR):
            attr = struct.pack("<6Q10I", 1, self.size, self.size >> 9, 0, 0, 0, 0, 0, 0, 0o100600,
                               1, 0, 0, 0, 4096, 0)
            return struct.pack("<QII", 3600, 0, 0) + attr
        if opcode == OPEN:
            return struct.pack("<QII", 1, 2, 0)  # what the kernel has read it may keep
        if opcode == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return os.pread(self.image, size, offset)
        if opcode == WRITE:
            _, offset, size = struct.unpack_from("<QQI", body)
            self.record(offset, body[40:40 + size])
            return struct.pack("<II", size, 0)
        if opcode == FALLOCATE:
            _, offset, length, mode = struct.unpack_from("<QQQI", body)
            if mode & 0x12 == 0:  # to be punched or zeroed
                return EOPNOTSUPP
            for at in range(offset, offset + length, MAX_WRITE):
                self.record(at, bytes(min(MAX_WRITE, offset + length - at)))
            return b""
        if opcode == FSYNC:
            self.note(RECORD.pack(FLUSH, 0))
            return b""
        if opcode == STATFS:
            return struct.pack("<5Q6I", 0, 0, 0, 0, 0, 4096, 255, 4096, 0, 0, 0) + bytes(16)
        return b"" if opcode in (RELEASE, FLUSHED) else ENOSYS

    def record(self, offset, data):
        os.pwrite(self.image, data, offset)
        self.note(RECORD.pack(offset, len(data)) + data)

    def note(self, record):
        self.log.write(record)
        self.written += 1
        self.count[:8] = self.written.to_bytes(8, "little")


class Disk:
    """The block device `device`; `position()` is how many writes and flushes it has seen."""

    def __init__(self, base, image):
        self.log, self.file = base / "log", base / "disk"
        self.file.write_bytes(b"")
        (base / "count").write_bytes(bytes(8))
        with open(base / "count", "r+b") as file:
            self.count = mmap.mmap(file.fileno(), 8)
        live = base / "live"
        subprocess.run(["cp", "--sparse=always", image, live], check=True)
        recorder = Recorder(live, self.file, self.log, self.count)
        self.server = os.fork()
        if self.server == 0:
            recorder.serve()
            os._exit(0)
        os.close(recorder.fuse)
        self.device = None
        try:
            command = ["losetup", "--find", "--show", self.file]
            self.device = subprocess.check_output(command, text=True).strip()
        except BaseException:
            self.close()
            raise

    def position(self):
        return int.from_bytes(self.count[:8], "little")

    def close(self):
        if self.device:
            subprocess.run(["losetup", "--detach", self.device], check=True)
        subprocess.run(["umount", "--lazy", self.file], check=True)
        os.waitpid(self.server, 0)


class Player:
    """Images of the disk at moments that only grow, from the image that it began with."""

    def __init__(self, image, log):
        self.durable, self.log = open(image, "r+b", buffering=0), open(log, "rb")
        self.at, self.pending = 0, []

    def advance(self, position):
        """To the moment after so many records."""
        while self.at < position:
            offset, length = RECORD.unpack(self.log.read(RECORD.size))
            self.at += 1
            if offset == FLUSH:
                for where, data in self.pending:
                    os.pwrite(self.durable.fileno(), data, where)
                self.pending = []
            else:
                self.pending.append((offset, self.log.read(length)))

    def cut(self, target, share):
        """The disk in the file `target`, with this share of what was not flushed (1: all), sector
        by sector. How many writes were in doubt."""
        subprocess.run(["cp", "--sparse=always", self.durable.name, target], check=True)
        with open(target, "r+b", buffering=0) as image:
            for where, data in self.pending:
                # A write is there, is not, or ends anywhere.
                if share == 1:
                    os.pwrite(image.fileno(), data, where)
                elif random.random() < share:
                    for at in range(0, len(data), SECTOR):
                        if random.random() < 0.95:
                            os.pwrite(image.fileno(), data[at:at + SECTOR], where + at)
        return len(self.pending)


@contextlib.contextmanager
def recorded(base, image):
    """The device while it lasts."""
    disk = Disk(base, image)
    try:
        yield disk
    finally:
        disk.close()
