--- The command `neap`. `scripts/neap` sets the paths and starts it.

local argparse = require "argparse"
local line = require "neap.line"

local function fail(message, status)
  io.stderr:write("neap: ", message, "\n")
  os.exit(status or 1, true)
end

--- Lets Ctrl-C end loops in coroutines and in C as well. Without the library (`neap run` of a plain
-- script) it ends Lua alone.
local function cancel_everywhere()
  line.watch_coroutines()
  local found, core = pcall(require, "neap.core")
  if found and core.cancel_hook then line.set_cancel(core.cancel_hook) end
end

local function run(options)
  local file = options.file
  warn "@on"
  local chunk, message = loadfile(file ~= "-" and file or nil)
  if not chunk then fail(message) end
  for i in pairs(arg) do arg[i] = nil end -- in place: argparse keeps the table it has seen
  arg[-1], arg[0] = "neap", file
  table.move(options.args, 1, #options.args, 1, arg)
  cancel_everywhere()
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
run_command:argument("file", "The Lua script; - for standard input.")
run_command:argument("args", "Its arguments."):args "*"

parser:command("repl", "The interactive prompt.")

-- What argparse shall make of an option that counts.
local function count(option, high, command)
  return function(text)
    local n = math.tointeger(tonumber(text))
    if n and n >= 1 and n <= high then return n end
    return nil, ("%s: %s: expected an integer from 1 to %d, came %s"):format(command or "apply",
      option, high, text)
  end
end

-- Listed where the module is there.
local has_info = package.searchpath("neap.info", package.path)
if has_info then
  local command = parser:command("info", "Show what a model file holds.")
  command:argument("model", "The file."):args "?"
  command:option "--rows":argname "B":default "32":convert(count("--rows", 1000000, "info"))
    :description "Memory is told for batches of so many rows,"
  command:option "--steps":argname "T":default "100":convert(count("--steps", 1000000, "info"))
    :description "each a sequence of so many steps."
end

local apply_command = parser:command("apply", "Apply a model to lines of text."):epilog [[
A line is cut into symbols as the model's vocabulary says: into characters, or into words between
blanks. A model that reads numbers takes them with blanks or commas between; where its steps have
several, one step follows the other. For a model that hears sound a line names a sound file, and
FILE is one. What is answered depends on the model's task:
   seq2class       the class, a tab, its probability
   synced_seq2seq  a tag for each symbol, with blanks between; with the loss ctc what was read; of
                   numbers those of each step, with tabs between
   hmm             a state for each symbol; nothing where no state shows one of them
   async_seq2seq   what the model writes; --length: at most so many symbols
   language_model  how many nats each symbol takes, on average, from the second on;
                   with --length: the line and so many of the likeliest symbols after it
   ngram           the same
   forecaster      the next step; with --length so many steps, with tabs between
Answers come in the order of the lines, one for each. That to an empty line is empty, and so is that
to a line that does not fit: standard error tells its number and what was expected, and the exit
status is 1.

   neap run scripts/examples/g2p.lua --quick --model g2p.safetensors
   echo sean | neap apply g2p.safetensors --beam 4]]
apply_command:argument("model", "The file."):args "?"
apply_command:argument("file", "The lines; without it, or with -, standard input."):args "?"
apply_command:option "--length":argname "N":convert(count("--length", 1000000))
  :description "How many symbols or steps are written; see below."
apply_command:option "--beam":argname "N":convert(count("--beam", 1000))
  :description "Of async_seq2seq: how many beginnings are kept (default: 1)."
apply_command:option "--threads":argname "N":convert(count("--threads", 1024))
  :description "How many threads compute (default: 1)."
apply_command:option "--batch":argname "N":convert(count("--batch", 1000000))
  :description "Lines that are answered together (default: 64; 1 on a terminal)."

local average_command = parser:command("average", "Average the parameters of saved models.")
  :epilog [[
All have the same weight. The models may differ in nothing but their parameters' values: checkpoints
of one training, such as those of its last epochs.]]
average_command:argument("files", "The models."):args "2+"
average_command:option "--model":argname "FILE":count "1"
  :description "Where the average is saved."

parser:command("doctor", "Look at this machine: what is slow or missing, and how to mend it.")
  :epilog "Ends with 1 if there is something that you can mend."

-- What argparse shall make of an option that is a number.
local function number(option)
  return function(text)
    local n = tonumber(text)
    if n then return n end
    return nil, ("bench: %s: expected a number, came %s"):format(option, text)
  end
end

local bench_command = parser:command("bench", "Time this machine on recurrent networks."):epilog [[
Workloads:
   W1        a training step: forward, back-propagation through time, all gradients
   W2        a whole sequence forward
   W3        one step of one stream through the C API
   W3-lua    the same through Lua, input and output included
   W3-block  one of 64 steps that are made in one call
   W4        a training loop of a character model
Peers:
   neap        the library's own layers
   neap-cell   the same LSTM as a script's cell of primitive ops, all gates in one product
   neap-gates  the same with a product for each gate
   with --peers  oneDNN, PyTorch and ONNX Runtime, where they are installed

T steps, B rows, D inputs, H units, L layers. peak_mb: megabytes that the process has in memory at
most while it makes the case and runs it first, itself and its libraries included. On a terminal the
columns are aligned; else there are tabs between them. Remarks go to standard error and begin with #.
All of it takes about four minutes, with --peers two to three times as long; nothing else should run
meanwhile. --only, --cells and --hidden choose parts.]]
bench_command:option "--only":argname "W":description "Workloads, such as W1,W3 (default: all)."
bench_command:option "--cells":argname "C":description "Of rnn,lstm,gru (default: all)."
bench_command:option "--hidden":argname "H":description "Shapes with so many units, such as 16,512."
bench_command:option "--threads":argname "N":default "1,2":description "Numbers of threads."
bench_command:option "--seconds":argname "S":default "0.3":convert(number "--seconds")
  :description "How long one repetition takes."
bench_command:option "--repeats":argname "N":default "5":convert(number "--repeats")
  :description "How often; medians are shown."
bench_command:flag "--limits":description "Measure the machine's limits too; adds the share of them."
bench_command:flag "--peers":description "Other software by turns: oneDNN, PyTorch, ONNX Runtime."
bench_command:flag "--json":description "One JSON array instead of the table."
parser:add_help_command()

-- A file where a command should be.
local function is_file(name)
  local file = name:find "%.lua$" or io.open(name)
  if io.type(file) then file:close() end
  return file ~= nil
end

function parser.error(_, message)
  local name = message:match "^unknown command '(.*)'"
  if name and is_file(name) then fail("did you mean: neap run " .. name, 2) end
  fail(message .. "\n" .. parser:get_usage(), 2)
end

if arg[1] == "run" and (arg[2] == "--help" or arg[2] == "-h") then
  print(run_command:get_help())
  os.exit(0, true)
end

local options = parser:parse()
if options.command == "run" then
  run(options)
elseif options.command == "average" then
  local model, message = require "neap.average".files(options.files)
  if model then message = select(2, model:save(options.model)) end
  if message then fail(message) end
elseif options.command == "doctor" then
  cancel_everywhere()
  os.exit(require "neap.doctor".run() and 0 or 1, true)
elseif options.command == "bench" then
  cancel_everywhere()
  local home = package.searchpath("neap.bench", package.path):gsub("bindings/neap/bench.lua$", "")
  options.aligned = line.terminal()
  options.folder = home .. "scripts/bench"
  options.programs = (os.getenv "NEAP_BUILD" or home .. "build") .. "/bench"
  local ok, message = line.protect(require "neap.bench", options)
  if not ok then fail(require "neap.report" (message)) end
elseif options.command == "apply" then
  if not options.model then
    fail("apply: expected a model file, such as one that model:save has written", 2)
  end
  cancel_everywhere()
  if not options.batch and not options.file and line.interactive() then options.batch = 1 end
  local ok, fit, message = line.protect(require "neap.apply", options)
  if not ok then
    fail(require "neap.report" (fit), message and 130 or 1)
  elseif fit == nil then
    fail(message)
  end
  os.exit(fit, true)
elseif options.command == "info" then
  if not options.model then
    fail("info: expected a model file, such as one that model:save has written", 2)
  end
  local ok, message = require "neap.info" (options.model, nil,
    { rows = options.rows, steps = options.steps })
  if not ok then fail(message) end
else
  cancel_everywhere()
  if not require "neap.repl" () then os.exit(1, true) end
end
os.exit(0, true)
