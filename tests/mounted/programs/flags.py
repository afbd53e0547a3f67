# File attributes that FUSE carries nowhere: refused as by a filesystem that has none, never EIO.
GETFLAGS, SETFLAGS, GETVERSION = 0x80086601, 0x40086602, 0x80087601
FSGETXATTR, FSSETXATTR, FIEMAP = 0x801C581F, 0x401C5820, 0xC020660B
TCGETS, CLONE = 0x5401, 0x40049409
for path in "f", "d", "copied", ".":
    if path == "copied":
        put(path, b"x")
    fd = os.open(path, os.O_RDONLY)
    for number in GETFLAGS, SETFLAGS, GETVERSION, FSGETXATTR, FSSETXATTR, FIEMAP, TCGETS:
        tell(f"{path} {number:x}", fcntl.ioctl, fd, number, bytes(64))
    os.close(fd)
    listed = subprocess.run(["lsattr", "-d", path], capture_output=True, text=True)
    print("lsattr", listed.returncode != 0, "Input/output" in listed.stderr)
fd = os.open("f", os.O_RDONLY)
# What is left to read is known without asking.
print(struct.unpack("i", fcntl.ioctl(fd, 0x541B, bytes(4))))
