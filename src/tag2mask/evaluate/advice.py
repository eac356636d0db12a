"""What masks find, by the tags, to warnings with the next step, and to the refusal of a segmenter
that is plainly broken.

The bounds are wide: few photos, short trainings and classes that fill most photos are no faults. A
warning says what is doubtful; a refusal needs a model that is of no use to anybody.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tag2mask.config import Config
from tag2mask.photos.areas import share_text

FEW = 4  # photos with a tag: with fewer, nothing is said of it
MISSED = 0.25  # share of a tag's photos whose pseudo mask lacks it
SEGMENTER_MISSED = 0.5  # the same for the segmenter
FALSE = 0.2  # share of other photos, or of photos of nothing, that are marked
BELOW = 0.1  # share of a tag's masks that are smaller than one patch
FLAT = 0.8  # median evidence as a share of the largest
EVERYWHERE = 0.8  # share of the median photo without the tag that a broken segmenter gives it
LEAST_OTHERS, SHARE_OTHERS = 20, 0.2  # photos without the tag: with fewer, it is no proof
LEAST_PAIRS = 30  # pairs of a photo and a tag, and marks: with fewer, chance decides
CHANCE = 1.0  # standard errors by which tags must be marked more often where they are
MOST_TAGS = 8  # in one warning

Finds = dict[str, Any]


def mask_doubts(
    finds: Finds, config: Config, small: Sequence[str] = (), new: bool = False
) -> list[str]:
    """The finds of pseudo masks, with their evidence, to warnings. `small`: the tags whose things
    are small, as the masks were made. new: the masks are the segmenter's."""
    doubts, tagged = [], finds["tagged"]
    network, longer = ("segmenter", "steps") if new else ("classifier", "epochs")
    logits = config.masks.scores == "logits" and not new
    if tagged["empty"] >= MISSED * tagged["photos"] and tagged["photos"] >= FEW:
        doubts.append(
            f"{tagged['empty']} of {tagged['photos']} masks of photos with tags show nothing. The "
            f"{network} may have learned too little (see its loss in the report): give more "
            f"--{network}.{longer}. Or the CRF removes small things: try --masks.crf.iterations 0"
        )
    if small:
        doubts.append(
            f"small things, by their evidence: {', '.join(small[:MOST_TAGS])}. Their masks come "
            "from a closer look; the segmenter may still miss them: see what it finds of them. If "
            "these things are large, give --masks.no-small-things"
        )
    others = {"tags": {tag: n for tag, n in finds["tags"].items() if tag not in small}}
    if tags := _named(others, _is_below_patch, lambda n: f"{n['below_patch']} of {n['photos']}"):
        patch = max(n.get("patch", 0) for n in others["tags"].values())
        doubts.append(
            f"masks smaller than one patch of the {network}: {tags}. A patch is "
            f"{share_text(patch)} % of a photo; it shows no shape of smaller things. Look at these"
        )
    if tags := _named(finds, _is_missed, lambda n: f"{_missed(n)} of {n['photos']}"):
        lower = "; a lower --masks.threshold, such as 0.3, marks more" * logits
        doubts.append(f"not in the masks of their photos: {tags}. Look at them{lower}")
    if tags := _covering(finds):
        higher = ", or raise --masks.threshold, such as to 0.6" * logits
        doubts.append(
            f"cover more than 90 % of a photo: {tags}. If they do not fill these photos, add "
            f"photos of the same places without them{higher}"
        )
    if tags := _named(finds, lambda n: n.get("middle", 0) > FLAT, lambda n: f"{n['photos']}"):
        doubts.append(
            f"nearly the same evidence all over their photos: {tags}. If they do not fill them, "
            f"the {network} cannot tell where they are: add photos of the same places without them"
        )
    return doubts


def segmenter_doubts(finds: Finds) -> list[str]:
    """The finds of a segmenter to warnings."""
    doubts, nothing = [], finds["nothing"]
    if nothing["marked"] > FALSE * nothing["photos"]:
        doubts.append(
            f"something is marked on {nothing['marked']} of {nothing['photos']} photos of nothing. "
            "Add more such photos, or try --segmenter.no-object-first"
        )
    missed = _named(
        finds,
        lambda n: n["found"] < SEGMENTER_MISSED * n["photos"],
        lambda n: f"{n['found']} of {n['photos']}",
    )
    if missed:
        doubts.append(
            f"found in less than half of their photos: {missed}. Look at their pseudo masks first; "
            "if these are good, try --segmenter.balanced or twice the --segmenter.steps"
        )
    marked = _named(
        finds,
        lambda n: n["marked"] > FALSE * n["others"],
        lambda n: f"{n['marked']} of {n['others']}",
    )
    if marked:
        doubts.append(
            f"marked in photos without them: {marked}. Look at these photos: are their tags "
            "complete? More photos without these tags help"
        )
    if tags := _covering(finds):
        doubts.append(
            f"cover more than 90 % of a photo: {tags}. If they do not fill these photos, look at "
            "their pseudo masks, and add photos of the same places without them"
        )
    return doubts


def refusal(finds: Finds, config: Config) -> str:
    """The finds of a segmenter on training photos to the reason why it is of no use, with the next
    step; "" if it may be of use."""
    reason, settings = _useless(finds), config.segmenter
    balanced = "without --segmenter.balanced" if settings.balanced else "with --segmenter.balanced"
    return reason and (
        f"the segmenter is of no use: {reason}. Look at the pseudo masks it learned from, in "
        "masks/. If most of them show their objects, train it again with "
        f"--segmenter.lr {settings.lr / 4:g} or {settings.lr * 4:g}, with "
        f"--segmenter.steps {settings.steps * 2}, or {balanced}"
    )


def _useless(finds: Finds) -> str:
    tags = finds["tags"]
    found, photos, marked, others = (
        sum(n[key] for n in tags.values()) for key in ("found", "photos", "marked", "others")
    )
    if not (found or marked):
        return f"it marks nothing on {finds['images']} training photos"
    for tag, n in tags.items():
        proof = n["others"] >= max(LEAST_OTHERS, SHARE_OTHERS * finds["images"])
        if proof and n["area_others"] > EVERYWHERE:
            return (
                f"it calls nearly every photo {tag}: {share_text(n['area_others'])} % of the "
                f"median photo that has no {tag} ({n['others']} such training photos)"
            )
    if min(photos, others, found + marked) >= LEAST_PAIRS and _by_chance(
        found, photos, marked, others
    ):
        return (
            f"its masks have nothing to do with the tags: it marks a tag in {found} of {photos} "
            f"cases where a training photo has it, and in {marked} of {others} where it has not"
        )
    return ""


def _by_chance(found: int, photos: int, marked: int, others: int) -> bool:
    """Whether `found` of `photos` is no larger share than `marked` of `others`, within chance: the
    test of two proportions. An untrained network marks nearly all tags in nearly all photos."""
    share = (found + marked) / (photos + others)
    error = (share * (1 - share) * (1 / photos + 1 / others)) ** 0.5
    return found / photos - marked / others <= CHANCE * error


def _named(finds: Finds, doubtful: Callable[[Finds], bool], text: Callable[[Finds], str]) -> str:
    """The doubtful tags, with a text in brackets; "" if none is doubtful."""
    tags = [
        f"{tag} ({text(n)})"
        for tag, n in finds["tags"].items()
        if n["photos"] >= FEW and doubtful(n)
    ]
    more = f" and {len(tags) - MOST_TAGS} more" if len(tags) > MOST_TAGS else ""
    return ", ".join(tags[:MOST_TAGS]) + more


def _missed(n: Finds) -> int:
    return int(n["photos"] - n["found"])


def _is_below_patch(n: Finds) -> bool:
    return bool(n.get("below_patch", 0) >= max(2, BELOW * n["photos"]))


def _is_missed(n: Finds) -> bool:
    return _missed(n) >= MISSED * n["photos"]


def _covering(finds: Finds) -> str:
    def covers(n: Finds) -> bool:
        return bool(n["covered"] * 2 > n["photos"] or n["covered_others"] > FALSE * n["others"])

    return _named(finds, covers, lambda n: f"{n['covered'] + n['covered_others']}")
