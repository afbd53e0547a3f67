# Extended attributes: sizes, names, values, and what is refused.
def get(path, name, size):
    room = ctypes.create_string_buffer(size + 1)
    n = raw("lgetxattr", os.fsencode(path), name, room, size)
    return n, room.raw[:n] if size else b""


def names(path, size):
    room = ctypes.create_string_buffer(size + 1)
    n = raw("llistxattr", os.fsencode(path), room, size)
    return n, sorted(room.raw[:n].split(b"\0")) if size else n


CREATE, REPLACE = os.XATTR_CREATE, os.XATTR_REPLACE
for path in "f", "d":
    for copied in False, True:
        if copied:
            os.setxattr(path, "user.mine", b"mine")
        for size in 0, 1, 2, 3, 100:
            tell(f"{path} get {size}", get, path, b"user.low", size)
        length = names(path, 0)[0]
        for size in 1, length - 1, length, length + 1:
            tell(f"{path} list, {size - length} of {length}", names, path, size)
        tell("missing", get, path, b"user.none", 10)
        tell("remove missing", os.removexattr, path, "user.none")
        tell("create", os.setxattr, path, "user.low", b"", CREATE)
        tell("replace missing", os.setxattr, path, "user.none", b"", REPLACE)
        tell("both", os.setxattr, path, "user.low", b"", CREATE | REPLACE)
        tell("replace", os.setxattr, path, "user.low", b"new", REPLACE)
        tell("empty", os.setxattr, path, "user.empty", b"")
        tell("empty", get, path, b"user.empty", 10)
        tell("empty", get, path, b"user.empty", 0)
    odd = [b"user.", b"user.\xff\n= ", b"user." + b"n" * 250, b"user." + b"n" * 251, b"", b"x"]
    for name in odd:
        tell(f"name {name[:12]} of {len(name)}", os.setxattr, path, name, b"\0\xff\n")
        tell("got", get, path, name, 10)
        tell("removed", os.removexattr, path, name)
    for name in "trusted.x", "security.x", "system.x", "other.x", "system.posix_acl_access":
        tell(name, os.setxattr, path, name, b"value")
        tell(name, get, path, os.fsencode(name), 10)
    for size in 100, 1000, 3000, 5000, 65535, 65536, 65537:
        tell(f"value of {size}", os.setxattr, path, "user.big", b"v" * size)
        tell("its length", get, path, b"user.big", 0)
        tell("removed", os.removexattr, path, "user.big")
    tell("list", names, path, 5000)
for path in "link", "fifo":
    tell(path, lambda: os.setxattr(path, "user.x", b"", follow_symlinks=False))
    tell(path, lambda: os.setxattr(path, "trusted.x", b"t", follow_symlinks=False))
    tell(path, get, path, b"trusted.x", 10)
    tell(path, names, path, 100)
