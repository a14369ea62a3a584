--- Optimizers: they are made before the parameters are known and bound at the first step.
-- @module neap.optim
local core = require "neap.core"
local check = require "neap.check"

local optim = {}
local methods, meta = {}, { __name = "neap.optimizer" }
meta.__index = methods

-- What options.params must be: a list of names.
local function group(kind, params)
  if params == nil then return nil end
  local names, count = {}, 0
  if type(params) == "table" then
    for _ in pairs(params) do count = count + 1 end
    for _, name in ipairs(params) do
      names[#names + 1] = check.type(kind, "params: name", name, "string")
    end
  end
  if count == 0 or #names < count then
    check.fail("%s: params: expected a list of names of parameters, { \"net.linear.weight\", .. }, "
      .. "came %s", kind, check.came(params))
  end
  return names
end

local function maker(kind, ...)
  local known = { "rate", "clip", "clip_value", "weight_decay", "lazy", "schedule", "params", ... }
  return function(options)
    options = check.options(kind, options, known)
    local c = { lazy = check.boolean(kind, "lazy", options.lazy) or nil }
    for k, v in pairs(options) do
      if k ~= "schedule" and k ~= "params" and k ~= "lazy" then
        if type(v) ~= "number" then
          check.fail("%s: %s: expected a number, came %s", kind, k, check.came(v))
        end
        c[k == "clip" and "clip_norm" or k] = v
      end
    end
    if options.schedule ~= nil and type(options.schedule) ~= "function" then
      check.fail("%s: schedule: expected a function of the step and the rate, came %s", kind,
        check.came(options.schedule))
    end
    local names = group(kind, options.params)
    core.optim(core.params(), kind, c) -- wrong numbers are found here, at the script's line
    return setmetatable({ kind = kind, config = c, schedule = options.schedule,
      names = names, base = c.rate, bound = setmetatable({}, { __mode = "k" }) }, meta)
  end
end

--- Stochastic gradient descent. Options of all: `rate`, `clip` (bound of the gradient's norm),
-- `clip_value` (bound of each element), `weight_decay`, `schedule = function(step, rate)` giving
-- the rate of a step, `params = { names }` (the group it owns; all if nil), `lazy = true`.
--
-- Rows of a table that only embeddings read have a gradient of 0 unless a batch looks them up. SGD
-- without momentum and decay passes them by. Momentum, Adam's and RMSprop's averages and decay go on
-- for a row that was once looked up, as the formulas have it; with `lazy` such a row stays as it is,
-- value and averages, until it is looked up again. That is another rule, much cheaper where the table
-- is large, as PyTorch's SparseAdam.
-- @function sgd
-- @tab options also `momentum`
optim.sgd = maker("sgd", "momentum")
--- RMSprop (Tieleman and Hinton 2012).
-- @function rmsprop
-- @tab options also `decay`, `momentum`, `eps`
optim.rmsprop = maker("rmsprop", "decay", "momentum", "eps")
--- Adam (Kingma and Ba 2015).
-- @function adam
-- @tab options also `beta1`, `beta2`, `eps`
optim.adam = maker("adam", "beta1", "beta2", "eps")
--- AdamW: decoupled weight decay (Loshchilov and Hutter 2019).
-- @function adamw
-- @tab options as adam
optim.adamw = maker("adamw", "beta1", "beta2", "eps")

-- The runtime's optimizer for a parameter set.
function methods:on(params)
  local o = self.bound[params]
  if not o then
    o = core.optim(params, self.kind, self.config, self.names)
    self.bound[params] = o
    if not self.base then self.base = o:rate() end
  end
  self.last = o
  return o
end

--- Clips the gradients that the parameters hold and updates them.
-- @param params of a model or program
function methods:step(params)
  local o = self:on(params)
  if self.schedule then
    local step = o:report().steps + 1
    local rate = self.schedule(step, self.base)
    o:rate(check.number(self.kind, ("schedule: rate of step %d"):format(step), rate, 0, 1e6))
  end
  o:step()
end

--- The rate; with a number, sets it, for all parameter sets that it has updated or will update.
-- @number[opt] rate
-- @treturn number
function methods:rate(rate)
  if rate ~= nil then
    check.number(self.kind, "rate", rate, 0, 1e6)
    self.config.rate, self.base = rate, rate
    for _, o in pairs(self.bound) do o:rate(rate) end
  end
  return self.last and self.last:rate() or self.config.rate
end

--- Norm of the last gradient, steps, how often it was clipped.
-- @param[opt] params the set it is about; the one updated last if nil
-- @treturn tab `{ norm, rate, steps, clipped_norm, clipped_value }`
function methods:report(params)
  local o = self.last
  if params ~= nil then o = self.bound[params] end
  return o and o:report()
    or { norm = 0, rate = self.config.rate, steps = 0, clipped_norm = 0, clipped_value = 0 }
end

function meta:__tostring()
  local parts = {}
  for name, value in pairs(self.config) do
    parts[#parts + 1] = value == true and name
      or ("%s=%g"):format(name == "clip_norm" and "clip" or name, value)
  end
  table.sort(parts)
  return self.kind .. (#parts > 0 and " " or "") .. table.concat(parts, " ")
end

return optim
