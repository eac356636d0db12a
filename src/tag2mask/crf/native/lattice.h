// The permutohedral lattice of one kernel: which points surround each pixel, how much each weighs, who neighbors whom.
#pragma once
#include "buffer.h"
#include "crf.h"

namespace TAG2MASK_ISA {

// Points form chains along d + 1 axes. A chain is a sequence of point numbers; the last one has the bit kEnd.
constexpr uint32_t kEnd = 0x80000000u;

struct Lattice {
    size_t points = 0;          // M
    Buffer<uint32_t> vertex;    // (pixels, 6): the points around each pixel
    Buffer<float> weight;       // (pixels, 6): barycentric weight x normalization x square root of the message's factor
    Buffer<uint32_t> chain[6];  // per axis, with a spare entry at the end; points without a neighbor are left out
    size_t links[6] = {};       // number of entries per axis
    Buffer<uint32_t> fresh;     // points in the order in which pixels first touch them; spare entries at the end
    Buffer<uint32_t> fresh_of;  // (tiles + 1): where in `fresh` those of each tile begin
};

// The two-dimensional lattice is a plane of triangles: rows of cells in the order of the image's rows, odd rows shifted by half a cell
// to the right. Axes 0 and 1 lead to the rows above and below, axis 2 two rows up and down. Some cells touch no pixel and stay 0. There
// are four empty rows before and after, and an empty column on each side.
struct Grid {
    size_t rows = 0, width = 0;
    Buffer<uint32_t> vertex;      // (pixels, 3): row x width + column of the cells around each pixel, modulo window x width
    Buffer<float> weight;         // (pixels, 3), as above
    Buffer<uint32_t> run_of_row;  // (rows + 1): where each row's runs begin
    Buffer<uint32_t> run;         // (runs, 2): first and past-the-last column of cells that touch pixels
    Buffer<uint32_t> last_row;    // (tiles): last row that is touched by this tile or before the next one's first
    Buffer<uint32_t> first_row;   // (tiles + 1): first row that a tile or a later one touches
    Buffer<uint32_t> ahead;       // (tiles): how many tiles must have been splat before all rows that a tile touches can be blurred
    size_t window = 0;            // how many rows are kept; row r lies where row r modulo `window` would
};

// The neighbors of a cell along an axis: `rows` up and down, and there `above` and `below` columns to the right.
struct Neighbors {
    int rows, above, below;
    Neighbors(int axis, size_t row) {
        const int odd = row & 1;
        rows = axis == 2 ? 2 : 1;
        above = axis == 2 ? 0 : axis == 0 ? odd - 1 : odd;
        below = axis == 2 ? 0 : axis == 0 ? odd : odd - 1;
    }
};

constexpr int kTile = 64;    // pixels in one step
constexpr int kAhead = 12;
constexpr size_t kSpare = kAhead;  // pixels that arrays have room for after the last

// The weights include log2e: messages add to logits in base 2.
void build_gaussian(const CrfJob& job, Grid& grid);
void build_bilateral(const CrfJob& job, Lattice& lattice);
// Keeps only as many rows of the grid as are in use at a time, if Q is splat `ahead` tiles before it is sliced.
void keep_window(Grid& grid, size_t pixels);

}  // namespace TAG2MASK_ISA
