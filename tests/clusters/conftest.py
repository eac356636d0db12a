import pytest


@pytest.fixture
def no_waiting(monkeypatch):
    """No pauses before retries of openai's client, and no proxy before the test's server."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
