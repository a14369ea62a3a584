--- What is remembered for how long: the first symbol of a sequence has to be named at its end, after
-- others that mean nothing. An Elman network, a GRU and an LSTM over growing distances, and how much
-- of the gradient comes back to each step. Rows 61 and 62 of docs/notes.md.
local neap = require "neap"
local op = neap.op
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Shows over how many steps an Elman network, a GRU and an LSTM keep a symbol.",
  epochs = 16, quick = 4,
}
local rng = neap.rng(options.seed)
local lags, cells = { 2, 30, 100 }, { "elman", "gru", "lstm" }
if options.quick then lags = { 2, 40 } end
local marked, others = { "A", "B", "C", "D" }, { "a", "b", "c", "d" }
local symbols, names = neap.vocab.new { "A", "B", "C", "D", "a", "b", "c", "d" },
  neap.vocab.new(marked)

local function sequences(n, lag)
  local text, first = {}, {}
  for i = 1, n do
    first[i] = marked[rng:int(4)]
    text[i] = { first[i] }
    for t = 2, lag + 1 do text[i][t] = others[rng:int(4)] end
  end
  local corpus = neap.corpus.from({ text = text, first = first })
  return { input = corpus:encode("text", symbols), output = corpus:label("first", names) }
end

-- Gates begin as the distance asks (Tallec and Ollivier 2018): the second block of bias_ih, the forget
-- gate of the LSTM and z of the GRU, open; the first block of the LSTM's, its input gate, closed.
local function set_gates(model, kind, size, lag)
  for _, name in ipairs(model.params:names()) do
    if name:find "bias_ih$" then
      local b = model.params:get(name)
      for k = 1, size do
        b[size + k] = math.log(lag)
        if kind == "lstm" then b[k] = -math.log(lag) end
      end
      model.params:set(name, b)
    end
  end
end

local function made(kind, lag)
  local size = 16
  local embed, cell = neap.embed { size = 8 }, neap[kind] { size = size }
  local model = neap.seq2class { input = symbols, output = names, rng = rng,
    threads = options.threads, net = function(ids)
      local y, last = cell(op.watch("seen", embed(ids)))
      return y, last
    end }
  if kind ~= "elman" then set_gates(model, kind, size, lag) end
  return model
end

-- The gradient's length at each step of a batch's sequences, all of one length.
local function flow(model, data)
  local run = model:run("learn", true)
  run:want_gradient "seen"
  run:feed(neap.batches(data, { size = 64, bucket = false })()):forward()
  run:backward()
  local gradient, out = run:gradient "seen", {}
  for t = 1, #gradient do
    local sum = 0
    for b = 1, #gradient[t] do
      for _, x in ipairs(gradient[t][b]) do sum = sum + x * x end
    end
    out[t] = sum ^ 0.5
  end
  return common.decades(out)
end

local longest = lags[#lags]
local result, kept = {}, nil
if options.load then
  kept = common.load(options, "seq2class", { "input" })
  if not (kept.inputs[1].vocab:has "A" and kept.inputs[1].vocab:has "d" and kept.output:has "D") then
    common.fail(1, options.load .. ": its model does not know the symbols A to D and a to d")
  end
else
  print("gradient by step, from # (largest) over + - . ' (each a tenth) to nothing, at first and last")
  for _, lag in ipairs(lags) do
    local train = sequences(options.quick and 1000 or 1600, lag)
    local held = sequences(400, lag)
    for _, kind in ipairs(cells) do
      local model = made(kind, lag)
      local before = flow(model, held)
      local fitted = neap.fit(model, {
        optim = neap.adam { rate = 1e-2, clip = 1 }, epochs = options.epochs,
        minutes = options.minutes,
        train = function() return neap.batches(train, { size = 32, rng = rng }) end,
        dev = function() return model:score(held) end,
      })
      local accuracy = fitted.best and fitted.best.accuracy or model:score(held).accuracy
      print(("%-6s over %2d steps: accuracy %.3f\n  first |%s|\n  last  |%s|"):format(kind, lag,
        accuracy, before, flow(model, held)))
      result[("%s_%d"):format(kind, lag)] = accuracy
      kept = model -- in the end the LSTM over the longest distance
    end
  end
end
common.save(options, kept)

rng = neap.rng(options.seed):fork "score"
result.dev_accuracy = kept:score(sequences(400, longest)).accuracy
result.parameters = kept:parameters()
common.result(result)
