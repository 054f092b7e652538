"""The registers of a stopped x86-64 thread, in the form that the unwinder needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_BY_DWARF_NUMBER = (  # System V ABI, AMD64 supplement, table 3.36; 16 is the return address column
    *("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    "rip",
)


class Registers(NamedTuple):
    """Values of registers.

    Attributes:
        values: the values by DWARF number: all 17, or only the known ones.
    """

    values: Mapping[int, int]

    @classmethod
    def by_name(cls, named: Mapping[str, int]) -> Registers:
        """Registers from values by name. Unknown names are ignored."""
        return cls(
            {number: named[name] for number, name in enumerate(_BY_DWARF_NUMBER) if name in named}
        )

    @property
    def pc(self) -> int:
        """The address of the instruction."""
        return self.values[16]

    @property
    def sp(self) -> int:
        """The address of the top of the stack."""
        return self.values[7]

    def with_pc_and_sp(self, pc: int, sp: int) -> Registers:
        """The same registers with another instruction and stack address."""
        return Registers({**self.values, 16: pc, 7: sp})
