--- The ready recurrent layers: Elman network, LSTM, GRU. Each is described once: its parameters, its
-- states, its step in primitive ops. With plain options a layer is recorded as one fused op, with
-- any other as a loop over its step, the fused op's twin; the parameters are the same.
-- @module neap.recurrent
local check = require "neap.check"
local core = require "neap.core"
local record = require "neap.record"
local layer = require "neap.layer"
local op = require "neap.op"

local recurrent = {}

-- The gates of each layer, in the order of their blocks in the weights; the places of its
-- activations; its states.
local kinds = {
  elman = { gates = { "h" }, states = { "h" } },
  lstm = { gates = { "i", "f", "g", "o" }, states = { "h", "c" } },
  gru = { gates = { "r", "z", "n" }, states = { "h" } },
}

-- ---- what an option may be: read(who, name, value) gives the value to go by ----

local function optional(read)
  return function(who, name, v) if v ~= nil then return read(who, name, v) end end
end
local function switch(preset)
  return function(who, name, v) return check.boolean(who, name, v, preset) end
end
local function choice(preset, other)
  return function(who, name, v)
    if v == nil then return preset end
    if v == preset or v == other then return v end
    check.fail("%s: %s: expected %q or %q, came %s", who, name, preset, other, check.came(v))
  end
end
local function size(who, name, v) return check.integer(who, name, v, 1) end
local function rate(who, name, v)
  if type(v) ~= "number" or not (v >= 0 and v < 1) then
    check.fail("%s: %s: expected a number in [0,1), came %s", who, name, check.came(v))
  end
  return v > 0 and v or nil
end
local function bound(who, name, v)
  if type(v) ~= "number" or not (v > 0 and v < math.huge) then
    check.fail("%s: %s: expected a number above 0, came %s", who, name, check.came(v))
  end
  return v
end

-- A rate for each state: one for all, or by the state's name.
local function rates(who, name, v)
  local given, out = v, {}
  if type(v) ~= "table" then
    given = {}
    for _, state in ipairs(kinds[who].states) do given[state] = v end
  end
  for state, r in pairs(check.options(who .. ": " .. name, given, kinds[who].states)) do
    out[state] = rate(who .. ": " .. name, state, r)
  end
  return next(out) and out or nil
end

-- Numbers and functions by gate.
local function replaced(who, name, v)
  local gates = kinds[who].gates
  for gate, by in pairs(check.table(who, name, v)) do
    local known = false
    for _, g in ipairs(gates) do known = known or g == gate end
    local fits = type(by) == "function" or type(by) == "number" and by - by == 0
    if not known or not fits then
      check.fail("%s: %s: expected a number or a function for %s or %s, came %s = %s", who, name,
        table.concat(gates, ", ", 1, #gates - 1), gates[#gates], tostring(gate), check.came(by))
    end
  end
  return next(v) and v or nil
end

-- An activation for all of some gates, or one by gate: a table of name -> function.
local function activations(preset, places)
  return function(who, name, v)
    local out, by_gate = {}, type(v) == "table" and not getmetatable(v) and v[1] == nil and next(v)
    if by_gate then check.options(who .. ": " .. name, v, places) end
    for _, place in ipairs(places) do
      local given = v
      if by_gate then given = v[place] end
      out[place] = layer.activation_of(who .. ": " .. name, given, preset)
    end
    return out
  end
end

-- ---- the options ----

-- Each option: its name, the layers that have it, what it may be, and whether the fused op does it
-- (given: as the script wrote it; otherwise it does only if the option is left out, false or empty).
local function always() return true end
local function is(preset) return function(_, given) return given == nil or given == preset end end
local all = "elman lstm gru"
local options = {
  { "size", all, size, always },
  { "bias", all, switch(true), always },
  { "init", all, optional(function(_, _, v) return v end), always },
  { "first", all, choice("zeros", "learned"), always },
  { "fused", all, switch(true), function(v) return v end },
  { "activation", "elman", function(who, _, v) return layer.activation_of(who, v, "tanh") end,
    function(_, given)
      return given == nil or given == "tanh" or given == "relu" or given == "sigmoid"
        or given == "identity"
    end },
  { "gate", "lstm", activations("sigmoid", { "i", "f", "o" }), is "sigmoid" },
  { "gate", "gru", activations("sigmoid", { "r", "z" }), is "sigmoid" },
  { "candidate", "lstm", activations("tanh", { "g" }), is "tanh" },
  { "candidate", "gru", activations("tanh", { "n" }), is "tanh" },
  { "output", "lstm", activations("tanh", { "h" }), is "tanh" },
  { "forget_bias", "lstm", optional(check.number), always },
  { "peepholes", "lstm", switch(false) },
  { "coupled", "lstm", switch(false) },
  { "projection", "lstm", optional(size) },
  { "reset", "gru", choice("after", "before"), always },
  { "update", "gru", choice("keep", "take"), is "keep" },
  { "clip", all, optional(bound) },
  { "layer_norm", all, switch(false) },
  { "recurrent_dropout", all, optional(rate) },
  { "zoneout", all, optional(rates) },
  { "gates", "lstm gru", optional(replaced) },
  { "watch", "lstm gru", switch(false) },
}

--- The names of a layer's options, in the table's order.
-- @string kind "elman", "lstm" or "gru"
-- @treturn tab
function recurrent.options(kind)
  local names = {}
  for _, row in ipairs(options) do
    if row[2]:find(kind, 1, true) then names[#names + 1] = row[1] end
  end
  return names
end

-- ---- parameters ----

-- How wide h is.
local function width_of(o) return o.projection or o.size end

local function states(kind, o)
  local list = {}
  for i, name in ipairs(kinds[kind].states) do
    list[i] = { name = name, size = name == "h" and width_of(o) or o.size }
  end
  return list
end

-- The gates that have blocks in the weights.
local function blocks(kind, o)
  if not o.coupled then return kinds[kind].gates end
  return { "i", "g", "o" } -- f is 1 - i
end

-- Name, dimensions, start, in order; for x of that width; without it all but weight_ih.
local function declared(kind, o, width)
  local list, n, h = {}, o.size, width_of(o)
  local rows = #blocks(kind, o) * n
  local k = 1 / n ^ 0.5 -- PyTorch's start for every weight
  local function add(name, dims, start) list[#list + 1] = { name, dims, start } end
  if width then add("weight_ih", { rows, width }, { "uniform", -k, k }) end
  add("weight_hh", { rows, h }, { "uniform", -k, k })
  if o.bias then
    add("bias_ih", { rows }, { "uniform", -k, k })
    add("bias_hh", { rows }, { "uniform", -k, k })
  end
  if o.projection then add("weight_hr", { h, n }, { "uniform", -k, k }) end
  if o.peepholes then
    for _, gate in ipairs { "i", "f", "o" } do
      local blind = gate == "f" and o.coupled or o.gates and type(o.gates[gate]) == "number"
      if not blind then add("peephole_" .. gate, { n }, "zeros") end
    end
  end
  if o.layer_norm then
    add("gain_ih", { rows }, "ones")
    add("gain_hh", { rows }, "ones")
    if kind == "lstm" then
      add("gain_c", { n }, "ones")
      if o.bias then add("bias_c", { n }, "zeros") end
    end
  end
  if o.first == "learned" then
    for _, s in ipairs(states(kind, o)) do add("first_" .. s.name, { s.size }, "zeros") end
  end
  return list
end

-- An orthogonal or Xavier start is one of each gate's block by itself.
local function by_block(start, dims, n)
  if #dims < 2 then return start end
  local rows = dims[1] % n == 0 and n or dims[1]
  local kind = type(start) == "table" and start[1] or start
  if kind == "orthogonal" then
    return { kind, type(start) == "table" and start[2] or 1,
      type(start) == "table" and start[3] or rows }
  elseif kind == "xavier" then
    local a = (6 / (rows + dims[2])) ^ 0.5
    return { "uniform", -a, a }
  end
  return start
end

-- Starts by parameter name, checked: from one for all matrices, or a table of name -> start.
local function starts(kind, o)
  local init, by_name, names = o.init, {}, {}
  if init == nil then return by_name end
  local named = type(init) == "table" and not getmetatable(init) and init[1] == nil and next(init)
  for i, p in ipairs(declared(kind, o, 1)) do
    names[i] = p[1]
    if named then
      by_name[p[1]] = init[p[1]]
    elseif p[1]:find "^weight" then
      by_name[p[1]] = init
    end
    local start = by_name[p[1]]
    if start ~= nil then
      record.start(kind, start, type(start) ~= "userdata" and p[2] or nil) -- a tensor's shape: later
      if #p[2] < 2 and (start == "orthogonal" or type(start) == "table"
        and start[1] == "orthogonal") then
        check.fail("%s: init: %s is a vector: an orthogonal start is one of a matrix", kind, p[1])
      end
    end
  end
  if named then check.options(kind .. ": init", init, names) end
  return by_name
end

-- The parameters as values by name, made at first sight.
local function parameters(self, rec, width)
  local o, p = self.o, {}
  for _, d in ipairs(declared(self.kind, o, width)) do
    local name, dims, start = d[1], d[2], d[3]
    local fresh = name == "bias_ih" and not rec.params:has(rec.scope .. ".bias_ih")
    if self.starts[name] ~= nil then start = by_block(self.starts[name], dims, o.size) end
    p[name] = rec:param(name, dims, start)
    if fresh and o.forget_bias then
      -- Jozefowicz et al. 2015: a forget gate that starts open remembers sooner
      local full = rec.scope .. "." .. name
      local t = rec.params:get(full)
      for k = o.size + 1, 2 * o.size do t[k] = o.forget_bias end
      rec.params:set(full, t)
    end
  end
  return p
end

-- ---- parts of a step ----

-- Blocks from..to of W x + b (side "ih") or U h + c ("hh"), side by side. With layer norm the
-- product is normalised first, and b is the norm's bias (Ba et al. 2016).
local function product(self, rec, p, side, v, from, to)
  local n, last = self.o.size, #blocks(self.kind, self.o)
  local function rows(name)
    local w = p[name .. side]
    if not w or from == 1 and to == last then return w end
    return op.slice(w, (from - 1) * n + 1, to * n, 1)
  end
  local w, b, gain = rows "weight_", rows "bias_", rows "gain_"
  if not gain then return op.linear(v, w, b) end
  return op.layer_norm(op.linear(v, w), gain, b or layer.fill(rec, gain.width, 0))
end

-- What a function of the script gave for a gate.
local function given_by(self, what, name, v)
  if record.is_value(v) or type(v) == "number" then return v end
  check.fail("%s: the %s of %s must give a value or a number, came %s", self.kind, what, name,
    check.came(v))
end

-- What is summed up for a gate, clipped, through its activation.
local function activated(self, name, sum)
  local most = self.o.clip
  if most then sum = op.clamp(sum, -most, most) end
  return given_by(self, "activation", name, (self.act[name](sum)))
end

-- A gate's value as the script wants it: frozen, replaced, watched. v: the step's values by name so
-- far, for the script's functions.
local function gate_of(self, rec, v, name, value)
  local by = self.o.gates and self.o.gates[name]
  if type(by) == "function" then
    value = given_by(self, "function in gates", name, (by(value, v)))
  elseif by then
    value = by
  end
  v[name] = value
  if self.o.watch and record.is_value(value) then rec:watch(rec.scope .. "." .. name, value, true) end
  return value
end

-- What a state becomes: with zoneout each unit keeps its old value at that rate while learning, and
-- otherwise is the mean of both (Krueger et al. 2017).
local function zoned(self, rec, name, new, old)
  local r = self.o.zoneout and self.o.zoneout[name]
  if not r then return new end
  r = rec:scalar(rec.scope .. ".zoneout_" .. name, r)
  return old + (1 - r) * op.dropout(new - old, r)
end

-- What is the same at every step: one mask for each sequence (Gal and Ghahramani 2016).
local function once(self, rec, space)
  local r = self.o.recurrent_dropout
  if not r then return nil end
  return { mask = layer.mask(rec, space, width_of(self.o),
    rec:scalar(rec.scope .. ".recurrent_dropout", r)) }
end

-- ---- the cells: y and the next states of one step; h is what the products see of h' ----

function kinds.elman.step(self, rec, p, x, s, h)
  local sum = product(self, rec, p, "ih", x, 1, 1) + product(self, rec, p, "hh", h, 1, 1)
  local y = zoned(self, rec, "h", activated(self, "h", sum), s.h)
  return y, { h = y }
end

function kinds.lstm.step(self, rec, p, x, s, h)
  local o, v, sum = self.o, { x = x, h = s.h, c = s.c }, {}
  local names = blocks("lstm", o)
  local parts = table.pack(op.split(product(self, rec, p, "ih", x, 1, #names)
    + product(self, rec, p, "hh", h, 1, #names), #names))
  for k, name in ipairs(names) do sum[name] = parts[k] end
  local function gate(name, cell)
    if not sum[name] then return gate_of(self, rec, v, name, 1 - v.i) end -- coupled
    local see = p["peephole_" .. name]
    return gate_of(self, rec, v, name,
      activated(self, name, see and sum[name] + cell * see or sum[name]))
  end
  local i, f, g = gate("i", s.c), gate("f", s.c), gate "g"
  local c = f * s.c + i * g
  if o.watch then rec:watch(rec.scope .. ".c", c, true) end
  local out = gate("o", c)
  local seen = c
  if o.layer_norm then
    seen = op.layer_norm(c, p.gain_c, p.bias_c or layer.fill(rec, o.size, 0))
  end
  local y = out * self.act.h(seen)
  if o.projection then y = op.linear(y, p.weight_hr) end
  y = zoned(self, rec, "h", y, s.h)
  return y, { h = y, c = zoned(self, rec, "c", c, s.c) }
end

function kinds.gru.step(self, rec, p, x, s, h)
  local o, v = self.o, { x = x, h = s.h }
  local function part(side, value, from, to) return product(self, rec, p, side, value, from, to) end
  -- all three blocks at once where each is taken as it is
  local function all_of(side, value)
    if not o.layer_norm then return op.split(part(side, value, 1, 3), 3) end
    local r, z = op.split(part(side, value, 1, 2), 2)
    return r, z, part(side, value, 3, 3)
  end
  local function gate(name, sum) return gate_of(self, rec, v, name, activated(self, name, sum)) end
  local xr, xz, xn = all_of("ih", x)
  local r, z, n
  if o.reset == "after" then
    local hr, hz, hn = all_of("hh", h)
    r, z = gate("r", xr + hr), gate("z", xz + hz)
    n = gate("n", xn + r * hn)
  else
    local hr, hz = op.split(part("hh", h, 1, 2), 2)
    r, z = gate("r", xr + hr), gate("z", xz + hz)
    n = gate("n", xn + part("hh", r * h, 3, 3))
  end
  local y
  if o.update == "keep" then y = (1 - z) * n + z * s.h else y = z * n + (1 - z) * s.h end
  y = zoned(self, rec, "h", y, s.h)
  return y, { h = y }
end

-- ---- the same as fused ops ----

function kinds.elman.fused(o, p, x, s)
  local y, h = op.elman(x, p.weight_ih, p.weight_hh, p.bias_ih, p.bias_hh, s.h, o.named)
  return y, { h = h }
end

function kinds.lstm.fused(_, p, x, s)
  local y, h, c = op.apply("lstm", { x, p.weight_ih, p.weight_hh, p.bias_ih or false,
    p.bias_hh or false, s.h or false, s.c or false })
  return y, { h = h, c = c }
end

function kinds.gru.fused(o, p, x, s)
  local y, h = op.gru(x, p.weight_ih, p.weight_hh, p.bias_ih, p.bias_hh, s.h, o.reset == "before")
  return y, { h = h }
end

-- ---- layers ----

local function step(self, rec, x, s, given)
  if self.o.recurrent_dropout and not given then
    check.fail("%s: recurrent_dropout draws one mask for each sequence: layer:still(x) makes it, "
      .. "before the steps, and layer:at_step(x, states, mask) takes it", self.kind)
  end
  local h = given and op.mul(s.h, given.mask) or s.h
  return kinds[self.kind].step(self, rec, parameters(self, rec, x.width), x, s, h)
end

-- First states that are learned, by name.
local function learned(self, rec)
  local out, p = {}, self.o.first == "learned" and parameters(self, rec) or {}
  for _, s in ipairs(self:states()) do out[s.name] = p["first_" .. s.name] end
  return out
end

-- First states: those that are given, else learned ones, else none, which means zeros.
local function first_states(self, rec, x, init)
  local first, names = learned(self, rec), {}
  for i, s in ipairs(self:states()) do names[i] = s.name end
  for name, v in pairs(layer.initial(self.kind, init, names)) do first[name] = v end
  local parent = rec.spaces[x.space + 1].parent
  for _, name in ipairs(names) do
    local v = first[name]
    if v and v.space < 0 then first[name] = op.apply("spread", { v }, { space = parent }) end
  end
  return first
end

local function forward(self, rec, x, init)
  layer.sequence_of(self.kind, x)
  local p = parameters(self, rec, x.width)
  local first = first_states(self, rec, x, init)
  if self.fused and not rec.hints.recorded then
    return kinds[self.kind].fused(self.o, p, x, first)
  end
  local given = once(self, rec, rec.spaces[x.space + 1].parent)
  return layer.recurrent_loop(self, rec, x, first, given)
end

-- Functions that know no bounds make bad gates: they do not close, and do not stay open at 1.
local bounded = { sigmoid = true, hard_sigmoid = true, tanh = true, softsign = true, sin = true,
  cos = true, scaled_tanh = true }
local warned = {}
local function unbounded(kind, given)
  local function name_of(v) return type(v) == "table" and v[1] or v end
  local v, list = given.gate, {}
  if type(v) == "table" and v[1] == nil then
    for i, gate in ipairs(kinds[kind].gates) do list[i] = { " " .. gate, name_of(v[gate]) } end
  else
    list[1] = { "", name_of(v) }
  end
  for _, gate in ipairs(list) do
    if type(gate[2]) == "string" and not bounded[gate[2]] then
      return ("%s: gate%s: %s has no bounds: such a gate neither closes nor stays open"):format(kind,
        table.unpack(gate))
    end
  end
end

local function describe(self)
  return (self.fused and "fused" or "recorded") .. (self.warning and "; " .. self.warning or "")
end

-- Called in parentheses: after a tail call no traceback shows the script's line.
local function make(kind, given)
  local names = recurrent.options(kind)
  given = layer.options_of(kind, given, names)
  local o, plain, act = { named = given.activation }, true, {}
  for _, row in ipairs(options) do
    local name, of, read, fits = table.unpack(row, 1, 4)
    if of:find(kind, 1, true) then
      o[name] = read(kind, name, given[name])
      if not fits then fits = function(v) return not v end end
      plain = plain and fits(o[name], given[name])
    end
  end
  if o.forget_bias and not o.bias then
    check.fail("lstm: forget_bias: there is none with bias = false")
  elseif o.forget_bias and o.coupled then
    check.fail("lstm: forget_bias: a coupled forget gate is 1 - i and has none")
  end
  for _, name in ipairs { "gate", "candidate", "output" } do
    for place, fn in pairs(o[name] or {}) do act[place] = fn end
  end
  if o.activation then act.h = o.activation end
  if o.coupled and type(given.gate) == "table" and given.gate.f ~= nil then
    check.fail("lstm: gate: a coupled forget gate is 1 - i and has no activation of its own")
  end
  local warning = unbounded(kind, given)
  if warning then
    local text = (core.where() or "neap") .. ": " .. warning
    if not warned[text] then warn(text) end -- once, however often the line is recorded
    warned[text] = true
  end
  local l = layer.new(kind, given, forward, { fused = plain, o = o, act = act, step = step,
    once = once, learned = learned, states = function() return states(kind, o) end,
    describe = describe, starts = starts(kind, o), warning = warning })
  l.name = given.name
  return l
end

--- Elman network: h = act(W x + b + U h' + c) (Elman 1990).
-- @tab options
--
-- - `size`: units
-- - `activation`: "tanh", any other by name, with its numbers (`{ "leaky_relu", alpha = 0.1 }`), or
--   a function of a recorded value
-- - `bias`: true
-- - `init`: a start for all matrices, or starts by parameter name, as for @{neap.param}:
--   `{ weight_hh = "orthogonal", bias_ih = "zeros" }`; each gate's block has an orthogonal or Xavier
--   start of its own. Otherwise uniform, +-1/sqrt(size), as in PyTorch
-- - `first`: "zeros" or "learned", the first states where none are given; learned ones are the
--   parameters `first_h` (and `first_c`), zero at first
-- - `clip`: what goes into activations of gates is kept in +-clip (ONNX)
-- - `layer_norm`: W x and U h' are normalised, with gains `gain_ih` and `gain_hh` (Ba et al. 2016)
-- - `recurrent_dropout`: rate; what the products see of h' is dropped by one mask for each sequence
--   (Gal and Ghahramani 2016). It is the run's number "PATH.recurrent_dropout"
-- - `zoneout`: rate, or one by state, `{ h = 0.05, c = 0.5 }`: while learning each unit keeps its old
--   value so often, otherwise it becomes the mean of both (Krueger et al. 2017). They are the run's
--   numbers "PATH.zoneout_h" and "PATH.zoneout_c"
-- - `fused`: false selects the loop. So does any option but `size`, `bias`, `init`, `first`, and an
--   activation other than tanh, relu, sigmoid and identity; `print(layer)` says which it is
-- @return a layer: x [T,B,I], first states or nothing -> y [T,B,size], last states `{ h = }`
function recurrent.elman(options) return (make("elman", options)) end

--- LSTM (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000):
-- i, f, o = sigmoid(..), g = tanh(..), c = f c' + i g, h = o tanh(c). Blocks i f g o as in PyTorch.
-- @tab options those of @{elman} but `activation`, and
--
-- - `gate`: "sigmoid", the activation of i, f, o; or by gate, `{ f = "hard_sigmoid" }`
-- - `candidate`: "tanh", the activation of g
-- - `output`: "tanh", the activation of c on its way to h
-- - `forget_bias`: a number where the forget gate's bias starts (Jozefowicz et al. 2015)
-- - `peepholes`: i and f see c', o sees c, by `peephole_i` .. (Gers et al. 2002)
-- - `coupled`: f = 1 - i, so that there are three blocks, i g o (Greff et al. 2017)
-- - `projection`: width of h = W_hr (o tanh(c)) (Sak et al. 2014; PyTorch's proj_size)
-- - `gates`: by gate a number, which it is frozen to, or a function `f(value, v)` that gives another
--   value; v has x, h, c (before the step) and the gates so far
-- - `watch`: gates and c are readable after a run as "PATH.i" .. "PATH.c"; where a program calls the
--   layer again, as "PATH.i.2" .. "PATH.c.2", then .3
--
-- With `layer_norm` the output sees a normalised c too (`gain_c`, `bias_c`). Of these options only
-- `forget_bias` is one of the fused op.
-- @return a layer: x [T,B,I] -> y [T,B,size or projection], last states `{ h =, c = }`
function recurrent.lstm(options) return (make("lstm", options)) end

--- GRU (Cho et al. 2014): r, z = sigmoid(..), h = (1 - z) n + z h'. Blocks r z n as in PyTorch.
-- @tab options those of @{elman} but `activation`, and
--
-- - `reset`: "after": n = tanh(W x + b + r (U h' + c)), PyTorch's; "before": n = tanh(W x + b +
--   U (r h') + c), the paper's
-- - `update`: "keep": z keeps the old state, as above; "take": h = z n + (1 - z) h'
-- - `gate`: "sigmoid", the activation of r, z, or by gate; `candidate`: "tanh", that of n
-- - `gates`, `watch`: as in @{lstm}, for r, z, n
--
-- Of these options only `reset` is one of the fused op.
-- @return a layer: x [T,B,I] -> y [T,B,size], last states `{ h = }`
function recurrent.gru(options) return (make("gru", options)) end

for kind in pairs(kinds) do
  layer.constructor(recurrent[kind], "neap." .. kind, "{ size = ... }")
end

return recurrent
