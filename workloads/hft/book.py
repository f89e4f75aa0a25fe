"""A limit order book with price-time priority that turns typed events into LOBSTER messages.

Prices are integer ticks. Both sides always hold at least `DEPTH` priced levels: where one runs short, a resting order is added behind it.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

DEPTH = 10
TICK = 100  # LOBSTER prices are dollars × 10 000; one tick is a cent
NEW, REDUCE, DELETE, EXECUTE = 1, 2, 3, 4  # LOBSTER's event types
BUY, SELL = 1, -1
LIMIT_SIZE, MARKET_SIZE = 60.0, 65.0  # mean sizes in shares

# Types of the order flow, in the order of the Hawkes process.
LIMIT_BUY, LIMIT_SELL, CANCEL_BUY, CANCEL_SELL, MARKET_BUY, MARKET_SELL = range(6)


@dataclasses.dataclass(frozen=True)
class Message:
    """One line of a LOBSTER message file: `price` in ticks, `direction` of the resting order."""

    kind: int
    order: int
    size: int
    price: int
    direction: int


class Side:
    """Resting orders of one side: price → queue of [order id, size], and the priced levels from best to worst."""

    def __init__(self, direction: int) -> None:
        self.direction = direction
        self.queues: dict[int, collections.deque[list[int]]] = {}
        self.volume: dict[int, int] = {}
        self.prices: list[int] = []

    def add(self, price: int, order: int, size: int) -> None:
        """Queue an order behind those at its price."""
        if price not in self.queues:
            self.queues[price] = collections.deque()
            self.volume[price] = 0
            self.prices.append(price)
            self.prices.sort(reverse=self.direction == BUY)
        self.queues[price].append([order, size])
        self.volume[price] += size

    def take(self, price: int, position: int, size: int) -> tuple[int, int, bool]:
        """Remove up to `size` from one order; (order id, size removed, whether it is gone)."""
        queue = self.queues[price]
        entry = queue[position]
        removed = min(size, entry[1])
        entry[1] -= removed
        self.volume[price] -= removed
        gone = entry[1] == 0
        if gone:
            del queue[position]
            if not queue:
                del self.queues[price], self.volume[price]
                self.prices.remove(price)
        return entry[0], removed, gone


class Book:
    """The two sides; `apply` returns the messages that one event causes."""

    def __init__(self, generator: np.random.Generator, mid: int = 10_000) -> None:
        self._draws: Iterator[float] = iter(())
        self._generator = generator
        self.bids, self.asks = Side(BUY), Side(SELL)
        self._orders = 0
        for level in range(1, 2 * DEPTH + 1):
            self._rest(self.bids, mid - level, 60 + 10 * level)
            self._rest(self.asks, mid + level, 60 + 10 * level)

    def apply(self, kind: int) -> list[Message]:
        """Let one event of the order flow happen."""
        side, other = (self.bids, self.asks) if kind in (LIMIT_BUY, CANCEL_BUY, MARKET_SELL) else (self.asks, self.bids)
        if kind in (LIMIT_BUY, LIMIT_SELL):
            return [self._limit(side, other)]
        messages = self._market(side) if kind in (MARKET_BUY, MARKET_SELL) else [self._cancel(side)]
        while len(side.prices) < DEPTH:
            messages.append(self._rest(side, side.prices[-1] - side.direction, self._size()))
        return messages

    def levels(self, depth: int) -> npt.NDArray[np.int64]:
        """[depth, 4]: ask price, ask size, bid price, bid size, the columns of a LOBSTER order book file; prices in ticks."""
        asks, bids = self.asks, self.bids
        return np.array(
            [(a, asks.volume[a], b, bids.volume[b]) for a, b in zip(asks.prices[:depth], bids.prices[:depth], strict=True)], np.int64
        )

    def _limit(self, side: Side, other: Side) -> Message:
        spread = abs(other.prices[0] - side.prices[0])
        inside = spread > 1 and self._draw() < 0.5
        # Inside the spread any price is as likely; behind the best, orders thin out.
        distance = -1 - int(self._draw() * (spread - 1)) if inside else int(-math.log(1.0 - self._draw()) * 2.5)
        return self._rest(side, side.prices[0] - side.direction * distance, self._size())

    def _cancel(self, side: Side) -> Message:
        price = side.prices[min(int(-math.log(1.0 - self._draw()) * 2.5), len(side.prices) - 1)]
        queue = side.queues[price]
        position = int(self._draw() * len(queue))
        size = queue[position][1] if self._draw() < 0.7 else max(1, queue[position][1] // 2)
        order, removed, gone = side.take(price, position, size)
        return Message(DELETE if gone else REDUCE, order, removed, price, side.direction)

    def _market(self, side: Side) -> list[Message]:
        wanted, messages = self._size(MARKET_SIZE), []
        while wanted > 0 and len(side.prices) > 1:
            price = side.prices[0]
            order, removed, _ = side.take(price, 0, wanted)
            wanted -= removed
            messages.append(Message(EXECUTE, order, removed, price, side.direction))
        return messages

    def _rest(self, side: Side, price: int, size: int) -> Message:
        self._orders += 1
        side.add(price, self._orders, size)
        return Message(NEW, self._orders, size, price, side.direction)

    def _size(self, mean: float = LIMIT_SIZE) -> int:
        return 1 + int(-math.log(1.0 - self._draw()) * mean)

    def _draw(self) -> float:
        """A uniform number on [0, 1)."""
        for value in self._draws:
            return float(value)
        self._draws = iter(self._generator.random(65536).tolist())
        return self._draw()
