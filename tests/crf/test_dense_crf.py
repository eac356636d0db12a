"""The dense CRF: agreement with pydensecrf, memory, and what it says of unusable inputs."""

import ctypes
import itertools
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import assert_agrees, crf_params, probabilities, pydensecrf, scene

from tag2mask.crf import (
    PRESETS,
    CRFParams,
    backend,
    dense_crf,
    dense_crf_many,
    inference,
)
from tag2mask.errors import ConfigError, DataError
from tag2mask.photos.images import open_image


def run(code, image, probs, params):
    """The CRF on one back end: "torch", or the compiled core for an instruction set."""
    if code != "torch" and inference._core is None:
        pytest.skip("the compiled core is not installed")
    if code == "avx2" and inference._core.isa != "avx2":
        pytest.skip("this machine has no AVX2")
    return inference._infer(image, np.ascontiguousarray(probs), params, code)


CODES = ["avx2", "portable", "torch"]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("preset", ["vit_pcm", "toco", "irn"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 2), (1, 9, 3), (7, 1, 1), (33, 45, 4), (31, 20, 7), (64, 60, 21), (20, 64, 26)]
)
def test_agrees_with_pydensecrf(code, preset, shape):
    image, probs = scene(*shape)
    assert_agrees(
        run(code, image, probs, PRESETS[preset]), pydensecrf(image, probs, PRESETS[preset])
    )


@pytest.mark.parametrize("code", CODES)
def test_agrees_if_rows_of_the_grid_touch_no_pixel(code):
    image, probs = scene(9, 64, 3)  # with tiles of 64 pixels, each ends before such a row
    params = CRFParams(gaussian_sxy=0.5, bilateral_weight=0)
    assert_agrees(run(code, image, probs, params), pydensecrf(image, probs, params))


@pytest.mark.parametrize("code", CODES)
@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    labels=st.sampled_from([1, 2, 3, 4, 5, 8, 9, 13, 16, 17, 24, 25, 48, 81]),
    seed=st.integers(0, 2**16),
    noise=st.sampled_from([0.0, 1.0, 6.0, 200.0]),
    iterations=st.integers(0, 10),
    gaussian=st.tuples(st.sampled_from([0.5, 0.8, 1, 3, 10, 300]), st.sampled_from([0, 0.5, 3])),
    bilateral=st.tuples(
        st.sampled_from([1, 20, 67, 500]),
        st.sampled_from([0.5, 3, 13, 255]),
        st.sampled_from([0, 1, 4, 10]),
    ),
)
def test_agrees_with_pydensecrf_on_any_input(
    code, height, width, labels, seed, noise, iterations, gaussian, bilateral
):
    image, probs = scene(height, width, labels, seed, noise)
    params = crf_params(iterations, gaussian, bilateral)
    assert_agrees(run(code, image, probs, params), pydensecrf(image, probs, params))


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("labels", [2, 21])
@pytest.mark.parametrize("preset", ["vit_pcm", "toco", "irn"])
def test_agrees_with_pydensecrf_on_photos(shared, preset, labels):
    for path in sorted((shared / "voc-animals/images").glob("*.jpg"))[:40:13]:
        image = np.array(open_image(path))
        probs = probabilities(*image.shape[:2], labels)
        assert_agrees(
            dense_crf(image, probs, PRESETS[preset]), pydensecrf(image, probs, PRESETS[preset])
        )


@pytest.mark.slow
def test_agrees_with_pydensecrf_on_four_megapixels():
    image, probs = scene(2000, 2000, 3)
    assert_agrees(dense_crf(image, probs, PRESETS["irn"]), pydensecrf(image, probs, PRESETS["irn"]))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("noise", [2, 6])
@pytest.mark.parametrize("preset", ["vit_pcm", "toco", "irn"])
def test_takes_at_most_80_megabytes_above_the_inputs(preset, noise):
    """500 x 375, 21 labels, result included.

    With a noise of 6, the lattice of vit_pcm has more points than the image has pixels.
    """
    if backend() == "torch":
        pytest.skip("the compiled core is not installed")
    # A new process has no memory left from an earlier image.
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        first, second = fresh.submit(peak_bytes, preset, noise).result()
    assert first <= 80e6
    assert second <= 80e6


def peak_bytes(preset, noise):
    """Peak bytes above the inputs for one image, and for a second one in the same process."""
    image, probs = scene(375, 500, 21, noise=noise)
    dense_crf(image[:50, :50].copy(), probs[:, :50, :50].copy())
    ctypes.CDLL(None).malloc_trim(0)
    before, most = resident(), []
    for _ in range(2):
        peak, done = [], threading.Event()

        def watch(peak=peak, done=done):
            while not done.wait(0.001):
                peak.append(resident())

        watcher = threading.Thread(target=watch)
        watcher.start()
        dense_crf(image, probs, PRESETS[preset])
        done.set()
        watcher.join()
        assert len(peak) > 20
        most.append(max(peak) - before)
    return most


def resident():
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096


def test_only_the_given_labels_compete():
    image, probs = scene(30, 40, 6)
    q = dense_crf(image, probs, labels=[0, 4])
    assert (q[[1, 2, 3, 5]] == 0).all()
    np.testing.assert_allclose(q.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(q[[0, 4]], dense_crf(image, probs[[0, 4]]))


def test_accepts_tensors_and_any_floating_type_and_memory_layout():
    image, probs = scene(12, 14, 3)
    q = dense_crf(image, probs)
    np.testing.assert_array_equal(
        q, dense_crf(torch.from_numpy(image), torch.from_numpy(probs).requires_grad_())
    )
    np.testing.assert_allclose(q, dense_crf(image, torch.from_numpy(probs).bfloat16()), atol=0.1)
    np.testing.assert_array_equal(
        q, dense_crf(np.asfortranarray(image), np.asfortranarray(probs.astype(np.float64)))
    )


def test_many_keeps_the_order_and_holds_few_images():
    cases = [scene(20 + 3 * i, 30, 3, i) for i in range(9)]
    drawn = itertools.count()
    taken = 0

    def pairs():
        for case in cases:
            # Two with the workers, one waiting, and the one that the caller holds.
            assert next(drawn) - taken <= 4
            yield case

    for case, q in zip(cases, dense_crf_many(pairs(), workers=2), strict=True):
        np.testing.assert_array_equal(q, dense_crf(*case))
        taken += 1


def test_many_takes_labels_of_each_pair_and_raises_in_turn():
    case = scene(10, 10, 3)
    results = list(dense_crf_many([case, case], labels=[[0, 1], None]))
    np.testing.assert_array_equal(results[0], dense_crf(*case, labels=[0, 1]))
    np.testing.assert_array_equal(results[1], dense_crf(*case))
    results = dense_crf_many([case, (case[0], -case[1]), case])
    next(results)
    with pytest.raises(DataError, match="run from -"):
        next(results)


def test_other_python_threads_run_meanwhile():
    if backend() == "torch":
        pytest.skip("the compiled core is not installed")
    image, probs = scene(300, 300, 21)
    worker = threading.Thread(target=dense_crf, args=(image, probs))
    worker.start()
    steps = 0
    while worker.is_alive():
        steps += 1
    assert steps > 10_000  # with the GIL held, a handful


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_probabilities_on_the_gpu_give_the_cpus_result():
    image, probs = scene(60, 80, 5)
    refined = dense_crf(image, torch.from_numpy(probs).cuda())
    assert_agrees(refined, dense_crf(image, probs))


def test_warns_once_if_the_compiled_core_is_missing(monkeypatch):
    messages = []
    monkeypatch.setattr(inference, "_core", None)
    monkeypatch.setattr(inference.log, "warning", messages.append)
    inference._warn_torch.cache_clear()
    for _ in range(2):
        dense_crf(*scene(4, 4, 2))
    assert backend() == "torch"
    assert len(messages) == 1 and "PyTorch" in messages[0]


@pytest.mark.parametrize("code", ["avx2", "portable"])
def test_refuses_widths_too_small_for_its_lattice(code):
    image = np.zeros((1, 200_000, 3), np.uint8)
    probs = np.ones((1, 1, 200_000), np.float32)
    # torch numbers only the points that exist, so it can do this one.
    with pytest.raises(DataError, match="lattice is full"):
        run(code, image, probs, CRFParams(bilateral_sxy=0.5, bilateral_srgb=0.1))


def test_a_factor_common_to_all_labels_has_no_effect():
    image, probs = scene(12, 14, 3)
    np.testing.assert_allclose(dense_crf(image, probs * 0.5), dense_crf(image, probs), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, p: (i, np.where(p > p.mean(), np.nan, p)), "nan"),
        (lambda i, p: (i, -p), "run from -"),
        (lambda i, p: (i, p * 9), "0..1"),
        (lambda i, p: (i, p[0]), "(C, H, W)"),
        (lambda i, p: (i, p[:0]), "at least one label"),
        (lambda i, p: (i, p[:, :-1]), "the image is 12 x 14 and the probabilities are 11 x 14"),
        (lambda i, p: (i, (p * 255).astype(np.uint8)), "floating"),
        (lambda i, p: (i[..., :2], p), "(H, W, 3)"),
        (lambda i, p: (i / 255, p), "uint8"),
    ],
)
def test_says_what_is_wrong_with_the_input(change, message):
    with pytest.raises(DataError) as error:
        dense_crf(*change(*scene(12, 14, 3)))
    assert message in str(error.value)


def test_lists_all_problems_at_once():
    image, probs = scene(12, 14, 3)
    with pytest.raises(DataError) as error:
        dense_crf(image / 255, probs[:, 1:] * 9)
    assert len(error.value.problems) == 3


@pytest.mark.parametrize("labels", [[], [0, 0], [3], [-1]])
def test_refuses_empty_repeated_or_unknown_labels(labels):
    with pytest.raises(DataError, match="labels"):
        dense_crf(*scene(4, 4, 3), labels=labels)


def test_lists_all_parameters_out_of_range_at_once():
    with pytest.raises(ConfigError) as error:
        CRFParams(iterations=-1, bilateral_srgb=0, gaussian_weight=float("nan"), image="bgr")
    assert all(
        name in str(error.value)
        for name in ("iterations", "bilateral_srgb", "gaussian_weight", "image")
    )


def test_zero_iterations_return_the_probabilities():
    image, probs = scene(8, 8, 3)
    np.testing.assert_allclose(dense_crf(image, probs, CRFParams(iterations=0)), probs, atol=1e-5)
