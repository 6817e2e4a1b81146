// Shared by the operators: reading attributes, and checking the shapes and types of arrays.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <locale>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

#include "mxnet/lib_api.h"

using namespace mxnet::ext;

using Attributes = std::unordered_map<std::string, std::string>;
using Tensors = std::vector<MXTensor>;
using Types = std::vector<int>;
using Shapes = std::vector<std::vector<unsigned>>;

// Whether a text begins with a number, with a decimal point whatever the program's locale.
inline bool read_number(const std::string& text, double& value) {
  std::istringstream stream(text);
  stream.imbue(std::locale::classic());
  return static_cast<bool>(stream >> value);
}

// `require` has checked before that the attribute is there and is a number.
inline double number(const Attributes& attributes, const char* name) {
  double value = 0;
  read_number(attributes.at(name), value);
  return value;
}

// For setParseAttrs: reject a call in which an attribute is missing.
inline MXReturnValue require(const Attributes& attributes, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (!attributes.count(name)) {
      MX_ERROR_MSG << "the attribute " << name << " is missing";
      return MX_FAIL;
    }
    double value;
    if (!read_number(attributes.at(name), value)) {
      MX_ERROR_MSG << "the attribute " << name << " is no number: " << attributes.at(name);
      return MX_FAIL;
    }
  }
  return MX_SUCCESS;
}

// For setInferType: everything is float32, including inputs that have no type yet (below 0).
inline MXReturnValue float32_only(const Attributes&, Types* inputs, Types* outputs) {
  for (int& type : *inputs) {
    if (type < 0) type = kFloat32;
    if (type != kFloat32) {
      MX_ERROR_MSG << "this operator computes with float32 only";
      return MX_FAIL;
    }
  }
  std::fill(outputs->begin(), outputs->end(), static_cast<int>(kFloat32));
  return MX_SUCCESS;
}

inline MXReturnValue wrong_shape(const char* what) {
  MX_ERROR_MSG << what;
  return MX_FAIL;
}

// MXNet allocates no memory for a gradient that is not needed.
inline bool wanted(MXTensor& gradient) { return gradient.data_ptr != nullptr; }

inline void fill_zeros(MXTensor& gradient) {
  if (wanted(gradient)) std::fill_n(gradient.data<float>(), gradient.size(), 0.0f);
}
