"""One run: its settings, its folder, its tables, and predictions with its segmenter."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tag2mask.clusters import Clusters, load_clusters
from tag2mask.config import STAGE_NAMES, Config, SegmenterSettings
from tag2mask.config_files import read_config
from tag2mask.errors import ConfigError, DataError, RunError
from tag2mask.evaluate.confusion import check_mean_over
from tag2mask.files import Facts, fingerprint, read_json, read_list
from tag2mask.formats.check import Reader
from tag2mask.formats.rows import Rows, to_table
from tag2mask.photos.masks import Truth, newest_masks, true_photos
from tag2mask.photos.regions import Regions
from tag2mask.photos.table import Photo, Table
from tag2mask.progress import log
from tag2mask.runs.corrected import Taken, take
from tag2mask.runs.folder import CLUSTERS, METRICS, MODEL, PAGE, RunFolder
from tag2mask.runs.predictor import Predictor

if TYPE_CHECKING:
    import torch

    from tag2mask.segmenter.network import Segmenter

# Settings of the segmenter that are used after its training. Its training also uses them, without
# object_first and crf, if it learns from its own masks (rounds > 1).
PREDICTION_SETTINGS = {"test_scales", "flip", "object_first", "crf"}
MOST_TAGS = 20  # in one line of the log


class Run(Predictor):
    """A run, finished or not. Without `config`, raises RunError if `folder` is not a run folder."""

    def __init__(self, folder: Path | str, config: Config | None = None):
        self.files = RunFolder(Path(folder))
        if config is None and not self.files.config.exists():
            raise RunError(f"{self.folder}: not a run folder (it has no config.toml)")
        self.config = config or read_config(self.files.config)
        self.facts = Facts(self.files.facts)
        self.read = Reader(self.config.photos)
        self._val_rows: Rows | None = None  # of the split that `data` has, until `val` is asked for
        self._seen: dict[tuple[Path, str], str] = {}
        self.continued = False  # whether changed stages start from the last results
        self.begun = False  # whether a stage has left anything new in the folder

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self._state})"

    def __reduce__(self) -> Any:  # for other processes, which read the network again
        return type(self), (self.folder, self.config)

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
        "finds": what the segmenter finds of the tags of validation photos, or else of training
        photos, as its "split" says."""
        metrics: dict[str, Any] = read_json(self.files.need("evaluate", METRICS))
        return metrics

    @property
    def report(self) -> Path:
        """The report page."""
        return self.files.result("report", PAGE)

    def fingerprint(self, path: Path, pattern: str = "*") -> str:
        """`files.fingerprint`; files unchanged since the run last read them are not read again, and
        folders are not listed again before `forget`."""
        if (path, pattern) not in self._seen:
            self._seen[path, pattern] = fingerprint(path, pattern, self.facts)
        return self._seen[path, pattern]

    def forget(self) -> None:
        """Files of the run have changed: look at them again. What is stored of them is not kept in
        memory either."""
        self._seen.clear()
        self.facts.forget()

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
    def given(self) -> Table:
        """The training photos with the tags that the data give. Raises DataError."""
        rows = self.read.take(self.data)
        self._val_rows = rows.val
        return to_table(rows)

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
        """Validation photos, of `val` or of the split that `data` has, with the class numbers of
        the training photos. Raises DataError."""
        tags = self.given.tags
        rows = self.read.take(self.config.val, tags) if self.config.val else self._val_rows
        self._val_rows = None
        return to_table(rows, tags, untagged=True) if rows else None

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
    def regions(self) -> Regions | None:
        """The regions of masks.regions; None if it is not set."""
        folder = self.config.masks.regions
        return Regions(folder, self.table) if folder else None

    def check_regions(self) -> None:
        """Raises DataError with all faults in the folder of masks.regions. If it is gone, its masks
        stay as they are."""
        regions = self.regions
        if regions and (regions.folder.is_dir() or not self.files.done("masks")):
            regions.check(self.facts)

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
    def newest_masks(self) -> Path:
        """The folder of the newest masks of the training photos. Raises RunError."""
        rounds = self.config.segmenter.rounds
        return newest_masks(self.files.need("masks"), self.files.result("segmenter"), rounds)

    def check_evaluation(self) -> None:
        """Raises now the DataError that the stage `evaluate` would raise at the end of the run."""
        check_mean_over(self.config.evaluate.mean_over, self.table.classes)
        if self.config.photos.pseudo_list:
            self.pseudo_photos  # noqa: B018

    def summary(self) -> str:
        """The input in one line: photos, tags with counts, validation photos, true masks."""
        counts = self.table.counts.most_common()
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
    def trained_masks(self) -> Path:
        """The training photos' pseudo masks."""
        return self.files.result("masks")

    @property
    def settings(self) -> SegmenterSettings:
        """The settings that the segmenter was trained with; for prediction, those of the run."""
        settings = self.config.segmenter
        chosen = {name: getattr(settings, name) for name in PREDICTION_SETTINGS}
        return self.segmenter.settings.model_copy(update=chosen)
