"""The tables of `quality.py --set domains` and `--set ablation`; `tables.py` writes them."""

from collections.abc import Callable
from itertools import product
from statistics import mean

from figures import Results, Row, Rows, figure, miou, provenance, rule, seeds
from methods import SPREAD

IN_ALL = "python benchmarks/quality.py voc-animals magnetic-tiles demo/scenes OUT --set domains"
# Name in the tables, method, view of the pseudo masks, masks that the segmenter is trained on.
PARTS = ("pseudo masks", "segmenter")
DOMAINS = ("voc-animals", "magnetic-tiles", "demo")
IN_DOMAINS = (
    ("recipe `photos`", "photos", SPREAD, "own"),
    ("recipe `best`, last round", "best", "last round", ""),
    ("CAM, masks as in `photos`", "cam", "as in photos", ""),
    ("CAM, spread and thresholds as in `photos`", "cam", "affinity, Otsu", "affinity, Otsu"),
    ("CAM at its best threshold, chosen with true masks", *["cam", *["best threshold"] * 2]),
    ("CPC by its logits, spread, Otsu", "cpc", *["logits, affinity, Otsu"] * 2),
    ("CPC by its own rule", "cpc", *["its own rule"] * 2),
    ("true masks", "truth", "", "true"),
)


def in_domain(results: Results, data: str, method: str, masks: str, source: str) -> list[Rows]:
    """Rows of a method's pseudo masks and of its segmenters."""
    about = {"set": "domains", "data": data, "method": method, "crf": True}
    learned = {"split": "val", "learned_from": source, "masks": "test photos"}
    return [
        results.find(**about, masks=masks, split="second half"),
        results.find(**about, **learned),
    ]


def domains(results: Results) -> list[str]:
    """Every method on every domain."""
    columns = ("pseudo masks", "seeds", "segmenter", "seeds", "photos of nothing marked", "minutes")
    lines, used = rule("photos", "masks of", *columns), list[Row]()
    for data, (name, *what) in product(DOMAINS, IN_DOMAINS):
        both = in_domain(results, data, *what)
        if any(both):
            used += [row for rows in both for row in rows.values()]
            cells = [cell for rows in both for cell in (miou(rows), seeds(rows))]
            nothing = [row["nothing"] for row in both[1].values() if row["nothing"].get("photos")]
            cells.append(figure(n["marked"] / n["photos"] for n in nothing) + " %" * bool(nothing))
            lines.append(f"| {data} | {name} | {' | '.join(cells)} | {minutes(what[0], both)} |")
    return [*lines, *provenance(used)] if used else []


def minutes(method: str, both: list[Rows]) -> str:
    """What a whole run took, as a cell: the job of its masks and that of the rest."""
    if method == "best":
        both = both[1:]
    shared = set.intersection(*map(set, both)) if method in ("photos", "best") else set()
    times = [sum(rows[seed]["seconds"] for rows in both) / 60 for seed in shared]
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
        both = in_domain(results, "magnetic-tiles", *what)
        for part, rows in zip(PARTS, both, strict=True):
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


DOMAIN_TABLES: dict[str, tuple[str, Callable[[Results], list[str]]]] = {
    "domains": (IN_ALL, domains),
    "domains-sizes": (IN_ALL, sizes),
    "domains-tiles": (IN_ALL, tile_classes),
    "ablation": (IN_ALL.replace("domains", "ablation"), ablation),
}
