--- Layers: callables that record ops and own parameters. A layer's parameters are made when it is
-- first recorded, since only then its input's width is known; recorded again, it finds them.
-- @module neap.layer
local check = require "neap.check"
local core = require "neap.core"
local record = require "neap.record"
local op = require "neap.op"

local layer = {}

local meta = { __name = "neap.layer" }
local methods = {}
meta.__index = methods

function layer.is_layer(x) return getmetatable(x) == meta end

--- Makes a layer.
-- @string kind its name in paths and printing
-- @tab options
-- @func forward called as forward(self, rec, ...) with the layer's path set
-- @tab[opt] more further fields: step, states, describe, layers
function layer.new(kind, options, forward, more)
  local self = { kind = kind, options = options, forward = forward, line = core.where(),
    born = record.active() }
  for k, v in pairs(more or {}) do self[k] = v end
  return setmetatable(self, meta)
end

--- Records the layer. What it takes and gives depends on its kind; sequence layers take x [T,B,I]
-- and give y [T,B,O] and, if recurrent, the table of last states.
function meta.__call(self, ...)
  local rec = record.active()
  if not rec then
    check.fail("%s: a layer is called inside of a function that neap records (a network, a cell's "
      .. "step, neap.program); neap.debug(layer, x) runs it on a tensor at once", self.kind)
  end
  local path = rec:path(self, self.name or self.kind)
  self.built = path
  return rec:at(path, nil, self.forward, self, rec, ...)
end

--- Runs fn with this layer's path, for layers that are used step by step.
function methods:inside(fn, ...)
  local rec = record.current(self.kind)
  return rec:at(rec:path(self, self.name or self.kind), nil, fn, ...)
end

--- A layer with the same options and parameters of its own.
function methods:copy()
  local twin = {}
  for k, v in pairs(self) do twin[k] = v end
  twin.built, twin.born = nil, record.active()
  if self.layers then
    twin.layers = {}
    for i, l in ipairs(self.layers) do twin.layers[i] = layer.is_layer(l) and l:copy() or l end
  end
  return setmetatable(twin, meta)
end

function meta.__tostring(self)
  if self.layers then
    local lines = { self.kind }
    for i, l in ipairs(self.layers) do
      lines[#lines + 1] = ("  %d %s"):format(i, (tostring(l):gsub("\n", "\n  ")))
    end
    return table.concat(lines, "\n")
  end
  local parts = {}
  for k, v in pairs(self.options) do
    if type(v) ~= "table" and type(v) ~= "function" then
      parts[#parts + 1] = ("%s=%s"):format(k, tostring(v))
    end
  end
  table.sort(parts)
  local text = self.kind .. (#parts > 0 and " " .. table.concat(parts, " ") or "")
  if self.describe then text = text .. " (" .. self.describe(self) .. ")" end
  return text
end

local function options_of(who, options, names)
  names[#names + 1] = "name"
  options = check.options(who, options, names)
  if options.name ~= nil and check.type(who, "name", options.name, "string") == "" then
    check.fail("%s: name: expected a string that is not empty", who)
  end
  return options
end

-- ---- what stands for a layer ----

-- Constructors of layers, by themselves: how each is called.
local constructors = setmetatable({}, { __mode = "k" })

--- Notes that a function makes layers, so that nobody takes it for one.
-- @func fn
-- @string name such as "neap.lstm"
-- @string arguments such as "{ size = ... }"
function layer.constructor(fn, name, arguments)
  constructors[fn] = { name, arguments }
  return fn
end

--- Raises unless l is a layer or a function of the inputs.
-- @string who the function, perhaps with the argument
-- @param l
-- @return l
function layer.check(who, l)
  local made = constructors[l]
  if made then
    check.fail("%s: expected a layer or a function of the inputs, got the constructor %s (call it: "
      .. "%s %s)", who, made[1], made[1], made[2])
  end
  if type(l) ~= "function" and not layer.is_layer(l) then
    check.fail("%s: expected a layer or a function of the inputs, came %s", who, check.came(l))
  end
  return l
end

-- The layers in the braces of a combination, and its options.
local function parts_of(who, options, example, most, names)
  if type(options) ~= "table" or getmetatable(options) then
    check.fail("%s: expected %s, came %s", who, example, check.came(options))
  end
  local layers, rest, last = {}, {}, 0
  for k, v in pairs(options) do
    if math.type(k) == "integer" and k > 0 then
      layers[k], last = v, math.max(last, k)
    else
      rest[k] = v
    end
  end
  options_of(who, rest, names)
  if last == 0 then check.fail("%s: expected %s, came no layer", who, example) end
  if last > most then
    check.fail("%s: expected %s, came %d: neap.chain { a, b } makes one layer of several", who,
      example, last)
  end
  for i = 1, last do
    if layers[i] == nil then
      check.fail("%s: layer %d is nil, but there is a layer %d", who, i, last)
    end
    layer.check(most == 1 and who or ("%s: layer %d"):format(who, i), layers[i])
  end
  return layers, rest
end

local function named(l, options)
  l.name = options.name
  return l
end

local function value(who, x)
  if not record.is_value(x) then
    check.fail("%s: expected a recorded value, came %s", who, check.came(x))
  end
  return x
end

local function sequence(who, x)
  value(who, x)
  if x.space < 1 then
    check.fail("%s: expected a sequence such as [T,B,64], came %s", who, x:shape())
  end
  if #x.dims ~= 1 or x.dtype ~= "f32" then
    check.fail("%s: expected a sequence of vectors such as [T,B,64], came %s%s", who, x:shape(),
      x.dtype == "i32" and ": neap.embed{ size = n } makes vectors of ids" or "")
  end
  return x
end

local function size_of(who, options)
  return check.integer(who, "size", options.size, 1)
end

-- ---- layers without state ----

--- Ids to vectors: [T,B] -> [T,B,size].
-- @tab options `{ size =, input = vocabulary size (a task knows it), init = }`; at first normal with
--   deviation 1, as in PyTorch
function layer.embed(options)
  options = options_of("embed", options, { "size", "input", "init" })
  local size = size_of("embed", options)
  if options.input ~= nil then check.integer("embed", "input", options.input, 1) end
  record.start("embed", options.init)
  return named(layer.new("embed", options, function(_, rec, ids)
    if value("embed", ids).dtype ~= "i32" then
      check.fail("embed: expected ids such as i32 [T,B], came %s, which are numbers already",
        ids:shape())
    end
    local v = options.input or rec.hints.input_size
    if not v then check.fail("embed: how many ids are there? say embed{ input = n }") end
    local table_ = rec:param("weight", { v, size }, options.init or { "normal", 0, 1 })
    return op.embedding(ids, table_)
  end), options)
end

--- x W^T + b: [..,I] -> [..,size].
-- @tab options `{ size = (a task knows it), bias = true, init = }`
function layer.linear(options)
  options = options_of("linear", options, { "size", "bias", "init" })
  if options.size ~= nil then size_of("linear", options) end
  local bias = check.boolean("linear", "bias", options.bias, true)
  record.start("linear", options.init)
  return named(layer.new("linear", options, function(_, rec, x)
    value("linear", x)
    local size = options.size or rec.hints.output_size
    if not size then check.fail("linear: how wide is the output? say linear{ size = n }") end
    local k = 1 / x.width ^ 0.5
    local w = rec:param("weight", { size, x.width }, options.init or { "uniform", -k, k })
    local b = bias and rec:param("bias", { size }, { "uniform", -k, k }) or nil
    return op.linear(x, w, b)
  end), options)
end

--- Dropout; the rate is a number of the run, named after the layer.
-- @tab options `{ rate = }`
function layer.dropout(options)
  options = options_of("dropout", options, { "rate" })
  local rate = options.rate
  if type(rate) ~= "number" or not (rate >= 0 and rate < 1) then
    check.fail("dropout: rate: expected a number in [0,1), came %s", check.came(rate))
  end
  return named(layer.new("dropout", options, function(_, rec, x)
    value("dropout", x)
    if rate == 0 then return x end
    return op.dropout(x, rec:scalar(rec.scope .. ".rate", rate))
  end), options)
end

--- Layer normalisation over the last dimension (Ba et al. 2016).
-- @tab[opt] options `{ eps = 1e-5 }`
function layer.layer_norm(options)
  options = options_of("layer_norm", options, { "eps" })
  if options.eps ~= nil then check.number("layer_norm", "eps", options.eps, 0, 1) end
  return named(layer.new("layer_norm", options, function(_, rec, x)
    value("layer_norm", x)
    return op.layer_norm(x, rec:param("weight", { x.width }, "ones"),
      rec:param("bias", { x.width }, "zeros"), options.eps)
  end), options)
end

-- Ops of one input that need no option and keep what is a row.
local activations = { "identity" }
for i = 1, math.huge do
  local info = core.op_info(i)
  if not info then break end
  local fits = info.max_inputs == 1 and info.differentiable and not info.mixes_time
    and info.name ~= "transpose"
  for _, attr in ipairs(info.attrs) do fits = fits and attr:find("=", 1, true) ~= nil end
  if fits then activations[#activations + 1] = info.name end
end
table.sort(activations)

-- What other libraries call our activations.
local called = { linear = "identity", none = "identity", logistic = "sigmoid",
  hardsigmoid = "hard_sigmoid", leakyrelu = "leaky_relu", lrelu = "leaky_relu" }

local function activation(who, name, preset)
  if name == nil then name = preset end
  if type(name) == "function" then return name end
  if type(name) ~= "string" then
    check.fail("%s: expected an activation such as \"tanh\" or a function, came %s", who,
      check.came(name))
  end
  for _, known in ipairs(activations) do if known == name then return op[name] end end
  local near = called[name:lower()] or core.nearest(name:lower(), activations)
  check.fail("%s: unknown activation %s%s", who, check.came(name),
    near and ("; did you mean %q?"):format(near)
    or "; there are: " .. table.concat(activations, ", "))
end

--- An op of one input as a layer.
-- @string name such as "tanh" or "relu"
function layer.activation(name)
  check.type("activation", "name", name, "string")
  local fn = activation("activation", name)
  return layer.new(name, {}, function(_, _, x) return fn(value(name, x)) end)
end

-- ---- recurrent layers ----

-- States given by the caller, checked.
local function initial(who, init, names)
  if init == nil then return {} end
  if type(init) ~= "table" or getmetatable(init) then
    check.fail("%s: first states: expected a table such as { %s = value }, came %s", who,
      names[1] or "h", check.came(init))
  end
  for name, v in pairs(init) do
    local known = false
    for _, n in ipairs(names) do known = known or n == name end
    if not known then
      check.fail("%s: it has no state %s, only %s", who, tostring(name), table.concat(names, ", "))
    end
    if not record.is_value(v) then
      check.fail("%s: first state %s: expected a recorded value, came %s", who, name, check.came(v))
    end
  end
  return init
end

-- The recorded twin of a layer: its step, looped. Gives y and the table of last states.
local function loop(self, rec, x, init)
  local states, order = {}, {}
  for i, s in ipairs(self.states(self)) do
    order[i] = s.name
    states[s.name] = { dims = { s.size }, init = init[s.name] }
  end
  local y, final = rec:scan(x.space, states, order, function(s) return self.step(self, rec, x, s) end)
  local last = {}
  for _, name in ipairs(order) do
    last[name] = init[name] and op.last(final[name], init[name]) or op.last(final[name])
  end
  return y, last
end

local function weights(rec, gates, size, width, bias, prefix)
  local k = 1 / size ^ 0.5 -- PyTorch's start for every weight
  local init = { "uniform", -k, k }
  prefix = prefix or ""
  return rec:param(prefix .. "weight_ih", { gates * size, width }, init),
    rec:param(prefix .. "weight_hh", { gates * size, size }, init),
    bias and rec:param(prefix .. "bias_ih", { gates * size }, init) or nil,
    bias and rec:param(prefix .. "bias_hh", { gates * size }, init) or nil
end

-- What a recurrent layer's call does: fused where the options allow it, else the twin.
local function recurrent(self, rec, x, init, fused)
  sequence(self.kind, x)
  local names, first = {}, {}
  for i, s in ipairs(self.states(self)) do names[i] = s.name end
  init = initial(self.kind, init, names)
  local parent = rec.spaces[x.space + 1].parent
  for _, name in ipairs(names) do
    local v = init[name]
    first[name] = v and v.space < 0 and op.apply("spread", { v }, { space = parent }) or v
  end
  if self.fused and not rec.hints.recorded then return fused(first) end
  return loop(self, rec, x, first)
end

local function switches(who, options)
  return check.boolean(who, "bias", options.bias, true),
    check.boolean(who, "fused", options.fused, true),
    check.boolean(who, "watch", options.watch, false)
end

--- Elman network: h = act(W x + b + U h' + c) (Elman 1990).
-- @tab options `{ size =, activation = "tanh", bias = true, fused = true }`; an activation other
--   than tanh, relu, sigmoid, identity, and fused = false, select the recorded twin
function layer.elman(options)
  options = options_of("elman", options, { "size", "activation", "bias", "fused" })
  local size, act = size_of("elman", options), options.activation
  if act == nil then act = "tanh" end
  local fn = activation("elman", act)
  local bias, fused = switches("elman", options)
  local standard = act == "tanh" or act == "relu" or act == "sigmoid" or act == "identity"
  return named(layer.new("elman", options, function(self, rec, x, init)
    return recurrent(self, rec, x, init, function(s)
      local w, u, b, c = weights(rec, 1, size, x.width, bias)
      local y, h = op.elman(x, w, u, b, c, s.h, act)
      return y, { h = h }
    end)
  end, {
    fused = standard and fused,
    describe = function(self) return self.fused and "fused" or "recorded" end,
    states = function() return { { name = "h", size = size } } end,
    step = function(_, rec, x, s)
      local w, u, b, c = weights(rec, 1, size, x.width, bias)
      local h = fn(op.linear(x, w, b) + op.linear(s.h, u, c))
      return h, { h = h }
    end,
  }), options)
end

local gate_names = { i = true, f = true, g = true, o = true }

--- LSTM (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000):
-- i, f, o = sigmoid(..), g = tanh(..), c = f c' + i g, h = o tanh(c). Blocks i f g o as in PyTorch.
-- @tab options `{ size =, bias = true, forget_bias = nil (number added to the forget gate's start),
--   peepholes = false (i, f see c', o sees c; Gers et al. 2002), gates = { f = 0, .. } (frozen to a
--   number), gate = "sigmoid", candidate = "tanh", output = "tanh" (activations), watch = false
--   (gates readable as "PATH.i" ..), fused = true }`; all but size, bias and forget_bias select the
--   recorded twin, and print says so
function layer.lstm(options)
  options = options_of("lstm", options, { "size", "bias", "forget_bias", "peepholes", "gates", "gate",
    "candidate", "output", "watch", "fused" })
  local size = size_of("lstm", options)
  local bias, fused, watch = switches("lstm", options)
  local peepholes = check.boolean("lstm", "peepholes", options.peepholes)
  if options.forget_bias ~= nil then
    check.number("lstm", "forget_bias", options.forget_bias)
    if not bias then check.fail("lstm: forget_bias: there is none with bias = false") end
  end
  local frozen = {}
  if options.gates ~= nil then check.table("lstm", "gates", options.gates) end
  for name, v in pairs(options.gates or {}) do
    if not gate_names[name] or type(v) ~= "number" or v - v ~= 0 then
      check.fail("lstm: gates: expected numbers for i, f, g or o, came %s = %s", tostring(name),
        check.came(v))
    end
    frozen[name] = v
  end
  local gate = activation("lstm: gate", options.gate, "sigmoid")
  local candidate = activation("lstm: candidate", options.candidate, "tanh")
  local output = activation("lstm: output", options.output, "tanh")
  local plain = not peepholes and not next(frozen) and not options.gate
    and not options.candidate and not options.output and not watch
  local function params(rec, x)
    local fresh = not rec.params:has(rec.scope .. ".bias_ih")
    local w, u, b, c = weights(rec, 4, size, x.width, bias)
    if options.forget_bias and bias and fresh then
      -- Jozefowicz et al. 2015: a forget gate that starts open remembers sooner
      local name = rec.scope .. ".bias_ih"
      local t = rec.params:get(name)
      for k = size + 1, 2 * size do t[k] = options.forget_bias end
      rec.params:set(name, t)
    end
    return w, u, b, c
  end
  return named(layer.new("lstm", options, function(self, rec, x, init)
    return recurrent(self, rec, x, init, function(s)
      local w, u, b, c = params(rec, x)
      local y, h, cell = op.apply("lstm", { x, w, u, b or false, c or false, s.h or false,
        s.c or false })
      return y, { h = h, c = cell }
    end)
  end, {
    fused = plain and fused,
    describe = function(self) return self.fused and "fused" or "recorded" end,
    states = function() return { { name = "h", size = size }, { name = "c", size = size } } end,
    step = function(_, rec, x, s)
      local w, u, b, c = params(rec, x)
      local i, f, g, o = op.split(op.linear(x, w, b) + op.linear(s.h, u, c), 4)
      if peepholes then
        i = i + s.c * rec:param("peephole_i", { size }, "zeros")
        f = f + s.c * rec:param("peephole_f", { size }, "zeros")
      end
      i, f, g = frozen.i or gate(i), frozen.f or gate(f), frozen.g or candidate(g)
      local cell = f * s.c + i * g
      if peepholes then o = o + cell * rec:param("peephole_o", { size }, "zeros") end
      o = frozen.o or gate(o)
      local h = o * output(cell)
      if watch then
        for name, v in pairs { i = i, f = f, g = g, o = o, c = cell } do
          if record.is_value(v) then op.watch(rec.scope .. "." .. name, v) end
        end
      end
      return h, { h = h, c = cell }
    end,
  }), options)
end

--- GRU (Cho et al. 2014): r, z = sigmoid(..), h = (1 - z) n + z h'. Blocks r z n as in PyTorch.
-- @tab options `{ size =, bias = true, reset = "after" (n = tanh(W x + b + r (U h' + c)), PyTorch) or
--   "before" (n = tanh(W x + b + U (r h') + c), the paper's), watch = false, fused = true }`
function layer.gru(options)
  options = options_of("gru", options, { "size", "bias", "reset", "watch", "fused" })
  local size = size_of("gru", options)
  local bias, fused, watch = switches("gru", options)
  local reset = options.reset == nil and "after" or options.reset
  if reset ~= "after" and reset ~= "before" then
    check.fail("gru: reset: expected \"after\" or \"before\", came %s", check.came(reset))
  end
  return named(layer.new("gru", options, function(self, rec, x, init)
    return recurrent(self, rec, x, init, function(s)
      local w, u, b, c = weights(rec, 3, size, x.width, bias)
      local y, h = op.gru(x, w, u, b, c, s.h, reset == "before")
      return y, { h = h }
    end)
  end, {
    fused = not watch and fused,
    describe = function(self) return self.fused and "fused" or "recorded" end,
    states = function() return { { name = "h", size = size } } end,
    step = function(_, rec, x, s)
      local w, u, b, c = weights(rec, 3, size, x.width, bias)
      local xr, xz, xn = op.split(op.linear(x, w, b), 3)
      local r, z, n
      if reset == "after" then
        local hr, hz, hn = op.split(op.linear(s.h, u, c), 3)
        r, z = op.sigmoid(xr + hr), op.sigmoid(xz + hz)
        n = op.tanh(xn + r * hn)
      else
        local u_rz, u_n = op.slice(u, 1, 2 * size, 1), op.slice(u, 2 * size + 1, 3 * size, 1)
        local c_rz = c and op.slice(c, 1, 2 * size, 1)
        local hr, hz = op.split(op.linear(s.h, u_rz, c_rz), 2)
        r, z = op.sigmoid(xr + hr), op.sigmoid(xz + hz)
        n = op.tanh(xn + op.linear(r * s.h, u_n, c and op.slice(c, 2 * size + 1, 3 * size, 1)))
      end
      local h = (1 - z) * n + z * s.h
      if watch then
        op.watch(rec.scope .. ".r", r)
        op.watch(rec.scope .. ".z", z)
      end
      return h, { h = h }
    end,
  }), options)
end

--- A recurrent layer as a cell: one step inside another cell's step.
-- @param x [B,I] of the step
-- @tab s its states by name
-- @return y, the next states
function methods:at_step(x, s)
  if not self.step then check.fail("%s: it has no step", self.kind) end
  value(self.kind, x)
  if type(s) ~= "table" or record.is_value(s) then
    check.fail("%s: its states: expected a table, came %s", self.kind, check.came(s))
  end
  return self:inside(function() return self.step(self, record.current(self.kind), x, s) end)
end

-- ---- combinations ----

--- Layers one after the other. Gives what the last one gives.
-- @tab list of layers and functions; `name` may name it
function layer.chain(list)
  local layers, options = parts_of("chain", list, "a list of layers, chain{ a, b }", math.huge, {})
  return named(layer.new("chain", {}, function(self, rec, x, first)
    if first ~= nil then
      check.fail("chain: a chain takes no first states, came %s: call its layers one by one, "
        .. "each with its own", tostring(first))
    end
    local out = table.pack(x)
    for i, l in ipairs(self.layers) do
      if layer.is_layer(l) then
        local path = rec:path(l, l.name or l.kind .. i)
        l.built = path
        out = table.pack(rec:at(path, nil, l.forward, l, rec, out[1]))
      else
        out = table.pack(l(out[1]))
      end
    end
    return table.unpack(out, 1, out.n)
  end, { layers = layers }), options)
end

--- The same layer in both directions (Schuster and Paliwal 1997). Called with x and, if wished, first
-- states `{ forward = { h = .. }, backward = { h = .. } }`; backward starts at each sequence's end.
-- @tab options `{ layer, merge = "concat" | "sum" }`
-- @return y [T,B,2H] or [T,B,H]; last states by name, merged likewise: each direction's own last
function layer.bidir(options)
  local layers
  layers, options = parts_of("bidir", options, "a layer in braces, bidir{ layer }", 1, { "merge" })
  local inner, merge = layers[1], options.merge == nil and "concat" or options.merge
  if merge ~= "concat" and merge ~= "sum" then
    check.fail("bidir: merge: expected \"concat\" or \"sum\", came %s", check.came(merge))
  end
  if not layer.is_layer(inner) then check.fail("bidir: expected a layer, came a function") end
  local function join(a, b) return merge == "concat" and op.concat({ a, b }) or a + b end
  local l = layer.new("bidir", { merge = merge }, function(self, rec, x, init)
    sequence("bidir", x)
    init = check.options("bidir: first states", init, { "forward", "backward" })
    local function run(l, name, v)
      local path = rec:path(l, name)
      return rec:at(path, nil, l.forward, l, rec, v, init[name])
    end
    local y, s = run(self.layers[1], "forward", x)
    local z, r = run(self.layers[2], "backward", op.reverse(x))
    local last
    if type(s) == "table" and not record.is_value(s) then
      last = {}
      for name, v in pairs(s) do last[name] = join(v, r[name]) end
    end
    return join(y, op.reverse(z)), last
  end, { layers = { inner, inner:copy() } })
  return named(l, options)
end

--- x + layer(x); the widths must agree.
-- @tab options `{ layer }`
function layer.residual(options)
  local layers
  layers, options = parts_of("residual", options, "a layer in braces, residual{ layer }", 1, {})
  return named(layer.new("residual", {}, function(self, rec, x)
    local l = self.layers[1]
    value("residual", x)
    local y, s
    if layer.is_layer(l) then
      y, s = rec:at(rec:path(l, l.name or l.kind), nil, l.forward, l, rec, x)
    else
      y, s = l(x)
    end
    if not record.is_value(y) then
      check.fail("residual: the layer must give a recorded value, came %s", check.came(y))
    end
    if y.width ~= x.width then
      check.fail("residual: the layer makes %s from %s: the widths must agree", y:shape(), x:shape())
    end
    return x + y, s
  end, { layers = layers }), options)
end

--- Attention over a memory: called with a query [..,Q] and the memory [S,..,M], gives the context
-- [..,M] and the weights [..,S] (each row's sum is 1, padding exactly 0).
-- @tab options `{ kind = "dot" | "general" | "additive" (Luong et al. 2015; Bahdanau et al. 2015),
--   size = width of the additive layer (the query's width if nil), scale = 1 }`
function layer.attention(options)
  options = options_of("attention", options, { "kind", "size", "scale" })
  local kind = options.kind == nil and "dot" or options.kind
  if options.size ~= nil and size_of("attention", options) and kind ~= "additive" then
    check.fail("attention: size: only the additive kind has one; in the others it is the query's")
  end
  if options.scale ~= nil then check.number("attention", "scale", options.scale) end
  if kind ~= "dot" and kind ~= "general" and kind ~= "additive" then
    local near = core.nearest(tostring(kind), { "dot", "general", "additive" })
    check.fail("attention: kind: expected \"dot\", \"general\" or \"additive\", came %s%s",
      check.came(kind), near and "; did you mean " .. near .. "?" or "")
  end
  -- What does not change over the steps: the keys.
  local function prepare(_, rec, memory, query_width)
    if kind == "dot" then return memory end
    local n = kind == "additive" and (options.size or query_width) or query_width
    local k = 1 / memory.width ^ 0.5
    return op.linear(memory, rec:param("key", { n, memory.width }, { "uniform", -k, k }))
  end
  local function attend(_, rec, query, memory, keys)
    if kind ~= "additive" then return op.attend_dot(query, keys, memory, options.scale) end
    local n, k = keys.width, 1 / query.width ^ 0.5
    local q = op.linear(query, rec:param("query", { n, query.width }, { "uniform", -k, k }),
      rec:param("bias", { n }, "zeros"))
    return op.attend_additive(q, keys, memory, rec:param("score", { n }, { "uniform", -k, k }))
  end
  return named(layer.new("attention", options, function(self, rec, query, memory)
    value("attention: query", query)
    value("attention: memory", memory)
    return attend(self, rec, query, memory, prepare(self, rec, memory, query.width))
  end, { prepare = prepare, attend = attend }), options)
end

for name, arguments in pairs { embed = "{ size = ... }", linear = "{}", dropout = "{ rate = ... }",
  layer_norm = "{}", activation = "\"tanh\"", elman = "{ size = ... }", lstm = "{ size = ... }",
  gru = "{ size = ... }", chain = "{ a, b }", bidir = "{ layer }", residual = "{ layer }",
  attention = "{ kind = ... }" } do
  layer.constructor(layer[name], "neap." .. name, arguments)
end

layer.activation_of = activation
layer.recurrent_loop = loop
layer.initial = initial
layer.sequence_of = sequence
return layer
