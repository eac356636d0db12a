"""tag2mask from Python: `run`, `load`, and the `Run` that both return."""

import multiprocessing
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tag2mask.config import Config
from tag2mask.config_files import (
    base_config,
    changed_config,
    read_config,
    with_whole_paths,
    write_config,
)
from tag2mask.errors import DataError, RunError
from tag2mask.files import locked, read_json, write_text, writing
from tag2mask.processes import rank
from tag2mask.progress import console, log, start_log, track
from tag2mask.runs.folder import Job
from tag2mask.runs.pipeline import STAGES, require_own_folders, run_stages
from tag2mask.runs.stages import load_for_prediction

if TYPE_CHECKING:
    from tag2mask.segmenter.predict import Prediction

DEMO_SCENES = {"num_train": 480, "num_val": 120, "size": 192}


class Run:
    """A run folder, finished or not."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder).absolute()  # a notebook may go elsewhere
        if not (self.folder / "config.toml").exists():
            raise RunError(f"{self.folder}: not a run folder (it has no config.toml)")
        self.config = read_config(self.folder / "config.toml")

    @property
    def metrics(self) -> dict[str, Any]:
        """evaluate/metrics.json: figures of the pseudo masks and of the segmenter, None where no true masks were given."""
        return read_json(self.folder / "evaluate" / "metrics.json")

    @property
    def report(self) -> Path:
        """The report page."""
        return self.folder / "report" / "index.html"

    @cached_property
    def _segmenter(self) -> Any:
        return load_for_prediction(self.folder / "segmenter" / "model.safetensors")

    def predict(self, picture: Path | str | Image.Image) -> "Prediction":
        """A picture to its mask: `.mask` (H, W) uint8, `.classes`, `.probs` (C, h, w) softmax, `.overlay()`. Raises DataError."""
        from tag2mask.photos.images import open_image, upright_rgb
        from tag2mask.segmenter.predict import predict

        image = (
            upright_rgb(picture) if isinstance(picture, Image.Image) else open_image(Path(picture))
        )
        return predict(self._segmenter, image, self.config.segmenter)

    def predict_to(self, pictures: Sequence[Path], out: Path, overlay: bool = False) -> int:
        """Write a mask, `out`/NAME.png, for each picture and each picture below each folder; returns how many. Raises DataError.

        No mask is written over one of the pictures.
        """
        from tag2mask.photos.masks import write_mask
        from tag2mask.photos.table import Photo
        from tag2mask.segmenter.predict import predict_photos

        if among := [
            path for path in pictures if path.is_dir() and path.resolve() == out.resolve()
        ]:
            raise DataError(
                f"{among[0]}: the masks would lie among these pictures and be taken for some; give another --out"
            )
        photos = [Photo(name, path, ()) for path, name in _pictures(pictures, out)]
        read = {photo.path.resolve() for photo in photos}
        targets = [
            out / f"{photo.name}{kind}"
            for photo in photos
            for kind in (".png", ".overlay.jpg")[: 1 + overlay]
        ]
        if covered := [
            f"{path}: the mask would be written over this picture; give another --out"
            for path in targets
            if path.resolve() in read
        ]:
            raise DataError(covered)
        self._segmenter  # noqa: B018  a missing model is an error before anything else is said
        count = empty = 0
        broken: list[DataError] = []
        predictions = predict_photos(
            self._segmenter, photos, self.config.segmenter, on_error=broken.append
        )
        for photo, prediction in track(predictions, "predictions", total=len(photos)):
            write_mask(out / f"{photo.name}.png", prediction.mask)
            if overlay:
                with writing(out / f"{photo.name}.overlay.jpg") as temporary:
                    prediction.overlay().save(temporary, "JPEG", quality=90)
            count += 1
            empty += not prediction.mask.any()
        numbers = ", ".join(f"{i} {name}" for i, name in enumerate(self._segmenter.classes))
        nothing = f", {empty} of them all background" if empty else ""
        console.print(
            f"{count} mask{'s' * (count != 1)} in {out}{nothing}; class numbers: {numbers}",
            soft_wrap=True,
            highlight=False,
        )
        if broken:
            raise DataError([str(error) for error in broken])
        return count


def run(data: Path | str, out: Path | str, recipe: str | None = None, **settings: Any) -> Run:
    """All stages on a data set; goes on where an earlier call stopped. `settings` as in a recipe: `classifier={"epochs": 5}`, `seed=1`.

    Without a recipe a run folder that is there keeps its settings, and a new one gets those of `photos`.
    """
    base = base_config(Path(out), recipe)
    changes = {"data": Path(data), "out": Path(out), **settings}
    return run_config(changed_config(base, changes, "tag2mask.run"))


def load(folder: Path | str) -> Run:
    """An earlier run, from its folder. Raises RunError."""
    return Run(folder)


def run_config(config: Config, names: Sequence[str] = tuple(STAGES)) -> Run:
    """Run these stages with these settings and keep the settings in the run folder. Raises RunError if another command is at work there."""
    if getattr(
        multiprocessing.current_process(), "_inheriting", False
    ):  # a process that reads photos imports the script that started it
        raise RunError(
            'put `if __name__ == "__main__":` before what your script does: its reading processes import it'
        )
    config = with_whole_paths(config)
    if (
        config.data
        and config.data.is_dir()
        and config.out.resolve().is_relative_to(config.data.resolve())
    ):
        raise RunError(
            f"{config.out} lies in the folder of photos {config.data}, where masks would be taken for photos; give another --out"
        )
    job = Job(config)
    start_log(config.out, quiet=rank() > 0)
    with locked(config.out) if rank() == 0 else nullcontext():
        require_own_folders(job, names)
        if "check" in names:
            run_stages(
                job, ["check"]
            )  # its errors come before the settings of an earlier run are written over
        stored, former = config.out / "config.toml", None
        if rank() == 0:
            if "evaluate" in names:
                job.check_evaluation()
            former = stored.read_text(encoding="utf-8") if stored.exists() else None
            write_config(config, stored)
        run_stages(
            job,
            [name for name in names if name != "check"],
            undo=partial(write_text, stored, former) if former else None,
        )
    finished = Run(config.out)
    if "report" in names:
        log.info(f"The report page: {finished.report}")
    return finished


def run_demo(config: Config) -> Run:
    """The whole path on scenes made by code: no download, exact masks to measure against."""
    from tag2mask.demo.scenes import make_scenes

    scenes = config.out / "scenes"
    start_log(config.out)
    make_scenes(scenes, seed=config.seed, **DEMO_SCENES)
    paths = {"data": scenes / "tags.csv", "val": scenes / "val.csv", "val_masks": scenes / "masks"}
    return run_config(config.model_copy(update=paths))


def _pictures(paths: Sequence[Path], out: Path) -> list[tuple[Path, str]]:
    """Pictures, and those below folders but not below `out`, with the name of each one's mask: its path below the folder given.

    Raises DataError.
    """
    from tag2mask.formats.plain import pictures_below, unread_pictures
    from tag2mask.formats.rows import photo_names

    if missing := [f"{path}: no such picture or folder" for path in paths if not path.exists()]:
        raise DataError(missing)
    below = out.absolute()
    each = (
        (file, path)
        for path in paths
        for file in (pictures_below(path) if path.is_dir() else [path])
    )
    found = list(
        {
            f.absolute(): (f, path)
            for f, path in each
            if f == path or not f.absolute().is_relative_to(below)
        }.values()
    )
    for finding in (
        finding for path in paths if path.is_dir() for finding in unread_pictures(path)
    ):
        console.print(str(finding), highlight=False, markup=False, soft_wrap=True)
    if not paths:
        raise DataError("which pictures? Give files or folders")
    if not found:
        raise DataError(f"no pictures below {', '.join(map(str, paths))}")
    files = [file for file, _ in found]
    names = [
        file.relative_to(path).with_suffix("").as_posix() if path.is_dir() else file.stem
        for file, path in found
    ]
    return list(
        zip(files, names if len(set(names)) == len(names) else photo_names(files), strict=True)
    )
