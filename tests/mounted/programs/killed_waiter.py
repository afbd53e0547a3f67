# A process is killed while it waits for the copy-up of a large file.
child = os.fork()
if child == 0:
    os.open("big", os.O_RDWR)
    os._exit(0)
time.sleep(0.2)
# Another one waits for the same copy-up, and a third for nothing.
second = os.fork()
if second == 0:
    os.open("big", os.O_WRONLY | os.O_APPEND)
    os._exit(0)
print(content("small"))
for pid in child, second:
    time.sleep(0.1)
    if os.waitpid(pid, os.WNOHANG) != (0, 0):
        print("it was done already")
    start = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    took = time.monotonic() - start
    print(ended, "at once" if took < 1 else f"after {took:.1f} s")
