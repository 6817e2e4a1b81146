// Rounding the operands of a product to bfloat16 and putting them into tiles.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <vector>

// A tile of the left operand is 16 rows of 32 numbers along the inner axis, in pairs of 32 bits. A
// tile of the right operand is transposed: 16 pairs of 16 columns. A line of it takes 64 bytes.
constexpr int64_t kEdge = 16, kDepth = 32;
constexpr int64_t kLine = kDepth * sizeof(uint16_t);

// The left operand (outer, inner) or the right one (inner, outer). Along one of the two axes the
// numbers are contiguous; along the other they are `stride` apart.
struct Operand {
  const float* data;
  int64_t outer, inner, stride;
  bool inner_contiguous;

  // In tiles.
  int64_t depth() const { return (inner + kDepth - 1) / kDepth; }
};

inline __mmask16 first(int64_t count) {
  return count >= kEdge ? 0xffff : count <= 0 ? 0 : (1u << count) - 1;
}

// a[0], a[1], ... b[0], b[1], ... in bfloat16.
inline __m512i rounded(__m512 a, __m512 b) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a));
}

// Transpose 16 x 16 numbers of 32 bits: squares of 2 x 2, 4 x 4, 8 x 8, then the whole.
inline void transpose(__m512i* r) {
  __m512i t[kEdge];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 16; i += 8) {
    for (int j = i; j < i + 4; ++j) {
      t[j] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88);
      t[j + 4] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xdd);
    }
  }
  for (int i = 0; i < 8; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

// Write the tile of the rows or columns from `start` and the inner numbers from `k` on, with zeros
// beyond the edges, to lines that are `line` bytes apart. With `sums`, which requires a contiguous
// outer axis, also add the numbers to sums over the inner axis.
inline void pack_tile(const Operand& x, int64_t start, int64_t k, bool left, char* to, int64_t line,
                      float* sums) {
  const __m512i kInterleave = _mm512_set_epi16(
      31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19,
      3, 18, 2, 17, 1, 16, 0);
  const int64_t width = x.outer - start, rest = x.inner - k;
  __m512i lines[kEdge];
  if (x.inner_contiguous) {
    const float* p = x.data + start * x.stride + k;
    const __mmask16 low = first(rest), high = first(rest - kEdge);
    for (int64_t i = 0; i < kEdge; ++i, p += x.stride) {
      const bool inside = i < width;
      lines[i] = rounded(_mm512_maskz_loadu_ps(inside ? low : 0, p),
                         _mm512_maskz_loadu_ps(inside ? high : 0, p + kEdge));
    }
  } else {
    const float* p = x.data + k * x.stride + start;
    const __mmask16 mask = first(width);
    __m512 sum = sums ? _mm512_maskz_loadu_ps(mask, sums + start) : _mm512_setzero_ps();
    for (int64_t i = 0; i < kEdge; ++i, p += 2 * x.stride) {
      const __m512 even = _mm512_maskz_loadu_ps(2 * i < rest ? mask : 0, p);
      const __m512 odd = _mm512_maskz_loadu_ps(2 * i + 1 < rest ? mask : 0, p + x.stride);
      sum += even + odd;
      lines[i] = _mm512_permutexvar_epi16(kInterleave, rounded(even, odd));
    }
    if (sums) _mm512_mask_storeu_ps(sums + start, mask, sum);
  }
  if (x.inner_contiguous != left) transpose(lines);
  for (int64_t i = 0; i < kEdge; ++i) _mm512_store_si512(to + i * line, lines[i]);
}

// Memory whose lines are whole cache lines, kept between calls.
struct PackingSpace {
  std::vector<char> memory;

  char* lines(int64_t count) {
    const size_t size = (count + 1) * kLine;
    if (memory.size() < size) memory.resize(size);
    return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  }
};
