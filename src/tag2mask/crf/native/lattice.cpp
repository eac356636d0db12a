// The bilateral kernel's lattice: points are found by hashing, their neighbors by sorting.
#include <stdexcept>

#include "simplex.h"

namespace TAG2MASK_ISA {
namespace {

constexpr uint32_t kNone = 0xFFFFFFFFu;
constexpr size_t kBeyond = 4;  // entries after the last key, larger than any key: link compares four keys at a time

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
        keys_.reset((size_t{1} << (bits_ - 1)) + kBeyond);
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
        bits_ += 2;
        slots_.reset(size_t{1} << bits_);
        slots_.fill(0xFF);
        keys_.grow((size_t{1} << (bits_ - 1)) + kBeyond, count_);
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

// A point is its coordinates divided by D + 1, in D fields, and their common remainder, in the lowest 3 bits.
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
    // The neighbor before `key` along axis j: all coordinates one less, coordinate j D more.
    uint64_t before(uint64_t key, int j) const { return (key & 7) ? key - 1 + stride[j] : key + D - (all - stride[j]); }
};

// The keys of the D + 1 corners of the simplex around pixel i, and its barycentric weights.
template <int D>
void corners(const Tile<D>& tile, int i, const Packing<D>& packing, uint64_t* key, float* weight) {
    uint64_t dropped[D + 1], first = 0;
    float by_rank[D + 1];
    for (int j = 0; j <= D; ++j) {
        const int at = D - tile.rank[j][i];
        by_rank[at] = tile.rest[j][i];
        dropped[at] = packing.stride[j];
        first += static_cast<uint64_t>(tile.point[j][i] - packing.low[j]) * packing.stride[j];
    }
    key[0] = first;
    weight[0] = by_rank[0] + (1 - by_rank[D]);
    for (int r = 1; r <= D; ++r) {
        key[r] = key[r - 1] + 1 - dropped[r - 1];
        weight[r] = by_rank[r] - by_rank[r - 1];
    }
}

// Sorts `key` of `bits` bits, with kBeyond spare entries; place[i] is the new place of key i. Radix sort, least significant digit first.
void sort(Buffer<uint64_t>& key, size_t count, int bits, Buffer<uint32_t>& place) {
    constexpr int kDigit = 11;
    Buffer<uint64_t> other(count + kBeyond);
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

// Links points to chains along one axis; returns the number of entries. The keys are sorted, so the keys of their neighbors are sorted,
// too, separately for keys with and without a remainder. So two indices move forward, with few branches, which would be unpredictable.
// `before` and `after` are scratch memory, `after` with one spare entry.
template <int D>
size_t link(const Buffer<uint64_t>& key, size_t points, const Packing<D>& packing, int axis, Buffer<uint32_t>& before,
            Buffer<uint32_t>& after, Buffer<uint32_t>& chain) {
    after.fill(0xFF);
    size_t wrapped = 0, inside = 0, links = 0, starts = 0;
    for (size_t i = 0; i < points; ++i) {
        const uint64_t wanted = packing.before(key[i], axis);
        const bool wraps = (key[i] & 7) == 0;
        size_t at = wraps ? wrapped : inside;
        while (key[at + 3] < wanted) at += 4;
        at += (key[at] < wanted) + (key[at + 1] < wanted) + (key[at + 2] < wanted);
        const bool found = key[at] == wanted;
        before[i] = found ? static_cast<uint32_t>(at) : kNone;
        after[found ? at : points] = static_cast<uint32_t>(i);
        wrapped = wraps ? at : wrapped;
        inside = wraps ? inside : at;
        links += found;
    }
    Buffer<uint32_t>& start = before;  // entry i is not read after step i
    for (size_t i = 0; i < points; ++i) {
        const bool starting = before[i] == kNone && after[i] != kNone;
        start[starts] = static_cast<uint32_t>(i);
        starts += starting;
    }
    links += starts;
    chain.reset(links + kSpare);
    uint32_t* to = chain.data();
    for (size_t i = 0; i < starts; ++i) {
        uint32_t p = start[i];
        for (; after[p] != kNone; p = after[p]) *to++ = p;
        *to++ = p | kEnd;
    }
    std::memset(to, 0, kSpare * sizeof(uint32_t));
    return links;
}

}  // namespace

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
    lattice.fresh_of.reset((pixels + kTile - 1) / kTile + 1);
    uint64_t key[kTile * 6];
    tiles<5>(job, sxy, [&](Tile<5>& tile, size_t first, int count) {
        for (int i = 0; i < count; ++i)
            for (int c = 0; c < 3; ++c) tile.feature[2 + c][i] = job.image[(first + i) * 3 + c] / srgb;
        tile.locate(scale);
        lattice.fresh_of[first / kTile] = static_cast<uint32_t>(table.count());
        for (int i = 0; i < count; ++i) {
            corners(tile, i, packing, key + i * 6, &lattice.weight[(first + i) * 6]);
            for (int j = 0; j < 6; ++j) table.expect(key[i * 6 + j]);
        }
        for (int i = 0; i < count * 6; ++i) lattice.vertex[first * 6 + i] = table.insert(key[i]);
    });
    if (pixels % 4) {  // pydensecrf pads to a multiple of 4 with pixels at the origin, which also touch points.
        Tile<5> tile;
        std::memset(&tile, 0, sizeof tile);
        tile.locate(scale);
        float none[6];
        corners(tile, 0, packing, key, none);
        for (int j = 0; j < 6; ++j) table.insert(key[j]);
    }
    const size_t points = lattice.points = table.count();
    // In the order of their keys, points that are blurred together are in parallel streams of memory.
    Buffer<uint64_t>& sorted = table.keys();
    Buffer<uint32_t> place(points), after(points + 1);
    sort(sorted, points, packing.bits, place);
    lattice.fresh_of[lattice.fresh_of.size() - 1] = static_cast<uint32_t>(points);
    lattice.fresh.reset(points + kSpare);
    std::memcpy(lattice.fresh.data(), place.data(), points * sizeof(uint32_t));
    std::memset(&lattice.fresh[points], 0, kSpare * sizeof(uint32_t));
    for (size_t k = 0; k < kBeyond; ++k) sorted[points + k] = UINT64_MAX;
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
        const float norm = normalizer(&lattice.weight[i], &lattice.vertex[i], 6, value.data(), job.bilateral_weight);
        for (int j = 0; j < 6; ++j) lattice.weight[i + j] *= norm;
    }
}

}  // namespace TAG2MASK_ISA
