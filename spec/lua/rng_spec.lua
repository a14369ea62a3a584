-- Chance: the same seed, the same numbers.
local rng = require "neap.rng"
local help = require "data_help"
local raises = help.raises

describe("a generator", function()
  it("is xoshiro256**", function()
    -- The state 1, 2, 3, 4 and its first outputs, as other implementations have them.
    local r = rng(0):restore(("%016x%016x%016x%016x"):format(1, 2, 3, 4))
    for _, wanted in ipairs{ 11520, 0, 1509978240, 1215971899390074240, 1216172134540287360 } do
      assert.equal(wanted, r:seed())
    end
  end)

  it("is seeded by SplitMix64", function()
    -- 1234567 -> 6457827717110365317, 3203168211198807973, ... (the usual test of SplitMix64)
    assert.equal(("%016x%016x"):format(6457827717110365317, 3203168211198807973),
      rng(1234567):state():sub(1, 32))
    local r = rng(17)
    for _, wanted in ipairs{ 0xa8722ce678e6e2ca, 0xb0c58defa535f501, 0xf057b25ffb0bf1b9 } do
      assert.equal(wanted, r:seed())
    end
  end)

  it("draws each number equally often", function()
    local r, counts = rng(1), { 0, 0, 0, 0, 0, 0 }
    for _ = 1, 6000 do
      local n = r:int(6)
      counts[n] = counts[n] + 1
    end
    for n = 1, 6 do assert.is_true(math.abs(counts[n] - 1000) < 150, n .. ": " .. counts[n]) end
    assert.equal(1, r:int(1))
    assert.is_true(r:int(math.maxinteger) > 0)
  end)

  it("draws between 0 and 1, and normally", function()
    local r, sum, square, lowest, highest = rng(2), 0, 0, 1, 0
    for _ = 1, 10000 do
      local u, z = r:uniform(), r:normal()
      lowest, highest = math.min(lowest, u), math.max(highest, u)
      sum, square = sum + z, square + z * z
    end
    assert.is_true(lowest >= 0 and lowest < 0.01 and highest < 1 and highest > 0.99)
    assert.is_true(math.abs(sum / 10000) < 0.03)
    assert.is_true(math.abs(square / 10000 - 1) < 0.05)
  end)

  it("shuffles all of a list", function()
    local list = {}
    for i = 1, 50 do list[i] = i end
    local r = rng(3)
    assert.equal(list, r:shuffle(list))
    local moved = 0
    for i = 1, 50 do moved = moved + (list[i] ~= i and 1 or 0) end
    assert.is_true(moved > 40)
    table.sort(list)
    for i = 1, 50 do assert.equal(i, list[i]) end
    assert.same({}, r:shuffle{})
  end)

  it("forks by name and stays as it was", function()
    local r = rng(4)
    local state = r:state()
    local a, b = r:fork "a", r:fork "b"
    assert.equal(state, r:state())
    assert.equal(a:state(), r:fork "a":state())
    assert.not_equal(a:state(), b:state())
    assert.not_equal(state, a:state())
    r:seed()
    assert.not_equal(a:state(), r:fork "a":state())
  end)

  it("goes back to a state", function()
    local r = rng(5)
    r:seed()
    local state = r:state()
    local x, y = r:uniform(), r:int(1000)
    r:restore(state)
    assert.equal(x, r:uniform())
    assert.equal(y, r:int(1000))
    assert.equal(x, rng(0):restore(state):uniform())
  end)

  it("refuses what is no seed or state", function()
    raises("rng: seed: expected an integer, came nil", function() rng() end)
    raises("rng: seed: expected an integer, came 1.5", function() rng(1.5) end)
    raises("rng: seed: expected an integer, came \"1\"", function() rng "1" end)
    raises("rng:int: n: expected an integer from 1, came 0", function() rng(1):int(0) end)
    raises("rng:restore: expected 64 hexadecimal digits", function() rng(1):restore "00" end)
    raises("rng:restore: expected 64", function() rng(1):restore(("0"):rep(64)) end)
    raises("rng:shuffle: list: expected a table, came nil", function() rng(1):shuffle() end)
  end)
end)
