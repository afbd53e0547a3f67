# Symbolic links are changed themselves, and never followed by the filesystem.
def facts(path):
    found = os.lstat(path)
    times = found.st_atime_ns, found.st_mtime_ns
    return oct(found.st_mode), found.st_uid, found.st_gid, found.st_size, times


os.umask(0o077)
for path in "absolute", "dangling", "loop", "up", "new":
    if path == "new":
        os.symlink("/etc/passwd", path)
    os.utime(path, ns=(-5, 7_000_000_003), follow_symlinks=False)
    tell(f"{path} chown", lambda: os.chown(path, 7, 8, follow_symlinks=False))
    print(facts(path)[:4], facts(path)[4][1])
    tell("read", os.readlink, path)
    tell("link", lambda: os.link(path, path + "-2", follow_symlinks=False))
    print(os.lstat(path).st_nlink, os.lstat(path + "-2").st_ino == os.lstat(path).st_ino)
    tell("mode", raw, "fchmodat", -100, os.fsencode(path), 0o600, 0x100)
    tell("rename", os.rename, path, path + "-3")
    print(facts(path + "-3")[:4], os.readlink(path + "-3"))
    tell("opened", lambda: os.close(os.open(path + "-3", os.O_RDONLY | os.O_NOFOLLOW)))
    tell("followed", lambda: os.stat(path + "-3").st_size > 0)
    tell("with a slash", lambda: bool(os.stat(path + "-3/")))
    tell("unlink", os.unlink, path + "-2")
for size in 1, 4094, 4095, 4096:
    tell(f"target of {size}", os.symlink, "t" * size, f"long-{size}")
    tell("read", lambda: len(os.readlink(f"long-{size}")))
tell("empty target", os.symlink, "", "none")
