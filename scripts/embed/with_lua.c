/*
** A host with the whole Lua runtime inside: its scripts use neap as under the lua command, and a
** script's error ends that script, not the host. Meant to be copied.
**
** A host that links neap's Lua module (the objects of bindings/core) finds it preloaded; any other
** loads neap/core.so through --cpath.
*/
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

static const char usage[] =
    "with_lua [--path PATH] [--cpath PATH] (FILE | -e CODE)...\n"
    "  --path   sets package.path, such as 'bindings/?.lua;bindings/?/init.lua'\n"
    "  --cpath  sets package.cpath, such as 'build/?.so'\n"
    "Runs files and pieces of code one after the other, each whether or not the one before failed.\n"
    "Exit status: 0, or 1 if one of them failed, 2 for a wrong call.\n";

#if defined(__GNUC__)
int luaopen_neap_core(lua_State *L) __attribute__((weak));
#else
int luaopen_neap_core(lua_State *L);
#endif

/* Makes a traceback of an error while its stack still stands. */
static int explain(lua_State *L) {
  const char *message = luaL_tolstring(L, 1, NULL);
  luaL_traceback(L, L, message, 1);
  return 1;
}

/* 1 if it failed; the message goes to standard error. */
static int run(lua_State *L, const char *what, int is_code) {
  int top = lua_gettop(L);
  lua_pushcfunction(L, explain);
  int status = is_code ? luaL_loadbuffer(L, what, strlen(what), "=code") : luaL_loadfile(L, what);
  if (status == LUA_OK) status = lua_pcall(L, 0, 0, top + 1);
  if (status != LUA_OK) fprintf(stderr, "with_lua: %s\n", lua_tostring(L, -1));
  lua_settop(L, top);
  return status != LUA_OK;
}

/* host(argc, argv) -> exit status. Called protected: even opening the libraries may raise. */
static int host(lua_State *L) {
  int argc = (int)lua_tointeger(L, 1), failed = 0, ran = 0;
  char **argv = lua_touserdata(L, 2);
  luaL_openlibs(L);
  if (luaopen_neap_core) {
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_neap_core);
    lua_setfield(L, -2, "neap.core");
  }
  for (int i = 1; i < argc; i++) {
    const char *arg = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
    if (next && (strcmp(arg, "--path") == 0 || strcmp(arg, "--cpath") == 0)) {
      lua_getglobal(L, "package");
      lua_pushstring(L, next);
      lua_setfield(L, -2, arg + 2);
      i++;
    } else if (next && strcmp(arg, "-e") == 0) {
      failed += run(L, next, 1);
      ran++, i++;
    } else if (arg[0] == '-') {
      int asked = strcmp(arg, "--help") == 0;
      fputs(usage, asked ? stdout : stderr);
      return lua_pushinteger(L, asked ? 0 : 2), 1;
    } else {
      failed += run(L, arg, 0);
      ran++;
    }
  }
  if (!ran) fputs(usage, stderr);
  return lua_pushinteger(L, ran ? failed > 0 : 2), 1;
}

int main(int argc, char **argv) {
  lua_State *L = luaL_newstate();
  if (!L) return fprintf(stderr, "with_lua: no memory for Lua\n"), 1;
  lua_pushcfunction(L, host);
  lua_pushinteger(L, argc);
  lua_pushlightuserdata(L, argv);
  int good = lua_pcall(L, 2, 1, 0) == LUA_OK;
  if (!good) fprintf(stderr, "with_lua: %s\n", lua_tostring(L, -1));
  int status = good ? (int)lua_tointeger(L, -1) : 1;
  lua_close(L);
  return status;
}
