-- Memory is told before it is taken, and what is told is what is taken.
local neap = require "neap"
local core = require "neap.core"
local help = require "data_help"
local op, raises = neap.op, help.raises

local leaky = neap.cell { name = "leaky",
  params = function(p, c) p.w, p.u = { c.input, c.size }, { c.size, c.size } end,
  state = function(c) return { h = c.size } end,
  step = function(p, x, s)
    local h = 0.5 * s.h + 0.5 * op.tanh(op.matmul(x, p.w) + op.matmul(s.h, p.u))
    return h, { h = h }
  end }

-- A loss over [T,B,3] of a network.
local function program_of(net)
  return neap.program(function(rec)
    local y = net(rec:input("x", { space = "T", dims = { 3 } }))
    return { loss = op.sum(op.mean_rows(op.square(y))) }
  end)
end

local programs = {
  ["an LSTM"] = program_of(neap.lstm { size = 16 }),
  ["a script's cell"] = program_of(leaky { size = 8 }),
  ["two ways"] = program_of(neap.chain { neap.bidir { neap.gru { size = 5 } }, neap.linear { size = 2 } }),
  ["no sequence"] = neap.program(function(rec)
    local x = rec:input("x", { space = "B", dims = { 3 } })
    return { loss = op.sum(op.mean_rows(neap.linear { size = 7 }(x))) }
  end),
}

describe("program:memory", function()
  it("tells what a run takes", function()
    for name, pr in pairs(programs) do
      for _, options in ipairs { {}, { learn = true }, { learn = true, double = true },
        { learn = true, pool = core.pool(3) } } do
        for _, lengths in ipairs { { 40, 7, 0 }, { 1, 1, 1 }, { 0, 0, 0 } } do
          local sequence = #pr.spaces > 1
          local told = pr:memory { rows = 3, lengths = sequence and { T = lengths } or nil,
            learn = options.learn, double = options.double, pool = options.pool }
          local steps = lengths[1] + lengths[2] + lengths[3]
          local x = { x = { data = neap.zeros { steps, 3 }, lengths = core.tensor(lengths, "i32") } }
          if not sequence then x.x = neap.zeros { 3, 3 } end
          if options.learn then pr:run { learn = true }:feed(x):forward():backward() end -- makes gradients
          collectgarbage()
          local before = core.memory_live()
          local run = pr:run(options)
          run.core:batch(3)
          if sequence then run.core:lengths(1, x.x.lengths) end
          assert.equal(told.run, run.core:plan(), name)
          assert.equal(told.run, core.memory_live() - before, name)
          run:feed(x):forward()
          if options.learn then run:backward() end
          assert.equal(told.run, run:bytes(), name)
          assert.equal(before + told.run, core.memory_live(), name)
          assert.equal(told.run + told.parameters + told.gradients, told.total)
          assert.equal(4 * pr.params:size(), told.parameters)
        end
      end
    end
  end)

  it("takes nothing itself, not even for what no machine has", function()
    local pr = programs["an LSTM"]
    collectgarbage()
    local before = core.memory_live()
    local told = pr:memory { rows = 20000, lengths = 100000, learn = true }
    collectgarbage()
    assert.equal(before, core.memory_live())
    assert.is_true(told.run > 20000 * 100000 * 16 * 4 * 6)
    assert.matches("^%d+%.%d MB: %d+%.%d MB for the run, 0%.0 MB of parameters, 0%.0 MB of gradients$",
      tostring(told))
  end)

  it("knows nested sequences", function()
    local pr = neap.program(function(rec)
      rec:sequence "T"
      local c = rec:input("c", { space = "C", parent = "T", dims = { 2 } })
      return { y = op.last((neap.gru { size = 3 }(c))) }
    end)
    local told = pr:memory { rows = 2, lengths = { T = { 1, 2 }, C = { 3, 0, 2 } } }
    local run = pr:run()
    run:feed { c = { data = neap.zeros { 5, 2 }, outer = core.tensor({ 1, 2 }, "i32"),
      inner = core.tensor({ 3, 0, 2 }, "i32") } }
    assert.equal(told.run, run:bytes())
    assert.is_true(pr:memory { rows = 2, lengths = 9 }.run > told.run)
  end)

  it("is there for tasks, before anything is learned", function()
    local model = neap.language_model { vocab = neap.vocab.new { "a", "b", "c" },
      rng = neap.rng(1), net = neap.chain { neap.embed { size = 4 }, neap.lstm { size = 8 } } }
    local batch = neap.batches.stream(core.zeros({ 101 }, "i32"), { batch = 2, steps = 50 })()
    local told = model:memory { rows = 2, lengths = batch.input:shape()[1] }
    local optim, first = neap.sgd { rate = 0.1 }, true
    local result = neap.fit(model, { optim = optim, epochs = 1, quiet = true, train = function()
      return function()
        first = not first
        return not first and batch or nil
      end
    end })
    -- the state that is carried: which rows it held, a slot each for h and c
    local state = model:run("learn", true):bytes() - told.run
    assert.is_true(state > 0 and state < 500, state)
    assert.near((told.run + state) / 1e6, result.memory_mb, 1e-9)
  end)

  it("refuses what makes no shape", function()
    local pr = programs["an LSTM"]
    raises("memory: unknown option \"row\"; did you mean \"rows\"?", function()
      pr:memory { row = 2 }
    end)
    raises("memory: rows: expected an integer", function() pr:memory { rows = -1 } end)
    raises("memory: lengths: expected an integer", function() pr:memory { lengths = "x" } end)
    raises("memory: lengths: unknown option \"S\"", function() pr:memory { lengths = { S = 2 } } end)
    raises("memory: lengths: T: expected a number or 2 of them, came 1", function()
      pr:memory { rows = 2, lengths = { T = { 5 } } }
    end)
    raises("memory: lengths: T: expected an integer", function()
      pr:memory { rows = 1, lengths = { T = { 0.5 } } }
    end)
    local run = core.run(pr.core, { tell = true })
    raises("run: the number of rows of the batch is not set", function() run:plan() end)
    run:batch(1)
    run:lengths(1, core.tensor({ 1 }, "i32"))
    raises("opened with NEAP_TELL: it has no memory for values", function() run:forward() end)
    raises("opened with NEAP_TELL", function() run:input(pr.inputs.x, neap.zeros { 1, 3 }, "concat") end)
  end)
end)

describe("models that nobody holds any more", function()
  it("are let go while others are made, in both modes of the collector", function()
    for _, mode in ipairs { "generational", "incremental" } do
      local before, most = collectgarbage(mode), 0
      local held = neap.zeros { 50, 1000, 1000 } -- what was there once gives no leave for more
      assert.equal(3, held:rank())
      held = nil
      collectgarbage()
      collectgarbage()
      local floor = core.memory_live()
      for _ = 1, 60 do -- 5 MB each
        local v = neap.vocab.new { "a", "b" }
        local model = neap.seq2class { input = v, output = v,
          net = neap.chain { neap.embed { size = 64, input = 20000, init = 0 }, neap.gru { size = 4 } } }
        model:predict { "ab" }
        most = math.max(most, core.memory_live() - floor)
      end
      collectgarbage(before)
      assert(most < 200e6, ("%s: %.0f MB"):format(mode, most / 1e6))
    end
  end)
end)
