"""The methods that `quality.py` compares, and the settings of each.

Sets (`SETS`) differ in photos and training. In one set, every method trains the same backbone
from the same weights on the same photos, at the same size, for the same epochs. The methods
`photos` and `best` are `tag2mask run` with that recipe.

A fixed threshold for background is chosen with true masks, in favor of the control: `cam` shows
the best of six after the CRF. The methods of tag2mask use none.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import torch

from tag2mask.config import Config
from tag2mask.config_files import load_recipe, make_config, merged

SCORED = ("background", "cat", "dog", "horse", "cow", "sheep", "person", "chair", "sofa")
PLAIN = {"token": "none", "mixer": "none", "tag_loss": "mean"}
SPREAD = "448 px, affinity, Otsu"  # the masks of the recipe `photos`
READERS = 2 if torch.cuda.is_available() else 0  # processes that read photos, for each job


@dataclass(frozen=True)
class Bench:
    """What all methods of a set share."""

    photos: int = 320  # training photos
    epochs: int = 5
    size: int = 320  # side of the training photos [pixels]
    frozen: bool = False  # train only the new layers
    backbone: str = "tf_efficientnet_lite0"
    steps: int = 800  # of a segmenter


SETS = {
    "all": Bench(photos=1300, epochs=6),
    "320": Bench(),
    "control": Bench(size=224, frozen=True),
    "vit": Bench(size=224, backbone="vit_small_patch14_dinov2"),
}
RUNS = ("photos", "best")  # methods that are a `tag2mask run` of the recipe

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
CLUSTER_SOURCES = ("random", "onehot", "supercategories", "offline", "voc")
TOKENS: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"token": "none"}, "none"),
    "class": ({"token": "class"}, "none"),
    **{source: ({}, source) for source in CLUSTER_SOURCES},
    "voc, dropout 0.5": ({"cluster_dropout": 0.5}, "voc"),
}
ARMS = {
    **{
        f"{base}: {name}": (METHODS[base][0], {**METHODS[base][1], **changes}, source)
        for base in ("cpc", "mean")
        for name, (changes, source) in TOKENS.items()
    },
    "cpc: voc, no PCE": ("cpc", {"pce_weight": 0.0}, "voc"),
    "mean: voc, no BiLSTM": ("photos", {"mixer": "none", "tag_loss": "mean"}, "voc"),
}
METHODS |= ARMS


def views(method: str, bench: Bench) -> dict[str, dict[str, Any]]:
    """Ways to make masks from a classifier's scores: name -> changes to the recipe's mask settings.

    The method's own way comes first. The threshold "best" is chosen with true masks.
    """
    size, recipe = bench.size, METHODS[method][0]
    plain = {"scales": [1.0], "flip": True, "affinity": False, "image_size": size}
    if method == "cam":
        larger = {"448 px": {**plain, "image_size": 448, "threshold": "best"}}
        return {
            f"{size} px": {**plain, "threshold": "best"},
            **({} if bench.photos > 320 else larger),
            SPREAD: {},
        }
    if method in ARMS:
        return {f"{size} px, Otsu" if recipe == "photos" else f"{size} px": plain}
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

    set: str
    method: str
    seed: int
    masks: str = ""  # "": pseudo masks; else the view that the segmenter is trained on, or "true"

    @property
    def name(self) -> str:
        """The name of its files."""
        words = [self.set, self.method, str(self.seed)]
        if self.masks:
            words += ["segmenter", self.masks]
        short = "-".join(words).replace(", ", "_").replace(": ", "_")
        return "".join(c if c.isalnum() or c in "._-" else "_" for c in short)

    @property
    def before(self) -> "Task | None":
        """The job whose classifier it needs."""
        if not self.masks or self.method == "truth":
            return None
        return Task(self.set, self.method, self.seed)


def shared_by(name: str, options: argparse.Namespace) -> Bench:
    """The settings of a set, with those from the command line in their place."""
    values = {name: getattr(options, name) for name in ("photos", "epochs", "steps")}
    changes = {name: value for name, value in values.items() if value is not None}
    return Bench(**{**vars(SETS[name]), **changes})


def configure(task: Task, options: argparse.Namespace) -> Config:
    """A method's recipe with the settings that all methods of its set share."""
    shared = shared_by(task.set, options)
    recipe, changes, source = METHODS[task.method]
    photos = load_recipe("photos")
    same = ("trained_blocks", "batch_size", "lr_decay", "head_lr_factor")
    settings = {
        "out": options.scratch / Task(task.set, task.method, task.seed).name,
        "seed": task.seed,
        "photos": {"workers": READERS},
        "clusters": {"source": source},
        "classifier": {
            **{name: getattr(photos.classifier, name) for name in same},
            "backbone": shared.backbone,
            "weights": options.weights or "auto",
            "image_size": shared.size,
            "epochs": shared.epochs,
            "frozen_epochs": shared.epochs if shared.frozen else 1,
            **changes,
        },
        "segmenter": photos.segmenter.model_dump() | {"steps": shared.steps},
    }
    return make_config(merged(load_recipe(recipe).model_dump(), settings))


def with_masks(config: Config, changes: dict[str, Any]) -> Config:
    """A method's settings with those of one of its views."""
    return make_config(merged(config.model_dump(), {"masks": changes}))


def result_row(summary: dict[str, Any]) -> dict[str, Any]:
    """The part of a summary of metrics that is kept in a result."""
    iou = {name: round(value, 5) for name, value in summary["iou"].items() if value is not None}
    keys = ("split", "images", "labels", "crf", "mean_over")
    return {key: summary[key] for key in keys} | {"miou": round(summary["miou"], 5), "iou": iou}
