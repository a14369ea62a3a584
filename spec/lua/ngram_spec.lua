-- N-gram models: every probability beside nltk's and beside the definitions in fractions
-- (golden/make_ngram.py), sums of 1, writing, files, and what is said of what cannot be.
local neap = require "neap"
local core = require "neap.core"
local cjson = require "cjson"
local help = require "data_help"

local golden
do
  local file <close> = assert(io.open "spec/golden/ngram.json")
  golden = cjson.decode(file:read "a")
end

local function ids(list) return neap.tensor(list, "i32") end

-- A vocabulary of n symbols, "s0" and on.
local function numbered(n)
  local symbols = { split = "words" }
  for i = 1, n do symbols[i] = "s" .. i - 1 end
  return neap.vocab.new(symbols)
end

local function near(expected, came, bound)
  assert(math.abs(expected - came) <= (bound or 1e-6) * math.max(1, math.abs(expected)),
    ("expected %.9g, came %.9g"):format(expected, came))
end

local letters = neap.vocab.new { "a", "b", "c", "d" }
local function abc(options)
  options = options or {}
  options.vocab = letters
  local model = neap.ngram(options)
  model:fit(letters:tensor "abcabcabdacbabca")
  return model
end

describe("an n-gram model", function()
  it("gives the probabilities and discounts of other software", function()
    local v, text, held = numbered(golden.symbols), ids(golden.text), ids(golden.held)
    for _, case in ipairs(golden.cases) do
      local model = neap.ngram { vocab = v, order = case.order, discount = case.discount }
      assert.equal(#golden.text, model:fit(text).n)
      local logs, sum = model:log_probabilities(held), 0
      assert.equal(#case.logs, #logs)
      for i, expected in ipairs(case.logs) do
        near(expected, logs[i])
        sum = sum - expected
      end
      local scores = model:score(held)
      near(sum / #case.logs, scores.nats, 1e-12)
      near(math.exp(scores.nats), scores.perplexity, 1e-12)
      assert.equal(#case.logs, scores.n)
      for k, expected in ipairs(case.discounts or {}) do
        for i = 1, 3 do near(expected[i], model.discounts[k][i], 1e-12) end
      end
    end
  end)

  it("is what a hand computes", function()
    -- a b a b c, discount 1/2. Before a stand b and the beginning, before b and c one symbol each:
    -- P(c) = (1 - 1/2) / 4 + 3/2 / 4 * 1/4 = 7/32, P(d) = 3/32. After a comes b twice, after b a and
    -- c once each: P(d|a) = 1/2 / 2 * 3/32, P(c|b) = (1 - 1/2) / 2 + 1 / 2 * 7/32.
    local model = neap.ngram { vocab = letters, order = 2, discount = 0.5 }
    assert.equal(3, model:fit(letters:tensor "ababc").ngrams)
    local function p(text) return math.exp(model:log_probabilities(letters:tensor(text))[1]) end
    near(1 / 4 + 7 / 64, p "bc")
    near(3 / 128, p "ad")
    near(7 / 32, p "cc") -- nothing ever came after c
    assert.same({ { 0.5, 0.5, 0.5 }, { 0.5, 0.5, 0.5 } }, model.discounts)
  end)

  it("has a sum of 1 after whatever comes before", function()
    local v = numbered(golden.symbols)
    for order = 1, 4 do
      for _, discount in ipairs { false, 0.3, { 0.4, 1.5, 3 } } do
        local model = neap.ngram { vocab = v, order = order, discount = discount or nil }
        model:fit(ids(golden.text))
        for _, before in ipairs { "s0", "s1 s8", "s99 s98 s97", "s0 s1 s8" } do
          local sum = 0
          for _, best in ipairs(model:predict({ before }, { n = #v })[1]) do
            assert.is_true(best.probability > 0)
            sum = sum + best.probability
          end
          near(1, sum, 1e-12)
          -- and predict only normalises what log_probabilities gives
          local all, list = 0, v:encode(before)
          for id = 1, #v do
            list[#list + 1] = id
            local text = {}
            for i, one in ipairs(list) do text[i] = one - 1 end
            all = all + math.exp(model:log_probabilities(ids(text))[#text - 1])
            list[#list] = nil
          end
          near(1, all, 1e-5)
        end
      end
    end
  end)

  it("takes usual discounts where a text is too small to tell", function()
    assert.same({ { 0.5, 1, 1.5 }, { 0.5, 1, 1.5 } },
      (function()
        local model = neap.ngram { vocab = letters, order = 2 }
        model:fit(letters:tensor "abab")
        return model.discounts
      end)())
  end)

  it("takes an encoded field as one text", function()
    local corpus = neap.corpus.from({ t = { "abca", "bcab" } }, { split = { t = "characters" } })
    local v = neap.vocab(corpus, "t")
    local one, other = neap.ngram { vocab = v }, neap.ngram { vocab = v }
    one:fit(corpus:encode("t", v))
    other:fit(v:tensor "abcabcab")
    local text = v:tensor "cabbac"
    assert.equal(other:score(text).nats, one:score(text).nats)
  end)

  it("predicts and writes as a language model does", function()
    local model = abc()
    local best = model:predict { "ab", { "c", "a" } }
    assert.same({ "c", "b" }, { best[1].symbol, best[2].symbol })
    assert.equal("abcabc", model:generate("ab", 4, { temperature = 0 }))
    assert.equal("abcab", (model:generate("ab", 3, { beam = 3 })))
    local drawn = model:generate("ab", 50, { rng = neap.rng(3) })
    assert.equal(drawn, model:generate("ab", 50, { rng = neap.rng(3) }))
    assert.is_nil(model:generate("ab", 50, { rng = neap.rng(3), banned = { "c" } }):find "c")
    assert.equal("ab", model:generate("ab", 9, { temperature = 0, stop = "c" }))
    local other = neap.ngram { vocab = letters, order = 1 }
    other:fit(letters:tensor "dddddddddd")
    assert.equal("abcab", model:generate("ab", 3, { temperature = 0 }))
    assert.equal("abddd", model:generate("ab", 3, { temperature = 0, ensemble = { other } }))
  end)

  it("draws what it has counted", function()
    local model, n = abc(), {}
    local wanted = model:predict({ "ab" }, { n = 4 })[1]
    local rng = neap.rng(1)
    for _ = 1, 4000 do
      local symbol = model:generate("ab", 1, { rng = rng }):sub(3)
      n[symbol] = (n[symbol] or 0) + 1
    end
    for _, one in ipairs(wanted) do
      near(one.probability, (n[one.symbol] or 0) / 4000, 0.025)
    end
  end)
end)

describe("an n-gram model's file", function()
  local path
  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  it("gives the same model again", function()
    for order = 1, 3 do
      for _, discount in ipairs { false, 0.5 } do
        local model, text = abc { order = order, discount = discount or nil }, letters:tensor "abdc"
        assert.is_true(model:save(path))
        local again = assert(neap.load(path))
        assert.equal("ngram", again.kind)
        assert.same(model.discounts, again.discounts)
        assert.equal(model:parameters(), again:parameters())
        assert.equal(model:log_probabilities(text):tobytes(),
          again:log_probabilities(text):tobytes())
        assert.equal(tostring(model), tostring(again))
      end
    end
    local ok, message, code = abc():save "no/such/folder/x"
    help.fails("EIO", "no/such/folder", ok, message, code)
  end)

  it("is refused where it is damaged", function()
    local function refuses(text, change, tensors)
      assert(abc():save(path))
      local a = core.load_archive(path)
      local config, out = cjson.decode(a:text "task"), core.archive()
      local names = { ngrams = a:tensor "ngrams", counts = a:tensor "counts",
        first = a:tensor "first" }
      if change then change(config) end
      for name, t in pairs(tensors or {}) do names[name] = t end
      for name, t in pairs(names) do
        if t then out:add(name, t) end
      end
      out:set_text("task", cjson.encode(config))
      assert(out:save(path))
      help.fails("EFORMAT", text, neap.load(path))
    end
    local before = "the task in it, ngram, is damaged: "
    refuses(before .. "vocab: expected a list of symbols", function(c) c.vocab = 5 end)
    refuses(before .. "vocab: it is empty", function(c) c.vocab.symbols = {} end)
    refuses(before .. "order: expected a length of n-grams, came 0", function(c) c.order = 0 end)
    refuses(before .. "order: expected a length of n-grams, came 99", function(c) c.order = 99 end)
    refuses(before .. "expected a tensor ngrams, i32 [9,2], came i32 [9,3]",
      function(c) c.order = 2 end)
    refuses(before .. "discount: expected three numbers", function(c) c.discount = { 1 } end)
    refuses(before .. "discount: number 1 is 2", function(c) c.discount = { 2, 1, 1 } end)
    refuses(before .. "expected a tensor counts, came nil", nil, { counts = false })
    refuses(before .. "expected a tensor counts, i32 [9], came f32 [9]", nil,
      { counts = neap.zeros { 9 } })
    refuses(before .. "expected a tensor ngrams, i32 [3,3], came i32 [9,3]", nil,
      { counts = ids { 1, 1, 1 } })
    refuses(before .. "expected a tensor first, i32 [2], came i32 [1]", nil, { first = ids { 1 } })
    refuses(before .. "first: expected an id in 0..3, came 4", nil, { first = ids { 1, 4 } })
    refuses(before .. "n-gram 1: expected a count above 0, came 0", nil,
      { counts = neap.zeros({ 9 }, "i32") })
    refuses(before .. "n-gram 1: expected an id in 0..3, came -1", nil,
      { ngrams = neap.zeros({ 9, 3 }, "i32"):fill(-1) })
    refuses(before .. "n-gram 2 came twice", nil, { ngrams = neap.zeros({ 9, 3 }, "i32") })
    refuses("carries no neap programs", function(c) c.kind = "hmm" end)
  end)
end)

describe("wrong use of an n-gram model", function()
  local raises = help.raises

  it("is refused", function()
    raises("ngram: vocab: expected a vocabulary, came nil", function() neap.ngram {} end)
    raises("ngram.generate: expected an ngram first, came \"a\": call it with a colon, "
      .. "ngram:generate(..)", function()
        neap.ngram { vocab = neap.vocab.new { "a" } }.generate("a", 3)
      end)
    raises("ngram: vocab: the vocabulary is empty", function()
      neap.ngram { vocab = neap.vocab.new {} }
    end)
    local function refused(message, options)
      options.vocab = letters
      raises(message, function() neap.ngram(options) end)
    end
    refused("ngram: order: expected an integer from 1, came 0", { order = 0 })
    refused("ngram: order: 4 symbols to the power of it: expected at most 2^62, came order 32",
      { order = 32 })
    refused("ngram: discount: expected a number, or a list of three, came \"x\"",
      { discount = "x" })
    refused("ngram: discount: for a count of 1: expected a number above 0, at most 1, came 2",
      { discount = 2 })
    refused("ngram: discount: for a count of 3: expected a number above 0, at most 3, came 4",
      { discount = { 1, 2, 4 } })
    refused("ngram: unknown option \"n\"", { n = 3 })

    local empty = neap.ngram { vocab = letters }
    raises("score: nothing was counted yet: model:fit(ids)",
      function() empty:score(letters:tensor "ab") end)
    raises("log_probabilities: nothing was counted yet",
      function() empty:log_probabilities(letters:tensor "ab") end)
    raises("generate: nothing was counted yet", function() empty:generate("ab", 1) end)
    raises("predict: nothing was counted yet", function() empty:predict { "ab" } end)
    raises("save: nothing was counted yet", function() empty:save "x" end)

    local model = abc()
    local nats = model:score(letters:tensor "abc").nats
    raises("ngram:fit: ids: expected an i32 tensor or an encoded field, came \"abc\"",
      function() model:fit "abc" end)
    raises("ngram:fit: ids: expected an i32 tensor or an encoded field, came f32 [3]",
      function() model:fit(neap.zeros { 3 }) end)
    raises("ngram:fit: ids: expected a text of at least 3 symbols, came 2",
      function() model:fit(letters:tensor "ab") end)
    raises("ngram:fit: ids: symbol 3: expected an id in 0..3, came 4",
      function() model:fit(ids { 0, 1, 4, 2 }) end)
    raises("ngram:fit: ids: symbol 1: expected an id in 0..3, came -1",
      function() model:fit(ids { -1, 1, 3 }) end)
    raises("score: ids: expected a text of at least 2 symbols, came 1",
      function() model:score(letters:tensor "a") end)
    raises("predict: texts: expected a table, came \"ab\"", function() model:predict "ab" end)
    raises("generate: ensemble: 1: expected a model of the kind ngram, came language_model",
      function()
        model:generate("ab", 1, { ensemble = { neap.language_model { vocab = letters,
          net = neap.gru { size = 2 } } } })
      end)
    assert.equal(nats, model:score(letters:tensor "abc").nats) -- it goes on as before
  end)
end)

describe("log_probabilities of a language model", function()
  it("are those of its score, in pieces of any length", function()
    local v = neap.vocab.new { "a", "b", "c" }
    local model = neap.language_model { vocab = v, rng = neap.rng(4),
      net = neap.chain { neap.embed { size = 3 }, neap.dropout { rate = 0.5 },
        neap.lstm { size = 4 } } }
    local text = v:tensor "abcabacbcbacab"
    local whole, sum = model:log_probabilities(text), 0
    assert.equal(#text - 1, #whole)
    assert.equal(whole:tobytes(), model:log_probabilities(text, { steps = 3 }):tobytes())
    for _, x in ipairs(whole) do sum = sum - x end
    near(model:score(text).nats, sum / #whole)
    local best = model:predict({ "abcab" }, { n = 3 })[1]
    for _, one in ipairs(best) do
      if one.symbol == "a" then near(math.log(one.probability), whole[5], 1e-5) end
    end
    help.raises("log_probabilities: steps: expected an integer from 1, came 0",
      function() model:log_probabilities(text, { steps = 0 }) end)
    help.raises("batches.stream: ids: expected an i32 tensor or an encoded field, came \"x\"",
      function() model:log_probabilities "x" end)
  end)
end)
