-- Tensors in Lua.
local core = require "neap.core"
local help = require "data_help"
local raises = help.raises

describe("a tensor", function()
  it("takes its shape from nested tables", function()
    local t = core.tensor{ { 1, 2, 3 }, { 4, 5, 6 } }
    assert.same({ 2, 3 }, t:shape())
    assert.equal(2, t:rank())
    assert.equal(6, t:size())
    assert.equal("f32", t:dtype())
    assert.equal("f32 [2,3]", tostring(t))
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, t:totable())
    assert.equal(2, #t)
    assert.same({ 2, 1, 1, 2 }, core.tensor{ { { { 1, 2 } } }, { { { 3, 4 } } } }:shape())
    assert.same({ 0 }, core.tensor({}):shape())
    assert.same({ 2, 0 }, core.tensor{ {}, {} }:shape())
  end)

  it("of rank 0 is a number", function()
    local t = core.tensor(2.5)
    assert.equal(2.5, t:item())
    assert.equal(2.5, t:totable())
    assert.equal(2.5, t:get())
    assert.equal("f32 []", tostring(t))
    raises("a tensor of rank 0 has no index", function() local _ = t[1] end)
    raises("a tensor of rank 0 has no length", function() local _ = #t end)
  end)

  it("of integers gives integers", function()
    local t = core.tensor({ 1, -2147483648, 2147483647, 4.0 }, "i32")
    assert.equal("i32 [4]", tostring(t))
    for i, n in ipairs{ 1, -2147483648, 2147483647, 4 } do
      assert.equal(n, t[i])
      assert.equal("integer", math.type(t[i]))
    end
    raises("expected an integer of 32 bits at [2], came 1.5", function()
      local _ = core.tensor({ 1, 1.5 }, "i32")
    end)
    raises("expected an integer of 32 bits, came 2147483648", function() t[1] = 2147483648 end)
    raises("expected an integer of 32 bits, came 0.5", function()
      local _ = core.tensor(0.5, "i32")
    end)
  end)

  it("refuses ragged tables and says where", function()
    raises("ragged table: expected 2 elements at [2], came 1", function()
      local _ = core.tensor{ { 1, 2 }, { 3 } }
    end)
    raises("ragged table: expected a table of 2 at [2], came a number", function()
      local _ = core.tensor{ { 1, 2 }, 3 }
    end)
    raises("expected a number at [2][1], came table", function()
      local _ = core.tensor{ { 1 }, { { 2 } } }
    end)
    raises("expected a number at [1][2], came \"x\"", function()
      local _ = core.tensor{ { 1, "x" } }
    end)
    raises("nested more than 4 deep", function() local _ = core.tensor{ { { { { 1 } } } } } end)
    raises("number or table expected, got string", function() local _ = core.tensor "1" end)
  end)

  it("is zero when made by shape", function()
    assert.same({ { 0, 0 } }, core.zeros{ 1, 2 }:totable())
    assert.equal(0, core.zeros({}):item())
    assert.same({ 3, 0, 2 }, core.zeros({ 3, 0, 2 }, "i32"):shape())
    raises("table of dimensions expected, got number", function() local _ = core.zeros(3) end)
    raises("dimension 2: expected 0 or more, got -1", function() local _ = core.zeros{ 1, -1 } end)
    raises("dimension 1: expected 0 or more, got 1.5", function() local _ = core.zeros{ 1.5 } end)
    raises("at most 4 dimensions expected, got 5", function()
      local _ = core.zeros{ 1, 1, 1, 1, 1 }
    end)
    raises("\"f32\" or \"i32\" expected, got \"f64\"", function()
      local _ = core.zeros({ 1 }, "f64")
    end)
    raises("dimension 1 is 1099511627776", function() local _ = core.zeros{ 1 << 40, 1 << 40 } end)
  end)

  it("reads and writes by positions from 1", function()
    local t = core.zeros{ 2, 3 }
    t:set(2, 3, 6)
    assert.equal(6, t:get(2, 3))
    assert.equal(6, t[2][3])
    local line = core.zeros{ 3 }
    line[1] = 0.5
    assert.same({ 0.5, 0, 0 }, line:totable())
    raises("index 1: 4 is out of 1..2 in f32 [2,3]", function() local _ = t[4] end)
    raises("index 1: 0 is out of 1..2 in f32 [2,3]", function() local _ = t[0] end)
    raises("index 2: 4 is out of 1..3 in f32 [2,3]", function() t:get(1, 4) end)
    raises("index 2: -1 is out of 1..3 in f32 [2,3]", function() t:set(1, -1, 0) end)
    raises("expected 2 indices for f32 [2,3], came 1", function() t:get(1) end)
    raises("expected 2 indices for f32 [2,3], came 1", function() t:set(1, 0) end)
    raises("bad argument #3 to 'set' (a number expected, got string)", function()
      t:set(1, 1, "a")
    end)
    raises("needs rank 1, came f32 [2,3]", function() t[1] = 1 end)
    raises("cannot set field name", function() t.name = 1 end)
    raises("expected a number, came true", function() line[1] = true end)
    raises("number has no integer representation", function() local _ = line[1.5] end)
    assert.is_nil(t.unknown)
  end)

  it("shares its memory with its parts, which may outlive it", function()
    local t = core.tensor{ { { 1, 2 }, { 3, 4 } }, { { 5, 6 }, { 7, 8 } } }
    t[2][1][2] = 60
    t[1]:fill(9)
    assert.same({ { { 9, 9 }, { 9, 9 } }, { { 5, 60 }, { 7, 8 } } }, t:totable())
    local row = t[2][2]
    assert.same({ 2 }, row:shape())
    t:set(2, 2, 1, 70)
    assert.same({ 70, 8 }, row:totable())
    local apart = t[1]:clone()
    apart:fill(0)
    assert.equal(9, t:get(1, 1, 1))
    t:close()
    collectgarbage()
    row[2] = 80
    assert.same({ 70, 80 }, row:totable())
    assert.same({ 0, 3 }, core.zeros{ 2, 0, 3 }[2]:shape())
    assert.equal("i32 [1]", tostring(core.zeros({ 2, 1 }, "i32")[1]))
  end)

  it("ends where ipairs ends", function()
    local t, seen = core.tensor{ { 1, 2 }, { 3, 4 } }, {}
    for i, row in ipairs(t) do
      for j, x in ipairs(row) do seen[#seen + 1] = { i, j, x } end
    end
    assert.same({ { 1, 1, 1 }, { 1, 2, 2 }, { 2, 1, 3 }, { 2, 2, 4 } }, seen)
    assert.is_nil(core.zeros{ 0 }[1])
    raises("index 1: 4 is out of 1..2 in f32 [2,2]", function() local _ = t[4] end)
    raises("index 1: 3 is out of 1..2 in f32 [2]", function() t[1][3] = 0 end)
  end)

  it("goes through bytes", function()
    local t = core.tensor_from_string(string.pack("<fff", 1, -2, 0.5), { 3 })
    assert.same({ 1, -2, 0.5 }, t:totable())
    assert.equal(string.pack("<fff", 1, -2, 0.5), t:tobytes())
    local i = core.tensor_from_string(string.pack("<i4i4", -1, 65536), { 2, 1 }, "i32")
    assert.same({ { -1 }, { 65536 } }, i:totable())
    assert.equal(string.pack("<i4i4", -1, 65536), i:tobytes())
    assert.equal("", core.zeros{ 0 }:tobytes())
    raises("5 bytes do not make f32 [1]", function()
      local _ = core.tensor_from_string("12345", { 1 })
    end)
    raises("do not make", function()
      local _ = core.tensor_from_string("1234", { 1 << 62, 1 << 62 })
    end)
  end)

  it("is cloned, filled and reshaped", function()
    local t = core.tensor{ 1, 2, 3, 4 }
    local c = t:clone()
    assert.equal(t, t:fill(9))
    assert.same({ 1, 2, 3, 4 }, c:totable())
    assert.same({ 9, 9, 9, 9 }, t:totable())
    local r = c:reshape{ 2, 2 }
    r:set(1, 1, 0)
    assert.same({ { 0, 2 }, { 3, 4 } }, r:totable())
    assert.equal(1, c[1], "a reshaped tensor is a copy")
    raises("reshape: f32 [4] does not fit f32 [3]", function() c:reshape{ 3 } end)
    raises("number expected, got no value", function() c:fill() end)
    raises("item: expected a tensor of one element, came f32 [4]", function() c:item() end)
    assert.equal(5, core.tensor{ { 5 } }:item())
  end)

  it("once closed says so", function()
    local closed = core.tensor{ 1 }
    closed:close()
    closed:close()
    assert.equal("tensor (closed)", tostring(closed))
    for _, name in ipairs{ "shape", "rank", "size", "dtype", "get", "set", "item", "totable",
      "tobytes", "clone", "reshape", "fill" } do
      raises("tensor is closed", function() closed[name](closed, 1) end)
    end
    raises("tensor is closed", function() local _ = closed[1] end)
    raises("tensor is closed", function() closed[1] = 2 end)
    raises("tensor is closed", function() local _ = #closed end)
    local escaped
    do
      local u <close> = core.tensor{ 2 }
      escaped = u
    end
    raises("tensor is closed", function() escaped:rank() end)
  end)

  it("is known from other types", function()
    local t = core.tensor{ 1 }
    for name, method in pairs(getmetatable(t).methods) do
      for _, wrong in ipairs{ 1, "a", io.stdout, {}, core.ints() } do
        raises("tensor expected, got ", function() method(wrong) end)
        assert.is_string(name)
      end
    end
    raises("tensor expected, got FILE*", function() getmetatable(t).__gc(io.stdout) end)
    raises("tensor expected, got FILE*", function() getmetatable(t).__tostring(io.stdout) end)
    raises("tensor expected, got no value", function() t.totable() end)
  end)

  it("gives its memory back", function()
    collectgarbage()
    local before = core.memory_live()
    do
      local t <close> = core.zeros{ 1000 }
      assert.is_true(core.memory_live() >= before + 4000)
      assert.equal(1000, #t)
    end
    for _ = 1, 1000 do core.zeros{ 10000 } end -- 40 MB in all
    assert.is_true(core.memory_live() < before + 20e6, "the collector does not know of tensors")
    collectgarbage()
    assert.is_true(core.memory_live() <= before + 1024)
  end)

  it("lives through collections at each line", function()
    help.collecting(function()
      local t = core.tensor{ { 1, 2 }, { 3, 4 } }
      local row = t[2]
      local c = t:clone():reshape{ 4 }
      t:close()
      assert(row[2] == 4 and c[4] == 4)
    end)
  end)
end)

describe("the core", function()
  it("finds the nearest name", function()
    assert.equal("size", core.nearest("sise", { "bucket", "size" }))
    assert.is_nil(core.nearest("colour", { "bucket", "size" }))
    assert.is_nil(core.nearest("x", {}))
    assert.is_nil(core.nearest(("x"):rep(100), { "size" }))
  end)

  it("knows the script's line", function()
    local where, line = core.where(), debug.getinfo(1, "l").currentline
    assert.equal(debug.getinfo(1, "S").short_src .. ":" .. line, where)
  end)

  it("says what it is and runs on", function()
    assert.truthy(core.version():find "^%d+%.%d+%.%d+$")
    local level = core.cpu_level()
    core.cpu_select "generic"
    assert.equal("generic", core.cpu_level())
    core.cpu_select(level)
    raises("no level \"fast\"", function() core.cpu_select "fast" end)
    assert.is_true(core.clock() <= core.clock())
  end)
end)
