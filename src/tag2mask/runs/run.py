"""One run: its settings, its folder, its tables, and predictions with its segmenter."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from tag2mask.clusters import Clusters, load_clusters
from tag2mask.config import STAGE_NAMES, Config, SegmenterSettings
from tag2mask.config_files import read_config
from tag2mask.errors import ConfigError, DataError, RunError
from tag2mask.files import Facts, fingerprint, read_json, read_list
from tag2mask.formats.check import settings_reader
from tag2mask.formats.rows import Rows, known_tags, to_table
from tag2mask.photos.masks import Truth, true_photos
from tag2mask.photos.table import Photo, Table
from tag2mask.progress import log, track
from tag2mask.runs.corrected import Taken, take
from tag2mask.runs.folder import CLUSTERS, METRICS, MODEL, PAGE, RunFolder

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

    from tag2mask.photos.predictions import Prediction, Row
    from tag2mask.segmenter.network import Segmenter

# Settings of the segmenter that are used after its training. Its training also uses them, without
# object_first, if it learns from its own masks (rounds > 1).
PREDICTION_SETTINGS = {"test_scales", "flip", "object_first", "crf"}
MOST_TAGS = 20  # in one line of the log


class Run:
    """A run, finished or not. Without `config`, raises RunError if `folder` is not a run folder."""

    def __init__(self, folder: Path | str, config: Config | None = None):
        self.files = RunFolder(Path(folder))
        if config is None and not self.files.config.exists():
            raise RunError(f"{self.folder}: not a run folder (it has no config.toml)")
        self.config = config or read_config(self.files.config)
        self.facts = Facts(self.files.facts)
        self.read = settings_reader(self.config.photos)
        self.begun = False  # whether a stage has left anything new in the folder

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self._state})"

    @property
    def _state(self) -> str:
        """What is done, in few words."""
        if self.files.result("segmenter", MODEL).exists():
            return "ready to predict"
        done = [name for name in STAGE_NAMES if self.files.result(name).is_dir()]
        return f"done: {', '.join(done) or 'nothing'}; no segmenter yet"

    @property
    def folder(self) -> Path:
        """The run folder, as an absolute path."""
        return self.files.path

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the pseudo masks and of the segmenter; None for those without true masks.
        "finds", if validation photos have tags: what the segmenter finds of them."""
        metrics: dict[str, Any] = read_json(self.files.need("evaluate", METRICS))
        return metrics

    @property
    def report(self) -> Path:
        """The report page."""
        return self.files.result("report", PAGE)

    def fingerprint(self, path: Path, pattern: str = "*") -> str:
        """`files.fingerprint`; files unchanged since the run last read them are not read again."""
        return fingerprint(path, pattern, self.facts)

    @property
    def data(self) -> Path:
        """The setting `data`, the training photos. Raises ConfigError if it is not set."""
        if self.config.data is None:
            raise ConfigError(
                "no training photos given. Give --data FILE.csv (columns file_name, tags), a "
                "folder with one folder per tag, or another form: see `tag2mask --help`"
            )
        return self.config.data

    @cached_property
    def rows(self) -> Rows:
        """The training photos as their file describes them, faults and all. Raises DataError."""
        return self.read(self.data)

    @cached_property
    def val_rows(self) -> Rows | None:
        """The validation photos, of `val` or of the split that `data` has. Raises DataError."""
        if not self.config.val:
            return self.rows.val
        return self.read(self.config.val, tags=known_tags(self.rows))

    @cached_property
    def given(self) -> Table:
        """The training photos with the tags that the data give."""
        return to_table(self.rows)

    @cached_property
    def taken(self) -> Taken:
        """The corrections of the user."""
        return take(self.files.corrections, self.given, self.facts)

    @property
    def table(self) -> Table:
        """The training photos, with their corrected tags."""
        return self.taken.table

    @cached_property
    def val(self) -> Table | None:
        """Validation photos, with the class numbers of the training photos."""
        rows = self.val_rows
        return to_table(rows, self.given.tags, untagged=True) if rows else None

    @property
    def clusters(self) -> Clusters:
        """The clusters that the stage `clusters` wrote."""
        return load_clusters(self.files.need("clusters", CLUSTERS))

    @cached_property
    def truths(self) -> dict[str, Truth | None]:
        """True masks of the training photos ("train") and of the validation photos ("val")."""
        return {"train": self._truth(self.table), "val": self._truth(self.val)}

    def _truth(self, table: Table | None) -> Truth | None:
        folder = self.config.val_masks
        if table is None or folder is None:
            return None
        if table is self.table:
            table = true_photos(table, self.val, folder)
            if not table.photos:
                return None  # the folder holds only masks of validation photos
        truth = Truth(folder, table, self.config.evaluate.classes, self.facts)
        for warning in truth.warnings:
            log.info(f"warning: {folder}: {warning}")
        return truth

    @cached_property
    def pseudo_photos(self) -> tuple[Photo, ...]:
        """Training photos whose pseudo masks are evaluated. Those of nothing are not among them.

        Raises DataError if there are true masks, but none for the photos of photos.pseudo_list.
        """
        truth, listed = self.truths["train"], self.config.photos.pseudo_list
        # No mask of a photo of nothing can be wrong.
        photos = tuple(p for p in (truth.photos_with_truth if truth else ()) if not p.of_nothing)
        if not (listed and photos):
            return photos
        names = set(read_list(listed))
        if not (scored := tuple(photo for photo in photos if photo.name in names)):
            raise DataError(
                f"none of its {len(names)} names is a training photo with a true mask; "
                f"such photos are named like {photos[0].name}",
                listed,
            )
        return scored

    @property
    def last_masks(self) -> Path:
        """The folder of the masks on which the segmenter's last round was trained."""
        rounds = self.config.segmenter.rounds
        if rounds > 1:
            return self.files.need("segmenter", f"round-{rounds - 1}", "masks")
        with_kept = self.files.result("segmenter", "masks")
        return with_kept if with_kept.exists() else self.files.need("masks")

    def check_evaluation(self) -> None:
        """Raises now the DataError that the stage `evaluate` would raise at the end of the run."""
        from tag2mask.evaluate import check_mean_over

        check_mean_over(self.config.evaluate.mean_over, self.table.classes)
        if self.config.photos.pseudo_list:
            self.pseudo_photos  # noqa: B018

    def summary(self) -> str:
        """The input in one line: photos, tags with counts, validation photos, true masks."""
        counts = Counter(tag for photo in self.table.photos for tag in photo.tags).most_common()
        tags = ", ".join(f"{tag} {count}" for tag, count in counts[:MOST_TAGS])
        more = f" and {len(counts) - MOST_TAGS} more" if len(counts) > MOST_TAGS else ""
        parts = [f"{len(self.table)} photos, {self.table.num_tags} tags ({tags}{more})"]
        if nothing := len(self.table.nothing):
            parts.append(f"{nothing} photos of nothing")
        if unknown := self.table.with_unknown:
            parts.append(f"{unknown} photos with unknown tags")
        parts.append(f"{len(self.val)} validation photos" if self.val else "no validation photos")
        masks = [
            f"{len(truth.photos_with_truth)} {'training' if name == 'train' else 'validation'}"
            for name, truth in self.truths.items()
            if truth
        ]
        parts.append(f"true masks of {' and '.join(masks)} photos" if masks else "no true masks")
        return "; ".join(parts)

    @cached_property
    def device(self) -> "torch.device":
        """The GPU of this process if there is one, else the CPU."""
        import torch

        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @cached_property
    def segmenter(self) -> "Segmenter":
        """The segmenter of the last finished training, ready to predict. Raises RunError."""
        from tag2mask.segmenter.heads import load_segmenter

        return load_segmenter(self.files.need("segmenter", MODEL)).to(self.device)

    @property
    def _settings(self) -> SegmenterSettings:
        """The settings that the segmenter was trained with; for prediction, those of the run."""
        settings = self.config.segmenter
        chosen = {name: getattr(settings, name) for name in PREDICTION_SETTINGS}
        return self.segmenter.settings.model_copy(update=chosen)

    @property
    def classes(self) -> tuple[str, ...]:
        """The segmenter's classes by number, background first. Raises RunError if it has not been
        trained."""
        return self.segmenter.classes

    @property
    def names(self) -> dict[int, str]:
        """Class numbers and names: {0: "background", 1: "cat"}. Raises RunError as `classes`."""
        return dict(enumerate(self.classes))

    @overload
    def predict(  # type: ignore[overload-overlap]  # an array can be iterated, too
        self, pictures: "Image.Image | np.ndarray", threshold: float = 0.5
    ) -> "Prediction": ...

    @overload
    def predict(self, pictures: Path | str, threshold: float = 0.5) -> Any: ...

    @overload
    def predict(
        self, pictures: "Iterable[Any]", threshold: float = 0.5
    ) -> "Iterator[Prediction]": ...

    def predict(self, pictures: Any, threshold: float = 0.5) -> Any:
        """A picture to its Prediction; several pictures to an iterator of Predictions, in order.

        One picture: a path, a PIL picture, or a NumPy array, RGB (H, W, 3) or gray (H, W) uint8. An
        array of OpenCV is BGR: give `pixels[..., ::-1]`. Several: a list or another iterable of
        these, a folder, or a pattern such as "new/*.jpg". They are predicted when they are needed:
        at most two per thread are in memory.

        A Prediction has `.mask` (H, W) uint8, `.classes`, `.found`, `.rows()`, `.probs` (C, h, w)
        softmax, `.overlay()`. A pixel is an object if the network's probability of all objects
        together reaches `threshold`; the CRF then moves the edges to those of the photo.
        Raises DataError for a picture that cannot be read, in its place.
        """
        from tag2mask.crf.decide import check_threshold
        from tag2mask.runs.pictures import as_picture, is_several, photos_to_predict
        from tag2mask.segmenter.predict import predict, predict_photos

        check_threshold(threshold)
        if not is_several(pictures):
            picture = as_picture(pictures)
            prediction = predict(self.segmenter, picture.open(), self._settings, threshold)
            return replace(prediction, file=picture.file)
        if isinstance(pictures, Path | str):
            pictures = photos_to_predict([pictures])
        stream = map(as_picture, pictures)
        predictions = predict_photos(self.segmenter, stream, self._settings, threshold=threshold)
        return (prediction for _, prediction in predictions)

    def predict_to(
        self,
        pictures: "Iterable[Path | str] | Path | str",
        out: Path | str,
        overlay: bool = False,
        threshold: float = 0.5,
        tile: int | None = None,
        overlap: int = 64,
    ) -> "list[Row]":
        """Files, folders and patterns ("new/*.jpg") to the folder `out`: masks NAME.png,
        predictions.csv, classes.json, and NAME.overlay.jpg with `overlay`. Returns the rows of
        these masks in predictions.csv, as `Prediction.rows` does.

        `threshold`: as in `predict`. With `tile` [pixels], a picture is not reduced, but cut at its
        own pixels into tiles of this side, which share `overlap` pixels with their neighbors and
        are blended there. Little memory is needed, whatever the size of the picture.

        Raises DataError at the end if pictures could not be read, and at the start if a mask would
        overwrite a picture; ConfigError.
        """
        from tag2mask.crf.decide import check_threshold
        from tag2mask.photos.predictions import PredictionFolder
        from tag2mask.photos.tiles import predict_large
        from tag2mask.runs.pictures import SizeNote, photos_to_predict
        from tag2mask.segmenter.predict import make_tiles, predict_photos

        check_threshold(threshold)
        paths = [pictures] if isinstance(pictures, Path | str) else list(pictures)
        photos = photos_to_predict(paths, Path(out))
        network, settings = self.segmenter, self._settings
        folder = PredictionFolder(out, network.classes, overlay)
        errors: list[DataError] = []

        def named() -> "Iterator[tuple[str, Prediction]]":
            note = SizeNote(self.files.result("masks"), settings.image_size)
            for photo, prediction in predict_photos(
                network, photos, settings, on_error=errors.append, threshold=threshold
            ):
                note.look(prediction.file, prediction.size)
                yield photo.name, prediction

        if tile is None:
            with folder.opened():
                for _ in track(folder.write(named()), "predictions", total=len(photos)):
                    pass
        else:
            tiles = make_tiles(network, tile, overlap, settings, threshold)
            with folder.opened():
                for photo in photos:
                    try:
                        predict_large(photo.path, photo.name, folder, tiles)
                    except DataError as error:
                        errors.append(error)
        if errors:
            raise DataError([str(error) for error in errors])
        return folder.rows
