"""Every error that a caller can cause.

    OpenInferError
    ├── ModelError                 the model file
    │   ├── UnsupportedOperatorError
    │   └── HostileModelError
    ├── InputError                 a request: name, dtype, shape
    │   └── IndexRangeError        an index that a call gathers or scatters by lies outside its axis
    ├── ConfigError                knobs and configuration files
    │   └── ProvenanceError        a configuration made for another model
    ├── PrecisionError             a conversion would lose more than the tolerance
    ├── MemoryBudgetError
    ├── LeaseError                 a lease used against its contract
    │   ├── UseAfterReleaseError
    │   ├── DoubleReleaseError
    │   └── CanaryError
    ├── SandboxError
    ├── SchedulerError
    │   ├── BlockingTimeoutError   a blocking call of the request took too long
    │   ├── DeadlineError
    │   ├── LockOrderError         two locks are taken in both orders
    │   └── OverloadError
    ├── WorkerError                a child process died, hung or raised
    ├── WorkloadError
    ├── StudyError
    ├── GpuUnavailableError        the GPU backend was asked for, and there is no driver, no device, or no CuPy
    ├── CompiledCodeError          machine code that cannot be linked
    │   └── SealedError            code is needed that this process may not make any more
    └── MissingExtraError          an optional dependency that is not installed

A message is one line: what was found, what is allowed, what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OpenInferError(Exception):
    """Base of everything that OpenInfer raises on purpose."""


class ModelError(OpenInferError):
    """The model file cannot be used."""


class UnsupportedOperatorError(ModelError):
    """A node that neither the compiler nor the fallback can run."""


class HostileModelError(ModelError):
    """The model file asks for something that no honest model needs."""


class InputError(OpenInferError):
    """A request does not fit the model's signature."""


class IndexRangeError(InputError):
    """An index that a call gathers or scatters by lies outside its axis. The outputs of that call mean nothing."""

    MESSAGE = "found an index outside its axis in a gather or scatter; allowed are -size ... size - 1; mend the indices of the request"


class ConfigError(OpenInferError):
    """A configuration has an unknown knob or a value out of range."""


class ProvenanceError(ConfigError):
    """A configuration was tuned for another model."""


class PrecisionError(OpenInferError):
    """A conversion to a narrower type would lose more than the tolerance allows."""


class MemoryBudgetError(OpenInferError):
    """A plan or a request needs more memory than the budget allows."""


class LeaseError(OpenInferError):
    """A lease was shared, used or released against its contract."""


class UseAfterReleaseError(LeaseError):
    """A lease was used after its release."""


class DoubleReleaseError(LeaseError):
    """A lease was released more often than it was taken."""


class CanaryError(LeaseError):
    """The bytes beside a lease were written to."""


class SandboxError(OpenInferError):
    """The sandboxed worker was refused, killed or timed out."""


class SchedulerError(OpenInferError):
    """A request was not run."""


class DeadlineError(SchedulerError):
    """A request cannot meet its deadline, or missed it."""


class BlockingTimeoutError(SchedulerError):
    """A blocking call before or after the model did not end in time."""


class LockOrderError(SchedulerError):
    """A lock would be taken in an order that can deadlock with another thread's."""


class OverloadError(SchedulerError):
    """The queue is full."""


class WorkerError(OpenInferError):
    """A child process died, hung, or raised; `kind` is then the name of what it raised."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class WorkloadError(OpenInferError):
    """A workload or trace is unknown or malformed."""


class StudyError(OpenInferError):
    """A study cannot be started, resumed or read."""


class GpuUnavailableError(OpenInferError):
    """The GPU backend was asked for and cannot be used here."""


class CompiledCodeError(OpenInferError):
    """Machine code is damaged, or needs a symbol that this process does not have."""


class SealedError(CompiledCodeError):
    """Code is needed that was not compiled before this process gave up the right to make any."""


class MissingExtraError(OpenInferError):
    """An optional dependency is not installed."""


def suggest(name: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the nearest known one, and all that are allowed."""
    allowed = sorted(known)
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}allowed: {', '.join(allowed)}"
