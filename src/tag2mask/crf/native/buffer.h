// Memory that knows no type beyond trivial ones. Own code rather than std::vector: every file here is compiled once for each
// instruction set, and a template of the standard library compiled for AVX2 must not end up serving a machine without it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace TAG2MASK_ISA {

template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t count) { reset(count); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { std::free(start_); }

    // `count` values, unset, on a cache line's border.
    void reset(size_t count) {
        std::free(start_);
        start_ = nullptr;
        if (count > SIZE_MAX / sizeof(T) / 2) throw std::bad_alloc();
        const size_t bytes = count * sizeof(T), align = bytes < (size_t{4} << 20) ? 64 : size_t{2} << 20;
        start_ = std::malloc(bytes + align);
        if (!start_) throw std::bad_alloc();
        const uintptr_t first = (reinterpret_cast<uintptr_t>(start_) + align - 1) & ~(uintptr_t{align} - 1);
        data_ = reinterpret_cast<T*>(first);
#if defined(MADV_HUGEPAGE)
        if (align > 64) madvise(data_, bytes & ~(align - 1), MADV_HUGEPAGE);  // lattices are read at random: 4 KB pages miss the TLB
#endif
        size_ = count;
    }
    // More room, the first `kept` values kept.
    void grow(size_t count, size_t kept) {
        Buffer old;
        swap(old);
        reset(count);
        if (kept) std::memcpy(data_, old.data_, kept * sizeof(T));
    }
    void fill(int byte) { std::memset(data_, byte, size_ * sizeof(T)); }
    void release() {
        std::free(start_);
        start_ = nullptr;
        data_ = nullptr;
        size_ = 0;
    }
    void swap(Buffer& other) {
        char held[sizeof(Buffer)];
        std::memcpy(held, static_cast<void*>(this), sizeof(Buffer));
        std::memcpy(static_cast<void*>(this), static_cast<void*>(&other), sizeof(Buffer));
        std::memcpy(static_cast<void*>(&other), held, sizeof(Buffer));
    }
    T& operator[](size_t i) { return data_[i]; }
    const T& operator[](size_t i) const { return data_[i]; }
    T* data() { return data_; }
    const T* data() const { return data_; }
    size_t size() const { return size_; }

  private:
    void* start_ = nullptr;
    T* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace TAG2MASK_ISA
