"""Orders to be cleared, held or refused: what a clearing desk's old models were trained on. The class is drawn first and the features after
it, so that the best possible answer is known: the posterior of this very population.

How long an order was open tells most, and comes as two time stamps in seconds since 1970 that differ by minutes: float32 keeps
multiples of 128 s of them.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

COLUMNS = ("opened_s", "closed_s", "amount", "items", "age_years", "rating")
CLASSES = ("clear", "hold", "refuse")
EPOCH_S = 1.6e9  # in September 2020: when the desk's day begins
DAY_S = 14_400.0


@dataclasses.dataclass(frozen=True)
class Population:
    """By class: its share; shape and mean in seconds of the gamma-distributed time open; mean and deviation of the log amount; mean number
    of items (Poisson, one at least); mean and deviation of age and rating.
    """

    share: Floats
    open_shape: float
    open_mean_s: Floats
    amount: Floats
    amount_deviation: float
    items: Floats
    age: Floats
    rating: Floats

    def draw(self, orders: int, generator: np.random.Generator) -> tuple[Floats, Ints]:
        """Features [orders, 6] in the order of `COLUMNS` and classes [orders]."""
        kind = generator.choice(len(self.share), orders, p=self.share)
        opened = EPOCH_S + generator.uniform(0, DAY_S, orders)
        waited = generator.gamma(self.open_shape, self.open_mean_s[kind] / self.open_shape)
        amount = np.exp(self.amount[kind] + self.amount_deviation * generator.standard_normal(orders))
        items = 1 + generator.poisson(self.items[kind])
        age = self.age[kind] + 12.0 * generator.standard_normal(orders)
        rating = self.rating[kind] + generator.standard_normal(orders)
        return np.column_stack([opened, opened + waited, amount, items, age, rating]).astype(np.float64), kind

    def log_joint(self, x: Floats) -> Floats:
        """[n, classes]: log-density of the features with the class; what does not depend on parameters is left out."""
        waited, amount, items, age, rating = x[:, 1] - x[:, 0], np.log(x[:, 2]), x[:, 3] - 1, x[:, 4], x[:, 5]
        columns = []
        for k in range(len(self.share)):
            scale = self.open_mean_s[k] / self.open_shape
            columns.append(
                math.log(self.share[k])
                + (self.open_shape - 1) * np.log(waited)
                - waited / scale
                - self.open_shape * math.log(scale)
                - math.lgamma(self.open_shape)
                - 0.5 * ((amount - self.amount[k]) / self.amount_deviation) ** 2
                - math.log(self.amount_deviation)
                + items * math.log(self.items[k])
                - self.items[k]
                - 0.5 * ((age - self.age[k]) / 12.0) ** 2
                - 0.5 * (rating - self.rating[k]) ** 2
            )
        return np.column_stack(columns)

    def best_answer(self, x: Floats) -> Ints:
        """[n]: the class of the largest posterior: no classifier is right more often."""
        return np.asarray(self.log_joint(x).argmax(1))


DESK = Population(
    share=np.array([0.5, 0.3, 0.2]),
    open_shape=4.0,
    open_mean_s=np.array([90.0, 260.0, 520.0]),
    amount=np.array([3.6, 4.0, 4.6]),
    amount_deviation=0.9,
    items=np.array([4.0, 3.0, 2.0]),
    age=np.array([44.0, 40.0, 36.0]),
    rating=np.array([0.5, 0.0, -0.6]),
)
