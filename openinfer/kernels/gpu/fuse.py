"""Which neighbouring elementwise nodes become one kernel: a node joins its readers' kernel where all its readers are in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from openinfer.ir.graph import Graph, Node

MOST_NODES = 24  # of one kernel: beyond it, registers run out before memory traffic does


def chains(graph: Graph, fusible: Callable[[Node], bool]) -> list[list[Node]]:
    """The graph's nodes in groups, in an order in which the groups can run. Every group writes one value: its last node's.

    A node that other groups read, that is an output of the graph or that is not `fusible` ends a group or is one of its own.
    """
    consumers, outputs = graph.consumers(), {signature.name for signature in graph.outputs}
    group: dict[str, int] = {}
    members: dict[int, list[Node]] = {}
    for number, node in enumerate(reversed(graph.nodes)):
        readers = consumers.get(node.key, [])
        found = {group.get(reader.key, -1) for reader in readers}
        joined = -1
        if len(found) == 1 and node.key not in outputs and _simple(node, fusible):
            joined = found.pop()
        if joined >= 0 and len(members[joined]) < MOST_NODES:
            group[node.key] = joined
            members[joined].append(node)
            continue
        members[number] = [node]
        # Readers that cannot be fused are in no group.
        if _simple(node, fusible):
            group[node.key] = number
    # A group runs where its last node stood: everything that it reads was written before.
    return [list(reversed(members[number])) for number in sorted(members, reverse=True)]


def _simple(node: Node, fusible: Callable[[Node], bool]) -> bool:
    return len(node.outputs) == 1 and not node.captures and fusible(node)


def external(nodes: Sequence[Node]) -> tuple[str, ...]:
    """The values that a group reads from outside itself, in order."""
    inside = {node.key for node in nodes}
    return tuple(dict.fromkeys(name for node in nodes for name in node.inputs if name and name not in inside))
