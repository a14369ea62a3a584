#include "program.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SOURCE(id, text, ins) \
  const ni_op ni_op_##id = {text, 0, ins, 1, NI_SOURCE, "", 0, 0, NULL, NULL, NULL, NULL, NULL, ""};
SOURCE(input, "input", 0)
SOURCE(scalar, "scalar", 0)
SOURCE(param, "param", 0)
SOURCE(constant, "constant", 0)
SOURCE(state, "state", 1)

neap_status ni_program_new(neap_program **out, neap_params *params) {
  *out = NULL;
  neap_program *pr = ni_calloc(1, sizeof *pr);
  if (!pr) return NEAP_EMEM;
  pr->refs = 1;
  pr->open_scan = -1;
  pr->space[0].name = ni_strdup("B");
  pr->space[0].parent = -1;
  pr->space[0].factor = 1;
  if (!pr->space[0].name) {
    ni_free(pr);
    return NEAP_EMEM;
  }
  pr->n_spaces = 1;
  pr->params = params;
  ni_params_retain(params);
  *out = pr;
  return NEAP_OK;
}

void ni_program_retain(neap_program *pr) {
  if (pr) atomic_fetch_add(&pr->refs, 1);
}

void ni_program_release(neap_program *pr) {
  if (!pr || atomic_fetch_sub(&pr->refs, 1) != 1) return;
  for (int i = 0; i < pr->n_spaces; i++) ni_free(pr->space[i].name);
  for (int i = 0; i < pr->n_slots; i++) ni_free(pr->slot[i].name);
  for (int i = 0; i < pr->n_strings; i++) ni_free(pr->string[i].s);
  ni_free(pr->string);
  ni_free(pr->slot);
  ni_free(pr->state);
  ni_free(pr->scan);
  ni_free(pr->input);
  ni_free(pr->output);
  ni_free(pr->value);
  ni_free(pr->node);
  ni_params_release(pr->params);
  ni_free(pr);
}

/* The program's own copy of s, each text kept once; NULL when memory is short. */
static const char *intern(neap_program *pr, const char *s) {
  uint64_t hash = ni_hash(s);
  for (int i = pr->n_strings - 1; i >= 0; i--)
    if (pr->string[i].hash == hash && strcmp(pr->string[i].s, s) == 0) return pr->string[i].s;
  if (!ni_grow((void **)&pr->string, &pr->cap_strings, (size_t)pr->n_strings, sizeof *pr->string))
    return NULL;
  char *copy = ni_strdup(s);
  if (copy) pr->string[pr->n_strings++] = (ni_string){hash, copy};
  return copy;
}

/* UTF-8, or a file would give back another name. */
static neap_status check_name(const char *who, const char *name) {
  return ni_name_check(who, name, 255);
}

/* Runs and streams count on the nodes that were there when they were opened. */
static neap_status check_open(const neap_program *pr, const char *who) {
  if (!atomic_load(&pr->fixed)) return NEAP_OK;
  return ni_fail(NEAP_ESTATE, "%s: the program has been run: nothing more can be recorded", who);
}

/* The elements of a row must stay countable, also where ops multiply them. */
static neap_status check_width(const neap_type *t) {
  size_t width = 1;
  for (int i = 0; i < t->rank; i++)
    if (t->dim[i] > 0 &&
        (!ni_mul(width, (size_t)t->dim[i], &width) || width > (size_t)INT32_MAX))
      return ni_fail(NEAP_ESHAPE, "a row would have more than %d elements", INT32_MAX);
  return NEAP_OK;
}

neap_status ni_program_space(int *space, neap_program *pr, const char *name, int parent) {
  *space = -1;
  neap_status rc = check_name("space", name);
  if (rc) return rc;
  if (parent < 0 || parent >= pr->n_spaces)
    return ni_fail(NEAP_EARG, "space: expected the parent of '%s' in 0..%d, got %d", name,
                   pr->n_spaces - 1, parent);
  for (int i = 0; i < pr->n_spaces; i++)
    if (strcmp(pr->space[i].name, name) == 0) {
      if (pr->space[i].parent != parent)
        return ni_fail(NEAP_EARG, "space: '%s' exists over another parent", name);
      *space = i;
      return NEAP_OK;
    }
  if ((rc = check_open(pr, "space")) != NEAP_OK) return rc;
  if (pr->n_spaces == NEAP_MAX_SPACES)
    return ni_fail(NEAP_EARG, "space: a program has at most %d spaces", NEAP_MAX_SPACES);
  char *copy = ni_strdup(name);
  if (!copy) return NEAP_EMEM;
  pr->space[pr->n_spaces] = (ni_space){copy, parent, pr->n_spaces, 1};
  *space = pr->n_spaces++;
  return NEAP_OK;
}

neap_status ni_program_folded(int *space, neap_program *pr, int of, int steps) {
  *space = -1;
  if (of < 1 || of >= pr->n_spaces)
    return ni_fail(NEAP_EARG, "folded: expected a sequence space in 1..%d, got %d",
                   pr->n_spaces - 1, of);
  int before = pr->space[of].factor, root = pr->space[of].of;
  if (steps < 2 || steps > NI_MAX_FOLD / before)
    return ni_fail(NEAP_ERANGE, "folded: expected 2 to %d steps for one of '%s', got %d",
                   NI_MAX_FOLD / before, pr->space[of].name, steps);
  int factor = steps * before, had = pr->n_spaces;
  char name[300];
  snprintf(name, sizeof name, "%s/%d", pr->space[root].name, factor);
  neap_status rc = ni_program_space(space, pr, name, pr->space[root].parent);
  if (rc) return rc;
  ni_space *s = &pr->space[*space];
  if (*space == had) {
    s->of = root;
    s->factor = factor;
  } else if (s->of != root || s->factor != factor) {
    *space = -1;
    return ni_fail(NEAP_EARG, "folded: the name '%s' is taken by another sequence", name);
  }
  return NEAP_OK;
}

neap_status ni_program_where(neap_program *pr, const char *line, const char *layer) {
  if ((line && strlen(line) > NI_MAX_WHERE) || (layer && strlen(layer) > NI_MAX_WHERE))
    return ni_fail(NEAP_EARG, "where: expected at most %d bytes", NI_MAX_WHERE);
  const char *l = line ? intern(pr, line) : NULL, *y = layer ? intern(pr, layer) : NULL;
  if ((line && !l) || (layer && !y)) return NEAP_EMEM;
  pr->line = l;
  pr->layer = y;
  return NEAP_OK;
}

bool ni_program_below(const neap_program *pr, int of, int space) {
  while (of >= 0 && of != space) of = pr->space[of].parent;
  return of == space && space >= 0;
}

const char *ni_program_type_text(const neap_program *pr, const neap_type *t) {
  ni_infer i = {.space = pr->space, .n_spaces = pr->n_spaces};
  return ni_type_text(&i, t);
}

const char *ni_program_at(const ni_node *n) {
  static _Thread_local char text[160];
  text[0] = 0;
  if (n->line) snprintf(text, sizeof text, " (%s)", n->line);
  return text;
}

const char *ni_program_who(const ni_node *n) {
  static _Thread_local char text[200];
  if (n->layer && n->layer[0])
    snprintf(text, sizeof text, "%s of layer %s", n->op->name, n->layer);
  else
    snprintf(text, sizeof text, "%s", n->op->name);
  return text;
}

/* Makes room for a node and its outputs, so that push cannot fail. */
static neap_status reserve(neap_program *pr, int outs) {
  if (pr->n_nodes >= NI_MAX_NODES)
    return ni_fail(NEAP_ERANGE, "a program has at most %d nodes", NI_MAX_NODES);
  if (!ni_grow((void **)&pr->node, &pr->cap_nodes, (size_t)pr->n_nodes, sizeof *pr->node))
    return NEAP_EMEM;
  for (int i = 0; i < outs; i++)
    if (!ni_grow((void **)&pr->value, &pr->cap_values, (size_t)(pr->n_values + i),
                 sizeof *pr->value))
      return NEAP_EMEM;
  return NEAP_OK;
}

static ni_node *push(neap_program *pr, const ni_op *op, int outs, const neap_type *types) {
  ni_node *n = &pr->node[pr->n_nodes];
  memset(n, 0, sizeof *n);
  n->op = op;
  n->index = pr->n_nodes++;
  n->n_out = outs;
  n->out = pr->n_values;
  n->scan = pr->open_scan;
  n->slot = -1;
  n->line = pr->line;
  n->layer = pr->layer;
  for (int i = 0; i < NEAP_MAX_INPUTS; i++) n->in[i] = -1;
  for (int i = 0; i < outs; i++) {
    pr->value[pr->n_values].type = types[i];
    pr->value[pr->n_values++].node = n->index;
  }
  return n;
}

static neap_status check_type(const neap_program *pr, const char *who, const char *name,
                              const neap_type *t) {
  if (t->dtype != NEAP_F32 && t->dtype != NEAP_I32)
    return ni_fail(NEAP_ETYPE, "%s: '%s' must be f32 or i32", who, name);
  if (t->space < NEAP_NO_SPACE || t->space >= pr->n_spaces)
    return ni_fail(NEAP_EARG, "%s: '%s' is in space %d, expected -1..%d", who, name, t->space,
                   pr->n_spaces - 1);
  if (t->rank < 0 || t->rank > NEAP_MAX_FEATURES)
    return ni_fail(NEAP_ESHAPE, "%s: '%s' has %d feature dimensions, expected 0..%d", who, name,
                   t->rank, NEAP_MAX_FEATURES);
  for (int i = 0; i < t->rank; i++)
    if (t->dim[i] < 1)
      return ni_fail(NEAP_ESHAPE, "%s: '%s' has dimension %d, expected 1 or more", who, name,
                     (int)t->dim[i]);
  neap_status rc = check_width(t);
  return rc ? ni_fail_before(rc, "%s: '%s'", who, name) : NEAP_OK;
}

static int find_named(const ni_named *list, int n, const char *name) {
  for (int i = 0; i < n; i++)
    if (strcmp(list[i].name, name) == 0) return list[i].value;
  return -1;
}
int ni_program_find_output(const neap_program *pr, const char *name) {
  return find_named(pr->output, pr->n_outputs, name);
}
int ni_program_find_input(const neap_program *pr, const char *name) {
  return find_named(pr->input, pr->n_inputs, name);
}

static neap_status named_source(int *value, neap_program *pr, const ni_op *op, const char *name,
                                const neap_type *type, double preset) {
  *value = -1;
  neap_status rc = check_name(op->name, name);
  if (!rc) rc = check_open(pr, op->name);
  if (rc) return rc;
  if (pr->open_scan >= 0 && op == &ni_op_input)
    return ni_fail(NEAP_ESTATE, "%s: '%s' cannot be made inside a cell's step", op->name, name);
  if (ni_program_find_input(pr, name) >= 0)
    return ni_fail(NEAP_EARG, "%s: the name '%s' is taken", op->name, name);
  if (pr->n_inputs >= NI_MAX_NAMED)
    return ni_fail(NEAP_ERANGE, "%s: a program has at most %d inputs", op->name, NI_MAX_NAMED);
  if ((rc = check_type(pr, op->name, name, type)) != NEAP_OK) return rc;
  if ((rc = reserve(pr, 1)) != NEAP_OK) return rc;
  const char *own = intern(pr, name);
  if (!own ||
      !ni_grow((void **)&pr->input, &pr->cap_inputs, (size_t)pr->n_inputs, sizeof *pr->input))
    return NEAP_EMEM;
  int scan = pr->open_scan;
  pr->open_scan = -1; /* a number of the run belongs to no step */
  ni_node *n = push(pr, op, 1, type);
  pr->open_scan = scan;
  n->name = own;
  n->attr[0] = preset;
  pr->input[pr->n_inputs].name = own;
  pr->input[pr->n_inputs++].value = *value = n->out;
  return NEAP_OK;
}

neap_status ni_program_input(int *value, neap_program *pr, const char *name,
                             const neap_type *type) {
  return named_source(value, pr, &ni_op_input, name, type, 0);
}

neap_status ni_program_scalar(int *value, neap_program *pr, const char *name, double preset) {
  neap_type t = {.dtype = NEAP_F32, .space = NEAP_NO_SPACE};
  *value = -1;
  if (!isfinite(preset))
    return ni_fail(NEAP_ENONFINITE, "scalar: '%s' needs a finite preset", name ? name : "?");
  return named_source(value, pr, &ni_op_scalar, name, &t, preset);
}

neap_status ni_program_param(int *value, neap_program *pr, const char *name) {
  *value = -1;
  int id = name ? ni_params_find(pr->params, name) : -1;
  if (id < 0) return ni_fail(NEAP_EARG, "param: there is no parameter '%s'", name ? name : "");
  for (int i = 0; i < pr->n_nodes; i++)
    if (pr->node[i].op == &ni_op_param && strcmp(pr->node[i].name, name) == 0) {
      *value = pr->node[i].out;
      return NEAP_OK;
    }
  neap_type t = {.dtype = NEAP_F32, .space = NEAP_NO_SPACE, .rank = ni_params_rank(pr->params, id)};
  if (t.rank > NEAP_MAX_FEATURES)
    return ni_fail(NEAP_ESHAPE, "param: '%s' has %d dimensions, expected at most %d", name, t.rank,
                   NEAP_MAX_FEATURES);
  for (int i = 0; i < t.rank; i++) {
    size_t d = ni_params_dim(pr->params, id, i);
    if (d > INT32_MAX) return ni_fail(NEAP_ESHAPE, "param: '%s' is too wide", name);
    t.dim[i] = (int32_t)d;
  }
  neap_status rc = check_type(pr, "param", name, &t);
  if (!rc) rc = check_open(pr, "param");
  if (!rc) rc = reserve(pr, 1);
  if (rc) return rc;
  const char *own = intern(pr, name);
  if (!own) return NEAP_EMEM;
  int scan = pr->open_scan;
  pr->open_scan = -1; /* a parameter belongs to no step */
  ni_node *n = push(pr, &ni_op_param, 1, &t);
  pr->open_scan = scan;
  n->name = own;
  *value = n->out;
  return NEAP_OK;
}

neap_status ni_program_constant(int *value, neap_program *pr, double number) {
  *value = -1;
  if (!isfinite(number)) return ni_fail(NEAP_ENONFINITE, "constant: expected a finite number");
  neap_type t = {.dtype = NEAP_F32, .space = NEAP_NO_SPACE};
  neap_status rc = check_open(pr, "constant");
  if (!rc) rc = reserve(pr, 1);
  if (rc) return rc;
  ni_node *n = push(pr, &ni_op_constant, 1, &t);
  n->attr[0] = number;
  *value = n->out;
  return NEAP_OK;
}

/* ---- attributes: "axis from=0 to": names in order, some with presets ---- */

static int attr_names(const ni_op *op, char names[NI_MAX_ATTRS][24], double preset[NI_MAX_ATTRS],
                      bool has[NI_MAX_ATTRS]) {
  int n = 0;
  for (const char *p = op->attrs; *p && n < NI_MAX_ATTRS; n++) {
    size_t len = strcspn(p, " ="), copy = len < 23 ? len : 23;
    memcpy(names[n], p, copy);
    names[n][copy] = 0;
    p += len;
    has[n] = *p == '=';
    preset[n] = 0;
    if (has[n]) {
      /* presets are plain decimals of this source: no locale can be met here but the point */
      double sign = 1, value = 0, scale = 0;
      p++;
      if (*p == '-') sign = -1, p++;
      int exponent = 0;
      for (; *p && *p != ' '; p++) {
        if (*p == '.') scale = 1;
        else if (*p == 'e') { exponent = (int)strtol(p + 1, (char **)&p, 10); p--; }
        else { value = value * 10 + (*p - '0'); if (scale > 0) scale *= 10; }
      }
      preset[n] = sign * (scale > 0 ? value / scale : value) * pow(10, exponent);
    }
    p += strspn(p, " ");
  }
  return n;
}

static neap_status read_attrs(double *attr, const ni_op *op, const neap_attr *given, int n_given) {
  char names[NI_MAX_ATTRS][24];
  bool has[NI_MAX_ATTRS];
  int n = attr_names(op, names, attr, has);
  for (int g = 0; g < n_given; g++) {
    int at = -1;
    const char *list[NI_MAX_ATTRS];
    for (int i = 0; i < n; i++) {
      list[i] = names[i];
      if (given[g].name && strcmp(names[i], given[g].name) == 0) at = i;
    }
    if (at < 0) {
      const char *near = ni_nearest(given[g].name ? given[g].name : "", list, (size_t)n);
      return ni_fail(NEAP_EARG, "unknown option '%s'%s%s%s", given[g].name ? given[g].name : "",
                     near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    if (!isfinite(given[g].value))
      return ni_fail(NEAP_EARG, "option '%s': expected a finite number", names[at]);
    attr[at] = given[g].value;
    has[at] = true;
  }
  for (int i = 0; i < n; i++)
    if (!has[i]) return ni_fail(NEAP_EARG, "option '%s' is missing", names[i]);
  return NEAP_OK;
}

/* ---- ops ---- */

static neap_status align(neap_program *pr, int *in, int n_in) {
  int deep = NEAP_NO_SPACE, at = -1;
  for (int i = 0; i < n_in; i++) {
    if (in[i] < 0) continue;
    int s = pr->value[in[i]].type.space;
    if (s < 0 || s == deep) continue;
    if (deep < 0 || ni_program_below(pr, s, deep)) {
      deep = s;
      at = i;
    } else if (!ni_program_below(pr, deep, s)) {
      return ni_fail(NEAP_ESHAPE, "values of two different sequences cannot meet: %s and %s",
                     ni_program_type_text(pr, &pr->value[in[at]].type),
                     ni_program_type_text(pr, &pr->value[in[i]].type));
    }
  }
  for (int i = 0; i < n_in; i++) {
    if (in[i] < 0) continue;
    int s = pr->value[in[i]].type.space;
    if (s < 0 || s == deep) continue;
    neap_attr to = {"space", deep};
    int n_out;
    neap_status rc = ni_program_add(&in[i], &n_out, pr, "spread", &in[i], 1, &to, 1);
    if (rc) return rc;
  }
  return NEAP_OK;
}

/* Forgets what was recorded since there were so many nodes, values and slots. */
static void roll_back(neap_program *pr, int nodes, int values, int slots) {
  while (pr->n_slots > slots) ni_free(pr->slot[--pr->n_slots].name);
  pr->n_nodes = nodes;
  pr->n_values = values;
}

/* What a step makes of its own sequence stays in it: the loop computes rows of one step. */
static neap_status check_step(const neap_program *pr, const ni_op *op, const int *in, int n_in,
                              const ni_infer *inf) {
  int space = pr->scan[pr->open_scan].space;
  bool own = false, leaves = (op->flags & NI_WHOLE) != 0;
  for (int i = 0; i < n_in; i++) own |= in[i] >= 0 && pr->value[in[i]].type.space == space;
  for (int i = 0; i < inf->n_out; i++) leaves |= inf->out[i].space != space;
  if (strncmp(op->name, "attend", 6) == 0) {
    if (pr->value[in[0]].type.space == pr->value[in[1]].type.space || (own && leaves))
      return ni_fail(NEAP_EUNSUPPORTED, "a cell's step cannot attend to its own sequence");
  } else if (own && leaves) {
    return ni_fail(NEAP_EUNSUPPORTED,
                   "a cell's step cannot leave its own sequence: use it outside the cell");
  }
  return NEAP_OK;
}

static neap_status add_slots(neap_program *pr, ni_node *n, const neap_type *types) {
  static const char *const letter[] = {"h", "c"};
  n->slot = pr->n_slots;
  for (int i = 1; i < n->n_out; i++) {
    size_t width = 1;
    for (int k = 0; k < types[i].rank; k++) width *= (size_t)types[i].dim[k];
    if (!ni_grow((void **)&pr->slot, &pr->cap_slots, (size_t)pr->n_slots, sizeof *pr->slot))
      return NEAP_EMEM;
    ni_text t = {0};
    ni_text_add(&t, "%s%s%s", n->layer ? n->layer : "", n->layer && n->layer[0] ? "." : "",
                letter[i - 1]);
    if (t.failed) {
      ni_text_free(&t);
      return NEAP_EMEM;
    }
    pr->slot[pr->n_slots++] =
        (ni_slot_info){t.s, NEAP_F32, width, pr->value[n->in[0]].type.space, n->out + i};
  }
  return NEAP_OK;
}

neap_status ni_program_add(int *values, int *n_values, neap_program *pr, const char *name,
                           const int *inputs, int n_inputs, const neap_attr *attrs, int n_attrs) {
  if (n_values) *n_values = 0;
  const ni_op *op = name ? ni_op_find(name) : NULL;
  if (!op) {
    const char *list[256];
    int n = 0;
    for (; n < ni_ops_count && n < 256; n++) list[n] = ni_ops[n].name;
    const char *near = ni_nearest(name ? name : "", list, (size_t)n);
    return ni_fail(NEAP_EARG, "there is no op '%s'%s%s%s", name ? name : "",
                   near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
  }
  neap_status rc = check_open(pr, op->name);
  if (rc) return rc;
  ni_node probe = {.op = op, .line = pr->line, .layer = pr->layer};
  if (n_inputs < op->in_min || n_inputs > op->in_max)
    return op->in_min == op->in_max
               ? ni_fail(NEAP_EARG, "%s: expected %d input%s, got %d%s", op->name, op->in_min,
                         op->in_min == 1 ? "" : "s", n_inputs, ni_program_at(&probe))
               : ni_fail(NEAP_EARG, "%s: expected %d to %d inputs, got %d%s", op->name, op->in_min,
                         op->in_max, n_inputs, ni_program_at(&probe));
  int in[NEAP_MAX_INPUTS];
  for (int i = 0; i < n_inputs; i++) {
    in[i] = inputs[i];
    if (in[i] >= pr->n_values || in[i] < -1 || (in[i] == -1 && i < op->in_min))
      return ni_fail(NEAP_EARG, "%s: input %d is value %d, expected 0..%d%s", op->name, i + 1, in[i],
                     pr->n_values - 1, ni_program_at(&probe));
  }
  while (n_inputs > op->in_min && in[n_inputs - 1] == -1) n_inputs--;
  if (pr->open_scan >= 0 && (op->flags & NI_TIME))
    return ni_fail(NEAP_EUNSUPPORTED,
                   "%s: mixes time steps, which a cell's step cannot: use it outside the cell%s",
                   op->name, ni_program_at(&probe));
  int nodes_before = pr->n_nodes, values_before = pr->n_values, slots_before = pr->n_slots;
  if (op->flags & NI_ALIGN) rc = align(pr, in, n_inputs);
  ni_infer inf = {.op = op, .n_in = n_inputs, .space = pr->space, .n_spaces = pr->n_spaces,
                  .n_out = op->outs};
  double attr[NI_MAX_ATTRS] = {0};
  inf.attr = attr;
  if (!rc) rc = read_attrs(attr, op, attrs, n_attrs);
  if (!rc) {
    for (int i = 0; i < n_inputs; i++) inf.in[i] = in[i] < 0 ? NULL : &pr->value[in[i]].type;
    rc = op->infer(&inf);
  }
  if (!rc && pr->open_scan >= 0) rc = check_step(pr, op, in, n_inputs, &inf);
  for (int i = 0; !rc && i < inf.n_out; i++) rc = check_width(&inf.out[i]);
  if (!rc) rc = reserve(pr, inf.n_out);
  if (!rc) {
    ni_node *n = push(pr, op, inf.n_out, inf.out);
    n->n_in = n_inputs;
    for (int i = 0; i < n_inputs; i++) n->in[i] = in[i];
    memcpy(n->attr, attr, sizeof attr);
    if (op->flags & NI_RECURRENT) rc = add_slots(pr, n, inf.out);
    if (!rc) {
      for (int i = 0; values && i < n->n_out; i++) values[i] = n->out + i;
      if (n_values) *n_values = n->n_out;
      return NEAP_OK;
    }
  }
  roll_back(pr, nodes_before, values_before, slots_before);
  if (rc == NEAP_EMEM) return rc;
  return ni_fail(rc, "%s: %s%s", ni_program_who(&probe), ni_message(), ni_program_at(&probe));
}

/* ---- scans ---- */

neap_status ni_program_scan_begin(neap_program *pr, int space) {
  if (pr->open_scan >= 0) return ni_fail(NEAP_ESTATE, "scan: a cell's step cannot hold a scan");
  neap_status rc = check_open(pr, "scan");
  if (rc) return rc;
  if (pr->n_scans >= NI_MAX_NODES)
    return ni_fail(NEAP_ERANGE, "scan: a program has at most %d scans", NI_MAX_NODES);
  if (space < 1 || space >= pr->n_spaces)
    return ni_fail(NEAP_EARG, "scan: expected a sequence space in 1..%d, got %d", pr->n_spaces - 1,
                   space);
  if (!ni_grow((void **)&pr->scan, &pr->cap_scans, (size_t)pr->n_scans, sizeof *pr->scan))
    return NEAP_EMEM;
  pr->scan[pr->n_scans].space = space;
  pr->scan[pr->n_scans].line = pr->line;
  pr->open_scan = pr->n_scans++;
  return NEAP_OK;
}

neap_status ni_program_scan_state(int *value, neap_program *pr, const char *name,
                                  const neap_type *type, int init) {
  *value = -1;
  if (pr->open_scan < 0) return ni_fail(NEAP_ESTATE, "scan state: no scan is open");
  neap_status rc = check_name("scan state", name);
  if (rc) return rc;
  int space = pr->scan[pr->open_scan].space, nodes = pr->n_nodes, values = pr->n_values;
  neap_type t = *type, known;
  t.space = space;
  known = t;
  for (int i = 0; i < t.rank && i < NEAP_MAX_FEATURES; i++) {
    int longest = -1 - t.dim[i]; /* of a sequence that does not run along with the state */
    if (longest > 0 && longest < pr->n_spaces && !ni_program_below(pr, longest, space))
      known.dim[i] = 1;
  }
  if ((rc = check_type(pr, "scan state", name, &known)) != NEAP_OK) return rc;
  if (init < -1 || init >= pr->n_values)
    return ni_fail(NEAP_EARG, "scan state '%s': there is no value %d", name, init);
  if (init >= 0) {
    neap_type want = t;
    want.space = pr->space[space].parent;
    int n_out;
    if (pr->value[init].type.space == NEAP_NO_SPACE) { /* learned start: the same for every row */
      neap_attr to = {"space", want.space};
      rc = ni_program_add(&init, &n_out, pr, "spread", &init, 1, &to, 1);
      if (rc) return rc;
    }
    const neap_type *got = &pr->value[init].type;
    bool same = got->dtype == want.dtype && got->space == want.space && got->rank == want.rank;
    for (int i = 0; same && i < got->rank; i++) same = got->dim[i] == want.dim[i];
    if (!same) {
      rc = ni_fail(NEAP_ESHAPE, "scan state '%s': expected a first state %s, got %s", name,
                   ni_program_type_text(pr, &want), ni_program_type_text(pr, got));
      goto fail;
    }
  }
  size_t width = 1;
  for (int i = 0; i < t.rank; i++) width *= t.dim[i] < 0 ? 0 : (size_t)t.dim[i];
  if ((rc = reserve(pr, 1)) != NEAP_OK) goto fail;
  rc = NEAP_EMEM;
  const char *own = intern(pr, name);
  if (!own ||
      !ni_grow((void **)&pr->state, &pr->cap_states, (size_t)pr->n_states, sizeof *pr->state) ||
      !ni_grow((void **)&pr->slot, &pr->cap_slots, (size_t)pr->n_slots, sizeof *pr->slot))
    goto fail;
  ni_text full = {0};
  ni_text_add(&full, "%s%s%s", pr->layer ? pr->layer : "", pr->layer && pr->layer[0] ? "." : "",
              name);
  if (full.failed) {
    ni_text_free(&full);
    goto fail;
  }
  ni_node *n = push(pr, &ni_op_state, 1, &t);
  n->name = own;
  n->n_in = 1;
  n->in[0] = init;
  n->slot = pr->n_slots;
  pr->slot[pr->n_slots] = (ni_slot_info){full.s, t.dtype, width, space, n->out};
  pr->state[pr->n_states++] = (ni_state_info){n->out, init, -1, pr->open_scan, pr->n_slots++};
  *value = n->out;
  return NEAP_OK;
fail:
  roll_back(pr, nodes, values, pr->n_slots);
  return rc;
}

neap_status ni_program_scan_next(neap_program *pr, int state, int next) {
  for (int i = 0; i < pr->n_states; i++) {
    ni_state_info *s = &pr->state[i];
    if (s->value != state) continue;
    const char *name = pr->node[pr->value[state].node].name;
    if (s->scan != pr->open_scan) return ni_fail(NEAP_ESTATE, "scan next: the scan is closed");
    if (next < 0 || next >= pr->n_values)
      return ni_fail(NEAP_EARG, "scan next: there is no value %d", next);
    int n_out, nodes = pr->n_nodes, values = pr->n_values;
    if (pr->value[next].type.space != pr->value[state].type.space) {
      neap_attr to = {"space", pr->value[state].type.space};
      neap_status rc = ni_program_add(&next, &n_out, pr, "spread", &next, 1, &to, 1);
      if (rc) return rc;
    }
    const neap_type *a = &pr->value[state].type, *b = &pr->value[next].type;
    bool same = a->dtype == b->dtype && a->rank == b->rank;
    for (int k = 0; same && k < a->rank; k++) same = a->dim[k] == b->dim[k];
    if (!same) {
      ni_fail(NEAP_ESHAPE, "state '%s' is %s, but the step makes it %s%s", name,
              ni_program_type_text(pr, a), ni_program_type_text(pr, b),
              ni_program_at(&pr->node[pr->value[next].node]));
      roll_back(pr, nodes, values, pr->n_slots);
      return NEAP_ESHAPE;
    }
    s->next = next;
    return NEAP_OK;
  }
  return ni_fail(NEAP_EARG, "scan next: value %d is not a state", state);
}

neap_status ni_program_scan_end(neap_program *pr) {
  if (pr->open_scan < 0) return ni_fail(NEAP_ESTATE, "scan end: no scan is open");
  for (int i = 0; i < pr->n_states; i++)
    if (pr->state[i].scan == pr->open_scan && pr->state[i].next < 0)
      return ni_fail(NEAP_ESTATE, "the step does not say what state '%s' becomes",
                     pr->node[pr->value[pr->state[i].value].node].name);
  pr->open_scan = -1;
  return NEAP_OK;
}

neap_status ni_program_output(neap_program *pr, const char *name, int value) {
  neap_status rc = check_name("output", name);
  if (!rc) rc = check_open(pr, "output");
  if (rc) return rc;
  if (value < 0 || value >= pr->n_values)
    return ni_fail(NEAP_EARG, "output: there is no value %d", value);
  if (ni_program_find_output(pr, name) >= 0)
    return ni_fail(NEAP_EARG, "output: the name '%s' is taken", name);
  if (pr->n_outputs >= NI_MAX_NAMED)
    return ni_fail(NEAP_ERANGE, "output: a program has at most %d outputs", NI_MAX_NAMED);
  const char *own = intern(pr, name);
  if (!own ||
      !ni_grow((void **)&pr->output, &pr->cap_outputs, (size_t)pr->n_outputs, sizeof *pr->output))
    return NEAP_EMEM;
  pr->output[pr->n_outputs].name = own;
  pr->output[pr->n_outputs++].value = value;
  return NEAP_OK;
}
