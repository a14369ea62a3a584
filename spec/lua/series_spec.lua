-- Time series: transforms against plain Lua, there and back, whole, streamed and in C; naive
-- forecasts; ensembles; learning from own forecasts.
local neap = require "neap"
local op = neap.op
local host = require "host_help"
local raises = require("data_help").raises

local series = neap.series

local function nothing(x) return x * 0 end -- a network that forecasts the mean of what it sees

-- One difference after the other, where the op multiplies them out; nil where a step is missing.
local function differences(z, lags)
  local n = #z
  for _, lag in ipairs(lags) do
    local w = {}
    for t = n, 1, -1 do w[t] = z[t - lag] and z[t] - z[t - lag] or nil end
    z = w
  end
  return z
end

local function curve(n, seed)
  local rng, out = neap.rng(seed), {}
  for t = 1, n do out[t] = 20 + t + 8 * math.sin(t * math.pi / 2) + rng:normal() end
  return out
end

describe("a transform of series", function()
  local forward = { linear = function(x) return x end, log = math.log, sqrt = math.sqrt }
  local back = { linear = forward.linear, log = math.exp, sqrt = function(z) return z * z end }

  for scale, f in pairs(forward) do
    for _, lags in ipairs { {}, { 1 }, { 4 }, { 1, 4 }, { 4, 4 }, { 13 } } do
      local x = curve(40, 3)
      local t = series.transform({ x }, { scale = scale, difference = lags })
      local z, past = {}, 0
      for i, value in ipairs(x) do z[i] = f(value) end
      for _, lag in ipairs(lags) do past = past + lag end
      local w, sum, squares = differences(z, lags), 0, 0
      for i = past + 1, #x do sum, squares = sum + w[i], squares + w[i] ^ 2 end
      local n = #x - past
      local mean = sum / n
      local deviation = (squares / n - mean * mean) ^ 0.5

      it(("is %s as plain Lua has it"):format(t), function()
        assert.equal(past, t.past)
        assert.near(mean, t.mean[1], 1e-9)
        assert.near(deviation, t.deviation[1], 1e-9)
        local pr = neap.program(function(rec)
          local way = t:record(rec, rec:input("x", { space = "T", dims = { 1 } }))
          return { u = way.input, zero = way.back(way.input * 0) }
        end)
        local run = pr:run():feed { x = neap.tensor(x):reshape { #x, 1, 1 } }:forward()
        local u, zero = run:value("u", "concat"), run:value("zero", "concat")
        for i = 1, #x do
          assert.near(i > past and (w[i] - mean) / deviation or 0, u[i][1], 2e-4)
        end
        -- 0 is the mean difference: what plain Lua solves for the next value
        for i = past, #x - 1 do
          if i > 0 then
            local expected = back[scale](z[i + 1] - w[i + 1] + mean)
            assert.near(expected, zero[i][1], 1e-4 * expected)
          end
        end
      end)

      it(("is %s in the loss, of steps that are known alone"):format(t), function()
        local model = neap.forecaster { net = nothing, transform = t, rng = neap.rng(1) }
        local from = math.max(past, 1) + 1 -- the first step has no forecast
        local loss = 0
        for i = from, #x do loss = loss + ((w[i] - mean) / deviation) ^ 2 / (#x - from + 1) end
        assert.near(loss, model:loss(model:batch { x }), 1e-3)
      end)
    end
  end

  it("is the same streamed, and in a host without Lua", function()
    local rows = {}
    for i, x in ipairs(curve(14, 5)) do rows[i] = { x, 50 - x } end
    local t = series.transform({ rows }, { scale = "log", difference = { 1, 3 } })
    host.same(neap.program(function(rec)
      local way = t:record(rec, rec:input("x", { space = "T", dims = { 2 } }))
      return { y = way.back(way.input), u = way.input }
    end), { rows, { { 3, 4 } } })
  end)

  it("forecasts what naive forecasts say where the network says nothing", function()
    local x = {}
    for i = 1, 30 do x[i] = 10 + i % 5 end
    local function model(lags)
      return neap.forecaster { net = nothing, rng = neap.rng(1),
        transform = series.transform({ x }, { difference = lags }) }
    end
    for k, y in ipairs(model({ 5 }):rollout(x, 12)) do
      assert.near(series.naive { season = 5 }:rollout(x, 12)[k], y, 1e-4)
    end
    local last = series.transform({ x }, { difference = { 1 } })
    last.mean[1] = 0
    assert.near(x[30], neap.forecaster { net = nothing, transform = last }:rollout(x, 9)[9], 1e-5)
  end)

  it("lets no forecast run away", function()
    local t = series.transform({ { 1, 2, 3, 4, 5, 6 } }, { difference = { 1 } })
    local model = neap.forecaster { net = function(x) return x * 0 + 50 end, transform = t,
      rng = neap.rng(1) }
    t.deviation[1] = 1
    local out = model:rollout({ 1, 2, 3 }, 40)
    assert.equal(11, out[40]) -- the range is 1 to 6
  end)

  it("is saved with the model, which reads and gives the data's unit", function()
    local x = curve(40, 8)
    local model = neap.forecaster { net = neap.gru { size = 3 }, rng = neap.rng(1),
      transform = series.transform({ x }, { scale = "log", difference = { 1, 4 } }) }
    local optim = neap.adam { rate = 1e-2 }
    for _ = 1, 5 do model:learn(model:batch { x }, optim) end
    local path = os.tmpname()
    assert(model:save(path))
    local again = assert(neap.load(path))
    assert.same(model:rollout(x, 6), again:rollout(x, 6))
    assert.same(model:predict(x), again:predict(x))
    assert.equal(model:learn(model:batch { x }, neap.sgd { rate = 0 }),
      again:learn(again:batch { x }, neap.sgd { rate = 0 }))
    local out = host.execute("scripts/neap apply " .. path .. " --length 3",
      table.concat(x, " ") .. "\n")
    local shown = {}
    for i, y in ipairs(again:rollout(x, 3)) do shown[i] = ("%.9g"):format(y) end
    assert.equal(table.concat(shown, "\t") .. "\n", out)
    os.remove(path)
  end)

  it("finds the weights of an autoregression", function()
    local rng, x = neap.rng(4), { 1, 2 }
    for t = 3, 400 do x[t] = 5 + 1.2 * x[t - 1] - 0.6 * x[t - 2] + rng:normal() end
    local w = series.autoregression({ x }, { steps = 2, ridge = 0 })
    assert.same({ 1, 2 }, w:shape())
    assert.near(-0.6, w:totable()[1][1], 0.05)
    assert.near(1.2, w:totable()[1][2], 0.05)
    -- what has no noise it finds as good as exactly: two columns, one ahead of the other
    local rows = {}
    for t = 1, 60 do rows[t] = { math.sin(t / 3), 2 * math.sin((t - 1) / 3) } end
    local both = series.autoregression({ rows }, { steps = 2, ridge = 0 }):totable()
    local t = series.transform { rows }
    for at = 2, 59 do
      local u = {}
      for _, row in ipairs { rows[at - 1], rows[at] } do
        for k = 1, 2 do u[#u + 1] = (row[k] - t.mean[k]) / t.deviation[k] end
      end
      for k = 1, 2 do
        local y = 0
        for i = 1, 4 do y = y + both[k][i] * u[i] end
        assert.near(rows[at + 1][k], t.mean[k] + t.deviation[k] * y, 1e-2)
      end
    end
    -- a ridge draws to the last value, where u are differences to no change
    assert.near(1, series.autoregression({ x }, { steps = 2, ridge = 1e6 }):totable()[1][2], 1e-3)
    local changes = series.transform({ x }, { difference = { 1 } })
    assert.near(0, series.autoregression({ x }, { steps = 2, ridge = 1e6,
      transform = changes }):totable()[1][2], 1e-3)
    -- the window of a network sees the same: it starts as the autoregression
    local start = series.autoregression({ x }, { steps = 3, transform = changes })
    local model = neap.forecaster { rng = neap.rng(1), transform = changes, net = neap.chain {
      neap.features.window { steps = 3 }, neap.linear { size = 1, init = start } } }
    local said, weights = model:predict(x), start:totable()[1]
    local function u(step) return (step - changes.mean[1]) / changes.deviation[1] end
    local function rest(t) -- what the layer adds to the autoregression: its bias
      local y = u(said[t] - x[t])
      for i = 1, 3 do y = y - weights[i] * u(x[t - 3 + i] - x[t - 4 + i]) end
      return y
    end
    for t = 6, 400 do assert.near(rest(5), rest(t), 1e-4) end
  end)

  it("says what is wrong with what an autoregression is to be of", function()
    raises("autoregression: steps: expected an integer from 1, came 0", function()
      series.autoregression({ { 1, 2, 3 } }, { steps = 0 })
    end)
    raises("autoregression: transform: expected one of neap.series.transform, came \"log\"",
      function() series.autoregression({ { 1, 2, 3 } }, { steps = 1, transform = "log" }) end)
    raises("autoregression: expected a series of 6 steps or more, 5 for the window and one to "
      .. "forecast", function()
      series.autoregression({ { 1, 2, 4, 7 } }, { steps = 4,
        transform = series.transform({ { 1, 2, 4, 7 } }, { difference = { 1 } }) })
    end)
    raises("autoregression: series 2: expected 1 column as the transform is of, came 2", function()
      series.autoregression({ { 1, 2, 4, 7 }, { { 1, 2 }, { 3, 4 } } }, { steps = 1,
        transform = series.transform { { 1, 2, 4, 7 } } })
    end)
    raises('autoregression: series 1, step 2: scale "log" needs numbers above 0, came -1', function()
      series.autoregression({ { 1, -1, 4, 7 } }, { steps = 1,
        transform = series.transform({ { 1, 2, 4, 7 } }, { scale = "log" }) })
    end)
  end)

  it("says what is wrong with a series and its options", function()
    raises('transform: scale: expected "linear", "log" or "sqrt", came "ln"', function()
      series.transform({ { 1, 2 } }, { scale = "ln" })
    end)
    raises("transform: difference: lag 2: expected an integer from 1, came 0", function()
      series.transform({ { 1, 2 } }, { difference = { 1, 0 } })
    end)
    raises('transform: series 2, step 3: scale "log" needs numbers above 0, came 0', function()
      series.transform({ { 1, 2 }, { 1, 2, 0 } }, { scale = "log" })
    end)
    raises('transform: series 1, step 1: scale "sqrt" needs numbers from 0, came -1', function()
      series.transform({ { -1, 2 } }, { scale = "sqrt" })
    end)
    raises("transform: expected a series of 15 steps or more, as the differences reach back 13",
      function() series.transform({ curve(14, 1) }, { difference = { 1, 12 } }) end)
    raises("transform: expected a list of series, came a list of numbers: one series is { series }",
      function() series.transform({ 1, 2, 3 }) end)
    raises("transform: series 2: expected 2 columns as in series 1, came 1", function()
      series.transform { { { 1, 2 }, { 3, 4 } }, { 1, 2 } }
    end)
    raises("transform: series 1: step 2: expected 2 numbers, came 1", function()
      series.transform { { { 1, 2 }, { 3 } } }
    end)
    raises("transform: series 1: step 2: expected a finite number, came", function()
      series.transform { { 1, 0 / 0 } }
    end)
    raises("forecaster: transform: expected one of neap.series.transform, came a table",
      function() neap.forecaster { net = nothing, transform = { scale = "log" } } end)
    raises("forecaster: size: expected 1, as many columns as the transform is of, came 2", function()
      neap.forecaster { net = nothing, size = 2, transform = series.transform { { 1, 2 } } }
    end)
  end)

  it("takes a series that does not change", function()
    local model = neap.forecaster { net = nothing, rng = neap.rng(1),
      transform = series.transform({ { 7, 7, 7, 7 } }, { difference = { 1 } }) }
    assert.same({ 7, 7 }, model:rollout({ 7, 7 }, 2))
  end)
end)

describe("naive forecasts", function()
  it("are the last value, or that of a season ago", function()
    local x = { 1, 2, 3, 4, 5 }
    local last, seasonal = series.naive(), series.naive { season = 3 }
    assert.same(x, last:predict(x))
    assert.same({ 5, 5 }, last:rollout(x, 2))
    assert.same({ 1, 2, 1, 2, 3 }, seasonal:predict(x)) -- while no season is over, the last value
    assert.same({ 3, 4, 5, 3 }, seasonal:rollout(x, 4))
    assert.same({ { 3, 4 }, { 3, 4 } }, last:rollout({ { 1, 2 }, { 3, 4 } }, 2))
    assert.equal("naive forecast, season 3", tostring(seasonal))
    local corpus = neap.corpus.from { y = { { 1, 2 } } }
    assert.same({ 2 }, last:rollout(corpus:get("y", 1), 1))
  end)

  it("say what is wrong", function()
    raises("naive: season: expected an integer from 1, came 0", function()
      series.naive { season = 0 }
    end)
    raises("rollout: expected a series of 4 steps or more, a season, came 3", function()
      series.naive { season = 4 }:rollout({ 1, 2, 3 }, 1)
    end)
    raises("predict: series: expected a list of numbers or of rows, came 3", function()
      series.naive():predict(3)
    end)
    raises("rollout: n: expected an integer from 0, came -1", function()
      series.naive():rollout({ 1 }, -1)
    end)
  end)
end)

describe("a backtest", function()
  it("forecasts the last part of a series, one step ahead and rolled out", function()
    local x = { 1, 2, 3, 4, 5, 6 }
    local ahead, rolled = series.backtest(series.naive { season = 2 }, x,
      { first = 3, origins = { 3, 5 }, horizon = 2 })
    assert.same({ ahead = { { 2 }, { 3 }, { 4 } }, wanted = { { 4 }, { 5 }, { 6 } } }, ahead)
    assert.same({ ahead = { { 2 }, { 3 }, { 4 } }, wanted = { { 4 }, { 5 }, { 6 } } }, rolled)
    _, rolled = series.backtest(series.naive(), x, { first = 4 })
    assert.same({ ahead = { { 4 }, { 4 } }, wanted = { { 5 }, { 6 } } }, rolled)
    local model = neap.forecaster { net = neap.gru { size = 2 }, rng = neap.rng(1) }
    ahead, rolled = series.backtest(model, x, { first = 4 })
    assert.same({ { model:predict(x)[4] }, { model:predict(x)[5] } }, ahead.ahead)
    assert.same(model:rollout({ 1, 2, 3, 4 }, 2)[2], rolled.ahead[2][1])
  end)

  it("says what is wrong", function()
    raises("backtest: first: expected an integer from 1 to 2, came 3", function()
      series.backtest(series.naive(), { 1, 2, 3 }, { first = 3 })
    end)
    raises("backtest: origins: 1: expected an integer from 2 to 2, came 1", function()
      series.backtest(series.naive(), { 1, 2, 3 }, { first = 2, origins = { 1 } })
    end)
  end)
end)

describe("an ensemble of forecasters", function()
  it("learns each by its own error and forecasts the mean", function()
    local x = curve(30, 2)
    local function constant(value) return function(v) return v * 0 + value end end
    local function model(net) return neap.forecaster { net = net, rng = neap.rng(1) } end
    local one, two = model(constant(1)), model(constant(4))
    local both = model { constant(1), constant(4) }
    local batch = both:batch { x }
    assert.near((one:loss(batch) + two:loss(batch)) / 2, both:loss(batch), 1e-3)
    assert.equal(2.5, both:predict(x)[3])
  end)

  it("takes a transform for each", function()
    local x = {}
    for t = 1, 40 do x[t] = 10 + t + t % 4 end
    local ways = { series.transform({ x }, { difference = { 4 } }),
      series.transform({ x }, { scale = "log", difference = { 1 } }) }
    local function model(net, transform)
      return neap.forecaster { net = net, transform = transform, rng = neap.rng(1) }
    end
    local one, two = model(nothing, ways[1]), model(nothing, ways[2])
    local both = model({ nothing, nothing }, ways)
    local batch = both:batch { x }
    assert.near((one:loss(batch) + two:loss(batch)) / 2, both:loss(batch), 1e-5)
    local a, b, mean = one:predict(x), two:predict(x), both:predict(x)
    for t = 1, 40 do assert.near((a[t] + b[t]) / 2, mean[t], 1e-4) end
    -- what is missed is told by the first: x - mean forecast over its deviation, where all know
    local residuals = both:residuals { x }
    assert.equal(36, #residuals)
    assert.near((x[40] - mean[39]) / ways[1].deviation[1], residuals[36][1], 1e-2)
    raises("forecaster: transform: expected one for each of 3 networks, came 2", function()
      model({ nothing, nothing, nothing }, ways)
    end)
  end)

  it("has parameters of its own for each, and is saved as one", function()
    local x = curve(30, 2)
    local model = neap.forecaster { rng = neap.rng(1),
      net = { neap.gru { size = 3 }, neap.gru { size = 3 }, neap.lstm { size = 2 } } }
    local names = table.concat(model.params:names(), " ")
    for i = 1, 3 do assert.matches("net" .. i .. ".head.weight", names, 1, true) end
    assert.matches("net2: gru", tostring(model), 1, true)
    local path = os.tmpname()
    assert(model:save(path))
    assert.same(model:rollout(x, 4), assert(neap.load(path)):rollout(x, 4))
    os.remove(path)
    raises("forecaster: net: expected a layer or a function of the inputs, came 3", function()
      neap.forecaster { net = { neap.gru { size = 3 }, 3 } }
    end)
    raises("forecaster: net: expected a layer or a function of the inputs, came a table", function()
      neap.forecaster { net = {} }
    end)
  end)
end)

describe("a batch from a forecaster's own forecasts", function()
  it("reads them after the step and keeps what came as targets", function()
    local rows = { { { 1, 2 }, { 3, 4 }, { 5, 6 }, { 7, 8 }, { 9, 10 } },
      { { 2, 1 }, { 4, 3 }, { 6, 5 } } }
    local model = neap.forecaster { size = 2, rng = neap.rng(1), net = neap.gru { size = 3 } }
    local usual, own = model:batch(rows), model:batch(rows, { from = { 2, false } })
    assert.same(usual.target.data:totable(), own.target.data:totable())
    local input, ahead = own.input.data:totable(), model:rollout({ { 1, 2 }, { 3, 4 } }, 2)
    assert.same({ { 1, 2 }, { 3, 4 }, ahead[1], ahead[2], { 2, 1 }, { 4, 3 } }, input)
    assert.same(usual.input.data:totable(),
      model:batch(rows, { from = { 4, false } }).input.data:totable())
    raises("batch: from: series 2: expected an integer from 1 to 2, came 3", function()
      model:batch(rows, { from = { 1, 3 } })
    end)
    raises("batch: from: expected a table, came 3", function()
      model:batch(rows, { from = 3 })
    end)
  end)

  it("makes a model better at going on", function()
    local x, rng = {}, neap.rng(4)
    for t = 1, 200 do x[t] = math.sin(t / 3) + 0.4 * rng:normal() end
    local function rolled(own)
      local model = neap.forecaster { rng = neap.rng(1), net = neap.gru { size = 8 } }
      local optim, chance = neap.adam { rate = 1e-2 }, neap.rng(2)
      for step = 1, 150 do
        model:learn(model:batch({ x, x }, { from = { own and step > 50 and 20 + chance:int(150),
          false } }), optim)
      end
      local truth, out, sum = {}, model:rollout(x, 60), 0
      for k = 1, 60 do
        truth[k] = math.sin((200 + k) / 3)
        sum = sum + (truth[k] - out[k]) ^ 2
      end
      return (sum / 60) ^ 0.5
    end
    assert.is_true(rolled(true) < rolled(false))
  end)
end)

describe("a scale that some numbers have not", function()
  it("is said of what a forecaster is given, loaded and at the command line too", function()
    local model = neap.forecaster { net = neap.gru { size = 2 }, rng = neap.rng(1),
      transform = neap.series.transform({ { 1, 2, 3, 5 } }, { scale = "log" }) }
    local path = os.tmpname()
    assert(model:save(path))
    for _, m in ipairs { model, (assert(neap.load(path))) } do
      raises('batch: series 1, step 2: the model\'s scale "log" needs numbers above 0, came 0',
        function() m:batch { { 1, 0, 2 } } end)
      raises("rollout: step 1: the model's scale", function() m:rollout({ -1, 2 }, 1) end)
      raises("predict: step 1: the model's scale", function() m:predict { 0, 2 } end)
      raises("score: series 1, step 3: the model's scale", function() m:score { { 1, 2, 0 } } end)
    end
    local pipe = assert(io.popen(("printf '50 -7\\n' | scripts/neap apply %s 2>&1"):format(path)))
    assert.matches('the model\'s scale "log" needs numbers above 0, came "-7"', pipe:read "a", 1, true)
    pipe:close()
    os.remove(path)
    local roots = neap.forecaster { net = neap.gru { size = 2 },
      transform = neap.series.transform({ { 0, 2, 3, 5 } }, { scale = "sqrt" }) }
    assert.is_table(roots:predict { 0, 1 })
    raises('the model\'s scale "sqrt" needs numbers from 0, came -1', function()
      roots:predict { -1 }
    end)
  end)
end)

describe("intervals of a forecaster", function()
  local function still(x) return x * 0 end

  it("hold the share of what comes that their level says, for a random walk", function()
    local rng, x = neap.rng(9), { 100 }
    for t = 2, 400 do x[t] = x[t - 1] + rng:normal() end
    local t = series.transform({ x }, { difference = { 1 } })
    local model = neap.forecaster { net = still, transform = t, rng = neap.rng(1) }
    local residuals = model:residuals { x }
    assert.equal(399, #residuals) -- the first step has no forecast
    local got = model:intervals(x, 25, { residuals = residuals, rng = neap.rng(2), paths = 2000 })
    for _, k in ipairs { 1, 4, 25 } do -- of a walk: deviation sqrt k, 80 % within 1.2816 of it
      local center = x[400] + k * t.mean[1]
      local half = 1.2816 * t.deviation[1] * k ^ 0.5
      assert.near(center - half, got.low[k], 0.12 * half)
      assert.near(center + half, got.high[k], 0.12 * half)
      assert.near(center, got.mean[k], 0.12 * half)
    end
    assert.same(got, model:intervals(x, 25, { residuals = residuals, rng = neap.rng(2),
      paths = 2000 }))
    for _, row in ipairs(residuals) do row[1] = row[1] + 1 end -- their mean piles up no drift
    local shifted = model:intervals(x, 25, { residuals = residuals, rng = neap.rng(2),
      paths = 2000 })
    for k = 1, 25 do assert.near(got.mean[k], shifted.mean[k], 1e-2) end
  end)

  it("are drawn from what the model remembers, and its file too", function()
    local x, folder = curve(40, 6), require("data_help").folder()
    local model = neap.forecaster { net = neap.gru { size = 3 }, rng = neap.rng(1),
      transform = series.transform({ x }, { difference = { 4 } }) }
    local residuals = model:residuals { x }
    local function draw(m, from)
      return m:intervals(x, 9, { residuals = from, rng = neap.rng(2), paths = 50 })
    end
    local drawn = draw(model, residuals)
    assert.same(drawn, draw(model:remember(residuals)))
    local path = folder.path .. "/model.safetensors"
    assert(model:save(path))
    local loaded = assert(neap.load(path))
    for k, row in ipairs(loaded.config.residuals) do
      assert.near(residuals[k][1], row[1], 1e-12)
    end
    for k, y in ipairs(draw(loaded).mean) do assert.near(drawn.mean[k], y, 1e-4) end
    model.config.residuals = { { "much" } }
    assert(model:save(path))
    local none, message = neap.load(path)
    assert.is_nil(none)
    assert.matches("forecaster: residuals: expected rows of 1 finite numbers", message, 1, true)
    folder.remove()
  end)

  it("are the rolled out forecast where nothing was missed, in rows too", function()
    local rows = {}
    for i, x in ipairs(curve(20, 5)) do rows[i] = { x, 50 - x } end
    local model = neap.forecaster { net = neap.gru { size = 3 }, rng = neap.rng(1),
      transform = series.transform({ rows }, { scale = "log", difference = { 1 } }) }
    local out = model:intervals(rows, 4, { residuals = { { 0, 0 } }, rng = neap.rng(1), paths = 3 })
    assert.same(model:rollout(rows, 4), out.low)
    assert.same(out.low, out.high)
    local all = model:residuals { rows, rows }
    assert.equal(2 * 19, #all) -- with a past of 1 each step after the first is known
    assert.same({ all[18], all[19] }, model:residuals({ rows }, { from = { 19 } }))
    local ahead = model:predict(rows)
    assert.near((math.log(rows[20][1]) - math.log(ahead[19][1])) / series.transform({ rows },
      { scale = "log", difference = { 1 } }).deviation[1], all[19][1], 1e-3)
  end)

  it("say what is wrong", function()
    local model = neap.forecaster { net = still, rng = neap.rng(1) }
    local function wrong(message, options)
      raises("intervals: " .. message, function() model:intervals({ 1, 2 }, 1, options) end)
    end
    wrong("residuals: expected rows of 1 number (model:residuals), came nil", {})
    wrong("residuals: expected rows of 1 number (model:residuals), came a table",
      { residuals = { { 1 }, { 0 / 0 } } })
    raises("remember: expected rows of 1 finite number (model:residuals), came none",
      function() model:remember {} end)
    raises("remember: expected rows of 1 finite number (model:residuals), came 3",
      function() model:remember(3) end)
    wrong("residuals: expected rows of 1 number (model:residuals), came none", { residuals = {} })
    wrong("residuals: expected rows of 1 number (model:residuals), came 3", { residuals = { 3 } })
    wrong("rng: expected a source of chance such as neap.rng(17), came nil",
      { residuals = { { 1 } } })
    raises("residuals: from: series 1: expected an integer from 2 to 3, came 1", function()
      model:residuals({ { 1, 2, 3 } }, { from = { 1 } })
    end)
    raises("quantile: expected at least one number, came none", function()
      neap.metrics.quantile({}, 0.5)
    end)
    assert.equal(2.5, neap.metrics.quantile({ 1, 2, 3, 4 }, 0.5))
  end)
end)
