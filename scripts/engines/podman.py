"""podman on plyfs and on kernel overlayfs: the same jobs, the same results.

As root and as somebody who is not. Each engine has a store, a run directory and configuration of
its own; what differs between two engines is `mount_program`.
"""
import concurrent.futures
import hashlib
import json
import os
import tarfile
import time

from engines.stand import Broken, UID, USER, compare, expect, same, tree

# What a program may do to an image, and then one time for all of it: layers can be compared.
CHANGES = """
set -e; b=/bin/busybox; cd /data
echo new > new; $b mkdir -p dir/deep; echo x > dir/deep/x
$b rm gone sub/link; $b rm -r replaced
$b mv sub moved; echo more >> moved/1; $b chmod 600 moved/3; $b chown 7:8 moved/4
$b ln moved/5 linked; $b ln -s moved/6 symlink
$b mkdir replaced; echo again > replaced/again
$b mkfifo fifo; $b chmod 644 fifo; $b chmod 2775 dir
$b mv /etc/group /etc/group-; $b mv /etc/group- /etc/group
$b find /data /etc/group -exec $b touch -h -d '2021-01-01 00:00:00' {} +
"""
# Nothing of it needs a whiteout, whose time would be that of the commit.
ADDITIONS = """
set -e; b=/bin/busybox; cd /data
echo more >> sub/1; $b chmod 600 sub/3; $b chown 7:8 sub/4; $b ln sub/5 linked
$b mkdir -p dir/deep; $b ln -s nowhere dir/symlink; $b mkfifo dir/fifo; echo n > replaced/new
"""
# 2020-09-13.
WHEN = "1600000000"

# Made or touched by podman itself, each time at another moment.
MOMENTS = ["/:mtime", "/etc:mtime", "/run:mtime", "/dev:mtime", "/proc:mtime", "/sys:mtime",
           "/run/.containerenv*", "/etc/hosts*", "/etc/hostname*", "/etc/resolv.conf*",
           "/etc/mtab*", "/run/secrets*"]


README = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../README.md")


class Podman:
    """A podman with a store of its own."""

    def __init__(self, stand, name, program=None, user=False, mountopt=""):
        self.stand, self.name, self.user = stand, name, user
        self.owner = UID if user else 0
        self.dir = stand.make(name, owner=self.owner)
        # podman cleans up after a container only if this path is short.
        self.run_dir = f"/run/{name}"
        for path in (f"{self.dir}/root", f"{self.dir}/tmp", self.run_dir):
            os.chmod(stand.make(path, owner=self.owner), 0o700)
        self.mountopt = mountopt
        self.set_program(program)
        stand.write(f"{name}/registries.conf", "unqualified-search-registries = []\n")
        stand.write(f"{name}/containers.conf", f"""
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
netns = "host"
env = ["STAND={stand.dir}"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
static_dir = "{self.dir}/root/libpod"
tmp_dir = "{self.run_dir}/libpod"
volume_path = "{self.dir}/root/volumes"
[network]
network_config_dir = "{self.dir}/root/networks"
""")
        self.env = {
            "PATH": f"{stand.path('bin')}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:"
                    "/sbin:/bin",
            "CONTAINERS_CONF": f"{self.dir}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{self.dir}/storage.conf",
            "CONTAINERS_REGISTRIES_CONF": f"{self.dir}/registries.conf",
            "HOME": stand.path("home") if user else self.dir,
            "TMPDIR": f"{self.dir}/tmp",
            "BUILDAH_ISOLATION": "chroot",
        }
        if user:
            self.env |= {"XDG_RUNTIME_DIR": self.run_dir, "USER": USER}

    def set_program(self, program, mountopt=None):
        """Which mount program, or none for the kernel's overlayfs; and options for it."""
        self.program = program
        if mountopt is not None:
            self.mountopt = mountopt
        options = f'mount_program = "{program}"\n' if program else ""
        options += f'mountopt = "{self.mountopt}"\n' if self.mountopt else ""
        self.stand.write(f"{self.name}/storage.conf", f"""
[storage]
driver = "overlay"
graphroot = "{self.dir}/root"
runroot = "{self.run_dir}/containers"
rootless_storage_path = "{self.dir}/root"
[storage.options]
root-auto-userns-user = "{USER}"
auto-userns-min-size = 1024
auto-userns-max-size = 70000
[storage.options.overlay]
{options}""")

    def tool(self, *command, **how):
        """Runs a program with this engine's configuration, as its user."""
        if self.user:
            how |= {"user": UID, "group": UID, "extra_groups": []}
        return self.stand.run(*command, env=self.env, cwd=self.dir, **how)

    def __call__(self, *args, **how):
        return self.tool("podman", *args, **how)

    def inside(self, *command, **how):
        """Runs a command where the mounts are seen."""
        return self("unshare", *command, **how) if self.user else self.tool(*command, **how)

    def pull(self, name):
        """An image by scripts/images.py, by that name."""
        image = self("pull", "--quiet", f"oci:{self.stand.image(name)}:latest").strip()
        self("tag", image, name)
        return image

    def layers(self, image):
        """The digests of the layers, uncompressed."""
        return self("image", "inspect", "--format", "{{json .RootFS.Layers}}", image).strip()

    def image_tree(self, image, *skip):
        at = self("image", "mount", image).strip() if not self.user else None
        if at:
            try:
                return tree(self.stand, at, *skip)
            finally:
                self("image", "umount", image)
        container = self("create", image, "true").strip()
        try:
            return self.container_tree(container, *skip)
        finally:
            self("rm", "--force", container)

    def container_tree(self, container, *skip):
        """What is in a container's root."""
        if self.user:
            script = (f'at=$(podman mount {container}) && '
                      f'python3 "$0" "$at" "$@"; status=$?; '
                      f'podman umount {container} >&2; exit $status')
            skips = [f"--skip={pattern}" for pattern in skip]
            return self("unshare", "sh", "-c", script, same_tree(), *skips)
        at = self("mount", container).strip()
        try:
            return tree(self.stand, at, *skip)
        finally:
            self("umount", container)

    def settle(self, container):
        """Gives one time to all that is new: the digest of a layer depends on it."""
        script = (f'at=$(podman mount {container}) && find "$at" -newermt 2023-01-01 -exec '
                  f'touch -h -d @{WHEN} {{}} +; status=$?; podman umount {container} >&2; '
                  'exit $status')
        self.inside("sh", "-c", script)

    def servers(self):
        """The processes that serve mounts of this store."""
        return [line for line in self.stand.processes("lowerdir=", f"{self.dir}/")
                if line.split()[0] in (self.program, self.stand.path("bin/plyfs"))]

    def processes(self):
        """podman's own that clean up after containers."""
        return self.stand.processes("podman", self.dir, "cleanup")

    def left(self):
        """Mounts and servers of this store that do not go within a few seconds."""
        for _ in range(50):
            mounts = [at for at in self.stand.mounts(f"{self.dir}/root") if at.endswith("/merged")]
            left = mounts + self.servers()
            if not left and not self.processes():
                break
            time.sleep(0.1)
        return left


def saved(engine, image):
    """All entries of all layers, less the times of whiteouts, which are those of the packing."""
    path = f"{engine.dir}/tmp/image.tar"
    engine("save", "--quiet", "--format", "docker-archive", "--output", path, image)
    lines = []
    with tarfile.open(path) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))[0]
        for layer in manifest["Layers"]:
            lines.append(f"layer {len(lines)}")
            with tarfile.open(fileobj=archive.extractfile(layer)) as entries:
                for entry in entries:
                    when = "" if "/.wh." in f"/{entry.name}" else entry.mtime
                    data = entries.extractfile(entry).read() if entry.isreg() else b""
                    pax = entry.pax_headers.items()
                    xattrs = sorted(item for item in pax if "xattr" in item[0])
                    lines.append(f"{entry.name} {entry.type} {entry.mode:o} {entry.uid}:{entry.gid} "
                                 f"{when} {entry.linkname} {entry.devmajor}:{entry.devminor} "
                                 f"{xattrs} {entry.size} {hashlib.sha256(data).hexdigest()}")
    os.remove(path)
    return "\n".join(lines)


def same_tree():
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                        "same_tree.py")


def engines(stand, user=False):
    """Kernel overlayfs first: what it does is what is expected."""
    prefix = "u" if user else "r"
    # metacopy=on brings redirect_dir=on, so that directories can be renamed; podman compares trees
    # then, as it does with any mount program, instead of packing the upper directory.
    mountopt = "" if user else "metacopy=on,index=on"
    kernel = Podman(stand, f"{prefix}overlayfs", user=user, mountopt=mountopt)
    ours = Podman(stand, f"{prefix}plyfs", program=stand.path("bin/plyfs"), user=user)
    return kernel, ours


def podman(stand, short=False, user=False):
    """Everything that podman does with a root filesystem."""
    pair = engines(stand, user)
    ours = pair[1]
    say = ("podman rootless: " if user else "podman: ").__add__

    with stand.step(say("info names the mount program and its version")):
        info = ours("info", "--format", "json")
        expect("bin/plyfs" in info and "plyfs 0." in info, info)
    as_documented(stand, say, user)
    load(stand, say, pair, short)
    for engine in pair:
        engine("image", "exists", "plain")  # without it nothing below makes sense
    running(stand, say, pair, short)
    # Without privileges podman packs the kernel's upper directories, marks and all: what a layer has
    # to be is what root gets.
    layers = (engines(stand)[0], ours) if user else pair
    if user:
        layers[0].pull("plain")
    changes(stand, say, pair, layers, short)
    ids(stand, say, pair, short)
    if not short:
        restarts(stand, say, pair)
    if not (short and user):
        mounts_and_modes(stand, say, pair)
        many(stand, say, pair, 4 if short else 20)
    for engine in pair:
        with stand.step(say(f"system reset leaves nothing ({engine.name})")):
            engine("system", "reset", "--force", timeout=120)
            same(engine.left(), [], "what is left")
            store = f"{engine.dir}/root"
            same(os.listdir(store) if os.path.exists(store) else [], [], "what is in the store")
    with stand.step(say("no zombie is left")):
        same([name for name in stand.zombies() if "plyfs" in name], [], "the zombies")


def as_documented(stand, say, user):
    """What the README has users write, and nothing else of podman's storage."""
    with stand.step(say("the README's storage.conf is enough")), open(README) as file:
        lines = file.read().split("    [storage]\n")[1].split("\n\n")[0].splitlines()
        text = "\n".join(["[storage]", *lines]) + "\n"
        expect("/usr/local/bin/plyfs" in text, text)
        text = text.replace("/usr/local/bin/plyfs", stand.path("bin/plyfs"))
        engine = Podman(stand, "documented-user" if user else "documented", user=user)
        if user:
            text = "".join(line for line in text.splitlines(True) if "root =" not in line)
            stand.write("home/.config/containers/storage.conf", text)
            del engine.env["CONTAINERS_STORAGE_CONF"]
            stand.run("chown", "--recursive", f"{UID}:{UID}", stand.path("home"))
        else:
            engine.env["CONTAINERS_STORAGE_CONF"] = stand.write("documented/readme.conf", text)
        engine.pull("plain")
        told = engine("run", "--rm", "plain", "/bin/cat", "/proc/self/mounts")
        same(told.split()[1:3], ["/", "fuse.plyfs"], "the root")
        engine("system", "reset", "--force", timeout=120)


def load(stand, say, pair, short):
    archive = stand.image("plain-docker")
    stand.alike(say("load of docker's format"), lambda engine: (
        engine("load", "--quiet", "--input", archive), engine.layers("plain:docker")), *pair)
    stand.alike(say("pull of an OCI layout"), lambda engine: (
        engine.pull("plain"), engine.layers("plain")), *pair)
    stand.alike(say("an image's tree"), lambda engine: engine.image_tree(
        "plain", *UNSAID), *pair)
    # Devices are root's to make, and ids beyond the subordinate ones nobody's.
    for name in ([] if short else ["tall", "buildah"]):
        stand.alike(say(f"pull of the image '{name}'"), lambda engine, name=name: (
            engine.pull(name), engine.layers(name)), *pair)
        stand.alike(say(f"the tree of '{name}'"), lambda engine, name=name:
                    engine.image_tree(name, *DIFFERENT.get(name, [])), *pair)


# What a layer touches without an entry for it gets the time of the import.
DIFFERENT = {
    "tall": ["/:mtime", "/block?:mtime", "/each:mtime"],
    "buildah": ["/:mtime"],
}
UNSAID = ["/:mtime", "/data:mtime", "/data/sub:mtime"]


def running(stand, say, pair, short):
    stand.alike(say("run prints"), lambda engine: engine(
        "run", "--rm", "plain", "/bin/sh", "-c", "cat /etc/passwd; id; ls -l /data"), *pair)
    stand.alike(say("run ends with the command's status"), lambda engine: engine(
        "run", "--rm", "plain", "/bin/sh", "-c", "exit 7", status=7), *pair)
    stand.alike(say("run as another user"), lambda engine: engine(
        "run", "--rm", "--user", "app", "plain", "/bin/sh", "-c",
        "id; touch /data/sub/3 && cat /data/sub/5; touch /etc/x || echo refused"), *pair)
    if short:
        return
    stand.alike(say("run with runc"), lambda engine: engine(
        "--runtime", "runc", "--cgroup-manager", "cgroupfs", "run", "--rm", "--cgroups", "enabled",
        "--cgroup-parent", f"/{stand.cgroup}", "plain", "/bin/cat", "/data/gone"),
        *pair) if not pair[1].user else None


def changes(stand, say, pair, layers, short):
    ours = pair[1]
    everybody = pair if layers[0] in pair else (layers[0], *pair)

    def change(engine):
        engine("run", "--name", "changed", "plain", "/bin/sh", "-c", CHANGES)
        engine.settle("changed")
        return engine.container_tree("changed", *MOMENTS)
    stand.alike(say("changes: the same tree"), change, *everybody)
    stand.alike(say("diff lists them"), lambda engine: sorted(
        engine("diff", "changed").splitlines()), *layers)

    def commit(engine):
        engine("commit", "--quiet", "changed", "committed")
        return saved(engine, "committed")
    stand.alike(say("commit: the same layer, but for when its whiteouts were written"), commit,
                *layers)
    if short:
        return
    if layers is not pair:
        commit(pair[0])

    def commit_new(engine):
        engine("run", "--name", "added", "plain", "/bin/sh", "-c", ADDITIONS)
        engine.settle("added")
        engine("commit", "--quiet", "added", "more")
        engine("rm", "added")
        return engine.layers("more")
    stand.alike(say("commit without deletions: the same digest"), commit_new, *layers)
    stand.alike(say("the committed image's tree"), lambda engine: engine.image_tree(
        "committed", *MOMENTS), *pair)

    def save(engine):
        path = f"{engine.dir}/tmp/saved.tar"
        before = engine.layers("committed")
        engine("save", "--quiet", "--output", path, "committed")
        engine("rmi", "--force", "committed")
        engine("load", "--quiet", "--input", path)
        os.remove(path)
        same(engine.layers("committed"), before, "the digests")
        return engine.image_tree("committed", *MOMENTS)
    stand.alike(say("save and load again: the same digests and the same tree"), save, *pair)

    def export(engine):
        path = f"{engine.dir}/tmp/exported.tar"
        engine("export", "--output", path, "changed")
        engine("import", "--quiet", path, "imported")
        return engine.image_tree("imported", *MOMENTS)
    stand.alike(say("export and import: the same tree"), export, *pair)

    def copy(engine):
        engine("run", "--detach", "--name", "copied", "plain", "/bin/sleep", "1000")
        source = stand.make("in/sub")
        for name in ("a", "b"):
            stand.write(f"in/sub/{name}", name * 10)
            os.utime(f"{source}/{name}", (1_600_000_000, 1_600_000_000))
        engine("cp", f"{stand.path('in')}/.", "copied:/data/in")
        engine("cp", "copied:/data/sub", f"{engine.dir}/tmp/out")
        engine("exec", "copied", "/bin/sh", "-c", "echo exec > /data/by-exec; rm /data/sub/9")
        told = engine("exec", "copied", "/bin/sh", "-c", "cat /data/in/sub/* /data/by-exec")
        out = sorted(os.listdir(f"{engine.dir}/tmp/out"))
        pause = [] if engine.user else ["--pause=false"]
        engine("commit", "--quiet", *pause, "copied", "while-running")
        engine("rm", "--force", "--time", "0", "copied")
        return told, out, engine.image_tree("while-running", *MOMENTS, "/data*:mtime")
    stand.alike(say("cp in and out, exec, commit of what runs"), copy, *pair)
    with stand.step(say("what is not in use is not mounted")):
        same(ours.left(), [], "what is left")


def restarts(stand, say, pair):
    def restart(engine):
        engine("run", "--detach", "--name", "again", "plain", "/bin/sh", "-c",
               "echo start >> /data/starts; exec sleep 1000")
        engine("kill", "--signal", "KILL", "again")
        engine("wait", "again")
        engine("start", "again")
        engine("restart", "--time", "0", "again")
        told = engine("exec", "again", "/bin/cat", "/data/starts")
        engine("rm", "--force", "--time", "0", "again")
        return told
    stand.alike(say("killed, started, restarted: the state stays"), restart, *pair)

    def init(engine):
        engine("run", "--detach", "--name", "stopped", "plain", "/bin/sleep", "1000")
        engine("stop", "--time", "0", "stopped")
        left = engine.left()
        engine("rm", "stopped")
        return left
    stand.alike(say("stop unmounts"), init, *pair)


def mounts_and_modes(stand, say, pair):
    stand.alike(say("--read-only"), lambda engine: engine(
        "run", "--rm", "--read-only", "plain", "/bin/sh", "-c",
        "touch /data/x || echo refused; touch /tmp/x && cat /data/sub/1"), *pair)

    def volumes(engine):
        bound = stand.make(f"{engine.name}/bound", owner=engine.owner)
        stand.write(f"{engine.name}/bound/file", "of the host\n")
        os.chown(f"{bound}/file", engine.owner, engine.owner)
        engine("volume", "create", "named")
        told = engine(
            "run", "--rm", "--volume", f"{bound}:/bound", "--volume", "named:/data/sub",
            "--volume", f"{bound}:/over:O", "--mount", "type=image,src=plain,dst=/image,rw=true",
            "plain", "/bin/sh", "-c",
            "cat /bound/file; echo c > /bound/new; echo over > /over/file; cat /over/file;"
            "ls /data/sub; echo v > /data/sub/kept; cat /image/data/gone; echo w > /image/data/w")
        told += engine("run", "--rm", "--volume", "named:/n", "plain", "/bin/cat", "/n/kept")
        engine("volume", "rm", "named")
        with open(f"{bound}/file") as file:
            return told, sorted(os.listdir(bound)), file.read()
    stand.alike(say("volumes: bound, named, overlaid (:O), an image"), volumes, *pair)


def ids(stand, say, pair, short):
    """Under other ids; and files are not owned anew, which would copy the image."""
    modes = [["--userns=auto:size=70000"], ["--uidmap", "0:1000:5000", "--gidmap", "0:1000:5000"]]
    if pair[1].user:
        modes = [["--userns=keep-id"], ["--userns=auto:size=5000"], ["--userns=nomap"]]
    script = ("id -u; id -g; ls -ln /data/sub/1 /etc/passwd; touch /tmp/mine; ls -ln /tmp/mine;"
              "echo x >> /data/sub/1 && chmod 640 /data/sub/1; ls -ln /data/sub/1")
    if not pair[1].user:
        script += "; busybox chown 12:34 /data/sub/2; ls -ln /data/sub/2"
    script = script.replace("busybox", "/bin/busybox")
    for mode in modes[:1] if short else modes:
        stand.alike(say(mode[0]), lambda engine, mode=mode: [
            line.split()[:4] + line.split()[-1:] for line in
            engine("run", "--rm", *mode, "plain", "/bin/sh", "-c", script).splitlines()], *pair)
    with stand.step(say("ids are shifted without a copy of the image")):
        ours = pair[1]
        name = ours("create", *modes[0], "plain", "/bin/true").strip()
        layer = ours("inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", name).strip()
        try:
            count = len(ours.inside("find", layer, "-type", "f").splitlines())
            expect("overlay" in layer and count < 5, f"{count} files are in {layer}")
            lower = ours("inspect", "--format", "{{.GraphDriver.Data.LowerDir}}", name).strip()
            same(len(lower.split(":")), 3, "the number of layers below")
        finally:
            ours("rm", name)


def many(stand, say, pair, count):
    def start(engine, number):
        engine("run", "--detach", "--name", f"c{number}", "plain", "/bin/sh", "-c",
               f"echo {number} > /data/own; rm /data/sub/{number % 19}; exec sleep 1000")
        return engine("exec", f"c{number}", "/bin/sh", "-c", "cat /data/own; ls /data/sub | "
                      "/bin/busybox wc -l")

    def run(engine):
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda number: start(engine, number), range(count)))
    ours = pair[1]
    stand.alike(say(f"{count} containers at once"), run, *pair)
    with stand.step(say(f"{count} servers, one a mount")):
        same(len(ours.servers()), count, "their number")
    for engine in pair:
        with stand.step(say(f"they go, and nothing stays ({engine.name})")):
            engine("rm", "--force", "--time", "0", "--all")
            same(engine.left(), [], "what is left")
