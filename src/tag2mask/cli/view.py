"""The command `view`."""

from pathlib import Path

from tyro.conf import Positional

from tag2mask.cli.arguments import parse, show


def view(argv: list[str]) -> None:
    """Show a run in the browser."""

    def view(
        run: Positional[Path],
        host: str | None = None,
        port: int | None = None,
        browser: bool = True,
    ) -> None:
        """Look at the photos and masks of a run in the browser, and correct them. Ctrl-C ends it.

        It also works during a training.

        Args:
            run: A run folder.
            host: Address at which other computers reach the page; 0.0.0.0: all addresses of this
                computer. The page's address then holds a token: who has it can see and correct
                everything. Without it: this computer alone.
            port: Port of the page. Without it: 8123, or the next that is free.
            browser: Open the page in the browser.
        """
        from tag2mask.view.serve import serve

        def say(address: str) -> None:
            show(f"{run} is at {address} (Ctrl-C ends it)")

        serve(run, host, port, browser, say)

    parse(view, "view", argv)
