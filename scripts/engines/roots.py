"""runc, crun, bubblewrap and systemd-nspawn in a root that plyfs unites, beside one that kernel
overlayfs does; and the ways in which mount(8) and its helpers mount plyfs."""
import json
import os

from engines.podman import CHANGES
from engines.stand import UID, expect, same, tree

SKIP = ["/:mtime", "/etc:mtime", "/dev*", "/proc*", "/sys*", "/run*", "/var*", "/tmp*",
        "/etc/resolv.conf*", "/etc/localtime*", "/root*", "/usr*", "/.nspawn*", "/etc/machine-id*"]
CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETUID",
                "CAP_SETGID", "CAP_MKNOD", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_SETFCAP"]


class Root:
    """One union, mounted by plyfs or by the kernel."""

    def __init__(self, stand, lower, name, ours):
        self.stand, self.name, self.ours = stand, name, ours
        self.dir = stand.make("roots", name)
        for part in ("up", "work", "mnt"):
            stand.make("roots", name, part)
        self.at = f"{self.dir}/mnt"
        options = f"lowerdir={lower},upperdir={self.dir}/up,workdir={self.dir}/work"
        if ours:
            stand.run(stand.path("bin/plyfs"), "mount", "-o", options, self.at)
        else:
            stand.run("mount", "-t", "overlay", "overlay", "-o",
                      f"{options},redirect_dir=on,metacopy=on,index=on", self.at)

    def end(self):
        self.stand.run("umount", self.at)


def runtimes(stand, short=False):
    """Each runtime in both roots: the same output, the same tree afterwards."""
    lower = stand.make("roots", "lower")
    stand.run("umoci", "unpack", "--image", stand.image("plain") + ":latest",
              stand.path("roots/bundle"))
    os.rename(stand.path("roots/bundle/rootfs"), f"{lower}/rootfs")
    lower = f"{lower}/rootfs"
    for name in ("usr", "run", "root", "var"):  # nspawn wants them
        stand.make(lower, name)
    for name, runner in RUNNERS.items():
        def job(ours, name=name, runner=runner):
            word = f"{name}-{'plyfs' if ours else 'overlayfs'}"
            root = Root(stand, lower, word, ours)
            try:
                told = runner(stand, root, f"{CHANGES} id -u; cat /data/replaced/again")
                return told, tree(stand, root.at, *SKIP)
            finally:
                root.end()
        with stand.step(f"{name}: the same output and the same tree"):
            seen = job(False), job(True)
            same(seen[1], seen[0], "it")
            expect("again" in seen[0][0], seen[0][0])
    shifted(stand, lower)
    helpers(stand, lower)
    with stand.step("runtimes: every server has ended"):
        same([line for line in stand.processes("plyfs", "lowerdir=") if "python3" not in line], [],
             "what is left")


def spec(stand, root, script, shift=0):
    """A bundle for runc and crun."""
    bundle = stand.make("roots", root.name, "bundle")
    if os.path.exists(f"{bundle}/config.json"):
        os.remove(f"{bundle}/config.json")
    stand.run("runc", "spec", cwd=bundle)
    with open(f"{bundle}/config.json") as file:
        config = json.load(file)
    config["root"] = {"path": root.at, "readonly": False}
    config["process"] |= {"terminal": False, "args": ["/bin/sh", "-c", script],
                          "env": ["PATH=/bin", f"STAND={stand.dir}"]}
    for kind in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][kind] = CAPABILITIES
    linux = config["linux"]
    linux["cgroupsPath"] = f"/{stand.cgroup}/{root.name}"
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "network"]
    if shift:
        linux["namespaces"].append({"type": "user"})
        maps = [{"containerID": 0, "hostID": shift, "size": 65536}]
        linux["uidMappings"] = linux["gidMappings"] = maps
        # sysfs is not to be had without a network of one's own.
        config["mounts"] = [entry for entry in config["mounts"]
                            if entry["destination"] not in ("/sys", "/sys/fs/cgroup")]
        config["hostname"] = "shifted"
    with open(f"{bundle}/config.json", "w") as file:
        json.dump(config, file)
    return bundle


def runc(stand, root, script, shift=0):
    return stand.run("runc", "--root", stand.make("roots", "state"), "run", "--bundle",
                     spec(stand, root, script, shift), root.name)


def crun(stand, root, script):
    return stand.run("crun", "--root", stand.make("roots", "state"), "--cgroup-manager=disabled",
                     "run", "--bundle", spec(stand, root, script), root.name)


def bwrap(stand, root, script):
    return stand.run("bwrap", "--bind", root.at, "/", "--proc", "/proc", "--dev", "/dev",
                     "--unshare-pid", "--unshare-ipc", "/bin/sh", "-c", script)


def nspawn(stand, root, script):
    return stand.run("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--directory",
                     root.at, "--pipe", "/bin/sh", "-c", script)


RUNNERS = {"runc": runc, "crun": crun, "bubblewrap": bwrap, "systemd-nspawn": nspawn}


def shifted(stand, lower):
    with stand.step("runc in a user namespace, ids shifted by the mount"):
        directory = stand.make("roots", "shifted")
        root = Root.__new__(Root)
        root.stand, root.name, root.at = stand, "shifted", f"{directory}/mnt"
        for part in ("up", "work", "mnt"):
            stand.make("roots", "shifted", part)
        shift = "0:300000:65536"
        stand.run(stand.path("bin/plyfs"), "mount", "-o",
                  f"lowerdir={lower},upperdir={directory}/up,workdir={directory}/work,"
                  f"uidmapping={shift},gidmapping={shift}", root.at)
        try:
            told = runc(stand, root, f"{CHANGES} id -u; ls -ln /data/new", shift=300000)
            same(told.split()[:1], ["0"], "the user's id inside")
            found = os.lstat(f"{directory}/up/data/new")
            same((found.st_uid, found.st_gid), (0, 0), "the owner of a new file in the upper")
        finally:
            root.end()


def helpers(stand, lower):
    """By mount(8), by its helpers, and by another name."""
    at = stand.make("roots", "helped")
    options = f"lowerdir={lower},"
    env = os.environ | {"PATH": stand.path("bin") + ":" + os.environ["PATH"] + ":/sbin:/usr/sbin"}
    commands = {
        "mount -t fuse.plyfs": ["mount", "-t", "fuse.plyfs", "an image", at, "-o", options],
        "mount.fuse3 -t plyfs": ["mount.fuse3", "source", at, "-o", options, "-t", "plyfs"],
        "the name fuse-overlayfs": ["fuse-overlayfs", "-o", options, at],
        "fuse-overlayfs, glued": ["fuse-overlayfs", f"-o{options}", at],
    }
    for name, command in commands.items():
        with stand.step(f"mounted by {name}"):
            stand.run(*command, env=env)
            try:
                same(os.path.exists(f"{at}/bin/busybox"), True, "whether it is there")
                with open("/proc/self/mounts") as file:
                    line = [line for line in file if f" {at} " in line][-1].split()
                same(line[2], "fuse.plyfs", "the type")
                expect("nodev" not in line[3] and "nosuid" not in line[3], line[3])
            finally:
                stand.run("umount", at)
