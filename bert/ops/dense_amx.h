// Products in bfloat16 by the matrix unit AMX.
#pragma once

#include "dense_pack.h"

struct alignas(64) Tile {
  __m512i lines[kEdge];
};

// A block of the product is 2 x 2 tiles of 16 x 16 float32, which with two tiles of each operand
// fill the registers.
constexpr int64_t kBlock = 2 * kEdge;
// Bytes of the tiles of a task: they stay in the second-level cache.
constexpr int64_t kCache = 1 << 19;

// A block of the product, computed from two panels of each operand, plus a row of numbers.
struct alignas(64) Block {
  float numbers[kBlock][kBlock];
};
inline void multiply_block(int64_t depth, const Tile* a, const Tile* b, const float* bias,
                           Block& c) {
  constexpr int64_t kRow = sizeof(float) * kBlock;
  asm volatile("" ::: "memory");  // complete all writes: the tile loads declare no reads
  _tile_loadd(0, bias, 0);
  _tile_loadd(1, bias + kEdge, 0);
  _tile_loadd(2, bias, 0);
  _tile_loadd(3, bias + kEdge, 0);
  for (int64_t k = 0; k < depth; ++k) {
    _tile_loadd(4, a + k, kLine);
    _tile_loadd(6, b + k, kLine);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + depth + k, kLine);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + depth + k, kLine);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c.numbers[0], kRow);
  _tile_stored(1, c.numbers[0] + kEdge, kRow);
  _tile_stored(2, c.numbers[kEdge], kRow);
  _tile_stored(3, c.numbers[kEdge] + kEdge, kRow);
}

// Write the part of a block that is inside the product to its place. The product is larger than the
// caches: whole cache lines bypass them, which saves reading the lines first.
inline void store_block(const Block& block, int64_t height, int64_t width, float* place,
                        int64_t stride) {
  const bool whole =
      width >= kBlock && reinterpret_cast<uintptr_t>(place) % 64 == 0 && stride % kEdge == 0;
  const __mmask16 low = first(width), high = first(width - kEdge);
  for (int64_t i = 0; i < std::min(height, kBlock); ++i, place += stride) {
    const __m512 left = _mm512_load_ps(block.numbers[i]);
    const __m512 right = _mm512_load_ps(block.numbers[i] + kEdge);
    if (whole) {
      _mm512_stream_ps(place, left);
      _mm512_stream_ps(place + kEdge, right);
    } else {
      _mm512_mask_storeu_ps(place, low, left);
      _mm512_mask_storeu_ps(place + kEdge, high, right);
    }
  }
}

// The shapes of the eight registers for ldtilecfg: 16 lines of 64 bytes each.
struct alignas(64) TileConfiguration {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t lines[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
const TileConfiguration kConfiguration;

thread_local PackingSpace packing_space;

// Panels of 16 rows of the left operand or 16 columns of the right one, for whole blocks.
inline int64_t tile_panels(const Operand& x) { return 2 * ((x.outer + kBlock - 1) / kBlock); }

inline void pack_panel(const Operand& x, int64_t panel, bool left, Tile* tiles, float* sums) {
  const int64_t start = panel * kEdge;
  for (int64_t k = 0; k < x.inner; k += kDepth, ++tiles) {
    pack_tile(x, start, k, left, reinterpret_cast<char*>(tiles), kLine, sums);
  }
}

// c = a b + bias, of shape (a.outer, b.outer); `bias` may be null. With `a_sums`, also sum the left
// operand over the inner axis.
inline void multiply(const Operand& a, const Operand& b, const float* bias, float* c,
                     float* a_sums) {
  const int64_t depth = a.depth(), rows = a.outer, columns = b.outer;
  const int64_t a_panels = tile_panels(a), b_panels = tile_panels(b);
  char* space = packing_space.lines((a_panels + b_panels) * depth * kEdge);
  Tile* a_tiles = reinterpret_cast<Tile*>(space);
  Tile* b_tiles = a_tiles + a_panels * depth;
  std::vector<float> row(b_panels * kEdge);
  if (bias) std::copy_n(bias, columns, row.data());
  if (a_sums) std::fill_n(a_sums, rows, 0.0f);
  const int64_t block_bytes = 2 * depth * sizeof(Tile);
  const int64_t task_rows = kBlock * std::max<int64_t>(1, kCache / (block_bytes + 1));
  const int64_t row_tasks = (rows + task_rows - 1) / task_rows, column_tasks = b_panels / 2;
#pragma omp parallel
  {
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < a_panels; ++i) pack_panel(a, i, true, a_tiles + i * depth, a_sums);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < b_panels; ++i) pack_panel(b, i, false, b_tiles + i * depth, nullptr);
    _tile_loadconfig(&kConfiguration);
#pragma omp for schedule(dynamic) nowait
    for (int64_t task = 0; task < row_tasks * column_tasks; ++task) {
      const int64_t column = task % column_tasks * kBlock, top = task / column_tasks * task_rows;
      for (int64_t i = top; i < std::min(rows, top + task_rows); i += kBlock) {
        Block block;
        multiply_block(depth, a_tiles + i / kEdge * depth, b_tiles + column / kEdge * depth,
                       row.data() + column, block);
        store_block(block, rows - i, columns - column, c + i * columns + column, columns);
      }
    }
    _mm_sfence();  // before other threads read
    _tile_release();
  }
}
