"""What each stage does: read the results of other stages, and write its own into a folder.

The folders of tag2mask (clusters, classifier ...) do not import each other: this module passes what
one of them needs from another.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tag2mask.clusters import cluster_vector, make_clusters, membership
from tag2mask.errors import DataError
from tag2mask.files import read_json, write_json
from tag2mask.formats.check import check as check_data
from tag2mask.formats.findings import count, problems, shorten
from tag2mask.photos.masks import look_at_mask, write_class_names
from tag2mask.photos.table import BACKGROUND, IGNORE, Photo, Table
from tag2mask.processes import barrier, cores, parallel_map, rank, ranks
from tag2mask.progress import console, log, track
from tag2mask.runs.folder import CHECKPOINT, CLUSTERS, FINDINGS, MASKS, METRICS, MODEL, PREDICTIONS
from tag2mask.runs.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from tag2mask.classifier.net import PatchClassifier
    from tag2mask.masks import MaskMaker

Counts = dict[str, Any]  # facts about the result, for done.json


def check(run: Run, folder: Path) -> Counts:
    """Write findings.json, all faults of the data. Warnings are logged, errors raise DataError.

    Photos and masks that have not changed since they were last checked are not opened again.
    """
    if rank() > 0:
        return {}
    config, data = run.config, run.data
    findings = check_data(
        data,
        config.val,
        config.val_masks,
        classes=config.evaluate.classes,
        facts=run.facts,
        read=run.read,
    )
    write_json(folder / FINDINGS, [asdict(finding) for finding in findings])
    for finding in shorten(finding for finding in findings if finding.severity == "warning"):
        log.info(f"warning: {finding}")
    if errors := [finding for finding in findings if finding.severity == "error"]:
        if run.files.facts.exists():  # else no photo was checked, and a new folder is removed
            log.info(f"check: {count(findings)}, see {folder / FINDINGS}")
        raise DataError(problems(errors), None if config.val or config.val_masks else data)
    return {"findings": count(findings)}


def clusters(run: Run, folder: Path) -> Counts:
    """Write clusters.json for the tags of the training photos, and the transcript behind them."""
    if rank() > 0:
        return {}  # only one process asks the language model
    transcript, settings = run.files.transcript, run.config.clusters
    before = run.files.result("clusters", transcript.name)
    if before.exists() and not transcript.exists():
        shutil.copy(before, transcript)  # written by tag2mask 0.1
    result = make_clusters(run.table.tags, settings, run.config.seed, transcript)
    if result.transcript == transcript.name and transcript.exists():
        shutil.copy(transcript, folder / transcript.name)
    result.save(folder / CLUSTERS)
    return {"clusters": result.num_clusters, "tags": run.table.num_tags}


def classifier(run: Run, folder: Path) -> Counts:
    """Write model.safetensors: the patch classifier."""
    import torch

    from tag2mask.classifier import save_classifier, train_classifier

    config, table = run.config, run.table
    M = membership(run.clusters, table.tags)
    vectors = torch.from_numpy(np.asarray(cluster_vector(table.multi_hot, M)))
    model = train_classifier(
        table, vectors, config.classifier, folder, config.seed, config.photos.workers
    )
    if rank() == 0:
        save_classifier(model, folder / MODEL, table.tags, vectors.shape[1])
    return {"photos": len(table), "weights": model.backbone.weights_used}


def masks(run: Run, folder: Path) -> Counts:
    """Write NAME.png and NAME.npz for every training photo, and masks.json."""
    from tag2mask.crf import backend
    from tag2mask.masks import make_masks

    settings, table, maker = run.config.masks, run.table, mask_maker(run)
    maker.overall = maker.measure(table.photos)
    share = Table(table.tags, table.photos[rank() :: ranks()], table.source)
    if share.with_unknown:
        share = _with_found_tags(run, share)
    make_masks(share, maker, folder, cores())
    barrier()
    if rank() > 0:
        return {}
    about = {
        "classes": list(table.classes),  # by their numbers in the masks
        "ignore": IGNORE,
        "labels": _labels(run),
        "settings": settings.model_dump(mode="json"),
        "threshold": maker.overall,
        "small": [run.table.classes[number] for number in sorted(maker.small)],
        "crf": backend() if settings.crf.iterations else False,
        "photos": len(table),
    }
    write_json(folder / MASKS, about)
    return {"photos": len(table), "empty": _count_empty(table, folder)}


def _with_found_tags(run: Run, table: Table) -> Table:
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


def mask_maker(run: Run) -> "MaskMaker":
    """The run's MaskMaker. The classifier is loaded when the first photo is scored."""
    from tag2mask.classifier import load_classifier
    from tag2mask.masks import MaskMaker

    settings, about = run.config.masks, run.files.result("masks", MASKS)

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
        vectors = cluster_vector(labels, M).to(run.device)
        return model.close_scores(images.to(run.device), vectors, tags)

    maker = MaskMaker(score, side, run.table.tags, settings, closer)
    if about.exists():
        stored = read_json(about)
        maker.overall = stored.get("threshold")
        maker.small = frozenset(run.table.tags.index(tag) + 1 for tag in stored.get("small", []))
    return maker


def _labels(run: Run) -> str:
    return "given and found" if run.table.with_unknown else "given"


def _count_empty(table: Table, folder: Path) -> int:
    """How many masks of photos with tags are all background; logs it with the most missed tags."""
    photos = [photo for photo in table.photos if photo.tags]
    tagged = Counter(tag for photo in photos for tag in photo.tags)
    missed: Counter[str] = Counter()
    empty = 0

    def classes(photo: Photo) -> set[int]:
        return {*look_at_mask(folder / f"{photo.name}.png")["numbers"]} - {BACKGROUND, IGNORE}

    for photo, numbers in zip(photos, parallel_map(classes, photos, cores()), strict=True):
        empty += not numbers
        missed.update(set(photo.tags) - {table.classes[number] for number in numbers})
    worst = sorted(missed, key=lambda tag: -missed[tag] / tagged[tag])[:10]
    text = ", ".join(f"{tag} in {missed[tag]} of {tagged[tag]}" for tag in worst)
    log.info(
        f"masks: {empty} of {len(photos)} are all background"
        + (f"; a tag of the photo is missing: {text}" if text else "")
    )
    return empty


def segmenter(run: Run, folder: Path) -> Counts:
    """Write model.safetensors; for each earlier round, round-N/ with its model and masks."""
    from tag2mask.masks import read_maps, write_nothing
    from tag2mask.segmenter.deeplab import load_segmenter, save_segmenter
    from tag2mask.segmenter.train import train_segmenter

    config, rounds = run.config, run.config.segmenter.rounds
    first, maker = run.files.result("masks"), mask_maker(run)

    def with_tags(photo: Photo, probs: np.ndarray) -> np.ndarray:
        return maker.with_segmenter(*read_maps(first, photo), probs)

    pseudo_masks = first
    for number in range(1, rounds + 1):
        place = folder / f"round-{number}" if number < rounds else folder
        if not (place / MODEL).exists():
            model = train_segmenter(
                run.table, pseudo_masks, config.segmenter, place, config.seed, config.photos.workers
            )
            barrier()
            if rank() == 0:
                save_segmenter(model, place / MODEL)
            barrier()
        if number < rounds:
            shutil.rmtree(place / CHECKPOINT, ignore_errors=True)
            pseudo_masks = place / "masks"
            for index in run.table.nothing[rank() :: ranks()]:
                write_nothing(pseudo_masks, run.table.photos[index])
            _predict(run, place / MODEL, run.table, pseudo_masks, with_tags)
    model = load_segmenter(folder / MODEL)
    return {"photos": len(run.table), "weights": model.backbone.weights_used}


def _predict(
    run: Run,
    model: Path,
    table: Table,
    folder: Path,
    decide: Callable[[Photo, np.ndarray], np.ndarray] | None = None,
) -> None:
    """Write `folder`/NAME.png for every photo of `table` that has no mask there yet."""
    from tag2mask.segmenter.deeplab import load_segmenter
    from tag2mask.segmenter.predict import predict_photos

    network = load_segmenter(model).to(run.device)
    share = table.photos[rank() :: ranks()]
    todo = [photo for photo in share if not (folder / f"{photo.name}.png").exists()]
    predictions = predict_photos(network, todo, run.config.segmenter, decide=decide)
    done = len(table) - len(todo)
    for photo, prediction in track(predictions, "predictions", total=len(table), done=done):
        prediction.save(folder / f"{photo.name}.png")
    barrier()


def evaluate(run: Run, folder: Path) -> Counts:
    """Write predictions/NAME.png for the validation photos, and metrics.json."""
    from tag2mask.evaluate import count_finds, finds_text

    settings, listed = run.config.segmenter, run.config.photos.pseudo_list
    predictions = folder / PREDICTIONS
    if run.val:
        _predict(run, run.files.result("segmenter", MODEL), run.val, predictions)
        write_class_names(predictions, run.table.classes)
    if rank() > 0:
        return {}
    crf = (run.config.masks if settings.rounds == 1 else settings).crf.iterations > 0
    pseudo = {"split": listed.stem if listed else "train", "labels": _labels(run), "crf": crf}
    predicted = {"split": "val", "labels": "none", "crf": settings.crf.iterations > 0}
    for about, stage in ((pseudo, "classifier"), (predicted, "segmenter")):
        about["weights"] = (run.files.done(stage) or {}).get("counts", {}).get("weights")
    val = run.truths["val"]
    scored = val.photos_with_truth if val else ()
    metrics = {
        "pseudo": _score(run, "train", run.pseudo_photos, run.last_masks, pseudo),
        "segmenter": _score(run, "val", scored, predictions, predicted),
    }
    counts = {name: values and values["images"] for name, values in metrics.items()}
    if not any(metrics.values()):
        log.info("evaluate: no true masks were given (--val-masks FOLDER), so there are no metrics")
    if run.val and (finds := count_finds(run.val, predictions)):
        metrics["finds"] = finds
        log.info(f"segmenter, by the tags of the validation photos: {finds_text(finds)}")
    write_json(folder / METRICS, metrics)
    return counts


def _score(
    run: Run, truths: str, photos: tuple[Photo, ...], folder: Path, about: dict[str, Any]
) -> dict[str, Any] | None:
    """Masks in a folder to their metrics, as in metrics.json; None if there are no true masks."""
    from tag2mask.evaluate import evaluate_masks, list_hash, result_table

    truth = run.truths[truths]
    if not (truth and photos):
        return None
    pairs = [(folder / f"{photo.name}.png", partial(truth.read, photo)) for photo in photos]
    result = evaluate_masks(pairs, run.table.classes, mean_over=run.config.evaluate.mean_over)
    about = {**about, "seed": run.config.seed}
    what = "pseudo masks" if truths == "train" else "segmenter"
    title = f"{what}: mIoU {100 * result.miou:.1f} %"
    console.print(result_table(result, title))
    facts = ", ".join(f"{key} {value}" for key, value in about.items())
    log.info(f"{title} ({facts}, {result.images} images)")
    names = [photo.name for photo in photos]
    metrics: dict[str, Any] = result.summary(**about, list_hash=list_hash(names))
    return metrics


def report(run: Run, folder: Path) -> Counts:
    """Write index.html."""
    if rank() > 0:
        return {}
    from tag2mask.report.page import write_report

    readers = {
        photo.path: partial(truth.read, photo)
        for truth in reversed(run.truths.values())  # training last: it wins
        if truth
        for photo in truth.photos_with_truth
    }

    def true_mask(photo: Photo) -> np.ndarray | None:
        return readers[photo.path]() if photo.path in readers else None

    scores = shown_scores(run)
    page = write_report(run.folder, run.config, run.table, run.val, scores, true_mask, folder)
    return {"bytes": page.stat().st_size}


def shown_scores(run: Run) -> Callable[[Photo], np.ndarray | None]:
    """A photo to the score maps that the report shows: (C, h, w) in 0-1, None if there are none.

    With masks.scores = logits, which have no upper limit, the score map of each tag is divided by
    its maximum in the photo.
    """
    from tag2mask.masks import read_maps
    from tag2mask.masks.scores import relative

    folder = run.files.result("masks")

    def read(photo: Photo) -> np.ndarray | None:
        if not (folder / f"{photo.name}.npz").exists():
            return None
        present, maps = read_maps(folder, photo)
        scores = np.zeros((run.table.num_classes, *maps.shape[1:]), np.float32)
        is_logits = run.config.masks.scores == "logits"
        scores[present] = relative(maps) if is_logits else maps
        return scores

    return read
