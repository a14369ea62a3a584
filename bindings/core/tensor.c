/*
** neap.tensor: a contiguous tensor of floats or 32-bit integers, at most 4 dimensions. Positions
** count from 1.
*/
#include "core.h"

#include <limits.h>
#include <string.h>

static void release(void *object) { neap_tensor_release(object); }

const nb_type nb_tensor_type = {"neap.tensor", "tensor", release};

neap_tensor *nb_tensor(lua_State *L, int arg) { return nb_object(L, arg, &nb_tensor_type); }

static const char *dtype_name(neap_dtype dtype) { return dtype == NEAP_I32 ? "i32" : "f32"; }

neap_tensor *nb_tensor_of(lua_State *L, int arg, neap_dtype dtype) {
  neap_tensor *t = nb_tensor(L, arg);
  if (neap_tensor_dtype(t) != dtype)
    nb_raise_argument(L, arg, lua_pushfstring(L, "%s tensor expected, got %s", dtype_name(dtype),
                                              nb_push_shape(L, t)));
  return t;
}

neap_tensor *nb_tensor_new(lua_State *L, neap_dtype dtype, int rank, const size_t *dims) {
  void **box = nb_box(L, &nb_tensor_type);
  neap_tensor *t;
  neap_status status = neap_tensor_new(&t, dtype, rank, dims);
  if (status == NEAP_EMEM) { /* tensors that nobody reaches may still hold memory */
    lua_gc(L, LUA_GCCOLLECT);
    status = neap_tensor_new(&t, dtype, rank, dims);
  }
  nb_check(L, status);
  *box = t;
  nb_outside(L, neap_tensor_size(t) * sizeof(float));
  return t;
}

/* The box is made in a protected call: the reference must not be lost if Lua's memory is short. */
static int make_box(lua_State *L) {
  nb_box(L, &nb_tensor_type);
  return 1;
}

void nb_tensor_push(lua_State *L, neap_tensor *t) {
  lua_pushcfunction(L, make_box);
  if (lua_pcall(L, 0, 1, 0) != LUA_OK) {
    neap_tensor_release(t);
    lua_error(L);
  }
  *(void **)lua_touserdata(L, -1) = t;
  nb_outside(L, neap_tensor_size(t) * sizeof(float));
}

int nb_dims(lua_State *L, int arg, int low, size_t dims[NEAP_MAX_RANK]) {
  if (!lua_istable(L, arg))
    nb_raise_type(L, arg, "table of dimensions");
  size_t rank = lua_rawlen(L, arg);
  if (rank > NEAP_MAX_RANK)
    nb_raise_argument(L, arg, lua_pushfstring(L, "at most %d dimensions expected, got %I",
                                              NEAP_MAX_RANK, (LUAI_UACINT)rank));
  for (size_t i = 0; i < rank; i++) {
    lua_rawgeti(L, arg, (lua_Integer)i + 1);
    int whole = 0;
    lua_Integer n = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &whole) : -1;
    if (!whole || n < low)
      nb_raise_argument(L, arg, lua_pushfstring(L, "dimension %d: expected %d or more, got %s",
                                                (int)i + 1, low, luaL_tolstring(L, -1, NULL)));
    dims[i] = (size_t)n;
    lua_pop(L, 1);
  }
  return (int)rank;
}

neap_dtype nb_dtype(lua_State *L, int arg) {
  if (lua_isnoneornil(L, arg))
    return NEAP_F32;
  const char *name = nb_string(L, arg, NULL);
  if (strcmp(name, "i32") != 0 && strcmp(name, "f32") != 0)
    nb_raise_argument(L, arg, lua_pushfstring(L, "\"f32\" or \"i32\" expected, got \"%s\"", name));
  return *name == 'i' ? NEAP_I32 : NEAP_F32;
}

static const char *push_shape(lua_State *L, neap_dtype dtype, int rank, const size_t *dims) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, dtype_name(dtype));
  luaL_addstring(&b, " [");
  for (int i = 0; i < rank; i++) {
    lua_pushfstring(L, i ? ",%I" : "%I", (LUAI_UACINT)dims[i]);
    luaL_addvalue(&b);
  }
  luaL_addchar(&b, ']');
  luaL_pushresult(&b);
  return lua_tostring(L, -1);
}

static int get_dims(const neap_tensor *t, size_t dims[NEAP_MAX_RANK]) {
  int rank = neap_tensor_rank(t);
  for (int i = 0; i < rank; i++)
    dims[i] = neap_tensor_dim(t, i);
  return rank;
}

const char *nb_push_shape(lua_State *L, const neap_tensor *t) {
  size_t dims[NEAP_MAX_RANK];
  int rank = get_dims(t, dims);
  return push_shape(L, neap_tensor_dtype(t), rank, dims);
}

/* ---- elements ---- */

/* Writes the number at a stack index; returns what was expected if it is none that fits. */
static const char *store(lua_State *L, int index, neap_tensor *t, size_t at) {
  if (lua_type(L, index) != LUA_TNUMBER)
    return "a number";
  if (neap_tensor_dtype(t) == NEAP_F32) {
    ((float *)neap_tensor_data(t))[at] = (float)lua_tonumber(L, index);
    return NULL;
  }
  int whole;
  lua_Integer i = lua_tointegerx(L, index, &whole);
  if (!whole || i < INT32_MIN || i > INT32_MAX)
    return "an integer of 32 bits";
  ((int32_t *)neap_tensor_data(t))[at] = (int32_t)i;
  return NULL;
}

static void push_element(lua_State *L, neap_tensor *t, size_t at) {
  if (neap_tensor_dtype(t) == NEAP_F32)
    lua_pushnumber(L, (lua_Number)((const float *)neap_tensor_data(t))[at]);
  else
    lua_pushinteger(L, ((const int32_t *)neap_tensor_data(t))[at]);
}

/* The 0-based position in an axis of the 1-based index at arg. */
static size_t position(lua_State *L, int arg, const neap_tensor *t, int axis) {
  lua_Integer n = (lua_Integer)neap_tensor_dim(t, axis), i = nb_integer(L, arg);
  if (i < 1 || i > n)
    nb_raise(L, "tensor: index %d: %I is out of 1..%I in %s", axis + 1, (LUAI_UACINT)i,
             (LUAI_UACINT)n, nb_push_shape(L, t));
  return (size_t)i - 1;
}

/* The element that the indices from arg on name, one for each dimension. */
static size_t element(lua_State *L, int arg, int given, const neap_tensor *t) {
  int rank = neap_tensor_rank(t);
  if (given != rank)
    nb_raise(L, "tensor: expected %d indices for %s, came %d", rank, nb_push_shape(L, t), given);
  size_t at = 0;
  for (int axis = 0; axis < rank; axis++)
    at = at * neap_tensor_dim(t, axis) + position(L, arg + axis, t, axis);
  return at;
}

/* ---- makers ---- */

typedef struct reading {
  neap_tensor *t;
  size_t at;                    /* the next element */
  lua_Integer path[NEAP_MAX_RANK];
} reading;

/* Pushes " at [2][1]"; "" for the whole. */
static const char *push_path(lua_State *L, const reading *r, int depth) {
  lua_pushstring(L, depth ? " at " : "");
  for (int i = 0; i < depth; i++)
    lua_pushfstring(L, "[%I]", (LUAI_UACINT)r->path[i]);
  lua_concat(L, depth + 1);
  return lua_tostring(L, -1);
}

/* Copies the nested table (or the number) on top of the stack. */
static void read_nested(lua_State *L, reading *r, int depth) {
  int rank = neap_tensor_rank(r->t);
  if (depth == rank) {
    const char *expected = store(L, -1, r->t, r->at++);
    if (expected) {
      const char *came = nb_push_came(L, -1);
      nb_raise(L, "tensor: expected %s%s, came %s", expected, push_path(L, r, depth), came);
    }
    return;
  }
  lua_Integer n = (lua_Integer)neap_tensor_dim(r->t, depth);
  if (!lua_istable(L, -1)) {
    const char *type = luaL_typename(L, -1);
    nb_raise(L, "tensor: ragged table: expected a table of %I%s, came a %s", (LUAI_UACINT)n,
             push_path(L, r, depth), type);
  }
  lua_Integer came = (lua_Integer)lua_rawlen(L, -1);
  if (came != n)
    nb_raise(L, "tensor: ragged table: expected %I elements%s, came %I", (LUAI_UACINT)n,
             push_path(L, r, depth), (LUAI_UACINT)came);
  for (lua_Integer i = 1; i <= n; i++) {
    r->path[depth] = i;
    lua_rawgeti(L, -1, i);
    read_nested(L, r, depth + 1);
    lua_pop(L, 1);
  }
}

/* tensor(number or nested tables, dtype) */
static int tensor(lua_State *L) {
  if (lua_type(L, 1) != LUA_TNUMBER && !lua_istable(L, 1))
    return nb_raise_type(L, 1, "number or table");
  neap_dtype dtype = nb_dtype(L, 2);
  size_t dims[NEAP_MAX_RANK];
  int rank = 0;
  lua_settop(L, 1);
  lua_pushvalue(L, 1);
  while (lua_istable(L, -1)) {
    if (rank == NEAP_MAX_RANK)
      return nb_raise(L, "tensor: tables are nested more than %d deep", NEAP_MAX_RANK);
    dims[rank] = lua_rawlen(L, -1);
    if (dims[rank++] == 0)
      break;
    lua_rawgeti(L, -1, 1);
    lua_replace(L, -2);
  }
  lua_settop(L, 1);
  reading r = {nb_tensor_new(L, dtype, rank, dims), 0, {0}};
  lua_pushvalue(L, 1);
  read_nested(L, &r, 0);
  lua_settop(L, 2);
  return 1;
}

/* zeros(dims, dtype) */
static int zeros(lua_State *L) {
  size_t dims[NEAP_MAX_RANK];
  int rank = nb_dims(L, 1, 0, dims);
  nb_tensor_new(L, nb_dtype(L, 2), rank, dims);
  return 1;
}

/* tensor_from_string(bytes, dims, dtype): four little-endian bytes an element */
static int tensor_from_string(lua_State *L) {
  size_t length, dims[NEAP_MAX_RANK];
  const unsigned char *s = (const unsigned char *)nb_string(L, 1, &length);
  int rank = nb_dims(L, 2, 0, dims);
  neap_dtype dtype = nb_dtype(L, 3);
  size_t n = 4;
  bool fits = true;
  for (int i = 0; i < rank; i++)
    fits = fits && !__builtin_mul_overflow(n, dims[i], &n);
  if (!fits || n != length)
    return nb_raise(L, "tensor_from_string: %I bytes do not make %s", (LUAI_UACINT)length,
                    push_shape(L, dtype, rank, dims));
  neap_tensor *t = nb_tensor_new(L, dtype, rank, dims);
  uint32_t *out = neap_tensor_data(t);
  for (size_t i = 0; i < n / 4; i++, s += 4) {
    uint32_t word = s[0] | (uint32_t)s[1] << 8 | (uint32_t)s[2] << 16 | (uint32_t)s[3] << 24;
    memcpy(out + i, &word, 4);
  }
  return 1;
}

/* ---- methods ---- */

/* t:shape() -> { d1, d2, ... } */
static int shape(lua_State *L) {
  neap_tensor *t = nb_tensor(L, 1);
  int rank = neap_tensor_rank(t);
  lua_createtable(L, rank, 0);
  for (int i = 0; i < rank; i++) {
    lua_pushinteger(L, (lua_Integer)neap_tensor_dim(t, i));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* t:rank() */
static int rank(lua_State *L) {
  lua_pushinteger(L, neap_tensor_rank(nb_tensor(L, 1)));
  return 1;
}

/* t:size() -> number of elements */
static int size(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)neap_tensor_size(nb_tensor(L, 1)));
  return 1;
}

/* t:dtype() -> "f32" or "i32" */
static int dtype(lua_State *L) {
  lua_pushstring(L, dtype_name(neap_tensor_dtype(nb_tensor(L, 1))));
  return 1;
}

/* t:get(i, j, ...) */
static int get(lua_State *L) {
  neap_tensor *t = nb_tensor(L, 1);
  push_element(L, t, element(L, 2, lua_gettop(L) - 1, t));
  return 1;
}

/* t:set(i, j, ..., number) */
static int set(lua_State *L) {
  neap_tensor *t = nb_tensor(L, 1);
  int last = lua_gettop(L);
  const char *expected = store(L, last, t, element(L, 2, last - 2, t));
  if (expected)
    nb_raise_type(L, last, expected);
  return 0;
}

/* t:item() -> the number of a tensor of one element */
static int item(lua_State *L) {
  neap_tensor *t = nb_tensor(L, 1);
  if (neap_tensor_size(t) != 1)
    return nb_raise(L, "item: expected a tensor of one element, came %s", nb_push_shape(L, t));
  push_element(L, t, 0);
  return 1;
}

static void push_nested(lua_State *L, neap_tensor *t, int axis, size_t *at) {
  if (axis == neap_tensor_rank(t)) {
    push_element(L, t, (*at)++);
    return;
  }
  size_t n = neap_tensor_dim(t, axis);
  if (n > INT_MAX)
    nb_raise(L, "totable: %s is too large for a table", nb_push_shape(L, t));
  luaL_checkstack(L, 2, "totable");
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    push_nested(L, t, axis + 1, at);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

/* t:totable() -> nested tables; a number for rank 0 */
static int totable(lua_State *L) {
  size_t at = 0;
  nb_tensor(L, 1);
  void **held = nb_box(L, &nb_tensor_type); /* a finalizer may close t while tables are made */
  neap_tensor *t = nb_tensor(L, 1);
  neap_tensor_retain(t);
  *held = t;
  push_nested(L, t, 0, &at);
  return 1;
}

/* t:tobytes() -> four little-endian bytes an element */
static int tobytes(lua_State *L) {
  size_t n = neap_tensor_size(nb_tensor(L, 1));
  luaL_Buffer b;
  unsigned char *out = (unsigned char *)luaL_buffinitsize(L, &b, 4 * n);
  const uint32_t *in = neap_tensor_data(nb_tensor(L, 1));
  for (size_t i = 0; i < n; i++, out += 4) {
    uint32_t word;
    memcpy(&word, in + i, 4);
    out[0] = word & 255;
    out[1] = word >> 8 & 255;
    out[2] = word >> 16 & 255;
    out[3] = word >> 24;
  }
  luaL_pushresultsize(&b, 4 * n);
  return 1;
}

/* Pushes a copy with other dimensions of the same number of elements. */
static int copy(lua_State *L, neap_dtype kind, int ranks, const size_t *dims) {
  neap_tensor *to = nb_tensor_new(L, kind, ranks, dims);
  const float *data = neap_tensor_data(nb_tensor(L, 1));
  if (neap_tensor_size(to))
    memcpy(neap_tensor_data(to), data, neap_tensor_size(to) * sizeof *data);
  return 1;
}

/* t:clone() */
static int clone(lua_State *L) {
  neap_tensor *t = nb_tensor(L, 1);
  size_t dims[NEAP_MAX_RANK];
  int ranks = get_dims(t, dims);
  return copy(L, neap_tensor_dtype(t), ranks, dims);
}

/* t:reshape(dims) -> a copy */
static int reshape(lua_State *L) {
  neap_tensor *t = nb_tensor(L, 1);
  size_t dims[NEAP_MAX_RANK], n = 1;
  int ranks = nb_dims(L, 2, 0, dims);
  bool fits = true;
  for (int i = 0; i < ranks; i++)
    fits = fits && !__builtin_mul_overflow(n, dims[i], &n);
  if (!fits || n != neap_tensor_size(t))
    return nb_raise(L, "reshape: %s does not fit %s", nb_push_shape(L, t),
                    push_shape(L, neap_tensor_dtype(t), ranks, dims));
  return copy(L, neap_tensor_dtype(t), ranks, dims);
}

/* t:fill(number) -> t */
static int fill(lua_State *L) {
  neap_tensor *t = nb_tensor(L, 1);
  size_t n = neap_tensor_size(t);
  nb_number(L, 2);
  for (size_t i = 0; i < n; i++) {
    const char *expected = store(L, 2, t, i);
    if (expected)
      return nb_raise_type(L, 2, expected);
  }
  lua_settop(L, 1);
  return 1;
}

/* t[i]: a number, or a view of part i; nil one past the end, where ipairs ends; t.name: a method */
static int lookup(lua_State *L) {
  if (lua_type(L, 2) != LUA_TNUMBER) {
    lua_settop(L, 2);
    lua_gettable(L, lua_upvalueindex(1));
    return 1;
  }
  neap_tensor *t = nb_tensor(L, 1);
  int ranks = neap_tensor_rank(t);
  if (ranks == 0)
    return nb_raise(L, "tensor: a tensor of rank 0 has no index; item() gives its number");
  if (nb_integer(L, 2) == (lua_Integer)neap_tensor_dim(t, 0) + 1)
    return 0;
  size_t i = position(L, 2, t, 0);
  if (ranks == 1) {
    push_element(L, t, i);
    return 1;
  }
  void **box = nb_box(L, &nb_tensor_type);
  neap_tensor *part;
  nb_check(L, neap_tensor_part(&part, nb_tensor(L, 1), i));
  *box = part;
  return 1;
}

/* t[i] = number, for rank 1 */
static int newindex(lua_State *L) {
  neap_tensor *t = nb_tensor(L, 1);
  if (lua_type(L, 2) != LUA_TNUMBER)
    return nb_raise(L, "tensor: cannot set field %s", luaL_tolstring(L, 2, NULL));
  if (neap_tensor_rank(t) != 1)
    return nb_raise(L, "tensor: t[i] = number needs rank 1, came %s; use set",
                    nb_push_shape(L, t));
  const char *expected = store(L, 3, t, position(L, 2, t, 0));
  if (expected)
    return nb_raise(L, "tensor: expected %s, came %s", expected, nb_push_came(L, 3));
  return 0;
}

/* #t: the first dimension */
static int length(lua_State *L) {
  neap_tensor *t = nb_tensor(L, 1);
  if (neap_tensor_rank(t) == 0)
    return nb_raise(L, "tensor: a tensor of rank 0 has no length");
  lua_pushinteger(L, (lua_Integer)neap_tensor_dim(t, 0));
  return 1;
}

static int tostring(lua_State *L) {
  void **box = luaL_testudata(L, 1, nb_tensor_type.name);
  if (!box)
    return nb_raise_type(L, 1, nb_tensor_type.label);
  if (*box)
    nb_push_shape(L, *box);
  else
    lua_pushliteral(L, "tensor (closed)");
  return 1;
}

/* top(x, k) -> ids, from 0, and values [R,k] of the k largest of each row of x [R,V]; -1 and
** -infinity where there are no more */
static int top(lua_State *L) {
  neap_tensor *x = nb_tensor_of(L, 1, NEAP_F32);
  if (neap_tensor_rank(x) != 2)
    return nb_raise_argument(L, 1, lua_pushfstring(L, "[R,V] expected, got %s",
                                                   nb_push_shape(L, x)));
  size_t dims[2] = {neap_tensor_dim(x, 0), 0};
  dims[1] = (size_t)nb_integer_in(L, 2, 0, (lua_Integer)neap_tensor_dim(x, 1));
  lua_settop(L, 1);
  nb_tensor_new(L, NEAP_I32, 2, dims);
  nb_tensor_new(L, NEAP_F32, 2, dims);
  nb_check(L, neap_tensor_top(nb_tensor(L, 2), nb_tensor(L, 3), nb_tensor(L, 1)));
  return 2;
}

/* draw(x, temperature, top_k or nil, top_p or nil, random) -> ids, from 0, [R]; random: a list of R
** numbers from 0 to below 1; -1 where nothing can be drawn */
static int draw(lua_State *L) {
  neap_tensor *x = nb_tensor_of(L, 1, NEAP_F32);
  if (neap_tensor_rank(x) != 2)
    return nb_raise_argument(L, 1, lua_pushfstring(L, "[R,V] expected, got %s",
                                                   nb_push_shape(L, x)));
  size_t rows = neap_tensor_dim(x, 0);
  double temperature = nb_number(L, 2), top_p = lua_isnoneornil(L, 4) ? 1 : nb_number(L, 4);
  size_t top_k = lua_isnoneornil(L, 3) ? 0 : (size_t)nb_integer_in(L, 3, 1, INT32_MAX);
  if (!lua_istable(L, 5))
    return nb_raise_type(L, 5, "table of numbers");
  if (lua_rawlen(L, 5) != rows)
    return nb_raise_argument(L, 5, lua_pushfstring(L, "%I numbers expected, got %I",
                                                   (LUAI_UACINT)rows,
                                                   (LUAI_UACINT)lua_rawlen(L, 5)));
  lua_settop(L, 5);
  double *random = lua_newuserdatauv(L, (rows + 1) * sizeof *random, 0);
  for (size_t r = 0; r < rows; r++) {
    if (lua_rawgeti(L, 5, (lua_Integer)r + 1) != LUA_TNUMBER)
      return nb_raise_argument(L, 5, "numbers expected");
    random[r] = lua_tonumber(L, -1);
    lua_pop(L, 1);
  }
  nb_tensor_new(L, NEAP_I32, 1, &rows);
  nb_check(L, neap_tensor_draw(nb_tensor(L, 7), nb_tensor(L, 1), temperature, top_k, top_p, random));
  return 1;
}

static const luaL_Reg methods[] = {
  {"shape", shape}, {"rank", rank}, {"size", size}, {"dtype", dtype}, {"get", get},
  {"set", set}, {"item", item}, {"totable", totable}, {"tobytes", tobytes}, {"clone", clone},
  {"reshape", reshape}, {"fill", fill}, {NULL, NULL},
};

static const luaL_Reg meta[] = {
  {"__newindex", newindex}, {"__len", length}, {"__tostring", tostring}, {NULL, NULL},
};

static const luaL_Reg functions[] = {
  {"tensor", tensor}, {"zeros", zeros}, {"tensor_from_string", tensor_from_string},
  {"top", top}, {"draw", draw}, {NULL, NULL},
};

void nb_open_tensor(lua_State *L) {
  nb_type_new(L, &nb_tensor_type, methods, meta);
  lua_getfield(L, -1, "methods");
  lua_pushcclosure(L, lookup, 1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
