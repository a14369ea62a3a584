/*
** What all parts share, and the module itself.
*/
#include "core.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Registry: the source prefix of the library's own Lua files, "@.../neap/". */
#define LIBRARY "neap.library"

/* ---- errors ---- */

/* The innermost Lua function that is not the library's own. */
static bool find_script(lua_State *L, lua_Debug *ar) {
  size_t n = 0;
  const char *library = lua_getfield(L, LUA_REGISTRYINDEX, LIBRARY) == LUA_TSTRING
                          ? lua_tolstring(L, -1, &n)
                          : NULL;
  bool found = false;
  for (int level = 1; !found && lua_getstack(L, level, ar); level++) {
    lua_getinfo(L, "Sl", ar);
    found = ar->currentline > 0 && !(library && strncmp(ar->source, library, n) == 0);
  }
  lua_pop(L, 1);
  return found;
}

void nb_where(lua_State *L) {
  lua_Debug ar;
  if (find_script(L, &ar))
    lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
  else
    lua_pushliteral(L, "");
}

const char *nb_push_came(lua_State *L, int index) {
  if (lua_type(L, index) == LUA_TSTRING)
    return lua_pushfstring(L, "\"%s\"", lua_tostring(L, index));
  if (lua_type(L, index) == LUA_TNUMBER || lua_type(L, index) == LUA_TBOOLEAN)
    return luaL_tolstring(L, index, NULL);
  if (luaL_getmetafield(L, index, "__name") == LUA_TSTRING)
    return lua_tostring(L, -1);
  return lua_pushstring(L, luaL_typename(L, index));
}

int nb_raise(lua_State *L, const char *format, ...) {
  va_list args;
  va_start(args, format);
  nb_where(L);
  lua_pushvfstring(L, format, args);
  va_end(args);
  lua_concat(L, 2);
  return lua_error(L);
}

int nb_raise_argument(lua_State *L, int arg, const char *problem) {
  lua_Debug ar;
  const char *name = "?";
  if (lua_getstack(L, 0, &ar)) {
    lua_getinfo(L, "n", &ar);
    if (ar.name)
      name = ar.name;
    if (strcmp(ar.namewhat, "method") == 0 && --arg == 0)
      return nb_raise(L, "calling '%s' on bad self (%s)", name, problem);
  }
  return nb_raise(L, "bad argument #%d to '%s' (%s)", arg, name, problem);
}

int nb_raise_type(lua_State *L, int arg, const char *expected) {
  const char *came = luaL_typename(L, arg);
  if (luaL_getmetafield(L, arg, "__name") == LUA_TSTRING)
    came = lua_tostring(L, -1);
  return nb_raise_argument(L, arg, lua_pushfstring(L, "%s expected, got %s", expected, came));
}

void nb_check(lua_State *L, neap_status status) {
  if (status != NEAP_OK)
    nb_raise(L, "%s", neap_errmsg());
}

int nb_result(lua_State *L, neap_status status) {
  if (status == NEAP_EIO || status == NEAP_EFORMAT) {
    luaL_pushfail(L);
    lua_pushstring(L, neap_errmsg());
    lua_pushstring(L, neap_status_name(status));
    return 3;
  }
  nb_check(L, status);
  return 1;
}

/* ---- arguments ---- */

lua_Number nb_number(lua_State *L, int arg) {
  if (lua_type(L, arg) != LUA_TNUMBER)
    nb_raise_type(L, arg, "number");
  return lua_tonumber(L, arg);
}

lua_Integer nb_integer(lua_State *L, int arg) {
  if (lua_type(L, arg) != LUA_TNUMBER)
    nb_raise_type(L, arg, "integer");
  int whole;
  lua_Integer i = lua_tointegerx(L, arg, &whole);
  if (!whole)
    nb_raise_argument(L, arg, "number has no integer representation");
  return i;
}

lua_Integer nb_integer_in(lua_State *L, int arg, lua_Integer low, lua_Integer high) {
  lua_Integer i = nb_integer(L, arg);
  if (i < low || i > high)
    nb_raise_argument(L, arg,
                      lua_pushfstring(L, "%I is out of %I..%I", (LUAI_UACINT)i, (LUAI_UACINT)low,
                                      (LUAI_UACINT)high));
  return i;
}

const char *nb_string(lua_State *L, int arg, size_t *length) {
  size_t n;
  if (lua_type(L, arg) != LUA_TSTRING)
    nb_raise_type(L, arg, "string");
  const char *s = lua_tolstring(L, arg, &n);
  if (length)
    *length = n;
  else if (strlen(s) != n) /* C would take the part before it for the whole */
    nb_raise_argument(L, arg, lua_pushfstring(L, "string without zero bytes expected, got \"%s\" "
                                              "and a zero byte", s));
  return s;
}

int nb_id(lua_State *L, int arg) { return (int)nb_integer_in(L, arg, -1, INT32_MAX); }

lua_Number nb_number_or(lua_State *L, int arg, lua_Number preset) {
  return lua_isnoneornil(L, arg) ? preset : nb_number(L, arg);
}

lua_Integer nb_integer_or(lua_State *L, int arg, lua_Integer preset) {
  return lua_isnoneornil(L, arg) ? preset : nb_integer(L, arg);
}

const char *nb_string_or(lua_State *L, int arg, const char *preset) {
  return lua_isnoneornil(L, arg) ? preset : nb_string(L, arg, NULL);
}

int nb_choice(lua_State *L, int arg, const char *preset, const char *const *names) {
  const char *name = preset ? nb_string_or(L, arg, preset) : nb_string(L, arg, NULL);
  for (int i = 0; names[i]; i++)
    if (strcmp(names[i], name) == 0)
      return i;
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int i = 0; names[i]; i++) {
    luaL_addstring(&b, i == 0 ? "" : names[i + 1] ? ", " : " or ");
    luaL_addstring(&b, names[i]);
  }
  luaL_pushresult(&b);
  return nb_raise_argument(L, arg, lua_pushfstring(L, "%s expected, got \"%s\"",
                                                   lua_tostring(L, -1), name));
}

void nb_table(lua_State *L, int arg) {
  if (!lua_istable(L, arg))
    nb_raise_type(L, arg, "table");
}

#define LONGEST_NAME 63

/* Levenshtein 1966; one row of the table is kept. */
static size_t distance(const char *a, size_t na, const char *b, size_t nb) {
  size_t row[LONGEST_NAME + 1];
  for (size_t j = 0; j <= nb; j++)
    row[j] = j;
  for (size_t i = 0; i < na; i++) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < nb; j++) {
      size_t best = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      if (row[j] + 1 < best)
        best = row[j] + 1;
      if (diagonal + 1 < best)
        best = diagonal + 1;
      row[j + 1] = best;
    }
  }
  return row[nb];
}

void nb_push_nearest(lua_State *L, const char *name, int names) {
  size_t length = strlen(name), best = length / 3 + 2;
  names = lua_absindex(L, names);
  lua_pushnil(L);
  for (lua_Integer i = 1; length <= LONGEST_NAME && lua_rawgeti(L, names, i) != LUA_TNIL; i++) {
    size_t n = 0;
    const char *other = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
    size_t d = other && n <= LONGEST_NAME ? distance(name, length, other, n) : best;
    if (d < best && d < length) {
      best = d;
      lua_replace(L, -2);
    } else {
      lua_pop(L, 1);
    }
  }
  if (length <= LONGEST_NAME)
    lua_pop(L, 1);
}

void nb_options(lua_State *L, int arg, const char *who, const char *const *names) {
  if (lua_isnoneornil(L, arg))
    return;
  if (!lua_istable(L, arg))
    nb_raise_type(L, arg, "table of options");
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      nb_raise(L, "%s: expected named options, came %s", who, luaL_tolstring(L, -2, NULL));
    const char *name = lua_tostring(L, -2);
    size_t n = 0;
    while (names[n] && strcmp(names[n], name) != 0)
      n++;
    if (names[n])
      continue;
    lua_newtable(L);
    for (n = 0; names[n]; n++) {
      lua_pushstring(L, names[n]);
      lua_rawseti(L, -2, (lua_Integer)n + 1);
    }
    nb_push_nearest(L, name, -1);
    if (lua_isnil(L, -1))
      nb_raise(L, "%s: unknown option \"%s\"", who, name);
    nb_raise(L, "%s: unknown option \"%s\"; did you mean \"%s\"?", who, name, lua_tostring(L, -1));
  }
}

/* Pushes the option; false if it is absent. */
static bool option(lua_State *L, int arg, const char *who, const char *name, int type,
                   const char *expected) {
  if (!lua_istable(L, arg) || lua_getfield(L, arg, name) == LUA_TNIL)
    return false;
  if (lua_type(L, -1) != type)
    nb_raise(L, "%s: option %s: expected %s, came %s", who, name, expected, luaL_typename(L, -1));
  return true;
}

double nb_option_number(lua_State *L, int arg, const char *who, const char *name, double preset) {
  int top = lua_gettop(L);
  if (option(L, arg, who, name, LUA_TNUMBER, "a number"))
    preset = lua_tonumber(L, -1);
  lua_settop(L, top);
  return preset;
}

lua_Integer nb_option_integer(lua_State *L, int arg, const char *who, const char *name,
                              lua_Integer preset) {
  int top = lua_gettop(L);
  if (option(L, arg, who, name, LUA_TNUMBER, "an integer")) {
    int whole;
    preset = lua_tointegerx(L, -1, &whole);
    if (!whole)
      nb_raise(L, "%s: option %s: expected an integer, came %f", who, name, lua_tonumber(L, -1));
  }
  lua_settop(L, top);
  return preset;
}

bool nb_option_boolean(lua_State *L, int arg, const char *who, const char *name, bool preset) {
  int top = lua_gettop(L);
  if (option(L, arg, who, name, LUA_TBOOLEAN, "true or false"))
    preset = lua_toboolean(L, -1);
  lua_settop(L, top);
  return preset;
}

const char *nb_option_string(lua_State *L, int arg, const char *who, const char *name,
                             const char *preset) {
  int top = lua_gettop(L);
  if (option(L, arg, who, name, LUA_TSTRING, "a string"))
    preset = lua_tostring(L, -1);
  lua_settop(L, top);
  return preset;
}

/* ---- boxes ---- */

/* A box says itself what is in it: to compare pointers is quicker than to look metatables up by
** name, and there are calls that take no longer than that. */
typedef struct box {
  void *object;
  const nb_type *type;
} box;

static box *box_of(lua_State *L, int arg, const nb_type *type) {
  box *b = lua_touserdata(L, arg);
  return b && lua_type(L, arg) == LUA_TUSERDATA && lua_rawlen(L, arg) == sizeof *b &&
                 b->type == type
             ? b
             : NULL;
}

/* __gc, __close and the method close of every type; the type is the upvalue. */
static int close_box(lua_State *L) {
  const nb_type *type = lua_touserdata(L, lua_upvalueindex(1));
  box *b = box_of(L, 1, type);
  if (!b)
    return nb_raise_type(L, 1, type->label);
  void *object = b->object;
  b->object = NULL;
  if (object)
    type->release(object);
  return 0;
}

void nb_type_new(lua_State *L, const nb_type *type, const luaL_Reg *methods, const luaL_Reg *meta) {
  luaL_newmetatable(L, type->name);
  lua_newtable(L);
  luaL_setfuncs(L, methods, 0);
  lua_pushlightuserdata(L, (void *)type);
  lua_pushcclosure(L, close_box, 1);
  lua_pushvalue(L, -1);
  lua_setfield(L, -4, "__gc");
  lua_pushvalue(L, -1);
  lua_setfield(L, -4, "__close");
  lua_setfield(L, -2, "close");
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "__index");
  lua_setfield(L, -2, "methods");
  if (meta)
    luaL_setfuncs(L, meta, 0);
}

void **nb_box(lua_State *L, const nb_type *type) {
  box *b = lua_newuserdatauv(L, sizeof *b, 1);
  *b = (box){NULL, type};
  luaL_setmetatable(L, type->name);
  return &b->object;
}

void *nb_object(lua_State *L, int arg, const nb_type *type) {
  box *b = box_of(L, arg, type);
  if (!b)
    nb_raise_type(L, arg, type->label);
  else if (!b->object)
    nb_raise_argument(L, arg, lua_pushfstring(L, "%s is closed", type->label));
  return b ? b->object : NULL;
}

void *nb_object_or_null(lua_State *L, int arg, const nb_type *type) {
  return lua_isnoneornil(L, arg) ? NULL : nb_object(L, arg, type);
}

/* The least that was alive outside since the last whole collection here; and how much there may be
** at least before the next. */
static _Atomic size_t settled;
#define FEW ((size_t)64 << 20)

/* A step of the collector is one of the young in its generational mode, which lua has from the
** start: what has become old, a model, would stay while Lua's own memory does not grow. So all is
** collected whenever twice as much is alive outside as after the last time. */
void nb_outside(lua_State *L, size_t bytes) {
  size_t kb = bytes / 1024 + 1, live = neap_memory_live();
  if (lua_gc(L, LUA_GCISRUNNING) <= 0) return; /* stopped; -1: in a finalizer */
  if (live < settled) settled = live;
  if (live / 2 > (settled > FEW ? settled : FEW)) {
    lua_gc(L, LUA_GCCOLLECT);
    settled = neap_memory_live();
  } else {
    lua_gc(L, LUA_GCSTEP, kb < 1 << 30 ? (int)kb : 1 << 30);
  }
}

void nb_outside_since(lua_State *L, size_t before) {
  size_t now = neap_memory_live();
  if (now > before) nb_outside(L, now - before); /* less: another thread has let go of some */
}

/* ---- the module ---- */

/* library(prefix): Lua files whose source begins so are the library's, not the script's. */
static int library(lua_State *L) {
  nb_string(L, 1, NULL);
  lua_settop(L, 1);
  lua_setfield(L, LUA_REGISTRYINDEX, LIBRARY);
  return 0;
}

/* where() -> "file.lua:14", the script's line that is now being run; nil if there is none. */
static int where(lua_State *L) {
  lua_Debug ar;
  if (find_script(L, &ar))
    lua_pushfstring(L, "%s:%d", ar.short_src, ar.currentline);
  else
    lua_pushnil(L);
  return 1;
}

/* nearest(name, names) -> the one of the list that is nearest to name; nil if none is near. */
static int nearest(lua_State *L) {
  const char *name = nb_string(L, 1, NULL);
  if (!lua_istable(L, 2))
    return nb_raise_type(L, 2, "table");
  nb_push_nearest(L, name, 2);
  return 1;
}

static int version(lua_State *L) {
  lua_pushstring(L, neap_version());
  return 1;
}

static int cpu_level(lua_State *L) {
  lua_pushstring(L, neap_cpu_level());
  return 1;
}

static int blas_core(lua_State *L) {
  lua_pushstring(L, neap_blas_core());
  return 1;
}

static int cpu_select(lua_State *L) {
  nb_check(L, neap_cpu_select(nb_string(L, 1, NULL)));
  return 0;
}

static int blas_threads(lua_State *L) {
  neap_blas_threads((int)nb_integer_in(L, 1, 1, 1024));
  return 0;
}

static int memory_live(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)neap_memory_live());
  return 1;
}

/* peak(anew) -> bytes that the process had in memory at most: since it began, or since anew was true,
** when what was freed goes back to the system first; nil where the system does not tell. */
static int peak(lua_State *L) {
  char line[128];
  long kb = -1;
  if (lua_toboolean(L, 1)) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
    FILE *f = fopen("/proc/self/clear_refs", "w");
    bool began = f && fputs("5", f) >= 0;
    if (f) began &= fclose(f) == 0;
    if (!began) return 0;
  }
  FILE *f = fopen("/proc/self/status", "r");
  while (f && kb < 0 && fgets(line, sizeof line, f)) sscanf(line, "VmHWM: %ld", &kb);
  if (f) fclose(f);
  if (kb < 0) return 0;
  lua_pushinteger(L, (lua_Integer)kb * 1024);
  return 1;
}

/* clock() -> seconds that have passed since some moment, for measuring time */
double nb_clock(void) {
  struct timespec now = {0, 0};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int seconds(lua_State *L) {
  lua_pushnumber(L, nb_clock());
  return 1;
}

/* terminal() -> does standard error go to a terminal? */
static int terminal(lua_State *L) {
  lua_pushboolean(L, isatty(STDERR_FILENO));
  return 1;
}

static const luaL_Reg functions[] = {
  {"library", library}, {"where", where}, {"nearest", nearest}, {"version", version},
  {"cpu_level", cpu_level}, {"blas_core", blas_core}, {"cpu_select", cpu_select}, {"blas_threads", blas_threads},
  {"memory_live", memory_live}, {"peak", peak}, {"clock", seconds}, {"terminal", terminal}, {NULL, NULL},
};

static void (*const parts[])(lua_State *L) = {
  nb_open_tensor,
  nb_open_data,
  nb_open_sound,
  nb_open_program,
  nb_open_run,
  nb_open_model,
};

NEAP_API int luaopen_neap_core(lua_State *L);
NEAP_API int luaopen_neap_core(lua_State *L) {
  luaL_checkversion(L);
  luaL_newlib(L, functions);
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    parts[i](L);
  return 1;
}
