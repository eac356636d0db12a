// An array of a trivial type. Not std::vector: every file is compiled once per instruction set, and the linker could use a standard
// template compiled for AVX2 on a machine without it.
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

    // `count` uninitialized values, aligned to a cache line.
    void reset(size_t count) {
        release();
        if (count > SIZE_MAX / sizeof(T) / 2) throw std::bad_alloc();
        const size_t bytes = count * sizeof(T);
        start_ = std::malloc(bytes + kLine);
        if (!start_) throw std::bad_alloc();
        data_ = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(start_) + kLine - 1) & ~(uintptr_t{kLine} - 1));
        size_ = count;
    }
    // Makes room for `count` values and keeps the first `kept`.
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
