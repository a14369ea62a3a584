-- neap.show: values as text for people.
local neap = require "neap"
local core = require "neap.core"
local op = neap.op
local show = neap.show

--- Numbers 1, 2, .. as a tensor.
local function counted(dims, factor)
  local n, list = 1, {}
  for _, d in ipairs(dims) do n = n * d end
  for i = 1, n do list[i] = i * (factor or 1) end
  return neap.tensor(list):reshape(dims)
end

describe("show", function()
  it("puts a tensor's numbers below each other", function()
    assert.equal("f32 [2,3]\n  1  2  3\n  4  5  6", show(counted { 2, 3 }))
    assert.equal("f32 [2,2]\n   -0.5000   10.0000\n    0.3333  100.0000",
      show(neap.tensor { { -0.5, 10 }, { 1 / 3, 100 } }))
    assert.equal("i32 [3]\n   1  -2  30", show(neap.tensor({ 1, -2, 30 }, "i32")))
    assert.equal("f32 []  2.5000", show(neap.tensor(2.5)))
    assert.equal("f32 [2,0]", show(neap.zeros { 2, 0 }))
    assert.equal("f32 [2]\n  1.0000e-09  1.0000e+06", show(neap.tensor { 1e-9, 1e6 }))
    assert.equal("f32 [2]\n  1.0000e-03  2.0000e-03", show(neap.tensor { 1e-3, 2e-3 }))
    assert.equal("f32 [4]\n   nan   inf  -inf     0",
      show(neap.tensor { 0 / 0, 1 / 0, -1 / 0, -0.0 }))
  end)

  it("shows more dimensions one matrix after the other, all numbers alike", function()
    assert.equal("f32 [2,1,2]\n[1]\n  0.5000  1.0000\n[2]\n  1.5000  2.0000",
      show(counted({ 2, 1, 2 }, 0.5)))
    assert.equal("f32 [1,2,1,1]\n[1][1]\n  1\n[1][2]\n  2", show(counted { 1, 2, 1, 1 }))
  end)

  it("leaves the middle of a large tensor out", function()
    local text = show(counted { 100, 200 })
    local lines = {}
    for line in text:gmatch "[^\n]+" do
      lines[#lines + 1] = line
      assert.is_true(#line <= 78)
    end
    assert.equal(16, #lines)
    assert.equal("f32 [100,200]", lines[1])
    assert.matches("^      1      2 .* %.%.    19%d .*    200$", lines[2])
    assert.equal("     ..", lines[9])
    assert.matches(" 20000$", lines[16])
    assert.equal("f32 [9,1,1]\n[1]\n  1\n[2]\n  2\n[3]\n  3\n..\n[7]\n  7\n[8]\n  8\n[9]\n  9",
      show(counted { 9, 1, 1 }))
    local _, line_count = show(neap.zeros { 50, 50, 50, 50 }):gsub("\n", "")
    assert.is_true(line_count < 400)
  end)

  it("is what print shows of tensors, parameters and states", function()
    local pr = neap.program(function(rec)
      return { y = neap.gru { size = 2 }(rec:input("x", { space = "T", dims = { 1 } })) }
    end)
    pr.params:freeze "gru.bias_hh"
    assert.equal([[
30 parameters in 4 tensors
  gru.weight_ih                            [6,1]
  gru.weight_hh                            [6,2]
  gru.bias_ih                              [6]
  gru.bias_hh                              [6]  frozen]], tostring(pr.params))
    assert.equal("state of 3 rows\n  gru.h                                    f32 [3,2]",
      tostring(pr:state(3)))
    assert.equal("f32 [1]\n  1", tostring(neap.tensor { 1 }))
    assert.equal(tostring(pr), show(pr))
    assert.equal("gru size=2 (fused)", show(neap.gru { size = 2 }))
    assert.equal("adam clip=5 rate=0.01", show(neap.adam { rate = 0.01, clip = 5 }))
    assert.matches("^run: inputs x; outputs y; %d", show(pr:run()))
  end)

  it("quotes strings, whatever is in them", function()
    assert.equal([["a\"b\\\n\t\r\000\027é"]], show "a\"b\\\n\t\r\0\27é")
    assert.equal([["é\xFF\xFE!"]], show "é\xFF\xFE!")
    assert.equal('""', show "")
    assert.equal("nil", show(nil))
    assert.equal("0.1", show(0.1))
    assert.equal("true", show(true))
  end)

  it("shows tables: lists first, then names in their order", function()
    assert.equal("{}", show {})
    assert.equal("{ 1, \"b\", { 2 } }", show { 1, "b", { 2 } })
    assert.equal("{ 1, [4] = 4, a = true, b = nan, [\"no name\"] = 1, [false] = 0 }",
      show({ 1, [4] = 4, b = neap.tensor(0 / 0) and 0 / 0, a = true, ["no name"] = 1, [false] = 0 })
        :gsub("%-nan", "nan"))
    assert.equal("{ data = f32 [2,2], f = function, layer = elman size=3 (fused) }",
      show { data = neap.zeros { 2, 2 }, layer = neap.elman { size = 3 }, f = print })
    assert.equal("{ { { { { .. } } } } }", show { { { { { 1 } } } } })
    local long = {}
    for i = 1, 40 do long[i] = ("%03d"):format(i) end
    assert.equal([[
{
  "001", "002", "003", "004", "005", "006", "007", "008", "009", "010", "011",
  "012", "013", "014", "015", "016", "017", "018", "019", "020", "021", "022",
  "023", "024", .. 16 more
}]], show(long))
    assert.equal("{\n  name = \"" .. ("x"):rep(56) .. "..\",\n  rest = { 1, 2, 3 }\n}",
      show { name = ("x"):rep(90), rest = { 1, 2, 3 } })
    local names = {}
    for i = 1, 30 do names["k" .. i] = i end
    assert.matches("\n  .. 6 more\n}$", show(names))
  end)

  it("shows tables of functions by all their names, in columns by kind", function()
    local t = { version = "1", size = 2, part = {} }
    for i = 1, 40 do t[("name_%d"):format(i)] = print end
    setmetatable(t, { names = { { later = "some.module" } } })
    local text = show(t)
    assert.matches("^functions\n  name_1   name_14  name_19  name_23  name_28  name_32  name_37  "
      .. "name_5\n  name_10 ", text)
    assert.matches("name_9\nmodules\n  later  part\nvalues\n  size = 2       version = \"1\"$", text)
    for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 78) end
    assert.is_nil(rawget(t, "later"))
    for name, module in pairs { neap = neap, op = op } do
      local all = show(module)
      for key in pairs(module) do
        assert.matches("%f[%w_]" .. key .. "%f[^%w_]", all, nil, name)
      end
    end
    for _, lazy in ipairs { "vocab", "corpus", "seq2class", "fit", "load" } do
      assert.matches("%f[%w_]" .. lazy .. "%f[^%w_]", show(neap))
    end
  end)

  it("ends on rings, closed objects and errors of __tostring", function()
    local ring = { 1 }
    ring.self, ring.list = ring, { ring }
    assert.equal("{\n  1,\n  list = { (a table that holds this one) },\n"
      .. "  self = (a table that holds this one)\n}", show(ring))
    local shared = { 1 }
    assert.equal("{ { 1 }, { 1 } }", show { shared, shared })
    local t = neap.zeros { 2 }
    t:close()
    assert.equal("a closed tensor", show(t))
    local params = core.params()
    params:close()
    assert.equal("string", type(show(params)))
    local bad = setmetatable({}, { __tostring = function() error "no" end, __name = "bad" })
    assert.equal("{ bad }", show { bad })
    assert.equal("{ 1 }", show(setmetatable({ 1 }, { __index = function() error "no" end,
      __pairs = error, __len = error })))
  end)

  it("shows recorded values by their shape", function()
    neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 3 } })
      assert.equal("value [T,B,3]", show(x))
      return x
    end)
  end)

  it("serves the calculator", function()
    assert.equal("f32 [1,2]\n  0.7616  0.9640", show(op.tanh(neap.tensor { { 1, 2 } })))
    assert.equal("f32 [3]\n  -inf   nan     0", show(op.log(neap.tensor { 0, -1, 1 })))
    assert.equal("f32 [2]\n  3  5", show(neap.tensor { 1, 2 } * 2 + 1))
  end)
end)
