-- How good predictions are.
local cjson = require "cjson"
local metrics = require "neap.metrics"
local neap = require "neap"
local vocab = require "neap.vocab"
local help = require "data_help"
local raises = help.raises

local function letters(text)
  local list = {}
  for c in text:gmatch "." do list[#list + 1] = c end
  return list
end

describe("metrics", function()
  it("edit_distance", function()
    for _, case in ipairs{ { "kitten", "sitting", 3 }, { "", "abc", 3 }, { "abc", "", 3 },
      { "abc", "abc", 0 }, { "abc", "ac", 1 }, { "intention", "execution", 5 },
      { "ab", "ba", 2 } } do
      assert.equal(case[3], metrics.edit_distance(letters(case[1]), letters(case[2])))
    end
    raises("b: expected a table, came nil", function() metrics.edit_distance({}) end)
  end)

  it("sequence_error_rate takes the word as right if one reference is met", function()
    local hypotheses = { { "T", "AH" }, { "K" }, {} }
    local references = { { { "T", "OW" }, { "T", "AH" } }, { { "K", "AE" } }, { {} } }
    assert.equal(1 / 3, metrics.sequence_error_rate(hypotheses, references))
    assert.equal(0, metrics.sequence_error_rate({}, {}))
    raises("edit_distance: a: [2] is nil, but there is a [3]", function()
      metrics.edit_distance({ 1, nil, 3 }, {})
    end)
    raises("accuracy: hypotheses: [2] is nil, but there is a [3]", function()
      metrics.accuracy({ 1, nil, 2 }, { 1, 2, 3 })
    end)
    raises("symbol_error_rate: hypothesis 1: [2] is nil, but there is a [3]", function()
      metrics.symbol_error_rate({ { "a", nil, "b" } }, { { { "a" } } })
    end)
    raises("sequence_error_rate: references: entry 1, number 1: [2] is nil, but there is a [3]",
      function() metrics.sequence_error_rate({ { "a" } }, { { { "a", nil, "b" } } }) end)
    raises("wer: references: entry 1: [2] is nil, but there is a [3]", function()
      metrics.wer({ "a b" }, { { "a", nil, "b" } })
    end)
    raises("rmse: predicted: [3] is nil, but there is a [4]", function()
      metrics.rmse({ 1, 2, nil, 4 }, { 1, 2, 3, 4 })
    end)
    raises("1 hypotheses for 0 entries", function() metrics.sequence_error_rate({ {} }, {}) end)
  end)

  it("symbol_error_rate counts against the closest reference", function()
    local hypotheses = { letters "abcd", letters "xy" }
    local references = { { letters "zzzzzzzz", letters "abce" }, { letters "xyz" } }
    assert.equal(2 / 7, metrics.symbol_error_rate(hypotheses, references))
    assert.equal(0, metrics.symbol_error_rate({}, {}))
    assert.equal(math.huge, metrics.symbol_error_rate({ { "a" } }, { { {} } }))
    raises("entry 1 has no reference", function() metrics.symbol_error_rate({ {} }, { {} }) end)
  end)

  it("accuracy", function()
    assert.equal(0.75, metrics.accuracy({ 1, 2, 3, 4 }, { 1, 2, 3, 5 }))
    assert.equal(0, metrics.accuracy({}, {}))
    raises("2 hypotheses for 1 entries", function() metrics.accuracy({ 1, 2 }, { 1 }) end)
  end)

  it("confusion", function()
    local c = metrics.confusion(vocab.new{ "cat", "dog", "éléphant" })
    c:add({ 1, 1, 1, 2, 2 }, { 1, 1, 2, 2, 1 })
    assert.equal(0.6, c:accuracy())
    assert.equal(2 / 3, c:f1(1))
    assert.equal(0.5, c:f1(2))
    assert.is_nil(c:f1(3))
    assert.equal((2 / 3 + 0.5) / 2, c:macro_f1())
    assert.equal(table.concat({
      "rows: wanted, columns: predicted",
      "         cat dog éléphant",
      "     cat   2   1        .",
      "     dog   1   1        .",
      "éléphant   .   .        .",
    }, "\n"), tostring(c))
    c:add(3, 1)
    assert.equal(0, c:f1(3))
    assert.equal(0.5, c:accuracy())
    assert.equal(0, metrics.confusion(2):macro_f1())
    assert.equal(0, metrics.confusion{ "a" }:accuracy())
    local long, line = {}, nil
    for i = 1, 12 do long[i] = ("a long name"):rep(i == 12 and 2 or 1, "+") end
    line = tostring(metrics.confusion(long):add(12, 3))
    assert.matches("\n                           1 2 3 4 5 6 7 8 9 10 11 12\n", line, 1, true)
    assert.matches("\na long name%+a long name 12 %. %. 1 . . . . . .  .  .  .$", line)
    raises("wanted: expected an integer from 1 to 3, came 4", function() c:add(4, 1) end)
    raises("predicted: expected an integer from 1 to 3, came 0", function() c:add(1, 0) end)
    raises("2 hypotheses for 1 entries", function() c:add({ 1 }, { 1, 2 }) end)
  end)

  it("edits tells them apart", function()
    for _, case in ipairs { { "abc", "abc", 0, 0, 0 }, { "axc", "abc", 1, 0, 0 },
      { "ac", "abc", 0, 1, 0 }, { "abxc", "abc", 0, 0, 1 }, { "", "ab", 0, 2, 0 },
      { "ab", "", 0, 0, 2 }, { "sitting", "kitten", 2, 0, 1 } } do
      local e = metrics.edits(letters(case[1]), letters(case[2]))
      assert.same({ case[3], case[4], case[5] }, { e.substitutions, e.deletions, e.insertions })
      assert.equal(metrics.edit_distance(letters(case[1]), letters(case[2])),
        e.substitutions + e.deletions + e.insertions)
    end
    raises("edits: reference: [2] is nil, but there is a [3]", function()
      metrics.edits({}, { 1, nil, 3 })
    end)
    raises("edits: reference: expected a table, came nil", function() metrics.edits({}) end)
  end)

  it("wer cuts strings into words", function()
    assert.equal(0.5, metrics.wer({ "the cat sat" }, { "a cat sat  down" }))
    assert.equal(0.5, metrics.wer({ { "the", "cat", "sat" } }, { { "a cat sat down" } }))
    assert.equal(1 / 5, metrics.wer({ "a b", "c" }, { { "a b", { "x" } }, "c d e" }) / 2)
    raises("wer: references: entry 1 has no reference", function() metrics.wer({ "a" }, { {} }) end)
  end)

  it("consensus takes what is most like the others", function()
    local texts = { "a b c", "a x", "a b d", "a b c", "y" }
    local which, worth = metrics.consensus(texts, metrics.word_f1)
    assert.equal(1, which)
    assert.near((1 + 2 / 5 + 2 / 3 + 1 + 0) / 5, worth, 1e-12)
    local function one(list) return (metrics.consensus(list, metrics.word_f1)) end
    assert.equal(3, one { "a", "b c", "a b" }) -- none of the two likeliest, but what both share
    assert.equal(2, one { { "p" }, { "a", "b" }, { "b", "a" } })
    assert.equal(1, one { {} })
    assert.equal(2, one { {}, { "a" }, { "a" } })
    local function bleu(h, r) return metrics.bleu(h, r).bleu end
    assert.equal(2, (metrics.consensus({ "a b", "c d e f", "c d e f" }, bleu)))
    local function says(message, ...)
      local ok, came = pcall(metrics.consensus, ...)
      assert.is_false(ok)
      assert.matches(message, came, 1, true)
    end
    says("consensus: outputs: expected a list, not empty, came none", {}, metrics.word_f1)
    says("consensus: outputs: expected a list, not empty, came nil", nil, metrics.word_f1)
    says("consensus: gain: expected a function, came nil", { "a" })
    says("consensus: output 2: expected a string or a list of strings, came 3", { "a", 3 }, print)
    says("consensus: output 1: expected strings, came 4 at 2", { { "a", 4 } }, print)
  end)

  it("word_f1 counts shared words in any order", function()
    assert.equal(2 * 2 / (3 + 4), metrics.word_f1({ "the cat sat" }, { "cat the down sits" }))
    assert.equal(1, metrics.word_f1({ "b a" }, { { "x", { "a", "b" } } })) -- the closest reference
    assert.equal(2 * 1 / (3 + 2), metrics.word_f1({ "a a a" }, { "a b" })) -- as often as in both
    assert.equal((1 + 0) / 2, metrics.word_f1({ { "a" }, "" }, { "a", "b" }))
    assert.equal(1, metrics.word_f1({ "" }, { "" }))
    assert.equal(0, metrics.word_f1({}, {}))
    raises("word_f1: references: entry 1 has no reference", function()
      metrics.word_f1({ "a" }, { {} })
    end)
    raises("word_f1: 1 hypotheses for 2 entries", function()
      metrics.word_f1({ "a" }, { "a", "b" })
    end)
    raises("word_f1: hypothesis 1: expected a table, came 3", function()
      metrics.word_f1({ 3 }, { "a" })
    end)
    raises("word_f1: references: entry 1 is a list of references, each a list: number 1 is 3",
      function() metrics.word_f1({ "a" }, { { 3 } }) end)
  end)

  it("macro_f1 of lists is that of a confusion", function()
    local predicted, wanted = { 1, 1, 2, 2, 1 }, { 1, 1, 1, 2, 2 }
    assert.equal((2 / 3 + 0.5) / 2, metrics.macro_f1(predicted, wanted))
    assert.equal(metrics.confusion(3):add(wanted, predicted):macro_f1(),
      metrics.macro_f1(predicted, wanted))
    assert.equal(0, metrics.macro_f1({}, {}))
    assert.equal(0, metrics.macro_f1({ "a" }, { "b" }))
    raises("1 hypotheses for 2 entries", function() metrics.macro_f1({ 1 }, { 1, 2 }) end)
    for _, name in ipairs { "macro_f1", "accuracy" } do
      raises(name .. ": entry 2: expected two classes, both strings or both numbers, came 1 and \"1\"",
        function() metrics[name]({ "a", 1 }, { "a", "1" }) end)
      raises(name .. ": entry 1: expected two classes, both strings or both numbers, came", function()
        metrics[name]({ { "a" } }, { { "a" } })
      end)
    end
  end)

  it("rmse and mae take lists, rows and tensors", function()
    assert.equal(2.5 ^ 0.5, metrics.rmse({ 1, 2 }, { 2, 4 }))
    assert.equal(1.5, metrics.mae({ 1, 2 }, { 2, 4 }))
    assert.equal(2.5 ^ 0.5, metrics.rmse(neap.tensor { { 1 }, { 2 } }, { 2, 4 }))
    assert.equal(1, metrics.rmse({ { 1, 2 }, { 3, 4 } }, { { 2, 3 }, { 4, 5 } }))
    assert.equal(0, metrics.rmse({}, {}))
    raises("rmse: 1 predicted for 2 wanted", function() metrics.rmse({ 1 }, { 1, 2 }) end)
    raises("mae: rows of 1 predicted for rows of 2 wanted", function()
      metrics.mae({ 1 }, { { 1, 2 } })
    end)
    raises("rmse: predicted: entry 2: expected a finite number, came nan", function()
      metrics.rmse({ 1, math.abs(0 / 0) }, { 1, 2 })
    end)
    raises("rmse: wanted: entry 1: expected a finite number, came \"x\" as number 2", function()
      metrics.rmse({ { 1, 2 } }, { { 1, "x" } })
    end)
    raises("rmse: wanted: entry 2: expected 1 numbers, came 2", function()
      metrics.rmse({ 1, 2 }, { 1, { 2, 3 } })
    end)
    raises("mae: predicted: expected a list of numbers or a tensor, came nil", function()
      metrics.mae()
    end)
  end)

  it("mase scales by the seasonal naive forecast", function()
    -- naive errors of the train part: 1 2 3, mean 2; of season 2: 3 5, mean 4
    local train = { 1, 2, 4, 7 }
    assert.equal(0.75, metrics.mase({ 1, 2 }, { 2, 4 }, { train = train }))
    assert.equal(0.375, metrics.mase({ 1, 2 }, { 2, 4 },
      { train = neap.tensor(train), season = 2 }))
    raises("mase: train: expected the series that was learned from", function()
      metrics.mase({ 1 }, { 2 })
    end)
    raises("mase: train: expected more than season = 4 entries, came 4", function()
      metrics.mase({ 1 }, { 2 }, { train = train, season = 4 })
    end)
    raises("mase: train: its seasonal naive forecast makes no error", function()
      metrics.mase({ 1 }, { 2 }, { train = { 3, 3, 3 } })
    end)
    raises("mase: season: expected an integer from 1, came 0", function()
      metrics.mase({ 1 }, { 2 }, { train = train, season = 0 })
    end)
    raises("mase: expected series of single numbers, came rows of 2", function()
      metrics.mase({ { 1, 2 } }, { { 1, 2 } }, { train = train })
    end)
  end)

  it("perplexity", function()
    assert.is_true(math.abs(metrics.perplexity { math.log(2), math.log(8) } - 4) < 1e-12)
    assert.is_true(math.abs(metrics.perplexity({ 3 * math.log(5), 0 }, { 2, 1 }) - 5) < 1e-12)
    assert.equal(1, metrics.perplexity {})
    assert.equal(math.huge, metrics.perplexity({ 1 }, { 0 }))
    raises("perplexity: 1 entries of nats for 2 of symbols", function()
      metrics.perplexity({ 1 }, { 1, 2 })
    end)
    raises("perplexity: entry 1: expected one number and a count from 0, came a count of -1",
      function() metrics.perplexity({ 1 }, { -1 }) end)
    raises("perplexity: nats: entry 1: expected a finite number, came inf", function()
      metrics.perplexity { math.huge }
    end)
  end)

  describe("bleu", function()
    it("is that of sacrebleu", function()
      local file <close> = assert(io.open "spec/golden/data.json")
      local cases = cjson.decode(file:read "a").bleu
      assert.equal(4, #cases)
      for _, case in ipairs(cases) do
        for name, options in pairs { none = {}, add1 = { smoothing = "add-k" },
          add05 = { smoothing = "add-k", k = 0.5 } } do
          local got, wanted = metrics.bleu(case.hypotheses, case.references, options), case[name]
          assert.is_true(math.abs(got.bleu - wanted.bleu) < 1e-9, name)
          assert.is_true(math.abs(got.brevity_penalty - wanted.brevity_penalty) < 1e-12)
          assert.equal(wanted.reference_length, got.reference_length)
        end
      end
    end)

    it("names its method and clips", function()
      -- the example of the paper: "the" seven times; at most two in one reference
      local s = metrics.bleu({ "the the the the the the the" },
        { { "the cat is on the mat", "there is a cat on the mat" } }, { order = 1 })
      assert.equal(2 / 7, s.precisions[1])
      assert.equal("BLEU-1 of the corpus, symbols as given, smoothing none", s.method)
      assert.equal("BLEU-4 of the corpus, symbols as given, smoothing add-1",
        metrics.bleu({ "a" }, { "a" }, { smoothing = "add-k" }).method)
      assert.equal(0, metrics.bleu({ "a b" }, { "c d" }).bleu)
      assert.equal(0, metrics.bleu({ "" }, { "c d" }).bleu)
      assert.equal(0, metrics.bleu({}, {}).bleu)
      assert.equal(100, metrics.bleu({ letters "abcd" }, { { letters "abcd" } }).bleu)
    end)

    it("refuses what does not fit", function()
      raises("bleu: 1 hypotheses for 2 entries", function() metrics.bleu({ "a" }, { "a", "b" }) end)
      raises("bleu: references: entry 1 has no reference", function()
        metrics.bleu({ "a" }, { {} })
      end)
      raises("bleu: entry 1: symbol 2 of reference 1: expected a string or a number, came a table",
        function() metrics.bleu({ "a" }, { { { "a", {} } } }) end)
      raises("smoothing: expected \"none\" or \"add-k\", came \"add\"", function()
        metrics.bleu({ "a" }, { "a" }, { smoothing = "add" })
      end)
      raises("bleu: k: only smoothing = \"add-k\" has one", function()
        metrics.bleu({ "a" }, { "a" }, { k = 1 })
      end)
      raises("bleu: order: expected an integer from 1 to 9, came 0", function()
        metrics.bleu({ "a" }, { "a" }, { order = 0 })
      end)
      raises("bleu: unknown option \"ordr\"; did you mean \"order\"?", function()
        metrics.bleu({ "a" }, { "a" }, { ordr = 1 })
      end)
    end)
  end)

  describe("bootstrap", function()
    local predicted, wanted, rng = {}, {}, neap.rng(5)
    for i = 1, 400 do predicted[i], wanted[i] = rng:uniform() < 0.8 and 1 or 2, 1 end

    it("is about the normal interval of a share", function()
      local b = metrics.bootstrap(metrics.accuracy, { predicted, wanted }, { rng = neap.rng(1) })
      local p = metrics.accuracy(predicted, wanted)
      local half = 1.96 * (p * (1 - p) / 400) ^ 0.5
      assert.equal(p, b.value)
      assert.same({ 0.95, 1000 }, { b.level, b.samples })
      assert.is_true(math.abs(b.low - (p - half)) < 0.15 * half, b.low)
      assert.is_true(math.abs(b.high - (p + half)) < 0.15 * half, b.high)
      local narrow = metrics.bootstrap(metrics.accuracy, { predicted, wanted },
        { rng = neap.rng(1), level = 0.5 })
      assert.is_true(narrow.high - narrow.low < 0.45 * (b.high - b.low))
    end)

    it("covers as often as its level says", function()
      local draw, covered = neap.rng(9), 0
      for _ = 1, 120 do
        local a, b = {}, {}
        for i = 1, 80 do a[i], b[i] = draw:uniform() < 0.3 and 1 or 0, 1 end
        local s = metrics.bootstrap(metrics.accuracy, { a, b },
          { rng = draw, samples = 100, level = 0.9 })
        if s.low <= 0.3 and 0.3 <= s.high then covered = covered + 1 end
      end
      assert.is_true(covered >= 98 and covered <= 118, covered) -- 108 expected, deviation 3.3
    end)

    it("is the same by a seed, and by sums or by lists", function()
      local h, r = { "a b c", "a x", "d e f g", "h" }, { "a b d", "a", "d e f g", "i" }
      for name, arguments in pairs { wer = { h, r }, bleu = { h, r, { smoothing = "add-k" } },
        rmse = { { 1, 2, 3, 4 }, { 1, 3, 5, 7 } }, perplexity = { { 1, 2, 3 }, { 2, 3, 2 } },
        mase = { { 1, 2, 3, 4 }, { 1, 3, 5, 7 }, { train = { 1, 2, 4 } } } } do
        local options = { rng = neap.rng(3), samples = 50 }
        local sums = metrics.bootstrap(metrics[name], arguments, options)
        local lists = metrics.bootstrap(function(a, b)
          return metrics[name](a, b, arguments[3])
        end, { arguments[1], arguments[2] }, { rng = neap.rng(3), samples = 50 })
        for _, key in ipairs { "value", "low", "high" } do
          assert.is_true(math.abs(sums[key] - lists[key]) < 1e-9, name)
        end
        assert.is_true(sums.low <= sums.value and sums.value <= sums.high, name)
      end
    end)

    it("takes quantiles between two entries", function()
      -- two items, two samples: the generator decides; a counting one makes it plain
      local n, draws = 0, { 1, 1, 2, 2, 1, 2 }
      local chance = { shuffle = print, int = function()
        n = n + 1
        return draws[n]
      end }
      local s = metrics.bootstrap(function(a) return a[1] + a[2] end, { { 0, 10 } },
        { rng = chance, samples = 3, level = 0.5 })
      assert.same({ 10, 5, 15 }, { s.value, s.low, s.high }) -- of 0 10 20
    end)

    it("refuses wrong use", function()
      local options = { rng = neap.rng(1) }
      raises("bootstrap: expected a metric such as neap.metrics.accuracy, came nil", function()
        metrics.bootstrap()
      end)
      raises("bootstrap: rng: expected a source of chance", function()
        metrics.bootstrap(metrics.accuracy, { {}, {} })
      end)
      raises("bootstrap: expected at least one item, came none", function()
        metrics.bootstrap(metrics.accuracy, { {}, {} }, options)
      end)
      raises("bootstrap: argument 2: expected 1 items as in argument 1, came 2", function()
        metrics.bootstrap(print, { { 1 }, { 1, 2 } }, options)
      end)
      raises("bootstrap: the metric of all items: expected a number, came \"x\"", function()
        metrics.bootstrap(function() return "x" end, { { 1 } }, options)
      end)
      raises("bootstrap: arguments: expected lists of items, came none", function()
        metrics.bootstrap(print, {}, options)
      end)
      raises("bootstrap: level: expected a number from 0 to 1, came 95", function()
        metrics.bootstrap(metrics.accuracy, { { 1 }, { 1 } }, { rng = neap.rng(1), level = 95 })
      end)
      raises("2 hypotheses for 1 entries", function()
        metrics.bootstrap(metrics.accuracy, { { 1, 2 }, { 1 } }, options)
      end)
    end)
  end)

  it("name the file and the line of what came from one", function()
    local folder = help.folder()
    local path = folder.write("a.tsv", "a\tX Y\n\nb\t\n")
    local c = assert(neap.corpus.tsv(path, { columns = { "word", "sounds" },
      split = { sounds = "words" } }))
    folder.remove()
    local words, right = c:references("word", "sounds")
    assert.same({ { "a" }, { "b" } }, words)
    assert.same({ { "X", "Y" } }, right[1])
    local where = ("(%s, sequence 2 (line 3))"):format(path)
    raises(("wer: 1 hypotheses for 2 entries of references (%s)"):format(path), function()
      metrics.wer({ "X Y" }, right)
    end)
    right[2] = {}
    raises("symbol_error_rate: references: entry 2 " .. where .. " has no reference", function()
      metrics.symbol_error_rate({ {}, {} }, right)
    end)
    right[2] = { "X" }
    raises("entry 2 " .. where .. " is a list of references, each a list: number 1 is \"X\"",
      function() metrics.sequence_error_rate({ {}, {} }, right) end)
    local lists = c:lists "sounds"
    assert.same({ "X", "Y" }, lists[1])
    raises("rmse: wanted: entry 1 (" .. path .. ", sequence 1 (line 1)): expected a finite number",
      function() metrics.rmse({ 1, 2 }, lists) end)
    raises("predicted of entry 2 " .. where .. ": expected an integer from 1 to 2, came 3",
      function() metrics.confusion(2):add({ 1, 2, from = lists.from }, { 1, 3 }) end)
  end)

  it("print in a line", function()
    assert.equal("accuracy 0.9500  inner (x 1.000e-05)  key a  n 3  nan nan  sure true",
      tostring(metrics.scores { n = 3, accuracy = 0.95, key = "a", sure = true, nan = -(0 / 0),
        inner = { x = 1e-5 }, lists = { {} }, [1] = 2, confusion = metrics.confusion(2) }))
  end)

  it("refuse references that are not lists of lists", function()
    for _, name in ipairs { "sequence_error_rate", "symbol_error_rate" } do
      raises(name .. ": references: entry 1: expected a table, came \"a\"", function()
        metrics[name]({ { "a" } }, { "a" })
      end)
      raises(name .. ": references: entry 1 is a list of references, each a list: number 1 is "
        .. "\"a\"", function() metrics[name]({ { "a" } }, { { "a" } }) end)
      raises(name .. ": hypothesis 1: expected a table, came \"a\"", function()
        metrics[name]({ "a" }, { { { "a" } } })
      end)
    end
  end)
end)
