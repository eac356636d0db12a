// The filtered values: rows of B labels on lattice points; slice and splat between pixels and points.
#pragma once
#include "lattice.h"
#include "vec.h"

namespace TAG2MASK_ISA {
namespace {

// A row is the B values of one lattice point or one pixel.
template <int B>
struct Row {
    using V = Lane<B>;
    static constexpr int N = sizeof(V) / sizeof(float), K = B / N;
    V part[K];

    static Row zero() {
        Row row;
        for (int k = 0; k < K; ++k) row.part[k] = same<V>(0);
        return row;
    }
    static Row at(const float* from) {
        Row row;
        for (int k = 0; k < K; ++k) row.part[k] = load<V>(from + k * N);
        return row;
    }
    void put(float* to) const {
        for (int k = 0; k < K; ++k) store(to + k * N, part[k]);
    }
    void add(const Row& row, float weight) {
        const V w = same<V>(weight);
        for (int k = 0; k < K; ++k) part[k] += w * row.part[k];
    }
    // this row plus half of its two neighbors
    Row blurred(const Row& before, const Row& after) const {
        Row row;
        const V half = same<V>(0.5f);
        for (int k = 0; k < K; ++k) row.part[k] = part[k] + half * (before.part[k] + after.part[k]);
        return row;
    }
    Row kept(uint32_t keep) const {
        Row row;
        for (int k = 0; k < K; ++k) row.part[k] = masked(part[k], keep);
        return row;
    }
    static void fetch(const float* from) {
        prefetch(from);
        if (B > 16) prefetch(from + B - 1);
    }
};

template <int B, int Corners>
void slice(const float* slab, const uint32_t* vertex, const float* weight, int count, float* pixel, int stride, bool add) {
    for (int i = 0; i < count; ++i, vertex += Corners, weight += Corners, pixel += stride) {
        for (int j = 0; j < Corners; ++j) Row<B>::fetch(slab + static_cast<size_t>(vertex[kAhead * Corners + j]) * B);
        Row<B> sum = add ? Row<B>::at(pixel) : Row<B>::zero();
        for (int j = 0; j < Corners; ++j) sum.add(Row<B>::at(slab + static_cast<size_t>(vertex[j]) * B), weight[j]);
        sum.put(pixel);
    }
}

template <int B, int Corners>
void splat(float* slab, const uint32_t* vertex, const float* weight, int count, const float* pixel, int stride) {
    for (int i = 0; i < count; ++i, vertex += Corners, weight += Corners, pixel += stride) {
        for (int j = 0; j < Corners; ++j) Row<B>::fetch(slab + static_cast<size_t>(vertex[kAhead * Corners + j]) * B);
        const Row<B> own = Row<B>::at(pixel);
        for (int j = 0; j < Corners; ++j) {
            float* to = slab + static_cast<size_t>(vertex[j]) * B;
            Row<B> sum = Row<B>::at(to);
            sum.add(own, weight[j]);
            sum.put(to);
        }
    }
}

// Values of the bilateral lattice: slabs of (points, B), one for every B labels. `old` is read and `now` is written. They are two
// buffers, or one buffer in turns.
template <int B>
class LatticeValues {
  public:
    LatticeValues(const Lattice& lattice, int blocks, bool two) : lattice_(lattice), blocks_(blocks), two_(two) {
        for (int i = 0; i <= two; ++i) values_[i].reset(lattice.points * blocks * B);
    }
    const float* old(int block) const { return values_[0].data() + block * lattice_.points * B; }
    float* now(int block) { return values_[two_].data() + block * lattice_.points * B; }
    void begin() {
        if constexpr (!kOneByOne) values_[two_].fill(0);
    }
    // Before tile `t` is splat: clear the points that it touches first.
    void clear(size_t t) {
        if constexpr (!kOneByOne) return;
        const uint32_t* const end = &lattice_.fresh[lattice_.fresh_of[t + 1]];
        for (const uint32_t* point = &lattice_.fresh[lattice_.fresh_of[t]]; point < end; ++point)
            for (int block = 0; block < blocks_; ++block) {
                Row<B>::fetch(now(block) + static_cast<size_t>(point[kAhead]) * B);
                Row<B>::zero().put(now(block) + static_cast<size_t>(*point) * B);
            }
    }
    void finish() {
        blur();
        if (two_) values_[0].swap(values_[1]);
    }

  private:
    static constexpr bool kOneByOne = B >= 16;  // rows of at least a cache line are cleared one by one, others all at once

    void blur() {
        for (int block = 0; block < blocks_; ++block)
            for (int axis = 0; axis < 6; ++axis)
                if (lattice_.links[axis]) blur(now(block), lattice_.chain[axis].data(), lattice_.links[axis]);
    }
    // In place: each point is read and written once, and its old value is kept for the next point in the chain. No branches.
    static void blur(float* slab, const uint32_t* chain, size_t links) {
        Row<B> last = Row<B>::zero(), own = Row<B>::at(slab + static_cast<size_t>(chain[0] & ~kEnd) * B);
        for (size_t i = 0; i < links; ++i) {
            const uint32_t entry = chain[i], keep = (entry >> 31) - 1;
            Row<B>::fetch(slab + static_cast<size_t>(chain[i + kAhead] & ~kEnd) * B);
            const Row<B> after = Row<B>::at(slab + static_cast<size_t>(chain[i + 1] & ~kEnd) * B);
            own.blurred(last, after.kept(keep)).put(slab + static_cast<size_t>(entry & ~kEnd) * B);
            last = own.kept(keep);
            own = after;
        }
    }
    const Lattice& lattice_;
    int blocks_;
    bool two_;
    Buffer<float> values_[2];
};

// Values of the Gaussian's grid, only of the rows in use. Pixels come row by row. A row of cells that no later pixel touches is
// blurred and sliced while it is in the cache, and then overwritten. Row r is at r modulo `window`.
template <int B>
class GridValues {
  public:
    GridValues(const Grid& grid, int blocks, bool two)
        : grid_(grid), blocks_(blocks), two_(two), row_(grid.width * B), slab_(grid.window * row_), saved_(blocks * kSaved * row_) {
        for (int i = 0; i <= two; ++i) values_[i].reset(slab_ * blocks);
    }
    const float* old(int block) const { return values_[0].data() + block * slab_; }
    float* now(int block) { return values_[two_].data() + block * slab_; }
    void begin() {
        cleared_ = 0;
        for (size_t& done : done_) done = 4;
        saved_.fill(0);
    }
    // Before tile `t` is splat: clear the rows that it touches first.
    void clear(size_t t) {
        for (; cleared_ <= grid_.last_row[t]; ++cleared_)
            for (int block = 0; block < blocks_; ++block) std::memset(at(cleared_, block), 0, row_ * sizeof(float));
    }
    // After tile `t`: blur the rows that no later tile touches, along axis 0; some rows behind along axis 1, then 2.
    void advance(size_t t) {
        size_t whole = grid_.first_row[t + 1];
        for (int axis = 0; axis < 3; ++axis) {
            const size_t reach = axis == 2 ? 2 : 1;
            whole = whole > reach ? whole - reach : 0;
            for (; done_[axis] < whole; ++done_[axis])
                for (int block = 0; block < blocks_; ++block) blur(axis, done_[axis], block);
            whole = done_[axis];
        }
    }
    void finish() { values_[0].swap(values_[1]); }

  private:
    static constexpr int kSaved = 2 + 2 + 3;  // unblurred rows per axis: the current one and those above it within reach

    float* at(size_t row, int block) { return now(block) + row % grid_.window * row_; }
    float* saved(int axis, size_t row, int block) {
        return saved_.data() + (block * kSaved + 2 * axis + row % (axis == 2 ? 3 : 2)) * row_;
    }
    void blur(int axis, size_t row, int block) {
        const Neighbors to(axis, row);
        float *own_row = at(row, block), *keep = saved(axis, row, block);
        const float* above = saved(axis, row - to.rows, block) + to.above * B;
        const float* below = at(row + to.rows, block) + to.below * B;
        size_t column = 0;
        for (uint32_t r = grid_.run_of_row[row]; r < grid_.run_of_row[row + 1]; ++r) {
            const size_t begin = grid_.run[2 * r], end = grid_.run[2 * r + 1];
            std::memset(keep + column * B, 0, (begin - column) * B * sizeof(float));
            for (size_t c = begin * B; c < end * B; c += B) {
                const Row<B> own = Row<B>::at(own_row + c);
                own.put(keep + c);
                own.blurred(Row<B>::at(above + c), Row<B>::at(below + c)).put(own_row + c);
            }
            column = end;
        }
        std::memset(keep + column * B, 0, (grid_.width - column) * B * sizeof(float));
    }
    const Grid& grid_;
    int blocks_;
    bool two_;
    size_t row_, slab_, cleared_ = 0, done_[3] = {};
    Buffer<float> values_[2], saved_;
};

}  // namespace
}  // namespace TAG2MASK_ISA
