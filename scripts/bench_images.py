#!/usr/bin/env python3
"""Images in and containers out, timed against other tools in interleaved rounds.

    bench_images.py PLYFS LAYOUT [--rounds N]     LAYOUT: an OCI layout, as scripts/images.py makes

Import with unpacking: plyfs, umoci, containerd (ctr images import), podman load; each from the same
archive into a store of its own that did not exist before. Commit and export of 1,000 changed files:
plyfs and buildah. A container that runs true: plyfs and runc on an overlayfs mount. Medians of wall
seconds, CPU seconds of all processes, and the peak memory of the largest; ratios to plyfs. As root.

Nothing is deleted before the last round: for minutes ext4 looks for new inodes one by one among
those that were just deleted, which costs whoever comes next several times its own work.
"""
import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}


def run(*command, **how):
    done = subprocess.run(command, **QUIET, **how)
    if done.returncode:
        sys.exit(f"bench_images.py: {' '.join(command)}: {done.stderr.decode()}")


def timed(*command, daemon=None, **how):
    """Wall seconds, CPU seconds, peak KiB of a command, and of the daemon that works for it."""
    before = usage(daemon)
    start = time.monotonic()
    process = subprocess.Popen(command, **QUIET, **how)
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"bench_images.py: {' '.join(command)}: {said.decode()}")
    after = usage(daemon)
    cpu = used.ru_utime + used.ru_stime + after[0] - before[0]
    return wall, cpu, max(used.ru_maxrss, after[1])


def usage(pid):
    if pid is None:
        return 0.0, 0
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    with open(f"/proc/{pid}/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    # Its own time, and that of the children it has waited for (unpigz and the like).
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK"), peak


class Containerd:
    """A containerd of one's own."""

    def __init__(self, dir):
        self.socket = f"{dir}/sock"
        config = f"{dir}/config.toml"
        with open(config, "w") as file:
            file.write(f'''version = 2
root = "{dir}/root"
state = "{dir}/state"
oom_score = 0
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{self.socket}"
''')
        self.log = open(f"{dir}/log", "w")
        self.process = subprocess.Popen(["containerd", "--config", config], stdout=self.log,
                                        stderr=self.log)
        for _ in range(200):
            if subprocess.run(["ctr", "-a", self.socket, "version"], **QUIET).returncode == 0:
                return
            time.sleep(0.05)
        sys.exit("bench_images.py: containerd does not answer")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def imports(plyfs, archive, layout, temp):
    """One round: name -> figures."""
    found = {}
    store = f"{temp}/plyfs"
    found["plyfs"] = timed(plyfs, "--root", store, "image", "import", archive, "--name", "i")
    found["umoci"] = timed("umoci", "unpack", "--image", f"{layout}:latest", f"{temp}/umoci")
    os.mkdir(f"{temp}/containerd")
    containerd = Containerd(f"{temp}/containerd")
    try:
        found["containerd"] = timed("ctr", "-a", containerd.socket, "images", "import",
                                    "--base-name", "example.com/i", archive,
                                    daemon=containerd.process.pid)
    finally:
        containerd.stop()
    found["podman"] = timed("podman", f"--root={temp}/podman", f"--runroot={temp}/run",
                            "--storage-driver=overlay", "load", "--input", archive)
    return found, store


def change(root):
    os.makedirs(f"{root}/opt/changed")
    for n in range(1000):
        with open(f"{root}/opt/changed/{n}", "w") as file:
            file.write(f"file {n}\n" * 200)


def commits(plyfs, store, layout, temp):
    tool = ["buildah", "--storage-driver=overlay", f"--root={temp}/b", f"--runroot={temp}/br"]
    found = {}
    mnt = f"{temp}/mnt"
    os.mkdir(mnt)
    run(plyfs, "--root", store, "create", "i", "c")
    run(plyfs, "--root", store, "mount", "c", mnt)
    change(mnt)
    run(plyfs, "--root", store, "umount", "c")
    found["plyfs commit"] = timed(plyfs, "--root", store, "commit", "c", "i:2")
    found["plyfs export"] = timed(plyfs, "--root", store, "image", "export", "i:2",
                                  f"{temp}/out.tar")
    name = subprocess.run([*tool, "from", f"oci:{layout}:latest"], check=True,
                          capture_output=True, text=True).stdout.strip()
    root = subprocess.run([*tool, "mount", name], check=True, capture_output=True,
                          text=True).stdout.strip()
    change(root)
    run(*tool, "umount", name)
    found["buildah commit"] = timed(*tool, "commit", "--format=oci", name, "i:2")
    found["buildah push"] = timed(*tool, "push", "i:2", f"oci-archive:{temp}/out2.tar")
    return found


def unmount_below(top):
    """What podman and buildah leave mounted."""
    with open("/proc/self/mounts") as mounts:
        points = [line.split()[1] for line in mounts]
    for point in reversed(points):
        if point.startswith(f"{top}/"):
            run("umount", point)


def starts(plyfs, store, temp):
    found = {}
    found["plyfs run"] = timed(plyfs, "--root", store, "run", "i", "--", "/bin/true")
    image = json.loads(subprocess.run([plyfs, "--root", store, "image", "inspect", "i"],
                                      check=True, capture_output=True).stdout)
    lowers = ":".join(layer["dir"]["path"] for layer in reversed(image["layers"]))
    bundle = f"{temp}/bundle"
    for dir in ("upper", "work", "rootfs"):
        os.makedirs(f"{bundle}/{dir}")
    run("runc", "spec", cwd=bundle)
    with open(f"{bundle}/config.json") as file:
        config = json.load(file)
    config["process"].update(args=["/bin/true"], terminal=False)
    config["process"].pop("rlimits", None)
    config["root"]["readonly"] = False
    with open(f"{bundle}/config.json", "w") as file:
        json.dump(config, file)
    script = (f"mount -t overlay overlay -o lowerdir={lowers},upperdir={bundle}/upper,"
              f"workdir={bundle}/work {bundle}/rootfs && runc --root {bundle}/state run "
              f"--bundle {bundle} bench-{os.getpid()}; umount {bundle}/rootfs")
    found["overlayfs + runc"] = timed("sh", "-ec", script)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plyfs")
    parser.add_argument("layout")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    plyfs, layout = os.path.abspath(args.plyfs), os.path.abspath(args.layout)
    samples = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as top:
        archive = f"{top}/image.tar"
        run("skopeo", "copy", f"oci:{layout}:latest", f"oci-archive:{archive}:latest")
        for number in range(args.rounds):
            temp = f"{top}/{number}"
            os.mkdir(temp)
            found, store = imports(plyfs, archive, layout, temp)
            found |= commits(plyfs, store, layout, temp)
            found |= starts(plyfs, store, temp)
            for name, figures in found.items():
                samples.setdefault(name, []).append(figures)
        unmount_below(top)
    base = {"umoci": "plyfs", "containerd": "plyfs", "podman": "plyfs",
            "buildah commit": "plyfs commit", "buildah push": "plyfs export",
            "overlayfs + runc": "plyfs run"}
    median = {name: [statistics.median(column) for column in zip(*rows)]
              for name, rows in samples.items()}
    print("| what | seconds | CPU seconds | peak MiB | time, in plyfs's |")
    print("|---|---|---|---|---|")
    for name, (wall, cpu, peak) in median.items():
        ratio = f"{wall / median[base.get(name, name)][0]:.2f}"
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {peak / 1024:.0f} | {ratio} |")


main()
