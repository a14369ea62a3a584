--- Optimizers: they are made before the parameters are known and bound at the first step.
-- @module neap.optim
local core = require "neap.core"
local check = require "neap.check"

local optim = {}
local methods, meta = {}, { __name = "neap.optimizer" }
meta.__index = methods

-- A list of names, and of patterns with *.
local function names_of(who, params)
  local names, count = {}, 0
  if type(params) == "table" then
    for _ in pairs(params) do count = count + 1 end
    for _, name in ipairs(params) do
      names[#names + 1] = check.type(who, "params: name", name, "string")
    end
  end
  if count == 0 or #names < count then
    check.fail("%s: params: expected a list of names of parameters, { \"net.linear.weight\", .. }, "
      .. "came %s", who, check.came(params))
  end
  return names
end

--- The parameters that a list names. `*` stands for anything: "net.embed.*".
-- @string who
-- @param params a set
-- @tab names
-- @treturn tab names without *
function optim.match(who, params, names)
  local out = {}
  for _, name in ipairs(names_of(who, names)) do
    if not name:find("*", 1, true) then
      out[#out + 1] = name
    else
      local pattern = "^" .. name:gsub("[^%w*]", "%%%0"):gsub("%*", ".*") .. "$"
      local before = #out
      for _, known in ipairs(params:names()) do
        if known:find(pattern) then out[#out + 1] = known end
      end
      if #out == before then
        check.fail("%s: no parameter's name is like %q; they are %s", who, name,
          table.concat(params:names(), ", "))
      end
    end
  end
  return out
end

-- Groups of parameters with their own share of the rate or their own weight decay.
local function groups_of(kind, groups)
  if groups == nil then return nil end
  check.table(kind, "groups", groups)
  for key, g in pairs(groups) do
    if math.type(key) ~= "integer" or key < 1 or key > #groups then
      check.fail("%s: groups: expected a list of groups, { { params = { .. }, rate = .. }, .. }, came "
        .. "%s = %s", kind, tostring(key), check.came(g))
    end
  end
  local out = {}
  for i, g in ipairs(groups) do
    local who = ("%s: group %d"):format(kind, i)
    check.options(who, g, { "params", "rate", "weight_decay" })
    out[i] = { names = names_of(who, g.params), who = who,
      rate = g.rate == nil and 1 or check.number(who, "rate", g.rate, 0, 1e6),
      weight_decay = g.weight_decay == nil and -1
        or check.number(who, "weight_decay", g.weight_decay, 0, 1e6) }
  end
  return out
end

local function callable(x)
  local meta_of = getmetatable(x)
  return type(x) == "function" or type(meta_of) == "table" and meta_of.__call ~= nil
end

-- Options that are no numbers for the runtime.
local own = { schedule = true, params = true, lazy = true, groups = true, accumulate = true }

local function maker(kind, takes)
  local known = { "rate", "clip", "clip_value", "weight_decay", "lazy", "schedule", "params",
    "groups", "accumulate" }
  for name in takes:gmatch "%S+" do known[#known + 1] = name end
  return function(options)
    options = check.options(kind, options, known)
    local c = { lazy = check.boolean(kind, "lazy", options.lazy) or nil }
    for k, v in pairs(options) do
      if not own[k] then
        if type(v) ~= "number" then
          check.fail("%s: %s: expected a number, came %s", kind, k, check.came(v))
        end
        c[k == "clip" and "clip_norm" or k] = v
      end
    end
    if options.schedule ~= nil and not callable(options.schedule) then
      check.fail("%s: schedule: expected a function of the step and the rate, came %s", kind,
        check.came(options.schedule))
    end
    local accumulate = options.accumulate == nil and 1
      or check.integer(kind, "accumulate", options.accumulate, 1)
    local names = options.params ~= nil and names_of(kind, options.params) or nil
    local groups = groups_of(kind, options.groups)
    core.optim(core.params(), kind, c) -- wrong numbers are found here, at the script's line
    return setmetatable({ kind = kind, config = c, schedule = options.schedule,
      names = names, groups = groups, accumulate = accumulate, base = c.rate,
      bound = setmetatable({}, { __mode = "k" }),
      gathered = setmetatable({}, { __mode = "k" }) }, meta)
  end
end

--- One for each rule of the runtime: `sgd`, `nesterov` (with `momentum`); `rmsprop` (Tieleman and
-- Hinton 2012; `decay`, `momentum`, `eps`); `adam` (Kingma and Ba 2015) and `adamw`, whose decay is
-- decoupled (Loshchilov and Hutter 2019; `beta1`, `beta2`, `eps`); `adagrad` (Duchi et al. 2011;
-- `eps`); `adadelta` (Zeiler 2012; `decay`, `eps`). Options of all:
--
-- - `rate`, `weight_decay`; `clip`: bound of the gradient's norm; `clip_value`: of each element
-- - `schedule`: function(step, rate) giving the rate of a step, such as @{neap.schedule} makes
-- - `params = { names }`: what it owns; all if nil. `*` in a name stands for anything:
--   "net.embed.*"
-- - `groups = { { params = { names }, rate =, weight_decay = }, .. }`: their rate is so many times
--   the optimizer's, their weight decay another; clipping is over all
-- - `accumulate`: so many batches make one step, by the mean of their gradients. Those that are left
--   at the end of an epoch of @{neap.fit} make one too (`optim:finish(params)`), each as heavy as in
--   the others
-- - `lazy = true`: see below
--
-- Rows of a table that only embeddings read have a gradient of 0 unless a batch looks them up. SGD
-- without momentum and decay passes them by. Momentum, Adam's and RMSprop's averages and decay go on
-- for a row that was once looked up, as the formulas have it; with `lazy` such a row stays as it is,
-- value and averages, until it is looked up again. That is another rule, much cheaper where the table
-- is large, as PyTorch's SparseAdam.
-- @function sgd
-- @tab options also `momentum`
optim.kinds = {}
for i, kind in ipairs(core.optim_kinds()) do
  optim[kind.name] = maker(kind.name, kind.takes)
  optim.kinds[i] = kind.name
end

-- The runtime's optimizer for a parameter set.
function methods:on(params)
  local o = self.bound[params]
  if not o then
    o = core.optim(params, self.kind, self.config,
      self.names and optim.match(self.kind, params, self.names))
    for _, g in ipairs(self.groups or {}) do
      o:group(params, optim.match(g.who, params, g.names), g.rate, g.weight_decay)
    end
    self.bound[params] = o
    if not self.base then self.base = o:rate() end
  end
  self.last = o
  return o
end

--- Adds a batch's gradient to what is gathered for the next step.
-- @param params
-- @func backward called with the share that the gradient has in the step
function methods:gather(params, backward)
  local n = self.gathered[params] or 0
  self.gathered[params] = nil -- if backward fails, the next batch is the first
  if n == 0 then params:zero_grad() end
  backward(1 / self.accumulate)
  self.gathered[params] = n
end

--- Tells a schedule that looks at them a score, such as that of each epoch.
-- @number score
function methods:observe(score)
  if type(self.schedule) == "table" and self.schedule.observe then self.schedule:observe(score) end
end

--- Clips the gradients that the parameters hold and updates them; with `accumulate` at each so many
-- calls alone.
-- @param params of a model or program
function methods:step(params)
  self:on(params)
  local n = (self.gathered[params] or 0) + 1
  self.gathered[params] = n
  if n == self.accumulate then self:finish(params) end
end

--- Makes the step of what is gathered now, if anything is.
-- @param params of a model or program
function methods:finish(params)
  local o = self:on(params)
  if not self.gathered[params] then return end
  self.gathered[params] = nil
  if self.schedule then
    local step = o:report().steps + 1
    local rate = self.schedule(step, self.base)
    o:rate(check.number(self.kind, ("schedule: rate of step %d"):format(step), rate, 0, 1e6))
  end
  o:step()
end

--- Puts its memory of a parameter set into an archive, to go on from later to the same bits.
-- @param archive
-- @param params
-- @string prefix of the names there
function methods:save(archive, params, prefix)
  if self.gathered[params] then
    check.fail("%s: accumulate: %d of %d batches are gathered for the next step: this cannot be saved",
      self.kind, self.gathered[params], self.accumulate)
  end
  self:on(params):save(archive, prefix)
  archive:set_text(prefix .. "kind", self.kind)
end

--- Takes it back.
-- @param archive
-- @param params
-- @string prefix
-- @return true; or nil and what is wrong
function methods:load(archive, params, prefix)
  local kind = archive:text(prefix .. "kind")
  if kind ~= self.kind then
    return nil, ("expected the memory of %s, came that of %s"):format(self.kind, kind or "none")
  end
  self.gathered[params] = nil
  return self:on(params):load(archive, prefix)
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
  if self.accumulate > 1 then parts[#parts + 1] = "accumulate=" .. self.accumulate end
  return self.kind .. (#parts > 0 and " " or "") .. table.concat(parts, " ")
end

return optim
