import base64
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tag2mask.config import MaskSettings
from tag2mask.files import write_json
from tag2mask.photos.colors import color
from tag2mask.photos.masks import write_mask
from tag2mask.photos.table import Photo, Table
from tag2mask.report.curves import read_chart
from tag2mask.report.page import write_report
from tag2mask.report.pictures import LOOK_AT, Choice, choose, make_strip, photo_iou, picture_width
from tag2mask.segmenter.predict import Prediction


class Page(HTMLParser):
    """Elements, visible text, and every address that a browser would load or follow."""

    def __init__(self, html: str):
        super().__init__()
        self.elements, self.addresses, self.text, self.skip = [], [], "", False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.skip = tag in ("style", "script")
        for name, value in attributes:
            if name in ("src", "href", "srcset", "data", "poster", "action", "xlink:href"):
                self.addresses.append(value)
            if name == "style":
                self.addresses += re.findall(r"url\(([^)]*)\)", value)

    def handle_endtag(self, tag):
        self.skip = False

    def handle_data(self, data):
        self.text += "" if self.skip else data


def render(run, **changes):
    arguments = {
        "run_dir": run.folder,
        "config": run.config,
        "train": run.train,
        "val": run.val,
        "scores": run.scores,
        "truth": run.truth,
    }
    path = write_report(**(arguments | changes))
    assert path == run.folder / "report" / "index.html"
    return path.read_text(encoding="utf-8")


def test_the_page_is_self_contained(run):
    html = render(run)
    page = Page(html)
    assert len(page.addresses) > 30
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    css = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in css and "@import" not in css
    assert page.elements.count("script") == 1
    for anchor in (address[1:] for address in page.addresses if address.startswith("#")):
        assert f'id="{anchor}"' in html


def test_what_users_wrote_is_escaped(run):
    config = run.config.model_copy(
        update={"report": run.config.report.model_copy(update={"photos_per_split": 12})}
    )
    page = Page(render(run, config=config))
    assert not {"em", "u", "hand"} & set(page.elements)
    assert page.elements.count("script") == 1
    for text in (
        "<script>alert(1)</script>",
        "猫",
        "🐕 dog",
        "a\"b'c & d",
        "a <i>run",
        "<em>all",
        "by <hand>",
        "<u>w</u>",
    ):
        assert text in page.text
    for photo in (
        *run.train.photos,
        *run.val.photos,
    ):  # as it is written: neither markup, nor entity, nor template
        assert photo.name in page.text


def test_miou_stands_with_its_protocol(run):
    text = Page(render(run)).text
    for part in ("65.2 %", "43.2 %", "train, 12 photos", "no tags given", "\ntrue mask\n"):
        assert part in text


def test_the_page_says_where_the_masks_are(run):
    text = Page(render(run)).text
    for part in ("Pseudo masks are in masks/", "masks/NAME.png", "evaluate/predictions/NAME.png"):
        assert part in text


def test_a_class_has_one_color_everywhere(run, tmp_path):
    """In mask files, in overlays, and on the page: beside its name, over photos, in clusters."""
    number, photo = 2, run.train.photos[1]
    mask = np.zeros((96, 128), np.uint8)
    mask[20:80, 20:100] = number
    for folder in ("masks", "evaluate/predictions"):
        write_mask(run.folder / folder / f"{photo.name}.png", mask)
    decision = (mask == np.arange(5)[:, None, None]).astype(np.float32)
    drawn = Prediction(decision, decision, (128, 96), photo.open(), run.train.classes).overlay()
    with Image.open(run.folder / "masks" / f"{photo.name}.png") as file:
        written = file.convert("RGB").getpixel((50, 50))
    name = run.train.classes[number]
    html = render(run)
    assert set(re.findall(rf"--c:(#[0-9a-f]{{6}})[^>]*>{name}<", html)) == {color(number)}
    strip = make_strip(
        Choice(photo),
        run.train.classes,
        128,
        "mask",
        run.folder / "masks",
        None,
        lambda photo: None,
    )
    with Image.open(io.BytesIO(base64.b64decode(strip.panels[0].picture.split(",")[1]))) as layer:
        on_page = layer.getpixel((50, 50))[:3]
    assert "#" + bytes(written).hex() == color(number)
    assert (
        written == on_page == drawn.getpixel((20, 50)) != (0, 0, 0)
    )  # at the outline, which is opaque
    assert drawn.getpixel((5, 5)) == photo.open().getpixel((5, 5)), "background is clear"


def test_score_maps_say_what_they_show(run):
    assert "from 0  to the maximum in the photo, spread over" in Page(render(run)).text
    masks = run.config.masks.model_copy(update={"scores": "max_norm", "affinity": False})
    assert (
        "from 0  to 1. The pseudo mask"
        in Page(render(run, config=run.config.model_copy(update={"masks": masks}))).text
    )


def test_without_ground_truth_the_page_says_so_and_shows_a_spread(run):
    (run.folder / "evaluate/metrics.json").write_text('{"pseudo": null, "segmenter": null}')
    text = Page(render(run, truth=lambda photo: None)).text
    assert text.count("No true masks") == 2 and "--val-masks FOLDER" in text
    assert "there were no true masks" in text
    assert "\ntrue mask\n" not in text and "The IoU of a photo" not in text
    assert run.train.photos[0].name in text and run.train.photos[-1].name in text


@pytest.mark.parametrize(
    "missing", ["clusters", "classifier", "masks", "segmenter", "evaluate", "all"]
)
def test_the_page_says_which_stage_has_not_run(run, missing):
    sentences = {
        "clusters": "The clusters have not been made yet",
        "classifier": "The patch classifier has not been trained yet",
        "masks": "Photos without one have no score map",
        "segmenter": "There are no predictions yet",
        "evaluate": "Not measured yet",
    }
    for stage in sentences if missing == "all" else [missing]:
        shutil.rmtree(run.folder / stage)

    def scores(photo):
        return None if missing in ("masks", "all") else run.scores(photo)

    text = Page(render(run, scores=scores)).text
    for stage, sentence in sentences.items():
        expected = missing == stage or (missing == "all" and stage != "evaluate")
        assert (sentence in text) == expected, stage
    if missing == "all":
        assert text.count("Not finished yet") == 2


def test_no_validation_photos(run):
    assert "This run has no validation photos" in Page(render(run, val=None)).text


def test_metrics_of_absent_classes_are_dashes_not_errors(run):
    path = run.folder / "evaluate/metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics["pseudo"] |= {
        "miou": None,
        "iou": dict.fromkeys(run.train.classes),
        "confusions": [["猫", "background", 0.25]],
    }
    metrics["pseudo"]["mean_over"] = metrics["segmenter"]["mean_over"] = ["background"]
    path.write_text(json.dumps(metrics), encoding="utf-8")
    text = Page(render(run)).text
    assert (
        "–" in text and "猫 taken for background (25 % of it)" in text and "Faint classes" in text
    )


def test_settings_mark_what_differs_from_the_defaults(run):
    html = render(run)
    marked = re.findall(r"<mark>(.*?)</mark>", html)
    assert any(
        line.startswith("epochs = 77") and "# default: &#34;auto&#34;" in line for line in marked
    )
    assert not any(line.startswith("batch_size") for line in marked)
    assert f"<span>scales = {list(MaskSettings().scales)}</span>" in html


def test_a_photo_of_any_shape_has_its_strip(tmp_path):
    for size in ((30, 3000), (3000, 30)):
        Image.new("RGB", size, "green").save(tmp_path / "a.png")
        strip = make_strip(
            Choice(Photo("a", tmp_path / "a.png", ())),
            ("background",),
            400,
            "mask",
            tmp_path / "masks",
            None,
            lambda photo: None,
        )
        with Image.open(io.BytesIO(base64.b64decode(strip.photo.split(",")[1]))) as picture:
            assert max(picture.size) <= 1600 and strip.ratio == size[0] / size[1]


def test_the_page_stays_small(run, tmp_path):
    """100 photos of each split, noisy enough to compress as badly as a busy photo does."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (150, 200, 3), np.uint8)).resize((600, 450))
    noise.save(tmp_path / "busy.jpg")
    photos = tuple(
        replace(run.train.photos[0], name=f"p{i}", path=tmp_path / "busy.jpg") for i in range(100)
    )
    table = Table(run.train.tags, photos)
    config = run.config.model_copy(
        update={"report": run.config.report.model_copy(update={"photos_per_split": 100})}
    )
    html = render(run, train=table, val=table, config=config, truth=lambda photo: None)
    assert html.count('<article class="strip"') == 200
    assert len(html) < 10e6
    assert picture_width(30) > picture_width(2000) > 50


def test_best_median_and_worst(run):
    groups = choose(run.train.photos, run.folder / "masks", run.truth, 6, "masks")
    assert [title for title, _ in groups] == ["Best", "Around the median", "Worst"]
    best, middle, worst = ([choice.iou for choice in group] for _, group in groups)
    every = sorted(
        (
            photo_iou(run.truth(p), np.array(Image.open(run.folder / "masks" / f"{p.name}.png")))
            for p in run.train.photos
        ),
        reverse=True,
    )
    assert best[0] == every[0] and worst[0] == every[-1]
    assert min(best) > max(middle) and min(middle) > max(worst)
    assert len({choice.photo.name for _, group in groups for choice in group}) == 6


def test_few_photos_with_ground_truth_are_all_on_the_page(run):
    some = {photo.name for photo in run.train.photos[:4]}
    groups = choose(
        run.train.photos,
        run.folder / "masks",
        lambda p: run.truth(p) if p.name in some else None,
        6,
        "masks",
    )
    assert [(title, len(group)) for title, group in groups] == [("All, best first", 4)]


def test_without_masks_the_choice_is_an_even_spread(run, tmp_path):
    [(title, group)] = choose(run.train.photos, tmp_path / "none", run.truth, 3, "masks")
    assert title == "" and group == [Choice(run.train.photos[i]) for i in (0, 5, 11)]


def iou(truth, mask):
    return photo_iou(np.array([truth], np.uint8), np.array([mask], np.uint8))


def test_photo_iou_is_that_of_the_objects():
    assert iou([0, 0, 1, 1], [0, 0, 1, 1]) == 1
    assert iou([0, 0, 0, 1], [0, 0, 0, 0]) == 0, "a missed object is worth nothing"
    assert iou([0, 2, 1, 1], [0, 2, 1, 0]) == pytest.approx((1 / 2 + 1) / 2)
    assert iou([0, 0, 1, 1], [0, 2, 1, 1]) == 0.5, "a false object counts 0"
    assert iou([0, 0, 0, 0], [0, 0, 0, 0]) == 1, "nothing there and nothing predicted"
    assert iou([0, 0, 0, 0], [0, 0, 0, 1]) == 0


def test_photo_iou_skips_ground_truth_255_and_counts_a_predicted_255_as_wrong():
    assert iou([0, 1, 1, 255], [0, 1, 1, 2]) == 1
    assert iou([0, 1, 1, 255], [0, 1, 255, 1]) == 0.5
    assert iou([0, 0], [0, 255]) == 0.5
    assert iou([255, 255], [0, 1]) is None


def test_chart(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [
        {
            "step": s,
            "steps": 9,
            "lr": 0.1,
            "seconds_per_step": 0.5,
            "mce": 0.5,
            "pce": 0.0,
            "loss": 1.0,
        }
        for s in range(10, 1010, 10)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    chart = read_chart(path)
    assert [line.name for line in chart.lines] == ["loss", "mce"]  # pce is 0 throughout: off
    assert chart.steps == 1000 and chart.seconds_per_step == 0.5
    assert [text for _, text in chart.y_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert [text for _, text in chart.x_ticks] == ["0", "200", "400", "600", "800", "1000"]
    assert chart.lines[0].smooth.startswith("M5.2,0.0") and chart.lines[0].smooth.endswith(
        "L520.0,0.0"
    )
    path.write_text(json.dumps(rows[0]))
    assert read_chart(path) is None
    assert read_chart(tmp_path / "absent.jsonl") is None


@pytest.mark.parametrize("high", [0.003, 0.7, 1, 4.2, 9.99, 55, 1140, 30000])
def test_charts_of_any_height_have_ticks(tmp_path, high):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"step": s, "lr": 1, "seconds_per_step": 1, "loss": high}) for s in (1, 2)
        )
    )
    ticks = [float(text) for _, text in read_chart(path).y_ticks]
    assert 3 <= len(ticks) <= 6 and ticks[0] == 0 and 0.5 * high < ticks[-1] <= high * 1.0001


def test_picture_to_share(run):
    render(run)
    with Image.open(run.folder / "report" / "picture.jpg") as picture:
        assert picture.width == 2 * 400 + 8  # the two best of six
        assert picture.height == 3 * 300 + 2 * 8


def with_nothing(run, count=6):
    """The run with photos of nothing before the others; their masks are empty, but the prediction
    of the fourth shows something."""
    tables = []
    for table, masks in ((run.train, "masks"), (run.val, "evaluate/predictions")):
        nothing = []
        for i in range(count):
            photo = Photo(f"{masks.split('/')[0]} {i}", table.photos[0].path, ())
            mask = np.zeros((96, 128), np.uint8)
            mask[:9] = 2 * (i == 3 and masks != "masks")
            write_mask(run.folder / masks / f"{photo.name}.png", mask)
            nothing.append(photo)
        tables.append(Table(table.tags, (*nothing, *table.photos), table.source))
    return dict(zip(("train", "val"), tables, strict=True))


def test_photos_of_nothing_come_last_and_two_at_most(run):
    tables = with_nothing(run)
    page = Page(render(run, **tables)).text
    assert "6 of them show nothing" in page
    for masks, shown in (("masks", {0, 1}), ("evaluate", {3, 0})):
        names = {i for i in range(6) if f"{masks} {i}" in page}
        assert names == shown, "first those with a mark"
    folder = run.folder / "masks"
    groups = choose(tables["train"].photos, folder, run.truth, 6, "masks")
    assert groups[:-1] == choose(run.train.photos, folder, run.truth, 6, "masks")
    assert groups[-1][0] == "Photos of nothing" and len(groups[-1][1]) == 2
    (_, group), (_, last) = choose(tables["train"].photos, folder, lambda photo: None, 4, "masks")
    assert all(choice.photo.tags for choice in group) and len(group) == 4 and len(last) == 2


def test_photos_that_may_show_anything_are_not_photos_of_nothing(run):
    """Validation photos need no tags."""
    photos = tuple(replace(photo, tags=(), unknown=run.val.tags) for photo in run.val.photos)
    page = Page(render(run, val=replace(run.val, photos=photos))).text
    assert "Photos of nothing" not in page


SCRIPT = "<script>alert(1)</script>"
FIGURES = {"area": [0.001, 0.123, 0.5], "covered": 1, "others": 7, "marked": 2}


def finds(split, **changes):
    """The entry "finds" of a run: 猫 is found in 1 of 3 photos, the other tag in 2 of 8."""
    tags = {SCRIPT: {"photos": 8, "found": 2}, "猫": {"photos": 3, "found": 1}}
    tags = {tag: {**numbers, **FIGURES, "covered_others": 3} for tag, numbers in tags.items()}
    return {
        "images": 30,
        "split": split,
        "tags": tags,
        "nothing": {"photos": 60, "marked": 5},
        "tagged": {"photos": 11, "empty": 4},
        "doubts": ["nothing <b>works</b>: 猫. Try --segmenter.steps 1600"],
        "look_at": {"missed": [], "covered": []},
    } | changes


def say(run, found, masks=None):
    """Write the finds of the segmenter and of the pseudo masks; returns the text of the page."""
    path = run.folder / "evaluate/metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"finds": found}))
    write_json(run.folder / "masks/masks.json", {"finds": masks})
    return re.sub(r"\s+", " ", Page(render(run)).text)


def test_the_page_says_what_the_segmenter_finds(run):
    old = {"least_pixels": 20, "tags": {}, "nothing": {"photos": 60, "marked": 5}}  # version 0.1
    assert "marks something on 5 of 60 photos of nothing" in say(run, old)
    tags = {SCRIPT: {"photos": 8, "found": 2}, "猫": {"photos": 3, "found": 1}}
    assert "finds 3 of 11 tags (<script>alert(1)</script> 2 of 8, 猫 1 of 3)" in say(
        run, old | {"tags": tags}
    )
    text = say(run, finds("val"), finds("train", tags={"猫": {"photos": 9, "found": 9, **FIGURES}}))
    for part in (
        "finds 3 of 11 tags (<script>alert(1)</script> 2 of 8, 猫 1 of 3) and marks something on 5 "
        "of 60 photos of nothing; 4 of 11 masks of photos with tags are empty",
        "Segmenter, on validation photos: look at Nothing <b>works</b>: 猫. Try --segmenter.steps",
        "猫9 of 912 % (0.1 to 50)11 of 32 of 712 % (0.1 to 50)4",
    ):
        assert part in text


def test_without_true_masks_tags_give_the_figure(run):
    (run.folder / "evaluate/metrics.json").write_text('{"pseudo": null, "segmenter": null}')
    text = say(run, finds("train"), finds("train"))
    assert text.count("3 of 11tags found") == 2 and "No true masks" not in text
    assert "By the tags of 30 training photos, the segmenter finds 3 of 11 tags" in text


def test_without_validation_photos_the_page_shows_what_the_segmenter_was_tried_on(run):
    shutil.copytree(run.folder / "masks", run.folder / "segmenter/sample")
    path = run.folder / "evaluate/metrics.json"
    path.write_text(json.dumps({"pseudo": None, "segmenter": None, "finds": finds("train")}))
    text = re.sub(r"\s+", " ", Page(render(run, val=None, truth=lambda photo: None)).text)
    assert "Predictions on training photos This run has no validation photos" in text
    assert "give some with --val; they need no tags" in text
    assert text.count(" prediction ") >= 6 and "segmenter on a training photo without" in text


def test_without_true_masks_photos_with_faults_come_first(run):
    photos, none = run.train.photos, lambda photo: None
    look_at = {"missed": [p.name for p in photos[3:8]], "covered": [p.name for p in photos[7:10]]}
    groups = choose(photos, run.folder / "masks", none, 6, "masks", look_at)
    names = [[choice.photo.name for choice in group] for _, group in groups]
    assert [title for title, _ in groups] == [*LOOK_AT.values(), "Others"]
    assert [len(group) for group in names] == [2, 2, 2]
    assert set(names[0]) <= set(look_at["missed"]) and set(names[1]) <= set(look_at["covered"])
    assert len({name for group in names for name in group}) == 6, "no photo is there twice"
    groups = choose(photos, run.folder / "masks", none, 6, "masks", {"missed": [], "covered": []})
    assert [(title, len(group)) for title, group in groups] == [("Others", 6)]
    ranked = choose(photos, run.folder / "masks", run.truth, 6, "masks", look_at)
    assert ranked[0][0] == "Best", "true masks say more than tags"


def test_a_photo_of_nothing_is_worth_1_if_its_mask_is_empty_else_0(run):
    val = with_nothing(run)["val"]
    groups = choose(val.photos, run.folder / "evaluate/predictions", run.truth, 6, "masks")
    assert [choice.iou for choice in groups[-1][1]] == [0, 1]


def test_a_miss_is_not_among_the_best(run):
    for photo in run.train.photos[2:]:
        write_mask(run.folder / "masks" / f"{photo.name}.png", np.zeros((96, 128), np.uint8))
    best = choose(run.train.photos, run.folder / "masks", run.truth, 9, "masks")[0]
    assert best[0] == "Best" and {c.photo.name for c in best[1]} == {
        p.name for p in run.train.photos[:2]
    }


def test_objects_by_size_and_peaks_are_on_the_page(run):
    path = run.folder / "evaluate/metrics.json"
    metrics = json.loads(path.read_text())
    metrics["pseudo"] |= {
        "by_size": {"< 0.5 %": {"objects": 7, "recall": 0.25, "iou": 0.125}},
        "peaks": {"猫": {"photos": 9, "on_object": 8}},
    }
    path.write_text(json.dumps(metrics))
    text = say(run, finds("val"), finds("train"))
    assert "< 0.5 %: recall 25 %, IoU 12 % (7 objects)" in text
    assert "猫1 of 38 of 912 %" in text and "Peak on it" in text
