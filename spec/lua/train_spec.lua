-- Optimizers beside their formulas written out in Lua; clipping, groups, schedules, what happens
-- at a number that is not finite, and training that goes on where it was saved.
local core = require "neap.core"
local neap = require "neap"
local op = neap.op
local help = require "run_help"
local data_help = require "data_help"

local sizes = { a = 7, b = 33 } -- elements of the two parameters

-- A program whose gradients are what is fed: loss = sum(a*ga) + sum(b*gb).
local function subject()
  local program = neap.program(function(rec)
    local loss = 0
    for _, name in ipairs { "a", "b" } do
      local n = sizes[name]
      local g = rec:input("g" .. name, { space = "B", dims = { n } }) -- of one row
      loss = loss + op.sum(op.sum_rows(rec:param(name, { n }) * g))
    end
    return { loss = loss }
  end)
  local rng = neap.rng(4)
  help.scatter(program.params, rng)
  local run = program:run { learn = true }
  local function gradient(ga, gb)
    run:feed { ga = ga:reshape { 1, sizes.a }, gb = gb:reshape { 1, sizes.b } }
    run:forward()
    program.params:zero_grad()
    run:backward()
  end
  return program.params, gradient, rng
end

local function gradients(rng, deviation)
  return help.normal(rng, { sizes.a }, deviation), help.normal(rng, { sizes.b }, deviation)
end

local function norm_of(list)
  local sum = 0
  for _, flat in pairs(list) do
    for _, g in ipairs(flat) do sum = sum + g * g end
  end
  return sum ^ 0.5
end

-- One element's step: rule(o, w, g, memory, t) -> w.
local rules = {
  sgd = function(o, w, g, s) -- Polyak 1964
    s.m = o.momentum * (s.m or 0) + g + o.weight_decay * w
    return w - o.rate * s.m
  end,
  rmsprop = function(o, w, g, s) -- Tieleman and Hinton 2012
    g = g + o.weight_decay * w
    s.v = o.decay * (s.v or 0) + (1 - o.decay) * g * g
    s.m = o.momentum * (s.m or 0) + g / (math.sqrt(s.v) + o.eps)
    return w - o.rate * s.m
  end,
  adam = function(o, w, g, s, t) -- Kingma and Ba 2015
    g = g + o.weight_decay * w
    s.m = o.beta1 * (s.m or 0) + (1 - o.beta1) * g
    s.v = o.beta2 * (s.v or 0) + (1 - o.beta2) * g * g
    return w - o.rate * s.m / (1 - o.beta1 ^ t) / (math.sqrt(s.v / (1 - o.beta2 ^ t)) + o.eps)
  end,
  adamw = function(o, w, g, s, t) -- Loshchilov and Hutter 2019
    s.m = o.beta1 * (s.m or 0) + (1 - o.beta1) * g
    s.v = o.beta2 * (s.v or 0) + (1 - o.beta2) * g * g
    local step = s.m / (1 - o.beta1 ^ t) / (math.sqrt(s.v / (1 - o.beta2 ^ t)) + o.eps)
    return w - o.rate * (step + o.weight_decay * w)
  end,
}

-- What the optimizers take where nothing is said.
local presets = {
  sgd = { rate = 1e-2, momentum = 0, weight_decay = 0 },
  rmsprop = { rate = 1e-2, decay = 0.99, momentum = 0, eps = 1e-8, weight_decay = 0 },
  adam = { rate = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0 },
  adamw = { rate = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 1e-2 },
}

-- The same optimizer by formula, over flat tables by name; clips as the library does: by value,
-- then by the norm over all that it updates.
local function reference(kind, options)
  local o, memory, self = {}, {}, { steps = 0, clipped_norm = 0, clipped_value = 0 }
  for k, v in pairs(presets[kind]) do o[k] = options[k] or v end
  function self.step(w, g, rate)
    o.rate = rate or o.rate
    self.steps = self.steps + 1
    local cut = false
    for name, flat in pairs(g) do
      g[name] = table.move(flat, 1, #flat, 1, {})
      for i, v in ipairs(flat) do
        local c = options.clip_value or math.huge
        cut = cut or math.abs(v) > c
        g[name][i] = math.max(-c, math.min(c, v))
      end
    end
    self.norm = norm_of(g)
    local scale = options.clip and self.norm > options.clip and options.clip / self.norm or 1
    if cut then self.clipped_value = self.clipped_value + 1 end
    if scale < 1 then self.clipped_norm = self.clipped_norm + 1 end
    for name, flat in pairs(g) do
      memory[name] = memory[name] or {}
      for i, v in ipairs(flat) do
        local s = memory[name][i] or {}
        memory[name][i] = s
        w[name][i] = rules[kind](o, w[name][i], v * scale, s, self.steps)
      end
    end
  end
  return self
end

local function values(params)
  local w = {}
  for _, name in ipairs(params:names()) do w[name] = help.flat(params:get(name)) end
  return w
end

local function bytes(params)
  local w = {}
  for _, name in ipairs(params:names()) do w[name] = params:get(name):tobytes() end
  return w
end

local function same_bytes(came, expected)
  for name, b in pairs(expected) do
    assert(came[name] == b, "other bits in " .. name)
  end
end

-- Steps an optimizer and its formula side by side.
local function side_by_side(kind, options, deviation)
  local params, gradient, rng = subject()
  local optim, plain, w = neap[kind](options), reference(kind, options), values(params)
  for step = 1, 12 do
    local ga, gb = gradients(rng, deviation and deviation(step))
    gradient(ga, gb)
    optim:step(params)
    plain.step(w, { a = help.flat(ga), b = help.flat(gb) })
    for name in pairs(sizes) do
      help.near(params:get(name), w[name], 1e-5, ("step %d, %s"):format(step, name))
    end
    local report = optim:report()
    assert.near(plain.norm, report.norm, 1e-6 * plain.norm)
    assert.equal(step, report.steps)
    assert.equal(plain.clipped_norm, report.clipped_norm)
    assert.equal(plain.clipped_value, report.clipped_value)
  end
  return plain
end

describe("an optimizer follows its formula:", function()
  for _, case in ipairs {
    { "sgd", {} },
    { "sgd", { rate = 0.3, momentum = 0.9 } },
    { "sgd", { rate = 0.3, momentum = 0.5, weight_decay = 0.1 } },
    { "rmsprop", {} },
    { "rmsprop", { rate = 0.02, decay = 0.9, momentum = 0.8, weight_decay = 0.01, eps = 1e-4 } },
    { "adam", {} },
    { "adam", { rate = 0.05, beta1 = 0.8, beta2 = 0.95, eps = 1e-3, weight_decay = 0.1 } },
    { "adamw", {} },
    { "adamw", { rate = 0.05, beta1 = 0.5, beta2 = 0.9, weight_decay = 0.3 } },
  } do
    local kind, options = table.unpack(case)
    it(kind .. (next(options) and " with options" or ""), function()
      local best = core.cpu_level()
      for _, level in ipairs { best, "generic" } do
        core.cpu_select(level)
        local ok, message = pcall(side_by_side, kind, options)
        core.cpu_select(best)
        assert(ok, message)
      end
    end)
  end
end)

describe("clipping", function()
  -- gradients that are now below, now above the bound
  local function swing(step) return step % 3 == 0 and 4 or 0.1 end

  it("by norm scales all gradients alike and counts", function()
    local plain = side_by_side("sgd", { rate = 0.1, momentum = 0.9, clip = 2 }, swing)
    assert.equal(4, plain.clipped_norm)
    side_by_side("adam", { rate = 0.1, clip = 2 }, swing)
  end)

  it("by value cuts each element and counts the steps", function()
    local plain = side_by_side("rmsprop", { clip_value = 0.5 }, swing)
    assert.equal(4, plain.clipped_value)
    assert.equal(0, plain.clipped_norm)
  end)

  it("by value comes before that by norm", function()
    local plain = side_by_side("sgd", { rate = 0.1, clip = 1.5, clip_value = 0.5 }, swing)
    assert.equal(4, plain.clipped_value)
    assert.equal(4, plain.clipped_norm)
  end)

  it("takes gradients whose squares no float holds", function()
    local params, gradient = subject()
    local before = values(params)
    local optim = neap.sgd { rate = 1, clip = 3 }
    local ga, gb = neap.zeros { sizes.a }, neap.zeros { sizes.b }
    ga[2], gb[5] = 3e30, -4e30
    gradient(ga, gb)
    optim:step(params)
    assert.near(5e30, optim:report().norm, 1e24)
    before.a[2], before.b[5] = before.a[2] - 1.8, before.b[5] + 2.4
    for name in pairs(sizes) do help.near(params:get(name), before[name], 1e-6, name) end
  end)
end)

describe("groups and schedules", function()
  it("a frozen parameter stays, its gradient counts for nothing", function()
    local params, gradient, rng = subject()
    params:freeze "b"
    local kept = params:get "b":tobytes()
    local optim, plain = neap.adam { clip = 0.1 }, reference("adam", { clip = 0.1 })
    local w = { a = help.flat(params:get "a") }
    for _ = 1, 3 do
      local ga, gb = gradients(rng)
      gradient(ga, gb)
      optim:step(params)
      plain.step(w, { a = help.flat(ga) })
      assert(kept == params:get "b":tobytes())
      help.near(params:get "a", w.a, 1e-5, "a")
      assert.near(plain.norm, optim:report().norm, 1e-6)
    end
    params:freeze("b", false)
    gradient(gradients(rng))
    optim:step(params)
    assert(kept ~= params:get "b":tobytes())
  end)

  it("gradients flow through a frozen layer", function()
    local below = neap.linear { size = 4, name = "below" }
    local above = neap.linear { size = 2, name = "above" }
    local function build(rec)
      local y = above(op.tanh(below(rec:input("x", { space = "B", dims = { 3 } }))))
      return { loss = op.mse(y, rec:input("t", { space = "B", dims = { 2 } })) }
    end
    local rng = neap.rng(1)
    local batch = { x = help.normal(rng, { 5, 3 }), t = help.normal(rng, { 5, 2 }) }
    local function gradient_below(freeze)
      local program = neap.program(build, { params = freeze })
      local run = program:run { learn = true }
      run:feed(batch):forward()
      program.params:zero_grad()
      run:backward()
      return program.params:grad "below.weight":tobytes(), program.params
    end
    local expected, params = gradient_below()
    assert.truthy(expected:find "[^\0]")
    params:freeze "above.weight"
    params:freeze "above.bias"
    assert.equal(expected, (gradient_below(params)))
  end)

  it("two optimizers own a parameter each", function()
    local params, gradient, rng = subject()
    local one, two = neap.sgd { rate = 0.5, params = { "a" } }, neap.adam { params = { "b" } }
    local plain_one, plain_two = reference("sgd", { rate = 0.5 }), reference("adam", {})
    local w = values(params)
    for _ = 1, 4 do
      local ga, gb = gradients(rng)
      gradient(ga, gb)
      local kept = params:get "b":tobytes()
      one:step(params)
      assert(kept == params:get "b":tobytes())
      two:step(params)
      plain_one.step(w, { a = help.flat(ga) })
      plain_two.step(w, { b = help.flat(gb) })
    end
    for name in pairs(sizes) do help.near(params:get(name), w[name], 1e-5, name) end
    assert.near(plain_one.norm, one:report().norm, 1e-6)
    assert.has_error(function() neap.sgd { params = { "c" } }:step(params) end)
    data_help.raises("table expected, got string", function()
      local _ = core.optim(params, "sgd", {}, "a")
    end)
  end)

  it("a schedule gives each step's rate", function()
    local params, gradient, rng = subject()
    local seen = {}
    local optim = neap.sgd { rate = 0.4, schedule = function(step, rate)
      seen[#seen + 1] = { step, rate }
      return rate / step
    end }
    local plain, w = reference("sgd", {}), values(params)
    for step = 1, 5 do
      local ga, gb = gradients(rng)
      gradient(ga, gb)
      optim:step(params)
      plain.step(w, { a = help.flat(ga), b = help.flat(gb) }, 0.4 / step)
      assert.near(0.4 / step, optim:report().rate, 1e-12)
      assert.same({ step, 0.4 }, seen[step])
      for name in pairs(sizes) do help.near(params:get(name), w[name], 1e-5, name) end
    end
  end)

  it("a rate that is set holds for all parameter sets; a report is of the one asked for", function()
    local one, gradient_one, rng = subject()
    local two, gradient_two = subject()
    local optim = neap.sgd { rate = 0.4 }
    gradient_one(gradients(rng))
    optim:step(one)
    gradient_two(gradients(rng))
    optim:step(two)
    gradient_two(gradients(rng))
    optim:step(two)
    optim:step(one)
    assert.equal(2, optim:report().steps)
    assert.equal(2, optim:report(one).steps)
    optim:step(two)
    assert.equal(3, optim:report().steps) -- the one updated last
    assert.equal(2, optim:report(one).steps)
    assert.equal(0, optim:report(core.params()).steps)
    optim:rate(0)
    local before = { one:get "a":tobytes(), two:get "a":tobytes() }
    optim:step(one)
    optim:step(two)
    assert.same(before, { one:get "a":tobytes(), two:get "a":tobytes() })
    assert.same({ 0, 0 }, { optim:report(one).rate, optim:report(two).rate })
  end)

  it("a rate that is set holds from the next step on", function()
    local params, gradient, rng = subject()
    local optim, plain, w = neap.sgd { rate = 0.4 }, reference("sgd", {}), values(params)
    for step = 1, 4 do
      if step == 3 then optim:rate(0.01) end
      local ga, gb = gradients(rng)
      gradient(ga, gb)
      optim:step(params)
      plain.step(w, { a = help.flat(ga), b = help.flat(gb) }, step < 3 and 0.4 or 0.01)
    end
    assert.equal(0.01, optim:rate())
    for name in pairs(sizes) do help.near(params:get(name), w[name], 1e-5, name) end
  end)
end)

describe("a gradient that is not finite", function()
  for kind in pairs(rules) do
    it("updates nothing and is named: " .. kind, function()
      -- d sqrt(a) = 1/0 at 0, where the loss itself stays finite
      local program = neap.program(function(rec)
        local a, b = rec:param("deep.a", { 4 }, 1), rec:param("deep.b", { 4 }, 0.5)
        return { loss = op.sum(op.where(op.greater(a, 0.1), a, op.sqrt(a))) + op.sum(b) }
      end)
      local params, run = program.params, program:run { learn = true }
      local optim = neap[kind] { rate = 0.01, clip = 1 }
      local function step()
        run:forward()
        params:zero_grad()
        run:backward()
        optim:step(params)
      end
      step()
      local a = params:get "deep.a"
      a[3] = 0
      params:set("deep.a", a)
      local before = bytes(params)
      local ok, message = pcall(step)
      assert.falsy(ok)
      assert.truthy(message:find("in the gradient of 'deep.a' (element 2); nothing was updated", 1,
        true), message)
      same_bytes(bytes(params), before)
      assert.equal(1, optim:report().steps)
      -- and what it remembers is as if that step had never been asked for
      a[3] = 1
      params:set("deep.a", a)
      step()
      local twin = neap.program(function(rec)
        local x, y = rec:param("deep.a", { 4 }, 1), rec:param("deep.b", { 4 }, 0.5)
        return { loss = op.sum(op.where(op.greater(x, 0.1), x, op.sqrt(x))) + op.sum(y) }
      end)
      local again, twin_run = neap[kind] { rate = 0.01, clip = 1 }, twin:run { learn = true }
      for i = 1, 2 do
        if i == 2 then twin.params:set("deep.a", a) end
        twin_run:forward()
        twin.params:zero_grad()
        twin_run:backward()
        again:step(twin.params)
      end
      same_bytes(bytes(params), bytes(twin.params))
    end)
  end

  it("in the forward pass stops a run that learns, with sequence, step and line", function()
    local layer = neap.lstm { size = 3 }
    local program = neap.program(function(rec)
      local y = layer(op.log(rec:input("x", { space = "T", dims = { 2 } })))
      return { loss = help.loss(y) }
    end)
    local run = program:run { learn = true }
    run:feed { x = { data = neap.tensor { { 1, 1 }, { 2, 1 }, { 1, 3 }, { 1, -1 } },
      lengths = neap.tensor({ 1, 3 }, "i32") } }
    local ok, message = pcall(run.forward, run)
    assert.falsy(ok)
    assert.truthy(message:find("log: NaN came up, sequence 2, step 3", 1, true), message)
    assert.truthy(message:find("train_spec.lua:%d+%)"), message)
  end)
end)

describe("training that is saved and goes on", function()
  local steps, after = 9, 4

  -- A model with dropout, its batches and one training step.
  local function trainer(kind)
    local net = neap.chain { neap.embed { size = 5, input = 12 }, neap.dropout { rate = 0.2 },
      neap.lstm { size = 6, forget_bias = 1 }, neap.linear { size = 12 } }
    local program = neap.program(function(rec)
      local ids = rec:input("ids", { space = "T", dtype = "i32" })
      local following = rec:input("next", { space = "T", dtype = "i32" })
      return { loss = op.cross_entropy(net(ids), following) }
    end, { seed = 3 })
    local optim = neap[kind] { rate = 0.05, clip = 0.1, clip_value = 0.05,
      schedule = function(step, rate) return rate / (1 + step / 5) end }
    local run = program:run { learn = true }
    local function step(number)
      local rng = neap.rng(number)
      local lengths, ids, following = {}, {}, {}
      for b = 1, 4 do
        lengths[b] = rng:int(6)
        for _ = 1, lengths[b] do
          ids[#ids + 1], following[#following + 1] = rng:int(12) - 1, rng:int(12) - 1
        end
      end
      lengths = neap.tensor(lengths, "i32")
      run:seed(number)
      run:feed { ids = { data = neap.tensor(ids, "i32"), lengths = lengths },
        next = { data = neap.tensor(following, "i32"), lengths = lengths } }
      run:forward()
      program.params:zero_grad()
      run:backward()
      optim:step(program.params)
    end
    return { params = program.params, optim = optim, step = step, run = run }
  end

  for kind in pairs(rules) do
    it("reaches the same bits: " .. kind, function()
      local folder = data_help.folder()
      local path = folder.path .. "/checkpoint.safetensors"
      local whole = trainer(kind)
      local archive = core.archive()
      for number = 1, steps do
        whole.step(number)
        if number == after then
          for _, name in ipairs(whole.params:names()) do
            archive:add("param." .. name, whole.params:get(name))
          end
          whole.optim:on(whole.params):save(archive, "optim.")
          assert(archive:save(path))
        end
      end

      local resumed = trainer(kind)
      local loaded = assert(core.load_archive(path))
      for _, name in ipairs(resumed.params:names()) do
        resumed.params:set(name, loaded:tensor("param." .. name))
      end
      assert(resumed.optim:on(resumed.params):load(loaded, "optim."))
      for number = after + 1, steps do resumed.step(number) end
      folder.remove()
      same_bytes(bytes(resumed.params), bytes(whole.params))
      assert.same(whole.optim:report(), resumed.optim:report())
      assert.truthy(whole.optim:report().clipped_norm > 0)
    end)
  end

  it("refuses a file without its state, and is as it was", function()
    local t = trainer "adam"
    t.step(1)
    local optim = t.optim:on(t.params)
    local archive = core.archive()
    data_help.fails("EFORMAT", "has no state under 'x.'", optim:load(archive, "x."))
    optim:save(archive, "x.")
    local other = core.archive()
    for _, name in ipairs(archive:names()) do
      if name ~= "x.v.chain.lstm3.bias_ih" then other:add(name, archive:tensor(name)) end
    end
    other:set_text("x.steps", archive:text "x.steps")
    data_help.fails("EFORMAT", "x.v.chain.lstm3.bias_ih", optim:load(other, "x."))
    local twin = trainer "adam"
    for number = 1, 2 do twin.step(number) end
    t.step(2)
    same_bytes(bytes(t.params), bytes(twin.params))
  end)
end)

describe("freezing", function()
  it("takes effect at the next backward, also in a program without rows", function()
    local program = neap.program(function(rec)
      local w = rec:param("w", { 2 }, 1)
      return { loss = neap.op.sum(neap.op.square(w)) }
    end)
    local params, run = program.params, program:run { learn = true }
    local function gradient()
      run:forward()
      params:zero_grad()
      run:backward "loss"
      return params:grad("w"):totable()
    end
    assert.same({ 2.0, 2.0 }, gradient())
    params:freeze("w", true)
    assert.same({ 0.0, 0.0 }, gradient())
    params:freeze("w", false)
    assert.same({ 2.0, 2.0 }, gradient())
  end)
end)

describe("chain", function()
  it("takes the first states of its layers where all of them step", function()
    local function message(first, ...)
      local layers = { ... }
      local ok, text = pcall(neap.program, function(rec)
        local x = rec:input("x", { space = "T", dims = { 2 } })
        return { y = (neap.chain(layers)(x, first and first(x))) }
      end)
      return not ok and text
    end
    local function h(x) return { h = x } end
    assert.matches("chain: it has no state h, only 1.h, 1.c",
      message(h, neap.lstm { size = 2 }), 1, true)
    assert.matches("chain: first states: expected none where a layer does not step, came",
      message(h, neap.bidir { neap.lstm { size = 2 } }), 1, true)
    local x = neap.tensor { { { 1, 2 } }, { { 3, -1 } }, { { 0.5, 1 } } }
    local layers = { neap.gru { size = 2 }, neap.activation "relu", neap.elman { size = 3 } }
    local params
    local function run(build)
      local pr = neap.program(function(rec)
        local before = rec:input("before", { space = "B", dims = { 3 } })
        return { y = (build(rec:input("x", { space = "T", dims = { 2 } }), before)) }
      end, { params = params })
      params = pr.params
      return pr:run():feed { x = x, before = neap.tensor { { 0.5, -2, 1 } } }:forward():value "y"
    end
    local plain = run(function(v, before) return layers[3](layers[2]((layers[1](v))), { h = before }) end)
    local chain = neap.chain(layers)
    assert.equal(plain:tobytes(), run(function(v, before)
      return chain(v, { ["3.h"] = before })
    end):tobytes())
  end)

  it("gives the last states of all its recurrent layers, third", function()
    neap.program(function(rec)
      local y, last, all = neap.chain { neap.bidir { neap.lstm { size = 2 } },
        neap.residual { neap.chain { neap.gru { size = 3 }, neap.linear { size = 4 } } },
        neap.chain { neap.elman { size = 5 }, neap.gru { size = 6 } } } (
        rec:input("x", { space = "T", dims = { 2 } }))
      assert.equal(4, #all)
      assert.equal(last, all[4])
      for i, width in ipairs { 4, 3, 5, 6 } do assert.equal(width, all[i].h.width) end
      return y
    end)
  end)

  it("steps in a cell as over a sequence, with what is around its layers", function()
    local layer = neap.chain { neap.residual { neap.gru { size = 3 } }, neap.layer_norm {},
      neap.highway { neap.lstm { size = 3 } }, neap.linear { size = 2 } }
    local program = neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 3 } })
      local whole = layer(x)
      local states, order = {}, {}
      for i, s in ipairs(layer:states(3)) do
        order[i], states[s.name] = s.name, { dims = s.dims }
      end
      assert.same({ "1.h", "3.h", "3.c" }, order)
      local stepped = rec:scan(x.space, states, order, function(s) return layer:at_step(x, s) end)
      return { loss = op.mse(whole, stepped * 0 + 0.2), twin = op.mse(stepped, whole * 0 + 0.2),
        whole = whole, stepped = stepped }
    end)
    local run, rng = program:run { learn = true, double = true }, neap.rng(3)
    local flat = {}
    for i = 1, 21 do flat[i] = rng:normal() end
    run:feed { x = { data = neap.tensor(flat):reshape { 7, 3 },
      lengths = neap.tensor({ 2, 5 }, "i32") } }:forward()
    local a, b = run:value "whole":totable(), run:value "stepped":totable()
    for t, rows in ipairs(a) do
      for r, row in ipairs(rows) do
        for i, v in ipairs(row) do assert.near(v, b[t][r][i], 1e-6) end
      end
    end
    local grads = {}
    for _, loss in ipairs { "loss", "twin" } do
      program.params:zero_grad()
      run:forward():backward(loss)
      grads[loss] = {}
      for _, name in ipairs(program.params:names()) do
        grads[loss][name] = run.core:param_grad(name)
      end
    end
    for name, g in pairs(grads.loss) do
      for i, v in ipairs(g) do assert.near(v, grads.twin[name][i], 1e-10, name) end
    end
    for name, e in pairs(neap.gradcheck(layer, { input = 3 })) do assert.is_true(e < 1e-6, name) end
  end)
end)

describe("a carried state", function()
  -- the first state is made from an input; a row that holds a state does not start from it
  local function carried()
    local pr = neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 2 } })
      local first = op.linear(rec:input("first", { space = "B", dims = { 1 } }),
        rec:param("start", { 3, 1 }, 0.5))
      local y = neap.gru { size = 3 } (x, { h = first })
      return { loss = op.sum(op.sum_rows(y)) }
    end)
    local run = pr:run { learn = true }
    return pr, run, { x = neap.tensor { { { 1, 2 }, { 3, 4 } }, { { 0, 1 }, { 1, 0 } } },
      first = neap.tensor { { 1 }, { 1 } } }
  end

  it("leaves the gradient of the first state to the rows that started from it", function()
    local pr, run, batch = carried()
    local state = pr:state(2)
    local function gradient()
      run:feed(batch):forward()
      pr.params:zero_grad()
      run:backward()
      return pr.params:grad("start"):totable()
    end
    local alone = gradient()
    assert.not_same({ { 0 }, { 0 }, { 0 } }, alone)
    run:state(state)
    assert.same(alone, gradient()) -- nothing is held yet, though forward has left a state
    assert.same({ { 0 }, { 0 }, { 0 } }, gradient())
    state:reset()
    assert.same(alone, gradient())
    state:reset()
    run:feed(batch):forward()
    state:gather { 1, 2, 1, 2, 1, 2 } -- what backward needs is the run's own
    pr.params:zero_grad()
    run:backward()
    assert.same(alone, pr.params:grad("start"):totable())
  end)

  it("is taken back to look for a number that is not finite", function()
    local cell = neap.cell {
      name = "root",
      params = function(p) p.w = { 1, init = 1 } end,
      state = function() return { h = 1 } end,
      step = function(p, x, s) return op.sqrt(s.h * p.w), { h = s.h + x } end, -- d sqrt: 1/0 at 0
    }
    local pr = neap.program(function(rec)
      local y = cell {} (rec:input("x", { space = "T", dims = { 1 } }))
      return { loss = op.sum(op.sum_rows(y)) }
    end)
    local run, state = pr:run { learn = true }, pr:state(1)
    run:state(state)
    local function find()
      run:feed { x = neap.tensor { { { 4 } } } }:forward()
      local after = state:get(1):totable()
      pr.params:zero_grad()
      run:backward()
      local found = run.core:find_nonfinite(pr.outputs.loss)
      assert.same(after, state:get(1):totable())
      return found
    end
    assert.matches("layer root: infinity came up in the gradient, sequence 1, step 1", find()) -- from 0, though the state is 4 by now
    assert.is_nil(find())
  end)
end)
