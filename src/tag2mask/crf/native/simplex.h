// The place of pixels in a permutohedral lattice (Adams et al. 2010), computed like in pydensecrf. Compile without fused multiply-add:
// a pixel on the border of a simplex must round to the same side.
#pragma once
#include <cmath>

#include "lattice.h"

namespace TAG2MASK_ISA {
namespace {

// The features of a tile and their place in the lattice: coordinate-major, so that each loop is over pixels.
template <int D>
struct Tile {
    float feature[D][kTile], elevated[D + 1][kTile], rest[D + 1][kTile], sum[kTile];
    int32_t point[D + 1][kTile], rank[D + 1][kTile];

    // Round to the nearest 0-colored point, rank the differences, move back to the plane.
    void locate(const float* scale) {
        const float down = 1.0f / (D + 1), up = D + 1, magic = 12582912.0f;  // adding 1.5 x 2^23 rounds half to even
        for (int i = 0; i < kTile; ++i) {
            float total = 0;
            for (int j = D; j > 0; --j) {
                const float step = feature[j - 1][i] * scale[j - 1];
                elevated[j][i] = total - static_cast<float>(j) * step;
                total += step;
            }
            elevated[0][i] = total;
        }
        for (int i = 0; i < kTile; ++i) sum[i] = 0;
        for (int j = 0; j <= D; ++j)
            for (int i = 0; i < kTile; ++i) {
                const float rounded = (elevated[j][i] * down + magic) - magic;
                rest[j][i] = elevated[j][i] - rounded * up;
                point[j][i] = static_cast<int32_t>(rounded);
                sum[i] += rounded;
            }
        for (int j = 0; j <= D; ++j)
            for (int i = 0; i < kTile; ++i) rank[j][i] = static_cast<int32_t>(sum[i]);
        for (int j = 0; j < D; ++j)
            for (int k = j + 1; k <= D; ++k)
                for (int i = 0; i < kTile; ++i) {
                    const int32_t less = rest[j][i] < rest[k][i];
                    rank[j][i] += less;
                    rank[k][i] += 1 - less;
                }
        for (int j = 0; j <= D; ++j)
            for (int i = 0; i < kTile; ++i) {
                const int32_t shift = (rank[j][i] < 0 ? 1 : 0) - (rank[j][i] > D ? 1 : 0);
                rank[j][i] += shift * (D + 1);
                point[j][i] += shift;
                rest[j][i] = (elevated[j][i] - static_cast<float>(point[j][i]) * up) * down;
            }
    }
};

template <int D>
void scales(float* scale) {
    const float spread = static_cast<float>(std::sqrt(2.0 / 3.0) * (D + 1));
    for (int j = 0; j < D; ++j) scale[j] = static_cast<float>(1.0 / std::sqrt(static_cast<double>((j + 2) * (j + 1))) * spread);
}

// Calls `use` for each tile of pixels, with positions / sxy in features 0 and 1.
template <int D, class Use>
void tiles(const CrfJob& job, float sxy, Use use) {
    Tile<D> tile;
    std::memset(&tile, 0, sizeof tile);
    const size_t pixels = static_cast<size_t>(job.height) * job.width;
    int x = 0, y = 0;
    for (size_t first = 0; first < pixels; first += kTile) {
        const int count = static_cast<int>(pixels - first < kTile ? pixels - first : kTile);
        for (int i = 0; i < count; ++i) {
            tile.feature[0][i] = static_cast<float>(x) / sxy;
            tile.feature[1][i] = static_cast<float>(y) / sxy;
            if (++x == job.width) x = 0, ++y;
        }
        use(tile, first, count);
    }
}

// sqrt(factor) / sqrt(K 1) of one pixel, from a filter of ones; the filter's own constant and log2e included.
float normalizer(const float* weight, const uint32_t* vertex, int corners, const float* filtered, float factor) {
    const float alpha = 1 / (1 + std::ldexp(1.0f, 1 - corners));
    float norm = 0;
    for (int j = 0; j < corners; ++j) norm += weight[j] * alpha * filtered[vertex[j]];
    return std::sqrt(factor * alpha * 1.44269504f) / std::sqrt(norm + 1e-20f);
}

template <class T>
void reset_spare(Buffer<T>& buffer, size_t pixels, int corners) {
    buffer.reset((pixels + kSpare) * corners);
    std::memset(&buffer[pixels * corners], 0, kSpare * corners * sizeof(T));
}

}  // namespace
}  // namespace TAG2MASK_ISA
