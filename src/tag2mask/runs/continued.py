"""What changed in the photos of a run, and how `--continue` starts from what is there.

Without `--continue` a changed stage starts from nothing. With it, the trainings start from the
networks of the last run, for a share of the steps (`loop.CONTINUED`), and masks are made only of
the photos that are new or corrected.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tag2mask.files import hash_of, read_json, sha256, write_json
from tag2mask.photos.table import Photo, Table
from tag2mask.processes import cores, parallel_map
from tag2mask.progress import log
from tag2mask.runs.corrected import link
from tag2mask.runs.folder import MADE, MASKS

if TYPE_CHECKING:
    from tag2mask.runs.run import Run

# The inputs that may change between a result and a stage that continues from it.
MAY_CHANGE = {
    "classifier": {"photos"},
    "masks": {"photos", "classifier model", "regions"},
    "segmenter": {"photos", "pseudo masks", "corrected masks", "regions of rounds"},
}
CONTINUES = "continues"  # among the inputs of an unfinished stage: the hash of the result


def facts_of(photo: Photo) -> dict[str, Any]:
    """A photo and its tags, as JSON."""
    size = photo.path.stat().st_size
    return {"tags": list(photo.tags), "unknown": list(photo.unknown), "bytes": size}


def made_from(run: "Run", photo: Photo) -> dict[str, Any]:
    """What the mask of a photo is made from, as JSON: `facts_of`, and its regions if it has any."""
    path = run.regions.paths.get(photo.name) if run.regions else None
    return facts_of(photo) | ({"regions": run.fingerprint(path)} if path else {})


def note_made(run: "Run", folder: Path) -> str:
    """Write `folder`/made.json: what each mask was made from, and its hash. Later this tells what
    is new, and what was changed by hand. Returns the fingerprint of all masks."""
    photos = run.table.photos
    hashes = parallel_map(lambda photo: sha256(folder / f"{photo.name}.png"), photos, cores())
    pairs = zip(photos, hashes, strict=True)
    made = {photo.name: {**made_from(run, photo), "mask": digest} for photo, digest in pairs}
    write_json(folder / MADE, made)
    masks = sorted(made, key=lambda name: f"{name}.png".split("/"))
    return hash_of((f"{name}.png", made[name]["mask"]) for name in masks)


def read_made(run: "Run") -> dict[str, dict[str, Any]]:
    """made.json of the last masks: photo name -> `made_from` and the hash of its mask; {} if there
    is none."""
    path = run.files.result("masks", MADE)
    return read_json(path) if path.exists() else {}


def changed_photos(run: "Run") -> str:
    """What is not as it was when the masks were made, as "5 new, 1 gone, 3 corrected"; "" if that
    is not known, or if nothing is."""
    made, photos = read_made(run), run.table.photos
    if not made:
        return ""
    there = [photo for photo in photos if photo.name in made]
    counts = {
        "new": len(photos) - len(there),
        "gone": len(made) - len(there),
        "corrected": sum(not facts_of(p).items() <= made[p.name].items() for p in there),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def start_of(run: "Run", name: str, then: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The hash of the result from which a stage continues, None if it starts from nothing; then,
    the later stages do too.

    then, now: the inputs of the result and those of today.
    """
    if name not in MAY_CHANGE:
        return None
    keys = {key for key in {**then, **now} if then.get(key) != now.get(key)}
    classes = run.files.result("masks", MASKS)
    if others := sorted(keys - MAY_CHANGE[name]):
        why = f"{', '.join(others)} changed"
    elif not classes.exists() or read_json(classes)["classes"] != list(run.table.classes):
        why = "the tags are not those of the last masks"
    elif name == "masks" and not read_made(run):
        why = f"{run.files.result('masks', MADE)} is missing"
    else:
        text = json.dumps(run.files.done(name), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
    log.info(f"{name}: cannot continue, because {why}; this and what follows start from nothing")
    run.continued = False
    return None


def start(run: "Run", name: str) -> Path | None:
    """The folder of the result from which a stage that has begun continues; None: from nothing."""
    begun = run.files.started(name) or {}
    return run.files.result(name) if CONTINUES in begun.get("inputs", {}) else None


def keep_masks(run: "Run", table: Table, last: Path, folder: Path) -> Table:
    """Put the masks and score maps of the photos that are as they were into `folder`; returns the
    table of the others."""
    made, others = read_made(run), []
    for photo in table.photos:
        files = [last / f"{photo.name}{kind}" for kind in (".npz", ".png")]
        then = {key: value for key, value in made.get(photo.name, {}).items() if key != "mask"}
        if then == made_from(run, photo) and all(file.exists() for file in files):
            for file in files:
                to = folder / file.relative_to(last)
                to.parent.mkdir(parents=True, exist_ok=True)
                if not to.exists():
                    link(file, to)
        else:
            others.append(photo)
    log.info(f"masks: {len(table) - len(others)} kept, {len(others)} to make")
    return Table(table.tags, tuple(others), table.source)
