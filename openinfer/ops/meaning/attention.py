"""Attention and RotaryEmbedding of opset 23 and later: heads along an axis, masks as a bias that is added before the softmax."""

from __future__ import annotations

import math
from typing import Any

from openinfer.ops._base import NotCompiled
from openinfer.ops.meaning._base import Call, Meaning, Meanings

PRECISIONS = {1: "float32", 10: "float16", 11: "float64"}


def _heads(x: Any, count: int | None) -> Any:
    """[batch, length, heads · size] → [batch, heads, length, size]; four dimensions stay."""
    if x.ndim == 4:
        return x
    if x.ndim != 3 or not count or x.shape[2] % count:
        raise NotCompiled(f"{count} heads in shape {x.shape}")
    return x.reshape(*x.shape[:2], count, x.shape[2] // count).transpose(0, 2, 1, 3)


def _bias(call: Call, q: Any, kv: int, past: int | None) -> Any:
    """What is added to the scores, -inf where a query must not look; broadcasts against [batch, heads, queries, kv]."""
    xp, queries = call.xp, q.shape[2]
    mask, lengths = call.optional(3), call.optional(6)
    nothing, never = q.dtype.type(0), q.dtype.type(-math.inf)
    bias = xp.zeros((queries, kv), q.dtype)
    if mask is not None:
        if mask.dtype == bool:
            mask = xp.where(mask, nothing, never)
        if mask.shape[-1] < kv:
            rest = xp.zeros((*mask.shape[:-1], kv - mask.shape[-1]), q.dtype) + never
            mask = xp.concatenate([mask, rest], -1)
        bias = bias + mask
    left, right = call.attribute("left_window_size", -1), call.attribute("right_window_size", -1)
    keys = xp.arange(kv).reshape(1, -1)
    causal = bool(call.attribute("is_causal", 0))
    if causal or left >= 0 or right >= 0:
        # The last query stands beside the last key that counts: each batch has its own where the caller says how many do.
        offset = past or 0 if lengths is None or past is not None else lengths.reshape(-1, 1, 1, 1) - queries
        ahead = xp.arange(queries).reshape(-1, 1) + offset - keys
        for bounds, outside in ((causal, ahead < 0), (left >= 0, ahead > left), (right >= 0, ahead < -right)):
            bias = bias + xp.where(outside, never, nothing) if bounds else bias
    if lengths is not None:
        bias = bias + xp.where(keys < lengths.reshape(-1, 1, 1, 1), nothing, never)
    return bias


def _attention(call: Call) -> list[Any]:
    """softmax(q · kᵀ · scale + bias) · v, a row of zeros for a query that may look nowhere."""
    xp = call.xp
    flat, past_key, past_value = call.array(0).ndim == 3, call.optional(4), call.optional(5)
    q_heads, kv_heads = call.attribute("q_num_heads"), call.attribute("kv_num_heads")
    q, k, v = _heads(call.array(0), q_heads), _heads(call.array(1), kv_heads), _heads(call.array(2), kv_heads)
    softcap, mode = call.attribute("softcap", 0.0), call.attribute("qk_matmul_output_mode", 0)
    if (past_key is None) != (past_value is None) or q.shape[1] % k.shape[1]:
        raise NotCompiled("half a cache, or heads that do not fit")
    if mode == 0 and softcap > 0 and len(call.node.outputs) > 3:
        raise NotCompiled("the scores before the cap")
    if past_key is not None:
        k, v = xp.concatenate([past_key, k], 2), xp.concatenate([past_value, v], 2)
    present = [k, v]
    repeats = q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = xp.repeat(k, repeats, 1), xp.repeat(v, repeats, 1)
    factor = q.dtype.type(math.sqrt(call.attribute("scale", 1 / math.sqrt(q.shape[3]))))
    scores = xp.matmul(q * factor, k.transpose(0, 1, 3, 2) * factor)
    if softcap > 0:
        scores = xp.tanh(scores / q.dtype.type(softcap)) * q.dtype.type(softcap)
    bias = _bias(call, q, k.shape[2], None if past_key is None else past_key.shape[2])
    biased = scores + bias
    dtype = PRECISIONS.get(call.attribute("softmax_precision", 0), q.dtype.name)
    blind = xp.max(bias, -1, keepdims=True) == q.dtype.type(-math.inf)
    shares = xp.where(blind, q.dtype.type(0), _softmax(xp, biased.astype(dtype)).astype(q.dtype))
    y = xp.matmul(shares, v)
    if flat:
        y = y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], -1)
    seen = {0: scores, 1: scores, 2: biased, 3: shares}[mode]
    return [y, *present, seen]


def _softmax(xp: Any, x: Any) -> Any:
    """Over the last axis; zeros for a line of -inf."""
    top = xp.max(x, -1, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    powers = xp.exp(x - top)
    total = xp.sum(powers, -1, keepdims=True, dtype="float64")
    return powers / xp.where(total == 0, xp.ones_like(total), total).astype(x.dtype)


def _rotary(call: Call) -> list[Any]:
    """Pairs of a head's elements turned by the angle of their position; elements behind `rotary_embedding_dim` stay."""
    xp, x, cos, sin, ids = call.xp, call.array(0), call.array(1), call.array(2), call.optional(3)
    turned = x.ndim == 3
    heads = _heads(x, call.attribute("num_heads"))
    size = call.attribute("rotary_embedding_dim", 0) or heads.shape[3]
    if ids is not None:
        cos, sin = xp.take(cos, ids, 0), xp.take(sin, ids, 0)
    if cos.shape[-1] != size // 2 or cos.shape != sin.shape:
        raise NotCompiled(f"angles of shape {cos.shape} for {size} elements")
    cos, sin = xp.expand_dims(cos, 1), xp.expand_dims(sin, 1)
    part, rest = heads[..., :size], heads[..., size:]
    if call.attribute("interleaved", 0):
        first, second = part[..., 0::2], part[..., 1::2]
    else:
        first, second = part[..., : size // 2], part[..., size // 2 :]
    real, imaginary = cos * first - sin * second, sin * first + cos * second
    part = xp.stack([real, imaginary], 4).reshape(part.shape) if call.attribute("interleaved", 0) else xp.concatenate([real, imaginary], 3)
    y = xp.concatenate([part, rest], 3)
    return [y.transpose(0, 2, 1, 3).reshape(x.shape) if turned else y]


MEANINGS: Meanings = {("", "Attention"): Meaning(_attention), ("", "RotaryEmbedding"): Meaning(_rotary)}
