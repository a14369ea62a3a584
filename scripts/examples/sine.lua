--- Forecasting: a sine curve, one value ahead, and rolled out on the network's own forecasts. Row 38
-- of docs/notes.md.
local neap = require "neap"
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Learns to draw a sine curve further; shows truth and forecast as learning goes on.", epochs = 40,
  quick = 3, extend = common.picture_option,
}
local rng = neap.rng(options.seed)
local PERIOD = 25

-- n values of a sine curve from a phase on.
local function wave(phase, n)
  local y = {}
  for t = 1, n do y[t] = math.sin(2 * math.pi * (t / PERIOD + phase)) end
  return y
end

local model
if options.load then
  model = common.load(options, "forecaster")
else
  model = neap.forecaster {
    size = 1, rng = rng, threads = options.threads,
    -- [T,B,1] -> [T,B,32]; a linear layer to one value follows by itself
    net = neap.lstm { size = options.quick and 16 or 32 },
  }
end

-- Two periods are read, two are forecast.
local function rollout(phase)
  local all = wave(phase, 4 * PERIOD)
  local truth = table.move(all, 2 * PERIOD + 1, 4 * PERIOD, 1, {})
  return truth, model:rollout(table.move(all, 1, 2 * PERIOD, 1, {}), 2 * PERIOD)
end

-- Ten phases: one value ahead once a period was seen, and rolled out.
local function score()
  local ahead, out, n, worst = 0, 0, 0, 0
  for k = 1, 10 do
    local truth, forecast = rollout(k / 10)
    local next_values = model:predict(wave(k / 10, 4 * PERIOD))
    table.move(next_values, 2 * PERIOD, 4 * PERIOD - 1, 1)
    for t = 1, #truth do
      local miss = math.abs(truth[t] - forecast[t])
      ahead, out = ahead + (truth[t] - next_values[t]) ^ 2, out + miss ^ 2
      n, worst = n + 1, math.max(worst, miss)
    end
  end
  return { rmse = (out / n) ^ 0.5, worst = worst, ahead = (ahead / n) ^ 0.5 }
end

-- The truth is drawn with dots, the forecast with o, both in one place with @.
local function draw(title)
  local truth, forecast = rollout(0)
  print(title)
  common.draw({ { "o", forecast }, { ".", truth } }, { low = -1, high = 1 })
end

if not options.load then
  draw "before learning"
  local epoch = 0
  neap.fit(model, {
    optim = neap.adam { rate = 1e-2, clip = 1 },
    rate = function(e, first) return first * 0.9 ^ (e - 1) end,
    epochs = options.epochs, minutes = options.minutes,
    train = function() -- 50 batches of 16 curves, each begun somewhere
      local batch = 0
      return function()
        batch = batch + 1
        if batch > 50 then return nil end
        local waves = {}
        for k = 1, 16 do waves[k] = wave(rng:uniform(), 4 * PERIOD) end
        return model:batch(waves)
      end
    end,
    dev = function()
      epoch = epoch + 1
      local scores = score()
      if epoch == 1 or epoch == 3 then draw(("after %d epochs"):format(epoch)) end
      return scores
    end,
    key = "worst", lower = true,
  })
end
common.save(options, model)

draw "at the end: . truth, o forecast, @ both"
local curves = { { "sine", {}, color = "red" }, { "forecast", {}, color = "blue" } }
for k, values in ipairs { rollout(0) } do
  for t, y in ipairs(values) do curves[k][2][t] = { t, y } end
end
common.plot(options, { title = "two periods drawn further", x = "step", curves = curves })
local scores = score()
common.result { dev_rmse = scores.rmse, dev_worst = scores.worst, dev_ahead_rmse = scores.ahead,
  parameters = model:parameters() }
