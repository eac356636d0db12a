// Compiled without fused multiply-add: a pixel on the border of a simplex must fall to the side to which pydensecrf rounds it.
#include "lattice.h"

#include <cmath>
#include <stdexcept>

namespace TAG2MASK_ISA {
namespace {

constexpr uint32_t kNone = 0xFFFFFFFFu;
constexpr float kUntouched = -0.5f;  // below it: no pixel touches the cell (weights can round to just under 0)

inline void prefetch(const void* p) {
#if defined(__GNUC__)
    __builtin_prefetch(p);
#else
    (void)p;
#endif
}

// From a packed lattice point to its number, in order of first use.
class Table {
  public:
    explicit Table(size_t expected) {
        while ((size_t{1} << bits_) < 2 * expected) ++bits_;
        slots_.reset(size_t{1} << bits_);
        slots_.fill(0xFF);
        keys_.reset((size_t{1} << (bits_ - 1)) + 1);
    }
    void expect(uint64_t key) const { prefetch(&slots_[home(key)]); }
    uint32_t insert(uint64_t key) {
        size_t at = home(key);
        for (; slots_[at].number != kNone; at = (at + 1) & (slots_.size() - 1))
            if (slots_[at].key == key) return slots_[at].number;
        const uint32_t number = static_cast<uint32_t>(count_);
        slots_[at] = {key, number};
        keys_[count_++] = key;
        if (2 * count_ == slots_.size()) grow();
        return number;
    }
    size_t count() const { return count_; }
    Buffer<uint64_t>& keys() { return keys_; }

  private:
    struct Slot {
        uint64_t key;
        uint32_t number;
    };
    size_t home(uint64_t key) const { return static_cast<size_t>((key * 0x9E3779B97F4A7C15ull) >> (64 - bits_)); }
    void grow() {
        ++bits_;
        slots_.reset(size_t{1} << bits_);
        slots_.fill(0xFF);
        keys_.grow((size_t{1} << (bits_ - 1)) + 1, count_);
        for (size_t i = 0; i < count_; ++i) {
            size_t at = home(keys_[i]);
            while (slots_[at].number != kNone) at = (at + 1) & (slots_.size() - 1);
            slots_[at] = {keys_[i], static_cast<uint32_t>(i)};
        }
    }
    int bits_ = 8;
    size_t count_ = 0;
    Buffer<Slot> slots_;
    Buffer<uint64_t> keys_;
};

// A point is its coordinates divided by D + 1 and the remainder that they share: remainder in the lowest 3 bits, then D fields.
template <int D>
struct Packing {
    int64_t low[D + 1];
    int bits = 3;
    uint64_t stride[D + 1], all = 0;  // stride[D] is 0: the last coordinate follows from the others

    explicit Packing(const float* top) {  // top: the largest value of each scaled feature; the smallest is 0
        for (int j = 0; j < D; ++j) {
            double high = 0;
            for (int k = j; k < D; ++k) high += top[k];
            low[j] = static_cast<int64_t>(std::floor(-(j ? j * double{top[j - 1]} : 0.0) / (D + 1))) - 4;
            const double span = high / (D + 1) + 8 - static_cast<double>(low[j]);
            stride[j] = uint64_t{1} << bits;
            all += stride[j];
            for (double room = 1; room < span; room *= 2) ++bits;
            if (bits > 63) throw std::overflow_error("lattice");
        }
        low[D] = 0;
        stride[D] = 0;
    }
    // The neighbour before `key` along axis j: all coordinates one less, coordinate j D more.
    uint64_t before(uint64_t key, int j) const { return (key & 7) ? key - 1 + stride[j] : key + D - (all - stride[j]); }
};

// A tile of features, then where they lie: coordinate-major, so that each loop runs over pixels.
template <int D>
struct Tile {
    float feature[D][kTile], elevated[D + 1][kTile], rest[D + 1][kTile], sum[kTile];
    int32_t point[D + 1][kTile], rank[D + 1][kTile];

    // Round to the nearest 0-coloured point, rank the differences, come back to the plane: (Adams et al. 2010), as pydensecrf.
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
    // Pixel i: the keys of the D + 1 corners of its simplex and its barycentric weights.
    void corners(int i, const Packing<D>& packing, uint64_t* key, float* weight) const {
        uint64_t dropped[D + 1], first = 0;
        float by_rank[D + 1];
        for (int j = 0; j <= D; ++j) {
            const int at = D - rank[j][i];
            by_rank[at] = rest[j][i];
            dropped[at] = packing.stride[j];
            first += static_cast<uint64_t>(point[j][i] - packing.low[j]) * packing.stride[j];
        }
        key[0] = first;
        weight[0] = by_rank[0] + (1 - by_rank[D]);
        for (int r = 1; r <= D; ++r) {
            key[r] = key[r - 1] + 1 - dropped[r - 1];
            weight[r] = by_rank[r] - by_rank[r - 1];
        }
    }
};

// Sorts `key` (one spare entry) of `bits` bits; place[i] is where the key at i went. Least significant digit first.
void sort(Buffer<uint64_t>& key, size_t count, int bits, Buffer<uint32_t>& place) {
    constexpr int kDigit = 11;
    Buffer<uint64_t> other(count + 1);
    Buffer<uint32_t> number(count), other_number(count);
    for (size_t i = 0; i < count; ++i) number[i] = static_cast<uint32_t>(i);
    for (int shift = 0; shift < bits; shift += kDigit) {
        size_t start[(1 << kDigit) + 1] = {};
        const auto digit = [&](size_t i) { return (key[i] >> shift) & ((1 << kDigit) - 1); };
        for (size_t i = 0; i < count; ++i) ++start[digit(i) + 1];
        for (int d = 0; d < 1 << kDigit; ++d) start[d + 1] += start[d];
        for (size_t i = 0; i < count; ++i) {
            const size_t to = start[digit(i)]++;
            other[to] = key[i];
            other_number[to] = number[i];
        }
        key.swap(other);
        number.swap(other_number);
    }
    for (size_t i = 0; i < count; ++i) place[number[i]] = static_cast<uint32_t>(i);
}

// Point numbers in chains along one axis; returns how many. As the keys are sorted, so are the keys that they look for, those with
// and those without a remainder each by themselves: two fingers run along. `before` and `after` are scratch, one spare entry each.
template <int D>
size_t link(const Buffer<uint64_t>& key, size_t points, const Packing<D>& packing, int axis, Buffer<uint32_t>& before,
            Buffer<uint32_t>& after, Buffer<uint32_t>& chain) {
    after.fill(0xFF);
    size_t finger[2] = {}, links = 0;
    for (size_t i = 0; i < points; ++i) {
        const uint64_t wanted = packing.before(key[i], axis);
        size_t& at = finger[(key[i] & 7) != 0];
        while (key[at] < wanted) ++at;
        const bool found = key[at] == wanted;
        before[i] = found ? static_cast<uint32_t>(at) : kNone;
        after[found ? at : points] = static_cast<uint32_t>(i);
    }
    for (size_t i = 0; i < points; ++i) links += (before[i] != kNone) | (after[i] != kNone);
    chain.reset(links + kSpare);
    size_t at = 0;
    for (size_t i = 0; i < points; ++i) {
        if ((before[i] != kNone) | (after[i] == kNone)) continue;
        uint32_t p = static_cast<uint32_t>(i);
        for (; after[p] != kNone; p = after[p]) chain[at++] = p;
        chain[at++] = p | kEnd;
    }
    std::memset(&chain[links], 0, kSpare * sizeof(uint32_t));
    return links;
}

// sqrt(factor) / sqrt(K 1) of one pixel, from a filter of ones; the filter's own constant and log2e included.
float normaliser(const float* weight, const uint32_t* vertex, int corners, const float* filtered, float factor) {
    const float alpha = 1 / (1 + std::ldexp(1.0f, 1 - corners));
    float norm = 0;
    for (int j = 0; j < corners; ++j) norm += weight[j] * alpha * filtered[vertex[j]];
    return std::sqrt(factor * alpha * 1.44269504f) / std::sqrt(norm + 1e-20f);
}

template <int D>
void scales(float* scale) {
    const float spread = static_cast<float>(std::sqrt(2.0 / 3.0) * (D + 1));
    for (int j = 0; j < D; ++j) scale[j] = static_cast<float>(1.0 / std::sqrt(static_cast<double>((j + 2) * (j + 1))) * spread);
}

// Walks over the pixels by tiles: positions / sxy in features 0 and 1.
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

template <class T>
void reset_spare(Buffer<T>& buffer, size_t pixels, int corners) {
    buffer.reset((pixels + kSpare) * corners);
    std::memset(&buffer[pixels * corners], 0, kSpare * corners * sizeof(T));
}

// [.5 1 .5] along the three axes of a grid of single values
void blur_ones(const Grid& grid, Buffer<float>& value) {
    const size_t cells = grid.rows * grid.width;
    Buffer<float> old(cells);
    for (int axis = 0; axis < 3; ++axis) {
        std::memcpy(old.data(), value.data(), cells * sizeof(float));
        for (size_t row = 4; row + 4 < grid.rows; ++row) {
            const Neighbours to(axis, row, grid.width);
            for (uint32_t r = grid.run_of_row[row]; r < grid.run_of_row[row + 1]; ++r)
                for (size_t at = row * grid.width + grid.run[2 * r]; at < row * grid.width + grid.run[2 * r + 1]; ++at)
                    value[at] = old[at] + 0.5f * (old[at - to.above] + old[at + to.below]);
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
    grid.first_row.reset(count + 1);
    grid.last_row.reset(count);
    uint32_t last = 0, first = static_cast<uint32_t>(grid.rows);
    for (size_t t = 0; t < count; ++t) {
        const size_t end = (t + 1) * kTile < pixels ? (t + 1) * kTile : pixels;
        uint32_t low = UINT32_MAX;
        for (size_t i = t * kTile * 3; i < end * 3; ++i) {
            const uint32_t cell = grid.vertex[i];
            if (cell > last) last = cell;
            if (cell < low) low = cell;
        }
        grid.first_row[t] = low / static_cast<uint32_t>(grid.width);
        grid.last_row[t] = last / static_cast<uint32_t>(grid.width);
    }
    grid.first_row[count] = first;
    for (size_t t = count; t-- > 0;) {
        if (grid.first_row[t] > first) grid.first_row[t] = first;
        first = grid.first_row[t];
        const size_t rows = grid.last_row[t] + 1 - first;
        if (rows > grid.overlap) grid.overlap = rows;
    }
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
        const float norm = normaliser(&grid.weight[i], &grid.vertex[i], 3, value.data(), job.gaussian_weight);
        for (int r = 0; r < 3; ++r) grid.weight[i + r] *= norm;
    }
}

void build_bilateral(const CrfJob& job, Lattice& lattice) {
    const size_t pixels = static_cast<size_t>(job.height) * job.width;
    const float sxy = job.bilateral_sxy, srgb = job.bilateral_srgb;
    float scale[5], top[5] = {(job.width - 1) / sxy, (job.height - 1) / sxy, 255 / srgb, 255 / srgb, 255 / srgb};
    scales<5>(scale);
    for (int j = 0; j < 5; ++j) top[j] *= scale[j];
    const Packing<5> packing(top);
    Table table(pixels / 4);
    reset_spare(lattice.vertex, pixels, 6);
    lattice.weight.reset(pixels * 6);
    uint64_t key[kTile * 6];
    tiles<5>(job, sxy, [&](Tile<5>& tile, size_t first, int count) {
        for (int i = 0; i < count; ++i)
            for (int c = 0; c < 3; ++c) tile.feature[2 + c][i] = job.image[(first + i) * 3 + c] / srgb;
        tile.locate(scale);
        for (int i = 0; i < count; ++i) {
            tile.corners(i, packing, key + i * 6, &lattice.weight[(first + i) * 6]);
            for (int j = 0; j < 6; ++j) table.expect(key[i * 6 + j]);
        }
        for (int i = 0; i < count * 6; ++i) lattice.vertex[first * 6 + i] = table.insert(key[i]);
    });
    if (pixels % 4) {  // pydensecrf works in fours and fills the last four with pixels at the origin, which touch points too
        Tile<5> tile;
        std::memset(&tile, 0, sizeof tile);
        tile.locate(scale);
        float none[6];
        tile.corners(0, packing, key, none);
        for (int j = 0; j < 6; ++j) table.insert(key[j]);
    }
    const size_t points = lattice.points = table.count();
    // In the order of their keys, points that meet when blurred lie along parallel streams.
    Buffer<uint64_t>& sorted = table.keys();
    Buffer<uint32_t> place(points), after(points + 1);
    sort(sorted, points, packing.bits, place);
    sorted[points] = UINT64_MAX;
    for (size_t i = 0; i < pixels * 6; ++i) lattice.vertex[i] = place[lattice.vertex[i]];
    for (int axis = 0; axis < 6; ++axis) lattice.links[axis] = link(sorted, points, packing, axis, place, after, lattice.chain[axis]);

    Buffer<float> value(lattice.points);
    value.fill(0);
    for (size_t i = 0; i < pixels * 6; ++i) value[lattice.vertex[i]] += lattice.weight[i];
    for (int axis = 0; axis < 6; ++axis) {
        float last = 0;
        for (size_t i = 0; i < lattice.links[axis]; ++i) {
            const uint32_t entry = lattice.chain[axis][i], p = entry & ~kEnd;
            const float own = value[p], next = entry & kEnd ? 0.0f : value[lattice.chain[axis][i + 1] & ~kEnd];
            value[p] = own + 0.5f * (last + next);
            last = entry & kEnd ? 0.0f : own;
        }
    }
    for (size_t i = 0; i < pixels * 6; i += 6) {
        const float norm = normaliser(&lattice.weight[i], &lattice.vertex[i], 6, value.data(), job.bilateral_weight);
        for (int j = 0; j < 6; ++j) lattice.weight[i + j] *= norm;
    }
}

}  // namespace TAG2MASK_ISA
