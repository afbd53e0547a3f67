#!/usr/bin/env python3
"""Compares two directory trees in all that an image can say: type, mode, owners, size, mtime to the
nanosecond, link groups, extended attributes, device numbers, link targets, contents. Prints where
they differ, 40 lines at most, and ends with 1 then.

    same_tree.py A B [--skip PATTERN]...    PATTERN: PATH or PATH:FIELD, in fnmatch's words
    same_tree.py A [--skip PATTERN]...      prints what it sees of A, a line an entry
"""
import argparse
import fnmatch
import hashlib
import os
import stat
import sys

# What the kernel and the overlay put there themselves.
OWN_XATTRS = ("trusted.overlay.", "user.overlay.", "security.selinux")


def seen(top):
    """Path -> field -> value, for everything below `top` and itself."""
    found, names = {}, {}
    todo = [b""]
    top = os.fsencode(top)
    while todo:
        path = todo.pop()
        full = os.path.join(top, path) if path else top
        info = os.lstat(full)
        kind = stat.S_IFMT(info.st_mode)
        fields = {
            "type": oct(kind),
            "mode": oct(stat.S_IMODE(info.st_mode)),
            "owner": (info.st_uid, info.st_gid),
            "mtime": info.st_mtime_ns,
            "xattrs": xattrs(full),
        }
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            fields["device"] = (os.major(info.st_rdev), os.minor(info.st_rdev))
        if kind == stat.S_IFLNK:
            fields["target"] = os.readlink(full)
        if kind == stat.S_IFREG:
            fields["size"] = info.st_size
            with open(full, "rb") as file:
                fields["content"] = hashlib.file_digest(file, "sha256").hexdigest()
        if kind == stat.S_IFDIR:
            todo += [os.path.join(path, name) for name in os.listdir(full)]
        else:
            names.setdefault((info.st_dev, info.st_ino), []).append(path)
        found[path] = fields
    for group in names.values():
        for path in group:
            found[path]["links"] = sorted(group)
    return found


def xattrs(path):
    listed = sorted(os.listxattr(path, follow_symlinks=False))
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in listed
        if not name.startswith(OWN_XATTRS)
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a")
    parser.add_argument("b", nargs="?")
    parser.add_argument("--skip", action="append", default=[])
    args = parser.parse_args()

    def skipped(path, field):
        name = "/" + path.decode(errors="backslashreplace")
        return any(
            fnmatch.fnmatchcase(name, skip) or fnmatch.fnmatchcase(f"{name}:{field}", skip)
            for skip in args.skip
        )

    a = seen(args.a)
    if args.b is None:
        for path, fields in sorted(a.items()):
            if not skipped(path, "presence"):
                shown = [f"{key}={value}" for key, value in sorted(fields.items())
                         if not skipped(path, key)]
                print(repr(path)[1:], *shown)
        return
    b = seen(args.b)
    differences = []
    for path in sorted(a.keys() | b.keys()):
        one, other = a.get(path), b.get(path)
        if one is None or other is None:
            if not skipped(path, "presence"):
                differences.append(f"{path!r} is only in {args.a if other is None else args.b}")
            continue
        for field in sorted(one.keys() | other.keys()):
            if one.get(field) != other.get(field) and not skipped(path, field):
                differences.append(f"{path!r} {field}: {one.get(field)} and {other.get(field)}")
    for line in differences[:40]:
        print(line)
    if len(differences) > 40:
        print(f"... and {len(differences) - 40} more")
    print(f"{len(a)} entries, {len(differences)} differences")
    sys.exit(1 if differences else 0)


main()
