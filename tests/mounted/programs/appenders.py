# Several processes append to one file of a lower layer, and a reader follows.
def append(number):
    fd = os.open("f", os.O_WRONLY | os.O_APPEND)
    for line in range(100):
        os.write(fd, b"%d %d %s\n" % (number, line, b"x" * (line * 7 % 200)))
    os.close(fd)
    return "done"


early = os.open("f", os.O_RDONLY)
start, go = os.pipe()
children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        os.read(start, 1)
        append(number)
        os._exit(0)
    children.append(child)
os.write(go, b"....")
print([os.waitpid(child, 0)[1] for child in children])
data = content("f")
lines = data.splitlines()[1:]
print(len(lines), sorted(lines) == sorted(set(lines)), len(data), os.fstat(early).st_size)
for number in range(4):
    own = [line for line in lines if line.startswith(b"%d " % number)]
    print(own == [b"%d %d %s" % (number, n, b"x" * (n * 7 % 200)) for n in range(100)])
print(os.pread(early, 1 << 20, 0) == data)
