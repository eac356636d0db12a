"""Who may ask the server: no other site, nobody without the token, no large bodies.

On this machine alone (no `--host`), a site that the user visits could still send requests here, or
pretend to be here by its name (DNS rebinding): Host and Origin are checked, and a request that
changes something needs a header that no other site can add without being asked about it first.
"""

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HEADER = "x-tag2mask"  # a page of another site cannot send it
LARGEST_BODY = 1 << 20  # bytes
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address can hold the token
    "X-Content-Type-Options": "nosniff",
}
DENIED = "Open the address that `tag2mask view` printed: it holds the token of this page.\n"


class Guard:
    """Refuses what no page of this server asks. Wraps the app.

    hosts: names of this server; None: any, if a token is needed. Its port may be another behind a
    tunnel. token: what each request must know, from the address or from the cookie that the
    address set; "": nothing.
    """

    def __init__(self, app: ASGIApp, hosts: set[str] | None, token: str, cookie: str):
        self.app, self.hosts, self.token, self.cookie = app, hosts, token, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no web sockets here
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(key.encode(), value.encode()) for key, value in HEADERS.items()]
                if given:
                    more.append((b"set-cookie", self._set_cookie().encode()))
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        given = self._knows(parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0])
        refusal = self._refusal(scope["method"], headers, given)
        if refusal is None:
            await self.app(scope, _limited(receive), answer)
        else:
            await refusal(scope, receive, answer)

    def _refusal(self, method: str, headers: dict[str, str], given: bool) -> Response | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.hosts is not None and _name(host) not in self.hosts:
            return PlainTextResponse("This name is not a name of this server.\n", 403)
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not (
            headers.get("sec-fetch-mode") == "navigate" and method == "GET"
        ):
            return PlainTextResponse("Another site may not use this page.\n", 403)
        if origin is not None and origin.lower() != f"http://{host.lower()}":
            return PlainTextResponse("Another site may not use this page.\n", 403)
        if self.token and not (given or self._knows(_cookie(headers, self.cookie))):
            return PlainTextResponse(DENIED, 403)
        if method in ("GET", "HEAD"):
            return None
        if headers.get(HEADER) != "1":
            return JSONResponse({"error": f"the header {HEADER}: 1 is missing"}, 403)
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdecimal()) or int(length) > LARGEST_BODY:
            return JSONResponse({"error": "the request is too large"}, 413)
        return None

    def _knows(self, word: str) -> bool:
        return bool(self.token) and secrets.compare_digest(word.encode(), self.token.encode())

    def _set_cookie(self) -> str:
        return f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"


def _name(host: str) -> str:
    """The header Host without its port: "[::1]:8123" -> "[::1]"."""
    name, _, port = host.lower().rpartition(":")
    return name if name and port.isdecimal() else host.lower()


def _cookie(headers: dict[str, str], name: str) -> str:
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[name].value if name in cookies else ""


def _limited(receive: Receive) -> Receive:
    """What `receive` gives, until a body without a length gets too large."""
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > LARGEST_BODY:
            return {"type": "http.disconnect"}
        return message

    return limited
