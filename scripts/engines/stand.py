"""Where container engines run without touching the machine, and how steps are counted.

A stand lies in namespaces of its own (mounts, processes), with its own /run, /dev/shm,
/var/lib/containers and user database: no engine finds the machine's stores, and whatever ends the
stand ends all that was started in it. What is left to remove is one directory, and cgroups.
"""
import contextlib
import difflib
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MARK = "PLYFS_ENGINES"
USER = "plyfs-engines"
UID = 4000
SUBIDS = (3_000_000, 200_000)


class Broken(Exception):
    """Something is not as it has to be."""


def expect(true, why):
    if not true:
        raise Broken(why)


def same(found, wanted, what="it"):
    expect(found == wanted, f"{what} is {found!r}, not {wanted!r}")


def enter():
    """Goes on in namespaces of its own: as a child of a process that reaps what is left there."""
    if os.environ.get(MARK) != "entered":
        os.environ[MARK] = "entered"
        os.execvp("unshare", ["unshare", "--mount", "--propagation=private", "--pid", "--fork",
                              "--kill-child", "--mount-proc", sys.executable, *sys.argv])
    os.environ.pop(MARK)
    child = os.fork()
    if not child:
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda caught, frame: os.kill(child, signal.SIGINT))
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xff)


class Stand:
    """The place, and the count of what went well in it."""

    def __init__(self, plyfs, images=None):
        self.plyfs = os.path.abspath(plyfs)
        self.images = images
        self.passed, self.failed = 0, []
        # Short, since the paths of sockets lie in it; and it can be a part of an image's name.
        self.dir = os.path.join(os.environ.get("TMPDIR", "/var/tmp"), "pe" + os.urandom(3).hex())
        os.mkdir(self.dir, 0o755)
        self.cgroup = f"plyfs-engines-{os.path.basename(self.dir)}"
        self.closing = []
        # What is mounted over the machine's own.
        self.covered = []

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def make(self, *parts, owner=None):
        path = self.path(*parts)
        os.makedirs(path, exist_ok=True)
        if owner:
            os.chown(path, owner, owner)
        return path

    def write(self, path, text, mode=0o644):
        path = self.path(path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def furnish(self):
        """Covers what would be the machine's."""
        # As on most machines; these namespaces are no peers of the machine's.
        self.run("mount", "--make-rshared", "/")
        with open("/etc/resolv.conf") as file:
            names = file.read()
        for path in ("/run", "/dev/shm", "/var/lib/containers", "/var/lib/cni"):
            if os.path.isdir(path):
                self.cover(path, "-t", "tmpfs", "-o", "mode=755", "plyfs-engines")
        os.chmod("/dev/shm", 0o1777)
        if not os.path.exists("/etc/resolv.conf"):  # it was a link into /run
            real = os.path.realpath("/etc/resolv.conf")
            os.makedirs(os.path.dirname(real))
            with open(real, "w") as file:
                file.write(names)
        self.divide_cgroups()
        first, count = SUBIDS
        for path, line in (
            ("/etc/passwd", f"{USER}:x:{UID}:{UID}::{self.path('home')}:/bin/sh"),
            ("/etc/group", f"{USER}:x:{UID}:"),
            ("/etc/subuid", f"{USER}:{first}:{count}"),
            ("/etc/subgid", f"{USER}:{first}:{count}"),
        ):
            with open(path) as file:
                own = self.write("etc/" + os.path.basename(path), file.read() + line + "\n")
            self.cover(path, "--bind", own)
        self.make("home", owner=UID)
        # Everybody may open this one, and only here.
        os.mknod(self.path("fuse"), 0o20666, os.makedev(10, 229))
        os.chmod(self.path("fuse"), 0o666)
        self.cover("/dev/fuse", "--bind", self.path("fuse"))
        # mount(8) starts helpers with a PATH of its own.
        self.cover("/usr/local/sbin", "-t", "tmpfs", "plyfs-engines")
        os.symlink(self.path("bin/plyfs"), "/usr/local/sbin/plyfs")
        # By the name that dockerd, and some scripts, look for.
        bin_dir = self.make("bin")
        shutil.copy(self.plyfs, f"{bin_dir}/plyfs")  # everybody may go there
        os.symlink("plyfs", f"{bin_dir}/fuse-overlayfs")

    def cover(self, path, *mount):
        self.run("mount", *mount, path)
        self.covered.append(path)

    def divide_cgroups(self):
        """On a machine with both versions of control groups crun wants no controller in the new
        one: what is nowhere yet is mounted as of the old one, as long as these namespaces live."""
        if not os.path.exists("/sys/fs/cgroup/unified"):
            return
        with open("/proc/cgroups") as file:
            lines = [line.split() for line in file if not line.startswith("#")]
        for name, _, _, enabled in lines:
            at = f"/sys/fs/cgroup/{name}"
            if enabled == "1" and not self.mounts(at) and name not in ("cpu", "cpuacct"):
                os.makedirs(at, exist_ok=True)
                self.run("mount", "-t", "cgroup", "-o", name, name, at)

    def run(self, *command, status=0, timeout=600, stdin=None, **how):
        """Runs a command and returns what it printed."""
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout,
                                  errors="surrogateescape", stdin=stdin or subprocess.DEVNULL,
                                  **how)
        except subprocess.TimeoutExpired as error:
            raise Broken(f"{' '.join(command)}: not done after {timeout} s") from error
        if status is not None and done.returncode != status:
            told = (done.stdout.strip() + "\n" + done.stderr.strip()).strip()
            raise Broken(f"{' '.join(map(str, command))}: status {done.returncode}: {told[-3000:]}")
        return done.stdout

    @contextlib.contextmanager
    def step(self, name):
        """One thing that has to work; what goes wrong in it is told, and counted."""
        begin = time.monotonic()
        try:
            yield
        except Exception as error:  # whatever it is, the next step may tell more
            self.failed.append(name)
            print(f"FAILED {name}", flush=True)
            told = str(error) if isinstance(error, Broken) else traceback.format_exc()
            print("    " + told.replace("\n", "\n    "), flush=True)
        else:
            self.passed += 1
            print(f"ok     {name} ({time.monotonic() - begin:.1f} s)", flush=True)

    def alike(self, name, job, *engines):
        """Does `job` with each engine; all must see what the first one sees."""
        with self.step(name):
            seen = [job(engine) for engine in engines]
            for engine, what in zip(engines[1:], seen[1:]):
                compare(engines[0].name, seen[0], engine.name, what)
            return seen[0]

    def image(self, name):
        """The path of an image by scripts/images.py, which everybody may read."""
        path = self.path("images", name)
        if os.path.exists(path):
            return path
        directory = self.make("images")
        if self.images and os.path.exists(os.path.join(self.images, name)):
            self.run("cp", "--recursive", os.path.realpath(os.path.join(self.images, name)), path)
        else:
            self.run(f"{HERE}/images.py", "make", directory, name, timeout=1800)
        self.run("chmod", "--recursive", "a+rX", path)
        return path

    def processes(self, *words):
        """The processes in whose command lines all of `words` occur."""
        found = []
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                line = file.read().replace(b"\0", b" ").decode(errors="replace")
                if line and all(word in line for word in words):
                    found.append(line)
        return found

    def mounts(self, below):
        """The mount points below a directory."""
        with open("/proc/self/mountinfo", errors="surrogateescape") as file:
            points = [line.split()[4] for line in file]
        return [point for point in points if point == below or point.startswith(below + "/")]

    def zombies(self):
        found = []
        for path in glob.glob("/proc/[0-9]*/stat"):
            with contextlib.suppress(OSError), open(path) as file:
                name, _, rest = file.read().rpartition(")")
                if rest.split()[0] == "Z":
                    found.append(name)
        return found

    def close(self):
        for closing in reversed(self.closing):
            with contextlib.suppress(Exception):
                closing()
        # All processes here are of this stand, but this one and the one that reaps.
        own = {1, os.getpid()}
        for _ in range(100):
            left = {int(name) for name in os.listdir("/proc") if name.isdigit()} - own
            if not left:
                break
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        for point in self.mounts(self.dir)[::-1] + self.covered[::-1]:
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
        for path in glob.glob(f"/sys/fs/cgroup/*/{self.cgroup}") + glob.glob(
                f"/sys/fs/cgroup/{self.cgroup}"):
            for inner, _, _ in os.walk(path, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(inner)
        subprocess.run(["rm", "--recursive", "--force", "--one-file-system", self.dir],
                       check=False)


def compare(name, one, other_name, other):
    """Refuses differences, and shows the first of them."""
    if one == other:
        return
    texts = []
    for what in (one, other):
        if not isinstance(what, str):
            what = json.dumps(what, indent=1, sort_keys=True, default=str)
        texts.append(what.splitlines())
    lines = list(difflib.unified_diff(*texts, name, other_name, lineterm="", n=0))
    raise Broken("\n".join(lines[:40]))


def tree(stand, path, *skip, run=None):
    """What can be seen of a tree, a line an entry."""
    skips = [f"--skip={pattern}" for pattern in skip]
    return (run or stand.run)("python3", f"{HERE}/same_tree.py", path, *skips)


def which(*names):
    return [name for name in names if not shutil.which(name)]
