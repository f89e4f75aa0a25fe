"""The ordered passes between the frontend and lowering; each result is verified and may be kept for reading."""

from __future__ import annotations

from collections.abc import Callable, Collection

from openinfer.errors import ModelError
from openinfer.ir.graph import Graph
from openinfer.ir.verify import verify
from openinfer.passes.eliminate_dead import eliminate_dead
from openinfer.passes.fold_batch_norm import fold_batch_norm
from openinfer.passes.fold_constants import Evaluate, fold_constants
from openinfer.passes.fuse_activation import fuse_activation
from openinfer.passes.fuse_bias import fuse_bias
from openinfer.passes.set_precision import set_precision


def optimize(
    graph: Graph,
    precision: str,
    evaluate: Evaluate,
    fusible: dict[str, tuple[str, ...]],
    watch: Callable[[str, Graph], None] | None = None,
    keep: Collection[str] = (),
) -> Graph:
    """The graph that is lowered, in `precision`; float32 leaves the nodes whose key is in `keep` as they are. `watch(name, graph)` sees
    what the frontend read and the result of every pass.
    """
    steps: list[tuple[str, Callable[[Graph], Graph]]] = [
        ("eliminate_dead", eliminate_dead),
        ("fold_constants", lambda g: fold_constants(g, evaluate)),
        ("fold_batch_norm", fold_batch_norm),
        ("fuse_bias", fuse_bias),
        ("fuse_activation", lambda g: fuse_activation(g, fusible)),
        ("eliminate_dead again", eliminate_dead),
    ]
    if precision != "model":
        steps.insert(2, ("set_precision", lambda g: set_precision(g, precision, keep if precision == "float32" else ())))
    if watch is not None:
        watch("frontend", graph)
    for name, step in steps:
        try:
            graph = verify(step(graph), name)
        except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{name}: found attributes or constants that do not fit each other: {reason}; mend the model") from error
        if watch is not None:
            watch(name, graph)
    return graph
