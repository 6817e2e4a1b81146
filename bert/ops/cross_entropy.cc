// Cross entropy of a softmax over many classes, such as the words of the masked language model.
//
//   loss = log(sum(exp(scores))) - scores[label]
//   best = the first class with the highest score
//
// for each row of scores. With p = softmax(scores) the gradient is (p - onehot(label)) * d_loss;
// `best` has none.
#include "operator.h"
#include "vector.h"

namespace {

// Scores whose exponentials a thread computes at a time.
constexpr int64_t kPart = 1024;

// The sum of exp(score - highest); the exponentials are written to `out` if it is not null.
float sum_exponentials(const float* scores, int64_t classes, float highest, float* out) {
  float sum = 0;
  for (int64_t start = 0; start < classes; start += kPart) {
    const int64_t count = std::min(kPart, classes - start);
    float part[kPart];
    for (int64_t i = 0; i < count; ++i) part[i] = scores[start + i] - highest;
    std::fill(part + count, part + (count + kVector - 1) / kVector * kVector, -1e30f);
    Vector sums{};
    for (int64_t i = 0; i < count; i += kVector) {
      const Vector y = exponential(vector_at(part + i));
      vector_at(part + i) = y;
      sums += y;
    }
    for (int64_t i = 0; i < kVector; ++i) sum += sums[i];
    if (out) std::copy_n(part, count, out + start);
  }
  return sum;
}

// A label out of range stands for the nearest class, as in MXNet's `pick`.
int64_t class_of(float label, int64_t classes) {
  return std::min(classes - 1, std::max(int64_t{0}, static_cast<int64_t>(label)));
}

int64_t highest_class(const float* scores, int64_t classes) {
  float highest = scores[0];
#pragma omp simd reduction(max : highest)
  for (int64_t i = 1; i < classes; ++i) highest = scores[i] > highest ? scores[i] : highest;
  return std::find(scores, scores + classes, highest) - scores;
}

MXReturnValue cross_entropy(const Attributes&, Tensors* in, Tensors* out, const OpResource&) {
  const int64_t rows = (*in)[0].shape[0], classes = (*in)[0].shape[1];
  const float *scores = (*in)[0].data<float>(), *labels = (*in)[1].data<float>();
  float *loss = (*out)[0].data<float>(), *best = (*out)[1].data<float>();
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const float* s = scores + row * classes;
    const int64_t first = std::min(highest_class(s, classes), classes - 1);  // NaN is never found
    const int64_t label = class_of(labels[row], classes);
    best[row] = static_cast<float>(first);
    loss[row] = std::log(sum_exponentials(s, classes, s[first], nullptr)) + s[first] - s[label];
  }
  return MX_SUCCESS;
}

MXReturnValue cross_entropy_backward(const Attributes&, Tensors* in, Tensors* out,
                                     const OpResource&) {
  // The inputs are the gradients of both outputs, the inputs and the outputs.
  const int64_t rows = (*in)[2].shape[0], classes = (*in)[2].shape[1];
  const float *d_loss = (*in)[0].data<float>(), *scores = (*in)[2].data<float>();
  const float *labels = (*in)[3].data<float>(), *best = (*in)[5].data<float>();
  if (wanted((*out)[0])) {
    float* d_scores = (*out)[0].data<float>();
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      const float* s = scores + row * classes;
      float* d = d_scores + row * classes;
      const auto first = static_cast<int64_t>(best[row]);
      const float factor = d_loss[row] / sum_exponentials(s, classes, s[first], d);
#pragma omp simd
      for (int64_t i = 0; i < classes; ++i) d[i] *= factor;
      d[class_of(labels[row], classes)] -= d_loss[row];
    }
  }
  fill_zeros((*out)[1]);
  return MX_SUCCESS;
}

}  // namespace

REGISTER_OP(bert_cross_entropy)
    .setForward(cross_entropy, "cpu")
    .setBackward(cross_entropy_backward, "cpu")
    .setParseAttrs([](const Attributes&, int* inputs, int* outputs) {
      *inputs = 2;   // scores, labels
      *outputs = 2;  // loss, best
      return MX_SUCCESS;
    })
    .setInferType(float32_only)
    .setInferShape([](const Attributes&, Shapes* in, Shapes* out) {
      const auto& scores = (*in)[0];
      if (scores.size() != 2 || scores[1] == 0 || (*in)[1] != std::vector<unsigned>{scores[0]}) {
        return wrong_shape("cross entropy needs (rows, classes) scores and a label for each row");
      }
      (*out)[0] = (*out)[1] = {scores[0]};
      return MX_SUCCESS;
    });
