--- The modes of a recurrent network, each on a small made task: one to one, one to many, many to one,
-- many to many, many to another many. Rows 6, 43, 59 and 63 of docs/notes.md: among the tasks are a
-- video and handwriting.
local neap = require "neap"
local op = neap.op
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Learns a task in each of the five modes, a video and handwriting among them.",
  epochs = 20, quick = 8,
}
local rng = neap.rng(options.seed)
local quick = options.quick

local function fit(model, made, score)
  return neap.fit(model, {
    optim = neap.adam { rate = 1e-2, clip = 1 }, epochs = options.epochs,
    minutes = options.minutes,
    rate = function(_, first, done) return first * (1 + math.cos(math.pi * done)) / 2 end,
    train = function() return neap.batches(made(quick and 1000 or 2000), { size = 32, rng = rng }) end,
    dev = score,
  })
end

-- ---- pictures and videos: a dot on 4 x 4 points, with noise ----

local function frame(x, y)
  local out = {}
  for k = 1, 16 do out[k] = 0.3 * rng:uniform() + (k == 4 * y + x + 1 and 0.7 or 0) end
  return out
end

-- One picture; in which quarter is the dot?
local quarters = neap.vocab.new { "upper left", "upper right", "lower left", "lower right" }
local function pictures(n)
  local image, quarter = {}, {}
  for i = 1, n do
    local x, y = rng:int(4) - 1, rng:int(4) - 1
    image[i], quarter[i] = { frame(x, y) }, quarters.symbols[2 * (y // 2) + x // 2 + 1]
  end
  local corpus = neap.corpus.from { image = image, quarter = quarter }
  return { input = corpus:encode "image", output = corpus:label("quarter", quarters) }
end

-- A video: the dot goes to and fro between the edges; which way? One frame tells hardly anything.
local kinds = neap.vocab.new { "not at all", "across", "up and down", "aslant" }
local function videos(n, frames)
  local video, kind = {}, {}
  for i = 1, n do
    local which, x, y = rng:int(4) - 1, rng:int(4) - 1, rng:int(4) - 1
    local dx, dy = which % 2, which // 2
    if rng:int(2) == 1 then dx = -dx end
    if rng:int(2) == 1 then dy = -dy end
    video[i], kind[i] = {}, kinds.symbols[which + 1]
    for t = 1, frames do
      video[i][t] = frame(x, y)
      if x + dx < 0 or x + dx > 3 then dx = -dx end
      if y + dy < 0 or y + dy > 3 then dy = -dy end
      x, y = x + dx, y + dy
    end
  end
  local corpus = neap.corpus.from { video = video, kind = kind }
  return { input = corpus:encode "video", output = corpus:label("kind", kinds) }
end

-- A video in which it turns as it likes: which way did it come? Asked at each `every`th frame.
local directions = neap.vocab.new { "left", "right", "up", "down" }
local ways = { { "left", -1, 0 }, { "right", 1, 0 }, { "up", 0, -1 }, { "down", 0, 1 } }
local function walks(n, every)
  local video, moves = {}, {}
  for i = 1, n do
    local x, y = rng:int(4) - 1, rng:int(4) - 1
    video[i], moves[i] = { frame(x, y) }, { "?" }
    for t = 2, 4 + rng:int(6) do
      local way
      repeat way = ways[rng:int(4)]
      until x + way[2] >= 0 and x + way[2] <= 3 and y + way[3] >= 0 and y + way[3] <= 3
      x, y = x + way[2], y + way[3]
      video[i][t], moves[i][t] = frame(x, y), t % every == 0 and way[1] or "?"
    end
  end
  local corpus = neap.corpus.from { video = video, moves = moves }
  return { input = corpus:encode "video", -- "?" is none of them: -1, which no loss counts
    output = corpus:encode("moves", directions, { unknown = "ignore" }) }
end

-- ---- handwriting: a pen that moves by (x, y), on paper or above it ----

-- The strokes of each letter: units to the right and down.
local letters = { L = { { 0, 1 }, { 1, 0 } }, O = { { 1, 0 }, { 0, 1 }, { -1, 0 }, { 0, -1 } },
  N = { { 0, -1 }, { 1, 1 }, { 0, -1 } }, U = { { 0, 1 }, { 1, 0 }, { 0, -1 } },
  Z = { { 1, 0 }, { -1, 1 }, { 1, 0 } }, S = { { -1, 0 }, { 0, 1 }, { 1, 0 }, { 0, 1 }, { -1, 0 } } }
local names = { "L", "N", "O", "S", "U", "Z" }
local written = neap.vocab.new { "L", "N", "O", "S", "U", "Z", start = true, stop = true }

-- One to three letters, written large or small, with a hand that shakes: each stroke takes two or three
-- steps, then the pen goes on above the paper.
local function handwriting(n)
  local pen, text = {}, {}
  for i = 1, n do
    pen[i], text[i] = {}, {}
    local size = 0.6 + 0.8 * rng:uniform()
    for k = 1, rng:int(3) do
      text[i][k] = names[rng:int(6)]
      for _, stroke in ipairs(letters[text[i][k]]) do
        local steps = 1 + rng:int(2)
        for _ = 1, steps do
          table.insert(pen[i], { size * stroke[1] / steps + 0.1 * rng:normal(),
            size * stroke[2] / steps + 0.1 * rng:normal(), 1 })
        end
      end
      table.insert(pen[i], { size * (0.5 + rng:uniform()), size * rng:normal(), 0 })
    end
  end
  return neap.corpus.from { pen = pen, text = text }
end

-- A drawing as ordered: a letter so wide and so high, in moves of one unit.
local moves = neap.vocab.new { "left", "right", "up", "down", "left down", "right down",
  start = true, stop = true }
local function orders()
  local list = {}
  for k, name in ipairs(names) do
    for wide = 1, 4 do
      for high = 1, 4 do
        local order, path = { 0, 0, 0, 0, 0, 0, wide / 4, high / 4 }, {}
        order[k] = 1
        for _, s in ipairs(letters[name]) do
          local x, y = s[1] * wide, s[2] * high
          while x ~= 0 or y ~= 0 do -- a slope first, then straight on
            local dx, dy = (x > 0 and 1 or x < 0 and -1 or 0), (y > 0 and 1 or y < 0 and -1 or 0)
            local across, along = dx < 0 and "left" or dx > 0 and "right",
              dy < 0 and "up" or dy > 0 and "down"
            path[#path + 1] = across and along and across .. " " .. along or across or along
            x, y = x - dx, y - dy
          end
        end
        list[#list + 1] = { order = { order }, path = path, name = name }
      end
    end
  end
  rng:shuffle(list)
  return list
end

-- Draws what a pen writes, `width` characters a unit.
local function draw(pen, width)
  local x, y, at, least, most = 0, 0, {}, { 0, 0 }, { 0, 0 }
  for _, move in ipairs(pen) do
    for part = 0, move[3] == 1 and 8 or -1 do
      local column = (x + part / 8 * move[1]) * width // 1
      local row = (y + part / 8 * move[2]) * width // 2
      at[("%d %d"):format(column, row)] = true
      least = { math.min(least[1], column), math.min(least[2], row) }
      most = { math.max(most[1], column), math.max(most[2], row) }
    end
    x, y = x + move[1], y + move[2]
  end
  for row = least[2], most[2] do
    local line = {}
    for column = least[1], most[1] do
      line[#line + 1] = at[("%d %d"):format(column, row)] and "#" or " "
    end
    print("    " .. table.concat(line))
  end
end

-- Moves by name as those of a pen.
local function pen_of(path)
  local pen = {}
  for t, move in ipairs(path) do
    pen[t] = { move:find "left" and -1 or move:find "right" and 1 or 0,
      move:find "up" and -1 or move:find "down" and 1 or 0, 1 }
  end
  return pen
end

-- ---- the modes ----

local result = {}

local function one_to_one()
  print "one to one: a picture, and the quarter that its dot is in; nothing recurs"
  local held = pictures(200)
  local model = neap.seq2class { input = 16, output = quarters, rng = rng,
    threads = options.threads, net = neap.chain { op.last, neap.linear { size = 16 }, op.tanh } }
  fit(model, pictures, function() return model:score(held) end)
  result.one_to_one = model:score(pictures(500)).accuracy
end

local function one_to_many()
  print "one to many: a letter's name, width and height, and the moves that draw it"
  local all, held, pen = orders(), {}, { order = {}, path = {} }
  for i, o in ipairs(all) do
    if i <= 20 then -- never seen while learning
      held[i] = o
    else
      pen.order[#pen.order + 1], pen.path[#pen.path + 1] = o.order, o.path
    end
  end
  local model = neap.async_seq2seq { input = 8, output = moves, rng = rng, max_length = 30,
    threads = options.threads, encoder = neap.chain { neap.linear { size = 32 }, op.tanh },
    decoder = neap.decoder { embed = 8, layers = { neap.gru { size = 48 } }, attention = false } }
  local data = model:fields(neap.corpus.from(pen), "order", "path")
  local inputs, references = {}, {}
  for i, o in ipairs(held) do inputs[i], references[i] = o.order, { o.path } end
  neap.fit(model, {
    optim = neap.adam { rate = 1e-2, clip = 1 }, epochs = 4 * options.epochs, quiet = true,
    minutes = options.minutes,
    rate = function(_, first, done) return first * (1 + math.cos(math.pi * done)) / 2 end,
    train = function() return neap.batches(data, { size = 8, rng = rng }) end,
  })
  result.one_to_many = 1 - model:score(inputs, references).wer
  for i, path in ipairs(model:predict(table.move(inputs, 1, 3, 1, {}))) do
    print(("  %s, %.0f wide, %.0f high:"):format(held[i].name, 4 * inputs[i][1][7],
      4 * inputs[i][1][8]))
    draw(pen_of(path), 2)
  end
end

-- Frames side by side.
local function show(video)
  for y = 0, 3 do
    local line = {}
    for t, picture in ipairs(video) do
      line[t] = common.shade(table.move(picture, 4 * y + 1, 4 * y + 4, 1, {}))
    end
    print("    " .. table.concat(line, "  "))
  end
end

local function many_to_one()
  print "many to one: a video of six frames, and how its dot moves"
  local example = videos(1, 6)
  print(("  %s:"):format(kinds:symbol(example.output.data[1] + 1)))
  show(example.input.data:totable())
  local function accuracy(frames)
    local held = videos(200, frames)
    local model = neap.seq2class { input = 16, output = kinds, rng = rng,
      threads = options.threads, net = neap.lstm { size = 32 } }
    fit(model, function(n) return videos(n, frames) end, function() return model:score(held) end)
    return model:score(videos(500, frames)).accuracy
  end
  result.many_to_one, result.one_frame = accuracy(6), accuracy(1)
  print(("  of six frames %.3f, of one frame %.3f (a quarter is chance)"):format(result.many_to_one,
    result.one_frame))
end

local function many_to_many()
  print "many to many: a video, and at each frame which way its dot came; asked while learning at"
  print "each third frame only"
  local held = walks(200, 1)
  local model = neap.synced_seq2seq { input = 16, output = directions, rng = rng,
    threads = options.threads, net = neap.lstm { size = 48 } }
  fit(model, function(n) return walks(n, 3) end, function() return model:score(held) end)
  result.many_to_many = model:score(walks(500, 1)).accuracy
end

local handwritten
local function sequences(corpus)
  local inputs, references = {}, {}
  for i = 1, #corpus do
    inputs[i], references[i] = corpus:get("pen", i):totable(), { corpus:get("text", i) }
  end
  return inputs, references
end
local function many_to_more()
  print "many to another many: handwriting, and its letters"
  handwritten = neap.async_seq2seq { input = 3, output = written, rng = rng, max_length = 8,
    threads = options.threads, encoder = neap.bidir { neap.gru { size = 32 } },
    decoder = neap.decoder { embed = 8, layers = { neap.gru { size = 32 } } } }
  local inputs, references = sequences(handwriting(200))
  fit(handwritten, function(n) return handwritten:fields(handwriting(n), "pen", "text") end,
    function() return { accuracy = 1 - handwritten:score(inputs, references).wer } end)
end

if options.load then
  handwritten = common.load(options, "async_seq2seq")
  if handwritten.inputs[1].size ~= 3 or not handwritten.output:has "Z" then
    common.fail(1, options.load .. ": expected a model that this script has made")
  end
else
  one_to_one()
  one_to_many()
  many_to_one()
  many_to_many()
  many_to_more()
end
common.save(options, handwritten)

-- What is read from handwriting.
rng = neap.rng(options.seed):fork "score"
local inputs, references = sequences(handwriting(200))
local scores = handwritten:score(inputs, references)
draw(inputs[1], 5)
common.show(8, function(i)
  local came, truth = table.concat(scores.hypotheses[i], " "), table.concat(references[i][1], " ")
  return came == truth, ("%2d moves of the pen: %s%s"):format(#inputs[i], came,
    came == truth and "" or "  is " .. truth)
end)
result.dev_accuracy, result.dev_ler = 1 - scores.wer, scores.per
result.parameters = handwritten:parameters()
common.result(result)
