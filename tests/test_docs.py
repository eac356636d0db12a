"""What the documents name exists: commands are parsed, settings looked up, links followed.

`tests/test_docs_run.py` runs some of them.
"""

import argparse
import ast
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import asdict
from functools import partial, wraps
from pathlib import Path

import pytest
import tyro
from torch.distributed.run import get_args_parser as torchrun_parser

import tag2mask.api
from tag2mask.cli import help_text, main
from tag2mask.cli.commands import COMMANDS
from tag2mask.clusters.make import ARMS, PRESETS
from tag2mask.config import Config, Settings
from tag2mask.config_files import make_config
from tag2mask.crf import PRESETS as CRF_PRESETS
from tag2mask.errors import ConfigError
from tag2mask.formats import FORMATS
from tag2mask.weights import timm

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MARKDOWN = sorted(
    file
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md")
    for file in ROOT.glob(pattern)
)
RECIPES = sorted((ROOT / "src/tag2mask/recipes").glob("*.toml"))
SCRIPTS = sorted((ROOT / "benchmarks").rglob("*.py"))
PROGRAMS = ("tag2mask", "python", "make", "torchrun", "pip", "source")
A_COMMAND = re.compile(rf"(?:{'|'.join(PROGRAMS)})(?: |$)")


# ---- what the documents name ---------------------------------------------------------------------


def blocks(text):
    """Lines of the code blocks of a Markdown text, without Python, which another test runs."""
    text = re.sub(r"^```python\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    indented = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    return "\n".join([*fenced, *indented]).replace("\\\n", " ").splitlines()


def spans(text):
    """What stands between single backticks."""
    return re.findall(
        r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    )


def comments(file):
    """Comments of a TOML file, one per line; lines that end in a backslash are joined."""
    return re.findall(r"(?:^|\s)#[ ]?(.*)", re.sub(r"\\\n#", " ", file.read_text(encoding="utf-8")))


def named():
    """(document, what it names in code) for all documents."""
    for file in MARKDOWN:
        text = file.read_text(encoding="utf-8")
        yield from ((file, line.strip()) for line in blocks(text))
        yield from ((file, span) for span in spans(text))
        yield from (
            (file, command) for command in re.findall(r"<!-- [\w -]+: (.+?) -->", text)
        )  # what makes the table below it
    for file in RECIPES:
        yield from ((file, line.strip()) for line in comments(file))
    for file in SCRIPTS:
        yield from (
            (file, span)
            for span in spans(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "")
        )
    yield from (
        (ROOT / "src/tag2mask/cli/__init__.py", line.strip())
        for line in help_text().splitlines()
        if line.startswith("  tag2mask ")
    )


def cases(accepts):
    """What documents name and `accepts` takes, once per document, as test cases."""
    every = dict.fromkeys(
        (str(file.relative_to(ROOT)), code) for file, code in named() if accepts(code)
    )
    return [pytest.param(code, id=f"{file}: {code}") for file, code in every]


def is_command(code):
    return bool(A_COMMAND.match(code)) and not code.startswith(
        "tag2mask turns "
    )  # the first line of the README


def is_options(code):
    return code.startswith("--")


SECTIONS = [
    name for name, field in Config.model_fields.items() if isinstance(field.default, Settings)
]
SETTING = re.compile(rf"((?:{'|'.join(SECTIONS)})(?:\.[a-z]\w*)+)(?: = (.+))?")
A_FILE = re.compile(r".*\.(py|md|jsonl?|csv|toml|jpg|npz|txt)")


def is_setting(code):
    return bool(SETTING.fullmatch(code)) and not A_FILE.fullmatch(code)


# ---- parsing without running ---------------------------------------------------------------------


class ParsedError(Exception):
    """The arguments are good, and the script goes no further."""


@pytest.fixture
def only_parse(monkeypatch, tmp_path):
    """The command line only parses; the fixture is the list of what it parsed."""
    parsed = []
    cli, parse_args = tyro.cli, argparse.ArgumentParser.parse_args

    def instead(function):
        return wraps(function)(lambda *args, **keywords: parsed.append(keywords))

    def and_stop(*args, **keywords):
        parse_args(*args, **keywords)
        raise ParsedError

    monkeypatch.chdir(tmp_path)  # no run folder there whose settings would count
    Path("my.toml").write_text('recipe = "best"', encoding="utf-8")
    monkeypatch.setattr(
        tyro,
        "cli",
        lambda what, **keywords: cli(what if isinstance(what, type) else instead(what), **keywords),
    )
    monkeypatch.setattr(
        tag2mask.api, "run_config", lambda config, names=(): parsed.append(config.model_dump())
    )
    monkeypatch.setattr(tag2mask.api, "run_demo", lambda config: parsed.append(config.model_dump()))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", and_stop)
    monkeypatch.setattr(sys, "argv", ["program"])
    return parsed


def written_out(command):
    """A command as it is written for readers to commands as they are typed.

    "..." stands for more of the same and is removed. [Brackets] are around optional parts.
    "a, b --c" and "a | b --c" are two commands. An explanation follows two spaces in the help.
    """
    command = re.sub(r"(?<= )\[(.*?)\]", r"\1", re.split(r"  +(?=\w)", command)[0])
    command = re.sub(r"(?<= )\.\.\.", "", command)
    if lists := re.search(r"\w+(?:(?:, | \| )\w+)+", command):
        return [
            command[: lists.start()] + word + command[lists.end() :]
            for word in re.split(r", | \| ", lists[0])
        ]
    return [command]


def parse(command, parsed):
    """Parse a command with its program. Raises AssertionError or SystemExit if it is refused."""
    program, *words = shlex.split(command, comments=True)
    if program == "tag2mask":
        parse_tag2mask(words, parsed)
    elif program == "torchrun":
        options = torchrun_parser().parse_known_args(words)[0]
        assert options.module and options.training_script == "tag2mask", command
        parse_tag2mask(options.training_script_args, parsed)
    elif program == "python" and words[0] == "-c":
        compile(words[1], command, "exec")
    elif program == "python":
        parse_script(*words)
    elif program == "make":
        assert shutil.which("make"), "needs make"
        subprocess.run(["make", "--dry-run", *words], cwd=ROOT, check=True, capture_output=True)
    elif program == "pip":
        parse_pip(*words)
    else:
        assert words == [".venv/bin/activate"] and "VENV := .venv\n" in (
            ROOT / "Makefile"
        ).read_text(encoding="utf-8"), command


def parse_tag2mask(words, parsed):
    if not words or words[-1] == "--help" or " ".join(words) in COMMANDS:
        parse_help([*(word for word in words if word != "--help"), "--help"])
        return
    before = len(parsed)
    assert main(words) == 0
    (values,) = parsed[before:]
    options = values.pop("options", None)
    words_with_meaning(values | (asdict(options) if options else {}))


def parse_help(words):
    """A verb named alone, or with --help: it says what it takes."""
    try:
        assert main(words) == 0
    except SystemExit as end:
        assert end.code == 0


def words_with_meaning(values):
    """What the parser takes for any word and the program would refuse later."""
    for room in ("classifier", "segmenter"):
        backbone = values.get(room, {}).get("backbone", "resnet101")
        assert timm.is_model(backbone.split(".")[0])
    source = (
        values["clusters"]["source"]
        if isinstance(values.get("clusters"), dict)
        else values.get("source", "auto")
    )
    assert source in {"llm", *ARMS, *PRESETS} or source.endswith(".json"), source
    assert values.get("preset", "vit_pcm") in CRF_PRESETS
    assert (classes := values.get("classes")) in (None, "auto", "voc", "coco") or "." in classes, (
        classes
    )


def parse_script(script, *words):
    path = ROOT / script
    assert path.is_file(), f"no script {script}"
    if not words:  # its name alone
        return
    if "parse_args(" not in path.read_text(encoding="utf-8"):
        raise AssertionError(f"{script} takes no arguments, or does not say which (argparse)")
    sys.argv = [str(path), *words]
    sys.path.insert(0, str(path.parent))
    try:
        with pytest.raises(ParsedError):
            runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.path.remove(str(path.parent))


def parse_pip(verb, *words):
    """`pip install`: packages that the project names, "." with extras that it has."""
    assert verb == "install"
    extras = [package for group in PROJECT["optional-dependencies"].values() for package in group]
    packages = [*PROJECT["dependencies"], *extras, "tag2mask"]
    known = {re.split(r"[><=\[ ]", package)[0] for package in packages}
    for word, before in zip(words, ("", *words), strict=False):
        if before == "-c":
            assert (ROOT / word).is_file()
        elif found := re.fullmatch(r"(?:\.|tag2mask)\[([\w,]+)\]", word):
            assert set(found[1].split(",")) <= PROJECT["optional-dependencies"].keys(), word
        else:
            assert word in {".", "-e", "-c", "--no-deps", *known}, word


# ---- the tests -----------------------------------------------------------------------------------


def test_commands_are_found():
    """A change of style must not hide them from the tests below."""
    ids = [case.id for case in cases(is_command)]
    for part in (
        "README.md: tag2mask predict",
        "README.md: torchrun",
        "README.md: pip",
        "README.md: make",
        "results.md: python",
        "coco14",
    ):
        assert any(part in name for name in ids), part
    strangers = [
        code
        for file, code in named()
        if re.search(r"(^|\W)(tag2mask \w+ .*--|\w+\.py )", code) and not is_command(code)
    ]
    assert not [code for code in strangers if "benchmarks/" in code or "tag2mask " in code], (
        strangers
    )


@pytest.mark.parametrize("command", cases(is_command))
def test_commands_are_understood(command, only_parse):
    for one in written_out(command):
        parse(one, only_parse)


def understood(words, only_parse, everywhere=True):
    """Whether `tag2mask run`, or `everywhere` some other command, takes these options."""
    surfaces = {
        "run": "",
        "run --clusters.llm NAME": "",
        "predict R X.jpg": "--out O",
        "check --data D": "",
        "tags --data D": "",
        "convert --data D": "--to csv --out O",
        "evaluate --pred M --truth T": "",
        "crf X.jpg X.npy": "--out O.png",
        "clusters make --tags T": "",
        "export R": "--out O.onnx",
        "push R U/N": "",
        "view R": "",
    }
    tries = [
        partial(parse_tag2mask, [*start.split(), *words, *end.split()], only_parse)
        for start, end in surfaces.items()
    ]
    tries += [partial(parse_script, script, *needed, *words) for script, needed in NEEDED.items()]
    for attempt in tries if everywhere else tries[:1]:
        try:
            attempt()
        except (AssertionError, SystemExit):
            continue
        return True
    return False


def positionals():
    """What each benchmark needs before its options, from a command that a document gives."""
    names = {}
    for _, code in named():
        if code.startswith("python benchmarks/"):
            _, script, *words = shlex.split(written_out(code)[0])
            first = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
            names[script] = max(names.get(script, []), words[:first], key=len)
    return names


NEEDED = positionals()


@pytest.mark.parametrize("options", cases(is_options))
def test_options_named_alone_are_understood(options, only_parse):
    words = shlex.split(options)
    named_alone = (
        [[*words, value] for value in ("1", "csv")] if len(words) == 1 else []
    )  # an option without the value that it takes
    assert any(understood(each, only_parse) for each in (words, *named_alone))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.name)
def test_options_that_a_recipe_names_are_understood(file, only_parse):
    """A value looks like the next word of a sentence: one of both readings must be right."""
    for line in comments(file):
        words = (
            [] if is_command(line.strip()) else re.findall(r"(--[\w.-]*\w)(?: ([\w.+-]*\w))?", line)
        )
        for option, value in words:
            readings = ([option, value], [option])
            assert any(understood(reading, only_parse, everywhere=False) for reading in readings), (
                f"{option} {value}"
            )


@pytest.mark.parametrize("setting", cases(is_setting))
def test_settings_exist_and_have_such_values(setting):
    names, value = SETTING.fullmatch(setting).groups()
    field = Config()
    for name in names.split("."):
        assert name in type(field).model_fields, setting
        field = getattr(field, name)
    if value:
        make_config(tomllib.loads(f"{names} = {value}"))


@pytest.mark.parametrize(
    "setting", cases(lambda code: re.fullmatch(r'[a-z_]+ = (".*"|[\d.]+|true|false)', code))
)
def test_settings_without_their_section_do_too(setting):
    def exists(section):
        try:
            make_config(tomllib.loads(section + setting))
        except ConfigError:
            return False
        return True

    assert any(exists(section) for section in ("", *(f"{name}." for name in SECTIONS)))


def test_extras_exist():
    for file in (*MARKDOWN, *SCRIPTS):
        for name in re.findall(r"extras? `(\w+)`", file.read_text(encoding="utf-8")):
            assert name in PROJECT["optional-dependencies"], f"{file.name}: {name}"


def test_links_and_anchors_lead_somewhere():
    for file in MARKDOWN:
        for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            there = (file.parent / path).resolve() if path else file
            assert there.exists(), f"{file.name}: {target}"
            assert not anchor or anchor in anchors(there), (
                f"{file.name}: {target}; there are {', '.join(anchors(there))}"
            )


def anchors(file):
    """What GitHub calls the headings of a Markdown file."""
    text = re.sub(
        r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    return [
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+?)\s*$", text, re.MULTILINE)
    ]


def test_source_files_that_documents_name_exist():
    for file, code in named():
        if re.fullmatch(r"[\w/]+\.py", code):
            assert any(
                (root / code).is_file() for root in (ROOT, ROOT / "src/tag2mask", file.parent)
            ), f"{file.name}: {code}"


def test_the_page_of_tags_has_every_form():
    page = (ROOT / "docs" / "tags.md").read_text(encoding="utf-8")
    assert [name for name in FORMATS if f"`{name}`" not in page] == []


# ---- pages and figures that are made by a script -------------------------------------------------


@pytest.mark.parametrize(
    ("script", "maker", "page"),
    [("make_settings.py", "page", "settings.md"), ("draw_method.py", "figure", "method.svg")],
)
def test_what_a_script_makes_is_up_to_date(script, maker, page):
    made = runpy.run_path(str(ROOT / "docs" / script))[maker]()
    assert made == (ROOT / "docs" / page).read_text(encoding="utf-8"), f"run python docs/{script}"


def test_plots_are_those_of_the_tables():
    drawn = runpy.run_path(str(ROOT / "docs/research/draw.py"))
    for name in drawn["PLOTS"]:
        stored = (ROOT / f"docs/research/{name}.svg").read_text(encoding="utf-8")
        assert drawn["plot"](name) == stored, "run python docs/research/draw.py"


def test_sentences_of_the_research_page_are_short():
    text = (ROOT / "docs/research/what-holds-masks-back.md").read_text(encoding="utf-8")
    text = re.sub(r"!\[.*\]\(.*\)|^#.*$", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for paragraph in re.split(r"\n\s*\n|\n- ", text):
        for sentence in re.split(r"(?<=[.?!:]) (?=[A-Z`*\d])", paragraph.replace("\n", " ")):
            assert len(sentence.split()) <= 25, sentence


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    """Links within it, functions that it shows, and equations: a fault is a warning of Sphinx."""
    argv = ["-q", "-W", "--keep-going", "-b", "html", "-c", "docs", ".", str(tmp_path / "site")]
    result = subprocess.run(
        [sys.executable, "-m", "sphinx", *argv], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "site/docs/method/classifier.html").read_text(encoding="utf-8")
    assert "double sums of eq. 6" in page, "an equation stands beside its function"
