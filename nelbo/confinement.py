"""Confinement: a process gives up the rights that reading a stranger's model or table never needs.

After `confine` the process opens only the paths that it named, uses no network, starts no program,
sends no signal to another process, and has a limit of memory. Its working directory is an empty
folder that no longer has a name. The kernel enforces this until the process ends: Landlock guards
the paths, and seccomp guards the system calls. `measures` says which of the two a machine has.

Both are called without a package: pyseccomp needs the system's libseccomp, which pip cannot
install.

https://docs.kernel.org/userspace-api/landlock.html,
https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

import ctypes
import errno
import os
import platform
import resource
import struct
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2

# Landlock: system calls 444 to 446 on every architecture
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
READ_FILE = 1 << 2
READ_FOLDER = 1 << 3
FILE_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""The number of file rights, from the first bit on, in each version of Landlock."""
NETWORK_SINCE = 4
SCOPES_SINCE = 6
ALL_NETWORK = 0b11
ALL_SCOPES = 0b11

# Instructions of seccomp's programs
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# Offsets in struct seccomp_data
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16
# Verdicts
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
X32 = 0x40000000
"""The first number of the second set of calls on x86_64."""
CLONE_THREAD = 0x10000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# fmt: off
REFUSED: Mapping[str, tuple[int | None, int | None]] = {
    "socket": (41, 198), "socketpair": (53, 199), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "connect": (42, 203), "sendto": (44, 206),
    "sendmsg": (46, 211), "sendmmsg": (307, 269), "fork": (57, None), "vfork": (58, None),
    "execve": (59, 221), "execveat": (322, 281), "kill": (62, 129), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "kcmp": (312, 272), "pidfd_getfd": (438, 438),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsmount": (432, 432), "mount_setattr": (442, 442),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "name_to_handle_at": (303, None),
    "open_by_handle_at": (304, None), "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195),
    "semget": (64, 190), "semctl": (66, 191), "msgget": (68, 186), "msgctl": (71, 187),
    "mq_open": (240, 180),
}
# fmt: on
"""System calls that confinement refuses, with their numbers on x86_64 and aarch64."""
CLONE = (56, 220)
CLONE3 = (435, 435)
PRLIMIT = (302, 261)

_INSTALLED = ("site-packages", "dist-packages")
"""Names of the folders of installed packages: the environment's, the system's and the user's."""
_FOLDERS = (
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    *(entry for entry in sys.path if Path(entry).name in _INSTALLED),
    "/usr/share/zoneinfo",
)
CODE = tuple(sorted({Path(folder) for folder in _FOLDERS if Path(folder).exists()}))
"""The folders of Python's own modules, of the installed ones, and of the time zones.

Some modules are loaded only when they are first used, after `confine`.
"""


@dataclass(frozen=True)
class Measures:
    """The means of confinement that this machine has."""

    landlock: int
    """Version of Landlock; 0 if the kernel has none."""
    seccomp: bool

    @property
    def complete(self) -> bool:
        """Whether paths, network, programs and signals are all guarded."""
        return self.landlock >= 1 and self.seccomp

    def __str__(self) -> str:
        files = "files NOT confined (this kernel has no Landlock)"
        if self.landlock:
            files = f"files by Landlock {self.landlock}"
        calls = "network NOT confined (no seccomp filter)"
        if self.seccomp:
            calls = "network, programs and signals by seccomp"
        return f"{files}; {calls}"


def measures() -> Measures:
    """The means of confinement of this kernel and this architecture."""
    version = LIBC.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(RULESET_VERSION))
    # Without a program, a kernel that has filters answers EFAULT, any other EINVAL.
    try:
        _control(PR_SET_SECCOMP, SECCOMP_MODE_FILTER)
    except OSError as problem:
        filters = problem.errno == errno.EFAULT
    return Measures(max(0, version), filters and platform.machine() in ARCHITECTURES)


def confine(*, memory_mib: int, read: Sequence[Path] = (), write: Sequence[Path] = ()) -> Measures:
    """Confine this process until it ends: the calling thread, and all threads that it starts later.

    The process may read files and folders in `read`, read and write those in `write`, and open no
    others. Open files stay open. Call this before a second thread starts: threads that already run
    are not confined.
    """
    means = measures()
    _enter_empty_folder()

    limit = memory_mib << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # The soft limit may come from limit_memory in the parent process, so it is lifted.
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    _control(PR_SET_NO_NEW_PRIVS, 1)
    if means.landlock:
        _guard_paths(means.landlock, read, write)
    if means.seccomp:
        _guard_calls(platform.machine())
    return means


def limit_memory(mib: int) -> None:
    """Limit the memory of this process: an allocation beyond the limit raises MemoryError.

    Child processes inherit the limit; `confine` gives them their own.
    """
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = mib << 20
    if most == resource.RLIM_INFINITY or limit < most:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def _enter_empty_folder() -> None:
    """Change into an empty folder and remove it, so that no file can be created there."""
    try:
        folder = tempfile.mkdtemp(prefix="nelbo-")
    except OSError:  # the disk is full
        os.chdir("/")
    else:
        os.chdir(folder)
        os.rmdir(folder)


def _guard_paths(version: int, read: Sequence[Path], write: Sequence[Path]) -> None:
    """Let Landlock refuse all paths, network and signals, except for the paths that are listed."""
    rights = (1 << FILE_RIGHTS_BY_VERSION[min(version, max(FILE_RIGHTS_BY_VERSION))]) - 1
    network = ALL_NETWORK if version >= NETWORK_SINCE else 0
    scopes = ALL_SCOPES if version >= SCOPES_SINCE else 0
    size = 24 if scopes else 16 if network else 8
    attributes = struct.pack("QQQ", rights, network, scopes)[:size]
    ruleset = _call(CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint(0))
    try:
        for path in read:
            _allow(ruleset, path, READ_FILE | READ_FOLDER)
        for path in write:
            _allow(ruleset, path, rights)
        _call(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    if not path.is_dir():
        rights &= ~((1 << 13) - (1 << 3)) & ~1  # those on a folder's entries, and to execute
    kind = ctypes.c_int(RULE_PATH_BENEATH)
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, descriptor)
        _call(ADD_RULE, ctypes.c_int(ruleset), kind, rule, ctypes.c_uint(0))
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    result: int = LIBC.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock refuses: {os.strerror(code)}")
    return result


def _guard_calls(machine: str) -> None:
    """Let seccomp refuse the listed calls, new processes, and limits of another process.

    New threads stay allowed.
    """
    program = _program(ARCHITECTURES[machine], list(ARCHITECTURES).index(machine))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    _control(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(header))


_Step = tuple[int, int, int, int]
"""An instruction of a seccomp program: code, steps to skip if true and if false, operand."""


def _program(architecture: int, column: int) -> list[_Step]:
    """The seccomp program. column: that of the architecture in the tables of numbers."""
    program: list[_Step] = [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_AT),
        (AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, KILL),
    ]
    for numbers in REFUSED.values():
        if (number := numbers[column]) is not None:
            program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE | errno.EPERM)]
    # After ENOSYS the C library calls clone, whose flags a program can read.
    program += [(EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]
    program += _first_argument(CLONE[column], (ANY_BIT, 1, 0, CLONE_THREAD))
    program += _first_argument(PRLIMIT[column], (EQUAL, 1, 0, 0))
    return [*program, (RETURN, 0, 0, ALLOW)]


def _first_argument(number: int, allowed: _Step) -> list[_Step]:
    """Steps that refuse a call unless its first argument passes the test."""
    test = [
        (LOAD, 0, 0, FIRST_ARGUMENT_AT),
        allowed,
        (RETURN, 0, 0, REFUSE | errno.EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
    return [(EQUAL, 0, len(test), number), *test]


def _control(option: int, value: int, pointer: object = None) -> None:
    """Call prctl, whose arguments have the size of a pointer. Raises OSError."""
    zero = ctypes.c_ulong(0)
    if LIBC.prctl(option, ctypes.c_ulong(value), zero if pointer is None else pointer, zero, zero):
        code = ctypes.get_errno()
        raise OSError(code, f"prctl {option} refuses: {os.strerror(code)}")
