"""Write docs/settings.md, the table of all settings: `python docs/make_settings.py`.

Everything in it comes from src/tag2mask/config.py. tests/test_docs.py fails if the file is old.
"""

import re
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tag2mask.config import Config, Settings
from tag2mask.config_files import recipes

PAGE = Path(__file__).with_name("settings.md")
INTRO = """# All settings

This page is generated from the settings themselves. The defaults are those of the recipe `photos`.
Every setting is also an option: `classifier.top_k` is `--classifier.top-k`. In Python:
`tag2mask.run(..., classifier={"top_k": 3})`. In a recipe, a TOML file, it is `top_k = 3` in the
section `[classifier]`.
"""


def in_toml(value: Any) -> str:
    """A default as it stands in a recipe."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(in_toml, value))}]"
    return f'"{value}"' if isinstance(value, str | Path) else str(value)


def row(name: str, field: FieldInfo) -> str:
    """One line of a table."""
    text = re.sub(r"\s+", " ", field.description or "").replace("|", "\\|")
    default = "" if field.default is PydanticUndefined else in_toml(field.default)
    return f"| `{name}` | `{default}` | {text} |"


def table(settings: type[Settings], prefix: str = "") -> list[str]:
    """The settings of one section, those of its sections after them."""
    lines = ["| setting | default | what it is |", "|---|---|---|"]
    inner: list[str] = []
    for name, field in settings.model_fields.items():
        kind = type(field.default)
        if issubclass(kind, Settings):
            inner += ["", f"{'###' if prefix else '##'} `{prefix}{name}`", ""]
            inner += [re.sub(r"\s+", " ", (kind.__doc__ or "").strip()), ""]
            inner += table(kind, f"{prefix}{name}.")
        else:
            lines.append(row(prefix + name, field))
    return lines + inner


def page() -> str:
    """The text of settings.md."""
    names = ", ".join(f"`{name}`" for name in recipes())
    about = f"\nThe recipes ({names}) change some of them: [recipes](recipes.md).\n\n"
    return INTRO + about + "\n".join(table(Config)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
