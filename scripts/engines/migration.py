"""Stores that go from one driver to another: what was written under fuse-overlayfs goes on under
plyfs, and what plyfs wrote goes on under kernel overlayfs and under fuse-overlayfs."""
import glob
import os
import shutil

from engines.building import PLAIN, build, context
from engines.podman import CHANGES, MOMENTS, Podman, saved
from engines.stand import compare, expect, same

# What else a container may do to an image: everything that is written as a mark of some kind.
MORE = """
set -e; b=/bin/busybox; cd /data
$b rm -r dir; $b mkdir dir; echo other > dir/other
$b mv moved once; $b mv once twice; $b chmod 640 twice/7; $b chown 20:30 twice/8
$b ln twice/9 third; echo linked >> third
$b cp -a /data/twice /copy; $b mv /copy /copied; $b rm -r /tmp; $b mkdir /tmp
$b rm replaced/again; echo file > instead; $b rm new; $b mkdir new; echo in > new/in
$b find /data -exec $b touch -h -d '2022-02-02 00:00:00' {} +
"""


def programs(stand):
    """fuse-overlayfs 1.10, as Debian has it, and 2.0, as crates.io has it."""
    where = stand.make("fuse-overlayfs")
    stand.run("apt-get", "download", "-qq", "fuse-overlayfs", cwd=where)
    package = glob.glob(f"{where}/*.deb")[0]
    stand.run("dpkg", "-x", package, f"{where}/debian")
    found = {"1.10": f"{where}/debian/usr/bin/fuse-overlayfs"}
    cargo = os.path.expanduser(os.environ.get("CARGO_HOME", "~/.cargo")) + "/bin/fuse-overlayfs"
    if not os.path.exists(cargo):
        stand.run("cargo", "install", "--quiet", "fuse-overlayfs@2.0.0", timeout=1800)
    shutil.copy(cargo, f"{where}/fuse-overlayfs-2.0")
    found["2.0"] = f"{where}/fuse-overlayfs-2.0"
    for version, program in found.items():
        told = stand.run(program, "--version")
        expect(version in told, f"{program} is not {version}: {told}")
    return found


def migration(stand, short=False):
    """From and to each, as root and as somebody else."""
    theirs = {}
    with stand.step("migration: fuse-overlayfs 1.10 and 2.0 are there"):
        theirs = programs(stand)
    reference = Podman(stand, "reference", mountopt="metacopy=on,index=on")
    wanted = []
    with stand.step("migration: what kernel overlayfs makes of it"):
        reference.pull("plain")
        reference("create", "--name", "c", "plain", "/bin/sleep", "1000")
        for number, script in enumerate((CHANGES, MORE)):
            work(reference, script)
            wanted.append(committed(reference, f"wanted{number}"))
    for version, program in theirs.items():
        for user in ((False,) if short else (False, True)):
            who = "rootless" if user else "root"
            name = f"m{version}{'u' if user else 'r'}"
            store = Podman(stand, name, program=program, user=user)
            there_and_back(stand, f"migration: from fuse-overlayfs {version}, {who}: ", store,
                           program, wanted)
    kernel = Podman(stand, "mkernel", mountopt="metacopy=on")
    there_and_back(stand, "migration: from kernel overlayfs, root: ", kernel, None, wanted)
    if not short:
        # The kernel follows no redirects of users. Its layers are others, too: it can rename no
        # directory, so that its users' programs copy them.
        kernel = Podman(stand, "mukernel", user=True)
        there_and_back(stand, "migration: from kernel overlayfs, rootless: ", kernel, None, None,
                       mountopt="redirect_dir=off,metacopy=off")


def work(store, script):
    """Lets the container do something."""
    store("start", "c")
    store("exec", "c", "/bin/sh", "-c", script)
    store("stop", "--time", "0", "c")
    store.settle("c")


def look(store):
    """All trees there are."""
    trees = {name: store.image_tree(name, *MOMENTS) for name in ("plain", "built")}
    return trees | {"c": store.container_tree("c", *MOMENTS)}


def unchanged(before, after):
    for name, text in before.items():
        compare(f"{name} before", text, f"{name} after", after[name])


def unchanged_layer(one, other):
    compare("before", other, "after", one)


def committed(store, name):
    store("commit", "--quiet", "c", name)
    return saved(store, name)


def there_and_back(stand, say, store, program, wanted, mountopt=None):
    """Everything under the one, then under plyfs, then under the one again. `wanted`: the layers
    that kernel overlayfs commits; fuse-overlayfs 1.10 forgets a whiteout. `mountopt`: plyfs's."""
    theirs = program, store.mountopt
    ours = stand.path("bin/plyfs"), mountopt
    seen = {}
    with stand.step(f"{say}a store is written"):
        store.pull("plain")
        build(store, context(stand, store, PLAIN, "plain"), "built", "--layers")
        store("create", "--name", "c", "plain", "/bin/sleep", "1000")
        work(store, CHANGES)
        seen = look(store)
    with stand.step(f"{say}plyfs shows the same"):
        store.set_program(*ours)
        unchanged(seen, look(store))
    if wanted:
        with stand.step(f"{say}a commit under plyfs is the layer that it has to be"):
            unchanged_layer(committed(store, "two"), wanted[0])
    with stand.step(f"{say}the container goes on under plyfs"):
        work(store, MORE)
        seen = look(store)
        if wanted:
            unchanged_layer(committed(store, "three"), wanted[1])
    with stand.step(f"{say}a build goes on from its cache under plyfs"):
        told = build(store, context(stand, store, PLAIN, "plain"), "rebuilt", "--layers")
        expect("Using cache" in told, told)
    with stand.step(f"{say}and back: the same trees"):
        store.set_program(*theirs)
        unchanged(seen, look(store))
    if wanted and program is None:
        with stand.step(f"{say}and back: a commit is the same layer"):
            unchanged_layer(committed(store, "four"), wanted[1])
    with stand.step(f"{say}and back: written to again, and read by plyfs"):
        work(store, "echo back > /data/back; /bin/busybox rm -r /data/new")
        seen = look(store)
        store.set_program(*ours)
        unchanged(seen, look(store))
    with stand.step(f"{say}reset"):
        store("system", "reset", "--force")
        same(store.left(), [], "what is left")
