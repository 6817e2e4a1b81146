// LayerNorm of one row; layer_norm.cc has the equations.
#pragma once

#include <cmath>
#include <cstdint>

struct Row {
  float mean, inverse_deviation;
};

inline Row statistics(const float* s, int64_t units, float epsilon) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < units; ++i) sum += s[i];
  const float mean = sum / units;
  float squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < units; ++i) squares += (s[i] - mean) * (s[i] - mean);
  return {mean, 1 / std::sqrt(squares / units + epsilon)};
}

// `out` may be `s` itself.
inline void normalise(const float* s, int64_t units, const float* gamma, const float* beta,
                      float epsilon, float* out) {
  const Row r = statistics(s, units, epsilon);
#pragma omp simd
  for (int64_t i = 0; i < units; ++i) {
    out[i] = (s[i] - r.mean) * r.inverse_deviation * gamma[i] + beta[i];
  }
}
