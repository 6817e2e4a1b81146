// Multi-head self-attention (Vaswani et al. 2017, section 3.2) after the projection of queries,
// keys and values. For one head of a sequence with n valid positions,
//
//   p = softmax(q k^T / sqrt(d)), out = dropout(p) v
//
// over the valid positions only; out and all gradients are 0 at the others (bert_self_attention).
// bert_attention has separate queries, all of which are valid. With e the dropout factors and
// g = (d_out v^T) * e, the gradients are
//
//   d_s = p * (g - rowsum(p * g))
//   d_q = d_s k / sqrt(d), d_k = d_s^T q / sqrt(d), d_v = (p * e)^T d_out.
//
// Queries are processed in blocks whose scores stay in the cache; the backward pass recomputes the
// scores.
#include "attention.h"
#include "operator.h"

namespace {

// The queries, keys or values, or their gradients: the part from `column` on of an array of shape
// (length, batch, columns).
template <typename Float>
struct Part {
  Float* data;
  int64_t columns, column;

  // Where the numbers of a head begin at position 0.
  Float* head(int64_t row, int64_t first_column) const {
    return data + row * columns + column + first_column;
  }
};

struct Problem {
  int64_t queries, length, batch, heads, width;  // width of a head
  Part<const float> q, k, v;
  const float* valid_length;  // (batch,)
  bool padded_queries;        // queries from the valid length on are padding
  const Dropout* dropout;

  int64_t units() const { return heads * width; }
  int64_t valid_keys(int64_t row) const {
    return std::min(length, std::max(int64_t{0}, static_cast<int64_t>(valid_length[row])));
  }
  int64_t valid_queries(int64_t row) const {
    const int64_t keys = valid_keys(row);
    return padded_queries || keys == 0 ? std::min(queries, keys) : queries;
  }
  // The distance between queries in the dropout masks.
  int64_t pitch() const { return round_up(length, 16); }
};

thread_local Workspace workspace;

// Set rows `first` to `last` of an array to 0; rows are `stride` apart.
void fill_rows(float* rows, int64_t stride, int64_t first, int64_t last, int64_t width) {
  for (int64_t i = first; i < last; ++i) std::fill_n(rows + i * stride, width, 0.0f);
}

void forward_head(const Problem& problem, int64_t row, int64_t head, float* out) {
  const int64_t queries = problem.valid_queries(row), column = head * problem.width;
  const int64_t out_stride = problem.batch * problem.units();
  out += row * problem.units() + column;
  attend({problem.q.head(row, column), problem.k.head(row, column), problem.v.head(row, column),
          problem.batch * problem.q.columns, problem.batch * problem.k.columns, queries,
          problem.valid_keys(row), problem.width},
         {problem.dropout, row * problem.heads + head, problem.pitch()}, workspace, out, out_stride);
  fill_rows(out, out_stride, queries, problem.queries, problem.width);
}

void backward_head(const Problem& problem, int64_t row, int64_t head, const float* d_out,
                   Part<float> q_gradient, Part<float> k_gradient, Part<float> v_gradient) {
  const int64_t n = problem.valid_keys(row), keys = round_up(n, kVector);
  const int64_t queries = problem.valid_queries(row);
  const int64_t width = problem.width, wide = round_up(width, kVector), column = head * width;
  const int64_t pitch = problem.pitch(), batch = problem.batch;
  const int64_t q_stride = batch * problem.q.columns, kv_stride = batch * problem.k.columns;
  const int64_t out_stride = batch * problem.units();
  const float scale = 1 / std::sqrt(static_cast<float>(width));
  workspace.start(2 * width * keys + 3 * n * wide + kQueries * (3 * keys + 3 * wide + pitch) +
                  kTile);
  float* k_transposed = workspace.take(width * keys);
  float* v_transposed = workspace.take(width * keys);
  float* k = workspace.take(n * wide);
  float* d_k = workspace.take(n * wide);
  float* d_v = workspace.take(n * wide);
  float* q = workspace.take(kQueries * wide);
  float* d_context = workspace.take(kQueries * wide);
  float* d_q = workspace.take(kQueries * wide);
  float* p = workspace.take(kQueries * keys);
  float* dropped = workspace.take(kQueries * keys);
  float* d_s = workspace.take(kQueries * keys);
  float* factors = workspace.take(kQueries * pitch + kTile);
  const float* q_data = problem.q.head(row, column);
  const float* k_data = problem.k.head(row, column);
  pack_transposed(k_data, kv_stride, n, width, scale, k_transposed, keys);
  pack_transposed(problem.v.head(row, column), kv_stride, n, width, 1, v_transposed, keys);
  pack(k_data, kv_stride, n, width, scale, k, wide);
  std::fill_n(d_k, n * wide, 0.0f);
  std::fill_n(d_v, n * wide, 0.0f);
  d_out += row * problem.units() + column;
  float* d_q_out = q_gradient.head(row, column);
  for (int64_t first = 0; first < queries; first += kQueries) {
    const int64_t count = std::min(kQueries, queries - first);
    pack(q_data + first * q_stride, q_stride, count, width, 1, q, wide);
    pack(d_out + first * out_stride, out_stride, count, width, 1, d_context, wide);
    multiply<false>(count, keys, width, q, wide, 1, k_transposed, keys, p, keys);
    multiply<false>(count, keys, width, d_context, wide, 1, v_transposed, keys, d_s, keys);
    if (problem.dropout) {
      problem.dropout->fill(row * problem.heads + head, first, count, pitch, factors);
    }
    for (int64_t i = 0; i < count; ++i) {
      float *p_row = p + i * keys, *d_row = d_s + i * keys;
      const float inverse = 1 / exponentials(p_row, n, keys);
#pragma omp simd
      for (int64_t j = 0; j < keys; ++j) p_row[j] *= inverse;
      if (problem.dropout) {
        std::copy_n(p_row, keys, dropped + i * keys);
        multiply_row(dropped + i * keys, factors + i * pitch, n);
        multiply_row(d_row, factors + i * pitch, n);
      }
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < n; ++j) sum += p_row[j] * d_row[j];
#pragma omp simd
      for (int64_t j = 0; j < keys; ++j) d_row[j] = p_row[j] * (d_row[j] - sum);
    }
    multiply<false>(count, wide, n, d_s, keys, 1, k, wide, d_q, wide);
    multiply<true>(n, wide, count, d_s, 1, keys, q, wide, d_k, wide);
    multiply<true>(n, wide, count, problem.dropout ? dropped : p, 1, keys, d_context, wide, d_v,
                   wide);
    unpack(d_q, wide, count, width, 1, d_q_out + first * q_stride, q_stride);
  }
  unpack(d_k, wide, n, width, scale, k_gradient.head(row, column), kv_stride);
  unpack(d_v, wide, n, width, 1, v_gradient.head(row, column), kv_stride);
  fill_rows(d_q_out, q_stride, queries, problem.queries, width);
  fill_rows(k_gradient.head(row, column), kv_stride, n, problem.length, width);
  fill_rows(v_gradient.head(row, column), kv_stride, n, problem.length, width);
}

// Process all heads of all rows in parallel.
template <typename Work>
void each_head(const Problem& problem, const Work& work) {
#pragma omp parallel for schedule(dynamic)
  for (int64_t i = 0; i < problem.batch * problem.heads; ++i) {
    work(i / problem.heads, i % problem.heads);
  }
}

// The inputs of both operators, in the order in which MXNet passes them.
struct Inputs {
  MXTensor *queries, *keys_values, *valid_length, *seed;
  bool together;  // queries, keys and values are projected together, into one array
};

// `first` is the index of the first input among the tensors, `count` the number of inputs.
Inputs find_inputs(Tensors& tensors, size_t first, size_t count) {
  const bool together = count == 3;
  MXTensor* x = tensors.data() + first;
  return {x, together ? x : x + 1, x + count - 2, x + count - 1, together};
}

Problem read_problem(const Attributes& attributes, const Inputs& in) {
  const auto &queries = in.queries->shape, &keys_values = in.keys_values->shape;
  const int64_t units = keys_values[2] / (in.together ? 3 : 2);
  const float *q = in.queries->data<float>(), *kv = in.keys_values->data<float>();
  Problem problem;
  problem.queries = queries[0];
  problem.length = keys_values[0];
  problem.batch = keys_values[1];
  problem.heads = static_cast<int64_t>(number(attributes, "heads"));
  problem.width = units / problem.heads;
  problem.q = {q, queries[2], 0};
  problem.k = {kv, keys_values[2], in.together * units};
  problem.v = {kv, keys_values[2], in.together * units + units};
  problem.valid_length = in.valid_length->data<float>();
  problem.padded_queries = in.together;
  problem.dropout = nullptr;
  return problem;
}

MXReturnValue forward(const Attributes& attributes, Tensors* in, Tensors* out,
                      const OpResource&) {
  const Inputs inputs = find_inputs(*in, 0, in->size());
  Problem problem = read_problem(attributes, inputs);
  const Dropout dropout(*inputs.seed, number(attributes, "rate"), number(attributes, "site"));
  if (dropout.active()) problem.dropout = &dropout;
  each_head(problem, [&](int64_t row, int64_t head) {
    forward_head(problem, row, head, (*out)[0].data<float>());
  });
  return MX_SUCCESS;
}

MXReturnValue backward(const Attributes& attributes, Tensors* in, Tensors* out,
                       const OpResource&) {
  // The inputs are the gradient of the output, the inputs and the output.
  const Inputs inputs = find_inputs(*in, 1, in->size() - 2);
  Problem problem = read_problem(attributes, inputs);
  const Dropout dropout(*inputs.seed, number(attributes, "rate"), number(attributes, "site"));
  if (dropout.active()) problem.dropout = &dropout;
  MXTensor &d_out = (*in)[0], &d_queries = (*out)[0], &d_keys_values = (*out)[!inputs.together];
  fill_zeros((*out)[out->size() - 2]);  // the valid lengths
  fill_zeros((*out)[out->size() - 1]);  // the seed
  if (!wanted(d_queries) && !wanted(d_keys_values)) return MX_SUCCESS;
  // A gradient that is not wanted still needs a place to be written to.
  std::vector<float> unwanted;
  const auto place = [&](MXTensor& gradient) {
    if (wanted(gradient)) return gradient.data<float>();
    unwanted.resize(gradient.size());
    return unwanted.data();
  };
  float *dq = place(d_queries), *dkv = place(d_keys_values);
  each_head(problem, [&](int64_t row, int64_t head) {
    backward_head(problem, row, head, d_out.data<float>(),
                  {dq, problem.q.columns, problem.q.column},
                  {dkv, problem.k.columns, problem.k.column},
                  {dkv, problem.v.columns, problem.v.column});
  });
  return MX_SUCCESS;
}

// A template, as setParseAttrs takes no function with a state.
template <int kInputs>
MXReturnValue parse_attributes(const Attributes& attributes, int* inputs, int* outputs) {
  *inputs = kInputs;
  *outputs = 1;
  return require(attributes, {"heads", "rate", "site"});
}

MXReturnValue infer_shape(const Attributes& attributes, Shapes* in, Shapes* out) {
  const bool together = in->size() == 3;
  const auto &queries = (*in)[0], &keys_values = (*in)[together ? 0 : 1];
  const int64_t parts = together ? 3 : 2;
  const auto heads = static_cast<int64_t>(number(attributes, "heads"));
  if (queries.size() != 3 || keys_values.size() != 3 || keys_values[2] == 0 || heads < 1 ||
      keys_values[2] % (parts * heads) != 0) {
    return wrong_shape("attention needs projections of (length, batch, parts * heads * width)");
  }
  const auto units = static_cast<unsigned>(keys_values[2] / parts);
  if (!together && (queries[1] != keys_values[1] || queries[2] != units)) {
    return wrong_shape("the queries have another batch size or width than the keys and values");
  }
  if ((*in)[in->size() - 2] != std::vector<unsigned>{keys_values[1]}) {
    return wrong_shape("attention needs one valid length for each row of the batch");
  }
  (*out)[0] = {queries[0], queries[1], units};
  return MX_SUCCESS;
}

}  // namespace

// Projections, valid lengths, seed.
REGISTER_OP(bert_self_attention)
    .setForward(forward, "cpu")
    .setBackward(backward, "cpu")
    .setParseAttrs(parse_attributes<3>)
    .setInferType(float32_only)
    .setInferShape(infer_shape);

// Queries, keys and values, valid lengths, seed.
REGISTER_OP(bert_attention)
    .setForward(forward, "cpu")
    .setBackward(backward, "cpu")
    .setParseAttrs(parse_attributes<4>)
    .setInferType(float32_only)
    .setInferShape(infer_shape);
