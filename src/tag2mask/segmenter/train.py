"""The segmenter's training: SGD with a poly schedule, on pseudo masks or any others."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from tag2mask.config import SegmenterSettings
from tag2mask.errors import TrainingError
from tag2mask.loop import CONTINUED, Phase, fit
from tag2mask.photos.table import BACKGROUND, Table
from tag2mask.photos.tensors import seeded
from tag2mask.segmenter.deeplab import DeepLabV2
from tag2mask.segmenter.examples import PseudoMasked, is_object
from tag2mask.segmenter.losses import segmentation_loss

# Photos of nothing in an epoch for each other one, at most. Most of the other photos is background
# already: with one for each, a segmenter of small things learned that all is background.
NOTHING = 0.25
MASKS_READ = 500  # masks whose object pixels are counted before training
CROPS_TRIED = 32  # crops with objects on which the trained network is tested


def train_segmenter(
    table: Table,
    masks: Path,
    settings: SegmenterSettings,
    folder: Path,
    seed: int,
    workers: int,
    start: DeepLabV2 | None = None,
) -> DeepLabV2:
    """Photos and a folder of masks (NAME.png) to a trained DeepLabV2 in eval mode.

    start: an earlier network of the same classes: it does the last part of the training again.
    Resumes from the newest checkpoint in `folder`.

    Raises:
        DataError: a mask is missing, has another size, or has an unknown class number.
        TrainingError: the loss is not finite, the masks have no objects, or the network predicts
            only background.
    """
    with seeded(seed):
        model = start or DeepLabV2(settings, table.classes)
    skipped = settings.steps - math.ceil(CONTINUED * settings.steps) if start else 0
    side, mean = model.backbone.side(settings.crop_size), model.backbone.mean.clone()
    examples = PseudoMasked(table, masks, settings, side, mean)
    guard = BackgroundGuard(examples)

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        image, mask = batch
        logits = network(image)
        objects = (logits.detach().argmax(1) != BACKGROUND).float().mean()
        guard.step(objects)
        return {"loss": segmentation_loss(logits, mask, settings.balanced), "objects": objects}

    def poly(step: int) -> float:
        return float((1 - (skipped + step) / settings.steps) ** settings.poly_power)

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
    return trained


def optimizer(model: DeepLabV2, settings: SegmenterSettings) -> torch.optim.SGD:
    """SGD as in deeplab-pytorch: the heads have 10 times the learning rate, their biases 20 times;
    biases and norms have no weight decay."""
    lr, trained = settings.lr, [p for p in model.backbone.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "lr": lr},
        {"params": [p for p in trained if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
        {"params": [head.weight for head in model.heads], "lr": 10 * lr},
        {"params": [head.bias for head in model.heads], "lr": 20 * lr, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.SGD(
        groups, lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


class BackgroundGuard:
    """Stops a training whose network predicts only background, for a long time or at its end.

    Raises TrainingError with advice."""

    def __init__(self, examples: PseudoMasked):
        self.examples = examples
        self.share, self.with_objects, self.read = examples.share_of_objects(MASKS_READ)
        if not self.with_objects:
            raise TrainingError(
                f"none of the {self.read} masks read in {examples.folder} has an object pixel: "
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
    def check(self, model: DeepLabV2) -> None:
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
        settings = self.examples.settings
        balanced = "" if settings.balanced else "; --segmenter.balanced may help"
        if self.share < 0.03:
            advice = f"That is very little: look at the masks in {self.examples.folder}"
        else:
            advice = (
                f"That is enough to learn from. The learning rate ({settings.lr:g}) may be wrong, "
                f"the steps ({settings.steps}) too few, or the weights unsuitable; "
                f"try --segmenter.lr {settings.lr * 4:g} or {settings.lr / 4:g}"
            )
        raise TrainingError(
            f"the segmenter predicts background for {where}. {self.share:.1%} of the masks' pixels "
            f"are objects ({self.with_objects} of {self.read} masks have some). {advice}{balanced}"
        )
