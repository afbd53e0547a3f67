#!/usr/bin/env python3
"""The programs that run containers, on plyfs and on kernel overlayfs: podman, buildah, dockerd, runc,
crun, bubblewrap, systemd-nspawn; and stores that go from one driver to another.

    runtimes.py [--short] [--plyfs FILE] [--images DIR] SUITE...

Suites: podman, rootless (podman as another user), buildah, rootless-build, docker, runtimes (runc,
crun, bubblewrap, systemd-nspawn, mount(8)), nested (podman in podman), migration. Each step that has
to work is told, and the last line counts them. --images has images that scripts/images.py made;
those that it lacks are made. As root; everything happens in namespaces of its own and in a
directory below $TMPDIR (/var/tmp), which goes at the end.
"""
import argparse
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from engines import building, docker, migration, nested, podman, roots, stand  # noqa: E402

SUITES = {
    "podman": podman.podman,
    "rootless": lambda place, short: podman.podman(place, short, user=True),
    "buildah": building.buildah,
    "rootless-build": lambda place, short: building.buildah(place, short, user=True),
    "docker": docker.docker,
    "runtimes": roots.runtimes,
    "nested": nested.nested,
    "migration": migration.migration,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--plyfs", default="target/release/plyfs")
    parser.add_argument("--images")
    parser.add_argument("suites", nargs="+", choices=SUITES, metavar="SUITE")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("runtimes.py: namespaces, mounts and other users' programs need root")
    if not os.access(args.plyfs, os.X_OK):
        sys.exit(f"runtimes.py: {args.plyfs} is not there: cargo build --release")
    stand.enter()
    failed = passed = 0
    for name in args.suites:
        # A stand each: no suite finds what another one has left.
        place = stand.Stand(args.plyfs, args.images)
        try:
            place.furnish()
            with place.step(f"{name}: the suite comes to its end"):
                SUITES[name](place, args.short)
        except KeyboardInterrupt:
            sys.exit("runtimes.py: interrupted")
        finally:
            place.close()
        passed, failed = passed + place.passed, failed + len(place.failed)
        if place.failed:
            print(f"{name}: failed: " + "; ".join(place.failed))
    print(f"{passed} steps passed, {failed} failed", flush=True)
    # In the form that scripts/test.sh adds up.
    print(f"test result: {passed} passed; {failed} failed; 0 ignored;", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
