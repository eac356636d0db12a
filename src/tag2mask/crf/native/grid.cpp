// The lattice of the Gaussian: a regular grid, so no search is needed.
#include <stdexcept>

#include "simplex.h"

namespace TAG2MASK_ISA {
namespace {

constexpr float kUntouched = -0.5f;  // below it: no pixel touches the cell (weights can round to just under 0)

// [.5 1 .5] along the three axes of a grid of single values
void blur_ones(const Grid& grid, Buffer<float>& value) {
    const size_t cells = grid.rows * grid.width;
    Buffer<float> old(cells);
    for (int axis = 0; axis < 3; ++axis) {
        std::memcpy(old.data(), value.data(), cells * sizeof(float));
        for (size_t row = 4; row + 4 < grid.rows; ++row) {
            const Neighbors to(axis, row);
            const float* above = &old[(row - to.rows) * grid.width + to.above];
            const float* below = &old[(row + to.rows) * grid.width + to.below];
            for (uint32_t r = grid.run_of_row[row]; r < grid.run_of_row[row + 1]; ++r)
                for (size_t c = grid.run[2 * r]; c < grid.run[2 * r + 1]; ++c)
                    value[row * grid.width + c] += 0.5f * (above[c] + below[c]);
        }
    }
}

void find_runs(Grid& grid, const Buffer<float>& touched) {
    size_t runs = 0;
    for (int write = 0; write < 2; ++write) {
        if (write) grid.run.reset(2 * runs);
        runs = 0;
        for (size_t row = 0; row < grid.rows; ++row) {
            grid.run_of_row[row] = static_cast<uint32_t>(runs);
            const float* at = &touched[row * grid.width];
            for (size_t c = 0; c < grid.width; ++c) {
                if (at[c] < kUntouched || (c && at[c - 1] >= kUntouched)) continue;
                size_t end = c;
                while (end < grid.width && at[end] >= kUntouched) ++end;
                if (write) grid.run[2 * runs] = static_cast<uint32_t>(c), grid.run[2 * runs + 1] = static_cast<uint32_t>(end);
                ++runs;
            }
        }
        grid.run_of_row[grid.rows] = static_cast<uint32_t>(runs);
    }
}

void find_rows(Grid& grid, size_t pixels) {
    const size_t count = (pixels + kTile - 1) / kTile;
    const uint32_t width = static_cast<uint32_t>(grid.width);
    grid.first_row.reset(count + 1);
    grid.last_row.reset(count);
    grid.ahead.reset(count);
    uint32_t last = 0;
    for (size_t t = 0; t < count; ++t) {
        const size_t end = (t + 1) * kTile < pixels ? (t + 1) * kTile : pixels;
        uint32_t low = UINT32_MAX;
        for (size_t i = t * kTile * 3; i < end * 3; ++i) {
            const uint32_t cell = grid.vertex[i];
            if (cell > last) last = cell;
            if (cell < low) low = cell;
        }
        grid.first_row[t] = low / width;
        grid.last_row[t] = last / width;
    }
    grid.first_row[count] = static_cast<uint32_t>(grid.rows);
    for (size_t t = count; t-- > 0;)
        if (grid.first_row[t] > grid.first_row[t + 1]) grid.first_row[t] = grid.first_row[t + 1];
    // The three axes reach 1 + 1 + 2 rows down.
    for (size_t t = 0, ahead = 0; t < count; ++t) {
        while (ahead < count && grid.first_row[ahead] < grid.last_row[t] + 5) ++ahead;
        grid.ahead[t] = static_cast<uint32_t>(ahead);
    }
    for (size_t t = 0; t < count; ++t)
        if (grid.last_row[t] + 1 < grid.first_row[t + 1]) grid.last_row[t] = grid.first_row[t + 1] - 1;
    grid.window = grid.rows;
}

}  // namespace

void build_gaussian(const CrfJob& job, Grid& grid) {
    const size_t pixels = static_cast<size_t>(job.height) * job.width;
    const float sxy = job.gaussian_sxy;
    float scale[2];
    scales<2>(scale);
    // Coordinate 2 counts rows, upwards: from -2 y scale_1; (coordinate 0 - coordinate 1) / 3 counts half cells: to 2 x scale_0 / 3.
    const double high = 2.0 * (job.height - 1) / sxy * scale[1] + 6, wide = (job.width - 1) / sxy * scale[0] / 3 + 8;
    if (high * wide >= kEnd) throw std::overflow_error("lattice");
    const int64_t bottom = 8, left = 3;  // row of the highest coordinate, column of x = 0
    grid.rows = static_cast<size_t>(high) + 14;
    grid.width = static_cast<size_t>(wide);
    reset_spare(grid.vertex, pixels, 3);
    grid.weight.reset(pixels * 3);
    grid.run_of_row.reset(grid.rows + 1);
    Buffer<float> value(grid.rows * grid.width);
    for (size_t i = 0; i < value.size(); ++i) value[i] = -1;
    tiles<2>(job, sxy, [&](Tile<2>& tile, size_t first, int count) {
        tile.locate(scale);
        for (int i = 0; i < count; ++i) {
            float by_rank[3];
            for (int j = 0; j < 3; ++j) by_rank[2 - tile.rank[j][i]] = tile.rest[j][i];
            float* weight = &grid.weight[(first + i) * 3];
            weight[0] = by_rank[0] + (1 - by_rank[2]);
            weight[1] = by_rank[1] - by_rank[0];
            weight[2] = by_rank[2] - by_rank[1];
            for (int r = 0; r < 3; ++r) {
                int64_t q[3];
                for (int j = 0; j < 3; ++j) q[j] = tile.point[j][i] - (tile.rank[j][i] > 2 - r);
                const int64_t row = bottom - (3 * q[2] + r), column = left + ((q[0] - q[1] - (row & 1)) >> 1);
                const size_t cell = static_cast<size_t>(row) * grid.width + static_cast<size_t>(column);
                grid.vertex[(first + i) * 3 + r] = static_cast<uint32_t>(cell);
                value[cell] = (value[cell] < kUntouched ? 0 : value[cell]) + weight[r];
            }
        }
    });
    find_runs(grid, value);
    find_rows(grid, pixels);
    for (size_t i = 0; i < value.size(); ++i)
        if (value[i] < kUntouched) value[i] = 0;
    blur_ones(grid, value);
    for (size_t i = 0; i < pixels * 3; i += 3) {
        const float norm = normalizer(&grid.weight[i], &grid.vertex[i], 3, value.data(), job.gaussian_weight);
        for (int r = 0; r < 3; ++r) grid.weight[i + r] *= norm;
    }
}

void keep_window(Grid& grid, size_t pixels) {
    const size_t count = grid.last_row.size();
    grid.window = 0;
    for (size_t t = 0; t < count; ++t) {  // rows stay until the tile before has been sliced
        const size_t rows = grid.last_row[grid.ahead[t] - 1] + 1 - grid.first_row[t ? t - 1 : 0];
        if (rows > grid.window) grid.window = rows;
    }
    const uint32_t places = static_cast<uint32_t>(grid.window * grid.width);
    for (size_t t = 0; t < count; ++t) {
        const uint32_t turn = grid.first_row[t] / static_cast<uint32_t>(grid.window) * places;
        const size_t end = (t + 1) * kTile < pixels ? (t + 1) * kTile : pixels;
        for (size_t i = t * kTile * 3; i < end * 3; ++i) {
            const uint32_t place = grid.vertex[i] - turn;  // a tile's cells lie in the same turn or the next
            grid.vertex[i] = place < places ? place : place - places;
        }
    }
}

}  // namespace TAG2MASK_ISA
