import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layouts import ANIMALS, SIZE, make_voc, mask, picture, xml
from PIL import Image, ImageFile

from tag2mask.errors import DataError
from tag2mask.formats import load_table
from tag2mask.formats.check import check
from tag2mask.formats.findings import SHOWN, Finding, findings_text
from tag2mask.photos.classes import VOC
from tag2mask.photos.masks import write_mask

NUMBERS = {tag: i for i, tag in enumerate(VOC, 1)}
LIST = "ImageSets/Segmentation/train.txt"


def kinds(findings: list[Finding]) -> list[str]:
    return sorted(finding.kind for finding in findings)


def csv(folder: Path, rows: dict[str, str], name: str = "tags.csv") -> Path:
    for i, file in enumerate(rows):
        if not (folder / file).exists():
            picture(folder / file, seed=i)
    path = folder / name
    path.write_text("file_name,tags\n" + "".join(f"{file},{tags}\n" for file, tags in rows.items()))
    return path


def balanced(tags: str = "cat dog", n: int = 10) -> dict[str, str]:
    return {f"{tag}{i}.png": tag for tag in tags.split() for i in range(n)}


def test_a_sound_set_has_no_findings(tmp_path):
    assert check(csv(tmp_path, balanced())) == []


def add(root: Path, name: str, tags: tuple[str, ...]) -> None:
    """One more photo with everything right."""
    picture(root / "JPEGImages" / f"{name}.jpg", seed=zlib.crc32(name.encode()))
    (root / "Annotations" / f"{name}.xml").write_text(xml(name, tags))
    write_mask(root / "SegmentationClass" / f"{name}.png", mask(tags, NUMBERS))
    with (root / LIST).open("a") as file:
        file.write(f"{name}\n")


def jpeg(name: str, image: Image.Image) -> Callable[[Path], None]:
    return lambda root: image.save(root / "JPEGImages" / f"{name}.jpg")


def drawn(name: str, values: np.ndarray) -> Callable[[Path], None]:
    return lambda root: write_mask(root / "SegmentationClass" / f"{name}.png", values)


def text(file: str, content: str) -> Callable[[Path], None]:
    return lambda root: (root / file).write_text(content) and None


def cut(file: str, length: int) -> Callable[[Path], None]:
    return lambda root: (root / file).write_bytes((root / file).read_bytes()[:length]) and None


def copy(file: str, to: str) -> Callable[[Path], None]:
    return lambda root: shutil.copy(root / file, root / to) and None


def remove(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).unlink()


def image_as(file: str, mode: str, form: str) -> Callable[[Path], None]:
    return lambda root: Image.new(mode, SIZE).save(root / file, form)


NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 400, 3), dtype=np.uint8))
LARGE = Image.fromarray(np.tile(np.arange(250, dtype=np.uint8), (6500, 26)))
CAT = mask(("cat",), NUMBERS)

# What is broken, what breaks it, and what the finding must say: (kind, where, what).
# Photo fNN has the tag cat if nothing else is written.
FAULTS: list[tuple[str, Callable[[Path], None], tuple[str, str, str]]] = [
    ("picture gone", remove("JPEGImages/f00.jpg"), ("missing picture", "f00", "no such file")),
    (
        "picture cut short",
        cut("JPEGImages/f01.jpg", 700),
        ("unreadable picture", "f01", "not a readable picture"),
    ),
    (
        "picture empty",
        cut("JPEGImages/f02.jpg", 0),
        ("unreadable picture", "f02", "not a readable picture"),
    ),
    (
        "text named .jpg",
        text("JPEGImages/f03.jpg", "<html>404</html>"),
        ("unreadable picture", "f03", "not a readable picture"),
    ),
    (
        "copy of a picture",
        copy("JPEGImages/2007_000001.jpg", "JPEGImages/f04.jpg"),
        ("duplicate", "f04", "line 1 (2007_000001)"),
    ),
    (
        "copy tagged otherwise",
        copy("JPEGImages/2007_000002.jpg", "JPEGImages/f05.jpg"),
        ("duplicate", "f05", "the tags are cat, there dog"),
    ),
    (
        "tiny picture",
        jpeg("f06", NOISE.crop((0, 0, 20, 30))),
        ("tiny picture", "f06", "only 20 x 30 pixels"),
    ),
    ("long thin picture", jpeg("f07", NOISE), ("extreme shape", "f07", "400 x 40")),
    ("huge picture", jpeg("f08", LARGE), ("huge picture", "f08", "6500 x 6500")),
    (
        "blank picture",
        jpeg("f09", Image.new("RGB", SIZE, "white")),
        ("blank picture", "f09", "only one color"),
    ),
    ("no XML", remove("Annotations/f10.xml"), ("annotation", "f10", "no such file")),
    (
        "broken XML",
        text("Annotations/f11.xml", "<annotation><object>"),
        ("annotation", "f11", "not valid XML"),
    ),
    (
        "duplicate row",
        lambda root: (root / LIST).open("a").write("f13\n") and None,
        ("duplicate", "f13", "duplicate row: the same picture as"),
    ),
    (
        "other case",
        text("Annotations/f14.xml", xml("f14", ("Cat",))),
        ("spelling", "f14", "are spellings of one tag"),
    ),
    (
        "other spacing",
        text("Annotations/f15.xml", xml("f15", ("pottedplant", "potted plant"))),
        ("spelling", "f15", '"potted plant" (1 photo)'),
    ),
    (
        "class 0 as a tag",
        text("Annotations/f16.xml", xml("f16", ("background",))),
        ("spelling", "f16", "the name of class 0"),
    ),
    (
        "misspelt",
        text("Annotations/f17.xml", xml("f17", ("horsee",))),
        ("spelling", "horsee", "may be one tag"),
    ),
    (
        "tag in one photo",
        text("Annotations/f18.xml", xml("f18", ("zebra", "cat"))),
        ("rare tag", "f18", "in this photo only"),
    ),
    (
        "few photos",
        text("Annotations/f19.xml", xml("f19", ("horse",))),
        ("rare tag", 'tag "horse"', "only"),
    ),
    (
        "always together",
        text("Annotations/f20.xml", xml("f20", ("bus", "train"))),
        ("always together", "bus, train", "nothing distinguishes them"),
    ),
    (
        "mask gone",
        remove("SegmentationClass/f22.png"),
        ("missing mask", "SegmentationClass", "f22.png"),
    ),
    ("mask of another size", drawn("f23", CAT[:-1]), ("mask", "f23.png", "64 x 47, but")),
    (
        "unknown number",
        drawn("f24", np.where(CAT > 0, 77, 0)),
        ("mask", "f24.png", "the number [77]"),
    ),
    (
        "color mask",
        image_as("SegmentationClass/f25.png", "RGB", "PNG"),
        ("mask", "f25.png", "not RGB"),
    ),
    (
        "JPEG mask",
        image_as("SegmentationClass/f26.png", "L", "JPEG"),
        ("mask", "f26.png", "not JPEG"),
    ),
    (
        "mask cut short",
        cut("SegmentationClass/f27.png", 60),
        ("mask", "f27.png", "not a readable mask"),
    ),
    (
        "all ignore",
        drawn("f28", np.full_like(CAT, 255)),
        ("empty mask", "f28.png", "only ignore (255)"),
    ),
    (
        "mask of something else",
        drawn("f29", mask(("dog",), NUMBERS)),
        ("mask and tags", "f29.png", "shows dog, but the tags are cat"),
    ),
    (
        "mask without a picture",
        drawn("nobody", CAT),
        ("unused mask", "SegmentationClass", "such as nobody.png"),
    ),
    (
        "not a mask",
        text("SegmentationClass/Thumbs.db", "x"),
        ("not a mask", "SegmentationClass", "such as Thumbs.db"),
    ),
    ("in two sets", lambda root: None, ("leak", "val.txt line 1", "the training set")),
]


def test_thirty_faults_of_a_damaged_voc_come_at_once(tmp_path):
    root = make_voc(tmp_path, ANIMALS)
    for i in range(200):
        add(root, f"n{i}", ("pottedplant",) if i % 10 == 0 else ("dog",) if i % 3 else ("cat",))
    for i, (_, _, _) in enumerate(FAULTS):
        add(root, f"f{i:02}", ("cat",))
    for i in (18, 20):
        add(root, f"g{i}", ("bus", "train") if i == 20 else ("horse",))
    val = root / "ImageSets" / "Segmentation" / "val.txt"
    val.write_text("n7\n")
    assert not any(
        finding.severity == "error"
        for finding in check(root, val, root / "SegmentationClass", classes="voc")
    )
    for _, damage, _ in FAULTS:
        damage(root)
    findings = set(check(root, val, root / "SegmentationClass", classes="voc"))

    matched = set()
    for what, _, (kind, where, part) in FAULTS:
        matching = [f for f in findings if f.kind == kind and where in f.where and part in f.what]
        assert len(matching) >= 1, (what, [str(f) for f in findings if f.kind == kind])
        matched.update(matching)
    assert len(FAULTS) >= 30 and len(matched) >= 30
    # Besides them there is only what follows from them (a tag or mask lost with its picture),
    # and nothing about the sound photos.
    follows = ("rare tag", "mask and tags", "mask", "spelling")
    assert [str(f) for f in findings - matched if f.kind not in follows] == []
    assert not any(
        f"(n{i})" in f.where or f"n{i}.png" in f.where
        for f in findings
        for i in range(200)
        if f.kind != "leak"
    )


def test_unreadable_data_sets_are_findings_too(tmp_path):
    (finding,) = check(tmp_path / "none.csv")
    assert finding.severity == "error" and "no such file" in finding.what
    path = csv(tmp_path, balanced())
    assert kinds(check(path, masks=tmp_path / "nowhere")) == ["masks"]
    assert kinds(check(path, val=tmp_path / "none.csv")) == ["format"]


def test_tag_in_every_photo(tmp_path):
    (finding,) = check(
        csv(
            tmp_path,
            {
                **{f"{i}.png": "cat;dog" for i in range(10)},
                **{f"c{i}.png": "cat" for i in range(10)},
            },
        )
    )
    assert (finding.kind, finding.where) == ("tag everywhere", 'tag "cat"')


def test_likely_misspellings_and_plurals(tmp_path):
    rows = {**balanced("elephant dog dogs cat horse house", 50), **balanced("elefant")}
    findings = check(csv(tmp_path, rows))
    assert [(f.kind, f.where) for f in findings] == [
        ("spelling", 'tag "dog"'),
        ("spelling", 'tag "elefant"'),
    ]


def test_clusters_must_name_every_tag(tmp_path):
    path = csv(tmp_path, balanced("cat dog bus"))
    findings = check(path, clusters={"animals": ["cat", "dogs"], "all": ["cat", "bus"]})
    assert [(f.kind, f.where, f.what) for f in findings] == [
        ("cluster", 'tag "dog"', "in no cluster"),
        ("cluster", 'cluster "animals"', '"dogs" is not a tag of this data set'),
    ]
    assert findings[1].do == 'did you mean "dog"?'


def test_absent_classes_of_a_fixed_list_are_one_warning(tmp_path):
    (finding,) = [finding for finding in check(make_voc(tmp_path)) if finding.kind == "absent tag"]
    assert "aeroplane, bicycle" in finding.what and "cat" not in finding.what.replace("cat,", "cat")


def test_validation_tags_must_be_known(tmp_path):
    path = csv(tmp_path, balanced())
    val = csv(tmp_path, {"v1.png": "catt", "v2.png": ""}, "val.csv")
    picture(tmp_path / "v1.png", seed=501)
    picture(tmp_path / "v2.png", seed=502)
    (finding,) = check(path, val)
    assert (finding.kind, finding.do) == ("unknown tag", 'did you mean "cat"?')


def test_masks_of_validation_photos_are_not_masks_of_training_photos_of_the_same_name(tmp_path):
    for i, (split, tags) in enumerate((("train", "cat dog"), ("test", "dog cat"))):
        (tmp_path / f"{split}.csv").write_text(
            "file_name,tags\n"
            + "".join(f"{split}/{j}.png,{tags.split()[j // 10]}\n" for j in range(20))
        )
        for j in range(20):
            picture(tmp_path / split / f"{j}.png", seed=20 * i + j)
    for j in range(20):
        write_mask(
            tmp_path / "masks" / f"{j}.png",
            mask(("dog", "cat")[j // 10 : j // 10 + 1], {"cat": 1, "dog": 2}),
        )
    assert check(tmp_path / "train.csv", tmp_path / "test.csv", tmp_path / "masks") == []


def test_animations(tmp_path):
    path = csv(tmp_path, balanced())
    frames = [
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (48, 64), dtype=np.uint8))
        for i in range(3)
    ]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with path.open("a") as file:
        file.write("a.gif,cat\n")
    (finding,) = check(path)
    assert finding.kind == "animation" and "3 frames" in finding.what


def test_frames_that_cannot_be_counted(tmp_path, monkeypatch):
    path = csv(tmp_path, {f"{i}.bmp": "cat" if i < 10 else "dog" for i in range(20)})
    assert check(path) == []
    monkeypatch.setattr(
        ImageFile.ImageFile, "n_frames", property(lambda _: None + 1), raising=False
    )
    assert {finding.kind for finding in check(path)} == {"unreadable picture"}


def test_a_common_fault_is_not_shown_a_thousand_times(tmp_path):
    (tmp_path / "tags.csv").write_text(
        "file_name,tags\na.png,cat\n" + "".join(f"{i}.jpg,cat;dog\n" for i in range(1000))
    )
    picture(tmp_path / "a.png")
    findings = [f for f in check(tmp_path / "tags.csv") if f.severity == "error"]
    assert len(findings) == 1000
    text = findings_text(findings).plain
    assert len(text.splitlines()) == SHOWN + 2
    assert "missing picture: 980 more" in text and text.endswith("1000 errors, 0 warnings")
    assert findings_text([]).plain == "nothing wrong was found"


def test_an_error_counts_all_problems_and_hides_no_kind(tmp_path):
    rows = "".join(f"{i}.jpg,cat\n" for i in range(55)) + "a.png,background\n"
    picture(tmp_path / "a.png")
    (tmp_path / "tags.csv").write_text(f"file_name,tags\n{rows}")
    with pytest.raises(DataError) as caught:
        load_table(tmp_path / "tags.csv")
    text = str(caught.value)
    assert text.startswith("56 problems") and 'a.png): "background" is the name' in text
    assert text.endswith("and 6 more") and len(caught.value.problems) == 56


def test_rare_tags_are_learned_badly(tmp_path):
    rows = {**balanced("dog", 210), **balanced("cat", 10)}
    (finding,) = [f for f in check(csv(tmp_path, rows)) if f.kind != "tag everywhere"]
    assert (finding.kind, finding.what) == ("balance", '210 photos of "dog", 10 of "cat"')


ONE_FAULT = {
    "two columns of tags": ("filename,labels,tags\n", "columns"),
    "no column of tags": ("file_name,mood\n{all}", "columns"),
    "no tags at all": ("file_name,tags\ncat0.png,\ndog0.png,\n", "no tags"),
    "a tag in two cases": ("file_name,tags\n{all}cat0.png,Cat\n", "spelling"),
    "a tag with a letter too many": ("file_name,tags\n{all}cat0.png,catt\n", "spelling"),
    "a tag with another space": ("file_name,tags\n{all}cat0.png, c at\n", "spelling"),
    "more tags than a mask can hold": (
        "file_name,tags\n{all}cat0.png," + ";".join(f"tag {i}" for i in range(300)) + "\n",
        "too many tags",
    ),
}


@pytest.mark.parametrize("fault", ONE_FAULT)
def test_one_fault_gives_one_message(tmp_path, fault):
    text, kind = ONE_FAULT[fault]
    rows = balanced(n=11)
    path = csv(tmp_path, rows)
    others = "".join(f"{name},{tag}\n" for name, tag in rows.items() if name != "cat0.png")
    path.write_text(text.replace("{all}", others))
    (finding,) = check(path)
    assert finding.kind == kind


def test_wrong_keys_are_one_message_for_all_rows(tmp_path):
    path = tmp_path / "tags.jsonl"
    path.write_text('{"which one": "a", "tags": "cat"}\n' * 5)
    (finding,) = check(path)
    assert finding.where == "header" and finding.do == "choose one with --photos.file-column"


def test_a_training_set_that_is_missing_makes_no_tag_of_the_validation_set_unknown(tmp_path):
    (finding,) = check(tmp_path / "none.csv", csv(tmp_path, balanced(), "val.csv"))
    assert finding.kind == "format"


def test_photos_that_have_moved_are_one_message(tmp_path):
    path = csv(tmp_path, balanced())
    (tmp_path / "new").mkdir()
    path.rename(tmp_path / "new" / "tags.csv")
    (finding,) = [f for f in check(tmp_path / "new" / "tags.csv") if f.severity == "error"]
    assert "none of the 20 pictures exists" in finding.what and "--data" in finding.do
    (finding,) = check(path)
    assert "if it has moved, give its new place (--data" in finding.what


def test_an_unknown_tag_is_one_message_for_all_its_photos(tmp_path):
    path = csv(tmp_path, balanced())
    rows = {f"v{i}.png": "Dog" for i in range(3)}
    for i, name in enumerate(rows):
        picture(tmp_path / name, seed=900 + i)
    (finding,) = check(path, csv(tmp_path, rows, "val.csv"))
    assert finding.where == "val.csv row 2 (v0.png)"
    assert "(3 photos)" in finding.what and finding.do == 'did you mean "dog"?'


def test_masks_of_other_photos_are_no_fault(tmp_path):
    path = csv(tmp_path, balanced())
    for i in range(10):
        for tag, number in (("cat", 1), ("dog", 2)):
            write_mask(tmp_path / "masks" / f"{tag}{i}.png", mask((tag,), {tag: number}))
        write_mask(tmp_path / "masks" / f"other{i}.png", CAT)
    (finding,) = check(path, masks=tmp_path / "masks")
    assert finding.severity == "info" and finding.what.startswith("masks without a photo")
    assert finding.what.endswith(": 10, such as other0.png")
    assert findings_text([finding]).plain.endswith("0 errors, 0 warnings")


@pytest.mark.real
def test_real_photos_have_no_errors(shared):
    animals = shared / "voc-animals"
    findings = check(animals / "val.csv", masks=animals / "masks")
    assert not [str(finding) for finding in findings if finding.severity == "error"]


def test_tags_that_differ_in_digits_alone_are_not_alike(tmp_path):
    rows = {**balanced("code-00a", 10), **balanced("code-01a", 10)}
    assert not [f for f in check(csv(tmp_path, rows)) if f.kind == "spelling"]
