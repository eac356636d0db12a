// The Python module: one function, which runs without the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>

#include "crf.h"

#if defined(TAG2MASK_HAS_AVX2) && defined(_MSC_VER) && !defined(__clang__)
#include <immintrin.h>
#include <intrin.h>
#endif

namespace nb = nanobind;

namespace {

bool has_avx2() {
#if !defined(TAG2MASK_HAS_AVX2)
    return false;
#elif defined(_MSC_VER) && !defined(__clang__)
    int id[4];
    __cpuidex(id, 1, 0);
    const bool fma = id[2] & (1 << 12), saves = id[2] & (1 << 27);
    if (!fma || !saves || (_xgetbv(0) & 6) != 6) return false;
    __cpuidex(id, 7, 0);
    return id[1] & (1 << 5);
#else
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
}

using Image = nb::ndarray<const uint8_t, nb::shape<-1, -1, 3>, nb::c_contig, nb::device::cpu>;
using Probs = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

void run(const Image& image, const Probs& probs, const Out& out, int iterations, float gaussian_sxy, float gaussian_weight,
         float bilateral_sxy, float bilateral_srgb, float bilateral_weight, const std::string& isa) {
    const size_t labels = probs.shape(0), height = probs.shape(1), width = probs.shape(2);
    if (image.shape(0) != height || image.shape(1) != width) throw std::invalid_argument("image and probabilities differ in size");
    for (int i = 0; i < 3; ++i)
        if (out.shape(i) != probs.shape(i)) throw std::invalid_argument("out is not shaped like the probabilities");
    // Lattice points are numbered in 31 bits, and a pixel can touch six.
    if (!labels || !height || !width || height > INT32_MAX || width > INT32_MAX || labels > 65536 || height * width > INT32_MAX / 6)
        throw std::invalid_argument("too large or empty");
    if (isa == "avx2" && !has_avx2()) throw std::invalid_argument("this machine or this build has no AVX2");
    const CrfJob job{image.data(),     probs.data(),  out.data(),      static_cast<int>(height), static_cast<int>(width),
                     static_cast<int>(labels), iterations, gaussian_sxy, gaussian_weight, bilateral_sxy, bilateral_srgb, bilateral_weight};
    nb::gil_scoped_release unlocked;
#if defined(TAG2MASK_HAS_AVX2)
    if (isa == "avx2") return avx2::run(job);
#endif
    portable::run(job);
}

}  // namespace

NB_MODULE(_core, module) {
    module.def("run", &run, nb::arg("image").noconvert(), nb::arg("probs").noconvert(), nb::arg("out").noconvert(), nb::arg("iterations"),
               nb::arg("gaussian_sxy"), nb::arg("gaussian_weight"), nb::arg("bilateral_sxy"), nb::arg("bilateral_srgb"),
               nb::arg("bilateral_weight"), nb::arg("isa"));
    module.attr("isa") = has_avx2() ? "avx2" : "portable";
}
