--- Forecasting: from each step the next row of numbers; one step ahead or rolled out on its own
-- forecasts.
-- @module neap.forecaster
local core = require "neap.core"
local check = require "neap.check"
local op = require "neap.op"
local layer = require "neap.layer"
local task = require "neap.task"

local class = {}

--- Makes the task.
-- @function forecaster
-- @tab options
--
-- - `size`: numbers in a step (1)
-- - `net`: a layer or function: x [T,B,size] -> y [T,B,H]; where H is not size, a linear layer follows
-- - `rng`, `threads`
local function new(_, options)
  options = check.options("forecaster", options, { "size", "net", "rng", "threads" })
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
        return { loss = op.mse(y, target) }
      end,
      predict = function(rec) return { next = forecast(rec) } end,
    },
  })
  self.size = size
  if options.threads then self:threads(options.threads) end
  return self
end

function class.restore(config, parts)
  local self = task.new(class, { kind = "forecaster", params = parts.params,
    programs = parts.programs, config = config })
  self.size = config.size
  return self
end

-- A list of rows or numbers as a tensor [n, size].
local function tensor(self, who, series)
  check.type(who, "series", series, "table")
  local flat = {}
  for t, row in ipairs(series) do
    if type(row) == "number" then row = { row } end
    if type(row) ~= "table" or #row ~= self.size then
      check.fail("%s: step %d: expected %d number%s, came %s", who, t, self.size,
        self.size == 1 and "" or "s", type(row) == "table" and #row or check.came(row))
    end
    for _, x in ipairs(row) do flat[#flat + 1] = x end
  end
  if #flat == 0 then return core.zeros({ 0, self.size }) end
  return core.tensor(flat):reshape({ #series, self.size })
end

--- A batch from several series: each step's target is the next step.
-- @tab list of series (lists of numbers or rows), each of at least 2 steps
function class:batch(list)
  local input, target, lengths = {}, {}, {}
  for i, series in ipairs(list) do
    if #series < 2 then check.fail("batch: series %d has %d steps, at least 2 are needed", i, #series) end
    lengths[i] = #series - 1
    table.move(series, 1, #series - 1, #input + 1, input)
    table.move(series, 2, #series, #target + 1, target)
  end
  local n = core.tensor(lengths, "i32")
  return { rows = #list, input = { data = tensor(self, "batch", input), lengths = n },
    target = { data = tensor(self, "batch", target), lengths = n } }
end

--- Forecasts one step ahead, after each step of a series.
-- @tab series
-- @treturn tab as many rows as the series: row t is the forecast of step t + 1 (numbers if size is 1)
function class:predict(series)
  local run = self:run("predict", false)
  run:feed { rows = 1, input = { data = tensor(self, "predict", series),
    lengths = core.tensor({ #series }, "i32") } }
  run:forward()
  local out = run:value("next", "concat"):totable()
  if self.size == 1 then for t, row in ipairs(out) do out[t] = row[1] end end
  return out
end

--- Reads a series, then goes on by itself for n steps.
-- @tab series
-- @int n
-- @treturn tab n rows (numbers if size is 1)
function class:rollout(series, n)
  check.integer("rollout", "n", n, 0)
  tensor(self, "rollout", series) -- for its checks
  if #series == 0 then check.fail("rollout: the series is empty: at least one step is needed") end
  local stream = self:program "predict":stream()
  local out, row = {}, nil
  local function step(x)
    stream:input(1, type(x) == "number" and { x } or x)
    stream:step()
    row = stream:output(1)[1]:totable()
  end
  for _, x in ipairs(series) do step(x) end
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
  local sum, n = 0, 0
  for _, series in ipairs(list) do
    local ahead = self:predict(series)
    for t = 1, #series - 1 do
      local want, got = series[t + 1], ahead[t]
      if type(want) == "number" then want, got = { want }, { got } end
      for k = 1, self.size do
        sum, n = sum + (want[k] - got[k]) ^ 2, n + 1
      end
    end
  end
  return { rmse = n > 0 and (sum / n) ^ 0.5 or 0, n = n }
end

return setmetatable(class, { __call = new })
