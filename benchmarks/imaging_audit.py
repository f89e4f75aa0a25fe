"""The zero-error audit of the workload imaging: every answer digested and compared, whatever the threads, the batch, the mode and the run.

    python benchmarks/imaging_audit.py [--model NAME] [--inferences N] [--seconds S] [--journal FILE]

The first run answers each of a set of held-out slices alone, on one thread, checks the answers against float64 and keeps their SHA-256 in
the journal. From then on every answer, in this process or a later one, is digested and compared: `run`, `bind` and `submit` (async and
hybrid), one and two threads, batches of 1 to 64 in random order, a fresh engine for each chunk. What has been compared is kept in the
journal, so that an audit that was ended is gone on with. Exits with 1 if one digest differs or one answer is off by more than 0.1%.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from openinfer.workloads import registry

import openinfer
from openinfer.frontend.float64 import Reference, discrepancy, widen

TOLERANCE = 1e-3
WANTED = {"lesion_classifier": 1_000_000, "lesion_unet": 2_000}
SLICES = {"lesion_classifier": 128, "lesion_unet": 16}
CHUNK = {"lesion_classifier": 8192, "lesion_unet": 128}
BATCHES = (1, 2, 3, 7, 16, 33, 64)
TOGETHER = 128  # requests submitted at a time

# Mode, threads, batch: `submit` forms batches of up to that size.
CONDITIONS = list(itertools.product(("run", "bind", "async", "hybrid"), (1, 2), BATCHES))


def answers(engine: Any, images: Any, mode: str, batch: int) -> Iterator[Any]:
    """The rows of the only output, in order."""
    name = engine.outputs[0].name
    if mode in ("async", "hybrid"):
        yield from asyncio.run(_submitted(engine, images, name, mode))
        return
    calls: dict[int, Any] = {}
    for first in range(0, len(images), batch):
        part = images[first : first + batch]
        if mode == "run":
            yield from engine.run({"image": part})[name]
            continue
        if len(part) not in calls:
            calls[len(part)] = engine.bind({"image": part.copy()})
        call = calls[len(part)]
        call.inputs["image"][...] = part
        call.outputs[name].fill(np.nan)  # what is not written shows
        call()
        yield from call.outputs[name]


async def _submitted(engine: Any, images: Any, name: str, mode: str) -> list[Any]:
    prepare: Callable[[Any], Any] | None = (lambda inputs: {"image": inputs["image"].copy()}) if mode == "hybrid" else None
    found: list[Any] = []
    for first in range(0, len(images), TOGETHER):
        requests = [engine.submit({"image": images[i : i + 1]}, prepare=prepare) for i in range(first, min(first + TOGETHER, len(images)))]
        found += [answer[name][0].copy() for answer in await asyncio.gather(*requests)]
    return found


def digest(row: Any) -> str:
    """SHA-256 of one answer's bits."""
    return hashlib.sha256(np.ascontiguousarray(row).tobytes()).hexdigest()


class Audit:
    """One model's part of the journal, and what is to be compared with it."""

    def __init__(self, model: str, journal: Path) -> None:
        self.model, self.journal = model, journal
        imaging = registry.get("imaging")
        self.path = imaging.model_path(model)
        self.images = imaging.generate("list", SLICES[model], imaging.splits["held_out"][0]).inputs["image"]
        self.identity = hashlib.sha256(self.path.read_bytes() + self.images.tobytes()).hexdigest()
        lines = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
        mine = [line for line in lines if line["model"] == model and line["identity"] == self.identity]
        self.reference: list[str] = next((line["digests"] for line in mine if "digests" in line), [])
        self.error = next((line["error"] for line in mine if "digests" in line), 0.0)
        self.chunks = [line for line in mine if "condition" in line]

    def begin(self) -> None:
        """Answer every slice alone and keep the digests, with the largest error against float64 relative to the largest answer."""
        exact = Reference(widen(onnx.load(self.path)))
        with openinfer.load(self.path, {"engine": {"threads": 1}}) as engine:
            found = list(answers(engine, self.images, "run", 1))
        for image, row in zip(self.images, found, strict=True):
            (expected,) = exact({"image": image[None]}).values()
            self.error = max(self.error, discrepancy(row[None], expected))
        self.reference = [digest(row) for row in found]
        self._keep({"digests": self.reference, "error": self.error})

    def chunk(self, index: int) -> None:
        """Compare one chunk under one condition, its slices in an order of its own."""
        mode, threads, batch = CONDITIONS[index % len(CONDITIONS)]
        config = {
            "engine": {"threads": threads},
            "scheduler": {"mode": mode if mode in ("async", "hybrid") else "auto", "max_batch": batch},
        }
        order = np.random.default_rng((index, 5)).integers(0, len(self.images), CHUNK[self.model])
        begin, differing = time.perf_counter(), 0
        with openinfer.load(self.path, config) as engine:
            for first in range(0, len(order), 1024):
                part = order[first : first + 1024]
                for which, row in zip(part, answers(engine, self.images[part], mode, batch), strict=True):
                    differing += digest(row) != self.reference[which]
        taken_s = time.perf_counter() - begin
        line = {"condition": [mode, threads, batch], "inferences": len(order), "differing": differing, "seconds": round(taken_s, 3)}
        self.chunks.append(line)
        self._keep(line)

    def _keep(self, line: dict[str, Any]) -> None:
        with self.journal.open("a") as file:
            file.write(json.dumps({"model": self.model, "identity": self.identity, **line}) + "\n")


def main() -> int:
    """Compare until enough or until time is up; 1 if something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=WANTED)
    parser.add_argument("--inferences", type=int, help="in all; default 1,000,000 and 2,000")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time; a later run goes on")
    parser.add_argument("--journal", type=Path, default=Path("imaging_audit.jsonl"))
    given = parser.parse_args()
    deadline, failed = time.perf_counter() + given.seconds, False
    for model in [given.model] if given.model else WANTED:
        audit, wanted = Audit(model, given.journal), given.inferences or WANTED[model]
        if not audit.reference:
            audit.begin()
        while sum(chunk["inferences"] for chunk in audit.chunks) < wanted and time.perf_counter() < deadline:
            audit.chunk(len(audit.chunks))
        done, differing = (sum(chunk[key] for chunk in audit.chunks) for key in ("inferences", "differing"))
        met = len({tuple(chunk["condition"]) for chunk in audit.chunks})
        taken_s = sum(chunk["seconds"] for chunk in audit.chunks)
        print(
            f"{model}: {differing} of {done:,} digests differ ({wanted:,} wanted), {met} of {len(CONDITIONS)} conditions, {taken_s:.0f} s; "
            f"largest error against float64 {audit.error:.1e}, allowed {TOLERANCE:.0e}"
        )
        failed |= differing > 0 or audit.error > TOLERANCE
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
