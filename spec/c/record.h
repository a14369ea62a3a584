/*
** For the C specs: two programs, recorded through neap.h, that between them have what files and
** the API must cope with. Recording stops at the first failure: its status stays in `rc`.
*/
#ifndef RECORD_H
#define RECORD_H

#include "check.h"

typedef struct recorder {
  neap_params *params;
  neap_program *pr;
  neap_status rc;
} recorder;

static inline void param(recorder *r, const char *name, size_t d0, size_t d1) {
  size_t dims[] = {d0, d1};
  int id;
  if (!r->rc) r->rc = neap_params_add(&id, r->params, name, d1 ? 2 : 1, dims);
  if (!r->rc) r->rc = neap_params_init(r->params, id, NEAP_INIT_UNIFORM, -0.8, 0.8, 7);
}

static inline int weight(recorder *r, const char *name) {
  int v = -1;
  if (!r->rc) r->rc = neap_program_param(&v, r->pr, name);
  return v;
}

static inline int number(recorder *r, double x) {
  int v = -1;
  if (!r->rc) r->rc = neap_program_constant(&v, r->pr, x);
  return v;
}

/* Up to six inputs, -2 ends them; one attribute. The first output. */
static inline int op_with(recorder *r, const char *name, const char *attr, double value, int a,
                          int b, int c, int d, int e, int f) {
  int in[] = {a, b, c, d, e, f}, n = 0, out[NEAP_MAX_OUTPUTS] = {-1}, n_out;
  while (n < 6 && in[n] > -2) n++;
  neap_attr with = {attr, value};
  if (!r->rc) r->rc = neap_program_add(out, &n_out, r->pr, name, in, n, &with, attr ? 1 : 0);
  return out[0];
}
#define OP1(r, name, a) op_with(r, name, NULL, 0, a, -2, -2, -2, -2, -2)
#define OP2(r, name, a, b) op_with(r, name, NULL, 0, a, b, -2, -2, -2, -2)
#define OP3(r, name, a, b, c) op_with(r, name, NULL, 0, a, b, c, -2, -2, -2)
#define OP4(r, name, a, b, c, d) op_with(r, name, NULL, 0, a, b, c, d, -2, -2)
#define OP5(r, name, a, b, c, d, e) op_with(r, name, NULL, 0, a, b, c, d, e, -2)
#define OP_AT(r, name, a, attr, value) op_with(r, name, attr, value, a, -2, -2, -2, -2, -2)

static inline int space(recorder *r, const char *name, int parent) {
  int s = -1;
  if (!r->rc) r->rc = neap_program_space(&s, r->pr, name, parent);
  return s;
}

static inline int input(recorder *r, const char *name, neap_dtype dtype, int in, int width) {
  neap_type t = {dtype, in, width > 0, {width}};
  int v = -1;
  if (!r->rc) r->rc = neap_program_input(&v, r->pr, name, &t);
  return v;
}

static inline int state(recorder *r, const char *name, neap_dtype dtype, int width, int init) {
  neap_type t = {dtype, 0, width > 0, {width}};
  int v = -1;
  if (!r->rc) r->rc = neap_program_scan_state(&v, r->pr, name, &t, init);
  return v;
}

static inline void next(recorder *r, int s, int to) {
  if (!r->rc) r->rc = neap_program_scan_next(r->pr, s, to);
}

static inline void output(recorder *r, const char *name, int v) {
  if (!r->rc) r->rc = neap_program_output(r->pr, name, v);
}

static inline void start(recorder *r, neap_params *p) {
  *r = (recorder){.params = p};
  r->rc = neap_program_new(&r->pr, p);
}

static inline neap_status done(recorder *r, neap_program **pr) {
  if (r->rc) neap_program_release(r->pr);
  *pr = r->rc ? NULL : r->pr;
  return r->rc;
}

/*
** x [T,B,3] -> lstm of 2 -> a cell of its own with a state h [2] and a counter n (i32):
** h' = tanh(y + U h / (1 + n)), n' = n + 1 -> y = W h' [T,B,2], n [T,B], loss = mean y^2.
** It can be streamed.
*/
static inline neap_status record_small(neap_program **pr, neap_params *p) {
  recorder r;
  start(&r, p);
  param(&r, "w_ih", 8, 3), param(&r, "w_hh", 8, 2), param(&r, "b", 8, 0);
  param(&r, "u", 2, 2), param(&r, "out", 2, 2);
  int t = space(&r, "T", 0), x = input(&r, "x", NEAP_F32, t, 3);
  if (!r.rc) r.rc = neap_program_where(r.pr, "small.lua:3", "net.lstm");
  int y = OP4(&r, "lstm", x, weight(&r, "w_ih"), weight(&r, "w_hh"), weight(&r, "b"));
  if (!r.rc) r.rc = neap_program_where(r.pr, "small.lua:9", "net.cell");
  if (!r.rc) r.rc = neap_program_scan_begin(r.pr, t);
  int h = state(&r, "h", NEAP_F32, 2, -1), n = state(&r, "n", NEAP_I32, 0, -1);
  int more = OP2(&r, "add", OP_AT(&r, "cast", n, "dtype", 0), number(&r, 1));
  int part = OP1(&r, "reciprocal", OP_AT(&r, "reshape", more, "rank", 1));
  int uh = OP2(&r, "mul", OP2(&r, "linear", h, weight(&r, "u")), part);
  int h1 = OP1(&r, "tanh", OP2(&r, "add", y, uh)), n1 = OP_AT(&r, "cast", more, "dtype", 1);
  next(&r, h, h1), next(&r, n, n1);
  if (!r.rc) r.rc = neap_program_scan_end(r.pr);
  int o = OP2(&r, "linear", h1, weight(&r, "out"));
  output(&r, "y", o), output(&r, "n", n1);
  return done(&r, pr);
}

/*
** Letters c (i32) [S,T,B] -> embedding -> gru -> last: words [T,B,2], reversed; a memory m [U,B,2];
** a decoder cell over D with first state from m's mean, which attends to both; dropout with a rate
** that may change; losses. It has nested spaces, and reads the future.
*/
static inline neap_status record_large(neap_program **pr, neap_params *p) {
  recorder r;
  start(&r, p);
  param(&r, "e", 5, 2), param(&r, "g_ih", 6, 2), param(&r, "g_hh", 6, 2), param(&r, "d", 2, 4);
  param(&r, "a", 2, 0), param(&r, "v", 5, 2), param(&r, "gain", 2, 0);
  int t = space(&r, "T", 0), s = space(&r, "S", t), u = space(&r, "U", 0), d = space(&r, "D", 0);
  int c = input(&r, "c", NEAP_I32, s, 0), m = input(&r, "m", NEAP_F32, u, 2);
  int ids = input(&r, "ids", NEAP_I32, d, 0), rate = -1;
  if (!r.rc) r.rc = neap_program_scalar(&rate, r.pr, "rate", 0.25);
  int letters = OP2(&r, "embedding", c, weight(&r, "e"));
  int words = OP1(&r, "last", OP3(&r, "gru", letters, weight(&r, "g_ih"), weight(&r, "g_hh")));
  words = OP2(&r, "dropout", OP1(&r, "reverse", words), rate);
  words = OP3(&r, "layer_norm", words, weight(&r, "gain"), weight(&r, "a"));
  int first = OP1(&r, "mean_time", m);
  if (!r.rc) r.rc = neap_program_scan_begin(r.pr, d);
  int h = state(&r, "h", NEAP_F32, 2, first);
  int c1 = OP4(&r, "attend_additive", h, words, words, weight(&r, "a"));
  int c2 = OP3(&r, "attend_dot", h, m, m);
  int seen = OP2(&r, "embedding", ids, weight(&r, "e"));
  int both = op_with(&r, "concat", "axis", 0, OP2(&r, "add", c1, seen), c2, -2, -2, -2, -2);
  int h1 = OP1(&r, "tanh", OP2(&r, "linear", both, weight(&r, "d")));
  next(&r, h, h1);
  if (!r.rc) r.rc = neap_program_scan_end(r.pr);
  int logits = OP2(&r, "linear", h1, weight(&r, "v"));
  output(&r, "best", OP1(&r, "argmax", logits));
  output(&r, "padded", OP1(&r, "padded", logits));
  output(&r, "loss", OP1(&r, "mean_rows", OP2(&r, "cross_entropy", logits, ids)));
  return done(&r, pr);
}

/* The inputs of either program for two rows, of lengths 2 and 1 everywhere. */
static inline neap_status feed_any(neap_run *run, neap_program *pr) {
  static const float numbers[64] = {0.5f, -1, 0.25f, 1, 2, -0.5f, 0.75f, 0.125f, -2};
  static const int32_t ids[64] = {1, 0, 2, 3, 1}, lengths[16] = {2, 1, 2, 1, 1, 2, 1, 1};
  neap_status rc = neap_run_batch(run, 2);
  for (int i = 1; !rc && i < neap_program_spaces(pr); i++) {
    size_t rows = neap_run_rows(run, neap_program_space_parent(pr, i));
    rc = neap_run_lengths(run, i, lengths, rows);
  }
  const char *name;
  int v;
  for (int i = 0; !rc && (name = neap_program_input_name(pr, i, &v)) != NULL; i++) {
    neap_type t;
    size_t n;
    rc = neap_program_type(&t, pr, v);
    if (!rc) rc = neap_run_count(&n, run, v, NEAP_CONCAT);
    if (rc || (t.space == NEAP_NO_SPACE && t.rank == 0)) continue;
    if (n > 64) return NEAP_ERANGE;
    rc = t.dtype == NEAP_F32 ? neap_run_input_f32(run, v, NEAP_CONCAT, numbers, n)
                             : neap_run_input_i32(run, v, NEAP_CONCAT, ids, n);
  }
  return rc;
}

#endif
