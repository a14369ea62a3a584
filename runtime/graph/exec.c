/*
** Computes a run: units in order forward, in reverse backward. Rows are independent in all but
** whole ops, so a node's rows are shared among threads, and a loop's sequences: each thread walks
** its own sequences through all steps without waiting for the others.
*/
#include <math.h>
#include <string.h>

#include "run.h"

typedef struct context {
  neap_run *run;
  ni_exec x;
  const ni_unit *unit;
  size_t cut[66];  /* borders of the shares of sorted positions */
  size_t n_local;  /* values that point_all points */
} context;

static const ni_code *code_of(const ni_node *n) {
#ifdef NI_F64
  return n->op->code_f64;
#else
  return n->op->code_f32;
#endif
}

static void set_up(context *c, neap_run *run) {
  c->run = run;
  ni_exec_set_up(&c->x, run);
}

/* Numbers, constants and parameters: where their data stand. Parameters may have moved when their
** version has changed. */
static void point_sources(neap_run *run) {
  const neap_program *pr = run->pr;
#ifdef NI_F64
  size_t all = pr->params->extent;
  uint64_t version = pr->params->version;
  if (run->params64_version != version) {
    const float *from = pr->params->data;
    for (size_t i = 0; i < all; i++) run->params64[i] = (double)from[i];
    run->params64_version = version;
  }
#endif
  if (run->sourced_version == pr->params->version) return;
  for (int i = 0; i < pr->n_nodes; i++) {
    const ni_node *n = &pr->node[i];
    ni_view *v = &run->view[n->out];
    if (n->op == &ni_op_scalar || n->op == &ni_op_constant) {
      v->data = (real *)run->scalar + n->out;
    } else if (n->op == &ni_op_param) {
      float *data = ni_params_data(pr->params, run->param[i]);
#ifdef NI_F64
      v->data = run->params64 + (data - pr->params->data);
#else
      v->data = data;
#endif
    }
  }
  run->sourced_version = pr->params->version;
}

/* ---- looking for NaN and infinity ---- */

static neap_status check_finite(const context *c, int value, const real *data, bool gradient) {
  const neap_run *run = c->run;
  const ni_view *v = &run->view[value];
  size_t count = ni_rows_of(&c->x, value) * v->width, first = ni_first_element(&c->x, value);
  size_t i = NI_R(ni_kernel)()->finite_first(count, data);
  if (i == count) return NEAP_OK;
  const neap_program *pr = run->pr;
  const ni_node *n = &pr->node[pr->value[value].node];
  const char *place = v->type.space < 0 ? "" : ni_run_row_text(run, v->type.space, (first + i) / v->width);
  return ni_fail(NEAP_ENONFINITE, "%s: %s came up%s%s%s%s%s%s", ni_program_who(n),
                 isnan(data[i]) ? "NaN" : "infinity", gradient ? " in the gradient" : "",
                 !n->name ? "" : gradient ? " of " : " in ", n->name ? n->name : "", place[0] ? ", " : "", place, ni_program_at(n));
}

static neap_status check_node(const context *c, const ni_node *n) {
  const ni_view *view = c->run->view;
  for (int k = 0; k < n->n_out; k++) {
    if (view[n->out + k].type.dtype != NEAP_F32) continue;
    neap_status rc = check_finite(c, n->out + k, view[n->out + k].data, false);
    if (rc) return rc;
  }
  return NEAP_OK;
}

static neap_status trouble(neap_run *run) {
  if (atomic_load(&run->canceled)) return ni_fail(NEAP_ECANCELED, "run: canceled");
  if (!atomic_load(&run->fault.set)) return NEAP_OK;
  const ni_fault *f = &run->fault;
  int space = run->view[f->node->out].type.space;
  const char *place = space < 0 ? "" : ni_run_row_text(run, space, f->row);
  return ni_fail(f->status, "%s: %s%s%s%s", ni_program_who(f->node), f->text, place[0] ? ", " : "",
                 place, ni_program_at(f->node));
}

/* ---- single nodes ---- */

static void prepare(context *c, const ni_node *n, bool backward) {
  const ni_code *code = code_of(n);
  uint8_t bit = backward ? 2 : 1;
  if (!code->prepare || !(c->run->stale[n->index] & bit)) return;
  code->prepare(&c->x, n, backward);
  if (ni_pool_stopped(c->x.pool)) return; /* a run that was canceled has packed a part only */
  /* what is packed from anything but a parameter may differ next time */
  const neap_program *pr = c->run->pr;
  for (int k = 0; k < n->n_in; k++) {
    if (n->in[k] < 0 || pr->value[n->in[k]].type.space >= 0) continue;
    const ni_op *op = pr->node[pr->value[n->in[k]].node].op;
    if (op != &ni_op_param && op != &ni_op_constant && op != &ni_op_scalar) return;
  }
  c->run->stale[n->index] &= (uint8_t)~bit;
}

/* All rows of a node in shares: not too small for a task of their own, nor too large to wait for
** when the run is canceled. At worst each element of the result takes a whole row of an input. */
static void share_rows(const ni_exec *x, const ni_node *n, size_t rows, ni_share fn) {
  size_t in = 1, out = x->view[n->out].width;
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] >= 0 && x->view[n->in[k]].type.space >= 0 && x->view[n->in[k]].width > in)
      in = x->view[n->in[k]].width;
  size_t grain = 32768 / (in > out ? in : out ? out : 1);
  ni_exec_pieces(x, n, rows, grain < 16 ? 16 : grain, ni_piece(in * out), fn);
}

static void forward_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  code_of(n)->forward(x, n, from, to);
}
static void backward_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  code_of(n)->backward(x, n, from, to);
}

static void node_forward(context *c, const ni_node *n) {
  const ni_exec *x = &c->x;
  prepare(c, n, false);
  size_t rows = ni_rows_of(x, n->out);
  if ((n->op->flags & NI_WHOLE) || x->view[n->out].type.space < 0)
    code_of(n)->forward(x, n, 0, rows);
  else
    share_rows(x, n, rows, forward_share);
}

/* A gradient that begins, cleared unless a loop will clear it, it is another one too, or it takes
** the place of data that are still to be read. */
static void begin_grad(context *c, int v) {
  neap_run *run = c->run;
  size_t rows = ni_rows_of(&c->x, v);
  run->view[v].grad = run->grad[v];
  if (run->same[v] == v && !(run->local[v] & NI_LOCAL_CLEAR) && !run->turned[v])
    memset(run->view[v].grad, 0, rows * run->view[v].width * sizeof(real));
}

/* The gradient of a parameter that node n will add to as its input k. */
static real *param_grad(const context *c, const ni_node *n, int k) {
  const neap_run *run = c->run;
  neap_params *params = run->pr->params;
  int id = run->param[run->pr->value[n->in[k]].node];
  if (ni_params_frozen(params, id)) return NULL;
#ifdef NI_F64
  return run->grads64 + (ni_params_data(params, id) - params->data);
#else
  if (k != 1 || !(n->op->flags & NI_PICKS)) return ni_params_grad_rows(params, id, NULL, 0);
  const ni_view *ids = &run->view[n->in[0]];
  return ni_params_grad_rows(params, id, ids->data, ni_rows_of(&c->x, n->in[0]) * ids->width);
#endif
}

/* Clears the gradients that this node is the first to add to. */
static void touch_inputs(context *c, const ni_node *n) {
  neap_run *run = c->run;
  const neap_program *pr = run->pr;
  for (int k = 0; k < n->n_in; k++) {
    int v = n->in[k];
    if (v < 0 || !run->need[v]) continue;
    if (pr->node[pr->value[v].node].op == &ni_op_param)
      run->view[v].grad = param_grad(c, n, k);
    else if (!run->touched[v])
      begin_grad(c, v);
    run->touched[v] = 1;
  }
}

static bool any_grad(const neap_run *run, const ni_node *n) {
  for (int k = 0; k < n->n_out; k++)
    if (run->view[n->out + k].grad) return true;
  return false;
}

static void node_backward(context *c, const ni_node *n) {
  const ni_exec *x = &c->x;
  const ni_code *code = code_of(n);
  if (!code || !any_grad(c->run, n) || (n->op->flags & NI_NOGRAD)) return;
  touch_inputs(c, n);
  prepare(c, n, true);
  size_t rows = ni_rows_of(x, n->out);
  if (code->backward) {
    if ((n->op->flags & NI_WHOLE) || x->view[n->out].type.space < 0)
      code->backward(x, n, 0, rows);
    else
      share_rows(x, n, rows, backward_share);
  }
  if (code->backward_const) code->backward_const(x, n);
}

/* ---- loops ---- */

/* Cuts sorted positions into shares of about equal work. */
static size_t cut_positions(context *c, const ni_rows *rows) {
  size_t shares = (size_t)ni_pool_threads(c->x.pool), n = rows->parents, k = 0;
  if (shares > 64) shares = 64;
  if (c->run->flags & NEAP_CHECK) shares = 1; /* the first bad step is the one to name */
  if (shares > n) shares = n ? n : 1;
  c->cut[0] = 0;
  uint64_t sum = 0;
  for (size_t p = 0; p < n && k + 1 < shares; p++) {
    sum += rows->len[rows->perm[p]];
    if (sum * shares >= (uint64_t)rows->rows * (k + 1)) c->cut[++k] = p + 1;
  }
  c->cut[++k] = n;
  return k;
}

static void first_i32(const context *c, const ni_state_info *s, int space, size_t p0, size_t p1,
                      size_t width, int32_t *dst) {
  const ni_rows *rows = &c->x.rows[space];
  const ni_slot *slot = c->x.slot ? &c->x.slot[s->slot] : NULL;
  const ni_carry *carry = ni_carry_of(&c->x, s->slot);
  bool goes_on = carry && ni_goes_on(&c->x, space);
  if (goes_on) memcpy(dst + p0 * width, (int32_t *)carry->first + p0 * width, (p1 - p0) * width * 4);
  for (size_t p = p0; p < p1 && !goes_on; p++) {
    uint32_t at = rows->state[p];
    if (slot && slot->held[at])
      memcpy(dst + p * width, (int32_t *)slot->data + at * width, width * 4);
    else if (s->init >= 0)
      memcpy(dst + p * width, (int32_t *)c->x.view[s->init].data + rows->perm[p] * width,
             width * 4);
    else
      memset(dst + p * width, 0, width * 4);
  }
  if (carry && !goes_on)
    memcpy((int32_t *)carry->first + p0 * width, dst + p0 * width, (p1 - p0) * width * 4);
}

/* This thread's views: of what has memory for one step, as if step `off` began where it stands. */
static void point_step(const neap_run *run, ni_view *own, int v, size_t off) {
  size_t back = off * own[v].width * sizeof(real);
  if (run->local[v] & NI_LOCAL_DATA)
    own[v].data = (void *)((uintptr_t)run->view[v].data - back);
  if (run->local[v] & NI_LOCAL_GRAD && run->view[v].grad)
    own[v].grad = (void *)((uintptr_t)run->view[v].grad - back);
}

/* Which values of a loop those are, looked up once for all of its steps. */
static void list_local(context *c, const ni_unit *u) {
  const neap_run *run = c->run;
  const neap_program *pr = run->pr;
  int *list = run->pointed;
  for (int k = 0; k < u->n_inner; k++) {
    const ni_node *n = &pr->node[u->inner[k]];
    for (int o = 0; o < n->n_out; o++)
      if (run->local[n->out + o]) *list++ = n->out + o;
  }
  for (int i = 0; i < pr->n_states; i++)
    if (run->local[pr->state[i].value] && ni_run_carries(run, &pr->state[i], u->scan))
      *list++ = pr->state[i].value;
  c->n_local = (size_t)(list - run->pointed);
}

static void point_all(const context *c, ni_view *own, size_t off) {
  for (size_t k = 0; k < c->n_local; k++) point_step(c->run, own, c->run->pointed[k], off);
}

static ni_exec own_views(const context *c, size_t share) {
  ni_exec x = c->x;
  size_t n = (size_t)c->run->pr->n_values;
  ni_view *own = c->run->own + share * n;
  memcpy(own, c->run->view, n * sizeof *own);
  x.view = own;
  return x;
}

/* Looks at rows r0..r1-1 of a value of a loop. */
static void check_rows(const ni_exec *x, const neap_run *run, int value, size_t r0, size_t r1,
                       bool gradient) {
  const ni_view *v = &x->view[value];
  const real *d = gradient ? v->grad : v->data;
  if (v->type.dtype != NEAP_F32 || !d) return;
  const ni_node *n = &run->pr->node[run->pr->value[value].node];
  size_t i = r0 * v->width, end = r1 * v->width;
  i += NI_R(ni_kernel)()->finite_first(end - i, d + i);
  if (i < end)
    ni_exec_fault(x, n, NEAP_ENONFINITE, i / v->width, "%s came up%s%s%s",
                  isnan(d[i]) ? "NaN" : "infinity", gradient ? " in the gradient" : "",
                  !n->name ? "" : gradient ? " of " : " in ", n->name ? n->name : "");
}

static void loop_forward(void *arg, size_t share) {
  context *c = arg;
  neap_run *run = c->run;
  const neap_program *pr = run->pr;
  int scan = c->unit->scan, space = pr->scan[scan].space;
  const ni_rows *rows = &c->x.rows[space];
  size_t p0 = c->cut[share], p1 = c->cut[share + 1];
  const ni_exec x = own_views(c, share);
  for (size_t t = 0; t < rows->steps; t++) {
    if (atomic_load_explicit(&run->canceled, memory_order_relaxed)) return;
    size_t off = rows->off[t], alive = rows->off[t + 1] - off, e = p1 < alive ? p1 : alive;
    if (p0 >= e) break;
    for (int i = 0; i < pr->n_states; i++) {
      const ni_state_info *s = &pr->state[i];
      if (!ni_run_carries(run, s, scan)) continue;
      ni_view *v = &run->view[s->value];
      size_t size = v->type.dtype == NEAP_I32 ? 4 : sizeof(real), w = v->width * size;
      if (t > 0)
        memcpy((char *)v->data + (off + p0) * w,
               (char *)run->view[s->next].data + (rows->off[t - 1] + p0) * w, (e - p0) * w);
      else if (v->type.dtype == NEAP_I32)
        first_i32(c, s, space, p0, e, v->width, v->data);
      else
        NI_R(ni_state_first)(&c->x, space, s->slot, s->init, p0, e, v->width, v->data);
    }
    point_all(c, run->own + share * (size_t)pr->n_values, off);
    for (int k = 0; k < c->unit->n_inner; k++) {
      const ni_node *n = &pr->node[c->unit->inner[k]];
      code_of(n)->forward(&x, n, off + p0, off + e);
      if (!(run->flags & NEAP_CHECK)) continue;
      for (int o = 0; o < n->n_out; o++) check_rows(&x, run, n->out + o, off + p0, off + e, false);
      if (atomic_load_explicit(&run->fault.set, memory_order_relaxed)) return;
    }
  }
  if (!c->x.slot && !c->x.carry) return;
  for (int i = 0; i < pr->n_states; i++) {
    const ni_state_info *s = &pr->state[i];
    if (!ni_run_carries(run, s, scan)) continue;
    const ni_view *v = &run->view[s->next];
    const ni_carry *carry = ni_carry_of(&c->x, s->slot);
    size_t width = v->width, size = v->type.dtype == NEAP_I32 ? 4 : sizeof(real);
    for (size_t p = p0; p < p1; p++) {
      uint32_t len = rows->len[rows->perm[p]];
      if (run->stream_space == space) len = 1;
      if (carry && !len) /* it has ended before */
        memcpy((char *)carry->last + p * width * size, (char *)carry->first + p * width * size,
               width * size);
      if (len <= c->x.ahead) continue;
      len -= (uint32_t)c->x.ahead;
      size_t at = (rows->off[len - 1] + p) * width;
      if (v->type.dtype == NEAP_F32) {
        NI_R(ni_state_last)(&c->x, space, s->slot, p, width, (real *)v->data + at);
        continue;
      }
      if (carry) memcpy((int32_t *)carry->last + p * width, (int32_t *)v->data + at, width * 4);
      if (c->x.slot && !c->x.again)
        memcpy((int32_t *)c->x.slot[s->slot].next + rows->state[p] * width,
               (int32_t *)v->data + at, width * 4);
    }
  }
}

/* Clears rows p0..e-1 of step `off` of a gradient that the loop clears, a state's own or not. */
static void clear_step(const neap_run *run, const ni_exec *x, int v, size_t off, size_t p0,
                       size_t e) {
  if (!(run->local[v] & NI_LOCAL_CLEAR) || run->same[v] != v || !x->view[v].grad) return;
  size_t w = x->view[v].width;
  memset((real *)x->view[v].grad + (off + p0) * w, 0, (e - p0) * w * sizeof(real));
}

static void loop_backward(void *arg, size_t share) {
  context *c = arg;
  neap_run *run = c->run;
  const neap_program *pr = run->pr;
  int scan = c->unit->scan, space = pr->scan[scan].space;
  const ni_rows *rows = &c->x.rows[space];
  size_t p0 = c->cut[share], p1 = c->cut[share + 1], before = p0;
  const ni_exec x = own_views(c, share);
  for (size_t t = rows->steps; t-- > 0;) {
    if (atomic_load_explicit(&run->canceled, memory_order_relaxed)) return;
    size_t off = rows->off[t], alive = rows->off[t + 1] - off, e = p1 < alive ? p1 : alive;
    if (p0 >= e) continue;
    point_all(c, run->own + share * (size_t)pr->n_values, off);
    for (int k = 0; k < c->unit->n_inner; k++) {
      const ni_node *n = &pr->node[c->unit->inner[k]];
      for (int o = 0; o < n->n_out; o++) clear_step(run, &x, n->out + o, off, p0, e);
    }
    for (int i = 0; i < pr->n_states; i++) { /* what the step after this one has left */
      const ni_state_info *s = &pr->state[i];
      if (!ni_run_carries(run, s, scan) || !run->view[s->value].grad || !x.view[s->next].grad)
        continue;
      size_t w = x.view[s->value].width;
      size_t from = run->local[s->value] & NI_LOCAL_GRAD ? p0 : rows->off[t + 1] + p0;
      real *to = (real *)x.view[s->next].grad + (off + p0) * w, *ended = to + (before - p0) * w;
      const ni_carry *carry = ni_carry_of(&c->x, s->slot);
      if (before > p0)
        NI_R(ni_kernel)()->add((before - p0) * w, to, (real *)run->view[s->value].grad + from * w, to);
      if (e > before && carry && carry->dlast)
        NI_R(ni_kernel)()->add((e - before) * w, ended, (real *)carry->dlast + before * w, ended);
    }
    for (int i = 0; i < pr->n_states; i++)
      if (ni_run_carries(run, &pr->state[i], scan))
        clear_step(run, &x, pr->state[i].value, off, p0, e);
    before = e;
    for (int k = c->unit->n_inner; k-- > 0;) {
      const ni_node *n = &pr->node[c->unit->inner[k]];
      if (!code_of(n)->backward || !any_grad(run, n) || (n->op->flags & NI_NOGRAD)) continue;
      code_of(n)->backward(&x, n, off + p0, off + e);
      if (!(run->flags & NEAP_CHECK)) continue;
      for (int i = 0; i < n->n_in; i++)
        if (n->in[i] >= 0 && x.view[n->in[i]].type.space == space)
          check_rows(&x, run, n->in[i], off + p0, off + e, true);
      if (atomic_load_explicit(&run->fault.set, memory_order_relaxed)) return;
    }
  }
  for (int i = 0; i < pr->n_states; i++) {
    const ni_state_info *s = &pr->state[i];
    if (!ni_run_carries(run, s, scan) || !run->view[s->value].grad) continue;
    const ni_carry *carry = ni_carry_of(&c->x, s->slot);
    size_t w = run->view[s->value].width, rest = (p1 - before) * w;
    if (before > p0)
      NI_R(ni_state_first_back)(&c->x, space, s->slot, s->init, p0, before, w,
                                run->view[s->value].grad);
    if (!carry || !carry->dfirst) continue;
    if (carry->dlast) /* of sequences that have ended before */
      memcpy((real *)carry->dfirst + before * w, (real *)carry->dlast + before * w, rest * sizeof(real));
    else
      memset((real *)carry->dfirst + before * w, 0, rest * sizeof(real));
  }
}

static void loop_unit_forward(context *c, const ni_unit *u) {
  c->unit = u;
  list_local(c, u);
  for (int k = 0; k < u->n_inner; k++) prepare(c, &c->run->pr->node[u->inner[k]], false);
  size_t shares = cut_positions(c, &c->x.rows[c->run->pr->scan[u->scan].space]);
  ni_pool_run(c->x.pool, shares, loop_forward, c);
}

static void clear_grad(context *c, int v) {
  neap_run *run = c->run;
  if (v < 0 || !run->need[v] || run->touched[v]) return;
  run->touched[v] = 1;
  begin_grad(c, v);
}

static void loop_unit_backward(context *c, const ni_unit *u) {
  neap_run *run = c->run;
  const neap_program *pr = run->pr;
  c->unit = u;
  list_local(c, u);
  bool any = false;
  for (int k = 0; k < u->n_inner; k++) any |= any_grad(run, &pr->node[u->inner[k]]);
  for (int i = 0; i < pr->n_states; i++)
    if (ni_run_carries(run, &pr->state[i], u->scan))
      any |= run->view[pr->state[i].value].grad || run->view[pr->state[i].next].grad;
  if (!any) return;
  for (int i = 0; i < pr->n_states; i++) {
    const ni_state_info *s = &pr->state[i];
    if (!ni_run_carries(run, s, u->scan)) continue;
    clear_grad(c, s->value);
    clear_grad(c, s->next);
    clear_grad(c, s->init);
  }
  for (int k = u->n_inner; k-- > 0;) {
    const ni_node *n = &pr->node[u->inner[k]];
    for (int o = 0; o < n->n_out; o++) clear_grad(c, n->out + o);
    touch_inputs(c, n);
    prepare(c, n, true);
  }
  size_t shares = cut_positions(c, &c->x.rows[pr->scan[u->scan].space]);
  ni_pool_run(c->x.pool, shares, loop_backward, c);
  for (int k = u->n_inner; k-- > 0;) {
    const ni_node *n = &pr->node[u->inner[k]];
    if (code_of(n)->backward_const && any_grad(run, n) && !(n->op->flags & NI_NOGRAD))
      code_of(n)->backward_const(&c->x, n);
  }
}

/* ---- all units ---- */

static neap_status units_forward(context *c, int from, int to, int only_step) {
  neap_run *run = c->run;
  for (int u = from; u < to; u++) {
    const ni_unit *unit = &run->plan.unit[u];
    const ni_node *n = unit->node < 0 ? NULL : &run->pr->node[unit->node];
    if (run->step_unit && run->step_unit[u] != only_step) continue;
    if (!n)
      loop_unit_forward(c, unit);
    else if (!(n->op->flags & NI_SOURCE) && !(c->x.again && n->op->flags & NI_FOLDS))
      node_forward(c, n);
    neap_status rc = trouble(run);
    if (!rc && (run->flags & NEAP_CHECK) && n) rc = check_node(c, n); /* a loop looks itself */
    if (rc) return rc;
  }
  return NEAP_OK;
}

static neap_status units_backward(context *c, int from, int to) {
  neap_run *run = c->run;
  for (int u = to; u-- > from;) {
    const ni_unit *unit = &run->plan.unit[u];
    if (unit->node < 0)
      loop_unit_backward(c, unit);
    else if (!(run->pr->node[unit->node].op->flags & NI_SOURCE))
      node_backward(c, &run->pr->node[unit->node]);
    neap_status rc = trouble(run);
    if (rc) return rc;
    if (!(run->flags & NEAP_CHECK)) continue;
    for (int k = 0; k < (unit->node < 0 ? unit->n_inner : 1); k++) {
      const ni_node *n = &run->pr->node[unit->node < 0 ? unit->inner[k] : unit->node];
      for (int i = 0; i < n->n_in; i++)
        if (n->in[i] >= 0 && run->view[n->in[i]].grad && !run->local[n->in[i]] &&
            (rc = check_finite(c, n->in[i], run->view[n->in[i]].grad, true)))
          return rc;
    }
  }
  return NEAP_OK;
}

neap_status NI_R(ni_exec_forward)(neap_run *run, int only_step) {
  const ni_schedule *s = &run->plan;
  context c;
  set_up(&c, run);
  point_sources(run);
  neap_status rc = units_forward(&c, 0, s->from, only_step);
  for (size_t k = 0; k < run->segments.count && !rc; k++) {
    ni_segment_enter(run, &c.x, k);
    rc = units_forward(&c, s->from, s->to, only_step);
  }
  ni_segment_leave(run, &c.x);
  return rc ? rc : units_forward(&c, s->to, s->n_units, only_step);
}

neap_status NI_R(ni_exec_backward)(neap_run *run) {
  const ni_schedule *s = &run->plan;
  context c;
  set_up(&c, run);
  point_sources(run);
  neap_status rc = units_backward(&c, s->to, s->n_units);
  for (size_t k = run->segments.count; k-- > 0 && !rc;) {
    ni_segment_enter(run, &c.x, k);
    c.x.again = k + 1 < run->segments.count; /* of the last one everything is still there */
    if (c.x.again) rc = units_forward(&c, s->from, s->to, 0);
    c.x.again = false;
    ni_segment_begin_backward(run, k);
    if (!rc) rc = units_backward(&c, s->from, s->to);
  }
  ni_segment_leave(run, &c.x);
  return rc ? rc : units_backward(&c, 0, s->from);
}

bool NI_R(ni_exec_outputs_finite)(const neap_run *run) {
  const neap_program *pr = run->pr;
  for (int o = 0; o < pr->n_outputs; o++) {
    const ni_view *v = &run->view[pr->output[o].value];
    if (v->type.dtype != NEAP_F32) continue;
    size_t n = (v->type.space < 0 ? 1 : run->rows[v->type.space].rows) * v->width;
    if (NI_R(ni_kernel)()->finite_first(n, v->data) < n) return false;
  }
  return true;
}
