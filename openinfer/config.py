"""The configuration: every knob with its default, read from and written to TOML.

A default here is the best setting that can be known without tuning. `tune` fills `evidence` and `provenance`.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openinfer.errors import ConfigError, suggest
from openinfer.version import __version__


class Section(BaseModel):
    """A table of the TOML file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineConfig(Section):
    """How the compiled program runs."""

    backend: Literal["cpu", "gpu", "auto"] = Field("cpu", description="where models run; auto takes the GPU where there is one")
    gpu_fusion: bool = Field(True, description="join neighbouring elementwise operators into one GPU kernel")
    threads: int = Field(1, ge=1, le=256, description="native threads a call may use")
    pin: Literal["none", "compact"] = Field("none", description="pin the pool's threads to cores, in order")
    wait: Literal["spin", "sleep"] = Field("sleep", description="how parked pool threads wait for work")
    spin_us: int = Field(50, ge=0, le=1_000_000, description="how long a waiting thread spins before it sleeps, in µs")
    precision: Literal["model", "float32", "float64"] = Field("model", description="arithmetic of floating-point tensors")
    float64_layers: tuple[str, ...] = Field(
        (), description="layers of a float64 model, by the value that each writes, that stay in float64 with precision float32"
    )
    tile_rows: int = Field(0, ge=0, le=16, description="rows of the GEMM and convolution tile; 0 lets the machine decide")
    tile_vectors: int = Field(0, ge=0, le=8, description="vectors per row of the GEMM and convolution tile; 0 lets the machine decide")
    convolution: Literal["auto", "direct"] = Field("auto", description="3×3 convolutions by Winograd where it is faster, or always direct")
    tree_layout: Literal["auto", "interleaved", "vector"] = Field("auto", description="how tree ensembles are traversed")
    tree_interleave: int = Field(0, ge=0, le=64, description="trees walked at once; 0 lets the machine decide")
    conversion_tolerance: float = Field(
        1e-3, ge=0, le=1, description="largest rounding of an input's feature, as a share of its spread, when a narrower float is needed"
    )
    gc: Literal["default", "freeze", "off"] = Field("default", description="Python garbage collection while serving")


class MemoryConfig(Section):
    """How buffers are laid out."""

    alignment: Literal[64, 128, 4096] = Field(64, description="alignment of the arena, in bytes")
    huge_pages: bool = Field(False, description="advise transparent huge pages for arenas and weights")
    budget_bytes: int = Field(0, ge=0, description="memory for weights and arenas, in bytes; 0 sets no limit")
    size_growth: float = Field(1.125, ge=1.01, le=2.0, description="ratio of neighbouring block sizes of the pool")
    idle_s: float = Field(10.0, ge=0.01, le=86_400.0, description="window of the pool's controller: what two did not need is given back")
    controller: bool = Field(True, description="resize the pool with the traffic; without it memory is only given back at the budget")
    plan_effort: int = Field(1_000_000, ge=0, le=1_000_000_000, description="work to spend on a tighter arena, in buffers looked at")
    gpu_pool: Literal["auto", "unified", "pinned", "device"] = Field("auto", description="kind of GPU memory; auto asks the driver")
    gpu_budget_mb: int = Field(0, ge=0, le=1 << 24, description="GPU memory that the pool may take, in MiB; 0: what is free")


class SchedulerConfig(Section):
    """How requests become calls."""

    mode: Literal["auto", "inline", "async", "hybrid"] = Field(
        "auto",
        description="on the caller's loop; batched; batched, with blocking calls on a pool of their own; or what the traffic calls for",
    )
    max_batch: int = Field(1, ge=1, le=4096, description="requests joined into one call")
    max_delay_us: int = Field(0, ge=0, le=1_000_000, description="how long a request may wait for company, in µs")
    preferred_batches: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (), max_length=16, description="batch sizes to form while the delay lasts; empty: as many as wait"
    )
    queue_limit: int = Field(1024, ge=1, le=1_000_000, description="requests that may wait; more are refused")
    workers: int = Field(0, ge=0, le=256, description="threads that run long kernels beside the event loop; 0 lets the machine decide")
    offload_us: int = Field(100, ge=0, le=1_000_000, description="kernels predicted to take longer leave the event loop, in µs")
    blocking_threads: int = Field(0, ge=0, le=1024, description="threads for blocking calls in hybrid mode; 0 lets the machine decide")
    blocking_timeout_ms: int = Field(1000, ge=1, le=3_600_000, description="how long a blocking call may take in hybrid mode, in ms")
    record: bool = Field(True, description="keep the waits of each request for statistics")
    stall_ms: int = Field(1000, ge=0, le=3_600_000, description="the watchdog names what stands still for longer, in ms; 0: no watchdog")


class SandboxConfig(Section):
    """Whether the model runs in a locked-down process of its own. Everything but `mode` matters with one only."""

    mode: Literal["off", "process", "strict"] = Field(
        "off", description="a process with the protections that this kernel has, or with all that are required, or none"
    )
    spin_us: int = Field(200, ge=0, le=1_000_000, description="how long either side spins for the other before it sleeps, in µs")
    timeout_ms: int = Field(10_000, ge=1, le=86_400_000, description="a call that takes longer has hung; its worker is replaced, in ms")
    load_timeout_s: int = Field(120, ge=1, le=86_400, description="reading and compiling the model may take, in s")
    memory_mb: int = Field(1024, ge=16, le=1 << 20, description="memory that a worker may take above what the loaded model has, in MiB")
    shared_mb: int = Field(256, ge=1, le=1 << 20, description="memory for requests and results under way, taken when touched, in MiB")
    spare: bool = Field(True, description="keep a second worker locked and waiting, so that a lost one is replaced at once")
    wipe: bool = Field(False, description="overwrite a request and its results with zeros when they are released")


class ServingConfig(Section):
    """Reserved for the server; it has no knobs in this version."""


class Config(Section):
    """Everything that `openinfer.load` accepts as `config`."""

    engine: EngineConfig = EngineConfig()
    memory: MemoryConfig = MemoryConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    sandbox: SandboxConfig = SandboxConfig()
    serving: ServingConfig = ServingConfig()
    evidence: dict[str, Any] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def parse(cls, values: Mapping[str, Any], source: str = "config") -> Config:
        """Validate a nested mapping; `ConfigError` names the first bad knob."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            later = later_version(values)
            remedy = f"; it was written by openinfer {later}, this is {__version__}: update openinfer, or tune again" if later else ""
            raise ConfigError(f"{_first_problem(error, source)}{remedy}") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Config:
        """Read a TOML file; `ConfigError` where it is missing, malformed or has an unknown knob."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the configuration {str(path)!r}: {_reason(error)}; give the path of a TOML file") from None
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: not valid TOML: {error}; allowed: tables such as [engine] with lines such as threads = 2") from None
        return cls.parse(values, str(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write TOML atomically: to a temporary file in the same folder, then renamed over `path`."""
        write_atomically(Path(path), to_toml(self.model_dump(mode="json")))

    def knobs(self) -> dict[str, Any]:
        """Dotted knob name → value, evidence and provenance left out."""
        dump = self.model_dump(mode="json", exclude={"evidence", "provenance"})
        return {f"{section}.{name}": value for section, table in dump.items() for name, value in table.items()}

    def with_knobs(self, knobs: Mapping[str, Any]) -> Config:
        """A copy with dotted knobs replaced, e.g. `{"engine.threads": 2}`."""
        dump = self.model_dump(mode="json")
        known = self.knobs()
        for name, value in knobs.items():
            if name not in known:
                raise ConfigError(f"unknown knob {name!r}; {suggest(name, known)}")
            section, key = name.split(".", 1)
            dump[section][key] = value
        return type(self).parse(dump)


def later_version(values: Mapping[str, Any]) -> str:
    """The version of openinfer that wrote a configuration, by its provenance, where that is later than this one; else empty."""
    at: Any = values
    for key in ("provenance", "versions", "openinfer"):
        at = at.get(key) if isinstance(at, Mapping) else None
    return at if isinstance(at, str) and _numbers(at) > _numbers(__version__) else ""


def _numbers(version: str) -> tuple[int, ...]:
    """(0, 1, 0) of "0.1.0rc2": releases alone are compared."""
    return tuple(int(part) for part in re.findall(r"\d{1,9}", version)[:3])


def write_atomically(path: Path, content: str | bytes, mode: int = 0o666) -> None:
    """Write the whole file or nothing; `mode` less the process's umask. `OSError` is left to the caller. Durable once it returns."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(path)  # the name that the caller knows
        raise


def to_toml(values: Mapping[str, Any]) -> str:
    """TOML of nested tables, scalars and lists of them; `None` is left out."""
    lines: list[str] = []
    _emit_table(values, (), lines)
    return "\n".join(lines).strip() + "\n"


def _emit_table(values: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    scalars = {key: value for key, value in values.items() if key not in tables and value is not None}
    if path and (scalars or not tables):
        lines.append(f"\n[{'.'.join(_key(part) for part in path)}]")
    lines.extend(f"{_key(key)} = {_scalar(value)}" for key, value in scalars.items())
    for key, table in tables.items():
        _emit_table(table, (*path, key), lines)


def _key(text: str) -> str:
    plain = text and all(c.isascii() and (c.isalnum() or c in "-_") for c in text)
    return text if plain else _scalar(text)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        escaped = "".join(_escape(character) for character in value)
        return f'"{escaped}"'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_scalar(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    raise ConfigError(f"a configuration cannot hold {type(value).__name__}; allowed: text, numbers, booleans, lists and tables")


def _escape(character: str) -> str:
    if character.isprintable() and character not in '"\\':
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _first_problem(error: ValidationError, source: str) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        parent: Any = Config
        for part in problem["loc"][:-1]:
            parent = parent.model_fields[str(part)].annotation
        return f"{source}: unknown knob {where!r}; {suggest(str(problem['loc'][-1]), parent.model_fields)}"
    if problem["type"] == "model_type":
        return f"{source}: found {where} = {problem['input']!r}; allowed: a table, written [{where}] with one knob on each line"
    allowed = problem["msg"].removeprefix("Input should be ")
    return f"{source}: found {where} = {problem['input']!r}; allowed: {allowed[0].lower()}{allowed[1:]}"
