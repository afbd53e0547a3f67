# Open files and directories whose last name is gone, or was taken by another.
def facts(fd):
    found = os.fstat(fd)
    links = found.st_nlink
    return oct(found.st_mode), links, found.st_uid, found.st_gid, found.st_mtime


def changed(what, fd):
    tell(f"{what}: chmod", os.fchmod, fd, 0o700)
    tell(f"{what}: chown", os.fchown, fd, 5, 6)
    tell(f"{what}: times", lambda: os.utime(fd, (100, 200)))
    tell(f"{what}: set", os.setxattr, fd, "user.n", b"v")
    tell(f"{what}: get", os.getxattr, fd, "user.n")
    tell(f"{what}: list", lambda: sorted(os.listxattr(fd)))
    tell(f"{what}: remove", os.removexattr, fd, "user.n")
    print(what, facts(fd))


for name in "lower", "merged", "upper":
    if name == "upper":
        os.mkdir(name)
    if name == "merged":
        put("merged/new", b"new", os.O_WRONLY | os.O_CREAT)
    dir = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
    for entry in os.listdir(name):
        os.unlink(name + "/" + entry)
    os.rmdir(name)
    changed(name, dir)
    tell("listed", os.listdir, dir)
    tell("made in it", os.open, "x", os.O_CREAT | os.O_WRONLY, 0o600)
    os.unlink("x")
    tell("made in it", lambda: os.open("x", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=dir))
    tell("directory in it", lambda: os.mkdir("x", dir_fd=dir))
    tell("looked up in it", lambda: os.stat("a", dir_fd=dir))
    tell("above it", lambda: os.stat("..", dir_fd=dir).st_ino == os.stat(".").st_ino)
    os.mkdir(name)
    print("another one", os.stat(name).st_ino != os.fstat(dir).st_ino, os.listdir(name))
    print("still gone", facts(dir))
    os.close(dir)

for flags in os.O_RDONLY, os.O_RDWR:
    for name in f"f{flags}", f"over{flags}", f"alias{flags}", f"new{flags}":
        if name.startswith("new"):
            put(name, b"0123456789", os.O_WRONLY | os.O_CREAT)
        fd = os.open(name, flags)
        mapping = mmap.mmap(fd, 10, mmap.MAP_SHARED, mmap.PROT_READ)
        if name.startswith("over"):
            os.rename("with" + name, name)
        else:
            os.unlink(name)
        changed(name, fd)
        tell("written", os.pwrite, fd, b"WR", 4)
        tell("cut", os.ftruncate, fd, 8)
        print(os.pread(fd, 20, 0), os.fstat(fd).st_size, mapping[:6])
        tell("locked", fcntl.flock, fd, fcntl.LOCK_EX)
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        print("opened again", os.pwrite(again, b"AGAIN", 0), os.pread(fd, 20, 0), mapping[:6])
        tell("synced", os.fsync, fd)
        tell("named", raw, "linkat", -100, b"/proc/self/fd/%d" % fd, -100, b"back", 0x400)
        os.close(again)
        os.close(fd)
    print(os.path.exists(f"other{flags}") and content(f"other{flags}"))
