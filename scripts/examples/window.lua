--- A feed-forward network that sees the last steps side by side, beside networks that remember: the
-- last capital has to be named after so many other letters. Rows 4 and 61 of docs/notes.md.
local neap = require "neap"
local op = neap.op
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Compares a feed-forward network on a fixed window with recurrent ones, by distance.",
  epochs = 20, quick = 8,
}
local rng = neap.rng(options.seed)
local lags, windows = { 1, 3, 7, 15, 31 }, { 1, 2, 4, 8, 16, 32 }
if options.quick then lags, windows = { 1, 7 }, { 2, 8 } end
local capitals = neap.vocab.new { "A", "B", "C", "D" }
local symbols = neap.vocab.new { "A", "B", "C", "D", "a", "b", "c", "d" }

-- Sequences of two capitals, each followed by `lag` other letters; asked for at the last of these.
local function sequences(n, lag)
  local text, named = {}, {}
  for i = 1, n do
    text[i], named[i] = {}, {}
    for _ = 1, 2 do
      local capital = capitals.symbols[rng:int(4)]
      table.insert(text[i], capital)
      table.insert(named[i], "?")
      for k = 1, lag do
        table.insert(text[i], symbols.symbols[4 + rng:int(4)])
        table.insert(named[i], k == lag and capital or "?")
      end
    end
  end
  local corpus = neap.corpus.from { text = text, named = named }
  return { input = corpus:encode("text", symbols),
    output = corpus:encode("named", capitals, { unknown = "ignore" }) }
end

local shown = false -- the first learning tells how far it is; the table, what came of the others
local function learned(net, lag)
  local model = neap.synced_seq2seq { input = symbols, output = capitals, rng = rng,
    threads = options.threads, net = net }
  local train, held = sequences(options.quick and 500 or 1000, lag), sequences(200, lag)
  neap.fit(model, {
    optim = neap.adam { rate = 1e-2, clip = 1 }, epochs = options.epochs, quiet = shown,
    minutes = options.minutes,
    rate = function(_, first, done) return first * (1 + math.cos(math.pi * done)) / 2 end,
    train = function() return neap.batches(train, { size = 32, rng = rng }) end,
    dev = function() return model:score(held) end,
  })
  shown = true
  return model, model:score(sequences(500, lag)).accuracy
end

local function windowed(steps)
  return neap.chain { neap.embed { size = 8 }, neap.features.window { steps = steps },
    neap.linear { size = 32 }, op.tanh, neap.linear {} }
end
local function recurrent(kind)
  local open = kind == "lstm" and 3 or nil -- its forget gate, at first
  return neap.chain { neap.embed { size = 8 }, neap[kind] { size = 32, forget_bias = open },
    neap.linear {} }
end

-- One hidden layer of tanh, and how near it comes to a function of one number: largest difference.
local function approximation(units)
  local n, x, y = 200, {}, {}
  for i = 1, n do
    x[i] = { -1 + 2 * (i - 1) / (n - 1) }
    y[i] = { math.sin(6 * x[i][1]) * math.exp(-x[i][1] ^ 2) }
  end
  local net = neap.chain { neap.linear { size = units }, op.tanh, neap.linear { size = 1 } }
  local pr = neap.program(function(rec)
    local z = net(rec:input("x", { space = "B", dims = { 1 } }))
    return { z = z, loss = op.mse(z, rec:input("y", { space = "B", dims = { 1 } })) }
  end, { seed = options.seed })
  local run, optim = pr:run { learn = true }, neap.adam { rate = 2e-2 }
  local steps = options.quick and 1500 or 6000
  for step = 1, steps do
    optim:rate(2e-2 * (1 + math.cos(math.pi * step / steps)) / 2)
    run:feed { x = neap.tensor(x), y = neap.tensor(y) }:forward()
    pr.params:zero_grad()
    run:backward()
    optim:step(pr.params)
  end
  local worst, z = 0, run:forward():value "z"
  for i = 1, n do worst = math.max(worst, math.abs(z:get(i, 1) - y[i][1])) end
  return worst
end

local result, model = {}, nil
if options.load then
  model = common.load(options, "synced_seq2seq", { "input" })
  if not (model.inputs[1].vocab:has "d" and model.output:has "D") then
    common.fail(1, options.load .. ": its model does not know the symbols A to D and a to d")
  end
else
  print "accuracy after so many letters (0.25 is chance), and how many weights it takes"
  print(common.column("", 22) .. ("%7d"):rep(#lags):format(table.unpack(lags)) .. "   weights")
  local function line(name, key, net)
    local text, last = {}, nil
    for i, lag in ipairs(lags) do
      local accuracy
      last, accuracy = learned(net(), lag)
      text[i], result[("%s_%d"):format(key, lag)] = ("%7.3f"):format(accuracy), accuracy
    end
    print(common.column(name, 22) .. table.concat(text) .. ("%10d"):format(last:parameters()))
    return last
  end
  for _, steps in ipairs(windows) do
    line(("a window of %d step%s"):format(steps, steps == 1 and "" or "s"), "window_" .. steps,
      function() return windowed(steps) end)
  end
  for _, kind in ipairs { "elman", "gru", "lstm" } do
    model = line(kind == "lstm" and "lstm, open at first" or kind, kind,
      function() return recurrent(kind) end)
  end

  print "\na function of one number by one hidden layer: largest difference, by units"
  for _, units in ipairs(options.quick and { 1, 16 } or { 1, 2, 4, 8, 16 }) do
    local off = approximation(units)
    print(("  %2d  %.4f"):format(units, off))
    result[("off_%d"):format(units)] = off
  end
end
common.save(options, model)

rng = neap.rng(options.seed):fork "score"
result.dev_accuracy = model:score(sequences(500, lags[#lags])).accuracy
result.parameters = model:parameters()
common.result(result)
