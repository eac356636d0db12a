"""The run's MaskMaker: the classifier and the clusters behind it, loaded when they are needed."""

from dataclasses import replace
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from tag2mask.clusters import cluster_vector, membership
from tag2mask.files import read_json
from tag2mask.photos.table import Photo, Table
from tag2mask.progress import log
from tag2mask.runs.folder import MASKS, MODEL
from tag2mask.runs.run import Run

FINEST = 4  # pixels per cell of the finest features that are compared with photos of nothing

if TYPE_CHECKING:
    from torch import Tensor

    from tag2mask.classifier.net import PatchClassifier
    from tag2mask.masks import MaskMaker


def with_found_tags(run: Run, table: Table) -> Table:
    """A part of the run's table with only those unknown tags that the classifier finds."""
    import torch

    from tag2mask.classifier import find_unknown, load_classifier

    M = membership(run.clusters, table.tags)
    vectors = torch.from_numpy(np.asarray(cluster_vector(table.multi_hot, M)))
    model = load_classifier(run.files.result("classifier", MODEL)).to(run.device)
    reduced = find_unknown(model, table, vectors)
    tags = sum(len(photo.unknown) for photo in reduced.photos)
    log.info(
        f"masks: {table.with_unknown} photos have unknown tags; the classifier finds {tags} of "
        f"these tags in {reduced.with_unknown} of the photos"
    )
    return reduced


def as_shown(run: Run) -> Table:
    """The run's table with only those unknown tags that its first masks may show."""
    from tag2mask.masks import read_score_maps

    def shown(photo: Photo) -> Photo:
        numbers, _ = read_score_maps(run.files.result("masks"), photo)
        tags = {run.table.classes[number] for number in numbers}
        return replace(photo, unknown=tuple(tag for tag in photo.unknown if tag in tags))

    photos = [shown(photo) if photo.unknown else photo for photo in run.table.photos]
    return replace(run.table, photos=photos)


def mask_maker(run: Run) -> "MaskMaker":
    """The run's MaskMaker. The classifier is loaded when the first photo is scored."""
    from tag2mask.backbone import Backbone, is_vit
    from tag2mask.classifier import load_classifier
    from tag2mask.masks import CONTRAST, Contrast, MaskMaker

    settings, about = run.config.masks, run.files.result("masks", MASKS)
    contrast, start, loading = run.files.result("masks", CONTRAST), run.config.classifier, Lock()

    @cache
    def network() -> "tuple[PatchClassifier, np.ndarray]":
        model = load_classifier(run.files.result("classifier", MODEL)).to(run.device)
        return model, membership(run.clusters, run.table.tags)

    def score(images: "Tensor", labels: "Tensor") -> "tuple[Tensor, list[Tensor]]":
        model, M = network()
        u = cluster_vector(labels, M).to(run.device)
        return model.scores(images.to(run.device), u, logits=settings.scores == "logits")

    def side(length: float) -> int:
        return network()[0].backbone.side(length)

    def closer(images: "Tensor", labels: "Tensor", tags: "Tensor") -> "Tensor":
        model, M = network()
        u = cluster_vector(labels, M).to(run.device)
        return model.close_scores(images.to(run.device), u, tags)

    @cache
    def untrained() -> "Backbone":
        return Backbone(start.backbone, start.weights, finest=FINEST).eval().to(run.device)

    def features(images: "Tensor") -> "Tensor":
        with loading:
            network = untrained()
        return network.fine_features(images.to(run.device))

    # Random weights would be others in each session.
    known = features if start.weights != "none" and not is_vit(start.backbone) else None
    maker = MaskMaker(score, side, run.table.tags, settings, closer, run.regions, known)
    if about.exists():
        stored, numbers = read_json(about), {tag: n for n, tag in enumerate(run.table.tags, 1)}
        maker.overall = stored.get("threshold")
        small = (tag for tag in stored.get("small", []) if tag in numbers)
        maker.small = frozenset(numbers[tag] for tag in small)
        maker.contrast = Contrast.load(contrast) if contrast.exists() else None
    return maker
