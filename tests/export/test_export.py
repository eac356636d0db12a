"""A network in a file computes what PyTorch computes, and is not written if it does not."""

import json
import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from small_networks import CLASSES, network, picture

import tag2mask
from tag2mask.cli import main
from tag2mask.crf import backend
from tag2mask.errors import ConfigError, DataError, RunError
from tag2mask.export import network_file
from tag2mask.export.network_file import export_network
from tag2mask.export.onnx_network import OnnxNetwork
from tag2mask.export.runs import measure_cost, quantize
from tag2mask.photos.masks import read_mask
from tag2mask.segmenter.fpn import FPN
from tag2mask.segmenter.predict import predict, probabilities

SIZES = [(90, 60), (60, 90), (96, 96), (200, 120), (97, 97), (5, 40)]


@pytest.mark.parametrize("size", SIZES)
def test_of_any_size_it_makes_the_same_masks(exported, size):
    path, made, _ = exported["dynamic"]
    image = picture(*size)
    ours, theirs = predict(made, image), predict(OnnxNetwork(path), image)
    # PyTorch enlarges logits to the photo's size, the file to the size of its input, then softmax.
    assert np.abs(ours.probs - theirs.probs).mean() < 2e-3
    assert theirs.mask.shape == size[::-1] and (ours.mask == theirs.mask).mean() > 0.99
    assert theirs.classes == CLASSES


def test_no_padding_is_a_formula_of_the_size():
    """With one in each layer of the default backbone, an export with --dynamic never ended."""
    settings = network("fpn").settings.model_copy(update={"backbone": "tf_efficientnet_lite0"})
    made = network_file._with_fixed_padding(
        FPN(settings, CLASSES).eval(), torch.zeros(1, 3, 96, 64)
    )
    kinds = {type(module).__name__ for module in made.modules()}
    assert "ZeroPad2d" in kinds and "Conv2dSame" not in kinds
    assert not any(getattr(module, "is_same", False) for module in made.modules())


@pytest.mark.parametrize("size", [(96, 96), (90, 60), (60, 90), (400, 200), (3, 50)])
def test_of_fixed_size_it_pads_as_in_training(exported, size):
    path, made, _ = exported["fixed"]
    image = picture(*size)
    small = image.resize([max(1, round(side * min(1, 96 / max(size)))) for side in size])
    canvas = made.backbone.mean.expand(2, 3, 96, 96).clone()
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255
    canvas[0, :, : small.height, : small.width] = pixels
    canvas[1, :, : small.height, : small.width] = pixels.flip(-1)
    with torch.no_grad():
        probs = made.probabilities(canvas)[:, :, : small.height, : small.width].numpy()
    expected = (probs[0] + probs[1][:, :, ::-1]) / 2
    ours = OnnxNetwork(path)
    settings = ours.settings
    assert settings.flip and settings.image_size == 96 and settings.crf.iterations == 2
    assert np.allclose(probabilities(ours, small, settings), expected, atol=1e-5)
    assert predict(ours, image).mask.shape == size[::-1]


def test_a_photo_too_large_for_a_fixed_size_is_an_error(exported):
    with pytest.raises(DataError, match=r"at most 96 x 96 pixels, not 120 x 98; .*--dynamic"):
        probabilities(OnnxNetwork(exported["fixed"][0]), picture(120, 98), network("fpn").settings)


def test_three_sizes_are_compared_one_of_them_not_square(exported):
    for _, _, compared in exported.values():
        assert len({result.what for result in compared}) == 3
        assert max(result.difference for result in compared) < 1e-5
    shapes = [result.what for result in exported["dynamic"][2]]
    assert shapes == ["1 x 3 x 161 x 161", "2 x 3 x 113 x 161", "1 x 3 x 161 x 113"]


def test_the_metadata_say_how_to_use_it(exported):
    about = onnxruntime.InferenceSession(exported["fixed"][0]).get_modelmeta().custom_metadata_map
    values = {key: json.loads(text) for key, text in about.items()}
    assert values["classes"] == list(CLASSES) and values["size"] == 96
    assert values["tag2mask"] == tag2mask.__version__
    assert values["weights_license"] == "cc-by-4.0" and values["code_license"] == "Apache-2.0"
    assert values["mean"] == pytest.approx(network("fpn").backbone.mean.flatten().tolist())
    assert values["settings"]["object_first"] is True
    assert tuple(OnnxNetwork(exported["fixed"][0]).least) == (0.0, 0.5, 0.75)


def test_nothing_of_this_computer_is_in_the_file(exported):
    for path, _, _ in exported.values():
        content = path.read_bytes()
        assert b"site-packages" not in content and b"/tag2mask/" not in content
        onnx.checker.check_model(path)


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch, ending):
    """The exported copy has another bias: as if a version of a package exported it wrongly."""
    fixed = network_file._with_fixed_padding

    def wrong(made, example):
        changed = fixed(made, example)
        torch.nn.init.normal_(changed.heads[0].bias)
        return changed

    monkeypatch.setattr(network_file, "_with_fixed_padding", wrong)
    if ending == "onnx":  # without the slow part: what ONNX Runtime computes is the copy's
        monkeypatch.setattr(
            network_file, "save_onnx", lambda program, about, path: path.write_text("")
        )
        copy = wrong(network("deeplab_v2"), torch.zeros(1, 3, 161, 161)).eval()
        compute = lambda batch: copy.probabilities(torch.from_numpy(batch)).detach().numpy()  # noqa: E731
        monkeypatch.setattr(
            network_file,
            "OnnxNetwork",
            lambda path: type("Wrong", (), {"compute": staticmethod(compute)}),
        )
    made, out = network("deeplab_v2"), tmp_path / f"m.{ending}"
    with pytest.raises(RunError, match="differ from PyTorch's by up to"):
        export_network(made, made.settings, out)
    assert list(tmp_path.iterdir()) == []


def test_pt2_is_a_program_of_pytorch(tmp_path):
    made, out = network("deeplab_v2"), tmp_path / "m.pt2"
    compared = export_network(made, made.settings, out)
    assert max(result.difference for result in compared) < 1e-5
    extra = {"tag2mask.json": ""}
    program = torch.export.load(out, extra_files=extra)
    assert json.loads(extra["tag2mask.json"])["classes"] == list(CLASSES)
    image = torch.rand(1, 3, 161, 161)
    torch.testing.assert_close(program.module()(image), made.probabilities(image))


def test_int8_says_what_it_costs(exported, run, tmp_path):
    path = exported["dynamic"][0]
    quantize(path, run.table.photos, tmp_path / "small.onnx")
    small, whole = OnnxNetwork(tmp_path / "small.onnx"), OnnxNetwork(path)
    assert small.classes == CLASSES and small.about["int8"] is True
    kinds = [node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node]
    assert kinds.count("QuantizeLinear") > 10
    cost, _ = measure_cost(run, whole, small)
    assert "a loss of" in cost and "4 validation photos with true masks" in cost
    assert "agree in 100.00 %" in measure_cost(run, whole, whole)[1]
    run.__dict__["truths"] = {"val": None}
    try:
        (text,) = measure_cost(run, whole, small)
    finally:
        del run.__dict__["truths"]
    assert "no true masks, so the loss of mIoU is unknown" in text


# ---- the command line, without PyTorch ---------------------------------------------------------

BLOCK = """
    import sys
    from importlib.abc import MetaPathFinder

    class Blocked(MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name.split(".")[0] in {"torch", "torchvision", "timm", "accelerate", "safetensors"}:
                raise ImportError(f"{name} must not be imported")

    sys.meta_path.insert(0, Blocked())
    from tag2mask.cli import main
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(backend() == "torch", reason="needs the compiled CRF")
def test_predict_from_a_file_needs_no_pytorch(exported, run, tmp_path):
    path, made, _ = exported["dynamic"]
    photos = run.folder.parent / "photos"
    words = ["predict", str(path), str(photos), "--out", str(tmp_path / "m"), "--overlay"]
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BLOCK), *words], capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    assert "4 masks in" in out.stdout
    expected = tag2mask.Model(made, "network")
    for number in range(4):
        mask = read_mask(tmp_path / "m" / f"aunt-{number}.png")
        ours = expected.predict(photos / f"aunt-{number}.png").mask
        assert (mask == ours).mean() > 0.99
    names = {file.name for file in (tmp_path / "m").iterdir()}
    assert {"predictions.csv", "classes.json", "aunt-0.overlay.jpg"} <= names


def test_export_on_the_command_line(run, tmp_path, capfd):
    out = tmp_path / "m.pt2"  # it takes less time than .onnx
    assert main(["export", str(run.folder), "--out", str(out), "--license", "mit"]) == 0
    said = capfd.readouterr().out
    assert "largest difference from PyTorch" in said and "m.pt2: " in said and out.is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "X/m.tflite"], "ends in .onnx (ONNX) or .pt2 (PyTorch)"),
        (["--out", "X/m.pt2", "--int8"], "8 bits are for .onnx files only"),
    ],
)
def test_wrong_exports_are_sentences(run, tmp_path, capfd, words, message):
    words = [word.replace("X", str(tmp_path)) for word in words]
    assert main(["export", str(run.folder), *words]) == 2
    assert message in capfd.readouterr().err and not list(tmp_path.iterdir())


def test_files_that_are_no_exported_network_are_sentences(tmp_path, capfd, exported):
    (tmp_path / "text.onnx").write_text("no")
    model = onnx.load(exported["fixed"][0])
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    picture(9, 9).save(tmp_path / "a.png")
    for name, message in (
        ("text", "ONNX Runtime cannot read it"),
        ("other", "not written by this version of `tag2mask export`"),
        ("absent", "no such file"),
    ):
        file = str(tmp_path / f"{name}.onnx")
        assert main(["predict", file, str(tmp_path / "a.png"), "--out", str(tmp_path / "o")]) == 2
        assert message in capfd.readouterr().err


# ---- as people expect ----------------------------------------------------------------------------


def test_errors_and_names_are_exported():
    assert issubclass(tag2mask.DataError, tag2mask.Tag2MaskError)
    for name in tag2mask.__all__:
        assert getattr(tag2mask, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tag2mask.nothing


def predictors(run, exported):
    yield run
    yield tag2mask.load(exported["dynamic"][0])


def test_predictors_look_alike(run, exported):
    photos = run.folder.parent / "photos"
    for predictor in predictors(run, exported):
        assert predictor.names == dict(enumerate(CLASSES)) and predictor.classes == CLASSES
        assert predictor.to("cpu") is predictor
        with pytest.raises(ConfigError, match=r"device|CPU only"):
            predictor.to("cuda:9")
        assert len(list(predictor.predict(photos))) == 4
        image = picture(50, 40)
        one, listed = predictor.predict(image), next(iter(predictor.predict([image])))
        assert np.array_equal(one.mask, listed.mask) and len(repr(predictor)) < 150


def test_they_work_in_threads_and_other_processes(run, exported):
    image = picture(64, 48)
    for predictor in predictors(run, exported):
        expected = predictor.predict(image).mask
        again = pickle.loads(pickle.dumps(predictor))
        assert np.array_equal(again.predict(image).mask, expected)
        with ThreadPoolExecutor(4) as pool:
            masks = list(pool.map(lambda _, p=predictor: p.predict(image).mask, range(4)))
        assert len(masks) == 4 and all(np.array_equal(mask, expected) for mask in masks)


class Photos(torch.utils.data.Dataset):
    """Masks that a worker of a DataLoader predicts."""

    def __init__(self, predictor):
        self.predictor = predictor

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.predictor.predict(picture(40, 40, index)).mask


def test_they_work_in_a_dataloader(run, exported):
    """Workers are forks here: an exported network has to open its file again in them."""
    for predictor in predictors(run, exported):
        expected = [Photos(predictor)[i] for i in range(4)]
        loader = torch.utils.data.DataLoader(Photos(predictor), num_workers=2, batch_size=None)
        assert all(np.array_equal(a, b) for a, b in zip(loader, expected, strict=True))
