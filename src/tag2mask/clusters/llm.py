"""One question to a language model: any server that speaks chat completions, by openai's client."""

import os
import re
import time
from typing import Any, cast

from tag2mask.clusters.answers import SCHEMA
from tag2mask.clusters.transcript import Messages, Reply
from tag2mask.config import ClusterSettings
from tag2mask.errors import ClusterError, import_extra
from tag2mask.progress import log

RETRIES = 10  # by openai's client: about 50 s in all, or as long as a busy server asks
# A web address without user, password or query, because it is written into files.
ADDRESS = re.compile(r"https?://(\[[\da-f:.]+\]|[^][/?@#:\s]+)(:\d+)?(/[^?@#\s]*)?", re.IGNORECASE)
TRANSIENT = (408, 409, 429)  # and 5xx: the same request may succeed later


class Client:
    """A connection to the language model of these settings. The key comes from OPENAI_API_KEY.

    Raises ClusterError if the openai package or the key is missing, or the address is wrong.
    """

    def __init__(self, settings: ClusterSettings):
        openai = import_extra("openai", "llm", "a language model", ClusterError)
        url = settings.llm_url or ""
        if url and not ADDRESS.fullmatch(url):
            raise ClusterError(
                "clusters.llm_url (or OPENAI_BASE_URL) should look like http://localhost:11434/v1; "
                "a key goes into OPENAI_API_KEY, not into the address"
            )
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ClusterError("OPENAI_API_KEY is not a key: it has a special character")
        if not key and not url:
            raise ClusterError(
                "set OPENAI_API_KEY, or the address of another server (clusters.llm_url)"
            )
        self._openai = openai
        self._settings = settings
        self._key = key
        self._client = openai.OpenAI(
            api_key=key or "none",
            base_url=url or None,
            timeout=settings.timeout,
            max_retries=RETRIES,
            http_client=openai.DefaultHttpxClient(event_hooks={"response": [_log_problem]}),
        )

    def ask(self, messages: Messages) -> Reply:
        """The answer to these messages. Raises ClusterError if there is none after all retries."""
        settings = self._settings
        options: dict[str, Any] = {}
        if settings.temperature != "none":
            options["temperature"] = settings.temperature
        if settings.structured:
            options["response_format"] = SCHEMA
        start = time.monotonic()
        try:
            completion: Any = self._client.chat.completions.create(
                model=settings.llm or "", messages=cast(Any, messages), **options
            )
        except (self._openai.OpenAIError, ValueError) as error:  # ValueError: a body without JSON
            raise self._problem(error) from None
        try:
            choice = completion.choices[0]
            text = choice.message.content or choice.message.refusal or ""
        except (AttributeError, IndexError, TypeError):  # the client does not check responses
            raise self._problem(ValueError(f"no answer in the response: {completion}")) from None
        # Half a surrogate pair could not be sent back to the model.
        text = self._without_key(str(text)).encode("utf-8", "replace").decode()
        return Reply(
            text=text,
            finish=str(choice.finish_reason or ""),
            model=str(completion.model or ""),
            tokens_in=getattr(completion.usage, "prompt_tokens", None),
            tokens_out=getattr(completion.usage, "completion_tokens", None),
            seconds=round(time.monotonic() - start, 3),
        )

    def _problem(self, error: Exception) -> ClusterError:
        """What is wrong, and what to do about it."""
        text = self._without_key(f"{type(error).__name__}: {error}")[:500]
        status = getattr(error, "status_code", None)
        if status is None or status >= 500 or status in TRANSIENT:
            server = self._settings.llm_url or "OpenAI"
            return ClusterError(
                f"no answer from the language model at {server} ({text}); "
                "the answers so far are kept: run it again to resume"
            )
        advice = ""
        if "temperature" in text:
            advice = "; for a model without a temperature set clusters.temperature to none"
        elif "response_format" in text:
            advice = "; for a server without structured output turn clusters.structured off"
        elif status == 404:
            advice = "; check clusters.llm and clusters.llm_url: most addresses end in /v1"
        return ClusterError(f"the language model's server refused the request ({text}){advice}")

    def _without_key(self, text: str) -> str:
        """`text` without the key, which servers repeat. A local server's short key is no secret."""
        return text.replace(self._key, "[key]") if len(self._key) > 12 else text


def _log_problem(response: Any) -> None:
    if response.status_code >= 400:
        log.info("clusters: the language model's server answered %d", response.status_code)
