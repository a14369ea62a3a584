-- Writing: beams against an enumeration of all outputs, penalties against their formula, chance
-- against the probabilities, what may be written and what may not.
local neap = require "neap"
local core = require "neap.core"
local help = require "data_help"

local raises = help.raises
local letters = neap.vocab.new { "a", "b", "c" }
local output = neap.vocab.new { "x", "y", start = true, stop = true }

-- Weights large enough that hypotheses differ.
local function enlarge(model, times)
  for _, name in ipairs(model.params:names()) do
    local t = model.params:get(name)
    model.params:set(name, neap.op.mul(t, times))
  end
  return model
end

local function translator(seed, attention)
  local model = neap.async_seq2seq { input = letters, output = output, rng = neap.rng(seed),
    max_length = 3, encoder = neap.chain { neap.embed { size = 4 }, neap.gru { size = 5 } },
    decoder = neap.decoder { embed = 4, attention = attention, layers = { neap.gru { size = 5 } } } }
  model:program "learn"
  return enlarge(model, 2.5)
end

local function writer(seed)
  local model = neap.language_model { vocab = letters, rng = neap.rng(seed),
    net = neap.chain { neap.embed { size = 4 }, neap.gru { size = 5 } } }
  model:program "learn"
  return enlarge(model, 2.5)
end

local function near(expected, came, tolerance)
  assert.is_true(math.abs(expected - came) <= (tolerance or 1e-5),
    ("expected %.9g, came %.9g"):format(expected, came))
end

-- ln P of an output, by teacher forcing; ids from 1.
local function log_probability(model, text, ids, stopped)
  local previous, wanted = { output.start - 1 }, {}
  for i, id in ipairs(ids) do previous[i + 1], wanted[i] = id - 1, id - 1 end
  if stopped then wanted[#wanted + 1] = output.stop - 1 else previous[#previous] = nil end
  local n = #wanted
  local source = letters:tensor(text)
  return -n * model:loss { input = source:reshape { #text, 1 },
    previous = neap.tensor(previous, "i32"):reshape { n, 1 },
    output = neap.tensor(wanted, "i32"):reshape { n, 1 } }
end

-- All outputs of at most `limit` symbols.
local function enumerate(limit)
  local all = {}
  local function go(ids)
    all[#all + 1] = { ids = ids, stopped = #ids < limit }
    if #ids == limit then return end
    for id = 1, #output do
      if id ~= output.stop then
        local more = table.move(ids, 1, #ids, 1, {})
        more[#more + 1] = id
        go(more)
      end
    end
  end
  go {}
  return all
end

describe("a beam", function()
  it("that keeps all finds what an enumeration finds, with the same probabilities", function()
    for seed = 1, 4 do
      local model = translator(seed, seed % 2 == 0 and "general" or "additive")
      for _, text in ipairs { "a", "cab" } do
        local found = model:predict({ text }, { beam = 100, all = true })[1]
        local by_ids = {}
        for _, h in ipairs(found) do
          assert.is_nil(by_ids[table.concat(h.ids, " ")])
          by_ids[table.concat(h.ids, " ")] = h
        end
        local best, sum = nil, 0
        local all = enumerate(3)
        assert.equal(#all, #found)
        for _, one in ipairs(all) do
          local h = by_ids[table.concat(one.ids, " ")]
          assert.equal(one.stopped, h.stopped)
          local p = log_probability(model, text, one.ids, one.stopped)
          near(p, h.log_probability)
          near(p / (#one.ids + 1), h.score)
          sum = sum + math.exp(p)
          if one.stopped and (not best or h.score > best.score) then best = h end
        end
        near(1, sum)
        assert.equal(best, found[1])
      end
    end
  end)

  it("is greedy with a width of 1, and its scores are the probabilities", function()
    local model = translator(3, "general")
    for _, h in ipairs(model:predict({ "ab", "c", "bca" }, { all = true })) do
      assert.equal(1, #h)
    end
    local texts = { "ab", "c", "bca", "" }
    local all = model:predict(texts, { all = true })
    for b = 1, 3 do
      local h = all[b][1]
      near(log_probability(model, texts[b], h.ids, h.stopped), h.log_probability)
      local ids = {}
      while #ids < 3 do -- by hand
        local best, most
        for id = 1, #output do
          local more = table.move(ids, 1, #ids, 1, {})
          if id ~= output.stop then more[#more + 1] = id end
          local p = log_probability(model, texts[b], more, id == output.stop)
          if not most or p > most then best, most = id, p end
        end
        if best == output.stop then break end
        ids[#ids + 1] = best
      end
      assert.same(ids, h.ids)
      assert.same(h.symbols, model:predict { texts[b] }[1])
    end
  end)

  it("compares by the penalties of Wu et al. (2016)", function()
    local model = translator(5, "general")
    local text = "abcb"
    local function scores(options)
      options.beam, options.all, options.attention = 100, true, true
      return model:predict({ text }, options)[1]
    end
    for _, case in ipairs { { 1, 0, 0 }, { 0, 0, 0.2 }, { 0.6, 5, 0 }, { 0.2, 5, 0.2 } } do
      local alpha, offset, beta = table.unpack(case)
      local found = scores { length_penalty = alpha, length_offset = offset,
        coverage_penalty = beta }
      for i, h in ipairs(found) do
        local length = #h.ids + 1
        local expected = h.log_probability / ((offset + length) / (offset + 1)) ^ alpha
        for s = 1, beta > 0 and #text or 0 do
          local got = 0
          for j = 1, #h.ids do got = got + h.attention:get(j, s) end
          expected = expected + beta * math.log(math.max(math.min(got, 1), 1e-30))
        end
        near(expected, h.score, 1e-4)
        if i > 1 and found[i - 1].stopped == h.stopped then
          assert.is_true(found[i - 1].score >= h.score)
        end
      end
    end
    local short = scores { length_penalty = 0 }[1]
    local long = scores { length_penalty = 3 }[1]
    assert.is_true(#long.ids > #short.ids)
  end)

  it("writes on as a language model does too, and stops at a symbol", function()
    local model = writer(2)
    local text, all = model:generate("ab", 3, { beam = 27, all = true })
    assert.equal(27, #all)
    local sum, best = 0, nil
    for _, h in ipairs(all) do
      local ids = letters:tensor("ab" .. h.text)
      -- that of what follows "ab"
      local p = -4 * model:score(ids).nats + model:score(letters:tensor "ab").nats
      near(p, h.log_probability)
      sum = sum + math.exp(h.log_probability)
      if not best or h.log_probability > best.log_probability then best = h end
    end
    near(1, sum)
    assert.equal(best, all[1])
    assert.equal("ab" .. best.text, text)
    local _, stopped = model:generate("ab", 3, { beam = 27, stop = "c", all = true })
    assert.equal(1 + 2 + 4 + 8, #stopped)
    for _, h in ipairs(stopped) do
      assert.is_nil(h.text:find "c")
      assert.equal(#h.text < 3, h.stopped)
    end
    local _, one = model:generate("ab", 6, { temperature = 0, all = true })
    assert.equal(model:generate("ab", 6, { beam = 1 }), "ab" .. one[1].text)
  end)
end)

describe("chance", function()
  -- How often each next symbol comes.
  local function shares(model, options, n)
    local counts, rng = { a = 0, b = 0, c = 0 }, neap.rng(11)
    options.rng = rng
    for _ = 1, n do
      local symbol = model:generate("ab", 1, options):sub(3)
      counts[symbol] = counts[symbol] + 1 / n
    end
    return counts
  end
  local model = writer(6)
  local p, order = {}, {}
  for i, guess in ipairs(model:predict({ "ab" }, { n = 3 })[1]) do
    p[guess.symbol], order[i] = guess.probability, guess.symbol
  end

  -- The probabilities as options change them: f gives the weight of the i-th likeliest.
  local function like(options, f)
    local came, sum = shares(model, options, 3000), 0
    for i, symbol in ipairs(order) do sum = sum + f(i, p[symbol]) end
    for i, symbol in ipairs(order) do
      local expected = f(i, p[symbol]) / sum
      near(expected, came[symbol], 4 * (expected * (1 - expected) / 3000) ^ 0.5 + 1e-9)
      if expected == 0 then assert.equal(0, came[symbol]) end
    end
  end

  it("draws by the probabilities, at any temperature", function()
    assert.is_true(p[order[1]] < 0.9 and p[order[3]] > 0.01)
    like({}, function(_, x) return x end)
    like({ temperature = 0.5 }, function(_, x) return x ^ 2 end)
    like({ temperature = 3 }, function(_, x) return x ^ (1 / 3) end)
  end)

  it("draws from the likeliest: k of them, or a share", function()
    like({ top_k = 2 }, function(i, x) return i <= 2 and x or 0 end)
    like({ top_k = 1 }, function(i) return i == 1 and 1 or 0 end)
    like({ top_k = 9 }, function(_, x) return x end)
    local two = p[order[1]] + p[order[2]]
    like({ top_p = two - 1e-3 }, function(i, x) return i <= 2 and x or 0 end)
    like({ top_p = two + 1e-3 }, function(_, x) return x end)
    like({ top_p = 1e-6 }, function(i) return i == 1 and 1 or 0 end)
    like({ top_p = 1 }, function(_, x) return x end)
    like({ top_k = 2, top_p = p[order[1]] / two - 1e-3 }, function(i) return i == 1 and 1 or 0 end)
  end)

  it("leaves out what is banned, and takes a script's own scores", function()
    like({ banned = { order[1] } }, function(i, x) return i > 1 and x or 0 end)
    like({ top_k = 1, banned = { order[1] } }, function(i) return i == 2 and 1 or 0 end)
    like({ filter = function(_, scores)
      for id = 1, 3 do scores[id] = letters:symbol(id) == order[3] and 0 or math.log(0.5) end
    end }, function(i) return i == 3 and 2 or 1 end)
  end)

  it("is the same for the same seed, and another for another", function()
    local function write(seed) return model:generate("a", 40, { rng = neap.rng(seed) }) end
    assert.equal(write(1), write(1))
    assert.not_equal(write(1), write(2))
    local task = translator(7, "dot")
    local texts = { "ab", "c", "bca", "aa", "cc", "b" }
    local function all(seed, more)
      local options = { rng = neap.rng(seed), temperature = 1, max_length = 9, all = true }
      for name, value in pairs(more or {}) do options[name] = value end
      local out = {}
      for b, list in ipairs(task:predict(texts, options)) do
        assert.equal(1, #list)
        local h = list[1]
        near(log_probability(task, texts[b], h.ids, h.stopped), h.log_probability, 1e-4)
        out[b] = output:text(h.symbols)
      end
      return out
    end
    assert.same(all(1), all(1))
    assert.not_same(all(1), all(2))
    local likeliest = task:predict(texts, { max_length = 9 })
    for b, text in ipairs(all(1, { top_k = 1 })) do
      assert.equal(output:text(likeliest[b]), text)
    end
  end)
end)

describe("what may be written", function()
  local model = translator(8, "general")
  local texts = { "ab", "c", "bca" }

  it("begins with a prefix: one for all, or one for each", function()
    for _, beam in ipairs { 1, 3 } do
      for b, h in ipairs(model:predict(texts, { prefix = { "y", "x" }, beam = beam })) do
        assert.same({ "y", "x" }, table.move(h, 1, 2, 1, {}), texts[b])
      end
      local out = model:predict(texts, { beam = beam, prefix = { { "y" }, {}, { "x", "x", "y" } } })
      assert.equal("y", out[1][1])
      assert.same(model:predict({ "c" }, { beam = beam })[1], out[2])
      assert.same({ "x", "x", "y" }, out[3])
    end
    assert.same(model:predict(texts, { prefix = { "x" } }), model:predict(texts, { prefix = "x" }))
    local h = model:predict({ "ab" }, { prefix = { "y", "x" }, all = true, beam = 4 })[1][1]
    near(log_probability(model, "ab", h.ids, h.stopped), h.log_probability)
  end)

  it("has nothing of what is banned", function()
    for _, beam in ipairs { 1, 4 } do
      for _, list in ipairs(model:predict(texts, { banned = { "x", "<s>" }, beam = beam,
        all = true })) do
        for _, h in ipairs(list) do
          for _, symbol in ipairs(h.symbols) do assert.equal("y", symbol) end
        end
      end
    end
    local endless = model:predict(texts, { banned = { "</s>" }, all = true })
    for _, list in ipairs(endless) do
      assert.equal(3, #list[1].ids)
      assert.is_false(list[1].stopped)
    end
  end)

  it("goes by a function of the script's", function()
    -- no symbol twice in a row, and the end only after two
    local seen = {}
    local function filter(symbols, scores, sequence)
      seen[sequence] = true
      local last = symbols[#symbols]
      if last then scores[output:id(last)] = -math.huge end
      if #symbols < 2 then scores[output.stop] = -math.huge end
      scores[output.start] = -math.huge
    end
    for _, beam in ipairs { 1, 8 } do
      for _, list in ipairs(model:predict(texts, { filter = filter, beam = beam, all = true })) do
        assert.is_true(#list >= 1)
        for _, h in ipairs(list) do
          local text = table.concat(h.symbols)
          assert.is_true(text == "xy" or text == "yx" or text == "xyx" or text == "yxy", text)
        end
      end
    end
    assert.same({ true, true, true }, seen)
    local function ban(_, scores) scores[1] = -math.huge end
    assert.same(model:predict(texts, { banned = { output:symbol(1) }, beam = 5 }),
      model:predict(texts, { filter = ban, beam = 5 }))
    assert.same(model:predict(texts, { banned = { "x" } }),
      model:predict(texts, { filter = ban, banned = { "x" } }))
  end)
end)

describe("an ensemble", function()
  it("scores by the mean of the probabilities", function()
    local models = { writer(1), writer(2), writer(3) }
    local mean = {}
    for _, model in ipairs(models) do
      for _, guess in ipairs(model:predict({ "ca" }, { n = 3 })[1]) do
        mean[guess.symbol] = (mean[guess.symbol] or 0) + guess.probability / 3
      end
    end
    local _, all = models[1]:generate("ca", 1, { beam = 3, all = true,
      ensemble = { models[2], models[3] } })
    assert.equal(3, #all)
    for _, h in ipairs(all) do near(math.log(mean[h.text]), h.log_probability) end
    assert.is_true(mean[all[1].text] >= mean[all[2].text])

    local one, two = translator(1, "general"), translator(2, false)
    local both = one:predict({ "cab", "b" }, { beam = 100, all = true, ensemble = { two } })
    local sum = 0
    for _, h in ipairs(both[1]) do sum = sum + math.exp(h.log_probability) end
    near(1, sum)
    local first = one:predict({ "cab" }, { max_length = 1, beam = 9, all = true,
      ensemble = { two } })[1]
    for _, h in ipairs(first) do
      local p = 0
      for _, model in ipairs { one, two } do
        p = p + math.exp(log_probability(model, "cab", h.ids, h.stopped)) / 2
      end
      near(math.log(p), h.log_probability)
    end
    local scores = one:score({ "cab", "b" }, { { { "x" } }, { { "y" } } }, { ensemble = { two },
      beam = 2, length_offset = 5 })
    assert.equal(2, scores.n)
  end)

  it("is of models that are alike", function()
    local one, other = translator(1, "dot"), writer(1)
    raises("predict: ensemble: 1: expected a model of the kind async_seq2seq, came language_model",
      function() one:predict({ "a" }, { ensemble = { other } }) end)
    raises("predict: ensemble: 1: this model scores already",
      function() one:predict({ "a" }, { ensemble = { one } }) end)
    raises("predict: ensemble: expected a table, came 5",
      function() one:predict({ "a" }, { ensemble = 5 }) end)
    local strange = neap.language_model { vocab = neap.vocab.new { "a", "b", "d" },
      net = neap.gru { size = 2 } }
    raises("generate: ensemble: 1: its vocabulary has other symbols",
      function() other:generate("a", 1, { ensemble = { strange } }) end)
  end)
end)

describe("options of writing", function()
  local one, lm = translator(1, "dot"), writer(1)
  local function refuses(message, options)
    raises(message, function() one:predict({ "a" }, options) end)
  end

  it("are refused with what was expected", function()
    refuses("predict: beam: expected an integer from 1, came 0", { beam = 0 })
    refuses("predict: length_penalty: expected a finite number, came \"x\"",
      { length_penalty = "x" })
    refuses("predict: length_offset: expected a finite number from 0, came -1",
      { length_offset = -1 })
    refuses("predict: coverage_penalty: expected a finite number from 0, came inf",
      { coverage_penalty = math.huge })
    refuses("predict: temperature: expected a number from 0, came -1", { temperature = -1 })
    refuses("predict: temperature: expected a number from 0, came \"hot\"", { temperature = "hot" })
    refuses("predict: top_k: expected an integer from 1, came 0", { top_k = 0 })
    refuses("predict: top_k: symbols are drawn with a temperature above 0, came 0",
      { top_k = 2, temperature = 0 })
    refuses("predict: top_p: expected a number from 0 to 1, came 2", { top_p = 2 })
    refuses("predict: top_p: expected a number above 0, came 0", { top_p = 0 })
    refuses("predict: beam: expected 1 where symbols are drawn (temperature 1), came 4",
      { beam = 4, top_p = 0.9 })
    refuses("predict: rng: expected a source of chance", { rng = 5 })
    refuses("predict: banned: expected a table, came \"x\"", { banned = "x" })
    refuses("predict: banned: expected symbols of the output, came \"q\" at 2",
      { banned = { "x", "q" } })
    refuses("predict: prefix: expected a string, a list of symbols or a list of lists, came 5",
      { prefix = 5 })
    refuses("predict: prefix: expected symbols of the output, came \"q\" at 1",
      { prefix = { "q" } })
    refuses("predict: prefix: sequence 1: expected symbols of the output, came 5 at 1",
      { prefix = { { 5 } } })
    refuses("predict: prefix: expected one for each of 1 sequences, came 2", { prefix = { {}, {} } })
    refuses("predict: prefix: expected at most 3 symbols, so many are written, came 4",
      { prefix = { "x", "x", "x", "x" } })
    refuses("predict: filter: expected a function, came 5", { filter = 5 })
    refuses("predict: filter: scores: expected a number for each symbol, came nil for \"<s>\"",
      { filter = function(_, scores) scores[1] = nil end })
    refuses("predict: sequence 1: nothing can follow \"\": every symbol is banned, refused by the "
      .. "filter or of probability 0", { banned = { "x", "y", "<s>", "</s>" } })
    refuses("predict: sequence 1: nothing can follow \"xy\"", { prefix = { "x", "y" },
      filter = function(symbols, scores)
        for id = 1, #symbols > 1 and 4 or 0 do scores[id] = -math.huge end
      end })
    refuses("predict: unknown option \"topk\"; did you mean \"top_k\"?", { topk = 3 })
    raises("score: unknown option \"prefix\"", function()
      one:score({ "a" }, { { { "x" } } }, { prefix = { "x" } })
    end)
    local blind = translator(1, false)
    raises("predict: coverage_penalty: attention: the model's decoder has none", function()
      blind:predict({ "a" }, { coverage_penalty = 0.2, beam = 2 })
    end)
    raises("generate: stop: expected a symbol of the vocabulary, came \"q\"",
      function() lm:generate("a", 2, { stop = "q" }) end)
    raises("generate: each: a beam of 2 knows its symbols only in the end", function()
      lm:generate("a", 2, { beam = 2, each = print })
    end)
    raises("generate: unknown option \"prefix\"",
      function() lm:generate("a", 2, { prefix = "a" }) end)
    assert.equal(2, #lm:generate("a", 1, { beam = 2 })) -- it goes on as before
  end)

  it("do not matter where nothing is asked", function()
    assert.same({}, (one:predict({}, { beam = 3, temperature = 0 })))
    assert.equal("a", lm:generate("a", 0))
    assert.equal(1, select("#", lm:generate("a", 1)))
    assert.equal("a", lm:generate("a", 0, { beam = 3 }))
  end)
end)

describe("the largest of each row", function()
  it("are found in order, of equals the first", function()
    local rng = neap.rng(4)
    for _, k in ipairs { 0, 1, 2, 7, 40 } do
      local rows = {}
      for r = 1, 3 do
        rows[r] = {}
        for v = 1, 40 do rows[r][v] = rng:int(9) end
      end
      local ids, values = core.top(neap.tensor(rows), k)
      assert.same({ 3, k }, ids:shape())
      for r, row in ipairs(rows) do
        local order = {}
        for v = 1, 40 do order[v] = v end
        table.sort(order, function(a, b)
          if row[a] ~= row[b] then return row[a] > row[b] end
          return a < b
        end)
        for i = 1, k do
          assert.equal(order[i] - 1, ids:get(r, i))
          assert.equal(row[order[i]], values:get(r, i))
        end
      end
    end
    local ids, values = core.top(neap.tensor { { 0 / 0, 1, -math.huge } }, 3)
    assert.same({ { 1, -1, -1 } }, ids:totable())
    assert.same({ { 1, -math.huge, -math.huge } }, values:totable())
    raises("[R,V] expected, got f32 [2]", function() core.top(neap.tensor { 1, 2 }, 1) end)
    assert.is_false(pcall(core.top, neap.tensor { { 1, 2 } }, 3))
    raises("[R,V] expected, got f32 [2]", function() core.draw(neap.tensor { 1, 2 }, 1) end)
    raises("1 numbers expected, got 2", function()
      core.draw(neap.tensor { { 1, 2 } }, 1, nil, nil, { 0.5, 0.5 })
    end)
    raises("numbers expected", function()
      core.draw(neap.tensor { { 1, 2 } }, 1, nil, nil, { "0" })
    end)
    raises("expected a number from 0 to below 1, came 7", function()
      core.draw(neap.tensor { { 1, 2 } }, 1, 2, 0.5, { 7 })
    end)
    assert.is_false(pcall(core.top, neap.tensor({ { 1, 2 } }, "i32"), 1))
  end)
end)
