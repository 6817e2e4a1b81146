// Products in bfloat16 by the vector instructions AVX512-BF16.
#pragma once

#include "dense_pack.h"
#include "product.h"

// Bytes of the rows of the left operand that a task multiplies with one panel after another, and of
// their sums: they stay in the second-level cache.
constexpr int64_t kTaskBytes = 1 << 19;

thread_local PackingSpace packing_space;
thread_local std::vector<float> edge;

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
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < row_tasks * panels(columns); ++task) {
      const int64_t panel = task % panels(columns), top = task / panels(columns) * task_rows;
      const int64_t height = std::min(rows - top, task_rows), column = panel * kPanel;
      const int64_t width = std::min(columns - column, kPanel);
      float* place = c + top * columns + column;
      // The last panel may be wider than the product.
      if (width < kPanel) edge.resize(height * kPanel);
      const bool whole = width == kPanel;
      multiply_panel<Bfloat16>(
          height, inner, reinterpret_cast<uint16_t*>(a_packed + top * a_lines * kLine),
          a_lines * kDepth, reinterpret_cast<uint16_t*>(b_packed + panel * panel_lines * kLine),
          row.data() + column, whole ? place : edge.data(), whole ? columns : kPanel);
      for (int64_t i = 0; i < height && !whole; ++i) {
        std::copy_n(edge.data() + i * kPanel, width, place + i * columns);
      }
    }
  }
}
