# Files without a name, and what gives them one.
TMP = os.O_TMPFILE
AT_FDCWD, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = -100, 0x400, 0x1000


def name_it(fd, path):
    source = b"/proc/self/fd/%d" % fd
    return raw("linkat", AT_FDCWD, source, AT_FDCWD, os.fsencode(path), AT_SYMLINK_FOLLOW)


def facts(fd):
    found = os.fstat(fd)
    return oct(found.st_mode), found.st_nlink, found.st_size, found.st_uid, found.st_gid


os.umask(0o027)
for dir in ".", "lower", "lower/deep", "new":
    if dir == "new":
        os.mkdir(dir)
    before = sorted(os.listdir(dir))
    fd = os.open(dir, TMP | os.O_RDWR, 0o6666)
    print(dir, facts(fd), before == sorted(os.listdir(dir)))
    os.write(fd, b"content of " + dir.encode())
    os.setxattr(fd, "user.x", b"y")
    os.fchmod(fd, 0o640)
    print(facts(fd), os.pread(fd, 100, 0), os.getxattr(fd, "user.x"))
    tell("onto a name", name_it, fd, "lower/file")
    tell("named", name_it, fd, dir + "/made")
    print(facts(fd), content(dir + "/made"), os.getxattr(dir + "/made", "user.x"))
    print("same", os.stat(dir + "/made").st_ino == os.fstat(fd).st_ino)
    tell("named twice", name_it, fd, dir + "/made")
    tell("another name", name_it, fd, dir + "/second")
    os.pwrite(fd, b"CONTENT", 0)
    print(content(dir + "/second"), facts(fd))
    os.unlink(dir + "/made")
    os.unlink(dir + "/second")
    print("unlinked", facts(fd))
    tell("named again", name_it, fd, dir + "/made")
    os.close(fd)

# Where a lower name was removed.
os.unlink("lower/file")
fd = os.open("lower", TMP | os.O_WRONLY, 0o600)
os.write(fd, b"instead")
tell("over a removed name", name_it, fd, "lower/file")
tell("by the descriptor itself", raw, "linkat", fd, b"", AT_FDCWD, b"empty", AT_EMPTY_PATH)
os.close(fd)
print(content("lower/file"), sorted(os.listdir("lower")), sorted(os.listdir(".")))

fd = os.open(".", TMP | os.O_RDWR | os.O_EXCL, 0o600)
tell("never to be named", name_it, fd, "never")
os.close(fd)
tell("read-only", os.open, ".", TMP | os.O_RDONLY)
tell("in a file", os.open, "lower/file", TMP | os.O_RDWR)
tell("in nothing", os.open, "nothing", TMP | os.O_RDWR)
# A directory that hands down its group and its ACL.
fd = os.open("team", TMP | os.O_RDWR, 0o666)
print(facts(fd))
os.close(fd)
