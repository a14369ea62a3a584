-- Optimizers and schedules beside PyTorch's (golden/make_optim.py), groups with rates of their own,
-- gathered gradients, averages, tied weights.
local core = require "neap.core"
local neap = require "neap"
local data_help = require "data_help"
local help = require "run_help"
local raises = data_help.raises
local op = neap.op

local golden = assert(core.load_archive "spec/golden/optim.st")
local function tensor(name) return assert(golden:tensor(name), name) end

-- "a<tab>b" of each line, as lists.
local function lines(name)
  local out = {}
  for line in golden:text(name):gmatch "[^\n]+" do
    local row = {}
    for part in (line .. "\t"):gmatch "([^\t]*)\t" do row[#row + 1] = part end
    out[#out + 1] = row
  end
  return out
end

local function made(expression)
  return assert(load("local neap = ... return neap." .. expression))(neap)
end

-- Parameters a [n] and how to give them a gradient.
local function subject(...)
  local starts = { ... }
  local program = neap.program(function(rec)
    local out
    for i, start in ipairs(starts) do
      local name = ("abc"):sub(i, i)
      local w = rec:param(name, { #start }, "zeros")
      local g = rec:input("g" .. i, { dims = { #start } })
      local part = neap.op.sum(w * g)
      out = out and out + part or part
    end
    return { loss = out }
  end)
  for i, start in ipairs(starts) do program.params:set(("abc"):sub(i, i), neap.tensor(start)) end
  local run = program:run { learn = true }
  return program.params, function(...)
    local fields = {}
    for i, g in ipairs { ... } do fields["g" .. i] = g end
    run:feed(fields):forward()
    program.params:zero_grad()
    run:backward()
  end
end

describe("PyTorch's optimizer steps alike:", function()
  local seen = {}
  for _, row in ipairs(lines "optimizers") do
    local name, kind, options = table.unpack(row)
    seen[kind] = true
    it(name, function()
      local params, gradient = subject(help.flat(tensor "w"))
      local optim = made(("%s { %s }"):format(kind, options))
      for step = 1, #tensor(name) do
        gradient(tensor "gradient"[step])
        optim:step(params)
        help.near(params:get "a", tensor(name)[step], 2e-6, ("%s, step %d"):format(name, step))
      end
    end)
  end

  it("all kinds there are", function()
    for _, kind in ipairs(core.optim_kinds()) do
      assert(seen[kind.name], kind.name .. " has no golden values")
      assert.equal("function", type(neap[kind.name]))
    end
  end)

  it("to the same bits after a file in between", function()
    for _, kind in ipairs(core.optim_kinds()) do
      local function steps(halfway)
        local params, gradient = subject(help.flat(tensor "w"))
        local optim = neap[kind.name] { rate = 0.1 }
        for step = 1, 12 do
          gradient(tensor "gradient"[step])
          optim:step(params)
          if step == 6 and halfway then
            local archive = core.archive()
            optim:on(params):save(archive, "o.")
            optim = neap[kind.name] { rate = 0.1 }
            assert(optim:on(params):load(archive, "o."))
          end
        end
        return params:get "a":tobytes()
      end
      assert(steps(false) == steps(true), kind.name)
    end
  end)
end)

describe("PyTorch's schedule gives the same rates:", function()
  local known = {}
  local rate = tensor "rate"[1]
  for _, list in ipairs { "schedules", "plateaus" } do
    for _, row in ipairs(lines(list)) do
      local name, expression = table.unpack(row)
      known[expression:match "%a+_?%a*"] = true
      it(name, function()
        local schedule, scores = made("schedule." .. expression), tensor "scores"
        local came = {}
        for step = 1, #tensor("schedule." .. name) do
          came[step] = schedule(step, rate)
          if list == "plateaus" then schedule:observe(scores[step]) end
        end
        help.near(came, tensor("schedule." .. name), 1e-6, name)
      end)
    end
  end

  it("all schedules there are", function()
    for name in pairs(neap.schedule) do assert(known[name], name .. " has no golden values") end
  end)
end)

describe("a schedule", function()
  it("follows another after a warm-up", function()
    local cosine = neap.schedule.cosine { steps = 10 }
    local both = neap.schedule.warmup { steps = 5, next = cosine }
    assert.equal(0, both(1, 2))
    assert.near(1.6, both(5, 2), 1e-12)
    for step = 1, 12 do assert.equal(cosine(step, 2), both(step + 5, 2)) end
    local plateau = neap.schedule.warmup { steps = 1,
      next = neap.schedule.plateau { patience = 0 } }
    plateau:observe(1)
    plateau:observe(1)
    assert.near(0.2, plateau(2, 2), 1e-12)
    assert.equal("schedule warmup", tostring(both))
  end)

  it("is the optimizer's, which tells it scores", function()
    local params, gradient = subject { 1 }
    local optim = neap.sgd { rate = 1,
      schedule = neap.schedule.plateau { patience = 0, factor = 0.5 } }
    for step, expected in ipairs { 1, 1, 0.5, 0.25 } do
      gradient(neap.tensor { 0 })
      optim:step(params)
      assert.equal(expected, optim:rate(), step)
      optim:observe(1)
    end
  end)

  it("is told the scores of neap.fit", function()
    local told = {}
    local series = {}
    for t = 1, 20 do series[t] = math.sin(t) end
    local model = neap.forecaster { rng = neap.rng(1), net = neap.elman { size = 2 } }
    local optim = neap.sgd { schedule = neap.schedule.plateau {} }
    function optim:observe(score) told[#told + 1] = score end -- luacheck: ignore
    neap.fit(model, { optim = optim, epochs = 3, quiet = true, key = "x",
      train = function()
        local batch = model:batch { series }
        return function()
          local b = batch
          batch = nil
          return b
        end
      end,
      dev = function() return { x = #told } end })
    assert.same({ 0, 1, 2 }, told)
  end)

  it("says what it was not given", function()
    raises("schedule.step: every: expected an integer from 1, came nil", function()
      neap.schedule.step {}
    end)
    raises("schedule.exponential: factor: expected a number above 0, came nil", function()
      neap.schedule.exponential {}
    end)
    raises("schedule.cosine: unknown option \"step\"; did you mean \"steps\"?", function()
      neap.schedule.cosine { step = 3 }
    end)
    raises("schedule.one_cycle: rise: expected a number from 0 to 1, came 2", function()
      neap.schedule.one_cycle { steps = 9, rise = 2 }
    end)
    for _, rise in ipairs { 0, 0.05, 0.1, 0.5, 1 } do
      local cycle = neap.schedule.one_cycle { steps = 10, rise = rise }
      for step = 1, 12 do
        local rate = cycle(step, 1)
        assert.is_true(rate > 0 and rate <= 1, ("rise %g, step %d: %g"):format(rise, step, rate))
      end
    end
    raises("schedule.warmup: next: expected a schedule, came 3", function()
      neap.schedule.warmup { steps = 9, next = 3 }
    end)
    raises("schedule.plateau: lower: expected true or false, came 1", function()
      neap.schedule.plateau { lower = 1 }
    end)
    raises("sgd: schedule: expected a function of the step and the rate, came a table", function()
      neap.sgd { schedule = {} }
    end)
  end)
end)

describe("groups of parameters", function()
  it("have their own rate and decay, and one norm with all", function()
    local params, gradient = subject({ 1, 1 }, { 1, 1 }, { 2 })
    local optim = neap.sgd { rate = 0.1, weight_decay = 0.5, clip = 3, groups = {
      { params = { "b" }, rate = 10 }, { params = { "c*" }, rate = 0, weight_decay = 0 } } }
    gradient(neap.tensor { 3, 0 }, neap.tensor { 0, 4 }, neap.tensor { 0 })
    optim:step(params) -- the norm is 5, so that 3/5 of the gradient is left
    assert.near(5, optim:report().norm, 1e-6)
    help.near(params:get "a", { 1 - 0.1 * (1.8 + 0.5), 1 - 0.1 * 0.5 }, 1e-6, "a")
    help.near(params:get "b", { 1 - 0.5, 1 - (2.4 + 0.5) }, 1e-6, "b")
    help.near(params:get "c", { 2 }, 0, "c")
    for _, kind in ipairs(core.optim_kinds()) do -- in any rule a rate of 0 stops it
      local p, g = subject({ 1 }, { 1 })
      local o = neap[kind.name] { rate = 0.1, groups = { { params = { "a" }, rate = 0 } } }
      g(neap.tensor { 1 }, neap.tensor { 1 })
      o:step(p)
      assert.equal(1, p:get "a"[1])
      assert(p:get "b"[1] < 1, kind.name)
    end
  end)

  it("are named by patterns", function()
    local model = neap.seq2class { input = 2, output = neap.vocab.new { "x", "y" },
      rng = neap.rng(1), net = neap.chain { neap.gru { size = 2 }, neap.elman { size = 2 } } }
    local match = require "neap.optim".match
    assert.same({ "net.chain.gru1.bias_hh", "net.chain.elman2.bias_hh", "net.linear.bias" },
      match("x", model.params, { "*.bias_hh", "net.linear.bias" }))
    model:freeze { "net.chain.*" }
    assert(model.params:frozen "net.chain.gru1.weight_ih")
    assert(not model.params:frozen "net.linear.weight")
    local before = model.params:get "net.chain.gru1.weight_ih":tobytes()
    local batch = { input = { data = neap.tensor { { 1, 2 }, { 3, 4 } },
      lengths = neap.tensor({ 2 }, "i32") }, output = neap.tensor({ 1 }, "i32") }
    model:learn(batch, neap.sgd { rate = 1 })
    assert(before == model.params:get "net.chain.gru1.weight_ih":tobytes())
    model:freeze({ "net.chain.*" }, false)
    model:learn(batch, neap.sgd { rate = 1 })
    assert(before ~= model.params:get "net.chain.gru1.weight_ih":tobytes())
    raises('freeze: no parameter\'s name is like "net.lstm*"; they are net.chain.gru1.weight_ih',
      function() model:freeze { "net.lstm*" } end)
    raises('sgd: group 1: no parameter\'s name is like "q*"', function()
      model:learn(batch, neap.sgd { groups = { { params = { "q*" } } } })
    end)
  end)

  it("are refused where they say nothing", function()
    raises("optimizer: expected clip in 0..1e+30, got -1", function() neap.adam { clip = -1 } end)
    raises("sgd: groups: expected a table, came 3", function() neap.sgd { groups = 3 } end)
    raises("sgd: group 1: params: expected a list of names of parameters", function()
      neap.sgd { groups = { { rate = 1 } } }
    end)
    raises("sgd: group 1: rate: expected a number from 0 to 1e+06, came -1", function()
      neap.sgd { groups = { { params = { "a" }, rate = -1 } } }
    end)
    raises("sgd: group 1: unknown option \"lr\"", function()
      neap.sgd { groups = { { params = { "a" }, lr = 1 } } }
    end)
  end)
end)

-- A task, and batches of it of four series each.
local function forecasting(seed)
  local rng, batches = neap.rng(5), {}
  local model = neap.forecaster { rng = neap.rng(seed), net = neap.gru { size = 5 } }
  for i = 1, 6 do
    local list = {}
    for k = 1, 4 do
      list[k] = {}
      for t = 1, 8 do list[k][t] = math.sin(i + k + t / 2) + 0.1 * rng:normal() end
    end
    batches[i] = list
  end
  return model, batches
end

describe("gathered gradients", function()
  it("make the step of a larger batch", function()
    local one, lists = forecasting(1)
    local two = forecasting(1)
    local large = neap.adam { rate = 0.05, clip = 0.1 }
    local small = neap.adam { rate = 0.05, clip = 0.1, accumulate = 3 }
    for k = 1, 2 do
      local all = {}
      for i = 3 * k - 2, 3 * k do
        table.move(lists[i], 1, 4, #all + 1, all)
        two:learn(two:batch(lists[i]), small)
        assert.equal(i // 3, small:report().steps)
      end
      one:learn(one:batch(all), large)
    end
    assert.near(large:report().norm, small:report().norm, 1e-6)
    for _, name in ipairs(one.params:names()) do
      help.near(two.params:get(name), one.params:get(name), 1e-5, name, 0.1)
    end
    assert(tostring(small):find "accumulate=3")
  end)

  it("are averaged once a step, and a schedule that waits for scores has to get some", function()
    local model, lists = forecasting(1)
    local average, batches = neap.average { decay = 0.9 }, {}
    for i = 1, 6 do batches[i] = model:batch(lists[i]) end
    local function train()
      local i = 0
      return function()
        i = i + 1
        return batches[i]
      end
    end
    neap.fit(model, { optim = neap.sgd { rate = 1e-3, accumulate = 3 }, average = average,
      epochs = 1, quiet = true, train = train })
    assert.matches("of 2$", tostring(average))
    local optim = neap.sgd { rate = 1e-3, accumulate = 4 }
    average = neap.average { decay = 0.9 } -- 4 and 2 in an epoch, and again
    neap.fit(model, { optim = optim, average = average, epochs = 2, quiet = true, train = train })
    assert.equal(4, optim:report().steps)
    assert.matches("of 4$", tostring(average))
    optim:finish(model.params) -- nothing is left
    assert.equal(4, optim:report().steps)
    for _, ending in ipairs { "interrupted!", "mine" } do -- what waits for a step is forgotten
      pcall(neap.fit, model, { optim = optim, epochs = 1, quiet = true, train = function()
        local give = train()
        return function() return give() and nil or error(ending, 0) end
      end })
      model:learn(batches[1], optim)
      pcall(neap.fit, model, { optim = optim, epochs = 1, quiet = true, train = function()
        error(ending, 0)
      end })
      assert.is_nil(optim.gathered[model.params])
    end
    raises("fit: optim: its schedule waits for scores, which needs dev, came none", function()
      neap.fit(model, { optim = neap.sgd { schedule = neap.schedule.plateau {} }, epochs = 1,
        quiet = true, train = train })
    end)
  end)

  it("begin anew after a step that failed", function()
    local model, lists = forecasting(1)
    local optim = neap.sgd { rate = 0.1, accumulate = 2 }
    model:learn(model:batch(lists[1]), optim)
    local name = model.params:names()[1]
    local was = model.params:get(name)
    local bad = was:clone()
    bad:fill(0 / 0)
    model.params:set(name, bad)
    assert.is_false((pcall(model.learn, model, model:batch(lists[2]), optim)))
    model.params:set(name, was)
    for i = 1, 4 do model:learn(model:batch(lists[i]), optim) end
    assert(optim:report().steps >= 2)
    raises("adam: groups: expected a list of groups, { { params = { .. }, rate = .. }, .. }, came "
      .. "params = a table", function() neap.adam { groups = { params = { "*" } } } end)
    raises("sgd: accumulate: expected an integer from 1, came 0", function()
      neap.sgd { accumulate = 0 }
    end)
  end)
end)

describe("an average of parameters", function()
  it("counts all alike, or the last ones more", function()
    local params = subject { 0 }
    local plain, moving = neap.average {}, neap.average { decay = 0.5 }
    local late, expected = neap.average { from = 3 }, nil
    for n, v in ipairs { 4, 2, 6, 8 } do
      params:set("a", neap.tensor { v })
      plain:update(params)
      moving:update(params)
      late:update(params)
      local share = 1 - math.min(0.5, (n - 1) / (n + 9))
      expected = expected and expected + share * (v - expected) or v
    end
    local back = plain:apply(params)
    assert.equal(5, params:get "a"[1])
    back()
    assert.equal(8, params:get "a"[1])
    moving:apply(params)
    assert.near(expected, params:get "a"[1], 1e-6)
    late:apply(params)
    assert.equal(7, params:get "a"[1])
    assert.equal("average (decay 0.5) of 4", tostring(moving))
    raises("average: decay: expected a number in [0,1), came 1", function()
      neap.average { decay = 1 }
    end)
    raises("average: apply: nothing was taken in yet", function() neap.average {}:apply(params) end)
    raises("average: update: expected a task or its params, came 3", function()
      plain:update(3)
    end)
    raises("expected 1 parameters, came 2", function() plain:update((subject({ 1 }, { 2 }))) end)
  end)

  it("is taken of saved models, by neap.average.files and the command", function()
    local folder = data_help.folder()
    local letters = neap.vocab.new { "a", "b" }
    local function model_of(options)
      return neap.seq2class { input = options.input or letters, output = options.output or letters,
        rng = neap.rng(options.seed or 1), net = neap.chain { neap.embed { size = 2 },
          neap.gru { size = options.size or 3 } } }
    end
    local paths, sums = {}, {}
    for seed = 1, 3 do
      local model = model_of { seed = seed }
      paths[seed] = ("%s/%d"):format(folder.path, seed)
      assert(model:save(paths[seed]))
      for _, name in ipairs(model.params:names()) do
        local t = model.params:get(name)
        sums[name] = sums[name] and op.add(sums[name], t) or t
      end
    end
    local out = folder.path .. "/out"
    local pipe = io.popen(("scripts/neap average --model %s %s 2>&1"):format(out,
      table.concat(paths, " ")))
    assert.equal("", pipe:read "a")
    assert.is_true(pipe:close())
    local mean, saved = assert(neap.average.files(paths)), assert(neap.load(out))
    for name, sum in pairs(sums) do
      assert.equal(mean.params:get(name):tobytes(), saved.params:get(name):tobytes())
      local got, flat = mean.params:get(name):reshape { sum:size() }, sum:reshape { sum:size() }
      for i = 1, #flat do assert.near(flat[i] / 3, got[i], 1e-6) end
    end
    assert.same(mean:predict { "ab" }, saved:predict { "ab" })
    local other = folder.path .. "/other"
    for text, options in pairs {
      ["expected net.chain.gru2.weight_ih [9,2], came [12,2]"] = { size = 4 },
      ["expected the same output, came another"] = { output = neap.vocab.new { "b", "a" } },
    } do
      assert(model_of(options):save(other))
      data_help.fails("EFORMAT", ("average: '%s': %s"):format(other, text),
        neap.average.files { paths[1], other })
    end
    data_help.fails("EIO", "none", neap.average.files { paths[1], folder.path .. "/none" })
    pipe = io.popen(("scripts/neap average --model %s %s %s 2>&1"):format(out, paths[1], other))
    assert.matches("^neap: average: '.*/other': expected ", pipe:read "a")
    assert.same({ nil, "exit", 1 }, { pipe:close() })
    raises("average: files: paths: expected at least one, came none", function()
      neap.average.files {}
    end)
    folder.remove()
  end)

  it("is what neap.fit scores and keeps", function()
    local model, lists = forecasting(1)
    local average, scored = neap.average { decay = 0.9 }, {}
    local name = model.params:names()[1]
    local own
    local result = neap.fit(model, { optim = neap.adam { rate = 0.05 }, epochs = 2, quiet = true,
      average = average, key = "x",
      train = function()
        local i = 0
        return function()
          own = model.params:get(name)
          i = i + 1
          return lists[i] and model:batch(lists[i])
        end
      end,
      dev = function()
        scored[#scored + 1] = model.params:get(name)
        return { x = #scored }
      end })
    assert.equal(2, result.epoch)
    assert.equal(scored[2]:tobytes(), model.params:get(name):tobytes())
    assert(own:tobytes() ~= scored[2]:tobytes()) -- learning went on from what it was
    raises("fit: average: expected neap.average { .. }, came 3", function()
      neap.fit(model, { optim = neap.adam {}, epochs = 1, average = 3, train = print })
    end)
  end)
end)

describe("tied weights", function()
  it("are one parameter, learned from both sides and found again in a file", function()
    local symbols = neap.vocab.new { "a", "b", "c" }
    local embed = neap.embed { size = 4, init = { "normal", 0, 0.5 } }
    local model = neap.synced_seq2seq { input = symbols, output = symbols, rng = neap.rng(1),
      net = neap.chain { embed, neap.gru { size = 4 }, neap.linear { size = 3, tied = embed } } }
    assert.same({ 3, 4 }, model.params:shape "net.chain.embed1.weight")
    assert(not model.params:has "net.chain.linear3.weight")
    assert(model.params:has "net.chain.linear3.bias")
    local data = neap.tensor({ 0, 1, 2, 1 }, "i32")
    local batch = { input = { data = data, lengths = neap.tensor({ 4 }, "i32") },
      output = { data = data, lengths = neap.tensor({ 4 }, "i32") } }
    -- the gradient is that of both uses: a small step against it lowers the loss as it says
    local run = model:forward(batch)
    model.params:zero_grad()
    run:backward()
    local g = model.params:grad "net.chain.embed1.weight"
    local w = model.params:get "net.chain.embed1.weight"
    local before, square, moved = model:loss(batch), 0, w:clone()
    for r = 1, 3 do
      for c = 1, 4 do
        square = square + g:get(r, c) ^ 2
        moved:set(r, c, w:get(r, c) - 1e-2 * g:get(r, c))
      end
    end
    model.params:set("net.chain.embed1.weight", moved)
    assert.near(square * 1e-2, before - model:loss(batch), 0.05 * square * 1e-2)
    local path = os.tmpname()
    assert(model:save(path))
    local loaded = assert(neap.load(path))
    os.remove(path)
    assert.equal(model:loss(batch), loaded:loss(batch))
    raises("linear: tied: expected a layer, came 3", function() neap.linear { tied = 3 } end)
    raises("parameter net.chain.embed1.weight", function()
      neap.synced_seq2seq { input = symbols, output = symbols, rng = neap.rng(1),
        net = neap.chain { embed, neap.gru { size = 5 }, neap.linear { size = 3, tied = embed } } }
        :parameters()
    end)
  end)
end)

-- Parameters of several parts of 8192 numbers each, one of them a table that is looked up in places.
describe("the threads of a parameter set", function()
  local function trained(optim, pool)
    local program = neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = {}, dtype = "i32" })
      local y = op.embedding(x, rec:param("table", { 4000, 7 }, { "normal", 0, 1 }))
      y = op.linear(y, rec:param("wide", { 3000, 7 }, { "normal", 0, 1 }))
      return { loss = op.sum(op.mean_rows(op.square(y * rec:param("one", { 1 }, "ones")))) }
    end, { seed = 3 })
    local params, average = program.params, neap.average { decay = 0.9 }
    params:pool(pool)
    local run = program:run { learn = true, pool = pool }
    for step = 1, 4 do
      run:feed { x = { data = neap.tensor({ step, 4000 - step, 1170, 1171, 2341 }, "i32"),
        lengths = neap.tensor({ 5 }, "i32") }, rows = 1 }
      run:forward()
      params:zero_grad()
      run:backward()
      optim:step(params)
      average:update(params)
    end
    local bytes = {}
    for _, set in ipairs { params, average.params } do
      for _, name in ipairs { "table", "wide", "one" } do
        bytes[#bytes + 1] = set:get(name):tobytes()
      end
    end
    return table.concat(bytes), optim:report(params).norm
  end

  for name, kind in pairs {
    sgd = function() return neap.sgd { momentum = 0.9, clip = 0.5 } end,
    adam = function()
      return neap.adam { clip = 0.5, groups = { { params = { "wide" }, rate = 2 } } }
    end,
    ["lazy adamw"] = function() return neap.adamw { lazy = true, clip_value = 1e-3 } end,
    ["adagrad of some"] = function() return neap.adagrad { params = { "table", "one" } } end,
  } do
    it("leave no trace in its bits: " .. name, function()
      local bytes, norm = trained(kind(), nil)
      for _, threads in ipairs { 1, 2, 3 } do
        local same, again = trained(kind(), core.pool(threads))
        assert.is_true(bytes == same)
        assert.equal(norm, again)
      end
    end)
  end

  it("have nothing to do for an empty set, and are given back", function()
    local params, optim = core.params(), neap.adam { clip = 1 }
    params:pool(core.pool(2))
    params:zero_grad()
    optim:step(params)
    assert.equal(0, optim:report(params).norm)
    params:pool(nil)
    raises("bad argument #1 to 'pool' (pool expected, got number)", function() params:pool(2) end)
  end)
end)
