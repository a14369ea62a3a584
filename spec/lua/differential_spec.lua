-- Random architectures on random ragged batches, beside the scalar oracle: outputs, last states and
-- loss in double and float, gradients against finite differences of the oracle, streams and runs in
-- segments against the whole sequence. A failing case says its seed; NEAP_SEED=n runs that one alone.
local core = require "neap.core"
local neap = require "neap"
local op = neap.op
local help = require "run_help"
local oracle = require "oracle"

-- ---- drawing an architecture ----

local function pick(rng, list) return list[rng:int(#list)] end
local function chance(rng, p) return rng:uniform() < p end

local states = { elman = { "h" }, lstm = { "h", "c" }, gru = { "h" } }

local bounded = { "sigmoid", "sigmoid", "hard_sigmoid" }
local around_zero = { "tanh", "tanh", "softsign", "leaky_relu", "identity" }

-- Options of recurrent layers, each now and then.
local recurrent = {
  elman = function(rng)
    return { fn = pick(rng, { "tanh", "tanh", "relu", "sigmoid", "identity", "softplus",
      "softsign" }) }
  end,
  lstm = function(rng)
    return { peepholes = chance(rng, 0.2) or nil, coupled = chance(rng, 0.15) or nil,
      projection = chance(rng, 0.15) and rng:int(5) or nil,
      gate = chance(rng, 0.15) and pick(rng, bounded) or nil,
      candidate = chance(rng, 0.15) and pick(rng, around_zero) or nil,
      output = chance(rng, 0.15) and pick(rng, around_zero) or nil }
  end,
  gru = function(rng)
    return { reset = pick(rng, { "after", "before" }),
      update = chance(rng, 0.2) and pick(rng, { "keep", "take" }) or nil,
      gate = chance(rng, 0.15) and pick(rng, bounded) or nil,
      candidate = chance(rng, 0.15) and pick(rng, around_zero) or nil }
  end,
}

-- How wide a recurrent layer's state is.
local function state_width(l, name) return name == "h" and l.projection or l.size end

local function size(rng) return chance(rng, 0.15) and 8 + rng:int(12) or rng:int(7) end

-- A layer that takes vectors of that width; l.out: the width of what it gives.
local function draw_layer(rng, width, name, depth)
  local kind = pick(rng, { "elman", "lstm", "gru", "elman", "lstm", "gru", "bidir", "bidir",
    "residual", "highway", "fold", "linear", "layer_norm", "activation", "chain" })
  if depth > 1 and (kind == "bidir" or kind == "chain" or kind == "fold") then kind = "gru" end
  local l = { kind = kind, name = name, width = width, out = width }
  if recurrent[kind] then
    for k, v in pairs(recurrent[kind](rng)) do l[k] = v end
    l.size = size(rng)
    l.out, l.bias, l.fused = state_width(l, "h"), chance(rng, 0.8), chance(rng, 0.7)
    l.clip = chance(rng, 0.15) and pick(rng, { 0.5, 1, 2 }) or nil
    l.layer_norm = l.size >= 4 and chance(rng, 0.15) or nil
  elseif kind == "linear" then
    l.size, l.bias = size(rng), chance(rng, 0.8)
    l.out = l.size
  elseif kind == "layer_norm" and width < 4 or kind == "activation" then
    l.kind, l.fn = "activation", pick(rng, { "tanh", "sigmoid", "relu", "softplus", "elu" })
  elseif kind == "bidir" then
    repeat l.inner = draw_layer(rng, width, nil, 2) until recurrent[l.inner.kind]
    l.merge = pick(rng, { "concat", "concat", "sum", "mean", "mul" })
    l.out = l.merge == "concat" and 2 * l.inner.out or l.inner.out
  elseif kind == "residual" or kind == "highway" then
    repeat l.inner = draw_layer(rng, width, "in", depth + 1)
    until l.inner.out == width and l.inner.kind ~= "residual" and l.inner.kind ~= "highway"
  elseif kind == "fold" then
    l.steps = 1 + rng:int(2)
    l.out = l.steps * width
  elseif kind == "chain" then
    l.layers = {}
    for i = 1, 1 + rng:int(2) do
      l.layers[i] = draw_layer(rng, l.out, "c" .. i, depth + 1)
      l.out = l.layers[i].out
    end
  end
  local inner = l.inner and states[l.inner.kind]
  if depth == 1 and (states[kind] or kind == "bidir" and inner) then
    l.states = states[kind] or inner
    l.first = pick(rng, { "zero", "zero", "given", "learned" })
  end
  return l
end

local function draw(rng)
  local a = { layers = {}, recorded = chance(rng, 0.2) }
  local width
  if chance(rng, 0.4) then
    a.vocabulary = 1 + rng:int(8)
    a.layers[1] = { kind = "embed", name = "l1", size = size(rng), width = a.vocabulary }
    width = a.layers[1].size
  else
    width = size(rng)
  end
  a.width = width
  for _ = 1, rng:int(4) do
    local l = draw_layer(rng, width, "l" .. #a.layers + 1, 1)
    a.layers[#a.layers + 1] = l
    width = l.out
  end
  a.out = width
  a.pool = pick(rng, { "none", "none", "last", "mean", "max", "sum" })
  for _, l in ipairs(a.layers) do -- the loss is one for each step that comes in
    if l.kind == "fold" and a.pool == "none" then a.pool = "mean" end
  end
  a.loss = pick(rng, { "cross_entropy", "cross_entropy", "mse", "binary_cross_entropy" })
  a.smoothing = a.loss == "cross_entropy" and chance(rng, 0.2) and 0.1 or 0
  a.mask = chance(rng, 0.3)
  a.lengths = {}
  for b = 1, rng:int(6) do
    a.lengths[b] = pick(rng, { 0, 1, rng:int(3), rng:int(9), rng:int(9) })
  end
  return a
end

-- An architecture as text.
local function describe_layer(l)
  local parts = {}
  for _, key in ipairs { "size", "steps", "fn", "reset", "update", "bias", "fused", "peepholes", "coupled",
    "projection", "gate", "candidate", "output", "clip", "layer_norm", "merge", "first" } do
    if l[key] ~= nil then parts[#parts + 1] = key .. "=" .. tostring(l[key]) end
  end
  for _, inner in ipairs(l.layers or { l.inner }) do parts[#parts + 1] = describe_layer(inner) end
  return ("%s{%s}"):format(l.kind, table.concat(parts, " "))
end

local function describe_case(a)
  local parts = { a.vocabulary and "ids of " .. a.vocabulary or "vectors of " .. a.width }
  for _, l in ipairs(a.layers) do parts[#parts + 1] = describe_layer(l) end
  parts[#parts + 1] = ("pool %s, %s%s%s%s, lengths {%s}"):format(a.pool, a.loss,
    a.smoothing > 0 and " smoothed" or "", a.mask and " masked" or "",
    a.recorded and ", recorded" or "", table.concat(a.lengths, ","))
  return table.concat(parts, "\n  ")
end

-- ---- the program ----

local makers = {}
local function make(l) return makers[l.kind](l) end
function makers.embed(l) return neap.embed { size = l.size, input = l.width, name = l.name } end
function makers.linear(l) return neap.linear { size = l.size, bias = l.bias, name = l.name } end
function makers.layer_norm(l) return neap.layer_norm { name = l.name } end
function makers.activation(l) return neap.activation(l.fn) end
for kind in pairs(recurrent) do
  makers[kind] = function(l)
    local options = { activation = l.fn }
    for _, name in ipairs(require "neap.recurrent".options(kind)) do
      options[name] = options[name] or l[name]
    end
    options.first, options.name = nil, l.name
    return neap[kind](options)
  end
end
function makers.bidir(l) return neap.bidir { make(l.inner), merge = l.merge, name = l.name } end
function makers.residual(l) return neap.residual { make(l.inner), name = l.name } end
function makers.highway(l) return neap.highway { make(l.inner), name = l.name } end
function makers.fold(l) return neap.fold { steps = l.steps, name = l.name } end
function makers.chain(l)
  local list = { name = l.name }
  for i, inner in ipairs(l.layers) do list[i] = make(inner) end
  return neap.chain(list)
end

-- Calls f(name, ...) for each first state of a layer: ("l2.h", "h") or ("l2.forward.h", "forward",
-- "h"), and gathers what f gives as the layer takes it.
local function first_states(l, f)
  if not l.states or l.first == "zero" then return nil end
  local out = {}
  for _, s in ipairs(l.states) do
    if l.kind == "bidir" then
      for _, way in ipairs { "forward", "backward" } do
        out[way] = out[way] or {}
        out[way][s] = f(("first.%s.%s.%s"):format(l.name, way, s),
          state_width(l.inner, s))
      end
    else
      out[s] = f(("first.%s.%s"):format(l.name, s), state_width(l, s))
    end
  end
  return out
end

-- The recorded stack: its output, and the last states by name.
local function stack(rec, a, layers)
  local y, last = rec:input("x", { space = "T", dims = not a.vocabulary and { a.width } or nil,
    dtype = a.vocabulary and "i32" or "f32" }), {}
  for i, l in ipairs(a.layers) do
    local s
    y, s = layers[i](y, first_states(l, function(name, wide)
      if l.first == "learned" then return rec:param(name, { wide }) end
      return rec:input(name, { space = "B", dims = { wide } })
    end))
    for _, name in ipairs(l.states or {}) do last[l.name .. "." .. name] = s[name] end
  end
  return y, last
end

local function record(a, layers)
  return neap.program(function(rec)
    local y, out = stack(rec, a, layers)
    if a.pool == "last" then y = op.last(y)
    elseif a.pool ~= "none" then y = op[a.pool .. "_time"](y)
    end
    local space = a.pool == "none" and "T" or "B"
    local ids = a.loss == "cross_entropy"
    local target = rec:input("target", { space = space, dtype = ids and "i32" or "f32",
      dims = not ids and { a.out } or nil })
    out.y = y
    out.loss = op[a.loss](y, target, {
      mask = a.mask and rec:input("mask", { space = space }) or nil,
      smoothing = a.smoothing > 0 and a.smoothing or nil,
    })
    return out
  end, { recorded = a.recorded })
end

-- ---- data ----

-- Flat tables of numbers as the library sees them: rounded to float.
local function numbers(rng, n, draw_one)
  local flat = {}
  for i = 1, n do flat[i] = ("f"):unpack(("f"):pack(draw_one(rng))) end
  return flat
end

local function vectors(flat, wide)
  local out = {}
  for i = 1, #flat // wide do out[i] = table.move(flat, (i - 1) * wide + 1, i * wide, 1, {}) end
  return out
end

local function data_of(rng, a)
  local d, total, n = {}, 0, #a.lengths
  for _, length in ipairs(a.lengths) do total = total + length end
  local outputs = a.pool == "none" and total or n
  local function normal(r) return r:normal() end
  if a.vocabulary then
    d.x = numbers(rng, total, function(r) return r:int(a.vocabulary) - 1 end)
    for i, id in ipairs(d.x) do d.x[i] = math.tointeger(id) end
  else
    d.x = vectors(numbers(rng, total * a.width, normal), a.width)
  end
  if a.loss == "cross_entropy" then
    d.target = {}
    for i = 1, outputs do
      d.target[i] = not chance(rng, 0.1) and rng:int(a.out) - 1 or a.mask and 0 or -1
    end
  else
    local draw_one = a.loss == "mse" and normal or function(r) return r:uniform() end
    d.target = vectors(numbers(rng, outputs * a.out, draw_one), a.out)
  end
  d.mask = a.mask and numbers(rng, outputs, function(r) return pick(r, { 0, 1, 1, 0.5 }) end)
  d.first = {}
  for _, l in ipairs(a.layers) do
    if l.first == "given" then
      first_states(l, function(name, wide)
        d.first[name] = vectors(numbers(rng, n * wide, normal), wide)
      end)
    end
  end
  return d
end

local function tensor_of(list, wide, dtype)
  if #list == 0 then return neap.zeros(wide and { 0, wide } or { 0 }, dtype) end
  return neap.tensor(list, dtype)
end

local function batch_of(a, d)
  local lengths = neap.tensor(a.lengths, "i32")
  local function field(t)
    return a.pool == "none" and { data = t, lengths = lengths } or t
  end
  local batch = { rows = #a.lengths }
  batch.x = { lengths = lengths, data = tensor_of(d.x, not a.vocabulary and a.width or nil,
    a.vocabulary and "i32" or "f32") }
  local ids = a.loss == "cross_entropy"
  batch.target = field(tensor_of(d.target, not ids and a.out or nil, ids and "i32" or "f32"))
  if d.mask then batch.mask = field(tensor_of(d.mask)) end
  for name, rows in pairs(d.first) do batch[name] = neap.tensor(rows) end
  return batch
end

-- ---- what the oracle makes of it ----

local function predict(a, d, P)
  local ys, at, out = {}, 0, {}
  for b, n in ipairs(a.lengths) do
    local y = table.move(d.x, at + 1, at + n, 1, {})
    at = at + n
    for _, l in ipairs(a.layers) do
      local last
      y, last = oracle.layer(l, P, l.name, y, first_states(l, function(name)
        return P[name] or d.first[name][b]
      end))
      for _, s in ipairs(l.states or {}) do
        local to = out[l.name .. "." .. s] or {}
        out[l.name .. "." .. s] = to
        table.move(last[s], 1, #last[s], #to + 1, to)
      end
    end
    if a.pool == "none" then
      table.move(y, 1, n, #ys + 1, ys)
    else
      ys[b] = oracle.pool(a.pool, y, a.out)
    end
  end
  out.loss = { oracle.loss(a.loss, ys, d.target, d.mask, a.smoothing) }
  out.y = {}
  for _, y in ipairs(ys) do table.move(y, 1, #y, #out.y + 1, out.y) end
  return out
end

-- ---- one case ----

local function largest(list)
  local most = 0
  for _, v in ipairs(list) do most = math.max(most, math.abs(v)) end
  return most
end

local function check_gradients(rng, a, d, P, run, names)
  local function loss() return predict(a, d, P).loss[1] end
  for _ = 1, 4 do
    local name = pick(rng, names)
    local p, gradient = P[name], run.core:param_grad(name)
    local i, scale = rng:int(#p), math.max(largest(gradient), 1e-2)
    local kept, ok, slope = p[i], false, nil
    -- The second, smaller step is for a kink of relu or max within the first.
    for _, step in ipairs { { 1e-5, 1e-6 }, { 1e-7, 1e-5 } } do
      local h, bound = step[1], step[2]
      p[i] = kept + h
      local up = loss()
      p[i] = kept - h
      slope = (up - loss()) / (2 * h)
      p[i] = kept
      ok = ok or math.abs(slope - gradient[i]) <= bound * scale
      if ok then break end
    end
    if not ok then
      error(("gradient of %s, element %d: %g, by differences %g"):format(name, i, gradient[i],
        slope), 0)
    end
  end
end

-- y step by step, all rows at once, against the whole sequence: the same bits.
local function check_stream(a, layers, params, d)
  local program = neap.program(function(rec) return { y = (stack(rec, a, layers)) } end,
    { params = params, recorded = a.recorded })
  if program:reads_future() then return end
  local run, batch = program:run(), batch_of(a, d)
  run:feed { x = batch.x }
  run:forward()
  local y, n = run:value("y", "concat"):tobytes(), #a.lengths
  local stream <close> = program:stream { rows = n }
  local before, steps = {}, 0
  for b, length in ipairs(a.lengths) do
    before[b] = b == 1 and 0 or before[b - 1] + a.lengths[b - 1]
    steps = math.max(steps, length)
  end
  for s = 1, steps do
    local x = {}
    for b, length in ipairs(a.lengths) do
      local v = s <= length and d.x[before[b] + s]
      if a.vocabulary then
        x[b] = v or 0
      else
        for i = 1, a.width do x[#x + 1] = v and v[i] or 0 end
      end
    end
    stream:input(1, x)
    stream:step()
    local bytes = stream:output(1):tobytes()
    for b, length in ipairs(a.lengths) do
      local at = (before[b] + s - 1) * 4 * a.out
      if s <= length and y:sub(at + 1, at + 4 * a.out)
        ~= bytes:sub((b - 1) * 4 * a.out + 1, b * 4 * a.out) then
        error(("stream: step %d of row %d has other bits than the whole"):format(s, b), 0)
      end
    end
  end
end

-- In segments of a few steps, each forward twice: what the run of whole sequences has made.
local function check_segments(program, batch, outputs, gradients)
  local ok, run = pcall(program.run, program, { learn = true, double = true, recompute = true })
  if not ok then
    if not tostring(run):find("recompute: nothing can run in segments", 1, true) then error(run, 0) end
    return
  end
  for pass = 1, 2 do -- the second in memory that is full of the first
    run:feed(batch):forward()
    if next(gradients) then run:backward() end
    for name, expected in pairs(outputs) do
      help.near(run.core:read_doubles(program.outputs[name], "concat"), expected, 1e-12,
        ("in segments, pass %d, %s"):format(pass, name), name == "loss" and largest(outputs.y))
    end
    for name, expected in pairs(gradients) do
      help.near(run.core:param_grad(name), expected, 1e-11,
        ("in segments, pass %d, gradient of %s"):format(pass, name), 1e-2)
    end
  end
end

local function check_case(seed)
  local rng = neap.rng(seed)
  local a = draw(rng:fork "architecture")
  local ok, message = pcall(function()
    local layers = {}
    for i, l in ipairs(a.layers) do layers[i] = make(l) end
    local program = record(a, layers)
    local params, d = program.params, data_of(rng:fork "data", a)
    local P, names = {}, params:names()
    for _, name in ipairs(names) do
      local shape = params:shape(name)
      params:set(name, help.normal(rng:fork(name), shape, 1 / (shape[2] or 4) ^ 0.5))
      P[name] = help.flat(params:get(name))
    end
    local expected, batch, gradients, outputs = predict(a, d, P), batch_of(a, d), {}, {}
    for _, double in ipairs { true, false } do
      local bound = double and 1e-9 or 1e-4
      local run = program:run { learn = true, double = double }
      run:feed(batch):forward()
      for name, id in pairs(program.outputs) do
        local came = double and run.core:read_doubles(id, "concat")
          or help.flat(run:value(name, "concat"))
        if double then outputs[name] = came end
        -- a small loss is the difference of large outputs, a small state that of products
        help.near(came, expected[name], bound, (double and "double " or "float ") .. name,
          name == "loss" and 1e-2 * largest(expected.y) or not double and name ~= "y" and 0.01)
      end
      params:zero_grad()
      if #names > 0 then run:backward() end
      for _, name in ipairs(names) do
        if double then
          gradients[name] = run.core:param_grad(name)
        else -- likewise softmax(y) - 1; rows that hardly vary, normalised, show their rounding
          local rough = describe_case(a):find "layer_norm" and 1e-2 or 1e-3
          help.near(params:grad(name), gradients[name], rough, "float gradient of " .. name, 0.1)
        end
      end
      if double and #names > 0 then check_gradients(rng:fork "probe", a, d, P, run, names) end
    end
    check_segments(program, batch, outputs, gradients)
    local given = false
    for _, l in ipairs(a.layers) do given = given or l.first == "given" end
    if not given then check_stream(a, layers, params, d) end
  end)
  if not ok then
    error(("seed %d: %s\n  %s"):format(seed, describe_case(a), tostring(message)), 0)
  end
end

describe("random architectures and the oracle", function()
  local alone = tonumber(os.getenv "NEAP_SEED" or "")
  if alone then
    it("seed " .. alone, function() check_case(alone) end)
    return
  end
  local function range(title, from, to)
    it(("%s %d to %d"):format(title, from, to), function()
      for seed = from, to do check_case(seed) end
    end)
  end
  for from = 1, 400, 50 do range("seeds", from, from + 49) end
  for from = 1001, 20000, 1000 do range("#long seeds", from, from + 999) end
end)
