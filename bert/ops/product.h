// Products with matrices that do not change, packed in the order in which they are read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "vector.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
constexpr int kPanelVectors = 4;
#else
constexpr int kPanelVectors = 2;
#endif
// The columns that are stored together, and the rows of a tile of the product, whose sums take 24 of
// the 32 registers of AVX-512, or 12 of 16.
constexpr int64_t kPanel = kPanelVectors * kVector, kTileHeight = 6;
// The lines of a panel that serve all rows of the left operand before the next ones do.
constexpr int64_t kChunk = 512;
// Rows of arrays that are read together must not lie a power of two apart, where they would share
// few places of the cache.
constexpr int64_t kApart = 16;

inline int64_t panels(int64_t columns) { return (columns + kPanel - 1) / kPanel; }
// The distance of rows with room for whole panels.
inline int64_t row_distance(int64_t columns) { return panels(columns) * kPanel + kApart; }

// Both types of packed numbers have what it takes to multiply one line of a panel: kTogether
// consecutive numbers of the inner axis for each of its columns.
struct Float32 {
  using Number = float;
  static constexpr int64_t kTogether = 1;

  static Vector multiply_add(const float* factor, const float* line, Vector sum) {
    return sum + *factor * vector_at(line);
  }
  static void round(const float* from, int64_t size, float* to) { std::copy_n(from, size, to); }
};

#ifdef __AVX512BF16__
struct Bfloat16 {
  using Number = uint16_t;
  static constexpr int64_t kTogether = 2;

  static Vector multiply_add(const uint16_t* factor, const uint16_t* line, Vector sum) {
    int32_t pair;
    std::memcpy(&pair, factor, sizeof pair);
    return reinterpret_cast<Vector>(
        _mm512_dpbf16_ps(reinterpret_cast<__m512>(sum),
                         reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair)),
                         reinterpret_cast<__m512bh>(_mm512_loadu_si512(line))));
  }
  static void round(const float* from, int64_t size, uint16_t* to) {
    for (int64_t i = 0; i < size; i += kVector) {
      const int64_t rest = std::min(kVector, size - i);
      const __mmask16 mask = (1u << rest) - 1;
      const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from + i));
      _mm256_mask_storeu_epi16(to + i, mask, reinterpret_cast<__m256i>(rounded));
    }
  }
};
#endif

// The lines of a panel for `inner` numbers, and the numbers of a packed matrix.
template <typename Type>
int64_t lines(int64_t inner) {
  return (inner + Type::kTogether - 1) / Type::kTogether;
}
template <typename Type>
int64_t packed_size(int64_t columns, int64_t inner) {
  return panels(columns) * kPanel * lines<Type>(inner) * Type::kTogether;
}

// Pack a matrix of shape (columns, inner), as a dense layer has it.
template <typename Type>
void pack_matrix(const float* from, int64_t columns, int64_t inner, typename Type::Number* to) {
  const int64_t width = lines<Type>(inner) * Type::kTogether;
#pragma omp parallel for schedule(static)
  for (int64_t panel = 0; panel < panels(columns); ++panel) {
    typename Type::Number* place = to + panel * kPanel * width;
    std::vector<typename Type::Number> row(width);
    for (int64_t j = 0; j < kPanel; ++j) {
      const int64_t column = panel * kPanel + j;
      std::fill(row.begin(), row.end(), 0);
      if (column < columns) Type::round(from + column * inner, inner, row.data());
      for (int64_t k = 0; k < width; ++k) {
        const int64_t line = k / Type::kTogether, part = k % Type::kTogether;
        place[(line * kPanel + j) * Type::kTogether + part] = row[k];
      }
    }
  }
}

// The numbers that sums begin with, of rows that are `distance` apart.
struct Start {
  const float* data;
  int64_t distance;
};

// A tile of the product: kRows rows, one panel. Each line asks for one of `next` ahead of its use.
template <typename Type, int kRows, bool kAhead>
inline void multiply_panel_tile(int64_t count, const typename Type::Number* a, int64_t a_row,
                                const typename Type::Number* b, Start start, float* c,
                                int64_t c_row, const char* next) {
  Vector sums[kRows][kPanelVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kPanelVectors; ++j) {
      __builtin_prefetch(c + i * c_row + j * kVector, 1);  // to be written at the end
      sums[i][j] = vector_at(start.data + i * start.distance + j * kVector);
    }
  }
  for (int64_t l = 0; l < count; ++l, a += Type::kTogether, b += kPanel * Type::kTogether) {
    if (kAhead) __builtin_prefetch(next + l * 64, 0, 2);
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < kPanelVectors; ++j) {
        sums[i][j] =
            Type::multiply_add(a + i * a_row, b + j * kVector * Type::kTogether, sums[i][j]);
      }
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kPanelVectors; ++j) vector_at(c + i * c_row + j * kVector) = sums[i][j];
  }
}

// As many of up to kRows rows as there are.
template <typename Type, int kRows, bool kAhead>
inline void multiply_panel_rows(int64_t rows, int64_t count, const typename Type::Number* a,
                                int64_t a_row, const typename Type::Number* b, Start start,
                                float* c, int64_t c_row, const char* next) {
  if (rows == kRows) {
    multiply_panel_tile<Type, kRows, kAhead>(count, a, a_row, b, start, c, c_row, next);
  } else if constexpr (kRows > 1) {
    multiply_panel_rows<Type, kRows - 1, kAhead>(rows, count, a, a_row, b, start, c, c_row, next);
  }
}

template <typename Type>
inline void multiply_panel_chunk(int64_t rows, int64_t count, const typename Type::Number* a,
                                 int64_t a_row, const typename Type::Number* b, Start start,
                                 float* c, int64_t c_row) {
  // A line of a panel has kPanelVectors cache lines, so these many tiles ask for all of the next.
  const char* next = reinterpret_cast<const char*>(b + count * kPanel * Type::kTogether);
  for (int64_t i = 0, tile = 0; i < rows; i += kTileHeight, ++tile) {
    const int64_t height = std::min(kTileHeight, rows - i);
    if (tile < kPanelVectors) {
      multiply_panel_rows<Type, kTileHeight, true>(height, count, a, a_row, b, start, c, c_row,
                                                   next + tile * count * 64);
    } else {
      multiply_panel_rows<Type, kTileHeight, false>(height, count, a, a_row, b, start, c, c_row,
                                                    nullptr);
    }
    a += kTileHeight * a_row, start.data += kTileHeight * start.distance, c += kTileHeight * c_row;
  }
}

// c = a b + bias for one panel of b: a is rows x inner, c is rows x kPanel.
template <typename Type>
void multiply_panel(int64_t rows, int64_t inner, const typename Type::Number* a, int64_t a_row,
                    const typename Type::Number* b, const float* bias, float* c, int64_t c_row) {
  const int64_t total = lines<Type>(inner);
  Start start{bias, 0};
  int64_t line = 0;
  do {  // at least once: without inner numbers, the sums are the bias
    const int64_t count = std::min(kChunk, total - line), offset = line * Type::kTogether;
    multiply_panel_chunk<Type>(rows, count, a + offset, a_row, b + offset * kPanel, start, c,
                               c_row);
    start = {c, c_row};
    line += kChunk;
  } while (line < total);
}
