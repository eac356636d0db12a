"""The patch classifier's training from photos, tags and clusters. No mask is read here."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tag2mask import loop
from tag2mask.classifier.losses import classifier_loss
from tag2mask.classifier.net import PatchClassifier
from tag2mask.config import ClassifierSettings
from tag2mask.errors import ConfigError
from tag2mask.photos.table import Table
from tag2mask.photos.tensors import AUGMENTATIONS, seeded, to_square
from tag2mask.processes import cores, parallel_map
from tag2mask.progress import log

NOTHING = 1.0  # photos of nothing in an epoch for each other one, at most
MEASURED = 256  # number of photos over which the feature maps are averaged


class TaggedPhotos:
    """Training examples: photo (3, S, S) in 0-1, labels (num_tags,) as in `Table.labels`, cluster
    vector (L,)."""

    def __init__(self, table: Table, cluster_vectors: Tensor, size: int, augment: str):
        self.photos, self.labels = table.photos, torch.from_numpy(table.labels)
        self.cluster_vectors, self.size = cluster_vectors, size
        self.augment = AUGMENTATIONS[augment]

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, draw: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        index, key = draw
        image = to_square(self.photos[index].open(at_least=self.size), self.size)
        with seeded(key):
            image = self.augment(image)
        return image, self.labels[index], self.cluster_vectors[index]


def train_classifier(
    table: Table,
    cluster_vectors: Tensor,
    settings: ClassifierSettings,
    folder: Path,
    seed: int,
    workers: int,
    start: PatchClassifier | None = None,
) -> PatchClassifier:
    """Photos with tags and cluster vectors (N, L) to a trained classifier in eval mode.

    start: an earlier network of the same tags: it does the last part of the training again.
    Resumes from the newest checkpoint in `folder`. Raises ConfigError for an odd patch grid if the
    equivariance loss is on.
    """
    torch.manual_seed(seed)
    model = start or PatchClassifier(settings, table.num_classes, cluster_vectors.shape[1])
    if model.backbone.is_vit and settings.tag_loss != "top_k":
        log.warning(
            f"{settings.backbone} is a ViT: each of its patches sees the whole photo. "
            f"classifier.tag_loss = {settings.tag_loss} learns from the mean of all patches: "
            "objects will be far too large. Use --recipe cpc"
        )
    side, stride = model.backbone.side(settings.image_size), model.backbone.stride
    if settings.equivariance_weight and (cells := side // stride) % 2:
        raise ConfigError(
            f"classifier.image_size = {settings.image_size} gives {cells} x {cells} patches. The "
            f"equivariance loss needs an even number; use {side - stride} or {side + stride}"
        )
    trained = loop.fit(
        model,
        lambda net, batch: classifier_loss(net, batch, settings),
        TaggedPhotos(table, cluster_vectors, side, settings.augment),
        _phases(model, settings, table, continued=start is not None),
        folder,
        batch_size=settings.batch_size,
        seed=seed,
        precision=settings.precision,
        workers=workers,
        what="patch classifier",
        nothing=table.nothing,
        ratio=NOTHING,
    ).eval()
    device = next(trained.parameters()).device
    photos = table.not_nothing  # photos of nothing have no score maps to spread
    some = photos[:: max(1, len(photos) // MEASURED)]
    images = parallel_map(lambda photo: to_square(photo.open(at_least=side), side), some, cores())
    trained.measure_feature_means(image.to(device) for image in images)
    return trained


def _phases(
    model: PatchClassifier, settings: ClassifierSettings, table: Table, continued: bool = False
) -> list[loop.Phase]:
    """`frozen_epochs` at `frozen_lr`, then the other epochs at `lr`; if `continued`, the
    last part of these alone."""
    per_epoch = math.ceil(
        loop.epoch_length(len(table), len(table.nothing), NOTHING) / settings.batch_size
    )
    epochs = settings.num_epochs(len(table.not_nothing))
    frozen, total = per_epoch * min(settings.frozen_epochs, epochs), per_epoch * epochs
    skipped = total - math.ceil(loop.CONTINUED * total) if continued else 0
    new = [p for name, p in model.named_parameters() if not name.startswith("backbone.")]
    last = model.backbone.last_parameters(settings.trained_blocks)

    def adam(backbone: list[nn.Parameter], lr: float, factor: float) -> torch.optim.Optimizer:
        model.backbone.requires_grad_(False)
        for parameter in backbone:
            parameter.requires_grad_(True)
        groups = [{"params": new, "lr": lr * factor}, {"params": backbone, "lr": lr}]
        return torch.optim.Adam([group for group in groups if group["params"]])

    def decay(step: int) -> float:
        if settings.lr_decay == "none":
            return 1.0
        done = (skipped + step - frozen) / max(1, total - frozen)
        return 0.5 * (1 + math.cos(math.pi * max(0.0, done)))

    # Differs from CPC, which gives only the learning rates: first the backbone is frozen, then its
    # last blocks train with a new Adam, as in ViT-PCM's code.
    frozen_phase = loop.Phase(frozen, lambda: adam([], settings.frozen_lr, 1.0))
    rest = loop.Phase(total, lambda: adam(last, settings.lr, settings.head_lr_factor), decay)
    phases = [phase for phase, start in ((frozen_phase, 0), (rest, frozen)) if phase.end > start]
    return [replace(phases[-1], end=total - skipped)] if continued else phases
