import pytest


@pytest.fixture
def no_waiting(monkeypatch):
    """Retries without their pauses, which are listed instead, and no proxy between the client and the test's server."""
    from tag2mask.clusters.llm import Client

    pauses: list[float] = []
    monkeypatch.setattr(Client, "_pause", lambda self, seconds: pauses.append(seconds))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return pauses
