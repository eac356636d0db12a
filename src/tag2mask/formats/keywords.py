"""Photos with keywords in them or beside them, as photo managers and taggers write them."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Literal

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.files import read_bytes, read_text
from tag2mask.formats.embedded import IPTC_BYTES, keywords_inside
from tag2mask.formats.findings import Finding, first_few
from tag2mask.formats.folders import table_files
from tag2mask.formats.pictures import pictures_below, unread_pictures
from tag2mask.formats.rows import Row, Rows, photos_text
from tag2mask.formats.xmp import MOST_BYTES, Keyword, levels, xmp_keywords
from tag2mask.photos.images import EXTENSIONS
from tag2mask.processes import cores, parallel_map
from tag2mask.progress import track

MOST_TEXT = 1 << 22  # bytes of a list of tags
LOOKED_AT = 200  # pictures that tell whether a folder of folders has keywords
IPTC_CUTS = range(IPTC_BYTES - 3, IPTC_BYTES + 1)  # bytes of a keyword that may have been cut
# Keywords that programs write for themselves: the tops of their levels.
INTERNAL = {"darktable", "_Digikam_Internal_Tags_", "_Digikam_root_tag_"}
# What is hardly a tag -> what it is, what to do, how bad it is.
DOUBTS: dict[re.Pattern[str], tuple[str, str, Literal["error", "warning"]]] = {
    re.compile(r"\d+( [\d.e-]+){4,}"): (
        "are YOLO's boxes, not tags",
        "give the data.yaml, which has the names of the classes",
        "error",
    ),
    re.compile(r".{101,}|\S+( \S+){6,}|(?=.* ).*[.!?]"): (
        "are sentences, not tags",
        "write tags",
        "warning",
    ),
    re.compile(r".*[,;].*"): (
        "may be several tags",
        "if they are, separate them with --photos.separator ','",
        "warning",
    ),
}


def read_keywords(path: Path, settings: DataSettings) -> Rows:
    """A folder of pictures whose tags are the keywords in them and beside them.

    In them: XMP, IPTC, and the tags of Windows. Beside a.jpg: a.xmp, a.jpg.xmp, and a.txt,
    a.jpg.txt with a list of tags ("cat, dog"). All count, each once. `photos.level` chooses the
    level of keywords such as Animals|Dog, see `chosen_tags`.

    A photo with keywords does not have the other tags. In a photo without any nobody looked for
    tags; an empty .txt file says that nothing is there. Where something cannot be read, the other
    tags are unknown. Raises DataError if the tags may be the names of the folders instead.
    """
    level = settings.level
    if level not in ("leaf", "any") and not re.fullmatch("[1-9][0-9]?", level):
        raise DataError(f"photos.level = {level!r}: give leaf, any, or the number of a level")
    pictures = pictures_below(path)
    if settings.form == "auto" and (folders := _tag_folders(path, pictures)):
        _refuse_two_readings(path, pictures, folders)
    rows, sources = Rows(path), Counter[str]()
    deep: Keyword = ()  # an example of a keyword with levels
    photos = parallel_map(_reader(path, settings.separator), pictures, cores())
    for picture, photo in zip(pictures, track(photos, "read keywords", len(pictures)), strict=True):
        sources.update(photo.sources.keys())
        deep = deep or next((keyword for keyword in photo.keywords if len(keyword) > 1), ())
        tags = chosen_tags(photo.keywords, level)
        rows.rows.append(Row(picture, tags, photo.where, absent=None if photo.complete else ()))
        rows.findings += photo.findings
    rows.findings += [*_doubtful_tags(rows), *unread_pictures(path)]
    rows.form = ", ".join(f"{source} in {photos_text(n)}" for source, n in sources.most_common())
    rows.form = rows.form or "no picture has any"
    if deep:
        rows.form += f"; of levels such as {'|'.join(deep)}: {level}"
    return rows


def is_keywords(path: Path) -> bool:
    """A folder of pictures without other folders, or with keywords in some of those looked at."""
    if not path.is_dir() or table_files(path):
        return False
    pictures = pictures_below(path, EXTENSIONS)
    flat = all(picture.parent == path for picture in pictures)
    return bool(pictures) and (flat or any(p.keywords for p in _sample(path, pictures)))


def chosen_tags(keywords: Sequence[Keyword], level: str = "leaf") -> tuple[str, ...]:
    """The keywords of one photo to its tags.

    Most photo managers write Animals|Dog also as the plain keywords Animals and Dog. A plain
    keyword that is a level of another keyword of the photo is therefore no tag of its own.
    `level`: "leaf", the last level; "any", each level is a tag; a number, that level, 1 being the
    top: then keywords with fewer levels are no tags.
    """
    deep = [keyword for keyword in keywords if len(keyword) > 1]
    inner = {name.casefold() for keyword in deep for name in (*keyword, "/".join(keyword))}
    kept = [word for word in keywords if len(word) > 1 or word[0].casefold() not in inner]
    if level == "any":
        tags = [*chain.from_iterable(kept)]
    elif level == "leaf":
        above = {keyword[:end] for keyword in kept for end in range(1, len(keyword))}
        tags = [keyword[-1] for keyword in kept if keyword not in above]
    else:
        tags = [keyword[int(level) - 1] for keyword in kept if len(keyword) >= int(level)]
    return tuple(dict.fromkeys(tags))


class PhotoKeywords:
    """The keywords of one photo by their source, and what could not be read.

    `beside` are the files beside it. `sources` has those that say something: an empty text file
    says that nothing is there. `separator`: what separates keywords in one (photos.separator).
    """

    def __init__(self, picture: Path, where: str, beside: Iterable[Path], separator: str | None):
        self.where, self._separator = where, separator
        self.sources: dict[str, list[Keyword]] = {}
        self.findings: list[Finding] = []
        try:
            keywords_inside(picture, self._add)
        except DataError as error:
            self._warn(str(error).removeprefix(f"{picture}: "))
        for file in beside:
            kind = file.suffix.lower()
            read = _xmp_file if kind == ".xmp" else partial(_text_file, separator=separator)
            self._add(f"{kind} file", partial(read, file), file)

    @cached_property
    def keywords(self) -> list[Keyword]:
        """All, each once, without those that IPTC has cut and those of programs."""
        others = [words for source, words in self.sources.items() if source != "IPTC"]
        keywords = dict.fromkeys(chain.from_iterable(others))
        full = [keyword[0].encode() for keyword in keywords if len(keyword) == 1]
        for keyword in self.sources.get("IPTC", ()):
            start = keyword[0].encode()
            if len(start) not in IPTC_CUTS or not any(name.startswith(start) for name in full):
                keywords[keyword] = None
        internal = [keyword for keyword in keywords if keyword[0] in INTERNAL]
        without = {*internal, *((level,) for keyword in internal for level in keyword)}
        return [keyword for keyword in keywords if keyword not in without]

    @property
    def complete(self) -> bool:
        """Whether somebody looked for tags, and all that they wrote could be read."""
        return bool(self.keywords or [] in self.sources.values()) and not self.findings

    def _add(
        self, source: str, read: Callable[[], Iterable[Keyword]], file: Path | None = None
    ) -> None:
        """Note the keywords that `read` returns, or its error."""
        name = file.name if file else source
        try:
            keywords = list(read())
        except DataError as error:
            what = f"{name}: {str(error).removeprefix(f'{file}: ')}"
            self.findings.append(Finding("keywords", self.where, what))
        except Exception as error:  # broken data give errors of many kinds
            self._warn(f"{name} cannot be read ({error})")
        else:
            if self._separator not in (None, "none"):
                keywords = [*chain.from_iterable(map(self._split, keywords))]
            if keywords or source == ".txt file":
                self.sources.setdefault(source, []).extend(keywords)

    def _split(self, keyword: Keyword) -> list[Keyword]:
        parts = keyword[0].split(self._separator) if len(keyword) == 1 else ()
        return [*filter(None, map(levels, parts))] or [keyword]

    def _warn(self, what: str) -> None:
        do = "tags that are not known from elsewhere are unknown in it"
        self.findings.append(Finding("keywords", self.where, what, do, "warning"))


def _xmp_file(file: Path) -> list[Keyword]:
    return xmp_keywords(read_bytes(file, MOST_BYTES))


def _text_file(file: Path, separator: str | None) -> list[Keyword]:
    """A list of tags, separated by commas or lines; taggers write "\\(" for "("."""
    text = read_text(file, MOST_TEXT).replace("\\(", "(").replace("\\)", ")")
    parts = text.splitlines() if separator else re.split("[,\n]", text)
    return [*filter(None, map(levels, parts))]


def _reader(folder: Path, separator: str | None) -> Callable[[Path], PhotoKeywords]:
    """Reads the keywords of a picture in the folder, with the files beside it."""
    beside: dict[str, list[Path]] = defaultdict(list)  # "folder/a", "folder/a.jpg" -> a.xmp
    for file in pictures_below(folder, {".xmp", ".txt"}):
        beside[str(file.with_suffix("")).casefold()].append(file)

    def read(picture: Path) -> PhotoKeywords:
        names = (str(picture.with_suffix("")).casefold(), str(picture).casefold())
        files = chain.from_iterable(beside.get(name, ()) for name in names)
        where = picture.relative_to(folder).as_posix()
        return PhotoKeywords(picture, where, files, separator)

    return read


def _tag_folders(path: Path, pictures: Iterable[Path]) -> list[str]:
    """The folders whose names may be the tags; none if all pictures are in one of them."""
    parts = [picture.relative_to(path).parts for picture in pictures]
    folders = dict.fromkeys(part[0] if len(part) > 1 else "" for part in parts)
    return [*filter(None, folders)] if len(folders) > 1 else []


def _sample(path: Path, pictures: Sequence[Path]) -> list[PhotoKeywords]:
    """At most `LOOKED_AT` of the pictures, evenly spread."""
    some = pictures[:: -(-len(pictures) // LOOKED_AT)]
    return list(parallel_map(_reader(path, None), some, cores()))


def _refuse_two_readings(path: Path, pictures: Sequence[Path], folders: Sequence[str]) -> None:
    sample = _sample(path, pictures)
    photos = [photo for photo in sample if photo.keywords]
    if not photos:
        return
    tags = dict.fromkeys(tag for photo in photos for tag in chosen_tags(photo.keywords))
    share = f"{len(photos)} of {len(sample)}"
    raise DataError(
        f"{path}: two readings are possible. If the tags are the keywords of the pictures "
        f"({first_few(tags)}; {share} have some), give --photos.form keywords; "
        f"if they are the names of the folders ({first_few(folders)}), give --photos.form folder"
    )


def _doubtful_tags(rows: Rows) -> Iterator[Finding]:
    """One finding for all tags of a kind that are hardly tags."""
    where = {tag: row.where for row in reversed(rows.rows) for tag in row.tags}
    left = [*where]
    for pattern, (what, do, severity) in DOUBTS.items():
        tags = [tag for tag in left if pattern.fullmatch(tag)]
        if tags:
            text = f'{len(tags)} of {len(where)} keywords {what}, such as "{tags[0]:.80}"'
            yield Finding("keywords", where[tags[0]], text, do, severity)
            left = [tag for tag in left if not pattern.fullmatch(tag)]
