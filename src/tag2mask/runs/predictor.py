"""What has a trained segmenter and predicts with it: a run, or a network without its run folder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from tag2mask.config import SegmenterSettings
from tag2mask.errors import ConfigError, DataError
from tag2mask.progress import track

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from tag2mask.photos.predictions import Prediction, Row
    from tag2mask.segmenter.predict import Network


class Predictor(ABC):
    """Pictures to masks. It can be used in several threads, and sent to other processes."""

    @property
    @abstractmethod
    def segmenter(self) -> "Network":
        """The network, in eval mode."""

    @property
    @abstractmethod
    def settings(self) -> SegmenterSettings:
        """The settings with which it predicts."""

    @property
    def trained_masks(self) -> Path | None:
        """The folder of the training photos' pseudo masks, if it is here."""
        return None

    def to(self, device: Any) -> Self:
        """Predict on this device from now on ("cpu", "cuda", "cuda:1"). Returns itself.

        Without it, the GPU is used if there is one. Raises ConfigError for a device that the
        network cannot use.
        """
        try:
            self.segmenter.to(device)
        except (RuntimeError, AssertionError) as error:  # PyTorch's, in several sentences
            raise ConfigError(f"device {device}: {str(error).splitlines()[0]}") from None
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """The segmenter's classes by number, background first. Raises RunError if it has not been
        trained."""
        return self.segmenter.classes

    @property
    def names(self) -> dict[int, str]:
        """Class numbers and names: {0: "background", 1: "cat"}. Raises RunError as `classes`."""
        return dict(enumerate(self.classes))

    @overload
    def predict(  # type: ignore[overload-overlap]  # an array can be iterated, too
        self, pictures: "Image.Image | np.ndarray", threshold: float = 0.5
    ) -> "Prediction": ...

    @overload
    def predict(self, pictures: Path | str, threshold: float = 0.5) -> Any: ...

    @overload
    def predict(
        self, pictures: "Iterable[Any]", threshold: float = 0.5
    ) -> "Iterator[Prediction]": ...

    def predict(self, pictures: Any, threshold: float = 0.5) -> Any:
        """A picture to its Prediction; several pictures to an iterator of Predictions, in order.

        One picture: a path, a PIL picture, or a NumPy array, RGB (H, W, 3) or gray (H, W) uint8. An
        array of OpenCV is BGR: give `pixels[..., ::-1]`. Several: a list or another iterable of
        these, a folder, or a pattern such as `new/*.jpg`. They are predicted when they are needed:
        at most two per thread are in memory.

        A Prediction has `.mask` (H, W) uint8, `.classes`, `.found`, `.rows()`, `.probs` (C, h, w)
        softmax, `.overlay()`. A pixel is an object if the network's probability of all objects
        together reaches `threshold`; the CRF then moves the edges to those of the photo.
        Raises DataError for a picture that cannot be read, in its place.
        """
        from tag2mask.crf.decide import check_threshold
        from tag2mask.runs.pictures import as_picture, is_several, photos_to_predict
        from tag2mask.segmenter.predict import predict, predict_photos

        check_threshold(threshold)
        if not is_several(pictures):
            picture = as_picture(pictures)
            image = picture.open(at_least=self.settings.image_size)  # as `predict_photos` opens it
            prediction = predict(self.segmenter, image, self.settings, threshold)
            return replace(prediction, file=picture.file, size=picture.size)
        if isinstance(pictures, Path | str):
            pictures = photos_to_predict([pictures])
        stream = map(as_picture, pictures)
        predictions = predict_photos(self.segmenter, stream, self.settings, threshold=threshold)
        return (prediction for _, prediction in predictions)

    def predict_to(
        self,
        pictures: "Iterable[Path | str] | Path | str",
        out: Path | str,
        overlay: bool = False,
        threshold: float = 0.5,
        tile: int | None = None,
        overlap: int = 64,
        on_error: "Callable[[DataError], None] | None" = None,
        form: str | None = None,
    ) -> "list[Row]":
        """Files, folders and patterns (`new/*.jpg`) to the folder `out`: masks NAME.png,
        predictions.csv, classes.json, and NAME.overlay.jpg with `overlay`. Returns the rows of
        these masks in predictions.csv, as `Prediction.rows` does.

        `threshold`: as in `predict`. With `tile` [pixels], a picture is not reduced, but cut at its
        own pixels into tiles of this side, which share `overlap` pixels with their neighbors and
        are blended there. Little memory is needed, whatever the size of the picture.

        `form` ("coco", "yolo", "labelme", "cvat" or "label-studio"): copies of the pictures, and
        the masks in the form of this tool, to `out`/`form`, which must be new.

        For each picture that is left out, `on_error` is called; without it, DataError is raised
        at the end. Raises DataError at the start if a file would be replaced that is no mask of an
        earlier call, or if `out` has masks of other classes; ConfigError.
        """
        from tag2mask.crf.decide import check_threshold
        from tag2mask.formats.mask_writers import check_new, write_outlines
        from tag2mask.photos.predictions import PredictionFolder, skipping
        from tag2mask.photos.tiles import predict_large
        from tag2mask.runs.pictures import SizeNote, photos_to_predict
        from tag2mask.segmenter.predict import make_tiles, predict_photos

        check_threshold(threshold)
        if not str(out):
            raise DataError('out = "": give a folder for the masks')
        paths = [pictures] if isinstance(pictures, Path | str) else list(pictures)
        errors: list[DataError] = []
        on_error = on_error or errors.append
        photos = photos_to_predict(paths, Path(out), on_error)
        network, settings = self.segmenter, self.settings
        folder = PredictionFolder(out, network.classes, overlay)
        if form:
            check_new(form, folder.path / form)

        def named() -> "Iterator[tuple[str, Prediction]]":
            note = SizeNote(self.trained_masks, settings.image_size)
            for photo, prediction in predict_photos(
                network, photos, settings, on_error=on_error, threshold=threshold
            ):
                note.look(prediction.file, prediction.size)
                yield photo.name, prediction

        if tile is None:
            with folder.opened(photos):
                for _ in track(folder.write(named(), on_error), "predictions", total=len(photos)):
                    pass
        else:
            tiles = make_tiles(network, tile, overlap, settings, threshold)
            with folder.opened(photos):
                for photo in photos:
                    with skipping(photo.file, on_error):
                        predict_large(photo.path, photo.name, folder, tiles)
        if form:
            files = [folder.path / row["mask"] for row in folder.rows]
            masks = {f.relative_to(folder.path).with_suffix("").as_posix(): f for f in files}
            write_outlines(form, photos, masks, network.classes, folder.path / form)
        if errors:
            raise DataError([str(error) for error in errors])
        return folder.rows


class Model(Predictor):
    """A network without its run folder: an ONNX file, or one from a hub."""

    def __init__(self, segmenter: "Network", source: str):
        self._segmenter, self.source = segmenter, source

    @property
    def segmenter(self) -> "Network":
        """The network."""
        return self._segmenter

    @property
    def settings(self) -> SegmenterSettings:
        """The settings with which it predicts: those that it was saved with."""
        return self._segmenter.settings

    def __repr__(self) -> str:
        return f"Model({self.source!r}, {len(self.classes) - 1} classes)"
