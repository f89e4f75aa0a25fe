"""Objects and IR link without Numba, stay alive with their `Library`, and fail with a named error."""

from __future__ import annotations

import ctypes
import gc
import math
import subprocess
import sys
import threading

import pytest

from openinfer.codegen.loader import compile_ir, load_ir, load_object
from openinfer.errors import CompiledCodeError

ADD = "define i64 @add(i64 %a, i64 %b) {\n %c = add i64 %a, %b\n ret i64 %c\n}"
TWO = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


def test_an_object_links_twice_under_the_same_symbol() -> None:
    elf = compile_ir(ADD)
    first, second = load_object(elf, ["add"]), load_object(elf, ["add"])
    assert first["add"] != second["add"]
    del first
    gc.collect()
    assert TWO(second["add"])(40, 2) == 42


def test_undefined_symbols_come_from_libm() -> None:
    text = "declare double @tanh(double)\ndefine double @f(double %x) {\n %y = call double @tanh(double %x)\n ret double %y\n}"
    library = load_ir(text, ["f"])
    assert ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(library["f"])(0.3) == math.tanh(0.3)


def test_imports_give_far_addresses() -> None:
    marker = object()
    library = load_ir("@marker = external global i8\ndefine ptr @f() {\n ret ptr @marker\n}", ["f"], {"marker": id(marker)})
    assert ctypes.CFUNCTYPE(ctypes.c_void_p)(library["f"])() == id(marker)


@pytest.mark.parametrize("elf", [b"", b"no object" * 20, compile_ir(ADD)[:200]])
def test_a_damaged_object_is_refused(elf: bytes) -> None:
    with pytest.raises(CompiledCodeError, match="cannot link compiled code for add"):
        load_object(elf, ["add"])


def test_a_missing_symbol_is_refused_and_the_next_link_works() -> None:
    with pytest.raises(CompiledCodeError, match="clear the object cache"):
        load_object(compile_ir(ADD), ["subtract"])
    with pytest.raises(CompiledCodeError):
        load_ir("declare void @nowhere_at_all()\ndefine void @f() {\n call void @nowhere_at_all()\n ret void\n}", ["f"])
    library = load_ir(ADD, ["add"])
    assert TWO(library["add"])(1, 2) == 3


def test_bad_ir_is_refused() -> None:
    with pytest.raises(CompiledCodeError, match="cannot compile LLVM IR"):
        compile_ir("define i64 @f() {\n ret i32 %x\n}")


def test_threads_may_link_at_once() -> None:
    sums: list[int] = []

    def link_and_call(k: int) -> None:
        library = load_ir(ADD, ["add"])
        sums.append(TWO(library["add"])(k, 1))

    threads = [threading.Thread(target=link_and_call, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sums) == list(range(1, 9))


def test_loading_needs_no_numba() -> None:
    code = (
        f"import sys\nfrom openinfer.codegen.loader import load_ir\nload_ir({ADD!r}, ['add'])\n"
        "assert 'numba' not in sys.modules, 'numba was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
