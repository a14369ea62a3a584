-- A stream's step in its short form (a list of calls, from the second step on) beside what the
-- whole-sequence run gives, where something changes in between.
local neap = require "neap"
local run_help = require "run_help"
local op = neap.op

local function language(size)
  return neap.program(function(rec)
    local x = op.embedding(rec:input("id", { space = "T", dtype = "i32" }),
      rec:param("table", { 5, 4 }, { "normal", 0, 1 }))
    local h, last = neap.lstm { size = size } (x)
    return { y = h, last = last.c }
  end)
end

local function values(stream, k) return stream:output(k or 1):totable() end

describe("a stream's later steps", function()
  it("report an id out of range, and go on as if that step had never been asked for", function()
    local pr = language(6)
    local stream, twin = pr:stream(), pr:stream()
    for _, id in ipairs { 1, 3, 2 } do
      for _, s in ipairs { stream, twin } do
        s:input(1, { id })
        s:step()
      end
    end
    stream:input(1, { 5 })
    local before = stream:state():get(1):totable()
    for _ = 1, 2 do
      local ok, message = pcall(stream.step, stream)
      assert.is_false(ok)
      assert.matches("id 5 is not in 0..4", message, 1, true)
      assert.same(before, stream:state():get(1):totable())
    end
    for _, s in ipairs { stream, twin } do
      s:input(1, { 4 })
      s:step()
    end
    assert.same(values(twin), values(stream))
  end)

  it("refuse NaN and infinity, and go on as if that step had never been asked for", function()
    local pr = neap.program(function(rec)
      return { y = (neap.lstm { size = 3 } (rec:input("x", { space = "T", dims = { 2 } }))) }
    end)
    for _, bad in ipairs { 0 / 0, math.huge, -math.huge } do
      local stream, twin = pr:stream { rows = 2 }, pr:stream { rows = 2 }
      local block = pr:stream { rows = 2, block = 3 }
      for step = 1, 4 do -- the first step takes a way of its own
        stream:input(1, { step, 1, 2, bad })
        local ok, message = pcall(stream.step, stream)
        assert.is_false(ok)
        assert.matches("NaN or infinity in input 'x', row 2", message, 1, true)
        for _, s in ipairs { stream, twin } do
          s:input(1, { step, 1, 2, 3 })
          s:step()
        end
        assert.same(values(twin), values(stream))
        local x = neap.tensor { { { step, 1 }, { 2, 3 } }, { { 1, 1 }, { bad, 1 } } }
        ok, message = pcall(block.steps, block, x)
        assert.is_false(ok)
        assert.matches("NaN or infinity in input 'x', step 2, row 2", message, 1, true)
        assert.same(values(twin), block:steps(x[1]:reshape { 1, 2, 2 }):totable()[1])
      end
    end
  end)

  it("come after outputs of zeros", function()
    local pr = language(6)
    for _, options in ipairs { {}, { rows = 3 }, { block = 2 } } do
      local stream = pr:stream(options)
      for k = 1, 2 do
        for _, v in ipairs(run_help.flat(stream:output(k))) do assert.equal(0, v) end
      end
    end
  end)

  it("give the last states as outputs too", function()
    for _, cell in ipairs { "elman", "gru", "lstm" } do
      local pr = neap.program(function(rec)
        local y, last = neap[cell] { size = 3 } (rec:input("x", { space = "T", dims = { 2 } }))
        return { y = y, h = last.h, c = last.c }
      end)
      local stream = pr:stream()
      for t = 1, 3 do
        stream:input(1, { t, -t / 2 })
        stream:step()
        local state = stream:state()
        local by_value = {}
        for k = 1, cell == "lstm" and 3 or 2 do by_value[k] = values(stream, k)[1] end
        local h = state:get(1):totable()[1]
        local found = 0
        for _, v in ipairs(by_value) do
          local same = true
          for i = 1, 3 do same = same and v[i] == h[i] end
          found = found + (same and 1 or 0)
        end
        assert.equal(2, found, cell) -- y and the last h
      end
    end
  end)

  it("take up parameters, a state and a reset that come in between", function()
    local pr = language(6)
    local stream = pr:stream()
    local function run(ids)
      local out
      for _, id in ipairs(ids) do
        stream:input(1, { id })
        stream:step()
        out = values(stream)
      end
      return out
    end
    local first = run { 1, 2, 3 }
    stream:reset()
    assert.same(first, run { 1, 2, 3 })
    local kept = stream:state()
    local on = run { 4, 0 }
    stream:set_state(kept)
    assert.same(on, run { 4, 0 })
    local w = pr.params:get "lstm.weight_hh"
    local bytes = w:tobytes()
    w:fill(0.25)
    pr.params:set("lstm.weight_hh", w)
    stream:reset()
    local other = run { 1, 2, 3 }
    assert.not_same(first, other)
    local fresh = pr:stream()
    for _, id in ipairs { 1, 2, 3 } do
      fresh:input(1, { id })
      fresh:step()
    end
    assert.same(values(fresh), other)
    assert.not_equal(bytes, w:tobytes())
  end)

  it("draw anew at each step, as the seed says", function()
    local pr = neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 8 } })
      return { y = op.sample(op.softmax(x * 0)) }
    end)
    local function drawn(seed)
      local stream, list = pr:stream { seed = seed }, {}
      stream:input(1, { 0, 0, 0, 0, 0, 0, 0, 0 })
      for t = 1, 12 do
        stream:step()
        list[t] = stream:output(1):totable()[1][1]
      end
      return list
    end
    local a = drawn(3)
    assert.same(a, drawn(3))
    assert.not_same(a, drawn(4))
    local kinds = {}
    for _, id in ipairs(a) do kinds[id] = true end
    assert.is_true(next(kinds, next(kinds)) ~= nil, "the same number at each step")
  end)

  it("know their inputs and outputs by name", function()
    local pr = neap.program(function(rec)
      local memory = rec:input("memory", { space = "B", dims = { 2 } })
      local b = rec:input("b", { space = "T", dims = { 2 } })
      local a = rec:input("a", { space = "T", dims = { 2 } })
      return { sum = a + 2 * b, last = neap.gru { size = 2 } (a, { h = memory }) }
    end)
    local stream = pr:stream()
    stream:context_batch(1)
    stream:context(pr.inputs.memory, neap.tensor { { 1, 2 } })
    stream:input("a", { 1, 2 })
    stream:input("b", neap.tensor { { 10, 20 } })
    stream:step()
    assert.same({ { 21, 42 } }, stream:output("sum"):totable())
    assert.same(stream:output(1):totable(), stream:output("last"):totable())
    local function refuses(message, ...)
      local ok, text = pcall(...)
      assert.is_false(ok)
      assert.matches(message, text, 1, true)
    end
    refuses("a step has no input 'memory'", stream.input, stream, "memory", { 1, 2 })
    local unread = neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 2 } })
      rec:input("z", { space = "T", dims = { 2 } })
      return { y = x * 2 }
    end):stream()
    refuses("stream: input 'z': the program never reads it, or its context is not set",
      unread.input, unread, "z", { 1, 2 })
    refuses("a step has no output 'sun'; did you mean 'sum'?", stream.output, stream, "sun")
  end)

  it("write into a tensor that is given, and make no garbage", function()
    local pr = neap.program(function(rec)
      return { y = (neap.gru { size = 3 } (rec:input("x", { space = "T", dims = { 2 } }))) }
    end)
    local stream = pr:stream()
    local x, y = neap.tensor { { 1, 2 } }, neap.zeros { 1, 3 }
    local function step()
      stream:input(1, x)
      stream:step()
      return stream:output(1, y)
    end
    assert.equal(y, step())
    assert.same(values(stream), y:totable())
    step()
    collectgarbage "stop"
    local before = collectgarbage "count"
    for _ = 1, 1000 do step() end
    local after = collectgarbage "count"
    collectgarbage "restart"
    assert.equal(before, after)
    local twin, z = pr:stream(), neap.zeros { 1, 3 }
    for _ = 1, 1002 do assert.equal(z, twin:step(x, z)) end -- the same in one call
    assert.same(y:totable(), z:totable())
    local ok, message = pcall(stream.output, stream, 1, neap.zeros { 2 })
    assert.is_false(ok)
    assert.matches("output 1 has 3 numbers, the tensor has 2", message, 1, true)
  end)
end)

describe("a block of steps", function()
  local function random(rng, shape)
    local flat, n = {}, 1
    for _, d in ipairs(shape) do n = n * d end
    for i = 1, n do flat[i] = rng:uniform(-1, 1) end
    return neap.tensor(flat):reshape(shape), flat
  end

  local leaky = neap.cell {
    name = "leaky",
    params = function(p, c) p.w, p.u = { c.input, c.size }, { c.size, c.size } end,
    state = function(c) return { h = c.size } end,
    step = function(p, x, s)
      local h = s.h * 0.5 + op.tanh(op.matmul(x, p.w) + op.matmul(s.h, p.u))
      return h, { h = h }
    end,
  }

  it("gives the bits of the steps one by one, for any length of it", function()
    local rng = neap.rng(1)
    for name, layer in pairs { elman = neap.elman, lstm = neap.lstm, gru = neap.gru, leaky = leaky } do
      for _, width in ipairs { 3, 20 } do -- few inputs, and enough to be multiplied beforehand
        for rows = 1, 3, 2 do
          local pr = neap.program(function(rec)
            local y = layer { size = 18 } (rec:input("x", { space = "T", dims = { width } }))
            return { y = layer { size = 5 } (y) }
          end)
          local steps, block = pr:stream { rows = rows }, pr:stream { rows = rows, block = 16 }
          for round, n in ipairs { 16, 3, 1, 16, 7 } do
            local x, flat = random(rng, { n, rows, width })
            local y, each = block:steps(x):totable(), rows * width
            if round == 3 then
              for _, s in ipairs { steps, block } do s:reset() end
              y = block:steps(x):totable()
            end
            for t = 1, n do
              steps:input(1, { table.unpack(flat, (t - 1) * each + 1, t * each) })
              steps:step()
              assert.same(steps:output(1):totable(), y[t], name)
            end
          end
          local state = steps:state()
          for slot in ipairs(state:slots()) do
            assert.same(state:get(slot):totable(), block:state():get(slot):totable())
          end
        end
      end
    end
  end)

  -- Steps from .. to of numbers, `each` of them a step.
  local function part(flat, each, from, to)
    return neap.tensor { table.unpack(flat, (from - 1) * each + 1, to * each) }
  end

  local function ahead_of(steps, back, size)
    local pr = neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 3 } })
      local layer = { lstm = neap.lstm, gru = neap.gru, leaky = leaky, elman = neap.elman }
      local first, second = layer[back[1]] { size = size }, layer[back[2]] { size = size }
      local init
      if back.learned then
        init = { h = rec:param("first", { size }) }
        init = { forward = init, backward = init }
      end
      if back.both then first, second = neap.bidir { first }, neap.bidir { second } end
      return { y = (neap.linear { size = 4 } ((second((first(x, init)))))) }
    end)
    run_help.scatter(pr.params, neap.rng(7))
    return pr, pr:stream(steps)
  end

  it("with a look-ahead to the end gives the bits of a run over the whole sequence", function()
    local rng = neap.rng(4)
    for _, layers in ipairs { { "lstm", "gru" }, { "leaky", "lstm" }, { "gru", "leaky" },
      { "elman", "lstm" } } do
      layers.both, layers.learned = true, true
      for _, block in ipairs { 1, 4 } do
        for _, n in ipairs { 1, 3, 11 } do
          local pr, stream = ahead_of({ rows = 2, block = block, lookahead = 11 }, layers, 6)
          local x, flat = random(rng, { n, 2, 3 })
          local run = pr:run()
          run:feed { x = x }:forward()
          for _ = 1, 2 do -- after a reset again
            for t = 1, n, block do
              local m = math.min(block, n - t + 1)
              local y, given = stream:steps(part(flat, 6, t, t + m - 1):reshape { m, 2, 3 })
              assert.same({ 0, 2, 4 }, y:shape())
              assert.equal(0, given)
            end
            assert.equal(n, stream:pending())
            assert.equal(run:value "y":tobytes(), stream:finish():tobytes())
            assert.same({ 0, 2, 4 }, stream:finish():shape())
            stream:reset()
          end
        end
      end
    end
  end)

  it("looks no farther, and goes on from the state after the steps it has given", function()
    local rng = neap.rng(5)
    local n, ahead = 13, 3
    for _, layers in ipairs { { "lstm", "gru" }, { "leaky", "leaky" } } do
      layers.both = true
      local pr, stream = ahead_of({ lookahead = ahead }, layers, 5)
      local run, whole = pr:run(), pr:run()
      local x, flat = random(rng, { n, 1, 3 })
      whole:feed { x = x }:forward()
      assert.equal(ahead, stream:latency())
      local given = 0
      -- what is given must be the first output of a run over the step and those ahead of it
      local function check(state, y)
        given = given + 1
        run:state(state)
        local to = math.min(n, given + ahead)
        run:feed { x = part(flat, 3, given, to):reshape { to - given + 1, 1, 3 } }
        assert.equal(run:forward():value("y", 1):tobytes(), y:tobytes())
        if given == 1 then assert.not_equal(whole:value("y", 1):tobytes(), y:tobytes()) end
      end
      for t = 1, n do
        local state = stream:state()
        local y = stream:steps(part(flat, 3, t, t):reshape { 1, 1, 3 })
        if #y > 0 then check(state, y[1]) end
      end
      local state, rest = stream:state(), stream:finish()
      local y = rest[1]
      check(state, y)
      given = given + #rest - 1
      assert.equal(n, given)
    end
  end)

  it("with a look-ahead and no layer that runs backwards is the plain stream, so many steps late",
    function()
      local rng = neap.rng(6)
      for _, layers in ipairs { { "lstm", "gru" }, { "leaky", "elman" } } do
        for _, block in ipairs { 1, 5 } do
          for _, ahead in ipairs { 1, 4, 9 } do
            local pr, stream = ahead_of({ rows = 2, block = block, lookahead = ahead }, layers, 6)
            local plain, expected, came = pr:stream { rows = 2 }, {}, {}
            for _, n in ipairs { 5, 1, 3, 5, 2, 5 } do
              n = math.min(n, block)
              local x = random(rng, { n, 2, 3 })
              for t = 1, n do
                plain:step(x[t])
                expected[#expected + 1] = plain:output(1):tobytes()
              end
              local y = stream:steps(x)
              for t = 1, #y do came[#came + 1] = y[t]:tobytes() end
              assert.equal(math.max(0, #expected - ahead), #came)
              assert.equal(math.min(ahead, #expected), stream:pending())
            end
            local rest = stream:finish()
            for t = 1, #rest do came[#came + 1] = rest[t]:tobytes() end
            assert.same(expected, came)
            local slots = plain:state():slots()
            for slot in ipairs(slots) do -- the state, too, is that after the last step
              assert.same(plain:state():get(slot):totable(), stream:state():get(slot):totable())
            end
          end
        end
      end
    end)

  it("keeps what it looked ahead at when a step is refused", function()
    local pr, stream = ahead_of({ lookahead = 2 }, { "lstm", "gru", both = true }, 4)
    local twin, y = pr:stream { lookahead = 2 }, neap.zeros { 1, 1, 4 }
    for t = 1, 8 do
      local ok, message = pcall(stream.step, stream, neap.tensor { t, 0 / 0, 1 })
      assert.is_false(ok)
      assert.matches("NaN or infinity in input 'x', step 1, row 1", message, 1, true)
      local x = neap.tensor { t / 4, -t / 8, 1 }
      local out = stream:step(x, y)
      assert.equal(t > 2 and y or nil, out)
      local expected = twin:steps(x:reshape { 1, 1, 3 })
      if out then assert.equal(expected:tobytes(), out:tobytes()) end
    end
  end)

  it("refuses to look ahead where that would not tell the future", function()
    local function tanh(x) return op.tanh(x) end
    local function refused(words, build, options)
      local pr = neap.program(function(rec)
        return { y = build(rec:input("x", { space = "T", dims = { 3 } }), rec) }
      end)
      local ok, message = pcall(pr.stream, pr, options or { lookahead = 4 })
      assert.is_false(ok)
      assert.matches(words, message, 1, true)
    end
    refused("reverse reads later steps", function(x) return op.reverse(x) end, {})
    refused("reverse is an output that runs backwards", function(x) return op.reverse(x) end)
    refused("mixes both ways through time", function(x) return x + op.reverse(x) end)
    refused("mean_time reads later steps", function(x)
      return x + op.spread(op.mean_time(x), x)
    end)
    refused("takes whole sequences together", function(x)
      local y, last = neap.gru { size = 3 } (x)
      return y + op.spread(last.h, y)
    end)
    refused("takes whole sequences together", function(x) return op.last(x) end)
    refused("a context makes one step a call and does not look ahead", function(x, rec)
      return x + op.spread(rec:input("b", { space = "B", dims = { 3 } }), x)
    end)
    refused("option lookahead: expected 0 or more, got -1", tanh, { lookahead = -1 })
    refused("a look-ahead of 9007199254740992 steps", tanh, { lookahead = 1 << 53 })
    refused("did you mean \"lookahead\"?", tanh, { lookahed = 1 })
  end)

  it("takes ids, reports one out of range and has then done none of the steps", function()
    local pr = neap.program(function(rec)
      local x = op.embedding(rec:input("id", { space = "T", dtype = "i32" }),
        rec:param("table", { 5, 4 }, { "normal", 0, 1 }))
      return { y = (neap.lstm { size = 6 } (x)) }
    end)
    local block, twin = pr:stream { block = 4 }, pr:stream { block = 4 }
    local good = neap.tensor({ { 1 }, { 4 }, { 0 } }, "i32")
    local y = neap.zeros { 3, 1, 6 }
    assert.equal(y, twin:steps(good, y))
    block:steps(good)
    local bad = neap.tensor({ { 1 }, { 5 }, { 0 } }, "i32")
    local ok, message = pcall(block.steps, block, bad)
    assert.is_false(ok)
    assert.matches("id 5 is not in 0..4, sequence 1, step 2", message, 1, true)
    assert.same(twin:steps(good):totable(), block:steps(good):totable())
  end)

  it("refuses what does not fit", function()
    local pr = neap.program(function(rec)
      return { y = (neap.lstm { size = 2 } (rec:input("x", { space = "T", dims = { 3 } }))) }
    end)
    local block = pr:stream { block = 4 }
    for message, x in pairs {
      ["3 numbers a step, for up to 4 steps, got f32 [5,1,3]"] = neap.zeros { 5, 1, 3 },
      ["3 numbers a step, for up to 4 steps, got f32 [2,1,2]"] = neap.zeros { 2, 1, 2 } } do
      local ok, said = pcall(block.steps, block, x)
      assert.is_false(ok)
      assert.matches(message, said, 1, true)
    end
    local ok, said = pcall(block.steps, block, neap.zeros { 2, 1, 3 }, neap.zeros { 2, 1, 3 })
    assert.is_false(ok)
    assert.matches("output 1 has 4 numbers for these steps, the tensor has 6", said, 1, true)
    ok, said = pcall(pr.stream, pr, { block = 0 })
    assert.is_false(ok)
    assert.matches("option block: expected 1 or more, got 0", said, 1, true)
    local memory = neap.program(function(rec)
      local first = rec:input("h", { space = "B", dims = { 2 } })
      return { y = (neap.elman { size = 2 } (rec:input("x", { space = "T", dims = { 3 } }),
        { h = first })) }
    end)
    ok, said = pcall(memory.stream, memory, { block = 4 })
    assert.is_false(ok)
    assert.matches("a program with a context makes one step a call", said, 1, true)
  end)
end)
