--- Sequence to class: what a picture shows, read row by row.
local neap = require "neap"
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local fashion = "/usr/share/datasets/fashion-mnist/"
local options = common.options {
  "Learns to tell what a picture shows, reading it row by row. Without --train: Fashion-MNIST.",
  data = "pictures in an IDX file, perhaps .gz; labels-idx1 beside images-idx3",
  epochs = 20, quick = 6,
  train = fashion .. "train-images-idx3-ubyte.gz", test = fashion .. "t10k-images-idx3-ubyte.gz",
  extend = function(parser)
    parser:flag "--bidirectional"
      :description "Read from the bottom up too: better, but such a model cannot be streamed."
  end,
}
local rng = neap.rng(options.seed)
local size, batch, rate = 128, 100, 3e-3
if options.quick then size, batch, rate = 16, 16, 1e-2 end

-- Data.
local train, dev, test = common.pictures(options, rng,
  "install dataset-fashion-mnist or give --train FILE (IDX)")

-- The network, or the one that was saved.
local model
local function layer()
  local gru = neap.gru { size = size }
  return options.bidirectional and neap.bidir { gru } or gru
end
if options.load then
  model = common.load(options, "seq2class")
  local width, reads = dev:get("image", 1):shape()[2], model.inputs[1].size
  if width ~= reads then
    common.fail(1, ("%s: its model reads %s, the pictures have rows of %d pixels"):format(
      options.load, reads and ("rows of %d pixels"):format(reads) or "no pictures", width))
  end
  common.known(options, dev, "label", model.output)
else
  model = neap.seq2class {
    input = train:get("image", 1):shape()[2],         -- 28 pixels a step
    output = neap.vocab(train, "label"),
    rng = rng, threads = options.threads,
    net = neap.chain {
      layer(),                                        -- [T,B,28] -> [T,B,128]
      neap.dropout { rate = 0.3 },
      layer(),                                        -- its last state: [B,128]
    },
    head = neap.chain { neap.dropout { rate = 0.3 }, neap.linear {} }, -- -> [B,classes]
  }
end

local function fields(corpus)
  return { input = corpus:encode "image",
    output = corpus:label("label", model.output, { unknown = "ignore" }) }
end

-- Learning, the rate going down along a cosine.
if not options.load then
  local data, held = fields(train), fields(dev)
  neap.fit(model, {
    optim = neap.adam { rate = rate, clip = 5 },
    rate = function(_, first, done) return first * (1 + math.cos(math.pi * done)) / 2 end,
    epochs = options.epochs, minutes = options.minutes,
    train = function() return neap.batches(data, { size = batch, rng = rng }) end,
    dev = function() return model:score(held) end,
  })
end
common.save(options, model)

-- What came of it.
local clothes = not options.train and not options.quick and { ["0"] = "T-shirt", ["1"] = "trousers",
  ["2"] = "pullover", ["3"] = "dress", ["4"] = "coat", ["5"] = "sandal", ["6"] = "shirt",
  ["7"] = "sneaker", ["8"] = "bag", ["9"] = "boot" } or {}
local function name(label) return clothes[label] or label end

local guesses = model:predict(neap.batches(fields(dev), { size = 200 })())
local puzzle
common.show(#guesses, function(i)
  local guess, label = guesses[i], dev:string("label", i)
  local right = guess.class == label
  if not right then puzzle = puzzle or i end
  return right, ("%-10s %.2f%s"):format(name(guess.class), guess.probability,
    right and "" or "  is " .. name(label))
end)
if puzzle then common.print_picture(dev:get("image", puzzle)) end
local scores = model:score(fields(dev))
print(scores.confusion)
common.result { dev_accuracy = scores.accuracy,
  test_accuracy = test and model:score(fields(test)).accuracy, parameters = model:parameters() }
