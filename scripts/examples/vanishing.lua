--- How a gradient vanishes and explodes on its way back through time, what an LSTM does about it and
-- what not, and training with and without clipping.
local neap = require "neap"
local op = neap.op
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Shows gradients through time, and what clipping is for.", epochs = 20, quick = 8,
}
local rng = neap.rng(options.seed)
local model
if options.load then
  model = common.load(options, "forecaster")
  if model.size ~= 1 then
    common.fail(1, ("%s: expected a model of one value a step, its steps have %d"):format(
      options.load, model.size))
  end
end

-- |d h(T) / d x(1)| of a layer of one unit, over `lag` steps; weights: name -> number, or a list.
local function reach(layer, lag, weights)
  local pr = neap.program(function(rec)
    local x = rec:input("x", { space = "T", dims = { 1 } })
    local _, last = layer(x)
    return { loss = op.sum_rows(op.reshape(last.h, {})) }
  end)
  for _, name in ipairs(pr.params:names()) do
    local t, value = pr.params:get(name), weights[name:match "[%w_]+$"] or 0
    for i = 1, t:size() do
      local x = type(value) == "table" and value[i] or value
      if t:rank() == 2 then t:set(i, 1, x) else t:set(i, x) end
    end
    pr.params:set(name, t)
  end
  local run = pr:run { learn = true }
  run:want_gradient "x"
  run:feed { x = neap.zeros { lag + 1, 1, 1 } }:forward()
  run:backward()
  return math.abs(run:gradient("x"):get(1, 1, 1))
end

local function row(name, at)
  local text = {}
  for i, lag in ipairs { 1, 10, 50, 100 } do text[i] = ("%10.3e"):format(at(lag)) end
  print(common.column(name, 34) .. table.concat(text, " "))
end

local function linear(w)
  return function(lag)
    return reach(neap.elman { size = 1, activation = "identity" }, lag,
      { weight_ih = 1, weight_hh = w })
  end
end
-- i, f, o are fixed; blocks are i f g o.
local function lstm(forget, state)
  return function(lag)
    return reach(neap.lstm { size = 1, gates = { i = 1, f = forget, o = 1 },
      candidate = "identity", output = "identity" }, lag,
      { weight_ih = { 0, 0, 1, 0 }, weight_hh = { 0, 0, state, 0 } })
  end
end

print("|d h(t) / d x(0)| after                1 step   10 steps   50 steps  100 steps")
row("linear RNN, W = 0.9: vanishes", linear(0.9))
row("linear RNN, W = 1", linear(1))
row("linear RNN, W = 1.1: explodes", linear(1.1))
row("LSTM, forget gate 1: remembers", lstm(1, 0))
row("LSTM, forget gate 0.5: forgets", lstm(0.5, 0))
row("LSTM, forget gate 1, state fed back", lstm(1, 0.1)) -- c' = c + 0.1 h: explodes, too
local result = { rnn_09 = linear(0.9)(50), rnn_11 = linear(1.1)(50), lstm = lstm(1, 0)(50),
  lstm_fed_back = lstm(1, 0.1)(50) }

-- A curve that fades, learned by a linear network that explodes at first.
local function curves(n)
  local list = {}
  for i = 1, n do
    local first = 0.5 + rng:uniform()
    list[i] = {}
    for t = 1, 25 do list[i][t] = first * 0.8 ^ (t - 1) end
  end
  return list
end
local function made()
  local model = neap.forecaster { size = 1, rng = rng:fork "net", threads = options.threads,
    net = neap.elman { size = 4, activation = "identity", bias = false } }
  for _, name in ipairs(model.params:names()) do
    if name:find "weight_hh$" then
      local w = neap.zeros { 4, 4 }
      for i = 1, 4 do w:set(i, i, 1.5) end
      model.params:set(name, w)
    end
  end
  return model
end
local train, held = curves(64), curves(32)

local function score(model)
  local sum, n = 0, 0
  for _, curve in ipairs(held) do
    local next_values = model:predict(curve)
    for t = 1, #curve - 1 do
      sum, n = sum + (next_values[t] - curve[t + 1]) ^ 2, n + 1
    end
  end
  return (sum / n) ^ 0.5
end

-- Gives the optimizer's report, or why it did not go on.
local function learn(model, optim, quiet)
  local ok, message = pcall(neap.fit, model, {
    optim = optim, epochs = options.epochs, minutes = options.minutes, key = "rmse", lower = true,
    quiet = quiet, rate = function(epoch, first) return first * 0.8 ^ (epoch - 1) end,
    train = function()
      local batch = 0
      return function()
        batch = batch + 1
        return batch <= 40 and model:batch(train) or nil
      end
    end,
    dev = function() return { rmse = score(model) } end,
  })
  return ok and optim:report(), message
end

if not model then
  local _, message = learn(made(), neap.sgd { rate = 0.05 }, true)
  print("without clipping: " .. tostring(message):gsub("^[^ ]+:%d+: ", ""))
  model = made()
  local report = learn(model, neap.sgd { rate = 0.05, clip = 1 })
  print(("clipped at a length of 1: %d of %d steps were clipped"):format(report.clipped_norm,
    report.steps))
  result.clipped = report.clipped_norm
end
common.save(options, model)
result.dev_rmse, result.parameters = score(model), model:parameters()
common.result(result)
