"""Camtrap DP: a data package of camera traps with media.csv and observations.csv."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from tag2mask.config import DataSettings
from tag2mask.formats.exports import Export, confidence, csv_rows, tag_text
from tag2mask.formats.rows import Rows, Tags, photos_text

Record = dict[str, str]


def camtrap_folder(path: Path) -> Path | None:
    """The folder with media.csv and observations.csv: the path, or that of its datapackage.json."""
    folder = path.parent if path.name == "datapackage.json" else path
    files = ("media.csv", "observations.csv")
    return folder if all((folder / name).is_file() for name in files) else None


def read_camtrap_dp(path: Path, settings: DataSettings) -> Rows:
    """An animal's tag is its scientific name, another observation's its type (human, vehicle).

    "blank" is a photo of nothing. Of a medium without observations of its own, those of its event
    count. Videos are left out. Unclassified media are ones in which nobody looked.
    """
    folder = camtrap_folder(path) or path
    export = Export(folder, settings)
    media = {record.get("mediaID", ""): record for record in _records(folder / "media.csv", export)}
    own: dict[str, list[Record]] = defaultdict(list)
    events: list[Record] = []
    for record in _records(folder / "observations.csv", export):
        if record.get("mediaID"):
            own[record["mediaID"]].append(record)
        else:
            events.append(record)
    for number in own.keys() - media.keys():
        export.rows.error("entry", f"medium {number}", "observed, but not in media.csv")
    shared = _of_events(events, own, media)
    from_events = 0
    for number, medium in media.items():
        if medium.get("fileMediatype", "image").partition("/")[0] not in ("image", ""):
            export.leave_out("videos or other files")
            continue
        where = f"medium {number}"
        with export.entry(where, "a medium of Camtrap DP"):
            records = own.get(number) or shared.get(number, [])
            from_events += number not in own and bool(records)
            tags, absent = _tags(records, settings.min_confidence)
            path_or_address, name = medium.get("filePath", ""), medium.get("fileName", "")
            names_no_file = "://" in path_or_address and name  # https://agouti.eu/assets/1a2b/file
            export.add(name if names_no_file else path_or_address or name, where, tags, absent)
    if from_events:
        what = f"{photos_text(from_events)} with the tags of an event (a burst of photos)"
        export.rows.warn("export", f"{what}: not each tag is surely in each photo")
    return export.finish("Camtrap DP: media.csv, observations.csv")


def _tags(records: Iterable[Record], least: float) -> tuple[Tags, Tags | None]:
    """The tags of a medium; () as known absences if nobody looked."""
    tags: list[str] = []
    looked = False
    for record in records:
        kind = record.get("observationType", "")
        if kind in ("unclassified", ""):
            continue
        if kind == "unknown":  # something is there, nobody knows what
            return tuple(tags), ()
        looked = True
        if kind != "blank" and confidence(record.get("classificationProbability")) >= least:
            tags.append(tag_text(record.get("scientificName") or kind))
    return tuple(dict.fromkeys(tags)), None if looked else ()


def _of_events(
    events: list[Record], own: dict[str, list[Record]], media: dict[str, Record]
) -> dict[str, list[Record]]:
    """The event's observations of each medium: by eventID, or by deployment and time."""
    by_event: dict[str, set[str]] = defaultdict(set)
    times: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for number, medium in media.items():
        for record in (medium, *own.get(number, ())):
            if event := record.get("eventID"):
                by_event[event].add(number)
        if (time := _seconds(medium.get("timestamp"))) is not None:
            times[medium.get("deploymentID", "")].append((time, number))
    for moments in times.values():
        moments.sort()
    shared: dict[str, list[Record]] = defaultdict(list)
    for event in events:
        numbers = set(by_event.get(event.get("eventID", ""), ()))
        start, end = _seconds(event.get("eventStart")), _seconds(event.get("eventEnd"))
        if start is not None and end is not None:
            moments = times.get(event.get("deploymentID", ""), [])
            first, last = bisect_left(moments, (start, "")), bisect_right(moments, (end, "\uffff"))
            numbers.update(number for _, number in moments[first:last])
        for number in numbers:
            shared[number].append(event)
    return shared


def _seconds(text: str | None) -> float | None:
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _records(file: Path, export: Export) -> Iterator[Record]:
    lines = csv_rows(file, export.rows, f"{file.name} ")
    _, header = next(lines, ("", []))
    for where, cells in lines:
        if len(cells) == len(header):
            yield dict(zip(header, cells, strict=True))
        elif any(cells):
            what = f"{len(cells)} cells under {len(header)} columns"
            export.rows.error("format", where, what)
