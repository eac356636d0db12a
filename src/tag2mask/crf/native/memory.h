// Large memory of a job, taken from a region that is left to the next job: pages fresh from the system must be cleared by it first,
// which took 4 to 8 % of the time.
#pragma once
#include <cstddef>

// Where regions are not to be had, everything comes from malloc: not Linux, or under the address sanitizer, which watches malloc's
// memory only.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#include <sys/mman.h>
#if defined(MADV_HUGEPAGE) && defined(MADV_FREE)
#define TAG2MASK_REGIONS
#endif
#endif

// While one lives, its thread has a region.
class Memory {
  public:
    Memory();
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
};

// Memory of the thread's region, unset, on a page's border; null where there is none or not so much of it left.
void* take_memory(size_t bytes);
// Returns whether it was that.
bool give_memory(void* start, size_t bytes);
