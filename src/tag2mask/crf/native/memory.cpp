// Regions of address space, most of it never touched. Not compiled for an instruction set: it holds what all of them share.
#include "memory.h"

#ifdef TAG2MASK_REGIONS

#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>

namespace {

constexpr size_t kHuge = size_t{2} << 20, kUnit = size_t{1} << 16;
constexpr size_t kRegion = size_t{1} << (sizeof(void*) == 8 ? 34 : 28), kKept = size_t{96} << 20;  // address space, and how much of it may stay touched

// Free spans, in order: the first that is large enough is taken from, so that the same low pages serve again and again.
struct Region {
    struct Span {
        size_t at, size;
    };
    static constexpr int kSpans = 64;  // there is at most one more than buffers in use
    char* start;
    int spans = 1;
    Span span[kSpans] = {{0, kRegion}};

    static Region* make() {
        void* const raw = mmap(nullptr, kRegion + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (raw == MAP_FAILED) return nullptr;
        Region* const region = new (std::nothrow) Region;
        if (!region) {
            munmap(raw, kRegion + kHuge);
            return nullptr;
        }
        char* const start = static_cast<char*>(raw);
        const size_t before = (kHuge - reinterpret_cast<uintptr_t>(start) % kHuge) % kHuge;
        if (before) munmap(start, before);
        munmap(start + before + kRegion, kHuge - before);
        region->start = start + before;
        madvise(region->start, kRegion, MADV_HUGEPAGE);
        return region;
    }
    void erase(int i) { std::memmove(span + i, span + i + 1, sizeof(Span) * (--spans - i)); }
    void* take(size_t bytes) {
        for (int i = 0; i < spans; ++i) {
            if (span[i].size < bytes) continue;
            char* const from = start + span[i].at;
            span[i].at += bytes;
            span[i].size -= bytes;
            if (!span[i].size) erase(i);
            return from;
        }
        return nullptr;
    }
    void give(size_t at, size_t bytes) {
        int i = 0;
        while (i < spans && span[i].at < at) ++i;
        std::memmove(span + i + 1, span + i, sizeof(Span) * (spans++ - i));
        span[i] = {at, bytes};
        for (int left = i; left >= 0 && left >= i - 1; --left)
            if (left + 1 < spans && span[left].at + span[left].size == span[left + 1].at) {
                span[left].size += span[left + 1].size;
                erase(left + 1);
            }
    }
};

std::atomic<Region*> idle[16];
thread_local Region* mine = nullptr;

size_t whole(size_t bytes) { return (bytes + kUnit - 1) & ~(kUnit - 1); }

}  // namespace

Memory::Memory() {
    for (auto& place : idle)
        if ((mine = place.exchange(nullptr))) return;
    mine = Region::make();
}
// Its pages stay where they are for the next job unless the system wants them first.
Memory::~Memory() {
    Region* const region = mine;
    mine = nullptr;
    if (!region) return;
    madvise(region->start + kKept, kRegion - kKept, MADV_DONTNEED);
    madvise(region->start, kKept, MADV_FREE);
    for (auto& place : idle) {
        Region* none = nullptr;
        if (place.compare_exchange_strong(none, region)) return;
    }
    munmap(region->start, kRegion);
    delete region;
}
void* take_memory(size_t bytes) { return mine ? mine->take(whole(bytes)) : nullptr; }
bool give_memory(void* start, size_t bytes) {
    if (!mine || static_cast<char*>(start) < mine->start || static_cast<char*>(start) >= mine->start + kRegion) return false;
    mine->give(static_cast<size_t>(static_cast<char*>(start) - mine->start), whole(bytes));
    return true;
}

#else

Memory::Memory() {}
Memory::~Memory() {}
void* take_memory(size_t) { return nullptr; }
bool give_memory(void*, size_t) { return false; }

#endif
