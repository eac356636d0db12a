"""Small data sets made by code in the layouts that people have."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.photos.classes import COCO, COCO_IDS, VOC
from tag2mask.photos.masks import write_mask

SIZE = (64, 48)  # width, height

# name -> tags; every tag in several photos, none everywhere, none always together with another
ANIMALS = {
    "2007_000001": ("cat",),
    "2007_000002": ("dog",),
    "2007_000003": ("cat", "sofa"),
    "2007_000004": ("dog", "sofa"),
    "2008_000005": ("cat", "dog"),
    "2008_000006": ("sofa",),
}


def picture(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """A picture of noise: no two seeds give the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def boxes(tags: tuple[str, ...]) -> dict[str, tuple[int, int, int, int]]:
    """Where the objects of a picture are: tag -> left, top, width, height, without overlaps."""
    return {tag: (4 + 20 * i, 6 + 2 * i, 14, 20 + 4 * i) for i, tag in enumerate(tags)}


def mask(tags: tuple[str, ...], numbers: dict[str, int]) -> np.ndarray:
    drawn = np.zeros(SIZE[::-1], np.uint8)
    for tag, (x, y, w, h) in boxes(tags).items():
        drawn[y : y + h, x : x + w] = numbers[tag]
    return drawn


def xml(name: str, tags: tuple[str, ...], width: int = SIZE[0], height: int = SIZE[1]) -> str:
    things = "".join(
        f"<object><name>{tag}</name><difficult>{i % 2}</difficult>"
        "<bndbox><xmin>1</xmin></bndbox></object>"
        for i, tag in enumerate(tags)
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}.jpg</filename>{size}{things}</annotation>"


def make_voc(
    folder: Path, photos: dict[str, tuple[str, ...]] | None = None, split: str = "train"
) -> Path:
    """VOCdevkit/VOC2012 with pictures, XML files, one list, and masks; returns VOC2012."""
    photos = ANIMALS if photos is None else photos
    root = folder / "VOCdevkit" / "VOC2012"
    for sub in ("Annotations", "ImageSets/Segmentation"):
        (root / sub).mkdir(parents=True, exist_ok=True)
    numbers = {tag: i for i, tag in enumerate(VOC, 1)}
    for i, (name, tags) in enumerate(photos.items()):
        picture(root / "JPEGImages" / f"{name}.jpg", seed=i)
        (root / "Annotations" / f"{name}.xml").write_text(xml(name, tags))
        drawn = mask(tags, numbers)
        drawn[0] = 255
        write_mask(root / "SegmentationClass" / f"{name}.png", drawn)
    (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(
        "".join(f"{name}\n" for name in photos)
    )
    return root


def make_coco(
    folder: Path,
    photos: dict[str, tuple[str, ...]],
    year: str = "train2014",
    categories: dict[str, int] | None = None,
) -> Path:
    """A COCO folder with one split; returns the instances JSON."""
    categories = categories or dict(zip(COCO, COCO_IDS, strict=True))
    images, annotations = [], []
    for i, (name, tags) in enumerate(photos.items(), 1):
        picture(folder / year / f"{name}.jpg", seed=i)
        images.append({"id": i, "file_name": f"{name}.jpg", "width": SIZE[0], "height": SIZE[1]})
        for tag, (x, y, w, h) in boxes(tags).items():
            outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": categories[tag],
                    "segmentation": outline,
                    **box,
                }
            )
    path = folder / "annotations" / f"instances_{year}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = [
        {"id": number, "name": name, "supercategory": "thing"}
        for name, number in categories.items()
    ]
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": listed})
    )
    return path


def make_yolo(
    folder: Path, photos: dict[str, tuple[str, ...]], names: list[str], split: str = "train"
) -> Path:
    """A YOLO segmentation export with one split; returns its data.yaml."""
    (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
    for i, (name, tags) in enumerate(photos.items()):
        picture(folder / "images" / split / f"{name}.jpg", seed=i)
        lines = []
        for tag, (x, y, w, h) in boxes(tags).items():
            points = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
            lines.append(
                f"{names.index(tag)} "
                + " ".join(f"{a / SIZE[0]:.6f} {b / SIZE[1]:.6f}" for a, b in points)
            )
        (folder / "labels" / split / f"{name}.txt").write_text("\n".join(lines))
    path = folder / "data.yaml"
    path.write_text(f"path: .\ntrain: images/train\nval: images/val\nnames: {json.dumps(names)}\n")
    return path


def make_labelme(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """A folder of LabelMe files beside their pictures."""
    for i, (name, tags) in enumerate(photos.items()):
        picture(folder / f"{name}.jpg", seed=i)
        shapes = [
            {
                "label": tag,
                "points": [[x, y], [x + w, y], [x + w, y + h], [x, y + h]],
                "shape_type": "polygon",
            }
            for tag, (x, y, w, h) in boxes(tags).items()
        ]
        value = {
            "version": "5.0",
            "shapes": shapes,
            "imagePath": f"{name}.jpg",
            "imageData": None,
            "imageHeight": 48,
            "imageWidth": 64,
        }
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def make_cvat(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """A "CVAT for images" export; returns annotations.xml.

    Every second object is a polygon, the others are run lengths.
    """
    images = []
    for i, (name, tags) in enumerate(photos.items()):
        picture(folder / "images" / f"{name}.jpg", seed=i)
        things = []
        for j, (tag, (x, y, w, h)) in enumerate(boxes(tags).items()):
            if j % 2:
                box = f'left="{x}" top="{y}" width="{w}" height="{h}"'
                things.append(f'<mask label="{tag}" {box} rle="0, {w * h}"/>')
            else:
                points = f"{x}.00,{y}.00;{x + w}.00,{y}.00;{x + w}.00,{y + h}.00;{x}.00,{y + h}.00"
                things.append(f'<polygon label="{tag}" points="{points}" z_order="0"/>')
        size = f'width="{SIZE[0]}" height="{SIZE[1]}"'
        images.append(f'<image id="{i}" name="{name}.jpg" {size}>{"".join(things)}</image>')
    path = folder / "annotations.xml"
    path.write_text(f"<annotations><version>1.1</version>{''.join(images)}</annotations>")
    return path
