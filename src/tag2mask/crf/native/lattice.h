// The permutohedral lattice of one kernel: which points surround each pixel, how much each weighs, who neighbors whom.
#pragma once
#include "buffer.h"
#include "crf.h"

namespace TAG2MASK_ISA {

// Points lie along d + 1 axes in chains. A chain is a run of point numbers whose last one carries kEnd.
constexpr uint32_t kEnd = 0x80000000u;

struct Lattice {
    size_t points = 0;          // M
    Buffer<uint32_t> vertex;    // (pixels, 6): the points around each pixel
    Buffer<float> weight;       // (pixels, 6): barycentric weight x normalization x square root of the message's factor
    Buffer<uint32_t> chain[6];  // per axis; points without a neighbor along it are left out; a spare entry ends each
    size_t links[6] = {};       // entries of each chain
    Buffer<uint32_t> fresh;     // points in the order in which pixels first touch them; spare entries at the end
    Buffer<uint32_t> fresh_of;  // (tiles + 1): where in `fresh` those of each tile begin
};

// The two-dimensional lattice is a plane of triangles: rows of cells, odd rows half a cell to the right, rows in the order of the
// picture's. Axes 0 and 1 lead to the rows above and below, axis 2 to those two above and two below. Some cells touch no pixel
// and stay 0. Four empty rows stand before and after, an empty column on either side.
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

// Where the neighbors of a cell are along an axis: so many rows up and down, there so many columns to the right.
struct Neighbors {
    int rows, above, below;
    Neighbors(int axis, size_t row) {
        const int odd = row & 1;
        rows = axis == 2 ? 2 : 1;
        above = axis == 2 ? 0 : axis == 0 ? odd - 1 : odd;
        below = axis == 2 ? 0 : axis == 0 ? odd : odd - 1;
    }
};

constexpr int kTile = 64;    // pixels worked on at a time
constexpr int kAhead = 12;
constexpr size_t kSpare = kAhead;  // pixels' worth of entries after the last

// log2e is folded into the weights, so that messages add to logits in base 2.
void build_gaussian(const CrfJob& job, Grid& grid);
void build_bilateral(const CrfJob& job, Lattice& lattice);
// Makes do with as many rows of the grid as are in use at a time, where Q is splat `ahead` tiles before it is sliced.
void keep_window(Grid& grid, size_t pixels);

}  // namespace TAG2MASK_ISA
