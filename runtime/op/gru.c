/*
** GRU (Cho et al. 2014), blocks r z n:
**   n = tanh(W x + b + r * (U h' + c))     reset after the product, as in PyTorch; c is inside
**   n = tanh(W x + b + U (r * h') + c)     reset before it
**   h = (1-z)*n + z*h'
** Kept for backward: the activated gates, U h' + c beside them (after) or r*h' (before), the first
** states; h is the output. Backward turns gates and U h' + c into d(sums) in place.
*/
#include <string.h>

#include "recurrent.h"

enum { RESET }; /* the slab of r*h', if reset comes before the product */
enum { FIRST, DH, DH_BEFORE, D_RESET };
static bool reset_before(const ni_node *n) { return n->attr[0] != 0; }

static ni_layer layer(const ni_exec *x, const ni_node *n) {
  bool before = reset_before(n);
  return ni_layer_of(x, n, &(ni_cell){.gates = 3, .blocks = before ? 3 : 4, .fused = !before,
                                      .first = 2, .slab = {before}, .always = {before}, .narrow = 4});
}

#ifndef NI_F64
neap_status ni_infer_gru(ni_infer *i) {
  int before = 0;
  neap_status rc = ni_want_whole(i, 0, "reset_before", 0, 1, &before);
  return rc ? rc : ni_layer_infer(i, &(ni_cell){.gates = 3}, 1);
}
size_t ni_work_gru(const ni_exec *x, const ni_node *n) { return layer(x, n).work; }
size_t ni_fixed_gru(const ni_exec *x, const ni_node *n, bool backward) {
  ni_layer l = layer(x, n);
  return backward ? l.fixed_back : l.fixed;
}
#endif

static void prepare(const ni_exec *x, const ni_node *n, bool backward) {
  ni_layer l = layer(x, n);
  NI_R(ni_layer_prepare)(x, n, &l, backward, reset_before(n) ? l.n : 2 * l.h);
}

/* ---- one step of m rows, reset before; g: gates, hp: h of the step before ---- */

static void step_before(const ni_layer *l, const real *fixed, size_t m, real *g, real *rh,
                        const real *hp, real *h) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  size_t two = l->part[0];
  k->gemm(m, two, l->h, hp, l->h, fixed + l->u[0], NULL, true, g, l->row);
  for (size_t i = 0; i < m; i++) {
    k->sigmoid(two, g + i * l->row, g + i * l->row);
    k->mul(l->h, g + i * l->row, hp + i * l->h, rh + i * l->h);
  }
  k->gemm(m, l->h, l->h, rh, l->h, fixed + l->u[1], NULL, true, g + two, l->row);
  for (size_t i = 0; i < m; i++) {
    real *z = g + i * l->row + l->h, *u = z + l->h;
    k->tanh(l->h, u, u);
    for (size_t j = 0; j < l->h; j++)
      h[i * l->h + j] = (1 - z[j]) * u[j] + z[j] * hp[i * l->h + j];
  }
}

/* From dh to d(sums), in g, and the gradient of hp, in dhp. */
static void back_before(const ni_layer *l, const real *fixed, size_t m, real *g, real *drh,
                        const real *hp, const real *dh, real *dhp) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  size_t two = l->part[0], h = l->h;
  for (size_t i = 0; i < m; i++) {
    real *z = g + i * l->row + h, *u = z + h;
    for (size_t j = 0; j < h; j++) {
      real d = dh[i * h + j];
      dhp[i * h + j] = d * z[j];
      real dz = d * (hp[i * h + j] - u[j]) * (z[j] * (1 - z[j]));
      u[j] = d * (1 - z[j]) * (1 - u[j] * u[j]);
      z[j] = dz;
    }
  }
  k->gemm(m, h, h, g + two, l->row, fixed + l->u_back[1], NULL, false, drh, h);
  for (size_t i = 0; i < m; i++) {
    real *r = g + i * l->row;
    for (size_t j = 0; j < h; j++) {
      real d = drh[i * h + j];
      dhp[i * h + j] += d * r[j];
      r[j] = d * hp[i * h + j] * (r[j] * (1 - r[j]));
    }
  }
  k->gemm(m, h, two, g, l->row, fixed + l->u_back[0], NULL, true, dhp, h);
}

/* ---- all steps ---- */

static void begin(const NI_R(ni_walk) *w, size_t p0, size_t p1) {
  real *first = (real *)w->x->work[w->n->index] + w->l.narrow[FIRST];
  NI_R(ni_state_first)(w->x, w->l.space, w->n->slot, ni_layer_input(w->n, 5), p0, p1, w->l.h, first);
}

static void step(const NI_R(ni_walk) *w, size_t t, size_t p0, size_t p1, size_t u0, size_t u1) {
  const ni_exec *x = w->x;
  const ni_layer *l = &w->l;
  size_t m = ni_layer_alive(l, t, p0, p1), row = l->rows->off[t] + p0;
  if (m == 0) return;
  real *work = x->work[w->n->index], *y = x->view[w->n->out].data;
  real *g = NI_R(ni_layer_gates)(w, row);
  const real *bias = ni_layer_data(x, w->n, 4);
  const real *hp = NI_R(ni_layer_before)(l, t, p0, y, work + l->narrow[FIRST]);
  if (reset_before(w->n)) {
    step_before(l, x->fixed[w->n->index], m, g, work + l->slab[RESET] + row * l->h, hp,
                y + row * l->h);
    return;
  }
  NI_R(ni_step) s = NI_R(ni_layer_step)(x, w->n, l);
  s.from = u0;
  s.to = u1;
  s.bias_u = bias ? bias + 2 * l->h : NULL;
  s.x = (const real *)x->view[w->n->in[0]].data + row * l->inputs;
  s.sums = g;
  s.gates = x->keeps ? g : NULL;
  s.before = hp;
  s.h = y + row * l->h;
  s.downwards = t & 1;
  NI_R(ni_kernel)()->gru(m, &s);
}

static void end(const NI_R(ni_walk) *w, size_t p0, size_t p1) {
  NI_R(ni_layer_last)(w->x, w->n, &w->l, 0, p0, p1, w->x->view[w->n->out].data,
                      (real *)w->x->work[w->n->index] + w->l.narrow[FIRST]);
}

/* The gradients of h and of h before take turns in two slabs: which is that of h at step i of the
** walk. */
static real *gradient_of_h(const NI_R(ni_walk) *w, size_t i) {
  return (real *)w->x->work[w->n->index] + w->l.narrow[i % 2 ? DH_BEFORE : DH];
}

/* The product that leads from d(sums) of step t + 1 to dh of step t, then step t itself: so a share
** of the units reads of others only what they wrote one step of the walk before. */
static void step_back(const NI_R(ni_walk) *w, size_t i, size_t p0, size_t p1, size_t u0, size_t u1) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  const ni_layer *l = &w->l;
  size_t h = l->h, t = l->rows->steps - 1 - i, later = ni_layer_alive(l, t + 1, p0, p1);
  real *work = w->x->work[w->n->index], *fixed = w->x->fixed[w->n->index];
  real *dh = gradient_of_h(w, i), *dhp = gradient_of_h(w, i + 1);
  if (later > 0 && !reset_before(w->n)) {
    const real *g = work + l->gates + (l->rows->off[t + 1] + p0) * l->row;
    k->gemm(later, u1 - u0, 2 * h, g, l->row, fixed + l->u_back[0] + u0 * 2 * h, NULL, true,
            dh + p0 * h + u0, h);
    k->gemm(later, u1 - u0, h, g + 3 * h, l->row, fixed + l->u_back[1] + u0 * h, NULL, true,
            dh + p0 * h + u0, h);
  }
  if (i == l->rows->steps) return;
  size_t m = NI_R(ni_layer_step_back)(w, t, p0, p1, u0, u1, work + l->narrow[FIRST], dh);
  size_t row = l->rows->off[t] + p0;
  const real *hp = work + l->before + row * h;
  if (reset_before(w->n)) {
    back_before(l, fixed, m, work + l->gates + row * l->row, work + l->narrow[D_RESET] + p0 * h, hp,
                dh + p0 * h, dhp + p0 * h);
    return;
  }
  for (size_t r = 0; r < m; r++)
    k->gru_back(u1 - u0, h, work + l->gates + (row + r) * l->row + u0, hp + r * h + u0,
                dh + (p0 + r) * h + u0, dhp + (p0 + r) * h + u0);
}

static void end_back(const NI_R(ni_walk) *w, size_t p0, size_t p1) {
  const ni_layer *l = &w->l;
  real *dh = gradient_of_h(w, l->rows->steps);
  size_t ran = ni_layer_alive(l, 0, p0, p1);
  NI_R(ni_layer_last_back)(w, 0, p0 + ran, p1, 0, l->h, dh); /* of empty sequences */
  NI_R(ni_state_first_back)(w->x, l->space, w->n->slot, ni_layer_input(w->n, 5), p0, p1, l->h, dh);
}

static void after_piece(const NI_R(ni_walk) *w, size_t r0, size_t r1) {
  const real *work = w->x->work[w->n->index];
  NI_R(ni_layer_gradients)(w, r0, r1, reset_before(w->n) ? work + w->l.slab[RESET] : NULL);
}

static void forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  NI_R(ni_walk) w = {x, n, layer(x, n), .whole = reset_before(n), .begin = begin, .step = step,
                     .end = end};
  if (!w.l.direct) w.before_piece = NI_R(ni_layer_sums);
  NI_R(ni_layer_walk)(&w);
}

static void backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  NI_R(ni_walk) w = {x, n, layer(x, n), .back = true, .whole = reset_before(n),
                     .step = step_back, .end = end_back, .after_piece = after_piece};
  NI_R(ni_layer_walk)(&w);
}

#ifdef NI_F64
#define bind NULL
#else

static void bound(ni_call *c) {
  c->step.before = c->slot[0].data;
  c->step.also = c->slot[0].next;
  c->step.downwards = !c->step.downwards;
  c->kernel(c->rows, &c->step);
  if (c->reads & 2) ni_layer_bound_last(c, 1);
}

static void bind(ni_call *c) {
  const ni_layer l = layer(c->x, c->n);
  const float *bias = ni_layer_data(c->x, c->n, 4);
  if (reset_before(c->n) || !ni_layer_bind(c, &l)) return;
  c->step.bias_u = bias ? bias + 2 * c->step.units : NULL;
  c->kernel = ni_kernel_f32()->gru;
  c->fn = bound;
}

#endif

const ni_code NI_R(ni_code_gru) = {forward, backward, NULL, prepare, bind};
