/*
** What the whole-sequence layers share: types, memory, packing, last states, gradients.
*/
#include "recurrent.h"

#include <string.h>

static inline size_t least(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t most(size_t a, size_t b) { return a > b ? a : b; }

#ifndef NI_F64

static size_t take(size_t *at, size_t count) {
  size_t here = *at;
  *at += (count + 15) & ~(size_t)15;
  return here;
}

/*
** How many rows a piece of a walk has. Forward: their sums, which the steps take up, are to be in a
** near cache still (SUMS reals), but all of weight_ih, as wide as x, is read for each piece (SUMS_ROWS
** and half the width at least). Back: the same for all slabs (SLABS reals), but the gradients of all
** weights are read and written for each piece (a row for each WEIGHTS of them at least).
*/
enum { SUMS = 1 << 18, SUMS_ROWS = 128, SLABS = 1 << 19, WEIGHTS = 1 << 11 };

ni_layer ni_layer_of(const ni_exec *x, const ni_node *n, const ni_cell *cell) {
  const neap_type *w = &x->view[n->in[1]].type, *u = &x->view[n->in[2]].type;
  ni_layer l = {.space = ni_space_of(x, n->in[0]), .inputs = (size_t)w->dim[1],
                .h = (size_t)u->dim[1], .n = (size_t)u->dim[0]};
  l.rows = &x->rows[l.space];
  l.part[0] = cell->first * l.h;
  l.part[1] = l.n - l.part[0];
  l.row = x->keeps ? cell->blocks * l.h : l.n;
  size_t at = 0, rows = l.rows->rows, parents = l.rows->parents;
  size_t slabs = 1u + cell->slab[0] + cell->slab[1];
  l.piece = most(SUMS / l.n, most(SUMS_ROWS, l.inputs / 2));
  l.piece_back = most(SLABS / (l.row + l.inputs + slabs * l.h),
                      l.n * (l.inputs + l.h) / WEIGHTS);
  l.fused = cell->fused ? cell->gates : 0;
  /* to keep the sums of so few inputs would cost more than to add them up at each step */
  l.direct = l.fused && (x->stream == l.space || l.inputs <= 8);
  size_t whole = ni_product_packed(l.n, l.inputs);
  size_t step = ni_product_packed_gates(cell->gates, l.h, l.inputs); /* for a stream */
  l.w = take(&at, whole > step ? whole : step);
  if (l.fused)
    l.u[0] = l.u[1] = take(&at, ni_product_packed_gates(l.fused, l.h, l.h));
  else
    for (int j = 0; j < 2; j++) l.u[j] = take(&at, ni_product_packed(l.part[j], l.h));
  l.bias = take(&at, l.n);
  l.fixed = at;
  l.w_back = take(&at, ni_product_packed(l.inputs, l.n));
  for (int j = 0; j < 2; j++) l.u_back[j] = take(&at, ni_product_packed(l.h, l.part[j]));
  l.scratch = take(&at, ni_product_scratch(l.n, l.inputs, l.h));
  l.fixed_back = at;
  at = 0;
  size_t kept = x->keeps ? rows : 0, summed = l.direct ? 0 : least(rows, most(l.piece, parents));
  l.gates = take(&at, (x->keeps ? rows : summed) * l.row);
  l.before = take(&at, kept * l.h);
  for (int j = 0; j < 2; j++)
    l.slab[j] = take(&at, cell->slab[j] ? (cell->always[j] ? rows : kept) * l.h : 0);
  for (size_t j = 0; j < cell->narrow; j++) l.narrow[j] = take(&at, parents * l.h);
  l.work = at;
  return l;
}

static neap_status want(const ni_infer *i, int k, const char *who, int rank, size_t d0, size_t d1) {
  const neap_type *t = i->in[k];
  neap_status rc = ni_want(i, k, NEAP_F32, who);
  if (rc) return rc;
  if (t->space < 0 && t->rank == rank && t->dim[0] >= 0 && (size_t)t->dim[0] == d0 &&
      (rank == 1 || (t->dim[1] >= 0 && (size_t)t->dim[1] == d1)))
    return NEAP_OK;
  if (rank == 1)
    return ni_fail(NEAP_ESHAPE, "%s must be [%zu], not %s: x %s, weight_hh %s", who, d0,
                   ni_type_text(i, t), ni_type_text(i, i->in[0]), ni_type_text(i, i->in[2]));
  return ni_fail(NEAP_ESHAPE, "%s must be [%zu,%zu], not %s: x %s, weight_hh %s", who, d0, d1,
                 ni_type_text(i, t), ni_type_text(i, i->in[0]), ni_type_text(i, i->in[2]));
}

neap_status ni_layer_infer(ni_infer *i, const ni_cell *cell, int states) {
  static const char *const who[] = {"x",        "weight_ih", "weight_hh", "bias_ih",
                                    "bias_hh", "h0",        "c0"};
  const neap_type *x = i->in[0], *u = i->in[2];
  int parent = -1;
  neap_status rc = ni_want(i, 0, NEAP_F32, who[0]);
  if (!rc) rc = ni_want_sequence(i, &parent);
  if (rc) return rc;
  if (x->rank != 1 || x->dim[0] < 1)
    return ni_fail(NEAP_ESHAPE, "x must have one feature dimension, not %s", ni_type_text(i, x));
  if (u->rank != 2 || u->dim[1] < 1)
    return ni_fail(NEAP_ESHAPE, "weight_hh must be [%zu*H,H], not %s", cell->gates,
                   ni_type_text(i, u));
  size_t h = (size_t)u->dim[1], n = cell->gates * h;
  rc = want(i, 2, who[2], 2, n, h);
  if (!rc) rc = want(i, 1, who[1], 2, n, (size_t)x->dim[0]);
  for (int k = 3; !rc && k < 5 && k < i->n_in; k++)
    if (i->in[k]) rc = want(i, k, who[k], 1, n, 0);
  neap_type state = {.dtype = NEAP_F32, .space = parent, .rank = 1, .dim = {u->dim[1]}};
  for (int k = 5; !rc && k < i->n_in; k++) {
    const neap_type *t = i->in[k];
    if (!t || (rc = ni_want(i, k, NEAP_F32, who[k])) != NEAP_OK) continue;
    if (t->space != parent || t->rank != 1 || t->dim[0] != u->dim[1])
      rc = ni_fail(NEAP_ESHAPE, "%s must be %s, one for each sequence of x %s, not %s", who[k],
                   ni_type_text(i, &state), ni_type_text(i, x), ni_type_text(i, t));
  }
  if (rc) return rc;
  i->out[0] = state;
  i->out[0].space = x->space;
  for (int k = 1; k <= states; k++) i->out[k] = state;
  return NEAP_OK;
}

#endif

void NI_R(ni_layer_prepare)(const ni_exec *x, const ni_node *n, const ni_layer *l, bool backward,
                            size_t merged) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  const real *w = x->view[n->in[1]].data, *u = x->view[n->in[2]].data;
  real *fixed = x->fixed[n->index], *bias = fixed + l->bias;
  if (backward) {
    NI_R(ni_product_pack)(x->pool, l->inputs, l->n, w, l->inputs, true, fixed + l->w_back);
    for (int j = 0; j < 2; j++)
      NI_R(ni_product_pack)(x->pool, l->h, l->part[j], u + (j ? l->part[0] * l->h : 0), l->h, true,
                            fixed + l->u_back[j]);
    return;
  }
  if (l->direct)
    NI_R(ni_product_pack_gates)(x->pool, l->fused, l->h, l->inputs, w, l->inputs, fixed + l->w);
  else
    NI_R(ni_product_pack)(x->pool, l->n, l->inputs, w, l->inputs, false, fixed + l->w);
  if (l->fused)
    NI_R(ni_product_pack_gates)(x->pool, l->fused, l->h, l->h, u, l->h, fixed + l->u[0]);
  for (int j = 0; j < 2 && !l->fused; j++)
    NI_R(ni_product_pack)(x->pool, l->part[j], l->h, u + (j ? l->part[0] * l->h : 0), l->h, false,
                          fixed + l->u[j]);
  memset(bias, 0, l->n * sizeof(real));
  for (int j = 3; j < 5; j++) {
    const real *b = ni_layer_data(x, n, j);
    if (b) k->add(j == 3 ? l->n : merged, bias, b, bias);
  }
}

void NI_R(ni_layer_sums)(const NI_R(ni_walk) *w, size_t r0, size_t r1) {
  const ni_layer *l = &w->l;
  const real *fixed = w->x->fixed[w->n->index], *in = w->x->view[w->n->in[0]].data;
  NI_R(ni_product_rows)(w->x->pool, r1 - r0, l->n, l->inputs, in + r0 * l->inputs, l->inputs,
                        fixed + l->w, fixed + l->bias, false, NI_R(ni_layer_gates)(w, r0), l->row);
}

NI_R(ni_step) NI_R(ni_layer_step)(const ni_exec *x, const ni_node *n, const ni_layer *l) {
  const real *fixed = x->fixed[n->index];
  return (NI_R(ni_step)){.units = l->h, .to = l->h, .inputs = l->direct ? l->inputs : 0,
                         .stride = l->row, .w = fixed + l->w, .u = fixed + l->u[0],
                         .bias = fixed + l->bias};
}

#ifndef NI_F64

bool ni_layer_bind(ni_call *c, const ni_layer *l) {
  const ni_view *y = &c->x->view[c->n->out];
  if (c->x->stream != l->space || c->n->slot < 0) return false;
  c->slot = &c->x->slot[c->n->slot];
  c->bytes = c->rows * l->h * sizeof(float);
  c->step = ni_layer_step_f32(c->x, c->n, l);
  c->step.inputs = l->inputs;
  c->step.x = c->x->view[c->n->in[0]].data;
  c->step.h = y->data;
  return true;
}

void ni_layer_bound_last(const ni_call *c, int states) {
  for (int j = 0; j < states; j++) /* the only step is the last one */
    if (c->reads & 2u << j) memcpy(c->x->view[c->n->out + 1 + j].data, c->slot[j].next, c->bytes);
}

#endif

/* ---- walks ---- */

/* Steps from..to-1 of a walk, shared out. */
typedef struct shared {
  const NI_R(ni_walk) *w;
  size_t shares, from, to;
} shared;

static size_t steps_of(const NI_R(ni_walk) *w) { return w->l.rows->steps + w->back; }

/* How many steps of time stand before step i of the walk, or, if it goes back, are left from there. */
static size_t time_of(const NI_R(ni_walk) *w, size_t i) {
  size_t steps = w->l.rows->steps;
  return !w->back ? i : i < steps ? steps - i : 0;
}

/* Rows of a position until step t. */
static size_t rows_until(const ni_rows *r, size_t position, size_t t) {
  return least(r->len[r->perm[position]], t);
}

/* The first position of a share. Every position counts one more than the rows it has here. */
static size_t cut(const shared *s, size_t share) {
  const ni_rows *r = s->w->l.rows;
  size_t a = time_of(s->w, s->from), b = time_of(s->w, s->to), t0 = least(a, b), t1 = a + b - t0;
  uint64_t all = (uint64_t)r->off[t1] - r->off[t0] + r->parents, before = 0;
  size_t p = 0;
  for (; p < r->parents && before * s->shares < all * share; p++)
    before += 1 + rows_until(r, p, t1) - rows_until(r, p, t0);
  return share == s->shares ? r->parents : p;
}

static void walk_rows(void *arg, size_t share) {
  const shared *s = arg;
  const NI_R(ni_walk) *w = s->w;
  size_t from = cut(s, share), to = cut(s, share + 1);
  if (from == to) return;
  if (w->begin && s->from == 0) w->begin(w, from, to);
  for (size_t i = s->from; i < s->to; i++) {
    if (ni_layer_stop(w->x)) return;
    w->step(w, i, from, to, 0, w->l.h);
  }
  if (s->to == steps_of(w)) w->end(w, from, to);
}

static size_t cut_units(const shared *s, size_t share) {
  size_t panel = NI_R(ni_kernel)()->panel, panels = (s->w->l.h + panel - 1) / panel;
  size_t at = panels * share / s->shares * panel;
  return at < s->w->l.h ? at : s->w->l.h;
}

static void walk_units(void *arg, size_t share, size_t step) {
  const shared *s = arg;
  s->w->step(s->w, s->from + step, 0, s->w->l.rows->parents, cut_units(s, share),
             cut_units(s, share + 1));
}

/* Multiplications of a share that are worth the wait after each step. */
enum { STEP_WORTH = 20000 };

/* Shares of the units, 0 where rows are to be shared: where there are enough to fill the tiles of
** every thread, or weights that the second cache holds beside other things, or where a step is too
** short to wait after it. */
static size_t unit_shares(const NI_R(ni_walk) *w, size_t threads) {
  const ni_rows *r = w->l.rows;
  size_t rows = r->steps ? r->rows / r->steps : 0, weights = w->l.n * w->l.h;
  size_t panel = NI_R(ni_kernel)()->panel, shares = panel ? w->l.h / panel : 0;
  if (w->whole || rows >= 16 * threads || (rows >= threads && weights <= (size_t)1 << 18)) return 0;
  size_t worth = (rows ? rows : 1) * weights / STEP_WORTH;
  shares = least(least(shares, NI_MOST_SHARES), least(worth, threads));
  return shares < 2 ? 0 : shares;
}

/* Some steps by shares of the units. */
static void walk_by_units(shared *s) {
  const NI_R(ni_walk) *w = s->w;
  if (w->begin && s->from == 0) w->begin(w, 0, w->l.rows->parents);
  ni_pool_steps(w->x->pool, s->shares, s->to - s->from, walk_units, s);
  if (s->to == steps_of(w) && !ni_layer_stop(w->x)) w->end(w, 0, w->l.rows->parents);
}

/* Sets where the piece from `from` on ends, and its rows. */
static void find_piece(shared *s, size_t *r0, size_t *r1) {
  const NI_R(ni_walk) *w = s->w;
  size_t all = steps_of(w), rows = w->back ? w->l.piece_back : w->l.piece;
  s->to = w->before_piece || w->after_piece ? s->from : all;
  *r0 = *r1 = w->l.rows->off[time_of(w, s->from)];
  while (s->to < all) {
    size_t next = w->l.rows->off[time_of(w, s->to + 1)];
    if (s->to > s->from && (w->back ? *r1 - next : next - *r0) > rows) break;
    *(w->back ? r0 : r1) = next;
    s->to++;
  }
}

void NI_R(ni_layer_walk)(NI_R(ni_walk) *w) {
  size_t threads = (size_t)ni_pool_threads(w->x->pool), worth = w->l.rows->rows * w->l.n * w->l.h >> 18;
  shared s = {.w = w, .shares = unit_shares(w, threads)};
  bool by_units = s.shares > 0;
  if (!by_units) s.shares = most(1, least(least(threads, worth), w->l.rows->parents));
  do {
    size_t r0, r1;
    find_piece(&s, &r0, &r1);
    w->first_row = w->x->keeps ? 0 : r0;
    if (w->before_piece) w->before_piece(w, r0, r1);
    if (by_units)
      walk_by_units(&s);
    else
      ni_pool_run(w->x->pool, s.shares, walk_rows, &s);
    if (ni_layer_stop(w->x)) return;
    if (w->after_piece) w->after_piece(w, r0, r1);
    s.from = s.to;
  } while (s.from < steps_of(w));
}

void NI_R(ni_layer_last)(const ni_exec *x, const ni_node *n, const ni_layer *l, int j, size_t p0,
                         size_t p1, const real *slab, const real *first) {
  const ni_rows *r = l->rows;
  real *out = x->view[n->out + 1 + j].data;
  for (size_t p = p0; p < p1; p++) {
    size_t len = r->len[r->perm[p]];
    const real *last = NI_R(ni_layer_before)(l, len, p, slab, first);
    if (!x->again) memcpy(out + r->perm[p] * l->h, last, l->h * sizeof(real));
    if (x->ahead) last = NI_R(ni_layer_before)(l, len > x->ahead ? len - x->ahead : 0, p, slab, first);
    NI_R(ni_state_last)(x, l->space, n->slot < 0 ? -1 : n->slot + j, p, l->h, last);
  }
}

void NI_R(ni_units_copy)(size_t m, size_t h, size_t u0, size_t u1, const real *src, real *dst) {
  if (u1 - u0 == h) u1 = m * h, m = m > 0;
  for (size_t r = 0; r < m; r++) memcpy(dst + r * h + u0, src + r * h + u0, (u1 - u0) * sizeof(real));
}

void NI_R(ni_units_add)(size_t m, size_t h, size_t u0, size_t u1, const real *src, real *dst) {
  if (u1 - u0 == h) u1 = m * h, m = m > 0;
  for (size_t r = 0; r < m; r++)
    NI_R(ni_kernel)()->add(u1 - u0, dst + r * h + u0, src + r * h + u0, dst + r * h + u0);
}

void NI_R(ni_layer_last_back)(const NI_R(ni_walk) *w, int j, size_t p0, size_t p1, size_t u0,
                              size_t u1, real *d) {
  const real *grad = w->x->view[w->n->out + 1 + j].grad;
  const ni_carry *c = ni_carry_of(w->x, w->n->slot < 0 ? -1 : w->n->slot + j);
  size_t h = w->l.h, bytes = (u1 - u0) * sizeof(real);
  for (size_t p = p0; p < p1; p++)
    if (c && c->dlast)
      memcpy(d + p * h + u0, (const real *)c->dlast + p * h + u0, bytes);
    else if (grad)
      memcpy(d + p * h + u0, grad + w->l.rows->perm[p] * h + u0, bytes);
    else
      memset(d + p * h + u0, 0, bytes);
}

size_t NI_R(ni_layer_step_back)(const NI_R(ni_walk) *w, size_t t, size_t p0, size_t p1, size_t u0,
                                size_t u1, const real *first, real *d) {
  const ni_layer *l = &w->l;
  const ni_view *y = &w->x->view[w->n->out];
  size_t later = ni_layer_alive(l, t + 1, p0, p1), m = ni_layer_alive(l, t, p0, p1);
  size_t row = l->rows->off[t] + p0;
  NI_R(ni_layer_last_back)(w, 0, p0 + later, p0 + m, u0, u1, d);
  if (y->grad) NI_R(ni_units_add)(m, l->h, u0, u1, (real *)y->grad + row * l->h, d + p0 * l->h);
  NI_R(ni_units_copy)(m, l->h, u0, u1, NI_R(ni_layer_before)(l, t, p0, y->data, first),
                      (real *)w->x->work[w->n->index] + l->before + row * l->h);
  return m;
}

static real *gradient(const ni_exec *x, const ni_node *n, int k) {
  int v = ni_layer_input(n, k);
  return v < 0 ? NULL : x->view[v].grad;
}

void NI_R(ni_layer_gradients)(const NI_R(ni_walk) *w, size_t r0, size_t r1, const real *other) {
  const ni_exec *x = w->x;
  const ni_node *n = w->n;
  const ni_layer *l = &w->l;
  real *fixed = x->fixed[n->index], *work = x->work[n->index], *scratch = fixed + l->scratch;
  real *dx = gradient(x, n, 0), *dw = gradient(x, n, 1), *du = gradient(x, n, 2);
  /* both: d(sums) of x and of h are the same up to there; same: and one product serves them. The last
  ** H of h are the last of a row, those of x the last of the first n. */
  const real *d = work + l->gates + r0 * l->row, *last = d + l->row - l->h;
  size_t rows = r1 - r0, both = l->row > l->n ? l->n - l->h : l->n;
  size_t same = other ? l->n - l->h : both;
  if (dx)
    NI_R(ni_product_rows)(x->pool, rows, l->inputs, l->n, d, l->row, fixed + l->w_back, NULL, true,
                          dx + r0 * l->inputs, l->inputs);
  NI_R(ni_factor) of_x = {l->inputs, (real *)x->view[n->in[0]].data + r0 * l->inputs, dw};
  NI_R(ni_factor) of_h = {l->h, work + l->before + r0 * l->h, du}, wanted[2];
  int factors = 0;
  if (dw) wanted[factors++] = of_x;
  if (du) wanted[factors++] = of_h;
  if (factors)
    NI_R(ni_product_outer)(x->pool, same, rows, d, l->row, factors, wanted, scratch);
  if (dw && same < l->n) {
    of_x.c += same * l->inputs;
    NI_R(ni_product_outer)(x->pool, l->h, rows, d + same, l->row, 1, &of_x, scratch);
  }
  if (du && same < l->n) {
    of_h.c += same * l->h;
    if (other) of_h.b = other + r0 * l->h;
    NI_R(ni_product_outer)(x->pool, l->h, rows, last, l->row, 1, &of_h, scratch);
  }
  real *db = gradient(x, n, 3), *dc = gradient(x, n, 4);
  NI_R(ni_product_sum)(x->pool, both, rows, d, l->row, db, dc);
  if (both == l->n) return;
  NI_R(ni_product_sum)(x->pool, l->h, rows, d + both, l->row, db ? db + both : NULL, NULL);
  NI_R(ni_product_sum)(x->pool, l->h, rows, last, l->row, dc ? dc + both : NULL, NULL);
}
