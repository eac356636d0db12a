import pytest
from chat_server import ChatServer, Fail, Say

from tag2mask.clusters.llm import RETRIES, Client
from tag2mask.config import ClusterSettings
from tag2mask.errors import ClusterError

HELLO = [{"role": "user", "content": "hello"}]


def script(*acts):
    queue = list(acts)
    return lambda request: queue.pop(0)


def client(server, **settings):
    return Client(ClusterSettings(llm="fake", llm_url=server.url, **settings))


@pytest.mark.parametrize(
    "fault",
    [
        Fail("drop"),
        Fail("cut"),
        *(Fail("status", status) for status in (408, 409, 429, 500, 502, 503, 504, 529)),
    ],
    ids=str,
)
def test_transient_faults_are_retried(fault, no_waiting):
    with ChatServer(script(fault, fault, Say("hi"))) as server:
        reply = client(server).ask(HELLO)
    assert (reply.text, reply.finish, reply.model) == ("hi", "stop", "fake-1")
    assert (reply.tokens_in, reply.tokens_out) == (100, 20)


def test_a_timeout_is_retried(no_waiting):
    with ChatServer(script(Fail("slow"), Say("hi")), slow=1.5) as server:
        assert client(server, timeout=0.4).ask(HELLO).text == "hi"


def test_the_log_says_what_the_server_answered(no_waiting, caplog):
    with ChatServer(script(Fail("status", 429), Say("hi"))) as server, caplog.at_level("INFO"):
        client(server).ask(HELLO)
    assert "the language model's server answered 429" in caplog.text


def test_a_server_that_is_not_there(no_waiting):
    settings = ClusterSettings(llm="fake", llm_url="http://127.0.0.1:9/v1")
    with pytest.raises(ClusterError, match=r"no answer .* at http://127.0.0.1:9/v1 .APIConnection"):
        Client(settings).ask(HELLO)


def test_it_gives_up_after_the_last_retry(no_waiting):
    with (
        ChatServer(lambda request: Fail("status", 500)) as server,
        pytest.raises(
            ClusterError, match=r"no answer .*500.*answers so far are kept: run it again"
        ),
    ):
        client(server).ask(HELLO)
    assert len(server.requests) == RETRIES + 1


@pytest.mark.parametrize(
    ("kind", "message"),
    [("garbage", "JSONDecodeError"), ("html", "<html>proxy"), ("empty", "overloaded")],
)
def test_a_response_without_an_answer_is_shown(kind, message, no_waiting):
    with (
        ChatServer(script(Fail(kind))) as server,
        pytest.raises(ClusterError, match=f"no answer from the language model .*{message}"),
    ):
        client(server).ask(HELLO)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            Fail("status", 400, message="response_format is not supported"),
            "turn clusters.structured off",
        ),
        (Fail("status", 400, message="temperature: only 1"), "set clusters.temperature to none"),
        (Fail("status", 400, message="maximum context length is 8192"), "maximum context length"),
        (Fail("status", 404, message="no model fake"), "no model fake.*check clusters.llm"),
    ],
    ids=str,
)
def test_a_refusal_is_final_and_explained(fault, message, no_waiting):
    with (
        ChatServer(lambda request: fault) as server,
        pytest.raises(ClusterError, match=f"refused the request .*{message}"),
    ):
        client(server).ask(HELLO)
    assert len(server.requests) == 1


def test_the_key_goes_to_the_server_and_nowhere_else(no_waiting, monkeypatch):
    key = "sk-test-0123456789"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    wrong = Fail("status", 401, message=f"incorrect key: {key}")
    with ChatServer(script(Say(f"your key is {key}"), wrong)) as server:
        assert client(server).ask(HELLO).text == "your key is [key]"
        with pytest.raises(ClusterError, match=r"incorrect key: \[key\]") as caught:
            client(server).ask(HELLO)
    assert key not in str(caught.value)
    assert server.requests[0]["authorization"] == f"Bearer {key}"


@pytest.mark.parametrize(
    "url",
    [
        "http://me:secret@127.0.0.1/v1",
        "http://127.0.0.1/v1?key=secret",
        "localhost:11434/v1",
        "http://",
        "http://[::1",
        "ftp://x",
    ],
)
def test_a_wrong_address(url, no_waiting):
    with pytest.raises(ClusterError, match="should look like http") as caught:
        Client(ClusterSettings(llm="fake", llm_url=url))
    assert "secret" not in str(caught.value)


def test_a_missing_or_broken_key(no_waiting, monkeypatch):
    with pytest.raises(ClusterError, match="set OPENAI_API_KEY"):
        Client(ClusterSettings(llm="gpt-4o"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-…")
    with pytest.raises(ClusterError, match="OPENAI_API_KEY is not a key"):
        Client(ClusterSettings(llm="gpt-4o"))


def test_what_is_sent(no_waiting):
    with ChatServer(lambda request: Say("hi", usage=False)) as server:
        client(server).ask(HELLO)
        reply = client(server, structured=False, temperature="none").ask(HELLO)
    first, second = server.requests
    assert first["path"] == "/v1/chat/completions" and first["messages"] == HELLO
    assert first["temperature"] == 0 and first["model"] == "fake"
    assert first["response_format"]["json_schema"]["strict"] is True
    assert not {"response_format", "temperature", "stream"} & set(second)
    assert reply.tokens_in is None


def test_odd_contents_become_text(no_waiting):
    answers = Say(None), Say(None, refusal="I will not"), Say("half \ud800 pair")
    with ChatServer(script(*answers)) as server:
        assert client(server).ask(HELLO).text == ""
        assert client(server).ask(HELLO).text == "I will not"
        assert client(server).ask(HELLO).text == "half ? pair"
