"""What a release must pass: `make release-check`.

Builds the wheel and the source archive, checks their metadata with twine, installs each into an
empty environment that does not see the checkout, and makes the first steps of the demo there. Takes
some minutes and about 3 GB of disk.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIRST_STEPS = """
import tag2mask
from tag2mask.cli import main
from tag2mask.crf import backend
from tag2mask.demo.scenes import make_scenes
from pathlib import Path
assert "site-packages" in tag2mask.__file__, tag2mask.__file__
assert tag2mask.__version__ == VERSION, tag2mask.__version__
assert backend().startswith("c++"), backend()
make_scenes(Path("scenes"), num_train=32, num_val=8, size=96, seed=0)
data = ["--data", "scenes/tags.csv", "--val", "scenes/val.csv", "--val-masks", "scenes/masks"]
sizes = ["--classifier.image-size", "96", "--masks.image-size", "96"]
sizes += ["--segmenter.image-size", "96"]
steps = ["--classifier.epochs", "2", "--segmenter.steps", "60", "--segmenter.crop-size", "65"]
assert main(["tags", "--data", "scenes/tags.csv"]) == 0
assert main(["run", "--recipe", "demo", *data, *sizes, *steps, "--out", "run"]) == 0
assert main(["predict", "run", "scenes/photos", "--out", "found"]) == 0
assert Path("run/report/index.html").stat().st_size > 10_000
"""


def execute(*argv: object, folder: Path | None = None) -> None:
    """Run a program; its output is shown. Stops the check if it fails."""
    words = list(map(str, argv))
    print("$", *(word if "\n" not in word else "..." for word in words), flush=True)
    if subprocess.run(words, cwd=folder).returncode:
        raise SystemExit(f"release-check: {words[0]} failed")


def one_version() -> str:
    """The version, which pyproject.toml, the package, the changelog and CITATION.cff share."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version: str = project["version"]
    places = {
        "src/tag2mask/__init__.py": rf'__version__ = "{re.escape(version)}"',
        "CHANGELOG.md": rf"^## {re.escape(version)}$",
        "CITATION.cff": rf"^version: {re.escape(version)}$",
    }
    for name, pattern in places.items():
        if not re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE):
            raise SystemExit(f"release-check: {name} does not name version {version}")
    return version


def main() -> None:
    version = one_version()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        execute(sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT)
        packages = sorted((folder / "dist").iterdir())
        assert [path.suffix for path in packages] == [".whl", ".gz"], packages
        execute(sys.executable, "-m", "twine", "check", "--strict", *packages)
        for package in packages:
            environment = folder / f"environment{package.suffix}"
            execute(sys.executable, "-m", "venv", environment)
            python, steps = environment / "bin" / "python", folder / f"steps{package.suffix}"
            steps.mkdir()
            constraints = ("-c", ROOT / "constraints.txt")
            execute(python, "-m", "pip", "install", "-q", *constraints, f"{package}[demo]")
            code = f"VERSION = {version!r}\n{FIRST_STEPS}"
            (steps / "first_steps.py").write_text(f"if __name__ == '__main__':\n{indent(code)}")
            execute(python, steps / "first_steps.py", folder=steps)
    print(f"release-check: {version} is ready")


def indent(code: str) -> str:
    return "".join(f"    {line}" for line in code.splitlines(True))


if __name__ == "__main__":
    main()
