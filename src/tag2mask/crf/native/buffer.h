// Memory that knows no type beyond trivial ones. Own code rather than std::vector: every file here is compiled once for each
// instruction set, and a template of the standard library compiled for AVX2 must not end up serving a machine without it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

// Large buffers come from the system and go back to it at once: malloc keeps what it is given back, and the lattice is built in other
// memory than it is used in. In huge pages, as lattices are read at random, for which 4 KB pages miss the TLB. Not under the address
// sanitizer, which watches malloc's memory only.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#include <sys/mman.h>
#if defined(MADV_HUGEPAGE)
#define TAG2MASK_MAPS
#endif
#endif

namespace TAG2MASK_ISA {

template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t count) { reset(count); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { release(); }

    // `count` values, unset, on a cache line's border.
    void reset(size_t count) {
        release();
        if (count > SIZE_MAX / sizeof(T) / 2) throw std::bad_alloc();
        const size_t bytes = count * sizeof(T), align = bytes < kLarge ? 64 : size_t{2} << 20;
#if defined(TAG2MASK_MAPS)
        if (bytes >= kLarge) {
            start_ = mmap(nullptr, bytes + align, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (start_ == MAP_FAILED) start_ = nullptr;
        } else
#endif
            start_ = std::malloc(bytes + align);
        if (!start_) throw std::bad_alloc();
        data_ = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(start_) + align - 1) & ~(uintptr_t{align} - 1));
        size_ = count;
#if defined(TAG2MASK_MAPS)
        if (bytes >= kLarge) madvise(data_, bytes & ~(align - 1), MADV_HUGEPAGE);
#endif
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
#if defined(TAG2MASK_MAPS)
        if (size_ * sizeof(T) >= kLarge) munmap(start_, size_ * sizeof(T) + (size_t{2} << 20));
        else
#endif
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
    static constexpr size_t kLarge = size_t{1} << 20;  // bytes
    void* start_ = nullptr;
    T* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace TAG2MASK_ISA
