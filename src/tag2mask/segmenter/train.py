"""The segmenter's training with a poly schedule, on pseudo masks or any others."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tag2mask.config import CRFSettings, SegmenterSettings
from tag2mask.errors import TrainingError
from tag2mask.loop import CONTINUED, Phase, fit
from tag2mask.photos.table import BACKGROUND, Photo, Table
from tag2mask.photos.tensors import seeded
from tag2mask.progress import log
from tag2mask.segmenter.examples import PseudoMasked, Survey, is_object, survey_masks
from tag2mask.segmenter.heads import create_segmenter
from tag2mask.segmenter.losses import segmentation_loss, small_things_loss
from tag2mask.segmenter.network import Segmenter
from tag2mask.segmenter.predict import predict_photos

# Photos of nothing in an epoch for each other one, at most. Most of the other photos is background
# already: with one for each, a segmenter of small things learned that all is background.
NOTHING = 0.25
# Share of the steps in which the learning rate rises from 0: AdamW's averages are empty at first.
WARM_UP = {"fpn": 0.05, "deeplab_v2": 0.0}
LEAST_NOTHING, MOST_NOTHING = 20, 200  # photos of nothing that are predicted after training
ASIDE = 2  # if there are enough, every second photo of nothing is not learned from
# Photos of nothing ask for no more than this probability of objects: in some of them may be things
# that nobody tagged.
MOST_CERTAIN = 0.9
TINY = 1e-6  # a probability counts as no less
# The standard deviation of a class's logit counts as no less. Of a class that is never seen but
# once, it is nearly 0 without that photo, which would be more certain than any other.
LEAST_STD = 1.0
MASKS_READ = 500  # masks whose object pixels are counted before training
CROPS_TRIED = 32  # crops with objects on which the trained network is tested


def train_segmenter(
    table: Table,
    masks: Path,
    settings: SegmenterSettings,
    folder: Path,
    seed: int,
    workers: int,
    start: Segmenter | None = None,
) -> Segmenter:
    """Photos and a folder of masks (NAME.png) to a trained network in eval mode.

    start: an earlier network of the same classes: it does the last part of the training again.
    Resumes from the newest checkpoint in `folder`.

    Raises:
        DataError: a mask is missing, has another size, or has an unknown class number.
        TrainingError: the loss is not finite, the masks have no objects, or the network predicts
            only background.
    """
    table, aside = set_aside(table) if settings.most_marked < 1 else (table, [])
    survey = survey_masks(table, masks, MASKS_READ)
    # The papers' DeepLabV2 stays theirs: only a pyramid looks closer at small things.
    small = survey.small if settings.head == "fpn" else ()
    with seeded(seed):
        model = start or create_segmenter(fitted(settings, small), table.classes)
    skipped = settings.steps - math.ceil(CONTINUED * settings.steps) if start else 0
    side, mean = model.backbone.side(settings.crop_size), model.backbone.mean.clone()
    examples = PseudoMasked(table, masks, settings, side, mean)
    model.small = examples.small = small
    if small:
        names = ", ".join(table.classes[number] for number in small)
        log.info(
            f"segmenter: small things: {names}; half of the crops of their photos show them, and "
            f"the network has cells of {model.stride} pixels"
        )
    guard = BackgroundGuard(examples, survey)

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        image, mask = batch
        logits = network(image)
        objects = (logits.detach().argmax(1) != BACKGROUND).float().mean()
        guard.step(objects)
        pixels = segmentation_loss(logits, mask, settings.balanced)
        return {"loss": pixels + small_things_loss(logits, mask, small), "objects": objects}

    warm_up = WARM_UP[settings.head] * settings.steps

    def poly(step: int) -> float:
        rate = (1 - (skipped + step) / settings.steps) ** settings.poly_power
        return float(rate * min(1.0, (step + 1) / (warm_up + 1)))

    trained = fit(
        model,
        loss,
        examples,
        [Phase(settings.steps - skipped, lambda: optimizer(model, settings), poly)],
        folder,
        batch_size=settings.batch_size,
        seed=seed,
        precision=settings.precision,
        workers=workers,
        what="segmenter",
        nothing=table.nothing,
        ratio=NOTHING,
    ).eval()
    guard.check(trained)
    trained.least = least_certain(trained, aside, settings.most_marked)
    return trained


def fitted(settings: SegmenterSettings, small: tuple[int, ...]) -> SegmenterSettings:
    """Settings in which `output_stride` "auto" is 4 where things are small."""
    if settings.output_stride == "auto" and small:
        return settings.model_copy(update={"output_stride": 4})
    return settings


def set_aside(table: Table) -> tuple[Table, list[Photo]]:
    """Photos to those that the network learns from, and up to 200 photos of nothing for
    `least_certain`: every second (of more than 400, fewer), which it does not learn from. If these
    are fewer than 20: all photos of nothing, and it learns from them too."""
    nothing = table.nothing
    some = nothing[:: max(ASIDE, math.ceil(len(nothing) / MOST_NOTHING))]
    if len(some) < LEAST_NOTHING:
        return table, [table.photos[index] for index in nothing]
    log.info(
        f"segmenter: {len(some)} of {len(nothing)} photos of nothing are not learned from; "
        "they say how certain it must be"
    )
    return table.without(some), [table.photos[index] for index in some]


def least_certain(
    model: Segmenter, nothing: Sequence[Photo], most_marked: float
) -> float | tuple[float, ...]:
    """How certain each class must be, so that at most a share `most_marked` of new photos of
    nothing is marked, in the mean (split conformal prediction). C values up to 0.9; 0 for fewer
    than 20 photos.

    More are marked if the network learned from these photos, or of fewer than 1 / `most_marked`.
    """
    if len(nothing) < LEAST_NOTHING or most_marked == 1:
        return 0.0
    plain = model.settings.model_copy(update={"crf": CRFSettings(iterations=0)})
    most = [p.probs.max((1, 2)) for _, p in predict_photos(model, nothing, plain)]
    # Where one class is often seen, another never, the same probability does not say the same. So
    # a photo is as certain as its class that is the most standard deviations above its mean.
    evidence = torch.logit(torch.from_numpy(np.stack(most)[:, BACKGROUND + 1 :]).double(), TINY)
    # Each is measured by the others, as a new photo is by all.
    count, squares = len(most) - 1, evidence.square()
    mean = (evidence.sum(0) - evidence) / count
    variance = (squares.sum(0) - squares) / count - mean.square()
    std = variance.clamp(min=LEAST_STD**2).sqrt()
    values = ((evidence - mean) / std).amax(1).sort().values
    # A new photo is as likely as each of these to be one of the `marked` most certain of all.
    marked = max(1, math.floor(most_marked * (len(values) + 1)))
    std = evidence.std(0, correction=0).clamp(min=LEAST_STD)
    least = (evidence.mean(0) + values[-marked] * std).sigmoid()
    # Other numbers of threads give the same file.
    return (0.0, *((1e4 * least).ceil() / 1e4).clamp(max=MOST_CERTAIN).tolist())


def optimizer(model: Segmenter, settings: SegmenterSettings) -> torch.optim.Optimizer:
    """The optimizer of a network: the layers on the backbone have 10 times its learning rate;
    biases and norms have no weight decay.

    deeplab_v2: SGD as in deeplab-pytorch, where the heads' biases have 20 times the rate. fpn:
    AdamW.
    """
    lr, decay, is_deeplab = settings.lr, settings.weight_decay, settings.head == "deeplab_v2"
    groups = []
    for is_backbone in (True, False):
        parameters = [
            parameter
            for name, parameter in model.named_parameters()
            if name.startswith("backbone.") == is_backbone and parameter.requires_grad
        ]
        weights = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        rate = lr if is_backbone else 10 * lr
        twice = 2 if is_deeplab and not is_backbone else 1
        groups += [
            {"params": weights, "lr": rate},
            {"params": others, "lr": twice * rate, "weight_decay": 0.0},
        ]
    groups = [group for group in groups if group["params"]]
    if settings.head == "fpn":
        return torch.optim.AdamW(groups, lr, weight_decay=decay)
    return torch.optim.SGD(groups, lr, momentum=settings.momentum, weight_decay=decay)


class BackgroundGuard:
    """Stops a training whose network predicts only background, for a long time or at its end.

    Raises TrainingError with advice."""

    def __init__(self, examples: PseudoMasked, survey: Survey):
        self.examples, self.survey = examples, survey
        if not survey.with_objects:
            raise TrainingError(
                f"none of the {survey.masks} masks read in {examples.folder} has an object pixel: "
                "there is nothing to learn. Look at the score maps in the report; the training of "
                "the patch classifier may have failed"
            )
        # A network may predict background only at the start, but not for a quarter of the training.
        self.stretch = max(100, examples.settings.steps // 4)
        self.steps, self.most = 0, torch.zeros(())

    def step(self, objects: Tensor) -> None:
        """Record a training step: the share of its cells that were predicted as objects."""
        self.most = torch.maximum(self.most.to(objects.device), objects)
        self.steps += 1
        if self.steps == self.stretch:
            if not self.most.item():
                self._stop(f"every pixel of {self.stretch} training steps in a row")
            self.steps, self.most = 0, torch.zeros(())

    @torch.inference_mode()
    def check(self, model: Segmenter) -> None:
        """Test the trained network on training crops with objects."""
        device, tried = next(model.parameters()).device, 0
        nothing = set(self.examples.table.nothing)
        for index in (i for i in range(len(self.examples)) if i not in nothing):
            image, mask = self.examples[index, index]
            if not is_object(mask).any():
                continue
            logits = model(image[None].to(device))
            if not logits.isfinite().all():  # the last step can do this, after a finite loss
                raise TrainingError(
                    "the segmenter's logits are NaN or infinite; "
                    f"lower its learning rate ({self.examples.settings.lr:g})"
                )
            if (logits.argmax(1) != BACKGROUND).any():
                return
            tried += 1
            if tried == CROPS_TRIED:
                break
        if tried:
            self._stop(f"every pixel of {tried} training crops with objects")

    def _stop(self, where: str) -> None:
        settings, survey = self.examples.settings, self.survey
        balanced = "" if settings.balanced else "; --segmenter.balanced may help"
        if survey.share < 0.03:
            advice = f"That is very little: look at the masks in {self.examples.folder}"
        else:
            advice = (
                f"That is enough to learn from. The learning rate ({settings.lr:g}) may be wrong, "
                f"the steps ({settings.steps}) too few, or the weights unsuitable; "
                f"try --segmenter.lr {settings.lr * 4:g} or {settings.lr / 4:g}"
            )
        raise TrainingError(
            f"the segmenter predicts background for {where}. {survey.share:.1%} of the masks' "
            f"pixels are objects ({survey.with_objects} of {survey.masks} masks have some). "
            f"{advice}{balanced}"
        )
