-- Alignment of what is written from what, and the decoder that follows it.
local neap = require "neap"
local data = require "data_help"
local gradients = require "run_help".gradients
local raises = data.raises

local phonemes = { split = { word = "characters", phonemes = "words" } }

-- Words of a made-up spelling: what each letter stands for is known.
local stands = { a = "AA", b = "B", h = "", s = "S", t = "T", u = "Y UW", x = "K S" }
local function invented(n, seed)
  local letters, rng, word, said, pieces = { "a", "b", "h", "s", "t", "u", "x" }, neap.rng(seed), {},
    {}, {}
  for i = 1, n do
    local text, parts = {}, {}
    for k = 1, 1 + rng:int(6) do
      text[k] = letters[rng:int(#letters)]
      parts[k] = stands[text[k]]
    end
    word[i], pieces[i] = table.concat(text), parts
    said[i] = table.concat(parts, " "):gsub("^ +", ""):gsub(" +$", ""):gsub(" +", " ")
  end
  return neap.corpus.from({ word = word, phonemes = said }, phonemes), pieces
end

describe("corpus:align", function()
  it("finds what each letter stands for", function()
    local corpus, pieces = invented(300, 1)
    local cut, report = corpus:align("word", "phonemes", { as = "pieces" })
    assert.equal(300, #cut)
    assert.equal(0, report.left_out)
    assert.equal(7, report.pieces)
    for i = 1, 300 do
      assert.same(pieces[i], cut:get("pieces", i))
      assert.equal(corpus:string("phonemes", i), cut:string("pieces", i))
      assert.equal(corpus:string("word", i), cut:string("word", i))
    end
    -- what is learned from few of them cuts all
    local few = corpus:align("word", "phonemes", { as = "pieces", sequences = 60 })
    for i = 1, 300 do assert.same(pieces[i], few:get("pieces", i)) end
  end)

  it("is not misled by what is long", function()
    local corpus, pieces = invented(200, 4)
    local long = {}
    for k = 1, 300 do long[k] = ({ "x", "h", "a", "u" })[k % 4 + 1] end
    local said = {}
    for k, c in ipairs(long) do said[k] = stands[c] end
    long = neap.corpus.from({ word = { table.concat(long), ("ab"):rep(400), ("ab"):rep(600) },
      phonemes = { table.concat(said, " "), ("AA B "):rep(400), ("AA B "):rep(600) } }, phonemes)
    local cut, report = neap.corpus.concat { corpus, long }:align("word", "phonemes",
      { as = "pieces" })
    assert.equal(202, #cut)
    assert.equal(1, report.left_out) -- of 1200 and 1200
    assert.is_true(report.nats > 0 and report.nats < 1000)
    for i = 1, 200 do assert.same(pieces[i], cut:get("pieces", i)) end
    assert.same(said, cut:get("pieces", 201))
    -- alone it is learned from too
    cut, report = long:align("word", "phonemes", { as = "pieces" })
    assert.is_true(report.nats > 0 and report.nats < 1000)
    for i = 1, 2 do assert.equal(long:string("phonemes", i), cut:string("pieces", i)) end
  end)

  it("learns from no more sequences than it should", function()
    local fit, seen = require "neap.align".fit, {}
    local list = {}
    for i = 1, 39 do list[i] = { { 1, 2 }, { 1, 2 } } end
    for _, most in ipairs { 20, 39, 5 } do
      fit(list, { sources = 2, targets = 2, most = 1, iterations = 3, sequences = most,
        each = function(done, all) seen[most] = { done, all } end })
    end
    assert.same({ [20] = { 99, 99 }, [39] = { 156, 156 }, [5] = { 54, 54 } }, seen)
  end)

  -- All ways to cut y[from..] into pieces for x[at..].
  local function ways(x, y, most, at, from, done, out)
    if at > #x then
      if from > #y then out[#out + 1] = table.move(done, 1, #done, 1, {}) end
      return out
    end
    for k = 0, math.min(most, #y - from + 1) do
      done[at] = table.concat(y, " ", from, from + k - 1)
      ways(x, y, most, at + 1, from + k, done, out)
      done[at] = nil
    end
    return out
  end

  it("learns by expectation and maximization over all ways to cut", function()
    local words = { "ab", "ba", "aab", "b", "bab" }
    local said = { "1 2 3", "3 1", "1 1 2", "2 3", "2 1 3 1" }
    local corpus = neap.corpus.from({ word = words, phonemes = said }, phonemes)
    for _, most in ipairs { 1, 2, 3 } do
      -- At first a piece of k symbols has the probability 1 / (most + 1) / 3^k.
      local function even(piece)
        local _, k = piece:gsub("%S+", "")
        return 1 / (most + 1) / 3 ^ k
      end
      local p, nats, last = { a = setmetatable({}, { __index = function(_, q) return even(q) end }) },
        nil, nil
      p.b = p.a
      for _ = 1, 4 do
        local counts, total, n = { a = {}, b = {} }, 0, 0
        for i, word in ipairs(words) do
          local x, y = {}, {}
          for c in word:gmatch "." do x[#x + 1] = c end
          for s in said[i]:gmatch "%S+" do y[#y + 1] = s end
          local all, sum, chance = ways(x, y, most, 1, 1, {}, {}), 0, {}
          for w, way in ipairs(all) do
            chance[w] = 1
            for k, piece in ipairs(way) do chance[w] = chance[w] * (p[x[k]][piece] or 0) end
            sum = sum + chance[w]
          end
          if #all > 0 then total, n = total - math.log(sum), n + 1 end
          for w, way in ipairs(all) do
            for k, piece in ipairs(way) do
              counts[x[k]][piece] = (counts[x[k]][piece] or 0) + chance[w] / sum
            end
          end
        end
        for _, row in pairs(counts) do
          local sum = 0
          for _, c in pairs(row) do sum = sum + c end
          for piece, c in pairs(row) do row[piece] = c / sum end
        end
        p, last, nats = counts, nats, total / n
      end
      local cut, report = corpus:align("word", "phonemes", { as = "cut", most = most, iterations = 4 })
      assert.near(nats, report.nats, 1e-12)
      assert.is_true(nats <= last + 1e-12)
      -- and each is cut in the likeliest way
      assert.equal(most == 1 and 3 or 0, report.left_out)
      for i = 1, #cut do
        local x, y = cut:get("word", i), cut:get("phonemes", i)
        local found, best = 1, 0
        for k, piece in ipairs(cut:get("cut", i)) do found = found * p[x[k]][piece] end
        for _, way in ipairs(ways(x, y, most, 1, 1, {}, {})) do
          local chance = 1
          for k, piece in ipairs(way) do chance = chance * (p[x[k]][piece] or 0) end
          best = math.max(best, chance)
        end
        assert.near(1, found / best, 1e-12)
      end
    end
  end)

  it("leaves out what is too long or needs a rare piece, and knows the lines of the others", function()
    local folder = data.folder()
    finally(folder.remove)
    local path = folder.write("a.tsv", "ab\tA B\na\tA B C\nba\tB A\nb\tB\nb\tA B\na\tA\n\tA\n")
    local corpus = assert(neap.corpus.tsv(path, { columns = { "word", "phonemes" },
      split = phonemes.split }))
    local cut, report = corpus:align("word", "phonemes", { as = "pieces", min = 2 })
    assert.equal(3, report.left_out)
    assert.equal(4, #cut)
    assert.equal(2, report.pieces)
    assert.matches("a.tsv, sequence 4 (line 6)", cut:place(4), 1, true)
    assert.same({ "B", "A" }, cut:get("pieces", 2))
    assert.equal(6, #corpus:align("word", "phonemes", { as = "pieces", most = 3 }))
    -- what only comes in what is left out is no piece
    local few = neap.corpus.from({ word = { "ab", "ab", "xy", "zy" },
      phonemes = { "A B", "A B", "X Y", "Z Y" } }, phonemes)
    cut, report = few:align("word", "phonemes", { as = "pieces", min = 2 })
    assert.same({ 2, 2, 2 }, { report.pieces, report.left_out, #neap.vocab(cut, "pieces") })
  end)

  it("says what it cannot do", function()
    local corpus = invented(5, 2)
    raises('corpus:align: no field "wort"; did you mean "word"?', function()
      corpus:align("wort", "phonemes", { as = "pieces" })
    end)
    raises("corpus:align: as: expected a string, came nil", function()
      corpus:align("word", "phonemes")
    end)
    raises("corpus:align: most: expected", function()
      corpus:align("word", "phonemes", { as = "pieces", most = 0 })
    end)
    raises("corpus:align: most: pieces of 40 out of", function()
      corpus:align("word", "phonemes", { as = "pieces", most = 40 })
    end)
    local numbers = neap.corpus.from { x = { { 1, 2 } }, y = { { "a" } } }
    raises("corpus:align: field x", function() numbers:align("x", "y", { as = "z" }) end)
    local long = neap.corpus.from({ word = { "a" }, phonemes = { "A B C" } }, phonemes)
    data.fails("EFORMAT", "a script: corpus:align: most: expected some phonemes of at most 2 symbols "
      .. "for each of its word, came none of 1", long:align("word", "phonemes", { as = "pieces" }))
    data.fails("EFORMAT", "a script: corpus:align: min: expected some sequence without a piece that "
      .. "comes less than 100 times, came none",
      corpus:align("word", "phonemes", { as = "pieces", min = 100 }))
    for _, symbol in ipairs { "New York", "" } do
      local blank = neap.corpus.from { x = { { "a" } }, y = { { symbol } } }
      raises(('corpus:align: field y: expected symbols without blanks, came "%s"'):format(symbol),
        function() blank:align("x", "y", { as = "z" }) end)
    end
  end)
end)

describe("a vocabulary of pieces", function()
  it("gives what its symbols are made of", function()
    local cut = invented(50, 3):align("word", "phonemes", { as = "pieces" })
    local vocab = neap.vocab(cut, "pieces", { start = true, stop = true })
    for _, v in ipairs { vocab, assert(neap.vocab.from(vocab:plain())) } do
      assert.equal("pieces", v.split)
      assert.equal("K S AA Y UW", v:text { "", "K S", "", "", "AA", "Y UW", "" })
      assert.same({ "K", "S", "AA", "Y", "UW" }, v:words { "", "K S", "", "", "AA", "Y UW", "" })
      assert.equal("", v:text { "", "" })
      assert.same({}, v:words {})
      assert.equal("", v:symbol(v:id ""))
    end
  end)
end)

describe("aligned attention", function()
  local letters = neap.vocab.new { "a", "b", "c" }
  local output = neap.vocab.new { "A", "B", "", "A B", start = true, stop = true, split = "pieces" }
  local function model_of(options, seed)
    options.embed, options.attention = options.embed or 3, "aligned"
    return neap.async_seq2seq { input = letters, output = output, rng = neap.rng(seed or 3),
      max_length = 9, encoder = neap.chain { neap.embed { size = 2 }, neap.elman { size = 4 } },
      decoder = neap.decoder(options) }
  end
  local function batch_of(model, rows)
    local corpus = neap.corpus.from({ a = table.move({ "abca", "", "cb", "a" }, 1, rows, 1, {}),
      b = table.move({ { "A", "B", "", "A B" }, {}, { "", "B", "A" }, { "B" } }, 1, rows, 1, {}) },
      { split = { a = "characters" } })
    return neap.batches(model:fields(corpus, "a", "b"), { size = rows, bucket = false })()
  end

  -- h(t) = tanh(W [x; m(t)] + b + U h' + c), o = tanh(M [h; m(t)] + d), m(t) = 0 past the end.
  it("reads the encoder's steps one after the other", function()
    local model = model_of { layers = { neap.elman { size = 5 } }, mix = 2, bridge = "zero" }
    local function get(name) return model.params:get("decoder." .. name):totable() end
    local ids, source = { 4, 0, 2, 1, 3 }, { 1, 0, 2 }
    local encoded = model:run("encode", false)
      :feed { input = neap.tensor(source, "i32"):reshape { 3, 1 } }:forward()
    local memory = encoded:value("memory", "concat")
    local run = model:run("decode", false):feed {
      memory = { data = memory, lengths = neap.tensor({ 3 }, "i32") },
      previous = neap.tensor(ids, "i32"):reshape { 5, 1 } }:forward()
    local scores = run:value("scores", "concat"):totable()
    local function affine(w, b, x, y, c)
      y = y or {}
      for i, row in ipairs(w) do
        y[i] = (y[i] or 0) + b[i]
        for j, v in ipairs(row) do y[i] = y[i] + v * x[j] end
      end
      return y
    end
    local function tanh(list)
      for i, v in ipairs(list) do list[i] = 1 - 2 / (math.exp(2 * v) + 1) end
      return list
    end
    local function join(a, b) return table.move(b, 1, #b, #a + 1, table.move(a, 1, #a, 1, {})) end
    local m, h = memory:totable(), { 0, 0, 0, 0, 0 }
    for t, id in ipairs(ids) do
      local seen = m[t] or { 0, 0, 0, 0 }
      h = tanh(affine(get "elman.weight_hh", get "elman.bias_hh", h, affine(get "elman.weight_ih",
        get "elman.bias_ih", join(get "embed.weight"[id + 1], seen))))
      local o = tanh(affine(get "mix.weight", get "mix.bias", join(h, seen)))
      local z, total = affine(get "output.weight", get "output.bias", o), 0
      for _, v in ipairs(z) do total = total + math.exp(v) end
      for i, v in ipairs(z) do assert.near(v - math.log(total), scores[t][i], 1e-5) end
    end
  end)

  it("has right gradients, loops as it runs in one, and steps as it runs", function()
    for _, options in ipairs { { layers = { neap.gru { size = 3 }, neap.lstm { size = 4 } } },
      { layers = { neap.chain { neap.linear { size = 6 }, neap.lstm { size = 3 } } }, bridge = "zero" },
      { layers = { neap.residual { neap.elman { size = 7 } } }, mix = 3 },
      { layers = { neap.elman { size = 4 } }, bridge = "copy" } } do
      local model = model_of(options)
      local batch = batch_of(model, 4)
      local looped = model:run("mixed", false)
      looped:set("mix", 0)
      local whole = model:loss(batch)
      assert.near(whole, looped:feed(batch):forward():item(), 1e-5)
      assert.near(whole,
        model:recompute(true):run("learn", true):feed(batch):forward():item(), 1e-6)
      -- what a beam of all symbols gives one step after the other
      local h = model:predict({ "abca" }, { beam = 3, all = true })[1][1]
      local ids = table.move(h.ids, 1, #h.ids, 2, { output.start })
      local encoded = model:run("encode", false):feed(batch_of(model, 1)):forward()
      local given = { previous = output:tensor "" }
      for name in pairs(encoded.program.outputs) do given[name] = encoded:value(name, "concat") end
      given.memory = { data = given.memory, lengths = neap.tensor({ 4 }, "i32") }
      for i, id in ipairs(ids) do ids[i] = id - 1 end
      given.previous = neap.tensor(ids, "i32"):reshape { #ids, 1 }
      local decoded = model:run("decode", false):feed(given):forward()
      local scores = decoded:value("scores", "concat"):totable()
      local sum = h.stopped and scores[#ids][output.stop] or 0
      for t = 2, #ids do sum = sum + scores[t - 1][ids[t] + 1] end
      assert.near(sum, h.log_probability, 1e-4)

      for _, builder in ipairs { "learn", "mixed" } do
        local run = model:program(builder):run { learn = true, double = true }
        if builder == "mixed" then run:set("mix", 0) end
        local function loss() return run:feed(batch):forward():item() end
        loss()
        run:backward()
        gradients(run, model.params:names(), loss, 1e-7, 4)
      end
    end
  end)

  it("learns alone as among others, and what to write", function()
    local model = model_of { layers = { neap.gru { size = 8 } } }
    local corpus = neap.corpus.from({ a = { "ab", "ba", "cab", "", "bc" },
      b = { { "A B", "" }, { "B", "A" }, { "", "A B", "" }, {}, { "B", "" } } },
      { split = { a = "characters" } })
    local fields = model:fields(corpus, "a", "b")
    local batch = neap.batches(fields, { size = 5 })()
    local sum, n = 0, 0
    for one in neap.batches(fields, { size = 1 }) do
      sum, n = sum + model:loss(one) * #one.output.data, n + #one.output.data
    end
    assert.near(sum / n, model:loss(batch), 1e-5)
    local optim = neap.adam { rate = 2e-2 }
    for _ = 1, 200 do model:learn(batch, optim) end
    local said = { { "A", "B" }, { "B", "A" }, { "A", "B" }, {}, { "B" } }
    local references = {}
    for i, right in ipairs(said) do references[i] = { right } end
    local scores = model:score({ "ab", "ba", "cab", "", "bc" }, references, { beam = 2 })
    assert.same(said, scores.hypotheses)
    assert.equal(0, scores.wer)
    local words, pieces = corpus:references("a", "b") -- the pieces themselves may stand there too
    assert.equal(0, model:score(words, pieces, { beam = 2 }).wer)
    pieces[1] = { { "A", "A B" } }
    assert.near(0.2, model:score(words, pieces, { beam = 2 }).wer, 1e-9)
    assert.matches("attention kind=aligned", tostring(model), 1, true)
  end)

  it("has no weights to show, to copy by or to cover", function()
    local model = model_of { layers = { neap.gru { size = 2 } } }
    raises("predict: attention: the model's decoder has none", function()
      model:predict({ "ab" }, { attention = true })
    end)
    for _, name in ipairs { "coverage", "copy", "input_feed" } do
      raises(("decoder: %s: it is about attention that is spread, came attention = \"aligned\"")
        :format(name), function()
        neap.decoder { embed = 2, layers = { neap.gru { size = 2 } }, [name] = true,
          attention = "aligned" }
      end)
    end
    raises('decoder: attention: expected "general", "dot", "additive", "aligned" or false, came '
      .. '"alinged"; did you mean "aligned"?', function()
      neap.decoder { embed = 2, layers = { neap.gru { size = 2 } }, attention = "alinged" }
    end)
  end)
end)
