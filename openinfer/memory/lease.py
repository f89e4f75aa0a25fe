"""A piece of pool memory with the name of who holds it."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from openinfer.errors import DoubleReleaseError, LeaseError, UseAfterReleaseError
from openinfer.ir.graph import Array


class Lease:
    """`size_bytes` of memory until `release`. Exclusive, or shared: then it is released once by each holder, and lasts until the last one.

    As a context manager it releases on the way out. A lease that is forgotten keeps its memory: the pool's statistics name its owner.
    """

    __slots__ = ("_array", "_give_back", "_holders", "number", "owner", "shared", "size_bytes")

    def __init__(self, array: Array, size_bytes: int, owner: str, shared: bool, number: int, give_back: Callable[[int], None]) -> None:
        self._array: Array | None = array
        self._give_back = give_back
        self.size_bytes, self.owner, self.shared, self.number = size_bytes, owner, shared, number
        # One entry a holder, and the first one is true: appending and popping are one step each, so that threads need no lock.
        self._holders = [True]

    @property
    def array(self) -> Array:
        """The bytes, as uint8. `UseAfterReleaseError` after the last release."""
        if self._array is None:
            raise UseAfterReleaseError(f"the lease of {self.size_bytes} bytes for {self.owner!r} was released; take a new one")
        return self._array

    def share(self) -> Lease:
        """One more holder of a shared lease; `LeaseError` for an exclusive one."""
        if not self.shared:
            raise LeaseError(f"the lease of {self.size_bytes} bytes for {self.owner!r} is exclusive; take it with shared=True")
        if self._array is None:
            raise UseAfterReleaseError(f"the lease of {self.size_bytes} bytes for {self.owner!r} was released; take a new one")
        self._holders.append(False)
        return self

    def release(self) -> None:
        """Give the memory back, or one holder's part in it. `DoubleReleaseError` where nobody holds it any more."""
        try:
            last = self._holders.pop()
        except IndexError:
            raise DoubleReleaseError(
                f"the lease of {self.size_bytes} bytes for {self.owner!r} was released already; release it once a holder"
            ) from None
        if last:
            self._array = None
            self._give_back(self.number)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
