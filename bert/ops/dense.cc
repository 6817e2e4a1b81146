// A dense layer over the last axis (bert_dense) whose products the matrix unit AMX computes, in
// bfloat16. With r the rounding to bfloat16, to the nearest, ties to even,
//
//   out = r(data) r(weight)^T + bias
//
// and the gradients are
//
//   d_data = r(d_out) r(weight), d_weight = r(d_out)^T r(data), d_bias = sum of d_out over rows.
//
// All arrays and all sums are float32. The operator does not exist if the compiler or the processor
// lacks AMX.
#ifdef __AMX_BF16__
#include <immintrin.h>

#include "operator.h"

namespace {

// A tile of the left operand is 16 rows of 32 numbers along the inner axis, in pairs of 32 bits. A
// tile of the right operand is transposed: 16 pairs of 16 columns. A tile of the product is 16 x 16
// float32.
constexpr int64_t kEdge = 16, kDepth = 32;
struct alignas(64) Tile {
  __m512i lines[kEdge];
};

// A block of the product is 2 x 2 tiles, which with two tiles of each operand fill the registers.
constexpr int64_t kBlock = 2 * kEdge;
// Bytes of the tiles of a task: they stay in the second-level cache.
constexpr int64_t kCache = 1 << 19;

// The left operand (outer, inner) or the right one (inner, outer). Along one of the two axes the
// numbers are contiguous; along the other they are `stride` apart.
struct Operand {
  const float* data;
  int64_t outer, inner, stride;
  bool inner_contiguous;

  // In tiles.
  int64_t panels() const { return 2 * ((outer + kBlock - 1) / kBlock); }
  int64_t depth() const { return (inner + kDepth - 1) / kDepth; }
};

__mmask16 first(int64_t count) {
  return count >= kEdge ? 0xffff : count <= 0 ? 0 : (1u << count) - 1;
}

// a[0], a[1], ... b[0], b[1], ... in bfloat16.
__m512i rounded(__m512 a, __m512 b) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a));
}

// Transpose 16 x 16 numbers of 32 bits: squares of 2 x 2, 4 x 4, 8 x 8, then the whole.
void transpose(Tile& tile) {
  __m512i *r = tile.lines, t[kEdge];
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

// Write the tiles of 16 rows of the left operand or 16 columns of the right one, with zeros beyond
// its edges. With `sums`, which requires a contiguous outer axis, also sum over the inner axis.
void pack_panel(const Operand& x, int64_t panel, bool left, Tile* tiles, float* sums) {
  const __m512i kInterleave = _mm512_set_epi16(
      31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19,
      3, 18, 2, 17, 1, 16, 0);
  const int64_t start = panel * kEdge, width = x.outer - start;
  const float* data = x.data + start * (x.inner_contiguous ? x.stride : 1);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t k = 0; k < x.inner; k += kDepth) {
    Tile tile;
    const int64_t rest = x.inner - k;
    if (x.inner_contiguous) {
      const float* p = data + k;
      const __mmask16 low = first(rest), high = first(rest - kEdge);
      for (int64_t i = 0; i < kEdge; ++i, p += x.stride) {
        const bool inside = i < width;
        tile.lines[i] = rounded(_mm512_maskz_loadu_ps(inside ? low : 0, p),
                                _mm512_maskz_loadu_ps(inside ? high : 0, p + kEdge));
      }
    } else {
      const float* p = data + k * x.stride;
      const __mmask16 mask = first(width);
      for (int64_t i = 0; i < kEdge; ++i, p += 2 * x.stride) {
        const __m512 even = _mm512_maskz_loadu_ps(2 * i < rest ? mask : 0, p);
        const __m512 odd = _mm512_maskz_loadu_ps(2 * i + 1 < rest ? mask : 0, p + x.stride);
        sum += even + odd;
        tile.lines[i] = _mm512_permutexvar_epi16(kInterleave, rounded(even, odd));
      }
    }
    if (x.inner_contiguous != left) transpose(tile);
    *tiles++ = tile;
  }
  if (sums) _mm512_mask_storeu_ps(sums + start, first(width), sum);
}

// A block of the product, computed from two panels of each operand, plus a row of numbers.
struct alignas(64) Block {
  float numbers[kBlock][kBlock];
};
void multiply_block(int64_t depth, const Tile* a, const Tile* b, const float* bias, Block& c) {
  constexpr int64_t kLine = 64, kRow = sizeof(float) * kBlock;
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
void store_block(const Block& block, int64_t height, int64_t width, float* place, int64_t stride) {
  const bool whole = width >= kBlock && reinterpret_cast<uintptr_t>(place) % 64 == 0 && stride % kEdge == 0;
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

// Memory for packed operands, kept between calls.
struct Workspace {
  std::vector<char> memory;

  Tile* tiles(int64_t count) {
    const size_t size = (count + 1) * sizeof(Tile);
    if (memory.size() < size) memory.resize(size);
    return reinterpret_cast<Tile*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  }
};
thread_local Workspace workspace;

// c = a b + bias, of shape (a.outer, b.outer); `bias` may be null. With `a_sums`, also sum the left
// operand over the inner axis.
void multiply(const Operand& a, const Operand& b, const float* bias, float* c, float* a_sums) {
  const int64_t depth = a.depth(), rows = a.outer, columns = b.outer;
  Tile* a_tiles = workspace.tiles((a.panels() + b.panels()) * depth);
  Tile* b_tiles = a_tiles + a.panels() * depth;
  std::vector<float> row(b.panels() * kEdge);
  if (bias) std::copy_n(bias, columns, row.data());
  const int64_t block_bytes = 2 * depth * sizeof(Tile);
  const int64_t task_rows = kBlock * std::max<int64_t>(1, kCache / (block_bytes + 1));
  const int64_t row_tasks = (rows + task_rows - 1) / task_rows, column_tasks = b.panels() / 2;
#pragma omp parallel
  {
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < a.panels(); ++i) {
      pack_panel(a, i, true, a_tiles + i * depth, a_sums);
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < b.panels(); ++i) pack_panel(b, i, false, b_tiles + i * depth, nullptr);
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

MXReturnValue dense(const Attributes&, Tensors* in, Tensors* out, const OpResource&) {
  const int64_t units = (*in)[1].shape[0], inputs = (*in)[1].shape[1];
  const int64_t rows = (*in)[0].size() / inputs;
  multiply({(*in)[0].data<float>(), rows, inputs, inputs, true},
           {(*in)[1].data<float>(), units, inputs, inputs, true}, (*in)[2].data<float>(),
           (*out)[0].data<float>(), nullptr);
  return MX_SUCCESS;
}

MXReturnValue dense_backward(const Attributes&, Tensors* in, Tensors* out, const OpResource&) {
  // The inputs are the gradient of the output, the inputs and the output.
  const int64_t units = (*in)[2].shape[0], inputs = (*in)[2].shape[1];
  const int64_t rows = (*in)[1].size() / inputs;
  const float* d_out = (*in)[0].data<float>();
  MXTensor &d_data = (*out)[0], &d_weight = (*out)[1], &d_bias = (*out)[2];
  if (wanted(d_data)) {
    multiply({d_out, rows, units, units, true},
             {(*in)[2].data<float>(), inputs, units, inputs, false}, nullptr, d_data.data<float>(),
             nullptr);
  }
  if (wanted(d_weight) || wanted(d_bias)) {
    std::vector<float> unwanted(wanted(d_weight) ? 0 : units * inputs);
    multiply({d_out, units, rows, units, false},
             {(*in)[1].data<float>(), inputs, rows, inputs, false}, nullptr,
             wanted(d_weight) ? d_weight.data<float>() : unwanted.data(),
             wanted(d_bias) ? d_bias.data<float>() : nullptr);
  }
  return MX_SUCCESS;
}

}  // namespace

REGISTER_OP(bert_dense)
    .setForward(dense, "cpu")
    .setBackward(dense_backward, "cpu")
    .setParseAttrs([](const Attributes&, int* inputs, int* outputs) {
      *inputs = 3;  // data, weight, bias
      *outputs = 1;
      return MX_SUCCESS;
    })
    .setInferType(float32_only)
    .setInferShape([](const Attributes&, Shapes* in, Shapes* out) {
      const auto& data = (*in)[0];
      auto& weight = (*in)[1];
      // Until Gluon has initialised a layer, its number of inputs is unknown, written as -1.
      if (!data.empty() && weight.size() == 2 && weight[1] == -1u) weight[1] = data.back();
      if (data.empty() || weight.size() != 2 || data.back() != weight[1] || weight[1] == 0 ||
          (*in)[2] != std::vector<unsigned>{weight[0]}) {
        return wrong_shape("a dense layer needs (..., inputs), (units, inputs) and (units,)");
      }
      (*out)[0] = data;
      (*out)[0].back() = weight[0];
      return MX_SUCCESS;
    });
#endif
