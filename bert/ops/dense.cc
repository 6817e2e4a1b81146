// A dense layer over the last axis (bert_dense) with products in bfloat16. With r the rounding to
// bfloat16, to the nearest, ties to even,
//
//   out = r(data) r(weight)^T + bias
//
// and the gradients are
//
//   d_data = r(d_out) r(weight), d_weight = r(d_out)^T r(data), d_bias = sum of d_out over rows.
//
// All arrays and all sums are float32. The matrix unit AMX computes the products, or else the
// instructions AVX512-BF16; if compiler or processor lack both, the operator does not exist.
#include "operator.h"

#if defined(__AMX_BF16__)
#include "dense_amx.h"
#elif defined(__AVX512BF16__)
#include "dense_avx512.h"
#endif

#ifdef __AVX512BF16__  // which processors with AMX have too
namespace {

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
