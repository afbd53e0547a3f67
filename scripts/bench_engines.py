#!/usr/bin/env python3
"""podman on plyfs, kernel overlayfs and fuse-overlayfs 1.10 and 2.0, timed in interleaved rounds;
prints Markdown.

    bench_engines.py [--rounds 3] [--plyfs FILE] [--images DIR] [--rootless] [--only JOB,...]
                     [--json FILE]

The image is scripts/images.py's `app` with Debian's python and node added: 52,000 entries in five
layers. Each round gives each driver a store of its own, in which all jobs are done; the order of
the drivers turns from round to round. Packages are fetched before, so that no mirror is measured.
As root, below $TMPDIR (/var/tmp), which needs 3 GiB and 5 more a round: nothing is deleted before
the end, since ext4 looks for new inodes among those just deleted, at the cost of whoever is next.
"""
import argparse
import concurrent.futures
import glob
import json
import os
import platform
import statistics
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from engines import migration, stand  # noqa: E402
from engines.podman import Podman  # noqa: E402
from engines.stand import Broken, expect, same  # noqa: E402

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONTAINERS = 10

INTERPRETERS = """
FROM app
ENV DEBIAN_FRONTEND=noninteractive PYTHONPATH=/opt/python
RUN apt-get update -qq && apt-get install -qq --no-install-recommends python3 nodejs >/dev/null \\
 && apt-get clean && rm -r /var/lib/apt/lists
"""
# What a build installs, fetched into its context before.
APT = ["python3-pip", "git"]
PIP = ["django==4.2.16", "sqlalchemy==2.0.36", "requests==2.32.3", "pyyaml==6.0.2"]
FETCH = f"""
set -e; cd /packages
apt-get update -qq
apt-get install -qq --download-only --no-install-recommends -o Dir::Cache::archives=/packages \\
    {' '.join(APT)} >/dev/null
apt-get install -qq --no-install-recommends python3-pip >/dev/null
pip download --quiet --only-binary=:all: {' '.join(PIP)}
rm -rf partial lock
"""
BUILT = f"""
FROM debian
ENV DEBIAN_FRONTEND=noninteractive
COPY packages /packages
RUN apt-get install -qq --no-install-recommends /packages/*.deb >/dev/null
RUN pip install --quiet --break-system-packages --no-index --find-links=/packages {' '.join(PIP)}
RUN rm -r /packages /usr/share/doc
"""
COMPUTE = "import numpy, pandas; print(int(pandas.DataFrame(numpy.arange(10)).sum().iloc[0]))"
WEBPACK = """
process.chdir("/srv/web");
require("fs").writeFileSync("entry.js",
    "import { Button, Table } from 'antd'; console.log(Button, Table);");
require("webpack")({ mode: "development", devtool: false, entry: "./entry.js" }, (error, stats) => {
    if (error || stats.hasErrors()) throw error || new Error(stats.toString());
    console.log(stats.compilation.modules.size, require("fs").statSync("dist/main.js").size);
});
"""


class Driver:
    """A way to layer a container's root: a mount program, or the kernel's overlayfs."""

    def __init__(self, name, program, version):
        self.name, self.program, self.version = name, program, version


class Bench:
    """What is prepared once: images, packages, what the jobs have to print."""

    def __init__(self, place, rootless):
        self.place, self.rootless = place, rootless
        kernel = Podman(place, "prepare")
        kernel.pull("app")
        kernel.pull("debian")
        where = place.make("build")
        place.write(f"{where}/interpreters", INTERPRETERS)
        kernel("build", *HOW, "--tag", "apps", "--file", f"{where}/interpreters", where,
               timeout=1800)
        packages = place.make("build/packages")
        kernel("run", "--rm", "--volume", f"{packages}:/packages", *TRUST, "debian", "sh", "-c",
               FETCH, timeout=1800)
        self.context = where
        place.write(f"{where}/Containerfile", BUILT)
        archives = place.make("archives")
        self.archives = {name: f"{archives}/{name}.tar" for name in ("apps", "debian")}
        for name, path in self.archives.items():
            kernel("save", "--quiet", "--output", path, name)
            os.chmod(path, 0o644)
        self.layers = kernel.layers("apps")
        self.bundle = self.node(kernel)

    def engine(self, name, program):
        return Podman(self.place, name, program=program, user=self.rootless)

    # The jobs. What they return is printed by the container.
    def load(self, engine):
        engine("load", "--quiet", "--input", self.archives["apps"], timeout=1800)

    def true(self, engine):
        return engine("run", "--rm", "apps", "true")

    def python(self, engine):
        return engine("run", "--rm", "apps", "python3", "-c", COMPUTE)

    def node(self, engine):
        return engine("run", "--rm", "--env", "NODE_PATH=/srv/web/node_modules", "apps", "node",
                      "-e", WEBPACK)

    def build(self, engine):
        engine("build", *HOW, "--tag", "built", self.context, timeout=1800)

    def ten(self, engine):
        """Starts containers at once; returns when all have done their work, and stay."""
        done = self.place.make(engine.name, "done", owner=engine.owner)

        def start(number):
            # Told when it has been logged.
            script = (f"{COMPUTE}; import sys, time; sys.stdout.flush(); "
                      f"open('/done/{number}', 'w'); time.sleep(1000)")
            engine("run", "--detach", "--name", f"c{number}", "--volume", f"{done}:/done", "apps",
                   "python3", "-c", script)
            for _ in range(30_000):
                if os.path.exists(f"{done}/{number}"):
                    return
                time.sleep(0.01)
            raise Broken("a container does not get done")
        with concurrent.futures.ThreadPoolExecutor(CONTAINERS) as pool:
            list(pool.map(start, range(CONTAINERS)))

    def check(self, job, engine, printed):
        """Whether a job has done what it had to."""
        if job == "load":
            same(engine.layers("apps"), self.layers, "the layers")
            engine("load", "--quiet", "--input", self.archives["debian"])
        elif job == "python":
            same(printed, "45\n", "what is printed")
        elif job == "node":
            same(printed, self.bundle, "what is printed")
        elif job == "build":
            same(engine("run", "--rm", "built", "sh", "-c", "ls -d /usr/share/doc /packages;"
                        "python3 -c 'import django, yaml; print(django.VERSION[:2])'; "
                        "git --version | cut -d' ' -f1,2", status=0),
                 "(4, 2)\ngit version\n", "what was built")
        elif job == "ten":
            for number in range(CONTAINERS):
                same(engine("logs", f"c{number}"), "45\n", "what is logged")


# As scripts/engines/building.py builds.
TRUST = ["--volume", "/etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro"]
HOW = ["--network", "host", "--isolation", "chroot", *TRUST]
JOBS = {
    "load": "`podman load`",
    "true": "`podman run` of `true`",
    "python": "python program: numpy, pandas",
    "node": "node program: webpack of antd",
    "build": "`podman build`: apt-get, pip, rm -r",
    "ten": "ten python containers, until all are ready",
}
MEMORY = {
    "servers": "their servers: anonymous memory",
    "servers, files": "their servers: file-backed PSS",
    "programs": "their programs: anonymous memory",
    "programs, files": "their programs: file-backed PSS",
}


def memory(engine):
    """MiB of the servers of the store, and of what the ten containers run: anonymous, of files."""
    found = dict.fromkeys(MEMORY, 0.0)
    servers = 0
    for path in glob.glob("/proc/[0-9]*"):
        try:
            with open(f"{path}/cmdline", "rb") as file:
                line = file.read().replace(b"\0", b" ").decode(errors="replace")
            is_server = "lowerdir=" in line and f"{engine.dir}/" in line
            if not is_server and not line.startswith(f"python3 -c {COMPUTE}"):
                continue
            with open(f"{path}/smaps_rollup") as file:
                rolled = dict(line.split(":") for line in file if ":" in line.split(" ")[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
        servers += is_server
        kind = "servers" if is_server else "programs"
        found[kind] += int(rolled["Pss_Anon"].split()[0]) / 1024
        found[f"{kind}, files"] += int(rolled["Pss_File"].split()[0]) / 1024
    same(servers, CONTAINERS if engine.program else 0, "the number of servers")
    return found


def measure(bench, job, engine):
    """Seconds of a job; and what ten containers need."""
    os.sync()
    try:
        begin = time.monotonic()
        printed = getattr(bench, job)(engine)
        samples = {job: time.monotonic() - begin}
        bench.check(job, engine, printed)
        if job == "ten":
            samples |= memory(engine)
    finally:
        engine("rm", "--force", "--time", "0", "--all")
    same(engine.left(), [], "what is left")
    return samples


def report(results, drivers, rounds, rootless):
    """Prints a table of the jobs that were done."""
    names = [driver.name for driver in drivers]
    who = "without root" if rootless else "as root"
    print(f"{rounds} interleaved rounds, podman {who}; median (least to most), seconds, and MiB of")
    print("memory; ratio of medians, plyfs to the other: below 1 is better.\n")
    others = [name for name in names if name != "plyfs"]
    print(f"| | {' | '.join(names)} | to {' | to '.join(others)} |")
    print("|---" * (len(names) + len(others) + 1) + "|")
    for row in results:
        cells, middle = [], {}
        for name in names:
            samples = results[row][name]
            middle[name] = statistics.median(samples) if samples else 0
            fails = "" if len(samples) == rounds else f"fails {rounds - len(samples)} times"
            spread = f"({min(samples):,.2f} to {max(samples):,.2f})" if samples else ""
            cells.append(" ".join(filter(None, [f"{middle[name]:,.2f}", spread, fails])
                                  if samples else [fails]))
        ours = middle["plyfs"]
        cells += [f"{ours / middle[name]:.2f}" if middle[name] else "" for name in others]
        print(f"| {(JOBS | MEMORY)[row]} | {' | '.join(cells)} |")
    load, total = os.getloadavg()[0], os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    print(f"\nMachine: {os.cpu_count()} CPUs, {total / (1 << 30):.0f} GiB of memory, Linux "
          f"{platform.release()}; load {BUSY:.1f} at the beginning, {load:.1f} at the end.")
    for driver in drivers:
        print(f"{driver.name}: {driver.version}.")


BUSY = os.getloadavg()[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plyfs", default=f"{TOP}/target/release/plyfs")
    parser.add_argument("--images", help="a directory with images that scripts/images.py made")
    parser.add_argument("--rootless", action="store_true")
    parser.add_argument("--only", default=",".join(JOBS),
                        help=f"of {', '.join(JOBS)}; without it all, load in any case")
    parser.add_argument("--json", help="also write every sample to this file")
    args = parser.parse_args()
    stand.enter()
    place = stand.Stand(args.plyfs, args.images)
    try:
        place.furnish()
        run(place, args)
    except Broken as error:
        sys.exit(f"bench_engines.py: {error}")
    finally:
        place.close()


def run(place, args):
    theirs = migration.programs(place)
    ours = place.path("bin/plyfs")
    drivers = [Driver("plyfs", ours, place.run(ours, "--version").strip()),
               Driver("overlayfs", None, f"Linux {platform.release()}, as podman mounts it")]
    for version, program in theirs.items():
        lines = place.run(program, "--version").splitlines()
        told = next(line for line in lines if "fuse-overlayfs" in line)
        drivers.append(Driver(f"fuse-overlayfs {version}", program, told))
    bench = Bench(place, args.rootless)
    expect(bench.bundle.strip(), "webpack said nothing")
    jobs = [job for job in JOBS if job == "load" or job in args.only.split(",")]
    rows = jobs + (list(MEMORY) if "ten" in jobs else [])
    results = {row: {driver.name: [] for driver in drivers} for row in rows}
    for number in range(args.rounds):
        turn = number % len(drivers)
        turned = drivers[turn:] + drivers[:turn]
        engines = {driver.name: bench.engine(f"e{drivers.index(driver)}r{number}", driver.program)
                   for driver in drivers}
        for job in jobs:
            for driver in turned:
                try:
                    samples = measure(bench, job, engines[driver.name])
                    told = f"{samples[job]:.2f}"
                except Broken as error:
                    # Whoever cannot do a job at all is shown so; the others are measured.
                    samples, told = {}, f"FAILED: {error}"
                for row, sample in samples.items():
                    results[row][driver.name].append(sample)
                print(f"round {number + 1}: {job}: {driver.name}: {told}", file=sys.stderr,
                      flush=True)
    report(results, drivers, args.rounds, args.rootless)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
