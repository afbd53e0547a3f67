#!/usr/bin/env python3
"""Images by other people's tools, and whether plyfs shows what umoci unpacks from them.

    images.py make DIR NAME...            writes DIR/NAME, an OCI layout (or archive) each
    images.py check DIR PLYFS [NAME...]   imports each into a store of its own, mounts a container
                                          and compares it with `umoci unpack`

Names: debian (one layer, by mmdebstrap), app (four layers, python and npm packages: over 30,000
files), tall (120 layers with deletions and replacements), odd (every oddity a tar can hold), small
(three layers of busybox), buildah (by buildah), docker (docker save's format, by skopeo), zstd;
plain and plain-docker (as small, without the hard link across layers that podman and dockerd refuse).
As root; app and debian need a mirror and the package registries.
"""
import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def run(*command, **how):
    done = subprocess.run(command, capture_output=True, text=True, **how)
    if done.returncode:
        sys.exit(f"images.py: {' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def layout(path):
    run("umoci", "init", "--layout", path)
    run("umoci", "new", "--image", f"{path}:latest")


def add(path, tar):
    run("umoci", "raw", "add-layer", "--image", f"{path}:latest", tar)


def member(name, kind=tarfile.REGTYPE, **more):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, 0o644, 1_600_000_000
    if kind == tarfile.DIRTYPE:
        info.mode = 0o755
    for key, value in more.items():
        setattr(info, key, value)
    return info


class Layer:
    """A layer's tar, written member by member."""

    def __init__(self, path):
        self.path = path
        self.tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT, encoding="utf-8",
                                errors="surrogateescape")

    def dir(self, name, **more):
        self.tar.addfile(member(name, tarfile.DIRTYPE, **more))

    def file(self, name, content=b"", **more):
        content = content.encode() if isinstance(content, str) else content
        self.tar.addfile(member(name, size=len(content), **more), io.BytesIO(content))

    def node(self, name, kind, **more):
        self.tar.addfile(member(name, kind, **more))

    def close(self):
        self.tar.close()
        return self.path


def small(path, temp, across=True):
    layout(path)
    one = Layer(f"{temp}/1.tar")
    for name in ("bin", "etc", "data", "data/sub", "proc", "sys", "dev", "tmp"):
        one.dir(name)
    with open(shutil.which("busybox"), "rb") as file:
        one.file("bin/busybox", file.read(), mode=0o755)
    for name in ("sh", "cat", "ls", "id", "true", "env", "sleep", "touch", "rm", "mkdir"):
        one.node(f"bin/{name}", tarfile.SYMTYPE, linkname="busybox")
    one.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/data:/bin/sh\n")
    one.file("etc/group", "root:x:0:\napp:x:1000:\nextra:x:2000:app\n")
    for n in range(20):
        one.file(f"data/sub/{n}", f"file {n}\n" * n, uid=1000, gid=1000)
    one.file("data/gone", "deleted by layer 2")
    one.dir("data/replaced")
    one.file("data/replaced/old", "hidden by layer 2")
    add(path, one.close())
    two = Layer(f"{temp}/2.tar")
    two.file("data/.wh.gone")
    two.dir("data/replaced", mode=0o700)
    two.file("data/replaced/.wh..wh..opq")
    two.file("data/replaced/new", "new")
    two.file("data/sub/1", "changed", mode=0o600)
    add(path, two.close())
    three = Layer(f"{temp}/3.tar")
    three.file("data/gone", "back again")
    if across:
        three.node("data/sub/link", tarfile.LNKTYPE, linkname="data/sub/2")
    else:
        three.file("data/sub/2", "again\n", uid=1000, gid=1000)
        three.node("data/sub/link", tarfile.LNKTYPE, linkname="data/sub/2")
    add(path, three.close())
    run("umoci", "config", "--image", f"{path}:latest", "--config.env", "GREETING=hello",
        "--config.workingdir", "/data", "--config.cmd", "/bin/sh")


def odd(path, temp):
    layout(path)
    xattr = "SCHILY.xattr."
    one = Layer(f"{temp}/1.tar")
    one.dir("./", mode=0o711, mtime=1_500_000_000.25)
    one.dir("dir", mode=0o1777, uid=12, gid=34)
    one.file("dir/" + "n" * 255, "the longest name")
    one.file("dir/" + "/".join(["p" * 60] * 8), "a long path")
    one.file("dir/caf\udce9-\udcff", "not UTF-8")
    one.file("dir/setuid", "s", mode=0o4755, uid=65534, gid=65534)
    one.file("dir/setgid", "s", mode=0o2755)
    one.file("dir/nobits", "n", mode=0)
    one.file("dir/big-ids", "b", uid=2_000_000_000, gid=2_000_000_001)
    one.file("dir/before-1970", "b", mtime=-86_400.5,
             pax_headers={"mtime": "-86400.500000000"})
    one.file("dir/nanoseconds", "n", pax_headers={"mtime": "1234567890.123456789"})
    one.file("dir/year-2100", "y", mtime=4_102_444_800)
    one.file("dir/attributes", "a", pax_headers={
        xattr + "user.text": "value", xattr + "user.lines": "a\nb\n12 path=forged\n",
        xattr + "user.binary": bytes(range(1, 256)).decode("utf-8", "surrogateescape")})
    one.file("dir/capability", "c", mode=0o755, pax_headers={
        xattr + "security.capability": bytes.fromhex(
            "0100000200040000000000000000000000000000").decode("utf-8", "surrogateescape")})
    one.dir("dir/attributed", pax_headers={xattr + "user.on": "a directory"})
    one.node("dir/char", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    one.node("dir/block", tarfile.BLKTYPE, devmajor=259, devminor=300)
    one.node("dir/zero", tarfile.CHRTYPE, devmajor=0, devminor=0)
    one.node("dir/fifo", tarfile.FIFOTYPE)
    one.node("dir/symlink", tarfile.SYMTYPE, linkname="../../../../etc/passwd", uid=5, gid=6,
             mtime=1_000_000_000)
    one.node("dir/dangling", tarfile.SYMTYPE, linkname="x" * 4000)
    one.file("links/a", "linked")
    one.node("links/b", tarfile.LNKTYPE, linkname="links/a")
    one.node("links/c", tarfile.LNKTYPE, linkname="./links/b")
    one.node("links/symlink", tarfile.SYMTYPE, linkname="a")
    one.node("links/symlink2", tarfile.LNKTYPE, linkname="links/symlink")
    one.file("twice", "first", mode=0o600)
    one.file("twice", "second, longer", mode=0o640)
    one.file("was-file", "x")
    one.dir("was-file")
    one.dir("was-dir")
    one.file("was-dir/inside", "x")
    one.file("lower/kept", "k")
    one.file("lower/deleted", "d")
    one.file("lower/tree/x/y", "deleted with its tree")
    one.file("opaque/below", "hidden")
    one.file("opaque/again", "replaced")
    one.dir("moved-target")
    one.node("moved", tarfile.SYMTYPE, linkname="moved-target")
    one.file("group/one", "three names, two layers")
    one.node("group/two", tarfile.LNKTYPE, linkname="group/one")
    add(path, one.close())

    sparse = f"{temp}/sparse"
    os.makedirs(sparse)
    with open(f"{sparse}/holes", "wb") as file:
        file.truncate(64 << 20)
        file.seek(1 << 20)
        file.write(b"data" * 1024)
        file.seek(40 << 20)
        file.write(b"more" * 1024)
    with open(f"{sparse}/only-a-hole", "wb") as file:
        file.truncate(5_000_000)
    # umoci cannot read the fourth form, GNU tar's old one: src/image/tar has tests for it.
    for number, version in enumerate(("0.0", "0.1", "1.0")):
        run("tar", "--create", "--sparse", "--format=pax", f"--sparse-version={version}",
            "--numeric-owner", f"--file={temp}/s{number}.tar", f"--directory={sparse}",
            f"--transform=s,^,sparse{number}/,", "holes", "only-a-hole")
        add(path, f"{temp}/s{number}.tar")

    two = Layer(f"{temp}/2.tar")
    two.file("lower/.wh.deleted")
    two.file("lower/.wh.tree")
    two.file("opaque/new", "before the mark")
    two.file("opaque/.wh..wh..opq")
    two.file("opaque/again", "after the mark")
    two.file("moved/through-a-link", "lands in moved-target")
    two.node("group/three", tarfile.LNKTYPE, linkname="group/one")
    two.file("dir/marked", "no mark for us", pax_headers={
        xattr + "trusted.overlay.opaque": "y", xattr + "user.overlay.redirect": "/etc"})
    two.dir("fresh/implicit/parents")
    two.file(".wh..wh.plnk", "aufs's own")
    add(path, two.close())
    gnu = f"{temp}/gnu"
    os.makedirs(f"{gnu}/{'g' * 100}/{'h' * 120}")
    with open(f"{gnu}/{'g' * 100}/{'h' * 120}/{'i' * 200}", "w") as file:
        file.write("GNU's long names")
    os.symlink("t" * 300, f"{gnu}/{'g' * 100}/long-target")
    run("tar", "--create", "--format=gnu", "--numeric-owner", f"--file={temp}/gnu.tar",
        f"--directory={gnu}", "g" * 100)
    add(path, f"{temp}/gnu.tar")


def tall(path, temp):
    layout(path)
    for n in range(120):
        layer = Layer(f"{temp}/{n}.tar")
        layer.dir("each")
        layer.file(f"each/{n}", f"of layer {n}\n", mtime=1_600_000_000 + n)
        layer.file("last", f"layer {n} was here\n")
        if n % 3 == 2:
            layer.file(f"each/.wh.{n - 1}")
        if n % 40 == 39:
            layer.dir(f"block{n // 40}")
            layer.file(f"block{n // 40}/.wh..wh..opq")
        layer.file(f"block{n // 40}/{n}", b"x" * n)
        add(path, layer.close())


def debian(path, temp):
    layout(path)
    run("mmdebstrap", "--variant=minbase", "--include=ca-certificates", "bookworm",
        f"{temp}/debian.tar")
    add(path, f"{temp}/debian.tar")
    run("umoci", "config", "--image", f"{path}:latest", "--config.cmd", "/bin/bash")


def app(path, temp):
    debian(path, temp)
    base = f"{temp}/bundle"
    run("umoci", "unpack", "--image", f"{path}:latest", base)
    root = f"{base}/rootfs"
    run("pip", "install", "--quiet", "--break-system-packages", f"--target={root}/opt/python",
        "numpy", "pandas", "scikit-learn", "django")
    run("umoci", "repack", "--refresh-bundle", "--image", f"{path}:latest", base)
    os.makedirs(f"{root}/srv/web")
    run("npm", "install", "--silent", "--prefix", f"{root}/srv/web", "webpack", "@babel/core",
        "antd")
    run("umoci", "repack", "--refresh-bundle", "--image", f"{path}:latest", base)
    shutil.rmtree(f"{root}/usr/share/doc")
    shutil.rmtree(f"{root}/opt/python/django/contrib/admin")
    with open(f"{root}/etc/motd", "w") as file:
        file.write("welcome\n")
    run("umoci", "repack", "--refresh-bundle", "--image", f"{path}:latest", base)


def buildah(path, temp):
    tool = ["buildah", "--storage-driver=vfs", f"--root={temp}/storage", f"--runroot={temp}/run"]
    os.makedirs(f"{temp}/in/sub")
    with open(f"{temp}/in/sub/file", "w") as file:
        file.write("copied by buildah\n")
    container = run(*tool, "from", "scratch").strip()
    run(*tool, "copy", container, f"{temp}/in", "/in")
    run(*tool, "copy", container, shutil.which("busybox"), "/bin/busybox")
    run(*tool, "config", "--cmd", "/bin/busybox", container)
    run(*tool, "commit", container, f"oci:{path}:latest")


def converted(path, temp, *skopeo, across=True):
    small(f"{temp}/small", temp, across)
    run("skopeo", "copy", *skopeo[:-1], f"oci:{temp}/small:latest", skopeo[-1])


MAKERS = {
    "small": small, "odd": odd, "tall": tall, "debian": debian, "app": app, "buildah": buildah,
    "docker": lambda path, temp: converted(path, temp, f"docker-archive:{path}:small:docker"),
    "plain": lambda path, temp: small(path, temp, across=False),
    "plain-docker": lambda path, temp: converted(path, temp, f"docker-archive:{path}:plain:docker",
                                                 across=False),
    "zstd": lambda path, temp: converted(path, temp, "--dest-compress-format=zstd",
                                         f"oci:{path}:latest"),
}

# Where plyfs's answer is another than umoci's, as docs/SEMANTICS.md says ("Images"): a directory that
# a layer touches without an entry for it has the time it had, or 0 if it is new; with umoci it may
# have that of the import.
DIFFERENCES = {
    "odd": ["/:mtime", "/dir:mtime", "/fresh:mtime", "/fresh/implicit:mtime", "/links:mtime",
            "/lower:mtime", "/lower/tree:mtime", "/group:mtime", "/opaque:mtime",
            "/sparse?:mtime", "/dir/p*:mtime"],
    "tall": ["/:mtime", "/block?:mtime"],
}


def make(args):
    os.makedirs(args.dir, exist_ok=True)
    for name in args.names:
        path = os.path.join(args.dir, name)
        if not os.path.exists(path):
            with tempfile.TemporaryDirectory(dir=args.dir) as temp:
                MAKERS[name](path, temp)
        print(f"{name}: {path}")


def check(args):
    failed = []
    for name in args.names or [n for n in MAKERS if os.path.exists(f"{args.dir}/{n}")]:
        with tempfile.TemporaryDirectory(dir=args.dir) as temp:
            if not same(args, name, temp):
                failed.append(name)
    if failed:
        sys.exit(f"images.py: not as umoci has it: {' '.join(failed)}")


def for_umoci(image, temp):
    """The image as umoci can read it: an OCI layout whose layers are gzip."""
    if os.path.isfile(image):
        source = f"docker-archive:{image}"
    else:
        source = f"oci:{image}:" + run("umoci", "ls", "--layout", image).splitlines()[0]
        if "+zstd" not in run("skopeo", "inspect", "--raw", source):
            return source.removeprefix("oci:")
    run("skopeo", "copy", "--dest-compress-format=gzip", source, f"oci:{temp}/layout:latest")
    return f"{temp}/layout:latest"


def same(args, name, temp):
    image = os.path.join(args.dir, name)
    run("umoci", "unpack", "--image", for_umoci(image, temp), f"{temp}/umoci")
    os.mkdir(f"{temp}/mnt")
    store = ["--root", f"{temp}/store"]
    run(args.plyfs, *store, "image", "import", image, "--name", name)
    run(args.plyfs, *store, "create", name, "container")
    run(args.plyfs, *store, "mount", "container", f"{temp}/mnt")
    try:
        skips = [f"--skip={skip}" for skip in DIFFERENCES.get(name, [])]
        done = subprocess.run([f"{HERE}/same_tree.py", f"{temp}/umoci/rootfs", f"{temp}/mnt",
                               *skips], capture_output=True, text=True)
    finally:
        run(args.plyfs, *store, "umount", "container")
    run(args.plyfs, *store, "check")
    print(f"{name}: {done.stdout.strip()}{done.stderr.strip()}")
    return done.returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make")
    making.add_argument("dir")
    making.add_argument("names", nargs="+", choices=sorted(MAKERS))
    making.set_defaults(do=make)
    checking = commands.add_parser("check")
    checking.add_argument("dir")
    checking.add_argument("plyfs")
    checking.add_argument("names", nargs="*")
    checking.set_defaults(do=check)
    args = parser.parse_args()
    args.dir = os.path.abspath(args.dir)
    args.do(args)


main()
