/*
** Elman's network (Elman 1990, "Finding structure in time"): h = act(W x + b + U h' + c).
** Kept for backward: h, which is the output, and the first states.
*/
#include <string.h>

#include "recurrent.h"

enum { FIRST, DH };
static const ni_cell cell = {.gates = 1, .first = 1, .narrow = 2};

enum { TANH, RELU, SIGMOID, IDENTITY };

#ifndef NI_F64
neap_status ni_infer_elman(ni_infer *i) {
  int activation = 0;
  neap_status rc = ni_want_whole(i, 0, "activation", TANH, IDENTITY, &activation);
  return rc ? rc : ni_layer_infer(i, &cell, 1);
}
size_t ni_work_elman(const ni_exec *x, const ni_node *n) { return ni_layer_of(x, n, &cell).work; }
size_t ni_fixed_elman(const ni_exec *x, const ni_node *n, bool backward) {
  ni_layer l = ni_layer_of(x, n, &cell);
  return backward ? l.fixed_back : l.fixed;
}
#endif

static void prepare(const ni_exec *x, const ni_node *n, bool backward) {
  ni_layer l = ni_layer_of(x, n, &cell);
  NI_R(ni_layer_prepare)(x, n, &l, backward, l.n);
}

static void activate(int activation, size_t n, const real *s, real *h) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  if (activation == TANH)
    k->tanh(n, s, h);
  else if (activation == SIGMOID)
    k->sigmoid(n, s, h);
  else if (activation == RELU)
    for (size_t i = 0; i < n; i++) h[i] = s[i] <= 0 ? 0 : s[i]; /* NaN stays */
  else
    memcpy(h, s, n * sizeof(real));
}

/* ds = dh * act'(s), from h = act(s) */
static void activate_back(int activation, size_t n, const real *h, const real *dh, real *ds) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  memset(ds, 0, n * sizeof(real));
  if (activation == TANH)
    k->tanh_back(n, h, dh, ds);
  else if (activation == SIGMOID)
    k->sigmoid_back(n, h, dh, ds);
  else
    for (size_t i = 0; i < n; i++) ds[i] = activation == IDENTITY || h[i] > 0 ? dh[i] : 0;
}

static void walk(const ni_exec *x, const ni_node *n, size_t p0, size_t p1) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  ni_layer l = ni_layer_of(x, n, &cell);
  const real *fixed = x->fixed[n->index];
  real *work = x->work[n->index], *y = x->view[n->out].data, *first = work + l.narrow[FIRST];
  NI_R(ni_state_first)(x, l.space, n->slot, ni_layer_input(n, 5), p0, p1, l.h, first);
  for (size_t t = 0, m; (m = ni_layer_alive(&l, t, p0, p1)) > 0; t++) {
    if (ni_layer_stop(x)) return;
    size_t row = l.rows->off[t] + p0;
    real *s = work + l.gates + row * l.h;
    k->gemm(m, l.h, l.h, NI_R(ni_layer_before)(&l, t, p0, y, first), l.h, fixed + l.u[0], NULL,
            true, s, l.h);
    activate((int)n->attr[0], m * l.h, s, y + row * l.h);
  }
  NI_R(ni_layer_last)(x, n, &l, 0, p0, p1, y, first);
}

static void walk_back(const ni_exec *x, const ni_node *n, size_t p0, size_t p1) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  ni_layer l = ni_layer_of(x, n, &cell);
  const real *fixed = x->fixed[n->index], *y = x->view[n->out].data, *dy = x->view[n->out].grad;
  real *work = x->work[n->index], *dh = work + l.narrow[DH];
  size_t alive = 0;
  for (size_t t = l.rows->steps; t-- > 0;) {
    size_t m = ni_layer_alive(&l, t, p0, p1), row = l.rows->off[t] + p0;
    if (m == 0) continue;
    if (ni_layer_stop(x)) return;
    NI_R(ni_layer_last_back)(x, n, &l, 0, p0 + alive, p0 + m, dh);
    alive = m;
    real *d = dh + p0 * l.h, *ds = work + l.gates + row * l.h;
    if (dy) k->add(m * l.h, d, dy + row * l.h, d);
    activate_back((int)n->attr[0], m * l.h, y + row * l.h, d, ds);
    memcpy(work + l.before + row * l.h,
           NI_R(ni_layer_before)(&l, t, p0, y, work + l.narrow[FIRST]), m * l.h * sizeof(real));
    k->gemm(m, l.h, l.h, ds, l.h, fixed + l.u_back[0], NULL, false, d, l.h);
  }
  NI_R(ni_layer_last_back)(x, n, &l, 0, p0 + alive, p1, dh);
  NI_R(ni_state_first_back)(x, l.space, n->slot, ni_layer_input(n, 5), p0, p1, l.h, dh);
}

static void forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_layer l = ni_layer_of(x, n, &cell);
  NI_R(ni_layer_sums)(x, n, &l);
  NI_R(ni_layer_walk)(x, n, &l, walk);
}

static void backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_layer l = ni_layer_of(x, n, &cell);
  real *work = x->work[n->index];
  NI_R(ni_layer_walk)(x, n, &l, walk_back);
  NI_R(ni_layer_gradients)(x, n, &l, work + l.gates, work + l.gates, NULL);
}

#ifdef NI_F64
#define bind NULL
#else

static void bound(ni_call *c) {
  const ni_kernels_f32 *k = ni_kernel_f32();
  size_t h = c->step.units, i = c->step.inputs;
  float *sums = c->step.gates;
  k->gemm(c->rows, h, i, c->step.x, i, c->step.w, c->step.bias, false, sums, h);
  k->gemm(c->rows, h, h, c->slot->data, h, c->step.u, NULL, true, sums, h);
  activate((int)c->n->attr[0], c->rows * h, sums, c->step.h);
  memcpy(c->slot->next, c->step.h, c->bytes);
  if (c->reads & 2) ni_layer_bound_last(c, 1);
}

static void bind(ni_call *c) {
  ni_layer l = ni_layer_of(c->x, c->n, &cell);
  if (!ni_layer_bind(c, &l)) return;
  c->step.gates = (float *)c->x->work[c->n->index] + l.gates;
  c->fn = bound;
}

#endif

const ni_code NI_R(ni_code_elman) = {forward, backward, NULL, prepare, bind};
