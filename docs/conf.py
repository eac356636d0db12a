"""Settings of the documentation site: `make docs` writes it to docs/build/."""

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

from tag2mask import __version__

project, author, version, release = "tag2mask", "the tag2mask authors", __version__, __version__
copyright = "2026, the tag2mask authors; Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
# The whole repository is the source, so that links to pages outside of docs/ work and are checked.
root_doc = "docs/index"
include_patterns = ["docs/**", "benchmarks/*.md", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = ["docs/build"]
html_math_renderer = "mathml"
html_theme = "furo"
html_title = "tag2mask"
autodoc_typehints = "description"
autodoc_member_order = "bysource"


def setup(app: Any) -> None:
    """Equations as MathML, which browsers draw themselves: the site needs no network."""

    def draw(page: Any, node: Any) -> None:
        block = isinstance(node, nodes.math_block)
        equation = tex2mathml(node.astext(), as_block=block)
        page.body.append(f'<div style="padding: 0.6em 0">{equation}</div>' if block else equation)
        raise nodes.SkipNode

    app.add_html_math_renderer("mathml", (draw, None), (draw, None))
