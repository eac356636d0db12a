"""Tables as people and tools write them: CSV, TSV, Excel, JSON lines, lists of objects."""

import csv
import io
import json
import math
import random
import re
import string
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tag2mask.config import DataSettings
from tag2mask.errors import DataError
from tag2mask.formats import load_table, pictures, read_rows
from tag2mask.formats.cells import SCORED, UNKNOWN
from tag2mask.formats.columns import COUNTERS, NO_TAGS, is_column_name
from tag2mask.formats.pictures import Pictures
from tag2mask.formats.rows import to_table
from tag2mask.formats.tables import rows_from_objects, rows_from_records
from tag2mask.photos.table import tag_key

NAMES = [f"{letter}.jpg" for letter in "abcdefgh"]


@pytest.fixture
def folder(tmp_path):
    """A folder with pictures; readers look whether they exist and do not open them."""
    for name in NAMES:
        (tmp_path / name).touch()
    return tmp_path


def read(folder: Path, text: str | bytes, name: str = "table.csv", **options):
    """What a table means: picture -> present tags, or (present, unknown) if some are unknown."""
    data = text.encode() if isinstance(text, str) else text
    (folder / name).write_bytes(data)
    return meaning(read_rows(folder / name, DataSettings(**options)))


def meaning(rows):
    table = to_table(rows, untagged=True)
    return {
        photo.path.name: (set(photo.tags), set(photo.unknown)) if photo.unknown else set(photo.tags)
        for photo in table.photos
    }


def form(folder: Path, text: str, **options) -> str:
    (folder / "table.csv").write_text(text)
    return read_rows(folder / "table.csv", DataSettings(**options)).form


def fault(folder: Path, text: str | bytes, name: str = "table.csv", **options) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, text, name, **options)
    return str(caught.value)


PLAIN = {"a.jpg": {"cat"}, "b.jpg": {"cat", "dog"}, "c.jpg": set()}


@pytest.mark.parametrize(
    "text",
    [
        "file_name,tags\na.jpg,cat\nb.jpg,cat;dog\nc.jpg,\n",
        "File Name;Tags\r\na.jpg;cat\r\nb.jpg;cat, dog\r\nc.jpg;\r\n",
        "sep=;\r\nImage Index;Finding Labels\r\na.jpg;cat\r\nb.jpg;cat|dog\r\nc.jpg;\r\n",
        "image_path\tLABELS\na\tcat\nB.JPG\tcat,dog\nc.png\t\n",
        "filename|keywords\na.jpg|cat\nb.jpg|cat;dog\nc.jpg|\n",
        'image,label\n"a.jpg","cat"\n\n"b.jpg","cat, dog"\n"c.jpg",""\n\n',
        "'image','label'\n'a.jpg','cat'\n'b.jpg','cat, dog'\n'c.jpg',''\n",
        'tags, url\ncat, https://x.org/y/a.jpg?size=1\n"cat, dog", gs://x/b.jpg\n, s3://x/c.jpg\n',
        "id,path,class,note\n1,C:\\old\\a.jpg,cat,x\n2,C:\\old\\b.jpg,cat;dog,\n3,old/c.jpg,,y\n",
        "a.jpg,cat\nb.jpg,cat;dog\nc.jpg,\n",
        "a.jpg;1;2;3;4;cat\nb.jpg;1;2;3;4;cat,dog\nc.jpg;;;;;\n",
        'file,tags\na.jpg,"[""cat""]"\nb.jpg,"[\'cat\', \'dog\']"\nc.jpg,[]\n',
        "file,tags\na.jpg,['cat']\nb.jpg,['cat' 'dog']\nc.jpg,[]\n",
        'file,tags\na.jpg,cat\nb.jpg,"{""choices"": [""cat"", ""dog""]}"\nc.jpg,\n',
        'file,tags\na.jpg,cat\nb.jpg,"cat\ndog"\nc.jpg,\n',
        "filename, cat, dog\na.jpg, 1, 0\nb.jpg, 1, 1\nc.jpg, 0, 0\n",
        "filename,size,cat,dog\na.jpg,300,TRUE,FALSE\nb.jpg,7,TRUE,TRUE\nc.jpg,8,FALSE,FALSE\n",
        "filename,cat,dog,comment\na.jpg,x,,\nb.jpg,X,x,two\nc.jpg,,,\n",
        "image_id,cat,dog\na.jpg,1,-1\nb.jpg,1,1\nc.jpg,-1,-1\n",
        "fname,cat,dog\na.jpg,1.0,0.0\nb.jpg,1.0,1.0\nc.jpg,0.0,0.0\n",
        "file,label_1,label_2\na.jpg,cat,\nb.jpg,cat,dog\nc.jpg,,\n",
        "file,tag\na.jpg,cat\nb.jpg,cat\nb.jpg,dog\nc.jpg,\n",
        "filename,width,class,xmin\nb.jpg,9,cat,1\nb.jpg,9,dog,2\nb.jpg,9,dog,3\na.jpg,9,cat,1\nc.jpg,9,,\n",
    ],
)
def test_tables_that_mean_the_same(folder, text):
    assert read(folder, text) == PLAIN


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_of_unicode(folder, encoding):
    text = "file_name\ttags\r\na.jpg\tchâteau\r\nb.jpg\t猫\r\n"
    assert read(folder, text.encode(encoding)) == {"a.jpg": {"château"}, "b.jpg": {"猫"}}
    assert "tabs" in read_rows(folder / "table.csv").form


def test_excels_western_encoding_is_read_and_said(folder):
    text = "file_name;tags\r\na.jpg;château\r\nb.jpg;cœur, Straße\r\n"
    rows = {"a.jpg": {"château"}, "b.jpg": {"cœur", "Straße"}}
    assert read(folder, text.encode("cp1252")) == rows
    found = read_rows(folder / "table.csv")
    assert "cp1252" in found.form
    (warning,) = found.findings
    assert "château, cœur, Straße" in warning.what and "UTF-8" in warning.do


@pytest.mark.parametrize(
    ("encoding", "tag"),
    [
        *(("cp1251", "кошка"), ("cp1253", "γάτα"), ("cp1250", "księżyc"), ("mac_roman", "château")),
        *(("cp932", "テレビ"), ("gbk", "电视机"), ("cp1255", "חתול"), ("cp1256", "قطة")),
    ],
)
def test_other_encodings_are_not_guessed(folder, encoding, tag):
    text = f"file_name,tags\na.jpg,{tag}\nb.jpg,dog\n".encode(encoding)
    assert "save it as UTF-8" in fault(folder, text)


def test_open_images(folder):
    text = (
        "ImageID,Source,LabelName,Confidence\na,verification,cat,1\na,verification,dog,0\n"
        "b,machine,cat,0.4\nb,machine,dog,0.9\nb,verification,sofa,0\n"
        "c,machine,dog,0.8\nc,verification,dog,0\n"
    )
    assert read(folder, text) == {
        "a.jpg": ({"cat"}, {"sofa"}),
        "b.jpg": ({"dog"}, {"cat"}),
        "c.jpg": (set(), {"cat", "sofa"}),
    }
    assert read(folder, text, min_confidence=0.3)["b.jpg"] == {"cat", "dog"}
    machine = text + "d,machine,cat,0\nd,verification,dog,0\n"
    assert read(folder, machine)["d.jpg"] == (set(), {"cat", "sofa"})  # it is no person's word
    text += "d,verification,cat,1\nd,verification,cat,0\n"
    assert 'row 9 (d): "cat" is both present and absent' in fault(folder, text)


def test_a_low_confidence_is_no_photo_of_nothing(folder):
    text = "file,label,score\na.jpg,cat,0.9\na.jpg,dog,0.2\nb.jpg,dog,0.3\nc.jpg,dog,1\nd.jpg,,\n"
    assert read(folder, text) == {
        "a.jpg": ({"cat"}, {"dog"}),
        "b.jpg": (set(), {"dog"}),
        "c.jpg": {"dog"},
        "d.jpg": set(),
    }
    assert "0 to 1" in fault(folder, "file,label,confidence\na.jpg,cat,95\n")


def test_marks_of_chexpert(folder):
    text = "Path,Sex,No Finding,Edema,Pneumonia\na.jpg,F,1.0,,0.0\nb.jpg,M,,1.0,-1.0\n"
    text += "c.jpg,M,,,\nd.jpg,M,,0,1\n"
    (folder / "table.csv").write_text(text)
    rows = read_rows(folder / "table.csv", DataSettings(nothing=("No Finding",)))
    assert meaning(rows) == {
        "a.jpg": set(),
        "b.jpg": ({"Edema"}, {"Pneumonia"}),
        "d.jpg": {"Pneumonia"},
    }
    assert "-1 and empty unknown" in rows.form and "ignored: Sex" in rows.form
    assert "-1 may mean" in fault(folder, "file,cat,dog\na.jpg,1,-1\nb.jpg,1,\n")
    wrong = "file,cat\n" + "".join(f"{name},1\n" for name in NAMES) * 1
    wrong += "".join(f"{name},0\n" for name in ("x.jpg", "y.jpg", "z.jpg")) + "a.jpg,maybe\n"
    assert "'maybe' is neither 1 nor 0" in fault(folder, wrong)


@pytest.mark.parametrize(
    ("text", "parts", "choice", "tags"),
    [
        (
            "image,photo,tags\na.jpg,b.jpg,cat\n",
            ['"image", "photo"', "--photos.file-column"],
            {"file_column": "photo"},
            {"b.jpg": {"cat"}},
        ),
        (
            "image,tags,label\na.jpg,cat,dog\n",
            ['"tags", "label"', "--photos.tag-column"],
            {"tag_column": "3"},
            {"a.jpg": {"dog"}},
        ),
        (
            'image,tags\na.jpg,"a b;c, d"\n',
            ["'a b' + 'c, d'", "'a b;c' + 'd'", "--photos.separator"],
            {"separator": ";"},
            {"a.jpg": {"a b", "c, d"}},
        ),
        (
            "image,tags\na.jpg,haze primary\nb.jpg,primary\nc.jpg,haze\n",
            ["'haze' + 'primary'", "--photos.separator"],
            {"separator": " "},
            {"a.jpg": {"haze", "primary"}, "b.jpg": {"primary"}, "c.jpg": {"haze"}},
        ),
        (
            'image,tags\na.jpg,"wolf (Linnaeus, 1758)"\n',
            ["--photos.separator"],
            {"separator": "none"},
            {"a.jpg": {"wolf (Linnaeus, 1758)"}},
        ),
        (
            "image,label\na.jpg,0\nb.jpg,1\n",
            ["0 and 1", "--photos.tag-column", "--photos.nothing"],
            {"tag_column": "label", "nothing": ("0",)},
            {"a.jpg": set(), "b.jpg": {"1"}},
        ),
        (  # Wildlife Insights: "class" is the one of zoology
            "filename,is_blank,class,species,common_name\n"
            "a.jpg,0,Mammalia,canis,Dog\nb.jpg,1,,,Blank\n",
            ['"class", "species", "common_name"', "--photos.tag-column"],
            {"tag_column": "common_name", "nothing": ("Blank",)},
            {"a.jpg": {"Dog"}, "b.jpg": set()},
        ),
        (
            "image,mood\na.jpg,good\n",
            ["--photos.tag-column"],
            {"tag_column": "mood"},
            {"a.jpg": {"good"}},
        ),
    ],
)
def test_a_choice_is_left_to_the_person(folder, text, parts, choice, tags):
    (folder / "table.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        load_table(folder / "table.csv")
    assert all(part in str(caught.value) for part in parts)
    assert read(folder, text, **choice) == tags


def test_two_columns_that_name_different_pictures(folder):
    text = "file_name,image,tags\na.jpg,b.jpg,cat\nc.jpg,d.jpg,dog\n"
    assert "--photos.file-column" in fault(folder, text)
    same = "path,image,tags\nold/a.jpg,a.jpg,cat\nold/c.jpg,c,dog\n"
    assert read(folder, same) == {"a.jpg": {"cat"}, "c.jpg": {"dog"}}


def test_both_columns_in_doubt_are_said_at_once(folder):
    text = fault(folder, "image,photo,tags,label\na.jpg,b.jpg,cat,dog\n")
    assert "--photos.file-column" in text and "--photos.tag-column" in text


def test_a_tag_of_two_words_is_one_tag(folder):
    text = "image,tags\na.jpg,traffic light\nb.jpg,fire hydrant\nc.jpg,cat\n"
    assert read(folder, text)["a.jpg"] == {"traffic light"}
    assert not read_rows(folder / "table.csv").findings
    (folder / "table.csv").write_text(text + "d.jpg,traffic sign\n")
    (warning,) = read_rows(folder / "table.csv").findings
    assert "'traffic light', 'traffic sign'" in warning.what and "--photos.separator" in warning.do
    assert "--photos.separator" in fault(folder, text + "d.jpg,traffic\n")
    assert read(folder, text + "c.jpg,traffic\n")["c.jpg"] == {"cat", "traffic"}


def test_json_lines_and_objects(folder):
    objects = [
        {"file_name": "a.jpg", "tags": ["cat", "dog"]},
        {"file_name": "b.jpg", "tags": []},
        {"file_name": "c.jpg"},
        {"file_name": "d.jpg", "tags": None, "note": {"x": 1}},
        {"file_name": "e.jpg", "tags": "cat;bird"},
        {"file_name": "f.jpg", "tags": 7},
        {"file_name": "g.jpg", "tags": math.nan},
    ]
    expected = {
        "a.jpg": {"cat", "dog"},
        "b.jpg": set(),
        "e.jpg": {"cat", "bird"},
        "f.jpg": {"7"},
    }
    text = "\n".join(map(json.dumps, objects))
    assert read(folder, text, "x.jsonl") == expected  # in c, d and g nobody looked
    rows = rows_from_objects(folder / "list", objects, DataSettings())
    assert [row.absent for row in rows.rows] == [None, None, (), (), None, None, ()]
    records = [list(value.values()) for value in objects[:2]]
    assert len(rows_from_records(folder / "x", ["file", "tags"], records, DataSettings()).rows) == 2
    sparse = [{"file": "a.jpg", "cat": True, "dog": True}, {"file": "b.jpg", "cat": False}]
    found = meaning(rows_from_objects(folder / "list", sparse, DataSettings()))
    assert found == {"a.jpg": {"cat", "dog"}, "b.jpg": (set(), {"dog"})}


def test_a_column_tells_training_from_validation(folder):
    text = "file,tags,split\na.jpg,cat,train\nb.jpg,dog,Val\nc.jpg,cat,test\nd.jpg,dog,train\n"
    (folder / "table.csv").write_text(text)
    rows = read_rows(folder / "table.csv")
    assert [row.path.name for row in rows.rows] == ["a.jpg", "d.jpg"]
    assert [row.path.name for row in rows.val.rows] == ["b.jpg"]
    fastai = "fname,labels,is_valid\na.jpg,cat,True\nb.jpg,cat,False\n"
    (folder / "table.csv").write_text(fastai)
    assert [row.path.name for row in read_rows(folder / "table.csv").val.rows] == ["a.jpg"]
    assert "'holdout'" in fault(folder, text + "e.jpg,dog,train\n" * 0 + long_split())


def long_split() -> str:
    return "".join(f"{i}.jpg,cat,train\n" for i in range(2001)) + "e.jpg,dog,holdout\n"


def test_several_rows_of_one_photo(folder):
    several = "file,tags\n" + "".join(f"{name},cat\n" for name in NAMES) + "a.jpg,cat;dog\n"
    assert "row 10 (a.jpg): duplicate row: the same picture as row 2" in fault(folder, several)
    assert "duplicate row" in fault(folder, "file,cat,dog\na.jpg,1,0\na.jpg,0,1\n")
    assert "duplicate row" in fault(folder, "file,tag\na.jpg,\na.jpg,cat\n")


def test_what_was_understood_is_said(folder):
    text = 'no,file_name,tags,person\n1,a.jpg,cat,X\n2,b.jpg,"cat, dog",Y\n'
    assert form(folder, text) == (
        "csv: table in UTF-8, cells separated by ',', file names in file_name, "
        "tags in tags separated by ','; other columns are ignored: no, person"
    )
    assert "tags in tags, one in each cell" in form(folder, "file,tags\na.jpg,cat\n")


def test_the_cells_find_the_column_of_files(folder):
    for i in range(3):
        (folder / f"{i}.jpg").touch()
    assert read(folder, "id,file_name,tags\n0,a.jpg,cat\n1,b.jpg,dog\n") == {
        "a.jpg": {"cat"},
        "b.jpg": {"dog"},
    }
    assert read(folder, "name,Bild,tags\nfirst,a.jpg,cat\nsecond,b.jpg,dog\n").keys() == {
        "a.jpg",
        "b.jpg",
    }


def test_label_studio_with_single_choices(folder):
    text = "image,id,kind,annotator,annotation_id,lead_time\n/data/upload/1/a.jpg,1,cat,1,1,2\n"
    assert read(folder, text) == {"a.jpg": {"cat"}}


HOSTILE = "../../../../../../../etc/passwd"


@pytest.mark.parametrize("name", [HOSTILE, "/etc/passwd", "file:///etc/passwd", HOSTILE * 2])
def test_names_that_lead_out_are_not_read(folder, name):
    text = fault(folder, f"file_name,tags\na.jpg,cat\n{name},dog\n")
    assert "row 3" in text and ("is not read: it is outside" in text or "no such file" in text)
    assert Pictures([folder]).there(name) is None


def test_pictures_beside_the_folder_are_read(folder):
    (folder / "tables").mkdir()
    (folder / "tables" / "x.csv").write_text("file_name,tags\n../a.jpg,cat\n")
    assert meaning(read_rows(folder / "tables" / "x.csv")) == {"a.jpg": {"cat"}}


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"file_name,tags\na.jpg,c\0t\n", "zero bytes"),
        (b"PK\x03\x04aaaa", "Excel"),
        (b'file_name,tags\na.jpg,"' + b"x" * 200_000 + b'"\n', "field limit"),
        (b"file_name,tags\na.jpg,cat\n" + b"x" * (17 << 20), "longer than 16 MB"),
        (b"file_name,tags\na.jpg,\x81\x8d\n", "save it as UTF-8"),
        (b'file_name,tags\n"a.jpg,cat\n', "not valid CSV"),
        (b'file_name,tags\na.jpg,"{""a"": 1}"\n', "must be a text or a list of texts"),
        (b"file_name,tags\na.jpg,\"['cat', x']\"\n", "looks like a list"),
        (b"file_name,tags\na.jpg," + b"[" * 50_000 + b"]\n", "row 2"),
    ],
)
def test_hostile_text(folder, data, part):
    assert part in fault(folder, data)


@pytest.mark.parametrize(
    "tags", ['{"a": 1}', "[[1]]", "[null]", "[true]", "[" * 100_000, '{"choices": [{}]}']
)
def test_hostile_json(folder, tags):
    assert "row 1" in fault(folder, f'{{"file_name": "a.jpg", "tags": {tags}}}\n', "x.jsonl")


def test_formulas_are_text(folder):
    assert read(folder, "file_name,tags\na.jpg,\"=cmd|' /C calc'!A0\"\n", separator=";") == {
        "a.jpg": {"=cmd|' /C calc'!A0"}
    }


def test_a_large_folder_is_searched_only_when_told(folder, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_SEARCHED", 3)
    assert read(folder, "file_name,tags\na.jpg,cat\n") == {"a.jpg": {"cat"}}
    assert "--photos.images" in fault(folder, "file_name,tags\na.jpg,cat\nb,dog\nc,dog\nx,dog\n")
    assert read(folder, "file_name,tags\nA,cat\n", images=folder) == {"a.jpg": {"cat"}}


def test_names_of_several_pictures_are_not_decided(folder):
    for place in ("x", "y"):
        (folder / place).mkdir()
        (folder / place / "z.jpg").touch()
    text = "file_name,tags\na.jpg,cat\nold/x/z.jpg,dog\n"
    assert read(folder, text) == {"a.jpg": {"cat"}, "z.jpg": {"dog"}}
    assert "2 pictures have this name" in fault(folder, "file_name,tags\na.jpg,cat\nz,dog\n")


def excel(path: Path, *rows, sheets: int = 0) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for _ in range(sheets):
        book.create_sheet()
    for row in rows:
        book.worksheets[-1].append(row)
    book.save(path)
    return path


def test_excel(folder):
    path = excel(
        folder / "t.xlsx",
        ("No", "Photo", "Defects", None),
        (1, "a.jpg", "crack, dent"),
        (2, "b.jpg", None),
        (),
        (3, "c.jpg", 7),
        sheets=1,
    )
    assert meaning(read_rows(path)) == {"a.jpg": {"crack", "dent"}, "b.jpg": set(), "c.jpg": {"7"}}
    one_hot = excel(
        folder / "o.xlsx", ("file", "cat", "dog"), ("a.jpg", True, False), ("b.jpg", 1, 0)
    )
    assert meaning(read_rows(one_hot)) == {"a.jpg": {"cat"}, "b.jpg": {"cat"}}


def test_hostile_excel(folder, monkeypatch):
    path = excel(folder / "t.xlsx", ("file", "tags"), ("a.jpg", "cat"))
    book = pytest.importorskip("openpyxl").load_workbook(path)
    book.active["XFD1048576"] = "far away"  # 2 ** 34 cells
    book.save(path)
    with pytest.raises(DataError, match="row 1048576: 16384 cells under 2 columns"):
        load_table(path)
    bomb = folder / "bomb.xlsx"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for i in range(3):
            file.writestr(f"xl/worksheets/sheet{i}.xml", b" " * (400 << 20))
    with pytest.raises(DataError, match=r"unpacks to 1\.2 GB"):
        load_table(bomb)
    (folder / "no.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"not a readable \.xlsx"):
        load_table(folder / "no.xlsx")
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(DataError, match=r"pip install 'tag2mask\[excel\]'"):
        load_table(path)


# Tables in random dialects: the reading is right, or an error names the option that chooses.

PICTURES = [
    "IMG_0001.jpg",
    "IMG_0002.jpg",
    "été 3.jpg",
    "x.y.jpg",
    "A (4).jpg",
    "z&z.jpg",
    "07.jpg",
]
WORDS = st.text(
    st.sampled_from(string.ascii_letters + "éüñœ0123456789-_'&/ "), min_size=1, max_size=12
)


def is_tag(text: str) -> bool:
    """Not a number, not R's NA, no name of a counter, Western (see `find_encoding`), not in quotes
    of its own, without a confidence, and no name of a column (a table may have no header)."""
    if text[:1] in ("'", '"') or SCORED.search(text) or is_column_name(tag_key(text)):
        return False
    known = text.casefold() in {*UNKNOWN, *COUNTERS, *NO_TAGS}
    return not known and any(map(str.isalpha, text)) and not re.search("[éüñœ]{3}", text)


TAGS = WORDS.map(lambda text: " ".join(text.split())).filter(is_tag)
FILE_COLUMNS = [
    "file_name",
    "Filename",
    "image",
    "Image Index",
    "path",
    "img_path",
    "photo",
    "URL",
    "id",
]
TAG_COLUMNS = [
    "tags",
    "Labels",
    "label",
    "Finding Labels",
    "category",
    "Keywords",
    "class",
    "defects",
]
EXTRAS = {
    "width": lambda i: str(100 + i),
    "note": lambda i: random.Random(i).choice(["", "good", "a, b", "x;y"]),
    "No": str,
    "photographer": lambda i: "Ann" if i % 2 else "",
    "taken": lambda i: f"2026-01-{i + 1:02d}",
}


@st.composite
def tables(draw):
    """(files, tags of each, header, records, dialect, encoding, options that choose)."""
    tags = draw(st.lists(TAGS, min_size=1, max_size=5, unique_by=lambda tag: tag.casefold()))
    number = draw(st.integers(1, 8))
    photos = {
        name: draw(st.lists(st.sampled_from(tags), unique=True, max_size=len(tags)))
        for name in draw(st.permutations(PICTURES))[:number]
    }
    as_written = draw(
        st.sampled_from(
            [
                str,
                lambda name: name.removesuffix(".jpg"),
                str.upper,
                lambda name: f"C:\\photos\\{name}",
                lambda name: f"https://example.org/x/{name}?token=a",
                lambda name: f"./{name}",
                lambda name: f"/data/{name[:-4]}.png",
            ]
        )
    )
    kind = draw(st.sampled_from(["list", "list", "json", "python", "one-hot", "long"]))
    file_column, tag_column = (
        draw(st.sampled_from(FILE_COLUMNS)),
        draw(st.sampled_from(TAG_COLUMNS)),
    )
    separator = draw(st.sampled_from([";", ",", "|", "; ", ", ", " | "]))
    columns: list[tuple[str, list[str]]] = []
    names = [
        name
        for name, own in photos.items()
        for _ in range(len(own) if kind == "long" and own else 1)
    ]
    columns.append((file_column, list(map(as_written, names))))
    if kind == "one-hot":
        yes, no = draw(st.sampled_from([("1", "0"), ("True", "False"), ("yes", "no"), ("x", "")]))
        columns += [(tag, [yes if tag in photos[name] else no for name in names]) for tag in tags]
    elif kind == "long":
        columns.append((tag_column, [tag for own in photos.values() for tag in own or [""]]))
    else:
        write = {"list": separator.join, "json": json.dumps, "python": str}[kind]
        columns.append((tag_column, [write(photos[name]) for name in names]))
    for extra in draw(st.lists(st.sampled_from(list(EXTRAS)), unique=True, max_size=3)):
        columns.append((extra, [EXTRAS[extra](i) for i in range(len(names))]))
    columns = draw(st.permutations(columns))
    header = [name for name, _ in columns] if kind == "one-hot" or draw(st.integers(0, 5)) else None
    records = list(zip(*(cells for _, cells in columns), strict=True))
    records = draw(st.permutations(records)) if kind == "long" else records
    text = io.StringIO()
    delimiter = draw(st.sampled_from(",,;\t|"))
    options = {
        "delimiter": delimiter,
        "quoting": draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        "lineterminator": draw(st.sampled_from(["\n", "\r\n", "\r"])),
    }
    writer = csv.writer(text, **options)
    writer.writerows([*([header] if header else []), *records])
    if draw(st.booleans()) and delimiter != "\t" and '"' not in text.getvalue():
        padded = text.getvalue().replace(delimiter, f"{delimiter} ")
        inside = any(delimiter in cell for record in records for cell in record)
        text = text if inside else io.StringIO(padded)
    numbers = {name: i + 1 for i, (name, _) in enumerate(columns)}
    choices = {
        "--photos.file-column": {"file_column": str(numbers[file_column])},
        "--photos.tag-column": {"tag_column": str(numbers.get(tag_column, 0))},
        "--photos.separator": {"separator": separator.strip() if kind == "list" else "none"},
    }
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]))
    return photos, text.getvalue(), encoding, choices, kind, tags


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=300)
@given(tables())
def test_random_tables_are_read_right_or_the_choice_is_named(tmp_path_factory, table):
    photos, text, encoding, choices, kind, _ = table
    folder = tmp_path_factory.getbasetemp() / "random"
    folder.mkdir(exist_ok=True)
    for name in PICTURES:
        (folder / name).touch()
    (folder / "table.csv").write_bytes(text.encode(encoding))
    expected = {name: set(tags) for name, tags in photos.items()}
    options: dict[str, str] = {}
    while True:
        rows = read_rows(folder / "table.csv", DataSettings(**options))
        errors = [str(finding) for finding in rows.findings if finding.severity == "error"]
        errors += [str(rows.no_tags)] if rows.no_tags else []
        named = [
            o
            for e in errors
            for o in choices
            if o in e and not choices[o].items() <= options.items()
        ]
        if not errors or not named:
            break
        options |= choices[named[0]]
    if (
        kind == "one-hot"
        and errors
        and all("may have the tags" in e or "tag-column" in e for e in errors)
    ):
        return  # the tags have names of columns
    assert not errors, (errors, text)
    read = {row.path.name: set(row.tags) for row in rows.rows if row.absent is None}
    assert read == expected, (rows.form, text)
