# An id-mapped mount of the working directory: whoever is 100000 and up there is 0 and up in it.
import tempfile

OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
CLONE_NEWUSER, CLONE_AND_CLOEXEC, MAP_IDS = 0x10000000, 0x80001, 0x100000
FROM_EMPTY, AT_FDCWD, AT_EMPTY = 4, -100, 0x1000


def namespace():
    """A user namespace whose 0 to 65535 are 100000 to 165535."""
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        raw("unshare", CLONE_NEWUSER)
        os.write(ready[1], b".")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    for kind in "uid_map", "gid_map":
        with open(f"/proc/{child}/{kind}", "w") as file:
            file.write("0 100000 65536")
    found = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    os.write(go[1], b".")
    os.waitpid(child, 0)
    return found


def owner(path):
    seen = os.lstat(path)
    return seen.st_uid, seen.st_gid, oct(seen.st_mode)


def as_user(user, call, *args):
    def changed():
        become(user)
        return call(*args)

    return elsewhere(changed)


def made(path, make):
    return as_user(100033, make, path), outcome(owner, path), outcome(owner, here(path))


def here(path):
    """The same object, not through the mapped mount."""
    return os.path.relpath(path, mapped)


mapped = tempfile.mkdtemp()
os.chmod(mapped, 0o755)
tree = raw("syscall", OPEN_TREE, AT_FDCWD, b".", CLONE_AND_CLOEXEC)
attributes = struct.pack("QQQQ", MAP_IDS, 0, 0, namespace())
raw("syscall", MOUNT_SETATTR, tree, b"", AT_EMPTY, attributes, len(attributes))
raw("syscall", MOVE_MOUNT, tree, b"", AT_FDCWD, mapped.encode(), FROM_EMPTY)
os.close(tree)
try:
    for name in "root", "web", "far", "team":
        tell(f"{name} is", owner, f"{mapped}/{name}")
    tell("file", made, f"{mapped}/file", lambda path: put(path, b"x", os.O_CREAT | os.O_WRONLY))
    tell("directory", made, f"{mapped}/dir", lambda path: os.mkdir(path, 0o2750))
    tell("link", made, f"{mapped}/link", lambda path: os.symlink("x", path))
    tell("pipe", made, f"{mapped}/pipe", os.mkfifo)
    tell("in a team's", made, f"{mapped}/team/file", os.mkfifo)
    tell("by nobody", put, f"{mapped}/none", b"x", os.O_CREAT | os.O_WRONLY)
    tell("read by its owner", as_user, 100033, content, f"{mapped}/web")
    tell("read by another", as_user, 100034, content, f"{mapped}/web")
    tell("written by its owner", as_user, 100033, put, f"{mapped}/web", b"changed")
    tell("chown to one that is there", os.chown, f"{mapped}/root", 100007, 100008)
    tell("chown to one that is not", os.chown, f"{mapped}/root", 7, -1)
    tell("both", lambda: (owner(f"{mapped}/root"), owner("root")))
    tell("chmod by its owner", as_user, 100033, os.chmod, f"{mapped}/web", 0o640)
    tell("chmod by another", as_user, 100034, os.chmod, f"{mapped}/web", 0o666)
    tell("rename", as_user, 100033, os.rename, f"{mapped}/file", f"{mapped}/moved")
    tell("link", as_user, 100033, os.link, f"{mapped}/moved", f"{mapped}/again")
    tell("unlink", as_user, 100034, os.unlink, f"{mapped}/again")
finally:
    # Who walks the tree of another test may be in it for a moment.
    for left in range(50, -1, -1):
        if subprocess.run(["umount", mapped], check=left == 0).returncode == 0:
            break
        time.sleep(0.1)
    os.rmdir(mapped)
