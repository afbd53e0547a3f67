# Positions in a listing stay good while entries come and go.
def entries(fd, size):
    """One getdents64(2): (name, position of the next, type, inode) of each."""
    room = ctypes.create_string_buffer(size)
    n = raw("syscall", 217 if os.uname().machine == "x86_64" else 61, fd, room, size)
    data, found = room.raw[:n], []
    while data:
        ino, next, length, kind = struct.unpack("QqHB", data[:19])
        found.append((data[19:length].rstrip(b"\0").decode(), next, kind, ino))
        data = data[length:]
    return found


def rest(fd, size):
    found = []
    while some := entries(fd, size):
        found += some
    return found


fd = os.open("d", os.O_RDONLY | os.O_DIRECTORY)
everything = rest(fd, 4096)
print(len(everything), len({name for name, *_ in everything}))
print("positions differ", len({next for _, next, *_ in everything}) == len(everything))
before = {name for name, *_ in everything}
os.lseek(fd, 0, os.SEEK_SET)
part = entries(fd, 2000)
seen, position = [name for name, *_ in part], part[-1][1]
# Of those seen and of those not, a few go, and others come.
left = [name for name, *_ in everything if name not in seen]
for name in seen[5:15] + left[5:25]:
    if name not in (".", ".."):
        os.unlink("d/" + name)
for number in range(50):
    put(f"d/come-{number}", b"", os.O_WRONLY | os.O_CREAT)
put("d/" + left[40], b"copied up")
os.rename("d/" + left[41], "d/" + left[42])
later = [name for name, *_ in rest(fd, 700)]
print("repeated", len(later) - len(set(later)), set(later) & set(seen))
stayed = set(left) - set(left[5:25]) - {left[41]}
print("skipped", stayed - set(later))
# Back to the position, and to each position there is.
os.lseek(fd, position, os.SEEK_SET)
again = [name for name, *_ in rest(fd, 900)]
print("the same from there", stayed <= set(again), len(again) == len(set(again)))
os.lseek(fd, 0, os.SEEK_SET)
now = rest(fd, 4096)
for index, (name, next, *_) in enumerate(now):
    os.lseek(fd, next, os.SEEK_SET)
    after = entries(fd, 300)
    expected = now[index + 1][0] if index + 1 < len(now) else None
    if (after[0][0] if after else None) != expected:
        print("wrong after", index)
print("rewound", sorted(name for name, *_ in now) == sorted(os.listdir("d") + [".", ".."]))
for name, next, kind, ino in now:
    found = os.lstat("d/" + name)
    if kind != stat.S_IFMT(found.st_mode) >> 12:
        print("kind of", name, kind)
    if ino != found.st_ino:
        print("number of", name, ino, found.st_ino)
subprocess.check_call(["find", "d", "-mindepth", "1", "-delete"])
os.lseek(fd, 0, os.SEEK_SET)
print([name for name, *_ in rest(fd, 4096)])
os.rmdir("d")
tell("gone", rest, fd, 4096)
