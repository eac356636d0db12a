// What the compiled core is asked for; the same for every instruction set it is compiled for.
#pragma once
#include <cstdint>

struct CrfJob {
    const uint8_t* image;  // (height, width, 3)
    const float* probs;    // (labels, height, width), no NaN
    float* out;            // (labels, height, width)
    int height, width, labels, iterations;
    float gaussian_sxy, gaussian_weight, bilateral_sxy, bilateral_srgb, bilateral_weight;
};

// Throw std::bad_alloc, or std::overflow_error where sxy or srgb is too small for the lattice to be numbered.
namespace portable {
void run(const CrfJob& job);
}
namespace avx2 {
void run(const CrfJob& job);
}
