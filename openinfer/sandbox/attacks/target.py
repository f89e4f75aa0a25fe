"""What the worker serves while it is attacked: an engine's face, whose one call runs the attack that its input names."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from openinfer.codegen.loader import load_ir
from openinfer.ir.graph import Signature
from openinfer.sandbox.attacks import files, identity, memory, network, processes, shared_memory, signals, surface
from openinfer.sandbox.attacks._base import X86, AbsentError, Attack, Stage

ATTACKS: tuple[Attack, ...] = (
    *files.ATTACKS,
    *network.ATTACKS,
    *processes.ATTACKS,
    *surface.ATTACKS,
    *memory.ATTACKS,
    *identity.ATTACKS,
    *signals.ATTACKS,
    *shared_memory.ATTACKS,
)
HONEST = -1  # no attack: the outcome is the number, doubled
THROUGH, REFUSED, ABSENT = 1, 2, 3  # what an attack reports of itself

_INT80 = """
define i64 @int80() {
  %result = call i32 asm sideeffect "int $$0x80", "={eax},{eax},~{memory}"(i32 20)
  %wide = sext i32 %result to i64
  ret i64 %wide
}
"""


def open_target(stage: Mapping[str, Any]) -> AttackTarget:
    """The factory that a template calls."""
    native: dict[str, Callable[[], int]] = {}
    if X86:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        llvm.initialize_native_asmparser()
        library = load_ir(_INT80, ("int80",))
        native["int80"] = _Kept(library, ctypes.CFUNCTYPE(ctypes.c_int64)(library["int80"]))
    return AttackTarget(Stage(native=native, **stage))


@dataclasses.dataclass(frozen=True)
class _Kept:
    """A native call and the library that holds its code."""

    library: Any
    function: Callable[[], int]

    def __call__(self) -> int:
        return self.function()


class AttackTarget:
    """An engine's face: input "attack" (its number from 1 on; 0 and less: none), output "outcome" (what it came to; an error number, or
    the honest answer).
    """

    inputs = (Signature("attack", "int64", (1,)),)
    outputs = (Signature("outcome", "int64", (2,)),)

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One attack, into a fresh output."""
        call = self.bind(inputs)
        call()
        return call.outputs

    def bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None) -> AttackCall:
        """A call that reads the number of the attack when it is made."""
        return AttackCall(self._stage, inputs["attack"], (outputs or {"outcome": np.zeros(2, np.int64)})["outcome"])


class AttackCall:
    """One bound call."""

    def __init__(self, stage: Stage, number: Any, outcome: Any) -> None:
        self._stage, self._number, self._outcome = stage, number, outcome
        self.outputs = {"outcome": outcome}

    def __call__(self) -> None:
        number = int(self._number[0])
        if number <= 0:
            self._outcome[:] = HONEST, 2 * number
            return
        try:
            ATTACKS[number - 1].run(self._stage)
        except OSError as error:
            self._outcome[:] = REFUSED, error.errno or 0
        except AbsentError:
            self._outcome[:] = ABSENT, 0
        else:
            self._outcome[:] = THROUGH, 0
