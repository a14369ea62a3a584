--- Averages of parameters over training, which often do better than the last ones: moving
-- (`neap.average { decay = 0.999 }`: Polyak and Juditsky 1992, as an exponential average) or with
-- the same weight for all (`neap.average {}`: stochastic weight averaging, Izmailov et al. 2018;
-- averages of checkpoints). `neap.fit` takes one as its option `average`; `neap average` and
-- @{files} average saved models.
-- @module neap.average
local check = require "neap.check"

local methods = {}
local meta = { __name = "neap.average", __index = methods }

-- A task's parameters, or a set itself.
local function set_of(who, x)
  local params = type(x) == "table" and x.params or x
  if type(params) ~= "userdata" or not params.mix then
    check.fail("%s: expected a task or its params, came %s", who, check.came(x))
  end
  return params
end

--- Takes the present values in. With a decay the average moves the share 1 - decay towards them,
-- and at first more, 1 - (n-1)/(n+9) at the n-th time, so that the start is forgotten; without one
-- all count alike.
-- @param model a task, or parameters
-- @return itself
function methods:update(model)
  local params = set_of("average: update", model)
  self.count = self.count + 1
  local n = self.count - self.from + 1
  if not self.params then
    self.params = params:clone()
  elseif n <= 1 then
    self.params:copy(params)
  else
    self.params:mix(params, self.decay and 1 - math.min(self.decay, (n - 1) / (n + 9)) or 1 / n)
  end
  return self
end

--- Puts the average into a task; what it gives puts the values of before back when called.
-- @param model a task, or parameters
-- @treturn function
function methods:apply(model)
  local params = set_of("average: apply", model)
  if not self.params then check.fail("average: apply: nothing was taken in yet") end
  local before = params:clone()
  params:copy(self.params)
  return function() params:copy(before) end
end

function meta:__tostring()
  local decay = self.decay and ("(decay %g) "):format(self.decay) or ""
  return ("average %sof %d"):format(decay, self.count)
end

--- Makes one.
-- @function average
-- @tab options `decay`: below 1; nil: all count alike. `from`: what the n-th update brings is the
--   first to count (1)
local function new(options)
  options = check.options("average", options, { "decay", "from" })
  local decay = options.decay
  if decay ~= nil and not (type(decay) == "number" and decay >= 0 and decay < 1) then
    check.fail("average: decay: expected a number in [0,1), came %s", check.came(decay))
  end
  local from = options.from == nil and 1 or check.integer("average", "from", options.from, 1)
  return setmetatable({ decay = decay, from = from, count = 0 }, meta)
end

-- Are two plain values the same?
local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for k, v in pairs(a) do if not same(v, b[k]) then return false end end
  for k in pairs(b) do if a[k] == nil then return false end end
  return true
end

-- What keeps two models apart; nil if they differ in their parameters' values alone.
local function difference(a, b)
  if a.kind ~= b.kind then return ("expected a %s, came a %s"):format(a.kind, b.kind) end
  for key, v in pairs(a.config) do
    if not same(v, b.config[key]) then return ("expected the same %s, came another"):format(key) end
  end
  local names, others = a.params:names(), b.params:names()
  if #names ~= #others then
    return ("expected %d parameters, came %d"):format(#names, #others)
  end
  for _, name in ipairs(names) do
    local want = table.concat(a.params:shape(name), ",")
    local came = b.params:has(name) and table.concat(b.params:shape(name), ",")
    if came ~= want then
      return ("expected %s [%s], came %s"):format(name, want, came and "[" .. came .. "]" or "none")
    end
  end
end

--- The average of saved models, all with the same weight: checkpoints of a training, such as those of
-- its last epochs, or of several that began at the same parameters.
-- @function files
-- @tab paths of files that a task's `save` has written, of models that differ in nothing but their
--   parameters' values
-- @treturn[1] tab a task
-- @return[2] nil
-- @treturn[2] string message
-- @treturn[2] string code
local function files(paths)
  check.table("average: files", "paths", paths)
  if #paths == 0 then check.fail("average: files: paths: expected at least one, came none") end
  local model
  local average = new {}
  for i, path in ipairs(paths) do
    check.type("average: files", ("path %d"):format(i), path, "string")
    local other, message, code = require "neap.load"(path)
    if not other then return nil, message, code end
    local problem = not (other.kind and other.config) and "expected a task's file, came programs"
      or model and difference(model, other)
    if problem then return nil, ("average: '%s': %s"):format(path, problem), "EFORMAT" end
    model = model or other
    average:update(other)
  end
  average:apply(model)
  return model
end

return setmetatable({ files = files }, { __call = function(_, options) return new(options) end })
