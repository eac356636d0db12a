import json

import numpy as np
import pytest
from layouts import ANIMALS, make_coco, make_cvat, make_labelme, make_voc, make_yolo, mask, picture

from tag2mask.cli import main
from tag2mask.evaluate.confusion import evaluate_masks
from tag2mask.formats import load_table
from tag2mask.formats.check import check
from tag2mask.photos.classes import VOC
from tag2mask.photos.masks import Truth, read_mask, write_mask

MANY = {f"{name}_{i}": tags for i in range(4) for name, tags in ANIMALS.items()}


def run(command, *words, code=0):
    assert main([command, *map(str, words)]) == code


def folder_per_tag(root):
    for i, (name, tags) in enumerate(MANY.items()):
        picture(root / ";".join(tags) / f"{name}.png", seed=i)
    return root


LAYOUTS = {
    "voc": lambda root: make_voc(root, MANY),
    "coco": lambda root: make_coco(root, MANY, "train", {"cat": 3, "dog": 5, "sofa": 8}),
    "yolo": lambda root: make_yolo(root, MANY, ["cat", "dog", "sofa"]),
    "labelme": lambda root: make_labelme(root, MANY),
    "cvat": lambda root: make_cvat(root, MANY),
    "folder": folder_per_tag,
}


IN_ORDER = ("absent tag", "validation")  # the validation folder of YOLO's file is not there


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_checked_read_converted_and_evaluated(layout, tmp_path):
    data = LAYOUTS[layout](tmp_path / "in")
    truth = data / "SegmentationClass" if layout == "voc" else None
    assert [str(f) for f in check(data, masks=truth) if f.kind not in IN_ORDER] == []
    run(
        "convert",
        "--data",
        data,
        "--to",
        "csv",
        "--out",
        tmp_path / "out",
        *(["--masks", truth] if truth else []),
    )
    table = load_table(tmp_path / "out" / "tags.csv")
    assert {photo.name.split("/")[-1]: photo.tags for photo in table.photos} == MANY
    if layout == "folder":
        return
    true = Truth(tmp_path / "out" / "masks", table)
    predicted = [
        mask(photo.tags, {tag: i for i, tag in enumerate(table.tags, 1)}) for photo in table.photos
    ]
    result = evaluate_masks(
        [(one, true.read(photo)) for one, photo in zip(predicted, table.photos, strict=True)],
        table.classes,
    )
    assert result.miou == 1 and result.images == len(MANY)


def test_check_prints_and_stops_at_errors(tmp_path, capsys):
    root = make_voc(tmp_path, MANY)
    run("check", "--data", root, "--val-masks", root / "SegmentationClass")
    assert "0 errors, 1 warning\n" in capsys.readouterr().out
    (root / "JPEGImages" / "2007_000001_0.jpg").write_bytes(b"")
    run("check", "--data", root, code=2)
    out, err = capsys.readouterr()
    assert "1 error; training would not start" in err
    assert "2007_000001_0): not a readable picture" in out
    clusters = tmp_path / "clusters.json"
    clusters.write_text(json.dumps({"clusters": {"pets": list(VOC[:-1])}}))
    run("check", "--data", root, "--clusters", clusters, code=2)
    out, err = capsys.readouterr()
    assert "2 errors" in err and 'tag "tvmonitor": in no cluster' in out
    clusters.write_text('{"pets": ["cat"]}')
    run("check", "--data", root, "--clusters", clusters, code=2)
    assert "clusters.json: " in capsys.readouterr().err


def test_download_by_hand_needs_no_network(tmp_path, capsys):
    run("download", "voc12", "--out", tmp_path, "--by-hand")
    out = capsys.readouterr().out
    assert (
        "VOCtrainval_11-May-2012.tar" in out
        and str(tmp_path / "archives") in out
        and "e14f763270cf" in out
    )


def test_evaluate_any_masks(tmp_path, capsys):
    for name, tags in ANIMALS.items():
        drawn = mask(tags, {"cat": 1, "dog": 2, "sofa": 3})
        write_mask(tmp_path / "true" / f"{name}.png", drawn)
        write_mask(tmp_path / "predicted" / f"{name}.png", np.where(drawn == 3, 0, drawn))
    (tmp_path / "val.txt").write_text("\n".join(ANIMALS))
    (tmp_path / "names.txt").write_text("background\ncat\ndog\nsofa\n")
    words = [
        "--pred",
        tmp_path / "predicted",
        "--truth",
        tmp_path / "true",
        "--list",
        tmp_path / "val.txt",
        "--classes",
        tmp_path / "names.txt",
    ]
    run(
        "evaluate",
        *words,
        "--labels",
        "none",
        "--boundary",
        "--mean-over",
        "cat",
        "sofa",
        "--out",
        tmp_path / "figures.json",
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["iou"]["cat"] == 1 and figures["iou"]["sofa"] == 0 and figures["miou"] == 0.5
    assert (figures["split"], figures["labels"], figures["images"], len(figures["list_hash"])) == (
        "val",
        "none",
        6,
        12,
    )
    assert figures["boundary_iou"]["cat"] == 1
    out = capsys.readouterr().out
    assert (
        "mIoU 50.00 %" in out
        and figures["list_hash"] in out
        and "100.0 % of sofa is taken for background" in out
    )


def test_masks_drawn_from_coco_are_the_fields(tmp_path):
    path = make_coco(tmp_path, {"a": ("person", "tv")}, "val2014")
    run("convert", "--data", path, "--to", "masks", "--out", tmp_path / "masks")
    assert np.unique(read_mask(tmp_path / "masks" / "a.png")).tolist() == [0, 1, 63]


def test_photos_with_a_tag_are_shown_though_most_are_of_nothing(tmp_path, capsys):
    tags = {f"{i:03}.jpg": "cat" if i in (41, 77) else "" for i in range(100)}
    for name in tags:
        (tmp_path / name).touch()
    lines = ["file_name,tags", *(f"{name},{tag}" for name, tag in tags.items())]
    (tmp_path / "tags.csv").write_text("\n".join(lines))
    run("tags", "--data", tmp_path / "tags.csv")
    out = capsys.readouterr().out
    assert "100 photos, 1 tag, 98 photos of nothing" in out
    shown = [line.split() for line in out.splitlines() if line.strip()[:3].isdigit()]
    assert len(shown[1:]) == 10 and shown[1:3] == [["041", "cat"], ["077", "cat"]]
