"""`tag2mask run --clusters llm`: the stage asks the server once and keeps the answers."""

import json

import pytest
from chat_server import ChatServer, Fail, Say, answer
from PIL import Image

from tag2mask.api import run, run_config
from tag2mask.cli import main
from tag2mask.cli.arguments import parse_config
from tag2mask.config_files import make_config
from tag2mask.errors import ClusterError, ConfigError

A = answer("cat dog", "car bus")


@pytest.fixture
def table(tmp_path):
    for name in "abcd":
        Image.new("RGB", (40, 40), "green").save(tmp_path / f"{name}.jpg")
    (tmp_path / "tags.csv").write_text(
        "file_name,tags\na.jpg,cat;dog\nb.jpg,car\nc.jpg,bus\nd.jpg,cat\n"
    )
    return tmp_path / "tags.csv"


@pytest.mark.parametrize("source", ["llm", "auto"])
def test_a_run_asks_the_language_model_once(table, tmp_path, no_waiting, source):
    with ChatServer(lambda request: Say(A)) as server:
        settings = {"source": source, "llm": "fake", "llm_url": server.url, "queries": 3}
        config = make_config({"data": table, "out": tmp_path / "run", "clusters": settings})
        run_config(config, ["clusters"])
        asked = len(server.requests)
        run_config(config, ["clusters"])
        assert len(server.requests) == asked == 3 + 2
    stored = json.loads((tmp_path / "run/clusters/clusters.json").read_text())
    assert {frozenset(tags) for tags in stored["clusters"].values()} == {
        frozenset({"cat", "dog"}),
        frozenset({"car", "bus"}),
    }
    assert (tmp_path / "run/clusters" / stored["transcript"]).exists()
    assert main(["clusters", "replay", str(tmp_path / "run/clusters/clusters.json")]) == 0


def test_answers_outlive_a_changed_setting(table, tmp_path, no_waiting):
    def run(**more):
        settings = {
            "source": "llm",
            "llm": "fake",
            "llm_url": server.url,
            "temperature": "none",
            **more,
        }
        run_config(
            make_config({"data": table, "out": tmp_path / "run", "clusters": settings}),
            ["clusters"],
        )

    with ChatServer(lambda request: Say(A)) as server:
        run(queries=3)
        run(queries=5)
        assert len(server.requests) == 3 + 2 + 2 and "temperature" not in server.requests[0]
        run(queries=5, timeout=60)
        assert len(server.requests) == 3 + 2 + 2
        server.script = lambda request: Fail("status", 400)
        with pytest.raises(ClusterError, match="refused"):
            run(queries=6)
        server.script = lambda request: Say(A)
        run(queries=7)
        assert len(server.requests) == 7 + 1 + 2


def test_a_model_that_would_not_be_asked_is_an_error(table, tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"'fake' has no effect because clusters.source is 'voc'; give --clusters llm",
    ):
        make_config({"data": table, "clusters": {"source": "voc", "llm": "fake"}})


def test_a_run_without_a_name_for_the_model_says_what_to_give(table, tmp_path):
    with pytest.raises(ClusterError, match=r"need its name: set clusters\.llm,"):
        run_config(
            make_config({"data": table, "out": tmp_path / "run", "clusters": {"source": "llm"}}),
            ["clusters"],
        )


@pytest.mark.parametrize(
    ("refinements", "asked", "voted"),
    [(0, 1, {frozenset({"cat", "dog"}), frozenset({"car", "bus"})}), (10, 4, None)],
)
def test_a_run_without_refinement_keeps_what_was_voted_for(
    table, tmp_path, no_waiting, refinements, asked, voted
):
    """CPC Table 4, row 2; the server's refined clustering is another one."""
    another = {frozenset({"cat", "car"}), frozenset({"dog", "bus"})}
    script = lambda request: Say(  # noqa: E731
        answer("cat car", "dog bus")
        if "clusters" in json.loads(request["messages"][1]["content"])
        else A
    )
    with ChatServer(script) as server:
        settings = {"llm": "fake", "llm_url": server.url, "queries": 1, "refinements": refinements}
        run_config(
            make_config({"data": table, "out": tmp_path / "run", "clusters": settings}),
            ["clusters"],
        )
        assert len(server.requests) == asked
        assert {request["temperature"] for request in server.requests} == {0}
    stored = json.loads((tmp_path / "run/clusters/clusters.json").read_text())
    assert {frozenset(tags) for tags in stored["clusters"].values()} == (voted or another)


@pytest.mark.parametrize(
    "option",
    ["queries=3", "refinements=0", "overlap", "llm-url=http://localhost:1", "temperature=0.5"],
)
def test_settings_that_only_a_language_model_reads_are_refused_without_one(table, tmp_path, option):
    name = f"clusters.{option.split('=')[0].replace('-', '_')}"
    with pytest.raises(ConfigError, match=f"{name} = .* has no effect.*--clusters.llm NAME"):
        parse_config(["--data", str(table), *f"--clusters.{option}".split("=")])
    assert (
        parse_config(["--recipe", "ppc", "--data", str(table)]).clusters.queries == 1
    )  # the recipe's own is no request


def test_the_same_from_python(table, tmp_path):
    with pytest.raises(ConfigError, match=r"clusters.queries = 3 has no effect"):
        run(table, tmp_path / "run", clusters={"queries": 3})
