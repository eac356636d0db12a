"""Keywords in pictures and beside them. `files/` holds pictures that real tools wrote."""

import re
import shutil
import struct
import time
from pathlib import Path

import pytest
from formats.layouts import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats import find_format, load_table, read_rows
from tag2mask.formats.keywords import chosen_tags, read_keywords
from tag2mask.formats.xmp import xmp_keywords

FILES = Path(__file__).parent / "files"
NAMESPACES = (
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:lr="http://ns.adobe.com/lightroom/1.0/" '
    'xmlns:digiKam="http://www.digikam.org/ns/1.0/" '
    'xmlns:MicrosoftPhoto="http://ns.microsoft.com/photo/1.0/" '
    'xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/" xmlns:acdsee="http://ns.acdsee.com/iptc/1.0/"'
)


def xmp(fields: str, attributes: str = "") -> str:
    """An XMP packet with these fields."""
    description = f'<rdf:Description rdf:about="" {attributes}>{fields}</rdf:Description>'
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {NAMESPACES}>{description}</rdf:RDF>'
        f'</x:xmpmeta>{" " * 100}<?xpacket end="w"?>'
    )


def listed(field: str, *keywords: str, kind: str = "Bag") -> str:
    items = "".join(f"<rdf:li>{keyword}</rdf:li>" for keyword in keywords)
    return f"<{field}><rdf:{kind}>{items}</rdf:{kind}></{field}>"


def subject(*keywords: str) -> str:
    return xmp(listed("dc:subject", *keywords))


def photo(path: Path, packet: str | bytes = "", **options) -> Path:
    """A photo, with an XMP packet in it."""
    picture(path)
    data = packet.encode() if isinstance(packet, str) else packet
    with Image.open(path) as image:
        image.save(path, **({"xmp": data} if data else {}), **options)
    return path


def tags(folder: Path, **options) -> dict[str, set[str]]:
    rows = read_rows(folder, DataSettings(untagged="nothing", **options))
    return {row.where: set(row.tags) for row in rows.rows}


def findings(folder: Path, **options) -> list[tuple[str, str]]:
    rows = read_keywords(folder, DataSettings(**options))
    return [(finding.severity, str(finding)) for finding in rows.findings]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("exiftool.jpg", {"Dog", "Köln", "Würmer", "Bäume"}),
        ("exiftool.tif", {"Dog", "Köln", "Würmer", "Bäume"}),
        ("exiftool.png", {"Dog", "Köln"}),
        ("exiftool.webp", {"Dog", "Köln"}),
        ("exiftool.avif", {"Dog", "Köln"}),
        ("exiftool.heic", {"Dog", "Köln"}),
        ("exiftool.gif", {"Dog", "Köln"}),
        ("exiftool.jp2", {"Dog", "Köln"}),
        ("imagemagick.png", {"Dog", "Köln", "Würmer"}),  # EXIF is behind the pixels
        ("latin1.jpg", {"Kühe", "dog"}),
        ("exiv2.jpg", {"cat", "Kühe"}),
        ("cut.jpg", {"Weißstörche auf der großen Wiese hinter dem Dorf im Sommer mit Ühu"}),
    ],
)
def test_pictures_of_real_tools(tmp_path, file, expected):
    if file.endswith("heic"):
        pytest.importorskip("pi_heif")
    shutil.copy(FILES / file, tmp_path)
    assert tags(tmp_path) == {file: expected}


@pytest.mark.parametrize("file", ["exiftool_sidecar.xmp", "exiv2_sidecar.xmp"])
@pytest.mark.parametrize("name", ["a.xmp", "A.XMP", "a.jpg.xmp", "a.JPG.xmp"])
def test_sidecars_of_real_tools(tmp_path, file, name):
    photo(tmp_path / "b" / "a.jpg")
    photo(tmp_path / "b" / "aa.jpg")
    shutil.copy(FILES / file, tmp_path / "b" / name)
    tag = {"exiftool_sidecar.xmp": "Dog", "exiv2_sidecar.xmp": "cat"}[file]
    assert tags(tmp_path) == {"b/a.jpg": {tag}, "b/aa.jpg": set()}


@pytest.mark.parametrize(
    "packet",
    [
        subject("cat", "dog", "cat"),
        xmp(listed("dc:subject", "cat", "dog", kind="Seq")),
        xmp(listed("dc:subject", "cat", "dog", kind="Alt")),
        xmp('<dc:subject><rdf:Alt><rdf:li xml:lang="x-default">cat</rdf:li>'
            '<rdf:li xml:lang="en">dog</rdf:li></rdf:Alt></dc:subject>'),
        xmp(listed("dc:subject", "dog"), 'dc:subject="cat"'),
        xmp("<dc:subject>cat</dc:subject><dc:subject>dog</dc:subject>"),
        xmp('<dc:subject><rdf:Bag><rdf:li rdf:parseType="Resource"><rdf:value>cat</rdf:value>'
            "<xmpMM:x>no</xmpMM:x></rdf:li><rdf:li> dog\n</rdf:li></rdf:Bag></dc:subject>"),
        xmp(listed("lr:hierarchicalSubject", "cat", "Animals|dog")),
        xmp(listed("digiKam:TagsList", "cat", "Animals/dog", kind="Seq")),
        xmp(listed("MicrosoftPhoto:LastKeywordXMP", "Pets/cat", "dog")),
        # Windows and ExifTool leave out the last "/" of the name.
        xmp(listed("MicrosoftPhoto:LastKeywordXMP", "Pets/cat", "dog")).replace("o/1.0/", "o/1.0"),
        xmp("<acdsee:categories>&lt;Categories&gt;&lt;Category Assigned=&quot;0&quot;&gt;Animals"
            "&lt;Category Assigned=&quot;1&quot;&gt;cat&lt;/Category&gt;&lt;/Category&gt;"
            "&lt;Category Assigned=&quot;1&quot;&gt;dog&lt;/Category&gt;"
            "&lt;Category Assigned=&quot;0&quot;&gt;no&lt;/Category&gt;&lt;/Categories&gt;"
            "</acdsee:categories>"),
        # Those deeper inside are of pictures from which this one was made.
        xmp(f'<xmpMM:Pantry><rdf:Bag><rdf:li rdf:parseType="Resource">'
            f'{listed("dc:subject", "no")}</rdf:li></rdf:Bag></xmpMM:Pantry>'
            + listed("dc:subject", "cat", "dog")),
        subject("cat", "dog") + "\0\0",
        subject("cat", "dog").encode("utf-16"),
        b"\xef\xbb\xbf" + subject("cat", "dog").encode(),
    ],
)  # fmt: skip
def test_fields_and_lists_of_xmp(packet):
    assert set(chosen_tags(xmp_keywords(packet))) == {"cat", "dog"}


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif"])
def test_xmp_as_pillow_writes_it(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    picture(path)
    packet = subject("Katze & Hund")
    with Image.open(path) as image:
        if suffix == "tif":
            image.save(path, tiffinfo={700: packet.replace("&", "&amp;").encode()})
        elif suffix == "png":
            from PIL.PngImagePlugin import PngInfo

            info = PngInfo()
            info.add_itxt("XML:com.adobe.xmp", packet.replace("&", "&amp;"), zip=True)
            image.save(path, pnginfo=info)
        else:
            image.save(path, xmp=packet.replace("&", "&amp;").encode())
    assert tags(tmp_path) == {f"a.{suffix}": {"Katze & Hund"}}


# As Lightroom, digiKam and darktable write them: the levels also as plain keywords.
DOG = [("Animals",), ("Dog",), ("Animals", "Dog")]
FRANCE = [("France",), ("Places",), ("Places", "France")]
DEEP = [("Animals", "Dog", "Poodle"), ("Animals",), ("Animals", "Dog"), ("trip",)]


@pytest.mark.parametrize(
    ("keywords", "level", "expected"),
    [
        (DOG, "leaf", {"Dog"}),
        (DOG, "any", {"Animals", "Dog"}),
        (DOG, "1", {"Animals"}),
        (DOG, "2", {"Dog"}),
        (DOG, "3", set()),
        (DOG + FRANCE, "leaf", {"Dog", "France"}),
        (DOG + FRANCE, "1", {"Animals", "Places"}),
        (DEEP, "leaf", {"Poodle", "trip"}),
        (DEEP, "any", {"Animals", "Dog", "Poodle", "trip"}),
        (DEEP, "1", {"Animals", "trip"}),
        (DEEP, "2", {"Dog"}),
        ([("animals",), ("Animals", "Dog")], "leaf", {"Dog"}),
        # Windows writes the whole name as one plain keyword, too.
        ([("Animals/Dog",), ("Animals", "Dog")], "leaf", {"Dog"}),
        ([("Black/White",)], "leaf", {"Black/White"}),
        ([("Colors", "Animals"), ("Animals", "Dog")], "leaf", {"Animals", "Dog"}),
    ],
)
def test_levels(keywords, level, expected):
    for order in (keywords, keywords[::-1]):
        assert set(chosen_tags(order, level)) == expected


@pytest.mark.parametrize("level", ["0", "-1", "top", "", "1.5"])
def test_level_is_checked(tmp_path, level):
    photo(tmp_path / "a.jpg", subject("cat"))
    with pytest.raises(DataError, match=r"photos\.level = .*: give leaf, any, or the number"):
        read_keywords(tmp_path, DataSettings(level=level))


def test_keywords_of_programs_are_none(tmp_path):
    own = listed("dc:subject", "darktable", "format", "jpg")
    paths = listed("lr:hierarchicalSubject", "darktable|format|jpg")
    photo(tmp_path / "a.jpg", xmp(own + paths))
    photo(tmp_path / "b.jpg", xmp(listed("dc:subject", "darktable|format|jpg", "gull")))
    rows = read_keywords(tmp_path, DataSettings())
    assert [(row.tags, row.absent) for row in rows.rows] == [((), ()), (("gull",), None)]


def test_in_photos_without_keywords_nobody_looked(tmp_path):
    photo(tmp_path / "a.jpg", subject("cat"))
    photo(tmp_path / "b.jpg")
    photo(tmp_path / "c.jpg", subject())
    photo(tmp_path / "d.jpg")
    (tmp_path / "d.txt").write_text("\n")
    rows = read_keywords(tmp_path, DataSettings())
    known = {row.where: (row.tags, row.absent) for row in rows.rows}
    assert known == {
        "a.jpg": (("cat",), None),
        "b.jpg": ((), ()),
        "c.jpg": ((), ()),
        "d.jpg": ((), None),
    }
    assert rows.form == "XMP in 1 photo, .txt file in 1 photo"


def test_text_files_beside_pictures(tmp_path):
    for name, text in {
        "a": "1girl, long hair, hatsune miku \\(cosplay\\)",
        "b": "\ufeffcat,\r\ndog\r\n",
        "c": "long hair; cat",
    }.items():
        photo(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    photo(tmp_path / "d.png")
    (tmp_path / "d.png.txt").write_text("cat")
    (tmp_path / "README.txt").write_text("about, these, photos")
    assert find_format(tmp_path) == "keywords"
    assert tags(tmp_path) == {
        "a.png": {"1girl", "long hair", "hatsune miku (cosplay)"},
        "b.png": {"cat", "dog"},
        "c.png": {"long hair; cat"},
        "d.png": {"cat"},
    }
    assert 'such as "long hair; cat"' in findings(tmp_path)[0][1]
    assert tags(tmp_path, separator=";")["c.png"] == {"long hair", "cat"}
    assert tags(tmp_path, separator=" ")["a.png"] >= {"1girl,", "long"}


def test_several_tags_in_one_keyword_are_asked_about(tmp_path):
    photo(tmp_path / "a.jpg", subject("cat, dog", "Birds|Gull, young"))
    assert "--photos.separator" in findings(tmp_path)[0][1]
    assert tags(tmp_path, separator=",") == {"a.jpg": {"cat", "dog", "Gull, young"}}


def iptc(*keywords: bytes) -> bytes:
    """A segment of JPEG with these keywords behind a long text, which has a length of its own."""
    fields = b"\x1c\x02\x78\x80\x04" + struct.pack(">I", 40_000) + b"x" * 40_000
    for keyword in keywords:
        fields += b"\x1c\x02\x19" + struct.pack(">H", len(keyword)) + keyword
    block = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(fields)) + fields
    return b"\xff\xed" + struct.pack(">H", len(block) + 2) + block


def test_only_what_iptc_has_cut_is_left_out(tmp_path):
    long = "y" * 61 + "äöü and more"  # byte 64 is in the middle of a letter
    cut = long.encode()[:64]
    photo(tmp_path / "a.jpg", subject(long, "cathedral"), extra=iptc(cut, b"cat"))
    photo(tmp_path / "b.jpg", extra=iptc(cut, b"K\xfche"))
    assert tags(tmp_path) == {
        "a.jpg": {long, "cathedral", "cat"},
        "b.jpg": {"y" * 61 + "ä", "Kühe"},
    }


def test_keywords_behind_the_pixels_of_a_huge_picture(tmp_path):
    """Old versions of ExifTool put them there; the pixels are not read."""
    data = (FILES / "exiftool.png").read_bytes()
    start, end = data.index(b"iTXt") - 4, data.index(b"IDAT") - 4
    with (tmp_path / "a.png").open("wb") as file:
        file.write(data[:start] + data[end:-12] + struct.pack(">I4s", 1 << 30, b"IDAT"))
        file.seek((1 << 30) + 4, 1)
        file.write(data[start:end] + data[-12:])
    begin = time.process_time()
    assert tags(tmp_path) == {"a.png": {"Dog", "Köln"}}
    assert time.process_time() - begin < 0.5


def test_boxes_and_sentences_are_no_tags(tmp_path):
    for i in range(3):
        photo(tmp_path / f"{i}.jpg")
        (tmp_path / f"{i}.txt").write_text(f"{i} 0.5 0.5 0.25 0.{i}1\n")
    assert [kind for kind, _ in findings(tmp_path)] == ["error"]
    assert "3 of 3 keywords are YOLO's boxes" in findings(tmp_path)[0][1]
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text(f"a photo of a cat on sofa number {i}")
    assert [kind for kind, _ in findings(tmp_path)] == ["warning"]
    assert "3 of 3 keywords are sentences" in findings(tmp_path)[0][1]


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    + subject("&b;").split("?>", 1)[1]
)
OUTSIDE = BOMB.replace('<!ENTITY a "aaaaaaaaaa">', '<!ENTITY a SYSTEM "file:///etc/passwd">')


@pytest.mark.parametrize("packet", [BOMB, OUTSIDE, BOMB.encode("utf-16")])
@pytest.mark.parametrize("place", ["inside", "a.xmp"])
def test_entities_are_an_error_with_the_name_of_the_file(tmp_path, packet, place):
    if place == "inside":
        photo(tmp_path / "a.jpg", packet)
    else:
        photo(tmp_path / "a.jpg")
        (tmp_path / place).write_bytes(packet if isinstance(packet, bytes) else packet.encode())
    photo(tmp_path / "b.jpg", subject("cat"))
    name = "XMP" if place == "inside" else place
    assert findings(tmp_path) == [
        (
            "error",
            f"a.jpg: {name}: has a document type (<!DOCTYPE), which could define harmful entities",
        )
    ]
    assert tags(tmp_path) == {"a.jpg": set(), "b.jpg": {"cat"}}


def test_entities_in_the_xml_inside_a_field(tmp_path):
    inner = "&lt;!DOCTYPE x []&gt;&lt;Categories/&gt;"
    photo(tmp_path / "a.jpg", xmp(f"<acdsee:categories>{inner}</acdsee:categories>"))
    assert [kind for kind, _ in findings(tmp_path)] == ["error"]


def test_what_cannot_be_read_leaves_tags_unknown(tmp_path):
    broken = subject("cat").replace("</rdf:Bag>", "")
    photo(tmp_path / "a.jpg", broken)
    (tmp_path / "a.txt").write_text("dog")
    photo(tmp_path / "b.jpg")
    (tmp_path / "b.xmp").write_bytes(b"\xff\xfe\xff")
    photo(tmp_path / "c.jpg", subject("cat"))
    (tmp_path / "d.jpg").write_bytes(b"no picture")
    rows = read_keywords(tmp_path, DataSettings())
    known = {row.where: (row.tags, row.absent) for row in rows.rows}
    assert known == {
        "a.jpg": (("dog",), ()),
        "b.jpg": ((), ()),
        "c.jpg": (("cat",), None),
        "d.jpg": ((), ()),
    }
    places = [(finding.severity, finding.where) for finding in rows.findings]
    assert places == [("warning", f"{name}.jpg") for name in "abd"]
    assert all("unknown" in finding.do for finding in rows.findings)
    assert load_table(tmp_path).photos[0].unknown == ("cat",)


def test_huge_and_deep_files_end_soon(tmp_path):
    for name in "abcdef":
        photo(tmp_path / f"{name}.jpg")
    with (tmp_path / "a.xmp").open("wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "b.xmp").write_text("<a>" * 100_000 + "</a>" * 100_000)
    (tmp_path / "c.xmp").write_text(subject("a|" * 100_000))
    for name, text in {"d": "x", "e": "1 ", "f": "1"}.items():
        (tmp_path / f"{name}.txt").write_text(text * 1_000_000)
    start = time.process_time()
    texts = [text for _, text in findings(tmp_path)]
    assert time.process_time() - start < 5 and max(map(len, texts)) < 300
    assert "a.jpg: a.xmp: has more than 16 MB" in texts
    assert "2 of 4 keywords are sentences" in "\n".join(texts)


def test_folders_of_photos_with_keywords_have_two_readings(tmp_path):
    for i in range(300):
        packet = subject("cat") if i > 9 else ""
        photo(tmp_path / ("2025" if i % 2 else "2026") / f"{i}.jpg", packet)
    with pytest.raises(DataError) as error:
        read_rows(tmp_path)
    text = str(error.value)
    assert "--photos.form keywords" in text and "--photos.form folder" in text
    assert re.search(r"\(cat; 14\d of 150 have some\)", text) and "(2025, 2026)" in text
    assert set.union(*tags(tmp_path, form="keywords").values()) == {"cat"}
    assert set.union(*tags(tmp_path, form="folder").values()) == {"2025", "2026"}


def test_folders_of_photos_without_keywords_are_tags(tmp_path):
    for name in ("cat", "dog"):
        photo(tmp_path / name / "a.jpg")
        (tmp_path / name / "notes.txt").write_text("cat")
    assert find_format(tmp_path) == "folder"


def test_in_one_folder_all_photos_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr("tag2mask.formats.keywords.LOOKED_AT", 1)
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg", subject("cat"))
    assert tags(tmp_path) == {"a.jpg": set(), "b.jpg": {"cat"}}


def test_one_folder_is_no_tag_beside_keywords(tmp_path):
    photo(tmp_path / "pictures" / "2026" / "a.jpg", subject("cat"))
    assert tags(tmp_path) == {"pictures/2026/a.jpg": {"cat"}}


@pytest.mark.real
def test_the_library_of_the_reference_data(shared):
    rows = read_rows(shared / "tag-formats" / "xmp", DataSettings(drop=("2026 Trip",)))
    assert len(rows.rows) == 8 and all(row.absent is None for row in rows.rows)
    assert {tag for row in rows.rows for tag in row.tags} == {"cat", "dog", "traffic light"}


@settings(max_examples=150, deadline=None)
@given(
    file=st.sampled_from(sorted(path.name for path in FILES.glob("*.*") if path.suffix != ".md")),
    changes=st.lists(st.tuples(st.integers(0, 3999), st.integers(0, 255)), min_size=1, max_size=9),
    length=st.integers(0, 4000),
)
def test_damaged_files_never_end_the_reading(tmp_path_factory, file, changes, length):
    folder = tmp_path_factory.mktemp("damaged")
    photo(folder / "a.jpg", subject("cat"))
    data = bytearray((FILES / file).read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    name = "a.xmp" if file.endswith(".xmp") else file
    (folder / name).write_bytes(data if length > 3000 else data[:length])
    rows = read_keywords(folder, DataSettings())
    assert "cat" in next(row.tags for row in rows.rows if row.where == "a.jpg")
