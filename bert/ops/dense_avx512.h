// Products in bfloat16 by the vector instructions AVX512-BF16.
//
// The left operand is packed as a whole, and stays in the third-level cache. Each thread packs one
// panel of the right operand at a time, which stays in its second-level cache while rows of the
// left one are multiplied with it. Both are cut along the inner axis, into chunks.
#pragma once

#include <omp.h>

#include "dense_pack.h"
#include "product.h"

constexpr int64_t kChunkDepth = kChunk * Bfloat16::kTogether;
// The fewest rows for which a thread packs a panel that others pack too.
constexpr int64_t kTaskRows = 32 * kTileHeight;

thread_local PackingSpace left_space, panel_space;
thread_local std::vector<float> edge;

// The left operand, packed: chunk after chunk, and in each row after row.
struct Left {
  char* data;
  int64_t rows, distance;  // rows of a chunk, and bytes from one to the next

  Left(const Operand& a) {
    const int64_t depth = std::min(round_up(a.inner, kDepth), kChunkDepth);
    distance = depth * sizeof(uint16_t) + kLine;  // not a power of two
    rows = round_up(a.outer, kEdge);
    const int64_t chunks = (a.inner + kChunkDepth - 1) / kChunkDepth;
    data = left_space.lines(chunks * rows * distance / kLine);
  }
  char* at(int64_t row, int64_t k) const {
    const int64_t chunk = k / kChunkDepth;
    return data + (chunk * rows + row) * distance + k % kChunkDepth * sizeof(uint16_t);
  }
};

// Call work(row or column, inner number) for the tiles of kPanel rows or columns, in the order in
// which their numbers lie in memory.
template <typename Work>
void each_tile(const Operand& x, int64_t start, int64_t k, int64_t end, const Work& work) {
  const int64_t stop = std::min(start + kPanel, x.outer);
  if (x.inner_contiguous) {
    for (int64_t i = start; i < stop; i += kEdge) {
      for (int64_t l = k; l < end; l += kDepth) work(i, l);
    }
  } else {
    for (int64_t l = k; l < end; l += kDepth) {
      for (int64_t i = start; i < stop; i += kEdge) work(i, l);
    }
  }
}

// Multiply the rows from `row` to `stop` with the columns from `column` on.
inline void multiply_task(const Left& left, const Operand& b, int64_t row, int64_t stop,
                          int64_t column, const float* bias, float* c, int64_t c_row) {
  char* panel = panel_space.lines(kPanelVectors * kChunk);
  constexpr int64_t kPanelLine = kPanelVectors * kLine;
  const auto* matrix = reinterpret_cast<const uint16_t*>(panel);
  Start start{bias, 0};
  int64_t k = 0;
  do {  // at least once: without inner numbers, the product is the bias
    const int64_t end = std::min(b.inner, k + kChunkDepth);
    each_tile(b, column, k, end, [&](int64_t i, int64_t l) {
      char* place = panel + (l - k) / 2 * kPanelLine + (i - column) / kEdge * kLine;
      pack_tile(b, i, l, false, place, kPanelLine, nullptr);
    });
    const int64_t a_row = left.distance / sizeof(uint16_t);
    for (int64_t i = row; i < stop; i += kTileHeight) {
      const int64_t height = std::min(kTileHeight, stop - i), offset = (i - row) * c_row;
      const auto* a = reinterpret_cast<const uint16_t*>(left.at(i, k));
      multiply_panel_rows<Bfloat16, kTileHeight, true>(
          height, lines<Bfloat16>(end - k), a, a_row, matrix,
          {start.data + (i - row) * start.distance, start.distance}, c + offset, c_row,
          reinterpret_cast<const char*>(a + height * a_row));
    }
    start = {c, c_row};
    k = end;
  } while (k < b.inner);
}

// c = a b + bias, of shape (a.outer, b.outer); `bias` may be null. With `a_sums`, also sum the left
// operand over the inner axis.
inline void multiply(const Operand& a, const Operand& b, const float* bias, float* c,
                     float* a_sums) {
  const int64_t rows = a.outer, columns = b.outer, all = panels(columns);
  const Left left(a);
  std::vector<float> start(all * kPanel);
  if (bias) std::copy_n(bias, columns, start.data());
  if (a_sums) std::fill_n(a_sums, rows, 0.0f);
  // A task is a panel with all rows, or some if there are too few panels for the threads.
  const int64_t wanted = (4 * omp_get_max_threads() + all - 1) / all;
  const int64_t task_rows = round_up(std::max(rows / wanted, kTaskRows), kTileHeight);
  const int64_t parts = (rows + task_rows - 1) / task_rows;
#pragma omp parallel
  {
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < rows; i += kPanel) {
      each_tile(a, i, 0, a.inner, [&](int64_t row, int64_t k) {
        pack_tile(a, row, k, true, left.at(row, k), left.distance, a_sums);
      });
    }
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < parts * all; ++task) {
      const int64_t row = task / all * task_rows, stop = std::min(rows, row + task_rows);
      const int64_t column = task % all * kPanel, width = columns - column;
      float* place = c + row * columns + column;
      if (width >= kPanel) {
        multiply_task(left, b, row, stop, column, start.data() + column, place, columns);
        continue;
      }
      // The last panel is wider than the product.
      edge.resize((stop - row) * kPanel);
      multiply_task(left, b, row, stop, column, start.data() + column, edge.data(), kPanel);
      for (int64_t i = row; i < stop; ++i, place += columns) {
        std::copy_n(edge.data() + (i - row) * kPanel, width, place);
      }
    }
  }
}
