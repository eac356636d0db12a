"""tag2mask turns image tags into a segmentation model.

`run` trains on photos and tags, `load` opens an earlier run, `Run.predict` makes a photo's mask.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tag2mask.api import Run, load, run

# Before PyTorch is imported: threads that spin while they wait are slow on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "load", "run"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import the API on first use, so that `import tag2mask` alone is fast."""
    if name in ("Run", "load", "run"):
        from tag2mask import api

        return getattr(api, name)
    raise AttributeError(f"module 'tag2mask' has no attribute {name!r}")
