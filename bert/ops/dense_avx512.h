// Products in bfloat16 by the vector instructions AVX512-BF16.
#pragma once

#include "dense_pack.h"
#include "product.h"

// Bytes of the rows of the left operand that a task multiplies with one panel after another, and of
// their sums: they stay in the second-level cache.
constexpr int64_t kTaskBytes = 1 << 19;

thread_local PackingSpace packing_space;
thread_local std::vector<float> panel_sums;

// Write the part of a panel's sums that is inside the product to its place, plus a row of numbers.
inline void store_panel(const float* sums, const float* bias, int64_t height, int64_t width,
                        float* place, int64_t stride) {
  for (int64_t i = 0; i < height; ++i, sums += kPanel, place += stride) {
    for (int64_t j = 0; j < kPanel; j += kVector) {
      const __m512 sum = _mm512_loadu_ps(sums + j) + _mm512_loadu_ps(bias + j);
      _mm512_mask_storeu_ps(place + j, first(width - j), sum);
    }
  }
}

// c = a b + bias, of shape (a.outer, b.outer); `bias` may be null. With `a_sums`, also sum the left
// operand over the inner axis.
inline void multiply(const Operand& a, const Operand& b, const float* bias, float* c,
                     float* a_sums) {
  const int64_t rows = a.outer, columns = b.outer, inner = a.inner;
  const int64_t row_panels = (rows + kEdge - 1) / kEdge, edges = (columns + kEdge - 1) / kEdge;
  // In lines of 64 bytes: a row of the left operand, and a panel of the right one.
  const int64_t a_lines = a.depth() + 1, panel_lines = a.depth() * kEdge * kPanelVectors;
  char* a_packed = packing_space.lines(row_panels * kEdge * a_lines + panels(columns) * panel_lines);
  char* b_packed = a_packed + row_panels * kEdge * a_lines * kLine;
  std::vector<float> row(panels(columns) * kPanel);
  if (bias) std::copy_n(bias, columns, row.data());

  const int64_t row_bytes = 2 * std::min(inner, 2 * kChunk) + kPanel * sizeof(float);
  const int64_t task_rows = kTaskBytes / row_bytes / kTileHeight * kTileHeight;
  const int64_t row_tasks = (rows + task_rows - 1) / task_rows;
#pragma omp parallel
  {
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < row_panels; ++i) {
      char* start = a_packed + i * kEdge * a_lines * kLine;
      pack_tiles(a, i * kEdge, true, {start, a_lines * kLine, kLine}, a_sums);
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < edges; ++i) {
      char* panel = b_packed + i / kPanelVectors * panel_lines * kLine;
      constexpr int64_t kPanelLine = kPanelVectors * kLine;
      pack_tiles(b, i * kEdge, false,
                 {panel + i % kPanelVectors * kLine, kPanelLine, kEdge * kPanelLine}, nullptr);
    }
    panel_sums.resize(task_rows * kPanel);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < row_tasks * panels(columns); ++task) {
      const int64_t panel = task % panels(columns), top = task / panels(columns) * task_rows;
      const int64_t height = std::min(rows - top, task_rows), column = panel * kPanel;
      multiply_panel<Bfloat16>(
          height, inner, reinterpret_cast<uint16_t*>(a_packed + top * a_lines * kLine),
          a_lines * kDepth, reinterpret_cast<uint16_t*>(b_packed + panel * panel_lines * kLine),
          panel_sums.data(), kPanel);
      store_panel(panel_sums.data(), row.data() + column, height, columns - column,
                  c + top * columns + column, columns);
    }
  }
}
