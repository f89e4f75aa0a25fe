"""A pool of leases: size classes over whole pages, a budget, and a controller that keeps idle memory small."""

from __future__ import annotations

import collections
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

from openinfer.errors import MemoryBudgetError
from openinfer.fork_lock import ForkLock
from openinfer.memory import guard
from openinfer.memory.controller import Controller, Decision, Policy
from openinfer.memory.heap import Block, Heap, Slab
from openinfer.memory.lease import Lease
from openinfer.memory.region import HUGE_PAGE, MappedRegion, Region
from openinfer.memory.size_classes import PAGE, SMALL, SizeClasses

SLAB_BYTES = 16 * PAGE
SPARE_PART = 32  # of the bytes on lease at the fullest moment: as much may lie idle in blocks of one size
RECLAIMS = 4  # the owner lets go of what is ready in steps
SMALLEST_REGION, LARGEST_REGION = 1 << 22, 1 << 26

Record = Callable[[float, int, int, str], None]


@dataclasses.dataclass(frozen=True)
class PoolStatistics:
    """A pool now, in bytes. Held memory is what the pool has in use or ready: leased blocks, idle blocks, and idle pages that the system
    has not got back. `charged_bytes` lie outside the pool and count against its budget.

    A miss is a lease that needed memory from the system. Internal fragmentation: the part of leased blocks that was not asked for.
    External: the part of held memory that even the fullest moment of this window and the last two (`idle_s` each) had no use for, because
    it is in pieces of the wrong size, or not given back yet.
    Resident: the part of the pool's memory that is in RAM and that no lease uses (pages in RAM less leased) ÷ pages in RAM.
    """

    budget_bytes: int
    charged_bytes: int
    requested_bytes: int
    leased_bytes: int
    held_bytes: int
    mapped_bytes: int
    resident_bytes: int
    high_water_bytes: int
    live_leases: int
    leases: int
    misses: int
    refusals: int
    miss_rate: float
    internal_fragmentation: float
    external_fragmentation: float
    resident_fragmentation: float
    owners: Mapping[str, int]
    counts: Mapping[str, int]
    decisions: tuple[Decision, ...]


class Pool:
    """Leases of 64-byte-aligned memory. Any number of threads may use it.

    `record(time_s, number, size_bytes, owner)` is told of every lease, and of its release with a size of -1. `reclaim()` is asked, outside
    the lock, to let go of leases that can be made again, before a request is refused; it says whether there were any.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        new_region: Callable[[int, bool], Region] = MappedRegion,
        record: Record | None = None,
        reclaim: Callable[[], bool] | None = None,
    ) -> None:
        self.policy = policy or Policy()
        self._clock, self._record, self.reclaim = clock, record, reclaim
        self._classes = SizeClasses(self.policy.growth, self.policy.alignment)
        self._heap = Heap(lambda size: new_region(size, self.policy.huge_pages))
        self._controller = Controller(self.policy)
        self._idle: dict[int, list[Block]] = {}
        self._live: dict[int, tuple[Block, int, str]] = {}
        self._returned: collections.deque[int] = collections.deque()
        self._lock = ForkLock()
        self._guarded = guard.enabled()
        self._margin = max(guard.CANARY_BYTES, self.policy.alignment) if self._guarded else 0
        self._poisoned: dict[tuple[int, int], tuple[Block, str]] = {}
        self._region_bytes = SMALLEST_REGION
        self._leases = self._misses = self._refusals = 0
        self._charged = self._requested = self._leased = self._idle_bytes = self._high_water = 0
        self._now = clock()
        self._fullest = 0  # the most bytes on lease at once in this window, and in the last two
        self._before = (0, 0)

    @property
    def held_bytes(self) -> int:
        """Bytes in use or ready: leased and idle blocks, and idle pages that the system has not got back."""
        return self._leased + self._idle_bytes + self._heap.dirty_bytes

    @property
    def leased_bytes(self) -> int:
        """Bytes of the blocks on lease."""
        return self._leased

    @property
    def external_fragmentation(self) -> float:
        """As in the statistics, without asking the system."""
        held = self.held_bytes
        return max(0.0, 1 - self._peak() / held) if held else 0.0

    def lease(self, size_bytes: int, owner: str, shared: bool = False) -> Lease:
        """`size_bytes` of memory, with anything in it. `MemoryBudgetError` where the budget or the system has no room for it."""
        number, block = self._take(size_bytes, owner)
        view = block.held.region.view(block.offset, block.size if self._guarded else size_bytes)
        if self._guarded:
            view = guard.arm(view, self._margin, size_bytes)
        return Lease(view, size_bytes, owner, shared, number, self._give)

    def charge(self, size_bytes: int, owner: str) -> None:
        """Count memory outside the pool against the budget; negative to take it back. `MemoryBudgetError` where there is no room."""
        with self._lock.lock:
            if size_bytes > 0 and not self._room(size_bytes):
                self._trim(self._clock(), "reclaim")
                if not self._room(size_bytes):
                    self._refuse(size_bytes, owner)
            self._charged += size_bytes

    def check_room(self, size_bytes: int, owner: str) -> None:
        """`MemoryBudgetError` where a lease of this size could never be had beside what is charged."""
        budget = self.policy.budget_bytes
        if budget and self._charged + self._classes.of(size_bytes) > budget:
            self._refuse(size_bytes, owner)

    def return_later(self, lease: Lease) -> Callable[[], None]:
        """A function that releases the lease without a lock, for finalizers, which may run inside any other call."""
        return functools.partial(self._returned.append, lease.number)

    def step(self) -> None:
        """Let the controller act if a window has ended: for a pool that nobody asks for memory."""
        with self._lock.lock:
            self._look()

    def trim(self) -> None:
        """Give all idle memory back to the system now."""
        with self._lock.lock:
            self._drain()
            self._trim(self._clock(), "trim")

    def verify(self) -> None:
        """With `OPENINFER_CHECKS=1`: look at every canary and at all released memory. `CanaryError`, `UseAfterReleaseError`."""
        with self._lock.lock:
            for block, owner in self._poisoned.values():
                guard.check_poison(block.held.region.view(block.offset, block.size), owner)
            for block, size, owner in self._live.values() if self._guarded else ():
                guard.check_canaries(block.held.region.view(block.offset, block.size), self._margin, size, owner)

    def statistics(self) -> PoolStatistics:
        """The state now; lets the controller act first."""
        with self._lock.lock:
            self._look()
            held, owners = self.held_bytes, collections.Counter[str]()
            for _, size, owner in self._live.values():
                owners[owner] += size
            resident = sum(region.resident_bytes() for region in self._heap.regions)
            return PoolStatistics(
                budget_bytes=self.policy.budget_bytes,
                charged_bytes=self._charged,
                requested_bytes=self._requested,
                leased_bytes=self._leased,
                held_bytes=held,
                mapped_bytes=self._heap.mapped_bytes,
                resident_bytes=resident,
                high_water_bytes=self._high_water,
                live_leases=len(self._live),
                leases=self._leases,
                misses=self._misses,
                refusals=self._refusals,
                miss_rate=self._misses / max(1, self._leases),
                internal_fragmentation=1 - self._requested / self._leased if self._leased else 0.0,
                external_fragmentation=self.external_fragmentation,
                resident_fragmentation=max(0.0, 1 - self._leased / resident) if resident else 0.0,
                owners=dict(owners),
                counts=dict(self._controller.counts),
                decisions=tuple(self._controller.decisions),
            )

    def _take(self, size_bytes: int, owner: str) -> tuple[int, Block]:
        size = self._classes.of(size_bytes + 2 * self._margin)
        for _ in range(RECLAIMS):
            with self._lock.lock:
                block = self._find(size)
                if block is not None:
                    number = self._leases
                    self._leases += 1
                    self._live[number] = block, size_bytes, owner
                    self._leased += block.size
                    self._requested += size_bytes
                    self._fullest = max(self._fullest, self._leased)
                    self._high_water = max(self._high_water, self.held_bytes)
                    if self._record is not None:
                        self._record(self._clock(), number, size_bytes, owner)
                    return number, block
            if self.reclaim is None or not self.reclaim():
                break
        with self._lock.lock:
            self._refuse(size_bytes, owner)

    def _find(self, size: int) -> Block | None:
        """A block of a class, or `None` where the budget has no room for one."""
        self._look()
        idle = self._idle.get(size)
        if idle:
            block = idle.pop()
            self._idle_bytes -= size
            self._controller.leased(size, len(idle))
        else:
            if self.policy.controller:
                self._controller.lacked(size)
            found = self._slab_block(size) if size <= SMALL else self._pages(size)
            if found is None:
                return None
            block = found
        if block.slab is not None:
            block.slab.leased += 1
        if self._guarded:
            self._check_released(block)
        return block

    def _pages(self, size: int) -> Block | None:
        """Whole pages: used ones, then such as need room in the budget, then after giving up what is idle."""
        for attempt in range(2):
            block = self._heap.take(size, dirty=True)
            if block is None and self._room(size):
                block = self._heap.take(size, dirty=False)
                if block is None and self._grow(size):
                    block = self._heap.take(size, dirty=False)
                if block is not None:
                    self._misses += 1
                    if self.policy.controller:
                        self._controller.missed(size, self._now, self._spare_bytes() // size)
                        self._trim_unused(beside=size)
            if block is not None or attempt:
                return block
            self._trim(self._now, "reclaim")
        return None

    def _slab_block(self, size: int) -> Block | None:
        block = self._pages(SLAB_BYTES)
        if block is None:
            return None
        if self._guarded:
            self._check_released(block)
        slab = Slab(block)
        cut = [Block(block.held, block.offset + at, size, slab) for at in range(0, SLAB_BYTES - size + 1, size)]
        first = cut.pop(0)
        self._idle.setdefault(size, []).extend(reversed(cut))
        self._idle_bytes += SLAB_BYTES - size
        return first

    def _give(self, number: int) -> None:
        with self._lock.lock:
            self._put(number)

    def _put(self, number: int) -> None:
        block, size_bytes, owner = self._live.pop(number)
        self._leased -= block.size
        self._requested -= size_bytes
        if self._record is not None:
            self._record(self._clock(), number, -1, owner)
        if block.slab is not None:
            block.slab.leased -= 1
        idle = self._idle.setdefault(block.size, [])
        if block.slab is not None or not self.policy.controller or self._spares(block.size, len(idle)):
            idle.append(block)
            self._idle_bytes += block.size
        else:
            self._heap.give(block, self._now)
        if self._guarded:
            view = block.held.region.view(block.offset, block.size)
            self._poisoned[block.held.number, block.offset] = block, owner
            try:
                guard.check_canaries(view, self._margin, size_bytes, owner)
            finally:
                guard.poison(view)

    def _spares(self, size: int, idle: int) -> bool:
        """Whether a block is kept as it is; what is not joins its neighbours, so that other sizes can use it."""
        return idle < self._controller.keep(size) and self._idle_bytes + size <= self._spare_bytes()

    def _spare_bytes(self) -> int:
        return max(SLAB_BYTES, self._peak() // SPARE_PART)

    def _peak(self) -> int:
        return max(self._fullest, *self._before)

    def _drain(self) -> None:
        while self._returned:
            self._put(self._returned.popleft())

    def _look(self) -> None:
        """Take in what finalizers returned; at the end of a window, keep less of what lay idle."""
        self._drain()
        self._now = self._clock()
        if not self._controller.due(self._now):
            return
        self._before, self._fullest = (self._fullest, self._before[0]), self._leased
        if self.policy.controller:
            self._controller.shrink(self._now, {size: len(blocks) for size, blocks in self._idle.items()})
            self._release_slabs()
            spare = self._spare_bytes()
            for size, blocks in self._idle.items():
                keep = self._controller.keep(size)
                while size > SMALL and blocks and (len(blocks) > keep or self._idle_bytes > spare):
                    self._idle_bytes -= size
                    self._heap.give(blocks.pop(0), self._now)
            if self._trim_unused():
                self._region_bytes = max(SMALLEST_REGION, self._region_bytes // 2)

    def _trim_unused(self, beside: int = 0) -> bool:
        """Give back what was not needed at the fullest moment of two windows, while `beside` bytes are about to be leased; whether it was
        worth it.
        """
        held, fullest = self.held_bytes + beside, max(self._peak(), self._leased + beside)
        spare = max(SLAB_BYTES, fullest // SPARE_PART)
        unused = held - fullest - spare
        if unused > (spare // 2 if beside else 0):  # within a window seldom and then more at once: each time costs a system call
            self._purge(unused, "trim", "not needed at the fullest moment of two windows")
            return True
        return False

    def _trim(self, now: float, action: str) -> None:
        """Give everything idle back."""
        for size, blocks in self._idle.items():
            if size > SMALL:
                for block in blocks:
                    self._idle_bytes -= size
                    self._heap.give(block, now)
                blocks.clear()
        self._release_slabs()
        self._region_bytes = max(SMALLEST_REGION, self._region_bytes // 2)
        self._purge(self._heap.dirty_bytes, action, "at the budget" if action == "reclaim" else "asked for")

    def _release_slabs(self) -> None:
        """Give slabs back that have no block on lease."""
        given: dict[int, Slab] = {}
        for size, blocks in self._idle.items():
            if size <= SMALL:
                empty = {id(b.slab): b.slab for b in blocks if b.slab is not None and not b.slab.leased}
                if empty:
                    blocks[:] = [block for block in blocks if id(block.slab) not in empty]
                    given.update(empty)
        for slab in given.values():
            self._idle_bytes -= slab.block.size
            self._heap.give(slab.block, self._now)

    def _purge(self, size: int, action: str, reason: str) -> None:
        held = self.held_bytes
        if self._guarded:
            self._poisoned.clear()  # purged pages read as zeros
        given = self._heap.purge(size)
        if given:
            self._controller.decide(self._now, action, given, held, self.held_bytes, reason)

    def _grow(self, size: int) -> bool:
        """Map another region: address space, which costs nothing until it is leased."""
        wanted = max(self._region_bytes, size)
        if self.policy.huge_pages:
            wanted = -(-wanted // HUGE_PAGE) * HUGE_PAGE
        for attempt in (wanted, size):
            try:
                self._heap.grow(attempt)
            except (OSError, ValueError, OverflowError, MemoryError):
                continue
            self._controller.decide(self._now, "map", attempt, self._heap.mapped_bytes - attempt, self._heap.mapped_bytes, "a miss")
            self._region_bytes = min(LARGEST_REGION, 2 * self._region_bytes)
            return True
        return False

    def _room(self, size: int) -> bool:
        budget = self.policy.budget_bytes
        return not budget or self.held_bytes + self._charged + size <= budget

    def _refuse(self, size_bytes: int, owner: str) -> NoReturn:
        self._refusals += 1
        budget, used = self.policy.budget_bytes, self._leased + self._charged
        allowed = f"{max(0, budget - used)} of the {budget} in memory.budget_bytes" if budget else "what the system gives"
        raise MemoryBudgetError(
            f"{owner!r} asks for {size_bytes} bytes beside {used} in use; allowed: {allowed}; raise the budget or limit the calls at once"
        )

    def _check_released(self, block: Block) -> None:
        """The released memory that a block is made of must be as it was left."""
        for key, (old, owner) in list(self._poisoned.items()):
            if old.held is block.held and old.offset < block.offset + block.size and block.offset < old.offset + old.size:
                del self._poisoned[key]
                guard.check_poison(old.held.region.view(old.offset, old.size), owner)
