// Vectors of floats for any instruction set: the compiler's own vectors (GCC and Clang: SSE2, AVX2, NEON, depending on the flags), or
// single floats for other compilers.
#pragma once
#include <cstdint>
#include <cstring>

namespace TAG2MASK_ISA {

template <class V>
inline V load(const float* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
template <class V>
inline void store(float* to, V v) {
    std::memcpy(to, &v, sizeof v);
}
template <class V>
inline V larger(V a, V b) {
    return a > b ? a : b;
}
template <class V>
inline V smaller(V a, V b) {
    return a < b ? a : b;
}

#if defined(__GNUC__) && !defined(TAG2MASK_SCALAR)

template <int N>
struct VecOf {
    typedef float Float __attribute__((vector_size(N * 4)));
    typedef int32_t Int __attribute__((vector_size(N * 4)));
};
#if defined(__AVX2__)
constexpr int kWide = 8;
#else
constexpr int kWide = 4;
#endif
typedef VecOf<kWide>::Float Wide;
template <int B>  // the widest vector that B floats fill
using Lane = typename VecOf<(B % kWide ? 4 : kWide)>::Float;

template <class V>
inline V same(float x) {
    return x - V{};
}
// v where `keep` is all ones, 0 where it is 0.
template <class V>
inline V masked(V v, uint32_t keep) {
    typedef typename VecOf<sizeof(V) / 4>::Int Int;
    return (V)((Int)v & (static_cast<int32_t>(keep) - Int{}));
}
// 2^n from a float whose lowest mantissa bits hold n + 127.
inline Wide power(Wide t) { return (Wide)((VecOf<kWide>::Int)t << 23); }

inline void prefetch(const void* p) { __builtin_prefetch(p); }

// Elements i, j, k, l of a (0..3) and b (4..7), in each half of a wide vector.
#define TAG2MASK_AT(x, half) ((x) % 4 + ((x) / 4) * kWide + (half) * 4)
#if defined(__clang__) || __GNUC__ >= 12
#define TAG2MASK_PICK __builtin_shufflevector
#define TAG2MASK_PICK8(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define TAG2MASK_PICK8(a, b, ...) __builtin_shuffle(a, b, VecOf<kWide>::Int{__VA_ARGS__})
#endif
template <int i, int j, int k, int l>
inline Wide pick(Wide a, Wide b) {
#if defined(__AVX2__)
    return TAG2MASK_PICK8(a, b, TAG2MASK_AT(i, 0), TAG2MASK_AT(j, 0), TAG2MASK_AT(k, 0), TAG2MASK_AT(l, 0), TAG2MASK_AT(i, 1),
                          TAG2MASK_AT(j, 1), TAG2MASK_AT(k, 1), TAG2MASK_AT(l, 1));
#else
    return TAG2MASK_PICK8(a, b, i, j, k, l);
#endif
}
inline void transpose(Wide& a, Wide& b, Wide& c, Wide& d) {
    const Wide ab = pick<0, 4, 1, 5>(a, b), AB = pick<2, 6, 3, 7>(a, b), cd = pick<0, 4, 1, 5>(c, d), CD = pick<2, 6, 3, 7>(c, d);
    a = pick<0, 1, 4, 5>(ab, cd);
    b = pick<2, 3, 6, 7>(ab, cd);
    c = pick<0, 1, 4, 5>(AB, CD);
    d = pick<2, 3, 6, 7>(AB, CD);
}

// Four floats from each place; only those of the first if a vector holds four.
inline Wide both(const float* low, const float* high) {
#if defined(__AVX2__)
    typedef VecOf<4>::Float Four;
    return TAG2MASK_PICK8(load<Four>(low), load<Four>(high), 0, 1, 2, 3, 4, 5, 6, 7);
#else
    (void)high;
    return load<Wide>(low);
#endif
}
// Transposes kWide pixels of four labels, `stride` floats apart, to four labels of kWide pixels, and back.
inline void gather(const float* rows, int stride, Wide* label) {
    for (int i = 0; i < 4; ++i) label[i] = both(rows + i * stride, rows + (i + 4) * stride);
    transpose(label[0], label[1], label[2], label[3]);
}
inline void scatter(Wide* label, float* rows, int stride) {
    transpose(label[0], label[1], label[2], label[3]);
    for (int i = 0; i < 4; ++i) {
        float pair[kWide];
        store(pair, label[i]);
        for (int half = 0; half < kWide / 4; ++half) std::memcpy(rows + (i + 4 * half) * stride, pair + 4 * half, 16);
    }
}

#else

constexpr int kWide = 1;
typedef float Wide;
template <int B>
using Lane = float;

template <class V>
inline V same(float x) {
    return x;
}
inline float masked(float v, uint32_t keep) { return keep ? v : 0.0f; }
inline float power(float t) {
    uint32_t bits;
    std::memcpy(&bits, &t, 4);
    bits <<= 23;
    std::memcpy(&t, &bits, 4);
    return t;
}
inline void prefetch(const void*) {}
inline void gather(const float* rows, int, Wide* label) { std::memcpy(label, rows, 16); }
inline void scatter(Wide* label, float* rows, int) { std::memcpy(rows, label, 16); }

#endif

}  // namespace TAG2MASK_ISA
