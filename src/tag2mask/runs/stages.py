"""What each stage does with a run folder. Rooms do not know each other: what one needs of another is handed over here."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.clusters import cluster_vector, make_clusters, membership
from tag2mask.errors import ConfigError, DataError
from tag2mask.files import read_json, write_json
from tag2mask.formats.check import check as check_data
from tag2mask.formats.check import checked_state
from tag2mask.formats.findings import count, shorten
from tag2mask.photos.table import Photo, Table
from tag2mask.processes import barrier, cores, rank, ranks
from tag2mask.progress import console, log, track
from tag2mask.runs.folder import Job


def check_state(job: Job) -> dict[str, Any]:
    """What the check depends on, without opening a picture."""
    return checked_state(job.data, job.config.val, job.config.val_masks, job.rows) | {
        "numbering": job.config.photos.numbering
    }


def check(job: Job) -> dict[str, Any]:
    """Write check/findings.json, all that is wrong with the data; log the warnings, raise DataError with the errors.

    Pictures and masks that have been looked at before, and are as they were, are not opened again.
    """
    if rank() > 0:
        return {}
    config, path = job.config, job.folder / "check" / "findings.json"
    findings = check_data(
        job.data,
        config.val,
        config.val_masks,
        numbering=config.photos.numbering,
        facts=job.facts,
        read=job.rows,
    )
    write_json(path, [asdict(finding) for finding in findings])
    for finding in shorten(finding for finding in findings if finding.severity == "warning"):
        log.info(f"warning: {finding}")
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise DataError([str(finding) for finding in shorten(errors)], job.data)
    return {"findings": count(findings)}


def clusters(job: Job) -> dict[str, Any]:
    """Write clusters/clusters.json for the tags of the training photos."""
    if rank() > 0:
        return {}  # one process asks the language model, for all
    from tag2mask.clusters.command import transcript_beside
    from tag2mask.clusters.llm import LanguageModel
    from tag2mask.clusters.prompts import Prompts, load_prompts

    settings, path, model = job.config.clusters, job.folder / "clusters" / "clusters.json", None
    source = "llm" if settings.source == "auto" and settings.llm else settings.source
    if source == "llm":
        if settings.llm is None:
            raise ConfigError(
                "which language model? Give --clusters.llm NAME, and --clusters.llm-url URL if it is not OpenAI's"
            )
        prompts = load_prompts(settings.prompts) if settings.prompts else Prompts()
        model = LanguageModel(
            settings.llm,
            settings.llm_url or "",
            settings.queries,
            settings.refinements,
            overlap=settings.overlap,
            structured=settings.structured,
            temperature=settings.temperature,
            timeout=settings.timeout,
            prompts=prompts,
        )
    made = make_clusters(job.table.tags, source, job.config.seed, model, transcript_beside(path))
    made.save(path)
    return {"clusters": made.num_clusters, "tags": job.table.num_tags}


def _vectors(job: Job, table: Table) -> np.ndarray:
    return np.asarray(cluster_vector(table.multi_hot, membership(job.clusters, table.tags)))


def train(job: Job) -> dict[str, Any]:
    """Write classifier/model.safetensors."""
    import torch

    from tag2mask.classifier import save_classifier, train_classifier

    config, vectors = job.config, torch.from_numpy(_vectors(job, job.table))
    folder = job.folder / "classifier"
    model = train_classifier(
        job.table, vectors, config.classifier, folder, config.seed, config.photos.workers
    )
    if rank() == 0:
        save_classifier(model, folder / "model.safetensors", job.table.tags, vectors.shape[1])
    return {"photos": len(job.table), "weights": model.backbone.weights_used}


def mask_maker(job: Job) -> Any:
    """What makes masks of photos with tags. The trained classifier is read when the first photo is scored."""
    import torch

    from tag2mask.classifier import load_classifier
    from tag2mask.masks import MaskMaker

    settings = job.config.masks

    @cache
    def network() -> tuple[Any, Any, Any]:
        device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
        model = load_classifier(job.folder / "classifier" / "model.safetensors").to(device)
        return model, membership(job.clusters, job.table.tags), device

    def score(images: Any, labels: Any) -> Any:
        model, M, device = network()
        u = cluster_vector(labels, M).to(device)
        return model.scores(images.to(device), u, logits=settings.scores == "logits")

    maker = MaskMaker(
        score, lambda side: network()[0].backbone.side(side), job.table.tags, settings
    )
    if (made := job.folder / "masks" / "masks.json").exists():
        maker.overall = read_json(made).get("threshold")
    return maker


def shown_scores(job: Job) -> Callable[[Photo], np.ndarray | None]:
    """What the report shows of a photo's patch scores, from the masks stage: (C, h, w) in 0-1, None where there are none yet.

    Z itself; with scores = logits, which has no upper end, each tag's logits relative to their highest in the photo.
    """
    from tag2mask.masks import read_maps
    from tag2mask.masks.scores import relative

    maker, folder = mask_maker(job), job.folder / "masks"

    def scores(photo: Photo) -> np.ndarray | None:
        if not (folder / f"{photo.name}.npz").exists():
            return None
        maps = read_maps(folder, photo)
        whole = np.zeros((job.table.num_classes, *maps.shape[1:]), np.float32)
        whole[maker.present(photo)] = (
            relative(maps) if job.config.masks.scores == "logits" else maps
        )
        return whole

    return scores


def masks(job: Job) -> dict[str, Any]:
    """Write masks/NAME.png and NAME.npz for every training photo, and masks.json."""
    from tag2mask.crf import backend
    from tag2mask.masks import make_masks

    folder = job.folder / "masks"
    table = Table(job.table.tags, job.table.photos[rank() :: ranks()], job.table.source)
    maker = mask_maker(job)
    maker.overall = maker.measure(job.table.photos)
    make_masks(table, maker, folder, cores())
    barrier()
    if rank() == 0:
        settings = job.config.masks
        write_json(
            folder / "masks.json",
            {
                "classes": list(job.table.classes),
                "ignore": 255,
                "labels": "given",
                "scores": settings.scores,
                "threshold": maker.overall,
                "crf": backend() if settings.crf.iterations else False,
                "photos": len(job.table),
            },
        )
    return {"photos": len(job.table)}


def segment(job: Job) -> dict[str, Any]:
    """Write segmenter/model.safetensors; of all rounds but the last segmenter/round-N/model.safetensors and masks/NAME.png."""
    from tag2mask.segmenter.deeplab import save_segmenter
    from tag2mask.segmenter.train import train_segmenter

    config, masks = job.config, job.folder / "masks"
    rounds = config.segmenter.rounds
    for number in range(1, rounds + 1):
        folder = job.folder / "segmenter" / (f"round-{number}" if number < rounds else "")
        if not (folder / "model.safetensors").exists():
            model = train_segmenter(
                job.table, masks, config.segmenter, folder, config.seed, config.photos.workers
            )
            barrier()
            if rank() == 0:
                save_segmenter(model, folder / "model.safetensors")
            barrier()
        if number < rounds:
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
            masks = folder / "masks"
            _predict(job, folder / "model.safetensors", job.table, masks, _with_tags(job))
    return {
        "photos": len(job.table),
        "weights": load_for_prediction(
            job.folder / "segmenter" / "model.safetensors"
        ).backbone.weights_used,
    }


def _with_tags(job: Job) -> Callable[[Photo, np.ndarray], np.ndarray]:
    """The segmenter's probabilities of a training photo to the decision where its tags are known."""
    from tag2mask.masks import read_maps

    maker = mask_maker(job)
    return lambda photo, probs: maker.with_segmenter(
        photo, read_maps(job.folder / "masks", photo), probs
    )


def evaluate(job: Job) -> dict[str, Any]:
    """Write evaluate/predictions/NAME.png for the test photos and evaluate/metrics.json for all photos with true masks."""
    from tag2mask.evaluate import evaluate_masks, list_hash, result_table

    folder, config = job.folder / "evaluate", job.config
    if job.val:
        _predict(
            job, job.folder / "segmenter" / "model.safetensors", job.val, folder / "predictions"
        )
    if rank() > 0:
        return {}
    weights = {
        stage: read_json(job.folder / stage / "done.json")["counts"]["weights"]
        for stage in ("classifier", "segmenter")
    }
    train, val = job.truths["train"], job.truths["val"]
    sets = {
        "pseudo": (
            train,
            job.pseudo_photos,
            config.pseudo_masks(job.folder),
            (config.masks if config.segmenter.rounds == 1 else config.segmenter).crf,
            "given",
            weights["classifier"],
        ),
        "segmenter": (
            val,
            val.photos_with_truth if val else (),
            folder / "predictions",
            config.segmenter.crf,
            "none",
            weights["segmenter"],
        ),
    }
    metrics: dict[str, Any] = {}
    for name, (truth, photos, masks, crf, labels, used) in sets.items():
        metrics[name] = None
        if truth and photos:
            pairs = [(masks / f"{photo.name}.png", partial(truth.read, photo)) for photo in photos]
            result = evaluate_masks(pairs, job.table.classes, mean_over=config.evaluate.mean_over)
            split = (
                config.photos.pseudo_list.stem
                if name == "pseudo" and config.photos.pseudo_list
                else ("train" if name == "pseudo" else "val")
            )
            stated = {
                "split": split,
                "labels": labels,
                "crf": crf.iterations > 0,
                "weights": used,
                "seed": config.seed,
            }
            stated["list_hash"] = list_hash([photo.name for photo in photos])
            metrics[name] = result.summary(**stated)
            title = f"{'pseudo masks' if name == 'pseudo' else 'segmenter'}: mIoU {100 * result.miou:.1f} %"
            console.print(result_table(result, title))
            log.info(
                f"{title} ({', '.join(f'{k} {v}' for k, v in stated.items())}, {result.images} images)"
            )
    if not any(metrics.values()):
        log.info("evaluate: no true masks were given (--val-masks FOLDER), so there are no figures")
    write_json(folder / "metrics.json", metrics)
    return {name: m and m["images"] for name, m in metrics.items()}


def _predict(
    job: Job,
    weights: Path,
    table: Table,
    folder: Path,
    decide: Callable[[Photo, np.ndarray], np.ndarray] | None = None,
) -> None:
    """Write `folder`/NAME.png for every photo of `table` that has none yet."""
    from tag2mask.segmenter.predict import predict_photos

    model = load_for_prediction(weights)
    todo = [
        photo
        for photo in table.photos[rank() :: ranks()]
        if not (folder / f"{photo.name}.png").exists()
    ]
    predictions = predict_photos(model, todo, job.config.segmenter, decide=decide)
    for photo, prediction in track(
        predictions, "predictions", total=len(table), done=len(table) - len(todo)
    ):
        prediction.save(folder / f"{photo.name}.png")
    barrier()


def load_for_prediction(weights: Path) -> Any:
    """A segmenter's file to the network, on the GPU if there is one. Raises RunError if it is missing."""
    import torch

    from tag2mask.segmenter.deeplab import load_segmenter

    return load_segmenter(weights).to("cuda" if torch.cuda.is_available() else "cpu")


def report(job: Job) -> dict[str, Any]:
    """Write report/index.html."""
    if rank() > 0:
        return {}
    from tag2mask.report.page import write_report

    truths = job.truths
    paths = {
        name: {p.path for p in truth.photos_with_truth} if truth else set()
        for name, truth in truths.items()
    }

    def true_mask(photo: Photo) -> np.ndarray | None:
        for name, truth in truths.items():
            if truth and photo.path in paths[name]:
                return truth.read(photo)
        return None

    page = write_report(job.folder, job.config, job.table, job.val, shown_scores(job), true_mask)
    log.info(f"report: {page}")
    return {"bytes": page.stat().st_size}
