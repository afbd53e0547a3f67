# Bytes moved between files by the kernel, and space given and taken.
def two(flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
    return os.open("big", os.O_RDONLY), os.open("to", flags, 0o644)


def ended(*fds):
    for fd in fds:
        os.close(fd)
    print(os.stat("to").st_size, content("to") == content("big"))


source, target = two()
while os.sendfile(target, source, None, 1 << 20):
    pass
ended(source, target)
source, target = two()
reader, writer = os.pipe()
while n := os.splice(source, writer, 65536):
    while n:
        n -= os.splice(reader, target, n)
ended(source, target, reader, writer)
source, target = two()
while os.copy_file_range(source, target, 1 << 20):
    pass
ended(source, target)
# Over what is in a lower layer, within one file, and where it must not go.
lower = os.open("lower", os.O_RDWR)
source = os.open("big", os.O_RDONLY)
tell("range", os.copy_file_range, source, lower, 5000, 100, 3)
tell("within", os.copy_file_range, lower, lower, 4, 0, 20)
tell("overlapping", os.copy_file_range, lower, lower, 40, 0, 20)
tell("to a reader", os.copy_file_range, lower, source, 4, 0, 0)
append = os.open("lower", os.O_WRONLY | os.O_APPEND)
tell("to an appender", os.copy_file_range, source, append, 4, 0, 0)
tell("past the end", os.copy_file_range, source, lower, 100, 1 << 30, 0)
tell("of nothing", os.copy_file_range, source, lower, 0, 0, 0)
print(os.stat("lower").st_size, content("lower")[:30])
# FICLONE, which this filesystem may have or not.
tell("clone", fcntl.ioctl, lower, 0x40049409, source)
KEEP, PUNCH, ZERO = 1, 2, 16
for mode in 0, KEEP, KEEP | PUNCH, ZERO, KEEP | ZERO, PUNCH, 128:
    os.truncate("lower", 20000)
    os.pwrite(lower, b"x" * 20000, 0)
    tell(f"fallocate {mode}", raw, "fallocate", lower, mode, 4096, 32768)
    data = content("lower")
    print(len(data), data[4090:4100], data[19990:20010])
for start, size in (-1, 5), (0, 0), (1 << 62, 1 << 62):
    tell(f"fallocate at {start}", raw, "fallocate", lower, 0, start, size)
tell("fallocate a reader", raw, "fallocate", source, 0, 0, 1)
tell("fallocate past the largest", raw, "fallocate", lower, 0, (1 << 63) - 4096, 8192)
