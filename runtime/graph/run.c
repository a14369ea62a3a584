#include "run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *ni_run_row_text(const neap_run *run, int space, size_t row) {
  static _Thread_local char text[96];
  const ni_rows *r = &run->rows[space];
  text[0] = 0;
  if (space == 0 || !r->steps) {
    snprintf(text, sizeof text, "row %zu", row + 1);
    return text;
  }
  size_t t = 0;
  while (t + 1 < r->steps && r->off[t + 1] <= row) t++;
  const char *what = run->pr->space[space].parent == 0 ? "sequence" : "row";
  snprintf(text, sizeof text, "%s %u, step %zu", what, (unsigned)r->owner[row] + 1, t + 1);
  return text;
}

neap_status ni_run_open(neap_run **out, neap_program *pr, const neap_run_options *o) {
  static const neap_run_options none;
  *out = NULL;
  if (!o) o = &none;
  if (pr->open_scan >= 0) return ni_fail(NEAP_ESTATE, "run: the program's scan is still open");
  neap_run *run = ni_calloc(1, sizeof *run);
  if (!run) return NEAP_EMEM;
  size_t nv = (size_t)pr->n_values + 1, nn = (size_t)pr->n_nodes + 1;
  run->pr = pr;
  ni_program_retain(pr);
  run->flags = o->flags;
  run->seed = o->seed;
  run->max_rows = o->max_rows;
  run->learning = (o->flags & NEAP_LEARN) != 0;
  run->real = o->flags & NEAP_DOUBLE ? sizeof(double) : sizeof(float);
  neap_status rc = ni_pool_view(&run->pool, o->pool, &run->canceled);
  if (!rc) rc = ni_schedule_new(&run->plan, pr);
  if (!rc) rc = ni_segments_open(run);
  run->view = ni_calloc(nv, sizeof *run->view);
  run->grad = ni_calloc(nv, sizeof *run->grad);
  run->keep = ni_calloc(6, nv);
  run->same = ni_alloc(2 * nv * sizeof *run->same);
  run->own = ni_alloc((size_t)ni_pool_threads(run->pool) * nv * sizeof *run->own);
  run->fixed = ni_calloc(2 * nn, sizeof *run->fixed);
  run->stale = ni_calloc(nn, 1);
  run->param = ni_alloc(nn * sizeof *run->param);
  run->scalar = ni_calloc(nv, run->real);
  if (rc || !run->view || !run->grad || !run->keep || !run->same || !run->own || !run->fixed || !run->stale || !run->param ||
      !run->scalar)
    goto fail;
  run->pointed = run->same + nv;
  run->given = run->keep + nv;
  run->need = run->given + nv;
  run->touched = run->need + nv;
  run->local = run->touched + nv;
  run->turned = run->local + nv;
  run->work = run->fixed + nn;
  for (int v = 0; v < pr->n_values; v++) {
    run->view[v].type = pr->value[v].type;
    size_t width = 1;
    for (int k = 0; k < pr->value[v].type.rank; k++)
      width *= pr->value[v].type.dim[k] > 0 ? (size_t)pr->value[v].type.dim[k] : 1;
    run->view[v].width = width;
  }
  ni_exec x = {.view = run->view, .rows = run->rows};
  size_t total = 0;
  for (int pass = 0; pass < 2; pass++) {
    size_t at = 0;
    for (int i = 0; i < pr->n_nodes; i++) {
      const ni_node *n = &pr->node[i];
      if (run->plan.unit_of[i] < 0 || !n->op->fixed) continue;
      size_t bytes = n->op->fixed(&x, n, (o->flags & NEAP_LEARN) != 0) * run->real;
      if (pass) run->fixed[i] = run->fixed_mem + at;
      at += (bytes + 63) & ~(size_t)63;
    }
    total = at;
    if (!pass && total && !ni_run_tells(run) && !(run->fixed_mem = ni_alloc(total))) goto fail;
    if (ni_run_tells(run)) break;
  }
  run->fixed_bytes = total;
  for (int i = 0; i < pr->n_nodes; i++) {
    const ni_node *n = &pr->node[i];
    if (n->op != &ni_op_scalar && n->op != &ni_op_constant) continue;
    if (o->flags & NEAP_DOUBLE)
      ((double *)run->scalar)[n->out] = n->attr[0];
    else
      ((float *)run->scalar)[n->out] = (float)n->attr[0];
  }
  run->extent64 = pr->params->extent;
  if (o->flags & NEAP_DOUBLE && !ni_run_tells(run)) {
    run->params64 = ni_calloc(run->extent64 + 1, sizeof(double));
    run->grads64 = ni_calloc(run->extent64 + 1, sizeof(double));
    if (!run->params64 || !run->grads64) goto fail;
  }
  run->params64_version = run->packed_version = run->sourced_version = UINT64_MAX;
  for (int i = 0; i < pr->n_nodes; i++)
    run->param[i] =
        pr->node[i].op == &ni_op_param ? ni_params_find(pr->params, pr->node[i].name) : -1;
  bool plain = true; /* nothing but the batch: known from the start if there is no batch either */
  for (int v = 0; v < pr->n_values; v++) plain &= pr->value[v].type.space == NEAP_NO_SPACE;
  if (plain && pr->n_spaces == 1 && ni_run_batch(run, 0)) goto fail;
  atomic_store(&pr->fixed, true);
  *out = run;
  return NEAP_OK;
fail:
  ni_run_close(run);
  return rc ? rc : NEAP_EMEM;
}

void ni_run_close(neap_run *run) {
  if (!run) return;
  ni_schedule_free(&run->plan);
  ni_segments_close(run);
  for (int i = 0; i < NEAP_MAX_SPACES; i++) ni_free(run->layout[i].mem);
  ni_free(run->view);
  ni_free(run->grad);
  ni_free(run->keep);
  ni_free(run->same);
  ni_free(run->own);
  ni_free(run->fixed);
  ni_free(run->fixed_mem);
  ni_free(run->stale);
  ni_free(run->param);
  ni_free(run->scalar);
  ni_free(run->params64);
  ni_free(run->grads64);
  ni_free(run->arena);
  ni_free(run->still);
  ni_free(run->item);
  ni_free(run->slot);
  ni_free(run->held);
  ni_free(run->step_unit);
  ni_free(run->call);
  ni_state_release(run->state);
  ni_pool_release(run->pool);
  ni_program_release(run->pr);
  ni_free(run);
}

static neap_status check_value(const neap_run *run, const char *who, int value) {
  if (value >= 0 && value < run->pr->n_values) return NEAP_OK;
  return ni_fail(NEAP_EARG, "%s: there is no value %d", who, value);
}

static const char *value_name(const neap_run *run, int value) {
  const neap_program *pr = run->pr;
  for (int i = 0; i < pr->n_outputs; i++)
    if (pr->output[i].value == value) return pr->output[i].name;
  const ni_node *n = &pr->node[pr->value[value].node];
  return n->name ? n->name : n->op->name;
}

neap_status ni_run_keep(neap_run *run, int value, int gradient) {
  neap_status rc = check_value(run, "keep", value);
  if (rc) return rc;
  run->keep[value] |= gradient ? 3 : 1;
  run->marked = false;
  run->phase = NI_SHAPED;
  return NEAP_OK;
}

static neap_status ensure_placed(neap_run *run) {
  if (ni_run_tells(run))
    return ni_fail(NEAP_ESTATE, "run: it was opened with NEAP_TELL: it has no memory for values");
  return run->phase == NI_SHAPED ? ni_run_place(run) : NEAP_OK;
}

size_t ni_run_bytes(const neap_run *run) {
  const void *const block[] = {
      run, run->pool, run->plan.unit, run->plan.inner, run->plan.unit_of, run->view, run->grad,
      run->keep, run->same, run->own, run->fixed, run->stale, run->param, run->scalar, run->item,
      run->slot, run->held, run->step_unit, run->call, run->fixed_mem, run->arena, run->still,
      run->params64, run->grads64};
  size_t sum = ni_segments_bytes(run);
  for (size_t i = 0; i < sizeof block / sizeof *block; i++) sum += ni_bytes_of(block[i]);
  for (int i = 0; i < NEAP_MAX_SPACES; i++)
    if (run->layout[i].mem) sum += ni_bytes_for(run->layout[i].cap * sizeof *run->layout[i].mem);
  if (!ni_run_tells(run)) return sum;
  size_t twice = (run->extent64 + 1) * sizeof(double);
  if (run->real == 8) sum += 2 * ni_bytes_for(twice);
  if (run->fixed_bytes) sum += ni_bytes_for(run->fixed_bytes);
  return sum + (run->arena_cap ? ni_bytes_for(run->arena_cap) : 0);
}

neap_status ni_run_plan(size_t *bytes, neap_run *run) {
  neap_status rc = run->phase == NI_SHAPED ? ni_run_place(run) : NEAP_OK;
  if (!rc) *bytes = ni_run_bytes(run);
  return rc;
}

/* ---- between the caller's layout and rows ---- */

/*
** Calls visit(arg, row, at) for each row of a space with the caller's position `at`. In the padded
** layout positions count [T,B]; T is as large as count says.
*/
typedef void (*visitor)(void *arg, size_t row, size_t at);

static void visit_rows(const neap_run *run, int space, neap_layout layout, visitor visit,
                       void *arg) {
  if (space < 0) {
    visit(arg, 0, 0);
    return;
  }
  const ni_rows *r = &run->rows[space];
  if (space == 0) {
    for (size_t b = 0; b < r->rows; b++) visit(arg, b, b);
  } else if (layout == NEAP_CONCAT) {
    for (size_t j = 0; j < r->rows; j++) visit(arg, run->layout[space].concat[j], j);
  } else {
    for (size_t t = 0; t < r->steps; t++)
      for (size_t row = r->off[t]; row < r->off[t + 1]; row++)
        visit(arg, row, run->stream_space == space ? row : t * r->parents + r->owner[row]);
  }
}

typedef struct mover {
  char *rows;       /* the run's side */
  char *outside;    /* the caller's side */
  size_t width, from_size, to_size;
  ni_kind kind;
  bool in, bad;
  size_t bad_row;
} mover;

static void move_row(void *arg, size_t row, size_t at) {
  mover *m = arg;
  size_t w = m->width;
  if (m->in) {
    if (m->from_size == m->to_size) {
      memcpy(m->rows + row * w * m->to_size, m->outside + at * w * m->from_size, w * m->to_size);
    } else {
      double *to = (double *)m->rows + row * w;
      const float *from = (const float *)m->outside + at * w;
      for (size_t i = 0; i < w; i++) to[i] = (double)from[i];
    }
    if (m->kind == NI_AS_F32 && !m->bad) {
      const float *from = (const float *)m->outside + at * w;
      float sum = 0; /* NaN or infinity in any place shows in the sum of products with 0 */
      for (size_t i = 0; i < w; i++) sum += from[i] * 0.0f;
      if (!(sum == 0.0f)) m->bad = true, m->bad_row = row;
    }
    return;
  }
  const char *from = m->rows + row * w * m->from_size;
  char *to = m->outside + at * w * m->to_size;
  if (m->from_size == m->to_size) {
    memcpy(to, from, w * m->to_size);
  } else if (m->from_size == 8) {
    for (size_t i = 0; i < w; i++) ((float *)to)[i] = (float)((const double *)from)[i];
  } else {
    for (size_t i = 0; i < w; i++) ((double *)to)[i] = (double)((const float *)from)[i];
  }
}

neap_status ni_run_count(size_t *count, const neap_run *run, int value, neap_layout layout) {
  *count = 0;
  neap_status rc = check_value(run, "run", value);
  if (rc) return rc;
  int space = run->view[value].type.space;
  if (space >= 0 && !run->layout[space].given)
    return ni_fail(NEAP_ESTATE, "run: the rows of '%s' are not set", run->pr->space[space].name);
  size_t width = 1;
  for (int k = 0; k < run->view[value].type.rank; k++) {
    int32_t d = run->view[value].type.dim[k];
    width *= d >= 0 ? (size_t)d : run->rows[-1 - d].steps;
  }
  size_t rows = space < 0 ? 1 : run->rows[space].rows;
  if (space > 0 && layout == NEAP_PADDED) {
    if (run->pr->space[space].parent != 0)
      return ni_fail(NEAP_EARG, "run: '%s' is in a nested space: its layout is concat",
                     value_name(run, value));
    rows = run->rows[space].steps * run->rows[space].parents;
  }
  *count = rows * width;
  return NEAP_OK;
}

neap_status ni_run_input(neap_run *run, int value, neap_layout layout, neap_dtype dtype,
                         const void *data, size_t count) {
  neap_status rc = check_value(run, "input", value);
  if (rc) return rc;
  const ni_node *n = &run->pr->node[run->pr->value[value].node];
  const ni_view *v = &run->view[value];
  if (n->op != &ni_op_input)
    return ni_fail(NEAP_EARG, "input: '%s' is no input but a %s", value_name(run, value),
                   n->op->name);
  if (v->type.dtype != dtype)
    return ni_fail(NEAP_ETYPE, "input '%s': expected %s, got %s", n->name,
                   v->type.dtype == NEAP_F32 ? "f32" : "i32", dtype == NEAP_F32 ? "f32" : "i32");
  if ((rc = ensure_placed(run)) != NEAP_OK) return rc;
  if (run->plan.unit_of[n->index] < 0) return NEAP_OK; /* nobody reads it */
  size_t want;
  if ((rc = ni_run_count(&want, run, value, layout)) != NEAP_OK) return rc;
  bool fits = count == want;
  if (!fits && layout == NEAP_PADDED && v->type.space > 0) {
    size_t step = run->rows[v->type.space].parents * v->width;
    fits = step && count > want && count % step == 0; /* more padding than the longest needs */
  }
  if (!fits)
    return ni_fail(NEAP_ESHAPE, "input '%s' %s: expected %zu elements, got %zu", n->name,
                   ni_program_type_text(run->pr, &v->type), want, count);
  size_t size = dtype == NEAP_I32 ? 4 : run->real;
  mover m = {v->data, (char *)(uintptr_t)data, v->width, 4, size,
             dtype == NEAP_F32 ? NI_AS_F32 : NI_AS_I32, true, false, 0};
  visit_rows(run, v->type.space, layout, move_row, &m);
  if (m.bad)
    return ni_fail(NEAP_ENONFINITE, "input '%s': NaN or infinity in %s", n->name,
                   v->type.space < 0 ? "it" : ni_run_row_text(run, v->type.space, m.bad_row));
  run->given[value] = 1;
  run->phase = NI_PLACED;
  return NEAP_OK;
}

neap_status ni_run_scalar(neap_run *run, int value, double number) {
  neap_status rc = check_value(run, "scalar", value);
  if (rc) return rc;
  const ni_node *n = &run->pr->node[run->pr->value[value].node];
  if (n->op != &ni_op_scalar)
    return ni_fail(NEAP_EARG, "scalar: '%s' is no scalar but %s %s", value_name(run, value),
                   n->op == &ni_op_input ? "an input" : n->op->name,
                   ni_program_type_text(run->pr, &run->view[value].type));
  if (!isfinite(number))
    return ni_fail(NEAP_ENONFINITE, "scalar '%s': expected a finite number", n->name);
  if (run->real == 8)
    ((double *)run->scalar)[value] = number;
  else
    ((float *)run->scalar)[value] = (float)number;
  return NEAP_OK;
}

/* Room for which rows of the state held a value. */
static neap_status reserve_held(neap_run *run, size_t rows) {
  if (run->cap_held >= rows) return NEAP_OK;
  ni_free(run->held);
  run->cap_held = 0;
  run->held = ni_alloc(rows);
  if (!run->held) return NEAP_EMEM;
  run->cap_held = rows;
  return NEAP_OK;
}

neap_status ni_run_state(neap_run *run, neap_state *state) {
  if (state) {
    neap_status rc = reserve_held(run, state->rows);
    if (rc) return rc;
    bool fits = state->n_slots == run->pr->n_slots;
    for (int i = 0; fits && i < state->n_slots; i++)
      fits = (state->slot[i].width == run->pr->slot[i].width || !run->pr->slot[i].width) &&
             state->slot[i].dtype == run->pr->slot[i].dtype &&
             state->slot[i].space == run->pr->slot[i].space;
    if (!fits) return ni_fail(NEAP_ESHAPE, "state: made for a program with other layers");
    if (!run->slot && run->pr->n_slots) {
      run->slot = ni_calloc((size_t)run->pr->n_slots, sizeof *run->slot);
      if (!run->slot) return NEAP_EMEM;
    }
  }
  run->calls_ready = false;
  ni_state_retain(state);
  ni_state_release(run->state);
  run->state = state;
  return NEAP_OK;
}

/* ---- forward and backward ---- */

static neap_status bind_state(neap_run *run) {
  neap_state *s = run->state;
  run->bound = s != NULL;
  if (!s) return NEAP_OK;
  uint8_t *held = s->held;
  if (!run->stream_space) { /* backward will ask, when forward has changed it */
    neap_status rc = reserve_held(run, s->rows);
    if (rc) return rc;
    if (s->rows) memcpy(run->held, held, s->rows);
    held = run->held;
  }
  for (int i = 0; i < s->n_slots; i++) {
    size_t rows = run->rows[s->slot[i].space].parents;
    if (s->rows != rows)
      return ni_fail(NEAP_ESHAPE, "state: it has %zu rows, the batch has %zu", s->rows, rows);
    neap_status rc = ni_state_widen(s, i, run->view[run->pr->slot[i].value].width);
    if (rc) return rc;
    run->slot[i] = (ni_slot){s->slot[i].data, s->slot[i].next,
                             run->anew && run->anew[i] ? run->none : held, s->slot[i].width};
  }
  return NEAP_OK;
}

/* A double run's copies are as long as the parameters were when it was opened. */
static neap_status check_params(const neap_run *run) {
  if (run->real == 4 || run->pr->params->extent == run->extent64) return NEAP_OK;
  return ni_fail(NEAP_ESTATE, "run: parameters were added after it was opened with NEAP_DOUBLE");
}

uint64_t ni_exec_seed(const neap_run *run) {
  uint64_t mix = run->seed + 0x9e3779b97f4a7c15u * (run->tick + 1);
  mix = (mix ^ (mix >> 30)) * 0xbf58476d1ce4e5b9u;
  return mix ^ (mix >> 27);
}

void ni_exec_set_up(ni_exec *x, neap_run *run) {
  *x = (ni_exec){.view = run->view,
                 .rows = run->rows,
                 .fixed = run->fixed,
                 .work = run->work,
                 .slot = run->bound ? run->slot : NULL,
                 .pool = run->pool,
                 .seed = ni_exec_seed(run),
                 .learning = run->learning,
                 .keeps = run->flags & NEAP_LEARN,
                 .stream = run->stream_space,
                 .ahead = run->ahead,
                 .canceled = &run->canceled,
                 .fault = &run->fault};
}

bool ni_run_carries(const neap_run *run, const ni_state_info *s, int scan) {
  return s->scan == scan && run->plan.unit_of[run->pr->value[s->value].node] >= 0;
}

static neap_status execute(neap_run *run, bool backward, int only_step) {
  neap_status rc = check_params(run);
  if (rc) return rc;
  unsigned mode = ni_denormals_flush();
  if (run->real == 8)
    rc = backward ? ni_exec_backward_f64(run) : ni_exec_forward_f64(run, only_step);
  else
    rc = backward ? ni_exec_backward_f32(run) : ni_exec_forward_f32(run, only_step);
  ni_denormals_restore(mode);
  return rc;
}

static void begin(neap_run *run) {
  atomic_store(&run->fault.set, 0);
  if (run->packed_version != run->pr->params->version) {
    memset(run->stale, 3, (size_t)run->pr->n_nodes);
    run->packed_version = run->pr->params->version;
  }
}

static bool outputs_finite(const neap_run *run) {
  return run->real == 8 ? ni_exec_outputs_finite_f64(run) : ni_exec_outputs_finite_f32(run);
}

neap_status ni_run_forward(neap_run *run) {
  atomic_store(&run->canceled, 0); /* first: to find the places may take long */
  neap_status rc = ensure_placed(run);
  if (rc) return rc;
  const neap_program *pr = run->pr;
  for (int i = 0; i < pr->n_inputs; i++) {
    const ni_node *n = &pr->node[pr->value[pr->input[i].value].node];
    if (n->op == &ni_op_input && run->plan.unit_of[n->index] >= 0 && !run->given[n->out])
      return ni_fail(NEAP_ESTATE, "forward: input '%s' is not set", n->name);
  }
  if ((rc = bind_state(run)) != NEAP_OK) return rc;
  begin(run);
  run->phase = NI_PLACED;
  run->spent = false;
  rc = execute(run, false, 0);
  if (!rc && !(run->flags & NEAP_CHECK) && !outputs_finite(run)) {
    unsigned flags = run->flags; /* once more, looking at every node: which was the first? */
    run->flags |= NEAP_CHECK;
    rc = execute(run, false, 0);
    run->flags = flags;
    if (!rc) rc = ni_fail(NEAP_ENONFINITE, "forward: an output is not finite");
  }
  if (rc) return rc;
  if (run->state) {
    ni_state_commit(run->state, run->rows, run->ahead, false);
    run->state_left = run->state->changes;
  }
  run->tick++;
  run->phase = NI_RAN;
  return NEAP_OK;
}

/* What a step is given. */
static neap_status check_step(const neap_run *run) {
  const neap_program *pr = run->pr;
  for (int i = 0; i < pr->n_inputs; i++) {
    const ni_view *v = &run->view[pr->input[i].value];
    if (v->type.space != run->stream_space || v->type.dtype != NEAP_F32 || !v->data) continue;
    size_t n = run->rows[run->stream_space].rows * v->width, bad = ni_kernel_f32()->finite_first(n, v->data);
    if (bad < n)
      return ni_fail(NEAP_ENONFINITE, "stream step: NaN or infinity in input '%s', row %zu",
                     pr->input[i].name, bad / v->width + 1);
  }
  return NEAP_OK;
}

neap_status ni_run_stream(neap_run *run, int step) {
  neap_status rc = step ? check_step(run) : NEAP_OK;
  if (!rc && step) rc = bind_state(run);
  if (rc) return rc;
  atomic_store(&run->canceled, 0);
  begin(run);
  rc = execute(run, false, step);
  if (rc || !step) return rc;
  ni_state_commit(run->state, run->rows, 0, true);
  run->tick++;
  run->phase = NI_RAN;
  run->state_left = run->state->changes;
  rc = bind_state(run); /* what is next has become now */
  if (!rc) ni_calls_build(run);
  return rc;
}

neap_status ni_run_backward(neap_run *run, int value, neap_layout layout, const float *grad,
                            size_t count, bool one) {
  atomic_store(&run->canceled, 0);
  neap_status rc = check_value(run, "backward", value);
  if (rc) return rc;
  if (!(run->flags & NEAP_LEARN))
    return ni_fail(NEAP_ESTATE, "backward: the run was not opened for learning");
  if (run->phase != NI_RAN) return ni_fail(NEAP_ESTATE, "backward: forward has not run");
  if (run->spent)
    return ni_fail(NEAP_ESTATE, "backward: it has used up what forward kept: run forward again");
  ni_view *v = &run->view[value];
  size_t want, rows = v->type.space < 0 ? 1 : run->rows[v->type.space].rows;
  if ((rc = ni_run_count(&want, run, value, layout)) != NEAP_OK) return rc;
  if (one && rows * v->width != 1)
    return ni_fail(NEAP_ESHAPE, "backward: '%s' is %s, expected a single number",
                   value_name(run, value), ni_program_type_text(run->pr, &v->type));
  if (!one && want != count)
    return ni_fail(NEAP_ESHAPE, "backward: expected %zu elements for '%s', got %zu", want,
                   value_name(run, value), count);
  if (!run->need[value])
    return ni_fail(NEAP_EARG, "backward: '%s' depends on no parameter",
                   value_name(run, value));
  if (run->real == 4 && run->pr->params->extent && !ni_params_grad_make(run->pr->params))
    return NEAP_EMEM;
  if (run->real == 8) memset(run->grads64, 0, run->extent64 * sizeof(double));
  for (int i = 0; i < run->pr->n_values; i++) run->view[i].grad = NULL;
  memset(run->touched, 0, (size_t)run->pr->n_values);
  bool is_param = run->pr->node[run->pr->value[value].node].op == &ni_op_param;
  if (is_param) return ni_fail(NEAP_EARG, "backward: '%s' is a parameter", value_name(run, value));
  run->touched[value] = 1;
  v->grad = run->grad[value];
  memset(v->grad, 0, rows * v->width * run->real);
  if (one) {
    if (run->real == 8) *(double *)v->grad = 1;
    else *(float *)v->grad = 1;
  } else {
    mover m = {v->grad, (char *)(uintptr_t)grad, v->width, 4, run->real, NI_AS_I32, true, false, 0};
    visit_rows(run, v->type.space, layout, move_row, &m);
  }
  run->spent = true;
  run->segments.start = value;
  run->tick--; /* the same random numbers as in forward */
  rc = execute(run, true, 0);
  run->tick++;
  return rc;
}

neap_status ni_run_find_nonfinite(neap_run *run, int value) {
  unsigned flags = run->flags;
  if (run->phase != NI_RAN) return ni_fail(NEAP_ESTATE, "find: forward has not run");
  bool back = run->state && run->state->changes == run->state_left;
  if (back) ni_state_flip(run->state); /* to where forward began */
  neap_status rc = bind_state(run);
  run->flags |= NEAP_CHECK;
  run->tick--;
  atomic_store(&run->canceled, 0);
  begin(run);
  if (!rc) rc = execute(run, false, 0);
  if (back) ni_state_flip(run->state);
  run->tick++;
  run->spent = false;
  if (!rc) rc = ni_run_backward(run, value, NEAP_PADDED, NULL, 0, true);
  run->flags = flags;
  return rc;
}

neap_status ni_run_read(neap_run *run, int value, neap_layout layout, ni_kind kind, void *data,
                        size_t count) {
  neap_status rc = check_value(run, "read", value);
  if (rc) return rc;
  const ni_view *v = &run->view[value];
  const char *name = value_name(run, value);
  if (run->phase != NI_RAN) return ni_fail(NEAP_ESTATE, "read '%s': forward has not run", name);
  bool gradient = kind == NI_AS_GRAD || kind == NI_AS_GRAD64, kept = run->keep[value] & 1;
  for (int o = 0; o < run->pr->n_outputs; o++) kept |= run->pr->output[o].value == value;
  const ni_node *n = &run->pr->node[run->pr->value[value].node];
  kept |= (n->op->flags & NI_SOURCE) && n->op != &ni_op_state;
  if (gradient ? !(run->keep[value] & 2) : !kept)
    return ni_fail(NEAP_ESTATE, "read: %s'%s' was not kept", gradient ? "the gradient of " : "",
                   name);
  if (gradient && !v->grad)
    return ni_fail(NEAP_ESTATE, "read: '%s' has no gradient: backward has not reached it", name);
  if ((v->type.dtype == NEAP_I32) != (kind == NI_AS_I32))
    return ni_fail(NEAP_ETYPE, "read '%s': it is %s", name,
                   v->type.dtype == NEAP_I32 ? "i32" : "f32");
  size_t want;
  if ((rc = ni_run_count(&want, run, value, layout)) != NEAP_OK) return rc;
  if (want != count)
    return ni_fail(NEAP_ESHAPE, "read '%s': expected room for %zu elements, got %zu", name, want,
                   count);
  size_t to = kind == NI_AS_F64 || kind == NI_AS_GRAD64 ? 8 : 4;
  void *from = gradient ? v->grad : v->data;
  if (n->op == &ni_op_param && run->real == 4) /* adding parameters moves all of them */
    from = gradient ? (void *)(uintptr_t)ni_params_grad_seen(run->pr->params, run->param[n->index])
                    : ni_params_data(run->pr->params, run->param[n->index]);
  if (!from) return ni_fail(NEAP_ESTATE, "read: '%s' was not computed: no output needs it", name);
  memset(data, 0, count * to);
  mover m = {from, data, v->width,
             v->type.dtype == NEAP_I32 ? 4 : run->real, to, kind, false, false, 0};
  visit_rows(run, v->type.space, layout, move_row, &m);
  return NEAP_OK;
}

/* ---- the double twin's own parameters ---- */

static neap_status param_range(const neap_run *run, int id, size_t *start, size_t *size) {
  const neap_params *p = run->pr->params;
  if (!run->params64) return ni_fail(NEAP_ESTATE, "run: it was opened without NEAP_DOUBLE");
  neap_status rc = check_params(run);
  if (rc) return rc;
  if (id < 0 || id >= ni_params_count(p)) return ni_fail(NEAP_EARG, "run: no parameter %d", id);
  *start = p->entries[id].start;
  *size = p->entries[id].size;
  return NEAP_OK;
}

neap_status ni_run_param_grad(neap_run *run, int id, double *data, size_t count) {
  size_t start, size;
  neap_status rc = param_range(run, id, &start, &size);
  if (rc) return rc;
  if (count != size)
    return ni_fail(NEAP_ESHAPE, "run: parameter '%s' has %zu numbers, got room for %zu",
                   ni_params_name(run->pr->params, id), size, count);
  memcpy(data, run->grads64 + start, size * sizeof(double));
  return NEAP_OK;
}

neap_status ni_run_param_shift(neap_run *run, int id, size_t element, double shift) {
  size_t start, size;
  neap_status rc = param_range(run, id, &start, &size);
  if (rc) return rc;
  if (element >= size)
    return ni_fail(NEAP_ERANGE, "run: element %zu of '%s' is not in 0..%zu", element,
                   ni_params_name(run->pr->params, id), size - 1);
  if (run->params64_version != run->pr->params->version) {
    for (size_t i = 0; i < run->pr->params->extent; i++)
      run->params64[i] = (double)run->pr->params->data[i];
    run->params64_version = run->pr->params->version;
  }
  run->params64[start + element] += shift;
  memset(run->stale, 3, (size_t)run->pr->n_nodes);
  return NEAP_OK;
}
