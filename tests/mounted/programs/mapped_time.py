# A write through a mapping moves mtime and ctime, also if nobody syncs.
for path in "lower", "copied":
    if path == "copied":
        put(path, b"x")
    os.utime(path, (1, 1))
    before = os.stat(path)
    fd = os.open(path, os.O_RDWR)
    mapping = mmap.mmap(fd, 4096, mmap.MAP_SHARED)
    os.close(fd)
    mapping[:3] = b"NEW"
    mapping.close()
    after = os.stat(path)
    print(path, after.st_mtime > 2, after.st_ctime_ns > before.st_ctime_ns, content(path)[:5])
    os.utime(path, (1, 1))
    fd = os.open(path, os.O_RDWR)
    mapping = mmap.mmap(fd, 4096, mmap.MAP_SHARED)
    os.close(fd)
    mapping[:3] = b"TWO"
    mapping.flush()
    print("synced", os.stat(path).st_mtime > 2)
