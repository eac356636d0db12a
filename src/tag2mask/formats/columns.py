"""Which columns of a table have the file names, the tags, the confidences and the split."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tag2mask.config import DataSettings
from tag2mask.formats.cells import as_confidence, as_text, is_empty, is_number, is_unknown, mark
from tag2mask.formats.findings import Finding
from tag2mask.formats.pictures import Pictures, looks_like_picture
from tag2mask.formats.rows import PARTS
from tag2mask.photos.table import tag_key

# Names as `tag_key` writes them. Of the file columns, those in an earlier line are surer.
FILES = [
    "imagepath filepath imgpath picturepath photopath fullpath relativepath path",
    "filename file imagename imagefile imagefilename imgname imgfile picturename photoname fname",
    "image img photo picture pic imageindex imageid imgid photoid imageurl imageuri url uri "
    "gcsuri gcsfilepath",
    "id name key uid uuid identifier",
]
RANK = {name: rank for rank, line in enumerate(FILES) for name in line.split()}
SURE, UNNAMED = 2, len(FILES)
TAG_NAME = re.compile(
    "(image|img|photo|picture|object|class|multi|all|finding|defect)?"
    "(tag|label|class|category|categorie|keyword|annotation|finding|defect|defecttype|species"
    "|object|choices)(es|s)?(name|list)?s?|(common|scientific)name"
)
CONFIDENCES = {
    *("confidence", "conf", "probability", "prob", "score"),
    *("present", "presence", "exists", "value"),
}
RATINGS = {"score", "value"}  # of these columns, which may be something else than a confidence
# Of those that begin with "is", the cells say yes or no.
IS_PART = {"istrain": "train", "isvalid": "val", "isval": "val", "istest": "test"}
SPLITS = {"split", "set", "subset", "datasplit", "partition", "mluse", *IS_PART}
NO_TAGS = {"", "fold", "unnamed0", *SPLITS}  # though there may be only 0 and 1 in them
COUNTERS = {"no", "nr", "num", "number", "index", "row", "id", "imageid"}
LABEL_STUDIO = {"annotationid", "annotator", "leadtime"}
OPEN_IMAGES = {"machine", "verification", "crowdsource-verification", "xclick", "activemil"}
LISTED = 30  # columns in a message
LOOKED_AT = 200  # records whose pictures are looked for, to find the column


@dataclass
class Columns:
    """The columns of a table, by their numbers from 0."""

    names: list[str]
    file: int
    has_header: bool = True
    tags: tuple[int, ...] = ()  # several: their tags belong together
    one_hot: bool = False  # each of `tags` is one tag, its cells say whether it is present
    confidence: int | None = None
    origin: int | None = None  # Open Images: who says it, a person or a machine
    split: int | None = None
    label_studio: bool = False  # a row for each annotation; several choices are a JSON text
    no_tags: Finding | None = None  # why there are no columns of tags

    @property
    def several(self) -> bool:
        """Whether a record has several cells of tags."""
        return len(self.tags) > 1

    @property
    def ignored(self) -> list[str]:
        """Names of the columns that are not read."""
        used = {self.file, *self.tags, self.confidence, self.origin, self.split}
        return [name for i, name in enumerate(self.names) if i not in used and name]


class ColumnError(Exception):
    """Two columns fit, or none does: what is wrong and what to do, perhaps several times."""


@dataclass
class Sample:
    """The first records of a table, by columns."""

    names: list[str]
    columns: list[list[object]]
    has_header: bool
    settings: DataSettings
    keys: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.keys = [tag_key(name) if name else "" for name in self.names]

    def texts(self, column: int) -> list[str]:
        """The cells of a column that are not empty, as texts."""
        return [as_text(cell) for cell in self.columns[column] if not is_empty(cell)]

    def listed(self, columns: Sequence[int] | None = None) -> str:
        """The columns as a person can name them: "image", "photo"."""
        numbers = range(len(self.names)) if columns is None else columns
        names = [self.names[i] for i in numbers]
        twice = len(set(names)) < len(names)
        texts = [f"{i + 1} ({self.names[i]})" if twice else f'"{self.names[i]}"' for i in numbers]
        more = ["..."] * (len(texts) > LISTED)
        return ", ".join(texts[:LISTED] + more) or "none"


def find_columns(sample: Sample, pictures: Pictures) -> Columns:
    """The columns of a table. Raises ColumnError if a choice is left to the person."""
    settings = sample.settings
    file = _chosen(sample, settings.file_column, "file_column")
    if file is None:
        try:
            file = _file_column(sample, pictures)
        except ColumnError as error:
            try:  # all faults at once
                if sample.has_header and settings.tag_column is None:
                    _tag_columns(sample, Columns(sample.names, -1))
            except ColumnError as other:
                raise ColumnError(*error.args, *other.args) from None
            raise
    columns = Columns(sample.names, file, sample.has_header, split=_split_column(sample, file))
    tag = _chosen(sample, settings.tag_column, "tag_column")
    if tag is not None:
        columns.tags = (tag,)
    else:
        columns = _tag_columns(sample, columns)
    if columns.tags and not columns.one_hot:
        columns.confidence = _confidence_column(sample, {file, *columns.tags})
        if columns.confidence is not None and "source" in sample.keys:
            source = sample.keys.index("source")
            columns.origin = source if OPEN_IMAGES & {*sample.texts(source)} else None
    columns.label_studio = {*sample.keys} >= LABEL_STUDIO
    return columns


def is_column_name(key: str) -> bool:
    """Whether a name, as `tag_key` writes it, is one of a column of file names or of tags."""
    return key in RANK or is_tag_name(key)


def is_tag_name(key: str) -> bool:
    """labels, image_tags, class_name, tag2, ..., as `tag_key` writes them."""
    return TAG_NAME.fullmatch(key.rstrip("0123456789")) is not None


def is_header(cells: Sequence[object], pictures: Pictures) -> bool:
    """Whether the first record has names of columns, not a picture."""
    texts = [as_text(cell).strip() for cell in cells]
    keys = {tag_key(text) for text in texts if text}
    if any(map(is_column_name, keys)):
        return True
    return not any(looks_like_picture(text) or pictures.there(text) for text in texts if text)


def _chosen(sample: Sample, choice: str | None, option: str) -> int | None:
    """The column that the settings name, or its number."""
    if choice is None:
        return None
    same = [i for i, name in enumerate(sample.names) if sample.has_header and name == choice]
    same = same or [i for i, key in enumerate(sample.keys) if key and key == tag_key(choice)]
    if len(same) > 1:
        raise ColumnError(f"several columns have the name {choice}", "give the number of one")
    if same:
        return same[0]
    if choice.isdecimal() and 1 <= int(choice[:9]) <= len(sample.names):
        return int(choice) - 1
    what = f"no column {choice} (photos.{option}) among {sample.listed()}"
    raise ColumnError(what, f"correct --photos.{option.replace('_', '-')}")


def _file_column(sample: Sample, pictures: Pictures) -> int:
    """The column whose cells are pictures; the names of the columns decide between several."""
    option = "choose one with --photos.file-column"
    rank = [UNNAMED + 1 if is_tag_name(k) else RANK.get(k, UNNAMED) for k in sample.keys]
    paths: dict[int, list[Path | None]] = {}

    def exist(columns: Sequence[int], find: Callable[[str], Path | None]) -> list[int]:
        """Those of the columns of which at least half of the first cells are pictures."""
        fit = []
        for i in columns:
            texts = [as_text(cell).strip() for cell in sample.columns[i][:LOOKED_AT]]
            paths[i] = [find(text) if text else None for text in texts]
            filled = sum(bool(text) for text in texts)
            if filled and sum(path is not None for path in paths[i]) * 2 >= filled:
                fit.append(i)
        return fit

    def differ(a: int, b: int) -> bool:
        both = zip(paths.get(a, ()), paths.get(b, ()), strict=False)
        return any(one and other and one != other for one, other in both)

    everything = [i for i, r in enumerate(rank) if r <= UNNAMED or len(rank) == 1]
    named = [i for i in everything if rank[i] < UNNAMED]
    fit = exist(everything, partial(pictures.there, search=False))
    rest = [i for i in (named if fit else everything) if i not in fit]
    fit += exist(rest, pictures.there)
    fit = fit or named or [i for i in everything if _all(sample.texts(i), looks_like_picture)]
    if not fit:
        raise ColumnError(f"no column has file names among {sample.listed()}", option)
    best = min(rank[i] for i in fit)
    first, *others = [i for i in fit if rank[i] == best]
    if best <= SURE:
        others += [i for i in fit if best < rank[i] <= SURE and differ(i, first)]
    if others:
        listed = sample.listed(sorted([first, *others]))
        raise ColumnError(f"several columns may have the file names: {listed}", option)
    return first


def _all(texts: Sequence[str], test: Callable[[str], object]) -> bool:
    return bool(texts) and all(map(test, texts))


def _tag_columns(sample: Sample, columns: Columns) -> Columns:
    """`columns` with those of the tags: by their names, by their cells, or one for each tag."""
    option = "choose one with --photos.tag-column"
    others = [i for i in range(len(sample.names)) if i not in (columns.file, columns.split)]
    named = [i for i in others if is_tag_name(sample.keys[i])]
    named = [i for i in named if sample.names[i] not in sample.settings.drop]
    named = [i for i in named if sample.texts(i)] or named
    named = [i for i in named if not _all(sample.texts(i), is_number)] or named
    _doubt_numbers(sample, named, others)
    stems = {sample.keys[i].rstrip("0123456789") for i in named}
    if len(named) > 1 and all(_marks(sample, [i]) for i in named):
        named = []  # label1, label2 with 0 and 1 are tags themselves
    if len(named) == 1 or (len(stems) == 1 and len({sample.keys[i] for i in named}) > 1):
        if _marks(sample, named):
            what = f"the cells of {sample.listed(named)} are only {_values(sample, named)}"
            own = sample.names[named[0]]
            do = (
                f'if these are tags, use --photos.tag-column "{own}" (and --photos.nothing, if one '
                "of them means that nothing is there); else give the column the name of its tag"
            )
            raise ColumnError(what, do)
        return replace(columns, tags=tuple(named))
    if named:
        listed = sample.listed(named)
        raise ColumnError(f"several columns may have the tags: {listed}", option)
    if not sample.has_header:
        return _tags_without_header(sample, columns, others)
    choices = [i for i in others if any('"choices"' in text for text in sample.texts(i))]
    if set(sample.keys) >= LABEL_STUDIO:  # its column has the name that its owner gave it
        metadata = LABEL_STUDIO | {"createdat", "updatedat", "id"}
        choices = choices or [i for i in others if sample.keys[i] not in metadata]
    if len(choices) == 1:
        return replace(columns, tags=tuple(choices))
    if choices:
        raise ColumnError(f"several columns may have the tags: {sample.listed(choices)}", option)
    if one_hot := _one_hot_columns(sample, others):
        return replace(columns, tags=one_hot, one_hot=True)
    what = f"no column of tags among {sample.listed()}"
    return replace(columns, no_tags=Finding("columns", "header", what, option))


def _doubt_numbers(sample: Sample, named: list[int], others: list[int]) -> None:
    """Raises ColumnError if class numbers or a column for each tag may be the tags."""
    marks = [i for i in others if i not in named and sample.texts(i) and _marks(sample, [i])]
    texts = sample.texts(named[0]) if len(named) == 1 and len(marks) > 1 else []
    if _all(texts, is_number) and not _marks(sample, named):
        own = sample.names[named[0]]
        what = f'"{own}" has numbers, and {sample.listed(marks)} may be a column for each tag'
        do = f'if the numbers are the tags, use --photos.tag-column "{own}"'
        raise ColumnError(what, f'{do}; if the columns are, use --photos.drop "{own}"')


def _one_hot_columns(sample: Sample, others: Sequence[int]) -> tuple[int, ...]:
    """The columns that have one tag each; () if there are none. Raises ColumnError in doubt."""
    maybe = [i for i in others if sample.keys[i] not in NO_TAGS and not _counts(sample, i)]
    one_hot = [i for i in maybe if not sample.texts(i) or _marks(sample, [i])]
    for i in maybe:
        name = sample.names[i]
        if i not in one_hot and _marks(sample, [i], 0.5) and name not in sample.settings.drop:
            other = next(text for text in sample.texts(i) if not _is_mark(text))
            what = f'"{name}" may be a tag, but not all of its cells are 0 or 1: {other:.20}'
            do = f'correct these cells; if it is no tag, leave it out with --photos.drop "{name}"'
            raise ColumnError(what, do)
    return tuple(one_hot) if any(map(sample.texts, one_hot)) else ()


def _tags_without_header(sample: Sample, columns: Columns, others: list[int]) -> Columns:
    """The only other column; the last of a table of boxes; or all after the file (Vertex)."""
    words = [i for i in others if sample.texts(i) and not _all(sample.texts(i), is_number)]
    if columns.split is not None and words and min(words) > columns.file:
        return replace(columns, tags=tuple(i for i in others if i > columns.file))
    boxes = len(others) == 5 and words == others[-1:] and any(map(sample.texts, others[:4]))
    if len(others) == 1 or boxes:
        return replace(columns, tags=(others[-1],))
    do = "choose one with --photos.tag-column"
    if others:
        what = f"several columns may have the tags: {sample.listed(others)}, and there is no header"
        raise ColumnError(what, do)
    fault = Finding("columns", "row 1", f"no column of tags among {sample.listed()}")
    return replace(columns, no_tags=fault)


def _counts(sample: Sample, column: int) -> bool:
    """Whether a column has the numbers of the rows: 0, 1, 2, ... or 1, 2, 3, ..."""
    texts = sample.texts(column)
    numbers = [[str(i + start) for i in range(len(texts))] for start in (0, 1)]
    return sample.keys[column] in COUNTERS and texts in numbers


def _marks(sample: Sample, columns: Sequence[int], share: float = 0.9) -> bool:
    """Whether nine in ten of the filled cells (`share`) say yes, no or unknown."""
    texts = [text for i in columns for text in sample.texts(i)]
    some = any(mark(text) is not None for text in texts)
    return some and sum(map(_is_mark, texts)) >= share * len(texts)


def _is_mark(text: str) -> bool:
    return mark(text) is not None or is_unknown(text)


def _values(sample: Sample, columns: Sequence[int]) -> str:
    values = sorted({text for i in columns for text in sample.texts(i)})
    return " and ".join(values[:4])


def _confidence_column(sample: Sample, used: set[int]) -> int | None:
    """A column with confidences; a score or value above 1 may be anything, so it is none."""
    for i, key in enumerate(sample.keys):
        if key in CONFIDENCES and i not in used:
            numbers = [as_confidence(text) for text in sample.texts(i)]
            in_range = all(number is not None and 0 <= number <= 1 for number in numbers)
            if numbers and (in_range or key not in RATINGS):
                return i
    return None


def _split_column(sample: Sample, file: int) -> int | None:
    """A column that says which photos are for training and which for validation."""
    for i, key in enumerate(sample.keys):
        if i == file or (sample.has_header and key not in SPLITS):
            continue
        values = {part_of(cell, key) for cell in sample.columns[i]}
        if values and None not in values:
            return i
    return None


def part_of(cell: object, key: str) -> str | None:
    """The part of a split that a cell names: train, val or test; None: no such part."""
    text = as_text(cell).strip().casefold()
    if part := IS_PART.get(key):
        other = "val" if part == "train" else "train"
        return {True: part, False: other}.get(mark(text))  # type: ignore[arg-type]
    return PARTS.get(text, "train" if text == "unassigned" else None)
