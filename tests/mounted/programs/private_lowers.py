# Run beside a mounted plyfs, as one who may look at its server: what the server holds of the lower
# layer cannot be written to. Arguments: the server's process, the lower layer, the mount.
server, lower, mount = sys.argv[1:]
reader = os.open(mount + "/d/g", os.O_RDONLY)
known = {}
for path in "", "/d", "/d/g", "/f":
    found = os.stat(lower + path)
    known[found.st_dev, found.st_ino] = path
held = set()
for number in os.listdir(f"/proc/{server}/fd"):
    link = f"/proc/{server}/fd/{number}"
    try:
        found = os.stat(link)
    except OSError:
        continue
    name = known.get((found.st_dev, found.st_ino))
    if name is None:
        continue
    held.add(name)
    if stat.S_ISDIR(found.st_mode):
        below = {"": "/f", "/d": "/g"}[name]
        tell(f"write below {name}", os.open, link + below, os.O_WRONLY)
        tell(f"make below {name}", os.mkdir, link + "/made")
        tell(f"remove below {name}", os.unlink, link + below)
        tell(f"attributes below {name}", os.setxattr, link + below, "user.x", b"")
    else:
        tell(f"write to {name}", os.open, link, os.O_WRONLY)
    tell(f"change {name}", os.chmod, link, 0o700)
print("held", sorted(held))
