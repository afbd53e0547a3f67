"""Runs a command as root of a user namespace that has 65,536 ids of its own: FIRST COMMAND..."""
import ctypes
import os
import subprocess
import sys

ready, told = os.pipe()
holder = os.fork()
if holder == 0:
    if ctypes.CDLL(None).unshare(0x10000000 | 0x20000):  # CLONE_NEWUSER, CLONE_NEWNS
        os._exit(1)
    os.write(told, b"x")
    os.execvp("sleep", ["sleep", "600"])
os.read(ready, 1)
try:
    for ids in ("uid_map", "gid_map"):
        with open(f"/proc/{holder}/{ids}", "w") as file:
            file.write(f"0 {sys.argv[1]} 65536\n")
    enter = ["nsenter", f"--target={holder}", "--user", "--mount", "--wd",
             "--setuid=0", "--setgid=0"]
    result = subprocess.run(enter + sys.argv[2:], stdin=subprocess.DEVNULL).returncode
finally:
    os.kill(holder, 9)
sys.exit(result)
