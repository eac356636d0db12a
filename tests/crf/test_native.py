"""The C++ core without Python: under sanitizers for each way to compile it, and on emulated Arm."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from oracle import assert_agrees, crf_params, pydensecrf, scene

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "src/tag2mask/crf/native"
SANITIZE = ["-O1", "-fsanitize=undefined,address", "-fno-sanitize-recover=all", "-g"]
AVX2 = ["-mavx2", "-mfma"]

pytestmark = pytest.mark.slow


def build(folder, compiler, isa, *flags):
    """native.cpp and the core as a program, compiled like in CMakeLists.txt."""
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    objects = []
    for source, contract in (
        (SOURCES / "grid.cpp", "off"),
        (SOURCES / "lattice.cpp", "off"),
        (SOURCES / "infer.cpp", "fast"),
        (HERE / "native.cpp", "off"),
    ):
        objects.append(folder / f"{source.stem}.o")
        options = [
            "-std=c++17",
            "-O2",
            f"-ffp-contract={contract}",
            f"-DTAG2MASK_ISA={isa}",
            f"-I{SOURCES}",
            "-Wall",
            "-Wextra",
            "-Wno-psabi",
        ]
        subprocess.run([compiler, *options, *flags, "-c", source, "-o", objects[-1]], check=True)
    program = folder / "crf"
    subprocess.run([compiler, *flags, *objects, "-o", program], check=True)
    return program


def jobs(count):
    rng = np.random.default_rng(7)
    for i in range(count):
        height, width = (int(rng.integers(1, 50)) for _ in range(2))
        labels = int(rng.choice([1, 2, 4, 5, 8, 11, 16, 21, 24, 27, 81]))
        image, probs = scene(height, width, labels, i, noise=float(rng.choice([0, 3, 200])))
        # The core clips probabilities outside 0..1; Python would refuse them.
        if i % 5 == 0:
            probs = (probs * 3 - 1).astype(np.float32)
        gaussian = float(rng.choice([0.5, 1, 3, 1000])), float(rng.choice([0, 3]))
        bilateral = (
            float(rng.choice([0.5, 67, 1e6])),
            float(rng.choice([0.1, 3, 13, 1e6])),
            float(rng.choice([0, 4, 1e6])),
        )
        yield image, probs, crf_params(int(rng.integers(0, 11)), gaussian, bilateral)


def run(command, cases):
    data = b""
    for image, probs, p in cases:
        data += np.int32([*image.shape[:2], len(probs), p.iterations]).tobytes()
        data += np.float32(
            [
                p.gaussian_sxy,
                p.gaussian_weight,
                p.bilateral_sxy,
                p.bilateral_srgb,
                p.bilateral_weight,
            ]
        ).tobytes()
        data += image.tobytes() + probs.tobytes()
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert done.stderr == b""
    results, at = [], 0
    for _, probs, _ in cases:
        status = int(np.frombuffer(done.stdout, np.int32, 1, at)[0])
        out = np.frombuffer(done.stdout, np.float32, probs.size, at + 4).reshape(probs.shape)
        results.append(None if status else out)
        at += 4 + probs.nbytes
    assert at == len(done.stdout)
    return results


@pytest.mark.parametrize(
    ("isa", "flags"),
    [
        ("portable", SANITIZE),
        ("avx2", [*AVX2, *SANITIZE]),
        ("scalar", ["-DTAG2MASK_SCALAR", *SANITIZE]),
    ],
)
def test_sanitizers_find_nothing(tmp_path, isa, flags):
    cases = list(jobs(24))
    results = run([build(tmp_path, "g++", isa, *flags)], cases)
    for (_, probs, _), q in zip(cases, results, strict=True):
        if q is not None:
            assert np.isfinite(q).all()
            np.testing.assert_allclose(q.sum(0), 1, atol=1e-4)
            assert q.shape == probs.shape
    assert sum(q is None for q in results) < 6


def test_equals_pydensecrf_on_emulated_arm(tmp_path):
    qemu = shutil.which("qemu-aarch64") or pytest.skip("qemu-aarch64 is not installed")
    cases = [
        (*scene(31, 44, labels, labels), crf_params(10, gaussian, bilateral))
        for labels in (2, 7, 21)
        for gaussian, bilateral in (((1, 3), (67, 3, 4)), ((3, 3), (80, 13, 10)))
    ]
    program = build(tmp_path, "aarch64-linux-gnu-g++", "portable", "-static")
    for (image, probs, params), q in zip(cases, run([qemu, program], cases), strict=True):
        assert_agrees(q, pydensecrf(image, probs, params))
