import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layouts import ANIMALS, SIZE, make_voc, mask, picture, xml
from PIL import Image, ImageFile

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

# What is broken (photo fNN has the tag cat unless said), what breaks it, and what the finding must say: (kind, where, what).
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
        ("duplicate, other tags", "f05", "tagged cat here and dog there"),
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
        ("blank picture", "f09", "one colour"),
    ),
    ("no XML", remove("Annotations/f10.xml"), ("annotation", "f10", "no such file")),
    (
        "broken XML",
        text("Annotations/f11.xml", "<annotation><object>"),
        ("annotation", "f11", "not valid XML"),
    ),
    ("no object", text("Annotations/f12.xml", xml("f12", ())), ("no tags", "f12", "no tags")),
    (
        "listed twice",
        lambda root: (root / LIST).open("a").write("f13\n") and None,
        ("repeated row", "f13", "the same picture as"),
    ),
    (
        "other case",
        text("Annotations/f14.xml", xml("f14", ("Cat",))),
        ("spelling", "f14", "are one tag in 2 spellings"),
    ),
    (
        "other spacing",
        text("Annotations/f15.xml", xml("f15", ("pottedplant", "potted plant"))),
        ("spelling", "f15", '"potted plant" (1 photos)'),
    ),
    (
        "class 0 as a tag",
        text("Annotations/f16.xml", xml("f16", ("background",))),
        ("spelling", "f16", "the name of class 0"),
    ),
    (
        "misspelt",
        text("Annotations/f17.xml", xml("f17", ("horsee",))),
        ("spelling", "horsee", "look like one tag"),
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
        ("always together", "bus, train", "nothing can tell"),
    ),
    ("unbalanced", lambda root: None, ("balance", "VOC2012", 'photos of "dog"')),
    (
        "mask gone",
        remove("SegmentationClass/f22.png"),
        ("missing mask", "SegmentationClass", "f22.png"),
    ),
    ("mask of another size", drawn("f23", CAT[:-1]), ("mask", "f23.png", "64 x 47, but")),
    ("unknown number", drawn("f24", np.where(CAT > 0, 77, 0)), ("mask", "f24.png", "[77]")),
    (
        "colour mask",
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
        ("empty mask", "f28.png", "ignore (255) everywhere"),
    ),
    (
        "mask of something else",
        drawn("f29", mask(("dog",), NUMBERS)),
        ("mask and tags", "f29.png", "shows dog, but the tags are cat"),
    ),
    (
        "mask without a picture",
        drawn("nobody", CAT),
        ("stray mask", "nobody.png", "no picture of this name"),
    ),
    (
        "no mask at all",
        text("SegmentationClass/Thumbs.db", "x"),
        ("stray file", "Thumbs.db", "not a PNG"),
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
        for finding in check(root, val, root / "SegmentationClass", numbering="voc")
    )
    for _, damage, _ in FAULTS:
        damage(root)
    before = set(check(root, val, root / "SegmentationClass", numbering="voc"))

    met = set()
    for what, _, (kind, where, said) in FAULTS:
        matching = [f for f in before if f.kind == kind and where in f.where and said in f.what]
        assert len(matching) >= 1, (what, [str(f) for f in before if f.kind == kind])
        met.update(matching)
    assert len(FAULTS) >= 30 and len(met) >= 30
    # Nothing else is said but what follows from these faults (a tag or mask lost with its picture), and nothing of the sound photos.
    follows = ("no tags", "rare tag", "mask and tags", "mask", "spelling", "stray mask")
    assert [str(f) for f in before - met if f.kind not in follows] == []
    assert not any(
        f"(n{i})" in f.where or f"n{i}.png" in f.where
        for f in before
        for i in range(200)
        if f.kind != "leak"
    )


def test_unreadable_data_sets_are_findings_too(tmp_path):
    (found,) = check(tmp_path / "none.csv")
    assert found.severity == "error" and "no such file" in found.what
    path = csv(tmp_path, balanced())
    assert kinds(check(path, masks=tmp_path / "nowhere")) == ["masks"]
    assert kinds(check(path, val=tmp_path / "none.csv")) == ["format"]


def test_tag_in_every_photo(tmp_path):
    (found,) = check(
        csv(
            tmp_path,
            {
                **{f"{i}.png": "cat;dog" for i in range(10)},
                **{f"c{i}.png": "cat" for i in range(10)},
            },
        )
    )
    assert (found.kind, found.where) == ("tag everywhere", 'tag "cat"')


def test_likely_misspellings_and_plurals(tmp_path):
    rows = {**balanced("elephant dog dogs cat horse house", 50), **balanced("elefant")}
    found = check(csv(tmp_path, rows))
    assert [(f.kind, f.where) for f in found] == [
        ("spelling", 'tag "dog"'),
        ("spelling", 'tag "elefant"'),
    ]


def test_clusters_must_name_every_tag(tmp_path):
    path = csv(tmp_path, balanced("cat dog bus"))
    found = check(path, clusters={"animals": ["cat", "dogs"], "all": ["cat", "bus"]})
    assert [(f.kind, f.where, f.what) for f in found] == [
        ("cluster", 'tag "dog"', "in no cluster"),
        ("cluster", 'cluster "animals"', '"dogs" is no tag of this data set'),
    ]
    assert found[1].do == 'did you mean "dog"?'


def test_absent_classes_of_a_fixed_list_are_one_warning(tmp_path):
    (found,) = [finding for finding in check(make_voc(tmp_path)) if finding.kind == "absent tag"]
    assert "aeroplane, bicycle" in found.what and "cat" not in found.what.replace("cat,", "cat")


def test_validation_tags_must_be_known(tmp_path):
    path = csv(tmp_path, balanced())
    val = csv(tmp_path, {"v1.png": "catt", "v2.png": ""}, "val.csv")
    picture(tmp_path / "v1.png", seed=501)
    picture(tmp_path / "v2.png", seed=502)
    (found,) = check(path, val)
    assert (found.kind, found.do) == ("unknown tag", 'did you mean "cat"?')


def test_masks_of_test_photos_are_no_masks_of_training_photos_of_the_same_name(tmp_path):
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
    (found,) = check(path)
    assert found.kind == "animation" and "3 frames" in found.what


def test_frames_that_cannot_be_counted(tmp_path, monkeypatch):
    path = csv(tmp_path, {f"{i}.bmp": "cat" if i < 10 else "dog" for i in range(20)})
    assert check(path) == []
    monkeypatch.setattr(
        ImageFile.ImageFile, "n_frames", property(lambda _: None + 1), raising=False
    )
    assert {finding.kind for finding in check(path)} == {"unreadable picture"}


def test_a_common_fault_is_not_shown_a_thousand_times(tmp_path):
    (tmp_path / "tags.csv").write_text(
        "file_name,tags\n" + "".join(f"{i}.jpg,{'cat' if i % 2 else 'dog'}\n" for i in range(1000))
    )
    findings = check(tmp_path / "tags.csv")
    assert len(findings) == 1000
    shown = findings_text(findings).plain
    assert len(shown.splitlines()) == SHOWN + 2
    assert "missing picture: 980 more" in shown and shown.endswith("1000 errors, 0 warnings")
    assert findings_text([]).plain == "nothing wrong was found"


@pytest.mark.real
def test_real_photos_have_no_errors(shared):
    animals = shared / "voc-animals"
    findings = check(animals / "val.csv", masks=animals / "masks")
    assert not [str(finding) for finding in findings if finding.severity == "error"]
