"""A kernel is linked into a program as the optimiser left it, not as making its machine code changed it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest

from openinfer.codegen import compile as compiler

LAYER: dict[str, Hashable] = {"op": "LSTM", "hidden": 20, "dtype": "float32", "rows": 4, "vectors": 5, "clip": 0.0, "every": True}
LAYER |= {"activations": (("Sigmoid", "Tanh", "Tanh"),), "coupled": False, "reset_after": True, "reverse": False, "peephole": False}
LAYER |= {"initial_h": False, "initial_c": False, "last_h": True, "last_c": False, "lengths": False}
# Three rows: the tiles of two and of one start at rows that are constants, the first of them 0.
SOURCE = """
def program(table, thread, threads):
    t = i64(table)
    k0(t[0], t[1], t[2], t[3], t[3], t[3], t[3], t[3], t[4], t[5], t[6], t[7], t[3], 6, 3, 1, 3, 1, 60, 60, 20, 60, 20, 0, 1)
"""


def test_an_offset_that_the_caller_makes_zero_is_no_null_pointer(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    compile_extra = compiler.compile_extra

    def watched(*arguments: Any) -> Any:
        compiled.append(compile_extra(*arguments))
        return compiled[-1]

    monkeypatch.setattr(compiler, "compile_extra", watched)
    compiler.compile_program(SOURCE, [("recurrent", LAYER)])
    text = compiled[0].library.get_llvm_str()
    assert "llvm.fma" in text  # the product is there
    assert "unreachable" not in text
    assert "noreturn" not in text
