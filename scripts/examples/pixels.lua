--- Sequence to class over a long way: what a picture shows, one pixel a step, in the order of
-- reading or in one drawn by lot (Le, Jaitly and Hinton 2015).
local neap = require "neap"
local core = require "neap.core"
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Learns to tell what a picture shows, reading it pixel by pixel: MNIST takes 784 steps.",
  data = "pictures in an IDX file, perhaps .gz; labels-idx1 beside images-idx3",
  epochs = 12, quick = 10,
  train = common.shared "mnist/train-images-idx3-ubyte",
  dev = common.shared "mnist/dev-images-idx3-ubyte",
  extend = function(parser)
    parser:option "--cell":argname "CELL":choices { "elman", "gru", "lstm" }:default "gru"
      :description "The layer that reads."
    parser:flag "--permuted"
      :description "Read the pixels in another order, drawn by lot, the same for all pictures."
    parser:option "--pool":argname "HOW":choices { "last", "mean" }:default "last"
      :description "What tells the class: the last state, or the mean of the states."
    common.number(parser, "--size", "N", { low = 1, whole = true, preset = 96, quick = 24 },
      "Units.")
    common.number(parser, "--batch", "N", { low = 1, whole = true, preset = 32, quick = 16 },
      "Pictures in a batch.")
    common.number(parser, "--rate", "R", { low = 0, preset = 0.006, quick = 0.01 },
      "Learning rate at the start.")
    common.number(parser, "--shift", "N", { low = 0, whole = true, preset = 1, quick = 0 },
      "Learn from pictures that are moved by up to so many pixels, anew in each epoch.")
    common.picture_option(parser)
  end,
}
local rng = neap.rng(options.seed)

-- Data.
local train, dev, test = common.pictures(options, rng, "give --train FILE (IDX)")
local shape = dev:get("image", 1):shape()
local steps = shape[1] * shape[2]
local order -- the same with each --seed, so that a saved model finds it again
if options.permuted then
  order = {}
  for t = 1, steps do order[t] = t end
  neap.rng(steps):shuffle(order)
end

-- The gates of a GRU or LSTM begin with times to remember from one step to all of them, even in
-- their logarithm (after Tallec and Ollivier 2018): the second block of bias_ih, z or the forget
-- gate, is ln of the time, the first of an LSTM, its input gate, the opposite.
local function set_gates(model)
  for _, name in ipairs(model.params:names()) do
    if name:find "bias_ih$" then
      local bias = model.params:get(name)
      for k = 1, options.size do
        local log_time = rng:uniform() * math.log(steps)
        bias[options.size + k] = log_time
        if options.cell == "lstm" then bias[k] = -log_time end
      end
      model.params:set(name, bias)
    end
  end
end

-- The network, or the one that was saved.
local model
if options.load then
  model = common.load(options, "seq2class")
  if model.inputs[1].size ~= 1 then
    common.fail(1, options.load .. ": its model does not read one pixel a step")
  end
  local there = model.params:names()[1]:find "permuted" ~= nil
  if there ~= (options.permuted or false) then
    common.fail(1, ("%s: its model learned from pixels %s: expected %s--permuted"):format(
      options.load, there and "in another order" or "as they stand", there and "" or "no "))
  end
  common.known(options, dev, "label", model.output)
else
  model = neap.seq2class {
    input = 1, output = neap.vocab(train, "label"), rng = rng, threads = options.threads,
    net = neap[options.cell] { size = options.size,
      name = options.permuted and "permuted" or nil, -- the file tells by it what was learned from
      init = { weight_ih = { "normal", 0, 1 }, weight_hh = "orthogonal" } },
    pool = options.pool,
  }
  if options.cell ~= "elman" then set_gates(model) end
end

local function fields(corpus)
  return { input = corpus:patches("image", "pixels", { order = order }):encode "image",
    output = corpus:label("label", model.output, { unknown = "ignore" }) }
end

-- Learning, the rate going down along a cosine.
local curve, began = {}, core.clock() -- of each epoch: minutes so far, accuracy
if not options.load then
  local held = fields(dev)
  neap.fit(model, {
    optim = neap.adam { rate = options.rate, clip = 1 },
    rate = function(_, first, done) return first * (1 + math.cos(math.pi * done)) / 2 end,
    average = neap.average { decay = 0.99 },
    epochs = options.epochs, minutes = options.minutes,
    train = function()
      local data = options.shift > 0 and train:shift("image", { most = options.shift, rng = rng })
        or train
      return neap.batches(fields(data), { size = options.batch, rng = rng })
    end,
    dev = function()
      local scores = model:score(held)
      curve[#curve + 1] = { (core.clock() - began) / 60, scores.accuracy }
      return scores
    end,
  })
end
common.save(options, model)

-- What came of it.
local result = { parameters = model:parameters() }
if #curve > 0 then
  print(("accuracy by minutes, %d steps a picture:"):format(steps))
  for k = 1, #curve, (#curve + 19) // 20 do
    local minutes, accuracy = table.unpack(curve[k])
    print(("%7.1f  %.3f  %s"):format(minutes, accuracy, ("#"):rep(math.floor(accuracy * 60))))
  end
  common.plot(options, { title = "accuracy of a " .. options.cell, x = "minutes",
    curves = { { options.permuted and "permuted" or "in order", curve } } })
end
for _, wanted in ipairs { 0.9, 0.95 } do
  for epoch, point in ipairs(curve) do
    if point[2] >= wanted then
      print(("%g in epoch %d, after %.1f minutes"):format(wanted, epoch, point[1]))
      result[("minutes_to_%d"):format(100 * wanted)] = point[1]
      break
    end
  end
end
local guesses = model:predict(neap.batches(fields(dev), { size = 200, bucket = false })())
for i, guess in ipairs(guesses) do
  if guess.class ~= dev:string("label", i) then
    print(("taken for %s:"):format(guess.class))
    common.print_picture(dev:get("image", i))
    break
  end
end
local scores = model:score(fields(dev))
print(scores.confusion)
result.dev_accuracy = scores.accuracy
if test then result.test_accuracy = model:score(fields(test)).accuracy end
common.result(result)
