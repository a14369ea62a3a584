/*
** Pools, runs and streams.
*/
#include <signal.h>
#include <string.h>

#include "core.h"

static void release_pool(void *p) { neap_pool_release(p); }
static void release_run(void *p) { neap_run_close(p); }
static void release_stream(void *p) { neap_stream_close(p); }

const nb_type nb_pool_type = {"neap.pool", "pool", release_pool};
static const nb_type run_type = {"neap.run", "run", release_run};
static const nb_type stream_type = {"neap.stream", "stream", release_stream};

/* The run that a Ctrl-C should end; set while C computes. */
static neap_run *volatile running;
static volatile sig_atomic_t interrupted;
static void cancel_running(void) {
  neap_run *run = running;
  interrupted = run != NULL;
  if (run) neap_run_cancel(run);
}
/* neap.line calls cancel from its signal handler and fills in raise, which is called with the
** place on top of the stack. */
static struct {
  void (*cancel)(void);
  void (*raise)(lua_State *L);
} cancel_hook = {cancel_running, NULL};

static void compute_begin(neap_run *run) {
  interrupted = 0;
  running = run;
}

/* A run that Ctrl-C has ended raises what Ctrl-C raises elsewhere, so that it is raised once. */
static void compute_end(lua_State *L, neap_status rc) {
  running = NULL;
  if (rc == NEAP_ECANCELED && interrupted && cancel_hook.raise) {
    nb_where(L);
    cancel_hook.raise(L);
  }
  nb_check(L, rc);
}

static int pool_new(lua_State *L) {
  lua_Integer threads = nb_integer_in(L, 1, 1, 1024);
  void **box = nb_box(L, &nb_pool_type);
  neap_pool *p;
  nb_check(L, neap_pool_new(&p, (int)threads));
  *box = p;
  return 1;
}

static int pool_threads(lua_State *L) {
  lua_pushinteger(L, neap_pool_threads(nb_object(L, 1, &nb_pool_type)));
  return 1;
}

/* ---- runs ---- */

static neap_run *run_of(lua_State *L, int arg) { return nb_object(L, arg, &run_type); }

/* A box of its own for the program at 1, which the run or stream keeps: no script can close it. */
static void push_program(lua_State *L) {
  void **box = nb_box(L, &nb_program_type);
  neap_program *pr = nb_program(L, 1);
  neap_program_retain(pr);
  *box = pr;
}

/* run(program, {learn=, double=, check=, tell=, recompute=, pool=, seed=, max_rows=}) */
static int run_new(lua_State *L) {
  static const char *const names[] = {"learn", "double", "check",    "tell", "recompute",
                                      "pool",  "seed",   "max_rows", NULL};
  neap_run_options o = {0};
  nb_program(L, 1);
  nb_options(L, 2, "run", names);
  if (lua_istable(L, 2)) {
    if (nb_option_boolean(L, 2, "run", "learn", false)) o.flags |= NEAP_LEARN;
    if (nb_option_boolean(L, 2, "run", "double", false)) o.flags |= NEAP_DOUBLE;
    if (nb_option_boolean(L, 2, "run", "check", false)) o.flags |= NEAP_CHECK;
    if (nb_option_boolean(L, 2, "run", "tell", false)) o.flags |= NEAP_TELL;
    if (nb_option_boolean(L, 2, "run", "recompute", false)) o.flags |= NEAP_RECOMPUTE;
    o.seed = (uint64_t)nb_option_integer(L, 2, "run", "seed", 0);
    lua_Integer rows = nb_option_integer(L, 2, "run", "max_rows", 0);
    if (rows < 0) return nb_raise(L, "run: option max_rows: expected 0 or more");
    o.max_rows = (size_t)rows;
    lua_settop(L, 2);
    if (lua_getfield(L, 2, "pool") != LUA_TNIL && !luaL_testudata(L, 3, nb_pool_type.name))
      return nb_raise(L, "run: option pool: expected a pool, came %s", nb_push_came(L, 3));
  }
  void **box = nb_box(L, &run_type);
  push_program(L);
  if (lua_istable(L, 2)) o.pool = nb_object_or_null(L, 3, &nb_pool_type);
  size_t before = neap_memory_live();
  neap_run *run;
  nb_check(L, neap_run_open(&run, nb_program(L, 1), &o));
  *box = run;
  lua_setiuservalue(L, -2, 1);
  nb_outside_since(L, before);
  return 1;
}

static int run_batch(lua_State *L) {
  nb_check(L, neap_run_batch(run_of(L, 1), (size_t)nb_integer_in(L, 2, 0, 0x7fffffff)));
  return 0;
}

static int run_lengths(lua_State *L) {
  neap_tensor *t = nb_tensor_of(L, 3, NEAP_I32);
  nb_check(L, neap_run_lengths(run_of(L, 1), nb_id(L, 2), neap_tensor_data(t),
                               neap_tensor_size(t)));
  return 0;
}

static neap_layout layout_of(lua_State *L, int arg) {
  static const char *const names[] = {"padded", "concat", NULL};
  return (neap_layout)nb_choice(L, arg, "padded", names);
}

static int run_input(lua_State *L) {
  neap_run *run = run_of(L, 1);
  int value = nb_id(L, 2);
  neap_tensor *t = nb_tensor(L, 3);
  neap_layout layout = layout_of(L, 4);
  size_t before = neap_memory_live(); /* the first input of new shapes plans them */
  if (neap_tensor_dtype(t) == NEAP_F32)
    nb_check(L, neap_run_input_f32(run, value, layout, neap_tensor_data(t), neap_tensor_size(t)));
  else
    nb_check(L, neap_run_input_i32(run, value, layout, neap_tensor_data(t), neap_tensor_size(t)));
  nb_outside_since(L, before);
  return 0;
}

static int run_scalar(lua_State *L) {
  nb_check(L, neap_run_scalar(run_of(L, 1), nb_id(L, 2), nb_number(L, 3)));
  return 0;
}

static int run_state(lua_State *L) {
  nb_check(L, neap_run_state(run_of(L, 1), nb_state_or_null(L, 2)));
  return 0;
}

/* seed(seed, drawn = 0) */
static int run_seed(lua_State *L) {
  neap_run_seed(run_of(L, 1), (uint64_t)nb_integer(L, 2), (uint64_t)nb_integer_or(L, 3, 0));
  return 0;
}

/* drawn() -> seed, forwards since */
static int run_drawn(lua_State *L) {
  uint64_t seed, drawn = neap_run_drawn(run_of(L, 1), &seed);
  lua_pushinteger(L, (lua_Integer)seed);
  lua_pushinteger(L, (lua_Integer)drawn);
  return 2;
}

static int run_learning(lua_State *L) {
  neap_run_learning(run_of(L, 1), lua_toboolean(L, 2));
  return 0;
}

static int run_forward(lua_State *L) {
  neap_run *run = run_of(L, 1);
  size_t before = neap_memory_live(); /* nothing was planned yet if nothing is read */
  compute_begin(run);
  compute_end(L, neap_run_forward(run));
  nb_outside_since(L, before);
  return 0;
}

static int run_backward(lua_State *L) {
  neap_run *run = run_of(L, 1);
  int value = nb_id(L, 2);
  if (lua_isnoneornil(L, 3)) {
    compute_begin(run);
    compute_end(L, neap_run_backward(run, value));
  } else {
    neap_tensor *t = nb_tensor_of(L, 3, NEAP_F32);
    neap_layout layout = layout_of(L, 4);
    compute_begin(run);
    compute_end(L, neap_run_backward_from(run, value, layout, neap_tensor_data(t),
                                          neap_tensor_size(t)));
  }
  return 0;
}

static int run_find_nonfinite(lua_State *L) {
  neap_run *run = run_of(L, 1);
  int value = nb_id(L, 2);
  compute_begin(run);
  neap_status rc = neap_run_find_nonfinite(run, value);
  compute_end(L, rc == NEAP_ECANCELED ? rc : NEAP_OK);
  if (rc != NEAP_ENONFINITE) return 0;
  lua_pushstring(L, neap_errmsg());
  return 1;
}

static int run_keep(lua_State *L) {
  nb_check(L, neap_run_keep(run_of(L, 1), nb_id(L, 2), lua_toboolean(L, 3)));
  return 0;
}

/* Pushes a tensor shaped like a value at the border: [T,B,..], or [rows,..] when concatenated. */
static neap_tensor *border(lua_State *L, int value, neap_layout layout) {
  neap_run *run = run_of(L, 1);
  lua_getiuservalue(L, 1, 1);
  neap_program *pr = nb_program(L, -1);
  neap_type t;
  nb_check(L, neap_program_type(&t, pr, value));
  size_t count, dims[NEAP_MAX_FEATURES + 2];
  nb_check(L, neap_run_count(&count, run, value, layout));
  int rank = 0;
  if (t.space > 0 && layout == NEAP_PADDED) {
    dims[rank++] = neap_run_steps(run, t.space);
    dims[rank++] = neap_run_rows(run, neap_program_space_parent(pr, t.space));
  } else if (t.space >= 0) {
    dims[rank++] = neap_run_rows(run, t.space);
  }
  for (int i = 0; i < t.rank; i++)
    dims[rank++] = t.dim[i] >= 0 ? (size_t)t.dim[i] : neap_run_steps(run, -1 - t.dim[i]);
  if (rank > NEAP_MAX_RANK) { /* the last two become one */
    dims[rank - 2] *= dims[rank - 1];
    rank--;
  }
  return nb_tensor_new(L, t.dtype, rank, dims);
}

static int run_read(lua_State *L) {
  run_of(L, 1);
  int value = nb_id(L, 2);
  neap_layout layout = layout_of(L, 3);
  neap_tensor *t = border(L, value, layout);
  neap_run *run = run_of(L, 1);
  if (neap_tensor_dtype(t) == NEAP_F32)
    nb_check(L, neap_run_read_f32(run, value, layout, neap_tensor_data(t), neap_tensor_size(t)));
  else
    nb_check(L, neap_run_read_i32(run, value, layout, neap_tensor_data(t), neap_tensor_size(t)));
  return 1;
}

static int run_grad(lua_State *L) {
  run_of(L, 1);
  int value = nb_id(L, 2);
  neap_layout layout = layout_of(L, 3);
  neap_tensor *t = border(L, value, layout);
  nb_check(L, neap_run_grad_f32(run_of(L, 1), value, layout, neap_tensor_data(t),
                                neap_tensor_size(t)));
  return 1;
}

/* item(value) -> the number of a value that has one */
static int run_item(lua_State *L) {
  neap_run *run = run_of(L, 1);
  int value = nb_id(L, 2);
  size_t n;
  double x;
  nb_check(L, neap_run_count(&n, run, value, NEAP_PADDED));
  if (n != 1) return nb_raise(L, "item: expected a single number, the value has %I", (LUAI_UACINT)n);
  nb_check(L, neap_run_read_f64(run, value, NEAP_PADDED, &x, 1));
  lua_pushnumber(L, x);
  return 1;
}

static int push_doubles(lua_State *L, const double *x, size_t n) {
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    lua_pushnumber(L, x[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* read_doubles(value, layout) -> flat table */
static int run_read_doubles(lua_State *L) {
  neap_run *run = run_of(L, 1);
  int value = nb_id(L, 2);
  neap_layout layout = layout_of(L, 3);
  size_t n;
  nb_check(L, neap_run_count(&n, run, value, layout));
  double *x = lua_newuserdatauv(L, (n + 1) * sizeof *x, 0);
  nb_check(L, neap_run_read_f64(run_of(L, 1), value, layout, x, n));
  return push_doubles(L, x, n);
}

static int param_id(lua_State *L) {
  lua_getiuservalue(L, 1, 1);
  const neap_params *p = neap_program_params(nb_program(L, -1));
  lua_pop(L, 1);
  int id = neap_params_find(p, nb_string(L, 2, NULL));
  if (id < 0) nb_raise(L, "there is no parameter '%s'", lua_tostring(L, 2));
  return id;
}

/* param_grad(name) -> flat table, of a double run */
static int run_param_grad(lua_State *L) {
  run_of(L, 1);
  int id = param_id(L);
  lua_getiuservalue(L, 1, 1);
  const neap_params *p = neap_program_params(nb_program(L, -1));
  size_t n = 1;
  for (int i = 0; i < neap_params_rank(p, id); i++) n *= neap_params_dim(p, id, i);
  double *x = lua_newuserdatauv(L, (n + 1) * sizeof *x, 0);
  nb_check(L, neap_run_param_grad_f64(run_of(L, 1), id, x, n));
  return push_doubles(L, x, n);
}

/* param_shift(name, element from 1, shift) */
static int run_param_shift(lua_State *L) {
  neap_run *run = run_of(L, 1);
  int id = param_id(L);
  nb_check(L, neap_run_param_shift_f64(run, id, (size_t)nb_integer_in(L, 3, 1, 0x7fffffff) - 1,
                                       nb_number(L, 4)));
  return 0;
}

static int run_plan(lua_State *L) {
  size_t bytes;
  nb_check(L, neap_run_plan(&bytes, run_of(L, 1)));
  lua_pushinteger(L, (lua_Integer)bytes);
  return 1;
}

/* whole() -> what needs whole sequences in a run that recomputes; nil: nothing */
static int run_whole(lua_State *L) {
  lua_pushstring(L, neap_run_whole(run_of(L, 1)));
  return 1;
}

static int run_bytes(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)neap_run_bytes(run_of(L, 1)));
  return 1;
}

static int run_steps(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)neap_run_steps(run_of(L, 1), nb_id(L, 2)));
  return 1;
}

static int run_rows(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)neap_run_rows(run_of(L, 1), nb_id(L, 2)));
  return 1;
}

static int run_cancel(lua_State *L) {
  neap_run_cancel(run_of(L, 1));
  return 0;
}

static const luaL_Reg run_methods[] = {{"batch", run_batch},
                                       {"lengths", run_lengths},
                                       {"input", run_input},
                                       {"scalar", run_scalar},
                                       {"state", run_state},
                                       {"seed", run_seed},
                                       {"drawn", run_drawn},
                                       {"learning", run_learning},
                                       {"forward", run_forward},
                                       {"backward", run_backward},
                                       {"find_nonfinite", run_find_nonfinite},
                                       {"keep", run_keep},
                                       {"read", run_read},
                                       {"grad", run_grad},
                                       {"item", run_item},
                                       {"read_doubles", run_read_doubles},
                                       {"param_grad", run_param_grad},
                                       {"param_shift", run_param_shift},
                                       {"plan", run_plan},
                                       {"whole", run_whole},
                                       {"bytes", run_bytes},
                                       {"steps", run_steps},
                                       {"rows", run_rows},
                                       {"cancel", run_cancel},
                                       {NULL, NULL}};

/* ---- streams ---- */

static neap_stream *stream_of(lua_State *L, int arg) { return nb_object(L, arg, &stream_type); }

/* stream(program, {rows=, seed=, block=, lookahead=}) */
static int stream_new(lua_State *L) {
  static const char *const names[] = {"rows", "seed", "block", "lookahead", NULL};
  neap_stream_options o = {.rows = 1};
  nb_program(L, 1);
  nb_options(L, 2, "stream", names);
  if (lua_istable(L, 2)) {
    lua_Integer rows = nb_option_integer(L, 2, "stream", "rows", 1);
    if (rows < 1) return nb_raise(L, "stream: option rows: expected 1 or more, got %I", rows);
    o.rows = (size_t)rows;
    o.seed = (uint64_t)nb_option_integer(L, 2, "stream", "seed", 0);
    lua_Integer block = nb_option_integer(L, 2, "stream", "block", 1);
    if (block < 1) return nb_raise(L, "stream: option block: expected 1 or more, got %I", block);
    o.block = (size_t)block;
    lua_Integer ahead = nb_option_integer(L, 2, "stream", "lookahead", 0);
    if (ahead < 0)
      return nb_raise(L, "stream: option lookahead: expected 0 or more, got %I", ahead);
    o.lookahead = (size_t)ahead;
  }
  void **box = nb_box(L, &stream_type);
  size_t before = neap_memory_live();
  neap_stream *s;
  nb_check(L, neap_stream_open_program(&s, nb_program(L, 1), &o));
  *box = s;
  nb_outside_since(L, before);
  return 1;
}

/* The 0-based input or output of a step at arg: a number from 1, or its name. */
static int named(lua_State *L, int arg, const char *kind,
                 const char *(*name_of)(const neap_stream *, int)) {
  if (lua_type(L, arg) != LUA_TSTRING) return (int)nb_integer_in(L, arg, 1, 1000) - 1;
  neap_stream *s = stream_of(L, 1);
  const char *wanted = lua_tostring(L, arg), *name;
  for (int i = 0; (name = name_of(s, i)) != NULL; i++)
    if (strcmp(name, wanted) == 0) return i;
  lua_newtable(L);
  for (int i = 0; (name = name_of(stream_of(L, 1), i)) != NULL; i++) {
    lua_pushstring(L, name);
    lua_rawseti(L, -2, i + 1);
  }
  nb_push_nearest(L, wanted, lua_gettop(L));
  if (lua_isnil(L, -1)) return nb_raise(L, "stream: a step has no %s '%s'", kind, wanted);
  return nb_raise(L, "stream: a step has no %s '%s'; did you mean '%s'?", kind, wanted,
                  lua_tostring(L, -1));
}

/* Input `index` from the tensor or table of numbers at arg. */
static void give(lua_State *L, int index, int arg) {
  neap_stream *s = stream_of(L, 1);
  size_t n, m;
  float *f = neap_stream_input_f32(s, index, &n);
  int32_t *d = f ? NULL : neap_stream_input_i32(s, index, &n);
  if (!f && !d) {
    const char *name = neap_stream_input_name(s, index);
    if (!name) nb_raise(L, "stream: there is no input %d, or its context is not set", index + 1);
    nb_raise(L, "stream: input '%s': the program never reads it, or its context is not set", name);
  }
  if (lua_istable(L, arg)) {
    if ((m = lua_rawlen(L, arg)) != n)
      nb_raise(L, "stream: input %d has %I numbers, got %I", index + 1, (LUAI_UACINT)n,
                      (LUAI_UACINT)m);
    for (size_t i = 0; i < n; i++) {
      int whole = 0;
      bool good = lua_rawgeti(L, arg, (lua_Integer)i + 1) == LUA_TNUMBER;
      lua_Integer id = lua_tointegerx(L, -1, &whole);
      if (d) good = good && whole && id >= INT32_MIN && id <= INT32_MAX;
      if (!good)
        nb_raise(L, "stream: input %d, number %I: expected %s, came %s", index + 1,
                        (LUAI_UACINT)i + 1, f ? "a number" : "an id, a whole number from 0",
                        nb_push_came(L, -1));
      if (f) f[i] = (float)lua_tonumber(L, -1);
      else d[i] = (int32_t)id;
      lua_pop(L, 1);
    }
    return;
  }
  neap_tensor *t = nb_tensor_of(L, arg, f ? NEAP_F32 : NEAP_I32);
  if (neap_tensor_size(t) != n)
    nb_raise(L, "stream: input %d has %I numbers, got %s", index + 1, (LUAI_UACINT)n,
                    nb_push_shape(L, t));
  memcpy(f ? (void *)f : (void *)d, neap_tensor_data(t), n * 4);
}

/* Output `index` into the tensor at arg. */
static void take(lua_State *L, neap_stream *s, int index, int arg) {
  size_t n;
  const float *f = neap_stream_output_f32(s, index, &n);
  const int32_t *d = f ? NULL : neap_stream_output_i32(s, index, &n);
  if (!f && !d) nb_raise(L, "stream: there is no output %d, or no step was made", index + 1);
  neap_tensor *into = nb_tensor_of(L, arg, f ? NEAP_F32 : NEAP_I32);
  if (neap_tensor_size(into) != n)
    nb_raise(L, "stream: output %d has %I numbers, the tensor has %I", index + 1, (LUAI_UACINT)n,
             (LUAI_UACINT)neap_tensor_size(into));
  memcpy(neap_tensor_data(into), f ? (const void *)f : (const void *)d, n * 4);
}

/* input(name or number from 1, tensor or table of numbers): ids count from 0 in a tensor, as stored */
static int stream_input(lua_State *L) {
  give(L, named(L, 2, "input", neap_stream_input_name), 3);
  return 0;
}

/* step([x [, y]]): x is what input 1 gets, the tensor y what takes up output 1; -> y, or nothing
** while a stream that looks ahead has no output yet */
static int stream_step(lua_State *L) {
  if (!lua_isnoneornil(L, 2)) {
    lua_settop(L, 3);
    give(L, 0, 2);
  }
  neap_stream *s = stream_of(L, 1);
  nb_check(L, neap_stream_step(s));
  if (lua_isnoneornil(L, 3) || !neap_stream_given(s)) return 0;
  take(L, s, 0, 3);
  return 1;
}

/* Output 1 at each step: its numbers and its width. */
static const void *each_output(lua_State *L, neap_stream *s, neap_dtype *dtype, size_t *width) {
  size_t n, lines = neap_stream_block(s) * neap_state_rows(neap_stream_state(s));
  const void *data = neap_stream_output_f32(s, 0, &n);
  *dtype = data ? NEAP_F32 : NEAP_I32;
  if (!data) data = neap_stream_output_i32(s, 0, &n);
  if (!data || n % lines || !n) nb_raise(L, "stream: output 1 is not one of each step");
  *width = n / lines;
  return data;
}

/* steps(x [, y]): x [n, rows, ...] is what input 1 gets at n steps; -> output 1 of each of them
** [n, rows, width], in the tensor y if given. A stream that looks ahead has fewer outputs at first:
** so many as there are come, in a y that has room for n steps too, with their number. */
static int stream_steps(lua_State *L) {
  neap_stream *s = stream_of(L, 1);
  size_t in, block = neap_stream_block(s), rows = neap_state_rows(neap_stream_state(s));
  float *f = neap_stream_input_f32(s, 0, &in);
  int32_t *d = f ? NULL : neap_stream_input_i32(s, 0, &in);
  if (!f && !d) return nb_raise(L, "stream: there is no input 1, or its context is not set");
  lua_settop(L, 3);
  neap_tensor *x = nb_tensor_of(L, 2, f ? NEAP_F32 : NEAP_I32);
  size_t n = neap_tensor_rank(x) ? neap_tensor_dim(x, 0) : 0;
  if (n < 1 || n > block || neap_tensor_size(x) != n * (in / block))
    return nb_raise(L, "stream: input 1 has %I numbers a step, for up to %I steps, got %s",
                    (LUAI_UACINT)(in / block), (LUAI_UACINT)block, nb_push_shape(L, x));
  neap_dtype dtype;
  size_t width, ahead = neap_stream_latency(s), left = neap_stream_pending(s) + n;
  const void *from = each_output(L, s, &dtype, &width);
  size_t given = left > ahead ? left - ahead : 0;
  neap_tensor *y;
  if (lua_isnil(L, 3)) {
    y = nb_tensor_new(L, dtype, 3, (size_t[]){given, rows, width});
    lua_replace(L, 3);
  } else {
    y = nb_tensor_of(L, 3, dtype);
    if (neap_tensor_size(y) != n * rows * width)
      return nb_raise(L, "stream: output 1 has %I numbers for these steps, the tensor has %I",
                      (LUAI_UACINT)(n * rows * width), (LUAI_UACINT)neap_tensor_size(y));
  }
  s = stream_of(L, 1); /* a finalizer may have closed it */
  memcpy(f ? (void *)f : (void *)d, neap_tensor_data(x), neap_tensor_size(x) * 4);
  nb_check(L, neap_stream_steps(s, n));
  if (given) memcpy(neap_tensor_data(y), from, given * rows * width * 4);
  lua_pushinteger(L, (lua_Integer)given);
  return 2;
}

/* finish() -> output 1 of all steps that are pending, [n, rows, width] */
static int stream_finish(lua_State *L) {
  neap_stream *s = stream_of(L, 1);
  neap_dtype dtype;
  size_t width, at = 0, rows = neap_state_rows(neap_stream_state(s));
  const void *from = each_output(L, s, &dtype, &width);
  neap_tensor *y =
    nb_tensor_new(L, dtype, 3, (size_t[]){neap_stream_pending(s), rows, width});
  s = stream_of(L, 1); /* a finalizer may have closed it */
  while (neap_stream_pending(s)) {
    nb_check(L, neap_stream_finish(s));
    size_t bytes = neap_stream_given(s) * rows * width * 4;
    memcpy((char *)neap_tensor_data(y) + at, from, bytes);
    at += bytes;
  }
  return 1;
}

/* latency() -> steps that outputs come late */
static int stream_latency(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)neap_stream_latency(stream_of(L, 1)));
  return 1;
}

/* pending() -> steps whose outputs are still to come */
static int stream_pending(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)neap_stream_pending(stream_of(L, 1)));
  return 1;
}

/* time_steps(n) -> seconds that n steps through the C API take, whole blocks if it has a block, the
** inputs as they stand */
static int stream_time_steps(lua_State *L) {
  neap_stream *s = stream_of(L, 1);
  lua_Integer n = nb_integer_in(L, 2, 1, 1 << 30);
  double start = nb_clock();
  neap_status rc = NEAP_OK;
  lua_Integer block = (lua_Integer)neap_stream_block(s);
  for (lua_Integer i = 0; block == 1 && i < n && !rc; i++) rc = neap_stream_step(s);
  for (lua_Integer i = 0; block > 1 && i < n && !rc; i += block)
    rc = neap_stream_steps(s, (size_t)(n - i < block ? n - i : block));
  double took = nb_clock() - start;
  nb_check(L, rc);
  lua_pushnumber(L, took);
  return 1;
}

/* output(name or number from 1 [, tensor]) -> a new tensor [rows, width], or the one given */
static int stream_output(lua_State *L) {
  neap_stream *s = stream_of(L, 1);
  int index = named(L, 2, "output", neap_stream_output_name);
  size_t n, dims[2];
  if (!lua_isnoneornil(L, 3)) {
    lua_settop(L, 3);
    take(L, s, index, 3);
    return 1;
  }
  const float *f = neap_stream_output_f32(s, index, &n);
  const int32_t *d = f ? NULL : neap_stream_output_i32(s, index, &n);
  if (!f && !d) return nb_raise(L, "stream: there is no output %d, or no step was made", index + 1);
  dims[0] = neap_state_rows(neap_stream_state(s));
  if (!dims[0] || n % dims[0]) dims[0] = 1;
  dims[1] = n / dims[0];
  neap_tensor *t = nb_tensor_new(L, f ? NEAP_F32 : NEAP_I32, 2, dims);
  size_t m;
  s = stream_of(L, 1);
  const void *from = f ? (const void *)neap_stream_output_f32(s, index, &m)
                       : (const void *)neap_stream_output_i32(s, index, &m);
  if (!from || m != n) return nb_raise(L, "stream: output %d changed while it was read", index + 1);
  memcpy(neap_tensor_data(t), from, n * 4);
  return 1;
}

static int stream_scalar(lua_State *L) {
  nb_check(L, neap_stream_scalar(stream_of(L, 1), nb_id(L, 2), nb_number(L, 3)));
  return 0;
}

static int stream_reset(lua_State *L) {
  neap_stream_reset(stream_of(L, 1));
  return 0;
}

/* state() -> a copy */
static int stream_state(lua_State *L) {
  stream_of(L, 1);
  void **box = nb_box(L, &nb_state_type);
  size_t before = neap_memory_live();
  neap_state *s;
  nb_check(L, neap_state_clone(&s, neap_stream_state(stream_of(L, 1))));
  *box = s;
  nb_outside_since(L, before);
  return 1;
}

/* set_state(state): copies it in */
static int stream_set_state(lua_State *L) {
  neap_state *to = neap_stream_state(stream_of(L, 1)), *from = nb_state_or_null(L, 2);
  if (!from) return nb_raise_type(L, 2, "state");
  nb_check(L, neap_state_copy(to, from));
  return 0;
}

static int stream_context_batch(lua_State *L) {
  nb_check(L, neap_stream_context_batch(stream_of(L, 1),
                                        (size_t)nb_integer_in(L, 2, 0, 0x7fffffff)));
  return 0;
}

static int stream_context_lengths(lua_State *L) {
  neap_tensor *t = nb_tensor_of(L, 3, NEAP_I32);
  nb_check(L, neap_stream_context_lengths(stream_of(L, 1), nb_id(L, 2),
                                          neap_tensor_data(t), neap_tensor_size(t)));
  return 0;
}

static int stream_context(lua_State *L) {
  neap_stream *s = stream_of(L, 1);
  int value = nb_id(L, 2);
  neap_tensor *t = nb_tensor(L, 3);
  neap_layout layout = layout_of(L, 4);
  if (neap_tensor_dtype(t) == NEAP_F32)
    nb_check(L, neap_stream_context_f32(s, value, layout, neap_tensor_data(t), neap_tensor_size(t)));
  else
    nb_check(L, neap_stream_context_i32(s, value, layout, neap_tensor_data(t), neap_tensor_size(t)));
  return 0;
}

/* rows(source, from or nil): tables of row numbers from 1 */
static int stream_rows(lua_State *L) {
  neap_stream *s = stream_of(L, 1);
  size_t sources = neap_stream_sources(s), rows = neap_state_rows(neap_stream_state(s)), n, m = 0;
  lua_settop(L, 3);
  int32_t *source = nb_row_list(L, 2, "stream rows: source row", sources, &n);
  int32_t *from =
    lua_isnoneornil(L, 3) ? NULL : nb_row_list(L, 3, "stream rows: row", rows, &m);
  if (from && m != n)
    return nb_raise(L, "stream rows: %I sources, but %I rows to come from", (LUAI_UACINT)n,
                    (LUAI_UACINT)m);
  nb_check(L, neap_stream_rows(stream_of(L, 1), source, from, n));
  return 0;
}

static const luaL_Reg stream_methods[] = {{"input", stream_input},
                                          {"step", stream_step},
                                          {"steps", stream_steps},
                                          {"finish", stream_finish},
                                          {"latency", stream_latency},
                                          {"pending", stream_pending},
                                          {"time_steps", stream_time_steps},
                                          {"output", stream_output},
                                          {"scalar", stream_scalar},
                                          {"reset", stream_reset},
                                          {"state", stream_state},
                                          {"set_state", stream_set_state},
                                          {"context_batch", stream_context_batch},
                                          {"context_lengths", stream_context_lengths},
                                          {"context", stream_context},
                                          {"rows", stream_rows},
                                          {NULL, NULL}};

static const luaL_Reg functions[] = {
    {"pool", pool_new}, {"run", run_new}, {"stream", stream_new}, {NULL, NULL}};
static const luaL_Reg pool_methods[] = {{"threads", pool_threads}, {NULL, NULL}};

void nb_open_run(lua_State *L) {
  static const luaL_Reg no_meta[] = {{NULL, NULL}};
  nb_type_new(L, &nb_pool_type, pool_methods, no_meta);
  nb_type_new(L, &run_type, run_methods, no_meta);
  nb_type_new(L, &stream_type, stream_methods, no_meta);
  lua_pop(L, 3);
  luaL_setfuncs(L, functions, 0);
  lua_pushlightuserdata(L, &cancel_hook);
  lua_setfield(L, -2, "cancel_hook");
}
