// A job of the compiled core; the same for every instruction set.
#pragma once
#include <cstdint>

struct CrfJob {
    const uint8_t* image;  // (height, width, 3)
    const float* probs;    // (labels, height, width), no NaN
    float* out;            // (labels, height, width)
    int height, width, labels, iterations;
    float gaussian_sxy, gaussian_weight, bilateral_sxy, bilateral_srgb, bilateral_weight;
};

// Throws std::bad_alloc, or std::overflow_error if sxy or srgb is too small: the lattice cannot be numbered.
namespace portable {
void run(const CrfJob& job);
}
namespace avx2 {
void run(const CrfJob& job);
}
