# What the programs of this directory share. Each runs in the mount and in a plain directory with
# the same content; what it prints must be the same.
import ctypes, errno, fcntl, mmap, os, signal, stat, struct, subprocess, sys, time

libc = ctypes.CDLL(None, use_errno=True)


def raw(name, *args):
    """Calls a function of the C library; -1 is an error."""
    args = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    function = getattr(libc, name)
    function.restype = ctypes.c_long
    result = function(*args)
    if result in (-1, 0xFFFFFFFF):
        raise OSError(ctypes.get_errno(), name)
    return result


def outcome(call, *args):
    """What a call gave, or its errno."""
    try:
        return call(*args)
    except OSError as error:
        return errno.errorcode[error.errno]


def become(user):
    """Goes on as an unprivileged user in a group of the same number and no other."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def tell(what, call, *args):
    print(f"{what}: {outcome(call, *args)}", flush=True)


def elsewhere(call, *args):
    """The outcome of a call in another process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(outcome(call, *args)).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    text = os.read(reader, 4096).decode()
    os.close(reader)
    return text


def content(path):
    with open(path, "rb") as file:
        return file.read()


def put(path, data, flags=os.O_WRONLY, at=None):
    """Writes into a file in one call."""
    fd = os.open(path, flags, 0o644)
    try:
        return os.write(fd, data) if at is None else os.pwrite(fd, data, at)
    finally:
        os.close(fd)


