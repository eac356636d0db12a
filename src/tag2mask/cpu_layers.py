"""Networks on a CPU, faster: memory, and a CNN's convolutions and batch norms.

Results differ by rounding alone. On a GPU nothing changes.
"""

import ctypes
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.vision import torchvision  # noqa: F401  before timm, see there

from timm.layers import BatchNormAct2d, Conv2dSame  # isort: skip
from timm.layers.padding import pad_same  # isort: skip

ROUNDING = 1e-3  # of the largest value of a map: a larger change is not rounding


def keep_freed_memory() -> None:
    """Make glibc keep freed memory, and one store of it for all threads: else each large tensor is
    new memory, which the system fills with zeros first. A forward pass takes a quarter less time on
    a CPU."""
    if sys.platform == "linux" and not torch.cuda.is_available():
        with suppress(OSError, AttributeError):  # another C library
            glibc = ctypes.CDLL("libc.so.6")
            glibc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
            glibc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
            glibc.mallopt(-8, 1)  # M_ARENA_MAX


@torch.no_grad()
def fold_norms(net: nn.Module) -> None:
    """Let the convolutions of `net` do the work of the batch norms behind them.

    A batch norm that keeps its statistics only multiplies and adds; but on a CPU, its pass over the
    memory takes a fifth of a forward pass. All parameters stay where they are and are trained as
    before. A forward pass shows which norm is behind which convolution. If the maps of `net`
    change, because another layer reads such an output too, all stays as it was.
    """
    net.eval()
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pairs = _pairs(net, noise)
    kinds = [(type(conv), type(norm)) for conv, norm in pairs]
    means = [norm.running_mean.clone() for _, norm in pairs]
    for _, norm in pairs:
        norm.running_mean += 1  # a new norm changes nothing, and so would show nothing
    before = net(noise)
    for conv, norm in pairs:
        conv.__dict__ |= {
            "norm": norm,  # not as a submodule: the names of the weights stay
            "is_same": isinstance(conv, Conv2dSame),
            "has_slow_gradient": _has_slow_gradient(conv),
        }
        conv.__class__, norm.__class__ = FoldedConv, FoldedNorm
    changes = [
        float((now - then).abs().max() / then.abs().max())
        for now, then in zip(net(noise), before, strict=True)
    ]
    for (_, norm), mean in zip(pairs, means, strict=True):
        norm.running_mean.copy_(mean)
    if max(changes) > ROUNDING:
        for (conv, norm), (conv_kind, norm_kind) in zip(pairs, kinds, strict=True):
            conv.__class__, norm.__class__ = conv_kind, norm_kind


def _pairs(net: nn.Module, photos: Tensor) -> list[tuple[Any, Any]]:
    """The convolutions whose output goes into a batch norm, each with this norm."""
    outputs: list[tuple[nn.Module, Tensor]] = []
    pairs: list[tuple[Any, Any]] = []

    def made(conv: nn.Module, inputs: Any, output: Tensor) -> None:
        outputs.append((conv, output))

    def read(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        pairs.extend((conv, norm) for conv, output in outputs if output is inputs[0])

    with ExitStack() as hooks:
        for module in net.modules():
            if type(module) in (nn.Conv2d, Conv2dSame):
                hooks.callback(module.register_forward_hook(made).remove)
            elif type(module) in (nn.BatchNorm2d, BatchNormAct2d):
                hooks.callback(module.register_forward_pre_hook(read).remove)
        net(photos)
    return pairs


def _has_slow_gradient(conv: nn.Conv2d) -> bool:
    """Whether it is depthwise and dilated, and its output has the size of its input."""
    sides = zip(conv.padding, conv.dilation, conv.kernel_size, strict=False)
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.stride == (1, 1)
        and conv.dilation != (1, 1)
        and all(pad == reach * (side - 1) // 2 and side % 2 for pad, reach, side in sides)
    )


def _is_folded(norm: nn.BatchNorm2d, x: Tensor) -> bool:
    return x.device.type == "cpu" and not norm.training


class FoldedNorm(nn.BatchNorm2d):
    """A batch norm behind a `FoldedConv`, and the activation that timm puts into some norms."""

    def forward(self, x: Tensor) -> Tensor:
        x = x if _is_folded(self, x) else super().forward(x)
        for name in ("drop", "act"):
            x = getattr(self, name, nn.Identity())(x)
        return x


class FoldedConv(nn.Conv2d):
    """A convolution with the batch norm behind it."""

    norm: FoldedNorm
    is_same: bool  # whether it has TensorFlow's padding, which depends on the size of its input
    has_slow_gradient: bool  # whether `_DepthwiseConv` has a faster one

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if self.is_same:
            x = pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation))
        if _is_folded(self.norm, x):
            weight, bias = self._folded()
            if self.has_slow_gradient and _has_gradient(x):
                return _DepthwiseConv.apply(x, weight, bias, self.padding, self.dilation)
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def _folded(self) -> tuple[Tensor, Tensor]:
        """The weight and the bias of both layers together."""
        norm, mean = self.norm, self.norm.running_mean
        assert mean is not None and norm.running_var is not None
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        bias = norm.bias - (mean if self.bias is None else mean - self.bias) * factor
        return self.weight * factor[:, None, None, None], bias


def _has_gradient(x: Tensor) -> bool:
    return torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type)


class _DepthwiseConv(torch.autograd.Function):
    """A depthwise convolution of stride 1 whose output has the size of its input.

    The gradient of its input is the convolution with the turned kernel. PyTorch has a fast kernel
    for this, but its own gradient of a dilated convolution takes ten times as long; that of the
    weight four times as long as `_depthwise_weight` (without AVX-512).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: Any, dilation: Any
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rest = (1, padding, dilation, len(weight))
        return F.conv2d(x, weight, bias, *ctx.rest)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = F.conv2d(gradient, weight.flip(-1, -2), None, *ctx.rest)
        if ctx.needs_input_grad[1]:
            of_weight = _depthwise_weight(x, weight.shape, gradient, *ctx.rest[1:3])
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None, None


def _depthwise_weight(
    x: Tensor,
    shape: Sequence[int],
    gradient: Tensor,
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The gradient of a depthwise convolution's weight (C, 1, kh, kw), from its input and the
    gradient of its output, both (B, C, H, W): photo by photo, which stays in the cache."""
    (height, width), (down, right) = gradient.shape[-2:], dilation
    of_weight = x.new_zeros((*shape[2:], shape[0]))
    product = x.new_empty((height, width, shape[0]))
    pairs = zip(x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1), strict=True)
    for photo, change in pairs:
        padded = F.pad(photo, (0, 0, padding[1], padding[1], padding[0], padding[0]))
        for i, j in np.ndindex(*shape[2:]):
            rows, columns = slice(down * i, down * i + height), slice(right * j, right * j + width)
            torch.mul(padded[rows, columns], change, out=product)
            of_weight[i, j] += product.sum((0, 1))
    return of_weight.permute(2, 0, 1)[:, None]
