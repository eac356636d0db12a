"""torchvision, imported so that it also works with a CPU-only PyTorch.

PyPI's torchvision for Linux is a CUDA build. Its compiled operators do not load with a PyTorch
without CUDA: importing it raises `RuntimeError: operator torchvision::nms does not exist`. None of
these operators is used here. So after this error, the two operators that the import looks up are
declared without code, and the import is repeated. Import this module before torchvision and timm.
"""

import sys

import torch

_library: torch.library.Library | None = None  # a declaration lives as long as its Library object

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "FRAGMENT")
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

__all__ = ["torchvision"]
