--- What @{neap.fit} writes after each epoch, so that a training that was cut off goes on to the same
-- bits: one safetensors file with the parameters, the best of them, the optimizer's memory, an
-- average's, and, as texts, where chance, rate and scores stand.
-- @module neap.checkpoint
local check = require "neap.check"
local cjson = require "cjson"
local core = require "neap.core"

local checkpoint = {}

-- Numbers to the last bit.
local function text_of(x) return ("%a"):format(x) end
local function number_of(text)
  if text == "nan" or text == "-nan" then return 0 / 0 end
  return text == "inf" and math.huge or text == "-inf" and -math.huge or tonumber(text)
end

local function add_params(archive, prefix, params)
  for _, name in ipairs(params:names()) do archive:add(prefix .. name, params:get(name)) end
end

-- The parameters under a prefix, which have to be those that there are; nil and what is wrong.
local function take_params(archive, prefix, params)
  local there = 0
  for _, name in ipairs(archive:names()) do
    if name:sub(1, #prefix) == prefix then there = there + 1 end
  end
  local names, found = params:names(), {}
  for i, name in ipairs(names) do
    local want = table.concat(params:shape(name), ",")
    local t = archive:tensor(prefix .. name)
    local came = t and table.concat(t:shape(), ",")
    if came ~= want then
      return nil, ("expected %s [%s], came %s"):format(name, want, came and "[" .. came .. "]"
        or "none")
    end
    found[i] = t
  end
  if there ~= #names then
    return nil, ("expected %d parameters, came %d"):format(#names, there)
  end
  return function(to) for i, name in ipairs(names) do to:set(name, found[i]) end end
end

-- A number of 32 bits for the text of a table's contents (FNV-1a), the same in each process.
local function digest(x)
  local h = 2166136261
  local function add(text)
    for i = 1, #text do h = (h ~ text:byte(i)) * 16777619 & 0xffffffff end
  end
  local function walk(v)
    if type(v) == "number" then return add(("%.17g\0"):format(v)) end -- 1 and 1.0 alike
    if type(v) ~= "table" then return add(tostring(v) .. "\0") end
    local keys = {}
    add "{"
    for key in pairs(v) do keys[#keys + 1] = key end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    for _, key in ipairs(keys) do
      add(tostring(key) .. "\1")
      walk(v[key])
    end
    add "}"
  end
  walk(x)
  return ("%08x"):format(h)
end

-- What a task is made for: its kind, inputs, vocabularies.
local function made_for(model)
  local config = {}
  for key, value in pairs(type(model.config) == "table" and model.config or {}) do
    if key ~= "residuals" then config[key] = value end
  end
  return digest(config)
end

--- Writes one.
-- @string path
-- @tab state `model`, `optim`, `rngs`, and if there are any `average` and `best` (a set of
--   parameters); `numbers`: by name; `history`: scores, one after the other; `scores`: by name
-- @return true; or nil, message, code
function checkpoint.save(path, state)
  local archive, params = core.archive(), state.model.params
  add_params(archive, "parameters.", params)
  if state.best then add_params(archive, "best.", state.best) end
  if state.average and state.average.params then
    add_params(archive, "average.", state.average.params)
    archive:set_text("average", tostring(state.average.count))
  end
  state.optim:save(archive, params, "optimizer.")
  local plain = { numbers = {}, history = {}, scores = {}, rngs = {} }
  for name, x in pairs(state.numbers) do plain.numbers[name] = text_of(x) end
  for i, x in ipairs(state.history) do plain.history[i] = text_of(x) end
  for name, x in pairs(state.scores or {}) do
    if type(x) == "number" then plain.scores[name] = text_of(x) end
  end
  for i, rng in ipairs(state.rngs) do plain.rngs[i] = rng:state() end
  archive:set_text("training", cjson.encode(plain))
  archive:set_text("made for", made_for(state.model))
  return archive:save(path)
end

-- The table of texts, checked; nil and what is wrong.
local function plain_of(text, rngs)
  local ok, plain = pcall(cjson.decode, text)
  if not ok or type(plain) ~= "table" then return nil, "its training is damaged" end
  local out = {}
  for _, list in ipairs { "numbers", "history", "scores" } do
    out[list] = {}
    for name, x in pairs(type(plain[list]) == "table" and plain[list] or {}) do
      out[list][name] = type(x) == "string" and number_of(x) or nil
    end
  end
  local states = type(plain.rngs) == "table" and plain.rngs or {}
  if #states ~= #rngs then
    return nil, ("expected the states of %d generators (rng), came %d"):format(#rngs, #states)
  end
  for i, state in ipairs(states) do
    if type(state) ~= "string" or not state:find "^%x+$" or #state ~= 64 or not state:find "[^0]" then
      return nil, ("rng %d: expected its state, came %s"):format(i, check.came(state))
    end
  end
  for _, name in ipairs { "epoch", "best", "rate", "first_rate", "seconds" } do
    if not out.numbers[name] then return nil, ("its training lacks %s"):format(name) end
  end
  out.rngs = states
  return out
end

--- Reads one into what it was written of; before anything is changed, all of it is checked.
-- @string path
-- @tab state as for @{save}, with `first_rate`, the rate that the training has to have begun with
--   (any, if nil); gets `numbers`, `history`, `scores` and `best`
-- @treturn[1] bool true; false if there is no such file
-- @return[2] nil
-- @treturn[2] string what is wrong
function checkpoint.load(path, state)
  local file = io.open(path, "rb")
  if not file then return false end
  file:close()
  local archive, message = core.load_archive(path)
  if not archive then return nil, message end
  local function bad(text) return nil, ("'%s': %s"):format(path, text) end
  local params, average = state.model.params, state.average
  local text = archive:text "training"
  if not text then return bad "it is no checkpoint of a training" end
  local plain, problem = plain_of(text, state.rngs)
  if not plain then return bad(problem) end
  if state.first_rate and archive:text "optimizer.kind" == state.optim.kind
    and plain.numbers.first_rate ~= state.first_rate then
    return bad(("expected a training with the rate %g, came one with %g"):format(state.first_rate,
      plain.numbers.first_rate))
  end
  local set, best, averaged
  set, problem = take_params(archive, "parameters.", params)
  if not set then return bad(problem) end
  if archive:text "made for" ~= made_for(state.model) then
    return bad "it is of a task with other inputs or vocabularies"
  end
  if plain.numbers.best > 0 then
    best, problem = take_params(archive, "best.", params)
    if not best then return bad(problem) end
  end
  local count = math.tointeger(tonumber(archive:text "average"))
  if (count ~= nil) ~= (average ~= nil) then
    return bad(("expected %s average, came %s"):format(average and "an" or "no",
      count and "one" or "none"))
  elseif count then
    averaged, problem = take_params(archive, "average.", params)
    if not averaged then return bad(problem) end
  end
  problem = select(2, state.optim:load(archive, params, "optimizer."))
  if problem then return bad(problem) end
  set(params)
  if best then
    state.best = params:clone()
    best(state.best)
  end
  if averaged then
    average.params = params:clone()
    averaged(average.params)
    average.count = count
  end
  for i, rng in ipairs(state.rngs) do rng:restore(plain.rngs[i]) end
  state.numbers, state.history, state.scores = plain.numbers, plain.history, plain.scores
  return true
end

return checkpoint
