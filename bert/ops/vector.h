// Vectors of floats as wide as the processor's registers, and the exponential for the softmax.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#ifdef __AVX512F__
constexpr int64_t kVector = 16;
#else
constexpr int64_t kVector = 8;
#endif

typedef float Vector __attribute__((vector_size(kVector * sizeof(float)), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(kVector * sizeof(int32_t))));

inline int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

inline Vector& vector_at(float* p) { return *reinterpret_cast<Vector*>(p); }
inline const Vector& vector_at(const float* p) { return *reinterpret_cast<const Vector*>(p); }

// exp(x) for x <= 0 within 2 units in the last place: 2^n * 2^f with |f| <= 1/2, where 2^f is the
// Taylor series of exp(f ln 2). Results below the smallest normal number are 0. NaN stays NaN.
inline Vector exponential(Vector x) {
  constexpr float kToInteger = 12582912.0f;  // 1.5 * 2^23: adding it rounds
  const Vector n = (x * 1.44269504f + kToInteger) - kToInteger;
  const Vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vector y = r * (1.0f / 5040) + 1.0f / 720;
  y = y * r + 1.0f / 120;
  y = y * r + 1.0f / 24;
  y = y * r + 1.0f / 6;
  y = y * r + 0.5f;
  y = y * r + 1.0f;
  y = y * r + 1.0f;
  const Integers power = (__builtin_convertvector(n, Integers) + 127) << 23;
  y *= reinterpret_cast<const Vector&>(power);
  return x < -87.0f ? Vector{} : y;
}

// Replace a row of scores by exp(score - max), and by zeros from `valid` to `padded`, a multiple of
// kVector; return their sum. It is NaN if a score is NaN or infinity, or all are minus infinity.
inline float exponentials(float* scores, int64_t valid, int64_t padded) {
  std::fill(scores + valid, scores + padded, -std::numeric_limits<float>::infinity());
  Vector highest = vector_at(scores);
  for (int64_t j = kVector; j < padded; j += kVector) {
    const Vector x = vector_at(scores + j);
    highest = x > highest ? x : highest;
  }
  float maximum = highest[0];
  for (int64_t i = 1; i < kVector; ++i) maximum = std::max(maximum, highest[i]);
  Vector sums{};
  for (int64_t j = 0; j < padded; j += kVector) {
    const Vector y = exponential(vector_at(scores + j) - maximum);
    vector_at(scores + j) = y;
    sums += y;
  }
  float sum = 0;
  for (int64_t i = 0; i < kVector; ++i) sum += sums[i];
  return sum;
}
