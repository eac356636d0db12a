"""The patch classifier: patch tokens + cluster token -> HV-BiLSTM -> one layer -> patch scores.

B images, h x w patches, D = e + H width, L clusters, C classes (background 0).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.backbone import Backbone, without_cudnn
from tag2mask.classifier.hv_bilstm import HVBiLSTM, ResidualHVBiLSTM
from tag2mask.config import ClassifierSettings
from tag2mask.weights import load_network, save_network

MIXERS = {
    "hv_bilstm": HVBiLSTM,
    "residual": ResidualHVBiLSTM,
    "none": lambda dim: nn.Identity(),
}


class PatchClassifier(nn.Module):
    """Photos (B, 3, H, W) and cluster vectors (B, L) to patch logits (B, h, w, C) and refined
    tokens (B, h, w, D). `shifts`: as in `Backbone`."""

    def __init__(
        self,
        settings: ClassifierSettings,
        num_classes: int,
        num_clusters: int,
        shifts: Sequence[float] | None = None,
    ):
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings.backbone, settings.weights, shifts=shifts)
        self.token = settings.token if num_clusters or settings.token != "cluster" else "none"
        extra = {"cluster": settings.token_width, "class": self.backbone.dim, "none": 0}[self.token]
        dim = self.backbone.dim + extra
        if self.token == "cluster":  # G; initialization not in the papers
            self.cluster_embedding = nn.Parameter(torch.randn(num_clusters, extra) * 0.02)
        self.mixer = MIXERS[settings.mixer](dim)
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier = nn.Linear(dim, num_classes, bias=False)  # W
        nn.init.normal_(self.classifier.weight, std=0.05)
        for depth, width in enumerate(self.backbone.dims):
            self.register_buffer(f"map_mean_{depth}", torch.zeros(width))

    def forward(self, image: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        tokens, class_token = self.backbone(image)
        return self._classify(tokens, class_token, u)

    def _classify(self, tokens: Tensor, class_token: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        if self.token != "none":  # class token (B, e): PPC Table III
            token = self.cluster_token(u) if self.token == "cluster" else class_token
            everywhere = token[:, None, None].expand(*tokens.shape[:3], -1)
            tokens = torch.cat([tokens, everywhere], -1)
        refined = self.mixer(self.dropout(tokens))  # F_out
        return self.classifier(self.dropout(refined)), refined

    def cluster_token(self, u: Tensor) -> Tensor:
        """Cluster vectors to tokens F_c = u^T G (PPC eq. 1, CPC eq. 1): (B, L) -> (B, H)."""
        return u @ self.cluster_embedding

    @property
    def feature_means(self) -> list[Tensor]:
        """Means of the backbone's maps over training photos, (D_l,) each; `measure_feature_means`
        sets them."""
        return [self.get_buffer(f"map_mean_{depth}") for depth in range(len(self.backbone.dims))]

    @torch.inference_mode()
    def measure_feature_means(self, images: Iterable[Tensor]) -> None:
        """Compute `feature_means` from photos, (3, H, W) each."""
        means = [
            [
                features.float().mean((0, 1, 2))
                for features in self.backbone.feature_maps(image[None])[0]
            ]
            for image in images
        ]
        for buffer, values in zip(self.feature_means, zip(*means, strict=True), strict=True):
            buffer.copy_(torch.stack(values).mean(0))

    def scores(
        self, image: Tensor, u: Tensor, *, logits: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Photos (B, 3, H, W) and cluster vectors (B, L) to patch scores Z (B, C, h, w), summing to
        1 over classes, and the backbone's maps [(B, h_l, w_l, D_l)], centered by `feature_means`.

        `logits`: instead of Z, return the positive logits of the tags, with 0 for background.
        """
        maps, class_token = self.backbone.feature_maps(image)
        patch_logits = self._classify(maps[-1], class_token, u)[0]
        z = patch_logits.float().relu() if logits else patch_scores(patch_logits)
        z = z.permute(0, 3, 1, 2)
        if logits:
            z[:, 0] = 0
        return z, [m.float() - mean for m, mean in zip(maps, self.feature_means, strict=True)]

    @torch.inference_mode(False)
    def close_scores(self, image: Tensor, u: Tensor, tags: Tensor) -> Tensor:
        """Where a tag's score comes from, more exactly than the patch scores say: photos
        (B, 3, H, W), cluster vectors (B, L) and one class number of each photo (B,) to values in
        0-1, (B, h, w) at half the backbone's stride. 0 for a ViT, which has no finer map.

        # Differs from CPC, which has no such step. A patch score also sees what is around its
        patch, so the best patch may lie beside a small object. The gradient of the score in
        earlier maps points at the object itself: LayerCAM (Jiang et al., TIP 2021), here as the
        geometric mean over the maps before the last. The score is the sum of the fourth powers of
        the patch logits: its gradient follows the best patches, but more than one.
        """
        if self.backbone.is_vit:
            return torch.zeros(len(image), 1, 1)
        with torch.enable_grad():
            raw = self.backbone.raw_maps(image.clone().requires_grad_())
            tokens = self.backbone.align(raw, image.shape[-2:])[-1]
            with without_cudnn(image.device):  # its LSTM has no gradient in eval mode
                logits = self._classify(tokens, tokens.mean((1, 2)), u.clone())[0]
            best = logits.float().relu()[torch.arange(len(tags)), ..., tags] ** 4
            gradients = torch.autograd.grad(best.sum(), raw[:-1])
        pairs = zip(raw, gradients, strict=False)
        weighted = [(m.detach().relu() * g.relu()).sum(1, keepdim=True) for m, g in pairs]
        maps = [
            m.permute(0, 3, 1, 2).float() for m in self.backbone.align(weighted, image.shape[-2:])
        ]
        product = torch.ones_like(maps[0])
        for m in maps:
            m = F.interpolate(m, product.shape[-2:], mode="bilinear")
            product = product * m / m.amax((2, 3), keepdim=True).clamp(min=1e-30)
        # single cells at the edges of the layers' windows are noise
        smooth = F.avg_pool2d(product, 3, 1, 1, count_include_pad=False)[:, 0]
        smooth = smooth ** (1 / len(maps))
        return smooth / smooth.amax((1, 2), keepdim=True).clamp(min=1e-30)


def patch_scores(logits: Tensor) -> Tensor:
    """Patch logits to scores Z = softmax(W F_out) (PPC eq. 2, CPC eq. 2): (..., C), float32."""
    return logits.float().softmax(-1)


def save_classifier(
    model: PatchClassifier, path: Path, tags: tuple[str, ...], num_clusters: int
) -> None:
    """Write all that `load_classifier` needs into one safetensors file."""
    save_network(model, path, tags=tags, num_clusters=num_clusters)


def load_classifier(path: Path) -> PatchClassifier:
    """A file of `save_classifier` to the network, in eval mode. Raises RunError."""
    return load_network(
        path,
        "classifier",
        ClassifierSettings,
        lambda settings, about: PatchClassifier(
            settings, len(about["tags"]) + 1, about["num_clusters"], about["shifts"]
        ),
    )
