/*
** A stream is a run whose sequences are one step long and whose state is attached. What the steps
** do not change (encoder outputs, attention keys) is computed once, in memory of its own. With a
** block the sequences are as long as the call says; if it looks ahead they begin with the steps that
** were given before and whose outputs are still to come.
*/
#include <string.h>

#include "model.h"

static bool is_step_input(const neap_stream *s, const ni_node *n) {
  return n->op == &ni_op_input && s->run->pr->value[n->out].type.space == s->space;
}

static neap_status shape(neap_stream *s, const int32_t *source, size_t n) {
  neap_status rc = ni_run_steps_layout(s->run, s->space, source, n);
  if (!rc) s->rows = n;
  return rc;
}

/* Sequences of n steps. */
static neap_status block_shape(neap_stream *s, size_t n) {
  for (size_t r = 0; r < s->rows; r++) s->lengths[r] = (int32_t)n;
  neap_status rc = ni_run_lengths(s->run, s->space, s->lengths, s->rows);
  return rc ? rc : ni_run_place(s->run);
}

/* Values that a block has a buffer of: those that steps take in, and outputs. */
static int block_value(const neap_stream *s, int k) {
  const neap_program *pr = s->run->pr;
  if (k >= pr->n_inputs) return pr->output[k - pr->n_inputs].value;
  int v = pr->input[k].value;
  return is_step_input(s, &pr->node[pr->value[v].node]) ? v : -1;
}

/* Of n steps of a value; of all there is of one that the steps do not have. */
static size_t bytes_of(const neap_stream *s, int v, size_t n) {
  const ni_view *view = &s->run->view[v];
  int space = view->type.space;
  return (space == s->space ? n * s->rows : space < 0 ? 1 : s->run->rows[space].rows) *
         view->width * 4;
}

static neap_status open_block(neap_stream *s, size_t block, size_t ahead) {
  const neap_program *pr = s->run->pr;
  if (s->own_context)
    return ni_fail(NEAP_EUNSUPPORTED, "stream: a program with a context makes one step a call%s",
                   ahead ? " and does not look ahead" : "");
  if (block > INT32_MAX)
    return ni_fail(NEAP_ERANGE, "stream: a block of %zu steps, expected at most %d", block, INT32_MAX);
  if (ahead > INT32_MAX - block)
    return ni_fail(NEAP_ERANGE, "stream: a look-ahead of %zu steps and a block of %zu, expected at "
                   "most %d together", ahead, block, INT32_MAX);
  s->block = block;
  s->ahead = ahead;
  s->run->anew = s->back;
  s->run->none = s->back ? s->back + pr->n_slots : NULL;
  s->lengths = ni_alloc(s->rows * sizeof *s->lengths + 1);
  s->buffer = ni_calloc((size_t)pr->n_values + 1, sizeof *s->buffer);
  if (!s->lengths || !s->buffer) return NEAP_EMEM;
  neap_status rc = block_shape(s, block + ahead);
  for (int pass = 0; !rc && pass < 2; pass++) {
    size_t at = 0;
    for (int k = 0, v; k < pr->n_inputs + pr->n_outputs; k++) {
      if ((v = block_value(s, k)) < 0) continue;
      if (pass) s->buffer[v] = s->buffers + at;
      at += (bytes_of(s, v, block + (k < pr->n_inputs ? ahead : 0)) + 63) & ~(size_t)63;
    }
    if (!pass && !(s->buffers = ni_calloc(1, at + 1))) rc = NEAP_EMEM;
  }
  return rc;
}

static neap_status open_steps(neap_stream *s) {
  neap_run *run = s->run;
  const neap_program *pr = run->pr;
  run->stream_space = s->space;
  run->step_unit = ni_calloc((size_t)run->plan.n_units + 1, 1);
  uint8_t *moves = ni_calloc((size_t)pr->n_nodes + 1, 1);
  neap_status rc = run->step_unit && moves ? ni_calls_open(run) : NEAP_EMEM;
  for (int i = 0; !rc && i < pr->n_nodes; i++) {
    const ni_node *n = &pr->node[i];
    moves[i] = pr->value[n->out].type.space == s->space || (n->op->flags & NI_RANDOM);
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k] >= 0) moves[i] |= moves[pr->value[n->in[k]].node];
    if (run->plan.unit_of[i] >= 0) run->step_unit[run->plan.unit_of[i]] |= moves[i];
  }
  ni_free(moves);
  if (!rc) rc = shape(s, NULL, s->rows);
  if (!rc && !s->own_context) rc = ni_run_place(run);
  return rc;
}

neap_status ni_stream_open(neap_stream **out, neap_program *pr, const neap_stream_options *o) {
  static const neap_stream_options none;
  *out = NULL;
  if (!o) o = &none;
  int space = ni_schedule_stream_space(pr);
  if (space < 1) return NEAP_EUNSUPPORTED;
  const char *why;
  size_t rows = o->rows ? o->rows : 1, slots = (size_t)pr->n_slots;
  uint8_t *back = o->lookahead && rows <= INT32_MAX ? ni_calloc(slots + rows, 1) : NULL;
  if (o->lookahead && rows <= INT32_MAX && !back) return NEAP_EMEM;
  neap_status rc = back ? ni_schedule_ahead(&why, back, pr, space)
                        : ni_schedule_future(&why, pr, space);
  if (!rc && why) rc = ni_fail(NEAP_EUNSUPPORTED, "stream: cannot step: %s", why);
  neap_stream *s = rc ? NULL : ni_calloc(1, sizeof *s);
  if (!s) {
    ni_free(back);
    return rc ? rc : NEAP_EMEM;
  }
  s->back = back;
  s->space = space;
  s->rows = rows;
  neap_run_options ro = {.seed = o->seed};
  rc = ni_run_open(&s->run, pr, &ro);
  if (!rc) rc = ni_state_new(&s->state, pr, rows);
  if (!rc) rc = ni_run_state(s->run, s->state);
  if (rc) goto fail;
  neap_run *run = s->run;
  for (int i = 0; i < pr->n_nodes; i++) {
    const ni_node *n = &pr->node[i];
    s->own_context |= n->op == &ni_op_input && !is_step_input(s, n) && run->plan.unit_of[i] >= 0;
  }
  for (int i = 1; i < pr->n_spaces; i++) s->own_context |= i != space && ni_run_needs(run, i);
  rc = ni_run_batch(run, rows);
  if (!rc)
    rc = o->block > 1 || back ? open_block(s, o->block ? o->block : 1, o->lookahead)
                              : open_steps(s);
  if (rc) goto fail;
  *out = s;
  return NEAP_OK;
fail:
  ni_stream_close(s);
  return rc;
}

void ni_stream_close(neap_stream *s) {
  if (!s) return;
  ni_run_close(s->run);
  ni_free(s->before.mem);
  ni_state_release(s->state);
  ni_free(s->lengths);
  ni_free(s->buffer);
  ni_free(s->buffers);
  ni_free(s->back);
  ni_free(s);
}

int ni_stream_input(const neap_stream *s, int index) {
  const neap_program *pr = s->run->pr;
  for (int i = 0; i < pr->n_inputs; i++) {
    const ni_node *n = &pr->node[pr->value[pr->input[i].value].node];
    if (is_step_input(s, n) && index-- == 0) return n->out;
  }
  return -1;
}

int ni_stream_output(const neap_stream *s, int index) {
  return index >= 0 && index < s->run->pr->n_outputs ? s->run->pr->output[index].value : -1;
}

void *ni_stream_buffer(const neap_stream *s, int value, neap_dtype dtype, size_t *count) {
  if (count) *count = 0;
  const neap_run *run = s->run;
  if (value < 0 || run->phase == NI_SHAPED || run->view[value].type.dtype != dtype) return NULL;
  int space = run->view[value].type.space;
  size_t rows = space < 0 ? 1 : run->rows[space].rows;
  if (s->block && space == s->space) rows = s->block * s->rows;
  if (count) *count = rows * run->view[value].width;
  const ni_node *n = &run->pr->node[run->pr->value[value].node];
  if (s->block) return s->buffer[value];
  if (n->op == &ni_op_param) return ni_params_data(run->pr->params, run->param[n->index]);
  return run->view[value].data;
}

static neap_status check_block(const neap_stream *s, size_t n) {
  const neap_program *pr = s->run->pr;
  for (int k = 0, v; k < pr->n_inputs; k++) {
    if ((v = block_value(s, k)) < 0 || s->run->view[v].type.dtype != NEAP_F32) continue;
    size_t w = s->run->view[v].width, all = n * s->rows * w;
    size_t bad = ni_kernel_f32()->finite_first(all, (float *)s->buffer[v]), r = bad / (w ? w : 1);
    if (bad < all)
      return ni_fail(NEAP_ENONFINITE, "stream steps: NaN or infinity in input '%s', step %zu, row %zu",
                     pr->input[k].name, r / s->rows + 1, r % s->rows + 1);
  }
  return NEAP_OK;
}

/* The pending steps and n new ones run; the outputs of the first `give` of them are given, and what
** comes after those is pending then. */
static neap_status run_block(neap_stream *s, size_t n, size_t give) {
  neap_run *run = s->run;
  const neap_program *pr = run->pr;
  size_t all = s->pending + n, left = all - give;
  neap_status rc = check_block(s, n);
  if (!rc && (run->rows[s->space].steps != all || run->phase == NI_SHAPED)) rc = block_shape(s, all);
  if (rc) return rc;
  for (int k = 0, v; k < pr->n_inputs; k++) {
    if ((v = block_value(s, k)) < 0 || !run->view[v].data) continue;
    size_t before = bytes_of(s, v, s->pending);
    memcpy(run->view[v].data, s->buffer[v] + bytes_of(s, v, s->block), before);
    memcpy((char *)run->view[v].data + before, s->buffer[v], bytes_of(s, v, n));
    run->given[v] = 1;
  }
  run->ahead = left;
  rc = ni_run_forward(run);
  if (rc) return rc;
  for (int k = pr->n_inputs, v; k < pr->n_inputs + pr->n_outputs; k++)
    if ((v = block_value(s, k)) >= 0 && run->view[v].data)
      memcpy(s->buffer[v], run->view[v].data, bytes_of(s, v, give));
  for (int i = 0; s->back && i < s->state->n_slots; i++)
    if (s->back[i]) memset(s->state->slot[i].data, 0, s->rows * s->state->slot[i].width * 4);
  for (int k = 0, v; left && k < pr->n_inputs; k++) {
    if ((v = block_value(s, k)) < 0) continue;
    char *kept = s->buffer[v] + bytes_of(s, v, s->block);
    size_t old = give < s->pending ? s->pending - give : 0; /* of them, those that stay */
    memmove(kept, kept + bytes_of(s, v, s->pending - old), bytes_of(s, v, old));
    memcpy(kept + bytes_of(s, v, old), s->buffer[v] + bytes_of(s, v, n - (left - old)),
           bytes_of(s, v, left - old));
  }
  s->pending = left;
  s->given = give;
  return NEAP_OK;
}

neap_status ni_stream_steps(neap_stream *s, size_t n) {
  size_t most = s->block ? s->block : 1, all = s->pending + n;
  if (n > most)
    return ni_fail(NEAP_ERANGE, "stream: %zu steps, but it was opened with a block of %zu", n, most);
  if (n && !s->block) return ni_stream_step(s);
  if (n) return run_block(s, n, all > s->ahead ? all - s->ahead : 0);
  s->given = 0;
  return NEAP_OK;
}

neap_status ni_stream_finish(neap_stream *s) {
  if (s->pending) return run_block(s, 0, s->pending < s->block ? s->pending : s->block);
  s->given = 0;
  return NEAP_OK;
}

neap_status ni_stream_step(neap_stream *s) {
  neap_run *run = s->run;
  neap_status rc;
  if (s->block) return ni_stream_steps(s, 1);
  if (ni_calls_run(run)) {
    s->given = 1;
    return NEAP_OK;
  }
  if (run->phase == NI_SHAPED) return ni_fail(NEAP_ESTATE, "stream step: the context is not set");
  if (!s->still_done || run->packed_version != run->pr->params->version) {
    const neap_program *pr = run->pr;
    for (int i = 0; i < pr->n_inputs; i++) {
      const ni_node *n = &pr->node[pr->value[pr->input[i].value].node];
      if (n->op == &ni_op_input && !is_step_input(s, n) && run->plan.unit_of[n->index] >= 0 &&
          !run->given[n->out])
        return ni_fail(NEAP_ESTATE, "stream step: the context '%s' is not set", n->name);
    }
    if ((rc = ni_run_stream(run, 0)) != NEAP_OK) return rc;
    s->still_done = true;
  }
  rc = ni_run_stream(run, 1);
  if (!rc) s->given = 1;
  return rc;
}

static neap_status check_rows_move(const neap_stream *s) {
  if (!s->block) return NEAP_OK;
  return ni_fail(NEAP_ESTATE, "stream: with a block of steps its rows stay %zu", s->rows);
}

neap_status ni_stream_batch(neap_stream *s, size_t rows) {
  neap_status rc = check_rows_move(s);
  if (rc) return rc;
  rc = ni_state_reset(s->state, NULL, 0);
  if (!rc && s->state->rows != rows) {
    neap_state *fresh;
    rc = ni_state_new(&fresh, s->run->pr, rows);
    if (rc) return rc;
    rc = ni_run_state(s->run, fresh);
    ni_state_release(s->state);
    s->state = fresh;
  }
  if (!rc) rc = ni_run_batch(s->run, rows);
  if (!rc) rc = shape(s, NULL, rows);
  s->run->still_placed = s->still_done = s->run->calls_ready = false;
  return rc;
}

neap_status ni_stream_lengths(neap_stream *s, int space, const int32_t *lengths, size_t n) {
  if (space == s->space)
    return ni_fail(NEAP_EARG, "stream: '%s' is stepped along, it has no lengths",
                   s->run->pr->space[space].name);
  s->run->still_placed = s->still_done = s->run->calls_ready = false;
  return ni_run_lengths(s->run, space, lengths, n);
}

neap_status ni_stream_context(neap_stream *s, int value, neap_layout layout, neap_dtype dtype,
                              const void *data, size_t count) {
  if (value >= 0 && value < s->run->pr->n_values &&
      is_step_input(s, &s->run->pr->node[s->run->pr->value[value].node]))
    return ni_fail(NEAP_EARG, "stream: input '%s' belongs to the steps, not to the context",
                   s->run->pr->node[s->run->pr->value[value].node].name);
  s->still_done = s->run->calls_ready = false;
  return ni_run_input(s->run, value, layout, dtype, data, count);
}

neap_status ni_stream_rows(neap_stream *s, const int32_t *source, const int32_t *from, size_t n) {
  neap_run *run = s->run;
  if (!source) return ni_fail(NEAP_EARG, "stream rows: expected the source row of each row, came NULL");
  neap_status rc = check_rows_move(s);
  if (rc) return rc;
  size_t batch = run->rows[0].rows;
  for (size_t i = 0; i < n; i++) {
    if (source[i] < 0 || (size_t)source[i] >= batch)
      return ni_fail(NEAP_ERANGE, "stream rows: source row %d is not in 0..%zu", (int)source[i],
                     batch ? batch - 1 : 0);
    if (from && (from[i] < 0 || (size_t)from[i] >= s->rows))
      return ni_fail(NEAP_ERANGE, "stream rows: row %d is not in 0..%zu", (int)from[i],
                     s->rows ? s->rows - 1 : 0);
  }
  neap_state *fresh = NULL;
  if (from)
    rc = ni_state_reserve(s->state, n);
  else
    rc = n == s->state->rows ? NEAP_OK : ni_state_new(&fresh, run->pr, n);
  if (rc) return rc;
  /* The layout until now stays in `before` until all that can fail has been done. */
  ni_layout layout = run->layout[s->space];
  ni_rows rows = run->rows[s->space];
  size_t rows_before = s->rows;
  int phase = run->phase;
  run->layout[s->space] = s->before;
  rc = shape(s, source, n);
  if (!rc && n == rows_before && phase != NI_SHAPED)
    run->phase = phase; /* the same shapes: every value keeps its place */
  else if (!rc)
    rc = ni_run_place(run);
  if (!rc && fresh) rc = ni_run_state(run, fresh);
  if (rc) {
    s->before = run->layout[s->space];
    run->layout[s->space] = layout;
    run->rows[s->space] = rows;
    s->rows = rows_before;
    run->phase = NI_SHAPED;
    if (phase != NI_SHAPED) (void)ni_run_place(run); /* where it fitted before, it fits */
    ni_state_release(fresh);
    return rc;
  }
  s->before = layout;
  if (from) return ni_state_gather(s->state, from, n); /* there is room: it cannot fail */
  if (!fresh) return ni_state_reset(s->state, NULL, 0);
  ni_state_release(s->state);
  s->state = fresh;
  return NEAP_OK;
}
