// Mean field. One pass over the pixels an iteration: slice both lattices, softmax, splat both; Q is never written out.
#include "values.h"

namespace TAG2MASK_ISA {
namespace {

// 2^x for x <= 0, to about 2 units in the last place; clamped at 2^-100, as denormal numbers would cost more than all the rest.
inline Wide exp2(Wide x) {
    const Wide bias = same<Wide>(12582912.0f + 127.0f);
    x = larger(x, same<Wide>(-100.0f));
    const Wide t = x + bias, f = x - (t - bias);
    Wide p = same<Wide>(1.535336188e-4f);  // Cephes' polynomial
    p = p * f + 1.339887440e-3f;
    p = p * f + 9.618437358e-3f;
    p = p * f + 5.550332471e-2f;
    p = p * f + 2.402264791e-1f;
    p = p * f + 6.931472029e-1f;
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

// log2 of normal positive numbers, by Cephes' polynomial
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
