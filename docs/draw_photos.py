"""Draw docs/photos.jpg, what a trained run makes of free photos: `python docs/draw_photos.py RUN`.

The published picture is of the recipe `photos` on voc-animals, seed 0 (benchmarks/results.md). The
network has not seen these photos (docs/pictures.md). Only their tags are given, and no setting is
chosen for them.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import tag2mask
from tag2mask.masks.scores import relative
from tag2mask.photos.colors import color, mask_layer
from tag2mask.photos.table import Photo, Table
from tag2mask.report.draw import heatmap
from tag2mask.runs.mask_maker import mask_maker

HERE = Path(__file__).parent
SIDE, GAP, TITLE = (384, 288), 12, 76  # of a picture: width and height, in pixels
SHOWN = ("cat", "cow", "sheep", "dog")
ROWS = ("photo and tag: what you have", "score map: where the tag is seen", "mask: what you get")


def picture(photo: Image.Image) -> Image.Image:
    """The middle of a photo, in the shape of all pictures of the figure."""
    width = min(photo.width, photo.height * SIDE[0] / SIDE[1])
    height = width * SIDE[1] / SIDE[0]
    left, top = (photo.width - width) / 2, (photo.height - height) / 2
    return photo.resize(SIDE, Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))


def tagged(photo: Image.Image, tag: str, number: int) -> Image.Image:
    """A picture with its tag in a corner."""
    draw, letters = ImageDraw.Draw(photo), ImageFont.load_default(30)
    width = draw.textlength(tag, letters)
    draw.rounded_rectangle((8, 8, 8 + width + 28, 52), 10, fill=color(number))
    draw.text((22, 12), tag, (16, 16, 20), letters)
    return photo


def columns(run: tag2mask.Run) -> list[list[Image.Image]]:
    """Of each photo: the photo with its tag, its score map, and its pseudo mask."""
    photos = [Photo(tag, HERE / "photos" / f"{tag}.jpg", (tag,)) for tag in SHOWN]
    maker, classes = mask_maker(run), ["background", *run.table.tags]
    made = []
    for photo, maps in maker.all_score_maps(Table(run.table.tags, tuple(photos)).photos):
        (tag,), image = photo.tags, photo.open()
        scores = maker.scores(maps, maker.present(photo))
        heat = heatmap(image, relative(maps)[1].numpy())
        layer = mask_layer(maker.mask(photo, scores), image.size)
        mask = Image.alpha_composite(image.convert("RGBA"), layer)
        first = tagged(picture(image), tag, classes.index(tag))
        made.append([first, picture(heat), picture(mask)])
    return made


def figure(run: tag2mask.Run) -> Image.Image:
    """Three rows: photos, score maps, masks."""
    drawn = columns(run)
    width, height = SIDE[0] + GAP, SIDE[1] + TITLE
    page = Image.new("RGB", (len(drawn) * width - GAP, len(ROWS) * height), "white")
    draw = ImageDraw.Draw(page)
    for row, title in enumerate(ROWS):
        draw.text((4, row * height + 22), title, (40, 40, 46), ImageFont.load_default(40))
        for column, pictures in enumerate(drawn):
            page.paste(pictures[row], (column * width, row * height + TITLE))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run folder with a classifier")
    figure(tag2mask.load(parser.parse_args().run)).save(HERE / "photos.jpg", quality=85)


if __name__ == "__main__":
    main()
