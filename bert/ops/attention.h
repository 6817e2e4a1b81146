// The forward pass of one attention head; attention.cc has the equations.
#pragma once

#include <cmath>
#include <vector>

#include "matrix.h"
#include "random.h"

// Queries in a block: a multiple of 8, so that the masks of a block start with a new tile.
constexpr int64_t kQueries = 32;

// Memory of one thread, kept between calls.
struct Workspace {
  std::vector<float> memory;
  float* next;

  void start(int64_t size) {
    if (static_cast<int64_t>(memory.size()) < size) memory.resize(size);
    next = memory.data();
  }
  float* take(int64_t size) {
    float* taken = next;
    next += size;
    return taken;
  }
};

// The valid queries, keys and values of a head: where they begin, and how far rows are apart.
struct Head {
  const float *q, *k, *v;
  int64_t q_row, kv_row, queries, keys, width;
};

// The masks of a head; null in evaluation. `pitch` is the distance between queries in them.
struct HeadDropout {
  const Dropout* dropout;
  int64_t plane, pitch;
};

inline void multiply_row(float* row, const float* factors, int64_t size) {
#pragma omp simd
  for (int64_t j = 0; j < size; ++j) row[j] *= factors[j];
}

// Write the context vectors of all queries to rows of `out`.
inline void attend(const Head& head, const HeadDropout& mask, Workspace& workspace, float* out,
                   int64_t out_row) {
  const int64_t n = head.keys, keys = round_up(n, kVector);
  const int64_t width = head.width, wide = round_up(width, kVector);
  workspace.start(width * keys + n * wide + kQueries * (keys + wide + mask.pitch) + kTile);
  float* k_transposed = workspace.take(width * keys);
  float* v = workspace.take(n * wide);
  float* p = workspace.take(kQueries * keys);
  float* context = workspace.take(kQueries * wide);
  float* factors = workspace.take(kQueries * mask.pitch + kTile);
  pack_transposed(head.k, head.kv_row, n, width, 1 / std::sqrt(static_cast<float>(width)),
                  k_transposed, keys);
  pack(head.v, head.kv_row, n, width, 1, v, wide);
  for (int64_t first = 0; first < head.queries; first += kQueries) {
    const int64_t count = std::min(kQueries, head.queries - first);
    multiply<false>(count, keys, width, head.q + first * head.q_row, head.q_row, 1, k_transposed,
                    keys, p, keys);
    if (mask.dropout) mask.dropout->fill(mask.plane, first, count, mask.pitch, factors);
    float sums[kQueries];
    for (int64_t i = 0; i < count; ++i) {
      sums[i] = exponentials(p + i * keys, n, keys);
      if (mask.dropout) multiply_row(p + i * keys, factors + i * mask.pitch, n);
    }
    multiply<false>(count, wide, n, p, keys, 1, v, wide, context, wide);
    for (int64_t i = 0; i < count; ++i) {
      float* o = out + (first + i) * out_row;
      const float factor = 1 / sums[i];
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) o[j] = context[i * wide + j] * factor;
    }
  }
}
