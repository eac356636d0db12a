"""`tag2mask crf`, as a function and as a command."""

import numpy as np
import pytest
from PIL import Image

from tag2mask.cli import main
from tag2mask.config import CRFSettings
from tag2mask.crf import PRESETS, dense_crf
from tag2mask.crf.refine_file import refine_file
from tag2mask.errors import ConfigError, DataError


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (10, 12, 3), np.uint8)
    probs = rng.dirichlet([1, 1, 1], (10, 12)).transpose(2, 0, 1).astype(np.float32)
    Image.fromarray(image).save(tmp_path / "image.png")
    np.save(tmp_path / "scores.npy", probs)
    return tmp_path, image, probs


def test_writes_a_mask_of_class_numbers_or_the_probabilities(files):
    folder, image, probs = files
    refined = refine_file(folder / "image.png", folder / "scores.npy", folder / "mask.png")
    expected = dense_crf(image, probs)
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "mask.png")), expected.argmax(0))
    np.testing.assert_array_equal(refined, expected)
    refine_file(folder / "image.png", folder / "scores.npy", folder / "q.npy")
    np.testing.assert_array_equal(np.load(folder / "q.npy"), expected)


def test_only_the_labels_given_win(files):
    folder, _, _ = files
    refine_file(folder / "image.png", folder / "scores.npy", folder / "mask.png", labels=[0, 2])
    assert 1 not in np.asarray(Image.open(folder / "mask.png"))


def test_says_what_it_cannot_use(files):
    folder, _, _ = files
    good = folder / "image.png", folder / "scores.npy", folder / "mask.png"
    with pytest.raises(ConfigError, match=r"\.png"):
        refine_file(*good[:2], folder / "mask.jpg")
    with pytest.raises(DataError, match="no such file"):
        refine_file(good[0], folder / "other.npy", good[2])
    with pytest.raises(DataError, match=r"not a \.npy file"):
        refine_file(good[0], good[0], good[2])
    for start in (b"PK\x03\x04 no archive", b"\x93NUMPY\x01\x00v\x00{'descr': (,"):
        (folder / "broken.npy").write_bytes(start)
        with pytest.raises(DataError, match=r"not a \.npy file"):
            refine_file(good[0], folder / "broken.npy", good[2])
    for out in good[:2]:
        before = out.read_bytes()
        with pytest.raises(ConfigError, match="is read here, and would be replaced"):
            refine_file(*good[:2], folder / "." / out.name)
        assert out.read_bytes() == before
    np.savez(folder / "many.npz", a=np.zeros(3))
    with pytest.raises(DataError, match="several arrays"):
        refine_file(good[0], folder / "many.npz", good[2])


def test_the_command_takes_a_preset_and_changes_of_it(files, capsys):
    folder, image, probs = files
    words = ["crf", folder / "image.png", folder / "scores.npy", "--out", folder / "q.npy"]
    words = [str(word) for word in words]
    assert main([*words, "--preset", "irn"]) == 0
    assert "12 x 10, pixels by class" in capsys.readouterr().out
    np.testing.assert_array_equal(
        np.load(folder / "q.npy"), dense_crf(image, probs, PRESETS["irn"])
    )
    assert main([*words, "--preset=irn", "--iterations", "3"]) == 0
    values = {name: getattr(PRESETS["irn"], name) for name in CRFSettings.model_fields}
    params = type(PRESETS["irn"])(**{**values, "iterations": 3})
    np.testing.assert_array_equal(np.load(folder / "q.npy"), dense_crf(image, probs, params))


def test_the_command_says_what_is_wrong(files, capsys):
    folder, _, _ = files
    words = [folder / "image.png", folder / "absent.npy", "--out", folder / "m.png"]
    words = ["crf", *map(str, words)]
    assert main(words) == 2
    assert "absent.npy: no such file" in capsys.readouterr().err
    assert main([*words, "--preset", "vitpcm"]) == 2
    assert "no CRF preset 'vitpcm'; there are vit_pcm" in capsys.readouterr().err
    assert main([*words, "--iterations", "-1"]) == 2
