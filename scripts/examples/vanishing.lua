--- How a gradient vanishes and explodes on its way back through time, what an LSTM does about it and
-- what not, and training with and without clipping. Rows 5, 34, 37 and 62 of docs/notes.md.
local neap = require "neap"
local op = neap.op
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Shows gradients through time, and what clipping is for.", epochs = 20, quick = 8,
  extend = common.picture_option,
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

local curves = {}
local function row(name, at)
  local text, points = {}, {}
  for i, lag in ipairs { 1, 10, 50, 100 } do text[i] = ("%10.3e"):format(at(lag)) end
  for k = 1, options.picture and 21 or 0 do points[k] = { 5 * k - 5, at(5 * k - 5) } end
  curves[#curves + 1] = { name, points }
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
common.plot(options, { title = "|d h(t) / d x(0)|", x = "t", log = true, least = 1e-8,
  curves = curves })
local result = { rnn_09 = linear(0.9)(50), rnn_11 = linear(1.1)(50), lstm = lstm(1, 0)(50),
  lstm_fed_back = lstm(1, 0.1)(50) }

-- The gradient's length at what each layer reads, at each step, from the last step's outputs back.
-- layers: of 16 units; x is [steps,B,16].
local function flow(layers, steps)
  local pr = neap.program(function(rec)
    local x = rec:input("x", { space = "T", dims = { 16 } })
    for k, l in ipairs(layers) do x = l(op.watch("read" .. k, x)) end
    return { loss = op.sum(op.sum_rows(op.square(op.last(x)))) }
  end, { seed = options.seed })
  local run = pr:run { learn = true }
  local chance, noise = neap.rng(options.seed), neap.zeros { steps, 8, 16 }
  for t = 1, steps do
    for b = 1, 8 do
      for k = 1, 16 do noise:set(t, b, k, chance:normal()) end
    end
  end
  for k = 1, #layers do run:want_gradient("read" .. k) end
  run:feed { x = noise }:forward()
  run:backward()
  local out = {}
  for k = 1, #layers do
    local gradient = run:gradient("read" .. k)
    out[k] = {}
    for t = 1, steps do
      local sum = 0
      for _, units in ipairs(gradient[t]:totable()) do
        for _, x in ipairs(units) do sum = sum + x * x end
      end
      out[k][t] = sum ^ 0.5
    end
  end
  return out
end

print "\ngradients from the largest, #, over + - . ' (each a tenth) to nothing"
print "a plain network of 24 layers, from its input to its output"
for _, name in ipairs { "tanh", "sigmoid", "relu" } do
  local layers, sizes = {}, {}
  for k = 1, 24 do
    layers[k] = neap.chain { neap.linear { size = 16 }, op[name], name = "layer" .. k }
  end
  for k, at in ipairs(flow(layers, 1)) do sizes[k] = at[1] end
  print(("  %-7s |%s|  first beside last %.1e"):format(name, common.decades(sizes),
    sizes[1] / sizes[24]))
end
print "four layers (the last on top) over 24 steps, from the last step back"
for _, pair in ipairs { { "Elman", neap.elman }, { "LSTM", neap.lstm, 0 },
  { "LSTM, forget gate open at first", neap.lstm, 4 } } do
  local layers = {}
  for k = 1, 4 do layers[k] = pair[2] { size = 16, forget_bias = pair[3], name = "layer" .. k } end
  local all = {}
  local sizes = flow(layers, 24)
  for k, at in ipairs(sizes) do table.move(at, 1, 24, 24 * k - 23, all) end
  local text = common.decades(all)
  print("  " .. pair[1])
  for k = 4, 1, -1 do print(("    layer %d |%s|"):format(k, text:sub(24 * k - 23, 24 * k))) end
end
print ""

-- A curve that fades, learned by a linear network that explodes at first.
local function fading(n)
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
local train, held = fading(64), fading(32)

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
  local report = learn(model, neap.sgd { rate = 0.05, clip_value = 0.5 }, true)
  print(("each number clipped at 0.5: in %d of %d steps, error %.4f"):format(report.clipped_value,
    report.steps, score(model)))
  result.clipped_value, result.value_rmse = report.clipped_value, score(model)
  model = made()
  report = learn(model, neap.sgd { rate = 0.05, clip = 1 })
  print(("the length clipped at 1: in %d of %d steps, error %.4f"):format(report.clipped_norm,
    report.steps, score(model)))
  result.clipped = report.clipped_norm
end
common.save(options, model)
result.dev_rmse, result.parameters = score(model), model:parameters()
common.result(result)
