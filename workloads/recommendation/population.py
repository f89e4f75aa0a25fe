"""Who asks, what is offered, and whether it is clicked: 2,000 users, 26 categorical features at MLPerf's ratios, a known probability.

A user has `COUNTS` of what he did before, 13 kinds by 8 days, and a fixed id in each user table; an item, or the moment, an id in each of
the others. The dense features are logarithms of the user's sums. The probability of a click is logistic: an effect of every id, weights of
the dense features, and how well the latent vectors of the user's and of the item's ids agree.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import numpy.typing as npt
from openinfer.workloads.recommendation.zipf import Zipf

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Categories of the Criteo Terabyte data, which MLPerf's DLRM is trained on; MLPerf caps them at 40 million (max-ind-range), we at CAP.
CRITEO = (
    *(39_884_406, 39_043, 17_289, 7_420, 20_263, 3, 7_120, 1_543, 63, 38_532_951, 2_953_546, 403_346, 10),
    *(2_208, 11_938, 155, 4, 976, 14, 39_979_771, 25_641_295, 39_664_984, 585_935, 12_972, 108, 36),
)
CAP = 4_000
ROWS = tuple(min(CAP, rows) for rows in CRITEO)
TABLES, DENSE, DAYS, USERS = len(ROWS), 13, 8, 2_000
OF_USER = tuple(range(0, TABLES, 3))  # the tables that describe the user; the others describe item and moment
OF_ITEM = tuple(table for table in range(TABLES) if table not in OF_USER)
IDS = 1.05  # exponent of Zipf's law in every table
POPULAR = 0.8  # and among users
LATENT = 4


@dataclasses.dataclass(frozen=True)
class Population:
    """`counts` [USERS, DENSE, DAYS] and `ids` [USERS, len(OF_USER)] of every user; the truth behind clicks: `effects` by table,
    `latent` by table [rows, LATENT], `weights` [DENSE] and `bias`.
    """

    counts: Ints
    ids: Ints
    effects: tuple[Floats, ...]
    latent: tuple[Floats, ...]
    weights: Floats
    bias: float

    @functools.cached_property
    def dense(self) -> npt.NDArray[np.float32]:
        """[USERS, DENSE]: log(1 + what the user did of each kind on all days)."""
        return dense_features(self.counts.sum(axis=2))

    def rows(self, users: Ints, items: Ints) -> dict[str, npt.NDArray[np.float32] | Ints]:
        """The model's inputs for one row a user and item: `dense` [n, 13] float32, `ids` [n, 26] int64."""
        ids = np.empty((len(users), TABLES), np.int64)
        ids[:, OF_USER], ids[:, OF_ITEM] = self.ids[users], items
        return {"dense": self.dense[users], "ids": ids}

    def click(self, users: Ints, items: Ints) -> Floats:
        """The probability of a click, [n]."""
        logit = self.bias + self.dense[users].astype(np.float64) @ self.weights
        sides = []
        for tables, ids in ((OF_USER, self.ids[users]), (OF_ITEM, items)):
            vectors = np.zeros((len(users), LATENT))
            for column, table in enumerate(tables):
                logit += self.effects[table][ids[:, column]]
                vectors += self.latent[table][ids[:, column]]
            sides.append(vectors)
        probability: Floats = 1 / (1 + np.exp(-logit - (sides[0] * sides[1]).sum(axis=1)))
        return probability


def dense_features(sums: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """From what a user did of each kind, [..., DENSE], to the model's dense features."""
    return np.log1p(sums.astype(np.float64)).astype(np.float32)


@functools.cache
def population() -> Population:
    """The one population that every trace is drawn from."""
    draw = np.random.default_rng(13_26)
    activity = draw.lognormal(0.0, 1.0, (USERS, 1, 1)) * draw.gamma(1.0, 1.0, (USERS, DENSE, 1))
    counts = draw.poisson(2.0 * activity, (USERS, DENSE, DAYS)).astype(np.int64)
    ids = np.column_stack([Zipf(IDS, ROWS[table]).draw(draw, USERS) - 1 for table in OF_USER])
    effects = tuple(draw.normal(0.0, 0.20, rows) for rows in ROWS)
    latent = tuple(draw.normal(0.0, 0.20, (rows, LATENT)) for rows in ROWS)
    weights = draw.normal(0.0, 0.15, DENSE)
    dense = dense_features(counts.sum(axis=2)).mean(axis=0)
    return Population(counts, ids, effects, latent, weights, -1.5 - float(dense @ weights))


def items(generator: np.random.Generator, rows: int) -> Ints:
    """Ids of `rows` items and moments, [rows, len(OF_ITEM)]."""
    return np.column_stack([Zipf(IDS, ROWS[table]).draw(generator, rows) - 1 for table in OF_ITEM])


def users(generator: np.random.Generator, count: int) -> Ints:
    """Which user asks, [count]."""
    return Zipf(POPULAR, USERS).draw(generator, count) - 1


def auc(scores: npt.NDArray[np.floating], clicks: npt.NDArray[np.integer]) -> float:
    """Area under the ROC curve: the chance that a clicked row scores above one that was not, ties counting half."""
    from scipy.stats import rankdata

    ranks, positives = rankdata(scores), int(clicks.sum())
    negatives = len(clicks) - positives
    return float((ranks[clicks == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))
