-- Vocabularies.
local cjson = require "cjson"
local corpus = require "neap.corpus"
local vocab = require "neap.vocab"
local help = require "data_help"
local raises = help.raises

describe("a vocabulary", function()
  it("keeps given symbols in their order, ids from 1", function()
    local v = vocab.new{ "b", "a", "é" }
    assert.equal(3, #v)
    assert.equal(1, v:id "b")
    assert.equal("é", v:symbol(3))
    assert.is_nil(v:id "c")
    assert.is_true(v:has "a")
    assert.is_false(v:has "c")
    assert.equal("vocab of 3 symbols", tostring(v))
  end)

  it("puts special symbols first", function()
    local v = vocab.new{ "a", unk = true, start = true, stop = "<end>", specials = { "<mask>" } }
    assert.same({ "<unk>", "<s>", "<end>", "<mask>", "a" }, v.symbols)
    assert.same({ 1, 2, 3 }, { v.unk, v.start, v.stop })
    assert.equal(v.unk, v:id "never seen")
    assert.equal("vocab of 5 symbols: unk <unk>, start <s>, stop <end>", tostring(v))
  end)

  it("counts: most frequent first, equals by their bytes", function()
    local v = vocab.count{ "b", "a", "c", "a", "B", "é", "c" }
    assert.same({ "a", "c", "B", "b", "é" }, v.symbols)
    assert.is_nil(v.unk)
    local n = 0
    v = vocab.count(function()
      n = n + 1
      return ({ "x", "y", "x" })[n]
    end)
    assert.same({ "x", "y" }, v.symbols)
  end)

  it("leaves out rare symbols and then knows unk", function()
    local words = { "a", "a", "a", "b", "b", "c" }
    assert.same({ "<unk>", "a", "b" }, vocab.count(words, { min = 2 }).symbols)
    assert.same({ "<unk>", "a" }, vocab.count(words, { max_size = 2 }).symbols)
    assert.same({ "a", "b" }, vocab.count(words, { min = 2, unk = false }).symbols)
    assert.same({ "<unk>" }, vocab.count(words, { max_size = 1 }).symbols)
  end)

  it("folds capitals, counts characters, takes a corpus", function()
    assert.same({ "a", "b" }, vocab.count({ "A", "a", "b" }, { lower = true }).symbols)
    local v = vocab.count({ "A", "b" }, { lower = true })
    assert.equal(v:id "a", v:id "A")
    assert.is_true(v:has "A")
    assert.equal(1, vocab.new{ "X", lower = true }:id "x")
    assert.same({ "é", "a" }, vocab.count({ "éa", "é" }, { characters = true }).symbols)
    local c = corpus.from({ form = { "to be or", "to" } }, { split = { form = "words" } })
    assert.same({ "to", "be", "or" }, vocab(c, "form").symbols)
    raises("no field \"from\"; did you mean \"form\"?", function() vocab(c, "from") end)
  end)

  it("encodes and decodes", function()
    local v = vocab.new{ "a", "b", "é", unk = true }
    assert.same({ 2, 4, 1 }, v:encode{ "a", "é", "x" })
    assert.same({ 4, 2 }, v:encode "éa")
    assert.same({ "a", "é", "<unk>" }, v:decode{ 2, 4, 1 })
    local t = v:tensor "ab"
    assert.equal("i32 [2]", tostring(t))
    assert.same({ 1, 2 }, t:totable())
    assert.same({ "a", "b" }, v:decode(t))
    local bare = vocab.new{ "a" }
    raises("vocab:encode: unknown symbol \"z\", and no unk", function() bare:encode{ "z" } end)
    raises("vocab:symbol: id: expected an integer from 1 to 1, came 2", function()
      bare:symbol(2)
    end)
    raises("expected an integer from 1 to 1, came 0", function() bare:decode{ 0 } end)
    raises("the string is not UTF-8", function() bare:encode "\xFF" end)
  end)

  it("cuts strings as the field that it was counted from", function()
    local c = corpus.from({ words = { "to be" }, letters = { "ab" }, whole = { "New York" },
      lists = { { "x1", "x2" } }, single = { { "x", "y" } } },
      { split = { words = "words", letters = "characters" } })
    local function ids(field, text, options) return vocab(c, field, options):encode(text) end
    assert.same({ 1, 2 }, ids("words", "be  to")) -- equals in the order of their bytes
    assert.same({ 1, 2 }, ids("words", { "be", "to" }))
    assert.same({ 2, 1 }, ids("letters", "ba"))
    assert.same({ 1 }, ids("whole", "New York"))
    assert.same({ 2, 1 }, ids("lists", "x2 x1"))
    assert.same({ 2, 1 }, ids("single", "yx"))
    assert.same({ 1 }, ids("words", "b", { characters = true }))
    assert.same({ 1 }, ids("words", "be", { split = "symbol" }))
    -- the corpus knows better than the look of the symbols
    local short = corpus.from({ text = { "I O U" } }, { split = { text = "words" } })
    assert.same({ 3, 1 }, vocab(short, "text"):encode "U I")
    -- where nothing says it; special symbols stand in no text
    assert.equal("characters", vocab.new{ "a", unk = true, specials = { "<mask>" } }.split)
    assert.equal("words", vocab.new{ "a", "bc" }.split)
    assert.equal("symbol", vocab.new{ "a", split = "symbol" }.split)
    assert.equal("words", vocab.count{ "ab" }.split)
  end)

  it("writes symbols as a text", function()
    assert.equal("ab", vocab.new{ "a", "b" }:text{ "a", "b" })
    assert.equal("to be", vocab.new{ "to", "be" }:text{ "to", "be" })
  end)

  it("goes through JSON", function()
    local v = vocab.count({ "A", "é", "é", "\"", "\\" }, { min = 1, unk = true, stop = true,
      lower = true })
    local w = assert(vocab.from(cjson.decode(cjson.encode(v:plain()))))
    assert.same(v.symbols, w.symbols)
    assert.same({ v.unk, v.start, v.stop, v.lower }, { w.unk, w.start, w.stop, w.lower })
    assert.equal("integer", math.type(w.unk))
    assert.equal(v:id "É", w:id "É")
    assert.equal(v:id "a", w:id "A")
    w = assert(vocab.from(cjson.decode(cjson.encode(vocab.new{ "a", split = "words" }:plain()))))
    assert.equal("words", w.split)
  end)

  it("is read from earlier files, which do not say how strings are cut", function()
    assert.equal("characters", vocab.from{ symbols = { "<unk>", "a", "é" }, unk = 1 }.split)
    assert.equal("words", vocab.from{ symbols = { "<unk>", "the", "a" }, unk = 1 }.split)
  end)

  it("refuses a damaged table as the world's failure", function()
    help.fails("EFORMAT", "expected a list of symbols", vocab.from(nil))
    help.fails("EFORMAT", "came twice", vocab.from{ symbols = { "a", "a" } })
    help.fails("EFORMAT", "expected strings", vocab.from{ symbols = { 1 } })
    help.fails("EFORMAT", "unk: expected an id in 1..1, came 2",
      vocab.from{ symbols = { "a" }, unk = 2 })
    help.fails("EFORMAT", "split: expected symbol, characters or words, came 3",
      vocab.from{ symbols = { "a" }, split = 3 })
    help.fails("EFORMAT", "stop: expected an id", vocab.from{ symbols = { "a" }, stop = "a" })
  end)

  it("refuses wrong use", function()
    raises("symbol \"a\" came twice", function() vocab.new{ "a", "a" } end)
    raises("expected strings as symbols, came number", function() vocab.new{ 1 } end)
    raises("is not UTF-8", function() vocab.new{ "\xFF" } end)
    raises("unknown option \"unkn\"; did you mean \"unk\"?", function()
      vocab.new{ "a", unkn = true }
    end)
    raises("the special symbol \"<unk>\" comes in the data", function()
      vocab.count({ "<unk>" }, { unk = true })
    end)
    raises("vocab.new: specials: expected a table, came \"<mask>\"", function()
      vocab.new{ "a", specials = "<mask>" }
    end)
    raises("vocab.count: specials: expected a table, came 1", function()
      vocab.count({ "a" }, { specials = 1 })
    end)
    raises("vocab.new: split: expected \"symbol\", \"characters\" or \"words\", came \"word\"; "
      .. "did you mean \"words\"?", function() vocab.new{ "a", split = "word" } end)
    raises("vocab:encode: sequence: expected a string or a list of symbols, came nil", function()
      vocab.new{ "a" }:encode()
    end)
    raises("unknown option \"mim\"; did you mean \"min\"?", function()
      vocab.count({ "a" }, { mim = 2 })
    end)
    raises("min: expected an integer from 1, came 0", function() vocab.count({}, { min = 0 }) end)
    raises("expected a corpus, a list or an iterator, came 1", function() vocab.count(1) end)
    raises("expected a field of the corpus, came nil", function()
      vocab.count(corpus.from{ a = { "x" } })
    end)
    raises("expected symbols in UTF-8", function() vocab.count{ "\xFF" } end)
  end)
end)
