-- Vocabularies.
local cjson = require "cjson"
local corpus = require "neap.corpus"
local rng = require "neap.rng"
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
    help.fails("EFORMAT", "split: expected symbol, characters, words, pieces or bpe, came 3",
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
    raises("vocab.new: split: expected \"symbol\", \"characters\", \"words\" or \"pieces\", came \"word\"; "
      .. "did you mean \"words\"?", function() vocab.new{ "a", split = "word" } end)
    raises("vocab:encode: sequence: expected a string or a list of symbols, came nil", function()
      vocab.new{ "a" }:encode()
    end)
    local v = vocab.new{ "a" }
    for _, method in ipairs { "id", "has", "tensor", "encode", "symbol" } do
      raises(("vocab.%s: expected a vocab first, came \"a\": call it with a colon, vocab:%s(..)")
        :format(method, method), function() local _ = v[method]("a") end)
    end
    raises("vocab.words: expected a vocab first, came a table", function() v.words { "a" } end)
    raises("vocab:encode: sequence: [1] is nil, but there is a [2]", function()
      v:encode { nil, "a" }
    end)
    raises("vocab.new: [2] is nil, but there is a [3]", function()
      vocab.new { "a", nil, "b" }
    end)
    local c = corpus.from { a = { "x" } }
    raises("vocab.count: expected a corpus, then its field, came \"a\", then corpus a script",
      function() vocab("a", c) end)
    raises("vocab.bpe: expected a corpus, then its field, came \"a\"", function()
      vocab.bpe("a", c)
    end)
    raises("vocab:id: symbol: expected a string, came nil", function() v:id() end)
    raises("vocab:has: symbol: expected a string, came 1", function() v:has(1) end)
    raises("vocab:text: symbols: expected a table, came \"abc\"", function() v:text "abc" end)
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
describe("subwords", function()
  local function golden()
    local file <close> = assert(io.open "spec/golden/data.json")
    return cjson.decode(file:read "a").bpe
  end
  local function list_of(counts)
    local list = {}
    for word, n in pairs(counts) do
      for _ = 1, n do list[#list + 1] = word end
    end
    return list
  end
  -- The words of Sennrich et al. 2016, figure 1.
  local function paper()
    return list_of { low = 5, lower = 2, newest = 6, widest = 3 }
  end
  local function pieces(v, text) return table.concat(v:decode(v:encode(text)), "|") end

  it("merge the most frequent pair, equals by their bytes", function()
    local v = vocab.bpe(paper(), { merges = 4 })
    assert.same({ "<unk>", " ", "e", "w", "s", "t", "l", "o", "n", "d", "i", "r" },
      table.move(v.symbols, 1, 12, 1, {}))
    assert.same({ "es", "est", "est ", "lo" }, table.move(v.symbols, 13, 16, 1, {}))
    assert.equal("lo|w|est ", pieces(v, "lowest"))
    assert.equal("vocab of 16 symbols: unk <unk>", tostring(v))
  end)

  it("are those of the definition, counted anew each time", function()
    local g = golden()
    local v = vocab.bpe(list_of(g.counts), { merges = #g.merges // 2 })
    local merges = {}
    for i, id in ipairs(v.merges) do merges[i] = v.symbols[id] end
    assert.same(g.merges, merges)
    assert.is_true(#merges > 100)
  end)

  it("cut as subword-nmt does", function()
    local g = golden()
    local v = vocab.bpe(list_of(g.counts), { merges = #g.merges // 2, bytes = true })
    for i, text in ipairs(g.texts) do
      local cut = {}
      for _, piece in ipairs(v:decode(v:encode(text))) do
        piece = piece:gsub(" $", "")
        if piece ~= "" then cut[#cut + 1] = piece end
      end
      assert.same(g.cut[i], cut)
      assert.equal(text, v:text(v:decode(v:encode(text))))
    end
  end)

  it("are the same in any order of the data", function()
    local list, again = paper(), paper()
    rng.new(4):shuffle(again)
    assert.same(vocab.bpe(list).symbols, vocab.bpe(again).symbols)
    local n = 0
    assert.same(vocab.bpe(list).symbols, vocab.bpe(function()
      n = n + 1
      return list[n]
    end).symbols)
  end)

  it("end where no pair comes often enough, or there are symbols enough", function()
    local all = vocab.bpe(paper())
    for i = 1, #all.merges, 2 do
      assert.is_true(all:has(all.symbols[all.merges[i]] .. all.symbols[all.merges[i + 1]]))
    end
    assert.equal("newest |widest |low |lower ", pieces(all, "newest widest low lower"))
    assert.equal(15, #vocab.bpe(paper(), { size = 15 }))
    assert.equal("es", vocab.bpe(paper(), { min = 9 }).symbols[13])
    assert.equal("est ", vocab.bpe(paper(), { min = 9 }).symbols[15])
    assert.equal(15, #vocab.bpe(paper(), { min = 9 }))
    assert.equal(0, #vocab.bpe(paper(), { merges = 0 }).merges)
  end)

  it("know any text", function()
    local v = vocab.bpe(paper(), { merges = 4 })
    assert.equal("lo|<unk>| |<unk>|w| ", pieces(v, "lo日 éw"))
    assert.equal("lo<unk> <unk>w", v:text(v:decode(v:encode "lo日 éw")))
    v = vocab.bpe(paper(), { merges = 4, bytes = true })
    assert.equal("<0xE6>|<0x97>|<0xA5>|lo| ", pieces(v, "日lo"))
    for _, text in ipairs { "日lo lo日", "new\xFFest \xE6\x97", "<0xE6> <unk> w", "" } do
      assert.equal(text, v:text(v:decode(v:encode(text))))
    end
    assert.equal(256 + 11 + 4, #v)
    assert.is_nil(v.unk)
    local rare = vocab.bpe({ "ab", "ab", "ac" }, { min_character = 2 })
    assert.equal("<unk>", rare:symbol(rare:encode("c")[1]))
    assert.equal("a|<unk>| ", pieces(rare, "ac"))
    raises("vocab:encode: the string is not UTF-8", function() rare:encode "\xFF" end)
  end)

  it("fold capitals, take special symbols, lists of words", function()
    local v = vocab.bpe({ "LOW", "low" }, { lower = true, start = true, stop = true })
    assert.equal("low ", pieces(v, "Low"))
    assert.same({ 2, 3 }, { v.start, v.stop })
    assert.same(v:encode "low low", v:encode { "low", "LOW" })
    assert.equal("i32 [2]", tostring(v:tensor "low low"))
    assert.equal("low low", v:join("low", "low"))
    assert.same({ "low", "low" }, v:words(v:decode(v:encode "low  low")))
    assert.same({ "a", "b" }, vocab.new { "a", "b" }:words { "a", "b" })
    raises("the special symbol \"l\" comes in the data", function()
      vocab.bpe({ "low" }, { start = "l" })
    end)
  end)

  it("encode a corpus", function()
    local c = corpus.from({ en = { "low lower", "newest low" }, de = { "wider", "newer low" },
      letters = { "ab", "c" } }, { split = { en = "words", letters = "characters" } })
    local v = vocab.bpe(c, { "en", "de" }, { merges = 5, start = true, stop = true })
    for _, name in ipairs { "en", "de" } do
      local e, at = c:encode(name, v), 0
      for i = 1, #c do
        local wanted = v:encode(c:string(name, i))
        assert.equal(at, e.offsets[i])
        for _, id in ipairs(wanted) do
          at = at + 1
          assert.equal(id - 1, e.data[at])
        end
      end
      assert.equal(at, #e.data)
      assert.equal(at, e.offsets[3])
    end
    local e = c:encode("en", v, { start = true, stop = true })
    local first = v:encode "low lower"
    assert.same({ v.start, first[1] }, { e.data[1] + 1, e.data[2] + 1 })
    assert.same({ first[#first], v.stop }, { e.data[#first + 1] + 1, e.data[#first + 2] + 1 })
    raises("corpus:label: field en: expected a vocabulary of classes, came one of subwords",
      function() c:label("en", v) end)
    raises("vocab.bpe: field letters: expected one that is cut into words, came one of characters",
      function() vocab.bpe(c, "letters") end)
  end)

  it("go through JSON", function()
    for _, options in ipairs { { bytes = true, stop = true }, { lower = true } } do
      local v = vocab.bpe(paper(), options)
      local w = assert(vocab.from(cjson.decode(cjson.encode(v:plain()))))
      assert.same(v:encode "newest lowest xé", w:encode "newest lowest xé")
      assert.same(v.symbols, w.symbols)
      assert.same({ "bpe", v.bytes }, { w.split, w.bytes })
    end
  end)

  it("are refused where a file has damaged them", function()
    local function try(text, change)
      local plain = vocab.bpe(paper(), { merges = 4 }):plain()
      change(plain)
      help.fails("EFORMAT", text, vocab.from(plain))
    end
    try("merges: expected a list of pairs of ids, came nil", function(p) p.merges = nil end)
    try("merges: expected a list of pairs of ids, came a table", function(p) p.merges[8] = nil end)
    try("merges: number 8: expected an id in 1..16, came 17", function(p) p.merges[8] = 17 end)
    try("merges: number 1: expected an id in 1..16, came \"x\"", function(p) p.merges[1] = "x" end)
    try("merges: pair 1 makes \"ww\", which is no symbol", function(p)
      p.merges[1], p.merges[2] = 4, 4
    end)
    try("bytes: expected the id of the first of 256 symbols of bytes, came 3", function(p)
      p.bytes = 3
    end)
    try("unk: subwords need it where there are no bytes", function(p) p.unk = nil end)
    try("symbols: the blank that ends a word is not among them", function(p)
      p.symbols[2], p.merges = "x", {}
    end)
  end)

  it("refuse wrong use", function()
    raises("vocab.bpe: unknown option \"merge\"; did you mean \"merges\"?", function()
      vocab.bpe(paper(), { merge = 3 })
    end)
    raises("size: expected at least the 12 special symbols and characters, came 5", function()
      vocab.bpe(paper(), { size = 5 })
    end)
    raises("unk: without it characters that are no symbols need bytes = true", function()
      vocab.bpe(paper(), { unk = false })
    end)
    raises("vocab.bpe: expected a corpus, a list or an iterator, came 1", function()
      vocab.bpe(1)
    end)
    raises("vocab.bpe: expected words in UTF-8", function() vocab.bpe { "\xFF" } end)
    raises("vocab.bpe: expected a field of the corpus, came nil", function()
      vocab.bpe(corpus.from { a = { "x" } })
    end)
  end)
end)
