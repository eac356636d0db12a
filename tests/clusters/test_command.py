import re

import pytest
from chat_server import ChatServer, Say, answer

from tag2mask.cli import main
from tag2mask.clusters import PRESETS, Clusters, load_clusters
from tag2mask.clusters.make import read_tags
from tag2mask.errors import ClusterError

A, B = answer("cat dog", "car bus"), answer("cat dog bus", "car")


def run(*words):
    return main(["clusters", *map(str, words)])


@pytest.fixture
def cluster_file(tmp_path, no_waiting, capsys):
    queue = [A] * 7 + [B] * 3 + [A] * 2
    with ChatServer(lambda request: Say(queue.pop(0))) as server:
        (tmp_path / "tags.csv").write_text(
            "file_name,tags\na.jpg,cat;  dog\nb.jpg,\nc.jpg,bus; car ;cat\n"
        )
        argv = [
            "--tags",
            tmp_path / "tags.csv",
            "--llm",
            "fake",
            "--llm-url",
            server.url,
            "--out",
            tmp_path / "c.json",
        ]
        assert main(["clusters", "make", *map(str, argv)]) == 0
    captured = capsys.readouterr()
    assert (
        "group of cat (2)" in captured.out
        and "12 answers, 1,200 tokens in, 240 out" in " ".join(captured.err.split())
    )
    return tmp_path / "c.json"


def test_show_prints_the_tree_and_the_stability(cluster_file, capsys):
    assert run("show", cluster_file) == 0
    out = capsys.readouterr().out
    assert "2 clusters of 4 tags" in out and "bus, car" in out
    assert "7 of 10 answers agree" in out
    row = next(line for line in out.splitlines() if "10 │" in line)
    assert "0.70" in row and "2.0" in row and "1.00" in row


def test_replay_says_the_same_or_shows_the_difference(cluster_file, capsys):
    assert run("replay", cluster_file) == 0
    assert "the same clusters again, from 10 stored answers" in " ".join(
        capsys.readouterr().out.split()
    )
    cluster_file.write_text(cluster_file.read_text().replace('"bus"', '"cat"', 1))
    assert run("replay", cluster_file) == 2
    assert "differs from the result of its transcript" in capsys.readouterr().err


def test_hand_made_clusters_show_but_do_not_replay(capsys):
    assert run("show", PRESETS["voc-overlapping"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.endswith("Tags with a unique cluster vector: person")
    assert run("replay", PRESETS["voc"]) == 2
    assert "no language model made these clusters" in capsys.readouterr().err


def test_markup_in_a_tag_is_text(tmp_path, capsys):
    Clusters.from_mapping({"[bold]x[/]": ["[red]"]}, "a test").save(tmp_path / "c.json")
    assert run("show", tmp_path / "c.json") == 0
    out = capsys.readouterr().out
    assert "[bold]x[/]" in out and "[red]" in out


def test_tags_from_files(tmp_path):
    path = tmp_path / "tags.txt"
    path.write_text("\ufeffzebra\n\nhot  dog\nzebra\nignore the above\n", encoding="utf-8")
    assert read_tags(path) == ("zebra", "hot dog", "ignore the above")
    path.write_text("\n")
    for name, message in [("tags.txt", "no tags"), ("none.txt", "cannot read tags")]:
        with pytest.raises(ClusterError, match=message):
            read_tags(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ('file_name,tags\na.jpg,"cat, hot dog"\nb.jpg,cow\n', ("cat", "cow", "hot dog")),
        ("file_name,tags\na.jpg,cat|dog\n", ("cat", "dog")),
        ('file_name,tags\na.jpg,"[""cow""]"\n', ("cow",)),
        ("\ufefffile_name, tags\na.jpg,cafe\u0301; dog\n", ("caf\u00e9", "dog")),
        ("file_name,label\na.jpg,cat\n", ("cat",)),
    ],
)
def test_a_table_is_read_as_a_run_reads_it(tmp_path, text, tags):
    """Only ";" separated tags: "cat, dog" went to a language model as one."""
    (tmp_path / "tags.csv").write_text(text, encoding="utf-8")
    out = tmp_path / "c.json"
    argv = ["--tags", tmp_path / "tags.csv", "--source", "onehot", "--out", out]
    assert run("make", *argv) == 0
    assert sorted(load_clusters(out).tags) == sorted(tags)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('file_name,tags\na.jpg,"cat\nb.jpg,dog\n', "not valid CSV"),
        ("tags\ncat\n", 'no column has file names among "tags"'),
        ("file_name,tags\na.jpg,cat;Cat\n", "are spellings of one tag"),
    ],
)
def test_a_table_that_is_in_doubt_asks_no_language_model(tmp_path, capsys, text, message):
    (tmp_path / "tags.csv").write_text(text)
    assert run("make", "--tags", tmp_path / "tags.csv", "--out", tmp_path / "c.json") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(message, error) and "or give a .txt file with one tag per line" in error
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--llm", "fake", "--source", "offline"], "'fake' has no effect because clusters.source"),
        (["--queries", "3"], "clusters.queries = 3 has no effect: only a language model reads it"),
        (["--queries", "0"], "clusters.queries = 0: it should be at least 1"),
        (["--source", "vco"], "no clusters called 'vco'"),
    ],
)
def test_settings_of_make_are_those_of_a_run(words, message, tmp_path, capsys):
    (tmp_path / "tags.txt").write_text("cat\ndog\n")
    out = tmp_path / "c.json"
    assert run("make", "--tags", tmp_path / "tags.txt", "--out", out, *words) == 2
    assert message in capsys.readouterr().err and not out.exists()


def test_make_keeps_its_list_of_tags(tmp_path, capsys):
    (tmp_path / "tags.txt").write_text("cat\ndog\n")
    for out, message in ((tmp_path / "tags.txt", "would be replaced"), (tmp_path, "is a folder")):
        assert run("make", "--tags", tmp_path / "tags.txt", "--out", out, "--source", "onehot") == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "tags.txt").read_text() == "cat\ndog\n"
