# Names and paths at their limits.
tell("256 bytes", os.stat, "n" * 256)
tell("256 bytes, made", os.open, "n" * 256, os.O_CREAT | os.O_WRONLY)
tell("256 bytes in the middle", os.stat, "n" * 256 + "/x")
tell("255 bytes", os.stat, "n" * 255)
for name in "n" * 255, "\xff\xfe".encode("latin-1"), b"new\nline", b" ", b"\x01", b"a\\b:c,d":
    tell(f"{name[:9]}", put, name, b"x", os.O_WRONLY | os.O_CREAT)
    tell("renamed", os.rename, name, name[:-1] + name[-1:] * 1)
print(sorted(os.listdir(b".")))
# A path of exactly 4095 bytes, and one of 4096.
here = os.getcwd()
part = "d" * 199 + "/"
path = "./" + part * 20
for depth in range(20):
    os.mkdir("./" + part * (depth + 1))
room = 4095 - len(path)
for size in room - 1, room, room + 1:
    leaf = path + "/" * (size - 50) + "f" * 50
    tell(f"a path of {len(leaf)}", put, leaf, b"deep", os.O_WRONLY | os.O_CREAT)
    tell("its size", lambda: os.stat(leaf).st_size)
    tell("link", lambda: os.link(leaf, "linked") or os.unlink("linked"))
    tell("removed", os.unlink, leaf)
# Below a lower directory that lies deep, renamed.
os.chdir("low")
for depth in range(20):
    os.chdir("e" * 240)
put("deepest", b"written", os.O_WRONLY)
print(content("deepest"), os.listdir("."))
os.mkdir("new")
os.rename("deepest", "new/f")
for depth in range(20):
    os.chdir("..")
print(os.path.samefile(".", here + "/low"))
os.chdir(here)
os.rename("low", "high")
subprocess.check_call(["rm", "-r", "high", "d" * 199])
print(os.path.exists("high"), os.path.exists("low"))
