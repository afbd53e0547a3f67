# What needs marks on objects that cannot carry `user.*` attributes, and bits that shut their owner
# out, as whoever owns the tree. The arguments say what to do; without any, as after a remount, it
# only tells what is there.
NUMBERS = "../numbers-" + os.path.basename(os.getcwd())
KEPT = {
    "d/f": "moved/f",
    "d/sub/deep/x": "e/sub2/deep/x",
    "d/sub": "e/sub2",
    "one": "one",
    "l1": ".wh.l1",
    "p1": ".wh.p1",
    "s1": "s3",
    "e": "e",
    "big": "big",
    "shut/in": "shut/in",
}


def told(path, name):
    found = os.lstat(path)
    # What several layers make up does not count its subdirectories.
    links = "-" if stat.S_ISDIR(found.st_mode) else found.st_nlink
    facts = [oct(found.st_mode), links, found.st_uid, found.st_gid]
    if stat.S_ISDIR(found.st_mode):
        facts.append(outcome(lambda: sorted(os.listdir(path))))
    elif stat.S_ISLNK(found.st_mode):
        facts.append(os.readlink(path))
    else:
        facts.append((found.st_size, found.st_rdev, found.st_mtime_ns < 10**18))
    if stat.S_ISREG(found.st_mode):
        facts.append(outcome(lambda: content(path)[:16]))
    if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
        facts.append(outcome(lambda: sorted(os.listxattr(path))))
    print(name, *facts, flush=True)
    return found.st_ino


def everything():
    groups = {}
    for dir, dirs, files in os.walk("."):
        dirs.sort()
        for name in sorted(dirs + files):
            path = os.path.join(dir, name)
            groups.setdefault(told(path, path), []).append(path)
    print(*sorted(sorted(paths) for paths in groups.values() if len(paths) > 1))
    for name in sorted(os.listdir(".")):
        entries = {entry.name: entry.inode() for entry in os.scandir(".")}
        print(name, entries[name] == os.lstat(name).st_ino)


def remembered():
    """Whether the inode numbers are those of the beginning."""
    with open(NUMBERS) as file:
        for line in file:
            number, name = line.split()
            found = [path for path in dict.fromkeys((name, KEPT[name])) if os.path.lexists(path)]
            print(name, [os.lstat(path).st_ino == int(number) for path in found])


def moved():
    """Lines 1 to 12, and 14: deleted, made again, moved; never EXDEV."""
    tell("rename", os.rename, "d", "moved")
    tell("again", os.mkdir, "d")
    tell("rename", os.rename, "moved/sub", "e/sub2")
    tell("rename", os.rename, "e/sub2/deep", "e/sub2/deeper")
    tell("rename", os.rename, "e/sub2/deeper", "e/sub2/deep")
    tell("new in moved", put, "moved/new", b"new", os.O_CREAT | os.O_WRONLY)
    tell("unlink", os.unlink, "moved/g")
    tell("rmdir", os.rmdir, "full")
    tell("unlink", os.unlink, "full/x")
    tell("rmdir", os.rmdir, "full")
    tell("mkdir", os.mkdir, "full")
    tell("exchange", raw, "renameat2", -100, b"xa", -100, b"xb", 2)
    tell("exchange", raw, "renameat2", -100, b"l3", -100, b"d", 2)
    tell("no replace", raw, "renameat2", -100, b"y", -100, b"full/x", 1)


def marks():
    """Line 20: what looks like a mark."""
    tell("device 0:0", os.mknod, "zero", 0o600 | stat.S_IFCHR, 0)
    tell("device 0:0", os.mknod, "d2/zero", 0o200 | stat.S_IFCHR, 0)
    tell("real device", os.mknod, "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    tell("literal", os.symlink, "to", ".wh.new-link")
    tell("literal", os.mkfifo, "d2/.wh.fifo")
    tell("literal", os.rename, "p1", ".wh.p1")
    tell("literal", os.rename, "l1", ".wh.l1")
    tell("literal", os.mkdir, "d2/.wh.dir")
    tell("literal", os.rename, "d2/.wh.fifo", "d2/.wh.other")
    tell("literal, to be shown with what is below", put, "d2/.wh..wh..opq", b"text",
         os.O_CREAT | os.O_WRONLY)
    tell("attribute", os.setxattr, "d2", "user.overlay.opaque", b"y")
    tell("attribute", os.setxattr, "big", "user.overlay.redirect", b"/d")
    tell("attribute", os.getxattr, "big", "user.overlay.redirect")


def links():
    """Lines 21 to 24: links, of what can carry marks and of what cannot."""
    tell("chmod", os.chmod, "one", 0o640)
    tell("link", os.link, "two", "three")
    tell("written", put, "d2/alias", b"WRITTEN")
    tell("unlink", os.unlink, "two")
    tell("times of a link", lambda: os.utime("s1", (1, 2), follow_symlinks=False))
    tell("link of a link", lambda: os.link("s1", "s3", follow_symlinks=False))
    tell("unlink", os.unlink, "s2")
    tell("times of a fifo", lambda: os.utime("p2", (3, 4)))
    tell("chmod of a fifo", os.chmod, "p2", 0)
    tell("link of a fifo", os.link, "p2", "p3")


def metadata():
    """Line 43: changes of metadata alone."""
    tell("chmod", os.chmod, "big", 0o444)
    tell("times", lambda: os.utime("big", (5, 6)))
    tell("times of a link", lambda: os.utime("l3", (5, 6), follow_symlinks=False))


def bits():
    """Bits that shut the owner out."""
    for bits in 0, 0o200, 0o400, 0o111:
        tell("chmod", os.chmod, "worked-on", bits)
        print(oct(os.stat("worked-on").st_mode), outcome(content, "worked-on"),
              outcome(put, "worked-on", b"more"))
    tell("attribute", os.setxattr, "worked-on", "user.a", b"b")
    tell("link", os.link, "worked-on", "linked")
    tell("rename", os.rename, "linked", "renamed")
    tell("chmod", os.chmod, "renamed", 0o600)
    tell("put", put, "worked-on", b"put")
    tell("made read-only", lambda: os.close(os.open("made", os.O_CREAT | os.O_WRONLY, 0o444)))
    tell("rename", os.rename, "made", ".wh.made")
    tell("open", os.open, ".wh.made", os.O_WRONLY)
    for bits in 0, 0o300, 0o500, 0o400, 0o600:
        tell("chmod", os.chmod, "closed", bits)
        print(oct(os.stat("closed").st_mode), outcome(os.listdir, "closed"),
              outcome(lambda: os.stat("closed/in").st_size), outcome(os.mkdir, "closed/new"),
              outcome(os.rmdir, "closed/new"), outcome(os.rmdir, "closed"))
    tell("rename", os.rename, "closed", "closed2")
    tell("chmod", os.chmod, "closed2", 0o700)
    tell("rmdir", os.rmdir, "closed2")
    tell("within", os.chmod, "shut/in", 0o600)
    tell("within", put, "shut/in", b"IN")
    tell("within", os.unlink, "shut/in")
    tell("made shut", os.mkdir, "made-shut", 0)
    tell("within", os.mkdir, "made-shut/x")
    tell("chmod", os.chmod, "made-shut", 0o2755)
    tell("within", os.mkdir, "made-shut/x")
    tell("unlink", os.unlink, "unreadable")
    tell("rename", os.rename, "unsearchable", "unsearchable2")
    print(oct(os.stat("unsearchable2").st_mode), outcome(os.listdir, "unsearchable2"))
    tell("truncated", put, "only-written", b"all new", os.O_WRONLY | os.O_TRUNC)
    tell("chmod", os.chmod, "only-written", 0o600)
    tell("chmod", os.chmod, "empty", 0o400)


def unreadable():
    """Of the lower layer: what only a privileged server can do what a plain directory does with."""
    tell("open", put, "write-only", b"more", os.O_WRONLY | os.O_APPEND)
    for name in "write-only", "locked", "sealed":
        tell("chmod", os.chmod, name, 0o755)
    tell("read", content, "locked")
    tell("read", content, "write-only")
    tell("list", os.listdir, "sealed")
    tell("made", os.mkdir, "sealed/new")
    tell("inside", content, "sealed/in")


if not os.path.exists(NUMBERS):
    with open(NUMBERS, "w") as file:
        for name in KEPT:
            file.write(f"{os.lstat(name).st_ino} {name}\n")
for name in sys.argv[1:]:
    globals()[name]()
remembered()
everything()
