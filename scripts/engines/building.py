"""Builds by podman and buildah: the same image on plyfs as on kernel overlayfs, to the digest.

Without privileges, too, the reference is what root builds on kernel overlayfs: overlayfs mounted in
a user namespace leaves its `user.overlay.*` attributes in the layers that podman packs from it.
"""
import os
import time

from engines.podman import MOMENTS, UNSAID, WHEN, engines
from engines.stand import expect, same, tree

# Everything a Containerfile does to the directories of its base; no package manager, no network.
PLAIN = """
FROM plain AS first
SHELL ["/bin/sh", "-c"]
ENV PATH=/bin
COPY --chown=1000:2000 src /src
COPY --chmod=600 src/a /data/secret
RUN busybox mv /data/sub /data/moved && echo more >> /data/moved/1
RUN busybox rm -r /data/replaced && mkdir /data/replaced && echo in > /data/replaced/in
RUN busybox mv /data/moved/5 /data/five && busybox ln /data/five /data/cinq \\
 && busybox ln -s five /data/link && busybox chown -h 5:6 /data/link
RUN busybox rm -r /data/moved && echo a file now > /data/moved
RUN busybox chmod -R u+s,g+w /src && busybox chown -R 7:8 /src/sub
ADD more.tar /added
FROM plain
ENV PATH=/bin
COPY --from=first --chown=3:4 /src /copied
COPY --from=first /data /data2
RUN busybox cp -a /data /data3 && rm /data/gone && busybox rmdir /tmp && mkdir /tmp
WORKDIR /made/by/workdir
RUN echo last > here
VOLUME /vol
CMD ["/bin/cat", "/made/by/workdir/here"]
"""

# Packages: a distribution's and a language's, with what has times of its own removed.
PACKAGES = """
FROM debian AS build
ENV DEBIAN_FRONTEND=noninteractive PYTHONDONTWRITEBYTECODE=1
RUN apt-get update -qq && apt-get install -qq --no-install-recommends python3-pip file >/dev/null
RUN pip install --quiet --break-system-packages --no-compile --target /opt/py six==1.16.0 \\
    attrs==23.1.0
RUN mv /usr/share/doc /usr/share/doc-moved && rm -r /usr/share/man && mkdir /usr/share/man \\
 && rm -r /usr/share/doc-moved/adduser && mv /usr/share/doc-moved /usr/share/doc
RUN apt-get purge -qq file >/dev/null && apt-get autoremove -qq >/dev/null && apt-get clean
RUN rm -r /var/lib/apt/lists /var/log /var/cache && mkdir /var/log /var/cache \\
 && find / -xdev -name __pycache__ -prune -exec rm -r {} + \\
 && rm -f /var/lib/dpkg/*-old /etc/*-
FROM debian
COPY --from=build --chown=0:50 /opt/py /opt/py
COPY --from=build /usr/share/doc /usr/share/doc
RUN rm -r /usr/share/locale && mv /usr/share/zoneinfo /usr/share/zones || true
CMD ["/bin/ls", "/opt/py"]
"""


def context(stand, engine, containerfile, name):
    """A directory to build in, the same for all engines."""
    where = stand.make(engine.name, f"context-{name}", owner=engine.owner)
    stand.write(f"{where}/Containerfile", containerfile)
    for path, text in (("src/a", "a"), ("src/sub/b", "b" * 5000), ("more/x", "x")):
        stand.write(f"{where}/{path}", text)
        os.utime(f"{where}/{path}", (int(WHEN), int(WHEN)))
    if not os.path.exists(f"{where}/more.tar"):
        stand.run("tar", "--create", f"--mtime=@{WHEN}", "--owner=9:9", "--group=9:9",
                  "--numeric-owner", f"--file={where}/more.tar", f"--directory={where}/more", "x")
    for top, dirs, files in os.walk(where):
        for entry in dirs + files:
            os.lchown(os.path.join(top, entry), engine.owner, engine.owner)
    return where


def build(engine, where, tag, *more, tool="podman", target=None):
    """Builds; returns what was printed."""
    words = ["build" if tool == "podman" else "bud", "--timestamp", WHEN, "--tag", tag,
             "--network", "host", "--isolation", "chroot", "--format", "oci",
             "--volume", "/etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro",
             *more, *(["--target", target] if target else []), where]
    return engine.tool(tool, *words, timeout=1800)


def seen(engine, tag):
    """What counts of an image: its id depends on every digest, and on its configuration."""
    return engine.layers(tag), engine("image", "inspect", "--format", "{{.Id}}", tag).strip()


def buildah(stand, short=False, user=False):
    """podman build and buildah."""
    pair = engines(stand)[0], engines(stand, user)[1]
    say = ("build rootless: " if user else "build: ").__add__
    for engine in pair:
        engine.pull("plain")
    plain(stand, say, pair, short)
    if not short:
        cache(stand, say, pair)
        by_hand(stand, say, pair)
        packages(stand, say, pair)
    with stand.step(say("nothing stays mounted")):
        same(pair[1].left(), [], "what is left")


def plain(stand, say, pair, short):
    def one(engine, tool, *more):
        tag = f"plain-{tool}"
        build(engine, context(stand, engine, PLAIN, "plain"), tag, *more, tool=tool)
        return seen(engine, tag)
    stand.alike(say("podman build, several stages, the same digests"), lambda engine: one(
        engine, "podman", "--layers=false"), *pair)
    stand.alike(say("the built image's tree"), lambda engine: engine.image_tree(
        "plain-podman", *MOMENTS, *UNSAID), *pair)
    stand.alike(say("the built image runs"), lambda engine: engine(
        "run", "--rm", "plain-podman"), *pair)
    if short:
        return
    stand.alike(say("buildah bud: the same digests"), lambda engine: one(
        engine, "buildah", "--layers=false"), *pair)

    def first(engine):
        build(engine, context(stand, engine, PLAIN, "plain"), "first", target="first")
        return engine.image_tree("first", *MOMENTS, *UNSAID)
    stand.alike(say("renamed and deleted directories of the base, a layer a step: the same tree"),
                first, *pair)


def cache(stand, say, pair):
    def twice(engine):
        where = context(stand, engine, PLAIN, "plain")
        build(engine, where, "cached", "--layers")
        begin = time.monotonic()
        told = build(engine, where, "cached-again", "--layers")
        expect("Using cache" in told, told)
        expect(time.monotonic() - begin < 60, "the cache took as long as building")
        one, two = seen(engine, "cached"), seen(engine, "cached-again")
        same(one, two, "the image from the cache")
        return one[0]
    stand.alike(say("--layers: each layer's digest, and the cache is used"), twice, *pair)


def by_hand(stand, say, pair):
    def work(engine):
        def tool(*args):
            return engine.tool("buildah", *args)
        name = tool("from", "plain").strip()
        src = context(stand, engine, PLAIN, "plain") + "/src"
        tool("copy", "--chown", "11:12", name, src, "/copied")
        tool("run", "--isolation", "chroot", name, "/bin/sh", "-c",
             "/bin/busybox mv /data /elsewhere; echo x > /elsewhere/sub/1")
        tool("config", "--workingdir", "/", name)
        script = 'at=$(buildah mount "$0") && echo edited > "$at/elsewhere/edited"'
        if engine.user:
            tool("unshare", "sh", "-c", script, name)
        else:
            engine.tool("sh", "-c", script, name)
        tool("umount", name)
        tool("commit", "--quiet", "--timestamp", WHEN, name, "by-hand")
        tool("rm", name)
        return engine.layers("by-hand"), engine.image_tree("by-hand", *MOMENTS)
    stand.alike(say("buildah from, copy, run, mount, commit"), work, *pair)


def packages(stand, say, pair):
    for engine in pair:
        with stand.step(say(f"pull of debian ({engine.name})")):
            engine.pull("debian")

    def one(engine):
        where = context(stand, engine, PACKAGES, "packages")
        build(engine, where, "built", "--layers=false", target="build")
        # Without privileges podman makes no devices.
        return engine.image_tree("built", *MOMENTS, "/var/lib/systemd*:mtime",
                                 "/etc/ld.so.cache:content", *(["/dev/*"] * pair[1].user))
    stand.alike(say("apt and pip, the stage's tree"), one, *pair)

    def two(engine):
        where = context(stand, engine, PACKAGES, "packages")
        build(engine, where, "packages", "--layers=false")
        return seen(engine, "packages")
    stand.alike(say("apt and pip, the image's digests"), two, *pair)
    stand.alike(say("what was installed is there"), lambda engine: engine(
        "run", "--rm", "packages"), *pair)
