--- The interactive prompt: reads a chunk, runs it, prints what it returns.

local line = require "neap.line"
local report = require "neap.report"

local history_limit = 4096 -- bytes of a line worth keeping

--- Where the history is kept; nil if there is no home.
local function history_path()
  local state, home = os.getenv "XDG_STATE_HOME", os.getenv "HOME"
  if state and state ~= "" then return state .. "/neap_history" end
  return home and home .. "/.neap_history"
end

local identifier = "^[%a_][%w_]*$"
local keywords = {
  "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in",
  "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
}

--- Calls add(name) for each name that can be looked up in a value. Where __index is a function, the
-- metatable's `methods` or `names`, a list of tables, tell what it finds.
local function each_name(value, add)
  local function keys(t)
    for key in next, t do
      if type(key) == "string" and key:find(identifier) then add(key) end
    end
  end
  local seen = 0
  while value ~= nil and seen < 8 do -- an __index chain may be a ring
    if type(value) == "table" then keys(value) end
    local meta = debug.getmetatable(value)
    if not meta then return end
    if type(meta.methods) == "table" then keys(meta.methods) end
    for _, t in ipairs(type(meta.names) == "table" and meta.names or {}) do keys(t) end
    value = rawget(meta, "__index")
    if type(value) ~= "table" then return end
    seen = seen + 1
  end
end

--- Completes the name at the end of a text, such as `neap.ls` or `model:sa`: what to insert, or
-- nil and the possible names, or nothing.
local function complete(text)
  local path, last = text:match "([%a_][%w_.:]*[.:])([%w_]*)$"
  if not path then path, last = "", text:match "[%a_][%w_]*$" or "" end
  local value = _G
  for name in path:gmatch "[^.:]+" do value = value[name] end
  local names = {}
  each_name(value, function(name)
    local hidden = name:sub(1, 1) == "_" and last == ""
    if name:sub(1, #last) ~= last or hidden then return end
    if path:find ":$" and type(value[name]) ~= "function" then return end
    names[name] = true
  end)
  if path == "" then
    for _, keyword in ipairs(keywords) do
      if keyword:sub(1, #last) == last then names[keyword] = true end
    end
  end

  local list, common = {}, nil
  for name in pairs(names) do
    list[#list + 1] = name
    common = common or name
    while name:sub(1, #common) ~= common do common = common:sub(1, -2) end
  end
  if not common then return end
  if #list == 1 or #common > #last then return common:sub(#last + 1) end
  table.sort(list)
  return nil, table.concat(list, "  ")
end

--- Compiles text as an expression, else as a statement: the chunk, or nil, message, incomplete.
local function compile(text)
  local chunk, as_expression = load("return " .. text, "=stdin")
  if chunk then return chunk end
  local as_statement
  chunk, as_statement = load(text, "=stdin")
  if chunk then return chunk end
  local incomplete = as_expression:find "<eof>$" or as_statement:find "<eof>$"
  return nil, as_statement, incomplete
end

local failed = false -- has anything gone wrong?

local function complain(message)
  failed = true
  io.stdout:flush()
  io.stderr:write(message, "\n")
end

--- Reads one chunk: the chunk | false for none | nil at the end of input.
local function read(interactive)
  local text
  while true do
    local input, why = line.readline(text and ">> " or "> ")
    if not input then
      -- what was begun is dropped
      if why == "interrupted" or text and interactive then return false end
      if text then complain((select(2, compile(text)))) end
      return nil
    end
    text = text and text .. "\n" .. input or input
    if not text:find "%S" then return false end
    local chunk, message, incomplete = compile(text)
    if not incomplete and interactive and #text <= history_limit then line.add_history(text) end
    if chunk then return chunk end
    if not incomplete then
      complain(message)
      return false
    end
  end
end

--- Prints values as neap shows them: in one line, or one below the other.
local function print_all(show, ...)
  local texts, tall = table.pack(...), false
  if texts.n == 0 then return end
  for i = 1, texts.n do
    texts[i] = show(texts[i])
    tall = tall or texts[i]:find("\n", 1, true)
  end
  io.stdout:write(table.concat(texts, tall and "\n" or "\t"), "\n")
end

--- Runs a function with Ctrl-C on; reports its error. true and its results if it came to its end.
local function try(f, ...)
  local results = table.pack(line.protect(f, ...))
  if results[1] then return table.unpack(results, 1, results.n) end
  complain(report(results[2]))
  return false
end

local help_text = [[
neap                 the library: all its names
op                   the ops that networks are made of; they compute at once on tensors:
                     op.tanh(neap.tensor{{1, 2}})
neap.lstm{size = 8}  what a line gives is shown; _ is the last value that was shown
model:sa<Tab>        Tab completes names, the arrow keys and Ctrl-R bring back earlier lines
Ctrl-C               stops what runs, or drops what is being written
quit, exit, Ctrl-D   leave
docs/guide.md and docs/ops.md tell the rest.]]

local help = setmetatable({}, { __name = "help", __tostring = function() return help_text end,
  __call = function(self) return self end })
local leave = setmetatable({}, { __name = "quit", __tostring = function() return "quit" end,
  __call = function(self) return self end })

--- Reads, runs and prints until the input ends. True if all went well, or somebody looked on.
return function()
  local interactive = line.interactive()
  local found, neap = pcall(require, "neap")
  if found then
    _G.neap, _G.op = neap, neap.op
  else
    io.stderr:write("neap could not be loaded: ", tostring(neap):match "[^\n]*", "\n")
  end
  _G.help, _G.quit, _G.exit = help, leave, leave
  local has_show, show = pcall(require, "neap.show")
  if not has_show then show = tostring end

  local history = interactive and history_path()
  local function keep_history()
    local saved, message = line.save_history(history)
    if not saved then io.stderr:write("the history could not be saved: ", message, "\n") end
  end
  if interactive then
    line.set_completer(complete)
    print(("neap %s, %s: `neap` and `op` are there, `help` tells more, Ctrl-D leaves."):format(
      found and neap.version or "", _VERSION))
  end
  if history then
    line.load_history(history) -- there is none the first time
    local os_exit = os.exit
    function os.exit(...) -- luacheck: ignore 122
      keep_history()
      os_exit(...)
    end
  end
  -- Shows what a chunk gave; false if that was to leave.
  local function evaluate(ok, ...)
    if not ok then return true end
    local value = ...
    if rawequal(value, leave) then return false end
    try(print_all, show, ...)
    if value ~= nil and not rawequal(value, help) then _G._ = value end
    return true
  end
  while true do
    local chunk = read(interactive)
    if chunk == nil or chunk and not evaluate(try(chunk)) then break end
  end
  if history then keep_history() end
  return interactive or not failed
end
