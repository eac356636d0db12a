"""The segmenter of a run to a file; in 8 bits, with what that costs."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tag2mask.errors import ConfigError
from tag2mask.evaluate.confusion import evaluate_masks
from tag2mask.export.network_file import Comparison, check_ending, export_network
from tag2mask.export.onnx_network import INPUT, OnnxNetwork
from tag2mask.files import writing
from tag2mask.photos.resize import reduced
from tag2mask.photos.table import Photo
from tag2mask.progress import track
from tag2mask.runs.run import Run
from tag2mask.segmenter.predict import predict_photos, probabilities

CALIBRATION = 64  # training photos that say which values occur in the network


def export_run(
    run: Run, out: Path, dynamic: bool = False, int8: bool = False, license: str | None = None
) -> tuple[list[Comparison], list[str]]:
    """A run's segmenter to `out`: see `export_network`. Returns the comparisons with PyTorch, and
    with `int8` sentences that say what the 8 bits cost.

    `int8` needs the training photos and the validation photos. Raises ConfigError, DataError,
    RunError.
    """
    if int8 and out.suffix != ".onnx":
        raise ConfigError(f"{out}: 8 bits are for .onnx files only")
    check_ending(out)
    if not int8:
        return export_network(run.segmenter, run.settings, out, dynamic, license), []
    if not run.val:
        raise ConfigError(
            "--int8 measures its cost on the validation photos, and the run has none; "
            "give the run some: tag2mask evaluate --out RUN --val FILE"
        )
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "float.onnx"
        comparisons = export_network(run.segmenter, run.settings, whole, dynamic, license)
        with writing(out) as temporary:
            quantize(whole, run.table.photos, temporary)
            cost = measure_cost(run, OnnxNetwork(whole), OnnxNetwork(temporary))
    return comparisons, cost


class _Recorder(OnnxNetwork):
    """In place of computing, it keeps the batches that the network would get."""

    batches: list[np.ndarray]

    def run(self, batch: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        self.batches += self.as_input(batch)
        return np.zeros((len(batch), len(self.classes), *size), np.float32)


class _Calibration:
    """The reader of photos that ONNX Runtime's quantization asks for."""

    def __init__(self, file: Path, photos: Sequence[Photo]):
        some = photos[:: max(1, len(photos) // CALIBRATION)][:CALIBRATION]
        batches = _batches(file, some)
        self.get_next = partial(next, ({INPUT: batch} for batch in batches), None)


def _batches(file: Path, photos: Sequence[Photo]) -> Iterator[np.ndarray]:
    """What the network in an ONNX file gets of these photos."""
    recorder = _Recorder(file)
    settings = recorder.settings.model_copy(update={"flip": False, "test_scales": (1.0,)})
    for photo in track(photos, "values in the network"):
        recorder.batches = []
        image = reduced(photo.open(settings.image_size), settings.image_size)
        probabilities(recorder, image, settings)
        yield from recorder.batches


def quantize(whole: Path, photos: Sequence[Photo], out: Path) -> None:
    """An ONNX file to one whose convolutions compute in 8 bits; the metadata stays."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    quantize_static(
        whole,
        out,
        _Calibration(whole, photos),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        # Without VNNI instructions, sums of 8-bit products overflow; 7 bits for weights do not.
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    model = onnx.load(out)
    del model.metadata_props[:]
    onnx.helper.set_model_props(
        model, {p.key: p.value for p in onnx.load(whole).metadata_props} | {"int8": "true"}
    )
    onnx.save(model, out)


def measure_cost(run: Run, whole: OnnxNetwork, small: OnnxNetwork) -> list[str]:
    """What the 8 bits cost on the validation photos, in sentences: the loss of mIoU if there are
    true masks, else how often both masks agree."""
    val, truth = run.val, run.truths["val"]
    assert val
    photos = truth.photos_with_truth if truth else val.photos
    masks = {
        name: {photo.name: done.mask for photo, done in track(stream, name, len(photos))}
        for name, stream in (
            ("32 bits", predict_photos(whole, photos)),
            ("8 bits", predict_photos(small, photos)),
        )
    }
    before, after = masks["32 bits"], masks["8 bits"]
    same = np.mean([(before[p.name] == after[p.name]).mean() for p in photos])
    agree = f"the masks of 8 and 32 bits agree in {100 * same:.2f} % of the pixels of"
    where = f"{len(photos)} validation photos"
    if not truth:
        return [f"int8: {agree} {where}. There are no true masks, so the loss of mIoU is unknown"]
    scores = []
    for of in (before, after):
        pairs = [(of[p.name], partial(truth.read, p)) for p in photos]
        mean_over = run.config.evaluate.mean_over
        scores.append(evaluate_masks(pairs, run.classes, mean_over=mean_over).miou)
    float_miou, int8_miou = (100 * score for score in scores)
    return [
        f"int8: mIoU {int8_miou:.1f} %, with 32 bits {float_miou:.1f} %: a loss of "
        f"{float_miou - int8_miou:.1f} ({where} with true masks, no tags given, "
        f"{'with' if run.settings.crf.iterations else 'without'} CRF, seed {run.config.seed})",
        f"{agree} these photos",
    ]
