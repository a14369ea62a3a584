/*
** GRU (Cho et al. 2014), blocks r z n:
**   n = tanh(W x + b + r * (U h' + c))     reset after the product, as in PyTorch; c is inside
**   n = tanh(W x + b + U (r * h') + c)     reset before it
**   h = (1-z)*n + z*h'
** Kept for backward: the activated gates, U h' + c (after) or r*h' (before), the first states; h is
** the output. Backward turns gates and U h' + c into d(sums) in place.
*/
#include <string.h>

#include "recurrent.h"

enum { KEPT };
enum { FIRST, DH, DH_BEFORE, D_RESET };
static bool reset_before(const ni_node *n) { return n->attr[0] != 0; }

static ni_layer layer(const ni_exec *x, const ni_node *n) {
  bool before = reset_before(n);
  return ni_layer_of(x, n, &(ni_cell){.gates = 3, .fused = !before, .first = before ? 2 : 3,
                                      .wide = {3}, .narrow = 4});
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
  k->gemm(m, two, l->h, hp, l->h, fixed + l->u[0], NULL, true, g, l->n);
  for (size_t i = 0; i < m; i++) {
    k->sigmoid(two, g + i * l->n, g + i * l->n);
    k->mul(l->h, g + i * l->n, hp + i * l->h, rh + i * l->h);
  }
  k->gemm(m, l->h, l->h, rh, l->h, fixed + l->u[1], NULL, true, g + two, l->n);
  for (size_t i = 0; i < m; i++) {
    real *z = g + i * l->n + l->h, *u = z + l->h;
    k->tanh(l->h, u, u);
    for (size_t j = 0; j < l->h; j++)
      h[i * l->h + j] = (1 - z[j]) * u[j] + z[j] * hp[i * l->h + j];
  }
}

/* From dh to d(sums), in g and gh, and the gradient of hp, in dhp. */
static void back_after(const ni_layer *l, const real *fixed, size_t m, real *g, real *gh,
                       const real *hp, const real *dh, real *dhp) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  for (size_t i = 0; i < m; i++)
    k->gru_back(l->h, g + i * l->n, gh + i * l->n + 2 * l->h, hp + i * l->h, dh + i * l->h,
                gh + i * l->n, dhp + i * l->h);
  k->gemm(m, l->h, l->n, gh, l->n, fixed + l->u_back[0], NULL, true, dhp, l->h);
}

static void back_before(const ni_layer *l, const real *fixed, size_t m, real *g, real *drh,
                        const real *hp, const real *dh, real *dhp) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  size_t two = l->part[0], h = l->h;
  for (size_t i = 0; i < m; i++) {
    real *z = g + i * l->n + h, *u = z + h;
    for (size_t j = 0; j < h; j++) {
      real d = dh[i * h + j];
      dhp[i * h + j] = d * z[j];
      real dz = d * (hp[i * h + j] - u[j]) * (z[j] * (1 - z[j]));
      u[j] = d * (1 - z[j]) * (1 - u[j] * u[j]);
      z[j] = dz;
    }
  }
  k->gemm(m, h, h, g + two, l->n, fixed + l->u_back[1], NULL, false, drh, h);
  for (size_t i = 0; i < m; i++) {
    real *r = g + i * l->n;
    for (size_t j = 0; j < h; j++) {
      real d = drh[i * h + j];
      dhp[i * h + j] += d * r[j];
      r[j] = d * hp[i * h + j] * (r[j] * (1 - r[j]));
    }
  }
  k->gemm(m, h, two, g, l->n, fixed + l->u_back[0], NULL, true, dhp, h);
}

/* ---- all steps ---- */

static void walk(const ni_exec *x, const ni_node *n, size_t p0, size_t p1) {
  ni_layer l = layer(x, n);
  NI_R(ni_step) step = NI_R(ni_layer_step)(x, n, &l);
  const real *bias = ni_layer_data(x, n, 4);
  real *work = x->work[n->index], *y = x->view[n->out].data, *first = work + l.narrow[FIRST];
  if (bias) step.bias_u = bias + 2 * l.h;
  NI_R(ni_state_first)(x, l.space, n->slot, ni_layer_input(n, 5), p0, p1, l.h, first);
  for (size_t t = 0, m; (m = ni_layer_alive(&l, t, p0, p1)) > 0; t++) {
    if (ni_layer_stop(x)) return;
    size_t row = l.rows->off[t] + p0;
    real *g = work + l.gates + row * l.n, *kept = work + l.wide[KEPT];
    const real *hp = NI_R(ni_layer_before)(&l, t, p0, y, first);
    if (reset_before(n)) {
      step_before(&l, x->fixed[n->index], m, g, kept + row * l.h, hp, y + row * l.h);
      continue;
    }
    step.x = (const real *)x->view[n->in[0]].data + row * l.inputs;
    step.sums = g;
    step.gates = x->keeps ? g : NULL;
    step.kept = x->keeps ? kept + row * l.n : NULL;
    step.before = hp;
    step.h = y + row * l.h;
    step.downwards = t & 1;
    NI_R(ni_kernel)()->gru(m, &step);
  }
  NI_R(ni_layer_last)(x, n, &l, 0, p0, p1, y, first);
}

static void walk_back(const ni_exec *x, const ni_node *n, size_t p0, size_t p1) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  ni_layer l = layer(x, n);
  const real *fixed = x->fixed[n->index], *y = x->view[n->out].data, *dy = x->view[n->out].grad;
  real *work = x->work[n->index], *dh = work + l.narrow[DH], *dhp = work + l.narrow[DH_BEFORE];
  size_t alive = 0;
  for (size_t t = l.rows->steps; t-- > 0;) {
    size_t m = ni_layer_alive(&l, t, p0, p1), row = l.rows->off[t] + p0, at = p0 * l.h;
    if (m == 0) continue;
    if (ni_layer_stop(x)) return;
    NI_R(ni_layer_last_back)(x, n, &l, 0, p0 + alive, p0 + m, dh);
    alive = m;
    real *g = work + l.gates + row * l.n, *hp = work + l.before + row * l.h;
    memcpy(hp, NI_R(ni_layer_before)(&l, t, p0, y, work + l.narrow[FIRST]),
           m * l.h * sizeof(real));
    if (dy) k->add(m * l.h, dh + at, dy + row * l.h, dh + at);
    if (reset_before(n))
      back_before(&l, fixed, m, g, work + l.narrow[D_RESET] + at, hp, dh + at, dhp + at);
    else
      back_after(&l, fixed, m, g, work + l.wide[KEPT] + row * l.n, hp, dh + at, dhp + at);
    real *swap = dh;
    dh = dhp;
    dhp = swap;
  }
  NI_R(ni_layer_last_back)(x, n, &l, 0, p0 + alive, p1, dh);
  NI_R(ni_state_first_back)(x, l.space, n->slot, ni_layer_input(n, 5), p0, p1, l.h, dh);
}

static void forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_layer l = layer(x, n);
  NI_R(ni_layer_sums)(x, n, &l);
  NI_R(ni_layer_walk)(x, n, &l, walk);
}

static void backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_layer l = layer(x, n);
  real *gates = (real *)x->work[n->index] + l.gates;
  real *kept = (real *)x->work[n->index] + l.wide[KEPT];
  NI_R(ni_layer_walk)(x, n, &l, walk_back);
  NI_R(ni_layer_gradients)(x, n, &l, gates, reset_before(n) ? gates : kept,
                           reset_before(n) ? kept : NULL);
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
