# A timer that ticks during the copy-up keeps nobody from opening the file.
ticks = 0


def tick(number, frame):
    global ticks
    ticks += 1


signal.signal(signal.SIGALRM, tick)
for path in "one", "two":
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    start = time.monotonic()
    # Not os.open: that one tries again by itself.
    fd = raw("open", os.fsencode(path), os.O_RDWR)
    took = time.monotonic() - start
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("opened", os.pwrite(fd, b"written", 0), content(path)[:10], os.stat(path).st_size)
    print("slow enough to tell", took > 0.02)
