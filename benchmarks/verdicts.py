"""Checks the tuner's verdicts on this machine: identical arms are not adopted, planted gains are found and covered by their interval.

    python benchmarks/verdicts.py [--studies 10] [--simulated 500] [--planted 1.1 1.15 1.2 1.25 1.3] [--blocks blocks.json]

1. A/A: final races of `hft` in which the winner is the default under another name. None may say ADOPT.
2. Simulated A/A: studies whose rounds are drawn with replacement from the recorded ones, the arms' names exchanged at random within a
   round. At most 1% may say ADOPT.
3. Planted gains: the default is slowed down by a known factor (10 to 30%). Each must be adopted, and the interval must hold the true
   ratio. Here requests come back to back and the objective is p50, so that the true ratio is the factor itself. The winner spins too, a
   little: what spinning does to the caches and the predictors of the next call is then on both sides.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from openinfer.tuner.assemble import judge_race
from openinfer.tuner.final import ROUNDS, final_race
from openinfer.tuner.journal import Journal
from openinfer.tuner.plan import prepare
from openinfer.tuner.race import Lap
from openinfer.tuner.task import Task, write

from openinfer.config import Config

SLOWDOWNS = (1.10, 1.15, 1.20, 1.25, 1.30)
SPIN = 1.1
ARMS = ("default", "twin", "winner")


def main() -> int:
    """Print every verdict; exit code 1 where one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10)
    parser.add_argument("--simulated", type=int, default=500)
    parser.add_argument("--planted", type=float, nargs="*", default=SLOWDOWNS, metavar="FACTOR", help="how much slower the default is made")
    parser.add_argument("--blocks", type=Path, help="where to keep the recorded blocks of the A/A studies")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        wrong = 0
        if options.studies:
            wrong, rounds = identical(Path(scratch), options.studies)
            if options.blocks is not None:
                options.blocks.write_text(json.dumps(rounds))
            wrong += simulated(rounds, options.simulated) > options.simulated // 100
        wrong += planted(Path(scratch), options.planted)
    return 1 if wrong else 0


def identical(folder: Path, studies: int) -> tuple[int, list[list[list[float]]]]:
    """(studies that said ADOPT, blocks by round and arm)."""
    task = write(prepare("hft", None, None, None, None, 0), folder / "hft")
    adopted, rounds = 0, []
    for number in range(studies):
        laps = run(task, folder / f"identical-{number}", number, {})
        verdict = judge_race(task.objective, laps)
        adopted += verdict.kind == "ADOPT"
        print(f"identical {number}: {verdict.sentence}", flush=True)
        rounds += [[laps[arm][r].objective for arm in ARMS] for r in range(ROUNDS)]
    print(f"identical: {adopted} of {studies} say ADOPT", flush=True)
    return adopted, rounds


def simulated(rounds: list[list[list[float]]], studies: int) -> int:
    """How many studies made of recorded rounds say ADOPT."""
    rng = np.random.default_rng(0)
    kinds = []
    for _ in range(studies):
        drawn = [rounds[i] for i in rng.integers(0, len(rounds), ROUNDS)]
        orders = [rng.permutation(len(ARMS)) for _ in drawn]
        laps = {arm: [_lap(blocks[order[k]]) for blocks, order in zip(drawn, orders, strict=True)] for k, arm in enumerate(ARMS)}
        kinds.append(judge_race("p99", laps).kind)
    counts = {kind: kinds.count(kind) for kind in ("ADOPT", "KEEP DEFAULT", "INCONCLUSIVE")}
    print(f"simulated identical: {counts} of {studies}", flush=True)
    return counts["ADOPT"]


def planted(folder: Path, slowdowns: Sequence[float]) -> int:
    """How many planted gains were missed, or not covered."""
    path = folder / "steady.onnx"
    onnx.save(steady_model(), path)
    task = write(prepare(None, str(path), None, None, "p50", 0), folder / "steady")
    failed = 0
    for factor in slowdowns:
        laps = run(task, folder / f"planted-{factor}", int(factor * 100), {"default": SPIN * factor, "twin": SPIN * factor, "winner": SPIN})
        verdict = judge_race(task.objective, laps)
        assert verdict.ratio is not None
        covered = verdict.ratio.low <= 1 / factor <= verdict.ratio.high
        failed += verdict.kind != "ADOPT" or not covered
        print(f"planted {1 / factor - 1:+.1%}: {verdict.sentence}; {'covered' if covered else 'NOT COVERED'}", flush=True)
    return failed


def run(task: Task, folder: Path, seed: int, handicaps: dict[str, float]) -> dict[str, list[Lap]]:
    """One final race between three arms of the default configuration."""
    with Journal(folder / "journal.jsonl") as journal:
        arms = dict.fromkeys(ARMS, Config())
        return final_race(task.held_out, arms, journal, folder, seed, lambda left: None, handicaps)


def steady_model() -> Any:
    """A perceptron on 32 rows at a time: about 0.1 ms of arithmetic, so that the replay's own cost does not count."""
    rng = np.random.default_rng(0)
    nodes, constants = [], []
    for layer in range(3):
        constants.append(numpy_helper.from_array((rng.standard_normal((256, 256)) / 16).astype(np.float32), f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"]))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [32, 256]) for name in ("x0", "x3")]
    graph = helper.make_graph(nodes, "steady", ports[:1], ports[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _lap(objective: list[float]) -> Lap:
    none = np.zeros(0, np.int64)
    return Lap([], objective, none, none, 0.0, none, {}, [])


if __name__ == "__main__":
    raise SystemExit(main())
