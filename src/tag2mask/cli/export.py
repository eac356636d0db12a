"""The commands that take a network elsewhere: export, push."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from tag2mask.cli.arguments import show

if TYPE_CHECKING:
    from tag2mask.runs.run import Run

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
    from tag2mask.export.network_file import summary
    from tag2mask.export.runs import export_run

    trained = _finished(run)
    comparisons, cost = export_run(trained, out, dynamic, int8, license)
    show(summary(comparisons), *cost)
    show(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(trained.classes)} classes")


def push(
    run: Positional[Path],
    name: Positional[str],
    private: bool = False,
    license: License = None,
    data_license: License = None,
) -> None:
    """Send the segmenter of a run to the Hugging Face hub, or to another at HF_ENDPOINT.

    The hub gets the network (safetensors, ONNX), its settings and classes, and a model card with
    the metrics. It gets no path of this computer, no photo, and no name or tags of a photo. The
    token is read from HF_TOKEN, or from `hf auth login`. Afterwards everyone who may read it can
    use hf://USER/NAME in place of a run folder.

    Args:
        run: A run folder.
        name: The repository: USER/NAME.
        private: Only you can read it, if it is new.
        license: License of the weights, such as cc-by-4.0, for the card.
        data_license: License of the training photos, for the card.
    """
    from tag2mask.export.hub import push as push_run

    address = push_run(_finished(run), name, private, license, data_license)
    show(f'{address}: use it with tag2mask.load("hf://{name}")')


def _finished(folder: Path) -> "Run":
    from tag2mask.api import load
    from tag2mask.errors import RunError
    from tag2mask.runs.run import Run

    run = load(folder)
    if not isinstance(run, Run):
        raise RunError(f"{folder} is not a run folder")
    return run
