# What inotify tells of files that are copied up while they are watched.
watch = raw("inotify_init1", os.O_NONBLOCK)
ALL = 0xFFF
NAMES = {}
for name in ".", "f", "b", "d", "d/c", "t":
    # b and d/c are one file, and so one watch.
    NAMES.setdefault(raw("inotify_add_watch", watch, os.fsencode(name), ALL), []).append(name)


def events(what):
    print("==", what)
    while True:
        try:
            data = os.read(watch, 65536)
        except BlockingIOError:
            return
        while data:
            number, mask, cookie, size = struct.unpack("iIII", data[:16])
            name = data[16 : 16 + size].rstrip(b"\0").decode()
            print(NAMES.get(number), hex(mask), bool(cookie), name)
            data = data[16 + size :]


events("nothing yet")
put("f", b"copied up")
events("written")
put("f", b"more", os.O_WRONLY | os.O_APPEND)
events("appended")
os.chmod("f", 0o600)
events("mode")
os.utime("t", (1, 1))
events("times, by a copy-up")
put("d/c", b"through another name")
events("hard link")
os.setxattr("d", "user.x", b"y")
events("attribute of a directory")
os.truncate("b", 1)
events("truncated")
content("f")
events("read")
os.link("t", "u")
events("linked")
os.rename("f", "d/f")
events("renamed")
put("d/f", b"again")
events("written after the rename")
os.rename("d", "e")
put("e/f", b"again")
events("written after the directory's rename")
os.unlink("e/f")
events("removed")
os.unlink("b")
os.unlink("e/c")
events("a hard link removed altogether")
