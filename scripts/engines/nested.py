"""podman inside podman, both with plyfs, beside both with kernel overlayfs."""
import os

from engines.podman import CHANGES, engines
from engines.stand import compare, expect, same

IMAGE = """
FROM debian
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update -qq && apt-get install -qq --no-install-recommends podman crun python3 \\
    >/dev/null && apt-get clean
"""
# What is run in the outer container; $1 is the mount program, or nothing.
INNER = """
set -e
mkdir -p /conf; cd /conf
# Without a mount program metacopy, with which podman compares trees, as it does with one.
option='mountopt = "metacopy=on,index=on"'
[ -z "$1" ] || option="mount_program = \\"$1\\""
cat > storage.conf <<END
[storage]
driver = "overlay"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers"
[storage.options.overlay]
$option
END
cat > containers.conf <<END
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
netns = "host"
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
END
export CONTAINERS_STORAGE_CONF=$PWD/storage.conf CONTAINERS_CONF=$PWD/containers.conf
podman load --quiet --input /image >&2
podman run --name changed plain:docker /bin/sh -c "$2" >&2
podman diff changed | sort
at=$(podman mount changed)
python3 /same_tree.py "$at/data"
podman umount changed >/dev/null
podman commit --quiet changed again >&2
podman image inspect --format '{{json .RootFS.Layers}}' plain:docker
for n in 1 2 3; do podman run --rm again /bin/cat /data/replaced/again; done
podman system reset --force >&2
"""


def nested(stand, short=False):
    """The inner store in a volume, and on the outer container's own root."""
    pair = engines(stand)
    ours = pair[1]
    where = stand.make("nested")
    stand.write(f"{where}/Containerfile", IMAGE)
    for engine in pair:
        with stand.step(f"nested: an image with podman in it ({engine.name})"):
            engine.pull("debian")
            engine("build", "--network", "host", "--isolation", "chroot", "--tag", "podman", where,
                   timeout=1800)

    def inner(engine, volume, program):
        name = "inside"
        command = ["run", "--rm", "--privileged", "--name", name, "--volume",
                   f"{stand.path('bin/plyfs')}:/usr/local/bin/plyfs:ro", "--volume",
                   f"{stand.image('plain-docker')}:/image:ro", "--volume",
                   f"{os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}/same_tree.py:"
                   "/same_tree.py:ro"]
        if volume:
            command += ["--volume", "/var/lib/containers"]
        return engine(*command, "podman", "bash", "-c", INNER, "inner",
                      program, CHANGES, timeout=1200)
    with stand.step("nested: both on kernel overlayfs, the store in a volume"):
        wanted = inner(pair[0], True, "")
        expect("again" in wanted, wanted)
    for name, volume, program in (
        ("both on plyfs, the store in a volume", True, "/usr/local/bin/plyfs"),
        ("both on plyfs, the store on the outer container's root", False, "/usr/local/bin/plyfs"),
        ("kernel overlayfs in a volume, inside of plyfs", True, ""),
    ):
        with stand.step(f"nested: {name}"):
            compare("kernel overlayfs", wanted, name, inner(ours, volume, program))
    with stand.step("nested: nothing stays mounted"):
        same(ours.left(), [], "what is left")
