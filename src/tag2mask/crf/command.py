"""`tag2mask crf image.jpg scores.npy --out mask.png`: refine one picture's probabilities without a run or a model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.crf.inference import backend, dense_crf
from tag2mask.crf.params import PRESETS, CRFParams
from tag2mask.data.table import open_image
from tag2mask.errors import ConfigError, DataError
from tag2mask.runs import writing


def crf_command(
    image: Path, scores: Path, out: Path, preset: str = "vit_pcm", labels: Sequence[int] = (), params: CRFParams | None = None
) -> str:
    """Refine `scores` (.npy, (C, H, W), each in 0..1) along the edges of `image`, write what won where; returns what was done.

    `out`: .png, an 8-bit mask of class numbers (H, W), or .npy, the probabilities (C, H, W) float32. `labels`: the class numbers
    that may win, all where empty. `params` overrides `preset`. Raises ConfigError and DataError.
    """
    if params is None and preset not in PRESETS:
        raise ConfigError(f"no CRF preset {preset!r}; there are {', '.join(PRESETS)}")
    if out.suffix not in (".png", ".npy"):
        raise ConfigError(f"{out}: give a file name that ends in .png (class numbers) or .npy (probabilities)")
    try:
        probs = np.load(scores, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{scores}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{scores}: not a .npy file of numbers ({error})") from None
    if not isinstance(probs, np.ndarray):
        raise DataError(f"{scores}: holds several arrays; save one with numpy.save")
    if out.suffix == ".png" and probs.ndim == 3 and len(probs) > 256:
        raise DataError(f"{scores} has {len(probs)} classes and a .png mask holds 256; give an --out that ends in .npy")
    refined = dense_crf(np.asarray(open_image(image)), probs, params or PRESETS[preset], list(labels) or None)
    with writing(out) as temporary:
        if out.suffix == ".png":
            Image.fromarray(refined.argmax(0).astype(np.uint8)).save(temporary, format="PNG")
        else:
            with temporary.open("wb") as stream:
                np.save(stream, refined)
    won = np.bincount(refined.argmax(0).ravel(), minlength=len(refined)) / refined[0].size
    shares = ", ".join(f"{label}: {share:.1%}" for label, share in enumerate(won) if share)
    return f"{out}: {refined.shape[2]} x {refined.shape[1]}, pixels by class {shares} (dense CRF in {backend()})"
