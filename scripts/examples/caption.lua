--- Picture to words: the name of a character from its glyph. An encoder goes over the picture's
-- rows and columns, a decoder with attention writes the words. Row 63 of docs/notes.md.
local neap = require "neap"
local core = require "neap.core"
local progress = require "neap.progress"
local op, metrics = neap.op, neap.metrics
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local side = 16 -- rows and columns of a picture
local options = common.options {
  "Learns to write the name of a character below its picture.",
  data = "lines of code, width, rows in hexadecimal, name between tabs; or a font of Unifont "
    .. "(NAME.hex), whose names are in --names",
  train = common.shared "unifont-captions/train.tsv",
  dev = common.shared "unifont-captions/dev.tsv",
  epochs = 40, quick = 20,
  extend = function(parser)
    parser:option "--names":argname "FILE":default "/usr/share/unicode/UnicodeData.txt"
      :description "Names for a font, of Debian's unicode-data."
    local function option(name, value, range, description)
      common.number(parser, name, value, range, description)
    end
    option("--size", "N", { low = 1, whole = true, preset = 192, quick = 32 },
      "Units of each layer.")
    option("--subwords", "N", { low = 0, whole = true, preset = 800, quick = 40 },
      "Merges that make the subwords in which names are written.")
    option("--dropout", "P", { low = 0, below = 1, preset = 0.3, quick = 0 },
      "Share of the numbers between the layers that dropout sets to 0.")
    option("--batch", "N", { low = 1, whole = true, preset = 32, quick = 8 },
      "Pictures in a batch.")
    option("--rate", "R", { low = 0, preset = 0.004, quick = 0.01 }, "Learning rate at the start.")
    option("--shift", "N", { low = 0, whole = true, preset = 1, quick = 0 },
      "Learn from pictures that are moved by up to so many pixels, anew in each epoch.")
    option("--samples", "N", { low = 1, whole = true, preset = 100, quick = 4 },
      "Write a name so many times by chance and take what is most like the others; 1: the "
      .. "likeliest words.")
    option("--temperature", "X", { low = 0.01, preset = 0.8 },
      "How much is left to chance: at 1 as much as the model doubts.")
  end,
}
local rng = neap.rng(options.seed)

-- ---- data ----

-- The rows of a glyph, 32 or 64 hexadecimal digits. Narrow ones stand in the middle.
local known = {}
local function picture(hex)
  if not hex:find "^%x+$" or #hex ~= 2 * side and #hex ~= 4 * side then return end
  local rows = {}
  for y = 1, side do
    local digits = hex:sub((y - 1) * #hex // side + 1, y * #hex // side)
    if #digits == 2 then digits = "0" .. digits .. "0" end
    local row = known[digits] or {}
    for x = 1, known[digits] and 0 or side do
      row[x] = tonumber(digits, 16) >> side - x & 1
    end
    known[digits], rows[y] = row, row
  end
  return rows
end

local function made(list)
  local image, name = {}, {}
  for i, item in ipairs(list) do image[i], name[i] = item[1], item[2] end
  return neap.corpus.from({ image = image, name = name }, { split = { name = "words" } })
end

-- The whole of a file, or nil and what is wrong with it.
local function contents(path)
  local file <close>, message = io.open(path)
  if not file then return nil, message end
  local text, wrong = file:read "a"
  return text, wrong and path .. ": " .. wrong
end

-- Names of letters, numbers, punctuation and symbols, by code; ideographs have none of their own.
local function names(path)
  local text, message = contents(path)
  if not text then return nil, message end
  local out = {}
  for line in text:gmatch "[^\n]+" do
    local code, name, kind = line:match "^(%x+);([^;<]+);(%u)"
    local own = code and ("LNPS"):find(kind, 1, true) and not name:find "IDEOGRAPH%-"
    if own then out[code] = name end
  end
  return out
end

local function font(path)
  local all, message = names(options.names)
  local text
  if all then text, message = contents(path) end
  if not text then return nil, message end
  local list, n = {}, 0
  for line in text:gmatch "([^\n]*)\n?" do
    n = n + 1
    local code, hex = line:match "^(%x+):(.*)$"
    local rows = code and picture(hex)
    if not rows and line ~= "" then
      return nil, ("%s:%d: expected a code, a colon and 32 or 64 hexadecimal digits"):format(path,
        n)
    end
    if rows and all[code] then list[#list + 1] = { rows, all[code] } end
  end
  if #list == 0 then return nil, ("%s: no character of it is in %s"):format(path, options.names) end
  return made(list)
end

local function read(path)
  if path:match "%.hex$" then return font(path) end
  local corpus, message = neap.corpus.tsv(path, { columns = { "code", "width", "glyph", "name" } })
  if not corpus then return nil, message end
  local list = {}
  for i = 1, #corpus do
    local rows = picture(corpus:string("glyph", i))
    if not rows then
      return nil, ("%s: expected 32 or 64 hexadecimal digits in column 3"):format(corpus:place(i))
    end
    list[i] = { rows, corpus:string("name", i) }
  end
  return made(list)
end

-- --quick: one mark above another, each to the left or to the right.
local function invented(n)
  local marks = { BAR = { "......", "######", "######", "......" },
    BOX = { "######", "#....#", "#....#", "######" },
    DOT = { "..##..", ".####.", ".####.", "..##.." },
    CROSS = { "#....#", ".#..#.", "..##..", ".#..#." } }
  local kinds, list = { "BAR", "BOX", "DOT", "CROSS" }, {}
  for i = 1, n do
    local rows, name = {}, {}
    for y = 1, side do
      rows[y] = {}
      for x = 1, side do rows[y][x] = 0 end
    end
    for k = 1, 2 do
      local kind, right = kinds[rng:int(#kinds)], rng:int(2) - 1
      local down, over = 8 * (k - 1) + rng:int(3), 8 * right + rng:int(2) - 1
      for y, text in ipairs(marks[kind]) do
        for x = 1, #text do rows[down + y][over + x] = text:sub(x, x) == "#" and 1 or 0 end
      end
      table.move({ right == 1 and "RIGHT" or "LEFT", kind }, 1, 2, #name + 1, name)
      if k == 1 then name[#name + 1] = "OVER" end
    end
    list[i] = { rows, table.concat(name, " ") }
  end
  return made(list)
end

local train, dev, test
if options.quick then
  train, dev = invented(400), invented(100)
else
  train, dev, test = common.corpora(options, {
    read = read, share = 0.1, rng = rng,
    missing = "give --train FILE, e.g. /usr/share/unifont/unifont.hex of Debian's unifont",
  })
end

-- ---- the network, or the one that was saved ----

local model
if options.load then
  model = common.load(options, "async_seq2seq")
  if model.inputs[1].size ~= 2 * side then
    common.fail(1, ("%s: its model does not read pictures of %d by %d"):format(options.load, side,
      side))
  end
else
  model = neap.async_seq2seq {
    input = 2 * side, rng = rng, threads = options.threads, max_length = 40, smoothing = 0.1,
    output = neap.vocab.bpe(train, "name",
      { merges = options.subwords, bytes = true, start = true, stop = true }),
    encoder = neap.bidir { neap.gru { size = options.size } }, -- [S,B,32] -> [S,B,2H]
    decoder = neap.decoder { embed = 64, dropout = options.dropout,
      layers = { neap.gru { size = options.size } } },
  }
end

-- Step t of a picture is its row t and its column t.
local function steps(corpus)
  local rows = corpus:encode "image"
  local columns = corpus:patches("image", "columns"):encode "image"
  return { data = op.concat { rows.data, columns.data }, offsets = rows.offsets }
end

local function fields(corpus)
  return { input = steps(corpus),
    previous = corpus:encode("name", model.output, { start = true }),
    output = corpus:encode("name", model.output, { stop = true }) }
end

-- What the model writes below each picture, lists of words: the likeliest; or of many names that are
-- written by chance the one whose words most of the others have too.
local function written(corpus, samples)
  local out, how = {}, { temperature = options.temperature, rng = neap.rng(options.seed) }
  local bar, done = samples > 1 and progress { label = "writing", total = #corpus * samples }, 0
  for batch in neap.batches({ input = steps(corpus) }, { size = 256, bucket = false }) do
    local names = {}
    for k = 1, samples do
      local list = model:predict(batch, samples > 1 and how or nil)
      for i, symbols in ipairs(list) do
        names[i] = names[i] or {}
        names[i][k] = model.output:words(symbols)
      end
      done = done + #list
      if bar then bar:update(done) end
    end
    for _, list in ipairs(names) do
      out[#out + 1] = list[metrics.consensus(list, metrics.word_f1)]
    end
  end
  if bar then bar:finish() end
  return out
end

local function references(corpus)
  local list = corpus:lists "name"
  for i, name in ipairs(list) do list[i] = { name } end
  return list
end

-- The number of the picture in `train` that has the most pixels in common with each of `corpus`: of
-- |a - b|^2 = |a|^2 - 2 ab + |b|^2 the first term is the same for all b.
local function nearest(corpus)
  local function flat(part)
    return part:encode("image").data:reshape { #part, side * side }
  end
  local all, out = flat(train), {}
  local ink = op.sum(all, -1) * -0.5
  for from = 1, #corpus, 256 do
    local some = {}
    for i = from, math.min(from + 255, #corpus) do some[#some + 1] = i end
    local best = op.argmax(op.linear(flat(corpus:select(some)), all, ink))
    for k = 1, #some do out[#out + 1] = best[k] + 1 end
  end
  return out
end

-- Learning.
local right = references(dev)
if not options.load then
  neap.fit(model, {
    optim = neap.adam { rate = options.rate, clip = 2 },
    rate = function(_, first, done) return first * (1 + math.cos(math.pi * done)) / 2 end,
    average = neap.average { decay = 0.99 },
    epochs = options.epochs, minutes = options.minutes, key = "f1",
    train = function()
      local data = options.shift > 0 and train:shift("image", { most = options.shift, rng = rng })
        or train
      return neap.batches(fields(data), { size = options.batch, rng = rng })
    end,
    dev = function() return { f1 = metrics.word_f1(written(dev, 1), right) } end,
  })
end
common.save(options, model)

-- What came of it: some pictures, drawn with two of their rows in a line, and beside each its name,
-- what was written and what the nearest picture is called.
local blocks = { [0] = " ", "\u{2580}", "\u{2584}", "\u{2588}" }
local function drawn(image, texts)
  local lines, first, last = {}, side // 2, 1
  for y = 1, side // 2 do
    local line = {}
    for x = 1, side do
      local pixels = image:get(2 * y - 1, x) + 2 * image:get(2 * y, x)
      line[x] = blocks[math.tointeger(pixels)]
      if pixels > 0 then first, last = math.min(first, y), y end
    end
    lines[y] = table.concat(line)
  end
  first = math.max(1, math.min(first, last - #texts + 1, side // 2 - #texts + 1))
  last = math.max(last, first + #texts - 1)
  for y = first, last do lines[y] = lines[y] .. "  " .. (texts[y - first + 1] or "") end
  return table.concat(lines, "\n  ", first, last) .. "\n"
end

local ours, theirs = written(dev, options.samples), nil
local result = { dev_f1 = metrics.word_f1(ours, right),
  dev_exact = 1 - metrics.sequence_error_rate(ours, right), parameters = model:parameters() }
if train then
  theirs = {}
  for i, k in ipairs(nearest(dev)) do theirs[i] = train:get("name", k) end
end

local order = {}
for i = 1, #dev do order[i] = i end
neap.rng(options.seed):shuffle(order)
common.show(#dev, function(k)
  local i = order[k]
  local name, own = dev:string("name", i), table.concat(ours[i], " ")
  local texts = { name }
  if own ~= name then texts[#texts + 1] = "written: " .. own end
  if theirs then texts[#texts + 1] = "nearest: " .. table.concat(theirs[i], " ") end
  return own == name, drawn(dev:get("image", i), texts)
end)

if theirs then
  local gains = {}
  for i, name in ipairs(right) do
    gains[i] = metrics.word_f1({ ours[i] }, { name }) - metrics.word_f1({ theirs[i] }, { name })
  end
  local gain = metrics.bootstrap(function(list)
    local sum = 0
    for _, x in ipairs(list) do sum = sum + x end
    return sum / #list
  end, { gains }, { rng = neap.rng(options.seed) })
  result.nearest_f1 = metrics.word_f1(theirs, right)
  print(("word F1 %.3f, that of the nearest picture's name %.3f; the difference is %.3f to %.3f "
    .. "(%d %% interval)"):format(result.dev_f1, result.nearest_f1, gain.low, gain.high,
    100 * gain.level))
  result.gain_low, result.gain_high = gain.low, gain.high
end
if test then result.test_f1 = metrics.word_f1(written(test, options.samples), references(test)) end
common.result(result)
