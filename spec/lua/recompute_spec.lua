-- recompute = true: sequences in segments, forward twice. The same numbers, in less memory.
local neap = require "neap"
local core = require "neap.core"
local help = require "run_help"
local raises = require "data_help".raises
local op = neap.op

local function i32(list) return core.tensor(list, "i32") end

-- ---- programs, each with what makes it hard ----

-- It reads what it drew itself: a state of ids, random numbers and dropout inside the loop.
local drawing = neap.cell { name = "drawing",
  params = function(p, c)
    p.e, p.w, p.u, p.v = { c.size, c.size }, { c.input, c.size }, { c.size, c.size }, { c.size, c.size }
  end,
  state = function(c) return { h = c.size, id = { dtype = "i32" } } end,
  step = function(p, x, s)
    local h = op.tanh(op.matmul(op.dropout(x, 0.3), p.w) + op.matmul(s.h, p.u)
      + op.embedding(s.id, p.e))
    local z = op.matmul(h, p.v)
    return z, { h = h, id = op.sample(z, 1) }
  end }

local leaky = neap.cell { name = "leaky",
  params = function(p, c) p.w, p.u = { c.input, c.size }, { c.size, c.size } end,
  state = function(c) return { h = c.size } end,
  step = function(p, x, s)
    local h = 0.5 * s.h + op.tanh(op.matmul(x, p.w) + op.matmul(s.h, p.u))
    return h, { h = h }
  end }

local folded = help.loss

local function x_of(rec) return rec:input("x", { space = "T", dims = { 3 } }) end

local programs = {
  elman = function(rec) return { loss = folded((neap.elman { size = 4 }(x_of(rec)))) } end,
  lstm = function(rec) return { loss = folded((neap.lstm { size = 4 }(x_of(rec)))) } end,
  gru = function(rec) return { loss = folded((neap.gru { size = 4 }(x_of(rec)))) } end,
  ["gru, reset before"] = function(rec)
    return { loss = folded((neap.gru { size = 4, reset = "before" }(x_of(rec)))) }
  end,
  ["lstm from primitive ops"] = function(rec)
    return { loss = folded((neap.lstm { size = 4, fused = false }(x_of(rec)))) }
  end,
  ["a script's cell"] = function(rec) return { loss = folded((leaky { size = 4 }(x_of(rec)))) } end,
  stacked = function(rec)
    local net = neap.chain { neap.lstm { size = 4 }, neap.dropout { rate = 0.4 }, leaky { size = 3 },
      neap.layer_norm {}, neap.residual { neap.gru { size = 3 } }, neap.linear { size = 2 } }
    return { loss = folded((net(x_of(rec)))) }
  end,
  ["last states"] = function(rec)
    local y, s = neap.lstm { size = 4 }(x_of(rec))
    local z, t = leaky { size = 3 }(y)
    local all = op.concat { s.h, s.c, op.last(z), t.h }
    return { loss = folded(neap.linear { size = 2 }(all)), h = s.h, z = op.last(z) }
  end,
  ["over time"] = function(rec)
    local y = neap.gru { size = 4 }(x_of(rec))
    local all = op.concat { op.mean_time(y), op.sum_time(y), op.max_time(y), op.max_time(y * y) }
    return { loss = folded(neap.linear { size = 2 }(all)), all = all }
  end,
  ["a weighted mean"] = function(rec)
    local y = neap.gru { size = 4 }(x_of(rec))
    local w = op.sigmoid(op.sum(y * y, { keep = true }))
    return { loss = op.sum(op.mean_rows(op.square(y), w)) }
  end,
  ["first states given and learned"] = function(rec)
    local h0 = neap.linear { size = 4, name = "first" } (rec:input("b", { space = "B", dims = { 2 } }))
    local y = neap.gru { size = 4 }(x_of(rec), { h = h0 })
    local z = leaky { size = 4 }(y, { h = op.tanh(h0) })
    return { loss = folded(y, z) }
  end,
  ["outputs of each step"] = function(rec)
    local y = neap.lstm { size = 4 }(x_of(rec))
    local z = neap.linear { size = 2 }(y)
    return { y = y, z = z, loss = folded(z) }
  end,
  ["an encoder's memory"] = function(rec)
    local memory = neap.bidir { neap.gru { size = 3 } }(rec:input("s", { space = "S", dims = { 2 } }))
    local y = neap.gru { size = 6 }(x_of(rec))
    local c = neap.attention { kind = "additive", size = 5 }(y, memory)
    return { loss = folded(y, c) }
  end,
  ["a state as wide as the memory is long"] = function(rec)
    local memory = neap.bidir { neap.gru { size = 3 } }(rec:input("s", { space = "S", dims = { 2 } }))
    local y = neap.gru { size = 6 }(x_of(rec))
    local c, a, loss = neap.attention { kind = "additive", size = 5, coverage = true }(y, memory)
    return { loss = folded(y, c) + op.mean_rows(op.reshape(loss, { 1 })), a = a }
  end,
  ["two ways, then one"] = function(rec)
    local y = neap.bidir { neap.lstm { size = 3 } }(x_of(rec))
    return { loss = folded(neap.linear { size = 2 }((neap.gru { size = 4 }(y)))) }
  end,
  ["a mean that is read again"] = function(rec)
    local y = neap.gru { size = 4 }(x_of(rec))
    local centred = y - op.mean_time(y)
    return { loss = folded((neap.elman { size = 3 }(centred))) }
  end,
  symbols = function(rec)
    local ids = rec:input("i", { space = "T", dtype = "i32" })
    local y = neap.lstm { size = 5 }(neap.embed { size = 4, input = 7 }(ids))
    local z = neap.linear { size = 7 }(y)
    return { loss = op.cross_entropy(z, rec:input("t", { space = "T", dtype = "i32" })) }
  end,
  ["what it drew itself"] = function(rec) return { loss = folded((drawing { size = 4 }(x_of(rec)))) } end,
}

-- ---- what is compared ----

local function batch_of(pr, lengths, rng)
  local batch, n = { rows = #lengths }, 0
  for _, l in ipairs(lengths) do n = n + l end
  local function ids(least)
    local t = neap.zeros({ n }, "i32")
    for k = 1, n do t[k] = rng:int(7 - least) - 1 + least end
    return { data = t, lengths = i32(lengths) }
  end
  local all = { x = { data = help.normal(rng, { n, 3 }), lengths = i32(lengths) },
    b = help.normal(rng, { #lengths, 2 }), i = ids(0), t = ids(-1) }
  local other, m = {}, 0
  for row = 1, #lengths do other[row] = row % 4 m = m + row % 4 end
  all.s = { data = help.normal(rng, { m, 2 }), lengths = i32(other) }
  for name in pairs(pr.inputs) do batch[name] = all[name] end
  return batch
end

-- Everything a run makes of a batch, as flat tables by name.
local function everything(pr, options, batch, state)
  options.learn = true
  local run = pr:run(options)
  for name in pairs(pr.inputs) do
    if pr.types[name].dtype == "f32" and pr.types[name].space >= 0 then run:want_gradient(name) end
  end
  run:state(state)
  run:feed(batch):forward()
  local made = {}
  local function note(when)
    for name, id in pairs(pr.outputs) do
      made[when .. name] = options.double and run.core:read_doubles(id, "padded")
        or help.flat(run:value(name))
    end
  end
  note "forward "
  pr.params:zero_grad()
  run:backward()
  note "after backward "
  for name in pairs(pr.inputs) do
    if pr.types[name].dtype == "f32" and pr.types[name].space >= 0 then
      made["gradient of " .. name] = help.flat(run:gradient(name))
    end
  end
  for _, name in ipairs(pr.params:names()) do
    if not pr.params:frozen(name) then
      made["gradient of " .. name] = options.double and run.core:param_grad(name)
        or help.flat(pr.params:grad(name))
    end
  end
  for k = 1, state and #state:slots() or 0 do made["state " .. k] = help.flat(state:get(k)) end
  return made, run
end

local function compare(came, expected, bound, what)
  for name, numbers in pairs(expected) do
    help.near(came[name], numbers, bound, what .. ": " .. name)
  end
end

local shapes = { { 10 }, { 1 }, { 2, 2 }, { 17, 3, 0, 9, 17, 1 }, { 0, 0 }, { 0, 5, 16 }, { 50, 49 } }

describe("a run that recomputes", function()
  for name, record in pairs(programs) do
    it("computes what a plain one does: " .. name, function()
      local pr, rng = neap.program(record), neap.rng(5)
      help.scatter(pr.params, rng)
      for k, lengths in ipairs(shapes) do
        local batch = batch_of(pr, lengths, rng)
        for _, double in ipairs { true, false } do
          local what = ("shape %d, %s"):format(k, double and "double" or "float")
          local plain = everything(pr, { double = double, seed = 3 }, batch)
          local again, run = everything(pr, { double = double, seed = 3, recompute = true }, batch)
          compare(again, plain, double and 1e-12 or 2e-5, what)
          run:seed(3) -- once more, through the same run
          run:feed(batch):forward()
          pr.params:zero_grad()
          run:backward()
          help.near(run.core:read_doubles(pr.outputs.loss, "padded"), plain["forward loss"],
            double and 1e-12 or 1e-5, what .. ", again")
        end
      end
    end)
  end

  local whole = {
    ["two ways, then one"] = "reverse of layer bidir reads later steps (spec/lua/recompute_spec.lua:",
    ["a mean that is read again"] = "spread reads what the whole sequence gives (spec/lua/recompute",
  }
  it("says what it cannot take in segments", function()
    for name, record in pairs(programs) do
      local run = neap.program(record):run { learn = true, recompute = true }
      if not whole[name] then assert.is_nil(run:whole(), name)
      else assert.equal(whole[name], run:whole():sub(1, #whole[name]))
      end
    end
    local function reversed(rec) return { y = op.reverse(x_of(rec)) } end
    raises("recompute: nothing can run in segments: reverse reads later steps (spec/lua/recom", function()
      neap.program(reversed):run { recompute = true }
    end)
    raises("recompute: the program has no sequence", function()
      neap.program(function(rec) return { y = rec:input("b", { space = "B", dims = { 2 } }) * 2 } end)
        :run { recompute = true }
    end)
    raises("run: option recompute: expected true or false, came number", function()
      neap.program(programs.gru):run { recompute = 3 }
    end)
  end)

  it("starts from a state and leaves one", function()
    local pr = neap.program(programs.stacked)
    local rng = neap.rng(2)
    help.scatter(pr.params, rng)
    local batch = batch_of(pr, { 12, 0, 30, 7 }, rng)
    local first = pr:state(4)
    for k = 1, first:slots() and #first:slots() do
      first:set(k, help.normal(rng, first:get(k):shape()))
    end
    first:reset { 3 } -- this row begins at the program's own first state
    local states = { first:clone(), first:clone() }
    for _ = 1, 2 do -- on from where it was left
      local plain = everything(pr, { seed = 3 }, batch, states[1])
      compare(everything(pr, { seed = 3, recompute = true }, batch, states[2]), plain, 2e-5, "float")
      assert.same(states[1]:held(), states[2]:held())
    end
    -- the state is read in forward alone: what is written between does not matter
    local results = {}
    for k, meddle in ipairs { false, true } do
      local run, state = pr:run { learn = true, recompute = true, seed = 3 }, first:clone()
      run:state(state)
      run:feed(batch):forward()
      if meddle then state:reset() state:set(1, help.normal(rng, state:get(1):shape())) end
      pr.params:zero_grad()
      run:backward()
      results[k] = pr.params:grad(pr.params:names()[1]):tobytes()
    end
    assert.equal(results[1], results[2])
  end)

  it("gives the same bits for any number of threads", function()
    local function wide(rec) -- threads share its units, where there is one row
      local y, s = neap.lstm { size = 128 }(x_of(rec))
      return { loss = folded((neap.gru { size = 128 }(y)), s.c) }
    end
    for _, name in ipairs { "stacked", "over time", "symbols", "last states", "wide" } do
      local pr, rng = neap.program(programs[name] or wide), neap.rng(4)
      help.scatter(pr.params, rng, name == "wide" and 0.1 or nil)
      local batch = batch_of(pr, name == "wide" and { 50 } or { 70, 3, 41, 70, 0, 12 }, rng)
      local bits
      for threads = 1, 3 do
        local run = pr:run { learn = true, recompute = true, pool = core.pool(threads) }
        run:feed(batch):forward()
        pr.params:zero_grad()
        run:backward()
        local all = { run:value("loss"):tobytes() }
        for _, p in ipairs(pr.params:names()) do
          if not pr.params:frozen(p) then all[#all + 1] = pr.params:grad(p):tobytes() end
        end
        bits = bits or all
        assert.same(bits, all, name)
      end
    end
  end)

  it("passes a check of its gradients against finite differences", function()
    local pr, rng = neap.program(programs.stacked), neap.rng(6)
    help.scatter(pr.params, rng)
    local batch = batch_of(pr, { 11, 4, 0 }, rng)
    local run = pr:run { learn = true, double = true, recompute = true }
    run:learning(false)
    run:feed(batch):forward()
    run:backward()
    local step = 1e-5
    for _, name in ipairs(pr.params:names()) do
      if not pr.params:frozen(name) then
        local grad, numeric = run.core:param_grad(name), {}
        local function loss(shift, i)
          run.core:param_shift(name, i, shift)
          run:feed(batch):forward()
          return run:item()
        end
        for i = 1, #grad do
          numeric[i] = (loss(step, i) - loss(-2 * step, i)) / (2 * step)
          run.core:param_shift(name, i, step)
        end
        run:feed(batch):forward()
        run:backward()
        help.near(grad, numeric, 1e-6, name)
      end
    end
  end)

  it("starts backward at any output", function()
    local pr, rng = neap.program(programs["outputs of each step"]), neap.rng(7)
    help.scatter(pr.params, rng)
    local batch = batch_of(pr, { 9, 20 }, rng)
    local slope = help.normal(rng, { 20, 2, 4 })
    local grads = {}
    for k, recompute in ipairs { false, true } do
      local run = pr:run { learn = true, recompute = recompute }
      run:feed(batch):forward()
      pr.params:zero_grad()
      run.core:backward(pr.outputs.y, slope)
      grads[k] = help.flat(pr.params:grad "lstm.weight_hh")
    end
    help.near(grads[2], grads[1], 1e-5, "weight_hh")
  end)

  it("keeps what is watched and the gradients that are wanted", function()
    local watched = neap.cell { name = "watched",
      params = function(p, c) p.w, p.u = { c.input, c.size }, { c.size, c.size } end,
      state = function(c) return { h = c.size } end,
      step = function(p, x, s)
        local a = op.watch("a", op.matmul(x, p.w) + op.matmul(s.h, p.u))
        return op.tanh(a), { h = op.tanh(a) }
      end }
    local pr, rng = neap.program(function(rec)
      local y = neap.gru { size = 3, watch = true }(x_of(rec))
      local z = watched { size = 2 }(y)
      return { y = y, loss = folded((neap.lstm { size = 3 }(z))) }
    end), neap.rng(9)
    help.scatter(pr.params, rng)
    local batch, names, made = batch_of(pr, { 13, 30, 1 }, rng), {}, {}
    for name in pairs(pr.outputs) do names[#names + 1] = name end
    assert.is_true(#names > 4) -- the gates are among them
    for k, recompute in ipairs { false, true } do
      local run = pr:run { learn = true, recompute = recompute }
      for _, name in ipairs { "x", "y", "a" } do run:want_gradient(name) end
      run:feed(batch):forward()
      run:backward()
      made[k] = {}
      for _, name in ipairs(names) do made[k][name] = help.flat(run:value(name)) end
      for _, name in ipairs { "x", "y", "a" } do
        made[k]["gradient of " .. name] = help.flat(run:gradient(name))
      end
    end
    compare(made[2], made[1], 1e-5, "float")
  end)

  it("trains tasks as they are trained without it", function()
    local letters = neap.vocab.new { start = true, stop = true, "a", "b", "c" }
    local rng = neap.rng(11)
    local function some(n)
      local list = {}
      for i = 1, n do list[i] = ({ "a", "b", "c" })[rng:int(3)] end
      return list
    end
    local texts, same, kinds = {}, {}, {}
    for i = 1, 12 do
      texts[i] = some(rng:int(25))
      same[i], kinds[i] = texts[i], { texts[i][1] }
    end
    local corpus = neap.corpus.from { text = texts, same = same, kind = kinds }
    local long = letters:tensor(some(400))
    local embed = { size = 4 }
    local tasks = {
      language_model = { { vocab = letters, net = neap.chain { neap.embed(embed), neap.lstm { size = 6 },
        neap.dropout { rate = 0.2 }, neap.gru { size = 5 } } },
        function() return neap.batches.stream(long, { batch = 2, steps = 50 }) end },
      seq2class = { { input = letters, output = letters, pool = "max", net = neap.chain {
        neap.embed(embed), neap.bidir { neap.gru { size = 4 } }, neap.elman { size = 3 } } },
        function()
          return neap.batches({ input = corpus:encode("text", letters),
            output = corpus:label("kind", letters) }, { size = 5 })
        end },
      synced_seq2seq = { { input = letters, output = letters, net = neap.chain { neap.embed(embed),
        leaky { size = 4 } } }, function()
          return neap.batches({ input = corpus:encode("text", letters),
            output = corpus:encode("same", letters) }, { size = 5 })
        end },
      async_seq2seq = { { input = letters, output = letters, encoder = neap.chain {
        neap.embed(embed), neap.bidir { neap.gru { size = 4 } } } }, function(model)
          return neap.batches(model:fields(corpus, "text", "same"), { size = 5 })
        end },
    }
    for name, task in pairs(tasks) do
      local made = {}
      for k, recompute in ipairs { false, true } do
        local options = { rng = neap.rng(3), recompute = recompute }
        for key, value in pairs(task[1]) do options[key] = value end
        if name == "async_seq2seq" then
          options.decoder = neap.decoder { embed = 4, layers = { neap.gru { size = 5 } } }
        end
        local model = neap[name](options)
        local optim = neap.sgd { rate = 0.1 }
        for batch in task[2](model) do made.loss = model:learn(batch, optim) end
        made[k] = { loss = { made.loss } }
        for _, p in ipairs(model.params:names()) do made[k][p] = help.flat(model.params:get(p)) end
        assert.is_true(model:run("learn", true):whole() == nil or name ~= "language_model")
        local told = model:memory { rows = 5, lengths = 400, recompute = not recompute }.run
        assert.equal(recompute, told > model:memory { rows = 5, lengths = 400 }.run, name)
      end
      compare(made[2], made[1], 1e-4, name)
    end
    local model = neap.seq2class { input = 2, output = letters, net = neap.gru { size = 2 } }
    assert.equal(model, model:recompute(true))
    raises("recompute: on: expected true or false, came 1", function() model:recompute(1) end)
    raises("seq2class: recompute: expected true or false, came 1", function()
      neap.seq2class { input = 2, output = letters, net = neap.gru { size = 2 }, recompute = 1 }
    end)
  end)

  it("takes sequences in segments without learning too", function()
    local pr, rng = neap.program(programs["over time"]), neap.rng(8)
    help.scatter(pr.params, rng)
    local batch = batch_of(pr, { 60, 100 }, rng)
    local plain, run = pr:run(), pr:run { recompute = true }
    plain:feed(batch):forward()
    run:feed(batch):forward()
    help.near(run:value "all", plain:value "all", 1e-6, "all")
    assert.is_true(pr:memory { lengths = 10000, recompute = true }.run
      < pr:memory { lengths = 10000 }.run / 2)
    raises("backward: the run was not opened for learning", function() run:backward() end)
  end)

  it("takes memory that grows with the square root of the steps", function()
    local pr = neap.program(programs["over time"])
    local function bytes(steps, recompute)
      local inputs = steps * 4 * (3 + 3) -- x, its layout of two words a row and one a step
      return pr:memory { lengths = steps, learn = true, recompute = recompute }.run - inputs
    end
    local function grows(steps, recompute) return bytes(steps, recompute) - bytes(1, recompute) end
    for _, steps in ipairs { 10000, 100000 } do
      local plain, again = grows(steps), grows(steps, true)
      assert.is_true(again < plain / 50)
      assert.near(10, grows(100 * steps, true) / again, 1)
      assert.near(100, grows(100 * steps) / plain, 1)
    end
    -- told, and taken
    local batch = batch_of(pr, { 400, 77, 0 }, neap.rng(1))
    local told = pr:memory { rows = 3, lengths = { T = { 400, 77, 0 } }, learn = true, recompute = true }
    pr:run { learn = true }:feed(batch):forward():backward() -- makes gradients
    collectgarbage()
    local before = core.memory_live()
    local run = pr:run { learn = true, recompute = true }
    run:feed(batch):forward()
    run:backward()
    assert.equal(told.run, run:bytes())
    assert.equal(told.run, core.memory_live() - before)
  end)

  it("names the step of what is wrong", function()
    local pr = neap.program(programs.symbols)
    local ids = {}
    for k = 1, 30 do ids[k] = k == 23 and 9 or 1 end
    local field = { data = i32(ids), lengths = i32 { 30 } }
    local run = pr:run { learn = true, recompute = true }
    run:feed { i = field, t = field }
    raises("id 9 is not in 0..6, sequence 1, step 23", function() run:forward() end)

    pr = neap.program(function(rec)
      return { loss = folded(op.log((leaky { size = 1 }(rec:input("x", { space = "T", dims = { 1 } }))))) }
    end)
    pr.params:set("leaky.w", neap.tensor { { 1 } })
    pr.params:set("leaky.u", neap.tensor { { 0 } })
    local x = neap.zeros { 30, 1 }
    for k = 1, 30 do x[k][1] = k == 17 and -9 or 1 end
    run = pr:run { learn = true, recompute = true }
    run:feed { x = { data = x, lengths = i32 { 30 } } }
    raises("log: NaN came up, sequence 1, step 17", function() run:forward() end)
    -- and in the gradient: the square root has none at 0
    pr = neap.program(function(rec)
      local y = leaky { size = 1 }(rec:input("x", { space = "T", dims = { 1 } }))
      return { loss = folded(op.sqrt(op.abs(y))) }
    end)
    x = neap.zeros { 30, 1 }
    for k = 14, 30 do x[k][1] = 1 end
    run = pr:run { learn = true, recompute = true }
    run:feed { x = { data = x, lengths = i32 { 30 } } }
    run:forward()
    run:backward()
    assert.matches("in the gradient, sequence 1, step 13", run.core:find_nonfinite(pr.outputs.loss), 1,
      true)
  end)
end)
