"""A trace: when requests arrive and what they carry. Read from and written to npz and parquet."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from openinfer.config import write_atomically
from openinfer.errors import WorkloadError

Array = npt.NDArray[Any]

# What NumPy and zipfile raise for a file that is damaged, cut, encrypted, of another kind, or that claims more than there is memory for.
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


@dataclasses.dataclass(frozen=True)
class Trace:
    """`inputs` map a model input to an array whose first axis is the request; `arrival_s` are seconds from the start, ascending, or
    `None`.
    """

    inputs: Mapping[str, Array]
    arrival_s: npt.NDArray[np.float64] | None = None
    labels: Array | None = None

    def __post_init__(self) -> None:
        if not self.inputs:
            raise WorkloadError("a trace without inputs; it needs one array per model input")
        labels = {} if self.labels is None else {"labels": self.labels}
        for name, array in (*self.inputs.items(), *labels.items()):
            if array.ndim == 0:
                raise WorkloadError(f"{name}: found a single value; allowed: arrays whose first axis is the request; reshape it to (1, …)")
        lengths = {name: len(array) for name, array in (*self.inputs.items(), *labels.items())}
        if self.arrival_s is not None:
            _check_times(self.arrival_s)
            lengths["arrival_s"] = len(self.arrival_s)
            if len(self.arrival_s) and not (np.isfinite(self.arrival_s).all() and (np.diff(self.arrival_s) >= 0).all()):
                raise WorkloadError("arrival_s: found times that are not finite and ascending; sort the trace by arrival")
        if len(set(lengths.values())) != 1:
            raise WorkloadError(f"a trace whose arrays differ in length: {lengths}; the first axis is the request")

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def request(self, index: int) -> dict[str, Array]:
        """The inputs of one request, with a leading batch axis of 1."""
        return {name: array[index : index + 1] for name, array in self.inputs.items()}

    def digest(self) -> str:
        """SHA-256 of what the requests carry and when they come."""
        digest = hashlib.sha256()
        for name, array in (*self.inputs.items(), *([("arrival_s", self.arrival_s)] if self.arrival_s is not None else [])):
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def between(self, start: int, stop: int) -> Trace:
        """Requests start … stop - 1; the first of them arrives at 0."""
        inputs = {name: array[start:stop] for name, array in self.inputs.items()}
        arrival = None if self.arrival_s is None else self.arrival_s[start:stop] - self.arrival_s[start : start + 1]
        return Trace(inputs, arrival, None if self.labels is None else self.labels[start:stop])


def read(path: str | Path) -> Trace:
    """A trace from `.npz` or `.parquet`; `WorkloadError` where it is neither, or malformed."""
    path = Path(path)
    if path.suffix not in READERS:
        raise WorkloadError(f"found a trace of type {path.suffix!r}; allowed: {', '.join(READERS)}")
    arrays = READERS[path.suffix](path)
    arrival = arrays.pop("arrival_s", None)
    if arrival is not None:
        _check_times(arrival)
        arrival = arrival.astype(np.float64)
    return Trace(arrays, arrival, arrays.pop("labels", None))


def _check_times(arrival: Array) -> None:
    if arrival.ndim != 1 or arrival.dtype.kind not in "fiu":
        found = f"{arrival.dtype} of shape {arrival.shape}"
        raise WorkloadError(f"arrival_s: found {found}; allowed: one number a request; give seconds from the start of the trace")


def write(trace: Trace, path: str | Path) -> None:
    """Write the whole trace or nothing."""
    path = Path(path)
    arrays: dict[str, Any] = dict(trace.inputs)
    if trace.arrival_s is not None:
        arrays["arrival_s"] = trace.arrival_s
    if trace.labels is not None:
        arrays["labels"] = trace.labels
    if path.suffix == ".npz":
        data = npz_bytes(arrays)
    elif path.suffix == ".parquet":
        data = _parquet(arrays).getvalue()
    else:
        raise WorkloadError(f"cannot write a trace of type {path.suffix!r}; allowed: {', '.join(READERS)}")
    write_atomically(path, data)


def npz_bytes(arrays: Mapping[str, Any]) -> bytes:
    """An npz archive of the arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _parquet(arrays: Mapping[str, Array]) -> io.BytesIO:
    import pyarrow
    import pyarrow.parquet

    columns = {}
    for name, array in arrays.items():
        flat: Any = pyarrow.array(np.ascontiguousarray(array).reshape(-1))
        for size in reversed(array.shape[1:]):
            flat = pyarrow.FixedSizeListArray.from_arrays(flat, size)
        columns[name] = flat
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer


def read_npz(path: str | Path) -> dict[str, Array]:
    """The arrays of an npz archive by name; `WorkloadError` where the file is not one, or is damaged."""
    try:
        with open(path, "rb") as file:
            archive = _opened(file)
            if archive is None:
                raise ValueError("not an npz file, or cut short")
            arrays = {name: archive[name] for name in archive.files}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):  # the raw bytes of a member that is no npy file
                raise ValueError(f"the member {name!r} is not an array")
    except _UNREADABLE as error:
        raise _unreadable(path, error, "give an npz file of plain arrays that numpy.savez wrote, one per input") from None
    return arrays


def _opened(file: IO[bytes]) -> Any:
    if not zipfile.is_zipfile(file):
        return None
    file.seek(0)
    archive = np.load(file, allow_pickle=False)
    return archive if isinstance(archive, np.lib.npyio.NpzFile) else None


def _unreadable(path: str | Path, error: Exception, remedy: str) -> WorkloadError:
    missing = "no such file" if isinstance(error, FileNotFoundError) else None
    reason = getattr(error, "strerror", None) or missing or " ".join(str(error).split())[:200] or type(error).__name__
    return WorkloadError(f"cannot read {str(path)!r}: {reason}; {remedy}")


def _read_parquet(path: Path) -> dict[str, Array]:
    import pyarrow
    import pyarrow.parquet

    try:
        return _columns(pyarrow.parquet.read_table(path))
    except (*_UNREADABLE, pyarrow.ArrowException) as error:
        raise _unreadable(path, error, "give a parquet file with one column per input") from None


def _columns(table: Any) -> dict[str, Array]:
    import pyarrow

    arrays = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        shape = [len(column)]
        while pyarrow.types.is_fixed_size_list(column.type):
            shape.append(column.type.list_size)
            column = column.flatten()
        if not (pyarrow.types.is_primitive(column.type) and column.null_count == 0):
            raise ValueError(f"column {name!r} is of {column.type}; allowed: numbers and fixed-size lists of them, without nulls")
        arrays[name] = column.to_numpy(zero_copy_only=False).reshape(shape)
    return arrays


READERS = {".npz": read_npz, ".parquet": _read_parquet}
