# A mapping made before the copy-up sees each kind of change that comes after it.
PAGE = 4096


def mapped(path):
    fd = os.open(path, os.O_RDONLY)
    mapping = mmap.mmap(fd, 4 * PAGE, mmap.MAP_SHARED, mmap.PROT_READ)
    os.close(fd)
    mapping[:1], mapping[3 * PAGE :]  # in the page cache
    return mapping


def shown(mapping, pages=4):
    return [mapping[n * PAGE : n * PAGE + 6] for n in range(pages)]


def through_a_mapping(path):
    fd = os.open(path, os.O_RDWR)
    mapping = mmap.mmap(fd, 4 * PAGE, mmap.MAP_SHARED)
    os.close(fd)
    mapping[PAGE : PAGE + 3] = b"MAP"


def copied_into(path, how):
    source, target = os.open("source", os.O_RDONLY), os.open(path, os.O_WRONLY)
    os.lseek(target, PAGE, os.SEEK_SET)
    n = 0
    if how == "sendfile":
        n = os.sendfile(target, source, 0, 6)
    elif how == "range":
        n = os.copy_file_range(source, target, 6, 0, PAGE)
    else:
        reader, writer = os.pipe()
        os.splice(source, writer, 6, 0)
        n = os.splice(reader, target, 6)
    os.close(source)
    os.close(target)
    return n


def fallocated(path, mode):
    fd = os.open(path, os.O_WRONLY)
    try:
        return raw("fallocate", fd, mode, PAGE, PAGE)
    finally:
        os.close(fd)


KEEP, PUNCH, ZERO = 1, 2, 16
changes = {
    "0": lambda path: put(path, b"WRITE", at=PAGE),
    "1": lambda path: put(path, b"END", os.O_WRONLY | os.O_APPEND),
    "2": lambda path: through_a_mapping(path),
    "3": lambda path: copied_into(path, "sendfile"),
    "4": lambda path: copied_into(path, "range"),
    "5": lambda path: copied_into(path, "splice"),
    "6": lambda path: fallocated(path, KEEP | PUNCH),
    "7": lambda path: fallocated(path, ZERO),
    "8": lambda path: put("link", b"LINK", at=PAGE),
    "9": lambda path: put(path, b"D" * PAGE, os.O_WRONLY, at=2 * PAGE),
}
for path, change in changes.items():
    mapping, early = mapped(path), os.open(path, os.O_RDONLY)
    tell(path, elsewhere, change, path)
    print(shown(mapping), os.pread(early, 6, PAGE), os.fstat(early).st_size)
    put(path, b"second", at=0)
    print(shown(mapping), os.pread(early, 6, 0))
    os.close(early)

# Cut to one page and made long again: the rest is zeros.
mapping = mapped("cut")
tell("cut", elsewhere, os.truncate, "cut", PAGE)
print(shown(mapping, 1))
tell("long again", elsewhere, os.truncate, "cut", 4 * PAGE)
print(shown(mapping))
mapping = mapped("emptied")
tell("emptied", elsewhere, put, "emptied", b"new", os.O_WRONLY | os.O_TRUNC)
print(mapping[:6])
# A private mapping keeps what it has of its own, and no writer sees that.
fd = os.open("private", os.O_RDONLY)
private = mmap.mmap(fd, 4 * PAGE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
private[:3] = b"OWN"
put("private", b"theirs", at=0)
print(private[:6], content("private")[:6])
