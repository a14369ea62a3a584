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
local task = require "neap.task"

local class = {}

local losses = { mse = op.mse, mae = op.mae, huber = op.huber }

--- Makes the task.
-- @function forecaster
-- @tab options
--
-- - `size`: numbers in a step (1)
-- - `net`: a layer or function: x [T,B,size] -> y [T,B,H]; where H is not size, a linear layer follows
-- - `loss`: "mse" (squares of errors), "mae" (their sizes) or "huber" (squares of the small ones)
-- - `rng`, `threads`, `recompute` (see @{neap.program})
local function new(_, options)
  options = check.options("forecaster", options, { "size", "net", "rng", "threads", "recompute",
    "loss" })
  local loss = losses[options.loss == nil and "mse" or options.loss]
  if not loss then
    check.fail("forecaster: loss: expected \"mse\", \"mae\" or \"huber\", came %s",
      check.came(options.loss))
  end
  local size = check.integer("forecaster", "size", options.size or 1, 1)
  local net = task.network("forecaster", options.net)
  local head = layer.linear { name = "head", size = size }
  local function forecast(rec)
    local x = rec:input("input", { space = "T", dims = { size } })
    return rec:within("net", function()
      local y = task.call("forecaster", net, x)
      return y.width == size and y or head(y)
    end)
  end
  local self = task.new(class, {
    kind = "forecaster", rng = options.rng, net = net, options = options,
    hints = { input_size = size, output_size = size },
    config = { kind = "forecaster", size = size },
    builders = {
      learn = function(rec)
        local y = forecast(rec)
        local target = rec:input("target", { space = "T", dims = { size } })
        return { loss = loss(y, target) }
      end,
      predict = function(rec) return { next = forecast(rec) } end,
    },
  })
  self.size = size
  return self
end

function class.restore(config, parts)
  local self = task.new(class, { kind = "forecaster", params = parts.params,
    programs = parts.programs, config = config })
  self.size = config.size
  return self
end

-- A series as its number of steps and its numbers one after the other. label: what it is, for
-- messages.
local function read(self, who, series, label)
  if type(series) == "userdata" and getmetatable(series).__name == "neap.tensor" then
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

--- A batch from several series: each step's target is the next step.
-- @tab list of series, each of at least 2 steps
function class:batch(list)
  local lengths, flat = read_all(self, "batch", list)
  local input, target, size = {}, {}, self.size
  for i, n in ipairs(lengths) do
    if n < 2 then
      check.fail("batch: series %d has %d step%s, at least 2 are needed", i, n, n == 1 and "" or "s")
    end
    table.move(flat[i], 1, (n - 1) * size, #input + 1, input)
    table.move(flat[i], size + 1, n * size, #target + 1, target)
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
  local stream = self:program "predict":stream()
  local out, row = {}, nil
  local function step(x)
    stream:input(1, x)
    stream:step()
    row = stream:output(1)[1]:totable()
  end
  for t = 1, steps do step(table.move(flat, (t - 1) * self.size + 1, t * self.size, 1, {})) end
  for k = 1, n do
    out[k] = self.size == 1 and row[1] or row
    if k < n then step(row) end
  end
  return out
end

--- Root mean square error one step ahead over several series.
-- @tab list of series
-- @treturn tab `{ rmse, n }`
function class:score(list)
  local sum, n, size = 0, 0, self.size
  local lengths, flat = read_all(self, "score", list)
  for i, steps in ipairs(lengths) do
    local got = ahead(self, steps, flat[i])
    for t = 1, steps - 1 do
      for k = 1, size do sum, n = sum + (flat[i][t * size + k] - got[t][k]) ^ 2, n + 1 end
    end
  end
  return metrics.scores { rmse = n > 0 and (sum / n) ^ 0.5 or 0, n = n }
end

return setmetatable(class, { __call = new })
