rockspec_format = "3.0"
package = "neap"
version = "scm-1"
source = {
  url = "git+file://.",
}
description = {
  summary = "Recurrent sequence models that live inside Lua and C",
  detailed = [[
    Elman, LSTM and GRU layers and cells of a script's own, recorded once and run by a C library:
    training, whole sequences, streams one step at a time. Built by GNU make; needs OpenBLAS,
    jsmn and libedit with their headers, and the Lua modules cjson and argparse, which systems
    ship under names of their own: `make deps` installs all of it on Debian.
  ]],
  license = "MIT",
}
dependencies = {
  "lua >= 5.4, < 5.5",
}
build = {
  type = "make",
  build_target = "all",
  install_target = "install-lua",
  -- A build directory of its own: the flags are luarocks's.
  variables = {
    BUILD = "build/rock",
    CC = "$(CC)",
    CFLAGS = "$(CFLAGS)",
    LUA = "$(LUA)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    INST_LUADIR = "$(LUADIR)",
    INST_LIBDIR = "$(LIBDIR)",
  },
}
