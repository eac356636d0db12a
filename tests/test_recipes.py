"""What the recipes promise of the papers' data sets."""

import pytest
from PIL import Image

from tag2mask.config_files import load_recipe
from tag2mask.photos.resize import reduced


@pytest.mark.parametrize(
    ("recipe", "largest"),
    [
        ("coco14-cpc", (640, 480)),
        ("coco14-cpc", (480, 640)),
        ("voc12-cpc", (500, 375)),
        ("ppc", (500, 500)),
    ],
)
def test_photos_of_the_papers_keep_their_size(recipe, largest):
    photo, settings = Image.new("RGB", largest), load_recipe(recipe)
    assert (
        reduced(photo, settings.segmenter.image_size) is photo
    )  # training crops, prediction and the CRF behind it
    assert reduced(photo, settings.masks.mask_size) is photo  # the pseudo masks' CRF
