--- Recording: ordinary Lua functions run once, on values that have shapes but no numbers, and leave
-- a program that the C runtime runs without Lua.
-- @module neap.record
local core = require "neap.core"
local check = require "neap.check"

local record = {}

-- The recorder that ops append to now; nil when nothing is being recorded.
local current

--- A recorded value: a dtype, a row space and feature dimensions (`v.dtype`, `v.space`, `v.dims`,
-- `v.width`).
local value_meta = { __name = "neap.value" }
local value_methods = {}
record.value_meta = value_meta

function record.is_value(x) return getmetatable(x) == value_meta end

local recorder = {}
recorder.__index = recorder

local function wrap(rec, id)
  local dtype, space, dims = rec.core:type(id)
  return setmetatable({ rec = rec, id = id, dtype = dtype, space = space, dims = dims }, value_meta)
end

value_meta.__index = function(v, key)
  if key == "width" then return v.dims[#v.dims] or 1 end
  if value_methods[key] then return value_methods[key] end
  if v.rec.look then return v.rec:look(v, key) end -- neap.debug: it has numbers
  if type(key) == "number" then
    check.fail("[%s]: a recorded value has a shape but no number yet; op.slice and op.split take "
      .. "parts of %s, a cell takes its steps", key, v:shape())
  elseif key == "get" or key == "item" or key == "totable" then
    check.fail("%s: a recorded value has a shape but no number yet; neap.debug(f, x) runs f on "
      .. "real tensors, op.watch(name, x) keeps numbers for reading after a run", key)
  end
end
value_meta.__newindex = function(v, key)
  check.fail("[%s] =: a recorded value, %s, cannot be written to; op.where and op.concat make "
    .. "another", tostring(key), v:shape())
end

--- A value's type as text: "i32 [T,B]".
-- @tab spaces of its program
-- @string dtype
-- @int space
-- @tab dims
function record.type_text(spaces, dtype, space, dims)
  local parts = {}
  while space >= 0 do
    parts[#parts + 1] = spaces[space + 1].name
    space = spaces[space + 1].parent
  end
  for _, d in ipairs(dims) do
    parts[#parts + 1] = d >= 0 and tostring(d) or "max " .. spaces[-d].name
  end
  return (dtype == "i32" and "i32 " or "") .. "[" .. table.concat(parts, ",") .. "]"
end

--- The shape as text, such as "[T,B,64]".
function value_methods:shape()
  return record.type_text(self.rec.spaces, self.dtype, self.space, self.dims)
end

value_meta.__tostring = function(v)
  return v.rec.text and v.rec:text(v) or "value " .. v:shape()
end

local function no_number(what, instead)
  return function()
    check.fail("%s: a recorded value has a shape but no number yet; %s", what, instead)
  end
end
value_meta.__lt = no_number("<", "use op.less(a, b) and op.where(condition, a, b)")
value_meta.__le = no_number("<=", "use op.less_equal(a, b) and op.where(condition, a, b)")
value_meta.__len = no_number("#", "its last dimension is x.width; the number of steps is only "
  .. "known when the program runs (op.lengths)")
value_meta.__concat = no_number("..", "print(x) shows its shape; op.watch(name, x) keeps its "
  .. "numbers for reading after a run")
value_meta.__idiv = no_number("//", "use op.div and op.cast(x, \"i32\")")
value_meta.__mod = no_number("%", "it is not an op of the table")

--- The recorder now at work; raises outside of a recording.
-- @string who for the message
function record.current(who)
  if not current then
    check.fail("%s: only inside a function that neap records (a network, a cell's step, "
      .. "neap.program)", who)
  end
  return current
end

function record.active() return current end

-- Where the nodes recorded now come from: a line of the script, the layer's path.
local function note(rec)
  local line = core.where() or rec.line
  if line ~= rec.noted_line or rec.scope ~= rec.noted_scope then
    rec.core:where(line, rec.scope ~= "" and rec.scope or nil)
    rec.noted_line, rec.noted_scope = line, rec.scope
  end
end

--- Appends a node. inputs: value, number or false (left out) each.
-- @string name of the op
-- @tab inputs
-- @tab[opt] attrs options, numbers by name
-- @return its values
function recorder:add(name, inputs, attrs)
  if self ~= current then
    check.fail("%s: its input was recorded in another program", name)
  end
  local ids = {}
  for i = 1, #inputs do
    local x = inputs[i]
    if getmetatable(x) == value_meta then
      if x.rec ~= self then
        check.fail("%s: input %d was recorded in another program", name, i)
      end
      ids[i] = x.id
    elseif type(x) == "number" then
      note(self)
      ids[i] = self.core:constant(x)
    elseif x == false then
      ids[i] = false
    else
      check.fail("%s: input %d: expected a recorded value or a number, came %s", name, i,
        check.came(x))
    end
  end
  note(self)
  local out = table.pack(self.core:add(name, ids, attrs))
  for i = 1, out.n do out[i] = wrap(self, out[i]) end
  return table.unpack(out, 1, out.n)
end

--- A sequence space: steps over the batch or over another sequence's rows.
-- @string name such as "T"
-- @string[opt] parent name of the space below which it stands; the batch if nil
-- @treturn int
function recorder:sequence(name, parent)
  local at = 0
  if parent ~= nil then
    check.type("sequence", "parent", parent, "string")
    for i, s in ipairs(self.spaces) do if s.name == parent then at = i - 1 end end
    if at == 0 then check.fail("sequence: there is no sequence %q", parent) end
  end
  local id = self.core:space(name, at)
  self.spaces = self.core:spaces()
  return id
end

--- The sequence space whose steps are so many of another one's made one; the last of what is left.
-- @int space
-- @int steps
-- @treturn int
function recorder:folded(space, steps)
  local id = self.core:folded(space, steps)
  self.spaces = self.core:spaces()
  return id
end

--- An input of the program.
-- @string name
-- @tab type `{ space = "T" | "B" | nil, dims = {..}, dtype = "f32" | "i32" }`
-- @treturn value
function recorder:input(name, type)
  check.type("input", "name", name, "string")
  type = check.options("input " .. name, type, { "space", "parent", "dims", "dtype" })
  if math.type(type.dims) then
    check.fail("input %s: dims: expected a table such as { %s }, came %s", name, type.dims,
      type.dims)
  end
  local space = -1
  if type.space then
    for i, s in ipairs(self.spaces) do if s.name == type.space then space = i - 1 end end
    if space < 0 then space = self:sequence(type.space, type.parent) end
  end
  note(self)
  return wrap(self, self.core:input(name, type.dtype or "f32", space, type.dims or {}))
end

--- A number that may change between runs (a dropout rate, a temperature).
-- @string name a second call with the same name gives the same value
-- @number preset
-- @treturn value
function recorder:scalar(name, preset)
  if self.scalars[name] then return self.scalars[name] end
  note(self)
  local v = wrap(self, self.core:scalar(name, preset))
  self.scalars[name] = v
  return v
end

-- Start values by name: kind, a, b of params:init.
local tensor_meta = getmetatable(core.zeros { 1 })
local kinds = { uniform = true, normal = true, constant = true, orthogonal = true }
local function start(who, init, dims)
  if init == nil or init == "xavier" then -- Glorot and Bengio 2010
    dims = dims or {}
    local a = (6 / ((dims[1] or 1) + (dims[2] or dims[1] or 1))) ^ 0.5
    return "uniform", -a, a
  elseif init == "zeros" then return "constant", 0, 0
  elseif init == "ones" then return "constant", 1, 0
  elseif init == "orthogonal" then return "orthogonal", 1, 0 -- Saxe et al. 2014
  elseif type(init) == "number" and init - init == 0 then return "constant", init, 0
  elseif type(init) == "table" and kinds[init[1]] then
    for i = 2, 3 do
      if init[i] ~= nil then check.number(who, ("init[%d]"):format(i), init[i]) end
    end
    return init[1], init[2] or init[1] == "orthogonal" and 1 or 0, init[3] or 0
  elseif type(init) == "userdata" and getmetatable(init) == tensor_meta and init:dtype() == "f32" then
    local shape = init:shape()
    if dims and table.concat(shape, ",") ~= table.concat(dims, ",") then
      check.fail("%s: init: expected a tensor [%s], came [%s]", who, table.concat(dims, ","),
        table.concat(shape, ","))
    end
    return init
  end
  check.fail("%s: init: expected zeros, ones, xavier, orthogonal, a number, a tensor or {kind, a, b} "
    .. "of kind uniform, normal, constant or orthogonal, came %s", who, type(init) == "table"
    and ("{ %s }"):format(check.came(init[1])) or check.came(init))
end
record.start = start

--- A parameter of the layer that is being recorded; made at first sight.
-- @string name within the layer
-- @tab dims
-- @param[opt] init "zeros", "ones", "xavier" (default), "orthogonal", a number, {"uniform", a, b},
--   {"normal", mean, deviation}, {"orthogonal", gain, block}, or a tensor of its shape
-- @treturn value
function recorder:param(name, dims, init)
  local full = self:declare(name, dims, init)
  note(self)
  return wrap(self, self.core:param(full))
end

--- Numbers that do not learn, such as the matrix of a transform: a frozen parameter, through which no
-- gradient flows either.
-- @string name within the layer
-- @param tensor f32
-- @treturn value
function recorder:constant(name, tensor)
  local full = self.scope == "" and name or self.scope .. "." .. name
  local new = not self.params:has(full)
  local v = self:param(name, tensor:shape(), "zeros")
  if new then
    self.params:set(full, tensor)
    self.params:freeze(full)
  end
  return self:add("stop_gradient", { v })
end

-- Makes a parameter or finds it; gives its name with the layer's path before it.
function recorder:declare(name, dims, init)
  check.type("parameter", "name", name, "string")
  check.table("parameter " .. name, "dims", dims)
  local full = self.scope == "" and name or self.scope .. "." .. name
  for i, d in ipairs(dims) do check.integer("parameter " .. full, "dimension " .. i, d, 1) end
  if not self.params:has(full) then
    local kind, a, b = start("parameter " .. full, init, dims)
    self.params:add(full, dims)
    if type(kind) == "userdata" then
      self.params:set(full, kind)
    elseif not (kind == "constant" and a == 0) then
      self.params:init(full, kind, a, b, self.seed)
    end
  else
    local have = self.params:shape(full)
    local same = #have == #dims
    for i = 1, #dims do same = same and have[i] == dims[i] end
    if not same then
      check.fail("parameter %s is [%s], here it would be [%s]: a layer that is used twice must "
        .. "meet the same widths", full, table.concat(have, ","), table.concat(dims, ","))
    end
  end
  return full
end

--- Runs fn with the layer path extended by name.
function recorder:within(name, fn, ...)
  local scope = self.scope
  self.scope = scope == "" and name or scope .. "." .. name
  local out = table.pack(fn(...))
  self.scope = scope
  return table.unpack(out, 1, out.n)
end

--- Runs fn with exactly this layer path.
function recorder:at(path, line, fn, ...)
  local scope, old = self.scope, self.line
  self.scope, self.line = path, line or old
  local out = table.pack(fn(...))
  self.scope, self.line = scope, old
  return table.unpack(out, 1, out.n)
end

--- Notes how many different ids an input has, for an embedding that does not say so.
function recorder:choices(v, n) self.sizes[v] = n end

function recorder:output(name, v)
  if not record.is_value(v) then
    check.fail("output %s: expected a recorded value, came %s", name, check.came(v))
  end
  self.core:output(name, v.id)
  self.outputs[name] = v
end

--- Keeps a value readable after a run under a name, as an output after the program's own.
-- @string name
-- @param v
-- @bool[opt] again where another value has the name, this is NAME.2, the next NAME.3
function recorder:watch(name, v, again)
  local known = self.watched[name] or self.outputs[name]
  local n, base = 1, name
  while again and known and known.id ~= v.id do
    n = n + 1
    name = base .. "." .. n
    known = self.watched[name] or self.outputs[name]
  end
  if known then
    if known.id ~= v.id then check.fail("watch: the name %q is taken", name) end
    return v
  elseif not record.is_value(v) then
    check.fail("output %s: expected a recorded value, came %s", name, check.came(v))
  end
  self.watched[name] = v
  self.watched[#self.watched + 1] = name
  return v
end

-- One step of a loop: calls step with the states and checks what it gives.
function recorder:step(step, states, order)
  local given = setmetatable({}, { __index = function(_, key)
    if states[key] then return states[key] end
    local near = core.nearest(tostring(key), order)
    check.fail("the state has no %s%s; it has %s", tostring(key),
      near and " (did you mean " .. near .. "?)" or "", table.concat(order, ", "))
  end, __pairs = function() return next, states end })
  local y, next_states = step(given)
  if type(next_states) ~= "table" or record.is_value(next_states) then
    check.fail("a cell's step must return its output and a table of next states, came %s",
      check.came(next_states))
  end
  for name in pairs(next_states) do
    if not states[name] then
      check.fail("a cell's step returns a state %s, but it has only %s", tostring(name),
        table.concat(order, ", "))
    end
  end
  for _, name in ipairs(order) do
    local v = next_states[name]
    if not record.is_value(v) then
      check.fail("a cell's step must say what the state %s becomes, came %s", name, check.came(v))
    end
  end
  return y, next_states
end

--- A loop over the steps of a sequence: what neap.cell stands on.
-- @int space
-- @tab states name -> { dims = {..}, dtype =, init = value or nil }, in the order of `order`
-- @tab order names of the states
-- @func step called once with the table of states at a step's start; returns y, next states
-- @return y, table of the next states' values (whole sequences)
function recorder:scan(space, states, order, step)
  note(self)
  self.core:scan_begin(space)
  local s = {}
  for _, name in ipairs(order) do
    local st = states[name]
    s[name] = wrap(self, self.core:scan_state(name, st.dtype or "f32", st.dims,
      st.init and st.init.id or nil))
  end
  local y, next_states = self:step(step, s, order)
  for _, name in ipairs(order) do self.core:scan_next(s[name].id, next_states[name].id) end
  self.core:scan_end()
  return y, next_states
end

-- Paths of layers by parameter set, so that a layer that is used again finds its parameters.
local paths = setmetatable({}, { __mode = "k" })

--- The path of a layer in this program's parameter set. A layer that the recorded function itself
-- makes is a new one at each recording: it is known by its name and its place among those of that
-- name. All others are known by what they are.
-- @tab layer
-- @string base its name if it is new
function recorder:path(layer, base)
  local known = paths[self.params]
  if not known then
    known = { by_layer = setmetatable({}, { __mode = "k" }), taken = {} }
    paths[self.params] = known
  end
  local path = known.by_layer[layer]
  if path then return path end
  base = self.scope == "" and base or self.scope .. "." .. base
  path = base
  local n, inner = 1, layer.born == self
  while self.taken[path] or known.taken[path] == "outer" or known.taken[path] and not inner do
    n = n + 1
    path = base .. n
  end
  known.taken[path] = inner and "inner" or "outer"
  self.taken[path] = true
  known.by_layer[layer] = path
  return path
end

--- Runs fn, what it records going to rec.
function record.inside(rec, fn, ...)
  local before = current
  current = rec
  local results = table.pack(pcall(fn, ...))
  current = before
  if not results[1] then error(results[2], 0) end
  return table.unpack(results, 2, results.n)
end

local function run_once(build, params, seed, hints)
  local rec = setmetatable({
    core = core.program(params), params = params, seed = seed, scope = "", hints = hints or {},
    taken = {}, outputs = {}, watched = {}, scalars = {}, sizes = {}, line = core.where(),
  }, recorder)
  rec.spaces = rec.core:spaces()
  local result = record.inside(rec, build, rec)
  if type(result) == "table" and not record.is_value(result) then
    local names = {}
    for name in pairs(result) do names[#names + 1] = name end
    table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
    for _, name in ipairs(names) do
      if not rec.outputs[name] then rec:output(tostring(name), result[name]) end
    end
  elseif record.is_value(result) then
    rec:output("output", result)
  end
  for _, name in ipairs(rec.watched) do
    if rec.outputs[name] and rec.outputs[name].id ~= rec.watched[name].id then
      check.fail("watch: the name %q is taken", name)
    elseif not rec.outputs[name] then
      rec:output(name, rec.watched[name])
    end
  end
  if next(rec.outputs) == nil then
    check.fail("program: the function gave no output: it should return a value or a table of named "
      .. "values, came %s", check.came(result))
  end
  return rec
end

--- Records build twice and refuses it if the two programs differ: then something that changes
-- between calls (os.time, math.random, an upvalue) would be frozen.
-- @func build called with the recorder; may return a table of named outputs
-- @param params neap.core params; made anew if nil
-- @int[opt=1] seed of start values
-- @tab[opt] hints what layers may ask for: input_size, output_size
-- @return the recorder, finished
function record.program(build, params, seed, hints)
  params = params or core.params()
  local first = run_once(build, params, seed or 1, hints)
  local second = run_once(build, params, seed or 1, hints)
  local differ = first.core:differ(second.core)
  if differ then
    check.fail("recording: the function made two different programs: %s; what changes between "
      .. "calls (os.time, math.random, a counter) is frozen at recording: use neap.scalar, "
      .. "an input or op.uniform", differ)
  end
  return first
end

record.recorder = recorder
record.wrap = wrap
return record
