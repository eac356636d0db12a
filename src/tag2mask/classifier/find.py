"""The classifier to the unknown tags that it finds in photos."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tag2mask.classifier.losses import pooled_patches, top_k_pool
from tag2mask.classifier.net import PatchClassifier
from tag2mask.config import ClassifierSettings
from tag2mask.photos.table import Table
from tag2mask.photos.tensors import to_square
from tag2mask.processes import cores, parallel_map
from tag2mask.progress import track

BATCH = 8  # photos per forward pass


def find_unknown(model: PatchClassifier, table: Table, cluster_vectors: Tensor) -> Table:
    """A table and cluster vectors (N, L) to the table without the unknown tags that the classifier
    does not find. Those that it finds stay unknown: a mask may show them."""
    places = [i for i, photo in enumerate(table.photos) if photo.unknown]
    side, device = model.backbone.side(model.settings.image_size), next(model.parameters()).device

    def read(some: Sequence[int]) -> tuple[Sequence[int], Tensor]:
        images = [to_square(table.photos[i].open(at_least=side), side) for i in some]
        return some, torch.stack(images)

    def answers() -> Iterator[tuple[int, list[bool]]]:
        batches = [places[i : i + BATCH] for i in range(0, len(places), BATCH)]
        for some, images in parallel_map(read, batches, cores()):
            with torch.inference_mode():
                logits, _ = model(images.to(device), cluster_vectors[some].to(device))
            yield from zip(some, is_found(logits, model.settings).tolist(), strict=True)

    photos = list(table.photos)
    for i, found in track(answers(), "unknown tags", total=len(places)):
        own = dict(zip(table.tags, found, strict=True))
        photos[i] = replace(photos[i], unknown=tuple(tag for tag in photos[i].unknown if own[tag]))
    return Table(table.tags, tuple(photos), table.source)


def is_found(logits: Tensor, settings: ClassifierSettings) -> Tensor:
    """Patch logits (B, h, w, C) to whether each tag is more likely in the photo than not, by the
    score that its label supervised: (B, num_tags) bool."""
    if settings.tag_loss != "top_k":
        return logits[..., 1:].float().mean((1, 2)) > 0
    flat = logits.flatten(1, 2)
    log_p, log_not_p = top_k_pool(flat, pooled_patches(settings.top_k, flat.shape[1]))
    return (log_p > log_not_p)[:, 1:]
