// The updates of BERTAdam and LAMB over all parameters at once, and the global norm of gradients.
//
//   g = factor * gradient
//   m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2
//   u = scale m / (sqrt(v) + epsilon) + decay w
//   BERTAdam: w = w - rate u
//   LAMB:     w = w - rate |w| / |u| u, where |w| / |u| is 1 if either norm is 0
//
// BERTAdam reads and writes each array once. LAMB needs the norms over a whole array before it can
// move its weights; it then computes u again, which moves less memory than keeping it would.
#include "operator.h"

namespace {

// Elements that a thread processes at a time.
constexpr int64_t kChunk = 1 << 16;

struct Chunk {
  size_t array;
  int64_t start, stop;
};

std::vector<Chunk> cut(const Tensors& arrays, size_t first, size_t count) {
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < count; ++i) {
    const int64_t size = arrays[first + i].size();
    for (int64_t start = 0; start < size; start += kChunk) {
      chunks.push_back({i, start, std::min(size, start + kChunk)});
    }
  }
  return chunks;
}

MXReturnValue sum_of_squares(const Attributes&, Tensors* in, Tensors* out, const OpResource&) {
  const std::vector<Chunk> chunks = cut(*in, 0, in->size());
  std::vector<double> sums(chunks.size());
#pragma omp parallel for schedule(static)
  for (size_t i = 0; i < chunks.size(); ++i) {
    const float* g = (*in)[chunks[i].array].data<float>();
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = chunks[i].start; j < chunks[i].stop; ++j) sum += g[j] * g[j];
    sums[i] = sum;
  }
  double total = 0;
  for (double sum : sums) total += sum;
  *(*out)[0].data<float>() = static_cast<float>(total);
  return MX_SUCCESS;
}

// Inputs: rates (count, 2) of learning rate and weight decay, factor (1,), then count weights,
// count gradients, count first moments and count second moments.
constexpr size_t kFirst = 2;

// u of the equations above.
inline float direction(float m, float v, float w, float scale, float epsilon, float decay) {
  return scale * m / (std::sqrt(v) + epsilon) + decay * w;
}

// For each array |w| / |u|, from the squares of w and u summed over its chunks, in a fixed order.
std::vector<float> trust_ratios(const std::vector<Chunk>& chunks, size_t count,
                                const std::vector<double>& w, const std::vector<double>& u) {
  std::vector<double> squares(count), others(count);
  for (size_t i = 0; i < chunks.size(); ++i) {
    squares[chunks[i].array] += w[i];
    others[chunks[i].array] += u[i];
  }
  std::vector<float> ratios(count, 1.0f);
  for (size_t i = 0; i < count; ++i) {
    const double ratio = std::sqrt(squares[i]) / std::sqrt(others[i]);
    if (squares[i] > 0 && others[i] > 0) ratios[i] = static_cast<float>(ratio);
  }
  return ratios;
}

template <bool kIsLamb>
MXReturnValue update(const Attributes& attributes, Tensors* in, Tensors* out, const OpResource&) {
  const auto count = static_cast<size_t>(number(attributes, "count"));
  const auto beta1 = static_cast<float>(number(attributes, "beta1"));
  const auto beta2 = static_cast<float>(number(attributes, "beta2"));
  const auto rest1 = static_cast<float>(1 - number(attributes, "beta1"));
  const auto rest2 = static_cast<float>(1 - number(attributes, "beta2"));
  const auto epsilon = static_cast<float>(number(attributes, "epsilon"));
  const auto scale = static_cast<float>(number(attributes, "scale"));
  const float* rates = (*in)[0].data<float>();
  const float factor = *(*in)[1].data<float>();
  // As in MXNet's own updates, a gradient that overflowed leaves weights and moments as they are.
  const bool applied = std::isfinite(factor) && factor != 0;
  *(*out)[0].data<float>() = applied;
  if (!applied) return MX_SUCCESS;
  const std::vector<Chunk> chunks = cut(*in, kFirst, count);
  std::vector<double> w_squares(chunks.size()), u_squares(chunks.size());
#pragma omp parallel for schedule(static)
  for (size_t i = 0; i < chunks.size(); ++i) {
    const size_t array = kFirst + chunks[i].array;
    float* w = (*in)[array].data<float>();
    const float* gradient = (*in)[array + count].data<float>();
    float* m = (*in)[array + 2 * count].data<float>();
    float* v = (*in)[array + 3 * count].data<float>();
    const float rate = rates[2 * chunks[i].array], decay = rates[2 * chunks[i].array + 1];
    float w_sum = 0, u_sum = 0;
#pragma omp simd reduction(+ : w_sum, u_sum)
    for (int64_t j = chunks[i].start; j < chunks[i].stop; ++j) {
      const float g = factor * gradient[j];
      m[j] = beta1 * m[j] + rest1 * g;
      v[j] = beta2 * v[j] + rest2 * g * g;
      const float u = direction(m[j], v[j], w[j], scale, epsilon, decay);
      if (kIsLamb) {
        w_sum += w[j] * w[j];
        u_sum += u * u;
      } else {
        w[j] -= rate * u;
      }
    }
    w_squares[i] = w_sum;
    u_squares[i] = u_sum;
  }
  if (!kIsLamb) return MX_SUCCESS;
  const std::vector<float> ratios = trust_ratios(chunks, count, w_squares, u_squares);
#pragma omp parallel for schedule(static)
  for (size_t i = 0; i < chunks.size(); ++i) {
    const size_t array = kFirst + chunks[i].array;
    float* w = (*in)[array].data<float>();
    const float* m = (*in)[array + 2 * count].data<float>();
    const float* v = (*in)[array + 3 * count].data<float>();
    const float rate = rates[2 * chunks[i].array] * ratios[chunks[i].array];
    const float decay = rates[2 * chunks[i].array + 1];
#pragma omp simd
    for (int64_t j = chunks[i].start; j < chunks[i].stop; ++j) {
      w[j] -= rate * direction(m[j], v[j], w[j], scale, epsilon, decay);
    }
  }
  return MX_SUCCESS;
}

MXReturnValue update_shape(const Attributes& attributes, Shapes* in, Shapes* out) {
  const auto count = static_cast<size_t>(number(attributes, "count"));
  if ((*in)[0] != std::vector<unsigned>{static_cast<unsigned>(count), 2}) {
    return wrong_shape("the update needs a learning rate and a weight decay for each array");
  }
  for (size_t i = kFirst; i < kFirst + count; ++i) {
    for (size_t kind = 1; kind < 4; ++kind) {
      if ((*in)[i + kind * count] != (*in)[i]) {
        return wrong_shape("a weight has another shape than its gradient or moments");
      }
    }
  }
  (*out)[0] = {1};
  return MX_SUCCESS;
}

// The attributes of both updates.
MXReturnValue parse_update(const Attributes& attributes, int* inputs, int* outputs) {
  if (!require(attributes, {"count", "beta1", "beta2", "epsilon", "scale"})) return MX_FAIL;
  *inputs = static_cast<int>(kFirst + 4 * number(attributes, "count"));
  *outputs = 1;
  return MX_SUCCESS;
}

// Weights and moments change, gradients do not.
MXReturnValue mutated(const Attributes& attributes, std::vector<int>* indices) {
  const auto count = static_cast<int>(number(attributes, "count"));
  for (int kind : {0, 2, 3}) {
    for (int i = 0; i < count; ++i) indices->push_back(static_cast<int>(kFirst) + kind * count + i);
  }
  return MX_SUCCESS;
}

}  // namespace

REGISTER_OP(bert_sum_of_squares)
    .setForward(sum_of_squares, "cpu")
    .setParseAttrs([](const Attributes& attributes, int* inputs, int* outputs) {
      if (!require(attributes, {"count"})) return MX_FAIL;
      *inputs = static_cast<int>(number(attributes, "count"));
      *outputs = 1;
      return MX_SUCCESS;
    })
    .setInferType(float32_only)
    .setInferShape([](const Attributes&, Shapes*, Shapes* out) {
      (*out)[0] = {1};
      return MX_SUCCESS;
    });

// MXNet requires an output; it is 1, or 0 if nothing was updated as the factor was 0 or not finite.
REGISTER_OP(bert_adam)
    .setForward(update<false>, "cpu")
    .setParseAttrs(parse_update)
    .setInferType(float32_only)
    .setInferShape(update_shape)
    .setMutateInputs(mutated);

REGISTER_OP(bert_lamb)
    .setForward(update<true>, "cpu")
    .setParseAttrs(parse_update)
    .setInferType(float32_only)
    .setInferShape(update_shape)
    .setMutateInputs(mutated);
