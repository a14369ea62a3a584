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
    if type(v) == "string" or type(v) == "number" or type(v) == "boolean" then
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

-- They step as they go.
local stateless = {
  states = function() return {} end,
  step = function(self, rec, x) return self.forward(self, rec, x), {} end,
}

--- Ids to vectors: [T,B] -> [T,B,size].
-- @tab options `{ size =, input = vocabulary size (a task knows it), init =, frozen = false }`; at
--   first normal with deviation 1, as in PyTorch; `init` may be a tensor [input,size], such as
--   @{neap.vectors} reads; frozen: it does not learn (until the task's `freeze(names, false)`)
function layer.embed(options)
  options = options_of("embed", options, { "size", "input", "init", "frozen" })
  local frozen = check.boolean("embed", "frozen", options.frozen)
  local size = size_of("embed", options)
  if options.input ~= nil then check.integer("embed", "input", options.input, 1) end
  record.start("embed", options.init)
  return named(layer.new("embed", options, function(_, rec, ids)
    if value("embed", ids).dtype ~= "i32" then
      check.fail("embed: expected ids such as i32 [T,B], came %s, which are numbers already",
        ids:shape())
    end
    local v = options.input or rec.sizes[ids] or rec.hints.input_size
    if not v then check.fail("embed: how many ids are there? say embed{ input = n }") end
    local full = rec.scope .. ".weight"
    local fresh = not rec.params:has(full)
    local table_ = rec:param("weight", { v, size }, options.init or { "normal", 0, 1 })
    if fresh and frozen then rec.params:freeze(full) end
    return op.embedding(ids, table_)
  end, stateless), options)
end

--- x W^T + b: [..,I] -> [..,size].
-- @tab options `{ size = (a task knows it), bias = true, init =, tied = }`; tied: a layer with a
--   weight [size,I], such as the embedding, that is W here too (Press and Wolf 2017)
function layer.linear(options)
  options = options_of("linear", options, { "size", "bias", "init", "tied" })
  local tied = options.tied
  if tied ~= nil and not layer.is_layer(tied) then
    check.fail("linear: tied: expected a layer, came %s", check.came(tied))
  end
  if options.size ~= nil then size_of("linear", options) end
  local bias = check.boolean("linear", "bias", options.bias, true)
  record.start("linear", options.init)
  return named(layer.new("linear", options, function(_, rec, x)
    value("linear", x)
    local size = options.size or rec.hints.output_size
    if not size then check.fail("linear: how wide is the output? say linear{ size = n }") end
    local k = 1 / x.width ^ 0.5
    local function weight()
      return rec:param("weight", { size, x.width }, options.init or { "uniform", -k, k })
    end
    local w = tied and tied:inside(weight) or weight()
    local b = bias and rec:param("bias", { size }, { "uniform", -k, k }) or nil
    return op.linear(x, w, b)
  end, stateless), options)
end

-- All ones or all zeros [n], in no space.
function layer.fill(rec, n, number)
  local one_hot = op.one_hot(rec:add("cast", { 0 }, { dtype = 1 }), n)
  return number == 1 and op.equal(one_hot, one_hot) or op.not_equal(one_hot, one_hot)
end

-- A mask of dropout [..,n] for the rows of a space.
function layer.mask(rec, space, n, rate)
  local ones = layer.fill(rec, n, 1)
  if space >= 0 then ones = op.apply("spread", { ones }, { space = space }) end
  return op.dropout(ones, rate)
end

--- Dropout (Srivastava et al. 2014); the rate is a number of the run, named after the layer.
-- @tab options `{ rate =, sequence = false }`; with `sequence` one mask for all steps of a sequence
--   (Gal and Ghahramani 2016)
function layer.dropout(options)
  options = options_of("dropout", options, { "rate", "sequence" })
  local rate = options.rate
  if type(rate) ~= "number" or not (rate >= 0 and rate < 1) then
    check.fail("dropout: rate: expected a number in [0,1), came %s", check.came(rate))
  end
  local whole = check.boolean("dropout", "sequence", options.sequence)
  return named(layer.new("dropout", options, function(_, rec, x)
    value("dropout", x)
    if rate == 0 then return x end
    local r = rec:scalar(rec.scope .. ".rate", rate)
    if not whole then return op.dropout(x, r) end
    sequence("dropout", x)
    return x * layer.mask(rec, rec.spaces[x.space + 1].parent, x.width, r)
  end, not whole and stateless or nil), options)
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
  end, stateless), options)
end

-- Ops of one input that need no option and keep what is a row.
local activations = { "identity", "affine", "scaled_tanh", "thresholded_relu" }
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

local takes = getmetatable(op).written -- op -> names of its options

-- A function of one value from a name, { name, option = number }, or itself.
local function activation(who, given, preset)
  if given == nil then given = preset end
  if type(given) == "function" then return given end
  local name, numbers = given, {}
  if type(given) == "table" and not getmetatable(given) then
    name = given[1]
    for key, v in pairs(given) do if key ~= 1 then numbers[key] = v end end
  end
  if type(name) ~= "string" then
    check.fail("%s: expected an activation such as \"tanh\" or a function, came %s", who,
      check.came(given))
  end
  for _, known in ipairs(activations) do
    if known == name then
      local what = ("%s: %s"):format(who, name)
      check.options(what, numbers, takes[name] and takes[name].options or {})
      for key, v in pairs(numbers) do check.number(what, key, v) end
      return next(numbers) and function(x) return op[name](x, numbers) end or op[name]
    end
  end
  local near = called[name:lower()] or core.nearest(name:lower(), activations)
  check.fail("%s: unknown activation %s%s", who, check.came(name),
    near and ("; did you mean %q?"):format(near)
    or "; there are: " .. table.concat(activations, ", "))
end

--- An op of one input as a layer.
-- @string name such as "tanh" or "relu"
-- @tab[opt] numbers its options, `{ alpha = 0.1 }`
function layer.activation(name, numbers)
  check.type("activation", "name", name, "string")
  local given = { name }
  for key, v in pairs(numbers == nil and {} or check.table("activation", "numbers", numbers)) do
    check.type("activation", "option", key, "string")
    given[key] = v
  end
  local fn = activation("activation", given)
  return layer.new(name, {}, function(_, _, x) return fn(value(name, x)) end, stateless)
end

-- ---- what recurrent layers share ----

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

-- A layer's step, looped. given: what is the same at every step. Gives y and the last states.
local function loop(self, rec, x, init, given)
  local states, order = {}, {}
  for i, s in ipairs(self.states(self)) do
    order[i] = s.name
    states[s.name] = { dims = { s.size }, init = init[s.name] }
  end
  local y, final = rec:scan(x.space, states, order, function(s)
    return self.step(self, rec, x, s, given)
  end)
  local last = {}
  for _, name in ipairs(order) do
    last[name] = init[name] and op.last(final[name], init[name]) or op.last(final[name])
  end
  return y, last
end

--- What is the same at every step of a sequence, for @{at_step}: masks of recurrent dropout.
-- @param[opt] x a value of the sequence, if it does not stand over the batch
-- @return a table, or nil
function methods:still(x)
  local rec, space = record.current(self.kind), x == nil and 0 or value(self.kind, x).space
  if space > 0 then space = rec.spaces[space + 1].parent end
  return self.once and self:inside(self.once, self, rec, space)
end

--- First states that the layer learns, [n] by name; none of a layer that learns none.
function methods:learned_first()
  return self.learned and self:inside(self.learned, self, record.current(self.kind)) or {}
end

--- A recurrent layer as a cell: one step inside another cell's step.
-- @param x [B,I] of the step
-- @tab s its states by name
-- @tab[opt] given what @{still} gave before the steps; of a cell, its context
-- @return y, the next states
function methods:at_step(x, s, given)
  if not self.step then check.fail("%s: it has no step", self.kind) end
  value(self.kind, x)
  if type(s) ~= "table" or record.is_value(s) then
    check.fail("%s: its states: expected a table, came %s", self.kind, check.came(s))
  end
  return self:inside(function() return self.step(self, record.current(self.kind), x, s, given) end)
end

-- ---- combinations ----

-- One of the layers of a combination at work, in its own path: what fn, or its forward, gives.
local function part(rec, l, base, fn, ...)
  if not layer.is_layer(l) then return l(...) end
  local path = rec:path(l, l.name or base)
  l.built = path
  return rec:at(path, nil, fn or l.forward, l, rec, ...)
end

-- The width of what a layer gives for an x of that width: seen by recording it.
local function output_width(rec, l, base, input)
  local width
  record.program(function(probe)
    local y = probe:at(rec.scope, nil, part, probe, l, base, nil,
      probe:input("x", { space = "T", dims = { input } }))
    width = y.width
    return y
  end, rec.params, rec.seed, rec.hints)
  return width
end

-- What a layer is called if it has no name; its place is that in a chain.
local function base_of(l, place) return layer.is_layer(l) and l.kind .. (place or "") end

-- What a chain adds where all its layers step: the state h of the second is its state "2.h".
local chain_steps = {}

function chain_steps.states(self, input)
  return self:inside(function()
    local rec, list = record.current "chain", {}
    for i, l in ipairs(self.layers) do
      local states = layer.is_layer(l) and l:states(input) or {}
      for _, s in ipairs(states) do
        list[#list + 1] = { name = i .. "." .. s.name, dims = s.dims or { s.size }, dtype = s.dtype }
      end
      input = states[1] and states[1].size or output_width(rec, l, base_of(l, i), input)
    end
    return list
  end)
end

-- The states of its i-th layer.
local function own(states, i)
  local out = {}
  for name, v in pairs(states) do
    local at, rest = tostring(name):match "^(%d+)%.(.*)"
    if tonumber(at) == i then out[rest] = v end
  end
  return out
end

local function step_of(l, rec, ...) return l.step(l, rec, ...) end

function chain_steps.step(self, rec, x, s, given)
  local out = {}
  for i, l in ipairs(self.layers) do
    local next_states
    x, next_states = part(rec, l, base_of(l, i), step_of, x, own(s, i), given and given[i])
    for name, v in pairs(layer.is_layer(l) and next_states or {}) do out[i .. "." .. name] = v end
  end
  return x, out
end

function chain_steps.once(self, rec, space)
  local list = {}
  for i, l in ipairs(self.layers) do
    if layer.is_layer(l) and l.once then list[i] = part(rec, l, base_of(l, i), l.once, space) end
  end
  return list
end

function chain_steps.learned(self, rec)
  local out = {}
  for i, l in ipairs(self.layers) do
    local first = layer.is_layer(l) and l.learned and part(rec, l, base_of(l, i), l.learned) or {}
    for name, v in pairs(first) do out[i .. "." .. name] = v end
  end
  return out
end

-- What a layer around another one adds where that steps: its states are those of the other one.
local function around_steps(join)
  local function inner(self, rec, name, ...)
    local l = self.layers[1]
    return l[name] and part(rec, l, base_of(l), l[name], ...)
  end
  return {
    states = function(self, input)
      return self:inside(function() return self.layers[1]:states(input) end)
    end,
    step = function(self, rec, x, s, given)
      local l = self.layers[1]
      local y, next_states = part(rec, l, base_of(l), step_of, x, s, given)
      return join(self, rec, y, x), next_states
    end,
    once = function(self, rec, space) return inner(self, rec, "once", space) end,
    learned = function(self, rec) return inner(self, rec, "learned") or {} end,
  }
end

-- Do all layers step?
local function all_step(layers, functions)
  for _, l in ipairs(layers) do
    if layer.is_layer(l) and not l.step or not (layer.is_layer(l) or functions) then return false end
  end
  return true
end

local function with_layers(layers, steps)
  local more = { layers = layers }
  for name, fn in pairs(steps or {}) do more[name] = fn end
  return more
end

--- Layers one after the other. Where all of them step, the chain does too, such as in a decoder: its
-- first states are those of its layers, `{ ["2.h"] = value }` that of the second.
-- @tab list of layers and functions; `name` may name it
-- @return what the last one gives, and its last states; third, a list of the last states of all its
--   recurrent layers
function layer.chain(list)
  local layers, options = parts_of("chain", list, "a list of layers, chain{ a, b }", math.huge, {})
  return named(layer.new("chain", {}, function(self, rec, x, first)
    if first ~= nil then
      if not self.states then
        check.fail("chain: first states: expected none where a layer does not step, came %s: call "
          .. "its layers one by one, each with its own", check.came(first))
      end
      local names = {}
      for i, s in ipairs(self:states(value("chain", x).width)) do names[i] = s.name end
      initial("chain", first, names)
    end
    local out, all = table.pack(x), {}
    for i, l in ipairs(self.layers) do
      out = table.pack(part(rec, l, base_of(l, i), nil, out[1],
        table.unpack { first and layer.is_layer(l) and own(first, i) or nil }))
      if type(out[3]) == "table" and not record.is_value(out[3]) then
        table.move(out[3], 1, #out[3], #all + 1, all)
      elseif type(out[2]) == "table" and not record.is_value(out[2]) then
        all[#all + 1] = out[2]
      end
    end
    return out[1], out[2], all
  end, with_layers(layers, all_step(layers, true) and chain_steps)), options)
end

-- How two directions become one.
local merges = {
  concat = function(a, b) return op.concat { a, b } end,
  sum = op.add,
  mean = function(a, b) return (a + b) * 0.5 end,
  mul = op.mul,
}

--- The same layer in both directions (Schuster and Paliwal 1997). Called with x and, if wished, first
-- states `{ forward = { h = .. }, backward = { h = .. } }`; backward starts at each sequence's end.
-- @tab options `{ layer, merge = "concat" | "sum" | "mean" | "mul" }`
-- @return y [T,B,2H] (concat) or [T,B,H]; last states by name, merged likewise: each direction's own
--   last
function layer.bidir(options)
  local layers
  layers, options = parts_of("bidir", options, "a layer in braces, bidir{ layer }", 1, { "merge" })
  local inner, merge = layers[1], options.merge == nil and "concat" or options.merge
  local join = type(merge) == "string" and merges[merge]
  if not join then
    check.fail("bidir: merge: expected \"concat\", \"sum\", \"mean\" or \"mul\", came %s",
      check.came(merge))
  end
  if not layer.is_layer(inner) then check.fail("bidir: expected a layer, came a function") end
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

--- So many steps as one, side by side: [T,B,I] -> [T/2,B,2I]; between recurrent layers it makes a
-- pyramid (Chan et al. 2016).
-- @tab[opt] options `{ steps = 2 }`
function layer.fold(options)
  options = options_of("fold", options, { "steps" })
  local steps = options.steps == nil and 2 or options.steps
  check.integer("fold", "steps", steps, 2, 65536)
  return named(layer.new("fold", options, function(_, _, x)
    return op.fold_time(sequence("fold", x), steps)
  end), options)
end

-- A layer in braces whose output, as wide as x, is put together with x: join(rec, y, x).
local function around(who, options, names, join)
  local example = ("a layer in braces, %s{ layer }"):format(who)
  local layers, rest = parts_of(who, options, example, 1, names)
  local function joined(_, rec, y, x)
    if not record.is_value(y) then
      check.fail("%s: the layer must give a recorded value, came %s", who, check.came(y))
    end
    if y.width ~= x.width then
      check.fail("%s: the layer makes %s from %s: the widths must agree", who, y:shape(), x:shape())
    end
    return join(rec, y, x)
  end
  local steps = all_step(layers) and around_steps(joined)
  return named(layer.new(who, {}, function(self, rec, x, init)
    local l = self.layers[1]
    local y, s, all = part(rec, l, base_of(l), nil, value(who, x), table.unpack { init })
    return joined(self, rec, y, x), s, all
  end, with_layers(layers, steps)), rest), rest
end

--- x + layer(x); the widths must agree. It steps where the layer does.
-- @tab options `{ layer }`
function layer.residual(options)
  return (around("residual", options, {}, function(_, y, x) return x + y end))
end

--- t layer(x) + (1 - t) x with t = sigmoid(W x + b) (Srivastava et al. 2015); the widths must agree.
-- @tab options `{ layer, bias = -1 }`; `bias`: where b starts: below 0 it lets x through at first
function layer.highway(options)
  local bias
  local l, rest = around("highway", options, { "bias" }, function(rec, y, x)
    local k = 1 / x.width ^ 0.5
    local w = rec:param("weight", { x.width, x.width }, { "uniform", -k, k })
    local t = op.sigmoid(op.linear(x, w, rec:param("bias", { x.width }, bias)))
    return t * y + (1 - t) * x
  end)
  bias = rest.bias == nil and -1 or check.number("highway", "bias", rest.bias)
  return l
end

--- Attention over a memory: called with a query [..,Q] and the memory [S,..,M], gives the context
-- [..,M] and the weights [..,S] (each row's sum is 1, padding exactly 0).
--
-- With `coverage` it is told how much each element of the memory has been attended to: the sum c of
-- the weights so far, [..,S], adds w c_s to the key of element s (See et al. 2017, "Get to the point",
-- eq. 10 and 11, there for the additive kind; Tu et al. 2016). The query is a sequence then, and what
-- comes third is sum_s min(a_s, c_s) of each step, the coverage loss of eq. 12.
-- @tab options `{ kind = "dot" | "general" | "additive" (Luong et al. 2015; Bahdanau et al. 2015),
--   size = width of the additive layer (the query's width if nil), scale = 1, coverage = false }`
function layer.attention(options)
  options = options_of("attention", options, { "kind", "size", "scale", "coverage" })
  local coverage = check.boolean("attention", "coverage", options.coverage)
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
  local function prepare_cover(self, rec, memory, query_width)
    return { keys = op.padded(prepare(self, rec, memory, query_width)), memory = op.padded(memory),
      mask = op.padding_mask(memory) }
  end
  -- One step with coverage, from the sum of the weights before it: context, weights, the step's
  -- coverage loss, the sum after it. still: what prepare_cover made.
  local function cover(_, rec, query, still, covered)
    local steps, n = still.mask.dims[1], still.keys.width
    local k = 1 / query.width ^ 0.5
    local w, c = rec:param("coverage", { n }, { "uniform", -k, k }), op.reshape(covered, { steps, 1 })
    local score
    if kind == "additive" then
      local q = op.linear(query, rec:param("query", { n, query.width }, { "uniform", -k, k }),
        rec:param("bias", { n }, "zeros"))
      score = op.linear(op.tanh(still.keys + op.reshape(q, { 1, n }) + c * w),
        op.reshape(rec:param("score", { n }, { "uniform", -k, k }), { 1, n }))
    else
      score = (op.bmm(still.keys, op.reshape(query, { n, 1 })) + c * op.sum(query * w, { keep = true }))
        * (options.scale or 1)
    end
    local a = op.masked_softmax(op.reshape(score, { steps }), still.mask)
    local context = op.reshape(op.bmm(op.reshape(a, { 1, steps }), still.memory),
      { still.memory.width })
    return context, a, op.sum(op.minimum(a, covered)), covered + a
  end
  local function covering(self, rec, query, memory, keys)
    if sequence("attention: query", query).space == memory.space then
      check.fail("attention: coverage: the memory must be another sequence than the query, came %s",
        memory:shape())
    end
    local still, a, loss = keys, nil, nil
    local context = rec:scan(query.space, { coverage = { dims = still.mask.dims } }, { "coverage" },
      function(s)
        local y, after
        y, a, loss, after = cover(self, rec, query, still, s.coverage)
        return y, { coverage = after }
      end)
    return context, a, loss
  end
  return named(layer.new("attention", options, function(self, rec, query, memory)
    value("attention: query", query)
    value("attention: memory", memory)
    return self.attend(self, rec, query, memory, self.prepare(self, rec, memory, query.width))
  end, { prepare = coverage and prepare_cover or prepare, attend = coverage and covering or attend,
    cover = coverage and cover or nil }), options)
end

for name, arguments in pairs { embed = "{ size = ... }", linear = "{}", dropout = "{ rate = ... }",
  layer_norm = "{}", fold = "{}", activation = "\"tanh\"", chain = "{ a, b }", bidir = "{ layer }",
  residual = "{ layer }", highway = "{ layer }", attention = "{ kind = ... }" } do
  layer.constructor(layer[name], "neap." .. name, arguments)
end

layer.options_of = options_of
layer.activation_of = activation
layer.recurrent_loop = loop
layer.output_width = output_width
layer.initial = initial
layer.sequence_of = sequence
return layer
