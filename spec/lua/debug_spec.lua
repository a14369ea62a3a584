-- neap.debug: the same functions at once on real tensors, beside their recorded programs.
local neap = require "neap"
local core = require "neap.core"
local help = require "run_help"
local raises = require "data_help".raises
local op = neap.op

--- Records f of one input, runs it, and compares all it returns with what debug gives.
local function same(f, x, options)
  options = options or {}
  local shape, names = x:shape(), {}
  local pr = neap.program(function(rec)
    local dims = table.move(shape, 3, #shape, 1, {})
    local y, s = f(rec:input("x", { space = "T", dtype = x:dtype(), dims = dims }))
    local out = { y = y }
    for name, v in pairs(s or {}) do
      out["last_" .. name] = v
      names[name] = true
    end
    return out
  end, { input_size = options.input_size })
  help.scatter(pr.params, neap.rng(5), 0.4)
  local run = pr:run()
  run:feed { x = options.lengths and { data = x, lengths = options.lengths, padded = true } or x }
  run:forward()
  local y, s = neap.debug(f, x, { params = pr.params, lengths = options.lengths,
    input_size = options.input_size })
  assert.same(run:value("y"):shape(), y:shape())
  help.near(y, run:value "y", 1e-6, "outputs")
  for name in pairs(names) do
    help.near(s[name], run:value("last_" .. name), 1e-6, "last " .. name)
  end
  return y
end

local lengths = core.tensor({ 2, 5, 3 }, "i32")
local function sequences(width, dims) return help.normal(neap.rng(3), dims or { 5, 3, width }) end

local layers = {
  linear = function() return neap.linear { size = 4 } end,
  ["linear without bias"] = function() return neap.linear { size = 4, bias = false } end,
  dropout = function() return neap.dropout { rate = 0.5 } end,
  layer_norm = function() return neap.layer_norm {} end,
  activation = function() return neap.activation "gelu" end,
  elman = function() return neap.elman { size = 4 } end,
  lstm = function() return neap.lstm { size = 4, forget_bias = 1 } end,
  ["lstm with peepholes"] = function()
    return neap.lstm { size = 4, peepholes = true, watch = true }
  end,
  ["lstm with much"] = function()
    return neap.lstm { size = 4, coupled = true, projection = 2, layer_norm = true, clip = 1,
      recurrent_dropout = 0.2, zoneout = 0.1, first = "learned", gate = { i = "hard_sigmoid" } }
  end,
  ["gru with much"] = function()
    return neap.gru { size = 4, update = "take", reset = "before", layer_norm = true, bias = false,
      recurrent_dropout = 0.2, zoneout = 0.1, first = "learned" }
  end,
  ["dropout of sequences"] = function() return neap.dropout { rate = 0.5, sequence = true } end,
  highway = function() return neap.highway { neap.elman { size = 3 } } end,
  gru = function() return neap.gru { size = 4 } end,
  ["gru, reset before"] = function() return neap.gru { size = 4, reset = "before" } end,
  jordan = function() return neap.jordan { size = 4, output = 2 } end,
  bidir = function() return neap.bidir { neap.gru { size = 2 } } end,
  ["bidir, mean"] = function() return neap.bidir { neap.gru { size = 2 }, merge = "mean" } end,
  ["bidir, summed"] = function() return neap.bidir { neap.lstm { size = 2 }, merge = "sum" } end,
  chain = function()
    return neap.chain { neap.linear { size = 3 }, neap.dropout { rate = 0.2 },
      neap.lstm { size = 4 },
      neap.residual { neap.chain { neap.gru { size = 4 }, neap.layer_norm {} } }, op.tanh }
  end,
}

describe("debug", function()
  local names = {}
  for name in pairs(layers) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    it("computes what the recorded program does: " .. name, function()
      same(layers[name](), sequences(3))
      same(layers[name](), sequences(3), { lengths = lengths })
    end)
  end

  it("takes ids", function()
    local ids = core.tensor({ { 0, 4, 2 }, { 1, 1, 3 }, { 4, 0, 0 } }, "i32")
    same(neap.chain { neap.embed { size = 3 }, neap.elman { size = 2 } }, ids, { input_size = 5 })
    raises("embedding of layer embed: id 9 is not in 0..4, sequence 1, step 1", function()
      neap.debug(neap.embed { size = 3, input = 5 }, core.tensor({ { 9 } }, "i32"))
    end)
  end)

  it("covers what mixes time outside of loops, and attention", function()
    for _, kind in ipairs { "dot", "general", "additive" } do
      local attention = neap.attention { kind = kind }
      local function f(x)
        local y, s = neap.lstm { size = 3 }(x)
        local context = attention(s.h, y)
        return op.concat { op.reverse(y), op.spread(context, y) }, { mean = op.mean_time(y),
          max = op.max_time(y), sum = op.sum_rows(y) }
      end
      same(f, sequences(3))
      same(f, sequences(3), { lengths = lengths })
    end
  end)

  it("covers a cell that attends, with its context prepared once", function()
    local attention = neap.attention { kind = "additive", size = 4 }
    local reader = neap.cell {
      name = "reader", context = { "memory" },
      params = function(p, c) p.w = { c.input + 3, c.size } end,
      state = function(c) return { h = c.size, n = { 1, dtype = "i32" } } end,
      prepare = function(_, ctx)
        local rec = ctx.memory.rec
        return { keys = attention:inside(attention.prepare, attention, rec, ctx.memory, 3) }
      end,
      step = function(p, x, s, ctx)
        local c, weights = attention:inside(attention.attend, attention, x.rec, s.h, ctx.memory,
          ctx.keys)
        local h = op.tanh(op.matmul(op.concat { x, c }, p.w))
        local n = op.argmax(op.reshape(h, { 1, 3 }))
        return op.concat { h, op.sum(weights, -1, true) }, { h = h, n = n }
      end,
    }
    local layer = reader { size = 3 }
    local function f(rec)
      local memory = rec:input("memory", { space = "S", dims = { 3 } })
      local y, last = layer(rec:input("x", { space = "T", dims = { 2 } }), nil, { memory = memory })
      return { y = y, n = last.n }
    end
    local pr, rng = neap.program(f), neap.rng(4)
    help.scatter(pr.params, rng, 0.5)
    local batch = {
      memory = { data = help.normal(rng, { 9, 3 }), lengths = core.tensor({ 4, 1, 4 }, "i32") },
      x = { data = help.normal(rng, { 7, 2 }), lengths = core.tensor({ 1, 4, 2 }, "i32") },
    }
    local run, out = pr:run():feed(batch):forward(), neap.debug(f, batch, { params = pr.params })
    help.near(out.y, run:value "y", 1e-6, "y")
    assert.same(run:value("n"):totable(), out.n:totable())
  end)

  it("starts loops from given states", function()
    local gru, first = neap.gru { size = 3 }, neap.linear { size = 3 }
    same(function(x) return gru(x, { h = first(op.mean_time(x)) }) end, sequences(3),
      { lengths = lengths })
    same(function(x) return gru(x, { h = neap.param("h0", { 3 }) }) end, sequences(3))
  end)

  it("lets a step print and read its numbers", function()
    local shown, sums = {}, {}
    local sum = neap.cell {
      state = function(c) return { total = c.input } end,
      step = function(_, x, s)
        local y = s.total + x
        shown[#shown + 1] = tostring(x) .. "\n" .. tostring(y)
        sums[#sums + 1] = { y:get(1, 1), y[2][1], y:totable()[2][1], #y:tobytes() }
        return y, { total = y }
      end,
    }
    local y, last = neap.debug(sum {}, neap.tensor { { { 1 }, { 2 } }, { { 3 }, { 4.5 } } })
    assert.same({ { { 1 }, { 2 } }, { { 4 }, { 6.5 } } }, y:totable())
    assert.same({ { 4 }, { 6.5 } }, last.total:totable())
    assert.same({ "f32 [2,1]\n  1\n  2\nf32 [2,1]\n  1\n  2",
      "f32 [2,1]\n  3.0000\n  4.5000\nf32 [2,1]\n  4.0000\n  6.5000" }, shown)
    assert.same({ { 1, 2, 2, 8 }, { 4, 6.5, 6.5, 8 } }, sums)
  end)

  it("lets NaN and infinity through, for looking at them", function()
    local seen
    local y = neap.debug(function(x)
      local z = op.log(x)
      seen = tostring(z)
      return op.where(op.greater(x, 0), z * 2, op.sub(z, z))
    end, neap.tensor { { { 1 } }, { { 0 } }, { { -1 } } })
    assert.matches("0\n.*-inf\n.*nan", seen)
    local list = y:totable()
    assert.equal(0, list[1][1][1])
    assert.is_true(list[2][1][1] ~= list[2][1][1] and list[3][1][1] ~= list[3][1][1])
  end)

  it("runs a program's function on a batch", function()
    local layer = neap.gru { size = 4 }
    local function f(rec)
      local x = rec:input("x", { space = "T", dims = { 2 } })
      local c = rec:input("c", { space = "B", dtype = "i32" })
      local y, s = layer(x)
      local z = neap.linear { size = 3, name = "head" }(s.h) * rec:scalar("sharp", 2)
      rec:output("state", s.h)
      return { loss = op.cross_entropy(z, c), z = z, y = op.watch("y2", y) }
    end
    local pr, rng = neap.program(f), neap.rng(4)
    local batch = { c = core.tensor({ 0, 2 }, "i32"),
      x = { data = help.normal(rng, { 5, 2 }), lengths = core.tensor({ 4, 1 }, "i32") } }
    local run = pr:run():feed(batch):forward()
    local out = neap.debug(f, batch, { params = pr.params })
    assert.near(run:item "loss", out.loss, 1e-6)
    help.near(out.z, run:value "z", 1e-6, "z")
    help.near(out.y, run:value "y", 1e-6, "y")
    batch.sharp = 0.5
    run:feed(batch):forward()
    assert.near(run:item(), neap.debug(f, batch, { params = pr.params }).loss, 1e-6)
  end)

  it("runs a nested sequence", function()
    local inner, outer = neap.lstm { size = 3 }, neap.gru { size = 2 }
    local function f(rec)
      rec:sequence "T"
      local ids = rec:input("chars", { space = "C", parent = "T", dtype = "i32" })
      local _, s = inner(op.embedding(ids, neap.param("table", { 6, 2 })))
      return { y = outer(s.h) }
    end
    local pr = neap.program(f)
    local batch = { chars = { data = core.tensor({ 0, 1, 2, 3, 4, 5, 0, 1 }, "i32"),
      inner = core.tensor({ 2, 1, 0, 3, 2 }, "i32"), outer = core.tensor({ 2, 3 }, "i32") } }
    local run = pr:run():feed(batch):forward()
    help.near(neap.debug(f, batch, { params = pr.params }).y, run:value "y", 1e-6, "y")
  end)

  it("runs a task's own functions", function()
    local symbols = neap.vocab.new { "a", "b", "c" }
    local tagger = neap.synced_seq2seq { input = symbols, output = symbols,
      net = neap.chain { neap.embed { size = 3 }, neap.bidir { neap.lstm { size = 2 } } } }
    local function field(...)
      return { data = core.tensor({ ... }, "i32"), lengths = core.tensor({ 3 }, "i32") }
    end
    local batch = { input = field(0, 1, 2), output = field(1, 1, 0) }
    assert.near(tagger:loss(batch), neap.debug(tagger, batch).loss, 1e-6)
    local predicted = neap.debug(tagger, batch, { program = "predict" })
    local run = tagger:run("predict"):feed(batch):forward()
    help.near(predicted.scores, run:value "scores", 1e-6, "scores")
  end)

  it("says what it cannot do", function()
    local x = sequences(3)
    raises("debug: expected a layer, a function or a task, came 3", function() neap.debug(3, x) end)
    raises("debug: x: expected a tensor [T,B,..] or a batch, came nil", function()
      neap.debug(neap.linear { size = 2 })
    end)
    raises("debug: x: expected a tensor [T,B,..], came f32 [3]", function()
      neap.debug(op.tanh, neap.tensor { 1, 2, 3 })
    end)
    raises("debug: unknown option \"parms\"; did you mean \"params\"?", function()
      neap.debug(op.tanh, x, { parms = 1 })
    end)
    raises("nothing was given for the input word; did you mean words?", function()
      neap.debug(function(rec) return rec:input("word", { space = "T" }) end, { words = x })
    end)
    raises("mean_time: it mixes time steps, so it cannot stand inside a loop over T", function()
      neap.debug(neap.cell {
        state = function() return { h = 3 } end,
        step = function(_, v) return v, { h = op.mean_time(v) } end,
      } {}, x)
    end)
    raises("a value made inside a step is used after the loop", function()
      local kept
      local layer = neap.cell {
        state = function() return { h = 3 } end,
        step = function(_, v, s)
          kept = s.h + v
          return kept, { h = kept }
        end,
      } {}
      neap.debug(function(v) return layer(v) + kept end, x)
    end)
    raises("the state h is f32 [2], what it should become is f32 [3]", function()
      neap.debug(neap.cell {
        state = function() return { h = 2 } end,
        step = function(_, v) return v, { h = v } end,
      } {}, x)
    end)
    raises("get: a recorded value has a shape but no number yet; neap.debug(f, x)", function()
      neap.program(function(rec) return rec:input("x", { space = "T" }):get(1) end)
    end)
  end)
end)
