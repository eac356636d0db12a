"""Backbones: one interface over timm's ViTs and CNNs, for both networks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.cpu_layers import fold_norms, keep_freed_memory
from tag2mask.errors import ConfigError
from tag2mask.weights import create_backbone

from timm.models.efficientnet import EfficientNetFeatures  # isort: skip  after weights

_cudnn = Lock()


@contextmanager
def without_cudnn(device: torch.device) -> Iterator[None]:
    """On a GPU, PyTorch's own layers take the place of cuDNN's. The switch is one for all threads,
    so they take turns: two at once would leave cuDNN off."""
    if device.type == "cpu":
        yield
        return
    with _cudnn, torch.backends.cudnn.flags(enabled=False):
        yield


def is_vit(name: str) -> bool:
    """Whether a model of timm has tokens, and no maps of several sizes."""
    return any(part in name for part in ("vit", "deit", "eva"))


class Backbone(nn.Module):
    """Photos (B, 3, H, W), RGB in 0-1, to patch tokens (B, h, w, D) and a class token (B, D).

    ViT: the tokens are the output of its final norm; its position embedding is resized to the
    photo. CNN: the tokens are its last feature map at `stride`, the class token is the mean of that
    map. Photos are normalized here with the mean and std of the weights. Batch norms keep their
    statistics, because batches are small.

    H and W must be values that `side` returns. Cell (i, j) is then centered on its square of
    stride x stride pixels; with `on_pixels` (CNNs only), on pixel (stride i, stride j), as
    `interpolate(..., align_corners=True)` expects.

    By itself a CNN does not align its maps like this: padding of even sides and dilation shift
    them. `shifts` [cells of each map] are the distances; None: they are measured. To correct them,
    the photo is padded and the maps are cropped. Raises ConfigError for a model that cannot do
    this.

    `top`: an EfficientNet gives one more map, deeper than all others: the output of its last
    convolution, from which ImageNet's classes are read. timm's maps leave it out. `shifts` of fewer
    maps are those of a network without it.
    """

    net: Any
    top: nn.Module | None
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        weights: str,
        stride: int = 16,
        on_pixels: bool = False,
        shifts: Sequence[float] | None = None,
        finest: int | None = None,
        top: bool = False,
    ):
        super().__init__()
        keep_freed_memory()
        self.top = None
        self.is_vit = not on_pixels and is_vit(name)
        self.stride, self.on_pixels = stride, on_pixels
        self.finest = finest or (stride if on_pixels else stride // 2)
        try:
            self._create(name, weights)
            if top and (shifts is None or len(shifts) > len(self.depths)):
                self._add_top(name, weights)
            if shifts is None and not self.is_vit:
                shifts = self._measure_shifts()
        except (TypeError, NotImplementedError, AssertionError) as error:
            # timm's models raise these for arguments and sizes that they do not support.
            some = "a CNN like resnet, efficientnet, mobilenetv3, regnet or convnext"
            some = some if on_pixels else f"a ViT, DeiT or EVA of timm, or {some}"
            raise ConfigError(
                f"backbone {name} cannot compute features of photos of any size at a given stride "
                f"({str(error) or 'its stride is fixed'}); use {some}"
            ) from None
        self.dim = self.dims[-1]
        self.shifts = list(shifts or [0.0] * len(self.dims))

    def _create(self, name: str, weights: str) -> None:
        """Build the network and choose the layers whose outputs are the maps."""
        arguments: dict[str, Any] = {"features_only": True, "output_stride": self.stride}
        if self.is_vit:
            arguments = {"dynamic_img_size": True, "num_classes": 0}
        self.net, self.weights_used = create_backbone(name, weights, **arguments)
        for key in ("mean", "std"):
            values = torch.tensor(self.net.pretrained_cfg[key]).view(1, 3, 1, 1)
            self.register_buffer(key, values, persistent=False)
        if self.is_vit:
            self.stride = self.net.patch_embed.feat_ratio()  # hybrid: stem x patches
            blocks = len(self.net.blocks)
            self.depths = sorted({max(0, blocks * third // 3 - 1) for third in (1, 2, 3)})
            strides, dims = [self.stride] * blocks, [self.net.embed_dim] * blocks
        else:
            strides, dims = self.net.feature_info.reduction(), self.net.feature_info.channels()
            assert strides[-1] == self.stride, ""
            first = len(strides) - 1 if self.on_pixels else 0
            self.depths = [
                i for i, stride in enumerate(strides) if i >= first and stride >= self.finest
            ]
            fold_norms(self.net)
        self.dims, self.strides = [dims[i] for i in self.depths], [strides[i] for i in self.depths]

    def _add_top(self, name: str, weights: str) -> None:
        """Add the map of an EfficientNet's last convolution; nothing for other networks."""
        if isinstance(self.net, EfficientNetFeatures):
            whole: Any = create_backbone(name, weights, num_classes=0)[0]
            self.top = nn.Sequential(whole.conv_head, whole.bn2)
            self.dims, self.strides = [*self.dims, whole.num_features], [*self.strides, self.stride]

    def side(self, pixels: float) -> int:
        """The nearest allowed side of a photo [pixels]: n x stride; with `on_pixels`, plus 1."""
        extra = int(self.on_pixels)
        return max(1, round((pixels - extra) / self.stride)) * self.stride + extra

    def train(self, mode: bool = True) -> "Backbone":
        """Set the training mode, except for batch norms, which stay in eval mode."""
        super().train(mode)
        for norm in self.batch_norms():
            norm.eval()
        return self

    def batch_norms(self) -> list[nn.Module]:
        """All batch norms."""
        return [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def last_parameters(self, blocks: int) -> list[nn.Parameter]:
        """Parameters of the last `blocks` ViT blocks and the final norm, or CNN stages; 0: all."""
        if not blocks:
            return list(self.net.parameters())
        parts = self.net.blocks if hasattr(self.net, "blocks") else self.net.children()
        stages = [part for part in parts if any(True for _ in part.parameters())]
        parts = [*stages[-blocks:], *([self.net.norm] if self.is_vit else [])]
        return [p for part in parts for p in part.parameters()]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The last map of `feature_maps`, and the class token."""
        maps, class_token = self.feature_maps(image)
        return maps[-1], class_token

    def feature_maps(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Photos (B, 3, H, W) to maps [(B, h_l, w_l, D_l)], deepest last, and class token (B, D).

        ViT: the tokens after one third, two thirds and all of its blocks. CNN: the stages at half
        the stride and at the stride, or from the stride `finest` on; with `on_pixels` only the
        last.
        """
        if self.is_vit:
            return self._vit_maps(self._normalized(image))
        maps = self.align(self.raw_maps(image), image.shape[-2:])
        return maps, maps[-1].mean((1, 2))

    def fine_features(self, image: Tensor) -> Tensor:
        """Photos (B, 3, H, W) to all maps before the last, at the size of the finest: (B, D, h, w).
        Only for CNNs."""
        maps = [m.permute(0, 3, 1, 2) for m in self.feature_maps(image)[0][:-1]]
        size = maps[0].shape[-2:]
        return torch.cat([F.interpolate(m, size, mode="bilinear") for m in maps], 1)

    def raw_maps(self, image: Tensor) -> list[Tensor]:
        """A CNN's maps as its layers return them: photos (B, 3, H, W) to [(B, D_l, h_l, w_l)], a
        bit larger than the photo and not aligned. Later maps are computed from earlier ones."""
        before, after, _ = self._padding()
        return self._raw_maps(F.pad(self._normalized(image), [before, after] * 2))

    def align(self, outputs: Sequence[Tensor], size: Sequence[int]) -> list[Tensor]:
        """What `raw_maps` returned for photos of a size (H, W), or its first maps, with any number
        of channels, to aligned maps [(B, h_l, w_l, D_l)]."""
        before, _, moved = self._padding()
        extra, maps = int(self.on_pixels), []
        for features, pixels, stride in zip(outputs, moved, self.strides, strict=False):
            first, between = divmod(2 * (before + pixels) // stride, 2)
            if between:  # off by half a cell: the mean of two neighbors is centered between them
                features = F.avg_pool2d(features, 2, 1)
            rows, columns = (
                slice(first, first + (side - extra) // stride + extra) for side in size
            )
            maps.append(features[..., rows, columns].permute(0, 2, 3, 1))
        return maps

    def _normalized(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std

    def _padding(self) -> tuple[int, int, list[int]]:
        """How much a photo is padded before and after, and how far each map is shifted [pixels]."""
        moved = [round(shift * s) for shift, s in zip(self.shifts, self.strides, strict=True)]
        before = max(0, -min(moved))  # enough for every map
        before += (-moved[-1] - before) % self.stride  # a whole number of cells of the last map
        after = max(0, max(moved))
        return before, after + (-before - after) % self.stride, moved

    def _vit_maps(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        outputs = self.net.forward_intermediates(
            x,
            indices=self.depths,
            norm=True,
            output_fmt="NCHW",
            intermediates_only=True,
            return_prefix_tokens=True,
        )
        # timm returns only the maps if there is no class token
        pairs = [output if isinstance(output, tuple) else (output, None) for output in outputs]
        maps = [tokens.permute(0, 2, 3, 1) for tokens, _ in pairs]
        prefix = pairs[-1][1]
        has_class_token = prefix is not None and prefix.shape[1] > 0
        return maps, prefix[:, 0] if has_class_token else maps[-1].mean((1, 2))

    def _raw_maps(self, x: Tensor) -> list[Tensor]:
        """A CNN's maps, not aligned: normalized photos (B, 3, H, W) to [(B, D_l, h_l, w_l)]."""
        outputs = self.net(x.contiguous(memory_format=torch.channels_last))
        maps = [outputs[depth] for depth in self.depths]
        return maps if self.top is None else [*maps, self.top(maps[-1])]

    @torch.inference_mode()
    def _measure_shifts(self) -> list[float]:
        """How far a CNN's maps are shifted right and down, in cells of each map.

        The middle of a photo is replaced, and the shift is the distance from the middle of the map
        to the center of mass of the change. The new patch has a center of mass of its own; in the
        photo turned by 180 degrees it is on the opposite side, so the mean of both measurements has
        only the shift of the map. The trained weights are used, because they can compensate for the
        geometry of their layers, as those of TensorFlow's EfficientNets do. Rounded to half cells,
        with `on_pixels` to 4 pixels: the steps in which `feature_maps` can correct it.
        """
        self.eval()
        side = self.side(320)
        generator, margin = torch.Generator().manual_seed(0), side * 2 // 5
        noise = torch.rand(4, 3, side // 16, side // 16, generator=generator)
        photos, patches = F.interpolate(noise, (side, side), mode="bilinear").chunk(2)
        changed = photos.clone()
        middle = (..., slice(margin, -margin), slice(margin, -margin))
        changed[middle] = patches[middle]
        x = self._normalized(torch.cat([photos, changed]))
        shifts = []
        pairs = zip(self._raw_maps(x), self._raw_maps(x.flip(-1, -2)), self.strides, strict=True)
        for upright, turned, stride in pairs:
            change = torch.cat(
                [(m[:2] - m[2:]).double().square().sum(1) for m in (upright, turned)]
            )
            cells = torch.arange(change.shape[-1], dtype=torch.float64)
            cells -= (change.shape[-1] - 1) / 2
            both = [(change.sum(dim) @ cells) / change.sum((1, 2)) for dim in (1, 2)]
            steps = stride / 4 if self.on_pixels else 2  # a cell
            shifts.append(round(float(torch.stack(both).mean()) * steps) / steps)
        self.train()
        return shifts
