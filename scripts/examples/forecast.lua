--- Forecasting: classic time series and others, one step ahead and rolled out, beside the naive
-- forecasts; prices of stocks among them, beside the random walk. Row 63 of docs/notes.md.
local neap = require "neap"
local metrics = neap.metrics
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

-- Name and steps in a season.
local all = { { "airpassengers", 12 }, { "co2", 12 }, { "nottem", 12 }, { "lynx", 10 },
  { "sunspot-year", 11 }, { "sunspot-month", 132 }, { "eustock", 1 } }
local seasons, names = {}, {}
for i, s in ipairs(all) do names[i], seasons[s[1]] = s[1], s[2] end

local options = common.options {
  "Learns to forecast time series, and compares that with the last value and one a season ago.",
  data = "a line of names; then lines of a time and numbers, commas between", epochs = 15,
  quick = 6, train = common.shared "timeseries/NAME.train.csv",
  dev = common.shared "timeseries/NAME.dev.csv",
  extend = function(parser)
    parser:option "--series":argname "NAME":choices(names)
      :description("One of the series there, with a picture: " .. table.concat(names, ", ")
        .. " (default: a table of all).")
    common.number(parser, "--season", "N", { low = 1, whole = true },
      "Steps in a season of --train (default: 1).")
    parser:option "--columns":argname "A,B":convert(common.text)
      :description "Which columns of numbers --train has (default: all but the first, the time)."
    parser:option "--gaps":choices { "hold", "linear", "skip" }
      :description "What empty cells become: the value before, what lies between, no step."
    common.picture_option(parser)
  end,
}
local one = options.series or options.train or options.dev or options.quick
if options.series and (options.train or options.dev or options.quick) then
  common.fail(2, "--series: expected no --train, --dev or --quick beside it")
elseif options.dev and not (options.train or options.load) then
  common.fail(2, "--dev needs --train or --load")
end
for _, name in ipairs { "model", "load", "picture", "test" } do
  if options[name] and not one then
    common.fail(2, ("--%s is for one series: give --series, or --train"):format(name))
  end
end

-- ---- data ----

local function piece(rows, from, to) return table.move(rows, from, to, 1, {}) end

-- A column of rows, or of the first n of them.
local function column(rows, k, n)
  local out = {}
  for t = 1, n or #rows do out[t] = rows[t][k] end
  return out
end

-- Appends the lines of a file to the rows; gives the names of its columns and how many lines.
local function read(path, rows)
  local columns = options.columns and {}
  for name in (options.columns or ""):gmatch "[^,]+" do columns[#columns + 1] = name end
  local ok, corpus, message = pcall(neap.corpus.series, path, { fields = columns,
    gaps = options.gaps, missing = { "NA", "NaN", "nan", "?" } })
  if not ok then common.fail(2, "--columns: " .. corpus:gsub("^.-series: fields: ", "")) end
  common.need(corpus, message)
  columns = columns or {}
  if not options.columns then
    for _, name in ipairs(corpus:names()) do
      if type(corpus:get(name, 1)) == "userdata" then columns[#columns + 1] = name end
    end
  end
  local before = #rows
  for k, name in ipairs(columns) do
    for t, row in ipairs(corpus:get(name, 1):totable()) do
      rows[before + t] = rows[before + t] or {}
      rows[before + t][k] = row[1]
    end
  end
  return columns, #rows - before
end

-- A trend, a season that grows with it, and errors that last: nobody's numbers.
local function invented()
  local rng, rows, error = neap.rng(options.seed):fork "data", {}, 0
  for t = 1, 168 do
    error = 0.7 * error + 0.03 * rng:normal()
    rows[t] = { math.exp(3 + t / 100 + 0.3 * math.sin(t * math.pi / 6) + error) }
  end
  return rows
end

-- A series: its rows, the names of its columns, the steps in a season, how many steps there are to
-- learn from (n), to forecast (horizon) and to test on.
local function data(name)
  local s = { name = name or "series", season = seasons[name] or options.season or 1, rows = {},
    test = 0 }
  if options.quick then
    s.name, s.season, s.rows, s.columns, s.horizon = "made", 12, invented(), { "value" }, 24
  else
    local function file(part) return common.shared(("timeseries/%s.%s.csv"):format(name, part)) end
    local train = options.train or options.dev or file "train"
    local dev = options.train and options.dev or name and file "dev"
    local there = not name or io.open(train)
    if not there then common.fail(1, ("no %s: give --train FILE (CSV)"):format(train)) end
    if name then there:close() end
    local lines
    s.columns, lines = read(train, s.rows)
    s.horizon = lines // 5 -- the last part is kept apart
    if dev then _, s.horizon = read(dev, s.rows) end
    if options.test then _, s.test = read(options.test, s.rows) end
  end
  s.n = #s.rows - s.horizon - s.test
  common.enough(options.train and "--train" or "--dev", s.n, math.max(3 * s.season, 20),
    "steps to learn from, and three seasons")
  common.enough("--dev", s.horizon, 2, "steps to forecast")
  for k, title in ipairs(s.columns) do
    local varies = false
    for t = s.season + 1, s.n do
      varies = varies or s.rows[t][k] ~= s.rows[t - s.season][k]
    end
    if not varies then
      common.fail(1, title .. ": the same in each season: there is nothing to learn")
    end
  end
  return s
end

-- ---- the model ----

-- Linear in the last season and a step more, and a GRU for what that leaves.
-- start: weights of the linear part, or nil.
local function net(s, start)
  return function(x)                                             -- [T,B,columns]
    local past = neap.features.window { steps = s.season + 1 }(x)
    return neap.linear { size = #s.columns, name = "shortcut", init = start or "zeros" }(past)
      + neap.linear { size = #s.columns, name = "rest", init = start and "zeros" }(
        neap.gru { size = 8 }(x))
  end
end

-- Learns from the rows, one step ahead and from its own forecasts: an ensemble, two networks for
-- each way to bring the series into a form.
-- epochs: of `options.epochs`, as the rate falls; dev: function(model) giving an error, or nil.
local function learn(s, rows, ways, epochs, share, dev)
  local rng, nets, transforms, past = neap.rng(options.seed), {}, {}, 0
  local long = s.season > 50 -- so many weights the gradient finds slowly: least squares before
  for i, way in ipairs(ways) do
    local t = neap.series.transform({ rows }, way)
    local start = long and neap.series.autoregression({ rows }, { steps = s.season + 1,
      transform = t }) or nil
    for k = 2 * i - 1, 2 * i do nets[k], transforms[k] = net(s, start), t end
    past = math.max(past, t.past)
  end
  local model = neap.forecaster { net = nets, transform = transforms, rng = rng,
    threads = options.threads }
  local function batch(epoch)
    if epoch == 1 then return model:batch { rows } end
    local origin = past + 1 + rng:int(#rows - past - 2)
    local first = math.max(1, origin - past - 2 * s.season)
    return model:batch({ rows, piece(rows, first, math.min(#rows, origin + s.horizon)) },
      { from = { false, origin - first + 1 } })
  end
  return model, neap.fit(model, {
    optim = neap.adamw { rate = 5e-3, clip = 1, weight_decay = 1e-2, groups = long
      and { { params = { "*shortcut*" }, rate = 0.01, weight_decay = 0 } } or nil },
    epochs = epochs,
    rate = function(epoch, first)
      return first * (1 + math.cos(math.pi * (epoch - 1) / options.epochs)) / 2
    end,
    minutes = options.minutes and options.minutes * share, quiet = dev ~= nil, key = "error",
    lower = true, patience = dev and 4, dev = dev and function() return { error = dev(model) } end,
    train = function(epoch)
      local n = 0
      return function()
        n = n + 1
        return n <= 20 and batch(epoch) or nil
      end
    end,
  })
end

-- The ways to bring the series into a form, as far as its numbers allow.
local function ways_of(s)
  local least, out = math.huge, {}
  for t = 1, s.n do least = math.min(least, table.unpack(s.rows[t])) end
  for _, scale in ipairs(options.quick and { "log" } or least > 0 and { "linear", "sqrt", "log" }
    or least == 0 and { "linear", "sqrt" } or { "linear" }) do
    for _, lags in ipairs(s.season > 1 and { {}, { 1 }, { s.season } } or { {}, { 1 } }) do
      table.insert(out, { scale = scale, difference = lags })
    end
  end
  return out
end

-- What a model says of the steps after the first ones, to step last: one step ahead and rolled out.
local function backtest(s, model, last, how)
  return { neap.series.backtest(model, piece(s.rows, 1, last), how) }
end

local function naives(s, ...)
  return backtest(s, neap.series.naive(), ...),
    backtest(s, neap.series.naive { season = s.season }, ...)
end

-- Root mean square error over that of the better naive forecast.
local function relative(own, last, seasonal, k)
  local wanted = column(own.wanted, k)
  local function error(f) return metrics.rmse(column(f.ahead, k), wanted) end
  return error(own) / math.max(math.min(error(last), error(seasonal)), 1e-12)
end

-- Tries each way on the first part of what is there to learn from, takes those that forecast the
-- rest best, at most three, together, finds the number of epochs in the same way and learns again
-- from all. What was missed tells how sure the forecasts are.
local function fitted(s, share)
  local held = math.min(2 * s.horizon, s.n // 3)
  local first, origins = s.n - held, {}
  for origin = first, s.n - math.max(s.horizon // 2, 1),
    math.max((held - s.horizon // 2) // 8, 1) do origins[#origins + 1] = origin end
  local how = { first = first, origins = origins, horizon = s.horizon }
  local last, seasonal = naives(s, s.n, how)
  local list, best = ways_of(s), {}
  share = share / (#list + 2)
  local function try(ways, text)
    local model, f = learn(s, piece(s.rows, 1, first), ways, options.epochs, share, function(now)
      local own, sum = backtest(s, now, s.n, how), 0
      for k = 1, #s.columns do
        sum = sum + relative(own[1], last[1], seasonal[1], k)
          + relative(own[2], last[2], seasonal[2], k)
      end
      return sum / (2 * #s.columns)
    end)
    local error = f.best and f.best.error == f.best.error and f.best.error or math.huge
    io.stderr:write(("%-14s %-22s %.3f of the naive error after %d epochs\n"):format(s.name, text,
      error, f.epoch or 0))
    return error, model, f.epoch or 1
  end
  for _, way in ipairs(list) do
    local lags = table.concat(way.difference, ",")
    best[#best + 1] = { try({ way }, way.scale .. (lags ~= "" and ", differences " .. lags or "")),
      way }
  end
  table.sort(best, function(a, b) return a[1] < b[1] end)
  local ways = {}
  for i = 1, math.min(3, #best) do
    if best[i][1] <= 1.25 * best[1][1] then ways[i] = best[i][2] end
  end
  local _, model, epochs = try(ways, ("the best %d together"):format(#ways))
  local missed = model:residuals({ piece(s.rows, 1, s.n) }, { from = { first + 1 } })
  return (learn(s, piece(s.rows, 1, s.n), ways, epochs, share)):remember(missed)
end

-- ---- what came of it ----

local function head()
  print [[
                          last value       a season ago     this model         error beside the
series         forecast      rmse   mase      rmse   mase      rmse   mase     better naive one]]
end

local worse, unsure = {}, {}

-- A line: errors of each forecast, and how ours stands to the better naive one; for forecasts of
-- one step, which are missed nearly each by itself, with an interval.
local function line(s, k, title, what, own, last, seasonal)
  local name = ("%s over %s"):format(#s.columns > 1 and s.columns[k] or s.name, what)
  local cells, squares, wanted = { title, what }, {}, column(own.wanted, k)
  for i, f in ipairs { last, seasonal, own } do
    local ahead = column(f.ahead, k)
    cells[#cells + 1] = ("%9s %6.2f"):format(metrics.number(metrics.rmse(ahead, wanted)),
      metrics.mase(ahead, wanted, { train = column(s.rows, k, s.n), season = s.season }))
    squares[i] = {}
    for t, x in ipairs(ahead) do squares[i][t] = (x - wanted[t]) ^ 2 end
  end
  local ratio = relative(own, last, seasonal, k)
  local text = ("%.3f"):format(ratio)
  if what == "1 step" then
    local sure = metrics.bootstrap(function(...)
      local sums = {}
      for i, list in ipairs { ... } do
        sums[i] = 0
        for _, x in ipairs(list) do sums[i] = sums[i] + x end
      end
      return (sums[3] / math.max(math.min(sums[1], sums[2]), 1e-24)) ^ 0.5
    end, squares, { rng = neap.rng(options.seed) })
    text = ("%.3f (%.2f to %.2f)"):format(ratio, sure.low, sure.high)
    if ratio < 1 and sure.high >= 1 then unsure[#unsure + 1] = name end
  end
  if ratio >= 1 then worse[#worse + 1] = name end
  print(("%-14s %-10s %-16s %-16s %-16s   %s"):format(cells[1], cells[2], cells[3], cells[4],
    cells[5], text))
  return ratio
end

-- Two lines for each column; the mean ratios of both, and what was rolled out: the mean of many ways
-- that the series may go on, which squares of errors punish least, and where four fifths of them lie.
local function report(s, model, first, last)
  local naive, seasonal = naives(s, last, { first = first })
  local own = backtest(s, model, last, { first = first, origins = {} })
  local rolled = model:intervals(piece(s.rows, 1, first), last - first,
    { rng = neap.rng(options.seed), paths = 500 })
  own[2].wanted = naive[2].wanted
  for t, x in ipairs(rolled.mean) do own[2].ahead[t] = type(x) == "table" and x or { x } end
  local ratios = { 0, 0 }
  for k, name in ipairs(s.columns) do
    for i, what in ipairs { "1 step", last - first .. " steps" } do
      ratios[i] = ratios[i] + line(s, k, i == 1 and (#s.columns > 1 and name or s.name) or "", what,
        own[i], naive[i], seasonal[i]) / #s.columns
    end
  end
  return ratios[1], ratios[2], rolled
end

-- What was rolled out, and about as many steps before it.
local function picture(s, sure)
  local before = math.min(s.n, math.max(s.horizon, 2 * s.season))
  for k, title in ipairs(s.columns) do
    local function later(list)
      local out = {}
      for t = 1, before do out[t] = false end
      for t, x in ipairs(list) do out[before + t] = type(x) == "table" and x[k] or x end
      return out
    end
    title = title == "value" and s.name or title
    local low, high, inside = later(sure.low), later(sure.high), 0
    for t = 1, s.horizon do
      local x = s.rows[s.n + t][k]
      if x >= low[before + t] and x <= high[before + t] then inside = inside + 1 end
    end
    local curves = { { "-", high, "a tenth lies above", "gray" },
      { "-", low, "a tenth lies below", "gray" },
      { "o", later(sure.mean), "rolled out", "blue" },
      { ".", column(piece(s.rows, s.n - before + 1, s.n + s.horizon), k), "what came", "red" } }
    print(("\n%s: . what came, o rolled out, @ both, - interval of 80 %%: %d of %d lie in it"):format(
      title, inside, s.horizon))
    common.draw(curves)
    local lines = {}
    for i, curve in ipairs(curves) do
      local points = {}
      for t, y in ipairs(curve[2]) do
        if y then points[#points + 1] = { s.n - before + t, y } end
      end
      lines[#curves + 1 - i] = { curve[3], points, color = curve[4] }
    end
    if k == 1 then common.plot(options, { title = title, x = "step", curves = lines }) end
  end
end

local result, list = { parameters = 0 }, one and { options.series or false } or names
local ahead, rolled = 0, 0
for i, name in ipairs(list) do
  local s = data(name or nil)
  local model = options.load and common.load(options, "forecaster") or fitted(s, 1 / #list)
  if model.size ~= #s.columns then
    common.fail(1, ("%s: its model reads %d columns, the series has %d"):format(options.load,
      model.size, #s.columns))
  end
  if not model.config.residuals then -- a model of another script
    model:remember(model:residuals { piece(s.rows, 1, s.n) })
  end
  common.save(options, model)
  if i == 1 then head() end
  local a, r, rows = report(s, model, s.n, s.n + s.horizon)
  if s.test > 1 then
    s.name = "test"
    result.test_ahead, result.test_rolled = report(s, model, s.n + s.horizon, #s.rows)
  end
  if one then
    picture(s, rows)
  else
    local key = name:gsub("-", "_")
    result[key .. "_ahead"], result[key .. "_rolled"] = a, r
  end
  ahead, rolled = ahead + a / #list, rolled + r / #list
  result.parameters = result.parameters + model:parameters()
  io.stdout:flush()
end
for _, note in ipairs { { "no better than a naive forecast: ", worse },
  { "better, but by no more than chance may do (the interval holds 1): ", unsure } } do
  if #note[2] > 0 then print("\n" .. note[1] .. table.concat(note[2], ", ")) end
end
result.dev_ahead, result.dev_rolled = ahead, rolled
common.result(result)
