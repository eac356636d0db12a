"""Settings of the dense CRF for use alone, and named presets with those of published work."""

from typing import Any

from pydantic import ModelWrapValidatorHandler, ValidationError, model_validator

from tag2mask.config import CRFSettings
from tag2mask.config_files import faults
from tag2mask.errors import ConfigError

# The CRF where a small thing may be: its colors differ little from what is around it, and beyond
# some pixels it has no neighbors of its own.
NARROW = {"gaussian_weight": 1, "bilateral_sxy": 15, "bilateral_srgb": 5, "bilateral_weight": 6}
LATTICE_FULL = "sxy or srgb of the CRF is too small for an image of this size: its lattice is full"


def narrow(settings: CRFSettings) -> CRFSettings:
    """The CRF's settings for a photo with a small thing."""
    return settings.model_copy(update=NARROW)


class CRFParams(CRFSettings):
    """`CRFSettings` for use alone. Raises ConfigError with every setting out of range."""

    @model_validator(mode="wrap")
    @classmethod
    def _raise_config_error(
        cls, values: Any, handler: "ModelWrapValidatorHandler[CRFParams]"
    ) -> "CRFParams":
        try:
            return handler(values)
        except ValidationError as error:
            raise ConfigError(f"the CRF cannot run: {'; '.join(faults(error))}") from None


# The values in published code. deeplab: deeplab-pytorch, also used by ViT-PCM and CLIP-ES; irn:
# `crf_inference` of PSA and IRN; irn_label: their `crf_inference_label`.
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
