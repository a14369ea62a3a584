--- Forecasting: from each step the next row of numbers; one step ahead or rolled out on its own
-- forecasts. A series is a list of numbers, of rows of numbers, or a tensor [T,size], such as
-- `corpus:get(name, i)` gives.
-- @module neap.forecaster
local core = require "neap.core"
local batches = require "neap.batches"
local check = require "neap.check"
local op = require "neap.op"
local layer = require "neap.layer"
local metrics = require "neap.metrics"
local series_of = require "neap.series"
local task = require "neap.task"

local class = {}

local losses = { mse = op.mse, mae = op.mae, huber = op.huber }

-- Where there is no transform.
local function same(y) return y end
local function plain(x) return { input = x, target = same, back = same } end

-- The scale that wants most of numbers.
local function strictest(transforms)
  local found
  for _, t in ipairs(transforms) do
    if t.scale == "log" or t.scale == "sqrt" and not found then found = t.scale end
  end
  return found
end

--- Makes the task.
-- @function forecaster
-- @tab options
--
-- - `size`: numbers in a step (1)
-- - `net`: a layer or function: x [T,B,size] -> y [T,B,H]; where H is not size, a linear layer
--   follows. Or a list of them, an ensemble (Hansen and Salamon 1990): each learns by its own
--   error, and the mean of their forecasts is the model's
-- - `transform`: of @{neap.series.transform}: the network sees and forecasts the series so
--   transformed, and the loss is that of it; what the task takes and gives stays in the data's unit.
--   Of an ensemble all have the same, or it is a list of one for each
-- - `loss`: "mse" (squares of errors), "mae" (their sizes) or "huber" (squares of the small ones)
-- - `rng`, `threads`, `recompute` (see @{neap.program})
local function new(_, options)
  options = check.options("forecaster", options, { "size", "net", "rng", "threads", "recompute",
    "loss", "transform" })
  local loss = losses[options.loss == nil and "mse" or options.loss]
  if not loss then
    check.fail("forecaster: loss: expected \"mse\", \"mae\" or \"huber\", came %s",
      check.came(options.loss))
  end
  local nets, transforms, members = options.net, options.transform, {}
  if type(nets) ~= "table" or getmetatable(nets) or #nets == 0 then nets = { nets } end
  if type(transforms) ~= "table" or transforms.kind == "transform" or #transforms == 0 then
    local all = transforms
    transforms = {}
    for i = 1, #nets do transforms[i] = all end
  end
  for i, t in ipairs(transforms) do
    if type(t) ~= "table" or t.kind ~= "transform" then
      check.fail("forecaster: transform: expected one of neap.series.transform, came %s",
        check.came(t))
    end
  end
  if #transforms > 0 and #transforms ~= #nets then
    check.fail("forecaster: transform: expected one for each of %d networks, came %d", #nets,
      #transforms)
  end
  local size = check.integer("forecaster", "size",
    options.size or transforms[1] and transforms[1].size or 1, 1)
  for _, t in ipairs(transforms) do
    if t.size ~= size then
      check.fail("forecaster: size: expected %d, as many columns as the transform is of, came %d",
        t.size, size)
    end
  end
  for i = 1, math.max(#nets, 1) do
    members[i] = { name = #nets > 1 and "net" .. i or "net", transform = transforms[i],
      net = task.network("forecaster", nets[i]), head = layer.linear { name = "head", size = size } }
  end
  local function mean(list)
    local sum = list[1]
    for i = 2, #list do sum = sum + list[i] end
    return #list > 1 and sum / #list or sum
  end
  -- What each network says, its way there and back, and the mean forecast.
  local function forecasts(rec)
    local x = rec:input("input", { space = "T", dims = { size } })
    local said, ways, next_rows, taken, n = {}, {}, {}, {}, 0
    for i, m in ipairs(members) do
      local t = m.transform
      if t and not taken[t] then
        n = n + 1
        taken[t] = rec:within("transform" .. (n > 1 and n or ""), t.record, t, rec, x)
      end
      ways[i] = t and taken[t] or plain(x)
      said[i] = rec:within(m.name, function()
        local y = task.call("forecaster", m.net, ways[i].input)
        return y.width == size and y or m.head(y)
      end)
      next_rows[i] = ways[i].back(said[i])
    end
    return said, ways, mean(next_rows)
  end
  local shown = {}
  for i, m in ipairs(members) do shown[i] = { m.name, m.net } end
  local self = task.new(class, {
    kind = "forecaster", rng = options.rng, causal = true, net = members[1].net, shown = shown, options = options,
    hints = { input_size = size, output_size = size },
    config = { kind = "forecaster", size = size, scale = strictest(transforms) },
    builders = {
      learn = function(rec)
        local said, ways, next_row = forecasts(rec)
        local target = rec:input("target", { space = "T", dims = { size } })
        local losses_of, known = {}, nil
        for i, way in ipairs(ways) do
          losses_of[i] = loss(said[i], way.target(target), way.known)
          known = known and way.known and known * way.known or known or way.known
        end
        -- what the first network's way makes of the error, and whether it counts
        local error = ways[1].target(target) - ways[1].target(next_row)
        if known then error = op.concat { error, op.reshape(known, { 1 }) } end
        return { loss = mean(losses_of), error = error }
      end,
      predict = function(rec)
        local _, _, next_row = forecasts(rec)
        return { next = next_row }
      end,
      simulate = function(rec)
        local _, ways, next_row = forecasts(rec)
        local noise = rec:input("noise", { space = "T", dims = { size } })
        return { next = ways[1].back(ways[1].target(next_row) + noise) }
      end,
    },
  })
  self.size = size
  return self
end

-- Are these rows of numbers such as residuals gives, at least one?
local function are_residuals(self, list)
  for _, row in ipairs(type(list) == "table" and list or {}) do
    if type(row) ~= "table" or #row ~= self.size then return false end
    for _, x in ipairs(row) do
      if type(x) ~= "number" or x - x ~= 0 then return false end
    end
  end
  return type(list) == "table" and #list > 0
end

function class.restore(config, parts)
  local self = task.new(class, { kind = "forecaster", params = parts.params,
    programs = parts.programs, config = config })
  self.size = config.size
  if config.residuals ~= nil and not are_residuals(self, config.residuals) then
    error(("forecaster: residuals: expected rows of %d finite numbers"):format(self.size), 0)
  end
  return self
end

-- A series as its number of steps and its numbers one after the other. label: what it is, for
-- messages.
local function read(self, who, series, label)
  if check.is_tensor(series) then
    series = series:totable()
  end
  local prefix = label and label .. ", " or ""
  if type(series) ~= "table" or getmetatable(series) then
    check.fail("%s: %sexpected a list of numbers or of rows, came %s", who,
      label and label .. ": " or "series: ", check.came(series))
  end
  local flat = {}
  for t, row in ipairs(series) do
    if type(row) == "number" then row = { row } end
    if type(row) ~= "table" or #row ~= self.size then
      check.fail("%s: %sstep %d: expected %d number%s, came %s", who, prefix, t, self.size,
        self.size == 1 and "" or "s", type(row) == "table" and #row or check.came(row))
    end
    for _, x in ipairs(row) do
      if type(x) ~= "number" or x - x ~= 0 then
        check.fail("%s: %sstep %d: expected a finite number, came %s", who, prefix, t,
          check.came(x))
      end
      local misfit = self.config.scale and series_of.misfit(self.config.scale, x)
      if misfit then
        check.fail("%s: %sstep %d: the model's %s, came %g", who, prefix, t, misfit, x)
      end
      flat[#flat + 1] = x
    end
  end
  return #series, flat
end

-- The same for several series: lists of their lengths and numbers.
local function read_all(self, who, list)
  if type(list) ~= "table" or getmetatable(list) or type(list[1]) == "number" then
    check.fail("%s: expected a list of series, came %s", who, type(list) == "table"
      and not getmetatable(list) and "a list of numbers: one series is { series }"
      or check.came(list))
  end
  local lengths, flat = {}, {}
  for i, series in ipairs(list) do
    lengths[i], flat[i] = read(self, who, series, ("series %d"):format(i))
  end
  return lengths, flat
end

-- Numbers one after the other as a tensor [n,size].
local function tensor(self, flat)
  if #flat == 0 then return core.zeros({ 0, self.size }) end
  return core.tensor(flat):reshape({ #flat // self.size, self.size })
end

-- What a model says to come after the first steps of a series that was read: n rows of numbers.
local function go_on(self, steps, flat, n)
  local stream, row = self:program "predict":stream(), nil
  local function step(x)
    stream:input(1, x)
    stream:step()
    row = stream:output(1)[1]:totable()
  end
  for t = 1, steps do step(table.move(flat, (t - 1) * self.size + 1, t * self.size, 1, {})) end
  local out = {}
  for k = 1, n do
    out[k] = row
    if k < n then step(row) end
  end
  return out
end

--- A batch from several series: each step's target is the next step.
-- @tab list of series, each of at least 2 steps
-- @tab[opt] options `from`: for each series a step from 1; what is read after it is not the series
--   but the model's own forecasts, @{rollout} from there, while the targets stay. So a model learns
--   to go on from its own errors, where no gradient flows through what it read (Venkatraman, Hebert
--   and Bagnell 2015, "Improving multi-step prediction of learned time series models"). false: the
--   series itself is read
function class:batch(list, options)
  local lengths, flat = read_all(self, "batch", list)
  options = check.options("batch", options, { "from" })
  local from = options.from == nil and {} or check.table("batch", "from", options.from)
  local input, target, size = {}, {}, self.size
  for i, n in ipairs(lengths) do
    if n < 2 then
      check.fail("batch: series %d has %d step%s, at least 2 are needed", i, n, n == 1 and "" or "s")
    end
    local begin = #input
    table.move(flat[i], 1, (n - 1) * size, begin + 1, input)
    table.move(flat[i], size + 1, n * size, #target + 1, target)
    if from[i] then
      local first = check.integer("batch", ("from: series %d"):format(i), from[i], 1, n - 1)
      local own = go_on(self, first, flat[i], n - 1 - first)
      for k, row in ipairs(own) do
        table.move(row, 1, size, begin + (first + k - 1) * size + 1, input)
      end
    end
    lengths[i] = n - 1
  end
  if #lengths == 0 then check.fail("batch: expected at least one series, came none") end
  local n = core.tensor(lengths, "i32")
  return batches.batch { rows = #lengths, input = { data = tensor(self, input), lengths = n },
    target = { data = tensor(self, target), lengths = n } }
end

-- What comes after each step of a series that was read: rows of numbers.
local function ahead(self, n, flat)
  local run = self:run("predict", false)
  run:feed { rows = 1, input = { data = tensor(self, flat), lengths = core.tensor({ n }, "i32") } }
  run:forward()
  return run:value("next", "concat"):totable()
end

--- Forecasts one step ahead, after each step of a series.
-- @tab series
-- @treturn tab as many rows as the series: row t is the forecast of step t + 1 (numbers if size is 1)
function class:predict(series)
  local out = ahead(self, read(self, "predict", series))
  if self.size == 1 then for t, row in ipairs(out) do out[t] = row[1] end end
  return out
end

--- Reads a series, then goes on by itself for n steps.
-- @tab series
-- @int n
-- @treturn tab n rows (numbers if size is 1)
function class:rollout(series, n)
  check.integer("rollout", "n", n, 0)
  local steps, flat = read(self, "rollout", series)
  if steps == 0 then check.fail("rollout: the series is empty: at least one step is needed") end
  local out = go_on(self, steps, flat, n)
  if self.size == 1 then for k, row in ipairs(out) do out[k] = row[1] end end
  return out
end

--- What the forecasts one step ahead missed, as the first network sees the series (transformed, if
-- there is a transform): what @{intervals} draws its chance from. Series that the model did not
-- learn from tell most.
-- @tab list of series, each of at least 2 steps
-- @tab[opt] options `from`: for each series the first step that is forecast, from 2
-- @treturn tab a list of rows of `size` numbers, without the steps that differences do not reach
function class:residuals(list, options)
  options = check.options("residuals", options, { "from" })
  local from = options.from == nil and {} or check.table("residuals", "from", options.from)
  local batch = self:batch(list)
  local error = self:run("learn", false):feed(batch):forward():value("error", "concat"):totable()
  local out, at = {}, 0
  for i, n in ipairs(batch.input.lengths:totable()) do
    local first = check.integer("residuals", ("from: series %d"):format(i), from[i] or 2, 2, n + 1)
    for t = first - 1, n do
      local row = error[at + t]
      if #row == self.size or row[#row] ~= 0 then
        out[#out + 1] = table.move(row, 1, self.size, 1, {})
      end
    end
    at = at + n
  end
  return out
end

--- Keeps residuals with the model, also in its file: @{intervals} draws from them where it is given
-- none.
-- @tab residuals of @{residuals}
-- @return self
function class:remember(residuals)
  if not are_residuals(self, residuals) then
    check.fail("remember: expected rows of %d finite number%s (model:residuals), came %s", self.size,
      self.size == 1 and "" or "s", type(residuals) == "table" and #residuals == 0 and "none"
        or check.came(residuals))
  end
  self.config.residuals = residuals
  return self
end

--- Rolls out many times, each time with chance in each step: a residual, drawn anew, less the mean
-- of all. So errors add up over the steps as they do in earnest (Hyndman and Athanasopoulos 2021,
-- "Forecasting: principles and practice", section 12.4). Their mean is the forecast for those who
-- count squares of errors; @{rollout} goes one way, on which nothing unforeseen comes.
-- @tab series
-- @int n
-- @tab options `residuals`: of @{residuals} (those that it remembers); `rng`; `paths`: how many
--   times (200); `level`: the share of them between low and high (0.8)
-- @treturn tab `{ low, high, mean }`, each of n rows (numbers if size is 1), in the data's unit
function class:intervals(series, n, options)
  check.integer("intervals", "n", n, 0)
  options = check.options("intervals", options, { "residuals", "rng", "paths", "level" })
  local residuals = options.residuals
  if residuals == nil then residuals = self.config.residuals end
  if not are_residuals(self, residuals) then
    local list = type(residuals) == "table"
    check.fail("intervals: residuals: expected rows of %d number%s (model:residuals), came %s",
      self.size, self.size == 1 and "" or "s", list and #residuals == 0 and "none"
        or check.came(list and residuals[1] or residuals))
  end
  local rng = check.rng("intervals", options.rng)
  if rng == nil then
    check.fail("intervals: rng: expected a source of chance such as neap.rng(17), came nil")
  end
  local paths = check.integer("intervals", "paths", options.paths or 200, 2)
  local level = check.number("intervals", "level", options.level or 0.8, 0, 1)
  local steps, flat = read(self, "intervals", series)
  if steps == 0 then check.fail("intervals: the series is empty: at least one step is needed") end
  local size, stream = self.size, self:program "simulate":stream { rows = paths }
  local mean = {} -- left in, it would pile up where the network sees differences
  for c = 1, size do
    mean[c] = 0
    for _, row in ipairs(residuals) do mean[c] = mean[c] + row[c] / #residuals end
  end
  local none = core.zeros { paths, size }
  local function step(x, noise)
    stream:input("input", x)
    stream:input("noise", noise)
    stream:step()
    return stream:output "next"
  end
  for t = 1, steps - 1 do
    local all = {}
    for b = 1, paths do table.move(flat, (t - 1) * size + 1, t * size, (b - 1) * size + 1, all) end
    step(core.tensor(all):reshape { paths, size }, none)
  end
  local x = {}
  for b = 1, paths do
    table.move(flat, (steps - 1) * size + 1, steps * size, (b - 1) * size + 1, x)
  end
  x = core.tensor(x):reshape { paths, size }
  local out = { low = {}, high = {}, mean = {} }
  for k = 1, n do
    local noise = {}
    for b = 1, paths do
      local row = residuals[rng:int(#residuals)]
      for c = 1, size do noise[(b - 1) * size + c] = row[c] - mean[c] end
    end
    x = step(x, core.tensor(noise):reshape { paths, size }):clone()
    local rows = x:totable()
    local row = { low = {}, high = {}, mean = {} }
    for c = 1, size do
      local values, sum = {}, 0
      for b = 1, paths do values[b], sum = rows[b][c], sum + rows[b][c] end
      table.sort(values)
      row.low[c] = metrics.quantile(values, (1 - level) / 2)
      row.high[c] = metrics.quantile(values, (1 + level) / 2)
      row.mean[c] = sum / paths
    end
    for name, list in pairs(out) do list[k] = size == 1 and row[name][1] or row[name] end
  end
  return out
end

--- Root mean square error one step ahead over several series.
-- @tab list of series
-- @treturn tab `{ rmse, n }`; rmse is NaN where no step is foretold
function class:score(list)
  local sum, n, size = 0, 0, self.size
  local lengths, flat = read_all(self, "score", list)
  for i, steps in ipairs(lengths) do
    local got = ahead(self, steps, flat[i])
    for t = 1, steps - 1 do
      for k = 1, size do sum, n = sum + (flat[i][t * size + k] - got[t][k]) ^ 2, n + 1 end
    end
  end
  return metrics.scores { rmse = (sum / n) ^ 0.5, n = n }
end

return setmetatable(class, { __call = new })
