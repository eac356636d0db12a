"""Faults of the tags themselves: what makes them hard or impossible to learn."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import combinations

from tag2mask.formats.findings import Finding, warning
from tag2mask.formats.rows import Rows, nearest_tag, photos_text, spellings
from tag2mask.photos.table import tag_key

FEW = 10  # photos of a tag
UNBALANCED = 20  # photos of the most frequent tag for each photo of the rarest
EVERYWHERE = 0.95  # share of photos
ALIKE = 0.85  # difflib ratio of two tags that may be one: "dog" and "dogs"
ALIKE_RARE = 0.75  # the same where one is five times rarer: "elephant" and "elefant"
# Tags that may mean that nothing is there, as `tag_key` writes them.
NOTHING = {
    *("good", "ok", "okay", "normal", "none", "empty", "blank", "nothing", "clean"),
    *("nofinding", "nofindings", "nodefect", "nodefects", "defectfree", "negative", "na"),
}


def nothing_findings(tags: Iterable[str]) -> Iterator[Finding]:
    """A warning for each tag that may say that nothing is there."""
    for tag in tags:
        if tag_key(tag) in NOTHING or not any(map(str.isalnum, tag)):  # "-"
            do = f'if it does, use --photos.nothing "{tag}"'
            yield warning("nothing", f'tag "{tag}"', "it may mean that nothing is there", do)


def tag_findings(rows: Rows, tags: Sequence[str]) -> Iterator[Finding]:
    """What makes tags hard or impossible to learn."""
    # Spellings that differ only in case, spaces or punctuation are an error already: one tag here.
    main = {tag: next(iter(group)) for group in spellings(rows.rows, tags) for tag in group}
    tagged = [{main[tag] for tag in row.tags} for row in rows.rows]
    count = Counter(tag for tags_of_row in tagged for tag in sorted(tags_of_row))
    alike = _alike_tags(count) if rows.tags is None else []
    for few, many in alike:
        tags_text = (f'"{tag}" ({photos_text(count[tag])})' for tag in (few, many))
        what = f"{' and '.join(tags_text)} may be one tag"
        yield warning("spelling", f'tag "{few}"', what, "if they are, use one spelling")
    yield from _rare_tags(rows, tagged, count, {few for few, _ in alike})
    if absent := [tag for tag in tags if main[tag] not in count]:
        what = f"no photo has {', '.join(absent)}"
        yield warning("absent tag", str(rows.source), what, "these classes cannot be learned")
    yield from nothing_findings(tags)
    known = Counter(
        tag for row in rows.rows if row.absent is not None for tag in (*row.tags, *row.absent)
    )
    all_known = sum(row.absent is None for row in rows.rows)
    for tag, n in count.items():
        photos = all_known + known[tag]  # in which somebody looked for this tag
        if (photos >= FEW or len(count) == 1) and n >= EVERYWHERE * photos:
            what = f"in {n} of {photos} photos: nothing distinguishes it from the background"
            do = "add photos without it: in a row of a table, leave the cell of the tags empty"
            yield warning("tag everywhere", f'tag "{tag}"', what, do)
    together = defaultdict(list)
    for tag in count:
        together[tuple(i for i, row in enumerate(tagged) if tag in row)].append(tag)
    for numbers, same in together.items():
        if len(same) > 1 and len(numbers) > 1:
            what = f"always together ({len(numbers)} photos): nothing distinguishes them"
            do = "add photos with one of them alone, or make them one tag"
            yield warning("always together", f"tags {', '.join(sorted(same))}", what, do)


def _rare_tags(
    rows: Rows, tagged: Sequence[set[str]], count: Counter[str], misspelled: set[str]
) -> Iterator[Finding]:
    for tag, n in sorted(count.items(), key=lambda item: item[1]):
        if n == 1 and tag not in misspelled:
            where = rows.rows[next(i for i, own in enumerate(tagged) if tag in own)].where
            what, do = f'tag "{tag}" is in this photo only', "add photos of it or delete the tag"
            yield warning("rare tag", where, what, do)
        elif n < FEW and tag not in misspelled:
            do = f"at least {FEW} are recommended"
            yield warning("rare tag", f'tag "{tag}"', f"only {n} photos", do)
    enough = [(tag, n) for tag, n in count.most_common() if n >= FEW]
    if enough and enough[0][1] > UNBALANCED * enough[-1][1]:
        (top, most), (rare, least) = enough[0], enough[-1]
        what = f'{most} photos of "{top}", {least} of "{rare}"'
        yield warning("balance", str(rows.source), what, "rare tags are learned badly")


def _alike_tags(count: Counter[str]) -> list[tuple[str, str]]:
    """Pairs of tags that may be one, the rarer first. Numbered tags (class 1, class 2) are not."""
    pairs = []
    for pair in combinations(sorted(count), 2):
        if len({re.sub(r"\d", "0", tag) for tag in pair}) == 1:
            continue
        few, many = sorted(pair, key=count.__getitem__)
        least = ALIKE_RARE if count[many] >= 5 * count[few] else ALIKE
        a, b = (tag.casefold() for tag in pair)
        if min(map(len, pair)) > 2 and SequenceMatcher(None, a, b).ratio() >= least:
            pairs.append((few, many))
    return pairs


def cluster_findings(
    tags: Sequence[str], clusters: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Tags that no cluster has, and names in clusters that are not tags."""
    members = [(cluster, tag) for cluster, names in clusters.items() for tag in names]
    for tag in tags if clusters else ():
        if tag not in {member for _, member in members}:
            yield Finding("cluster", f'tag "{tag}"', "in no cluster", "add it to a cluster")
    for cluster, tag in members:
        if tag not in tags:
            what = f'"{tag}" is not a tag of this data set'
            yield Finding("cluster", f'cluster "{cluster}"', what, nearest_tag(tag, tags))
