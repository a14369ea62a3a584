/*
** Parameters, programs, states. Value, node and space numbers are the runtime's own (from 0): only
** the Lua modules of the library see them.
*/
#include <string.h>

#include "core.h"

static void release_params(void *p) { neap_params_release(p); }
static void release_program(void *p) { neap_program_release(p); }
static void release_state(void *p) { neap_state_release(p); }

const nb_type nb_params_type = {"neap.params", "params", release_params};
const nb_type nb_program_type = {"neap.program", "program", release_program};
const nb_type nb_state_type = {"neap.state", "state", release_state};

static neap_params *params_of(lua_State *L, int arg) { return nb_object(L, arg, &nb_params_type); }
neap_program *nb_program(lua_State *L, int arg) { return nb_object(L, arg, &nb_program_type); }

/* ---- params ---- */

static int params_new(lua_State *L) {
  void **box = nb_box(L, &nb_params_type);
  neap_params *p;
  nb_check(L, neap_params_new(&p));
  *box = p;
  return 1;
}

/* The id of the parameter named by argument 2. */
static int named(lua_State *L, neap_params *p) {
  const char *name = nb_string(L, 2, NULL);
  int id = neap_params_find(p, name);
  if (id >= 0) return id;
  lua_newtable(L);
  for (int i = 0; i < neap_params_count(params_of(L, 1)); i++) {
    lua_pushstring(L, neap_params_name(params_of(L, 1), i));
    lua_rawseti(L, -2, i + 1);
  }
  nb_push_nearest(L, name, lua_gettop(L));
  if (lua_isnil(L, -1)) return nb_raise(L, "there is no parameter '%s'", name);
  return nb_raise(L, "there is no parameter '%s'; did you mean '%s'?", name, lua_tostring(L, -1));
}

static int params_add(lua_State *L) {
  neap_params *p = params_of(L, 1);
  size_t dims[NEAP_MAX_RANK];
  int rank = nb_dims(L, 3, 0, dims);
  size_t before = neap_memory_live();
  nb_check(L, neap_params_add(NULL, p, nb_string(L, 2, NULL), rank, dims));
  nb_outside_since(L, before);
  return 0;
}

static int params_init(lua_State *L) {
  static const char *const kinds[] = {"constant", "uniform", "normal", "orthogonal", NULL};
  neap_params *p = params_of(L, 1);
  int id = named(L, p), kind = nb_choice(L, 3, NULL, kinds);
  nb_check(L, neap_params_init(p, id, (neap_init)kind, nb_number(L, 4), nb_number_or(L, 5, 0),
                               (uint64_t)nb_integer_or(L, 6, 0)));
  return 0;
}

static int params_names(lua_State *L) {
  lua_createtable(L, neap_params_count(params_of(L, 1)), 0);
  for (int i = 0; i < neap_params_count(params_of(L, 1)); i++) {
    lua_pushstring(L, neap_params_name(params_of(L, 1), i));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int params_has(lua_State *L) {
  lua_pushboolean(L, neap_params_find(params_of(L, 1), nb_string(L, 2, NULL)) >= 0);
  return 1;
}

static int params_size(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)neap_params_size(params_of(L, 1)));
  return 1;
}

static int params_shape(lua_State *L) {
  neap_params *p = params_of(L, 1);
  int id = named(L, p);
  lua_newtable(L);
  for (int i = 0; i < neap_params_rank(p, id); i++) {
    lua_pushinteger(L, (lua_Integer)neap_params_dim(p, id, i));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static size_t shape_of(const neap_params *p, int id, size_t dims[NEAP_MAX_RANK]) {
  size_t n = 1;
  for (int i = 0; i < neap_params_rank(p, id); i++) n *= dims[i] = neap_params_dim(p, id, i);
  return n;
}

static int params_get(lua_State *L) {
  neap_params *p = params_of(L, 1);
  int id = named(L, p);
  size_t dims[NEAP_MAX_RANK], n = shape_of(p, id, dims);
  neap_tensor *t = nb_tensor_new(L, NEAP_F32, neap_params_rank(p, id), dims);
  memcpy(neap_tensor_data(t), neap_params_data(params_of(L, 1), id), n * sizeof(float));
  return 1;
}

static int params_grad(lua_State *L) {
  neap_params *p = params_of(L, 1);
  int id = named(L, p);
  size_t dims[NEAP_MAX_RANK], n = shape_of(p, id, dims);
  neap_tensor *t = nb_tensor_new(L, NEAP_F32, neap_params_rank(p, id), dims);
  nb_check(L, neap_params_read_grad(params_of(L, 1), id, neap_tensor_data(t), n));
  return 1;
}

static int params_set(lua_State *L) {
  neap_params *p = params_of(L, 1);
  int id = named(L, p);
  neap_tensor *t = nb_tensor_of(L, 3, NEAP_F32);
  size_t dims[NEAP_MAX_RANK], n = shape_of(p, id, dims);
  bool same = neap_tensor_rank(t) == neap_params_rank(p, id);
  for (int i = 0; same && i < neap_tensor_rank(t); i++) same = neap_tensor_dim(t, i) == dims[i];
  if (!same)
    return nb_raise(L, "set: '%s' has %d dimensions and %I numbers, the tensor is %s",
                    neap_params_name(p, id), neap_params_rank(p, id), (LUAI_UACINT)n,
                    nb_push_shape(L, t));
  memcpy(neap_params_data(p, id), neap_tensor_data(t), n * sizeof(float));
  neap_params_touch(p);
  return 0;
}

static int params_zero_grad(lua_State *L) {
  neap_params_zero_grad(params_of(L, 1));
  return 0;
}

/* touch(): what was packed from the values is packed anew, as after an optimizer's step */
static int params_touch(lua_State *L) {
  neap_params_touch(params_of(L, 1));
  return 0;
}

static int params_freeze(lua_State *L) {
  neap_params *p = params_of(L, 1);
  neap_params_freeze(p, named(L, p), lua_isnone(L, 3) || lua_toboolean(L, 3));
  return 0;
}

static int params_frozen(lua_State *L) {
  neap_params *p = params_of(L, 1);
  lua_pushboolean(L, neap_params_frozen(p, named(L, p)));
  return 1;
}

static int params_copy(lua_State *L) {
  nb_check(L, neap_params_copy(params_of(L, 1), params_of(L, 2)));
  return 0;
}

/* mix(other, share): a share of the way to the other's values */
static int params_mix(lua_State *L) {
  nb_check(L, neap_params_mix(params_of(L, 1), params_of(L, 2), nb_number(L, 3)));
  return 0;
}

/* pool(pool or nil): its threads do what goes through all numbers */
static int params_pool(lua_State *L) {
  nb_check(L, neap_params_pool(params_of(L, 1), nb_object_or_null(L, 2, &nb_pool_type)));
  return 0;
}

/* clone() -> params with the same names, shapes and values */
static int params_clone(lua_State *L) {
  size_t before = neap_memory_live();
  params_of(L, 1);
  params_new(L);
  neap_params *p = params_of(L, 1), *q = params_of(L, lua_gettop(L));
  for (int i = 0; i < neap_params_count(p); i++) {
    size_t dims[NEAP_MAX_RANK];
    shape_of(p, i, dims);
    nb_check(L, neap_params_add(NULL, q, neap_params_name(p, i), neap_params_rank(p, i), dims));
  }
  nb_check(L, neap_params_copy(q, p));
  nb_outside_since(L, before);
  return 1;
}

static const luaL_Reg params_methods[] = {
    {"add", params_add},       {"init", params_init},     {"names", params_names},
    {"has", params_has},       {"size", params_size},     {"shape", params_shape},
    {"get", params_get},       {"grad", params_grad},     {"set", params_set},
    {"zero_grad", params_zero_grad}, {"touch", params_touch},
    {"freeze", params_freeze}, {"frozen", params_frozen},
    {"copy", params_copy}, {"mix", params_mix},     {"clone", params_clone},
    {"pool", params_pool}, {NULL, NULL}};

/* ---- programs ---- */

static int program_new(lua_State *L) {
  params_of(L, 1);
  void **box = nb_box(L, &nb_program_type);
  neap_program *pr;
  nb_check(L, neap_program_new(&pr, params_of(L, 1)));
  *box = pr;
  return 1;
}

static int push_value(lua_State *L, neap_status rc, int value) {
  nb_check(L, rc);
  lua_pushinteger(L, value);
  return 1;
}

static int program_space(lua_State *L) {
  int space;
  neap_status rc = neap_program_space(&space, nb_program(L, 1), nb_string(L, 2, NULL),
                                      (int)nb_integer_or(L, 3, 0));
  return push_value(L, rc, space);
}

static int program_folded(lua_State *L) {
  int space;
  neap_status rc = neap_program_folded(&space, nb_program(L, 1),
                                       (int)nb_integer_in(L, 2, 0, INT_MAX),
                                       (int)nb_integer_in(L, 3, 0, INT_MAX));
  return push_value(L, rc, space);
}

static int program_where(lua_State *L) {
  nb_check(L, neap_program_where(nb_program(L, 1), nb_string_or(L, 2, NULL),
                                 nb_string_or(L, 3, NULL)));
  return 0;
}

/* dtype at arg, space at arg+1, feature dimensions at arg+2 */
static neap_type read_type(lua_State *L, int arg) {
  neap_type t = {.dtype = nb_dtype(L, arg), .space = (int)nb_integer_or(L, arg + 1, -1)};
  size_t dims[NEAP_MAX_RANK];
  t.rank = nb_dims(L, arg + 2, 0, dims);
  if (t.rank > NEAP_MAX_FEATURES)
    nb_raise(L, "at most %d feature dimensions are possible, got %d", NEAP_MAX_FEATURES, t.rank);
  for (int i = 0; i < t.rank; i++) {
    if (dims[i] > 0x7fffffff) nb_raise(L, "dimension %d is too large", i + 1);
    t.dim[i] = (int32_t)dims[i];
  }
  return t;
}

static int program_input(lua_State *L) {
  neap_program *pr = nb_program(L, 1);
  neap_type t = read_type(L, 3);
  int v;
  neap_status rc = neap_program_input(&v, pr, nb_string(L, 2, NULL), &t);
  return push_value(L, rc, v);
}

static int program_scalar(lua_State *L) {
  int v;
  neap_status rc = neap_program_scalar(&v, nb_program(L, 1), nb_string(L, 2, NULL), nb_number(L, 3));
  return push_value(L, rc, v);
}

static int program_param(lua_State *L) {
  int v;
  neap_status rc = neap_program_param(&v, nb_program(L, 1), nb_string(L, 2, NULL));
  return push_value(L, rc, v);
}

static int program_constant(lua_State *L) {
  int v;
  neap_status rc = neap_program_constant(&v, nb_program(L, 1), nb_number(L, 2));
  return push_value(L, rc, v);
}

/* add(op, inputs, attrs) -> value ids. An input false is left out. */
static int program_add(lua_State *L) {
  neap_program *pr = nb_program(L, 1);
  const char *op = nb_string(L, 2, NULL);
  nb_table(L, 3);
  int in[NEAP_MAX_INPUTS + 1], n_in = (int)lua_rawlen(L, 3), out[NEAP_MAX_OUTPUTS], n_out;
  if (n_in > NEAP_MAX_INPUTS)
    return nb_raise(L, "%s: at most %d inputs are possible, got %d", op, NEAP_MAX_INPUTS, n_in);
  for (int i = 0; i < n_in; i++) {
    lua_rawgeti(L, 3, i + 1);
    in[i] = lua_isinteger(L, -1) ? (int)lua_tointeger(L, -1) : -1;
    lua_pop(L, 1);
  }
  neap_attr attr[16];
  int n_attr = 0;
  if (!lua_isnoneornil(L, 4)) {
    nb_table(L, 4);
    for (lua_pushnil(L); lua_next(L, 4) && n_attr < 16; lua_pop(L, 1)) {
      if (lua_type(L, -2) != LUA_TSTRING || !lua_isnumber(L, -1))
        return nb_raise(L, "%s: options must be named numbers", op);
      attr[n_attr].name = lua_tostring(L, -2);
      attr[n_attr++].value = lua_tonumber(L, -1);
    }
  }
  nb_check(L, neap_program_add(out, &n_out, pr, op, in, n_in, attr, n_attr));
  for (int i = 0; i < n_out; i++) lua_pushinteger(L, out[i]);
  return n_out;
}

static int program_scan_begin(lua_State *L) {
  nb_check(L, neap_program_scan_begin(nb_program(L, 1), nb_id(L, 2)));
  return 0;
}

/* scan_state(name, dtype, dims, init or nil) */
static int program_scan_state(lua_State *L) {
  neap_program *pr = nb_program(L, 1);
  size_t dims[NEAP_MAX_RANK];
  neap_type t = {.dtype = nb_dtype(L, 3), .rank = nb_dims(L, 4, -NEAP_MAX_SPACES, dims)};
  if (t.rank > NEAP_MAX_FEATURES) return nb_raise(L, "a state has at most 3 dimensions");
  for (int i = 0; i < t.rank; i++) t.dim[i] = (int32_t)dims[i];
  int v;
  neap_status rc = neap_program_scan_state(&v, pr, nb_string(L, 2, NULL), &t,
                                           (int)nb_integer_or(L, 5, -1));
  return push_value(L, rc, v);
}

static int program_scan_next(lua_State *L) {
  nb_check(L, neap_program_scan_next(nb_program(L, 1), nb_id(L, 2), nb_id(L, 3)));
  return 0;
}

static int program_scan_end(lua_State *L) {
  nb_check(L, neap_program_scan_end(nb_program(L, 1)));
  return 0;
}

static int program_output(lua_State *L) {
  nb_check(L, neap_program_output(nb_program(L, 1), nb_string(L, 2, NULL), nb_id(L, 3)));
  return 0;
}

/* type(value) -> "f32" or "i32", space, table of dimensions (a negative one: -1 - space) */
static int program_type(lua_State *L) {
  neap_type t;
  nb_check(L, neap_program_type(&t, nb_program(L, 1), nb_id(L, 2)));
  lua_pushstring(L, t.dtype == NEAP_F32 ? "f32" : "i32");
  lua_pushinteger(L, t.space);
  lua_createtable(L, t.rank, 0);
  for (int i = 0; i < t.rank; i++) {
    lua_pushinteger(L, t.dim[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 3;
}

static int program_nodes(lua_State *L) {
  lua_pushinteger(L, neap_program_nodes(nb_program(L, 1)));
  return 1;
}

static int push_text(lua_State *L, neap_status rc, char *text) {
  nb_check(L, rc);
  lua_pushstring(L, text); /* a failing push leaks the text: only when all memory is gone */
  neap_text_free(text);
  return 1;
}
static int program_print(lua_State *L) {
  char *text;
  neap_status rc = neap_program_print(&text, nb_program(L, 1));
  return push_text(L, rc, text);
}
static int program_json(lua_State *L) {
  char *text;
  neap_status rc = neap_program_json(&text, nb_program(L, 1));
  return push_text(L, rc, text);
}

static int program_differ(lua_State *L) {
  lua_pushstring(L, neap_program_differ(nb_program(L, 1), nb_program(L, 2)));
  return 1;
}

static int program_reads_future(lua_State *L) {
  lua_pushstring(L, neap_program_reads_future(nb_program(L, 1)));
  return 1;
}

static int list(lua_State *L, const char *(*name)(const neap_program *, int, int *)) {
  nb_program(L, 1);
  lua_newtable(L);
  int value;
  const char *s;
  for (int i = 0; (s = name(nb_program(L, 1), i, &value)) != NULL; i++) {
    lua_pushstring(L, s);
    lua_pushinteger(L, value);
    lua_rawset(L, -3);
  }
  return 1;
}
static int program_inputs(lua_State *L) { return list(L, neap_program_input_name); }
static int program_outputs(lua_State *L) { return list(L, neap_program_output_name); }

/* spaces() -> {{name=, parent=, of=, factor=}, ...}, the first the batch */
static int program_spaces(lua_State *L) {
  nb_program(L, 1);
  lua_newtable(L);
  for (int i = 0; i < neap_program_spaces(nb_program(L, 1)); i++) {
    lua_createtable(L, 0, 4);
    lua_pushstring(L, neap_program_space_name(nb_program(L, 1), i));
    lua_setfield(L, -2, "name");
    lua_pushinteger(L, neap_program_space_parent(nb_program(L, 1), i));
    lua_setfield(L, -2, "parent");
    lua_pushinteger(L, neap_program_space_of(nb_program(L, 1), i));
    lua_setfield(L, -2, "of");
    lua_pushinteger(L, neap_program_space_factor(nb_program(L, 1), i));
    lua_setfield(L, -2, "factor");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int program_params(lua_State *L) {
  nb_program(L, 1);
  void **box = nb_box(L, &nb_params_type);
  neap_params *p = neap_program_params(nb_program(L, 1));
  neap_params_retain(p);
  *box = p;
  return 1;
}

static const luaL_Reg program_methods[] = {
    {"space", program_space},           {"where", program_where},
    {"folded", program_folded},
    {"input", program_input},           {"scalar", program_scalar},
    {"param", program_param},           {"constant", program_constant},
    {"add", program_add},               {"scan_begin", program_scan_begin},
    {"scan_state", program_scan_state}, {"scan_next", program_scan_next},
    {"scan_end", program_scan_end},     {"output", program_output},
    {"type", program_type},             {"nodes", program_nodes},
    {"print", program_print},           {"json", program_json},
    {"differ", program_differ},         {"reads_future", program_reads_future},
    {"inputs", program_inputs},         {"outputs", program_outputs},
    {"spaces", program_spaces},         {"params", program_params},
    {NULL, NULL}};

/* op_info(i) -> table, nil past the end */
static int op_info(lua_State *L) {
  const neap_op_info *op = neap_op_describe(nb_id(L, 1) - 1);
  if (!op) return 0;
  lua_newtable(L);
  lua_pushstring(L, op->name), lua_setfield(L, -2, "name");
  lua_pushstring(L, op->formula), lua_setfield(L, -2, "formula");
  lua_pushinteger(L, op->min_inputs), lua_setfield(L, -2, "min_inputs");
  lua_pushinteger(L, op->max_inputs), lua_setfield(L, -2, "max_inputs");
  lua_pushinteger(L, op->outputs), lua_setfield(L, -2, "outputs");
  lua_pushboolean(L, op->mixes_time), lua_setfield(L, -2, "mixes_time");
  lua_pushboolean(L, op->reads_future), lua_setfield(L, -2, "reads_future");
  lua_pushboolean(L, op->differentiable), lua_setfield(L, -2, "differentiable");
  lua_newtable(L);
  for (int i = 0; op->attrs[i]; i++) {
    lua_pushstring(L, op->attrs[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "attrs");
  return 1;
}

/* ---- states ---- */

static neap_state *state_of(lua_State *L, int arg) { return nb_object(L, arg, &nb_state_type); }
neap_state *nb_state_or_null(lua_State *L, int arg) {
  return nb_object_or_null(L, arg, &nb_state_type);
}

static int state_new(lua_State *L) {
  nb_program(L, 1);
  lua_Integer rows = nb_integer_in(L, 2, 0, 0x7fffffff);
  void **box = nb_box(L, &nb_state_type);
  size_t before = neap_memory_live();
  neap_state *s;
  nb_check(L, neap_state_new(&s, nb_program(L, 1), (size_t)rows));
  *box = s;
  nb_outside_since(L, before);
  return 1;
}

static int state_clone(lua_State *L) {
  state_of(L, 1);
  void **box = nb_box(L, &nb_state_type);
  size_t before = neap_memory_live();
  neap_state *s;
  nb_check(L, neap_state_clone(&s, state_of(L, 1)));
  *box = s;
  nb_outside_since(L, before);
  return 1;
}

static int state_rows(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)neap_state_rows(state_of(L, 1)));
  return 1;
}

static int state_slots(lua_State *L) {
  state_of(L, 1);
  lua_newtable(L);
  for (int i = 0; i < neap_state_slots(state_of(L, 1)); i++) {
    lua_pushstring(L, neap_state_slot(state_of(L, 1), i, NULL, NULL));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* A slot by its name or number from 1. */
static int slot_of(lua_State *L, neap_state *s) {
  if (lua_isinteger(L, 2)) return (int)nb_integer_in(L, 2, 1, neap_state_slots(s)) - 1;
  const char *name = nb_string(L, 2, NULL);
  for (int i = 0; i < neap_state_slots(s); i++)
    if (strcmp(neap_state_slot(s, i, NULL, NULL), name) == 0) return i;
  state_slots(L);
  nb_push_nearest(L, name, lua_gettop(L));
  return nb_raise(L, "the state has no slot '%s'%s%s", name, lua_isnil(L, -1) ? "" : "; nearest: ",
                  lua_isnil(L, -1) ? "" : lua_tostring(L, -1));
}

/* get(slot) -> [rows, width] */
static int state_get(lua_State *L) {
  neap_state *s = state_of(L, 1);
  int i = slot_of(L, s);
  neap_dtype dtype;
  size_t dims[2] = {neap_state_rows(s), 0};
  neap_state_slot(s, i, &dtype, &dims[1]);
  neap_tensor *t = nb_tensor_new(L, dtype, 2, dims);
  memcpy(neap_tensor_data(t), neap_state_data(state_of(L, 1), i), dims[0] * dims[1] * 4);
  return 1;
}

/* set(slot, tensor [rows, width]): the rows hold a value from now on. A slot of no width yet takes
** over the tensor's. */
static int state_set(lua_State *L) {
  neap_state *s = state_of(L, 1);
  int i = slot_of(L, s);
  neap_dtype dtype;
  size_t width, rows = neap_state_rows(s);
  neap_state_slot(s, i, &dtype, &width);
  neap_tensor *t = nb_tensor_of(L, 3, dtype);
  if (width == 0 && neap_tensor_rank(t) == 2 && rows > 0) {
    nb_check(L, neap_state_widen(s, i, neap_tensor_dim(t, 1)));
    width = neap_tensor_dim(t, 1);
  }
  if (neap_tensor_size(t) != rows * width || neap_tensor_dim(t, 0) != rows)
    return nb_raise(L, "state set: expected [%I,%I], got %s", (LUAI_UACINT)rows,
                    (LUAI_UACINT)width, nb_push_shape(L, t));
  memcpy(neap_state_data(s, i), neap_tensor_data(t), rows * width * 4);
  for (size_t r = 0; r < rows; r++) nb_check(L, neap_state_mark(s, r));
  return 0;
}

/* held() -> for each row whether it holds a value; one that does not starts from the program's own
** first state */
static int state_held(lua_State *L) {
  size_t rows = neap_state_rows(state_of(L, 1));
  lua_newtable(L);
  for (size_t r = 0; r < rows; r++) {
    lua_pushboolean(L, neap_state_marked(state_of(L, 1), r));
    lua_rawseti(L, -2, (lua_Integer)r + 1);
  }
  return 1;
}

int32_t *nb_row_list(lua_State *L, int arg, const char *who, size_t most, size_t *n) {
  nb_table(L, arg);
  *n = lua_rawlen(L, arg);
  int32_t *rows = lua_newuserdatauv(L, (*n + 1) * sizeof *rows, 0);
  for (size_t i = 0; i < *n; i++) {
    int whole;
    lua_rawgeti(L, arg, (lua_Integer)i + 1);
    lua_Integer r = lua_tointegerx(L, -1, &whole);
    if (!whole)
      nb_raise(L, "%s %I is %s, expected a number from 1", who, (LUAI_UACINT)i + 1,
               luaL_tolstring(L, -1, NULL));
    if (r < 1 || (lua_Unsigned)r > most)
      nb_raise(L, "%s %I is not in 1..%I", who, (LUAI_UACINT)r, (LUAI_UACINT)most);
    rows[i] = (int32_t)(r - 1);
    lua_pop(L, 1);
  }
  return rows;
}

static int state_reset(lua_State *L) {
  size_t most = neap_state_rows(state_of(L, 1)), n = 0;
  int32_t *rows =
    lua_isnoneornil(L, 2) ? NULL : nb_row_list(L, 2, "state reset: row", most, &n);
  nb_check(L, neap_state_reset(state_of(L, 1), rows, n));
  return 0;
}

static int state_gather(lua_State *L) {
  size_t most = neap_state_rows(state_of(L, 1)), n;
  int32_t *rows = nb_row_list(L, 2, "state gather: row", most, &n);
  nb_check(L, neap_state_gather(state_of(L, 1), rows, n));
  return 0;
}

static const luaL_Reg state_methods[] = {
    {"clone", state_clone}, {"rows", state_rows},   {"slots", state_slots}, {"get", state_get},
    {"set", state_set},     {"held", state_held},   {"reset", state_reset},
    {"gather", state_gather}, {NULL, NULL}};

static const luaL_Reg functions[] = {{"params", params_new}, {"program", program_new},
                                     {"state", state_new},   {"op_info", op_info},
                                     {NULL, NULL}};

void nb_open_program(lua_State *L) {
  static const luaL_Reg no_meta[] = {{NULL, NULL}};
  nb_type_new(L, &nb_params_type, params_methods, no_meta);
  nb_type_new(L, &nb_program_type, program_methods, no_meta);
  nb_type_new(L, &nb_state_type, state_methods, no_meta);
  lua_pop(L, 3);
  luaL_setfuncs(L, functions, 0);
}
