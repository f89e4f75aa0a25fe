"""Whether a configuration belongs to this model, this machine and this version; and whether it may run a float64 model in float32."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openinfer.config import Config, later_version
from openinfer.errors import PrecisionError, ProvenanceError
from openinfer.frontend.dtypes import value_types
from openinfer.ir.graph import Graph
from openinfer.machine import host
from openinfer.version import __version__

log = logging.getLogger("openinfer")


def model_hash(model: str | os.PathLike[str] | bytes | Any) -> str:
    """SHA-256 of the model's bytes, as a configuration's provenance records it."""
    if isinstance(model, (str, os.PathLike)):
        data = Path(model).read_bytes()
    else:
        data = model if isinstance(model, bytes) else model.SerializeToString()
    return hashlib.sha256(data).hexdigest()


def verify_provenance(config: Config, model: Any) -> None:
    """Refuse a configuration of another model; warn about one of a later version or of another machine."""
    expected = config.provenance.get("model_sha256")
    if expected is not None and (found := model_hash(model)) != expected:
        raise ProvenanceError(f"the configuration was tuned for the model {expected[:12]}, found {found[:12]}; tune again for this model")
    if later := later_version({"provenance": config.provenance}):
        log.warning("the configuration was written by openinfer %s, this is %s; update openinfer, or tune again", later, __version__)
    machine = config.provenance.get("machine")
    if machine is not None and machine != host().fingerprint:
        log.warning("the configuration was tuned on machine %s, this is %s; tune again for this machine", machine, host().fingerprint)


def verify_precision(config: Config, graph: Graph, model: Any) -> None:
    """Refuse float32 for a float64 model, unless `openinfer.calibrate` has measured this model with these layers in float64."""
    if config.engine.precision != "float32" or "float64" not in value_types(graph).values():
        return
    calibration, remedy = config.evidence.get("calibration"), "run openinfer.calibrate(model, inputs), or leave the precision at 'model'"
    if not isinstance(calibration, Mapping):
        raise PrecisionError(f"found engine.precision = 'float32' for a float64 model; allowed: with a calibration of this model; {remedy}")
    calibrated, found = str(calibration.get("model_sha256", "")), model_hash(model)
    if calibrated != found:
        raise PrecisionError(
            f"found a calibration of the model {calibrated[:12]!r}; allowed for float32: one of this model, {found[:12]!r}; {remedy}"
        )
    if calibration.get("precision") != "float32":
        raise PrecisionError(
            f"found engine.precision = 'float32' for a model that the calibration keeps in float64: in float32 its outputs err by "
            f"{calibration.get('float32_error')}, allowed {calibration.get('tolerance')}; leave the precision at 'model'"
        )
    measured, given = set(calibration.get("float64_layers", ())), set(config.engine.float64_layers)
    if measured != given:
        differing = ", ".join(sorted(measured ^ given)[:3])
        raise PrecisionError(
            f"engine.float64_layers differs from the calibration in {differing}; allowed: the layers that it measured; {remedy}"
        )
