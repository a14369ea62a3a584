--- Time series: the transforms that bring one into the form in which a network forecasts best, and
-- the naive forecasts that every other has to beat.
--
-- A series is a list of numbers, of rows of numbers (several columns), or a tensor [T,columns].
-- @module neap.series
local check = require "neap.check"
local core = require "neap.core"
local op = require "neap.op"

local series = {}

--- A series as a list of rows of finite numbers, each as wide.
-- @string who the function, for messages
-- @string name of the argument
-- @param x
-- @treturn tab
function series.rows(who, name, x)
  local list = x
  if check.is_tensor(x) then list = x:totable() end
  if type(list) ~= "table" or getmetatable(list) then
    check.fail("%s: %s: expected a list of numbers or of rows, came %s", who, name, check.came(x))
  end
  local out = {}
  for t, row in ipairs(list) do
    out[t] = type(row) == "table" and row or { row }
    if #out[t] ~= #out[1] or #out[t] == 0 then
      check.fail("%s: %s: step %d: expected %d numbers, came %d", who, name, t,
        math.max(#out[1], 1), #out[t])
    end
    for _, value in ipairs(out[t]) do
      if type(value) ~= "number" or value - value ~= 0 then
        check.fail("%s: %s: step %d: expected a finite number, came %s", who, name, t,
          check.came(value))
      end
    end
  end
  return out
end

-- ---- naive forecasts ----

local naive = { kind = "naive" }
naive.__index, naive.__name = naive, "neap.naive"

-- Row t as it came in: a number, or a row of its own.
local function copy(row) return #row > 1 and table.move(row, 1, #row, 1, {}) or row[1] end

--- The forecast that needs no model: the value of one season ago, y(t + 1) = y(t + 1 - season); with
-- a season of 1 the last value, which is the forecast of a random walk. It is called as a
-- @{neap.forecaster} is.
-- @tab[opt] options `season`: its steps (1)
-- @return an object with `predict(series)` and `rollout(series, n)`
function series.naive(options)
  options = check.options("naive", options, { "season" })
  return setmetatable({ season = check.integer("naive", "season", options.season or 1, 1) }, naive)
end

-- Forecasts one step ahead, as many as the series is long: row t is that of step t + 1. While no
-- season is over, the last value stands for it.
function naive:predict(list)
  local rows, out = series.rows("predict", "series", list), {}
  for t = 1, #rows do out[t] = copy(rows[t + 1 - self.season] or rows[t]) end
  return out
end

-- n steps after the series: its last season again and again.
function naive:rollout(list, n)
  check.integer("rollout", "n", n, 0)
  local rows, out = series.rows("rollout", "series", list), {}
  if #rows < self.season then
    check.fail("rollout: expected a series of %d steps or more, a season, came %d", self.season,
      #rows)
  end
  for k = 1, n do out[k] = copy(rows[#rows - self.season + 1 + (k - 1) % self.season]) end
  return out
end

function naive:__tostring() return ("naive forecast, season %d"):format(self.season) end

--- What a model would have forecast within a series: every step of its last part, one step ahead,
-- and rolled out from some of them (evaluation on a rolling origin; Tashman 2000). For
-- @{neap.metrics} and its `bootstrap`.
-- @param model a @{neap.forecaster}, or a @{naive} forecast
-- @param list the series
-- @tab options `first`: the steps before the last part; `origins`: a list of steps, each from
--   `first` on, after which it is rolled out (`{ first }`); `horizon`: how many steps at most (to
--   the end)
-- @treturn tab `{ ahead, wanted }` for the steps first + 1, first + 2, .. to the end, and rolled out
--   `{ ahead, wanted }` of one origin after the other: rows of numbers
-- @treturn tab
function series.backtest(model, list, options)
  local rows = series.rows("backtest", "series", list)
  options = check.options("backtest", options, { "first", "origins", "horizon" })
  local n = #rows
  local first = check.integer("backtest", "first", options.first, 1, n - 1)
  local origins = options.origins == nil and { first }
    or check.table("backtest", "origins", options.origins)
  local horizon = check.integer("backtest", "horizon", options.horizon or n, 1)
  local function wide(row) return type(row) == "table" and row or { row } end
  local ahead, rolled = { ahead = {}, wanted = {} }, { ahead = {}, wanted = {} }
  for t, row in ipairs(model:predict(rows)) do
    if t >= first and t < n then
      ahead.ahead[t - first + 1], ahead.wanted[t - first + 1] = wide(row), rows[t + 1]
    end
  end
  for i, origin in ipairs(origins) do
    check.integer("backtest", ("origins: %d"):format(i), origin, first, n - 1)
    local past = table.move(rows, 1, origin, 1, {})
    for k, row in ipairs(model:rollout(past, math.min(horizon, n - origin))) do
      table.insert(rolled.ahead, wide(row))
      table.insert(rolled.wanted, rows[origin + k])
    end
  end
  return ahead, rolled
end

-- ---- transforms ----

local scales = {
  linear = { function(x) return x end, function(z) return z end, function(x) return x end },
  log = { math.log, op.exp, op.log },
  sqrt = { function(x) return x ^ 0.5 end, function(z) return op.square(op.maximum(z, 0)) end,
    op.sqrt },
}

--- What a scale wants of numbers, as text, where x is not so; nil where it is.
-- @string scale "linear", "log" or "sqrt"
-- @number x
function series.misfit(scale, x)
  if scale == "log" and x <= 0 then return "scale \"log\" needs numbers above 0" end
  if scale == "sqrt" and x < 0 then return "scale \"sqrt\" needs numbers from 0" end
end

local transform = { kind = "transform" }
transform.__index, transform.__name = transform, "neap.transform"

-- The coefficients c(0) = 1, c(1), .. of the product over the lags k of (1 - B^k).
local function polynomial(lags)
  local c = { [0] = 1 }
  local degree = 0
  for _, k in ipairs(lags) do
    for j = degree + k, k, -1 do c[j] = (c[j] or 0) - (c[j - k] or 0) end
    degree = degree + k
  end
  return c, degree
end

-- w(t) of column k.
local function difference(self, z, t, k)
  local w = 0
  for j, c in pairs(self.weights) do w = w + c * z[t - j][k] end
  return w
end

-- The rows z of series i of a list; the first one's width is the size.
local function scaled_rows(self, who, i, list)
  local forward, z = scales[self.scale][1], {}
  for t, row in ipairs(series.rows(who, ("series %d"):format(i), list)) do
    self.size = self.size or #row
    if #row ~= self.size then
      check.fail("%s: series %d: expected %d column%s as %s, came %d", who, i, self.size,
        self.size == 1 and "" or "s", self.mean and "the transform is of" or "in series 1", #row)
    end
    z[t] = {}
    for k, x in ipairs(row) do
      local misfit = series.misfit(self.scale, x)
      if misfit then check.fail("%s: series %d, step %d: %s, came %g", who, i, t, misfit, x) end
      z[t][k] = forward(x)
    end
  end
  return z
end

--- What is done to a series before a network sees it, and undone to what the network forecasts
-- (Box and Jenkins 1970):
--
--   z(t) = x(t), ln x(t) or sqrt x(t);  w(t) = (1 - B^a)(1 - B^b).. z(t), where B^k z(t) = z(t - k);
--   u(t) = (w(t) - mean) / deviation
--
-- What is forecast stays within the range of z and as much again on either side, so that no rolled
-- out forecast runs away.
--
-- With the differences { 1 } a network that says 0 forecasts the last value (and the mean change),
-- with { 12 } the value of a season of 12 steps ago, with { 1, 12 } the last value and the change
-- of a season ago: it learns what these do not know. `neap.forecaster { transform = .. }` records
-- both ways into its programs, so that a saved model, in a stream and in a C host too, reads and
-- forecasts numbers in the data's own unit.
-- @tab list of series to learn from; mean and deviation, of each column, are theirs
-- @tab[opt] options
--
-- - `scale`: "linear" (the preset); "log", for what grows by shares of itself: all numbers must be
--   above 0; "sqrt", for counts: none may be below 0
-- - `difference`: the lags, such as `{ 1, 12 }` (none)
-- @return an object for the option `transform` of @{neap.forecaster}; its fields are `size` (of
--   columns), `scale`, `difference`, `past` (how many steps the differences reach back), `mean` and
--   `deviation`
function series.transform(list, options)
  options = check.options("transform", options, { "scale", "difference" })
  local self = setmetatable({ scale = options.scale == nil and "linear" or options.scale,
    difference = {} }, transform)
  if not scales[self.scale] then
    check.fail("transform: scale: expected \"linear\", \"log\" or \"sqrt\", came %s",
      check.came(self.scale))
  end
  for i, lag in ipairs(options.difference and check.table("transform", "difference",
    options.difference) or {}) do
    self.difference[i] = check.integer("transform", ("difference: lag %d"):format(i), lag, 1)
  end
  self.weights, self.past = polynomial(self.difference)
  if type(list) ~= "table" or getmetatable(list) or type(list[1]) == "number" or #list == 0 then
    check.fail("transform: expected a list of series, came %s", type(list) == "table"
      and type(list[1]) == "number" and "a list of numbers: one series is { series }"
      or check.came(list))
  end
  local sums, squares, n, least, most = {}, {}, 0, {}, {}
  for i, one in ipairs(list) do
    local z = scaled_rows(self, "transform", i, one)
    for _, row in ipairs(z) do
      for k, value in ipairs(row) do
        least[k] = math.min(least[k] or math.huge, value)
        most[k] = math.max(most[k] or -math.huge, value)
      end
    end
    for t = self.past + 1, #z do
      for k = 1, self.size do
        local w = difference(self, z, t, k)
        sums[k], squares[k] = (sums[k] or 0) + w, (squares[k] or 0) + w * w
      end
      n = n + 1
    end
  end
  if n < 2 then
    check.fail("transform: expected a series of %d steps or more, as the differences reach back %d",
      self.past + 2, self.past)
  end
  self.mean, self.deviation, self.low, self.high = {}, {}, {}, {}
  for k = 1, self.size do
    local mean = sums[k] / n
    local variance = squares[k] / n - mean * mean
    self.mean[k], self.deviation[k] = mean, variance > 1e-12 * mean * mean and variance ^ 0.5 or 1
    local range = most[k] > least[k] and most[k] - least[k] or 1 + math.abs(most[k])
    self.low[k], self.high[k] = least[k] - range, most[k] + range
  end
  return self
end

-- z of recorded x; a logarithm stays finite.
local function scaled(self, x)
  if self.scale == "linear" then return x end
  return scales[self.scale][3](op.maximum(x, self.scale == "log" and 1e-30 or 0))
end

-- n of them side by side.
local function copies(z, n)
  if n == 1 then return z end
  return op.concat { copies(z, n // 2), copies(z, n - n // 2) }
end

--- Records the way there and back; for @{neap.forecaster}.
-- @param rec the recorder
-- @param x [T,B,size]
-- @treturn tab `input`: u [T,B,size], 0 where the differences reach before the first step; `known`
--   [T,B]: 1 where the next step's u is all known; `target(y)`: u of the next step, y [T,B,size];
--   `back(u)`: the forecast of the next step in the data's unit
function transform:record(rec, x)
  local size, past, c = self.size, self.past, self.weights
  local z = scaled(self, x)
  local function constant(name) return rec:constant(name, core.tensor(self[name])) end
  local mean, deviation = constant "mean", constant "deviation"
  local low, high = constant "low", constant "high"
  local w, base, begun, known = z, nil, nil, nil
  if past > 0 then
    -- in each step the last `past` rows, of which the first stands for those before it
    local y = rec:scan(x.space, { n = { dims = { 1 } }, rows = { dims = { past * size } } },
      { "n", "rows" }, function(s)
        local all = op.concat { op.where(op.equal(s.n, 0), copies(z, past), s.rows), z }
        local function row(lag)
          return op.slice(all, (past - lag) * size + 1, (past - lag + 1) * size)
        end
        local difference, next_base = z, nil
        for j = 1, past do
          if c[j] and c[j] ~= 0 then
            difference = difference + c[j] * row(j)
            local term = -c[j] * row(j - 1)
            next_base = next_base and next_base + term or term
          end
        end
        return op.concat { difference, next_base, op.greater_equal(s.n, past),
            op.greater_equal(s.n, past - 1) },
          { n = op.minimum(s.n + 1, past), rows = op.slice(all, size + 1, (past + 1) * size) }
      end)
    w, base = op.slice(y, 1, size), op.slice(y, size + 1, 2 * size)
    begun = op.slice(y, 2 * size + 1, 2 * size + 1)
    known = op.reshape(op.slice(y, 2 * size + 2, 2 * size + 2), {})
  end
  local u = (w - mean) / deviation
  return { input = begun and u * begun or u, known = known,
    target = function(y)
      local next_z = scaled(self, y)
      return ((base and next_z - base or next_z) - mean) / deviation
    end,
    back = function(y)
      local next_z = y * deviation + mean
      if base then next_z = base + next_z end
      return scales[self.scale][2](op.minimum(op.maximum(next_z, low), high))
    end }
end

-- u of series i of a list, without the steps that differences do not reach.
local function transformed(self, who, i, list)
  local z, u = scaled_rows(self, who, i, list), {}
  for t = self.past + 1, #z do
    local row = {}
    for k = 1, self.size do
      row[k] = (difference(self, z, t, k) - self.mean[k]) / self.deviation[k]
    end
    u[#u + 1] = row
  end
  return u
end

-- Solves a x = y for each y of a list, in place; of a, positive definite, the lower half is read
-- (Cholesky's decomposition).
local function solve(a, list)
  local n = #a
  for i = 1, n do
    for j = 1, i do
      local sum = a[i][j]
      for k = 1, j - 1 do sum = sum - a[i][k] * a[j][k] end
      a[i][j] = i == j and sum ^ 0.5 or sum / a[j][j]
    end
  end
  for _, y in ipairs(list) do
    for i = 1, n do
      for k = 1, i - 1 do y[i] = y[i] - a[i][k] * y[k] end
      y[i] = y[i] / a[i][i]
    end
    for i = n, 1, -1 do
      for k = i + 1, n do y[i] = y[i] - a[k][i] * y[k] end
      y[i] = y[i] / a[i][i]
    end
  end
end

--- The linear autoregression of least squares: the weights with which the last steps forecast the
-- next one, u(t + 1) = W (u(t - steps + 1), .., u(t)), where u is what a transform makes of the
-- series. They start a linear layer on @{neap.features.window}, so that a network has to learn only
-- what they leave (Zhang 2003, "Time series forecasting using a hybrid ARIMA and neural network
-- model"). What a long window weighs, steps along the gradient find slowly.
-- @tab list of series
-- @tab options
--
-- - `steps`: how many
-- - `transform`: of @{transform} (linear, no differences)
-- - `ridge`: how much squares of weights cost, for each step to learn from (0.01). It draws towards
--   the last value, or towards no change where u are differences (Hoerl and Kennard 1970)
-- @treturn tensor W [size,steps·size], for the option `init` of a linear layer
function series.autoregression(list, options)
  options = check.options("autoregression", options, { "steps", "transform", "ridge" })
  local steps = check.integer("autoregression", "steps", options.steps, 1)
  local ridge = check.number("autoregression", "ridge", options.ridge or 0.01, 0)
  local way = options.transform
  if way == nil then
    way = series.transform(list)
  elseif getmetatable(way) ~= transform then
    check.fail("autoregression: transform: expected one of neap.series.transform, came %s",
      check.came(way))
  end
  local size, least = way.size, 1e-9 -- which keeps what never varies from making a singular
  local width, count, a, right = steps * size, 0, {}, {}
  for i = 1, width do
    a[i] = {}
    for j = 1, i do a[i][j] = 0 end
  end
  for k = 1, size do
    right[k] = {}
    for i = 1, width do right[k][i] = 0 end
  end
  for i, one in ipairs(check.table("autoregression", "series", list)) do
    local u = transformed(way, "autoregression", i, one)
    for t = steps, #u - 1 do
      local x = {}
      for j = t - steps + 1, t do table.move(u[j], 1, size, #x + 1, x) end
      for r = 1, width do
        local row, value = a[r], x[r]
        for c = 1, r do row[c] = row[c] + value * x[c] end
      end
      for k = 1, size do
        local y, sums = u[t + 1][k] - (way.past == 0 and u[t][k] or 0), right[k]
        for r = 1, width do sums[r] = sums[r] + x[r] * y end
      end
      count = count + 1
    end
  end
  if count == 0 then
    check.fail("autoregression: expected a series of %d steps or more, %d for the window and one "
      .. "to forecast", way.past + steps + 1, way.past + steps)
  end
  for i = 1, width do a[i][i] = a[i][i] + (ridge + least) * count end
  solve(a, right)
  local flat = {}
  for k, row in ipairs(right) do
    local last = width - size + k
    if way.past == 0 then row[last] = row[last] + 1 end
    table.move(row, 1, width, #flat + 1, flat)
  end
  return core.tensor(flat):reshape { size, width }
end

function transform:__tostring()
  local text = self.scale
  if #self.difference > 0 then
    text = text .. ", differences " .. table.concat(self.difference, ", ")
  end
  return text
end

return series
