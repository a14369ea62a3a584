/*
** What keeps a corpus out of Lua tables: growable buffers, and the gathering of batches.
** Sequences lie one after the other in one tensor; offsets [n+1], from 0, say where each begins.
*/
#include "core.h"

#include <limits.h>
#include <math.h>
#include <string.h>

/* ---- buffers: neap.ints, neap.floats ---- */

/* The elements lie in memory of Lua's allocator, freed by __gc. Scripts cannot reach __gc, so a
** buffer never shrinks while it is in use. */
typedef struct buffer {
  size_t used, room;
  void *data; /* int32_t or float */
} buffer;

#define INTS "neap.ints"
#define FLOATS "neap.floats"

static int make(lua_State *L, const char *name) {
  buffer *b = lua_newuserdatauv(L, sizeof *b, 0);
  *b = (buffer){0, 0, NULL};
  luaL_setmetatable(L, name);
  return 1;
}

/* ints() */
static int ints(lua_State *L) { return make(L, INTS); }
/* floats() */
static int floats(lua_State *L) { return make(L, FLOATS); }

/* The buffer at arg; its dtype. */
static buffer *check(lua_State *L, int arg, neap_dtype *dtype) {
  buffer *b = luaL_testudata(L, arg, INTS);
  *dtype = b ? NEAP_I32 : NEAP_F32;
  if (!b)
    b = luaL_testudata(L, arg, FLOATS);
  if (!b)
    nb_raise_type(L, arg, "ints or floats");
  return b;
}

static void resize(lua_State *L, buffer *b, size_t room) {
  void *ud;
  lua_Alloc alloc = lua_getallocf(L, &ud);
  void *data = alloc(ud, b->data, b->room * sizeof(float), room * sizeof(float));
  if (!data && room)
    nb_raise(L, "buffer: no memory for %I elements", (LUAI_UACINT)room);
  b->data = data;
  b->room = room;
}

static int collect(lua_State *L) {
  buffer *b = lua_touserdata(L, 1);
  resize(L, b, b->used = 0);
  return 0;
}

/* Makes room for n more. */
static void reserve(lua_State *L, buffer *b, size_t n) {
  if (n <= b->room - b->used)
    return;
  if (n > PTRDIFF_MAX / 8 - b->room)
    nb_raise(L, "buffer: too many elements");
  nb_outside(L, (b->room / 2 + n) * sizeof(float)); /* first: a finalizer may push to b */
  size_t room = b->room + b->room / 2 + 16;
  resize(L, b, room < b->used + n ? b->used + n : room);
}

/* b:push(number, ...) -> b */
static int push(lua_State *L) {
  neap_dtype dtype;
  buffer *b = check(L, 1, &dtype);
  int n = lua_gettop(L) - 1;
  reserve(L, b, (size_t)n);
  for (int i = 0; i < n; i++)
    if (dtype == NEAP_I32)
      ((int32_t *)b->data)[b->used + (size_t)i] =
        (int32_t)nb_integer_in(L, 2 + i, INT32_MIN, INT32_MAX);
    else
      ((float *)b->data)[b->used + (size_t)i] = (float)nb_number(L, 2 + i);
  b->used += (size_t)n;
  lua_settop(L, 1);
  return 1;
}

/* b:push_bytes(string, scale) -> b: the value of each byte, 0..255, times scale (1) */
static int push_bytes(lua_State *L) {
  neap_dtype dtype;
  buffer *b = check(L, 1, &dtype);
  size_t n;
  const unsigned char *s = (const unsigned char *)nb_string(L, 2, &n);
  double scale = lua_isnoneornil(L, 3) ? 1 : nb_number(L, 3);
  if (dtype == NEAP_I32 && scale != 1)
    return nb_raise(L, "push_bytes: ints take bytes as they are, without a scale");
  reserve(L, b, n);
  for (size_t i = 0; i < n; i++)
    if (dtype == NEAP_I32)
      ((int32_t *)b->data)[b->used + i] = s[i];
    else
      ((float *)b->data)[b->used + i] = (float)(s[i] * scale);
  b->used += n;
  lua_settop(L, 1);
  return 1;
}

/* The value of a little-endian sample, -1 to 1. */
static double sample(const unsigned char *s, int kind) {
  switch (kind) {
    case 0: return (s[0] - 128) / 128.0;
    case 1: return (int16_t)(s[0] | s[1] << 8) / 32768.0;
    case 2: return (int32_t)((uint32_t)s[0] << 8 | (uint32_t)s[1] << 16 | (uint32_t)s[2] << 24) /
                   2147483648.0;
    case 3: return (int32_t)(s[0] | (uint32_t)s[1] << 8 | (uint32_t)s[2] << 16 |
                             (uint32_t)s[3] << 24) / 2147483648.0;
  }
  uint64_t bits = 0;
  for (int i = kind == 4 ? 4 : 8; i-- > 0;)
    bits = bits << 8 | s[i];
  float f;
  double d;
  uint32_t low = (uint32_t)bits;
  memcpy(&f, &low, sizeof f);
  memcpy(&d, &bits, sizeof d);
  return kind == 4 ? (double)f : d;
}

/*
** floats:push_pcm(string, kind, channels, channel) -> b | nil, frame
** Frames of sound, one sample for each channel, as one number each: the mean of the channels, or
** that of one. kind: "u8", "s16", "s24", "s32", "f32", "f64". nil and the number of the frame, from
** 1, that is not finite.
*/
static int push_pcm(lua_State *L) {
  static const char *const kinds[] = {"u8", "s16", "s24", "s32", "f32", "f64", NULL};
  static const size_t sizes[] = {1, 2, 3, 4, 4, 8};
  neap_dtype dtype;
  buffer *b = check(L, 1, &dtype);
  size_t length;
  const unsigned char *s = (const unsigned char *)nb_string(L, 2, &length);
  int kind = nb_choice(L, 3, NULL, kinds);
  size_t channels = (size_t)nb_integer_in(L, 4, 1, INT_MAX), size = sizes[kind];
  size_t channel = 0; /* all */
  if (!lua_isnoneornil(L, 5))
    channel = (size_t)nb_integer_in(L, 5, 1, (lua_Integer)channels);
  size_t frames = length / size / channels;
  if (dtype != NEAP_F32)
    return nb_raise_type(L, 1, FLOATS);
  if (length != frames * channels * size)
    return nb_raise(L, "push_pcm: %I bytes are not whole frames of %I", (LUAI_UACINT)length,
                    (LUAI_UACINT)(channels * size));
  reserve(L, b, frames);
  float *to = (float *)b->data + b->used;
  for (size_t i = 0; i < frames; i++) {
    double sum = 0;
    for (size_t c = 0; c < channels; c++, s += size)
      if (channel == 0 || c + 1 == channel)
        sum += sample(s, kind);
    to[i] = (float)(channel ? sum : sum / (double)channels);
    if (!(to[i] - to[i] == 0)) {
      lua_pushnil(L);
      lua_pushinteger(L, (lua_Integer)i + 1);
      return 2;
    }
  }
  b->used += frames;
  lua_settop(L, 1);
  return 1;
}

/* b:append(source, from, to) -> b: elements from..to (all) of a buffer or tensor of its kind */
static int append(lua_State *L) {
  neap_dtype dtype, kind;
  buffer *b = check(L, 1, &dtype), *other = NULL;
  size_t size;
  if (luaL_testudata(L, 2, nb_tensor_type.name)) {
    size = neap_tensor_size(nb_tensor_of(L, 2, dtype));
  } else {
    other = check(L, 2, &kind);
    if (kind != dtype)
      return nb_raise_type(L, 2, dtype == NEAP_I32 ? INTS : FLOATS);
    size = other->used;
  }
  lua_Integer from = 1, to = (lua_Integer)size;
  if (!lua_isnoneornil(L, 3))
    from = nb_integer_in(L, 3, 1, to + 1);
  if (!lua_isnoneornil(L, 4))
    to = nb_integer_in(L, 4, from - 1, to);
  size_t n = (size_t)(to - from + 1);
  reserve(L, b, n);
  const float *data = other ? other->data : neap_tensor_data(nb_tensor(L, 2));
  if (n)
    memcpy((float *)b->data + b->used, data + from - 1, n * sizeof *data);
  b->used += n;
  lua_settop(L, 1);
  return 1;
}

/* b:tensor(dims) -> a tensor of its elements, [#b] or of the given dimensions */
static int tensor(lua_State *L) {
  neap_dtype dtype;
  buffer *b = check(L, 1, &dtype);
  size_t dims[NEAP_MAX_RANK] = {b->used};
  int rank = lua_isnoneornil(L, 2) ? 1 : nb_dims(L, 2, 0, dims);
  neap_tensor *t = nb_tensor_new(L, dtype, rank, dims);
  if (neap_tensor_size(t) != b->used)
    return nb_raise(L, "tensor: %I elements do not make %s", (LUAI_UACINT)b->used,
                    nb_push_shape(L, t));
  if (b->used)
    memcpy(neap_tensor_data(t), b->data, b->used * sizeof(float));
  return 1;
}

/* b[i], b.name */
static int lookup(lua_State *L) {
  if (lua_type(L, 2) != LUA_TNUMBER) {
    lua_settop(L, 2);
    lua_gettable(L, lua_upvalueindex(1));
    return 1;
  }
  neap_dtype dtype;
  buffer *b = check(L, 1, &dtype);
  lua_Integer i = nb_integer(L, 2);
  if (i < 1 || i > (lua_Integer)b->used)
    return nb_raise(L, "%s: index %I is out of 1..%I", dtype == NEAP_I32 ? "ints" : "floats",
                    (LUAI_UACINT)i, (LUAI_UACINT)b->used);
  if (dtype == NEAP_I32)
    lua_pushinteger(L, ((const int32_t *)b->data)[i - 1]);
  else
    lua_pushnumber(L, (lua_Number)((const float *)b->data)[i - 1]);
  return 1;
}

/* #b */
static int length(lua_State *L) {
  neap_dtype dtype;
  lua_pushinteger(L, (lua_Integer)check(L, 1, &dtype)->used);
  return 1;
}

/* ---- gathering ---- */

/* Where the sequences asked for begin in the data and how many rows each has. */
typedef struct span {
  size_t from, rows;
} span;

/* Sequence number i (from 0) of the order at arg: a table or an i32 tensor, numbers from 1. */
static size_t order_at(lua_State *L, int arg, size_t i, size_t sequences) {
  lua_Integer s;
  int whole = 1;
  if (lua_istable(L, arg)) {
    lua_rawgeti(L, arg, (lua_Integer)i + 1);
    s = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &whole) : 0;
    lua_pop(L, 1);
  } else {
    s = ((const int32_t *)neap_tensor_data(nb_tensor(L, arg)))[i];
  }
  if (!whole || s < 1 || s > (lua_Integer)sequences)
    nb_raise(L, "gather: order[%I]: expected a sequence number in 1..%I, came %I",
             (LUAI_UACINT)i + 1, (LUAI_UACINT)sequences, (LUAI_UACINT)s);
  return (size_t)s - 1;
}

static size_t order_length(lua_State *L, int arg) {
  if (lua_istable(L, arg))
    return lua_rawlen(L, arg);
  neap_tensor *t = nb_tensor_of(L, arg, NEAP_I32);
  if (neap_tensor_rank(t) != 1)
    nb_raise_argument(L, arg, "rank 1 expected");
  return neap_tensor_size(t);
}

/* Sequence s as offsets have it, within rows 0..rows-1. */
static span span_at(lua_State *L, const int32_t *offsets, size_t s, size_t rows) {
  int32_t from = offsets[s], to = offsets[s + 1];
  if (from < 0 || to < from || (size_t)to > rows)
    nb_raise(L, "gather: offsets of sequence %I are %d..%d in %I rows", (LUAI_UACINT)s + 1,
             (int)from, (int)to, (LUAI_UACINT)rows);
  return (span){(size_t)from, (size_t)(to - from)};
}

static size_t rows_of(lua_State *L, int arg) {
  neap_tensor *t = nb_tensor(L, arg);
  if (neap_tensor_rank(t) == 0)
    nb_raise_argument(L, arg, "rank 1 or more expected");
  return neap_tensor_dim(t, 0);
}

static const int32_t *offsets_of(lua_State *L, int arg, size_t *sequences) {
  neap_tensor *t = nb_tensor_of(L, arg, NEAP_I32);
  if (neap_tensor_rank(t) != 1 || neap_tensor_size(t) == 0)
    nb_raise_argument(L, arg, lua_pushfstring(L, "offsets [n+1] expected, got %s",
                                              nb_push_shape(L, t)));
  *sequences = neap_tensor_size(t) - 1;
  return neap_tensor_data(t);
}

static span *push_spans(lua_State *L, size_t n) {
  if (n > PTRDIFF_MAX / sizeof(span))
    nb_raise(L, "gather: too many sequences");
  return lua_newuserdatauv(L, n * sizeof(span) + 1, 0);
}

/* Pushes the lengths of n spans as an i32 tensor. */
static void push_lengths(lua_State *L, const span *spans, size_t n) {
  int32_t *lengths = neap_tensor_data(nb_tensor_new(L, NEAP_I32, 1, &n));
  for (size_t i = 0; i < n; i++)
    lengths[i] = (int32_t)spans[i].rows;
}

/* Pushes the rows that n spans (checked against it) name of the tensor at arg. */
static void push_rows(lua_State *L, int arg, const span *spans, size_t n) {
  neap_tensor *data = nb_tensor(L, arg);
  size_t dims[NEAP_MAX_RANK], rows = 0, width = 1;
  int rank = neap_tensor_rank(data);
  for (int i = 1; i < rank; i++) {
    dims[i] = neap_tensor_dim(data, i);
    width *= dims[i];
  }
  for (size_t i = 0; i < n; i++)
    if (__builtin_add_overflow(rows, spans[i].rows, &rows) || rows > INT32_MAX)
      nb_raise(L, "gather: more than 2^31-1 rows");
  dims[0] = rows;
  float *to = neap_tensor_data(nb_tensor_new(L, neap_tensor_dtype(data), rank, dims));
  const float *from = neap_tensor_data(nb_tensor(L, arg));
  for (size_t i = 0; i < n; i++) {
    size_t count = spans[i].rows * width;
    if (count)
      memcpy(to, from + spans[i].from * width, count * sizeof *to);
    to += count;
  }
}

static size_t most(lua_State *L, int arg) {
  return lua_isnoneornil(L, arg) ? SIZE_MAX : (size_t)nb_integer_in(L, arg, 0, INT32_MAX);
}

/*
** gather_rows(data, offsets, order, most) -> data, lengths
** The sequences of data [rows,...] that order names, one after the other, each cut to its first
** `most` rows; lengths i32 [#order]. offsets nil: each row is a sequence.
*/
static int gather_rows(lua_State *L) {
  lua_settop(L, 4);
  size_t rows = rows_of(L, 1), sequences = rows, n = order_length(L, 3), cut = most(L, 4);
  bool plain = lua_isnil(L, 2);
  span *spans = push_spans(L, n);
  const int32_t *offsets = plain ? NULL : offsets_of(L, 2, &sequences);
  for (size_t i = 0; i < n; i++) {
    size_t s = order_at(L, 3, i, sequences);
    spans[i] = plain ? (span){s, 1} : span_at(L, offsets, s, rows);
    if (spans[i].rows > cut)
      spans[i].rows = cut;
  }
  push_rows(L, 1, spans, n);
  push_lengths(L, spans, n);
  return 2;
}

/*
** gather_nested(data, inner, outer, order, most) -> data, inner lengths, outer lengths
** Sequences of sequences (the characters of each word): outer offsets [n+1] count inner sequences,
** inner offsets [words+1] count rows. Inner lengths are those of all words, in order.
*/
static int gather_nested(lua_State *L) {
  lua_settop(L, 5);
  size_t rows = rows_of(L, 1), words, sequences, n = order_length(L, 4), cut = most(L, 5);
  span *outer = push_spans(L, n);
  offsets_of(L, 2, &words);
  const int32_t *offsets = offsets_of(L, 3, &sequences);
  size_t count = 0;
  for (size_t i = 0; i < n; i++) {
    outer[i] = span_at(L, offsets, order_at(L, 4, i, sequences), words);
    if (outer[i].rows > cut)
      outer[i].rows = cut;
    if (__builtin_add_overflow(count, outer[i].rows, &count))
      return nb_raise(L, "gather: too many sequences");
  }
  span *inner = push_spans(L, count);
  offsets = offsets_of(L, 2, &words);
  size_t k = 0;
  for (size_t i = 0; i < n; i++)
    for (size_t w = 0; w < outer[i].rows; w++)
      inner[k++] = span_at(L, offsets, outer[i].from + w, rows);
  push_rows(L, 1, inner, count);
  push_lengths(L, inner, count);
  push_lengths(L, outer, n);
  return 3;
}

/*
** columns(ids, batch, first, steps) -> i32 [steps,batch]
** ids [n] cut into `batch` contiguous columns of n // batch: steps first..first+steps-1 of each.
*/
static int columns(lua_State *L) {
  neap_tensor *ids = nb_tensor_of(L, 1, NEAP_I32);
  if (neap_tensor_rank(ids) != 1)
    return nb_raise_argument(L, 1, "rank 1 expected");
  lua_Integer batch = nb_integer_in(L, 2, 1, INT32_MAX);
  lua_Integer length_of = (lua_Integer)neap_tensor_size(ids) / batch;
  lua_Integer first = nb_integer_in(L, 3, 1, length_of + 1);
  lua_Integer steps = nb_integer_in(L, 4, 0, length_of - first + 1);
  size_t dims[2] = {(size_t)steps, (size_t)batch}, stride = (size_t)length_of;
  int32_t *out = neap_tensor_data(nb_tensor_new(L, NEAP_I32, 2, dims));
  const int32_t *in = (const int32_t *)neap_tensor_data(nb_tensor(L, 1)) + first - 1;
  for (size_t t = 0; t < dims[0]; t++)
    for (size_t b = 0; b < dims[1]; b++)
      *out++ = in[b * stride + t];
  return 1;
}

/*
** patches(data, rows, height, width, order) -> [steps,height*width]
** Pictures of `rows` rows of data [n*rows,columns], each cut into patches of height x width, in the
** order of reading, or as order says (numbers from 1, a table or i32 tensor, each once).
*/
static int patches(lua_State *L) {
  lua_settop(L, 5);
  neap_tensor *t = nb_tensor_of(L, 1, NEAP_F32);
  if (neap_tensor_rank(t) != 2)
    return nb_raise_argument(L, 1, "rank 2 expected");
  size_t all = neap_tensor_dim(t, 0), columns = neap_tensor_dim(t, 1);
  size_t rows = (size_t)nb_integer_in(L, 2, 1, INT32_MAX);
  size_t height = (size_t)nb_integer_in(L, 3, 1, INT32_MAX);
  size_t width = (size_t)nb_integer_in(L, 4, 1, INT32_MAX);
  if (all % rows || rows % height || columns % width)
    return nb_raise(L, "patches: %I x %I do not fill %I rows of pictures of %I x %I",
                    (LUAI_UACINT)height, (LUAI_UACINT)width, (LUAI_UACINT)all, (LUAI_UACINT)rows,
                    (LUAI_UACINT)columns);
  size_t across = columns / width, n = rows / height * across;
  uint32_t *from = lua_newuserdatauv(L, n * sizeof *from + 1, 0);
  bool *seen = lua_newuserdatauv(L, n + 1, 0);
  memset(seen, 0, n);
  if (!lua_isnil(L, 5) && order_length(L, 5) != n)
    return nb_raise(L, "patches: order: expected %I numbers, came %I", (LUAI_UACINT)n,
                    (LUAI_UACINT)order_length(L, 5));
  for (size_t i = 0; i < n; i++) {
    from[i] = lua_isnil(L, 5) ? (uint32_t)i : (uint32_t)order_at(L, 5, i, n);
    if (seen[from[i]])
      return nb_raise(L, "patches: order: %I comes twice", (LUAI_UACINT)from[i] + 1);
    seen[from[i]] = true;
  }
  size_t dims[2] = {all / rows * n, height * width};
  float *out = neap_tensor_data(nb_tensor_new(L, NEAP_F32, 2, dims));
  const float *in = neap_tensor_data(nb_tensor(L, 1));
  for (size_t p = 0; p < all / rows; p++)
    for (size_t i = 0; i < n; i++)
      for (size_t y = 0; y < height; y++, out += width) {
        size_t row = p * rows + from[i] / across * height + y;
        memcpy(out, in + row * columns + from[i] % across * width, width * sizeof *out);
      }
  return 1;
}

/* ---- ids ---- */

/* The integers at arg: ints or an i32 tensor. */
static const int32_t *integers(lua_State *L, int arg, size_t *n) {
  buffer *b = luaL_testudata(L, arg, INTS);
  neap_tensor *t = b ? NULL : nb_tensor_of(L, arg, NEAP_I32);
  *n = b ? b->used : neap_tensor_size(t);
  return b ? b->data : neap_tensor_data(t);
}

/* remap(ids, map) -> i32 [#ids]: map[id], ids from 0 */
static int remap(lua_State *L) {
  size_t n, now, size;
  integers(L, 1, &n);
  integers(L, 2, &size);
  int32_t *out = neap_tensor_data(nb_tensor_new(L, NEAP_I32, 1, &n));
  const int32_t *ids = integers(L, 1, &now), *map = integers(L, 2, &size);
  for (size_t i = 0; i < n; i++) {
    if (ids[i] < 0 || (size_t)ids[i] >= size)
      return nb_raise(L, "remap: id %d at element %I is not in 0..%I", (int)ids[i],
                      (LUAI_UACINT)i + 1, (LUAI_UACINT)size - 1);
    out[i] = map[ids[i]];
  }
  return 1;
}

/* count(ids, size) -> { how often 0, how often 1, ... }, a table of `size` */
static int count(lua_State *L) {
  size_t n;
  integers(L, 1, &n);
  lua_Integer size = nb_integer_in(L, 2, 0, INT32_MAX);
  size_t *counts = lua_newuserdatauv(L, (size_t)size * sizeof *counts + 1, 0);
  memset(counts, 0, (size_t)size * sizeof *counts);
  const int32_t *ids = integers(L, 1, &n);
  for (size_t i = 0; i < n; i++) {
    if (ids[i] < 0 || ids[i] >= size)
      return nb_raise(L, "count: id %d at element %I is not in 0..%I", (int)ids[i],
                      (LUAI_UACINT)i + 1, (LUAI_UACINT)size - 1);
    counts[ids[i]]++;
  }
  lua_createtable(L, (int)size, 0);
  for (lua_Integer i = 0; i < size; i++) {
    lua_pushinteger(L, (lua_Integer)counts[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* moments(data) -> { mean, .. }, { deviation, .. } of the columns of f32 [rows,width], rows > 0 */
static int moments(lua_State *L) {
  neap_tensor *t = nb_tensor_of(L, 1, NEAP_F32);
  if (neap_tensor_rank(t) != 2 || neap_tensor_size(t) == 0)
    return nb_raise_argument(L, 1, lua_pushfstring(L, "[rows,width] with rows expected, got %s",
                                                   nb_push_shape(L, t)));
  size_t rows = neap_tensor_dim(t, 0), width = neap_tensor_dim(t, 1);
  double *out = lua_newuserdatauv(L, 2 * width * sizeof *out, 0);
  memset(out, 0, 2 * width * sizeof *out);
  const float *x = neap_tensor_data(nb_tensor(L, 1));
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < width; j++)
      out[j] += (double)x[i * width + j];
  for (size_t j = 0; j < width; j++)
    out[j] /= (double)rows;
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < width; j++) {
      double d = (double)x[i * width + j] - out[j];
      out[width + j] += d * d;
    }
  for (int part = 0; part < 2; part++) {
    lua_createtable(L, (int)width, 0);
    for (size_t j = 0; j < width; j++) {
      lua_pushnumber(L, part ? sqrt(out[width + j] / (double)rows) : out[j]);
      lua_rawseti(L, -2, (lua_Integer)j + 1);
    }
  }
  return 2;
}

/* offsets(lengths) -> i32 [#lengths+1]: where each sequence begins, and where the last ends */
static int offsets(lua_State *L) {
  size_t n;
  integers(L, 1, &n);
  size_t dim = n + 1;
  int32_t *out = neap_tensor_data(nb_tensor_new(L, NEAP_I32, 1, &dim)), sum = 0;
  const int32_t *lengths = integers(L, 1, &n);
  for (size_t i = 0; i < dim - 1; i++) {
    out[i] = sum;
    if (lengths[i] < 0 || __builtin_add_overflow(sum, lengths[i], &sum))
      return nb_raise(L, "offsets: length %I is %d: expected 0 or more, and a sum below 2^31",
                      (LUAI_UACINT)i + 1, (int)lengths[i]);
  }
  out[dim - 1] = sum;
  return 1;
}

static const luaL_Reg methods[] = {
  {"push", push}, {"push_bytes", push_bytes}, {"push_pcm", push_pcm}, {"append", append},
  {"tensor", tensor}, {NULL, NULL},
};

static const luaL_Reg functions[] = {
  {"ints", ints}, {"floats", floats}, {"gather_rows", gather_rows},
  {"gather_nested", gather_nested}, {"columns", columns}, {"patches", patches},
  {"remap", remap}, {"count", count},
  {"offsets", offsets}, {"moments", moments}, {NULL, NULL},
};

static void open_buffer(lua_State *L, const char *name) {
  luaL_newmetatable(L, name);
  luaL_newlib(L, methods);
  lua_pushcclosure(L, lookup, 1);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, length);
  lua_setfield(L, -2, "__len");
  lua_pushcfunction(L, collect);
  lua_setfield(L, -2, "__gc");
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
}

void nb_open_data(lua_State *L) {
  open_buffer(L, INTS);
  open_buffer(L, FLOATS);
  luaL_setfuncs(L, functions, 0);
}
