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
    val = "val: images/val\n" if (folder / "images" / "val").is_dir() else ""
    path.write_text(f"path: .\ntrain: images/train\n{val}names: {json.dumps(names)}\n")
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


def make_folder(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """A folder for each tag, "cat;dog" for pictures with both."""
    for i, (name, tags) in enumerate(photos.items()):
        picture(folder / ";".join(tags) / f"{name}.jpg", seed=i)
    return folder


def make_split(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """train/ and validation/ with a folder for each tag, and test/ without tags."""
    make_folder(folder / "train", photos)
    picture(folder / "validation" / "cat" / "v.jpg", seed=98)
    picture(folder / "test" / "t.jpg", seed=99)
    return folder


def pictures(folder: Path, photos: dict[str, tuple[str, ...]], prefix: str = "") -> list[Path]:
    return [picture(folder / f"{prefix}{name}.jpg", seed=i) for i, name in enumerate(photos)]


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def choices(tags: tuple[str, ...], **more: object) -> dict:
    """An annotation of Label Studio."""
    value = {
        "value": {"choices": list(tags)},
        "id": "h7x",
        "from_name": "what",
        "to_name": "image",
        "type": "choices",
        "origin": "manual",
    }
    result = [value] if tags else []
    return {"id": 1, "completed_by": 1, "was_cancelled": False, "result": result, **more}


def make_label_studio(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """Label Studio's JSON export; pictures have the prefix of uploads."""
    tasks = []
    for i, (name, tags) in enumerate(photos.items()):
        picture(folder / "upload" / f"{i:08x}-{name}.jpg", seed=i)
        tasks.append(
            {
                "id": i,
                "annotations": [choices(tags)],
                "file_upload": f"{i:08x}-{name}.jpg",
                "drafts": [],
                "predictions": [],
                "data": {"image": f"/data/upload/1/{i:08x}-{name}.jpg"},
                "meta": {},
                "inner_id": i,
                "total_annotations": 1,
                "cancelled_annotations": 0,
            }
        )
    return write(folder / "project-1-at-2026-01-02-03-04.json", tasks)


def submit(tasks: Path) -> Path:
    """What a person does in Label Studio: submits each prediction as it is, and exports."""
    values = json.loads(tasks.read_text())
    for number, task in enumerate(values, 1):
        result = task.pop("predictions")[0]["result"]
        task |= {"id": number, "annotations": [{"id": number, "result": result}]}
    return write(tasks.with_name("export.json"), values)


def make_label_studio_min(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """Label Studio's JSON-MIN; pictures from local storage."""
    pictures(folder / "images", photos)
    records = []
    for i, (name, tags) in enumerate(photos.items()):
        one = {"what": tags[0]} if len(tags) == 1 else {"what": {"choices": list(tags)}}
        ends = {
            "annotator": 1,
            "annotation_id": i,
            "created_at": "2026-01-02T03:04:05.678901Z",
            "updated_at": "2026-01-02T03:04:05.678901Z",
            "lead_time": 2.5,
        }
        image = f"/data/local-files/?d=images/{name}.jpg"
        records.append({"image": image, "id": i, **(one if tags else {}), **ends})
    return write(folder / "min.json", records)


def make_fiftyone(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """FiftyOneImageClassificationDataset; names without extension."""
    pictures(folder / "data", photos)
    classes = sorted({tag for tags in photos.values() for tag in tags})
    labels = {name: [classes.index(t) for t in tags] or None for name, tags in photos.items()}
    return write(folder / "labels.json", {"classes": classes, "labels": labels}).parent


def make_traps(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """COCO Camera Traps without sizes."""
    pictures(folder / "loc1", photos)
    categories = ["empty", *sorted({tag for tags in photos.values() for tag in tags})]
    images = [
        {"id": f"a{i}", "file_name": f"loc1/{name}.jpg", "seq_id": "s1", "location": 1}
        for i, name in enumerate(photos)
    ]
    notes = [
        {"id": f"{i}{tag}", "image_id": f"a{i}", "category_id": categories.index(tag)}
        for i, tags in enumerate(photos.values())
        for tag in tags or ("empty",)
    ]
    listed = [{"id": i, "name": name} for i, name in enumerate(categories)]
    value = {"info": {}, "images": images, "annotations": notes, "categories": listed}
    return write(folder / "traps.json", value)


def make_camtrap_dp(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """A data package with an observation for each medium."""
    pictures(folder / "media", photos)
    media = ["mediaID,deploymentID,captureMethod,timestamp,filePath,filePublic,fileMediatype"]
    notes = [
        "observationID,deploymentID,mediaID,eventID,eventStart,eventEnd,observationLevel,"
        "observationType,scientificName,count,classificationProbability,observationComments"
    ]
    for i, (name, tags) in enumerate(photos.items()):
        time = f"2020-05-30T02:57:{i:02}Z"
        media.append(f"m{i},d1,activityDetection,{time},media/{name}.jpg,true,image/jpeg")
        for tag in tags or ("",):
            kind = "animal" if tag else "blank"
            notes.append(f"o{i}{tag},d1,m{i},e1,{time},{time},media,{kind},{tag},1,,")
    write(folder / "media.csv", "\n".join(media))
    write(folder / "observations.csv", "\n".join(notes))
    write(folder / "deployments.csv", "deploymentID,latitude,longitude\nd1,51.0,4.0\n")
    write(folder / "datapackage.json", {"profile": "camtrap-dp", "resources": []})
    return folder


def make_mmpretrain(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    pictures(folder / "data", photos)
    classes = sorted({tag for tags in photos.values() for tag in tags})
    entries = [
        {"img_path": f"{name}.jpg", "gt_label": [classes.index(tag) for tag in tags]}
        for name, tags in photos.items()
    ]
    return write(folder / "train.json", {"metainfo": {"classes": classes}, "data_list": entries})


def make_dictionary(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    pictures(folder, photos)
    return write(folder / "tags.json", {f"{name}.jpg": list(t) for name, t in photos.items()})


def make_yaml(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    pictures(folder, photos)
    lines = (f"{name}.jpg: [{', '.join(tags)}]" for name, tags in photos.items())
    return write(folder / "tags.yaml", "\n".join(lines))


def make_manifest(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """SageMaker Ground Truth's output of a job with several labels."""
    pictures(folder, photos)
    names = sorted({tag for tags in photos.values() for tag in tags})
    lines = []
    for name, tags in photos.items():
        numbers = [names.index(tag) for tag in tags]
        about = {
            "class-map": {str(i): names[i] for i in numbers},
            "confidence-map": {str(i): 0.91 for i in numbers},
            "type": "groundtruth/image-classification-multilabel",
            "job-name": "labeling-job/what",
            "human-annotated": "yes",
            "creation-date": "2026-01-02T03:04:05.678901",
        }
        source = f"s3://bucket/photos/{name}.jpg"
        lines.append(json.dumps({"source-ref": source, "what": numbers, "what-metadata": about}))
    return write(folder / "output.manifest", "\n".join(lines))


def make_vertex(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """Vertex AI's JSON lines; "test" pictures are not used."""
    pictures(folder, photos)
    lines = []
    for i, (name, tags) in enumerate([*photos.items(), ("unused", ("cat",))]):
        use = "test" if i == len(photos) else "training"
        value = {
            "imageGcsUri": f"gs://bucket/photos/{name}.jpg",
            "classificationAnnotations": [{"displayName": tag} for tag in tags],
            "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": use},
        }
        lines.append(json.dumps(value))
    return write(folder / "import.jsonl", "\n".join(lines))


def make_vertex_csv(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    pictures(folder, photos)
    lines = (",".join(("TRAINING", f"gs://b/{name}.jpg", *tags)) for name, tags in photos.items())
    return write(folder / "import.csv", "\n".join(lines))


def make_voc_lists(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """VOC2012 with JPEGImages and ImageSets/Main, without Annotations."""
    root = folder / "VOC2012"
    pictures(root / "JPEGImages", photos)
    for tag in {tag for tags in photos.values() for tag in tags}:
        lines = (f"{name} {' 1' if tag in tags else '-1'}" for name, tags in photos.items())
        write(root / "ImageSets" / "Main" / f"{tag}_train.txt", "\n".join(lines))
    return root


def make_flags(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """LabelMe's files with flags alone."""
    every = sorted({tag for tags in photos.values() for tag in tags})
    for file, (name, tags) in zip(pictures(folder, photos), photos.items(), strict=True):
        flags = {tag: tag in tags for tag in every}
        value = {"version": "5.5.0", "flags": flags, "shapes": [], "imagePath": file.name}
        write(folder / f"{name}.json", {**value, "imageHeight": 48, "imageWidth": 64})
    return folder


def make_roboflow(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """Roboflow's _classes.csv: a column for each tag, spaces after the commas."""
    tags = sorted({tag for tags in photos.values() for tag in tags})
    lines = [", ".join(("filename", *tags))]
    for file, own in zip(pictures(folder, photos), photos.values(), strict=True):
        lines.append(", ".join((file.name, *(str(int(tag in own)) for tag in tags))))
    write(folder / "_classes.csv", "\n".join(lines))
    return folder


def make_roboflow_split(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """A download of Roboflow: train/, valid/ and test/, each with _classes.csv."""
    write(folder / "README.roboflow.txt", "exported via roboflow.com\n")
    make_roboflow(folder / "train", photos)
    tags = tuple(sorted({tag for tags in photos.values() for tag in tags}))
    for name in ("valid", "test"):
        make_roboflow(folder / name, {f"{name}_1": tags, f"{name}_2": ()})
    return folder


def make_image_folder(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """Hugging Face's ImageFolder: train/metadata.csv, and the same in validation/."""
    for name, own in (("train", photos), ("validation", {"v": ("cat",)})):
        lines = [f"{stem}.jpg,{';'.join(tags)}" for stem, tags in own.items()]
        pictures(folder / "data" / name, own)
        write(folder / "data" / name / "metadata.csv", "\n".join(["file_name,tags", *lines]))
    return folder / "data"


def xmp(*keywords: str) -> str:
    """An XMP packet with these keywords, as most programs write it."""
    items = "".join(f"<rdf:li>{keyword}</rdf:li>" for keyword in keywords)
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject></rdf:Description></rdf:RDF>"
        "</x:xmpmeta><?xpacket end='w'?>"
    )


def make_keywords(folder: Path, photos: dict[str, tuple[str, ...]]) -> Path:
    """Photos with keywords in them; an empty text file beside those of nothing."""
    for i, (name, tags) in enumerate(photos.items()):
        path = picture(folder / f"{name}.jpg", seed=i)
        if tags:
            with Image.open(path) as image:
                image.save(path, xmp=xmp(*tags).encode())
        else:
            path.with_suffix(".txt").touch()
    return folder
