"""One run: its settings, its folder and its tables."""

from functools import cache, cached_property
from pathlib import Path

from tag2mask.clusters import Clusters, load_clusters
from tag2mask.config import Config
from tag2mask.errors import ConfigError, DataError, RunError
from tag2mask.files import Facts, fingerprint, read_list
from tag2mask.formats import read_rows
from tag2mask.formats.rows import to_table
from tag2mask.photos.masks import Truth, true_photos
from tag2mask.photos.table import Photo, Table


class Job:
    """One run: its settings, its folder, and the tables, read when first needed."""

    def __init__(self, config: Config):
        self.config, self.folder = config, config.out
        self.facts = Facts(config.out / ".facts.jsonl")
        self.rows = cache(read_rows)

    def fingerprint(self, path: Path, pattern: str = "*") -> str:
        """Hash of contents, see `runs.fingerprint`; files that have not changed since the run last read them are not read."""
        return fingerprint(path, pattern, self.facts)

    @property
    def data(self) -> Path:
        """Where the training photos are named. Raises ConfigError if nothing says so."""
        if self.config.data is None:
            raise ConfigError(
                "which photos? Give --data FILE.csv (columns file_name, tags), a .jsonl, or a folder with one folder per tag"
            )
        return self.config.data

    @cached_property
    def table(self) -> Table:
        """Training photos."""
        return to_table(self.rows(self.data))

    @cached_property
    def val(self) -> Table | None:
        """Photos to test on, with the class numbers of the training photos."""
        return (
            to_table(self.rows(self.config.val), self.table.tags, untagged=True)
            if self.config.val
            else None
        )

    @property
    def clusters(self) -> Clusters:
        """What the clusters stage wrote."""
        path = self.folder / "clusters" / "clusters.json"
        if not path.exists():
            raise RunError(f"{path} is missing; run `tag2mask clusters --out {self.folder}` first")
        return load_clusters(path)

    def truth(self, table: Table | None) -> Truth | None:
        """True masks of these photos, for evaluation; None where there are none."""
        folder, numbering = self.config.val_masks, self.config.photos.numbering
        if table is None or folder is None:
            return None
        if table is self.table:
            table = true_photos(table, self.val, folder)
            if not table.photos:
                return None  # the folder holds only the test photos' masks
        return Truth(folder, table, numbering, self.facts)

    @cached_property
    def pseudo_photos(self) -> tuple[Photo, ...]:
        """Training photos whose pseudo masks are scored. Raises DataError if there are true masks, but none of a photo on the list."""
        truth, wanted = self.truths["train"], self.config.photos.pseudo_list
        photos = truth.photos_with_truth if truth else ()
        if not (wanted and photos):
            return photos
        names = set(read_list(wanted))
        if not (scored := tuple(p for p in photos if p.name in names)):
            raise DataError(
                f"none of its {len(names)} names is a training photo with a true mask; these are named like {photos[0].name}",
                wanted,
            )
        return scored

    def check_evaluation(self) -> None:
        """Nothing, or the error with which the evaluate stage would end. Raises DataError."""
        from tag2mask.evaluate import check_mean_over

        check_mean_over(self.config.evaluate.mean_over, self.table.classes)
        if self.config.photos.pseudo_list:
            self.pseudo_photos  # noqa: B018

    @cached_property
    def truths(self) -> dict[str, Truth | None]:
        """True masks of the training and of the test photos."""
        return {"train": self.truth(self.table), "val": self.truth(self.val)}
