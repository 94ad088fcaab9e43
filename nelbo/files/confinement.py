"""What a process gives up before it reads what strangers made: most of the memory, and the network."""

import ctypes
import platform
import resource

_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _NOT_PERMITTED = 0x7FFF0000, 0x00050001
_SOCKET_CALLS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""For each machine its number and that of socket(2), as linux/audit.h and the system call tables have them."""


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("then", ctypes.c_uint8), ("otherwise", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def confine(memory_mib: int) -> bool:
    """Limit this process for good: its address space, and no new sockets. False where the system allows sockets all the same.

    The network is closed for this thread and those it starts, so call it before any other work.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    return _forbid_sockets()


def _forbid_sockets() -> bool:
    """A seccomp filter (man 2 seccomp), which needs no privileges: socket(2) fails with EPERM."""
    if platform.system() != "Linux" or platform.machine() not in _SOCKET_CALLS:
        return False
    machine, socket_call = _SOCKET_CALLS[platform.machine()]
    instructions = (_Instruction * 6)(
        _Instruction(_LOAD, 0, 0, 4),
        _Instruction(_JUMP_IF_EQUAL, 0, 2, machine),
        _Instruction(_LOAD, 0, 0, 0),
        _Instruction(_JUMP_IF_EQUAL, 1, 0, socket_call),
        _Instruction(_RETURN, 0, 0, _ALLOW),
        _Instruction(_RETURN, 0, 0, _NOT_PERMITTED),
    )
    program = _Program(len(instructions), instructions)
    process = ctypes.CDLL(None)
    return not (
        process.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or process.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)
    )
