"""Starts the server of `tag2mask view` and opens the page in the browser."""

import secrets
import socket
import webbrowser
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from threading import Timer

from tag2mask.errors import ConfigError

PORT = 8123  # the first that is tried
TRIED = 20  # ports after it


def serve(
    folder: Path,
    host: str | None = None,
    port: int | None = None,
    browser: bool = True,
    say: Callable[[str], object] = lambda address: None,
) -> None:
    """Serve the page of a run until Ctrl-C.

    host: None: this machine alone; else an address of it, and a token is in the page's address.
    port: None: the first free one from 8123 on. say: called with the page's address. Raises
    RunError if the folder is no run, ConfigError if the extra `view` is missing or the port busy.
    """
    if missing := [name for name in ("starlette", "uvicorn") if not find_spec(name)]:
        raise ConfigError(f"{' and '.join(missing)} missing: pip install 'tag2mask[view]'")
    import uvicorn

    from tag2mask.view.app import make_app

    with _listen(host or "127.0.0.1", port) as listener:
        number = listener.getsockname()[1]
        token = secrets.token_urlsafe(24) if host else ""
        app = make_app(folder, host, number, token)
        name = f"[{host}]" if host and ":" in host else host or "127.0.0.1"
        anywhere = host in ("0.0.0.0", "::")
        shown = socket.gethostname() if anywhere else name
        query = f"?token={token}" if token else ""
        say(f"http://{shown}:{number}/{query}")
        opened = f"http://{'127.0.0.1' if anywhere else name}:{number}/{query}"
        timer = Timer(0.5, webbrowser.open, [opened]) if browser else None
        if timer:
            timer.daemon = True
            timer.start()
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, timeout_graceful_shutdown=2, lifespan="on"
        )
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            pass  # Ctrl-C is how it ends
        finally:
            if timer:
                timer.cancel()


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens at a free port. Raises ConfigError."""
    ports = [port] if port is not None else [*range(PORT, PORT + TRIED), 0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reason = ""
    for number in ports:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            listener.listen(128)
        except (OSError, OverflowError) as error:
            listener.close()
            reason = getattr(error, "strerror", None) or str(error)
            continue
        return listener
    raise ConfigError(f"cannot listen at {host}, port {ports[0]}: {reason}; give another --port")
