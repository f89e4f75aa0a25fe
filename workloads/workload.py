"""What a workload is: models, traffic, promises. Read from the `workload.toml` in its folder."""

from __future__ import annotations

import dataclasses
import shutil
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from openinfer.workloads import trace as traces
from openinfer.workloads.trace import Trace

from openinfer.config import Config
from openinfer.errors import WorkloadError, suggest

REQUESTS = 1 << 16  # generating them stays a matter of seconds
EXPORT_BYTES = 4 << 20  # of a trace for a model other than the main one: windows that overlap repeat what the raw files hold


@dataclasses.dataclass(frozen=True)
class Model:
    """One model of a workload. `accuracy` is what training measured on held-out data, by the measure named in `metric`; `best_accuracy`
    what nothing could exceed on the same data, where that is known; `further` are other measures with their intervals: value, low, high.
    """

    file: str
    description: str
    metric: str
    accuracy: float
    accuracy_interval: tuple[float, float]
    tolerance: float
    best_accuracy: float | None = None
    further: Mapping[str, tuple[float, float, float]] = dataclasses.field(default_factory=dict)


class Store(Protocol):
    """Where requests look up what they need, made by a workload for as long as it is served. Any thread may look up."""

    def blank(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What a request carries that has yet to look the rest up, from the model's inputs."""

    def look_up(self, request: tuple[int, Mapping[str, Any]]) -> dict[str, Any]:
        """The model's inputs, from the request's key and what it carries. Blocks."""

    def close(self) -> None:
        """End it, and remove what it has written."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """A domain: its models, the traffic that it generates, its promises.

    `generate(regime, requests, seed)` makes a trace; `export_raw(folder, name, regime, requests, seed)` writes what lies behind it in the
    domain's own formats. `submits` tells that its requests come through `Engine.submit`; they look up in what `open_store()` makes, where
    there is one. `others` make the traces of models that take something else than the main one. `base` is the configuration that a study
    compares others with: the table `config`, defaults where there is none. `requests` are as many as a trace of a study, an export or a
    benchmark holds at most.
    """

    name: str
    description: str
    folder: Path
    main_model: str
    models: Mapping[str, Model]
    slo: str
    objective: str
    regimes: tuple[str, ...]
    splits: Mapping[str, tuple[int, ...]]
    generate: Callable[[str, int, int], Trace]
    export_raw: Callable[[Path, str, str, int, int], list[Path]]
    base: Config = dataclasses.field(default_factory=Config)
    submits: bool = False
    open_store: Callable[[], Store] | None = None
    others: Mapping[str, Callable[[str, int, int], Trace]] = dataclasses.field(default_factory=dict)
    requests: int = REQUESTS

    def model_path(self, name: str | None = None) -> Path:
        """The ONNX file of a model; the main one by default."""
        name = self.main_model if name is None else name
        if name not in self.models:
            raise WorkloadError(f"workload {self.name!r} has no model {name!r}; {suggest(name, self.models)}")
        return self.folder / self.models[name].file

    def export(self, folder: Path, requests: int) -> list[Path]:
        """Write everything below `folder`: models, and for every split, regime and seed the trace and what lies behind it."""
        requests = min(requests, self.requests)
        folder.mkdir(parents=True, exist_ok=True)
        written = [Path(shutil.copy(self.model_path(model), folder)) for model in self.models]
        for split, seeds in self.splits.items():
            for regime in self.regimes:
                for seed, one in zip(seeds, self.traces(split, requests, regime), strict=True):
                    name = f"{split}-{regime}-{seed}"
                    traces.write(one, folder / f"{name}.parquet")
                    written += [folder / f"{name}.parquet", *self.export_raw(folder, name, regime, requests, seed)]
                    for model, generate in self.others.items():
                        size = sum(array.nbytes for array in generate(regime, 1, seed).inputs.values())
                        traces.write(generate(regime, min(requests, EXPORT_BYTES // size), seed), folder / f"{name}-{model}.parquet")
                        written.append(folder / f"{name}-{model}.parquet")
        return written

    def traces(self, split: str, requests: int, regime: str | None = None, model: str | None = None) -> list[Trace]:
        """One trace per seed of the split `tuning` or `held_out`, of what `model` takes; the main one by default."""
        if split not in self.splits:
            raise WorkloadError(f"workload {self.name!r} has no split {split!r}; {suggest(split, self.splits)}")
        chosen = self.regimes[-1] if regime is None else regime
        if chosen not in self.regimes:
            raise WorkloadError(f"workload {self.name!r} has no regime {chosen!r}; {suggest(chosen, self.regimes)}")
        generate = self.others.get(model or self.main_model, self.generate)
        return [generate(chosen, requests, seed) for seed in self.splits[split]]


def load(
    folder: Path,
    generate: Callable[[str, int, int], Trace],
    export_raw: Callable[[Path, str, str, int, int], list[Path]],
    open_store: Callable[[], Store] | None,
    others: Mapping[str, Callable[[str, int, int], Trace]],
) -> Workload:
    """The workload described in `folder`."""
    table: dict[str, Any] = tomllib.loads((folder / "workload.toml").read_text(encoding="utf-8"))
    models = {
        name: Model(
            **{
                **values,
                "accuracy_interval": tuple(values["accuracy_interval"]),
                "further": {measure: tuple(figure) for measure, figure in values.get("further", {}).items()},
            }
        )
        for name, values in table["models"].items()
    }
    return Workload(
        table["name"],
        table["description"],
        folder,
        table["main_model"],
        models,
        table["slo"],
        table["objective"],
        tuple(table["regimes"]),
        {name: tuple(seeds) for name, seeds in table["splits"].items()},
        generate,
        export_raw,
        Config.parse(table.get("config", {}), str(folder / "workload.toml")),
        table.get("through") == "submit",
        open_store,
        others,
        table.get("requests", REQUESTS),
    )
