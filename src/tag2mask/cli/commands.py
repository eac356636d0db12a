"""The commands: what each takes, does and prints.

What takes long to import is imported by the command that needs it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.table import Table
from rich.text import Text
from rich.tree import Tree
from tyro.conf import Positional, arg

from tag2mask.cli.arguments import (
    STAGE_READS,
    PathOption,
    config_options,
    default_text,
    make_options,
    named_settings,
    parse,
    parse_config,
    parse_reading,
    show,
)
from tag2mask.cli.data import check, convert, correct, download, tags, tags_in
from tag2mask.cli.export import export, push
from tag2mask.config import ClusterSettings, Config
from tag2mask.config_files import base_config, changed_config
from tag2mask.errors import ClusterError, ConfigError, DataError
from tag2mask.files import keep_inputs, write_json

if TYPE_CHECKING:
    from tag2mask.clusters import Clusters

Form = Literal["coco", "yolo", "labelme", "cvat", "label-studio"]
ClusterFile = Annotated[Positional[Path], arg(help="A cluster file (JSON).")]


Continue = Annotated[
    bool,
    arg(
        name="continue",
        help="If photos, tags or corrections have changed: start from the networks of the last run "
        "and train them for a quarter of the steps, and make masks only of the photos that are new "
        "or corrected. Without it, all that depends on them is made anew.",
    ),
]

# ---- commands that run stages --------------------------------------------------------------------


def _stages(name: str, stages: Sequence[str], argv: list[str]) -> None:
    from tag2mask.api import run_config

    run_config(parse_config(argv, name), stages)


def _run(argv: list[str]) -> None:
    # Not a setting: it says how this command starts, and is not kept in the run folder.
    from tag2mask.api import run_config

    def run(continued: Continue = False, options: Any = None) -> None:
        run_config(changed_config(base, asdict(options)), continued=continued)

    base, options, about = config_options(argv, "run")
    parse(run, "run", argv, about, options)


def _demo(argv: list[str]) -> None:
    from tag2mask.api import run_demo

    own = argv if named_settings(argv).recipe else ["--recipe", "demo", *argv]
    run_demo(parse_config(own, "demo"))


def _evaluate(argv: list[str]) -> None:
    named = named_settings(argv)
    base = base_config(named.out, named.recipe)

    def evaluate(
        pred: PathOption = None,
        truth: PathOption = None,
        names: Annotated[PathOption, arg(name="list")] = None,
        classes: Annotated[str | None, arg(metavar="STR")] = None,
        mean_over: tuple[str, ...] = (),
        labels: Literal["given", "predicted", "none", "unknown"] = "unknown",
        boundary: bool = False,
        out: PathOption = None,
        options: Any = None,
    ) -> None:
        """Metrics of a run (--out), or of masks made by any tool (--pred and --truth).

        Args:
            pred: Folder of predicted masks, NAME.png.
            truth: Folder of true masks with the same class numbers. 255 is ignored. A file of
                names there or in --pred (masks.json, classes.json) says what the numbers mean.
            names: With --pred: file with one NAME per line. Without it: all masks in --truth.
            classes: With --pred: voc, coco, or a file with one class name per line. Without it:
                the names in the folders, else numbers.
            mean_over: With --pred: classes over which mIoU is the mean. Without it: all in --truth.
            labels: With --pred: where the tags came from when the masks were made.
            boundary: With --pred: compute boundary IoU too.
            out: The run folder; with --pred, a JSON file for the metrics.
        """
        from tag2mask.api import run_config
        from tag2mask.evaluate.folders import evaluate_folders, list_hash
        from tag2mask.evaluate.show import result_table

        if not pred and not truth:
            if names or classes or mean_over or boundary:
                raise ConfigError("--list, --classes, --mean-over and --boundary need --pred")
            changes = asdict(options) | ({"out": out} if out else {})
            run_config(changed_config(base, changes), ["evaluate"])
            return
        if not pred or not truth:
            raise ConfigError("to evaluate masks of any tool, give both --pred and --truth")
        if out and out.suffix != ".json":
            raise ConfigError(f"{out}: with --pred, give an --out that ends in .json")
        result, scored = evaluate_folders(
            pred, truth, names, classes, boundary, mean_over=mean_over
        )
        split = names.stem if names else truth.name
        protocol = {"split": split, "labels": labels, "list_hash": list_hash(scored)}
        show(result_table(result, f"mIoU {100 * result.miou:.2f} %"))
        show(", ".join([f"{result.images} images", *map(" ".join, protocol.items())]))
        if out:
            write_json(out, result.summary(**protocol))

    reads = [name for name in STAGE_READS["evaluate"] if name != "out"]
    parse(evaluate, "evaluate", argv, options=make_options(base, reads))


# ---- commands on photos ------------------------------------------------------------


def _predict(
    run: Positional[str],
    pictures: Positional[tuple[str, ...]],
    out: Annotated[str, arg(metavar="PATH")],  # `Path` makes "" the current folder
    overlay: bool = False,
    threshold: float = 0.5,
    tile: Annotated[int | None, arg(metavar="INT", help_behavior_hint=default_text)] = None,
    overlap: int = 64,
    form: Annotated[Form | None, arg(name="format")] = None,
) -> None:
    """Masks for any photos, by the segmenter of a run. They need no tags.

    The folder also gets predictions.csv (a row for each photo and class in it: area, regions,
    probability) and classes.json (class numbers, names, colors).

    Args:
        run: A run folder, a file of `tag2mask export`, or hf://USER/NAME.
        pictures: Photos, or folders of photos.
        out: Folder for the masks. Subfolders of a folder of photos are kept.
        overlay: Write NAME.overlay.jpg too: the mask drawn over the photo.
        threshold: A pixel is an object if the network's probability of all objects together
            reaches this. Lower: more is found, and more wrongly. The CRF follows.
        tile: Cut pictures at their own pixels into tiles of this side, instead of reducing them:
            for microscopy, drone and satellite pictures.
        overlap: Pixels that neighboring tiles share, and in which they are blended.
        form: Write the masks for another tool too, with copies of the photos, to OUT/FORMAT.
    """
    from tag2mask.api import load

    trained = load(run)
    errors: list[DataError] = []
    rows = trained.predict_to(pictures, out, overlay, threshold, tile, overlap, errors.append, form)
    masks = {row["mask"]: row["class"] for row in rows}
    empty = sum(name is None for name in masks.values())
    numbers = ", ".join(f"{number} {name}" for number, name in trained.names.items())
    nothing = f", {empty} of them all background" if empty else ""
    show(f"{len(masks)} mask{'s' * (len(masks) != 1)} in {out}{nothing}; class numbers: {numbers}")
    if errors:
        raise DataError([str(error) for error in errors])


def _view(
    run: Positional[Path], host: str | None = None, port: int | None = None, browser: bool = True
) -> None:
    """Look at the photos and masks of a run in the browser, and correct them. Ctrl-C ends it.

    It also works during a training.

    Args:
        run: A run folder.
        host: Address at which other computers reach the page; 0.0.0.0: all addresses of this
            computer. The page's address then holds a token: who has it can see and correct
            everything. Without it: this computer alone.
        port: Port of the page. Without it: 8123, or the next that is free.
        browser: Open the page in the browser.
    """
    from tag2mask.view.serve import serve

    serve(run, host, port, browser, lambda address: show(f"{run} is at {address} (Ctrl-C ends it)"))


def _crf(argv: list[str]) -> None:
    from tag2mask.crf import PRESETS, CRFParams, backend
    from tag2mask.crf.refine_file import refine_file

    def crf(
        image: Positional[Path],
        scores: Positional[Path],
        out: Path,
        preset: str = "vit_pcm",
        labels: tuple[int, ...] = (),
        options: Any = None,
    ) -> None:
        """Refine the probabilities of one photo with the dense CRF.

        Args:
            image: The photo.
            scores: Probabilities: .npy, (C, H, W), each from 0 to 1.
            out: .png: class numbers, (H, W); .npy: probabilities, (C, H, W) float32.
            preset: Parameters of published work: {presets}. They set the defaults below.
            labels: Class numbers that may win. Without it: all.
        """
        refined = refine_file(image, scores, out, CRFParams(**asdict(options)), labels)
        mask = refined.argmax(0)
        shares = {i: float((mask == i).mean()) for i in range(len(refined))}
        text = ", ".join(f"{i}: {share:.1%}" for i, share in shares.items() if share)
        size = f"{mask.shape[1]} x {mask.shape[0]}"
        show(f"{out}: {size}, pixels by class {text} (dense CRF in {backend()})")

    preset = named_settings(argv).preset
    if preset not in PRESETS:
        raise ConfigError(f"no CRF preset {preset!r}; there are {', '.join(PRESETS)}")
    crf.__doc__ = (crf.__doc__ or "").format(presets=", ".join(PRESETS))
    parse(crf, "crf", argv, options=make_options(PRESETS[preset]))


# ---- commands on cluster files -------------------------------------------------------------------


def _cluster_tree(clusters: "Clusters") -> Tree:
    count = f"{clusters.num_clusters} clusters of {len(clusters.tags)} tags"
    tree = Tree(Text(f"{count}: {clusters.source}"))
    for name, group in clusters.as_mapping.items():
        tree.add(Text(f"{name} ({len(group)})", style="bold")).add(Text(", ".join(group)))
    return tree


def _make_clusters(
    tags: Path, out: Path = Path("clusters.json"), seed: int = 0, options: Any = None
) -> None:
    """Make a cluster file for a list of tags. Answers of a language model are kept beside it.

    Args:
        tags: A data set, read as `tag2mask tags` reads it, or a .txt file with one tag per line.
        out: The cluster file.
        seed: Seed of the control `random`.
    """
    from tag2mask.clusters import make_clusters
    from tag2mask.clusters.make import read_tags
    from tag2mask.clusters.transcript import transcript_beside

    keep_inputs(out, tags)
    settings = changed_config(Config(), {"clusters": asdict(options)}).clusters
    read = read_tags if tags.suffix.lower() in ("", ".txt") and not tags.is_dir() else tags_in
    clusters = make_clusters(read(tags), settings, seed, transcript_beside(out))
    clusters.save(out)
    show(_cluster_tree(clusters))


def _show_clusters(file: ClusterFile) -> None:
    """Print the clusters of a file, and their stability if a language model made them."""
    from tag2mask.clusters import load_clusters

    clusters = load_clusters(file)
    show(_cluster_tree(clusters))
    if tags := clusters.given_away():
        show(f"Tags with a unique cluster vector: {', '.join(tags)}")
    if clusters.transcript and (file.parent / clusters.transcript).exists():
        _cluster_stability(file)
    elif clusters.transcript:
        show(f"Stability unknown: {clusters.transcript} is not in the folder of {file}")


def _replay_clusters(file: ClusterFile) -> None:
    """Make the clusters of a file again from its stored answers, offline, and compare them."""
    from tag2mask.clusters import load_clusters
    from tag2mask.clusters.refine import replay

    clusters, votings = replay(file)
    show(_cluster_tree(clusters))
    if clusters.as_mapping != load_clusters(file).as_mapping:
        raise ClusterError(
            f"{file} differs from the result of its transcript, which is shown above"
        )
    answers = sum(len(voting.answers) for voting in votings)
    show(f"{file}: the same clusters again, from {answers} stored answers")


def _cluster_stability(file: ClusterFile) -> None:
    """Print how far the answers behind a file agree, for 2, 6 and 10 queries (CPC Table 5)."""
    from tag2mask.clusters.refine import replay
    from tag2mask.clusters.vote import stability

    for voting in replay(file)[1]:
        columns = ("R", "winner's share", "distinct", "adjusted Rand", "same winner as all")
        table = Table(*columns, title=Text(str(voting)), title_justify="left")
        for row in stability(voting.answers):
            table.add_row(*map(format, row, ("", ".2f", ".1f", ".3f", ".2f")))
        show(table)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "run": _run,
    "demo": _demo,
    "predict": partial(parse, _predict, "predict"),
    "view": partial(parse, _view, "view"),
    "export": partial(parse, export, "export"),
    "push": partial(parse, push, "push"),
    **{c.__name__: partial(parse_reading, c, c.__name__) for c in (tags, check, convert, correct)},
    "download": partial(parse, download, "download"),
    **{name: partial(_stages, name, [name]) for name in STAGE_READS},
    "classifier": partial(_stages, "classifier", ["check", "classifier"]),  # before hours of it
    "evaluate": _evaluate,
    "clusters make": partial(
        parse, _make_clusters, "clusters make", options=make_options(ClusterSettings())
    ),
    "clusters show": partial(parse, _show_clusters, "clusters show"),
    "clusters replay": partial(parse, _replay_clusters, "clusters replay"),
    "clusters stability": partial(parse, _cluster_stability, "clusters stability"),
    "crf": _crf,
}
