"""What a dense CRF is told: two kernels and a number of iterations, and the settings that published work uses, by name."""

from dataclasses import dataclass
from typing import Literal

from tag2mask.errors import ConfigError

NO_ROOM = "sxy or srgb of the CRF is too small for a picture of this size: its lattice has no room"


@dataclass(frozen=True)
class CRFParams:
    """Settings of the fully connected CRF of Krähenbühl and Koltun (2011), named and meant as pydensecrf means them.

    The Gaussian kernel looks at positions alone, the bilateral one at positions and colours. The defaults are those of ViT-PCM,
    which PCC, PPC and CPC follow. Raises ConfigError with every setting that is out of range.
    """

    iterations: int = (
        10  # mean-field steps; 0 gives the probabilities back, clipped to 1e-5 and normalised
    )
    gaussian_sxy: float = 1  # pixels, standard deviation of the Gaussian kernel
    gaussian_weight: float = 3  # 0 leaves the kernel out
    bilateral_sxy: float = 67  # pixels
    bilateral_srgb: float = 3  # colour levels, of 0..255
    bilateral_weight: float = 4  # 0 leaves the kernel out
    # deeplab_compat: the image as deeplab-pytorch and CLIP-ES hand it to their CRF, see `deeplab_image`; for comparisons only
    image: Literal["rgb", "deeplab_compat"] = "rgb"

    def __post_init__(self) -> None:
        problems = []
        if not (isinstance(self.iterations, int) and 0 <= self.iterations <= 1000):
            problems.append(
                f"iterations is {self.iterations!r}; give a whole number from 0 to 1000"
            )
        # Below half a pixel the Gaussian sees no neighbour; the others have the bounds within which float32 can place a pixel.
        for name, least in (("gaussian_sxy", 0.5), ("bilateral_sxy", 0.5), ("bilateral_srgb", 0.1)):
            value = getattr(self, name)
            if not least <= value <= 1e6:
                problems.append(f"{name} is {value!r}; give a number from {least} to 1e6")
        for name in ("gaussian_weight", "bilateral_weight"):
            value = getattr(self, name)
            if not 0 <= value <= 1e6:
                problems.append(f"{name} is {value!r}; give a number from 0 to 1e6")
        if self.image not in ("rgb", "deeplab_compat"):
            problems.append(f"image is {self.image!r}; give 'rgb' or 'deeplab_compat'")
        if problems:
            raise ConfigError("the CRF cannot run: " + "; ".join(problems))


# As their code has them. deeplab is deeplab-pytorch's, which ViT-PCM and CLIP-ES took over; irn is `crf_inference` of PSA and IRN,
# irn_label their `crf_inference_label`. deeplab-pytorch itself ran on the wrapped image: add image="deeplab_compat" to repeat that.
PRESETS: dict[str, CRFParams] = {
    "vit_pcm": CRFParams(),
    "deeplab": CRFParams(),
    "clip_es": CRFParams(),
    "toco": CRFParams(gaussian_weight=1, bilateral_sxy=121, bilateral_srgb=5),
    "dupl": CRFParams(gaussian_weight=1, bilateral_sxy=121, bilateral_srgb=5),
    "weclip": CRFParams(gaussian_sxy=3, bilateral_sxy=64, bilateral_srgb=5),
    "weaktr": CRFParams(gaussian_sxy=3, bilateral_sxy=83, bilateral_srgb=5, bilateral_weight=3),
    "irn": CRFParams(gaussian_sxy=3, bilateral_sxy=80, bilateral_srgb=13, bilateral_weight=10),
    "irn_label": CRFParams(gaussian_sxy=3, bilateral_sxy=50, bilateral_srgb=5, bilateral_weight=10),
}
