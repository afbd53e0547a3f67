# What an unprivileged owner's changes leave of set-id bits, capabilities and groups.
become(1000)


def caps(path):
    return isinstance(outcome(os.getxattr, path, "security.capability"), bytes)


def facts(path):
    found = os.stat(path)
    return oct(found.st_mode), found.st_uid, found.st_gid, caps(path), found.st_size


def append(path):
    return put(path, b"x", os.O_WRONLY | os.O_APPEND)


def fallocated(path):
    fd = os.open(path, os.O_WRONLY)
    try:
        return raw("fallocate", fd, 0, 0, 100)
    finally:
        os.close(fd)


def ranged(path):
    source, target = os.open("source", os.O_RDONLY), os.open(path, os.O_WRONLY)
    try:
        return os.copy_file_range(source, target, 3)
    finally:
        os.close(source)
        os.close(target)


changes = {
    "append": append,
    "truncate": lambda path: os.truncate(path, 2),
    "same": lambda path: os.truncate(path, os.stat(path).st_size),
    "empty": lambda path: put(path, b"", os.O_WRONLY | os.O_TRUNC),
    "open": lambda path: os.close(os.open(path, os.O_RDWR)),
    "nothing": lambda path: put(path, b""),
    "fallocate": fallocated,
    "range": ranged,
    "chmod": lambda path: os.chmod(path, 0o6711),
    "group": lambda path: os.chown(path, -1, os.getgid()),
    "owner": lambda path: os.chown(path, os.getuid(), -1),
    "away": lambda path: os.chown(path, 0, -1),
    "foreign": lambda path: os.chown(path, -1, 77),
    "xattr": lambda path: os.setxattr(path, "user.x", b"y"),
    "times": lambda path: os.utime(path, (1, 1)),
    "link": lambda path: os.link(path, path + "-link"),
    "rename": lambda path: os.rename(path, path + "-moved") or os.rename(path + "-moved", path),
}
for kind in "own", "open":
    for name, change in changes.items():
        path = f"{kind}-{name}"
        tell(f"{path}: {facts(path)}", change, path)
        print(facts(path))
        tell("again", append, path)
        print(facts(path))
# Bits that a chmod may not give.
for path, mode in ("team-file", 0o2755), ("own-chmod", 0o4755), ("team-dir", 0o2755):
    tell(path, os.chmod, path, mode)
    print(facts(path))
for dir in "setgid", "team-setgid":
    os.mkdir(dir + "/sub", 0o2777)
    put(dir + "/file", b"", os.O_WRONLY | os.O_CREAT)
    fd = os.open(dir + "/exec", os.O_WRONLY | os.O_CREAT, 0o2775)
    os.close(fd)
    os.mknod(dir + "/fifo", 0o2666 | stat.S_IFIFO)
    os.symlink("x", dir + "/link")
    for name in sorted(os.listdir(dir)):
        found = os.lstat(dir + "/" + name)
        print(dir, name, oct(found.st_mode), found.st_gid)
# Sticky directories: of root, and of one's own.
for dir in "sticky", "own-sticky":
    for name in "roots", "others", "own":
        tell(f"{dir} rename {name}", os.rename, f"{dir}/{name}", f"{dir}/{name}-moved")
        tell(f"{dir} replace {name}", os.rename, "source", f"{dir}/{name}-2")
        if os.path.exists(f"{dir}/{name}-2"):
            os.rename(f"{dir}/{name}-2", "source")
        tell(f"{dir} unlink {name}", os.unlink, f"{dir}/{name}")
        tell(f"{dir} rmdir {name}", os.rmdir, f"{dir}/{name}-dir")
    print(sorted(os.listdir(dir)))
