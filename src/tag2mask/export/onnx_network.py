"""An exported network, an ONNX file, that predicts without PyTorch and without its run folder."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.config import SegmenterSettings
from tag2mask.errors import ConfigError, DataError, import_extra
from tag2mask.photos.resize import enlarged
from tag2mask.processes import cores

# The settings of the segmenter that its predictions depend on. They are kept in the file.
USED = {"image_size", "test_scales", "flip", "object_first", "crf"}
INPUT, OUTPUT = "image", "probabilities"
# Sessions of a parent process. They are kept, because their end would wait for their threads.
_FORKED: list[Any] = []


class OnnxNetwork:
    """Photos (B, 3, H, W), RGB in 0-1, to the probabilities of the classes, by ONNX Runtime.

    A file of fixed size takes one photo of `size` x `size` pixels: a smaller one is placed in its
    upper left corner, and the rest gets the backbone's mean color, as in training. Can be used in
    several threads, sent to other processes, and used after a fork.

    Raises ConfigError if ONNX Runtime is not installed, DataError if the file was not written by
    `tag2mask export`.
    """

    in_threads = False  # ONNX Runtime has threads of its own

    def __init__(self, path: Path | str):
        self.path = Path(path).absolute()
        about = self._open().get_modelmeta().custom_metadata_map
        try:
            self.about = {key: json.loads(value) for key, value in about.items()}
            self.classes: tuple[str, ...] = tuple(self.about["classes"])
            self.small: tuple[int, ...] = tuple(self.about.get("small", ()))
            self.least: float | list[float] = self.about.get("least", 0.0)
            self.settings = SegmenterSettings.model_validate(self.about["settings"])
            self._mean = np.array(self.about["mean"], np.float32).reshape(1, 3, 1, 1)
            self._size: int | None = self.about["size"]
            self._step, self._extra = self.about["sides"]
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"{path}: not written by this version of `tag2mask export` ({error!r})"
            ) from None

    def __repr__(self) -> str:
        return f"OnnxNetwork({str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_session", "_process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._open()

    def _open(self) -> Any:
        onnxruntime = import_extra("onnxruntime", "predict", "an .onnx file", ConfigError)
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()
        # Threads that spin while they wait slow down the CRF beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors alone
        try:
            self._session = onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has many kinds
            reason = str(error).splitlines()[0]
            raise DataError(f"{self.path}: ONNX Runtime cannot read it ({reason})") from None
        self._process = os.getpid()
        return self._session

    def to(self, device: Any) -> "OnnxNetwork":
        """An exported network computes on the CPU. Raises ConfigError for another device."""
        if str(device) != "cpu":
            raise ConfigError(f"{self.path.name} computes on the CPU only, not on {device}")
        return self

    def side(self, pixels: float) -> int:
        """The nearest side of a photo that `run` takes [pixels]."""
        if self._size:
            return max(1, round(pixels))
        return max(1, round((pixels - self._extra) / self._step)) * self._step + self._extra

    def run(self, batch: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Photos (B, 3, H, W) float32 to probabilities (B, C, *size) float32, `size` being
        (height, width). Raises DataError for a photo that is larger than a fixed size."""
        height, width = batch.shape[2:]
        probs = np.concatenate([self.compute(part) for part in self.as_input(batch)])
        corners = self._extra == 1  # where its logits lie: see `Segmenter.align_corners`
        return enlarged(probs[:, :, :height, :width], (size[1], size[0]), corners)

    def as_input(self, batch: np.ndarray) -> list[np.ndarray]:
        """Photos (B, 3, H, W) as the file takes them: together, or one by one at its fixed size."""
        if self._size is None:
            return [batch]
        side, (height, width) = self._size, batch.shape[2:]
        if max(height, width) > side:
            raise DataError(
                f"{self.path.name} takes photos of at most {side} x {side} pixels, not "
                f"{width} x {height}; export it with --dynamic"
            )
        canvas = np.empty((len(batch), 1, 3, side, side), np.float32)
        canvas[:] = self._mean
        canvas[:, 0, :, :height, :width] = batch
        return list(canvas)

    def compute(self, batch: np.ndarray) -> np.ndarray:
        """What the file computes: (B, 3, H, W) float32 to (B, C, H, W) float32."""
        if self._process != os.getpid():  # a fork: the threads of the session are not here
            _FORKED.append(self._session)
            self._open()
        probs: np.ndarray = self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(batch)})[0]
        return probs
