#!/usr/bin/env python3
"""Large trees under a mounted plyfs: a directory of a million entries, 200,000 nodes at once.

    limits.py entries PLYFS [COUNT]    lists COUNT entries (1,000,000) of two layers and an upper
    limits.py nodes PLYFS [COUNT]      looks COUNT files (200,000) up with 20,000 descriptors

As root. Prints what it measured; fails when something is missing, or costs more than it may.
"""

import contextlib
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time

DESCRIPTORS = 20_000
# Of the server, for each entry of a listing and for each live node; names and tables included.
BYTES_AN_ENTRY, BYTES_A_NODE = 250, 500


@contextlib.contextmanager
def mounted(plyfs, lowers, descriptors=DESCRIPTORS):
    """A mount over layers that `lowers` fill, topmost first: its directory and its server."""
    with tempfile.TemporaryDirectory(prefix="plyfs-limits.") as base:
        base = pathlib.Path(base)
        names = [f"lower{number}" for number in range(len(lowers))]
        for name in [*names, "upper", "work", "mnt"]:
            (base / name).mkdir()
        for name, fill in zip(names, lowers):
            fill(base / name)
        layers = ":".join(str(base / name) for name in names)
        options = f"lowerdir={layers},upperdir={base}/upper,workdir={base}/work"
        command = [plyfs, "mount", "-f", "-o", options, str(base / "mnt")]
        environment = {**os.environ, "PLYFS_LOG": "plyfs=info"}
        with open(base / "log", "w+") as log:
            limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
            server = subprocess.Popen(command, stderr=log, env=environment, preexec_fn=limit)
            try:
                wait(lambda: os.path.ismount(base / "mnt"))
                yield base, server.pid
            finally:
                subprocess.run(["umount", "--lazy", str(base / "mnt")], check=True)
                server.wait(60)


def wait(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit("limits.py: waited in vain")
        time.sleep(0.01)


def memory(pid, what="VmRSS:"):
    """Bytes that the server has in memory; with VmHWM, the most that it ever had."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise KeyError(what)


def live_nodes(base, pid):
    """How many nodes the server holds, which it says on SIGUSR1."""
    log = base / "log"
    said = log.read_text().count("nodes=")
    os.kill(pid, signal.SIGUSR1)
    wait(lambda: log.read_text().count("nodes=") > said)
    return int(log.read_text().rsplit("nodes=", 1)[1].split()[0])


def numbered(first, last):
    def fill(directory):
        for number in range(first, last):
            os.mknod(directory / f"entry-{number}")

    return fill


def check(condition, what):
    if not condition:
        sys.exit(f"limits.py: {what}")


def entries(plyfs, count):
    """The time for an entry may not grow with their number, and memory is bounded by it."""
    a_tenth = listing(plyfs, count // 10)
    whole = listing(plyfs, count)
    check(whole < 3 * a_tenth, f"{whole * 1e6:.1f} us an entry, {a_tenth * 1e6:.1f} for a tenth")


def listing(plyfs, count):
    """Lists `count` entries; returns the seconds for each."""
    half = count // 2
    layers = [numbered(0, half), numbered(half - 1000, count)]
    with mounted(plyfs, layers) as (base, pid):
        mnt = base / "mnt"
        for number in range(500):
            (mnt / f"entry-{half + number}").unlink()
            (mnt / f"upper-{number}").touch()
        expected = {f"entry-{number}" for number in range(count)}
        expected -= {f"entry-{half + number}" for number in range(500)}
        expected |= {f"upper-{number}" for number in range(500)}
        before = memory(pid)
        seconds = []
        for _ in range(2):
            start = time.monotonic()
            names = os.listdir(mnt)
            seconds.append(time.monotonic() - start)
            check(len(names) == len(set(names)), "an entry came twice")
            check(set(names) == expected, "the listing is not what the layers make up")
            del names
        grown = memory(pid, "VmHWM:") - before
        print(f"{count} entries: {seconds[0]:.2f} s, again {seconds[1]:.2f} s, "
              f"{grown / count:.0f} bytes an entry in the server at most", flush=True)
        check(grown < count * BYTES_AN_ENTRY + (16 << 20), "too much memory")
        removed = time.monotonic()
        for number in range(0, count, count // 100):
            path = mnt / f"entry-{number}"
            if number < half or number >= half + 500:
                path.unlink()
        print(f"100 removals in it: {time.monotonic() - removed:.2f} s")
        return seconds[0] / count


def forest(count):
    def fill(base):
        for directory in range(count // 200):
            at = base / f"directory-{directory}"
            at.mkdir()
            for number in range(200):
                (at / f"file-{number}").write_bytes(b"content\n")

    return fill


def nodes(plyfs, count):
    """All are live at once, each can be read, and few descriptors are open."""
    with mounted(plyfs, [forest(count)]) as (base, pid):
        mnt = base / "mnt"
        before = memory(pid)
        start = time.monotonic()
        paths = [os.path.join(at, name) for at, _, files in os.walk(mnt) for name in files]
        for path in paths:
            check(os.lstat(path).st_size == 8, path)
        live = live_nodes(base, pid)
        grown = memory(pid) - before
        print(f"{live} live nodes after {time.monotonic() - start:.1f} s: "
              f"{grown / live:.0f} bytes each, {descriptors(pid)} descriptors")
        check(live >= count, f"only {live} nodes are live: memory was short for the kernel")
        check(grown < live * BYTES_A_NODE, "too much memory")
        check(descriptors(pid) < DESCRIPTORS, "too many descriptors")
        held = [os.open(path, os.O_RDONLY) for path in paths[:: max(1, count // 10_000)]]
        for path in paths:
            with open(path, "rb") as file:
                check(file.read() == b"content\n", path)
        for path in paths[:: count // 1000]:
            with open(path, "ab") as file:
                file.write(b"more\n")
        print(f"{len(held)} held open: {descriptors(pid)} descriptors")
        for fd in held:
            os.close(fd)
        subprocess.run(["rm", "-r", *map(str, mnt.iterdir())], check=True)
        check(not os.listdir(mnt), "something is left")
        print("removed; live nodes:", live_nodes(base, pid))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in ("entries", "nodes"):
        sys.exit(__doc__)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    default = 1_000_000 if sys.argv[1] == "entries" else 200_000
    count = int(sys.argv[3]) if len(sys.argv) > 3 else default
    {"entries": entries, "nodes": nodes}[sys.argv[1]](sys.argv[2], count)


if __name__ == "__main__":
    main()
