-- How good predictions are.
local metrics = require "neap.metrics"
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
