// LayerNorm (Ba et al. 2016), by itself and after a dropout and a residual connection.
//
//   s = dropout(data) + residual          (bert_layer_norm: s = data)
//   x = (s - mean(s)) / sqrt(var(s) + eps)
//   out = gamma * x + beta
//
// over the last axis. With d = gamma * d_out, the gradients are
//
//   d_s = (d - mean(d) - x * mean(d * x)) / sqrt(var(s) + eps)
//   d_data = dropout(d_s), d_residual = d_s
//   d_gamma = sum of d_out * x, d_beta = sum of d_out   over all rows.
//
// The backward pass recomputes s and x while a row is in the cache, which saves storing them.
#include <omp.h>

#include "layer_norm.h"
#include "operator.h"
#include "random.h"
#include "vector.h"

namespace {

// Threads take rows in blocks, whose dropout masks start with a new tile.
constexpr int64_t kBlock = 8;

// The inputs of both operators; `residual` is null for bert_layer_norm.
struct Inputs {
  const float *data, *residual, *gamma, *beta;
  int64_t rows, units, pitch;
  float epsilon;
  const Dropout* dropout;  // null if nothing is dropped

  // s of one row; `factors` are the row's dropout factors.
  void sum(int64_t row, const float* factors, float* s) const {
    const float* x = data + row * units;
    if (!residual) {
      std::copy_n(x, units, s);
      return;
    }
    const float* r = residual + row * units;
    if (dropout) {
#pragma omp simd
      for (int64_t i = 0; i < units; ++i) s[i] = x[i] * factors[i] + r[i];
    } else {
#pragma omp simd
      for (int64_t i = 0; i < units; ++i) s[i] = x[i] + r[i];
    }
  }

  // Call work(row, s, factors) for all rows in parallel.
  template <typename Work>
  void each_row(const Work& work) const {
#pragma omp parallel
    {
      std::vector<float> s(units), factors(dropout ? round_up(kBlock * pitch, kTile) : 0);
#pragma omp for schedule(static)
      for (int64_t block = 0; block < rows; block += kBlock) {
        const int64_t count = std::min(kBlock, rows - block);
        if (dropout) dropout->fill(0, block, count, pitch, factors.data());
        for (int64_t i = 0; i < count; ++i) {
          const float* row_factors = factors.data() + (dropout ? i * pitch : 0);
          sum(block + i, row_factors, s.data());
          work(block + i, s.data(), row_factors);
        }
      }
    }
  }
};

void forward(const Inputs& in, float* out) {
  in.each_row([&](int64_t row, const float* s, const float*) {
    normalise(s, in.units, in.gamma, in.beta, in.epsilon, out + row * in.units);
  });
}

// Any of the gradients may be null.
void backward(const Inputs& in, const float* d_out, float* d_data, float* d_residual,
              float* d_gamma, float* d_beta) {
  const int64_t units = in.units;
  // Each thread has its own sums for gamma and beta, added up in the order of the threads.
  std::vector<float> sums(2 * units * omp_get_max_threads());
  in.each_row([&](int64_t row, const float* s, const float* factors) {
    const Row r = statistics(s, units, in.epsilon);
    const float* dy = d_out + row * units;
    float* gamma_sums = sums.data() + 2 * units * omp_get_thread_num();
    float* beta_sums = gamma_sums + units;
    float mean = 0, projection = 0;
#pragma omp simd reduction(+ : mean, projection)
    for (int64_t i = 0; i < units; ++i) {
      const float x = (s[i] - r.mean) * r.inverse_deviation, d = dy[i] * in.gamma[i];
      mean += d;
      projection += d * x;
      gamma_sums[i] += dy[i] * x;
      beta_sums[i] += dy[i];
    }
    mean /= units;
    projection /= units;
    float* dx = d_data ? d_data + row * units : nullptr;
    float* dr = d_residual ? d_residual + row * units : nullptr;
    for (int64_t start = 0; start < units; start += kTile) {
      const int64_t stop = std::min(units, start + kTile);
      float d_s[kTile];
#pragma omp simd
      for (int64_t i = start; i < stop; ++i) {
        const float x = (s[i] - r.mean) * r.inverse_deviation;
        d_s[i - start] = (dy[i] * in.gamma[i] - mean - x * projection) * r.inverse_deviation;
      }
      if (dr) std::copy_n(d_s, stop - start, dr + start);
      if (dx && in.dropout) {
#pragma omp simd
        for (int64_t i = start; i < stop; ++i) dx[i] = d_s[i - start] * factors[i];
      } else if (dx) {
        std::copy_n(d_s, stop - start, dx + start);
      }
    }
  });
  const auto add_up = [&](float* gradient, int64_t offset) {
    if (!gradient) return;
    std::fill_n(gradient, units, 0.0f);
    for (size_t thread = 0; thread < sums.size() / (2 * units); ++thread) {
      const float* part = sums.data() + 2 * units * thread + offset;
      for (int64_t i = 0; i < units; ++i) gradient[i] += part[i];
    }
  };
  add_up(d_gamma, 0);
  add_up(d_beta, units);
}

Inputs read_inputs(const Attributes& attributes, MXTensor& data, MXTensor* residual,
                   MXTensor& gamma, MXTensor& beta) {
  Inputs in;
  in.data = data.data<float>();
  in.residual = residual ? residual->data<float>() : nullptr;
  in.gamma = gamma.data<float>();
  in.beta = beta.data<float>();
  in.units = gamma.size();
  in.rows = data.size() / in.units;
  in.pitch = round_up(in.units, 16);
  in.epsilon = static_cast<float>(number(attributes, "epsilon"));
  in.dropout = nullptr;
  return in;
}

MXReturnValue same_shape(Shapes* inputs, Shapes* outputs, size_t gamma) {
  const auto& data = (*inputs)[0];
  if (data.empty() || data.back() == 0) return wrong_shape("LayerNorm needs a last axis of size 1 or more");
  for (size_t i = 1; i < gamma; ++i) {
    if ((*inputs)[i] != data) return wrong_shape("data and residual have different shapes");
  }
  for (size_t i = gamma; i < gamma + 2; ++i) {
    if ((*inputs)[i] != std::vector<unsigned>{data.back()}) {
      return wrong_shape("gamma and beta must be as long as the last axis of data");
    }
  }
  (*outputs)[0] = data;
  return MX_SUCCESS;
}

float* pointer(MXTensor& gradient) { return wanted(gradient) ? gradient.data<float>() : nullptr; }

MXReturnValue layer_norm(const Attributes& attributes, Tensors* in, Tensors* out, const OpResource&) {
  const Inputs inputs = read_inputs(attributes, (*in)[0], nullptr, (*in)[1], (*in)[2]);
  forward(inputs, (*out)[0].data<float>());
  return MX_SUCCESS;
}

MXReturnValue layer_norm_backward(const Attributes& attributes, Tensors* in, Tensors* out,
                                  const OpResource&) {
  const Inputs inputs = read_inputs(attributes, (*in)[1], nullptr, (*in)[2], (*in)[3]);
  backward(inputs, (*in)[0].data<float>(), pointer((*out)[0]), nullptr, pointer((*out)[1]),
           pointer((*out)[2]));
  return MX_SUCCESS;
}

MXReturnValue dropout_add_layer_norm(const Attributes& attributes, Tensors* in, Tensors* out,
                                     const OpResource&) {
  Inputs inputs = read_inputs(attributes, (*in)[0], &(*in)[1], (*in)[2], (*in)[3]);
  const Dropout dropout((*in)[4], number(attributes, "rate"), number(attributes, "site"));
  if (dropout.active()) inputs.dropout = &dropout;
  forward(inputs, (*out)[0].data<float>());
  return MX_SUCCESS;
}

MXReturnValue dropout_add_layer_norm_backward(const Attributes& attributes, Tensors* in,
                                              Tensors* out, const OpResource&) {
  Inputs inputs = read_inputs(attributes, (*in)[1], &(*in)[2], (*in)[3], (*in)[4]);
  const Dropout dropout((*in)[5], number(attributes, "rate"), number(attributes, "site"));
  if (dropout.active()) inputs.dropout = &dropout;
  backward(inputs, (*in)[0].data<float>(), pointer((*out)[0]), pointer((*out)[1]),
           pointer((*out)[2]), pointer((*out)[3]));
  fill_zeros((*out)[4]);
  return MX_SUCCESS;
}

}  // namespace

REGISTER_OP(bert_layer_norm)
    .setForward(layer_norm, "cpu")
    .setBackward(layer_norm_backward, "cpu")
    .setParseAttrs([](const Attributes& attributes, int* inputs, int* outputs) {
      *inputs = 3;  // data, gamma, beta
      *outputs = 1;
      return require(attributes, {"epsilon"});
    })
    .setInferType(float32_only)
    .setInferShape([](const Attributes&, Shapes* in, Shapes* out) { return same_shape(in, out, 1); });

REGISTER_OP(bert_dropout_add_layer_norm)
    .setForward(dropout_add_layer_norm, "cpu")
    .setBackward(dropout_add_layer_norm_backward, "cpu")
    .setParseAttrs([](const Attributes& attributes, int* inputs, int* outputs) {
      *inputs = 5;  // data, residual, gamma, beta, seed
      *outputs = 1;
      return require(attributes, {"epsilon", "rate", "site"});
    })
    .setInferType(float32_only)
    .setInferShape([](const Attributes&, Shapes* in, Shapes* out) { return same_shape(in, out, 2); });
