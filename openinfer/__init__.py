"""OpenInfer: `openinfer.load(model, config=None)` gives an `Engine`. Public names are imported when they are first asked for."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from openinfer.version import __version__ as __version__

if TYPE_CHECKING:
    from openinfer.config import Config as Config
    from openinfer.engine import Engine as Engine
    from openinfer.engine import load as load
    from openinfer.errors import OpenInferError as OpenInferError
    from openinfer.tuner.calibrate import calibrate as calibrate
    from openinfer.tuner.study import tune as tune

__all__ = ["Config", "Engine", "OpenInferError", "calibrate", "load", "tune"]

_HOMES = {
    "Config": "openinfer.config",
    "Engine": "openinfer.engine",
    "load": "openinfer.engine",
    "OpenInferError": "openinfer.errors",
    "calibrate": "openinfer.tuner.calibrate",
    "tune": "openinfer.tuner.study",
}

logging.getLogger("openinfer").addHandler(logging.NullHandler())  # a library is silent until its program asks


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'openinfer' has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(importlib.import_module(home), name)
