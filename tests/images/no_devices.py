"""Runs a command whose mknod(2) of devices is refused, as sandboxes refuse it: COMMAND..."""
import ctypes
import os
import platform
import struct
import sys

# Where the mode is among the arguments, by the number of the system call.
CALLS = {"x86_64": {133: 1, 259: 2}, "aarch64": {33: 2}}[platform.machine()]
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2
LOAD, MASK, EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


def step(code, value, yes=0, no=0):
    return struct.pack("=HBBI", code, yes, no, value)


program = b""
for number, mode in CALLS.items():
    for kind in (0x2000, 0x6000):  # character, block
        program += step(LOAD, 0) + step(EQUAL, number, 0, 4)
        program += step(LOAD, 16 + 8 * mode) + step(MASK, 0xF000) + step(EQUAL, kind, 0, 1)
        program += step(RETURN, ERRNO | 1)  # EPERM
program += step(RETURN, ALLOW)
code = ctypes.create_string_buffer(program)
filters = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, MODE_FILTER, filters, 0, 0):
    sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[1], sys.argv[1:])
