--- Learning rates that change: `neap.adam { rate = 1e-3, schedule = neap.schedule.cosine { steps =
-- 9000 } }`. A schedule is called with the number of a step, from 1, and the optimizer's rate, and
-- gives the rate of this step; any function of these two is one too. Steps are those of the
-- optimizer: batches, or with `accumulate` groups of them.
-- @module neap.schedule
local check = require "neap.check"

local schedule = {}

local meta = { __name = "neap.schedule" }
meta.__index = meta
function meta.__call(self, step, rate) return self.rate(step, rate, self) end
function meta.__tostring(self) return "schedule " .. self.kind end

local function positive(who, name, value, preset)
  if value == nil then value = preset end
  if type(value) ~= "number" or not (value > 0 and value < math.huge) then
    check.fail("%s: %s: expected a number above 0, came %s", who, name, check.came(value))
  end
  return value
end

local function whole(who, name, value) return check.integer(who, name, value, 1) end

-- From a to b by half a cosine, share 0 to 1 of the way.
local function along(a, b, share)
  return b + (a - b) * (1 + math.cos(math.pi * math.min(share, 1))) / 2
end

-- Of each kind: its options, and what makes of them the function of step, rate and schedule.
local kinds = {}

--- The rate times `factor` after each `every` steps.
-- @function step
-- @tab options `{ every =, factor = 0.1 }`
kinds.step = { { "every", "factor" }, function(who, o)
  local every, factor = whole(who, "every", o.every), positive(who, "factor", o.factor, 0.1)
  return function(step, rate) return rate * factor ^ ((step - 1) // every) end
end }

--- The rate times `factor` in the course of each `every` steps, little by little.
-- @function exponential
-- @tab options `{ factor =, every = 1 }`
kinds.exponential = { { "factor", "every" }, function(who, o)
  local factor, every = positive(who, "factor", o.factor), positive(who, "every", o.every, 1)
  return function(step, rate) return rate * factor ^ ((step - 1) / every) end
end }

--- Down to `low` in `steps` by half a cosine, then `low` (Loshchilov and Hutter 2017, without
-- restarts).
-- @function cosine
-- @tab options `{ steps =, low = 0 }`
kinds.cosine = { { "steps", "low" }, function(who, o)
  local steps, low = whole(who, "steps", o.steps), check.number(who, "low", o.low or 0, 0)
  return function(step, rate) return along(rate, low, (step - 1) / steps) end
end }

--- Up from rate / `start` in the share `rise` of the `steps`, then down to rate / (`start` *
-- `finish`), both by half a cosine (Smith and Topin 2019, as PyTorch has it).
-- @function one_cycle
-- @tab options `{ steps =, rise = 0.3, start = 25, finish = 1e4 }`
kinds.one_cycle = { { "steps", "rise", "start", "finish" }, function(who, o)
  local steps = check.integer(who, "steps", o.steps, 2)
  local rise = check.number(who, "rise", o.rise or 0.3, 0, 1) * steps - 1
  local start, finish = positive(who, "start", o.start, 25), positive(who, "finish", o.finish, 1e4)
  return function(step, rate)
    local at = step - 1
    if at < rise then return along(rate / start, rate, at / rise) end
    if at == rise then return rate end
    return along(rate, rate / start / finish, (at - rise) / (steps - 1 - rise))
  end
end }

--- From the share `from` of the rate up to all of it in `steps`, evenly; then what `next` gives,
-- which counts its steps from there.
-- @function warmup
-- @tab options `{ steps =, from = 0, next = a schedule }`
kinds.warmup = { { "steps", "from", "next" }, function(who, o)
  local steps, from = whole(who, "steps", o.steps), check.number(who, "from", o.from or 0, 0, 1)
  local following = o.next
  if following ~= nil and type(following) ~= "function" and getmetatable(following) ~= meta then
    check.fail("%s: next: expected a schedule, came %s", who, check.came(following))
  end
  return function(step, rate)
    if step <= steps then return rate * (from + (1 - from) * (step - 1) / steps) end
    return following and following(step - steps, rate) or rate
  end, type(following) == "table" and following.observe and function(_, score)
    following:observe(score)
  end or nil
end }

--- The rate times `factor` when the scores that it is told (@{neap.fit} tells those of each epoch,
-- a loop of one's own calls `optim:observe(score)`) have been no better for more than `patience`
-- times; down to `low`. Better: by more than the share `threshold` of the best.
-- @function plateau
-- @tab options `{ factor = 0.1, patience = 10, threshold = 1e-4, low = 0, lower = false }`; lower:
--   less is better
kinds.plateau = { { "factor", "patience", "threshold", "low", "lower" }, function(who, o)
  local factor = positive(who, "factor", o.factor, 0.1)
  local patience = check.integer(who, "patience", o.patience == nil and 10 or o.patience, 0)
  local threshold = check.number(who, "threshold", o.threshold or 1e-4, 0, 1)
  local low = check.number(who, "low", o.low or 0, 0)
  local lower = check.boolean(who, "lower", o.lower)
  local best, waited, drops = nil, 0, 0
  local function observe(_, score)
    check.type(who, "score", score, "number")
    local bound = best and best * (lower and 1 - threshold or 1 + threshold)
    if not best or (lower and score < bound) or (not lower and score > bound) then
      best, waited = score, 0
    else
      waited = waited + 1
    end
    if waited > patience then drops, waited = drops + 1, 0 end
  end
  return function(_, rate) return math.min(rate, math.max(low, rate * factor ^ drops)) end, observe
end }

for kind, spec in pairs(kinds) do
  local who = "schedule." .. kind
  schedule[kind] = function(options)
    options = check.options(who, options, spec[1])
    local rate, observe = spec[2](who, options)
    return setmetatable({ kind = kind, rate = rate, observe = observe }, meta)
  end
end

return schedule
