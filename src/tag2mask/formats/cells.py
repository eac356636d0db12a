"""Cells of tables: texts and JSON values to tags, marks (0, 1, yes, x) and numbers."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tag2mask.formats.rows import Tags, split_tags

SEPARATORS = (";", ",", "|", "\n")
SCORED = re.compile(r"\w\s*[:=(]\s*[01]?\.\d+\)?\s*($|[;,|])")  # cat:0.9
UNKNOWN = {"na", "n/a", "#n/a", "nan", "<na>", "null"}  # as R, Excel and pandas write it
YES = {
    *("1", "x", "true", "t", "yes", "y", "+", "✓", "✔", "present", "positive", "pos"),
    *("wahr", "ja", "vrai", "oui", "verdadero"),
}
NO = {
    *("0", "false", "f", "no", "n", "-", "absent", "negative", "neg"),
    *("falsch", "nein", "faux", "non", "falso"),
}

QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")


class CellError(Exception):
    """A cell that cannot be read: what is wrong, and what to do."""


def as_text(cell: object) -> str:
    """A cell as a text: 12.0 is "12", nothing and NaN are empty."""
    if isinstance(cell, str):
        return cell
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def as_mark(cell: object) -> str:
    """The cell of a column with one tag as a text; nothing at all, as in JSON, is unknown."""
    return cell if isinstance(cell, str) else as_text(cell) or "na"


def is_empty(cell: object) -> bool:
    """Whether a cell has nothing in it."""
    return not as_text(cell).strip()


def is_number(text: str) -> bool:
    """Whether a text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def mark(text: str) -> bool | None:
    """What a cell says about its column's tag: True, False; None: nothing that is understood.

    -1 is False here; `Marks` decides what it means.
    """
    text = text.strip().casefold()
    if text in YES:
        return True
    if text in NO:
        return False
    return {1.0: True, 0.0: False, -1.0: False}.get(float(text)) if is_number(text) else None


def is_unknown(text: str) -> bool:
    """Whether a text says that nobody knows: NA, nan."""
    return text.strip().casefold() in UNKNOWN


def as_confidence(text: str) -> float | None:
    """0.93, 0,93 and 93 % to 0.93, yes to 1, no to 0; None: none of these."""
    number, percent, _ = text.strip().replace(",", ".").partition("%")
    if is_number(number):
        return float(number) / (100 if percent else 1)
    value = mark(text)
    return None if value is None else float(value)


@dataclass
class TagCells:
    """The different cells of a table's tag columns, and what separates the tags in them.

    Raises CellError if there is no separator that surely is the right one.
    """

    cells: Iterable[object]
    choice: str | None = None  # photos.separator
    long: bool = False  # a photo has several rows: no need for several tags in a cell
    one: bool = False  # a text is one tag; several are a list
    doubt: str = field(init=False, default="")  # cells of several words that may be several tags

    def __post_init__(self) -> None:
        self.texts = [cell for cell in self.cells if isinstance(cell, str)]
        if self.choice is not None or self.one:
            self.separator = None if self.choice == "none" else self.choice
        else:
            self.separator = self._find()

    def tags(self, cell: object) -> Tags | None:
        """The tags of one cell; None if nobody looked for tags. Raises CellError."""
        values: Iterable[object] | None
        if isinstance(cell, str):
            if is_unknown(cell):
                return None
            values = _values(cell) if self.choice != "none" else None
            if values is None:
                parts = cell.split(self.separator) if self.separator else [cell]
                values = map(_unquoted, parts)
        elif cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return None
        else:
            values = cell if isinstance(cell, tuple) else [cell]
        return split_tags(map(as_text, values))

    @property
    def form(self) -> str:
        """How the cells are read, for people."""
        if self.separator:
            return f" separated by {self.separator!r}"
        return "" if any(map(_is_list, self.texts)) else ", one in each cell"

    def _find(self) -> str | None:
        """The one separator that occurs; None: each cell is one tag."""
        plain = [text for text in self.texts if not _is_list(text)]
        plain = [re.sub(r"([;,|])\s*\n", r"\1", text) if "\n" in text else text for text in plain]
        used = {s: text for s in SEPARATORS for text in plain if s in text.strip()}
        option = "choose with --photos.separator"
        if scored := next((text for text in plain if SCORED.search(text)), None):
            what = f"{scored!r} may have tags with confidences"
            do = "write a row for each photo and tag, with a column of confidences"
            raise CellError(what, f"{do}; if these are whole tags, {option}")
        if len(used) > 1:
            text = max(used.values(), key=lambda text: sum(s in text for s in SEPARATORS))
            readings = " or ".join(f"{_listed(text.split(s))} (with {s!r})" for s in used)
            both = " or ".join(map(repr, used))
            raise CellError(f"tags may be separated by {both}: {text!r} may be {readings}", option)
        if used:
            (separator,) = used
            for text in plain:
                if any(part.count("(") != part.count(")") for part in text.split(separator)):
                    parts = _listed(text.split(separator))
                    what = f"{separator!r} may separate tags or be in them: {text!r} may be {parts}"
                    raise CellError(what, f"{option} (none: each cell is one tag)")
            return separator
        if not self.long:
            self.doubt = _words_in_doubt(plain)
        return None


def _words_in_doubt(plain: Sequence[str]) -> str:
    """Cells of several words that may be one tag or several, for people; "" if none is.

    A word that occurs in another cell, too, makes a doubt. Raises CellError if it is a cell of its
    own, or if all words of a cell occur in others.
    """
    doubts: list[str] = []
    for sign in ("/", "+", "&", " "):
        cells = {tuple(word.strip() for word in text.split(sign) if word.strip()) for text in plain}
        count = Counter(word for words in cells for word in set(words))
        for words in sorted(words for words in cells if len(words) > 1):
            text = sign.join(words)
            shared = [word for word in words if count[word] > 1]
            if len(shared) == len(words) or (sign == " " and any((w,) in cells for w in shared)):
                what = f"{text!r} may be one tag, or {_listed(words)}, as in other rows"
                do = f'choose with --photos.separator: none (one tag), or "{sign}" (several)'
                raise CellError(what, do)
            doubts += [text] * (sign == " " and bool(shared))
    return ", ".join(map(repr, doubts[:3]))


def _unquoted(text: str) -> str:
    """ "cat" in quotes to cat."""
    text = text.strip()
    quoted = text[:1] in ("'", '"') and text[-1:] == text[:1] and text.count(text[:1]) == 2
    return text[1:-1] if quoted else text


def _listed(parts: Sequence[str]) -> str:
    return " + ".join(repr(part.strip()) for part in parts)


def freeze(cell: Any) -> object:
    """A JSON value of a tag column as a key of a dictionary: a list becomes a tuple.

    Label Studio's {"choices": [...]} becomes its list. Raises CellError for other objects.
    """
    if hasattr(cell, "tolist"):  # numpy's arrays and numbers
        cell = cell.tolist()
    if isinstance(cell, dict):
        cell = cell["choices"] if isinstance(cell.get("choices"), list) else [cell]
    if isinstance(cell, (list, tuple, set, frozenset)):
        for value in cell:
            if isinstance(value, (dict, list, tuple, set, bool)) or value is None:
                raise _not_tags(cell)
        return tuple(cell)
    if isinstance(cell, bool):
        raise _not_tags(cell)
    return cell


def _not_tags(value: object) -> CellError:
    shown = json.dumps(value, default=str)[:60]
    return CellError(f"tags must be a text or a list of texts, not {shown}")


def _values(text: str) -> list[object] | None:
    """The values of a text that is a list (JSON, Python, numpy) or Label Studio's choices."""
    if not _is_list(text):
        return None
    text = text.strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _items(text[1:-1])
    return list(freeze(value))  # type: ignore[call-overload]


def _is_list(text: str) -> bool:
    text = text.strip()
    return text[:1] + text[-1:] in ("[]", "{}")


def _items(text: str) -> list[object]:
    """What stands between [ and ]: 'cat', 'dog'; or cat, dog without quotes."""
    quoted = "'" in text or '"' in text
    if not quoted and not re.search(r"[\[\]{}]", text):
        return list(text.split(","))
    if not quoted or QUOTED.sub("", text).strip(", \t\r\n"):
        what = f"[{text[:60]}] looks like a list, but is none"
        raise CellError(what, 'write it as JSON: ["cat", "dog"]')
    return [re.sub(r"\\(.)", r"\1", item[1:-1]) for item in QUOTED.findall(text)]


class Marks:
    """What the cells of columns with one tag each say: present, absent or unknown.

    An empty cell is unknown where absent tags have a mark (0, no), else absent. -1 is unknown
    beside 0, as in CheXpert, and absent where there is no 0. Raises CellError if it may be both.
    """

    def __init__(self, texts: Iterable[str]):
        texts = {text.strip().casefold() for text in texts}
        self.zeros = any(mark(text) is False and not _is_minus(text) for text in texts)
        self.minus = any(map(_is_minus, texts))
        self.empty = "" in texts
        if self.minus and self.empty and not self.zeros:
            what = "-1 may mean absent or unknown: there are empty cells, but no 0"
            do = "write 0 where a tag is absent, and leave the cell empty where it is unknown"
            raise CellError(what, do)

    def value(self, text: str) -> bool | None:
        """Whether the tag is present; None: unknown. Raises CellError."""
        text = text.strip().casefold()
        if not text:
            return None if self.zeros or self.minus else False
        if is_unknown(text) or (self.zeros and _is_minus(text)):
            return None
        value = mark(text)
        if value is None:
            raise CellError(f"{text[:40]!r} is neither 1 nor 0 (nor yes, no, x, true, false)")
        return value

    def __str__(self) -> str:
        absent = "0" if self.zeros else "-1" if self.minus else "empty"
        unknown = ["-1"] * (self.zeros and self.minus) + ["empty"] * (self.empty and self.zeros)
        return f"{absent} absent" + (f", {' and '.join(unknown)} unknown" if unknown else "")


def _is_minus(text: str) -> bool:
    return is_number(text) and float(text) == -1
