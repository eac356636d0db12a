// Memory that knows no type beyond trivial ones. Own code rather than std::vector: every file here is compiled once for each
// instruction set, and a template of the standard library compiled for AVX2 must not end up serving a machine without it.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

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
        const size_t bytes = count * sizeof(T);
        start_ = std::malloc(bytes + kLine);
        if (!start_) throw std::bad_alloc();
        data_ = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(start_) + kLine - 1) & ~(uintptr_t{kLine} - 1));
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
    static constexpr size_t kLine = 64;  // bytes
    void* start_ = nullptr;
    T* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace TAG2MASK_ISA
