"""One question to a language model: any server that speaks chat completions, through the openai client, retried until it answers."""

import os
import random
import threading
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from tag2mask.clusters.answers import SCHEMA
from tag2mask.clusters.prompts import Prompts
from tag2mask.clusters.transcript import Messages, Reply
from tag2mask.errors import ClusterError, ConfigError
from tag2mask.progress import log

# US dollars for a million tokens, in and out, as OpenAI listed them in 2026; for other models give `prices`.
PRICES = {
    "gpt-4o": (2.5, 10.0),
    "gpt-4o-mini": (0.15, 0.6),
    "gpt-4.1": (2.0, 8.0),
    "gpt-4.1-mini": (0.4, 1.6),
}
RETRIED = {408, 409, 425, 429}  # and 5xx
PATIENCE = 600  # the longest wait that a server may ask for [s]


@dataclass(frozen=True)
class LanguageModel:
    """Which language model to ask, and how (CPC Algorithm 1)."""

    model: str
    """Its name: gpt-4o, llama3.1 ..."""
    url: str = ""
    """Address of a chat-completions server, http://localhost:11434/v1; empty: OpenAI. The key comes from OPENAI_API_KEY."""
    queries: int = 10
    """R, answers to the initial prompt that are voted on; all are asked at once."""
    refinements: int = 10
    """Most uses of the refine prompt; it ends sooner, with three equal configurations in a row. 0: no refinement."""
    repairs: int = 3
    """Times that an answer that cannot be used is asked again with its faults named."""
    overlap: bool = False
    """Let a tag be in several clusters (PPC) instead of exactly one (CPC)."""
    temperature: float | Literal["none"] = 0.0
    """Sampling temperature; none: not sent, for models that take none."""
    structured: bool = True
    """Have the server force the shape of the answer (structured output); off for servers that cannot."""
    tags_per_answer: int = 150
    """Longest list that is grouped in one answer; longer ones go in rounds."""
    timeout: float = 120.0
    """Longest wait for one answer [s]."""
    retries: int = 6
    """Further tries of a request that failed on the way (timeout, 429, 5xx, dropped or cut connection)."""
    prices: tuple[float, float] | None = None
    """US dollars for a million tokens in and out; None: those we know."""
    prompts: Prompts = field(default_factory=Prompts)
    """Initial and refine prompt."""

    def __post_init__(self) -> None:
        least = {
            "queries": 1,
            "refinements": 0,
            "repairs": 0,
            "retries": 0,
            "tags_per_answer": 2,
            "timeout": 0.001,
        }
        if wrong := [
            f"{name} is {getattr(self, name)}, less than {low}"
            for name, low in least.items()
            if getattr(self, name) < low
        ]:
            raise ConfigError(f"language model: {', '.join(wrong)}")


class Client:
    """A connection to the server of a LanguageModel. Raises ClusterError where the openai package, the key or a sound address lacks."""

    def __init__(self, settings: LanguageModel):
        try:
            import openai
        except ImportError:
            raise ClusterError(
                "asking a language model takes the openai package: pip install 'tag2mask[llm]'"
            ) from None
        try:
            where = urlsplit(settings.url)
        except ValueError:
            where = urlsplit("")
        if where.username or where.password or where.query:
            raise ClusterError(
                "keep keys out of the language model's address, which is written down; the key goes into OPENAI_API_KEY"
            )
        if settings.url and (where.scheme not in ("http", "https") or not where.hostname):
            raise ClusterError(
                f"{settings.url}: not an address of a language model; it looks like http://localhost:11434/v1"
            )
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ClusterError("OPENAI_API_KEY holds a character that no key has; copy it again")
        if not key and not settings.url:
            raise ClusterError(
                "OPENAI_API_KEY is not set; set it, or name the address of another server"
            )
        self._openai = openai
        self._settings = settings
        self._key = key
        # The client's own retries are off: they give up on a long Retry-After and on a cut body.
        self._client = openai.OpenAI(
            api_key=key or "none",
            base_url=settings.url or None,
            timeout=settings.timeout,
            max_retries=0,
        )
        self._answers = 0  # got so far, by all threads
        self.stopped = threading.Event()  # set it to have every waiting retry give up

    def ask(self, messages: Messages) -> Reply:
        """The answer to these messages. Raises ClusterError when it is refused, or when the last retry has failed too."""
        tries, answers = 0, self._answers
        while True:
            try:
                reply = self._once(messages)
                self._answers += 1
                return reply
            except (
                self._openai.OpenAIError,
                ValueError,
            ) as error:  # ValueError: a body that is no JSON
                problem = self._hide(f"{type(error).__name__}: {error}")
                if not self._passing(error):
                    raise ClusterError(
                        f"the language model's server refused the request ({problem}){self._advice(problem)}"
                    ) from None
                asked_wait = _retry_after(error) or 0.0
                limited = getattr(error, "status_code", None) == 429
            if tries == self._settings.retries or asked_wait > PATIENCE or self.stopped.is_set():
                break
            wait = asked_wait + min(2**tries, 60) * random.uniform(
                0.5, 1
            )  # queries that were told the same wait come back one by one
            progress = (
                limited and self._answers > answers
            )  # a limit that lets other queries through is no failure
            tries, answers = 0 if progress else tries + 1, self._answers
            log.info("clusters: %s; trying again in %.0f s", problem.splitlines()[0], wait)
            self._pause(wait)
        asks = f", and it asks to wait {asked_wait:.0f} s" if asked_wait else ""
        raise ClusterError(
            f"no answer from the language model: {problem}{asks}; the answers so far are kept: run it again later"
        )

    def _once(self, messages: Messages) -> Reply:
        settings = self._settings
        options: dict[str, Any] = (
            {} if settings.temperature == "none" else {"temperature": settings.temperature}
        )
        if settings.structured:
            options["response_format"] = SCHEMA
        start = time.monotonic()
        # The client checks nothing that a server sends, so neither the shape nor the types are a given.
        got: Any = self._client.chat.completions.create(
            model=settings.model, messages=cast(Any, messages), **options
        )
        choices = getattr(got, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        if message is None:
            raise ValueError(f"the body of the response holds no answer: {str(got)[:200]}")
        text = getattr(message, "content", None) or getattr(message, "refusal", None) or ""
        usage = getattr(got, "usage", None)
        return Reply(
            text=self._hide(str(text))
            .encode("utf-8", "replace")
            .decode(),  # half a surrogate pair could be neither stored nor sent
            finish=str(getattr(choice, "finish_reason", None) or ""),
            model=str(getattr(got, "model", None) or ""),
            tokens_in=_count(usage, "prompt_tokens"),
            tokens_out=_count(usage, "completion_tokens"),
            seconds=round(time.monotonic() - start, 3),
        )

    def _passing(self, error: Exception) -> bool:
        """Whether another try may succeed."""
        if getattr(error, "code", None) == "insufficient_quota":
            return False
        status = getattr(error, "status_code", None)
        return not isinstance(status, int) or status in RETRIED or status >= 500

    def _hide(self, text: str) -> str:
        """`text` without the key, which servers like to repeat in what they say; local servers' dummy keys are no secrets."""
        return text.replace(self._key, "[key]") if len(self._key) > 12 else text

    def _advice(self, problem: str) -> str:
        if "temperature" in problem:
            return "; for a model without a temperature give --clusters.temperature none (tag2mask clusters: --temperature none)"
        if "response_format" in problem:
            return "; for a server without structured output give --clusters.no-structured (tag2mask clusters: --no-structured)"
        return ""

    def _pause(self, seconds: float) -> None:
        self.stopped.wait(seconds)


def _count(usage: object, name: str) -> int | None:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) else None


def _retry_after(error: Exception) -> float | None:
    """Seconds that the server asks to wait (Retry-After, a number or a date), or None."""
    value = getattr(getattr(error, "response", None), "headers", {}).get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if seconds == seconds else None


def bill(settings: LanguageModel, replies: list[Reply]) -> str:
    """Tokens and cost of these answers, in words."""
    tokens_in, tokens_out = (
        sum(getattr(r, name) or 0 for r in replies) for name in ("tokens_in", "tokens_out")
    )
    uncounted = sum(r.tokens_in is None or r.tokens_out is None for r in replies)
    text = (
        f"{len(replies)} answers, {tokens_in:,} tokens in, {tokens_out:,} out"
        + f" ({uncounted} not counted by the server)" * bool(uncounted)
    )
    prices = settings.prices or (None if settings.url else PRICES.get(settings.model))
    return text + (
        f", about ${(tokens_in * prices[0] + tokens_out * prices[1]) / 1e6:.4f}" if prices else ""
    )
