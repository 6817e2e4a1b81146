// Products of matrices that are small enough to stay in the cache.
#pragma once

#include <algorithm>
#include <cstdint>

#include "vector.h"

#ifdef __AVX512F__
constexpr int kTileRows = 8;  // of the product, which 8 x 2 of the 32 registers hold
#else
constexpr int kTileRows = 4;  // 4 x 2 of the 16
#endif

// A tile of the product, kRows x (kVectors * kVector).
template <int kRows, int kVectors, bool kAdd>
inline void multiply_tile(int64_t inner, const float* a, int64_t a_row, int64_t a_column,
                          const float* b, int64_t b_row, float* c, int64_t c_row) {
  Vector sums[kRows][kVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) {
      sums[i][j] = kAdd ? vector_at(c + i * c_row + j * kVector) : Vector{};
    }
  }
  for (int64_t l = 0; l < inner; ++l) {
    Vector row[kVectors];
    for (int j = 0; j < kVectors; ++j) row[j] = vector_at(b + l * b_row + j * kVector);
    for (int i = 0; i < kRows; ++i) {
      const float factor = a[i * a_row + l * a_column];
      for (int j = 0; j < kVectors; ++j) sums[i][j] += factor * row[j];
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) vector_at(c + i * c_row + j * kVector) = sums[i][j];
  }
}

// The rows of a strip of kVectors vectors: tiles of kRows rows, then smaller ones.
template <int kRows, int kVectors, bool kAdd>
inline void multiply_strip(int64_t rows, int64_t inner, const float* a, int64_t a_row,
                           int64_t a_column, const float* b, int64_t b_row, float* c,
                           int64_t c_row) {
  int64_t i = 0;
  for (; i + kRows <= rows; i += kRows) {
    multiply_tile<kRows, kVectors, kAdd>(inner, a + i * a_row, a_row, a_column, b, b_row,
                                         c + i * c_row, c_row);
  }
  if constexpr (kRows > 1) {
    multiply_strip<kRows / 2, kVectors, kAdd>(rows - i, inner, a + i * a_row, a_row, a_column, b,
                                              b_row, c + i * c_row, c_row);
  }
}

// c = a b, or with kAdd c += a b: a is rows x inner with any strides, b is inner x columns and c
// rows x columns, with contiguous rows; columns is a multiple of kVector.
template <bool kAdd>
inline void multiply(int64_t rows, int64_t columns, int64_t inner, const float* a, int64_t a_row,
                     int64_t a_column, const float* b, int64_t b_row, float* c, int64_t c_row) {
  int64_t j = 0;
  for (; j + 2 * kVector <= columns; j += 2 * kVector) {
    multiply_strip<kTileRows, 2, kAdd>(rows, inner, a, a_row, a_column, b + j, b_row, c + j, c_row);
  }
  if (j < columns) {
    multiply_strip<kTileRows, 1, kAdd>(rows, inner, a, a_row, a_column, b + j, b_row, c + j, c_row);
  }
}

// Copy rows x width, scaled, to contiguous rows; fill with zeros from `width` to `padded`.
inline void pack(const float* from, int64_t stride, int64_t rows, int64_t width, float factor,
                 float* to, int64_t padded) {
  for (int64_t i = 0; i < rows; ++i, from += stride, to += padded) {
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) to[j] = factor * from[j];
    std::fill(to + width, to + padded, 0.0f);
  }
}

// Copy rows x width, scaled, as width x rows; fill with zeros from `rows` to `padded`.
inline void pack_transposed(const float* from, int64_t stride, int64_t rows, int64_t width,
                            float factor, float* to, int64_t padded) {
  // In squares, so that the lines written to stay in the cache.
  for (int64_t start = 0; start < rows; start += kVector) {
    const int64_t stop = std::min(rows, start + kVector);
    for (int64_t j = 0; j < width; ++j) {
      for (int64_t i = start; i < stop; ++i) to[j * padded + i] = factor * from[i * stride + j];
    }
  }
  for (int64_t j = 0; j < width; ++j) std::fill(to + j * padded + rows, to + (j + 1) * padded, 0.0f);
}

// The reverse of `pack`.
inline void unpack(const float* from, int64_t padded, int64_t rows, int64_t width, float factor,
                   float* to, int64_t stride) {
  for (int64_t i = 0; i < rows; ++i, from += padded, to += stride) {
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) to[j] = factor * from[j];
  }
}
