"""tag2mask from Python: `run`, `load`, and the `Run` that both return."""

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tag2mask.config import STAGE_NAMES, Config
from tag2mask.config_files import (
    base_config,
    changed_config,
    load_recipe,
    with_whole_paths,
    write_config,
)
from tag2mask.errors import ConfigError, RunError
from tag2mask.files import write_text
from tag2mask.formats.frames import write_records
from tag2mask.processes import barrier, rank
from tag2mask.progress import log, start_log
from tag2mask.runs.corrected import keep_changed
from tag2mask.runs.pipeline import in_words, leaves, run_stages
from tag2mask.runs.predictor import Model
from tag2mask.runs.run import Run

HUB = "hf://"  # how the address of a network on a hub begins
DEMO_SCENES = {"num_train": 480, "num_val": 120, "size": 192}


def run(
    data: Any,
    out: Path | str,
    recipe: str | None = None,
    *,
    continued: bool = False,
    **settings: Any,
) -> Run:
    """All stages on a data set; resumes where an earlier call stopped.

    continued: if photos or corrections have changed, start from the networks of the last run.

    `data`: a path, a pandas or polars DataFrame, or a list of dictionaries such as {"file_name":
    "a.jpg", "tags": ["cat"]}; `val` too. The photos of a DataFrame or a list are searched below
    the current folder, or in FOLDER with photos={"images": FOLDER}. `settings`: as in a recipe, for
    example `classifier={"epochs": 5}`, `seed=1`. Without a recipe, an existing run keeps its
    settings; a new run gets the settings of the recipe `photos`.
    """
    base = base_config(Path(out), recipe)
    changes = {"data": data, "out": Path(out), **settings}
    for name in ("data", "val"):
        if changes.get(name) is None or isinstance(changes[name], Path | str):
            continue
        # A file, so that the run can be repeated and resumed without the table in memory.
        changes[name] = write_records(changes[name], Path(out), name)
        changes["photos"] = {"images": Path.cwd()} | dict(changes.get("photos", {}))
    return run_config(changed_config(base, changes, "tag2mask.run"), continued=continued)


def load(source: Path | str) -> Run | Model:
    """An earlier run, from its folder; a network that `tag2mask export` wrote, from its .onnx file;
    or one of a hub, "hf://USER/NAME" or "hf://USER/NAME@REVISION".

    All have `.predict`, `.predict_to`, `.classes`, `.names` and `.to(device)`. Raises RunError,
    DataError, ConfigError.
    """
    if str(source).startswith(HUB):
        from tag2mask.export.hub import from_hub

        return from_hub(str(source))
    if Path(source).suffix == ".onnx":
        from tag2mask.export.onnx_network import OnnxNetwork

        return Model(OnnxNetwork(source), str(source))
    return Run(source)


def run_config(config: Config, names: Sequence[str] = STAGE_NAMES, continued: bool = False) -> Run:
    """Run these stages with these settings, and keep the settings in the run folder.

    continued: stages whose photos or corrections changed start from the last results.

    Raises RunError if another command is running there.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # The processes that read photos import the script that started them.
        raise RunError(
            'put the code of your script below `if __name__ == "__main__":`. '
            "The processes that read photos import the script, and must not run it"
        )
    config = with_whole_paths(config)
    run, data = Run(config.out, config), config.data
    run.continued = continued
    if data and data.is_dir() and config.out.resolve().is_relative_to(data.resolve()):
        raise RunError(
            f"{config.out} is inside the folder of photos {data}, so its masks would be read as "
            "photos; give another --out"
        )
    with run.files.opened():
        run.files.require_own(names)
        if "check" in names:
            # First: if the data has errors, the settings of an earlier run are not replaced.
            run_stages(run, ["check"])
        if rank() == 0 and tuple(names) != ("check",):
            keep_changed(run)
            if "check" in names:
                log.info(run.summary())
            if "evaluate" in names:
                run.check_evaluation()
            if "masks" in names:
                run.check_regions()  # before hours of training
            for note in run.taken.notes:
                log.info(f"warning: {note}")
            if corrected := str(run.taken):
                log.info(f"corrections: {corrected}")
            _check_networks(run, names)
        barrier()  # the others read the corrections when they are complete
        _run_with_settings(run, [name for name in names if name != "check"])
    if "report" in names:
        log.info(f"The report page: {run.report}")
    return run


def _check_networks(run: Run, names: Sequence[str]) -> None:
    """A wrong backbone or weights file is an error before hours of training, not after them."""
    if todo := [n for n in ("classifier", "segmenter") if n in names and not run.files.done(n)]:
        from tag2mask.weights import check_source

        for name in todo:
            settings = getattr(run.config, name)
            check_source(settings.backbone, settings.weights)


def _run_with_settings(run: Run, names: Sequence[str]) -> None:
    """Write the settings to config.toml and run these stages.

    If no stage has written anything that can be resumed, config.toml is restored.
    """
    path = run.files.config
    before = path.read_text(encoding="utf-8") if path.exists() else None
    if rank() == 0:
        if changed := _changed_settings(run.config):
            log.info(f"settings that differ from recipe {run.config.recipe} ({path}): {changed}")
        write_config(run.config, path)
    run.begun = False  # ignore what the check wrote: it reads no settings
    try:
        run_stages(run, names)
    except BaseException as error:
        if rank() == 0 and before is None and not run.begun:
            path.unlink()
        elif rank() == 0 and before and not run.begun:
            write_text(path, before)
            if isinstance(error, KeyboardInterrupt):
                log.info(f"nothing to resume yet: {path} has its earlier settings again")
        raise


def _changed_settings(config: Config) -> str:
    """Settings that differ from those of their recipe."""
    try:
        recipe = load_recipe(config.recipe)
    except ConfigError:
        return ""  # its file is gone
    of_data = {"data", "val", "val_masks", "out", "recipe"}
    before, now = (leaves(settings.model_dump(exclude=of_data)) for settings in (recipe, config))
    changed = [key for key in now if now[key] != before.get(key)]
    return ", ".join(f"{key} {in_words(now[key]) or 'not set'}" for key in changed)


def run_demo(config: Config) -> Run:
    """All stages on generated scenes with exact true masks; nothing is downloaded."""
    from tag2mask.demo.scenes import make_scenes

    scenes = config.out / "scenes"
    start_log(config.out)
    make_scenes(scenes, seed=config.seed, **DEMO_SCENES)
    paths = {"data": scenes / "tags.csv", "val": scenes / "val.csv", "val_masks": scenes / "masks"}
    return run_config(config.model_copy(update=paths))
