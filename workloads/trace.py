"""A trace: when requests arrive and what they carry. Read from and written to npz and parquet."""

from __future__ import annotations

import dataclasses
import functools
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


# Names in files, beside the inputs' own.
ROWS, LOOK_UPS = "request_rows", "request_look_ups"


@dataclasses.dataclass(frozen=True)
class Trace:
    """`inputs` map a model input to an array whose first axis is the row; `labels` have a value a row. A request brings `rows` of
    them, [requests], or one where that is `None`.

    `arrival_s`, [requests]: seconds from the start, ascending, or `None`. `look_ups`, [requests]: the key that a request looks up before
    it can be answered, -1 for a request that has all it needs.
    """

    inputs: Mapping[str, Array]
    arrival_s: npt.NDArray[np.float64] | None = None
    labels: Array | None = None
    rows: npt.NDArray[np.int64] | None = None
    look_ups: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if not self.inputs:
            raise WorkloadError("a trace without inputs; it needs one array per model input")
        labels = {} if self.labels is None else {"labels": self.labels}
        for name, array in (*self.inputs.items(), *labels.items()):
            if array.ndim == 0:
                raise WorkloadError(f"{name}: found a single value; allowed: arrays whose first axis is the request; reshape it to (1, …)")
        _check_lengths({name: len(array) for name, array in (*self.inputs.items(), *labels.items())})
        lengths = {name: len(array) for name, array in self._by_request()}
        if self.arrival_s is not None:
            _check_times(self.arrival_s)
            if len(self.arrival_s) and not (np.isfinite(self.arrival_s).all() and (np.diff(self.arrival_s) >= 0).all()):
                raise WorkloadError("arrival_s: found times that are not finite and ascending; sort the trace by arrival")
        if self.rows is None:
            lengths["inputs"] = self.row_count
        elif (self.rows < 1).any() or int(self.rows.sum()) != self.row_count:
            found = f"{int(self.rows.sum())} rows in all, the smallest request {int(self.rows.min(initial=0))}"
            raise WorkloadError(f"{ROWS}: found {found}; allowed: at least 1 each, {self.row_count} in all, as the inputs have")
        _check_lengths(lengths)

    def __len__(self) -> int:
        return self.row_count if self.rows is None else len(self.rows)

    @property
    def row_count(self) -> int:
        """Rows of all requests."""
        return len(next(iter(self.inputs.values())))

    @functools.cached_property
    def _begins(self) -> list[int]:
        """The first row of each request, and the end."""
        return list(range(len(self) + 1)) if self.rows is None else [0, *np.cumsum(self.rows).tolist()]

    def span(self, start: int, stop: int) -> slice:
        """The rows of requests start … stop - 1."""
        return slice(self._begins[start], self._begins[stop])

    def request(self, index: int) -> dict[str, Array]:
        """The inputs of one request: its rows on the first axis."""
        return {name: array[self.span(index, index + 1)] for name, array in self.inputs.items()}

    def digest(self) -> str:
        """SHA-256 of what the requests carry, when they come and what they look up."""
        digest = hashlib.sha256()
        for name, array in (*self.inputs.items(), *self._by_request()):
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def between(self, start: int, stop: int) -> Trace:
        """Requests start … stop - 1; the first of them arrives at 0."""
        span = self.span(start, min(stop, len(self)))
        return Trace(
            {name: array[span] for name, array in self.inputs.items()},
            None if self.arrival_s is None else self.arrival_s[start:stop] - self.arrival_s[start : start + 1],
            None if self.labels is None else self.labels[span],
            None if self.rows is None else self.rows[start:stop],
            None if self.look_ups is None else self.look_ups[start:stop],
        )

    def _by_request(self) -> list[tuple[str, Array]]:
        """What has one value a request."""
        kept = (("arrival_s", self.arrival_s), (ROWS, self.rows), (LOOK_UPS, self.look_ups))
        return [(name, array) for name, array in kept if array is not None]


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
    rows, look_ups = (_integers(name, arrays.pop(name, None)) for name in (ROWS, LOOK_UPS))
    return Trace(arrays, arrival, arrays.pop("labels", None), rows, look_ups)


def _integers(name: str, array: Array | None) -> npt.NDArray[np.int64] | None:
    if array is None:
        return None
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise WorkloadError(f"{name}: found {array.dtype} of shape {array.shape}; allowed: one integer a request")
    return array.astype(np.int64)


def _check_lengths(lengths: Mapping[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        raise WorkloadError(f"a trace whose arrays differ in length: {dict(lengths)}; the first axis is the request")


def _check_times(arrival: Array) -> None:
    if arrival.ndim != 1 or arrival.dtype.kind not in "fiu":
        found = f"{arrival.dtype} of shape {arrival.shape}"
        raise WorkloadError(f"arrival_s: found {found}; allowed: one number a request; give seconds from the start of the trace")


def write(trace: Trace, path: str | Path) -> None:
    """Write the whole trace or nothing."""
    path = Path(path)
    if path.suffix == ".npz":
        labels = {} if trace.labels is None else {"labels": trace.labels}
        data = npz_bytes({**trace.inputs, **labels, **dict(trace._by_request())})
    elif path.suffix == ".parquet":
        data = _parquet(trace).getvalue()
    else:
        raise WorkloadError(f"cannot write a trace of type {path.suffix!r}; allowed: {', '.join(READERS)}")
    write_atomically(path, data)


def npz_bytes(arrays: Mapping[str, Any]) -> bytes:
    """An npz archive of the arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _parquet(trace: Trace) -> io.BytesIO:
    """A record a request; the rows of requests of several are a list."""
    import pyarrow
    import pyarrow.parquet

    labels = {} if trace.labels is None else {"labels": trace.labels}
    columns = {}
    for name, array in ({**trace.inputs, **labels}).items():
        flat: Any = pyarrow.array(np.ascontiguousarray(array).reshape(-1))
        for size in reversed(array.shape[1:]):
            flat = pyarrow.FixedSizeListArray.from_arrays(flat, size)
        columns[name] = flat if trace.rows is None else pyarrow.ListArray.from_arrays(pyarrow.array(trace._begins, pyarrow.int32()), flat)
    columns |= {name: pyarrow.array(array) for name, array in trace._by_request() if name != ROWS}
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

    arrays: dict[str, Array] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pyarrow.types.is_list(column.type) and not column.null_count:
            rows = np.diff(column.offsets.to_numpy())
            if not np.array_equal(arrays.setdefault(ROWS, rows), rows):
                raise ValueError(f"column {name!r} has other lists than the columns before; allowed: as many rows of a request in each")
            column = column.flatten()
        shape = [len(column)]
        while pyarrow.types.is_fixed_size_list(column.type):
            shape.append(column.type.list_size)
            column = column.flatten()
        if not (pyarrow.types.is_primitive(column.type) and column.null_count == 0):
            raise ValueError(f"column {name!r} is of {column.type}; allowed: numbers and fixed-size lists of them, without nulls")
        arrays[name] = column.to_numpy(zero_copy_only=False).reshape(shape)
    return arrays


READERS = {".npz": read_npz, ".parquet": _read_parquet}
