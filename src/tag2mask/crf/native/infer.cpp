// Mean field. One pass over the pixels an iteration: slice both lattices, softmax, splat both; Q is never written out.
#include "crf.h"
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

// 2^x for x <= 0, to about 2 units in the last place; clamped at 2^-100, as denormal numbers would cost more than all the rest.
inline Wide exp2(Wide x) {
    const Wide bias = same<Wide>(12582912.0f + 127.0f);
    x = larger(x, same<Wide>(-100.0f));
    const Wide t = x + bias, f = x - (t - bias);
    Wide p = same<Wide>(1.3333558146e-3f);
    p = p * f + 9.6181291076e-3f;
    p = p * f + 5.5504108665e-2f;
    p = p * f + 2.4022650696e-1f;
    p = p * f + 6.9314718056e-1f;
    p = p * f + 1.0f;
    return p * power(t);
}

// label (labels, kTile): logits in base 2 to probabilities
inline void softmax(float* label, int labels) {
    for (int g = 0; g < kTile; g += kWide) {
        Wide top = load<Wide>(label + g), sum = same<Wide>(0);
        for (int c = 1; c < labels; ++c) top = larger(top, load<Wide>(label + c * kTile + g));
        for (int c = 0; c < labels; ++c) {
            const Wide e = exp2(load<Wide>(label + c * kTile + g) - top);
            sum += e;
            store(label + c * kTile + g, e);
        }
        sum = 1.0f / sum;
        for (int c = 0; c < labels; ++c) store(label + c * kTile + g, load<Wide>(label + c * kTile + g) * sum);
    }
}

// log2 of normal positive numbers
inline void log2(const float* from, float* to, int count) {
    for (int i = 0; i < count; ++i) {
        int32_t bits;
        std::memcpy(&bits, from + i, 4);
        const int32_t e = (bits - 0x3F3504F3) >> 23;
        bits -= e * (1 << 23);
        float m;
        std::memcpy(&m, &bits, 4);
        const float f = m - 1, z = f * f;
        float p = 7.0376836292e-2f;
        p = p * f - 1.1514610310e-1f;
        p = p * f + 1.1676998740e-1f;
        p = p * f - 1.2420140846e-1f;
        p = p * f + 1.4249322787e-1f;
        p = p * f - 1.6668057665e-1f;
        p = p * f + 2.0000714765e-1f;
        p = p * f - 2.4999993993e-1f;
        p = p * f + 3.3333331174e-1f;
        to[i] = (f + (z * f * p - 0.5f * z)) * 1.44269504f + static_cast<float>(e);
    }
}

template <int B>
class MeanField {
  public:
    explicit MeanField(const CrfJob& job)
        : job_(job),
          pixels_(static_cast<size_t>(job.height) * job.width),
          blocks_((job.labels + B - 1) / B),
          stride_(blocks_ * B),
          gaussian_(job.iterations && job.gaussian_weight > 0),
          bilateral_(job.iterations && job.bilateral_weight > 0),
          iterations_(gaussian_ || bilateral_ ? job.iterations : 0) {
        if (gaussian_) build_gaussian(job, grid_);
        if (bilateral_) build_bilateral(job, lattice_);
        unary_.reset((pixels_ + kTile) * job.labels);
        const size_t whole = pixels_ / kTile * kTile * job.labels;
        std::memset(&unary_[whole], 0, (unary_.size() - whole) * sizeof(float));
        rows_.reset(static_cast<size_t>(kTile) * stride_);
        rows_.fill(0);
        label_.reset(static_cast<size_t>(kTile) * job.labels);
        label_.fill(0);
    }
    void run() {
        GridValues<B> grid(grid_, blocks_, gaussian_ ? iterations_ : 0);
        LatticeValues<B> lattice(lattice_, blocks_);
        for (int pass = 0; pass <= iterations_; ++pass) {
            const bool last = pass == iterations_;
            if (gaussian_) grid.begin();
            if (bilateral_) lattice.begin(last);
            for (size_t tile = 0, first = 0; first < pixels_; ++tile, first += kTile) {
                const int count = static_cast<int>(pixels_ - first < kTile ? pixels_ - first : kTile);
                if (pass == 0) start(first, count);
                else {
                    read(grid, lattice, first, count);
                    add_messages(&unary_[first * job_.labels]);
                    softmax(&label_[0], job_.labels);
                }
                if (last) {
                    finish(first, count);
                    continue;
                }
                to_rows();
                if (gaussian_) grid.clear(tile);
                write(grid, lattice, first, count);
                if (gaussian_) grid.advance(tile);
            }
            if (bilateral_ && !last) lattice.blur();
        }
    }

  private:
    // Both kernels' messages to a tile, pixel by pixel.
    void read(const GridValues<B>& grid, const LatticeValues<B>& lattice, size_t first, int count) {
        for (int b = 0; b < blocks_; ++b) {
            float* rows = &rows_[b * B];
            if (gaussian_) slice<B, 3>(grid.old(b), &grid_.vertex[first * 3], &grid_.weight[first * 3], count, rows, stride_, false);
            if (bilateral_)
                slice<B, 6>(lattice.old(b), &lattice_.vertex[first * 6], &lattice_.weight[first * 6], count, rows, stride_, gaussian_);
        }
    }
    void write(GridValues<B>& grid, LatticeValues<B>& lattice, size_t first, int count) {
        for (int b = 0; b < blocks_; ++b) {
            const float* rows = &rows_[b * B];
            if (gaussian_) splat<B, 3>(grid.now(b), &grid_.vertex[first * 3], &grid_.weight[first * 3], count, rows, stride_);
            if (bilateral_) splat<B, 6>(lattice.now(b), &lattice_.vertex[first * 6], &lattice_.weight[first * 6], count, rows, stride_);
        }
    }
    // Probabilities to unaries and to the first Q: clipped, normalised.
    void start(size_t first, int count) {
        float sum[kTile] = {};
        for (int c = 0; c < job_.labels; ++c) {
            float* to = &label_[c * kTile];
            const float* from = job_.probs + c * pixels_ + first;
            for (int i = 0; i < count; ++i) {
                to[i] = from[i] < 1e-5f ? 1e-5f : from[i] > 1.0f ? 1.0f : from[i];
                sum[i] += to[i];
            }
            log2(to, &unary_[first * job_.labels + c * kTile], count);
        }
        for (int i = 0; i < count; ++i) sum[i] = 1 / sum[i];
        for (int c = 0; c < job_.labels; ++c)
            for (int i = 0; i < count; ++i) label_[c * kTile + i] *= sum[i];
    }
    // logits = unary + message, label by label
    void add_messages(const float* unary) {
        const int values = kTile * job_.labels;
        for (int i = 0; i < values; i += 16) prefetch(unary + values + i);
        for (int c = 0; c < job_.labels; c += 4)
            for (int i = 0; i < kTile; i += kWide) {
                Wide message[4];
                gather(&rows_[i * stride_ + c], stride_, message);
                for (int k = 0; k < 4 && c + k < job_.labels; ++k)
                    store(&label_[(c + k) * kTile + i], load<Wide>(unary + (c + k) * kTile + i) + message[k]);
            }
    }
    void to_rows() {
        for (int c = 0; c < job_.labels; c += 4)
            for (int i = 0; i < kTile; i += kWide) {
                Wide q[4];
                for (int k = 0; k < 4; ++k) q[k] = c + k < job_.labels ? load<Wide>(&label_[(c + k) * kTile + i]) : same<Wide>(0);
                scatter(q, &rows_[i * stride_ + c], stride_);
            }
    }
    void finish(size_t first, int count) {
        for (int c = 0; c < job_.labels; ++c) std::memcpy(job_.out + c * pixels_ + first, &label_[c * kTile], count * sizeof(float));
    }

    const CrfJob& job_;
    size_t pixels_;
    int blocks_, stride_;
    bool gaussian_, bilateral_;
    int iterations_;
    Grid grid_;
    Lattice lattice_;
    Buffer<float> unary_;  // (tiles, labels, kTile), base 2
    Buffer<float> rows_;   // (kTile, blocks, B): one tile, pixel by pixel
    Buffer<float> label_;  // (labels, kTile): one tile, label by label
};

}  // namespace

void run(const CrfJob& job) {
    if (job.labels <= 4) MeanField<4>(job).run();
    else if (job.labels <= 8) MeanField<8>(job).run();
    else if (job.labels <= 16) MeanField<16>(job).run();
    else MeanField<24>(job).run();
}

}  // namespace TAG2MASK_ISA
