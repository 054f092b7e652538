"""Runs a command that may not ptrace, as in a container: `python no_ptrace.py COMMAND...`.

x86-64, seccomp(2), <linux/filter.h>, <linux/seccomp.h>.
"""

import ctypes
import errno
import os
import struct
import sys

PTRACE = 101  # <asm/unistd_64.h>
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2

PROGRAM = (  # code, jump if true, jump if false, operand
    (LOAD_WORD, 0, 0, 0),  # seccomp_data.nr
    (JUMP_IF_EQUAL, 0, 1, PTRACE),
    (RETURN, 0, 0, ERRNO | errno.EPERM),
    (RETURN, 0, 0, ALLOW),
)

code = b"".join(struct.pack("=HBBI", *instruction) for instruction in PROGRAM)
buffer = ctypes.create_string_buffer(code)
program = struct.pack("@HP", len(PROGRAM), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
for option, *arguments in (
    (PR_SET_NO_NEW_PRIVS, 1, None),
    (PR_SET_SECCOMP, MODE_FILTER, program),
):
    if libc.prctl(option, *arguments, 0, 0) != 0:
        sys.exit(f"prctl({option}): {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[1], sys.argv[1:])
