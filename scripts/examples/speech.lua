--- Speech to class: which word was said, of ten digits or any others. With --ctc speech to text:
-- several words one after the other, whose places in the recording nobody has marked. Row 63 of
-- docs/notes.md.
local neap = require "neap"
local features = neap.features
local common = dofile((arg[0]:match "^.*/" or "") .. "common.lua")

local options = common.options {
  "Learns to hear which word was said, or with --ctc which words one after the other.",
  data = "lines of a sound file, tab, the word said in it", epochs = 15, quick = 8,
  train = common.shared "fsdd/train.tsv", dev = common.shared "fsdd/dev.tsv",
  texts = { "sound", "Sound files to hear at the end; with --load nothing else." },
  extend = function(parser)
    parser:flag "--ctc":description "Write down several words, of recordings joined into strings."
    common.number(parser, "--strings", "N", { low = 1, whole = true, preset = 1000, quick = 300 },
      "With --ctc: strings in an epoch, each time others.")
    common.number(parser, "--beam", "K", { low = 1, high = 1000, whole = true, preset = 8 },
      "With --ctc: beginnings that are kept while reading.")
    common.picture_option(parser)
  end,
}
local rng = neap.rng(options.seed)
local size, batch, rate = 128, 32, 3e-3
if options.quick then size, batch, rate = 24, 16, 1e-2 end

-- Recordings, a sample a step; all have the rate of the first one, or that which the model knows.
local model = options.load
  and common.load(options, options.ctc and "synced_seq2seq" or "seq2class")
if model and not (model.inputs[1].rate and model.loss_name == (options.ctc and "ctc" or nil)) then
  common.fail(1, ("%s: its model does not %s"):format(options.load,
    model.inputs[1].rate and "write with the loss ctc" or "hear sound"))
end
local samples = model and model.inputs[1].rate or options.quick and 8000
local function hear(corpus, folder)
  local heard, found = corpus:sounds("file", { hop = 1, folder = folder, rate = samples,
    resample = true })
  samples = heard and found or samples
  return heard, found
end
local function read(path)
  local corpus, message = neap.corpus.tsv(path, { columns = { "file", "word" }, more = true })
  if not corpus then return nil, message end
  return hear(corpus, path:match "^(.*)/")
end

-- --quick: the two tones of each key of a telephone, in some noise.
local function invented(n)
  local rows, columns, keys = { 697, 770, 852, 941 }, { 1209, 1336, 1477 }, "123456789*0#"
  local sound, word = {}, {}
  for i = 1, n do
    local digit, tones = tostring(rng:int(10) - 1), {}
    local key = keys:find(digit, 1, true) - 1
    local low, high = rows[key // 3 + 1], columns[key % 3 + 1]
    local loud = 0.05 + 0.2 * rng:uniform()
    for t = 1, (samples + rng:int(samples)) // 16 do
      local angle = 2 * math.pi * t / samples
      tones[t] = loud * (math.sin(low * angle) + math.sin(high * angle)
        + 0.5 * (rng:uniform() - 0.5))
    end
    sound[i], word[i] = tones, { digit }
  end
  return neap.corpus.from { sound = sound, word = word }
end

local train, dev, test
if options.quick then
  train, dev = invented(400), invented(100)
elseif not options.alone then
  train, dev, test = common.corpora(options, { read = read, share = 0.1, rng = rng,
    missing = "give --train FILE (sound file, tab, word)" })
end
local given = #options.sound > 0
  and common.need(hear(neap.corpus.from { file = options.sound })) or nil
local hop = model and model.inputs[1].size or math.ceil(samples / 80) -- 12.5 ms

-- Strings of three to seven recordings, with pauses of up to half a second, silent or with noise;
-- and for each where its words are: `{ word, from, to }`, in samples.
local function strings(corpus, n, chance)
  local pause, longest = { sound = {}, word = {} }, samples // (options.quick and 10 or 2)
  for i = 1, 100 do
    local noise, loud = {}, 10 ^ (-4 + 2.5 * chance:uniform())
    for t = 1, chance:int(longest) do noise[t] = loud * (chance:uniform() - 0.5) end
    pause.sound[i], pause.word[i] = noise, {}
  end
  local pool = neap.corpus.concat { corpus:only { "sound", "word" }, neap.corpus.from(pause) }
  local groups, places = {}, {}
  for g = 1, n do
    local group, place, at = {}, {}, 0
    local function put(i)
      local length = pool:length("sound", i)
      if i <= #corpus then
        place[#place + 1] = { word = pool:string("word", i), from = at + 1, to = at + length }
      end
      group[#group + 1], at = i, at + length
    end
    put(#corpus + chance:int(100))
    for _ = 1, 2 + chance:int(5) do
      put(chance:int(#corpus))
      if chance:uniform() < 0.75 then put(#corpus + chance:int(100)) end
    end
    groups[g], places[g] = group, place
  end
  return pool:join(groups), places
end
local function for_dev(corpus)
  for word in pairs(corpus:counts "word") do
    if not model.output:has(word) then
      common.fail(1, ("%s: the model has not learned the word %s"):format(tostring(corpus.source),
        word))
    end
  end
  return strings(corpus, options.quick and 50 or 300, neap.rng(options.seed):fork "dev")
end

local function inputs(corpus) return { input = corpus:fold("sound", hop):encode "sound" } end

local function fields(corpus)
  local both = inputs(corpus)
  both.output = options.ctc and corpus:encode("word", model.output)
    or corpus:label("word", model.output, { unknown = "ignore" })
  return both
end

-- The network, or the one that was saved. It reads samples: features are its first layers.
local front = features.log_mel { rate = samples, filters = options.quick and 24 or 40 }
if not model then
  local moments = train:fold("sound", hop):compute("sound", front, { as = "energies" })
    :moments "energies"
  local net = {
    front, features.standardize(moments),             -- [T,B,100] samples -> [T,B,40] energies
    neap.bidir { neap.gru { size = size } },          -- -> [T,B,256]
    neap.dropout { rate = 0.3 },
    neap.bidir { neap.gru { size = size } },          -- each direction's last state: [B,256]
  }
  if options.ctc then table.insert(net, 4, neap.fold {}) end -- or 25 ms a step: [T/2,B,256]
  local names = {}
  for name in pairs(train:counts "word") do names[#names + 1] = name end
  table.sort(names)
  local spec = { input = { rate = samples, hop = hop }, output = neap.vocab.new(names), rng = rng,
    threads = options.threads }
  if options.ctc then
    spec.loss, spec.beam = "ctc", options.beam
    net[#net + 1] = neap.dropout { rate = 0.3 }
  else
    spec.smoothing = 0.1
    spec.head = neap.chain { neap.dropout { rate = 0.3 }, neap.linear {} }
  end
  spec.net = neap.chain(net)
  model = (options.ctc and neap.synced_seq2seq or neap.seq2class)(spec)
end

-- Learning, the rate going down along a cosine.
local held, places = dev, nil
if dev and options.load then common.known(options, dev, "word", model.output) end
if dev and options.ctc then held, places = for_dev(dev) end
if not options.load then
  local all, scored = not options.ctc and fields(train), fields(held)
  neap.fit(model, {
    optim = neap.adam { rate = rate, clip = 1 },
    rate = function(_, first, done) return first * (1 + math.cos(math.pi * done)) / 2 end,
    epochs = options.epochs, minutes = options.minutes,
    key = options.ctc and "error_rate" or nil, lower = options.ctc,
    train = function() -- with --ctc other strings each time
      return neap.batches(all or fields((strings(train, options.strings, rng))),
        { size = batch, rng = rng })
    end,
    dev = function() return model:score(scored) end,
  })
end
common.save(options, model)

-- What came of it. The pitches of a recording over time, the highest first, from 0 to 1: the upper
-- 60 dB.
local function draw_sound(corpus, i)
  print("how " .. corpus:string("word", i) .. " sounded:")
  local y = corpus:select { i }:fold("sound", hop):compute("sound", front, { as = "energies" })
    :get("energies", 1):totable()
  local top, pitches = -math.huge, {}
  for _, row in ipairs(y) do top = math.max(top, table.unpack(row)) end
  for k = 1, #y[1] do
    pitches[k] = {}
    for t, row in ipairs(y) do
      pitches[k][t] = math.max(1 + (row[#row - k + 1] - top) / math.log(1e6), 0)
    end
  end
  common.lines({ "high", "", "", "", "", "", "", "low" }, #y, function(line, t)
    return pitches[1 + (line - 1) * #pitches // 8][t]
  end)
  return pitches
end

-- The words of a string, where they are said, and below it how probable they are at each step, and
-- so for words that were read.
local function draw_words(place, read_as, p)
  local step, words, curves, marks = 2 * hop / samples, {}, {}, {}
  local function curve(word)
    if words[word] then return end
    words[word], words[#words + 1] = true, word
    local points = {}
    for t = 1, #p do points[t] = { (t - 0.5) * step, p:get(t, model.output:id(word)) } end
    curves[#curves + 1] = { word, points }
  end
  for k, one in ipairs(place) do
    curve(one.word)
    marks[k] = { one.word, one.from / samples, one.to / samples }
  end
  for _, word in ipairs(read_as) do curve(word) end
  common.lines({ "said", table.unpack(words) }, #p, function(line, t)
    if line > 1 then return curves[line - 1][2][t][2] end
    for _, mark in ipairs(marks) do
      if t * step >= mark[2] and t * step <= mark[3] then return mark[1]:sub(1, 1) end
    end
    return 0
  end)
  return curves, marks
end

-- What the model answers to each of the recordings.
local function answers(corpus, how)
  local list = {}
  for part in neap.batches(inputs(corpus), { size = 64, bucket = false }) do
    for _, answer in ipairs(model:predict(part, how)) do list[#list + 1] = answer end
  end
  return list
end

local result, puzzle = { parameters = model:parameters() }, nil
if held and not options.ctc then
  local guesses = answers(held)
  common.show(#guesses, function(i)
    local guess, word = guesses[i], held:string("word", i)
    local right = guess.class == word
    if not right then puzzle = puzzle or i end
    return right, common.column(options.quick and "tones " .. i or held:string("file", i), 24)
      .. ("%-8s %.2f%s"):format(guess.class, guess.probability, right and "" or "  is " .. word)
  end)
  puzzle = puzzle or 1
  local pitches = draw_sound(held, puzzle)
  local scores = model:score(fields(held))
  print(scores.confusion)
  result.dev_accuracy, result.dev_macro_f1 = scores.accuracy, scores.macro_f1
  common.plot(options, { title = "heard as " .. guesses[puzzle].class, x = "seconds",
    step = hop / samples, maps = { { "said: " .. held:string("word", puzzle), pitches } } })
elseif held then
  local all = answers(held, { beam = options.beam, all = true })
  local said, best = {}, {}
  for i, words in ipairs(held:lists "word") do said[i], best[i] = { words }, all[i][1].symbols end
  common.show(#best, function(i)
    local heard, wanted = table.concat(best[i], " "), table.concat(said[i][1], " ")
    if heard ~= wanted then puzzle = puzzle or i end
    return heard == wanted,
      heard == wanted and heard or common.column(heard, 20) .. "is " .. wanted
  end)
  puzzle = puzzle or 1
  local wanted = table.concat(said[puzzle][1], " ")
  print("the likeliest readings of " .. wanted .. ", and their ln P:")
  for k = 1, math.min(#all[puzzle], 4) do
    local h = all[puzzle][k]
    print(("  %7.2f  %s"):format(h.log_probability, table.concat(h.symbols, " ")))
  end
  local pitches = draw_sound(held, puzzle)
  local curves, marks = draw_words(places[puzzle], best[puzzle],
    model:posteriors(neap.batches(inputs(held:select { puzzle }))())[1])
  common.plot(options, { title = "read as " .. table.concat(best[puzzle], " "), x = "seconds",
    step = hop / samples, maps = { { "said: " .. wanted, pitches } }, curves = curves,
    marks = marks })
  local metrics = neap.metrics
  result.dev_error = metrics.symbol_error_rate(best, said)
  result.dev_error_greedy = metrics.symbol_error_rate(answers(held, { beam = 0 }), said)
  result.dev_strings_wrong = metrics.sequence_error_rate(best, said)
end
for i, answer in ipairs(given and answers(given) or {}) do
  print(common.column(options.sound[i], 24) .. (options.ctc and table.concat(answer, " ")
    or ("%-8s %.2f"):format(answer.class, answer.probability)))
end
if test then
  local scores = model:score(fields(options.ctc and for_dev(test) or test))
  result.test_accuracy, result.test_error = scores.accuracy, scores.error_rate
end
common.result(result)
