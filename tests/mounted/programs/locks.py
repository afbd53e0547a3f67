# Locks of each kind, taken on a file before somebody opens it for writing.
F_OFD_SETLK = 37


def flock(path, flags, how):
    fd = os.open(path, flags)
    try:
        return fcntl.flock(fd, how | fcntl.LOCK_NB)
    finally:
        os.close(fd)


def record(path, flags, kind, command=fcntl.F_SETLK, start=0):
    fd = os.open(path, flags)
    try:
        fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, 4, 0))
        return "taken"
    finally:
        os.close(fd)


def take(fd, kind, command):
    return fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 4, 0))


EX, SH = fcntl.LOCK_EX, fcntl.LOCK_SH
WR, RD = fcntl.F_WRLCK, fcntl.F_RDLCK
held = os.open("one", os.O_RDONLY)
fcntl.flock(held, SH)
print("copied up", elsewhere(put, "one", b"W"), content("one")[:2])
tell("shared", elsewhere, flock, "one", os.O_RDONLY, SH)
tell("exclusive", elsewhere, flock, "one", os.O_RDWR, EX)
os.rename("one", "moved")
tell("moved", elsewhere, flock, "moved", os.O_RDWR, EX)
os.close(held)
tell("let go", elsewhere, flock, "moved", os.O_RDWR, EX)

# a and b are one file, and so are e and f.
for command in fcntl.F_SETLK, F_OFD_SETLK:
    path, alias = ("a", "b") if command == fcntl.F_SETLK else ("e", "f")
    held = os.open(path, os.O_RDONLY)
    take(held, RD, command)
    print("through the other name", elsewhere(put, alias, b"W"))
    for kind in WR, RD:
        for name in path, alias:
            flags = os.O_RDWR if kind == WR else os.O_RDONLY
            tell(f"{name} {kind}", elsewhere, record, name, flags, kind)
            tell(f"{name} {kind} ofd", elsewhere, record, name, flags, kind, F_OFD_SETLK)
        tell(f"beyond {kind}", elsewhere, record, alias, os.O_RDWR, kind, fcntl.F_SETLK, 4)
    os.close(held)
    tell("let go", elsewhere, record, alias, os.O_RDWR, WR)

# Somebody who waits for a lock from before the copy-up is woken when it goes.
held = os.open("waited", os.O_RDONLY)
fcntl.flock(held, EX)
ready, go = os.pipe()
child = os.fork()
if child == 0:
    own = os.open("waited", os.O_RDONLY)
    os.write(go, b".")
    fcntl.flock(own, EX)
    os._exit(7)
os.read(ready, 1)
time.sleep(0.05)
put("waited", b"copied up")
print("still waiting", os.waitpid(child, os.WNOHANG))
fcntl.flock(held, fcntl.LOCK_UN)
print("woken", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
