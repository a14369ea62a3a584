/*
** Times oneDNN's recurrent primitives for `neap bench --peers`. Reads a case a line (workload cell
** T B D H L threads seconds) and answers with the microseconds of one run and the megabytes
** that the process had in memory at most, or "-".
**   W1-repack  a training step; the weights are brought into the library's own layout before, and
**              their gradients back into the plain one after it, as a training loop must
**   W2         a whole sequence, W3 one step of one stream, weights packed beforehand
** The GRU is the one with the reset gate after the recurrent product (lbr_gru).
*/
#include <dnnl.hpp>
#include <malloc.h>
#include <omp.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

using namespace dnnl;
using tag = memory::format_tag;
using arguments = std::unordered_map<int, memory>;

static engine cpu(engine::kind::cpu, 0);
static stream work(cpu);

static memory::desc described(memory::dims dims, tag layout) {
  return memory::desc(dims, memory::data_type::f32, layout);
}

static float *numbers(memory &m) { return static_cast<float *>(m.get_data_handle()); }
static size_t count(const memory &m) { return m.get_desc().get_size() / sizeof(float); }

static memory room(const memory::desc &d) {
  memory m(d, cpu);
  std::memset(m.get_data_handle(), 0, d.get_size());
  return m;
}

static memory random_numbers(const memory::desc &d, double scale) {
  static std::mt19937 chance(1);
  std::uniform_real_distribution<float> uniform(float(-scale), float(scale));
  memory m(d, cpu);
  for (size_t i = 0; i < count(m); i++) numbers(m)[i] = uniform(chance);
  return m;
}

static memory packed(memory &plain, const memory::desc &d) {
  memory m(d, cpu);
  reorder(plain, m).execute(work, plain, m);
  work.wait();
  return m;
}

/* Layers of equal width in one primitive. */
struct block {
  primitive forward, backward;
  arguments give, give_back;
  memory input, output, last_h, last_c, first_h, first_c;
  memory weights, weights_h, for_forward, for_forward_h, for_backward, for_backward_h;
  memory grad_w, grad_h, grad_b, plain_w, plain_h, grad_input, grad_output, grad_last;
};

struct sizes {
  std::string workload, cell;
  int t, b, d, h, l, threads;
};

template <class Forward, class Backward, class ForwardDesc, class BackwardDesc>
static void make(block &k, ForwardDesc fd, std::function<BackwardDesc()> back, bool learns) {
  auto fp = typename Forward::primitive_desc(fd, cpu);
  k.forward = Forward(fp);
  k.for_forward = packed(k.weights, fp.weights_layer_desc());
  k.for_forward_h = packed(k.weights_h, fp.weights_iter_desc());
  k.give[DNNL_ARG_WEIGHTS_LAYER] = k.for_forward;
  k.give[DNNL_ARG_WEIGHTS_ITER] = k.for_forward_h;
  if (!learns) return;
  memory space = room(fp.workspace_desc());
  k.give[DNNL_ARG_WORKSPACE] = space;
  auto bp = typename Backward::primitive_desc(back(), cpu, fp);
  k.backward = Backward(bp);
  k.for_backward = packed(k.weights, bp.weights_layer_desc());
  k.for_backward_h = packed(k.weights_h, bp.weights_iter_desc());
  k.grad_w = room(bp.diff_weights_layer_desc());
  k.grad_h = room(bp.diff_weights_iter_desc());
  k.give_back = k.give;
  k.give_back[DNNL_ARG_WEIGHTS_LAYER] = k.for_backward;
  k.give_back[DNNL_ARG_WEIGHTS_ITER] = k.for_backward_h;
  k.give_back[DNNL_ARG_DIFF_WEIGHTS_LAYER] = k.grad_w;
  k.give_back[DNNL_ARG_DIFF_WEIGHTS_ITER] = k.grad_h;
}

static std::shared_ptr<block> build(const sizes &s, int d, int layers, bool learns, memory *input) {
  auto k = std::make_shared<block>();
  int gates = s.cell == "lstm" ? 4 : s.cell == "gru" ? 3 : 1, biases = s.cell == "rnn" ? 1 : 4;
  const auto way = rnn_direction::unidirectional_left2right;
  auto sequence = described({s.t, s.b, d}, tag::tnc), out = described({s.t, s.b, s.h}, tag::tnc);
  auto state = described({layers, 1, s.b, s.h}, tag::ldnc);
  auto any_w = described({layers, 1, d, gates, s.h}, tag::any);
  auto any_h = described({layers, 1, s.h, gates, s.h}, tag::any);
  auto bias = described({layers, 1, biases, s.h}, tag::ldgo);
  double scale = 1 / std::sqrt(double(s.h));
  k->weights = random_numbers(described({layers, 1, d, gates, s.h}, tag::ldigo), scale);
  k->weights_h = random_numbers(described({layers, 1, s.h, gates, s.h}, tag::ldigo), scale);
  memory b = random_numbers(bias, scale);
  k->input = input ? *input : random_numbers(sequence, 1);
  k->output = room(out);
  k->first_h = room(state), k->last_h = room(state);
  k->give = {{DNNL_ARG_SRC_LAYER, k->input}, {DNNL_ARG_SRC_ITER, k->first_h},
             {DNNL_ARG_BIAS, b}, {DNNL_ARG_DST_LAYER, k->output}, {DNNL_ARG_DST_ITER, k->last_h}};
  if (gates == 4) {
    k->first_c = room(state), k->last_c = room(state);
    k->give[DNNL_ARG_SRC_ITER_C] = k->first_c;
    k->give[DNNL_ARG_DST_ITER_C] = k->last_c;
  }
  auto kind = learns ? prop_kind::forward_training : prop_kind::forward_inference;
  auto back = prop_kind::backward;
  if (gates == 4)
    make<lstm_forward, lstm_backward, lstm_forward::desc, lstm_backward::desc>(
        *k,
        lstm_forward::desc(kind, way, sequence, state, state, any_w, any_h, bias, out, state, state),
        [&] {
          return lstm_backward::desc(back, way, sequence, state, state, any_w, any_h, bias, out, state,
                                     state, sequence, state, state, any_w, any_h, bias, out, state,
                                     state);
        },
        learns);
  else if (gates == 3)
    make<lbr_gru_forward, lbr_gru_backward, lbr_gru_forward::desc, lbr_gru_backward::desc>(
        *k, lbr_gru_forward::desc(kind, way, sequence, state, any_w, any_h, bias, out, state),
        [&] {
          return lbr_gru_backward::desc(back, way, sequence, state, any_w, any_h, bias, out, state,
                                        sequence, state, any_w, any_h, bias, out, state);
        },
        learns);
  else
    make<vanilla_rnn_forward, vanilla_rnn_backward, vanilla_rnn_forward::desc,
         vanilla_rnn_backward::desc>(
        *k,
        vanilla_rnn_forward::desc(kind, algorithm::eltwise_tanh, way, sequence, state, any_w, any_h,
                                  bias, out, state),
        [&] {
          return vanilla_rnn_backward::desc(back, algorithm::eltwise_tanh, way, sequence, state, any_w,
                                            any_h, bias, out, state, sequence, state, any_w, any_h,
                                            bias, out, state);
        },
        learns);
  if (!learns) return k;
  k->plain_w = room(k->weights.get_desc()), k->plain_h = room(k->weights_h.get_desc());
  k->grad_b = room(bias);
  k->grad_input = room(sequence), k->grad_output = room(out), k->grad_last = room(state);
  k->give_back[DNNL_ARG_DIFF_SRC_LAYER] = k->grad_input;
  k->give_back[DNNL_ARG_DIFF_SRC_ITER] = room(state);
  k->give_back[DNNL_ARG_DIFF_BIAS] = k->grad_b;
  k->give_back[DNNL_ARG_DIFF_DST_LAYER] = k->grad_output;
  k->give_back[DNNL_ARG_DIFF_DST_ITER] = k->grad_last;
  if (gates == 4) {
    k->give_back[DNNL_ARG_DIFF_SRC_ITER_C] = room(state);
    k->give_back[DNNL_ARG_DIFF_DST_ITER_C] = room(state);
  }
  return k;
}

static void clear(memory &m) { std::memset(m.get_data_handle(), 0, m.get_desc().get_size()); }

using action = std::function<void()>;

static action make_case(const sizes &s) {
  bool learns = s.workload == "W1-repack";
  if (!learns && s.workload != "W2" && s.workload != "W3") return nullptr;
  auto all = std::make_shared<std::vector<std::shared_ptr<block>>>();
  if (s.d == s.h || s.l == 1) {
    all->push_back(build(s, s.d, s.l, learns, nullptr));
  } else { /* the first layer is narrower */
    all->push_back(build(s, s.d, 1, learns, nullptr));
    all->push_back(build(s, s.h, s.l - 1, learns, &(*all)[0]->output));
  }
  if (s.workload == "W3") { /* the state goes to and fro */
    auto k = (*all)[0];
    auto other = std::make_shared<arguments>(k->give);
    auto odd = std::make_shared<bool>(false);
    (*other)[DNNL_ARG_SRC_ITER] = k->last_h, (*other)[DNNL_ARG_DST_ITER] = k->first_h;
    if (s.cell == "lstm")
      (*other)[DNNL_ARG_SRC_ITER_C] = k->last_c, (*other)[DNNL_ARG_DST_ITER_C] = k->first_c;
    return [k, other, odd] {
      k->forward.execute(work, *odd ? *other : k->give);
      work.wait();
      *odd = !*odd;
    };
  }
  if (!learns)
    return [all] {
      for (auto &k : *all) k->forward.execute(work, k->give);
      work.wait();
    };
  for (size_t i = 0; i + 1 < all->size(); i++)
    (*all)[i]->give_back[DNNL_ARG_DIFF_DST_LAYER] = (*all)[i + 1]->grad_input;
  struct move {
    reorder how;
    memory from, to;
  };
  auto before = std::make_shared<std::vector<move>>(), after = std::make_shared<std::vector<move>>();
  for (auto &k : *all) {
    for (auto &p : {std::pair<memory, memory>{k->weights, k->for_forward},
                    {k->weights_h, k->for_forward_h}, {k->weights, k->for_backward},
                    {k->weights_h, k->for_backward_h}})
      before->push_back({reorder(p.first, p.second), p.first, p.second});
    for (auto &p : {std::pair<memory, memory>{k->grad_w, k->plain_w}, {k->grad_h, k->plain_h}})
      after->push_back({reorder(p.first, p.second), p.first, p.second});
  }
  return [s, all, before, after] {
    for (auto &m : *before) m.how.execute(work, m.from, m.to);
    for (auto &k : *all) k->forward.execute(work, k->give);
    work.wait();
    block &top = *all->back(); /* of the sum of squares of the last layer's last h */
    size_t n = size_t(s.b) * s.h, at = count(top.last_h) - n;
    for (size_t i = at; i < at + n; i++) numbers(top.grad_last)[i] = 2 * numbers(top.last_h)[i];
    for (size_t i = all->size(); i-- > 0;) {
      block &k = *(*all)[i];
      clear(k.grad_w), clear(k.grad_h), clear(k.grad_b);
      k.backward.execute(work, k.give_back);
    }
    for (auto &m : *after) m.how.execute(work, m.from, m.to);
    work.wait();
  };
}

static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/* From now on memory_peak tells of what comes, with what was freed given back. */
static void memory_anew() {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";
}

/* Megabytes that the process had in memory at most; "" where the system does not tell. */
static std::string memory_peak() {
  std::ifstream file("/proc/self/status");
  for (std::string word; file >> word;)
    if (word == "VmHWM:" && file >> word) return std::to_string(std::stod(word) * 1024 / 1e6);
  return "";
}

int main() {
  std::map<std::string, action> cases;
  std::string line;
  std::cout << "ready" << std::endl;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    sizes s;
    double seconds;
    words >> s.workload >> s.cell >> s.t >> s.b >> s.d >> s.h >> s.l >> s.threads >> seconds;
    omp_set_num_threads(s.threads);
    std::string key = line.substr(0, line.rfind(' '));
    if (!cases.count(key)) {
      cases.clear();
      memory_anew();
      cases[key] = make_case(s);
    }
    action &run = cases[key];
    if (!run) {
      std::cout << "-" << std::endl;
      continue;
    }
    long n = 1;
    double spent = 0, began;
    for (;; n *= 2) { /* as many as fill the time */
      began = now();
      for (long i = 0; i < n; i++) run();
      if ((spent = now() - began) > 0.02) break;
    }
    n = long(double(n) * seconds / spent) + 1;
    began = now();
    for (long i = 0; i < n; i++) run();
    std::cout << (now() - began) / double(n) * 1e6 << " " << memory_peak() << std::endl;
  }
}
