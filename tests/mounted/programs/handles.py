# File handles: those that could be opened later are refused, those that only tell files apart hold.
AT_FDCWD, AT_HANDLE_FID = -100, 0x200


def handle(path, flags):
    room = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
    mount = ctypes.c_int()
    raw("name_to_handle_at", AT_FDCWD, os.fsencode(path), room, ctypes.byref(mount), flags)
    return room.raw[: 8 + struct.unpack("I", room.raw[:4])[0]]


for path in ".", "f", "d":
    tell(f"{path}: to be opened", handle, path, 0)
fids = {path: handle(path, AT_HANDLE_FID) for path in (".", "f", "g", "d", "link")}
print("apart", len(set(fids.values())))
print("a hard link is the same", fids["f"] == handle("alias", AT_HANDLE_FID))
put("f", b"copied up")
os.rename("d", "e")
os.rename("f", "e/f")
print("after copy-up and rename", fids["f"] == handle("e/f", AT_HANDLE_FID))
print("of a directory", fids["d"] == handle("e", AT_HANDLE_FID))
held = os.open("g", os.O_RDONLY)
os.unlink("g")
put("g", b"another", os.O_WRONLY | os.O_CREAT)
print("of another file", fids["g"] == handle("g", AT_HANDLE_FID))
os.close(held)
# Numbers are not used again once a file is gone.
seen = set()
for _ in range(50):
    put("h", b"", os.O_WRONLY | os.O_CREAT)
    seen.add(handle("h", AT_HANDLE_FID))
    os.unlink("h")
print("of files made one after the other", len(seen))
mount = os.open(".", os.O_RDONLY)
room = ctypes.create_string_buffer(handle("g", AT_HANDLE_FID), 136)
tell("opened", raw, "open_by_handle_at", mount, room, os.O_RDONLY)
