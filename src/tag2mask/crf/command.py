"""`tag2mask crf image.jpg scores.npy --out mask.png`: refine one picture's probabilities without a run or a model."""

from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image

from tag2mask.crf.inference import backend, dense_crf
from tag2mask.crf.params import PRESETS, CRFParams
from tag2mask.errors import ConfigError, DataError
from tag2mask.files import writing
from tag2mask.photos.images import open_image


def crf_command(
    image: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(help="The picture.")],
    scores: Annotated[
        tyro.conf.Positional[Path],
        tyro.conf.arg(help="Probabilities: .npy, (C, H, W), each in 0..1."),
    ],
    out: Annotated[
        Path,
        tyro.conf.arg(help=".png: class numbers, (H, W); .npy: probabilities, (C, H, W) float32."),
    ],
    preset: Annotated[
        str, tyro.conf.arg(help=f"Parameters by the work that uses them: {', '.join(PRESETS)}.")
    ] = "vit_pcm",
    labels: Annotated[
        tuple[int, ...], tyro.conf.arg(help="Class numbers that may win; all, where none is given.")
    ] = (),
    params: Annotated[
        CRFParams | None, tyro.conf.arg(help="Parameters one by one, instead of a preset.")
    ] = None,
) -> str:
    """Refine probabilities along the edges of a picture with the dense CRF and write what won where."""
    if params is None and preset not in PRESETS:
        raise ConfigError(f"no CRF preset {preset!r}; there are {', '.join(PRESETS)}")
    if out.suffix not in (".png", ".npy"):
        raise ConfigError(
            f"{out}: give a file name that ends in .png (class numbers) or .npy (probabilities)"
        )
    try:
        probs = np.load(scores, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{scores}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{scores}: not a .npy file of numbers ({error})") from None
    if not isinstance(probs, np.ndarray):
        raise DataError(f"{scores}: holds several arrays; save one with numpy.save")
    if out.suffix == ".png" and probs.ndim == 3 and len(probs) > 256:
        raise DataError(
            f"{scores} has {len(probs)} classes and a .png mask holds 256; give an --out that ends in .npy"
        )
    refined = dense_crf(
        np.asarray(open_image(image)), probs, params or PRESETS[preset], list(labels) or None
    )
    with writing(out) as temporary:
        if out.suffix == ".png":
            Image.fromarray(refined.argmax(0).astype(np.uint8)).save(temporary, format="PNG")
        else:
            with temporary.open("wb") as stream:
                np.save(stream, refined)
    won = np.bincount(refined.argmax(0).ravel(), minlength=len(refined)) / refined[0].size
    shares = ", ".join(f"{label}: {share:.1%}" for label, share in enumerate(won) if share)
    return f"{out}: {refined.shape[2]} x {refined.shape[1]}, pixels by class {shares} (dense CRF in {backend()})"
