/*
** Elman's network (Elman 1990, "Finding structure in time"): h = act(W x + b + U h' + c).
** Kept for backward: h, which is the output, and the first states.
*/
#include <string.h>

#include "recurrent.h"

enum { FIRST, DH };
static const ni_cell cell = {.gates = 1, .blocks = 1, .fused = true, .first = 1, .narrow = 2};

#ifndef NI_F64
neap_status ni_infer_elman(ni_infer *i) {
  int activation = 0;
  neap_status rc = ni_want_whole(i, 0, "activation", NI_TANH, NI_IDENTITY, &activation);
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

/* ds = dh * act'(s), from h = act(s) */
static void activate_back(int activation, size_t n, const real *h, const real *dh, real *ds) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  memset(ds, 0, n * sizeof(real));
  if (activation == NI_TANH)
    k->tanh_back(n, h, dh, ds);
  else if (activation == NI_SIGMOID)
    k->sigmoid_back(n, h, dh, ds);
  else
    for (size_t i = 0; i < n; i++) ds[i] = activation == NI_IDENTITY || h[i] > 0 ? dh[i] : 0;
}

static void begin(const NI_R(ni_walk) *w, size_t p0, size_t p1) {
  real *first = (real *)w->x->work[w->n->index] + w->l.narrow[FIRST];
  NI_R(ni_state_first)(w->x, w->l.space, w->n->slot, ni_layer_input(w->n, 5), p0, p1, w->l.h, first);
}

static void step(const NI_R(ni_walk) *w, size_t t, size_t p0, size_t p1, size_t u0, size_t u1) {
  const ni_layer *l = &w->l;
  size_t h = l->h, m = ni_layer_alive(l, t, p0, p1), row = l->rows->off[t] + p0;
  if (m == 0) return;
  real *work = w->x->work[w->n->index], *y = w->x->view[w->n->out].data;
  NI_R(ni_step) s = NI_R(ni_layer_step)(w->x, w->n, l);
  s.activation = (int)w->n->attr[0];
  s.from = u0;
  s.to = u1;
  s.x = (const real *)w->x->view[w->n->in[0]].data + row * l->inputs;
  s.sums = NI_R(ni_layer_gates)(w, row);
  s.before = NI_R(ni_layer_before)(l, t, p0, y, work + l->narrow[FIRST]);
  s.h = y + row * h;
  s.downwards = t & 1;
  NI_R(ni_kernel)()->elman(m, &s);
}

static void end(const NI_R(ni_walk) *w, size_t p0, size_t p1) {
  NI_R(ni_layer_last)(w->x, w->n, &w->l, 0, p0, p1, w->x->view[w->n->out].data,
                      (real *)w->x->work[w->n->index] + w->l.narrow[FIRST]);
}

/* The product that leads from d(sums) of step t + 1 to dh of step t, then step t itself: so a share
** of the units reads of others only what they wrote one step of the walk before. */
static void step_back(const NI_R(ni_walk) *w, size_t i, size_t p0, size_t p1, size_t u0, size_t u1) {
  const ni_layer *l = &w->l;
  size_t h = l->h, t = l->rows->steps - 1 - i, later = ni_layer_alive(l, t + 1, p0, p1);
  const real *fixed = w->x->fixed[w->n->index];
  real *work = w->x->work[w->n->index], *dh = work + l->narrow[DH], *ds = work + l->gates;
  if (later > 0)
    NI_R(ni_kernel)()->gemm(later, u1 - u0, h, ds + (l->rows->off[t + 1] + p0) * h, h,
                            fixed + l->u_back[0] + u0 * h, NULL, false, dh + p0 * h + u0, h);
  if (i == l->rows->steps) return;
  size_t m = NI_R(ni_layer_step_back)(w, t, p0, p1, u0, u1, work + l->narrow[FIRST], dh);
  size_t row = l->rows->off[t] + p0;
  const real *y = (const real *)w->x->view[w->n->out].data + row * h;
  ds += row * h;
  dh += p0 * h;
  if (u1 - u0 == h) u1 = m * h, m = m > 0;
  for (size_t r = 0; r < m; r++)
    activate_back((int)w->n->attr[0], u1 - u0, y + r * h + u0, dh + r * h + u0, ds + r * h + u0);
}

static void end_back(const NI_R(ni_walk) *w, size_t p0, size_t p1) {
  const ni_layer *l = &w->l;
  real *dh = (real *)w->x->work[w->n->index] + l->narrow[DH];
  size_t ran = ni_layer_alive(l, 0, p0, p1);
  NI_R(ni_layer_last_back)(w, 0, p0 + ran, p1, 0, l->h, dh); /* of empty sequences */
  NI_R(ni_state_first_back)(w->x, l->space, w->n->slot, ni_layer_input(w->n, 5), p0, p1, l->h, dh);
}

static void after_piece(const NI_R(ni_walk) *w, size_t r0, size_t r1) {
  NI_R(ni_layer_gradients)(w, r0, r1, NULL);
}

static void forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  NI_R(ni_walk) w = {x, n, ni_layer_of(x, n, &cell), .begin = begin, .step = step, .end = end};
  if (!w.l.direct) w.before_piece = NI_R(ni_layer_sums);
  NI_R(ni_layer_walk)(&w);
}

static void backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  NI_R(ni_walk) w = {x, n, ni_layer_of(x, n, &cell), .back = true, .step = step_back,
                     .end = end_back, .after_piece = after_piece};
  NI_R(ni_layer_walk)(&w);
}

#ifdef NI_F64
#define bind NULL
#else

static void bound(ni_call *c) {
  c->step.before = c->slot->data;
  c->step.also = c->slot->next;
  c->step.downwards = !c->step.downwards;
  c->kernel(c->rows, &c->step);
  if (c->reads & 2) ni_layer_bound_last(c, 1);
}

static void bind(ni_call *c) {
  ni_layer l = ni_layer_of(c->x, c->n, &cell);
  if (!ni_layer_bind(c, &l)) return;
  c->step.activation = (int)c->n->attr[0];
  c->kernel = ni_kernel_f32()->elman;
  c->fn = bound;
}

#endif

const ni_code NI_R(ni_code_elman) = {forward, backward, NULL, prepare, bind};
