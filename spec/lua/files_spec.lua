-- What is saved from Lua and read back: states, programs, tensors, the tasks of model files.
local neap = require "neap"
local core = require "neap.core"
local op = neap.op
local help = require "data_help"
local fails = help.fails

describe("a state in a file", function()
  local path
  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  -- its first state is learned
  local program = neap.program(function(rec)
    local x = rec:input("x", { space = "T", dims = { 2 } })
    local first = rec:param("first", { 3 }, "ones")
    return { y = neap.gru { size = 3 } (x, { h = first }) }
  end)
  local function step(state, row)
    local run, x = program:run(), neap.tensor { row, row }
    run:state(state)
    run:feed { x = { data = x, lengths = neap.tensor({ 1, 1 }, "i32") } }:forward()
    return run:value("y", 1)
  end

  it("keeps which rows hold one: the others start from the learned first state", function()
    for _, rows in ipairs { {}, { 1 }, { 2 }, { 1, 2 } } do
      local state, twin = program:state(2), program:state(2)
      step(state, { 1, -1 })
      state:reset(rows)
      assert.is_true(state:save(path))
      step(twin, { 3, 4 })
      assert.is_true(twin:load(path))
      assert.same(state:held(), twin:held())
      assert.equal(step(state, { 2, 5 }):tobytes(), step(twin, { 2, 5 }):tobytes())
    end
    local fresh, twin = program:state(2), program:state(2)
    fresh:save(path)
    assert.is_true(twin:load(path))
    assert.equal(step(nil, { 2, 5 }):tobytes(), step(twin, { 2, 5 }):tobytes())
  end)

  it("is loaded as a whole or not at all", function()
    local state = program:state(2)
    step(state, { 1, -1 })
    local before = state:get(1):tobytes()
    local slot = state:slots()[1]
    local function refused(words, tensors, held)
      local a = core.archive()
      for name, t in pairs(tensors) do a:add(name, t) end
      if held then a:set_text("held", held) end
      a:save(path)
      fails("EFORMAT", words, state:load(path))
      assert.equal(before, state:get(1):tobytes())
      assert.same({ true, true }, state:held())
    end
    local good, other = neap.zeros { 2, 3 }, neap.zeros { 2, 4 }
    refused("it has no state " .. slot, { x = good })
    refused(slot .. " is f32 [2,4], expected f32 [2,3]", { [slot] = other })
    refused(slot .. " is f32 [3,3], expected f32 [2,3]", { [slot] = neap.zeros { 3, 3 } })
    refused(slot .. " is i32 [2,3], expected f32 [2,3]", { [slot] = neap.zeros({ 2, 3 }, "i32") })
    refused("came more too", { [slot] = good, more = good })
    refused("expected 0 or 1 for each of 2 rows, came \"1\"", { [slot] = good }, "1")
    refused("expected 0 or 1 for each of 2 rows, came \"12\"", { [slot] = good }, "12")
    local deep = neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 2 } })
      return { y = neap.gru { size = 4 } ((neap.gru { size = 3 } (x))) }
    end):state(2)
    local slots = deep:slots()
    deep:set(1, neap.zeros { 2, 3 }:fill(7))
    local a = core.archive()
    a:add(slots[1], good)
    a:add(slots[2], neap.zeros { 2, 5 })
    a:save(path)
    fails("EFORMAT", slots[2] .. " is f32 [2,5]", deep:load(path))
    assert.equal(7, deep:get(1):get(1, 1))
  end)

  it("may have a layer twice, and may come from elsewhere", function()
    local layer = neap.elman { size = 2 }
    local twice = neap.program(function(rec)
      return { y = layer(layer(rec:input("x", { space = "T", dims = { 2 } }))) }
    end)
    local state, twin = twice:state(1), twice:state(1)
    state:set(1, neap.tensor { { 1, 2 } })
    state:set(2, neap.tensor { { 3, 4 } })
    assert.is_true(state:save(path))
    assert.is_true(twin:load(path))
    assert.same({ { 1, 2 } }, twin:get(1):totable())
    assert.same({ { 3, 4 } }, twin:get(2):totable())
    local a = core.archive()
    local one = program:state(1)
    a:add(one:slots()[1], neap.tensor { { 7, 8, 9 } })
    a:save(path)
    assert.is_true(one:load(path))
    assert.same({ true }, one:held())
    assert.same({ { 7, 8, 9 } }, one:get(1):totable())
    fails("EIO", "/no/such", one:load "/no/such")
  end)
end)
