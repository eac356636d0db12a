"""The tables of `quality.py --set domains` and `--set ablation`; `tables.py` writes them."""

from collections.abc import Callable
from itertools import product
from statistics import mean

from figures import Results, Row, Rows, figure, miou, provenance, rule, seeds
from methods import NEW, SPREAD

IN_ALL = "python benchmarks/quality.py voc-animals magnetic-tiles demo/scenes OUT --set domains"
# Name in the tables, method, view of the first masks, masks that the segmenter is trained on.
PARTS = ("first masks", "new masks", "segmenter")
DOMAINS = ("voc-animals", "magnetic-tiles", "demo")
IN_DOMAINS = (
    ("recipe `photos`", "photos", SPREAD, "own"),
    ("recipe `best`", "best", "", ""),
    ("CAM, masks as in `photos`", "cam", "as in photos", ""),
    ("CAM, spread and thresholds as in `photos`", "cam", "affinity, Otsu", "affinity, Otsu"),
    ("CAM at its best threshold, chosen with true masks", *["cam", *["best threshold"] * 2]),
    ("CPC by its logits, spread, Otsu", "cpc", *["logits, affinity, Otsu"] * 2),
    ("CPC by its own rule", "cpc", *["its own rule"] * 2),
    ("true masks", "truth", "", "true"),
)


def in_domain(results: Results, data: str, method: str, masks: str, source: str) -> list[Rows]:
    """Rows of a method's first masks, new masks and segmenters."""
    about = {"set": "domains", "data": data, "method": method, "crf": True}
    learned = {"split": "val", "learned_from": source, "masks": "test photos"}
    return [
        results.find(**about, masks=masks, split="second half"),
        results.find(**about, masks=NEW, split="second half"),
        results.find(**about, **learned),
    ]


def domains(results: Results) -> list[str]:
    """Every method on every domain."""
    cells = (cell for part in PARTS for cell in (part, "seeds"))
    columns = (*cells, "photos of nothing marked", "minutes")
    lines, used = rule("photos", "masks of", *columns), list[Row]()
    for data, (name, *what) in product(DOMAINS, IN_DOMAINS):
        parts = in_domain(results, data, *what)
        if any(parts):
            used += [row for rows in parts for row in rows.values()]
            cells = [cell for rows in parts for cell in (miou(rows), seeds(rows))]
            nothing = [row["nothing"] for row in parts[-1].values() if row["nothing"].get("photos")]
            cells.append(figure(n["marked"] / n["photos"] for n in nothing) + " %" * bool(nothing))
            lines.append(f"| {data} | {name} | {' | '.join(cells)} | {minutes(what[0], parts)} |")
    return [*lines, *provenance(used)] if used else []


def minutes(method: str, parts: list[Rows]) -> str:
    """What a whole run took, as a cell: the job of its masks and that of the rest."""
    jobs = [parts[0], parts[-1]] if method == "photos" else parts[-1:]
    shared = set.intersection(*map(set, jobs)) if method in ("photos", "best") else set()
    shared = {seed for seed in shared if all(rows[seed]["seconds"] for rows in jobs)}
    times = [sum(rows[seed]["seconds"] for rows in jobs) / 60 for seed in shared]
    return f"{mean(times):.1f}" if times else "-"


def sizes(results: Results) -> list[str]:
    """Recall of objects by their size."""
    sizes = ("< 0.5 %", "0.5 to 2 %", "2 to 10 %", "> 10 %")
    lines, used = rule("photos", "masks of", "seeds", *sizes), list[Row]()
    for data, (name, *what) in product(DOMAINS, IN_DOMAINS):
        for part, rows in zip(PARTS, in_domain(results, data, *what), strict=True):
            if rows:
                used += rows.values()
                recalls = [
                    [r["by_size"][size]["recall"] for r in rows.values() if size in r["by_size"]]
                    for size in sizes
                ]
                cells = [f"{100 * mean(values):.0f}" if values else "-" for values in recalls]
                lines.append(f"| {data} | {part}, {name} | {seeds(rows)} | {' | '.join(cells)} |")
    return [*lines, *provenance(used)] if used else []


def tile_classes(results: Results) -> list[str]:
    """IoU of each kind of defect."""
    kinds = ("background", "blowhole", "break", "crack", "fray", "uneven")
    lines, used = rule("magnetic-tiles", "seeds", *kinds), list[Row]()
    for name, *what in IN_DOMAINS:
        parts = in_domain(results, "magnetic-tiles", *what)
        for part, rows in zip(PARTS, parts, strict=True):
            if rows:
                used += rows.values()
                cells = [
                    f"{100 * mean(r['iou'].get(k, 0) for r in rows.values()):.0f}" for k in kinds
                ]
                lines.append(f"| {part}, {name} | {seeds(rows)} | {' | '.join(cells)} |")
    return [*lines, *provenance(used)] if used else []


def ablation(results: Results) -> list[str]:
    """`photos` without each of its parts: pseudo masks, and the segmenter where it was trained."""
    rows = [row for row in results.rows if row["set"] == "ablation"]
    rows = [row for row in rows if row["crf"] or row["split"] == "val"]
    names = list(
        dict.fromkeys((r["method"], r["learned_from"], r["masks"], r["split"]) for r in rows)
    )
    datas = [data for data in DOMAINS if any(row["data"] == data for row in rows)]
    lines, used = rule("method", "masks", *(f"{d}, seeds" for d in datas)), list[Row]()
    for method, source, masks, split in names:
        key = {"set": "ablation", "method": method, "learned_from": source, "masks": masks}
        found = [results.find(**key, data=data, split=split) for data in datas]
        cells = [f"{miou(part)} ({seeds(part)})" if part else "-" for part in found]
        lines.append(
            f"| {method} | {f'segmenter of {source}: ' * bool(source)}{masks} "
            f"| {' | '.join(cells)} |"
        )
        used += [row for part in found for row in part.values()]
    return [*lines, *provenance(used)] if used else []


def goals(results: Results) -> list[str]:
    """What was aimed at, and what is reached."""
    tiles = in_domain(results, "magnetic-tiles", "photos", SPREAD, "own")
    demo = [results.find(set="demo", split=split) for split in ("train", "val")]
    pseudo = {name: results.pseudo(f"{name} cpu", NEW) for name in ("photos", "best")}
    learned = {
        name: results.segmenter(f"{name} cpu", source)
        for name, source in (("photos", "own"), ("best", ""), ("truth", "true"))
    }
    rows_and_goals: list[tuple[str, Rows, str, float]] = [
        ("voc-animals, new masks of `photos`", pseudo["photos"], "miou", 70),
        ("voc-animals, new masks of `best`", pseudo["best"], "miou", 74),
        ("voc-animals, segmenter of `photos`", learned["photos"], "miou", 58),
        ("voc-animals, segmenter of `best`", learned["best"], "miou", 62),
        ("voc-animals, the segmenter from true masks", learned["truth"], "miou", 65),
        ("magnetic-tiles, new masks", tiles[1], "miou", 55),
        *(
            (f"magnetic-tiles, new masks of {kind}", tiles[1], kind, goal)
            for kind, goal in (("blowhole", 50), ("break", 40), ("crack", 25))
        ),
        ("magnetic-tiles, segmenter", tiles[2], "miou", 55),
        ("magnetic-tiles, good tiles marked", tiles[2], "nothing", 3),
        ("demo, new masks", demo[0], "miou", 75),
        ("demo, segmenter", demo[1], "miou", 80),
    ]
    lines, used = rule("figure", "seeds", "measured", "goal", "reached"), list[Row]()
    for name, rows, key, goal in rows_and_goals:
        used += rows.values()
        values = [_value(row, key) for row in rows.values()]
        most, reached = key == "nothing", "-"
        if values:
            value = round(100 * mean(values), 1)
            reached = "yes" if (value <= goal if most else value >= goal) else "no"
            reached += ", one seed" * (len(values) == 1)
        cells = [name, seeds(rows), figure(values), f"{'at most ' * most}{goal:g}", reached]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, *provenance(used)] if used else []


def _value(row: Row, key: str) -> float:
    """A figure of a row in 0-1: "miou", "nothing" (share of photos of nothing that are marked), or
    the IoU of a class."""
    if key == "nothing":
        share: float = row["nothing"]["marked"] / row["nothing"]["photos"]
        return share
    value: float = row["miou"] if key == "miou" else row["iou"].get(key, 0)
    return value


DOMAIN_TABLES: dict[str, tuple[str, Callable[[Results], list[str]]]] = {
    "goals": ("python benchmarks/tables.py", goals),
    "domains": (IN_ALL, domains),
    "domains-sizes": (IN_ALL, sizes),
    "domains-tiles": (IN_ALL, tile_classes),
    "ablation": (IN_ALL.replace("domains", "ablation"), ablation),
}
