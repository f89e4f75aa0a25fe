"""Cache behaviour by layer where no hardware counter can be read: cachegrind runs the model's kernels, built for AVX2 since it knows no
wider vectors, in a C program of their own. Its figures are simulated, and labelled so.

A child compiles the model for the other processor and writes an image (`write_image`): one object a layer under the name `layer_N`, every
buffer with its contents, and the calls as C. The program runs once and three times; half of the difference is a call on warm caches.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from openinfer.profiles.layers import labels

from openinfer.codegen import linked, object_cache
from openinfer.engine import Engine, load
from openinfer.errors import OpenInferError
from openinfer.machine import host

TIMEOUT_S = 240
MOST_NS = 20e6  # a call that takes longer would be simulated for minutes
TARGET = "haswell"
TOOLS = ("valgrind", "gcc", "objcopy")
PAGE = 4096


@dataclasses.dataclass(frozen=True)
class LayerCache:
    """Counts of one call of one layer on warm caches: reads and writes of data, and those that missed the first and the last level."""

    label: str
    accesses: float
    first_misses: float
    last_misses: float


def missing() -> str:
    """Why nothing can be simulated here; empty where it can."""
    if platform.machine() != "x86_64":
        return f"needs x86-64, this is {platform.machine()}"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"{', '.join(absent)} not installed; apt-get install valgrind gcc" if absent else ""


def simulate(engine: Engine, model: str, inputs: Mapping[str, Any]) -> list[LayerCache]:
    """The layers of a model on one request. Raises `OpenInferError` where a tool fails; see `missing`."""
    knobs = engine.config.with_knobs({"engine.threads": 1, "sandbox.mode": "off", "engine.backend": "cpu"})
    with tempfile.TemporaryDirectory(prefix="openinfer-cachegrind-") as name:
        folder = Path(name)
        np.savez(folder / "inputs.npz", allow_pickle=False, **{f"input{k}": array for k, array in enumerate(inputs.values())})
        (folder / "names.txt").write_text("\n".join(inputs))
        knobs.save(folder / "config.toml")
        code = "import sys; from openinfer.profiles.cachegrind import write_image; write_image(sys.argv[1], sys.argv[2])"
        environment = {**os.environ, "NUMBA_CPU_NAME": TARGET, "NUMBA_CPU_FEATURES": ""}
        _run([sys.executable, "-c", code, os.path.abspath(model), name], folder, environment)
        objects = sorted(str(path) for path in folder.glob("layer_*.o"))
        _run(["gcc", "-O1", "-o", "layers", "main.c", *objects, "-lm"], folder)
        once, thrice = _counts(folder, 1), _counts(folder, 3)
        named = (folder / "labels.txt").read_text().splitlines()
    zero = np.zeros(6)
    found = []
    for k, label in enumerate(named):
        reads, read1, read3, writes, write1, write3 = (thrice.get(f"layer_{k}", zero) - once.get(f"layer_{k}", zero)) / 2
        found.append(LayerCache(label, float(reads + writes), float(read1 + write1), float(read3 + write3)))
    return found


def write_image(model: str, name: str) -> None:
    """In the child: compile for this environment's processor, and write objects, buffers and calls."""
    folder = Path(name)
    names = (folder / "names.txt").read_text().splitlines()
    with np.load(folder / "inputs.npz", allow_pickle=False) as file:
        inputs = {name: file[f"input{k}"] for k, name in enumerate(names)}
    with load(model, str(folder / "config.toml")) as engine:
        timer = engine.layer_timer(inputs)
        timer.call()
    kernels: dict[linked.Kernel, int] = {}
    calls = list(linked.calls(timer.variant.skeleton, timer.variant.fixed, kernels))
    by_number = {number: kernel for kernel, number in kernels.items()}
    for k, call in enumerate(calls):
        kernel = by_number[call.kernel]
        stored = object_cache.load(object_cache.key(repr(kernel.sizes), [(kernel.name, dict(kernel.statics))]))
        if stored is None:
            raise OpenInferError("the object cache does not keep what was compiled; set OPENINFER_CACHE to a folder of your own")
        symbol, elf = stored
        (folder / "one.o").write_bytes(elf)
        _run(["objcopy", "--redefine-sym", f"{symbol}=layer_{k}", "one.o", f"layer_{k}.o"], folder)
    import ctypes

    with open(folder / "image.bin", "wb") as image:
        regions = [(address, size) for address, size in timer.memory() if size]
        image.write(np.array([len(regions), len(timer.table)], np.int64).tobytes())
        for address, size in regions:
            image.write(np.array([address, size], np.int64).tobytes() + ctypes.string_at(address, size))
        image.write(np.ascontiguousarray(timer.table).tobytes())
    (folder / "labels.txt").write_text("\n".join(labels(timer.layers)))
    slots = sorted({int(buffer) for call in calls for buffer in call.buffers})
    (folder / "main.c").write_text(_source(calls, slots))


def _source(calls: list[linked.Call], slots: list[int]) -> str:
    """The C program: read the image, move the addresses, call the layers in order."""
    out = ["#include <stdio.h>", "#include <stdlib.h>", "typedef long long word;"]
    body = []
    for k, call in enumerate(calls):
        numbers = [f"t[{int(n)}]" if isinstance(n, linked.Slot) else f"{n}LL" for n in (*call.buffers, *call.sizes)]
        blocks = f"t[{int(call.blocks)}]" if isinstance(call.blocks, linked.Slot) else f"{call.blocks}LL"
        out.append(f"int layer_{k}(void *, void *, {', '.join(['word'] * (len(numbers) + 2))});")
        body.append(f"    layer_{k}(&result, &error, {', '.join([*numbers, '0LL', blocks])});")
    return "\n".join(
        [
            *out,
            "int main(int count, char **words) {",
            "  word head[2], one[2], *from, *size; char **to; void *result = 0, *error = 0;",
            '  FILE *image = fopen(words[1], "rb");',
            "  if (count < 3 || !image || fread(head, 8, 2, image) != 2) return 3;",
            "  from = malloc(8 * head[0]); size = malloc(8 * head[0]); to = malloc(8 * head[0]);",
            "  for (word r = 0; r < head[0]; r++) {",
            "    if (fread(one, 8, 2, image) != 2) return 3;",
            # The same place within a page as in the engine: it decides which lines share a set.
            f"    char *whole = aligned_alloc({PAGE}, (one[1] + 2 * {PAGE}) / {PAGE} * {PAGE});",
            f"    from[r] = one[0]; size[r] = one[1]; to[r] = whole + one[0] % {PAGE};",
            "    if (fread(to[r], 1, one[1], image) != (size_t)one[1]) return 3;",
            "  }",
            "  word *t = malloc(8 * head[1]);",
            "  if (fread(t, 8, head[1], image) != (size_t)head[1]) return 3;",
            f"  static const int slots[] = {{{', '.join(map(str, slots)) or '0'}}};",
            f"  for (int s = 0; s < {len(slots)}; s++)",
            "    for (word r = 0; r < head[0]; r++)",
            "      if (t[slots[s]] >= from[r] && t[slots[s]] < from[r] + size[r]) {",
            "        t[slots[s]] = (word)(to[r] + (t[slots[s]] - from[r])); break;",
            "      }",
            "  for (int n = atoi(words[2]); n > 0; n--) {",
            *body,
            "  }",
            "  return 0;",
            "}",
            "",
        ]
    )


def _counts(folder: Path, times: int) -> dict[str, Any]:
    """Function → reads, their misses of the first and last level, writes and theirs."""
    machine = host()
    ways = [f"--D1={_power(machine.l1_bytes)},8,64", f"--LL={_power(machine.l3_bytes)},16,64", "--cache-sim=yes"]
    output = f"counts{times}"
    _run(["valgrind", "--tool=cachegrind", *ways, f"--cachegrind-out-file={output}", "./layers", "image.bin", str(times)], folder)
    found: dict[str, Any] = {}
    events: list[str] = []
    function = ""
    for line in (folder / output).read_text(errors="replace").splitlines():
        if line.startswith("events:"):
            events = line.split()[1:]
        elif line.startswith("fn="):
            function = line[3:]
        elif line[:1].isdigit() and function.startswith("layer_"):
            counts = dict(zip(events, [int(word) for word in line.split()[1:]], strict=False))
            values = np.array([counts.get(name, 0) for name in ("Dr", "D1mr", "DLmr", "Dw", "D1mw", "DLmw")], float)
            found[function] = found.get(function, np.zeros(6)) + values
    return found


def _power(size: int) -> int:
    """The largest power of two that is not above `size`: all that the simulator takes."""
    return 1 << (size.bit_length() - 1)


def _run(command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise OpenInferError(f"{command[0]} took more than {TIMEOUT_S} s; profile a smaller batch") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()[-1]
        raise OpenInferError(f"{os.path.basename(command[0])} failed with {done.returncode}: {last[:200]}; simulate without this model")
