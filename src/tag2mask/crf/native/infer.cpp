// Mean field, tile by tile: slice both lattices, softmax, splat both.
#include "values.h"

namespace TAG2MASK_ISA {
namespace {

// 2^x for x <= 0, with an error of about 2 units in the last place. Clamped at 2^-100: denormal numbers would be very slow.
inline Wide exp2(Wide x) {
    const Wide bias = same<Wide>(12582912.0f + 127.0f);
    x = larger(x, same<Wide>(-100.0f));
    const Wide t = x + bias, f = x - (t - bias);
    Wide p = same<Wide>(1.326472721e-3f);  // least relative error for f in -0.5..0.5: 9e-8
    p = p * f + 9.671512812e-3f;
    p = p * f + 5.550733745e-2f;
    p = p * f + 2.402224208e-1f;
    p = p * f + 6.931469776e-1f;
    p = p * f + 1.0f;
    return p * power(t);
}

// A tile of label planes: kTile values of each label, `stride` from one label to the next.
struct Planes {
    const float* start;
    size_t stride;
    const float* of(int label) const { return start + label * stride; }
};

template <int B>
class MeanField {
  public:
    explicit MeanField(const CrfJob& job)
        : job_(job),
          pixels_(static_cast<size_t>(job.height) * job.width),
          blocks_((job.labels + B - 1) / B),
          stride_(blocks_ * B),
          iterations_(job.gaussian_weight > 0 || job.bilateral_weight > 0 ? job.iterations : 0) {
        if (iterations_ && job.bilateral_weight > 0) {
            build_bilateral(job, lattice_);
            bilateral_ = lattice_.points <= pixels_ ? kAtOnce : kLater;
        }
        if (iterations_ && job.gaussian_weight > 0) {
            build_gaussian(job, grid_);
            gaussian_ = grid_.rows * grid_.width <= pixels_ / 4 ? kAtOnce : kLater;
            if (gaussian_ == kLater) keep_window(grid_, pixels_);
        }
        Buffer<float>* const tiles[] = {&rows_, &label_, &part_};
        for (Buffer<float>* tile : tiles) {
            tile->reset(static_cast<size_t>(kTile) * stride_);
            tile->fill(0);
        }
    }
    void run() {
        GridValues<B> grid(grid_, blocks_, gaussian_ == kAtOnce);
        LatticeValues<B> lattice(lattice_, blocks_, bilateral_ == kAtOnce);
        for (int pass = 0; pass <= iterations_; ++pass) {
            const bool first = pass == 0, last = pass == iterations_;
            if (!first && bilateral_ == kLater) {
                lattice.begin();
                each_tile([&](size_t at, int count) {
                    to_rows(planes(job_.out, at, count));
                    write(lattice, at, count);
                });
                lattice.finish();
            }
            if (!last && bilateral_ == kAtOnce) lattice.begin();
            grid.begin();
            size_t ahead = 0;  // the next tile whose old Q goes into the grid, as far ahead of `at` as the blur needs
            each_tile([&](size_t at, int count) {
                if (!first && gaussian_ == kLater)
                    for (; ahead < grid_.ahead[at / kTile] * size_t{kTile}; ahead += kTile) {
                        to_rows(planes(job_.out, ahead, size_of(ahead)));
                        write(grid, ahead, size_of(ahead));
                    }
                if (first) label_.fill(0);
                else read(grid, lattice, at, count);
                update(at, count);
                if (last || gaussian_ == kLater || bilateral_ == kLater) keep(at, count);
                if (last || (gaussian_ != kAtOnce && bilateral_ != kAtOnce)) return;
                to_rows({&label_[0], kTile});
                if (bilateral_ == kAtOnce) write(lattice, at, count);
                if (gaussian_ == kAtOnce) write(grid, at, count);
            });
            if (!last && bilateral_ == kAtOnce) lattice.finish();
            if (gaussian_ == kAtOnce) grid.finish();
        }
    }

  private:
    // When a kernel gets Q. kAtOnce: in the pass that computes Q, beside the values that this pass still reads. kLater, if two sets of
    // values would need too much memory: in the next pass, from the result's memory, which then holds Q.
    enum When { kNever, kAtOnce, kLater };

    int size_of(size_t first) const { return static_cast<int>(pixels_ - first < kTile ? pixels_ - first : kTile); }
    template <class Use>
    void each_tile(Use use) const {
        for (size_t first = 0; first < pixels_; first += kTile) use(first, size_of(first));
    }
    // The values of each label of a tile; if the tile is not full, a copy with room for a full one. Prefetches the next tile: the
    // processor cannot predict as many streams as there are labels.
    Planes planes(const float* from, size_t first, int count) {
        if (first + 2 * kTile <= pixels_)
            for (int c = 0; c < job_.labels; ++c)
                for (int i = 0; i < kTile; i += 16) prefetch(from + c * pixels_ + first + kTile + i);
        if (count == kTile) return {from + first, pixels_};
        for (int c = 0; c < job_.labels; ++c) std::memcpy(&part_[c * kTile], from + c * pixels_ + first, count * sizeof(float));
        return {&part_[0], kTile};
    }
    // The messages of both kernels to a tile, pixel by pixel, then label by label.
    void read(const GridValues<B>& grid, const LatticeValues<B>& lattice, size_t first, int count) {
        for (int b = 0; b < blocks_; ++b) {
            float* rows = &rows_[b * B];
            if (gaussian_) slice<B, 3>(grid.old(b), &grid_.vertex[first * 3], &grid_.weight[first * 3], count, rows, stride_, false);
            if (bilateral_)
                slice<B, 6>(lattice.old(b), &lattice_.vertex[first * 6], &lattice_.weight[first * 6], count, rows, stride_, gaussian_);
        }
        for (int c = 0; c < job_.labels; c += 4)
            for (int i = 0; i < kTile; i += kWide) {
                Wide label[4];
                gather(&rows_[i * stride_ + c], stride_, label);
                for (int k = 0; k < 4 && c + k < job_.labels; ++k) store(&label_[(c + k) * kTile + i], label[k]);
            }
    }
    // From messages to Q: probabilities x 2^message, normalized; pydensecrf's softmax without its logarithms.
    void update(size_t first, int count) {
        const Planes p = planes(job_.probs, first, count);
        for (int i = 0; i < kTile; i += kWide) {
            float* const label = &label_[i];
            Wide top = load<Wide>(label), sum = same<Wide>(0);
            for (int c = 1; c < job_.labels; ++c) top = larger(top, load<Wide>(label + c * kTile));
            for (int c = 0; c < job_.labels; ++c) {
                const Wide prior = smaller(larger(load<Wide>(p.of(c) + i), same<Wide>(1e-5f)), same<Wide>(1.0f));
                const Wide q = prior * exp2(load<Wide>(label + c * kTile) - top);
                sum += q;
                store(label + c * kTile, q);
            }
            sum = 1.0f / sum;
            for (int c = 0; c < job_.labels; ++c) store(label + c * kTile, load<Wide>(label + c * kTile) * sum);
        }
    }
    void keep(size_t first, int count) {
        for (int c = 0; c < job_.labels; ++c) std::memcpy(job_.out + c * pixels_ + first, &label_[c * kTile], count * sizeof(float));
    }
    // Q of a tile, pixel by pixel.
    void to_rows(Planes q) {
        for (int c = 0; c < job_.labels; c += 4)
            for (int i = 0; i < kTile; i += kWide) {
                Wide label[4];
                for (int k = 0; k < 4; ++k) label[k] = c + k < job_.labels ? load<Wide>(q.of(c + k) + i) : same<Wide>(0);
                scatter(label, &rows_[i * stride_ + c], stride_);
            }
    }
    // Splats these rows.
    template <int Corners, class Values, class Places>
    void write(Values& to, const Places& places, size_t first, int count) {
        for (int b = 0; b < blocks_; ++b)
            splat<B, Corners>(to.now(b), &places.vertex[first * Corners], &places.weight[first * Corners], count, &rows_[b * B], stride_);
    }
    void write(LatticeValues<B>& lattice, size_t first, int count) {
        lattice.clear(first / kTile);
        write<6>(lattice, lattice_, first, count);
    }
    void write(GridValues<B>& grid, size_t first, int count) {
        grid.clear(first / kTile);
        write<3>(grid, grid_, first, count);
        grid.advance(first / kTile);
    }

    const CrfJob& job_;
    size_t pixels_;
    int blocks_, stride_;
    int iterations_;
    When gaussian_ = kNever, bilateral_ = kNever;
    Grid grid_;
    Lattice lattice_;
    Buffer<float> rows_;   // (kTile, blocks, B): one tile, pixel by pixel
    Buffer<float> label_;  // (labels, kTile): one tile, label by label: messages, then Q
    Buffer<float> part_;   // (labels, kTile): the last tile, if it is not full
};

}  // namespace

void run(const CrfJob& job) {
    if (job.labels <= 4) MeanField<4>(job).run();
    else if (job.labels <= 8) MeanField<8>(job).run();
    else if (job.labels <= 16) MeanField<16>(job).run();
    else MeanField<24>(job).run();
}

}  // namespace TAG2MASK_ISA
