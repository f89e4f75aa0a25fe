"""How tight the planner's arenas are, and how long a plan takes. `python benchmarks/memory_plan.py [FOLDER]`

Without a folder: every model of the repository at batch 1 and 16, as the engine plans it. With one: every .csv in it as an instance, with
the columns id, lower, upper, size (half-open lifetimes, as MiniMalloc writes them), planned with `--effort` (buffers looked at). The gap is
peak ÷ maximum live bytes; seconds of instances are processor time.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np

import openinfer
from openinfer.memory.planner import EFFORT, Lifetime, plan
from openinfer.runtime.signature import example

ROOT = Path(__file__).resolve().parent.parent
LONG = 40 * EFFORT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--effort", type=int, default=LONG)
    arguments = parser.parse_args()
    found = _instances(arguments.folder, arguments.effort) if arguments.folder else _models()
    print(f"{len(found)} plans: gap mean {np.mean([g for g, _ in found]):.3f}, worst {max(g for g, _ in found):.3f}; ", end="")
    print(f"longest {max(s for _, s in found):.3f} s")


def _models() -> list[tuple[float, float]]:
    found = []
    for path in sorted(p for p in ROOT.rglob("*.onnx") if not {".venv", "build", "tuned"} & set(p.parts)):
        for batch in (1, 16):
            with openinfer.load(path) as engine:
                if batch > 1 and not any(isinstance((s.shape or (1,))[0], str) for s in engine.inputs):
                    continue
                engine.run(example(engine.inputs, np.random.default_rng(0), batch))
                statistics = engine.statistics()
            found.append((statistics.plan_gap, statistics.plan_s))
            name = f"{path.relative_to(ROOT)} batch {batch}"
            print(f"{name:52}{statistics.arena_bytes:12} bytes  gap {statistics.plan_gap:.3f}  {statistics.plan_s:.4f} s")
    return found


def _instances(folder: Path, effort: int) -> list[tuple[float, float]]:
    found = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            rows = [(row["id"], int(row["size"]), int(row["lower"]), int(row["upper"]) - 1) for row in csv.DictReader(file)]
        begin = time.process_time()
        layout = plan([Lifetime(*row) for row in rows], effort=effort)
        found.append((layout.gap, time.process_time() - begin))
        print(f"{path.name:24} {len(rows):5} buffers  gap {found[-1][0]:.3f}  {found[-1][1]:.3f} s")
    return found


if __name__ == "__main__":
    main()
