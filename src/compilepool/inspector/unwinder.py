"""Unwinds stacks with libdw, the library of elfutils.

The inspector gives it registers and memory. The declarations are in <elfutils/libdwfl.h>. libdw
itself reads `/proc/PID/maps` and the files that are mapped there. It attaches to nothing.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any

from compilepool.inspector.demangle import readable_name
from compilepool.inspector.registers import Registers
from compilepool.inspector.target import Maps, Target
from compilepool.inspector.thread_snapshot import ThreadSnapshot
from compilepool.wire.native_report import MAX_FRAMES, UNKNOWN, Frame

_CONTINUE, _ABORT = 0, 1  # DWARF_CB_OK, DWARF_CB_ABORT

_WORD = struct.Struct("<Q")

_pointer = ctypes.c_void_p
_address = ctypes.c_uint64

_FIND_DEBUGINFO = ctypes.CFUNCTYPE(ctypes.c_int, *[_pointer] * 8)
_NEXT_THREAD = ctypes.CFUNCTYPE(ctypes.c_int, _pointer, _pointer, _pointer)
_GET_THREAD = ctypes.CFUNCTYPE(ctypes.c_bool, _pointer, ctypes.c_int, _pointer, _pointer)
_READ_MEMORY = ctypes.CFUNCTYPE(
    ctypes.c_bool, _pointer, _address, ctypes.POINTER(_address), _pointer
)
_SET_REGISTERS = ctypes.CFUNCTYPE(ctypes.c_bool, _pointer, _pointer)
_DETACH = ctypes.CFUNCTYPE(None, _pointer, _pointer)
_ON_FRAME = ctypes.CFUNCTYPE(ctypes.c_int, _pointer, _pointer)


class LibdwError(Exception):
    """libdw could not be loaded, or cannot read the process."""


class Unwinder:
    """Unwinds the threads of one process.

    Args:
        target: the process.
        maps: the mappings of the process.
        libdw: the path or name of libdw.

    Raises:
        LibdwError: libdw could not be loaded, or cannot read the process.
    """

    def __init__(self, target: Target, maps: Maps, libdw: str) -> None:
        self._target = target
        self._maps = maps
        self._snapshot = ThreadSnapshot(Registers({}))
        self._frames: list[Frame] = []
        self._lookup_pcs: list[int] = []
        self._is_cut = False
        self._dw = _load(libdw)
        # These must live as long as libdw may call or read them.
        self._callbacks = [
            # Symbol tables suffice; the default might ask the network.
            _FIND_DEBUGINFO(lambda *_: -1),
            _NEXT_THREAD(lambda *_: 0),
            _GET_THREAD(lambda *_: True),
            _READ_MEMORY(self._read_memory),
            _SET_REGISTERS(self._set_registers),
            _DETACH(lambda *_: None),
            _ON_FRAME(self._on_frame),
        ]
        find_debuginfo, *thread_callbacks, self._frame_callback = self._callbacks
        self._files = (_pointer * 4)(
            _as_pointer(self._dw.dwfl_linux_proc_find_elf), _as_pointer(find_debuginfo)
        )
        self._threads = (_pointer * 6)(*map(_as_pointer, thread_callbacks))
        self._dwfl = self._begin()

    def unwind(self, snapshot: ThreadSnapshot) -> tuple[list[Frame], bool]:
        """The frames of a thread without names, the most recent first.

        Returns:
            At most `MAX_FRAMES` frames, and whether there are more.
        """
        self._frames = []
        self._lookup_pcs = []
        self._is_cut = False
        registers = snapshot.registers
        if self._maps.code_at(registers.pc) is None:
            # This is a call to a bad address. It has only pushed the return address.
            self._add(registers.pc, registers.pc)
            word = self._target.read(registers.sp, _WORD.size)
            if len(word) < _WORD.size:
                return self._frames, False
            registers = registers.with_pc_and_sp(_WORD.unpack(word)[0], registers.sp + _WORD.size)
        self._snapshot = ThreadSnapshot(registers, snapshot.stack_start, snapshot.stack)
        self._dw.dwfl_getthread_frames(self._dwfl, self._target.pid, self._frame_callback, None)
        return self._frames, self._is_cut

    def named(self, frames: list[Frame]) -> list[Frame]:
        """The frames that `unwind` has returned last, with names.

        It can take seconds to read the symbol table of a large library from a slow disk.
        """
        pairs = zip(frames, self._lookup_pcs, strict=True)
        return [self._named(frame, lookup_pc) for frame, lookup_pc in pairs]

    def _begin(self) -> ctypes.c_void_p:
        dw = self._dw
        dwfl = _pointer(dw.dwfl_begin(self._files))
        if not dwfl:
            raise self._error("dwfl_begin")
        if dw.dwfl_linux_proc_report(dwfl, self._target.pid) != 0:
            raise self._error("dwfl_linux_proc_report")
        dw.dwfl_report_end(dwfl, None, None)
        if not dw.dwfl_attach_state(dwfl, None, self._target.pid, self._threads, None):
            raise self._error("dwfl_attach_state")
        return dwfl

    def _error(self, call: str) -> LibdwError:
        text = self._dw.dwfl_errmsg(-1) or b"no reason given"
        return LibdwError(f"{call} failed: {text.decode(errors='replace')}")

    def _read_memory(self, _: Any, address: int, result: Any, __: Any) -> bool:
        offset = address - self._snapshot.stack_start
        if 0 <= offset <= len(self._snapshot.stack) - _WORD.size:
            (result[0],) = _WORD.unpack_from(self._snapshot.stack, offset)
            return True
        word = self._target.read(address, _WORD.size)
        if len(word) < _WORD.size:
            return False
        (result[0],) = _WORD.unpack(word)
        return True

    def _set_registers(self, thread: int, _: Any) -> bool:
        for number, value in self._snapshot.registers.values.items():
            if not self._dw.dwfl_thread_state_registers(
                _pointer(thread), number, 1, (_address * 1)(value)
            ):
                return False
        return True

    def _on_frame(self, state: int, _: Any) -> int:
        pc = _address()
        is_activation = ctypes.c_bool()
        if not self._dw.dwfl_frame_pc(
            _pointer(state), ctypes.byref(pc), ctypes.byref(is_activation)
        ):
            return _ABORT
        if len(self._frames) == MAX_FRAMES:
            self._is_cut = True
            return _ABORT
        # A caller's pc is a return address. After a call that never returns, it may belong to the
        # next function.
        self._add(pc.value, pc.value if is_activation.value else pc.value - 1)
        return _CONTINUE

    def _add(self, pc: int, lookup_pc: int) -> None:
        self._frames.append(bare_frame(self._maps, pc))
        self._lookup_pcs.append(lookup_pc)

    def _named(self, frame: Frame, lookup_pc: int) -> Frame:
        address = _address(lookup_pc)
        module = self._dw.dwfl_addrmodule(self._dwfl, address)
        symbol = self._dw.dwfl_module_addrname(_pointer(module), address) if module else None
        return frame._replace(function=readable_name(symbol)) if symbol else frame


def bare_frame(maps: Maps, pc: int) -> Frame:
    """A frame without the function's name, from its pc alone."""
    mapping = maps.at(pc)
    if mapping is None:
        return Frame(UNKNOWN, None, 0, pc)
    return Frame(UNKNOWN, mapping.name, pc - mapping.base, pc)


def _load(libdw: str) -> Any:
    if not libdw:
        raise LibdwError("no path of it was given")
    try:
        dw = ctypes.CDLL(libdw)
        for name in ("dwfl_begin", "dwfl_addrmodule"):
            getattr(dw, name).restype = _pointer
        for name in ("dwfl_errmsg", "dwfl_module_addrname"):
            getattr(dw, name).restype = ctypes.c_char_p
        for name in ("dwfl_attach_state", "dwfl_thread_state_registers", "dwfl_frame_pc"):
            getattr(dw, name).restype = ctypes.c_bool
    except (OSError, AttributeError) as error:
        raise LibdwError(str(error)) from None
    return dw


def _as_pointer(function: Any) -> int | None:
    return ctypes.cast(function, _pointer).value
