"""dockerd with its storage driver fuse-overlayfs, which runs a program of that name; beside it one
with overlay2, that is the kernel's."""
import os
import subprocess
import time

from engines.building import PLAIN, WHEN, context
from engines.podman import CHANGES
from engines.stand import Broken, compare, expect, same, tree

MOMENTS = ["/:mtime", "/etc:mtime", "/dev*", "/proc*", "/sys*", "/etc/hosts*", "/etc/hostname*",
           "/etc/resolv.conf*", "/etc/mtab*", "/.dockerenv*"]


class Docker:
    """A dockerd with its own containerd, store and socket."""
    user, owner = False, 0

    def __init__(self, stand, name, driver):
        self.stand, self.name = stand, name
        self.dir = stand.make(name)
        self.socket = f"unix://{self.dir}/sock"
        path = f"{stand.path('bin')}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.env = {"PATH": path, "HOME": self.dir, "DOCKER_HOST": self.socket, "STAND": stand.dir,
                    "DOCKER_CONFIG": f"{self.dir}/client"}
        stand.write(f"{name}/containerd.toml", f"""
version = 2
root = "{self.dir}/croot"
state = "{self.dir}/cstate"
oom_score = 0
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{self.dir}/c"
""")
        self.started = []
        self.start("containerd", "--config", f"{self.dir}/containerd.toml")
        self.wait(lambda: os.path.exists(f"{self.dir}/c"))
        self.start("dockerd", "--config-file", stand.write(f"{name}/daemon.json", "{}"),
                   "--data-root", f"{self.dir}/root", "--exec-root", f"{self.dir}/exec",
                   "--pidfile", f"{self.dir}/pid", "--host", self.socket, "--containerd",
                   f"{self.dir}/c", "--storage-driver", driver, "--iptables=false",
                   "--ip6tables=false", "--bridge=none", "--oom-score-adjust=0",
                   "--cgroup-parent", f"/{stand.cgroup}")
        self.wait(lambda: self.stand.run("docker", "version", env=self.env, status=None,
                                         timeout=20).count("Version") > 2)

    def start(self, *command):
        with open(f"{self.dir}/{command[0]}.log", "wb") as log:
            process = subprocess.Popen(command, env=self.env, cwd=self.dir, stdout=log, stderr=log,
                                       stdin=subprocess.DEVNULL, start_new_session=True)
        self.started.append(process)
        self.stand.closing.append(process.kill)

    def wait(self, ready):
        for _ in range(300):
            if any(process.poll() is not None for process in self.started):
                break
            if ready():
                return
            time.sleep(0.1)
        raise Broken(f"{self.name} did not start: {self.log()[-2000:]}")

    def log(self):
        text = ""
        for name in ("containerd", "dockerd"):
            if os.path.exists(f"{self.dir}/{name}.log"):
                with open(f"{self.dir}/{name}.log", errors="replace") as file:
                    text += file.read()
        return text

    def __call__(self, *args, env=None, **how):
        return self.stand.run("docker", *args, env=self.env | (env or {}), cwd=self.dir, **how)

    def layers(self, image):
        return self("image", "inspect", "--format", "{{json .RootFS.Layers}}", image).strip()

    def tree(self, container, *skip):
        """The tree of a running container."""
        at = self("inspect", "--format", "{{.GraphDriver.Data.MergedDir}}", container).strip()
        return tree(self.stand, at, *MOMENTS, *skip)

    def left(self):
        inside = f"{self.dir}/root/fuse-overlayfs"
        return self.stand.mounts(inside)[1:] + self.stand.processes("fuse-overlayfs", f"{inside}/")

    def stop(self):
        for process in reversed(self.started):
            process.terminate()
            process.wait(60)


def docker(stand, short=False):
    """dockerd finds plyfs by the name fuse-overlayfs."""
    pair = []
    for name, driver in (("overlay2", "overlay2"), ("dplyfs", "fuse-overlayfs")):
        with stand.step(f"docker: dockerd --storage-driver {driver} starts"):
            pair.append(Docker(stand, name, driver))
            same(pair[-1]("info", "--format", "{{.Driver}}").strip(), driver, "the driver")
    if len(pair) < 2:
        return
    ours = pair[1]
    archive = stand.image("plain-docker")
    run = ("run", "--network", "host", "--env", f"STAND={stand.dir}")
    stand.alike("docker: load", lambda engine: (
        engine("load", "--input", archive), engine.layers("plain:docker")), *pair)
    stand.alike("docker: run", lambda engine: engine(
        *run, "--rm", "plain:docker", "/bin/sh", "-c", "id; ls -ln /data/sub; cat /etc/passwd"),
        *pair)
    stand.alike("docker: a status", lambda engine: engine(
        *run, "--rm", "plain:docker", "/bin/sh", "-c", "exit 9", status=9), *pair)

    def change(engine):
        engine(*run, "--detach", "--name", "changed", "plain:docker", "/bin/sh", "-c",
               f"{CHANGES} exec /bin/sleep 1000")
        for _ in range(100):
            if "again" in engine("exec", "changed", "/bin/sh", "-c",
                                 "cat /data/replaced/again; /bin/busybox pidof sleep",
                                 status=None):
                break
            time.sleep(0.1)
        time.sleep(0.5)
        return engine.tree("changed")
    # overlay2 has no redirect_dir: a renamed directory is a copy there.
    stand.alike("docker: changes, the same tree", change, *pair)

    def commit(engine):
        engine("commit", "changed", "committed")
        engine("rm", "--force", "changed")
        engine(*run, "--detach", "--name", "seen", "committed", "/bin/sleep", "1000")
        try:
            return engine.tree("seen")
        finally:
            engine("rm", "--force", "seen")
    stand.alike("docker: commit, the same tree", commit, *pair)
    def build(engine):
        where = context(stand, engine, PLAIN.replace("FROM plain", "FROM plain:docker").replace(
            "COPY --chmod=600", "COPY"), "docker")
        # The client's BuildKit is a plugin that Debian does not have.
        engine("build", "--network", "host", "--quiet", "--tag", "built", "--file",
               f"{where}/Containerfile", where, env={"DOCKER_BUILDKIT": "0"}, timeout=900)
        engine(*run, "--detach", "--name", "looked-at", "built", "/bin/sleep", "1000")
        try:
            return engine.tree("looked-at", "*:mtime")
        finally:
            engine("rm", "--force", "looked-at")
    stand.alike("docker: build, the same tree but for times", build, *pair)
    if not short:
        lives(stand, ours, run)
    with stand.step("docker: nothing stays mounted, no server lives on"):
        same(ours.left(), [], "what is left")
    with stand.step("docker: all containers and images can be removed"):
        for image in ours("images", "--quiet", "--all").split():
            ours("rmi", "--force", image, status=None)
        ours("system", "prune", "--all", "--force", "--volumes")
        same(ours("images", "--quiet", "--all").split(), [], "the images")
    for engine in pair:
        engine.stop()


def lives(stand, ours, run):
    with stand.step("docker: a container outlives a restart of it, and keeps its state"):
        ours(*run, "--detach", "--name", "kept", "plain:docker", "/bin/sh", "-c",
             "echo s >> /data/starts; exec /bin/sleep 1000")
        ours("restart", "--time", "0", "kept")
        time.sleep(0.5)
        same(ours("exec", "kept", "/bin/cat", "/data/starts"), "s\ns\n", "the file")
        ours("rm", "--force", "kept")
    with stand.step("docker: eight containers at once"):
        names = [ours(*run, "--detach", "plain:docker", "/bin/sh", "-c",
                      f"echo {n} > /data/own; exec /bin/sleep 1000").strip() for n in range(8)]
        time.sleep(0.5)
        for number, name in enumerate(names):
            same(ours("exec", name, "/bin/cat", "/data/own"), f"{number}\n", "the file")
        ours("rm", "--force", *names)
