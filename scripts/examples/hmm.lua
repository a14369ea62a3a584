--- A hidden Markov model beside a recurrent network: dice that are changed for loaded ones now and
-- then. Which die was thrown is hidden, what it shows is seen. Rows 54, 55 and 56 of docs/notes.md.
local neap = require "neap"
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Fits hidden Markov models to throws of dice, the dice known and hidden, beside a network.",
  epochs = 8, quick = 2,
}
local rng = neap.rng(options.seed)
local n, length = 1000, 60
if options.quick then n = 200 end

-- What is to be found again: pi, A, B.
local faces = neap.vocab.new { "1", "2", "3", "4", "5", "6" }
local dice = neap.vocab.new { "fair", "loaded" }
local truth = {
  start = { 0.8, 0.2 },
  transition = { { 0.95, 0.05 }, { 0.1, 0.9 } },
  emission = { { 1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 6 }, { 0.1, 0.1, 0.1, 0.1, 0.1, 0.5 } },
}
local source = neap.hmm { input = faces, output = dice }
source:probabilities(truth)

local function throws(count)
  local seen, hidden = {}, {}
  for i = 1, count do seen[i], hidden[i] = source:sample(length, { rng = rng }) end
  local corpus = neap.corpus.from { face = seen, die = hidden }
  return { input = corpus:encode("face", faces), output = corpus:encode("die", dice) }, seen, hidden
end
local train = throws(n)
local dev, seen, hidden = throws(200)

-- The largest difference from the truth; the states in the order that fits it best.
local function distance(model)
  local p, best = model:probabilities(), math.huge
  for _, order in ipairs { { 1, 2 }, { 2, 1 } } do
    local worst = 0
    for i, from in ipairs(order) do
      worst = math.max(worst, math.abs(p.start[from] - truth.start[i]))
      for j, to in ipairs(order) do
        worst = math.max(worst, math.abs(p.transition:get(from, to) - truth.transition[i][j]))
      end
      for k = 1, #faces do
        worst = math.max(worst, math.abs(p.emission:get(from, k) - truth.emission[i][k]))
      end
    end
    best = math.min(best, worst)
  end
  return best
end

local function show(title, model)
  local p = model:probabilities()
  local function row(values)
    local text = {}
    for k, x in ipairs(values) do text[k] = ("%.3f"):format(x) end
    return table.concat(text, " ")
  end
  print(("%s: off by %.3f at most"):format(title, distance(model)))
  print("  pi  " .. row(p.start))
  for i = 1, 2 do
    print(("  A%d  %s   B%d  %s"):format(i, row(p.transition[i]), i, row(p.emission[i])))
  end
end

-- The dice by themselves are a Markov chain, each state of which shows itself. The next one depends on
-- the present one alone: it makes no difference which one was before that.
local function chain()
  local markov = neap.hmm { input = dice, output = dice }
  markov:fit { input = train.output, output = train.output }
  local ids, counts = train.output.data, {}
  for i = 1, n do
    for t = train.output.offsets[i] + 3, train.output.offsets[i + 1] do
      local key = ("%d %d"):format(ids[t - 2], ids[t - 1])
      local c = counts[key] or { [0] = 0, 0 }
      counts[key] = c
      c[ids[t]] = c[ids[t]] + 1
    end
  end
  print "the dice as a Markov chain: P(loaded next), and by the die before"
  local worst = 0
  for now = 0, 1 do
    local text, counted = {}, markov:probabilities().transition:get(now + 1, 2)
    for before = 0, 1 do
      local c = counts[("%d %d"):format(before, now)]
      local share = c[1] / (c[0] + c[1])
      text[before + 1] = ("after a %s one %.3f"):format(dice:symbol(before + 1), share)
      worst = math.max(worst, math.abs(share - counted))
    end
    print(("  %-7s true %.3f, counted %.3f; %s"):format(dice:symbol(now + 1) .. ":",
      truth.transition[now + 1][2], counted, table.concat(text, ", ")))
  end
  return worst
end

-- The dice are known: counting. A and B alone do not say how a sequence begins: pi is counted too.
local model
if options.load then
  model = common.load(options, "hmm", { "input" })
  if not (model.output:has "fair" and model.output:has "loaded" and #model.output == 2
    and #model.symbols == 6 and model.symbols:has "6") then
    common.fail(1, options.load .. ": its model is of other symbols or states than dice")
  end
else
  model = neap.hmm { input = faces, output = dice, threads = options.threads }
  model:fit(train)
end
show("counted where the dice are known", model)

local result = { parameters = model:parameters(), counted_off = distance(model),
  markov_off = chain() }
if not options.load then
  -- The dice are hidden: Baum-Welch, the best of three starts.
  local blind, best
  for _ = 1, 3 do
    local try = neap.hmm { input = faces, output = 2, rng = rng, threads = options.threads }
    local fitted = try:fit({ input = train.input }, { iterations = options.quick and 50 or 200 })
    if not best or fitted.nats < best.nats then blind, best = try, fitted end
  end
  show(("Baum-Welch where they are hidden, %d iterations"):format(best.iterations), blind)
  result.hidden_off, result.hidden_nats = distance(blind), blind:score({ input = dev.input }).nats

  -- A network that is told the dice too, in both directions.
  local network = neap.synced_seq2seq {
    input = faces, output = dice, rng = rng, threads = options.threads,
    net = neap.chain { neap.embed { size = 8 }, neap.bidir { neap.gru { size = 16 } } },
  }
  neap.fit(network, {
    optim = neap.adam { rate = 1e-2, clip = 1 }, epochs = options.epochs, minutes = options.minutes,
    train = function() return neap.batches(train, { size = 32, rng = rng }) end,
    dev = function() return network:score(dev) end,
  })
  result.network_accuracy = network:score(dev).accuracy
end
common.save(options, model)

-- One sequence, its dice, and the best path.
local function marks(dies)
  local text = {}
  for t, die in ipairs(dies) do text[t] = die == "loaded" and "L" or "." end
  return table.concat(text)
end
local path = model:decode({ seen[1] })[1]
print("thrown  " .. table.concat(seen[1]) .. "\nloaded  " .. marks(hidden[1]) .. "\nViterbi "
  .. marks(path))

-- The best path as a whole, and the likeliest die at each throw: more of these are right.
local right, all = 0, 0
for b, p in ipairs(model:posteriors(seen)) do
  for t, die in ipairs(hidden[b]) do
    local likelier = p:get(t, model.output:id "loaded") > 0.5 and "loaded" or "fair"
    all, right = all + 1, right + (likelier == die and 1 or 0)
  end
end
result.posterior_accuracy = right / all
local scores, possible = model:score(dev), source:score(dev)
result.dev_accuracy, result.dev_nats = scores.accuracy, scores.nats
result.possible_accuracy, result.possible_nats = possible.accuracy, possible.nats
common.result(result)
