"""`tag2mask crf`, as a function."""

import numpy as np
import pytest
from PIL import Image

from tag2mask.crf import dense_crf
from tag2mask.crf.command import crf_command
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
    said = crf_command(folder / "image.png", folder / "scores.npy", folder / "mask.png")
    expected = dense_crf(image, probs)
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "mask.png")), expected.argmax(0))
    assert "12 x 10" in said
    crf_command(folder / "image.png", folder / "scores.npy", folder / "q.npy")
    np.testing.assert_array_equal(np.load(folder / "q.npy"), expected)


def test_only_the_labels_given_win(files):
    folder, _, _ = files
    crf_command(folder / "image.png", folder / "scores.npy", folder / "mask.png", labels=[0, 2])
    assert 1 not in np.asarray(Image.open(folder / "mask.png"))


def test_says_what_it_cannot_use(files):
    folder, _, _ = files
    good = folder / "image.png", folder / "scores.npy", folder / "mask.png"
    with pytest.raises(ConfigError, match="vit_pcm"):
        crf_command(*good, preset="vitpcm")
    with pytest.raises(ConfigError, match=r"\.png"):
        crf_command(*good[:2], folder / "mask.jpg")
    with pytest.raises(DataError, match="no such file"):
        crf_command(good[0], folder / "other.npy", good[2])
    with pytest.raises(DataError, match=r"not a \.npy file"):
        crf_command(good[0], good[0], good[2])
    np.savez(folder / "many.npz", a=np.zeros(3))
    with pytest.raises(DataError, match="several arrays"):
        crf_command(good[0], folder / "many.npz", good[2])


def test_the_command_line_takes_picture_and_scores(files, capsys):
    folder, _, _ = files
    from tag2mask.cli import main

    assert (
        main(
            [
                "crf",
                str(folder / "image.png"),
                str(folder / "scores.npy"),
                "--out",
                str(folder / "m.png"),
                "--preset",
                "irn",
            ]
        )
        == 0
    )
    assert "m.png" in capsys.readouterr().out and (folder / "m.png").exists()
    assert (
        main(
            [
                "crf",
                str(folder / "image.png"),
                str(folder / "absent.npy"),
                "--out",
                str(folder / "m.png"),
            ]
        )
        == 2
    )
    assert "absent.npy: no such file" in capsys.readouterr().err
