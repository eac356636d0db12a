"""What each stage does: read the results of other stages, and write its own into a folder.

The folders of tag2mask (clusters, classifier ...) do not import each other: this module passes what
one of them needs from another.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tag2mask.clusters import cluster_vector, make_clusters, membership
from tag2mask.errors import DataError
from tag2mask.evaluate.confusion import evaluate_masks
from tag2mask.evaluate.finds import sample_photos
from tag2mask.evaluate.folders import list_hash
from tag2mask.evaluate.show import result_table
from tag2mask.files import read_json, write_json
from tag2mask.formats.check import check as check_data
from tag2mask.formats.findings import count, problems, shorten
from tag2mask.photos.masks import LEARNED, NEW_MASKS, write_class_names
from tag2mask.photos.table import IGNORE, Photo, Table
from tag2mask.processes import barrier, cores, rank, ranks
from tag2mask.progress import console, log, track
from tag2mask.runs.continued import keep_masks, note_made, start
from tag2mask.runs.corrected import CORRECTED, FINGERPRINT, training_masks, write_kept
from tag2mask.runs.folder import (
    CHECKPOINT,
    CLUSTERS,
    FINDINGS,
    MASKS,
    METRICS,
    MODEL,
    PREDICTIONS,
    SAMPLE,
)
from tag2mask.runs.judge import judge_masks, judge_peaks, judge_predictions, judge_segmenter
from tag2mask.runs.mask_maker import as_shown, mask_maker, with_found_tags
from tag2mask.runs.run import Run

if TYPE_CHECKING:
    from torch import Tensor

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

    from tag2mask.classifier import load_classifier, save_classifier, train_classifier

    config, table = run.config, run.table
    M = membership(run.clusters, table.tags)
    vectors = torch.from_numpy(np.asarray(cluster_vector(table.multi_hot, M)))
    last = start(run, "classifier")
    before = load_classifier(last / MODEL) if last else None
    options = (config.classifier, folder, config.seed, config.photos.workers, before)
    model = train_classifier(table, vectors, *options)
    if rank() == 0:
        save_classifier(model, folder / MODEL, table.tags, vectors.shape[1])
    weights = model.backbone.weights_used
    return {"photos": len(table), "weights": weights, **run.taken.counts(masks=())}


def masks(run: Run, folder: Path) -> Counts:
    """Write NAME.png and NAME.npz for every training photo, and masks.json."""
    from tag2mask.crf import backend
    from tag2mask.masks import CONTRAST, make_masks

    settings, table, maker = run.config.masks, run.table, mask_maker(run)
    last = start(run, "masks")
    if not last:
        maker.overall = maker.measure(table.photos)
    share = Table(table.tags, table.photos[rank() :: ranks()], table.source)
    if last:
        share = keep_masks(run, share, last, folder)
    if share.with_unknown:
        share = with_found_tags(run, share)
    make_masks(share, maker, folder, cores())
    barrier()
    if rank() > 0:
        return {}
    small = [run.table.classes[number] for number in sorted(maker.small)]
    about = {
        "classes": list(table.classes),  # by their numbers in the masks
        "ignore": IGNORE,
        "labels": _labels(run),
        "settings": settings.model_dump(mode="json"),
        "threshold": maker.overall,
        "small": small,
        "crf": backend() if settings.crf.iterations else False,
        "photos": len(table),
    }
    if maker.contrast:
        maker.contrast.save(folder / CONTRAST)
    about["finds"] = finds = judge_masks(run, folder, small)
    write_json(folder / MASKS, about)
    empty = finds and finds["tagged"]["empty"]
    counts = {"photos": len(table), "empty": empty, FINGERPRINT: note_made(run, folder)}
    return counts | ({"regions": len(run.regions.paths)} if run.regions else {})


def _labels(run: Run) -> str:
    return "given and found" if run.table.with_unknown else "given"


def segmenter(run: Run, folder: Path) -> Counts:
    """Write model.safetensors; masks/, its masks of the training photos, given the tags; and for
    each earlier round, round-N/ with its model and masks.

    A training that continues has the last round alone.
    """
    from tag2mask.segmenter.heads import load_segmenter, save_segmenter
    from tag2mask.segmenter.train import train_segmenter

    config, rounds, first = run.config, run.config.segmenter.rounds, run.files.result("masks")
    last = start(run, "segmenter")
    trained, pseudo_masks = run.taken.trained, training_masks(run, first, folder / LEARNED)
    before = last
    if last and rounds > 1:
        pseudo_masks = make_new_masks(run, last / MODEL, folder / f"round-{rounds - 1}" / "masks")
    for number in range(rounds if last else 1, rounds + 1):
        place = folder / f"round-{number}" if number < rounds else folder
        if not (place / MODEL).exists():
            network = load_segmenter(before / MODEL) if before else None
            options = (config.segmenter, place, config.seed, config.photos.workers, network)
            model = train_segmenter(trained, pseudo_masks, *options)
            barrier()
            if rank() == 0:
                save_segmenter(model, place / MODEL)
            barrier()
        sample = sample_photos(run.table)
        _predict(run, place / MODEL, sample, place / SAMPLE)
        judge_segmenter(run, sample, place)
        if number < rounds:
            shutil.rmtree(place / CHECKPOINT, ignore_errors=True)
            before, pseudo_masks = place, make_new_masks(run, place / MODEL, place / "masks")
    model = load_segmenter(folder / MODEL)
    counts: Counts = {"photos": len(trained), "weights": model.backbone.weights_used}
    if config.segmenter.new_masks:
        new_masks = make_new_masks(run, folder / MODEL, folder / NEW_MASKS)
        if rank() == 0:
            counts[FINGERPRINT] = note_made(run, new_masks)
    return counts | run.taken.counts()


def make_new_masks(run: Run, model: Path, folder: Path) -> Path:
    """Write what the stage `masks` writes into `folder`, from the scores of the classifier and of a
    round's network and the tags; masks that are kept stay. Returns `folder`."""
    from tag2mask.masks import both_score_maps, make_masks, read_score_maps
    from tag2mask.segmenter.heads import load_segmenter
    from tag2mask.segmenter.predict import all_probabilities

    network, settings = load_segmenter(model).to(run.device), run.config.segmenter
    maker, first = mask_maker(run).of_segmenter(), run.files.result("masks")
    about, is_logits = read_json(first / MASKS), run.config.masks.scores == "logits"

    def maps_of(photos: Sequence[Photo]) -> Iterator[tuple[Photo, "Tensor"]]:
        for photo, _, probs in all_probabilities(network, photos, settings, cores()):
            scores = read_score_maps(first, photo)[1] if is_logits else None
            yield photo, both_score_maps(probs[maker.present(photo)], scores)

    table = as_shown(run)
    share = replace(table, photos=table.photos[rank() :: ranks()])
    make_masks(share, maker, folder, cores(), maps_of)
    barrier()
    if rank() == 0:
        write_kept(run, folder)
        about |= {"settings": maker.settings.model_dump(mode="json"), "threshold": None}
        about["finds"] = judge_masks(run, folder, about["small"], about.get("finds"))
        write_json(folder / MASKS, about)
    barrier()
    return folder


def _predict(run: Run, model: Path, table: Table, folder: Path) -> None:
    """Write `folder`/NAME.png for every photo of `table` that has no mask there yet."""
    from tag2mask.segmenter.heads import load_segmenter
    from tag2mask.segmenter.predict import predict_photos

    network = load_segmenter(model).to(run.device)
    share = table.photos[rank() :: ranks()]
    todo = [photo for photo in share if not (folder / f"{photo.name}.png").exists()]
    predictions = predict_photos(network, todo, run.config.segmenter)
    done = len(table) - len(todo)
    for photo, prediction in track(predictions, "predictions", total=len(table), done=done):
        prediction.save(folder / f"{photo.name}.png")
    barrier()


def evaluate(run: Run, folder: Path) -> Counts:
    """Write predictions/NAME.png for the validation photos, and metrics.json."""
    settings, listed = run.config.segmenter, run.config.photos.pseudo_list
    predictions = folder / PREDICTIONS
    if run.val:
        _predict(run, run.files.result("segmenter", MODEL), run.val, predictions)
        write_class_names(predictions, run.table.classes)
    if rank() > 0:
        return {}
    crf = run.config.masks.crf.iterations > 0
    pseudo = {"split": listed.stem if listed else "train", "labels": _labels(run), "crf": crf}
    if with_regions := (run.files.done("masks") or {}).get("counts", {}).get("regions"):
        pseudo["regions"] = with_regions  # photos whose mask has them in place of the CRF
        pseudo["crf"] = crf and with_regions < len(run.table)
    predicted = {"split": "val", "labels": "none", "crf": settings.crf.iterations > 0}
    for about, stage in ((pseudo, "classifier"), (predicted, "segmenter")):
        counts = (run.files.done(stage) or {}).get("counts", {})
        about["weights"] = counts.get("weights")
        about |= {name: counts[name] for name in CORRECTED if name in counts}
    val = run.truths["val"]
    scored = val.photos_with_truth if val else ()
    metrics = {
        "pseudo": _score(run, "train", run.pseudo_photos, run.newest_masks, pseudo),
        "segmenter": _score(run, "val", scored, predictions, predicted),
    }
    counts = {name: values and values["images"] for name, values in metrics.items()}
    if not any(metrics.values()):
        log.info("evaluate: no true masks were given (--val-masks FOLDER), so there are no metrics")
    if finds := judge_predictions(run, predictions):
        metrics["finds"] = finds
    write_json(folder / METRICS, metrics)
    return counts


def _score(
    run: Run, truths: str, photos: tuple[Photo, ...], folder: Path, about: dict[str, Any]
) -> dict[str, Any] | None:
    """Masks in a folder to their metrics, as in metrics.json; None if there are no true masks."""
    truth, pseudo = run.truths[truths], truths == "train"
    if not (truth and photos):
        return None
    pairs = [(folder / f"{photo.name}.png", partial(truth.read, photo)) for photo in photos]
    result = evaluate_masks(pairs, run.table.classes, mean_over=run.config.evaluate.mean_over)
    names = [photo.name for photo in photos]
    about = {**about, "seed": run.config.seed, **(run.taken.counts(names) if pseudo else {})}
    what = "pseudo masks" if pseudo else "segmenter"
    title = f"{what}: mIoU {100 * result.miou:.1f} %"
    console.print(result_table(result, title))
    facts = ", ".join(f"{key} {value}" for key, value in about.items())
    log.info(f"{title} ({facts}, {result.images} images)")
    metrics: dict[str, Any] = result.summary(**about, list_hash=list_hash(names))
    if truths == "train":
        metrics["peaks"] = judge_peaks(run, photos, truth.read)
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
    from tag2mask.masks import read_score_maps
    from tag2mask.masks.scores import relative

    folder = run.files.result("masks")

    def read(photo: Photo) -> np.ndarray | None:
        if not (folder / f"{photo.name}.npz").exists():
            return None
        present, maps = read_score_maps(folder, photo)
        scores = np.zeros((run.table.num_classes, *maps.shape[1:]), np.float32)
        is_logits = run.config.masks.scores == "logits"
        scores[present] = relative(maps) if is_logits else maps
        return scores

    return read
