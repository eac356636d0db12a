"""The dense CRF on files: a photo and its probabilities to a mask."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.crf.inference import dense_crf
from tag2mask.crf.params import CRFParams
from tag2mask.errors import ConfigError, DataError
from tag2mask.files import keep_inputs, writing
from tag2mask.photos.images import open_image


def refine_file(
    image: Path,
    scores: Path,
    out: Path,
    params: CRFParams | None = None,
    labels: Sequence[int] = (),
) -> np.ndarray:
    """Refine probabilities, a .npy file of shape (C, H, W), along the edges of a photo.

    Writes class numbers, (H, W), if `out` ends in .png, and probabilities if it ends in .npy.
    Only `labels` may win, or all classes if it is empty. Returns the probabilities, (C, H, W)
    float32. Raises ConfigError, DataError.
    """
    if out.suffix not in (".png", ".npy"):
        raise ConfigError(
            f"{out}: give a file name that ends in .png (class numbers) or .npy (probabilities)"
        )
    keep_inputs(out, image, scores)
    probs = _read_scores(scores)
    if out.suffix == ".png" and probs.ndim == 3 and len(probs) > 256:
        raise DataError(
            f"{scores} has {len(probs)} classes and a .png mask holds 256; "
            "give an --out that ends in .npy"
        )
    photo = np.asarray(open_image(image))
    refined = dense_crf(photo, probs, params or CRFParams(), list(labels) or None)
    with writing(out) as temporary:
        if out.suffix == ".png":
            Image.fromarray(refined.argmax(0).astype(np.uint8)).save(temporary, format="PNG")
        else:
            with temporary.open("wb") as stream:
                np.save(stream, refined)
    return refined


def _read_scores(path: Path) -> np.ndarray:
    try:
        probs = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # of zip files and of Python's tokenizer, too
        raise DataError(f"{path}: not a .npy file of numbers ({error})") from None
    if not isinstance(probs, np.ndarray):
        raise DataError(f"{path}: holds several arrays; save one with numpy.save")
    return probs
