--- Averages of parameters over training, which often do better than the last ones: moving
-- (`neap.average { decay = 0.999 }`: Polyak and Juditsky 1992, as an exponential average) or with
-- the same weight for all (`neap.average {}`: stochastic weight averaging, Izmailov et al. 2018;
-- averages of checkpoints). `neap.fit` takes one as its option `average`.
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
return function(options)
  options = check.options("average", options, { "decay", "from" })
  local decay = options.decay
  if decay ~= nil and not (type(decay) == "number" and decay >= 0 and decay < 1) then
    check.fail("average: decay: expected a number in [0,1), came %s", check.came(decay))
  end
  local from = options.from == nil and 1 or check.integer("average", "from", options.from, 1)
  return setmetatable({ decay = decay, from = from, count = 0 }, meta)
end
