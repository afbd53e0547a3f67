#!/usr/bin/env python3
"""The power goes at any moment while images are imported, committed and removed.

As root: scripts/powercut_store.py [--fs ext4,xfs] [--rounds N] [--cuts N] [--seed N]
[--dir DIR (/dev/shm)]. PLYFS is the binary (target/release/plyfs).

As scripts/powercut.py, for the store: what a command said that it did is done, what it did not
begin is not, and in between it is done or not; `plyfs check` finds nothing broken, each image can be
run, and what was written in a container before it was unmounted is there.
"""

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from recorder import Player, recorded

TOP = Path(__file__).resolve().parent.parent
PLYFS = os.environ.get("PLYFS", TOP / "target/release/plyfs")
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q"]}


def run(*command):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True,
                          text=True).stdout


def archive(path, number, rng):
    """What `docker save` writes, of one layer."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in range(20):
            data = rng.randbytes(rng.randrange(20000))
            entry = tarfile.TarInfo(f"dir/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    layer = layer.getvalue()
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {
        "type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}).encode()
    manifest = [{"Config": "config.json", "RepoTags": [f"img:{number}"], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for name, data in (("config.json", config), ("layer.tar", layer),
                           ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


class Trial:
    def __init__(self, options, fs, base):
        self.options, self.fs, self.base = options, fs, base
        self.rng = random.Random(options.seed)
        self.at, self.root = base / "at", base / "at/store"
        self.at.mkdir()
        self.log = []  # (begin, end, what, which)

    def plyfs(self, *words):
        return run(PLYFS, "--root", self.root, *words)

    def mounted(self, device, act):
        run("mount", *(["-o", "nouuid"] if self.fs == "xfs" else []), device, self.at)
        try:
            return act()
        finally:
            run("umount", self.at)

    def prepare(self):
        image = self.base / "image"
        with open(image, "wb") as file:
            file.truncate(400 << 20)
        run(*MAKE[self.fs], image)
        self.mounted(image, lambda: (self.plyfs("image", "ls"), run("sync")))
        return image

    def call(self, disk, what, which, *words):
        begin = disk.position()
        self.plyfs(*words)
        self.log.append((begin, disk.position(), what, which))

    def work(self, disk):
        for n in range(self.options.rounds):
            tar = self.base / "image.tar"
            archive(tar, n, self.rng)
            self.call(disk, "image", f"img:{n}", "image", "import", tar)
            self.call(disk, "container", f"c{n}", "create", f"img:{n}", f"c{n}")
            self.write(disk, n)
            self.call(disk, "image", f"out:{n}", "commit", f"c{n}", f"out:{n}")
            if n % 2:
                self.call(disk, "no container", f"c{n}", "rm", f"c{n}")
                self.call(disk, "no image", f"img:{n}", "image", "rm", f"img:{n}")

    def write(self, disk, n):
        at = self.base / "mnt"
        at.mkdir(exist_ok=True)
        begin = disk.position()
        self.plyfs("mount", f"c{n}", at)
        (at / "dir/1").write_text(f"written {n}")
        self.plyfs("umount", at)
        self.log.append((begin, disk.position(), "written", f"c{n}"))

    def known(self, kind, cut):
        """Of images or containers: which must be there, and which may."""
        must, may = set(), set()
        for begin, end, what, which in self.log:
            if what == kind and begin <= cut:
                may.add(which)
                must |= {which} if end <= cut else set()
            if what == f"no {kind}" and begin <= cut:
                must.discard(which)
                may -= {which} if end <= cut else set()
        return must, may

    def look(self, cut):
        """What is wrong, if anything is."""
        for command in (["check"], ["gc"], ["check"]):
            done = subprocess.run([PLYFS, "--root", self.root, *command], capture_output=True,
                                  text=True)
            if done.returncode != 0:
                return f"{command[0]}: {done.returncode}: {done.stdout}{done.stderr}"
        images = set()
        for line in self.plyfs("image", "ls", "--json").splitlines():
            images |= {name for name in json.dumps(json.loads(line)).split('"') if ":" in name
                       and name.split(":")[0] in ("img", "out")}
        containers = {word for line in self.plyfs("ls", "--json").splitlines()
                      for word in json.dumps(json.loads(line)).split('"')
                      if word[:1] == "c" and word[1:].isdigit()}
        for kind, got in (("image", images), ("container", containers)):
            must, may = self.known(kind, cut)
            if not must <= got <= may:
                return f"{kind}s {sorted(got)}, must be {sorted(must)}, may be {sorted(may)}"
        at = self.base / "mnt"
        written = {which for _, end, what, which in self.log if what == "written" and end <= cut}
        for name in sorted(written & containers):
            self.plyfs("mount", name, at)
            content = (at / "dir/1").read_text()
            self.plyfs("umount", at)
            if content != f"written {name[1:]}":
                return f"{name}: {content!r}"
        return None


def trial(options, fs, base):
    this = Trial(options, fs, base)
    image = this.prepare()
    with recorded(base, image) as disk:
        this.mounted(disk.device, lambda: this.work(disk))
        end = disk.position()
    ends = [end for _, end, _, _ in this.log]
    cuts = [(this.rng.choice(this.rng.choice((range(end + 1), ends))),
             this.rng.choice((0, 0, .5, 1))) for _ in range(options.cuts)]
    player, bad = Player(image, base / "log"), 0
    for cut, share in sorted(cuts):
        player.advance(cut)
        player.cut(base / "scratch", share)
        why = this.mounted(base / "scratch", lambda: this.look(cut))
        if why:
            bad += 1
            print(f"cut at {cut}, {share:.0%} of what was not flushed: {why}", flush=True)
    print(f"power cuts of a store on {fs}, seed {options.seed}: {len(this.log)} commands, {end} "
          f"writes and flushes; {options.cuts} cuts: {bad} wrong", flush=True)
    return not bad


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--fs", default="ext4,xfs")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=os.getpid())
    parser.add_argument("--dir", default="/dev/shm")
    options = parser.parse_args()
    good = True
    for fs in options.fs.split(","):
        base = Path(tempfile.mkdtemp(prefix="powercut.", dir=options.dir))
        try:
            good &= trial(options, fs, base)
        finally:
            shutil.rmtree(base, ignore_errors=True)
    sys.exit(not good)


if __name__ == "__main__":
    main()
