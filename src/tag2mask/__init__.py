"""tag2mask turns image tags into a segmentation model.

`run` trains on photos and tags, `load` opens an earlier run, an exported network or one from a
hub; `predict` of both makes masks of photos. All errors derive from `Tag2MaskError`.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tag2mask.api import load, run
    from tag2mask.errors import (
        ClusterError,
        ConfigError,
        DataError,
        RunError,
        Tag2MaskError,
        TrainingError,
        WeightsError,
    )
    from tag2mask.photos.predictions import Prediction
    from tag2mask.runs.predictor import Model
    from tag2mask.runs.run import Run

# Before PyTorch is imported: threads that spin while they wait are slow on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
# Where each name is. It is imported on first use, so that `import tag2mask` alone is fast.
_PLACES = {
    "run": "api",
    "load": "api",
    "Run": "runs.run",
    "Model": "runs.predictor",
    "Prediction": "photos.predictions",
    "Tag2MaskError": "errors",
    "ClusterError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "RunError": "errors",
    "TrainingError": "errors",
    "WeightsError": "errors",
}
__all__ = [
    "ClusterError",
    "ConfigError",
    "DataError",
    "Model",
    "Prediction",
    "Run",
    "RunError",
    "Tag2MaskError",
    "TrainingError",
    "WeightsError",
    "__version__",
    "load",
    "run",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"tag2mask.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'tag2mask' has no attribute {name!r}")
