# Runs a command under a filter of system calls. Needs root, so that what it runs may be setuid.
#   old COMMAND..    those calls of Linux 6.6 and later that plyfs does without are ENOSYS
#   bare COMMAND..   and no filesystem takes extended attributes: to set one is EOPNOTSUPP
import ctypes, errno, os, platform, struct, sys

NEW = {call: errno.ENOSYS for call in (452, 463, 464, 465, 466)}
SET = {call: errno.EOPNOTSUPP for call in
       {"x86_64": (188, 189, 190)}.get(platform.machine(), (5, 6, 7))}
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2

refused = {"old": NEW, "bare": NEW | SET}[sys.argv[1]]
steps = [(LOAD, 0, 0, 0)]
for call, error in refused.items():
    steps += [(EQUAL, 0, 1, call), (RETURN, 0, 0, ERRNO | error)]
steps.append((RETURN, 0, 0, ALLOW))
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
    sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[2], sys.argv[2:])
