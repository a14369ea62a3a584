--- What the example scripts share: arguments, data, and how results are shown.
local argparse = require "argparse"
local core = require "neap.core"

local common = {}
local began = core.clock()
local folder = arg[0]:match "^.*/" or ""
local script = arg[0]:match "([^/]+)%.lua$" or arg[0]

--- Ends the script with one line of explanation.
-- @int status 1: the world's fault; 2: wrong arguments
-- @string message
function common.fail(status, message)
  io.stdout:flush()
  io.stderr:write(script, ": ", message, "\n")
  os.exit(status, true)
end

--- Passes on what a call gave; where it gave nil and a message, the script ends with that.
function common.need(value, message, ...)
  if value == nil then common.fail(1, message) end
  return value, message, ...
end

local function number(low, whole)
  return function(text)
    local n = whole and math.tointeger(tonumber(text)) or not whole and tonumber(text)
    if n and n >= low and n < math.huge then return n end
    return nil, ("expected a %snumber from %g, came %s"):format(whole and "whole " or "", low, text)
  end
end
common.whole = function(low) return number(low, true) end
common.real = function(low) return number(low, false) end

--- Reads the arguments.
-- @tab about `[1]`: what the script does; `data`: what its files hold (none: it makes its own);
--   `whole`: a text, of which no part can be kept apart; `epochs`, `quick`: how many epochs, in
--   earnest and with --quick; `extend`: function(parser) that adds further options
-- @treturn tab options by name
function common.options(about)
  local parser = argparse(script .. ".lua", about[1])
  function parser.error(_, message)
    common.fail(2, message:gsub("\n", "; ") .. " (--help shows the options)")
  end
  local function option(name, value, description, convert)
    local new = parser:option(name):argname(value):description(description)
    return convert and new:convert(convert) or new
  end
  local quick = parser:flag "--quick"
    :description "Show in seconds that it works, on little data made here."
  if about.data then
    parser:mutex(quick, option("--train", "FILE", "Learn from it: " .. about.data .. "."))
    option("--dev", "FILE", about.whole and "Choose by it."
      or "Choose by it; without it a part of --train is kept apart.")
    option("--test", "FILE", "Score it at the end.")
  end
  option("--model", "FILE", "Save what was learned.")
  option("--load", "FILE", "Use a saved model instead of learning.")
  option("--epochs", "N", ("How often to go through the data. (default: %d)"):format(about.epochs),
    common.whole(1))
  option("--minutes", "M", "Begin no epoch that would end later.", common.real(0))
  option("--seed", "S", "Another seed, other chance.", common.whole(0)):default "1"
  option("--threads", "N", "How many threads compute.", common.whole(1)):default "2"
  if about.extend then about.extend(parser) end
  local options = parser:parse(arg)
  options.epochs = options.epochs or options.quick and about.quick or about.epochs
  if options.model then -- better now than after an hour
    local trial = options.model .. ".part"
    local file = common.need(io.open(trial, "wb"))
    file:close()
    os.remove(trial)
  end
  return options
end

--- A file of the data folder that lies beside the checkout.
function common.shared(name) return folder .. "../../../shared/data/" .. name end

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

--- The corpora to learn from (nil with --load) and to choose by, and the one to test on or nil.
-- They are the files that the options name; else the preset ones.
-- @tab options
-- @tab from `read`: function(path); `train`, `dev`, `test`: preset paths; `missing`: what to do
--   where those are absent; `share`: of train that is kept apart where there is no dev; `by`: the
--   field whose equal sequences stay together; `rng`
function common.corpora(options, from)
  local function read(path) return common.need(from.read(path)) end
  local train, dev, test = options.train, options.dev, options.test
  if not train and not (options.load and dev) then
    train, dev, test = from.train, dev or from.dev, test or from.test
    if not exists(train) then common.fail(1, ("no %s: %s"):format(train, from.missing)) end
  end
  if not dev and not from.share then common.fail(2, "--train needs --dev") end
  local first = not (options.load and dev) and read(train) or nil
  local second
  if dev then
    second = read(dev)
  else
    second, first = first:split { share = from.share, rng = from.rng, by = from.by }
  end
  return first, second, test and read(test)
end

--- The task in the file that --load names; it must be of that kind.
function common.load(options, kind)
  local model = common.need(require "neap.load"(options.load))
  if model.kind ~= kind then
    common.fail(1, ("%s: expected a %s, came a %s"):format(options.load, kind,
      model.kind or "file that no task wrote"))
  end
  return model:threads(options.threads)
end

--- Shows some predictions that are right and some that are wrong.
-- @int n how many there are
-- @func each function(i) that gives: is it right, and a line that shows it
function common.show(n, each)
  local shown = { [true] = {}, [false] = {} }
  for i = 1, n do
    local right, text = each(i)
    if #shown[right] < 4 then table.insert(shown[right], "  " .. text) end
  end
  for _, right in ipairs { true, false } do
    if #shown[right] > 0 then
      print((right and "right:\n" or "wrong:\n") .. table.concat(shown[right], "\n"))
    end
  end
end

local order = { dev = 1, test = 2, seconds = 4, parameters = 5 }

--- The last line: `result task=NAME key=value ...`.
-- @tab values scores by key; seconds since the start are added
function common.result(values)
  values.seconds = core.clock() - began
  local keys = {}
  for key in pairs(values) do keys[#keys + 1] = key end
  local function place(key) return order[key] or order[key:match "^[^_]*"] or 3 end
  table.sort(keys, function(a, b)
    if place(a) ~= place(b) then return place(a) < place(b) end
    return a < b
  end)
  local line = { "result task=" .. script }
  for i, key in ipairs(keys) do
    local value = values[key]
    local form = math.type(value) == "integer" and "%d" or key == "seconds" and "%.1f" or "%.4f"
    line[i + 1] = key .. "=" .. form:format(value)
  end
  print(table.concat(line, " "))
end

return common
