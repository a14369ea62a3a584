/*
** neap.line: lines of input with history and completion (libedit), and Ctrl-C that ends a running
** chunk. A module of its own, so that neap.core needs no terminal.
**
** Through libedit's own interface, not its copy of readline's: where the lua5.4 program is linked
** to GNU readline, as Debian's is, calls of those names would end up there.
*/
#define _GNU_SOURCE
#include <errno.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include <histedit.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

__attribute__((visibility("default"))) int luaopen_neap_line(lua_State *L);

/* ---- Ctrl-C ---- */

/* What core.cancel_hook points to: cancel ends the C loop that is running, if one is; raise is for
** that loop's caller, instead of the error that it has been canceled, the place on the stack. */
struct cancel_hook {
  void (*cancel)(void);
  void (*raise)(lua_State *L);
};

static struct cancel_hook *cancel;
static lua_State *running; /* in protect: the innermost coroutine; what Ctrl-C ends */
static pthread_t thread;   /* its thread */
static volatile sig_atomic_t presses; /* that no error has come of yet */

#define INTERRUPTED "interrupted!" /* as the lua5.4 program says it; neap.fit looks for it */

/* Raises; the place is on top of the stack, "file.lua:14: ". */
static void stop_at(lua_State *L) {
  lua_sethook(L, NULL, 0, 0);
  if (running) lua_sethook(running, NULL, 0, 0); /* L may be a coroutine */
  presses = 0;
  lua_pushliteral(L, INTERRUPTED);
  lua_concat(L, 2);
  lua_error(L);
}

static void stop(lua_State *L, lua_Debug *ar);

static void arm(lua_State *L) {
  lua_sethook(L, stop, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

static void disarm(lua_State *L) {
  if (lua_gethook(L) == stop) lua_sethook(L, NULL, 0, 0);
}

static void stop(lua_State *L, lua_Debug *ar) {
  (void)ar;
  if (!presses) { /* a coroutine that took the hook over from its maker, after the error */
    disarm(L);
    return;
  }
  luaL_where(L, 0);
  if (*lua_tostring(L, -1) == '\0') luaL_where(L, 1); /* in a C function: its caller */
  stop_at(L);
}

static void interrupt(int signal_number) {
  int saved = errno;
  if (!pthread_equal(pthread_self(), thread)) { /* only a state's own thread may set its hook */
    pthread_kill(thread, signal_number);
  } else if (++presses > 2) { /* nothing answers: give way to the default action */
    signal(signal_number, SIG_DFL);
    raise(signal_number);
  } else {
    arm(running);
    if (cancel) cancel->cancel();
  }
  errno = saved;
}

static bool was_interrupted;

/* Does a text end as what Ctrl-C raises? */
static bool is_interruption(const char *text, size_t n) {
  size_t m = sizeof INTERRUPTED - 1;
  return text && n >= m && strcmp(text + n - m, INTERRUPTED) == 0;
}

/* The error's text with a traceback. */
static int explain(lua_State *L) {
  size_t n = 0;
  const char *text = lua_tolstring(L, 1, &n);
  was_interrupted = is_interruption(text, n);
  if (!text) {
    if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) return 1;
    text = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  }
  luaL_traceback(L, L, text, 1);
  return 1;
}

/* protect(f, ...) -> true, results | false, message with traceback, whether Ctrl-C was the cause. */
static int protect(lua_State *L) {
  struct sigaction act, old;
  lua_State *outer = running;
  pthread_t outer_thread = thread;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_pushcfunction(L, explain);
  lua_insert(L, 1);
  memset(&act, 0, sizeof act);
  act.sa_handler = interrupt; /* no SA_RESTART: a read of the chunk's ends too */
  sigemptyset(&act.sa_mask);
  running = L;
  thread = pthread_self();
  presses = 0;
  was_interrupted = false;
  sigaction(SIGINT, &act, &old);
  int status = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 1);
  sigaction(SIGINT, &old, NULL);
  /* An error of another kind may have come first (a canceled run): the hook must not outlive it. */
  disarm(L);
  running = outer;
  thread = outer_thread;
  lua_pushboolean(L, status == LUA_OK);
  lua_replace(L, 1);
  if (status != LUA_OK) lua_pushboolean(L, was_interrupted);
  return lua_gettop(L);
}

/* Hooks belong to one coroutine. So that Ctrl-C ends a loop in any of them, `running` has to follow:
** coroutine.resume and coroutine.wrap as Lua has them, but for that. The results, or the error, are
** left on L's stack; their number, or -1. */
static int resume(lua_State *L, lua_State *co, int arguments) {
  int results;
  if (!lua_checkstack(co, arguments)) {
    lua_pushliteral(L, "too many arguments to resume");
    return -1;
  }
  lua_xmove(L, co, arguments);
  lua_State *outer = running;
  if (outer) running = co;
  if (outer && presses) arm(co); /* pressed since L's last instruction */
  int status = lua_resume(co, L, arguments, &results);
  if (outer) running = outer;
  disarm(co);
  if (outer && presses) arm(L); /* it came back before it was stopped */
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_xmove(co, L, 1);
    return -1;
  }
  if (!lua_checkstack(L, results + 1)) {
    lua_pop(co, results);
    lua_pushliteral(L, "too many results to resume");
    return -1;
  }
  lua_xmove(co, L, results);
  return results;
}

static int coroutine_resume(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  luaL_argexpected(L, co, 1, "thread");
  int n = resume(L, co, lua_gettop(L) - 1);
  lua_pushboolean(L, n >= 0);
  lua_insert(L, n >= 0 ? -n - 1 : -2);
  return n >= 0 ? n + 1 : 2;
}

static int wrapped(lua_State *L) {
  lua_State *co = lua_tothread(L, lua_upvalueindex(1));
  int n = resume(L, co, lua_gettop(L));
  if (n >= 0) return n;
  int status = lua_status(co);
  if (status != LUA_OK && status != LUA_YIELD) { /* closes its pending variables */
    lua_pop(L, 1);
    status = lua_resetthread(co);
    lua_xmove(co, L, 1);
  }
  size_t length = 0;
  const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;
  if (status != LUA_ERRMEM && text && !is_interruption(text, length)) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

static int coroutine_wrap(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_State *co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, wrapped, 1);
  return 1;
}

/* watch_coroutines(): puts these two in the place of Lua's own. */
static int watch_coroutines(lua_State *L) {
  static const luaL_Reg functions[] = {
    {"resume", coroutine_resume}, {"wrap", coroutine_wrap}, {NULL, NULL}};
  luaL_requiref(L, LUA_COLIBNAME, luaopen_coroutine, 0);
  luaL_setfuncs(L, functions, 0);
  return 0;
}

/* set_cancel(hook): a light userdata, core.cancel_hook. */
static int set_cancel(lua_State *L) {
  luaL_checktype(L, 1, LUA_TLIGHTUSERDATA);
  cancel = lua_touserdata(L, 1);
  cancel->raise = stop_at;
  return 0;
}

/* ---- the editor ---- */

static EditLine *editor;
static History *history_list;
static const char *prompt_text;

static char *prompt(EditLine *el) {
  (void)el;
  return (char *)(uintptr_t)prompt_text;
}

static const char completer_key;
static lua_State *reader; /* in readline */

/* Runs in protected mode; arg 1 receives what the editor is to do next. */
static int ask_completer(lua_State *L) {
  unsigned char *next = lua_touserdata(L, 1);
  const LineInfo *line = el_line(editor);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &completer_key) != LUA_TFUNCTION) return 0;
  lua_pushlstring(L, line->buffer, (size_t)(line->cursor - line->buffer));
  lua_call(L, 1, 2);
  const char *insert = lua_tostring(L, -2), *list = lua_tostring(L, -1);
  if (list) {
    printf("\n%s\n", list);
    *next = CC_REDISPLAY;
  } else if (insert && el_insertstr(editor, insert) == 0) {
    *next = CC_REFRESH;
  }
  return 0;
}

static unsigned char complete(EditLine *el, int key) {
  (void)el, (void)key;
  unsigned char next = CC_ERROR; /* a beep */
  if (!lua_checkstack(reader, 3)) return next;
  lua_pushcfunction(reader, ask_completer);
  lua_pushlightuserdata(reader, &next);
  if (lua_pcall(reader, 1, 0, 0) != LUA_OK) lua_pop(reader, 1); /* only this completion is lost */
  return next;
}

/* set_completer(f): f(line up to the cursor) -> text to insert | nil, text to show | nothing. */
static int set_completer(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &completer_key);
  return 0;
}

static volatile sig_atomic_t interrupted, resized, suspended;

static void notice(int signal_number) {
  if (signal_number == SIGINT) interrupted = 1;
  if (signal_number == SIGWINCH) resized = 1;
  if (signal_number == SIGTSTP) suspended = 1;
}

/* One character for libedit. A loop of our own, because libedit's reads on after Ctrl-C. */
static int next_character(EditLine *el, wchar_t *wide) {
  mbstate_t state;
  memset(&state, 0, sizeof state);
  while (!interrupted) {
    char byte;
    ssize_t n = read(STDIN_FILENO, &byte, 1);
    if (n == 1) {
      size_t used = mbrtowc(wide, &byte, 1, &state);
      if (used == (size_t)-1) memset(&state, 0, sizeof state); /* not a character: dropped */
      else if (used != (size_t)-2) return 1;
    } else if (n == 0 || errno != EINTR) {
      return 0;
    }
    if (resized) {
      resized = 0;
      el_resize(el);
    }
    if (suspended) {
      suspended = 0;
      el_set(el, EL_PREP_TERM, 0);
      raise(SIGSTOP);
      el_set(el, EL_PREP_TERM, 1);
      el_set(el, EL_REFRESH);
    }
  }
  return 0;
}

/* Makes editor and history at first use; raises if memory is short. */
static void start(lua_State *L) {
  static const char *const keys[][2] = {
    {"^I", "neap-complete"},         {"^R", "em-inc-search-prev"},
    {"^W", "ed-delete-prev-word"},   {"\\e[H", "ed-move-to-beg"},
    {"\\e[F", "ed-move-to-end"},     {"\\e[1~", "ed-move-to-beg"},
    {"\\e[4~", "ed-move-to-end"},    {"\\e[3~", "ed-delete-next-char"},
    {"\\e[1;5C", "em-next-word"},    {"\\e[1;5D", "ed-prev-word"},
  };
  HistEvent event;
  if (editor) return;
  if (strcmp(setlocale(LC_CTYPE, NULL), "C") == 0) setlocale(LC_CTYPE, ""); /* for UTF-8 */
  if (!history_list && (history_list = history_init())) {
    history(history_list, &event, H_SETSIZE, 2000);
    history(history_list, &event, H_SETUNIQUE, 1);
  }
  if (history_list) editor = el_init("neap", stdin, stdout, stderr);
  if (!editor) luaL_error(L, "line: no memory for the line editor");
  el_set(editor, EL_PROMPT, prompt);
  el_set(editor, EL_HIST, history, history_list);
  el_set(editor, EL_EDITOR, "emacs");
  el_set(editor, EL_SIGNAL, 0); /* its handler would send them on to the whole process group */
  el_set(editor, EL_GETCFN, next_character);
  el_set(editor, EL_ADDFN, "neap-complete", "Completes a Lua name", complete);
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    el_set(editor, EL_BIND, keys[i][0], keys[i][1], NULL);
  el_source(editor, NULL); /* the user's .editrc */
}

/* ---- reading ---- */

static bool interactive(void) { return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO); }

/* terminal() -> does standard output go to a terminal? */
static int is_terminal(lua_State *L) {
  lua_pushboolean(L, isatty(STDOUT_FILENO));
  return 1;
}

static int is_interactive(lua_State *L) {
  lua_pushboolean(L, interactive());
  return 1;
}

/* Without a terminal: the line as it comes, through the stream that io.read uses. */
static int read_plain(lua_State *L) {
  luaL_Buffer b;
  int c;
  luaL_buffinit(L, &b);
  while ((c = getc(stdin)) != EOF && c != '\n') luaL_addchar(&b, (char)c);
  luaL_pushresult(&b);
  if (c == EOF && lua_rawlen(L, -1) == 0) lua_pushnil(L);
  return 1;
}

/* readline(prompt) -> a line without its end | nil at the end of input | nil, "interrupted". */
static int read_line(lua_State *L) {
  static const int signals[] = {SIGINT, SIGWINCH, SIGTSTP};
  enum { N = sizeof signals / sizeof *signals };
  struct sigaction act, old[N];
  const char *text = luaL_checkstring(L, 1);
  if (!interactive()) return read_plain(L);
  start(L);
  fflush(stdout);
  prompt_text = text;
  lua_State *outer = reader;
  reader = L;
  interrupted = resized = suspended = 0;
  memset(&act, 0, sizeof act);
  act.sa_handler = notice;
  sigemptyset(&act.sa_mask);
  for (int i = 0; i < N; i++) sigaction(signals[i], &act, &old[i]);
  int count = 0;
  const char *line = el_gets(editor, &count);
  for (int i = 0; i < N; i++) sigaction(signals[i], &old[i], NULL);
  reader = outer;
  if (interrupted || !line || count <= 0) {
    putchar('\n');
    lua_pushnil(L);
    if (!interrupted) return 1;
    lua_pushliteral(L, "interrupted");
    return 2;
  }
  size_t n = (size_t)count;
  lua_pushlstring(L, line, line[n - 1] == '\n' ? n - 1 : n);
  return 1;
}

static int add_history(lua_State *L) {
  HistEvent event;
  const char *line = luaL_checkstring(L, 1);
  start(L);
  history(history_list, &event, H_ENTER, line);
  return 0;
}

/* load_history(path), save_history(path) -> true | nil, message, errno. */
static int load_history(lua_State *L) {
  HistEvent event;
  const char *path = luaL_checkstring(L, 1);
  start(L);
  return luaL_fileresult(L, history(history_list, &event, H_LOAD, path) >= 0, path);
}

static int save_history(lua_State *L) {
  HistEvent event;
  const char *path = luaL_checkstring(L, 1);
  start(L);
  return luaL_fileresult(L, history(history_list, &event, H_SAVE, path) >= 0, path);
}

int luaopen_neap_line(lua_State *L) {
  static const luaL_Reg functions[] = {
    {"readline", read_line},
    {"interactive", is_interactive},
    {"terminal", is_terminal},
    {"add_history", add_history},
    {"load_history", load_history},
    {"save_history", save_history},
    {"set_completer", set_completer},
    {"protect", protect},
    {"set_cancel", set_cancel},
    {"watch_coroutines", watch_coroutines},
    {NULL, NULL},
  };
  luaL_newlib(L, functions);
  return 1;
}
