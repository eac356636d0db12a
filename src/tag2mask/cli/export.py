"""The commands that take a network elsewhere: export, push."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from tag2mask.cli.arguments import show

License = Annotated[str | None, arg(metavar="STR")]


def export(
    run: Positional[Path],
    out: Path,
    dynamic: bool = False,
    int8: bool = False,
    license: License = None,
) -> None:
    """Write the segmenter of a run as a file that needs neither the run nor its photos.

    .onnx: for ONNX Runtime and all that reads ONNX; `tag2mask predict` takes it in place of a run,
    without PyTorch. .pt2: for PyTorch (torch.export). Softmax and enlargement are inside. Before it
    is written, it is compared with PyTorch at three sizes.

    Args:
        run: A run folder.
        out: The file: NAME.onnx or NAME.pt2.
        dynamic: Take any number of photos of any size: the masks are those of the run. Without it:
            one photo in a square of fixed size.
        int8: .onnx: compute in 8 bits. What that costs is measured on the validation photos.
        license: License of the weights, for the file's metadata.
    """
    from tag2mask.api import load
    from tag2mask.errors import RunError
    from tag2mask.export.files import summary
    from tag2mask.export.runs import export_run
    from tag2mask.runs.run import Run

    trained = load(run)
    if not isinstance(trained, Run):
        raise RunError(f"{run}: not a run folder, so it cannot be exported")
    comparisons, cost = export_run(trained, out, dynamic, int8, license)
    show(summary(comparisons), *cost)
    show(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(trained.classes)} classes")


def push() -> None:
    """Later."""
