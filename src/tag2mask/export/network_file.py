"""A segmenter to a file for ONNX Runtime (.onnx) or PyTorch (.pt2), compared with the segmenter."""

import copy
import io
import json
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tag2mask.config import SegmenterSettings
from tag2mask.cpu_layers import FoldedConv
from tag2mask.errors import ConfigError, RunError, import_extra
from tag2mask.export.onnx_network import INPUT, OUTPUT, USED, OnnxNetwork
from tag2mask.files import keep_inputs, writing
from tag2mask.segmenter.network import Segmenter
from tag2mask.vision import torchvision  # noqa: F401  before timm, see there

from timm.layers.conv2d_same import Conv2dSame  # isort: skip
from timm.layers.padding import pad_same_arg  # isort: skip

LARGEST_DIFFERENCE = 1e-3  # of a probability, between the file and PyTorch
KINDS = (".onnx", ".pt2")
NOT_STATED = "not stated; the terms of the training photos and of the backbone's weights apply"


@dataclass(frozen=True)
class Comparison:
    """A file against PyTorch: the shape of the photos (B, 3, H, W), or the size of one photo, and
    the largest difference of a probability."""

    what: str
    difference: float


class _Probabilities(nn.Module):
    """What is exported: photos (B, 3, H, W), RGB in 0-1, to probabilities (B, C, H, W)."""

    def __init__(self, network: Segmenter):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network.probabilities(image)


def export_network(
    network: Segmenter,
    settings: SegmenterSettings,
    out: Path,
    dynamic: bool = False,
    weights_license: str | None = None,
) -> list[Comparison]:
    """Write a network to `out`, .onnx or .pt2; returns how far it is from PyTorch at three sizes.

    The file takes one photo, a square as large as the largest photo that `settings` lead to, or
    with `dynamic` any number of photos of any size. `settings`, `weights_license` and all else
    that prediction needs is in its metadata.

    Raises ConfigError for another ending or a missing package, RunError if a probability differs
    by more than `LARGEST_DIFFERENCE`: then nothing is written.
    """
    check_ending(out)
    network = copy.deepcopy(network).cpu().eval()
    side = _side(network, settings)
    about = describe(network, settings, None if dynamic else side, weights_license)
    program = _program(network, side, dynamic)
    with writing(out) as temporary:
        if out.suffix == ".onnx":
            save_onnx(program, about, temporary)
            compute = OnnxNetwork(temporary)
            results = compare(network, compute.compute, side, dynamic)
        else:
            content = io.BytesIO()
            torch.export.save(
                program, content, extra_files={"tag2mask.json": json.dumps(about, indent=2)}
            )
            temporary.write_bytes(content.getvalue())
            module = torch.export.load(io.BytesIO(temporary.read_bytes())).module()
            results = compare(
                network, lambda batch: module(torch.from_numpy(batch)).numpy(), side, dynamic
            )
        if (worst := max(result.difference for result in results)) > LARGEST_DIFFERENCE:
            raise RunError(
                f"{out} is not written: its probabilities differ from PyTorch's by up to "
                f"{worst:.2g}, more than {LARGEST_DIFFERENCE:g}"
            )
    return results


def _side(network: Segmenter, settings: SegmenterSettings) -> int:
    """The smallest side that the network takes and that no scaled photo exceeds [pixels]."""
    longest = round(settings.image_size * max(settings.test_scales))
    step, extra = network.backbone.stride, int(network.backbone.on_pixels)
    return math.ceil((longest - extra) / step) * step + extra


def check_ending(out: Path) -> None:
    """Raises ConfigError if a file is neither .onnx nor .pt2, or if a package is missing."""
    if out.suffix not in KINDS:
        raise ConfigError(f"{out}: give a file name that ends in .onnx (ONNX) or .pt2 (PyTorch)")
    keep_inputs(out)
    if out.suffix == ".onnx":
        for module in ("onnx", "onnxruntime", "onnxscript"):
            import_extra(module, "export", "export", ConfigError)


def describe(
    network: Segmenter, settings: SegmenterSettings, size: int | None, weights_license: str | None
) -> dict[str, Any]:
    """The metadata of a file: all that is needed to use it without tag2mask. `size`: the side of
    the photos that it takes [pixels]; None: any."""
    backbone = network.backbone
    return {
        "tag2mask": version("tag2mask"),
        "classes": list(network.classes),
        "small": list(network.small),
        "least": network.least,
        "input": f"{INPUT}: (B, 3, H, W) float32, RGB in 0-1; it is normalized inside",
        "output": f"{OUTPUT}: (B, C, H, W) float32, a softmax over the classes",
        "mean": backbone.mean.flatten().tolist(),
        "std": backbone.std.flatten().tolist(),
        "size": size,
        "sides": [backbone.stride, int(backbone.on_pixels)],  # H and W: n x first + second
        "settings": settings.model_dump(mode="json", include=USED),
        "backbone": backbone.weights_used,
        "code_license": "Apache-2.0",
        "weights_license": weights_license or NOT_STATED,
    }


def _program(network: Segmenter, side: int, dynamic: bool) -> ExportedProgram:
    """The network as a graph. `side`: of the photo [pixels]."""
    step, extra = network.backbone.stride, int(network.backbone.on_pixels)
    example, shapes = torch.zeros(1, 3, side, side), None
    if dynamic:
        example = torch.zeros(2, 3, side, side + step)
        height, width = (step * Dim(f"{name}_cells", min=2, max=4096) for name in ("h", "w"))
        height, width = (length + extra if extra else length for length in (height, width))
        shapes = {"image": {0: Dim("batch", min=1, max=1024), 2: height, 3: width}}
    fixed = _with_fixed_padding(network, example)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(_Probabilities(fixed), (example,), dynamic_shapes=shapes)


def _with_fixed_padding(network: Segmenter, example: Tensor) -> Segmenter:
    """A copy whose convolutions of kind "same" pad as they do for the example.

    How much they pad depends on the size of the photo only through its rest at division by the
    stride, and that is the same for all sides that the network takes. As a formula of a free size,
    it would make the export take minutes.
    """
    fixed = copy.deepcopy(network)
    same = {
        module: name
        for name, module in fixed.named_modules()
        if isinstance(module, Conv2dSame) or getattr(module, "is_same", False)
    }
    pads: dict[nn.Module, Any] = {}

    def look(module: Any, inputs: tuple[Tensor]) -> None:
        sides = list(inputs[0].shape[-2:]), list(module.weight.shape[-2:])
        pads[module] = tuple(pad_same_arg(*sides, module.stride, module.dilation))

    for module in same:
        module.register_forward_pre_hook(look)
    with torch.no_grad():
        fixed(example)
    for module, name in same.items():
        module._forward_pre_hooks.clear()
        if isinstance(module, FoldedConv):
            module.is_same = False
        else:
            module.__class__ = nn.Conv2d  # its own padding is 0
        fixed.set_submodule(name, nn.Sequential(nn.ZeroPad2d(pads[module]), module))
    return fixed


def save_onnx(program: ExportedProgram, about: dict[str, Any], path: Path) -> None:
    """Write a graph as ONNX, with its metadata as JSON texts."""
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    try:
        quiet.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            onnx_program: Any = torch.onnx.export(
                program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False
            )
    finally:
        quiet.setLevel(level)
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in about.items()}
    onnx_program.model.metadata_props.update(texts)
    for node in onnx_program.model.graph:
        node.metadata_props.clear()  # places in the source, with paths of this computer
    onnx_program.save(str(path))


def compare(network: Segmenter, compute: Any, side: int, dynamic: bool) -> list[Comparison]:
    """A file's function of (B, 3, H, W) float32 against the network, at three sizes.

    A file of fixed size gets its three sizes as photos of other shapes, placed in a corner.
    """
    step = network.backbone.stride
    short = max(step + int(network.backbone.on_pixels), side - 3 * step)
    sizes = ((1, side, side), (2, short, side), (1, side, short))
    results = []
    for count, height, width in sizes:
        batch = _photos(count if dynamic else 1, height, width)
        what = " x ".join(map(str, batch.shape))
        if not dynamic:
            canvas = network.backbone.mean.expand(1, 3, side, side).clone().numpy()
            canvas[:, :, :height, :width] = batch
            batch, what = canvas, f"a photo of {width} x {height} pixels"
        with torch.inference_mode():
            expected = network.probabilities(torch.from_numpy(batch)).numpy()
            difference = np.abs(compute(batch) - expected).max()
        results.append(Comparison(what, float(difference)))
    return results


def _photos(count: int, height: int, width: int) -> np.ndarray:
    """Pictures with structure at all scales, always the same: (B, 3, H, W) float32 in 0-1."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(count, 3, height, width)
    for cells in (3, 12, 48):
        noise = torch.rand(count, 3, cells, cells, generator=generator)
        total += nn.functional.interpolate(noise, (height, width), mode="bicubic")
    return (total / 3).clamp(0, 1).numpy()


def summary(comparisons: Sequence[Comparison]) -> str:
    """The differences in one line."""
    parts = ", ".join(f"{c.what}: {c.difference:.1g}" for c in comparisons)
    return f"largest difference from PyTorch, of a probability: {parts}"
