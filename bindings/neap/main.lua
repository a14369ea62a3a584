--- The command `neap`. `scripts/neap` sets the paths and starts it.

local argparse = require "argparse"
local line = require "neap.line"

local function fail(message, status)
  io.stderr:write("neap: ", message, "\n")
  os.exit(status or 1, true)
end

--- Lets Ctrl-C end loops in C as well. Without the library (`neap run` of a plain script) it ends
-- Lua alone.
local function cancel_in_c()
  local found, core = pcall(require, "neap.core")
  if found and core.cancel_hook then line.set_cancel(core.cancel_hook) end
end

local function run(options)
  local file = options.file
  local chunk, message = loadfile(file)
  if not chunk then fail(message) end
  for i in pairs(arg) do arg[i] = nil end -- in place: argparse keeps the table it has seen
  arg[-1], arg[0] = "neap", file
  table.move(options.args, 1, #options.args, 1, arg)
  cancel_in_c()
  local ok, message, interrupted = line.protect(chunk, table.unpack(options.args))
  if not ok then
    io.stdout:flush()
    fail(require "neap.report" (message), interrupted and 130 or 1)
  end
end

local function version()
  local neap = require "neap"
  print(("neap %s (%s)"):format(neap.version, _VERSION))
end

local parser = argparse("neap", "Recurrent sequence models that live inside Lua and C.",
  "Without a command: the interactive prompt.")
parser:command_target "command"
parser:require_command(false)
parser:flag "--version":description "Show the version and leave.":action(function()
  version()
  os.exit(0, true)
end)

-- What follows FILE belongs to the script, options too.
local run_command = parser:command("run", "Run a script."):handle_options(false)
run_command:argument("file", "The Lua script.")
run_command:argument("args", "Its arguments."):args "*"

parser:command("repl", "The interactive prompt.")

-- Listed where the module is there.
local has_info = package.searchpath("neap.info", package.path)
if has_info then
  parser:command("info", "Show what a model file holds."):argument("model", "The file.")
end
parser:add_help_command()

function parser.error(_, message)
  fail(message .. "\n" .. parser:get_usage(), 2)
end

if arg[1] == "run" and (arg[2] == "--help" or arg[2] == "-h") then
  print(run_command:get_help())
  os.exit(0, true)
end

local options = parser:parse()
if options.command == "run" then
  run(options)
elseif options.command == "info" then
  local ok, message = require "neap.info" (options.model)
  if not ok then fail(message) end
else
  cancel_in_c()
  require "neap.repl" ()
end
os.exit(0, true)
