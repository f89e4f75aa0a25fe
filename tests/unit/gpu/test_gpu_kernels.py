"""Generated elementwise kernels: their text, their arithmetic as C, and which nodes they take."""

from __future__ import annotations

import ctypes
import itertools
import re
import subprocess

import numpy as np
import pytest
from agreement import generator
from host_device import COMPILER, FLAGS, call_c
from lowering import make_node

from openinfer.ir.graph import Graph, Node, Signature
from openinfer.kernels.gpu.elementwise import NAME, PRELUDE, Statement, render
from openinfer.kernels.gpu.fuse import MOST_NODES, chains, external
from openinfer.ops._base import NotCompiled
from openinfer.ops.broadcast import loops
from openinfer.ops.meaning import registry
from openinfer.ops.meaning.formula import Formula, evaluate

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler; apt-get install gcc")

GOLDEN = """
DEVICE void element(const float* __restrict__ p0, const float* __restrict__ p1, float* __restrict__ q, long long i, long long n, \
long long d0, long long s0_0, long long s1_0) {
    long long rest = i / n;
    const long long i0 = rest % d0;
    const float a0 = p0[i0 * s0_0 + i % n];
    const float a1 = p1[i0 * s1_0 + i % n];
    const float v0 = (a0 + a1);
    const float v1 = ((v0 < 0.0f) ? 0.0f : v0);
    q[i] = v1;
}
#ifdef __CUDACC__
extern "C" __global__ void openinfer_elementwise(const float* __restrict__ p0, const float* __restrict__ p1, float* __restrict__ q, \
long long count, long long n, long long d0, long long s0_0, long long s1_0) {
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) \
element(p0, p1, q, i, n, d0, s0_0, s1_0);
}
"""


def test_the_text_of_a_bias_and_a_relu():
    add, relu = Formula("a + b", "float32", "float32"), Formula("where(a < 0, 0, a)", "float32", "float32")
    kernel = render([Statement(add, (0, 1)), Statement(relu, (~0,))], ["float32", "float32"], loops((4, 3), [(4, 3), (3,)], [False] * 2))
    assert kernel.source.removeprefix(PRELUDE).startswith(GOLDEN.removeprefix("\n"))
    assert kernel.numbers == (3, 4, 3, 0)


def formulas():
    """(name, formula, dtypes of the inputs) of every operator that has one, in every dtype that it takes."""
    variants = {
        "Mod": [{"fmod": 0}, {"fmod": 1}],
        "Gelu": [{}, {"approximate": "tanh"}],
        "IsInf": [{}, {"detect_negative": 0}, {"detect_positive": 0}],
        "BitShift": [{"direction": "LEFT"}, {"direction": "RIGHT"}],
        "Cast": [{"to": code} for code in (1, 11, 9, 2, 3, 6, 7, 13)],
        "Shrink": [{}, {"bias": 1.5, "lambd": 0.25}],
    }
    for (_, op), meaning in sorted(registry.MEANINGS.items()):
        for attributes in variants.get(op, [{}]) if meaning.formula is not None else []:
            for dtype in ("float32", "float64", "int8", "int32", "int64", "uint8", "uint64", "bool"):
                for arity in (1, 2, 3):
                    dtypes = ["bool", dtype, dtype] if op == "Where" and arity == 3 else [dtype] * arity
                    try:
                        formula = meaning.formula(make_node(op, ["a", "b", "c"][:arity], **attributes), dtypes)
                        names = set(re.findall(r"\b[abc]\b", formula.text))
                        if len(names) == arity:
                            yield op, formula, dtypes
                    except (NotCompiled, ValueError, IndexError):
                        continue


def values(rng, dtype, shape):
    """Numbers of every size, the special ones among floats."""
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.startswith("float"):
        found = (rng.standard_normal(shape) * np.exp(rng.uniform(-6, 3, shape))).astype(dtype)
        places = rng.integers(0, found.size, 12)
        found.reshape(-1)[places] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, 88.0]
        return found
    limits = np.iinfo(dtype)
    found = rng.integers(max(limits.min, -40), 40, shape).astype(dtype)
    found.reshape(-1)[rng.integers(0, found.size, 4)] = [0, 1, limits.max, limits.min]
    return found


def together(sources):
    """Many kernels as one text: each under a number, functions that they share once."""
    texts, functions = [], dict.fromkeys(line for source in sources for line in re.findall(r"^DEVICE \S.* a, \S.*\n", source, re.M))
    for number, source in enumerate(sources):
        own = re.sub(r"^DEVICE \S.* a, \S.*\n", "", source.removeprefix(PRELUDE), flags=re.M)
        texts.append(own.replace("element(", f"element{number}(").replace(NAME, f"kernel{number}"))
    return PRELUDE + "".join(functions) + "".join(texts)


@needs_compiler
def test_every_formula_means_the_same_in_c(tmp_path):
    rng, shape = generator(), (7, 33)
    cases = list(formulas())

    def nest(arity):
        return loops(shape, [shape, shape[1:], shape][:arity], [False] * arity)

    assert len({op for op, _, _ in cases}) > 55 and len(cases) > 250
    kernels = [render([Statement(formula, tuple(range(len(dtypes))))], dtypes, nest(len(dtypes))) for _, formula, dtypes in cases]
    (tmp_path / "all.c").write_text(together([kernel.source for kernel in kernels]))
    done = subprocess.run(
        [str(COMPILER), *FLAGS, "-o", str(tmp_path / "all.so"), str(tmp_path / "all.c"), "-lm"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[:2000]
    library = ctypes.CDLL(str(tmp_path / "all.so"))
    for number, ((op, formula, dtypes), kernel) in enumerate(zip(cases, kernels, strict=True)):
        inputs = [values(rng, dtype, s) for dtype, s in zip(dtypes, [shape, shape[1:], shape], strict=False)]
        if op == "Pow":
            inputs[0] = np.abs(inputs[0])
        y = np.full(shape, 0xFB, np.uint8).astype(formula.output)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (*inputs, y)]
        getattr(library, f"kernel{number}")(*pointers, *(ctypes.c_longlong(n) for n in (y.size, *kernel.numbers)))
        with np.errstate(all="ignore"):
            expected = np.broadcast_to(evaluate(formula, np, inputs), shape)
        if formula.output in ("float32", "float64"):
            limit = 2e-6 if formula.output == "float32" else 1e-13
            assert np.allclose(y, expected, rtol=limit, atol=limit, equal_nan=True), (op, formula)
        elif op == "Cast" and dtypes[0].startswith("float"):
            inside = np.isfinite(inputs[0]) & (np.abs(inputs[0]) < 100) & (inputs[0] >= 0)
            assert (y[inside] == expected[inside]).all(), (op, formula)
        else:
            assert (y == expected).all(), (op, formula)


@needs_compiler
@pytest.mark.parametrize(
    "shapes", [[(3, 1, 5), (4, 1), (5,)], [(2, 3, 4, 5), (1, 3, 1, 1), (2, 3, 4, 5)], [(), (7,), (1,)], [(6, 1), (1, 6), ()]]
)
def test_operands_broadcast(shapes):
    rng = generator()
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    formula, shape = Formula("a * b + c", "float32", "float32"), np.broadcast_shapes(*shapes)
    kernel = render([Statement(formula, (0, 1, 2))], ["float32"] * 3, loops(shape, shapes, [False] * 3))
    y = np.full(shape, np.nan, np.float32)
    call_c(kernel.source, kernel.name, [*arrays, y, y.size, *kernel.numbers])
    assert (y == arrays[0] * arrays[1] + arrays[2]).all()


def test_a_dtype_without_arithmetic_in_c_is_refused():
    with pytest.raises(NotCompiled, match="float16"):
        render([Statement(Formula("a", "float16", "float16"), (0,))], ["float16"], loops((3,), [(3,)], [False]))


def graph(*nodes: Node, outputs=("y",)) -> Graph:
    return Graph("g", (Signature("x", "float32", ("n",)),), tuple(Signature(o, "float32", None) for o in outputs), nodes, {})


def grouped(*nodes, outputs=("y",)):
    simple = {"Relu", "Add", "Mul", "Exp", "Neg"}
    return [[node.key for node in group] for group in chains(graph(*nodes, outputs=outputs), lambda node: node.op in simple)]


def node(op, inputs, output):
    return make_node(op, inputs.split(), (output,))


def test_a_chain_and_a_diamond_join():
    assert grouped(node("Exp", "x", "a"), node("Neg", "a", "b"), node("Mul", "a b", "y")) == [["a", "b", "y"]]


def test_what_others_read_ends_a_group():
    chain = node("Exp", "x", "a"), node("Neg", "a", "b"), node("Relu", "b", "y")
    assert grouped(*chain, outputs=("y", "b")) == [["a", "b"], ["y"]]
    assert grouped(node("Exp", "x", "a"), node("Conv", "a", "b"), node("Add", "a b", "y")) == [["a"], ["b"], ["y"]]


def test_a_group_runs_after_everything_that_it_reads():
    nodes = node("Exp", "x", "a"), node("Conv", "x", "b"), node("Add", "a b", "y")
    assert grouped(*nodes) == [["b"], ["a", "y"]]
    assert external([nodes[0], nodes[2]]) == ("x", "b")


def test_long_chains_are_cut():
    names = ["x", *(f"v{i}" for i in range(3 * MOST_NODES)), "y"]
    groups = grouped(*(node("Neg", a, b) for a, b in itertools.pairwise(names)))
    assert max(map(len, groups)) <= MOST_NODES and [key for group in groups for key in group] == names[1:]
