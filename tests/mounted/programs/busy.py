# Programs that run while somebody writes them, and the other way round.
for name in "sleeper", "own":
    if name == "own":
        put(name, content("/bin/sleep"), os.O_WRONLY | os.O_CREAT)
        os.chmod(name, 0o755)
    path = "./" + name
    writer = os.open(path, os.O_WRONLY)
    tell("run while it is written", lambda: subprocess.call([path, "0"]))
    os.close(writer)
    tell("run", lambda: subprocess.call([path, "0"]))
    running = subprocess.Popen([path, "10"])
    while os.readlink(f"/proc/{running.pid}/exe") != os.path.realpath(path):
        time.sleep(0.005)
    for flags in os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDONLY:
        tell(f"opened {flags} while it runs", lambda: os.close(os.open(path, flags)))
    tell("cut while it runs", os.truncate, path, 100)
    tell("chmod while it runs", os.chmod, path, 0o711)
    tell("renamed while it runs", os.rename, path, path + "-moved")
    tell("opened under the new name", lambda: os.close(os.open(path + "-moved", os.O_RDWR)))
    tell("linked", os.link, path + "-moved", path)
    tell("opened by the link", lambda: os.close(os.open(path, os.O_RDWR)))
    running.kill()
    running.wait()
    tell("opened after it ended", lambda: os.close(os.open(path, os.O_RDWR)))
    tell("run again", lambda: subprocess.call([path, "0"]))
