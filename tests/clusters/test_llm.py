import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest
from chat_server import ChatServer, Fail, Say

from tag2mask.clusters.llm import Client, LanguageModel, bill
from tag2mask.clusters.transcript import Reply
from tag2mask.errors import ClusterError, ConfigError

HELLO = [{"role": "user", "content": "hello"}]
KINDS = ["drop", "cut", "garbage", "html", "empty"]


def script(*acts):
    queue = list(acts)
    return lambda request: queue.pop(0)


def model(server, **settings):
    return LanguageModel("fake", server.url, **settings)


@pytest.mark.parametrize(
    "fault",
    [
        *(Fail(kind) for kind in KINDS),
        *(Fail("status", status) for status in (408, 409, 429, 500, 502, 503, 504, 529)),
    ],
    ids=str,
)
def test_passing_faults_are_tried_again(fault, no_waiting):
    with ChatServer(script(fault, fault, Say("hi"))) as server:
        reply = Client(model(server)).ask(HELLO)
    assert (reply.text, reply.finish, reply.model, reply.tokens_in, reply.tokens_out) == (
        "hi",
        "stop",
        "fake-1",
        100,
        20,
    )
    assert len(no_waiting) == 2 and 0.5 <= no_waiting[0] <= 1 <= no_waiting[1] <= 2


def test_a_timeout_is_tried_again(no_waiting):
    with ChatServer(script(Fail("slow"), Say("hi")), slow=1.5) as server:
        assert Client(model(server, timeout=0.4)).ask(HELLO).text == "hi"
    assert len(no_waiting) == 1


def test_a_server_that_is_not_there(no_waiting):
    with pytest.raises(ClusterError, match="no answer from the language model: APIConnectionError"):
        Client(LanguageModel("fake", "http://127.0.0.1:9/v1", retries=1)).ask(HELLO)
    assert len(no_waiting) == 1


def test_it_waits_as_long_as_the_server_asks(no_waiting):
    at = formatdate(time.time() + 50, usegmt=True)
    waits = ("7", "0", "-3", "nan", "soon", at, "1e400")
    faults = [Fail("status", 429, {"retry-after": wait}) for wait in waits]
    with (
        ChatServer(script(*faults)) as server,
        pytest.raises(ClusterError, match=r"429.*asks to wait inf s.*run it again later"),
    ):
        Client(model(server, retries=9)).ask(HELLO)
    seven, zero, past, nan, words, date = no_waiting
    assert (
        7.5 <= seven <= 8 and 1 <= zero <= 2 and 2 <= past <= 4
    )  # as long as it asks, and the longer the more often it failed
    assert 4 <= nan <= 8 and 8 <= words <= 16
    assert 45 + 16 < date <= 50 + 32


def test_a_rate_limit_that_lets_some_through_is_waited_for(no_waiting):
    """One answer for every six requests: all ten queries are answered, though each is refused more often than it has retries."""
    count = iter(range(1000))
    with ChatServer(
        lambda request: (
            Say("{}") if next(count) % 6 == 5 else Fail("status", 429, {"retry-after": "1"})
        )
    ) as server:
        client = Client(model(server, retries=6))
        with ThreadPoolExecutor(10) as pool:
            assert [reply.text for reply in pool.map(client.ask, [HELLO] * 10)] == ["{}"] * 10


def test_it_gives_up_after_the_last_retry_and_on_a_long_wait(no_waiting):
    with ChatServer(lambda request: Fail("status", 500)) as server:
        with pytest.raises(ClusterError, match=r"no answer .*500.*the answers so far are kept"):
            Client(model(server, retries=3)).ask(HELLO)
        assert len(server.requests) == 4
    with ChatServer(lambda request: Fail("status", 429, {"retry-after": "3600"})) as server:
        with pytest.raises(ClusterError, match="it asks to wait 3600 s"):
            Client(model(server)).ask(HELLO)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            Fail("status", 400, message="response_format is not supported"),
            "give --clusters.no-structured",
        ),
        (
            Fail("status", 400, message="temperature: only 1 is supported"),
            "give --clusters.temperature none",
        ),
        (Fail("status", 404, message="no model called fake"), "no model called fake"),
        (Fail("status", 429, message="no money", code="insufficient_quota"), "no money"),
    ],
    ids=str,
)
def test_a_refusal_is_final_and_explained(fault, said, no_waiting):
    with (
        ChatServer(lambda request: fault) as server,
        pytest.raises(ClusterError, match=f"refused the request .*{said}"),
    ):
        Client(model(server)).ask(HELLO)
    assert len(server.requests) == 1 and not no_waiting


def test_the_key_goes_to_the_server_and_nowhere_else(no_waiting, monkeypatch):
    key = "sk-test-0123456789"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    wrong = Fail("status", 401, message=f"incorrect key: {key}")
    with ChatServer(script(Say(f"your key is {key}"), wrong)) as server:
        client = Client(model(server))
        assert client.ask(HELLO).text == "your key is [key]"
        with pytest.raises(ClusterError, match=r"incorrect key: \[key\]") as caught:
            client.ask(HELLO)
    assert key not in str(caught.value)
    assert server.requests[0]["authorization"] == f"Bearer {key}"
    for url in ("http://me:secret@127.0.0.1/v1", "http://127.0.0.1/v1?key=secret"):
        with pytest.raises(ClusterError, match="keep keys out") as caught:
            Client(LanguageModel("fake", url))
        assert "secret" not in str(caught.value)


def test_what_lacks_is_said_at_once(no_waiting):
    with pytest.raises(ClusterError, match="OPENAI_API_KEY is not set"):
        Client(LanguageModel("gpt-4o"))
    for url in ("localhost:11434/v1", "http://", "http://[::1", "ftp://x"):
        with pytest.raises(ClusterError, match="not an address"):
            Client(LanguageModel("fake", url))
    with pytest.raises(ConfigError, match="queries is 0, less than 1, repairs is -1"):
        LanguageModel("fake", queries=0, repairs=-1)


def test_what_is_sent(no_waiting):
    with ChatServer(lambda request: Say("hi", usage=False)) as server:
        Client(model(server)).ask(HELLO)
        reply = Client(model(server, structured=False, temperature="none")).ask(HELLO)
    first, second = server.requests
    assert (
        first["path"] == "/v1/chat/completions"
        and first["messages"] == HELLO
        and first["temperature"] == 0
    )
    assert first["response_format"]["json_schema"]["strict"] is True
    assert not {"response_format", "temperature", "stream"} & set(second)
    assert reply.tokens_in is None


def test_odd_contents_become_text(no_waiting):
    with ChatServer(
        script(Say(None), Say(None, refusal="I will not"), Say("half \ud800 pair"))
    ) as server:
        client = Client(model(server))
        assert client.ask(HELLO).text == ""
        assert client.ask(HELLO).text == "I will not"
        assert client.ask(HELLO).text == "half ? pair"


def test_tokens_and_cost_by_hand():
    replies = [
        Reply("a", tokens_in=1_000_000, tokens_out=100_000),
        Reply("b", tokens_in=200_000, tokens_out=0),
    ]
    assert (
        bill(LanguageModel("gpt-4o"), replies)
        == "2 answers, 1,200,000 tokens in, 100,000 out, about $4.0000"
    )
    assert (
        bill(LanguageModel("x", "http://localhost/v1"), [Reply("a")])
        == "1 answers, 0 tokens in, 0 out (1 not counted by the server)"
    )
    assert bill(LanguageModel("x", "http://localhost/v1", prices=(1, 2)), replies).endswith(
        "about $1.4000"
    )
