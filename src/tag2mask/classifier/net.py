"""The patch classifier: patch tokens + cluster token -> HV-BiLSTM -> one layer -> patch scores.

B images, h x w patches, D = e + H width, L clusters, C classes (background 0).
"""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from tag2mask.classifier.affinity import affinity, spread
from tag2mask.classifier.backbone import Backbone
from tag2mask.classifier.hv_bilstm import HVBiLSTM, ResidualHVBiLSTM
from tag2mask.config import ClassifierSettings
from tag2mask.config_files import stored_settings
from tag2mask.weights import read_tensors, write_tensors


class PatchClassifier(nn.Module):
    """Pictures and cluster vectors to patch logits and refined tokens: (B, 3, H, W), (B, L) -> (B, h, w, C), (B, h, w, D)."""

    def __init__(self, settings: ClassifierSettings, num_classes: int, num_clusters: int):
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings.backbone, settings.weights)
        self.token = settings.token if num_clusters or settings.token != "cluster" else "none"
        extra = {"cluster": settings.token_width, "class": self.backbone.dim, "none": 0}[self.token]
        dim = self.backbone.dim + extra
        if self.token == "cluster":
            self.cluster_embedding = nn.Parameter(
                torch.randn(num_clusters, extra) * 0.02
            )  # G; the papers do not say how it starts
        mixers = {
            "hv_bilstm": HVBiLSTM,
            "residual": ResidualHVBiLSTM,
            "none": lambda dim: nn.Identity(),
        }
        self.mixer = mixers[settings.mixer](dim)
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier = nn.Linear(dim, num_classes, bias=False)  # W
        nn.init.normal_(self.classifier.weight, std=0.05)
        for depth, width in enumerate(self.backbone.dims):
            self.register_buffer(
                f"map_mean_{depth}", torch.zeros(width)
            )  # of the backbone's maps, over the training photos

    def forward(self, image: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        patch_tokens, class_token = self.backbone(image)  # (B, h, w, e), (B, e)
        return self._classify(patch_tokens, class_token, u)

    def _classify(
        self, patch_tokens: Tensor, class_token: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor]:
        tokens = patch_tokens  # (B, h, w, e)
        if self.token == "cluster":
            token = self.cluster_token(u)
            tokens = torch.cat(
                [patch_tokens, token[:, None, None].expand(*patch_tokens.shape[:3], -1)], -1
            )
        elif self.token == "class":  # PPC Table III
            tokens = torch.cat(
                [patch_tokens, class_token[:, None, None].expand_as(patch_tokens)], -1
            )
        refined = self.mixer(self.dropout(tokens))  # F_out
        return self.classifier(self.dropout(refined)), refined

    def cluster_token(self, u: Tensor) -> Tensor:
        """Cluster vectors to cluster tokens F_c = u^T G (PPC eq. 1, CPC eq. 1): (B, L) -> (B, H)."""
        return u @ self.cluster_embedding

    @property
    def map_means(self) -> list[Tensor]:
        """Means of the backbone's feature maps over the training photos, (D_l,) each; set by `measure_maps`."""
        return [self.get_buffer(f"map_mean_{depth}") for depth in range(len(self.backbone.dims))]

    @torch.inference_mode()
    def measure_maps(self, images: Iterable[Tensor]) -> None:
        """Set the means of the backbone's feature maps from pictures, (3, H, W) each."""
        means = [
            [features.float().mean((0, 1, 2)) for features in self.backbone.maps(image[None])[0]]
            for image in images
        ]
        for buffer, found in zip(self.map_means, zip(*means, strict=True), strict=True):
            buffer.copy_(torch.stack(found).mean(0))

    def scores(
        self, image: Tensor, u: Tensor, *, evidence: bool = False, spread_scores: bool = False
    ) -> Tensor:
        """Pictures and cluster vectors to patch scores Z: (B, 3, H, W), (B, L) -> (B, C, h, w), summing to 1 over classes.

        `evidence`: the tags' positive logits instead, 0 for background. `spread_scores`: over patches that look alike, see `affinity`.
        """
        maps, class_token = self.backbone.maps(image)
        logits = self._classify(maps[-1], class_token, u)[0]
        z = (logits.float().relu() if evidence else patch_scores(logits)).permute(0, 3, 1, 2)
        if evidence:
            z[:, 0] = 0
        return (
            spread(z, affinity(maps, self.map_means, (z.shape[2], z.shape[3])))
            if spread_scores
            else z
        )


def patch_scores(logits: Tensor) -> Tensor:
    """Patch logits to patch scores Z = softmax(W F_out) (PPC eq. 2, CPC eq. 2): (..., C) -> (..., C) float32, summing to 1."""
    return logits.float().softmax(-1)


def save_classifier(
    model: PatchClassifier, path: Path, tags: tuple[str, ...], num_clusters: int
) -> None:
    """Write weights and all that is needed to build the network again into one safetensors file."""
    meta = {
        "settings": model.settings.model_dump_json(),
        "tags": json.dumps(tags),
        "num_clusters": str(num_clusters),
        "weights_used": model.backbone.weights_used,
        "half_cells": json.dumps(model.backbone.half_cells),
    }
    write_tensors(path, model, meta)


def load_classifier(path: Path) -> PatchClassifier:
    """A file of `save_classifier` to the network, in eval mode. Raises RunError if it is missing or damaged."""
    meta, state = read_tensors(path, "classifier")
    settings = stored_settings(ClassifierSettings, meta["settings"], path)
    model = PatchClassifier(
        settings.model_copy(update={"weights": "none"}),
        len(json.loads(meta["tags"])) + 1,
        int(meta["num_clusters"]),
    )
    model.load_state_dict(state)
    model.backbone.weights_used = meta["weights_used"]
    # A file without them was trained with maps that lay half a cell aside, and goes on with these.
    model.backbone.half_cells = (
        json.loads(meta["half_cells"]) if "half_cells" in meta else [0] * len(model.backbone.depths)
    )
    return model.eval()
