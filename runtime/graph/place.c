/*
** Shapes and places. The rows of each space are laid out when their lengths are known; then every
** value, gradient and work area gets an offset in one arena. Two of them share bytes when no
** moment needs both: moments count the units of the forward pass, then those of the backward pass.
*/
#include <string.h>

#include "run.h"

/* Room for so many words; those of a run that only tells begin with as many as it needs itself. */
static neap_status room(const neap_run *run, ni_layout *l, size_t words, size_t told) {
  if (words <= l->cap && !ni_run_tells(run)) return NEAP_OK;
  uint32_t *mem = ni_alloc((ni_run_tells(run) ? told : words) * sizeof *mem);
  if (!mem) return NEAP_EMEM;
  ni_free(l->mem);
  l->mem = mem;
  if (words > l->cap) l->cap = words;
  return NEAP_OK;
}

static neap_status check_count(const neap_run *run, int space, size_t rows) {
  size_t most = run->max_rows ? run->max_rows : 0x7fffffff;
  if (rows > most)
    return ni_fail(NEAP_ERANGE, "run: space '%s' has %zu rows, the most allowed are %zu",
                   run->pr->space[space].name, rows, most);
  return NEAP_OK;
}

neap_status ni_run_batch(neap_run *run, size_t rows) {
  neap_status rc = check_count(run, 0, rows);
  if (rc) return rc;
  ni_layout *l = &run->layout[0];
  if ((rc = room(run, l, rows + 2, 2)) != NEAP_OK) return rc;
  l->mem[0] = 0;
  l->mem[1] = (uint32_t)rows;
  l->concat = l->mem + 2;
  for (size_t i = 0; i < rows && !ni_run_tells(run); i++) l->concat[i] = (uint32_t)i;
  run->rows[0] = (ni_rows){.rows = rows, .steps = 1, .off = l->mem};
  l->given = true;
  for (int i = 1; i < run->pr->n_spaces; i++) run->layout[i].given = false;
  run->phase = NI_SHAPED;
  return NEAP_OK;
}

static neap_status lay(neap_run *run, int space, const int32_t *lengths, size_t n) {
  const neap_program *pr = run->pr;
  int parent = pr->space[space].parent;
  const char *name = pr->space[space].name;
  if (!run->layout[parent].given)
    return ni_fail(NEAP_ESTATE, "lengths: the rows of '%s' must be known before those of '%s'",
                   pr->space[parent].name, name);
  if (n != run->rows[parent].rows)
    return ni_fail(NEAP_ESHAPE, "lengths: expected %zu lengths for '%s', one a row of '%s', got %zu",
                   run->rows[parent].rows, name, pr->space[parent].name, n);
  size_t total = 0, longest = 0;
  for (size_t i = 0; i < n; i++) {
    if (lengths[i] < 0)
      return ni_fail(NEAP_ERANGE, "lengths: sequence %zu of '%s': expected a length of 0 or more, got %d",
                     i + 1, name, (int)lengths[i]);
    total += (size_t)lengths[i];
    if ((size_t)lengths[i] > longest) longest = (size_t)lengths[i];
  }
  neap_status rc = check_count(run, space, total);
  if (rc) return rc;
  ni_layout *l = &run->layout[space];
  size_t words = 3 * n + longest + 2;
  bool tells = ni_run_tells(run); /* it asks for no order of the rows, and may have too many */
  if ((rc = room(run, l, words + 2 * total, words)) != NEAP_OK) return rc;
  uint32_t *len = l->mem, *perm = len + n, *rank = perm + n, *off = rank + n,
           *owner = off + longest + 2, *concat = owner + total;
  const uint32_t *order = run->layout[parent].concat; /* caller's order -> parent row */
  for (size_t j = 0; j < n; j++) len[tells ? j : order[j]] = (uint32_t)lengths[j];
  /* counting sort by falling length, stable; off doubles as the histogram */
  memset(off, 0, (longest + 2) * sizeof *off);
  for (size_t p = 0; p < n; p++) off[longest - len[p] + 1]++;
  for (size_t k = 1; k <= longest + 1; k++) off[k] += off[k - 1];
  for (size_t p = 0; p < n; p++) {
    uint32_t at = off[longest - len[p]]++;
    perm[at] = (uint32_t)p;
    rank[p] = at;
  }
  size_t alive = n, row = 0;
  for (size_t t = 0; t < longest; t++) {
    while (alive && len[perm[alive - 1]] <= t) alive--;
    off[t] = (uint32_t)row;
    for (size_t i = 0; i < alive && !tells; i++) owner[row + i] = perm[i];
    row += alive;
  }
  off[longest] = (uint32_t)row;
  size_t j = 0;
  for (size_t q = 0; q < n && !tells; q++)
    for (uint32_t p = order[q], t = 0; t < len[p]; t++) concat[j++] = off[t] + rank[p];
  run->rows[space] = (ni_rows){total, longest, n, off, perm, rank, len, owner, perm};
  l->concat = concat;
  l->given = true;
  for (int i = space + 1; i < pr->n_spaces; i++)
    if (ni_program_below(pr, i, space)) run->layout[i].given = false;
  run->phase = NI_SHAPED;
  return NEAP_OK;
}

/* The lengths of a folded space follow from those of another: they may be given, but not others. */
static neap_status check_folded(const neap_run *run, int space, const int32_t *lengths, size_t n) {
  const ni_space *s = &run->pr->space[space], *of = &run->pr->space[s->of];
  const ni_rows *r = &run->rows[space];
  const uint32_t *order = run->layout[s->parent].concat;
  if (!run->layout[space].given)
    return ni_fail(NEAP_ESTATE, "lengths: those of '%s' must be known before those of '%s'",
                   of->name, s->name);
  if (n != r->parents)
    return ni_fail(NEAP_ESHAPE, "lengths: expected %zu lengths for '%s', one a row of '%s', got %zu",
                   r->parents, s->name, run->pr->space[s->parent].name, n);
  for (size_t j = 0; j < n; j++)
    if (lengths[j] < 0 || (uint32_t)lengths[j] != r->len[order[j]])
      return ni_fail(NEAP_ERANGE, "lengths: sequence %zu of '%s': expected %u, from that of '%s', got %d",
                     j + 1, s->name, (unsigned)r->len[order[j]], of->name, (int)lengths[j]);
  return NEAP_OK;
}

neap_status ni_run_lengths(neap_run *run, int space, const int32_t *lengths, size_t n) {
  const neap_program *pr = run->pr;
  if (space < 1 || space >= pr->n_spaces)
    return ni_fail(NEAP_EARG, "lengths: expected a sequence space in 1..%d, got %d",
                   pr->n_spaces - 1, space);
  if (pr->space[space].factor > 1) return check_folded(run, space, lengths, n);
  neap_status rc = lay(run, space, lengths, n);
  for (int i = space + 1; i < pr->n_spaces && !rc; i++) {
    const ni_space *s = &pr->space[i];
    if (s->of != space) continue;
    run->layout[i].given = false;
    int32_t *fewer = ni_alloc((n + 1) * sizeof *fewer);
    if (!fewer) return NEAP_EMEM;
    for (size_t j = 0; j < n; j++) fewer[j] = lengths[j] / s->factor + (lengths[j] % s->factor > 0);
    rc = lay(run, i, fewer, n);
    ni_free(fewer);
  }
  return rc;
}

neap_status ni_run_steps_layout(neap_run *run, int space, const int32_t *source, size_t n) {
  ni_layout *l = &run->layout[space];
  size_t parents = run->rows[run->pr->space[space].parent].rows;
  for (size_t i = 0; source && i < n; i++)
    if (source[i] < 0 || (size_t)source[i] >= parents)
      return ni_fail(NEAP_ERANGE, "stream rows: source row %d is not in 0..%zu", (int)source[i],
                     parents ? parents - 1 : 0);
  size_t m = n > parents ? n : parents; /* len is asked for by parent row and by position */
  neap_status rc = room(run, l, 4 * n + 2 + parents + m, 0);
  if (rc) return rc;
  uint32_t *len = l->mem, *perm = len + m, *own = perm + n, *off = own + n, *concat = off + 2,
           *rank = concat + n;
  for (size_t i = 0; i < m; i++) len[i] = 1;
  for (size_t i = 0; i < n; i++) {
    perm[i] = source ? (uint32_t)source[i] : (uint32_t)i;
    own[i] = concat[i] = (uint32_t)i;
  }
  for (size_t i = 0; i < parents; i++) rank[i] = i < n ? (uint32_t)i : 0;
  off[0] = 0;
  off[1] = (uint32_t)n;
  run->rows[space] = (ni_rows){n, n ? 1 : 0, n, off, perm, rank, len, perm, own};
  l->concat = concat;
  l->given = true;
  run->phase = NI_SHAPED;
  run->calls_ready = false;
  return NEAP_OK;
}

/* ---- the arena ---- */

typedef struct ni_item {
  size_t bytes, offset;
  int from, to; /* moments, both included */
  bool still;   /* of a stream, and the same at every step */
  void **where;
} ni_item;

static size_t padded(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* While units from..to-1 run once for each segment, forward and backward, nothing of whole sequences
** that they or what follows needs may give its place to what lives within a segment. */
static void outlive_segments(const neap_run *run, int *from, int *to) {
  int a = run->plan.from, b = run->plan.to, end = 2 * run->plan.n_units;
  bool learn = run->flags & NEAP_LEARN;
  bool forward = *from < b && *to >= a, backward = learn && *from <= end - a && *to > end - b;
  if (a == b || !(forward || backward)) return;
  int last = learn ? end - a : b - 1;
  if (*from > a) *from = a;
  if (*to < last) *to = last;
}

static neap_status add_item(neap_run *run, size_t *n, size_t bytes, int from, int to, bool still,
                            void **where) {
  if (still && run->still_placed) return NEAP_OK;
  if (!ni_grow((void **)&run->item, &run->cap_items, *n, sizeof *run->item)) return NEAP_EMEM;
  run->item[(*n)++] = (ni_item){padded(bytes ? bytes : 1), 0, from, to, still, where};
  return NEAP_OK;
}

/* zeros: a stream's outputs may be looked at before its first step. */
static neap_status hold(char **arena, size_t *cap, size_t bytes, bool zeros, bool tells) {
  if (bytes <= *cap) return NEAP_OK;
  if (tells) {
    *cap = bytes;
    return NEAP_OK;
  }
  char *fresh = zeros ? ni_calloc(1, bytes) : ni_alloc(bytes);
  if (!fresh) return ni_fail_before(NEAP_EMEM, "run: %zu bytes for this batch", bytes);
  ni_free(*arena);
  *arena = fresh;
  *cap = bytes;
  return NEAP_OK;
}

/* First fit in the order of birth. A few hundred items: plain scanning does. */
static size_t fit(ni_item *item, size_t n, bool share, size_t *still) {
  size_t top = 0;
  for (size_t i = 0; i < n; i++) item[i].offset = 0;
  if (!share) {
    size_t part[2] = {0, 0};
    for (size_t i = 0; i < n; i++) {
      item[i].offset = part[item[i].still];
      part[item[i].still] += item[i].bytes;
    }
    *still = part[1];
    return part[0];
  }
  /* insertion sort by birth: items come nearly in order */
  for (size_t i = 1; i < n; i++) {
    ni_item it = item[i];
    size_t k = i;
    for (; k > 0 && item[k - 1].from > it.from; k--) item[k] = item[k - 1];
    item[k] = it;
  }
  for (size_t i = 0; i < n; i++) {
    size_t at = 0;
    for (bool moved = true; moved;) {
      moved = false;
      for (size_t k = 0; k < i; k++) {
        const ni_item *o = &item[k];
        if (o->to < item[i].from || o->from > item[i].to) continue;
        if (at < o->offset + o->bytes && o->offset < at + item[i].bytes) {
          at = o->offset + o->bytes;
          moved = true;
        }
      }
    }
    item[i].offset = at;
    if (at + item[i].bytes > top) top = at + item[i].bytes;
  }
  return top;
}

static size_t element(const neap_run *run, const neap_type *t) {
  return t->dtype == NEAP_I32 ? sizeof(int32_t) : run->real;
}

/* Which values a gradient flows through: from parameters and wanted values downstream. */
static void mark_need(neap_run *run) {
  const neap_program *pr = run->pr;
  memset(run->need, 0, (size_t)pr->n_values);
  if (!(run->flags & NEAP_LEARN)) return;
  for (bool changed = true; changed;) {
    changed = false;
    for (int i = 0; i < pr->n_nodes; i++) {
      const ni_node *n = &pr->node[i];
      if (run->plan.unit_of[i] < 0 || (n->op->flags & NI_NOGRAD)) continue;
      bool any = run->keep[n->out] & 2;
      any |= n->op == &ni_op_param; /* frozen or not is asked in each backward */
      for (int k = 0; k < n->n_in; k++) any |= n->in[k] >= 0 && run->need[n->in[k]];
      for (int k = 0; k < n->n_out; k++)
        if (any && !run->need[n->out + k] && pr->value[n->out + k].type.dtype == NEAP_F32)
          run->need[n->out + k] = 1;
    }
    for (int i = 0; i < pr->n_states; i++) {
      const ni_state_info *s = &pr->state[i];
      if (run->plan.unit_of[pr->value[s->value].node] < 0) continue;
      if (run->need[s->next] && !run->need[s->value] &&
          pr->value[s->value].type.dtype == NEAP_F32)
        run->need[s->value] = changed = 1;
    }
  }
}

/* Is v in the loop of that unit, a row of it at each step? */
static bool in_loop(const neap_run *run, int v, int unit) {
  const neap_program *pr = run->pr;
  return unit >= 0 && run->plan.unit[unit].node < 0 &&
         pr->value[v].type.space == pr->scan[run->plan.unit[unit].scan].space;
}

/* Who reads a value. */
typedef struct readers {
  const ni_node *last;
  int count;
  bool outside, kept, next, first; /* outside its unit; for backward; as a state's */
} readers;

static readers readers_of(const neap_run *run, int v) {
  const neap_program *pr = run->pr;
  int unit = run->plan.unit_of[pr->value[v].node];
  readers r = {.outside = run->keep[v] != 0};
  for (int i = 0; i < pr->n_nodes; i++) {
    const ni_node *n = &pr->node[i];
    if (run->plan.unit_of[i] < 0) continue;
    for (int k = 0; k < n->n_in; k++) {
      if (n->in[k] != v) continue;
      r.last = n;
      r.count++;
      r.outside |= run->plan.unit_of[i] != unit;
      r.kept |= n->op->keep_in >> (k < 31 ? k : 31) & 1;
    }
  }
  for (int o = 0; o < pr->n_outputs; o++) r.outside |= pr->output[o].value == v;
  for (int i = 0; i < pr->n_states; i++) {
    if (run->plan.unit_of[pr->value[pr->state[i].value].node] < 0) continue;
    r.next |= pr->state[i].next == v;
    r.first |= pr->state[i].init == v;
  }
  return r;
}

/* A sum hands its gradient on as it is: what only the sum reads needs none of its own. */
static int same_gradient(const neap_run *run, int v, const readers *r) {
  const neap_type *t = &run->pr->value[v].type;
  if (r->count != 1 || r->next || r->first || !run->need[v] || run->keep[v]) return v;
  if (strcmp(r->last->op->name, "add") != 0) return v;
  for (int o = 0; o < run->pr->n_outputs; o++)
    if (run->pr->output[o].value == v) return v;
  const ni_op *op = run->pr->node[run->pr->value[v].node].op;
  const neap_type *out = &run->pr->value[r->last->out].type;
  bool even = out->space == t->space && out->rank == t->rank && t->space >= 0;
  for (int k = 0; even && k < t->rank; k++) even = out->dim[k] == t->dim[k];
  even &= ni_segments_local(run, v) == ni_segments_local(run, r->last->out);
  return even && !(op->flags & NI_SOURCE) ? r->last->out : v;
}

/*
** Logits and the like, large and read once more in backward: may the gradient take their place?
** Only if whoever turns them into it is alone in giving one, and nobody asks for them afterwards.
*/
static bool turns(const neap_run *run, int v, const readers *r) {
  const neap_program *pr = run->pr;
  const ni_node *maker = &pr->node[pr->value[v].node];
  if (!run->need[v] || run->keep[v] || r->next || r->first) return false;
  if (maker->op->flags & NI_SOURCE || maker->op->keep_out >> (v - maker->out) & 1) return false;
  for (int o = 0; o < pr->n_outputs; o++)
    if (pr->output[o].value == v) return false;
  int turning = 0;
  for (int i = 0; i < pr->n_nodes; i++) {
    const ni_node *n = &pr->node[i];
    int unit = run->plan.unit_of[i];
    if (unit < 0) continue;
    for (int k = 0; k < n->n_in; k++) {
      if (n->in[k] != v || n->op->flags & NI_NOGRAD) continue;
      if (k || !(n->op->flags & NI_TURNS) || run->plan.unit[unit].node < 0) return false;
      turning++;
    }
  }
  return turning == 1;
}

static void mark_local(neap_run *run) {
  const neap_program *pr = run->pr;
  bool learn = run->flags & NEAP_LEARN;
  for (int v = 0; v < pr->n_values; v++) {
    const ni_node *n = &pr->node[pr->value[v].node];
    int unit = run->plan.unit_of[n->index], space = pr->value[v].type.space;
    run->local[v] = run->turned[v] = 0;
    run->same[v] = v;
    if (unit < 0 || pr->value[v].type.dtype != NEAP_F32) continue;
    readers r = readers_of(run, v);
    bool kept = learn && (r.kept || n->op->keep_out >> (v - n->out) & 1);
    bool state = n->op == &ni_op_state;
    if (learn) run->same[v] = same_gradient(run, v, &r);
    run->turned[v] = turns(run, v, &r);
    if (r.outside || r.first || !in_loop(run, v, unit)) continue;
    if (!state && !r.next && !kept) run->local[v] |= NI_LOCAL_DATA;
    if (!run->need[v]) continue;
    /* the step after adds to what a state passes on as it is, before the step's own are cleared */
    if (state && r.next) continue;
    run->local[v] |= NI_LOCAL_CLEAR;
    bool wide = false; /* its maker sums over all steps */
    for (int k = 0; k < n->n_in; k++)
      wide |= n->in[k] >= 0 && run->need[n->in[k]] && pr->value[n->in[k]].type.space != space;
    if (!wide) run->local[v] |= NI_LOCAL_GRAD;
  }
  for (bool changed = true; changed;) { /* whoever shares a gradient, shares its memory */
    changed = false;
    for (int v = 0; v < pr->n_values; v++) {
      int r = run->same[v];
      if (r == v || !((run->local[v] ^ run->local[r]) & NI_LOCAL_GRAD)) continue;
      run->local[v] &= (uint8_t)~NI_LOCAL_GRAD;
      run->local[r] &= (uint8_t)~NI_LOCAL_GRAD;
      changed = true;
    }
  }
}

static int owner_of_gradient(const neap_run *run, int v) {
  while (run->same[v] != v) v = run->same[v];
  return v;
}

bool ni_run_needs(const neap_run *run, int space) {
  const neap_program *pr = run->pr;
  for (int v = 0; v < pr->n_values; v++)
    if (run->plan.unit_of[pr->value[v].node] >= 0 &&
        ni_program_below(pr, pr->value[v].type.space, space))
      return true;
  return false;
}

/* Places for the states at the borders of segments, and for their gradients at two of them. */
static neap_status add_borders(neap_run *run, size_t *n, int slot, int value) {
  ni_segments *g = &run->segments;
  size_t bytes, all;
  int from = run->plan.from, to = from;
  if (!ni_mul(run->rows[run->plan.space].parents * run->view[value].width,
              run->pr->slot[slot].dtype == NEAP_I32 ? sizeof(int32_t) : run->real, &bytes) ||
      !ni_mul(bytes, g->count + 1, &all))
    return ni_fail(NEAP_EMEM, "run: a value is too large");
  outlive_segments(run, &from, &to);
  neap_status rc = add_item(run, n, all, from, to, false, &g->border[slot]);
  if (!rc && run->need[value])
    rc = add_item(run, n, 2 * bytes, from, to, false, &g->slope[slot]);
  return rc;
}

static neap_status add_all_borders(neap_run *run, size_t *n) {
  const neap_program *pr = run->pr;
  neap_status rc = NEAP_OK;
  for (int u = run->plan.from; u < run->plan.to && !rc; u++) {
    const ni_unit *unit = &run->plan.unit[u];
    const ni_node *node = unit->node < 0 ? NULL : &pr->node[unit->node];
    for (int k = 1; node && node->slot >= 0 && k < node->n_out && !rc; k++)
      rc = add_borders(run, n, node->slot + k - 1, node->out + k);
    for (int i = 0; !node && i < pr->n_states && !rc; i++)
      if (ni_run_carries(run, &pr->state[i], unit->scan))
        rc = add_borders(run, n, pr->state[i].slot, pr->state[i].value);
  }
  return rc;
}

neap_status ni_run_place(neap_run *run) {
  const neap_program *pr = run->pr;
  neap_status rc = NEAP_OK;
  for (int i = 0; i < pr->n_spaces; i++)
    if (!run->layout[i].given && (i == 0 || ni_run_needs(run, i)))
      return i == 0 ? ni_fail(NEAP_ESTATE, "run: the number of rows of the batch is not set")
                    : ni_fail(NEAP_ESTATE, "run: the lengths of '%s' are not set",
                              pr->space[i].name);
  if (!run->marked) {
    mark_need(run);
    mark_local(run);
    run->marked = true;
  }
  int units = run->plan.n_units, end = 2 * units + 1;
  bool learn = run->flags & NEAP_LEARN, share = !run->step_unit;
  bool cut = run->plan.from < run->plan.to;
  if (cut && (rc = ni_segments_shape(run)) != NEAP_OK) return rc;
  ni_exec x = {.view = run->view, .rows = run->rows, .fixed = run->fixed, .work = run->work,
               .keeps = run->flags & NEAP_LEARN};
  size_t n = 0;
  for (int v = 0; v < pr->n_values; v++) {
    const neap_type *t = &pr->value[v].type;
    size_t width = 1, bytes;
    for (int k = 0; k < t->rank; k++) {
      size_t d = t->dim[k] >= 0 ? (size_t)t->dim[k] : run->rows[-1 - t->dim[k]].steps;
      if (!ni_mul(width, d, &width)) return ni_fail(NEAP_EMEM, "run: a value is too large");
    }
    run->view[v].width = width;
    bool local = cut && ni_segments_local(run, v);
    size_t rows = t->space < 0 ? 1
                  : local      ? run->segments.rows[t->space].rows
                               : run->rows[t->space].rows;
    if (!ni_mul(rows, width, &bytes) || !ni_mul(bytes, element(run, t), &bytes))
      return ni_fail(NEAP_EMEM, "run: a value is too large");
    size_t step = run->local[v] ? run->rows[t->space].parents * width * element(run, t) : 0;
    run->view[v].grad = NULL;
    const ni_node *node = &pr->node[pr->value[v].node];
    int unit = run->plan.unit_of[node->index];
    if (unit < 0) continue;
    int last = unit, first_back = -1;
    bool still = run->step_unit && !run->step_unit[unit];
    bool to_end = run->keep[v] & 1 || node->op == &ni_op_input;
    for (int o = 0; o < pr->n_outputs; o++) to_end |= pr->output[o].value == v;
    for (int i = 0; i < pr->n_nodes; i++) {
      const ni_node *c = &pr->node[i];
      int u = run->plan.unit_of[i];
      if (u < 0) continue;
      for (int k = 0; k < c->n_in; k++) {
        if (c->in[k] != v) continue;
        if (u > last) last = u;
        if (learn && (c->op->keep_in >> (k < 31 ? k : 31) & 1) && 2 * units - u > last)
          last = 2 * units - u;
        if (u > first_back) first_back = u;
      }
    }
    for (int i = 0; i < pr->n_states; i++) {
      int u = run->plan.unit_of[pr->value[pr->state[i].value].node];
      if (u < 0 || (pr->state[i].next != v && pr->state[i].init != v)) continue;
      if (u > last) last = u;
      if (u > first_back) first_back = u;
    }
    if (learn && (node->op->keep_out >> (v - node->out) & 1) && 2 * units - unit > last)
      last = 2 * units - unit;
    if (to_end) last = end;
    int to = 2 * units - unit, from = first_back < 0 ? to : 2 * units - first_back;
    for (int w = 0; learn && w < pr->n_values; w++) /* made earlier, so asked later in backward */
      if (run->same[w] != w && owner_of_gradient(run, w) == v &&
          2 * units - run->plan.unit_of[pr->value[w].node] > to)
        to = 2 * units - run->plan.unit_of[pr->value[w].node];
    if (run->turned[v]) last = to;
    bool own = !(node->op->flags & NI_SOURCE) || node->op == &ni_op_input || node->op == &ni_op_state;
    int born = node->op == &ni_op_input ? 0 : unit;
    if (!local) outlive_segments(run, &born, &last);
    if (own)
      rc = add_item(run, &n, run->local[v] & NI_LOCAL_DATA ? step : bytes, born, last, still,
                    &run->view[v].data);
    if (!rc && run->need[v] && node->op != &ni_op_param && run->same[v] == v && !run->turned[v]) {
      if (run->keep[v] & 2 || to_end) from = units, to = end;
      if (!local) outlive_segments(run, &from, &to);
      rc = add_item(run, &n, run->local[v] & NI_LOCAL_GRAD ? step : bytes, from, to, still,
                    &run->grad[v]);
    }
    if (rc) return rc;
  }
  for (int i = 0; i < pr->n_nodes; i++) {
    const ni_node *node = &pr->node[i];
    int unit = run->plan.unit_of[i], last = learn ? 2 * units - unit : unit, born = unit;
    x.rows = unit >= run->plan.from && unit < run->plan.to ? run->segments.rows : run->rows;
    size_t reals = unit >= 0 && node->op->work ? node->op->work(&x, node) : 0, bytes;
    bool still = run->step_unit && unit >= 0 && !run->step_unit[unit];
    if (!still || !run->still_placed) run->work[i] = NULL;
    if (!reals) continue;
    if (!ni_mul(reals, run->real, &bytes)) return ni_fail(NEAP_EMEM, "run: a value is too large");
    if (x.rows == run->rows || node->op->flags & NI_FOLDS) outlive_segments(run, &born, &last);
    rc = add_item(run, &n, bytes, born, last, still, &run->work[i]);
    if (rc) return rc;
  }
  if ((rc = add_all_borders(run, &n)) != NEAP_OK) return rc;
  size_t still = 0, top = fit(run->item, n, share, &still);
  bool tells = ni_run_tells(run);
  rc = hold(&run->arena, &run->arena_cap, top, run->step_unit != NULL, tells);
  if (!rc && !run->still_placed) rc = hold(&run->still, &run->still_cap, still, true, tells);
  if (rc) return rc;
  if (tells) {
    run->phase = NI_PLACED;
    return NEAP_OK;
  }
  for (size_t i = 0; i < n; i++)
    *run->item[i].where = (run->item[i].still ? run->still : run->arena) + run->item[i].offset;
  for (int v = 0; v < pr->n_values; v++)
    if (run->turned[v]) run->grad[v] = run->view[v].data;
  for (int v = 0; v < pr->n_values; v++) run->grad[v] = run->grad[owner_of_gradient(run, v)];
  if (cut) ni_segments_placed(run);
  for (int v = 0; v < pr->n_values; v++) {
    int unit = run->plan.unit_of[pr->value[v].node];
    if (!run->step_unit || unit < 0 || run->step_unit[unit] || !run->still_placed)
      run->given[v] = 0;
  }
  run->still_placed = run->step_unit != NULL;
  run->calls_ready = false;
  run->phase = NI_PLACED;
  return NEAP_OK;
}
