/*
** Programs as text: a listing for people, and the JSON that files carry. A parsed program is
** recorded anew, node by node, so a hostile file meets the same checks as a wrong script.
*/
#include <stdio.h>
#include <string.h>

#include "../base/json.h"
#include "program.h"

static neap_status finish(char **text, ni_text *t) {
  *text = NULL;
  if (t->failed) {
    ni_text_free(t);
    return NEAP_EMEM;
  }
  *text = t->s;
  return NEAP_OK;
}

/* The names of an op's attributes, one after the other: false past the last. */
static bool attr_name(const ni_op *op, int index, char name[24]) {
  const char *p = op->attrs;
  for (; *p; index--) {
    size_t n = strcspn(p, " =");
    if (index == 0) {
      n = n < 23 ? n : 23;
      memcpy(name, p, n);
      name[n] = 0;
      return true;
    }
    p += strcspn(p, " ");
    p += strspn(p, " ");
  }
  return false;
}

neap_status ni_program_print(char **text, const neap_program *pr) {
  ni_text t = {0};
  for (int i = 0; i < pr->n_nodes; i++) {
    const ni_node *n = &pr->node[i];
    ni_text_add(&t, "%s%%%d", n->scan >= 0 ? "  " : "", n->out);
    for (int k = 1; k < n->n_out; k++) ni_text_add(&t, ", %%%d", n->out + k);
    ni_text_add(&t, " = %s", n->op->name);
    if (n->name) ni_text_add(&t, " '%s'", n->name);
    if (n->op == &ni_op_constant || n->op == &ni_op_scalar) {
      ni_text_add(&t, " ");
      ni_text_number(&t, n->attr[0]);
    }
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k] >= 0) ni_text_add(&t, " %%%d", n->in[k]);
    char name[24];
    for (int k = 0; attr_name(n->op, k, name); k++) {
      ni_text_add(&t, " %s=", name);
      ni_text_number(&t, n->attr[k]);
    }
    ni_text_add(&t, "  %s", ni_program_type_text(pr, &pr->value[n->out].type));
    for (int k = 1; k < n->n_out; k++)
      ni_text_add(&t, ", %s", ni_program_type_text(pr, &pr->value[n->out + k].type));
    if (n->layer && n->layer[0]) ni_text_add(&t, "  layer %s", n->layer);
    if (n->line) ni_text_add(&t, "  %s", n->line);
    ni_text_add(&t, "\n");
    for (int s = 0; s < pr->n_states; s++)
      if (pr->state[s].value == n->out && n->op == &ni_op_state)
        ni_text_add(&t, "    next %%%d\n", pr->state[s].next);
  }
  for (int i = 0; i < pr->n_outputs; i++)
    ni_text_add(&t, "output '%s' %%%d\n", pr->output[i].name, pr->output[i].value);
  return finish(text, &t);
}

neap_status ni_program_json(char **text, const neap_program *pr) {
  ni_text t = {0};
  ni_text_add(&t, "{\"neap\":1,\"spaces\":[");
  for (int i = 1; i < pr->n_spaces; i++) {
    ni_text_add(&t, "%s{\"name\":", i > 1 ? "," : "");
    ni_text_json(&t, pr->space[i].name);
    ni_text_add(&t, ",\"parent\":%d", pr->space[i].parent);
    if (pr->space[i].factor > 1)
      ni_text_add(&t, ",\"of\":%d,\"factor\":%d", pr->space[i].of, pr->space[i].factor);
    ni_text_add(&t, "}");
  }
  ni_text_add(&t, "],\"nodes\":[");
  for (int i = 0; i < pr->n_nodes; i++) {
    const ni_node *n = &pr->node[i];
    ni_text_add(&t, "%s\n{\"op\":\"%s\"", i ? "," : "", n->op->name);
    if (n->name) {
      ni_text_add(&t, ",\"name\":");
      ni_text_json(&t, n->name);
    }
    if (n->op == &ni_op_input || n->op == &ni_op_state) {
      const neap_type *y = &pr->value[n->out].type;
      ni_text_add(&t, ",\"dtype\":\"%s\",\"space\":%d,\"dims\":[",
                  y->dtype == NEAP_F32 ? "f32" : "i32", y->space);
      for (int k = 0; k < y->rank; k++) ni_text_add(&t, "%s%d", k ? "," : "", (int)y->dim[k]);
      ni_text_add(&t, "]");
    }
    if (n->op == &ni_op_constant || n->op == &ni_op_scalar) {
      ni_text_add(&t, ",\"number\":");
      ni_text_number(&t, n->attr[0]);
    }
    if (n->n_in) {
      ni_text_add(&t, ",\"in\":[");
      for (int k = 0; k < n->n_in; k++) ni_text_add(&t, "%s%d", k ? "," : "", n->in[k]);
      ni_text_add(&t, "]");
    }
    char name[24];
    for (int k = 0; attr_name(n->op, k, name); k++) {
      ni_text_add(&t, "%s\"%s\":", k ? "," : ",\"attr\":{", name);
      ni_text_number(&t, n->attr[k]);
    }
    if (attr_name(n->op, 0, name)) ni_text_add(&t, "}");
    if (n->scan >= 0) ni_text_add(&t, ",\"scan\":%d", n->scan);
    if (n->line) {
      ni_text_add(&t, ",\"line\":");
      ni_text_json(&t, n->line);
    }
    if (n->layer) {
      ni_text_add(&t, ",\"layer\":");
      ni_text_json(&t, n->layer);
    }
    ni_text_add(&t, "}");
  }
  ni_text_add(&t, "],\"scans\":[");
  for (int i = 0; i < pr->n_scans; i++) {
    bool first = true;
    ni_text_add(&t, "%s{\"space\":%d,\"next\":[", i ? "," : "", pr->scan[i].space);
    for (int s = 0; s < pr->n_states; s++)
      if (pr->state[s].scan == i) {
        ni_text_add(&t, "%s%d,%d", first ? "" : ",", pr->state[s].value, pr->state[s].next);
        first = false;
      }
    ni_text_add(&t, "]}");
  }
  ni_text_add(&t, "],\"outputs\":[");
  for (int i = 0; i < pr->n_outputs; i++) {
    ni_text_add(&t, "%s{\"name\":", i ? "," : "");
    ni_text_json(&t, pr->output[i].name);
    ni_text_add(&t, ",\"value\":%d}", pr->output[i].value);
  }
  ni_text_add(&t, "]}");
  return finish(text, &t);
}

/* ---- reading ---- */

static neap_status want_int(int *out, const ni_json *doc, int object, const char *key, int min,
                            int max) {
  int v = ni_json_find(doc, object, key);
  int64_t x;
  if (v < 0) return ni_fail(NEAP_EFORMAT, "program: '%s' is missing at byte %zu", key,
                            ni_json_byte(doc, object));
  neap_status rc = ni_json_integer(&x, doc, v, min, max);
  if (!rc) *out = (int)x;
  return rc;
}

static neap_status want_text(const char **out, const ni_json *doc, int object, const char *key) {
  int v = ni_json_find(doc, object, key);
  *out = v < 0 ? NULL : ni_json_string(doc, v);
  if (*out) return NEAP_OK;
  return ni_fail(NEAP_EFORMAT, "program: expected a text '%s' at byte %zu", key,
                 ni_json_byte(doc, object));
}

static neap_status want_list(int *out, const ni_json *doc, int object, const char *key) {
  *out = ni_json_find(doc, object, key);
  if (*out >= 0 && ni_json_kind_of(doc, *out) == NI_JSON_ARRAY) return NEAP_OK;
  return ni_fail(NEAP_EFORMAT, "program: expected a list '%s' at byte %zu", key,
                 ni_json_byte(doc, object));
}

static neap_status read_type(neap_type *t, const ni_json *doc, int v) {
  const char *dtype;
  int dims;
  memset(t, 0, sizeof *t);
  neap_status rc = want_text(&dtype, doc, v, "dtype");
  if (!rc) rc = want_int(&t->space, doc, v, "space", -1, NEAP_MAX_SPACES - 1);
  if (!rc) rc = want_list(&dims, doc, v, "dims");
  if (rc) return rc;
  if (strcmp(dtype, "f32") != 0 && strcmp(dtype, "i32") != 0)
    return ni_fail(NEAP_EFORMAT, "program: unknown dtype '%s'", dtype);
  t->dtype = dtype[0] == 'f' ? NEAP_F32 : NEAP_I32;
  if (ni_json_size(doc, dims) > NEAP_MAX_FEATURES)
    return ni_fail(NEAP_EFORMAT, "program: more than %d dimensions", NEAP_MAX_FEATURES);
  for (int e = ni_json_first(doc, dims); e >= 0; e = ni_json_next(doc, e)) {
    int64_t d;
    if ((rc = ni_json_integer(&d, doc, e, -NEAP_MAX_SPACES, 0x7fffffff)) != NEAP_OK) return rc;
    t->dim[t->rank++] = (int32_t)d;
  }
  return NEAP_OK;
}

static neap_status close_scan(neap_program *pr, const ni_json *doc, int scans) {
  int at = ni_json_first(doc, scans);
  for (int i = 0; i < pr->open_scan && at >= 0; i++) at = ni_json_next(doc, at);
  int next;
  neap_status rc = at < 0 ? ni_fail(NEAP_EFORMAT, "program: scan %d is missing", pr->open_scan)
                          : want_list(&next, doc, at, "next");
  if (rc) return rc;
  for (int e = ni_json_first(doc, next); e >= 0; e = ni_json_next(doc, e)) {
    int64_t state, to;
    if ((rc = ni_json_integer(&state, doc, e, 0, 0x7fffffff)) != NEAP_OK) return rc;
    if ((e = ni_json_next(doc, e)) < 0)
      return ni_fail(NEAP_EFORMAT, "program: a scan's states come in pairs");
    if ((rc = ni_json_integer(&to, doc, e, 0, 0x7fffffff)) != NEAP_OK) return rc;
    int nodes = pr->n_nodes;
    if ((rc = ni_program_scan_next(pr, (int)state, (int)to)) != NEAP_OK) return rc;
    if (pr->n_nodes != nodes)
      return ni_fail(NEAP_EFORMAT, "program: the next value of a state is in another space");
  }
  return ni_program_scan_end(pr);
}

static neap_status read_node(neap_program *pr, const ni_json *doc, int v, int scans) {
  const char *op, *name = NULL, *line = NULL, *layer = NULL;
  neap_status rc = want_text(&op, doc, v, "op");
  if (rc) return rc;
  int at;
  if ((at = ni_json_find(doc, v, "name")) >= 0) name = ni_json_string(doc, at);
  if ((at = ni_json_find(doc, v, "line")) >= 0) line = ni_json_string(doc, at);
  if ((at = ni_json_find(doc, v, "layer")) >= 0) layer = ni_json_string(doc, at);
  if ((rc = ni_program_where(pr, line, layer)) != NEAP_OK) return rc;
  if (strcmp(op, "param") == 0) { /* belongs to no step, wherever it was first named */
    int value, nodes = pr->n_nodes;
    rc = ni_program_param(&value, pr, name ? name : "");
    if (!rc && pr->n_nodes != nodes + 1)
      rc = ni_fail(NEAP_EFORMAT, "program: parameter '%s' stands twice", name);
    return rc;
  }
  if (strcmp(op, "scalar") == 0) { /* nor does a number of the run */
    double number;
    int value;
    if ((at = ni_json_find(doc, v, "number")) < 0)
      return ni_fail(NEAP_EFORMAT, "program: a number is missing at byte %zu", ni_json_byte(doc, v));
    rc = ni_json_double(&number, doc, at);
    return rc ? rc : ni_program_scalar(&value, pr, name, number);
  }
  int scan = -1;
  if (ni_json_find(doc, v, "scan") >= 0 &&
      (rc = want_int(&scan, doc, v, "scan", 0, pr->n_scans)) != NEAP_OK)
    return rc;
  if (scan != pr->open_scan) {
    if (pr->open_scan >= 0 && (rc = close_scan(pr, doc, scans)) != NEAP_OK) return rc;
    if (scan >= 0) {
      int list = ni_json_first(doc, scans), space;
      for (int i = 0; i < scan && list >= 0; i++) list = ni_json_next(doc, list);
      if (scan != pr->n_scans || list < 0)
        return ni_fail(NEAP_EFORMAT, "program: scan %d is missing or torn", scan);
      rc = want_int(&space, doc, list, "space", 1, NEAP_MAX_SPACES - 1);
      if (!rc) rc = ni_program_scan_begin(pr, space);
      if (rc) return rc;
    }
  }
  int in[NEAP_MAX_INPUTS], n_in = 0, value;
  if ((at = ni_json_find(doc, v, "in")) >= 0) {
    if (ni_json_kind_of(doc, at) != NI_JSON_ARRAY || ni_json_size(doc, at) > NEAP_MAX_INPUTS)
      return ni_fail(NEAP_EFORMAT, "program: expected a list of at most %d inputs at byte %zu",
                     NEAP_MAX_INPUTS, ni_json_byte(doc, at));
    for (int e = ni_json_first(doc, at); e >= 0; e = ni_json_next(doc, e)) {
      int64_t x;
      if ((rc = ni_json_integer(&x, doc, e, -1, pr->n_values - 1)) != NEAP_OK) return rc;
      in[n_in++] = (int)x;
    }
  }
  if (strcmp(op, "input") == 0 || strcmp(op, "state") == 0) {
    neap_type t;
    if ((rc = read_type(&t, doc, v)) != NEAP_OK) return rc;
    if (op[0] == 'i') return ni_program_input(&value, pr, name, &t);
    int nodes = pr->n_nodes;
    rc = ni_program_scan_state(&value, pr, name, &t, n_in ? in[0] : -1);
    if (!rc && pr->n_nodes != nodes + 1)
      rc = ni_fail(NEAP_EFORMAT, "program: the first value of state '%s' is in another space",
                   name ? name : "");
    return rc;
  }
  if (strcmp(op, "constant") == 0) {
    double number;
    if ((at = ni_json_find(doc, v, "number")) < 0)
      return ni_fail(NEAP_EFORMAT, "program: a number is missing at byte %zu", ni_json_byte(doc, v));
    if ((rc = ni_json_double(&number, doc, at)) != NEAP_OK) return rc;
    return ni_program_constant(&value, pr, number);
  }
  neap_attr attr[NI_MAX_ATTRS];
  int n_attr = 0;
  if ((at = ni_json_find(doc, v, "attr")) >= 0)
    for (int k = ni_json_first(doc, at); k >= 0; k = ni_json_next(doc, k)) {
      if (n_attr == NI_MAX_ATTRS || ni_json_kind_of(doc, at) != NI_JSON_OBJECT)
        return ni_fail(NEAP_EFORMAT, "program: bad options at byte %zu", ni_json_byte(doc, at));
      attr[n_attr].name = ni_json_string(doc, k);
      if ((rc = ni_json_double(&attr[n_attr++].value, doc, k + 1)) != NEAP_OK) return rc;
    }
  int nodes = pr->n_nodes;
  rc = ni_program_add(NULL, NULL, pr, op, in, n_in, attr, n_attr);
  if (!rc && pr->n_nodes != nodes + 1)
    rc = ni_fail(NEAP_EFORMAT, "program: the inputs of %s are in different spaces", op);
  return rc;
}

neap_status ni_program_parse(neap_program **out, neap_params *params, const char *text, size_t n) {
  ni_json doc = {0};
  neap_program *pr = NULL;
  int list, scans, version;
  *out = NULL;
  neap_status rc = ni_json_parse(&doc, text, n, 4000000);
  if (rc) return rc;
  if (!rc) rc = want_int(&version, &doc, 0, "neap", 1, 1);
  if (!rc) rc = ni_program_new(&pr, params);
  if (!rc) rc = want_list(&list, &doc, 0, "spaces");
  for (int e = rc ? -1 : ni_json_first(&doc, list); e >= 0 && !rc; e = ni_json_next(&doc, e)) {
    const char *name;
    int parent, space, of, factor;
    bool folded = ni_json_find(&doc, e, "of") >= 0;
    rc = want_text(&name, &doc, e, "name");
    if (!rc) rc = want_int(&parent, &doc, e, "parent", 0, NEAP_MAX_SPACES - 1);
    int before = rc ? 0 : pr->n_spaces;
    if (!rc && folded) rc = want_int(&of, &doc, e, "of", 1, NEAP_MAX_SPACES - 1);
    if (!rc && folded) rc = want_int(&factor, &doc, e, "factor", 2, NI_MAX_FOLD);
    if (!rc && folded) rc = ni_program_folded(&space, pr, of, factor);
    if (!rc && folded && (strcmp(pr->space[space].name, name) != 0 ||
                          pr->space[space].parent != parent))
      rc = ni_fail(NEAP_EFORMAT, "space '%s' would be '%s' over another parent or name", name,
                   pr->space[space].name);
    if (!rc && !folded) rc = ni_program_space(&space, pr, name, parent);
    if (!rc && space != before) rc = ni_fail(NEAP_EFORMAT, "space '%s' stands twice", name);
  }
  if (!rc) rc = want_list(&scans, &doc, 0, "scans");
  if (!rc) rc = want_list(&list, &doc, 0, "nodes");
  for (int e = rc ? -1 : ni_json_first(&doc, list); e >= 0 && !rc; e = ni_json_next(&doc, e))
    rc = read_node(pr, &doc, e, scans);
  if (!rc && pr->open_scan >= 0) rc = close_scan(pr, &doc, scans);
  if (!rc) rc = want_list(&list, &doc, 0, "outputs");
  for (int e = rc ? -1 : ni_json_first(&doc, list); e >= 0 && !rc; e = ni_json_next(&doc, e)) {
    const char *name;
    int value;
    rc = want_text(&name, &doc, e, "name");
    if (!rc) rc = want_int(&value, &doc, e, "value", 0, pr->n_values - 1);
    if (!rc) rc = ni_program_output(pr, name, value);
  }
  if (!rc) ni_program_where(pr, NULL, NULL);
  ni_json_free(&doc);
  if (rc) {
    ni_program_release(pr);
    return rc == NEAP_EMEM ? rc : ni_fail_before(NEAP_EFORMAT, "program");
  }
  *out = pr;
  return NEAP_OK;
}

/* ---- comparing ---- */

static bool same_text(const char *a, const char *b) {
  return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_node(const neap_program *a, const ni_node *m, const neap_program *b,
                      const ni_node *n) {
  if (m->op != n->op || m->n_in != n->n_in || m->scan != n->scan || !same_text(m->name, n->name))
    return false;
  for (int k = 0; k < m->n_in; k++)
    if (m->in[k] != n->in[k]) return false;
  for (int k = 0; k < NI_MAX_ATTRS; k++)
    if (m->attr[k] != n->attr[k]) return false;
  const neap_type *s = &a->value[m->out].type, *t = &b->value[n->out].type;
  if (s->dtype != t->dtype || s->space != t->space || s->rank != t->rank) return false;
  for (int k = 0; k < s->rank; k++)
    if (s->dim[k] != t->dim[k]) return false;
  return true;
}

/* "tanh at file.lua:3", "constant 2 at ..", "input x at .."; NULL: nothing. */
static void describe(char *to, size_t size, const ni_node *n) {
  const char *line = n && n->line ? n->line : "its end";
  if (n && n->op == &ni_op_constant)
    snprintf(to, size, "constant %.9g at %.80s", n->attr[0], line);
  else
    snprintf(to, size, "%s%s%.40s at %.80s", n ? n->op->name : "nothing", n && n->name ? " " : "",
             n && n->name ? n->name : "", line);
}

static const char *difference(const char *what, const char *name, const ni_node *m,
                              const ni_node *n) {
  static _Thread_local char text[480];
  char first[160], second[160];
  describe(first, sizeof first, m);
  describe(second, sizeof second, n);
  snprintf(text, sizeof text, "%s%.40s%s%s the first time, %s%s the second time", what, name,
           name[0] ? "' is " : "", first, second,
           strcmp(first, second) == 0 ? ", of other values or with other options," : "");
  return text;
}

const char *ni_program_differ(const neap_program *a, const neap_program *b) {
  const ni_node *m = NULL, *o = NULL;
  int at = 0, most = a->n_nodes > b->n_nodes ? a->n_nodes : b->n_nodes;
  for (; at < most; at++) {
    m = at < a->n_nodes ? &a->node[at] : NULL;
    o = at < b->n_nodes ? &b->node[at] : NULL;
    if (!m || !o || !same_node(a, m, b, o)) break;
  }
  /* nodes after a loop differ if a state does: the state is what the script got wrong */
  for (int i = 0; i < a->n_states && i < b->n_states; i++) {
    int p = a->state[i].next, q = b->state[i].next;
    if (p == q || p < 0 || q < 0) continue;
    int first = a->value[p].node, second = b->value[q].node;
    if (first < at && second < at)
      return difference("the next state '", a->node[a->value[a->state[i].value].node].name,
                        &a->node[first], &b->node[second]);
  }
  if (at < most) return difference("", "", m, o);
  for (int i = 0; i < a->n_outputs && i < b->n_outputs; i++)
    if (a->output[i].value != b->output[i].value || !same_text(a->output[i].name, b->output[i].name))
      return difference("output '", a->output[i].name, &a->node[a->value[a->output[i].value].node],
                        &b->node[b->value[b->output[i].value].node]);
  return a->n_outputs == b->n_outputs ? NULL : "one has more outputs than the other";
}
