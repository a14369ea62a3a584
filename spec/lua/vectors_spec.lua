-- Pretrained vectors: files as GloVe and word2vec write them, good and bad.
local neap = require "neap"
local help = require "data_help"

local raises, fails = help.raises, help.fails
local words = neap.vocab.new { "the", "Tide", "comes", "in", unk = true }

describe("vectors", function()
  local folder = help.folder()
  teardown(folder.remove)
  local function read(text, options, vocab)
    return neap.vectors(folder.write("vectors.txt", text), vocab or words, options)
  end
  local glove = "the 1 2 -0.5\nsea 4 4 4\nin 3e0 0 0.5\n. . . 1 2 3\nTide\t5 -2 .25  \n"

  it("are read as GloVe writes them, and the missing ones are made", function()
    local v = assert(read(glove))
    assert.equal(3, v.size)
    assert.equal(3, v.found)
    assert.same({ "<unk>", "comes" }, v.missing)
    assert.equal("vectors of 3 numbers: 3 of 5 symbols found", tostring(v))
    assert.same({ 5, 3 }, v.weight:shape())
    local rows = v.weight:totable()
    assert.same({ 1, 2, -0.5 }, rows[words:id "the"])
    assert.same({ 5, -2, 0.25 }, rows[words:id "Tide"])
    assert.same({ 3, 0, 0.5 }, rows[words:id "in"])
    assert.not_same(rows[words:id "comes"], rows[words.unk])
    assert.equal(v.weight:tobytes(), read(glove).weight:tobytes())
    assert.not_equal(v.weight:tobytes(), read(glove, { rng = neap.rng(2) }).weight:tobytes())
    local mean = read(glove, { missing = "mean" }).weight:totable()[words.unk]
    for j, x in ipairs { 3, 0, 0.25 / 3 } do assert.near(x, mean[j], 1e-6) end
    assert.same({ 0, 0, 0 }, read(glove, { missing = "zeros" }).weight:totable()[words.unk])
  end)

  it("that are missing are drawn with the mean and the deviation of those found", function()
    local list, lines = { unk = true }, {}
    for i = 1, 2000 do list[i] = "w" .. i end
    for i = 1, 1000 do lines[i] = ("w%d %g %g"):format(i, 3 + (i % 2 * 2 - 1) * 0.5, -1) end
    local v = assert(read(table.concat(lines, "\n"), nil, neap.vocab.new(list)))
    assert.equal(1000, v.found)
    local sum, square = 0, 0
    for i = 1002, 2001 do
      local x = v.weight:get(i, 1)
      sum, square = sum + x, square + x * x
      assert.equal(-1, v.weight:get(i, 2))
    end
    assert.near(3, sum / 1000, 0.1)
    assert.near(0.5, (square / 1000 - (sum / 1000) ^ 2) ^ 0.5, 0.05)
  end)

  it("are read as word2vec writes them, with and without small letters", function()
    local text = "4 2\nthe 0.5 1 \nTHE 9 9 \ntide 2 2 \r\ncomes 7 8\n"
    local v = assert(read(text))
    assert.equal(2, v.found)
    v = assert(read("\xEF\xBB\xBF" .. text, { lower = true }))
    assert.equal(3, v.found)
    assert.same({ 2, 2 }, v.weight:totable()[words:id "Tide"])
    assert.same({ 0.5, 1 }, v.weight:totable()[words:id "the"])
    -- the word itself comes before its small letters, wherever it stands; of two lines the first
    v = assert(read("tide 2 2\nTide 4 4\nTide 5 5\ntide 3 3\n", { lower = true }))
    assert.same({ 4, 4 }, v.weight:totable()[words:id "Tide"])
  end)

  it("say the file, the line and what was expected", function()
    for text, message in pairs {
      [""] = "vectors.txt: expected words of the vocabulary, came none of its 5 symbols",
      ["sea 1 2\n"] = "vectors.txt: expected words of the vocabulary, came none of its 5 symbols",
      ["the 1 2\nin 1 2 3\n"] = "vectors.txt:2: expected 2 numbers, came 3",
      ["the 1 2\nin 1\n"] = "vectors.txt:2: expected 2 numbers, came 1",
      ["the 1 2\nnobody 1\n"] = "vectors.txt:2: expected 2 numbers, came 1",
      ["the 1 2\nin 1 two\n"] = 'vectors.txt:2: expected 2 numbers, came "two"',
      ["the 1 nan\n"] = 'vectors.txt:1: expected 2 numbers, came "nan"',
      ["the 1 1e999\n"] = 'vectors.txt:1: expected 2 numbers, came "1e999"',
      ["the 0x1 2\n"] = 'vectors.txt:1: expected 2 numbers, came "0x1"',
      ["the 1 2\nin\n"] = 'vectors.txt:2: expected a word and 2 numbers, came "in"',
      ["\n the\n"] = 'vectors.txt:2: expected a word and its numbers, came " the"',
      ["2 0\nthe\n"] = "vectors.txt:1: expected how many words there are and how many numbers each "
        .. 'has, came "2 0"',
      ["3 2\nthe 1 2\nin 1 2\n"] = "vectors.txt:3: line 1 says that there are 3 words, came 2",
      ["2 3\nthe 1 2\nin 1 2\n"] = "vectors.txt:2: expected 3 numbers, came 2",
    } do
      fails("EFORMAT", message, read(text))
    end
    fails("EIO", "cannot open", neap.vectors(folder.path .. "/none.txt", words))
    fails("EIO", "cannot read", neap.vectors(folder.path, words))
    raises("vectors: path: expected a string, came 5", function() neap.vectors(5, words) end)
    raises("vectors: vocab: expected a vocabulary, came nil", function() neap.vectors "x" end)
    raises('vectors: missing: expected "normal", "mean" or "zeros", came "none"', function()
      neap.vectors("x", words, { missing = "none" })
    end)
  end)

  it("are the start of an embedding, which learns on or is frozen", function()
    local v, tags = assert(read(glove)), neap.vocab.new { "x", "y" }
    for _, frozen in ipairs { false, true } do
      local embed = neap.embed { size = v.size, init = v.weight, frozen = frozen }
      local model = neap.synced_seq2seq { input = words, output = tags, rng = neap.rng(1),
        net = neap.chain { embed, neap.gru { size = 4 }, neap.linear {} } }
      local name = model.params:names()[1]
      assert.matches("embed", name)
      assert.equal(v.weight:tobytes(), model.params:get(name):tobytes())
      local corpus = neap.corpus.from { form = { { "the", "Tide", "x" } }, tag = { { "x", "y", "x" } } }
      local batch = neap.batches({ input = corpus:encode("form", words),
        output = corpus:encode("tag", tags) }, { size = 1 })()
      local optim = neap.sgd { rate = 0.1 }
      model:learn(batch, optim)
      assert.equal(frozen, v.weight:tobytes() == model.params:get(name):tobytes())
      if frozen then
        model:freeze({ name }, false)
        model:learn(batch, optim)
        assert.not_equal(v.weight:tobytes(), model.params:get(name):tobytes())
      end
      assert.matches("embed frozen=" .. tostring(frozen) .. " size=3", tostring(embed), 1, true)
    end
    raises("init: expected a tensor [5,3], came [2,2]", function()
      neap.program(function() return neap.param("w", { 5, 3 }, neap.zeros { 2, 2 }) end)
    end)
  end)
end)
