"""Backbones: one interface over timm's ViTs and CNNs. Image (B, 3, H, W) -> patch tokens (B, h, w, D) and class token (B, D)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.errors import ConfigError
from tag2mask.weights import create_backbone, map_shifts

CNN_STRIDE = 16


class Backbone(nn.Module):
    """Pictures to patch tokens: (B, 3, H, W) RGB in 0-1 -> (B, h, w, D), and the class token (B, D).

    A ViT gives the tokens behind its final norm, with position tables resized bicubically to the picture, prefix tokens dropped
    (of these the first is the class token). A CNN gives its last feature map at stride 16, and its mean as class token.
    The picture is normalised here with the mean and deviation that belong to the weights.

    Token (i, j) looks at the middle of its square of the picture. Of a ViT it does by itself. Of a CNN it does not: with even sides a layer
    of stride 2 pads one side only, and a stride turned into dilation leaves a shift that the weights were trained with. `half_cells` says
    how far each map is off, in half cells; the picture is padded and the maps are cut so that it comes to 0.
    """

    net: Any
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: str):
        super().__init__()
        self.is_vit = any(part in name for part in ("vit", "deit", "eva"))
        try:
            self._build(name, weights)
        except (
            TypeError,
            NotImplementedError,
            AssertionError,
        ) as error:  # as timm's models refuse arguments and sizes
            raise ConfigError(
                f"backbone {name}: cannot give patch tokens of pictures of any size ({str(error) or 'its stride is fixed'}); "
                "take a ViT, DeiT or EVA of timm, or a CNN like resnet, efficientnet, mobilenetv3, regnet or convnext"
            ) from None
        self.dim = self.dims[-1]

    def _build(self, name: str, weights: str) -> None:
        arguments = (
            {"dynamic_img_size": True, "num_classes": 0}
            if self.is_vit
            else {"features_only": True, "output_stride": CNN_STRIDE}
        )
        self.net, self.weights_used = create_backbone(name, weights, **arguments)
        cfg = self.net.pretrained_cfg
        self.register_buffer("mean", torch.tensor(cfg["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(cfg["std"]).view(1, 3, 1, 1), persistent=False)
        if self.is_vit:
            self.stride: int = (
                self.net.patch_embed.feat_ratio()
            )  # of a hybrid its stem's stride times its patch
            depth = len(self.net.blocks)
            self.depths = sorted(
                {max(0, depth * third // 3 - 1) for third in (1, 2, 3)}
            )  # blocks whose tokens are maps
            self.dims: list[int] = [self.net.embed_dim] * len(self.depths)
            self.half_cells = [0] * len(self.depths)
        else:
            info = self.net.feature_info
            self.stride = info.reduction()[-1]
            self.depths = [
                i for i, stride in enumerate(info.reduction()) if stride >= CNN_STRIDE // 2
            ]
            self.dims, self.strides = (
                [values[i] for i in self.depths] for values in (info.channels(), info.reduction())
            )
            self.eval()
            self.half_cells = [
                round(2 * cells)
                for cells in map_shifts(self._raw_maps, self.mean, self.std, 20 * self.stride)
            ]
            self.train()

    def grid_size(self, pixels: float) -> int:
        """The nearest side that is a whole number of patches [pixels]."""
        return max(1, round(pixels / self.stride)) * self.stride

    def train(self, mode: bool = True) -> "Backbone":
        """Batch norms keep the statistics that came with the weights: batches here are small."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def last_parameters(self, blocks: int) -> list[nn.Parameter]:
        """Parameters of the last `blocks` blocks (a CNN's stages), and of a ViT's final norm; of all, for 0."""
        if not blocks:
            return list(self.net.parameters())
        parts = self.net.blocks if hasattr(self.net, "blocks") else self.net.children()
        stages = [part for part in parts if any(True for _ in part.parameters())]
        parts = [*stages[-blocks:], *([self.net.norm] if self.is_vit else [])]
        return [p for part in parts for p in part.parameters()]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        maps, class_token = self.maps(image)
        return maps[-1], class_token

    def maps(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Pictures to feature maps, shallow to deep: (B, 3, H, W) -> [(B, h_l, w_l, D_l)], the last the patch tokens; class token (B, D).

        Of a ViT the tokens after a third, two thirds and all of its blocks, of a CNN the stages at stride 8 and 16.
        """
        x = (image - self.mean) / self.std
        if self.is_vit:
            outputs = self.net.forward_intermediates(
                x,
                indices=self.depths,
                norm=True,
                output_fmt="NCHW",
                intermediates_only=True,
                return_prefix_tokens=True,
            )
            pairs = [
                output if isinstance(output, tuple) else (output, None) for output in outputs
            ]  # bare where timm has no class token
            maps = [tokens.permute(0, 2, 3, 1) for tokens, _ in pairs]
            prefix = pairs[-1][1]
            has_class_token = prefix is not None and prefix.shape[1] > 0
            return maps, prefix[:, 0] if has_class_token else maps[-1].mean((1, 2))
        margin = next(m for m in range(0, 4 * self.stride, self.stride // 2) if self._fits(m))
        outputs = self._raw_maps(F.pad(x, [margin] * 4))
        height, width = (side // self.stride for side in image.shape[-2:])
        maps = []
        for features, half_cells, stride in zip(
            outputs, self.half_cells, self.strides, strict=True
        ):
            first, between = divmod(half_cells + 2 * margin // stride, 2)
            if (
                between
            ):  # half a cell off: the mean of two neighbours looks at the middle between them
                features = F.avg_pool2d(features, 2, 1)
            rows, columns = (
                slice(first, first + cells * self.stride // stride) for cells in (height, width)
            )
            maps.append(features[..., rows, columns].permute(0, 2, 3, 1))
        return maps, maps[-1].mean((1, 2))

    def _raw_maps(self, x: Tensor) -> list[Tensor]:
        """A CNN's maps as they are: a normalised picture (B, 3, H, W) -> [(B, D_l, h_l, w_l)]."""
        outputs = self.net(x.contiguous(memory_format=torch.channels_last))
        return [outputs[depth] for depth in self.depths]

    def _fits(self, margin: int) -> bool:
        """Whether with this margin [pixels] each map still has all its cells, and the last map's lie where they must without a mean."""
        moved = [
            half_cells + 2 * margin // stride
            for half_cells, stride in zip(self.half_cells, self.strides, strict=True)
        ]
        room = [
            4 * margin // stride for stride in self.strides
        ]  # half cells that the margins on both sides add
        return moved[-1] % 2 == 0 and all(0 <= m <= r for m, r in zip(moved, room, strict=True))
