"""The methods that `quality.py` compares, and the settings of each.

Sets (`SETS`) differ in photos and training. In one set, every method trains the same backbone
from the same weights on the same photos, at the same size, for the same epochs. The methods
`photos` and `best` are `tag2mask run` with that recipe.

A fixed threshold for background is chosen with true masks, in favor of the control: `cam` shows
the best of six after the CRF. The methods of tag2mask use none. In the sets `domains` and
`ablation`, it is chosen on half of the photos, and all methods are scored on the other half.
"""

import argparse
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from domains import Domain

from tag2mask.config import Config, CRFSettings
from tag2mask.config_files import RECIPES, load_recipe, make_config, merged

PLAIN = {"token": "none", "mixer": "none", "tag_loss": "mean"}
SPREAD = "448 px, affinity, Otsu"  # the first masks of the recipe `photos`
NEW = "new masks"  # of a run's segmenter
READERS = 2 if torch.cuda.is_available() else 0  # processes that read photos, for each job


@dataclass(frozen=True)
class Bench:
    """What all methods of a set share."""

    photos: int | None = 320  # training photos; None: all of the folder
    epochs: int | Literal["auto"] = 5
    size: int = 320  # side of the training photos [pixels]
    steps: int = 800  # of a segmenter


OPEN = ("domains", "ablation")  # sets for any folder, with the sizes of its recipe (`shared_by`)
SETS = {
    **dict.fromkeys(OPEN, Bench(photos=None, epochs="auto")),
    "all": Bench(photos=1300, epochs=6),
    "320": Bench(),
}
# Methods that are a `tag2mask run`; rounds: `photos` with three rounds.
RUNS = ("photos", "best", "rounds")

# Name: (recipe, changes to its classifier, source of its clusters).
METHODS: dict[str, tuple[str, dict[str, Any], str]] = {
    "cam": ("photos", PLAIN, "none"),
    "vit_pcm": ("vit_pcm", {}, "none"),
    "ppc": ("ppc", {}, "voc-overlapping"),
    "cpc": ("cpc", {}, "voc"),
    "mean": ("photos", {"tag_loss": "mean"}, "voc"),
    "top_k": ("photos", {"tag_loss": "top_k"}, "voc"),
    "ours": ("photos", {}, "voc"),
}
# Parts of `photos` that act in its training; `ours` without each of them.
PARTS: dict[str, dict[str, Any]] = {
    "no token": {"token": "none"},
    "no BiLSTM": {"mixer": "none"},
    "no cosine": {"lr_decay": "none"},
    "no frozen epoch": {"frozen_epochs": 0},
}
LARGER = "ours: photos 1.5 times as large"
METHODS |= {f"ours: {name}": ("photos", changes, "voc") for name, changes in PARTS.items()}
METHODS[LARGER] = ("photos", {}, "voc")
TRAINED = ("ours", LARGER, *(f"ours: {name}" for name in PARTS), "mean", "top_k")  # of the ablation
# The ablation of what acts after the training of the classifier, and after that of the segmenter.
MASKS: dict[str, dict[str, Any]] = {
    "whole": {},
    "no affinity": {"affinity": False},
    "threshold 0.3 for all": {"threshold": 0.3},
    "no mirror": {"flip": False},
    "no small things": {"small_things": False},
    "no contrast": {"contrast": False},
    "three scales": {"scales": [1.0, 0.75, 1.3]},
}
# Views of open sets whose masks segmenters are trained on.
SEGMENTED = (
    "best threshold",
    "affinity, Otsu",
    "its own rule",
    "logits, affinity, Otsu",
    "whole",
    "no small things",
    "no contrast",
    "three scales",
)
PREDICTIONS: dict[str, dict[str, Any]] = {
    "no object first": {"object_first": False},
    "no mirror": {"flip": False},
    "no CRF": {"crf": CRFSettings(iterations=0)},
}


def open_views(task: "Task", bench: Bench) -> dict[str, dict[str, Any]]:
    """`views` in the sets for any folder."""
    plain = {"scales": [1.0], "flip": True, "affinity": False, "image_size": bench.size}
    if task.set == "ablation":
        at_training = {"at the training size": {"image_size": bench.size}}
        larger = {"whole": {"image_size": Domain(task.data).recipe.masks.image_size * 3 // 2}}
        return {"ours": MASKS | at_training, LARGER: larger}.get(task.method, {"whole": {}})
    alike = {"small_things": False, "contrast": False}  # spread and thresholds as in `photos`
    if task.method == "cam":
        bare = {**plain, **alike, "threshold": "best"}
        return {"best threshold": bare, "affinity, Otsu": alike, "as in photos": {}}
    if task.method == "cpc":
        logits = {**Domain(task.data).recipe.masks.model_dump(), **alike}
        return {"its own rule": plain, "logits, affinity, Otsu": logits}
    return {"whole": {}}


def views(task: "Task", bench: Bench) -> dict[str, dict[str, Any]]:
    """Ways to make masks from a classifier's scores: name -> changes to the recipe's mask settings.

    The method's own way comes first. The threshold "best" is chosen with true masks.
    """
    if task.set in OPEN:
        return open_views(task, bench)
    method, size, recipe = task.method, bench.size, METHODS[task.method][0]
    plain = {"scales": [1.0], "flip": True, "affinity": False, "image_size": size}
    if method == "cam":
        larger = {"448 px": {**plain, "image_size": 448, "threshold": "best"}}
        return {
            f"{size} px": {**plain, "threshold": "best"},
            **({} if (bench.photos or 0) > 320 else larger),
            SPREAD: {},
        }
    if recipe == "photos":
        return {
            SPREAD: {},
            f"{size} px, Otsu": plain,
            "3 scales, affinity, Otsu": {"scales": [1.0, 0.75, 1.3]},
        }
    spread = {**plain, "affinity": True, "image_size": 448}
    return {
        f"{size} px": plain,
        f"{size} px, affinity": {**plain, "affinity": True},
        "448 px, affinity": spread,
        f"{size} px, logits, Otsu": {**plain, "scores": "logits"},
        "448 px, logits, affinity, Otsu": {**spread, "scores": "logits"},
    }


@dataclass(frozen=True)
class Task:
    """One job: a method's pseudo masks, or the segmenter that is trained on one of its views."""

    data: Path
    set: str
    method: str
    seed: int
    masks: str = ""  # "": pseudo masks; else the view that the segmenter is trained on, or "true"

    @property
    def name(self) -> str:
        """The name of its files."""
        words = [self.set, self.method, str(self.seed)]
        if self.set in OPEN:
            words[0] = Domain(self.data).name + f"-{self.set}" * (self.set != "domains")
        if self.masks:
            words += ["segmenter", self.masks]
        short = "-".join(words).replace(", ", "_").replace(": ", "_")
        return "".join(c if c.isalnum() or c in "._-" else "_" for c in short)

    @property
    def before(self) -> "Task | None":
        """The job whose classifier it needs."""
        if not self.masks or self.method == "truth":
            return None
        return replace(self, masks="")


def shared_by(task: Task, options: argparse.Namespace) -> Bench:
    """The settings of a task's set, with those from the command line in their place."""
    bench = SETS[task.set]
    if task.set in OPEN:
        recipe = Domain(task.data).recipe
        bench = replace(
            bench,
            epochs=recipe.classifier.epochs,
            size=recipe.classifier.image_size * (3 if task.method == LARGER else 2) // 2,
            steps=recipe.segmenter.steps,
        )
    values = {name: getattr(options, name) for name in ("photos", "epochs", "steps")}
    changes = {name: value for name, value in values.items() if value is not None}
    return replace(bench, **changes)


def configure(task: Task, options: argparse.Namespace) -> Config:
    """A method's recipe with the settings that all methods of its set share."""
    shared, is_open = shared_by(task, options), task.set in OPEN
    recipe, changes, source = METHODS[task.method]
    photos = Domain(task.data).recipe if is_open else load_recipe("photos")
    if is_open and source != "none":
        source = photos.clusters.source
    same = ("backbone", "trained_blocks", "batch_size", "lr_decay", "head_lr_factor")
    settings = {
        "out": options.scratch / replace(task, masks="").name,
        "seed": task.seed,
        "photos": {"workers": READERS},
        "clusters": {"source": source},
        "classifier": {
            **{name: getattr(photos.classifier, name) for name in same},
            "image_size": shared.size,
            "epochs": shared.epochs,
            "frozen_epochs": 1,
            **changes,
        },
        "segmenter": photos.segmenter.model_dump() | {"steps": shared.steps, "rounds": 1},
    }
    start = photos if recipe == "photos" else load_recipe(recipe)
    return make_config(merged(start.model_dump(), settings))


def run_config_of(task: Task, options: argparse.Namespace) -> Config:
    """The settings of a `tag2mask run` on the folder of a task, without the files of photos."""
    shared, domain = shared_by(task, options), Domain(task.data)
    changes: dict[str, Any] = {
        "out": options.scratch / replace(task, masks="").name,
        "seed": task.seed,
        "photos": {"workers": READERS, "pseudo_list": domain.listed},
        "classifier": {"epochs": shared.epochs},
        "segmenter": {"steps": shared.steps},
        "val_masks": domain.data / "masks",
        "evaluate": {"classes": domain.numbering},
    }
    if task.method == "rounds":
        changes["segmenter"]["rounds"] = 3
    start = domain.recipe.model_dump()
    if task.method == "best":
        best = tomllib.loads((RECIPES / "best.toml").read_text(encoding="utf-8"))
        start = merged(start, {name: best[name] for name in best if name != "recipe"})
    return make_config(merged(start, changes))


def with_masks(config: Config, changes: dict[str, Any]) -> Config:
    """A method's settings with those of one of its views."""
    return make_config(merged(config.model_dump(), {"masks": changes}))
