/*
** Sound files by way of libsndfile, where the system has it: looked for when first asked for, so
** that nothing depends on it. Declared here are the parts of its interface that are used.
*/
#include "core.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

typedef struct sound_info { /* SF_INFO */
  int64_t frames;
  int rate, channels, format, sections, seekable;
} sound_info;

enum { READ = 0x10 }; /* SFM_READ */

static struct library {
  void *handle;
  void *(*open)(const char *path, int mode, sound_info *info);     /* sf_open */
  int64_t (*read)(void *file, float *to, int64_t frames);          /* sf_readf_float */
  int (*close)(void *file);                                        /* sf_close */
  const char *(*error)(void *file);                                /* sf_strerror */
} library;

static bool find(void *to, void *handle, const char *name) {
  void *f = dlsym(handle, name);
  memcpy(to, &f, sizeof f);
  return f != NULL;
}

static void look(void) {
  struct library l = {dlopen("libsndfile.so.1", RTLD_NOW | RTLD_LOCAL), NULL, NULL, NULL, NULL};
  if (!l.handle)
    return;
  if (find(&l.open, l.handle, "sf_open") && find(&l.read, l.handle, "sf_readf_float") &&
      find(&l.close, l.handle, "sf_close") && find(&l.error, l.handle, "sf_strerror"))
    library = l;
  else
    dlclose(l.handle);
}

static bool load(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, look);
  return library.handle != NULL;
}

/* has_sound_library() -> can sound() read anything? */
static int has_library(lua_State *L) {
  lua_pushboolean(L, load());
  return 1;
}

/* An open file: closed by __gc and __close, whatever happens. */
#define SOUND "neap.sound"
typedef struct sound {
  void *file;
  sound_info info;
} sound;

static int close_sound(lua_State *L) {
  sound *s = luaL_checkudata(L, 1, SOUND);
  if (s->file)
    library.close(s->file);
  s->file = NULL;
  return 0;
}

/* sound(path) -> file, rate, channels | nil, message */
static int open_sound(lua_State *L) {
  const char *path = nb_string(L, 1, NULL);
  if (!load())
    return nb_raise(L, "sound: the system has no libsndfile");
  sound *s = lua_newuserdatauv(L, sizeof *s, 0);
  memset(s, 0, sizeof *s);
  luaL_setmetatable(L, SOUND);
  s->file = library.open(path, READ, &s->info);
  if (!s->file) {
    lua_pushnil(L);
    lua_pushstring(L, library.error(NULL));
    return 2;
  }
  lua_pushinteger(L, s->info.rate);
  lua_pushinteger(L, s->info.channels);
  return 3;
}

/* file:read() -> the next frames as a string of floats, little-endian; nil past the last */
static int read_sound(lua_State *L) {
  sound *s = luaL_checkudata(L, 1, SOUND);
  enum { SAMPLES = 1 << 16 };
  if (!s->file || s->info.channels < 1 || s->info.channels > SAMPLES)
    return 0;
  luaL_Buffer b;
  float *to = (float *)(void *)luaL_buffinitsize(L, &b, SAMPLES * sizeof(float));
  int64_t frames = library.read(s->file, to, SAMPLES / s->info.channels);
  if (frames <= 0)
    return 0;
  luaL_pushresultsize(&b, (size_t)frames * (size_t)s->info.channels * sizeof(float));
  return 1;
}

void nb_open_sound(lua_State *L) {
  static const luaL_Reg functions[] = {
    {"has_sound_library", has_library}, {"sound", open_sound}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"read", read_sound}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", close_sound}, {"__close", close_sound}, {NULL, NULL}};
  luaL_newmetatable(L, SOUND);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushstring(L, SOUND);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
