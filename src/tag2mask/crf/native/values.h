// What is filtered: rows of B labels on lattice points, and the moves between pixels and points.
#pragma once
#include "lattice.h"
#include "vec.h"

namespace TAG2MASK_ISA {
namespace {

// A row holds the B values of one lattice point, or of one pixel.
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
    // this row and half the two beside it
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

// Values of the bilateral lattice, of the pass before and of this one: slabs of (points, B), one for every B labels.
template <int B>
class LatticeValues {
  public:
    LatticeValues(const Lattice& lattice, int blocks) : lattice_(lattice), blocks_(blocks) {
        for (Buffer<float>& values : values_) values.reset(lattice.points * blocks * B);
    }
    const float* old(int block) const { return values_[0].data() + block * lattice_.points * B; }
    float* now(int block) { return values_[1].data() + block * lattice_.points * B; }
    void begin(bool last) {  // what was new is old; the last pass brings nothing new, but touches the result for the first time
        values_[0].swap(values_[1]);
        if (last) values_[1].release();
        else values_[1].fill(0);
    }
    void blur() {
        for (int block = 0; block < blocks_; ++block)
            for (int axis = 0; axis < 6; ++axis)
                if (lattice_.links[axis]) blur(now(block), lattice_.chain[axis].data(), lattice_.links[axis]);
    }

  private:
    // In place: each point is read and written once, its old value kept for the next in its chain. No branch at a chain's end.
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
    Buffer<float> values_[2];
};

// Values of the Gaussian's grid. As pixels come row by row, its rows are blurred a few rows behind the splat, still in cache, and
// one buffer holds both passes: this one's rows lie `overlap` rows before those of the last, over rows that nobody reads any more.
template <int B>
class GridValues {
  public:
    GridValues(const Grid& grid, int blocks, int passes)
        : grid_(grid), blocks_(blocks), row_(grid.width * B), slab_((grid.rows + grid.overlap * passes) * row_), at_(passes) {
        values_.reset(slab_ * blocks);
        saved_.reset(blocks * kSaved * row_);
    }
    const float* old(int block) const { return values_.data() + block * slab_ + (at_ + 1) * grid_.overlap * row_; }
    float* now(int block) { return values_.data() + block * slab_ + at_ * grid_.overlap * row_; }
    void begin() {
        --at_;
        cleared_ = 0;
        for (size_t& done : done_) done = 4;
        saved_.fill(0);
    }
    // Before tile `t` is splat: empty the rows that it is the first to touch.
    void clear(size_t t) {
        const size_t rows = t + 1 < grid_.last_row.size() ? grid_.last_row[t] + 1 : grid_.rows;
        if (rows <= cleared_) return;
        for (int block = 0; block < blocks_; ++block) std::memset(now(block) + cleared_ * row_, 0, (rows - cleared_) * row_ * sizeof(float));
        cleared_ = rows;
    }
    // After it: blur the rows that no later tile touches, along axis 0, behind it 1, behind it 2.
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

  private:
    static constexpr int kSaved = 2 + 2 + 3;  // unblurred rows kept for each axis: the current one and as many as it reaches up

    float* saved(int axis, size_t row, int block) {
        return saved_.data() + (block * kSaved + 2 * axis + row % (axis == 2 ? 3 : 2)) * row_;
    }
    void blur(int axis, size_t row, int block) {
        const Neighbours to(axis, row, grid_.width);
        const size_t reach = axis == 2 ? 2 : 1;
        float *at = now(block) + row * row_, *keep = saved(axis, row, block);
        const float *above = saved(axis, row - reach, block) + (reach * grid_.width - to.above) * B, *below = at + to.below * B;
        size_t column = 0;
        for (uint32_t r = grid_.run_of_row[row]; r < grid_.run_of_row[row + 1]; ++r) {
            const size_t begin = grid_.run[2 * r], end = grid_.run[2 * r + 1];
            std::memset(keep + column * B, 0, (begin - column) * B * sizeof(float));
            for (size_t c = begin * B; c < end * B; c += B) {
                const Row<B> own = Row<B>::at(at + c);
                own.put(keep + c);
                own.blurred(Row<B>::at(above + c), Row<B>::at(below + c)).put(at + c);
            }
            column = end;
        }
        std::memset(keep + column * B, 0, (grid_.width - column) * B * sizeof(float));
    }
    const Grid& grid_;
    int blocks_;
    size_t row_, slab_, at_, cleared_ = 0, done_[3] = {};
    Buffer<float> values_, saved_;
};

}  // namespace
}  // namespace TAG2MASK_ISA
