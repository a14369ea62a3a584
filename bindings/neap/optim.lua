--- Optimizers: they are made before the parameters are known and bound at the first step.
-- @module neap.optim
local core = require "neap.core"
local check = require "neap.check"

local optim = {}
local methods, meta = {}, { __name = "neap.optimizer" }
meta.__index = methods

local known = { "rate", "momentum", "decay", "beta1", "beta2", "eps", "weight_decay", "clip",
  "clip_value", "schedule", "params" }

local function maker(kind)
  return function(options)
    options = check.options(kind, options, known)
    local c = {}
    for k, v in pairs(options) do
      if k ~= "schedule" and k ~= "params" then
        if type(v) ~= "number" then
          check.fail("%s: %s: expected a number, came %s", kind, k, check.came(v))
        end
        c[k == "clip" and "clip_norm" or k] = v
      end
    end
    if options.schedule and type(options.schedule) ~= "function" then
      check.fail("%s: schedule: expected a function of the step and the rate", kind)
    end
    core.optim(core.params(), kind, c) -- wrong numbers are found here, at the script's line
    return setmetatable({ kind = kind, config = c, schedule = options.schedule,
      names = options.params, base = c.rate, bound = setmetatable({}, { __mode = "k" }) }, meta)
  end
end

--- Stochastic gradient descent. Options of all: `rate`, `clip` (bound of the gradient's norm),
-- `clip_value` (bound of each element), `weight_decay`, `schedule = function(step, rate)` giving
-- the rate of a step, `params = { names }` (the group it owns; all if nil).
-- @function sgd
-- @tab options also `momentum`
optim.sgd = maker "sgd"
--- RMSprop (Tieleman and Hinton 2012).
-- @function rmsprop
-- @tab options also `decay`, `momentum`, `eps`
optim.rmsprop = maker "rmsprop"
--- Adam (Kingma and Ba 2015).
-- @function adam
-- @tab options also `beta1`, `beta2`, `eps`
optim.adam = maker "adam"
--- AdamW: decoupled weight decay (Loshchilov and Hutter 2019).
-- @function adamw
-- @tab options as adam
optim.adamw = maker "adamw"

-- The runtime's optimizer for a parameter set.
function methods:on(params)
  local o = self.bound[params]
  if not o then
    o = core.optim(params, self.kind, self.config, self.names)
    self.bound[params] = o
    self.last = o
    if not self.base then self.base = o:rate() end
  end
  return o
end

--- Clips the gradients that the parameters hold and updates them.
-- @param params of a model or program
function methods:step(params)
  local o = self:on(params)
  if self.schedule then o:rate(self.schedule(o:report().steps + 1, self.base)) end
  o:step()
end

--- The rate; with a number, sets it.
function methods:rate(rate)
  if rate then
    self.config.rate, self.base = rate, rate
    if self.last then self.last:rate(rate) end
  end
  return self.last and self.last:rate() or self.config.rate
end

--- Norm of the last gradient, steps, how often it was clipped.
-- @treturn tab `{ norm, rate, steps, clipped_norm, clipped_value }`
function methods:report()
  return self.last and self.last:report()
    or { norm = 0, rate = self.config.rate, steps = 0, clipped_norm = 0, clipped_value = 0 }
end

function meta:__tostring()
  local parts = {}
  for name, value in pairs(self.config) do
    parts[#parts + 1] = ("%s=%g"):format(name == "clip_norm" and "clip" or name, value)
  end
  table.sort(parts)
  return self.kind .. (#parts > 0 and " " or "") .. table.concat(parts, " ")
end

return optim
