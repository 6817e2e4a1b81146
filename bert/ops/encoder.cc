// BERT's embeddings and encoder (Devlin et al. 2018) in evaluation, with weights packed beforehand.
//
//   x = LayerNorm(word + token type + position)
//   and in each layer (Vaswani et al. 2017, section 3)
//   x = LayerNorm(x + dense(attention(x)))
//   x = LayerNorm(x + dense(gelu(dense(x))))
//
// bert_pack_layer puts the weights of a layer into the order in which bert_encode reads them, which
// would otherwise be done in each product of each pass. Padding is left out: the tokens of all rows
// lie one after another.
//
// If there are many rows, each thread takes some of them through all layers by itself. Otherwise the
// threads share the columns of each product, and wait for each other before the next.
#include <omp.h>

#include <atomic>
#include <thread>

#include "attention.h"
#include "layer_norm.h"
#include "operator.h"
#include "product.h"

namespace {

// The fewest tokens that a thread takes by itself: each reads all the weights.
constexpr int64_t kOwnTokens = 96;
// The fewest rows into which a product is cut, and the parts of it that a thread should have then.
constexpr int64_t kFewRows = 4 * kTileHeight, kEven = 4;

struct Sizes {
  int64_t layers, units, hidden, heads;
  bool tanh_gelu, first_only;
  float epsilon;
};

// Where the parts of a packed layer begin, in numbers of float32.
template <typename Type>
struct Layout {
  struct Dense {
    int64_t matrix, bias;
  };
  Dense query, key_value, project, widen, narrow;
  int64_t attention_gamma, attention_beta, gamma, beta, size = 0;

  Layout(int64_t units, int64_t hidden) {
    query = dense(units, units);
    key_value = dense(2 * units, units);
    project = dense(units, units);
    attention_gamma = take(units);
    attention_beta = take(units);
    widen = dense(hidden, units);
    narrow = dense(units, hidden);
    gamma = take(units);
    beta = take(units);
  }
  int64_t take(int64_t count) {
    const int64_t start = size;
    size += round_up(count, 16);  // whole cache lines
    return start;
  }
  Dense dense(int64_t columns, int64_t inner) {
    const int64_t numbers = packed_size<Type>(columns, inner);
    const int64_t matrix = take(numbers * sizeof(typename Type::Number) / sizeof(float));
    return {matrix, take(panels(columns) * kPanel)};
  }
};

// Threads that compute one thing together, or one that computes by itself.
struct Team {
  int index = 0, count = 1;
  std::atomic<int64_t>* arrived = nullptr;
  int64_t rounds = 0;

  // Wait until all have arrived. It takes less than OpenMP's barrier, which may put threads to sleep,
  // and after a while lets other processes run.
  void wait() {
    if (count == 1) return;
    const int64_t goal = ++rounds * count;
    arrived->fetch_add(1, std::memory_order_acq_rel);
    for (int turns = 0; arrived->load(std::memory_order_acquire) < goal; ++turns) {
      if (turns > 2000) {
        std::this_thread::yield();
      } else {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
      }
    }
  }
  // Call work(i) for this thread's part of 0 to total.
  template <typename Work>
  void each(int64_t total, const Work& work) const {
    for (int64_t i = total * index / count; i < total * (index + 1) / count; ++i) work(i);
  }
};

// erf(|x|) = 1 - t (a1 + ... + a5 t^4) exp(-x^2) with t = 1 / (1 + p |x|), within 1.5e-7 (Abramowitz
// and Stegun 1964, 7.1.26).
inline Vector gelu_erf(Vector x) {
  const Vector z = x * 0.70710678f, magnitude = z < 0 ? -z : z;
  const Vector t = 1.0f / (1.0f + 0.3275911f * magnitude);
  Vector y = t * 1.061405429f - 1.453152027f;
  y = y * t + 1.421413741f;
  y = y * t - 0.284496736f;
  y = y * t + 0.254829592f;
  const Vector tail = y * t * exponential(-z * z);  // erfc(|z|)
  return 0.5f * x * (z < 0 ? tail : 2.0f - tail);
}

// 1 + tanh(z) = 2 / (1 + exp(-2 z)) (Hendrycks and Gimpel 2016).
inline Vector gelu_tanh(Vector x) {
  const Vector z = 0.79788456f * (x + 0.044715f * x * x * x);
  const Vector e = exponential(z < 0 ? 2.0f * z : -2.0f * z);
  return x * (z < 0 ? e : Vector{} + 1.0f) / (1.0f + e);
}

enum class Activation { none, gelu_erf, gelu_tanh };

template <Activation kActivation>
void activate(int64_t rows, float* c, int64_t c_row) {
  for (int64_t i = 0; i < rows; ++i, c += c_row) {
    for (int64_t j = 0; j < kPanel; j += kVector) {
      Vector& x = vector_at(c + j);
      x = kActivation == Activation::gelu_erf ? gelu_erf(x) : gelu_tanh(x);
    }
  }
}

// Rows of activations, `distance` apart.
struct Rows {
  float* data;
  int64_t distance;

  float* operator[](int64_t i) const { return data + i * distance; }
};

thread_local Workspace workspace;
thread_local std::vector<uint16_t> rounded;

// This thread's columns of a dense layer.
template <typename Type>
void dense(const Team& team, int64_t rows, Rows in, const float* packed,
           typename Layout<Type>::Dense layer, int64_t columns, int64_t inner,
           Activation activation, Rows out) {
  using Number = typename Type::Number;
  const auto* matrix = reinterpret_cast<const Number*>(packed + layer.matrix);
  const int64_t panel_size = kPanel * lines<Type>(inner) * Type::kTogether;
  const Number* a = nullptr;
  int64_t a_row = in.distance;
  if constexpr (std::is_same<Type, Float32>::value) {
    a = in.data;
  } else {
    a_row = lines<Type>(inner) * Type::kTogether + 2 * kApart;
    if (static_cast<int64_t>(rounded.size()) < rows * a_row) rounded.resize(rows * a_row);
    for (int64_t i = 0; i < rows; ++i) {
      Number* row = rounded.data() + i * a_row;
      Type::round(in[i], inner, row);
      std::fill(row + inner, row + lines<Type>(inner) * Type::kTogether, 0);
    }
    a = rounded.data();
  }
  // If the panels cannot be shared out evenly, the rows are cut too, as far as there are many.
  const int64_t all = panels(columns);
  const int64_t wanted = all % team.count ? (kEven * team.count + all - 1) / all : 1;
  const int64_t most = std::max<int64_t>(1, rows / kFewRows);
  const int64_t height = (rows + std::min(wanted, most) - 1) / std::min(wanted, most);
  const int64_t parts = (rows + height - 1) / height;
  team.each(all * parts, [&](int64_t task) {
    const int64_t panel = task / parts, row = task % parts * height;
    const int64_t count = std::min(height, rows - row);
    float* c = out[row] + panel * kPanel;
    const float* bias = packed + layer.bias + panel * kPanel;
    multiply_panel<Type>(count, inner, a + row * a_row, a_row, matrix + panel * panel_size, bias, c,
                         out.distance);
    switch (activation) {
      case Activation::none: return;
      case Activation::gelu_erf: return activate<Activation::gelu_erf>(count, c, out.distance);
      case Activation::gelu_tanh: return activate<Activation::gelu_tanh>(count, c, out.distance);
    }
  });
}

// A row of the batch, and where its tokens begin among those of its group.
struct Sequence {
  int64_t row, start, length;
};
struct Group {
  std::vector<Sequence> sequences;
  int64_t tokens = 0;
};

// The inputs and the output.
struct Problem {
  Sizes sizes;
  int64_t length, words, types;
  const int32_t *ids, *token_types;
  const float *word, *token_type, *position, *gamma, *beta;
  std::vector<const float*> layers;
  float* out;
};

// The activations of a group.
struct Activations {
  std::vector<float> memory;
  Rows x, query, key_value, context, projected, wide;

  Activations(const Sizes& sizes, int64_t tokens) {
    const int64_t unit = row_distance(sizes.units), pair = row_distance(2 * sizes.units);
    const int64_t hidden = row_distance(sizes.hidden);
    memory.resize(tokens * (4 * unit + pair + hidden));
    float* next = memory.data();
    const auto take = [&](int64_t distance) {
      const Rows rows{next, distance};
      next += tokens * distance;
      return rows;
    };
    x = take(unit), query = take(unit), context = take(unit), projected = take(unit);
    key_value = take(pair), wide = take(hidden);
  }
};

int64_t clamp(int64_t value, int64_t size) { return std::min(std::max<int64_t>(value, 0), size - 1); }

void embed(const Problem& problem, const Sequence& sequence, int64_t place, float* x) {
  const int64_t units = problem.sizes.units, at = sequence.row * problem.length + place;
  const float* word = problem.word + clamp(problem.ids[at], problem.words) * units;
  const float* type = problem.token_type + clamp(problem.token_types[at], problem.types) * units;
  const float* position = problem.position + place * units;
#pragma omp simd
  for (int64_t i = 0; i < units; ++i) x[i] = word[i] + type[i] + position[i];
  normalise(x, units, problem.gamma, problem.beta, problem.sizes.epsilon, x);
}

// x = LayerNorm(x + projected) for this thread's rows.
void add_normalise(const Team& team, int64_t rows, const Sizes& sizes, const Activations& at,
                   const float* gamma, const float* beta) {
  team.each(rows, [&](int64_t i) {
    float* x = at.x[i];
    const float* other = at.projected[i];
#pragma omp simd
    for (int64_t j = 0; j < sizes.units; ++j) x[j] += other[j];
    normalise(x, sizes.units, gamma, beta, sizes.epsilon, x);
  });
}

// Take a group through all layers.
template <typename Type>
void encode(const Problem& problem, const Group& group, Team team, const Activations& at) {
  const Sizes& sizes = problem.sizes;
  const Layout<Type> layout(sizes.units, sizes.hidden);
  const auto& sequences = group.sequences;
  const int64_t count = sequences.size(), units = sizes.units;
  const auto gelu = sizes.tanh_gelu ? Activation::gelu_tanh : Activation::gelu_erf;
  const auto none = Activation::none;
  for (const Sequence& sequence : sequences) {
    team.each(sequence.length,
              [&](int64_t i) { embed(problem, sequence, i, at.x[sequence.start + i]); });
  }
  team.wait();
  int64_t rows = group.tokens;
  bool first_only = false;
  for (int64_t number = 0; number < sizes.layers; ++number) {
    const float* packed = problem.layers[number];
    dense<Type>(team, rows, at.x, packed, layout.key_value, 2 * units, units, none, at.key_value);
    if (sizes.first_only && number == sizes.layers - 1) {
      // From here on, only the first tokens: they move to the first rows.
      team.wait();
      if (team.index == 0) {
        for (int64_t i = 0; i < count; ++i) std::copy_n(at.x[sequences[i].start], units, at.x[i]);
      }
      team.wait();
      first_only = true;
      rows = count;
    }
    dense<Type>(team, rows, at.x, packed, layout.query, units, units, none, at.query);
    team.wait();
    const int64_t width = units / sizes.heads;
    team.each(count * sizes.heads, [&](int64_t i) {
      const Sequence& sequence = sequences[i / sizes.heads];
      const int64_t column = i % sizes.heads * width;
      const int64_t query = first_only ? i / sizes.heads : sequence.start;
      const float* keys = at.key_value[sequence.start] + column;
      attend({at.query[query] + column, keys, keys + units, at.query.distance,
              at.key_value.distance, first_only ? 1 : sequence.length, sequence.length, width},
             {nullptr, 0, 0}, workspace, at.context[query] + column, at.context.distance);
    });
    team.wait();
    dense<Type>(team, rows, at.context, packed, layout.project, units, units, none, at.projected);
    team.wait();
    add_normalise(team, rows, sizes, at, packed + layout.attention_gamma,
                  packed + layout.attention_beta);
    team.wait();
    dense<Type>(team, rows, at.x, packed, layout.widen, sizes.hidden, units, gelu, at.wide);
    team.wait();
    dense<Type>(team, rows, at.wide, packed, layout.narrow, units, sizes.hidden, none,
                at.projected);
    team.wait();
    add_normalise(team, rows, sizes, at, packed + layout.gamma, packed + layout.beta);
    team.wait();
  }
  const int64_t length = sizes.first_only ? 1 : problem.length;
  team.each(count, [&](int64_t i) {
    const Sequence& sequence = sequences[i];
    const int64_t tokens = first_only ? 1 : sequence.length;
    const int64_t start = first_only ? i : sequence.start;
    float* out = problem.out + sequence.row * length * units;
    for (int64_t j = 0; j < tokens; ++j) std::copy_n(at.x[start + j], units, out + j * units);
    std::fill(out + tokens * units, out + length * units, 0.0f);
  });
}

// Cut the rows of a batch into groups of at least `tokens` tokens.
std::vector<Group> make_groups(const std::vector<int64_t>& lengths, int64_t tokens) {
  std::vector<Group> groups;
  for (size_t row = 0; row < lengths.size(); ++row) {
    if (groups.empty() || groups.back().tokens >= tokens) groups.emplace_back();
    Group& group = groups.back();
    group.sequences.push_back({static_cast<int64_t>(row), group.tokens, lengths[row]});
    group.tokens += lengths[row];
  }
  return groups;
}

template <typename Type>
void encode_batch(const Problem& problem, const std::vector<int64_t>& lengths) {
  const int threads = omp_get_max_threads();
  auto groups = make_groups(lengths, kOwnTokens);
  int64_t largest = 0, total = 0;
  for (const Group& group : groups) {
    largest = std::max(largest, group.tokens);
    total += group.tokens;
  }
  const int64_t rounds = (groups.size() + threads - 1) / threads;
  // By themselves, all threads may have to wait for one with the largest groups.
  if (threads > 1 && 4 * rounds * largest * threads > 5 * total) {
    groups = make_groups(lengths, INT64_MAX);
    const Activations at(problem.sizes, groups[0].tokens);
    std::atomic<int64_t> arrived{0};
#pragma omp parallel num_threads(threads)
    encode<Type>(problem, groups[0], {omp_get_thread_num(), omp_get_num_threads(), &arrived}, at);
    return;
  }
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (size_t i = 0; i < groups.size(); ++i) {
    encode<Type>(problem, groups[i], {}, Activations(problem.sizes, groups[i].tokens));
  }
}

Sizes read_sizes(const Attributes& attributes) {
  const auto whole = [&](const char* name) { return static_cast<int64_t>(number(attributes, name)); };
  Sizes sizes;
  sizes.layers = whole("layers"), sizes.units = whole("units"), sizes.hidden = whole("hidden");
  sizes.heads = whole("heads");
  sizes.tanh_gelu = whole("tanh_gelu"), sizes.first_only = whole("first_only");
  sizes.epsilon = number(attributes, "epsilon");
  return sizes;
}

// Call work.operator()<Type>() for the type that the attribute `bfloat16` asks for.
template <typename Work>
MXReturnValue with_type(const Attributes& attributes, const Work& work) {
  if (number(attributes, "bfloat16") == 0) {
    work(Float32{});
    return MX_SUCCESS;
  }
#ifdef __AVX512BF16__
  work(Bfloat16{});
  return MX_SUCCESS;
#else
  return wrong_shape("this processor does not multiply bfloat16 numbers");
#endif
}

// The inputs of bert_encode before the layers, and those of bert_pack_layer.
enum Input { kIds, kTypes, kLengths, kWord, kTokenType, kPosition, kGamma, kBeta, kLayers };
constexpr int kLayerInputs = 16;

MXReturnValue encode_forward(const Attributes& attributes, Tensors* in, Tensors* out,
                             const OpResource&) {
  Tensors& x = *in;
  Problem problem;
  problem.sizes = read_sizes(attributes);
  problem.length = x[kIds].shape[1];
  problem.words = x[kWord].shape[0], problem.types = x[kTokenType].shape[0];
  problem.ids = x[kIds].data<int32_t>(), problem.token_types = x[kTypes].data<int32_t>();
  problem.word = x[kWord].data<float>(), problem.token_type = x[kTokenType].data<float>();
  problem.position = x[kPosition].data<float>();
  problem.gamma = x[kGamma].data<float>(), problem.beta = x[kBeta].data<float>();
  for (size_t i = kLayers; i < x.size(); ++i) problem.layers.push_back(x[i].data<float>());
  problem.out = (*out)[0].data<float>();
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < x[kIds].shape[0]; ++i) {
    const auto length = static_cast<int64_t>(x[kLengths].data<float>()[i]);
    lengths.push_back(std::min(std::max<int64_t>(length, 1), problem.length));
  }
  return with_type(attributes, [&](auto type) { encode_batch<decltype(type)>(problem, lengths); });
}

MXReturnValue encode_shape(const Attributes& attributes, Shapes* in, Shapes* out) {
  const Sizes sizes = read_sizes(attributes);
  const auto& ids = (*in)[kIds];
  const auto units = static_cast<unsigned>(sizes.units);
  if (ids.size() != 2 || (*in)[kTypes] != ids ||
      (*in)[kLengths] != std::vector<unsigned>{ids[0]}) {
    return wrong_shape("the encoder needs (batch, length) ids and token types, (batch,) lengths");
  }
  if (sizes.heads < 1 || sizes.units % sizes.heads) {
    return wrong_shape("the units are not divided by the heads");
  }
  for (int i : {kWord, kTokenType, kPosition}) {
    if ((*in)[i].size() != 2 || (*in)[i][1] != units) {
      return wrong_shape("an embedding needs one row of units for each of its numbers");
    }
  }
  if ((*in)[kPosition][0] < ids[1]) return wrong_shape("there are more tokens than positions");
  if ((*in)[kGamma] != std::vector<unsigned>{units} || (*in)[kBeta] != (*in)[kGamma]) {
    return wrong_shape("LayerNorm needs a number for each unit");
  }
  unsigned size = 0;
  const auto status = with_type(attributes, [&](auto type) {
    size = Layout<decltype(type)>(sizes.units, sizes.hidden).size;
  });
  if (status == MX_FAIL) return status;
  for (size_t i = kLayers; i < in->size(); ++i) {
    if ((*in)[i] != std::vector<unsigned>{size}) {
      return wrong_shape("a layer is not packed by bert_pack_layer for these sizes");
    }
  }
  (*out)[0] = {ids[0], sizes.first_only ? 1u : ids[1], units};
  return MX_SUCCESS;
}

MXReturnValue encode_types(const Attributes&, Types* in, Types* out) {
  for (size_t i = 0; i < in->size(); ++i) {
    const int wanted = i <= kTypes ? kInt32 : kFloat32;
    if ((*in)[i] != wanted) {
      MX_ERROR_MSG << "the encoder needs int32 ids and token types, all else float32";
      return MX_FAIL;
    }
  }
  (*out)[0] = kFloat32;
  return MX_SUCCESS;
}

// Weight and bias of query, key, value, projection; gamma and beta; weight and bias of the two
// layers of the feed-forward network; gamma and beta.
MXReturnValue pack_forward(const Attributes& attributes, Tensors* in, Tensors* out,
                           const OpResource&) {
  Tensors& x = *in;
  const int64_t units = x[0].shape[0], hidden = x[10].shape[0];
  float* packed = (*out)[0].data<float>();
  return with_type(attributes, [&](auto type) {
    using Type = decltype(type);
    const Layout<Type> layout(units, hidden);
    std::fill_n(packed, layout.size, 0.0f);
    const auto pack_dense = [&](typename Layout<Type>::Dense to, const float* matrix,
                                const float* bias, int64_t columns, int64_t inner) {
      pack_matrix<Type>(matrix, columns, inner,
                        reinterpret_cast<typename Type::Number*>(packed + to.matrix));
      std::copy_n(bias, columns, packed + to.bias);
    };
    const auto at = [&](int i) { return x[i].data<float>(); };
    std::vector<float> matrix(2 * units * units), bias(2 * units);
    std::copy_n(at(4), units * units, std::copy_n(at(2), units * units, matrix.data()));
    std::copy_n(at(5), units, std::copy_n(at(3), units, bias.data()));
    pack_dense(layout.query, at(0), at(1), units, units);
    pack_dense(layout.key_value, matrix.data(), bias.data(), 2 * units, units);
    pack_dense(layout.project, at(6), at(7), units, units);
    std::copy_n(at(8), units, packed + layout.attention_gamma);
    std::copy_n(at(9), units, packed + layout.attention_beta);
    pack_dense(layout.widen, at(10), at(11), hidden, units);
    pack_dense(layout.narrow, at(12), at(13), units, hidden);
    std::copy_n(at(14), units, packed + layout.gamma);
    std::copy_n(at(15), units, packed + layout.beta);
  });
}

MXReturnValue pack_shape(const Attributes& attributes, Shapes* in, Shapes* out) {
  if ((*in)[0].size() != 2 || (*in)[10].size() != 2) {
    return wrong_shape("the weights of a dense layer are a matrix");
  }
  const unsigned units = (*in)[0][0], hidden = (*in)[10][0];
  const std::vector<unsigned> square{units, units}, row{units};
  const Shapes wanted{square, row, square, row,           square,   row,
                      square, row, row,    row,           {hidden, units}, {hidden},
                      {units, hidden},     row, row, row};
  if (*in != wanted) return wrong_shape("these are not the parameters of a layer");
  return with_type(attributes, [&](auto type) {
    (*out)[0] = {static_cast<unsigned>(Layout<decltype(type)>(units, hidden).size)};
  });
}

}  // namespace

REGISTER_OP(bert_pack_layer)
    .setForward(pack_forward, "cpu")
    .setParseAttrs([](const Attributes& attributes, int* inputs, int* outputs) {
      *inputs = kLayerInputs;
      *outputs = 1;
      return require(attributes, {"bfloat16"});
    })
    .setInferType(float32_only)
    .setInferShape(pack_shape);

// Ids, token types, valid lengths; word, token type and position embedding; gamma and beta of the
// LayerNorm after them; packed layers.
REGISTER_OP(bert_encode)
    .setForward(encode_forward, "cpu")
    .setParseAttrs([](const Attributes& attributes, int* inputs, int* outputs) {
      const auto status = require(attributes, {"layers", "units", "hidden", "heads", "epsilon",
                                               "tanh_gelu", "first_only", "bfloat16"});
      if (status == MX_FAIL) return status;
      *inputs = kLayers + static_cast<int>(number(attributes, "layers"));
      *outputs = 1;
      return MX_SUCCESS;
    })
    .setInferType(encode_types)
    .setInferShape(encode_shape);
