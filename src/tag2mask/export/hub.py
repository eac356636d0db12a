"""A segmenter to a hub (Hugging Face's, or another at HF_ENDPOINT) and back.

Nothing is a pickle. Nothing private is sent: no path, no photo, no name or tags of a photo.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tag2mask.config import Config
from tag2mask.errors import ConfigError, RunError, import_extra
from tag2mask.files import write_json, write_text
from tag2mask.photos.colors import color
from tag2mask.photos.table import IGNORE
from tag2mask.runs.folder import METRICS, MODEL
from tag2mask.runs.predictor import Model

if TYPE_CHECKING:
    from tag2mask.runs.run import Run

ONNX, CONFIG, CLASSES, CARD = "model.onnx", "config.json", "classes.json", "README.md"
SOURCES = ("auto", "hub", "none")  # of weights; all else is a file of the user's


def push(
    run: "Run",
    name: str,
    private: bool = False,
    license: str | None = None,
    data_license: str | None = None,
) -> str:
    """A run's segmenter to the model repository `name` ("USER/NAME"), made if it does not exist;
    returns its address.

    The repository gets model.safetensors, model.onnx (photos of any size), config.json,
    classes.json, and a model card with the metrics. `license` of the weights and `data_license` of
    the training photos are what the user states. Raises RunError, ConfigError.
    """
    run.files.need("segmenter", MODEL)
    with _hub() as hub:
        hub.utils.validate_repo_id(name)
        if hub.constants.is_offline_mode():
            raise RunError("HF_HUB_OFFLINE is set, so nothing can be sent; unset it and try again")
        if not hub.utils.get_token():
            raise RunError(
                "no token for the hub. Create one that may write "
                "(https://huggingface.co/settings/tokens), and give it in HF_TOKEN or by "
                "`hf auth login`"
            )
        api = hub.hf_api.HfApi(library_name="tag2mask")
        # First: if the hub refuses, nobody waits for the export.
        address = api.create_repo(name, private=private or None, exist_ok=True)
    with TemporaryDirectory() as folder:
        write_files(run, Path(folder), name, license, data_license)
        with _hub():
            api.upload_folder(
                repo_id=name, folder_path=folder, commit_message="Segmenter trained with tag2mask"
            )
    return str(address)


def write_files(
    run: "Run", folder: Path, name: str, license: str | None, data_license: str | None
) -> None:
    """Write what `push` sends."""
    from tag2mask.export.network_file import describe, export_network
    from tag2mask.report.card import card_text
    from tag2mask.segmenter.heads import save_segmenter

    network, config = copy(run.segmenter), public_settings(run.config)
    # The settings with which the run predicts, so that the loaded network needs no other.
    network.settings = run.settings.model_copy(update={"weights": config.segmenter.weights})
    save_segmenter(network, folder / MODEL)
    export_network(network, run.settings, folder / ONNX, dynamic=True, weights_license=license)
    sections = {"classifier", "masks", "segmenter", "recipe", "seed"}
    about = describe(network, run.settings, None, license)
    training = config.model_dump(mode="json", include=sections)
    about |= {"data_license": data_license or "not stated", "training": training}
    write_json(folder / CONFIG, about)
    colors = [color(number) for number in range(len(network.classes))]
    names = {"classes": list(network.classes), "colors": colors, "ignore": IGNORE}
    write_json(folder / CLASSES, names)
    metrics = run.metrics.get("segmenter") if run.files.result("evaluate", METRICS).exists() else {}
    text = card_text(
        name.split("/")[-1], f"hf://{name}", config, run.table, metrics, license, data_license
    )
    write_text(folder / CARD, text)


def public_settings(config: Config) -> Config:
    """The settings of a training without the paths in them."""
    sections: dict[str, Any] = {
        name: section.model_copy(
            update={"weights": section.weights if section.weights in SOURCES else "a file"}
        )
        for name, section in (("classifier", config.classifier), ("segmenter", config.segmenter))
    }
    recipe = config.recipe if not config.recipe.endswith(".toml") else "a file"
    public = Config(recipe=recipe, seed=config.seed, masks=config.masks)
    return public.model_copy(update=sections)


def from_hub(address: str) -> Model:
    """ "hf://USER/NAME", or "hf://USER/NAME@REVISION", to its network.

    It is downloaded once and kept by huggingface_hub. Without PyTorch, model.onnx is used. Raises
    RunError, ConfigError.
    """
    name, _, revision = address.removeprefix("hf://").partition("@")
    file = MODEL if find_spec("torch") else ONNX
    with _hub() as hub:
        folder = Path(
            hub.snapshot_download(
                name, revision=revision or None, allow_patterns=[file], library_name="tag2mask"
            )
        )
    if not (folder / file).is_file():
        raise RunError(f"{address} has no {file}: it was not pushed by tag2mask")
    if file == ONNX:
        from tag2mask.export.onnx_network import OnnxNetwork

        return Model(OnnxNetwork(folder / file), address)
    import torch

    from tag2mask.segmenter.heads import load_segmenter

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Model(load_segmenter(folder / file).to(device), address)


@contextmanager
def _hub() -> Iterator[Any]:
    """The package huggingface_hub with its modules; its errors become RunError or ConfigError."""
    hub = import_extra("huggingface_hub", "hub", "a model hub", ConfigError)
    from huggingface_hub import constants, errors, hf_api, utils  # noqa: F401

    missing = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)
    try:
        yield hub
    except errors.HFValidationError as error:
        raise ConfigError(f"name a repository as USER/NAME ({_first(error)})") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        why = "the hub cannot be reached"
        if constants.is_offline_mode():
            why = "HF_HUB_OFFLINE is set, and this was not downloaded before"
        raise RunError(f"{why} ({_first(error)})") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        why = "the hub refused"
        if isinstance(error, missing) or status == 404:
            why = "the hub has no such repository or revision, or it is private: give HF_TOKEN"
        elif status in (401, 403):
            why = "the hub does not accept the token for this"
        raise RunError(f"{why} ({_first(error)})") from None
    except Exception as error:
        # The package has used several libraries for HTTP, with errors of their own.
        http = type(error).__module__.split(".")[0] in ("httpx", "httpx2", "requests")
        if not (http or isinstance(error, ConnectionError)):
            raise
        raise RunError(f"the hub cannot be reached ({_first(error)})") from None


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
