// Dropout masks from a counter-based generator: any thread can recompute the bits of any element at
// any time, so the backward pass needs no stored mask.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "operator.h"

// A tile is what one call generates: 16 blocks of the generator side by side, of 8 numbers each.
constexpr int kLanes = 16, kTile = 8 * kLanes;
typedef uint32_t Lanes __attribute__((vector_size(kLanes * sizeof(uint32_t))));
typedef uint16_t Numbers __attribute__((vector_size(kLanes * sizeof(uint16_t))));

// Threefry4x32 with 13 rounds; 12 pass all of BigCrush (Salmon et al. 2011, "Parallel random
// numbers: as easy as 1, 2, 3", table 2). Philox, from the same paper, needs 64-bit products, which
// are slow on vector units.
inline void threefry(const uint32_t (&key)[4], Lanes (&x)[4]) {
  constexpr int kRounds = 13;
  constexpr int kRotations[8][2] = {{10, 26}, {11, 21}, {13, 27}, {23, 5},
                                    {6, 20},  {17, 11}, {25, 10}, {18, 20}};
  const uint32_t keys[5] = {key[0], key[1], key[2], key[3],
                            0x1BD11BDAu ^ key[0] ^ key[1] ^ key[2] ^ key[3]};
  for (int word = 0; word < 4; ++word) x[word] += keys[word];
#pragma GCC unroll 13
  for (int round = 0; round < kRounds; ++round) {
    const int a = round % 2 ? 3 : 1, b = 4 - a;
    const int left = kRotations[round % 8][0], right = kRotations[round % 8][1];
    x[0] += x[a];
    x[a] = (x[a] << left | x[a] >> (32 - left)) ^ x[0];
    x[2] += x[b];
    x[b] = (x[b] << right | x[b] >> (32 - right)) ^ x[2];
    if (round % 4 == 3) {
      const uint32_t injection = round / 4 + 1;
      for (int word = 0; word < 4; ++word) x[word] += keys[(injection + word) % 5];
      x[3] += injection;
    }
  }
}

// The numbers of one tile: a plane of a dropout is a row of tiles.
inline void random_tile(uint64_t seed, uint32_t site, uint32_t plane, uint32_t tile,
                        uint16_t* out) {
  const uint32_t key[4] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), site,
                           plane};
  constexpr Lanes kCount = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  Lanes x[4] = {kCount + tile * kLanes, Lanes{}, Lanes{}, Lanes{}};
  threefry(key, x);
  for (int word = 0; word < 4; ++word) {
    const Numbers numbers[2] = {__builtin_convertvector(x[word], Numbers),
                                __builtin_convertvector(x[word] >> 16, Numbers)};
    std::memcpy(out + 2 * word * kLanes, numbers, sizeof numbers);
  }
}

// One dropout of the model. An external operator cannot ask MXNet whether it is training, so the
// seed is the result of MXNet's own Dropout, applied to 64 ones with rate 0.5: in evaluation they
// stay ones, in training they become 64 random bits that follow mx.random.seed.
class Dropout {
 public:
  // `site` is different for each dropout of a step.
  Dropout(MXTensor& seed, double rate, uint32_t site) : site_(site) {
    const float* values = seed.data<float>();
    for (int64_t i = 0; i < seed.size(); ++i) {
      key_ |= uint64_t{values[i] > 0} << (i % 64);
      active_ |= values[i] != 1;
    }
    threshold_ = static_cast<int>(std::lround(rate * 65536));
    active_ &= threshold_ > 0;
    scale_ = active_ ? 65536.0f / (65536 - threshold_) : 1.0f;
  }

  bool active() const { return active_; }
  // The factor of the elements that are kept, which preserves the expectation.
  float scale() const { return scale_; }

  // Write the factors, `scale()` or 0, of `rows` rows of a plane, from row `first` on. `pitch`, the
  // distance between rows, is a multiple of 16; `first` and, except at the end, `rows` are
  // multiples of 8. `factors` has room for whole tiles.
  void fill(uint32_t plane, int64_t first, int64_t rows, int64_t pitch, float* factors) const {
    const int64_t start = first * pitch / kTile, stop = ((first + rows) * pitch + kTile - 1) / kTile;
    const float scale = scale_;
    const int threshold = threshold_;
    uint16_t bits[kTile];
    for (int64_t tile = start; tile < stop; ++tile, factors += kTile) {
      random_tile(key_, site_, plane, static_cast<uint32_t>(tile), bits);
#pragma omp simd
      for (int i = 0; i < kTile; ++i) factors[i] = bits[i] >= threshold ? scale : 0.0f;
    }
  }

 private:
  uint64_t key_ = 0;
  uint32_t site_;
  int threshold_;
  bool active_ = false;
  float scale_;
};
