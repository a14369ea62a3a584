-- Every option of elman, lstm and gru: gradients in double, streams and the C host to the bits of
-- the whole run, other software's numbers, and the fused twin where an option can be set so that it
-- does nothing.
local assert = require "luassert"
local core = require "neap.core"
local neap = require "neap"
local recurrent = require "neap.recurrent"
local help = require "run_help"
local host = require "host_help"
local raises = require "data_help".raises
local op = neap.op

-- ---- each option, alone and among others ----

local function half(x) return op.mul(x, 0.5) end

-- A kind and what is said beside the size.
local cases = {
  { "elman", { bias = false } },
  { "elman", { fused = false } },
  { "elman", { init = "orthogonal" } },
  { "elman", { first = "learned" } },
  { "elman", { activation = { "scaled_tanh", alpha = 1.7, beta = 0.6 } } },
  { "elman", { activation = half } },
  { "elman", { clip = 0.5 } },
  { "elman", { layer_norm = true } },
  { "elman", { recurrent_dropout = 0.3 } },
  { "elman", { zoneout = 0.2 } },
  { "elman", { first = "learned", activation = "softsign", layer_norm = true, clip = 1,
    zoneout = 0.1, recurrent_dropout = 0.4 } },

  { "lstm", { bias = false } },
  { "lstm", { fused = false } },
  { "lstm", { init = { weight_hh = "orthogonal", weight_ih = "xavier", bias_ih = "zeros" } } },
  { "lstm", { first = "learned" } },
  { "lstm", { forget_bias = 1 } },
  { "lstm", { gate = "hard_sigmoid" } },
  { "lstm", { gate = { i = "sigmoid", f = { "hard_sigmoid", alpha = 0.3 }, o = half } } },
  { "lstm", { candidate = { "leaky_relu", alpha = 0.1 } } },
  { "lstm", { output = "identity" } },
  { "lstm", { peepholes = true } },
  { "lstm", { coupled = true } },
  { "lstm", { projection = 3 } },
  { "lstm", { clip = 0.5 } },
  { "lstm", { layer_norm = true } },
  { "lstm", { layer_norm = true, bias = false } },
  { "lstm", { recurrent_dropout = 0.3 } },
  { "lstm", { zoneout = { h = 0.1, c = 0.4 } } },
  { "lstm", { gates = { f = 0.9, o = function(o, v) return op.maximum(o, v.i) end } } },
  { "lstm", { watch = true } },
  { "lstm", { peepholes = true, coupled = true, projection = 3, clip = 2, layer_norm = true,
    recurrent_dropout = 0.2, zoneout = 0.1, first = "learned", candidate = "softsign",
    watch = true } },

  { "gru", { bias = false } },
  { "gru", { fused = false } },
  { "gru", { init = 0.1 } },
  { "gru", { first = "learned" } },
  { "gru", { gate = { r = "hard_sigmoid" } } },
  { "gru", { candidate = "softsign" } },
  { "gru", { reset = "before" } },
  { "gru", { update = "take" } },
  { "gru", { clip = 0.5 } },
  { "gru", { layer_norm = true } },
  { "gru", { layer_norm = true, bias = false, reset = "before" } },
  { "gru", { recurrent_dropout = 0.3 } },
  { "gru", { zoneout = 0.25 } },
  { "gru", { gates = { r = 1, z = function(z) return op.clamp(z, 0.2, 0.7) end } } },
  { "gru", { watch = true } },
  { "gru", { reset = "before", update = "take", clip = 2, layer_norm = true, watch = true,
    recurrent_dropout = 0.2, zoneout = 0.1, first = "learned", candidate = "softsign" } },
}

local function text_of(options)
  local parts = {}
  for name, v in pairs(options) do
    if type(v) == "table" then
      v = "{ " .. (v[1] and ("%q "):format(v[1]) or "") .. text_of(v) .. " }"
    end
    if type(v) == "function" then v = "f" end
    if name ~= 1 then parts[#parts + 1] = ("%s = %s"):format(name, v) end
  end
  table.sort(parts)
  return table.concat(parts, ", ")
end

local function make(case, more)
  local options = { size = 4, name = "r" }
  for _, t in ipairs { case[2], more or {} } do
    for name, v in pairs(t) do options[name] = v end
  end
  return neap[case[1]](options)
end

-- A program of one layer on x [T,B,3]: y, and the last states by name.
local function program(layer, options)
  return neap.program(function(rec)
    local y, last = layer(rec:input("x", { space = "T", dims = { 3 } }))
    local out = { y = y }
    for name, v in pairs(last) do out["last_" .. name] = v end
    return out
  end, options)
end

-- Nothing stays at 0 or 1, where errors would hide.
local function scattered(layer, options)
  local pr = program(layer, options)
  help.scatter(pr.params, neap.rng(8), 0.6)
  return pr
end

it("every option of every recurrent layer has a case here", function()
  for _, kind in ipairs { "elman", "lstm", "gru" } do
    local given = { size = true }
    for _, case in ipairs(cases) do
      if case[1] == kind then for name in pairs(case[2]) do given[name] = true end end
    end
    local missing = {}
    for _, name in ipairs(recurrent.options(kind)) do
      if not given[name] then missing[#missing + 1] = name end
    end
    assert.equal("", table.concat(missing, ", "), kind)
  end
end)

local sequences = { { 1 }, {}, {} }
for n, s in ipairs(sequences) do
  for t = 1, 3 * n - 1 do s[t] = { math.sin(t * n), math.cos(t / n), (t % 3 - 1) / 3 } end
end

describe("gradients of", function()
  for _, case in ipairs(cases) do
    it(("%s { %s }"):format(case[1], text_of(case[2])), function()
      local start = case[2].init
      if start == nil then -- peepholes, gains and first states at random
        start = {}
        for _, name in ipairs(program(make(case)).params:names()) do
          start[name:match "[^.]*$"] = { "normal", name:find "gain" and 1 or 0, 0.4 }
        end
      end
      local net = neap.chain { neap.linear { size = 3 }, make(case, { init = start }) }
      for _, lengths in ipairs { { 5, 2 }, { 1, 4, 3 } } do
        -- near 0 a normalised product bends more than a wider step allows
        local errors = neap.gradcheck(net, { T = 5, lengths = lengths, input = 2,
          step = case[2].layer_norm and 1e-6 or nil })
        for name, e in pairs(errors) do assert(e < 1e-6, ("%s: %.2e"):format(name, e)) end
        assert.same({}, (function()
          local still = {}
          for name, yes in pairs(getmetatable(errors).unreached) do
            if yes then still[#still + 1] = name end
          end
          return still
        end)())
      end
    end)
  end
end)

describe("streams and a C host have the bits of the whole run of", function()
  for _, case in ipairs(cases) do
    it(("%s { %s }"):format(case[1], text_of(case[2])), function()
      local layer = make(case)
      local pr = neap.program(function(rec)
        return { y = (layer(rec:input("x", { space = "T", dims = { 3 } }))) }
      end)
      help.scatter(pr.params, neap.rng(5), 0.6)
      host.same(pr, sequences)
    end)
  end
end)

-- ---- other software ----

for _, name in ipairs { "onnx", "cells" } do
  local golden = assert(core.load_archive(("spec/golden/%s.st"):format(name)))

  describe(name == "onnx" and "ONNX Runtime computes the same:" or "PyTorch computes the same:",
    function()
      for line in golden:text "cases":gmatch "[^\n]+" do
        local title, text = line:match "^(.-)\t(.*)$"
        it(title, function()
          local layer = assert(load("local neap = ... return " .. text))(neap)
          local lengths = golden:tensor "lengths"
          local function of(key) return golden:tensor(title .. "." .. key) end
          local names = { "h" }
          if of "c0" then names[2] = "c" end
          local learns = of "factor.y" ~= nil

          local pr = neap.program(function(rec)
            local first, out = {}, {}
            local x = rec:input("x", { space = "T", dims = { of("x"):shape()[3] } })
            for _, s in ipairs(names) do
              first[s] = rec:input(s .. "0", { space = "B", dims = { of(s .. "0"):shape()[2] } })
            end
            local y, last = layer(x, first)
            out.y = y
            for _, s in ipairs(names) do out[s .. "_n"] = last[s] end
            if learns then
              for key, v in pairs { y = y, h_n = last.h, c_n = last.c } do
                local a = rec:input("factor." .. key, { space = v.space > 0 and "T" or "B",
                  dims = v.dims })
                local sum = op.sum_rows(op.reshape(op.sum(v * a), { 1 }))
                out.loss = out.loss and out.loss + sum or sum
              end
              out.loss = op.reshape(out.loss, {})
            end
            return out
          end)

          local batch = {}
          for key, id in pairs(pr.inputs) do
            local data = of(key)
            batch[key] = (select(2, pr.core:type(id))) > 0
              and { data = data, lengths = lengths, padded = true } or data
          end
          local weights = 0
          for _, full in ipairs(pr.params:names()) do
            pr.params:set(full, assert(of(full:match "[^.]*$"), full))
            weights = weights + 1
          end
          local run = pr:run { learn = true }
          run:learning(false)
          run:want_gradient "x"
          for _, s in ipairs(names) do run:want_gradient(s .. "0") end
          run:feed(batch):forward()
          local bound = 1e-5 -- largest error over the tensor's largest value
          for _, key in ipairs { "y", "h_n", of "c0" and "c_n" or nil } do
            assert.same(of(key):shape(), run:value(key):shape())
            help.near(run:value(key), of(key), bound, key)
          end
          if not learns then return end
          pr.params:zero_grad()
          run:backward()
          help.near(run:gradient "x", of "grad.x", bound, "gradient of x")
          for _, s in ipairs(names) do
            help.near(run:gradient(s .. "0"), of("grad." .. s .. "0"), bound, "gradient of " .. s)
          end
          local compared = 0
          for _, key in ipairs(golden:names()) do
            local weight = key:sub(1, #title + 6) == title .. ".grad."
              and key:sub(#title + 7):match "^[wbpg].*_.*"
            if weight then
              for _, full in ipairs(pr.params:names()) do
                if full:match "[^.]*$" == weight then
                  help.near(pr.params:grad(full), of("grad." .. weight), bound, weight)
                  compared = compared + 1
                end
              end
            end
          end
          assert.equal(weights, compared)
        end)
      end
    end)
end

-- ---- options that do nothing, and options that mean each other ----

-- Two layers over the same parameters, outputs and gradients compared in double. change(params)
-- sets what the second one has in another form.
local function same(a, b, change)
  local lengths = { 4, 1, 6, 3 }
  local data = {}
  local rng = neap.rng(6)
  for i = 1, 14 do data[i] = { rng:normal(), rng:normal(), rng:normal() } end
  local batch = { x = { data = neap.tensor(data), lengths = neap.tensor(lengths, "i32") } }
  local made, set = {}, nil
  for k, layer in ipairs { a, b } do
    local pr = neap.program(function(rec)
      local y, last = layer(rec:input("x", { space = "T", dims = { 3 } }))
      return { y = y, h = last.h, loss = help.loss(y, last.h, last.c) }
    end)
    if k == 1 then
      help.scatter(pr.params, neap.rng(2), 0.5)
      set = pr.params
    else
      for _, name in ipairs(pr.params:names()) do
        local own = not pr.params:frozen(name) and set:has(name)
        if own and #pr.params:get(name) == #set:get(name) then
          pr.params:set(name, set:get(name))
        end
      end
      if change then change(pr.params, set) end
    end
    local run = pr:run { learn = true, double = true }
    run:learning(false)
    run:feed(batch):forward()
    run:backward()
    made[k] = { pr = pr, run = run }
  end
  for _, name in ipairs { "y", "h", "loss" } do
    help.near(made[2].run.core:read_doubles(made[2].pr.outputs[name], "padded"),
      made[1].run.core:read_doubles(made[1].pr.outputs[name], "padded"), 1e-9, name)
  end
  if change then return end
  for _, name in ipairs(made[1].pr.params:names()) do
    if not made[1].pr.params:frozen(name) then
      help.near(made[2].run.core:param_grad(name), made[1].run.core:param_grad(name), 1e-9, name)
    end
  end
end

describe("an option that is set to do nothing leaves the fused layer's numbers:", function()
  local function itself(v) return v end
  local nothing = {
    elman = { { clip = 1e6 }, { zoneout = 0 }, { recurrent_dropout = 0.5 },
      { activation = op.tanh }, { init = "orthogonal" }, { fused = false } },
    lstm = { { clip = 1e6 }, { zoneout = { h = 0 } }, { recurrent_dropout = 0.5 },
      { peepholes = true }, { watch = true }, { gate = op.sigmoid }, { gate = { f = "sigmoid" } },
      { candidate = op.tanh }, { output = op.tanh }, { fused = false }, { forget_bias = 1 },
      { gates = { i = itself, f = itself, g = itself, o = itself } } },
    gru = { { clip = 1e6 }, { zoneout = 0 }, { recurrent_dropout = 0.5 }, { watch = true },
      { gate = op.sigmoid }, { candidate = op.tanh }, { fused = false },
      { gates = { r = itself, z = itself, n = itself } } },
  }
  for kind, list in pairs(nothing) do
    for _, options in ipairs(list) do
      it(("%s { %s }"):format(kind, text_of(options)), function()
        local fused = make { kind, {} }
        assert.is_true(fused.fused)
        same(fused, make { kind, options })
      end)
    end
  end

  it("a projection by the unit matrix", function()
    same(make { "lstm", {} }, make { "lstm", { projection = 4 } }, function(params)
      params:set("r.weight_hr",
        neap.tensor { { 1, 0, 0, 0 }, { 0, 1, 0, 0 }, { 0, 0, 1, 0 }, { 0, 0, 0, 1 } })
    end)
  end)

  it("learned first states that are zero, in the fused op", function()
    for _, kind in ipairs { "elman", "lstm", "gru" } do
      local learned = make { kind, { first = "learned" } }
      assert.is_true(learned.fused)
      same(make { kind, {} }, learned, function() end)
    end
  end)

  it("both meanings of z, by the signs of its weights", function()
    for _, reset in ipairs { "before", "after" } do
      same(make { "gru", { reset = reset } }, make { "gru", { reset = reset, update = "take" } },
        function(params)
          for _, name in ipairs(params:names()) do
            if not params:frozen(name) then
              local t = params:get(name)
              local r, z, n = op.split(t, 3, 1)
              params:set(name, op.concat({ r, -z, n }, 1))
            end
          end
        end)
    end
  end)

  it("a coupled forget gate, as a gate of the script's own", function()
    local own = make { "lstm", { gates = { f = function(_, v) return 1 - v.i end } } }
    same(own, make { "lstm", { coupled = true } }, function(params, set)
      for _, name in ipairs(params:names()) do
        if not params:frozen(name) then
          local i, _, g, o = op.split(set:get(name), 4, 1)
          params:set(name, op.concat({ i, g, o }, 1))
        end
      end
    end)
  end)
end)

-- ---- starts ----

describe("starts:", function()
  local function start_of(kind, options, name)
    options.size, options.name = 6, "r"
    return program(neap[kind](options)).params:get("r." .. name):totable()
  end

  it("an orthogonal one is one of each gate's block", function()
    for _, init in ipairs { "orthogonal", { weight_hh = "orthogonal" },
      { weight_hh = { "orthogonal", 2 } } } do
      local w = start_of("lstm", { init = init }, "weight_hh")
      local square = type(init) == "table" and type(init.weight_hh) == "table" and 4 or 1
      for block = 0, 3 do
        for i = 1, 6 do
          for j = 1, 6 do
            local dot = 0
            for k = 1, 6 do dot = dot + w[6 * block + i][k] * w[6 * block + j][k] end
            assert.near(i == j and square or 0, dot, 1e-5)
          end
        end
      end
    end
  end)

  it("a Xavier one counts each gate's block", function()
    local bound, largest = (6 / (6 + 3)) ^ 0.5, 0
    for _, row in ipairs(start_of("gru", { init = "xavier" }, "weight_ih")) do
      for _, v in ipairs(row) do largest = math.max(largest, math.abs(v)) end
    end
    assert.is_true(largest <= bound and largest > 0.8 * bound, largest)
  end)

  it("others go to all matrices, or to the parameter they name; the rest starts as ever", function()
    for _, row in ipairs(start_of("elman", { init = 0.25 }, "weight_hh")) do
      for _, v in ipairs(row) do assert.equal(0.25, v) end
    end
    for _, v in ipairs(start_of("gru", { init = { bias_hh = 3 } }, "bias_hh")) do
      assert.equal(3, v)
    end
    assert.same(start_of("lstm", {}, "weight_hh"),
      start_of("lstm", { init = { weight_ih = "zeros" } }, "weight_hh"))
    local b = start_of("lstm", { init = { bias_ih = "zeros" }, forget_bias = 2 }, "bias_ih")
    for k, v in ipairs(b) do assert.equal(k > 6 and k <= 12 and 2 or 0, v) end
    for _, v in ipairs(start_of("lstm", { first = "learned" }, "first_c")) do assert.equal(0, v) end
  end)
end)

-- ---- chance ----

-- Ones in, on a layer whose numbers show what was dropped: y of a learning run, rows by steps.
local function drawn(layer, options)
  local pr = neap.program(function(rec)
    local first = rec:input("first", { space = "B", dims = { 50 } })
    local y = layer(rec:input("x", { space = "T", dims = { 50 } }), options.first and { h = first })
    return { y = y }
  end)
  for name, v in pairs(options.set or {}) do
    local t = pr.params:get("r." .. name)
    if type(v) == "table" then t = neap.tensor(v) else t:fill(v) end
    pr.params:set("r." .. name, t)
  end
  local run = pr:run { learn = true, seed = options.seed }
  run:learning(options.learning ~= false)
  if options.number then run:set(options.number, options.rate) end
  local x, first = neap.zeros { 4, 3, 50 }, neap.zeros { 3, 50 }
  first:fill(1)
  run:feed { x = x:fill(1), first = first }:forward()
  return run:value("y"):totable() -- [T][B][50]
end

local unit = {}
for i = 1, 50 do
  unit[i] = {}
  for j = 1, 50 do unit[i][j] = i == j and 1 or 0 end
end

describe("chance:", function()
  it("dropout of sequences has one mask for all steps, another for each row and seed", function()
    local layer = neap.dropout { rate = 0.4, sequence = true, name = "r" }
    local y = drawn(layer, { seed = 1 })
    local zeros = 0
    for t = 1, 4 do
      assert.same(y[1], y[t])
      for b = 1, 3 do
        for j = 1, 50 do
          local v = y[t][b][j]
          assert(v == 0 or math.abs(v - 1 / 0.6) < 1e-6)
          if t == 1 and v == 0 then zeros = zeros + 1 end
        end
      end
    end
    assert.is_true(zeros > 35 and zeros < 85, zeros) -- of 150, 60 are expected
    assert.not_same(y[1][1], y[1][2])
    assert.same(y, drawn(layer, { seed = 1 }))
    assert.not_same(y, drawn(layer, { seed = 2 }))
    for _, row in ipairs(drawn(layer, { learning = false })[2]) do
      for _, v in ipairs(row) do assert.equal(1, v) end
    end
  end)

  it("recurrent dropout has one mask for all steps, another for each row", function()
    local layer = neap.elman { size = 50, activation = "identity", bias = false, name = "r",
      recurrent_dropout = 0.5 }
    local options = { first = true, set = { weight_ih = 0, weight_hh = unit }, seed = 3 }
    local y = drawn(layer, options) -- what is kept doubles at each step
    local kept = 0
    for b = 1, 3 do
      for j = 1, 50 do
        local one = y[1][b][j]
        assert(one == 0 or one == 2)
        kept = kept + one / 2
        for t = 2, 4 do assert.equal(one > 0 and 2 ^ t or 0, y[t][b][j]) end
      end
    end
    assert.is_true(kept > 50 and kept < 100, kept)
    assert.not_same(y[1][1], y[1][2])
    options.number, options.rate = "r.recurrent_dropout", 0
    assert.equal(1, drawn(layer, options)[4][2][7])
    options.number, options.learning = nil, false
    assert.equal(1, drawn(layer, options)[4][2][7])
  end)

  it("zoneout keeps old values at its rate, and is the mean when not learning", function()
    local layer = neap.elman { size = 50, activation = "identity", bias = false, name = "r",
      zoneout = 0.3 }
    local options = { set = { weight_ih = 1 / 50, weight_hh = 0 }, seed = 3 }
    local y = drawn(layer, options) -- from 0 to 1, at a step of its own for each unit
    local changed = 0
    for b = 1, 3 do
      for j = 1, 50 do
        local before = 0
        for t = 1, 4 do
          local v = y[t][b][j]
          assert(math.abs(v) < 1e-6 or math.abs(v - 1) < 1e-6)
          assert(v > before - 1e-6)
          before = v
        end
        changed = changed + y[1][b][j]
      end
    end
    assert.is_true(changed > 85 and changed < 125, changed) -- of 150, 105 are expected
    options.learning = false
    y = drawn(layer, options)
    assert.near(0.7, y[1][2][3], 1e-6)
    assert.near(0.7 + 0.3 * 0.7, y[2][1][3], 1e-6)
  end)

  it("gradients of what is drawn are those of the numbers that were drawn", function()
    for _, options in ipairs { { recurrent_dropout = 0.4 }, { zoneout = 0.3 } } do
      for _, kind in ipairs { "elman", "lstm", "gru" } do
        local layer = make { kind, options }
        local pr = neap.program(function(rec)
          local x = neap.dropout { rate = 0.3, sequence = true }
            (neap.linear { size = 3 } (rec:input("x", { space = "T", dims = { 3 } })))
          return { loss = help.loss((layer(x))) }
        end)
        help.scatter(pr.params, neap.rng(1), 0.5)
        local run = pr:run { learn = true, double = true, seed = 5 }
        local x = help.normal(neap.rng(4), { 5, 2, 3 })
        local function loss()
          run:seed(5)
          run:feed { x = x }:forward()
          return run:item()
        end
        local at = loss()
        assert.equal(at, loss())
        run:backward()
        local names = {}
        for _, name in ipairs(pr.params:names()) do
          if not pr.params:frozen(name) then names[#names + 1] = name end
        end
        help.gradients(run, names, loss, 1e-7)
        run:seed(6)
        run:feed { x = x }:forward()
        assert.not_equal(at, run:item())
      end
    end
  end)

  it("inside another cell: one mask, made before the steps", function()
    local inner = neap.elman { size = 50, activation = "identity", bias = false, name = "inner",
      recurrent_dropout = 0.5 }
    local outer = neap.cell {
      name = "r",
      state = function() return { h = 50 } end,
      prepare = function() return { mask = inner:still() } end,
      step = function(_, x, s, ctx) return inner:at_step(x, s, ctx.mask) end,
    }
    local set = { ["inner.weight_ih"] = 0, ["inner.weight_hh"] = unit }
    local y = drawn(outer {}, { first = true, set = set, seed = 2 })
    local kept = 0
    for j = 1, 50 do
      for t = 2, 4 do assert.equal(y[1][1][j] > 0 and 2 ^ t or 0, y[t][1][j]) end
      kept = kept + y[1][1][j] / 2
    end
    assert.is_true(kept > 10 and kept < 40, kept)
    raises("elman: recurrent_dropout draws one mask for each sequence: layer:still(x) makes it",
      function()
        program(neap.cell { state = function() return { h = 50 } end, step = function(_, x, s)
          local v, next_states = inner:at_step(x, s)
          return v, next_states
        end } {})
      end)
  end)
end)

-- ---- what stands around layers ----

describe("around layers:", function()
  local x = { { { 1, -0.5, 2 }, { 0.3, 1, -1 } }, { { 0, 1, 0.5 }, { 2, 2, 1 } } }

  it("a highway is t layer(x) + (1 - t) x, and lets x through at first", function()
    local gru = neap.gru { size = 3 }
    local layer = neap.highway { gru, name = "r" }
    local pr = neap.program(function(rec)
      local v = rec:input("x", { space = "T", dims = { 3 } })
      local y, last = layer(v)
      local inner = gru(v) -- the same parameters
      local t = op.sigmoid(op.linear(v, rec:param("r.weight", { 3, 3 }),
        rec:param("r.bias", { 3 })))
      return { y = y, h = last.h, same = t * inner + (1 - t) * v, t = t }
    end)
    assert.same({ -1, -1, -1 }, pr.params:get("r.bias"):totable())
    for name, e in pairs(neap.gradcheck(layer, { T = 4, B = 2, input = 3 })) do
      assert(e < 1e-6, name)
    end
    help.scatter(pr.params, neap.rng(3), 0.5)
    local run = pr:run():feed { x = neap.tensor(x) }:forward()
    help.near(run:value "y", run:value "same", 1e-6, "highway")
    pr.params:set("r.bias", pr.params:get("r.bias"):fill(-40))
    run:feed { x = neap.tensor(x) }:forward()
    help.near(run:value "y", neap.tensor(x), 1e-6, "closed")
  end)

  it("a state may be what another was a step before: delays, changed places", function()
    local function cell(states, step)
      return neap.cell { name = "late",
        params = function(p, c) p.w, p.u = { c.input, c.size }, { c.size, c.size } end,
        state = function(c)
          local t = {}
          for name in states:gmatch "%a" do t[name] = c.size end
          return t
        end,
        step = step } { size = 2 }
    end
    local function new(p, x, z) return op.tanh(op.matmul(x, p.w) + op.matmul(z, p.u)) end
    local layers = {
      delay = cell("a b", function(p, x, s)
        local h = new(p, x, s.b)
        return h, { a = h, b = s.a }
      end),
      twice = cell("a b c", function(p, x, s)
        local h = new(p, x, s.c + s.a)
        return h, { a = h, b = s.a, c = s.b }
      end),
      places = cell("a b", function(p, x, s)
        return s.a * 1, { a = s.b, b = new(p, x, s.a) }
      end),
      both = cell("a b c", function(p, x, s)
        local h = new(p, x, s.b + 0.5 * s.c)
        return h * s.c, { a = h, b = s.a, c = s.a }
      end),
    }
    for name, l in pairs(layers) do
      local errors = neap.gradcheck(l, { T = 6, input = 3, lengths = { 6, 0, 1, 4 } })
      for path, e in pairs(errors) do assert(e < 1e-6, name .. " " .. path) end
      local pr = neap.program(function(rec)
        local y = l(rec:input("x", { space = "T", dims = { 3 } }))
        return { loss = op.sum(op.sum_rows(y)) }
      end)
      local seen = {}
      for i, options in ipairs { {}, { recompute = true }, { pool = require "neap.core".pool(2) } } do
        options.learn = true
        local run = pr:run(options):feed { x = neap.tensor { { { 1, 2, -1 } },
          { { 0.5, -1, 1 } }, { { -0.3, 1, 2 } }, { { 1, 1, 1 } } } }:forward()
        pr.params:zero_grad()
        run:backward()
        seen[i] = pr.params:grad(pr.params:names()[1])
        help.near(seen[i], seen[1], 1e-6, name)
      end
      assert.equal(seen[1]:tobytes(), seen[3]:tobytes(), name) -- two threads
    end
  end)

  it("both directions are merged by concat, sum, mean and mul", function()
    local inner, made = neap.gru { size = 3, name = "in" }, {}
    local params
    for _, merge in ipairs { "concat", "sum", "mean", "mul" } do
      local layer = neap.bidir { inner, merge = merge, name = "r" }
      local pr = neap.program(function(rec)
        local y, last = layer(rec:input("x", { space = "T", dims = { 3 } }))
        return { y = y, h = last.h }
      end)
      if params then pr.params:copy(params) else params = pr.params end
      local run = pr:run():feed { x = neap.tensor(x) }:forward()
      made[merge] = { y = run:value "y", h = run:value "h" }
      for name, e in pairs(neap.gradcheck(neap.chain { neap.linear { size = 2 }, layer },
        { T = 4, B = 2, input = 3 })) do assert(e < 1e-6, merge .. " " .. name) end
    end
    for key, both in pairs(made.concat) do
      local a, b = op.split(both, 2)
      help.near(made.sum[key], a + b, 1e-6, "sum")
      help.near(made.mean[key], (a + b) / 2, 1e-6, "mean")
      help.near(made.mul[key], a * b, 1e-6, "mul")
    end
  end)
end)

-- ---- fewer steps ----

describe("a pyramid:", function()
  local function net()
    return neap.chain { neap.bidir { neap.gru { size = 3 } }, neap.fold {},
      neap.lstm { size = 4, layer_norm = true }, neap.fold { steps = 3 }, neap.elman { size = 2 } }
  end
  local lengths = { 5, 0, 13, 1, 6, 7 }

  it("has a sequence of its own for each number of steps", function()
    local pr = neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 2 } })
      local a = op.fold_time(x)
      return { a = a, b = op.fold_time(a, 3), c = op.fold_time(x, 6), n = op.lengths(a),
        back = op.reverse(a), mean = op.mean_time(a) }
    end)
    local names = {}
    for i, s in ipairs(pr.spaces) do names[i] = ("%s %d/%d"):format(s.name, s.of, s.factor) end
    assert.same({ "B 0/1", "T 1/1", "T/2 1/2", "T/6 1/6" }, names)
    local data = {}
    for i = 1, 32 do data[i] = { i, -i } end
    local run = pr:run():feed { x = { data = neap.tensor(data),
      lengths = neap.tensor(lengths, "i32") } }
    run:forward()
    assert.same({ 3, 0, 7, 1, 3, 4 }, run:value("n"):totable())
    assert.equal(run:value("b"):tobytes(), run:value("c"):tobytes())
    assert.same({ { 1, -1, 2, -2 }, { 3, -3, 4, -4 }, { 5, -5, 0, 0 } },
      table.move(run:value("a", "concat"):totable(), 1, 3, 1, {}))
    assert.same({ 5, -5, 0, 0 }, run:value("back", 1)[1]:totable())
    assert.same({ 3, -3, 2, -2 }, run:value("mean")[1]:totable())
    -- its lengths may be said, but not others
    run.core:lengths(2, neap.tensor({ 3, 0, 7, 1, 3, 4 }, "i32"))
    assert.error_matches(function()
      run.core:lengths(2, neap.tensor({ 3, 0, 7, 1, 3, 5 }, "i32"))
    end, "sequence 6 of 'T/2': expected 4, from that of 'T', got 5")
    run.core:batch(6)
    assert.error_matches(function() run.core:lengths(2, neap.tensor(lengths, "i32")) end,
      "those of 'T' must be known before those of 'T/2'")
  end)

  it("learns: gradients, fused and not, for ragged lengths", function()
    for _, recorded in ipairs { false, true } do
      local layer = net()
      local errors = neap.gradcheck(function(x)
        x.rec.hints = { recorded = recorded }
        return layer(x)
      end, { T = 13, lengths = lengths, input = 2 })
      for name, e in pairs(errors) do assert(e < 1e-6, ("%s: %.2e"):format(name, e)) end
    end
  end)

  it("is saved, runs whole in C, and says why it cannot be streamed", function()
    local layer = neap.chain { neap.gru { size = 3 }, neap.fold {}, neap.elman { size = 2 } }
    local pr = neap.program(function(rec)
      local y, last = layer(rec:input("x", { space = "T", dims = { 2 } }))
      return { y = y, h = last.h }
    end)
    help.scatter(pr.params, neap.rng(3), 0.5)
    local x = {}
    for t = 1, 9 do x[t] = { { math.sin(t), math.cos(t) } } end
    local run = pr:run():feed { x = neap.tensor(x) }:forward()
    local path = os.tmpname()
    assert(pr:save(path))
    local again = assert(neap.load(path)):run():feed { x = neap.tensor(x) }:forward()
    assert.equal(run:value("y"):tobytes(), again:value("y"):tobytes())
    local text = {}
    for t, row in ipairs(x) do text[t] = ("%.17g %.17g"):format(row[1][1], row[1][2]) end
    local out, err, status = host.execute(("%s %s --hex"):format(host.run_model, path),
      table.concat(text, "\n") .. "\n")
    os.remove(path)
    assert.equal("", err)
    assert.equal(0, status)
    assert.equal(("h %s\ny %s\n\n"):format(table.concat(host.bits(run:value "h"), " "),
      table.concat(host.bits(run:value("y", "concat")), " ")), out)
    assert.matches("fold_time of layer chain.fold2 reads later steps", pr:reads_future(), 1, true)
    raises("reads later steps", function() pr:stream() end)
    raises("fold_time of layer chain.fold2", function() pr:stream { lookahead = 4 } end)
  end)

  it("stands neither in a cell nor over numbers", function()
    raises("fold: expected a sequence of vectors", function()
      neap.program(function(rec)
        local y = neap.fold {} (rec:input("x", { space = "T" }))
        return y
      end)
    end)
    raises("fold: steps: expected an integer from 2 to 65536, came 1", function()
      neap.fold { steps = 1 }
    end)
    raises("fold_time: expected a recorded sequence such as [T,B,8], came f32 [2]", function()
      op.fold_time(neap.zeros { 2 })
    end)
    raises("mixes time steps", function()
      neap.program(function(rec)
        local y = neap.cell { state = function() return { h = 4 } end, step = function(_, x)
          local h = op.fold_time(x)
          return h, { h = h }
        end } {} (rec:input("x", { space = "T", dims = { 2 } }))
        return y
      end)
    end)
  end)
end)

-- ---- gates in the script ----

describe("gates:", function()
  it("a function sees the step's values so far and gives another value", function()
    local seen = {}
    local function look(name)
      return function(value, v)
        seen[name] = {}
        for key in pairs(v) do table.insert(seen[name], key) end
        table.sort(seen[name])
        assert.equal(4, value.width)
        return value
      end
    end
    program(make { "lstm", { gates = { i = look "i", f = look "f", g = look "g", o = look "o" } } })
    assert.same({ i = { "c", "h", "x" }, f = { "c", "h", "i", "x" }, g = { "c", "f", "h", "i", "x" },
      o = { "c", "f", "g", "h", "i", "x" } }, seen)
    seen = {}
    program(make { "gru", { gates = { n = look "n" } } })
    assert.same({ n = { "h", "r", "x", "z" } }, seen)
  end)

  it("a gate may be another cell's business: by time, by input, by a parameter", function()
    local layer = make { "lstm", { watch = true, gates = {
      f = function(f, v) return f * op.sigmoid(op.sum(v.x, 1, true)) end,
      o = function() return 1 end, -- by a function too
      i = function(i) return i * neap.param("share", { 4 }, "ones") end,
    } } }
    local errors = neap.gradcheck(layer, { T = 4, B = 2, input = 3 })
    assert.is_number(errors["r.share"])
    for name, e in pairs(errors) do assert(e < 1e-6, name) end
  end)

  it("that is watched may be called again: then names have the call's number", function()
    local layer = neap.gru { size = 2, watch = true, name = "r" }
    local pr = neap.program(function(rec)
      local x = rec:input("x", { space = "T", dims = { 2 } })
      return { one = layer(x), two = layer(x * 2), three = layer(x) }
    end)
    local run = pr:run():feed { x = neap.tensor { { { 1, -1 } }, { { 0.5, 2 } } } }:forward()
    local once = neap.program(function(rec)
      return { y = layer(rec:input("x", { space = "T", dims = { 2 } })) }
    end, { params = pr.params })
    local function z_of(numbers)
      return once:run():feed { x = neap.tensor(numbers) }:forward():value("r.z"):tobytes()
    end
    local first, second = z_of { { { 1, -1 } }, { { 0.5, 2 } } }, z_of { { { 2, -2 } }, { { 1, 4 } } }
    assert.not_equal(first, second)
    assert.equal(first, run:value("r.z"):tobytes())
    assert.equal(second, run:value("r.z.2"):tobytes())
    assert.equal(first, run:value("r.z.3"):tobytes())
    raises("r.z.4", function() run:value "r.z.4" end)
  end)

  it("frozen gates can be read as what they are not: they are numbers of the script", function()
    local pr = scattered(make { "lstm", { watch = true, gates = { f = 0, i = 1, o = 1 },
      output = "identity" } })
    assert.is_nil(pr.outputs["r.f"])
    local x = neap.tensor { { { 1, -1, 0.5 } }, { { 0.2, 2, -0.3 } } }
    local run = pr:run():feed { x = x }:forward()
    assert.equal(run:value("r.g"):tobytes(), run:value("y"):tobytes()) -- the plain network
  end)
end)

-- ---- mistakes ----

describe("mistakes:", function()
  for text, f in pairs {
    ["lstm: peepholes: expected true or false, came 1"] = function()
      neap.lstm { size = 2, peepholes = 1 }
    end,
    ["lstm: projection: expected an integer from 1, came 0"] = function()
      neap.lstm { size = 2, projection = 0 }
    end,
    ["gru: unknown option \"projection\""] = function() neap.gru { size = 2, projection = 2 } end,
    ["elman: unknown option \"gates\""] = function() neap.elman { size = 2, gates = {} } end,
    ["lstm: unknown option \"proj_size\"; here it is called \"projection\""] = function()
      neap.lstm { size = 2, proj_size = 2 }
    end,
    ["lstm: clip: expected a number above 0, came 0"] = function()
      neap.lstm { size = 2, clip = 0 }
    end,
    ["gru: recurrent_dropout: expected a number in [0,1), came 1"] = function()
      neap.gru { size = 2, recurrent_dropout = 1 }
    end,
    ["lstm: zoneout: c: expected a number in [0,1), came -1"] = function()
      neap.lstm { size = 2, zoneout = { c = -1 } }
    end,
    ["gru: zoneout: unknown option \"c\"; there are: h"] = function()
      neap.gru { size = 2, zoneout = { c = 0.1 } }
    end,
    ["gru: zoneout: h: expected a number in [0,1), came \"much\""] = function()
      neap.gru { size = 2, zoneout = "much" }
    end,
    ["elman: first: expected \"zeros\" or \"learned\", came \"ones\""] = function()
      neap.elman { size = 2, first = "ones" }
    end,
    ["gru: update: expected \"keep\" or \"take\", came true"] = function()
      neap.gru { size = 2, update = true }
    end,
    ["lstm: init: unknown option \"peephole_i\""] = function()
      neap.lstm { size = 2, init = { peephole_i = 1 } }
    end,
    ["lstm: init: expected zeros, ones, xavier, orthogonal, a number"] = function()
      neap.lstm { size = 2, init = "orthogonl" }
    end,
    ["gru: init: bias_ih is a vector: an orthogonal start is one of a matrix"] = function()
      neap.gru { size = 2, init = { bias_ih = "orthogonal" } }
    end,
    ["lstm: gates: expected a number or a function for i, f, g or o, came f = \"open\""] = function()
      neap.lstm { size = 2, gates = { f = "open" } }
    end,
    ["gru: gates: expected a number or a function for r, z or n, came i = 1"] = function()
      neap.gru { size = 2, gates = { i = 1 } }
    end,
    ["gru: the activation of z must give a value or a number, came nil"] = function()
      neap.program(function(rec)
        local y = neap.gru { size = 2, gate = { z = function() end } } (rec:input("x",
          { space = "T", dims = { 3 } }))
        return y
      end)
    end,
    ["lstm: the function in gates of i must give a value or a number, came nil"] = function()
      neap.program(function(rec)
        local y = neap.lstm { size = 2, gates = { i = function() end } } (rec:input("x",
          { space = "T", dims = { 3 } }))
        return y
      end)
    end,
    ["lstm: gate: unknown option \"g\""] = function()
      neap.lstm { size = 2, gate = { g = "tanh" } }
    end,
    ["lstm: gate: unknown activation \"sigmod\"; did you mean \"sigmoid\"?"] = function()
      neap.lstm { size = 2, gate = { f = "sigmod" } }
    end,
    ["gru: candidate: leaky_relu: unknown option \"slope\""] = function()
      neap.gru { size = 2, candidate = { "leaky_relu", slope = 0.1 } }
    end,
    ["elman: elu: alpha: expected a number, came \"1\""] = function()
      neap.elman { size = 2, activation = { "elu", alpha = "1" } }
    end,
    ["elman: unknown activation \"ScaledTanh\"; did you mean \"scaled_tanh\"?"] = function()
      neap.elman { size = 2, activation = "ScaledTanh" }
    end,
    ["lstm: forget_bias: a coupled forget gate is 1 - i and has none"] = function()
      neap.lstm { size = 2, forget_bias = 1, coupled = true }
    end,
    ["lstm: gate: a coupled forget gate is 1 - i and has no activation of its own"] = function()
      neap.lstm { size = 2, coupled = true, gate = { f = "sigmoid" } }
    end,
    ["bidir: merge: expected \"concat\", \"sum\", \"mean\" or \"mul\", came \"min\""] = function()
      neap.bidir { neap.gru { size = 2 }, merge = "min" }
    end,
    ["highway: the layer makes [T,B,2] from [T,B,3]: the widths must agree"] = function()
      neap.program(function(rec)
        local x = rec:input("x", { space = "T", dims = { 3 } })
        local y = neap.highway { neap.gru { size = 2 } } (x)
        return y
      end)
    end,
    ["dropout: expected a sequence such as [T,B,64], came [B,3]"] = function()
      neap.program(function(rec)
        local drop = neap.dropout { rate = 0.5, sequence = true }
        local y = drop(rec:input("x", { space = "B", dims = { 3 } }))
        return y
      end)
    end,
    ["activation: affine: unknown option \"gamma\""] = function()
      neap.activation("affine", { gamma = 1 })
    end,
  } do
    it(text, function() raises(text, f) end)
  end

  it("row 10: a gate without bounds is warned of, once for each line", function()
    local layer = neap.lstm { size = 2, gate = { i = "sigmoid", f = "relu" } }
    assert.matches("; lstm: gate f: relu has no bounds", tostring(layer), 1, true)
    assert.not_matches("bounds", tostring(neap.gru { size = 2, gate = "hard_sigmoid" }))
    local script = os.tmpname()
    local file = assert(io.open(script, "w"))
    file:write 'for _ = 1, 2 do require "neap".gru { size = 2, gate = "softplus" } end'
    file:close()
    local out, err, status = host.execute("scripts/neap run " .. script)
    os.remove(script)
    assert.equal("", out)
    assert.equal(0, status)
    assert.equal(("Lua warning: %s:1: gru: gate: softplus has no bounds: such a gate neither closes "
      .. "nor stays open\n"):format(script), err)
  end)
end)
