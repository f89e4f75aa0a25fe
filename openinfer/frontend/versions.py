"""What a model says of its versions, and whether its operators exist in them: by name, once ONNX's own checker has refused the model.

That checker says "No Op registered for LayerNormalization with domain_version of 13", and of an attribute that came or went, "Unrecognized
attribute: axes for operator ReduceSum". Here the message says in which opsets the operator has it.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from openinfer.errors import ModelError
from openinfer.frontend.gate import graphs

SHOWN_CHARACTERS = 80


@dataclasses.dataclass(frozen=True)
class Versions:
    """`producer` is a claim of the file; nothing rests on it. `opsets` by domain."""

    ir: int
    opsets: Mapping[str, int]
    producer: str

    def __str__(self) -> str:
        opsets = ", ".join(f"{domain} {version}" for domain, version in self.opsets.items())
        return f"IR {self.ir}; opset {opsets or 'none'}; made by {self.producer or 'a program that does not say'}"


def versions(proto: Any) -> Versions:
    """The versions that a model states. Texts from the file are cut short, and only their printable characters are kept."""
    opsets = {_printable(entry.domain) or "ai.onnx": int(entry.version) for entry in proto.opset_import}
    producer = " ".join(part for part in (_printable(proto.producer_name), _printable(proto.producer_version)) if part)
    return Versions(int(proto.ir_version), opsets, producer)


def versions_of(path: str | os.PathLike[str]) -> Versions:
    """The versions that a model file states; the file is parsed and not otherwise looked at. `ModelError` where it is no ONNX model."""
    try:
        return versions(onnx.ModelProto.FromString(Path(path).read_bytes()))
    except (OSError, DecodeError, RuntimeError) as error:
        raise ModelError(f"cannot read the model {os.fspath(path)!r}: {error}; give the path of an ONNX file") from None


def check_versions(proto: Any, source: str) -> None:
    """Raises `ModelError` for an IR version that is too new, and for an operator or attribute that the imported opset does not have."""
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{source}: found ir_version {proto.ir_version}; allowed: up to {onnx.IR_VERSION}; export for an older one, or update onnx"
        )
    imported = _imports(proto)
    local = {(function.domain, function.name) for function in proto.functions}
    for graph in graphs(proto, source):
        opsets = imported | _imports(graph) if isinstance(graph, onnx.FunctionProto) else imported
        for node in graph.node:
            if (node.domain, node.op_type) not in local:
                _check_node(node, opsets, source)


def _imports(proto: Any) -> dict[str, int]:
    return {_domain(entry.domain): entry.version for entry in proto.opset_import}


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _check_node(node: Any, opsets: Mapping[str, int], source: str) -> None:
    domain = _domain(node.domain)
    known = _history(node.op_type, domain)
    version = opsets.get(domain)
    if not known or version is None:
        return  # another vendor's operator, or a domain that is not imported: the checker and the engine say so
    at = f"opset {version} of {domain or 'ai.onnx'}"
    which = f"operator {node.op_type} ({_name(node)!r})"
    since = max((start for start in known if start <= version), default=None)
    if since is None:
        raise ModelError(
            f"{source}: found {which} in {at}; it exists from opset {min(known)} on; export the model again for that opset or a newer one"
        )
    if known[since] is None:
        raise ModelError(f"{source}: found {which} in {at}; it was withdrawn in opset {since}; export for an opset up to {since - 1}")
    allowed = known[since] or frozenset()
    for attribute in node.attribute:
        if attribute.name not in allowed:
            having = [start for start, attributes in known.items() if attributes and attribute.name in attributes]
            if having:
                raise ModelError(
                    f"{source}: found the attribute {attribute.name!r} of {which} in {at}; {_where(known, attribute.name)}; set the opset "
                    "that the model was made for"
                )


def _where(known: Mapping[int, frozenset[str] | None], attribute: str) -> str:
    """`the operator has it in opsets 1 to 12`."""
    starts = sorted(known)
    having = [start for start in starts if attribute in (known[start] or ())]
    after = next((start for start in starts if start > having[-1]), None)
    return f"the operator has it {f'in opsets {having[0]} to {after - 1}' if after is not None else f'from opset {having[0]} on'}"


@functools.cache
def _history(op: str, domain: str) -> dict[int, frozenset[str] | None]:
    """Opset in which each version of an operator begins → its attributes; `None` where it was withdrawn."""
    return {
        schema.since_version: None if schema.deprecated else frozenset(schema.attributes)
        for schema in _schemas()
        if schema.name == op and schema.domain == domain
    }


@functools.cache
def _schemas() -> tuple[Any, ...]:
    return tuple(onnx.defs.get_all_schemas_with_history())


def _name(node: Any) -> str:
    return str(next((name for name in node.output if name), node.name))


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:SHOWN_CHARACTERS]
