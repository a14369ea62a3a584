--- Runs a function of layers and ops at once, one time step after the other, on real tensors: print
-- inside a cell shows numbers. Slow, and for looking only: learning, saving and streaming want the
-- recorded program.
-- @module neap.debug
local core = require "neap.core"
local check = require "neap.check"
local record = require "neap.record"
local program = require "neap.program"
local layer = require "neap.layer"

-- A recorder that computes what it is given instead of noting it down. A value's numbers are
-- in `own`: `tensor` has a row for each row of the value's space, sequence after sequence; what is
-- made inside a loop has `step` and a row for each sequence; a parameter has its name as `param`.
local recorder = setmetatable({}, { __index = record.recorder })
recorder.__index = recorder

local tensor_meta, params_meta = getmetatable(core.zeros {}), getmetatable(core.params())
local mixes_time = {}
for i = 1, math.huge do
  local info = core.op_info(i)
  if not info then break end
  mixes_time[info.name] = info.mixes_time
end

-- ---- tensors as rows ----

local function product(dims)
  local n = 1
  for _, d in ipairs(dims) do n = n * d end
  return n
end

-- A tensor of rows that are given as bytes; leading: its first dimensions, if not the rows' number.
local function of_rows(rows, dims, dtype, leading)
  leading = leading or { #rows }
  local shape = table.move(dims, 1, #dims, #leading + 1, leading)
  return core.tensor_from_string(table.concat(rows), shape, dtype)
end

-- A tensor that may hold NaN or infinity as three that do not: x = c + n / d.
local function finite_parts(t)
  local c, n, d = {}, {}, {}
  local bytes = t:tobytes()
  for i = 1, t:size() do
    local x = ("<f"):unpack(bytes, 4 * i - 3)
    local good = x - x == 0
    c[i] = good and x or 0
    n[i] = (good or x ~= x) and 0 or x > 0 and 1 or -1
    d[i] = good and 1 or 0
  end
  local shape = t:shape()
  return core.tensor(c):reshape(shape), core.tensor(n):reshape(shape), core.tensor(d):reshape(shape)
end

-- ---- single ops ----

local function value(rec, dtype, space, dims, own)
  return setmetatable({ rec = rec, dtype = dtype, space = space, dims = dims, own = own },
    record.value_meta)
end

-- The space of a program of one op that stands for one of ours: inside a loop its step's rows, one
-- for each sequence, are the batch.
local function space_of(rec, one, space)
  if space < 0 or one.map[space] then return one.map[space] or space end
  local s, loop = rec.spaces[space + 1], rec.loop
  if space == 0 or loop and s.parent == loop.space then
    check.fail("debug: a value %s cannot be used inside a step over %s here", s.name,
      rec.spaces[loop.space + 1].name)
  end
  local id
  if s.factor > 1 then
    id = one.program:folded(space_of(rec, one, s.of), s.factor)
  else
    id = one.program:space(s.name, space_of(rec, one, s.parent))
  end
  one.map[space], one.back[id] = id, space
  one.spaces[#one.spaces + 1] = space
  return id
end

local function one_op(rec)
  local loop = rec.loop
  local base = loop and loop.base or 0
  local one = { program = core.program(rec.params), map = { [base] = 0 }, back = { [0] = base },
    spaces = {}, rows = rec:rows(base) }
  if loop then one.map[loop.space] = 0 end
  return one
end

local function open(one, rec)
  rec.draws = (rec.draws or 0) + 1
  local run = core.run(one.program, { seed = rec.seed + rec.draws })
  if one.rows then run:batch(one.rows) end
  for _, space in ipairs(one.spaces) do
    if rec.lengths[space] then run:lengths(one.map[space], rec.lengths[space]) end
  end
  return run
end

-- How many rows a space has; nil if no input has said so yet.
function recorder:rows(space)
  if space == 0 then return self.batch_rows end
  local n = 0
  for _, length in ipairs(self.lengths[space]:totable()) do n = n + length end
  return n
end

-- The rows of a value that count now: inside a loop those of the step. A sequence that has ended
-- stands still at its last step; an empty one is zero.
local function now(v)
  local own, loop = v.own, v.rec.loop
  if own.param then own.tensor = own.tensor or v.rec.params:get(own.param) end
  if own.step and not (loop and loop.space == v.space) then
    check.fail("debug: a value made inside a step is used after the loop: return it as the step's "
      .. "output or state")
  end
  if not loop or v.space ~= loop.space or own.step then return own.tensor end
  if own.at ~= loop.t then
    own.bytes = own.bytes or own.tensor:tobytes()
    local width, rows, from = 4 * product(v.dims), {}, 0
    for r, length in ipairs(loop.lengths) do
      local at = from + width * (math.min(loop.t, length) - 1)
      rows[r] = length > 0 and own.bytes:sub(at + 1, at + width) or ("\0"):rep(width)
      from = from + width * length
    end
    own.at, own.slice = loop.t, of_rows(rows, v.dims, v.dtype)
  end
  return own.slice
end

local function feed(rec, one, v, name, feeds, infinite)
  if v.own.param then return one.program:param(v.own.param) end
  local space = space_of(rec, one, v.space)
  local function input(suffix, tensor)
    local id = one.program:input(name .. suffix, v.dtype, space, v.dims)
    feeds[#feeds + 1] = { id, tensor, name }
    return id
  end
  if not infinite then return input("", now(v)) end
  local c, n, d = finite_parts(now(v))
  local quotient = one.program:add("div", { input("n", n), input("d", d) })
  return one.program:add("add", { input("c", c), quotient })
end

local function compute(rec, name, inputs, attrs, infinite)
  local one, ids, feeds, stepped = one_op(rec), {}, {}, false
  local loop = rec.loop
  one.program:where(core.where() or rec.line, rec.scope ~= "" and rec.scope or nil)
  for i, x in ipairs(inputs) do
    if type(x) == "number" then
      ids[i] = one.program:constant(x)
    elseif record.is_value(x) then
      if x.rec ~= rec then check.fail("%s: input %d was made by another function", name, i) end
      stepped = stepped or loop ~= nil and x.space == loop.space
      ids[i] = feed(rec, one, x, "x" .. i, feeds, infinite["x" .. i])
    elseif x == false then
      ids[i] = false
    else
      check.fail("%s: input %d: expected a recorded value or a number, came %s", name, i,
        check.came(x))
    end
  end
  if stepped and mixes_time[name] then
    check.fail("%s: it mixes time steps, so it cannot stand inside a loop over %s", name,
      rec.spaces[loop.space + 1].name)
  end
  if attrs and attrs.space then attrs = { space = space_of(rec, one, attrs.space) } end
  local out = table.pack(one.program:add(name, ids, attrs))
  for i = 1, out.n do -- y itself is no output: NaN and infinity are let through
    one.program:output("y" .. i, one.program:add("equal", { out[i], out[i] }))
  end
  local run = open(one, rec)
  for i = 1, out.n do run:keep(out[i], false) end
  for _, f in ipairs(feeds) do
    local ok, message = pcall(run.input, run, f[1], f[2], "concat")
    if not ok then
      if infinite[f[3]] or not message:find("NaN or infinity", 1, true) then error(message, 0) end
      infinite[f[3]] = true
      return compute(rec, name, inputs, attrs, infinite)
    end
  end
  run:forward()
  for i = 1, out.n do
    local dtype, space = one.program:type(out[i])
    local tensor = run:read(out[i], "concat")
    local in_step = stepped and space == 0
    space = in_step and loop.space or one.back[space] or space
    local shape = tensor:shape()
    local dims = space < 0 and shape or table.move(shape, 2, #shape, 1, {})
    out[i] = value(rec, dtype, space, dims, { tensor = tensor, step = in_step })
  end
  return table.unpack(out, 1, out.n)
end

function recorder:add(name, inputs, attrs) return compute(self, name, inputs, attrs, {}) end

function recorder:folded(space, steps)
  local id = record.recorder.folded(self, space, steps)
  local lengths = self.lengths[space]:clone()
  for i = 1, #lengths do lengths[i] = (lengths[i] + steps - 1) // steps end
  self.lengths[id] = lengths
  return id
end

-- ---- inputs, numbers, parameters ----

function recorder:input(name, type)
  local field = self.batch[name]
  if field == nil then
    local names = {}
    for key in pairs(self.batch) do names[#names + 1] = tostring(key) end
    local near = core.nearest(name, names)
    check.fail("debug: nothing was given for the input %s%s", name,
      near and "; did you mean " .. near .. "?" or "")
  end
  local space = -1
  if type.space then
    for i, s in ipairs(self.spaces) do if s.name == type.space then space = i - 1 end end
    if space < 0 then space = self:sequence(type.space, type.parent) end
  end
  -- a program of this input alone checks and lays out what was given
  local c = core.program(self.params)
  local one = { program = c, map = { [0] = 0 }, back = {}, spaces = {} }
  c:where(core.where() or self.line)
  local id = c:input(name, type.dtype or "f32", space_of(self, one, space), type.dims or {})
  c:output("it", c:add("equal", { id, id }))
  local run = program.wrap(c, self.params):run()
  local rows, lengths = program.shapes(run, self.batch)
  if self.batch_rows and rows and rows ~= self.batch_rows then
    check.fail("debug: input %s has %d rows, those before it have %d", name, rows, self.batch_rows)
  end
  self.batch_rows = self.batch_rows or rows
  for s, list in pairs(lengths) do
    s = one.back[s]
    local known = self.lengths[s]
    if known and known:tobytes() ~= list:tobytes() then
      check.fail("debug: input %s: its lengths are not those of the inputs before it", name)
    end
    self.lengths[s] = list
  end
  run:feed(self.batch):forward()
  return value(self, type.dtype or "f32", space, type.dims or {},
    { tensor = run.core:read(id, "concat") })
end

function recorder:scalar(name, preset)
  local v = self.scalars[name]
  if not v then
    v = value(self, "f32", -1, {}, { tensor = core.tensor(self.batch[name] or preset) })
    self.scalars[name] = v
  end
  return v
end

function recorder:param(name, dims, init)
  return value(self, "f32", -1, dims, { param = self:declare(name, dims, init) })
end

function recorder:output(name, v)
  if not record.is_value(v) then
    check.fail("output %s: expected a recorded value, came %s", name, check.came(v))
  end
  self.outputs[name] = v
end

function recorder:watch(_, v) return v end

-- ---- loops ----

-- Values of all steps as one of whole sequences.
local function stack(rec, loop, tensors, dims, dtype)
  local steps, rows, width = {}, {}, 4 * product(dims)
  for t, tensor in ipairs(tensors) do steps[t] = tensor:tobytes() end
  for r, length in ipairs(loop.lengths) do
    for t = 1, length do rows[#rows + 1] = steps[t]:sub(width * (r - 1) + 1, width * r) end
  end
  return value(rec, dtype, loop.space, dims, { tensor = of_rows(rows, dims, dtype) })
end

-- A state at a loop's start or from a step, one row for each sequence.
local function state_rows(rec, name, v, dims, dtype)
  local base = rec.loop.base
  if v.space < 0 then v = rec:add("spread", { v }, { space = base }) end
  if table.concat(v.dims, ",") ~= table.concat(dims, ",") or v.dtype ~= dtype then
    check.fail("the state %s is %s [%s], what it should become is %s [%s]", name, dtype,
      table.concat(dims, ","), v.dtype, table.concat(v.dims, ","))
  end
  return now(v)
end

function recorder:scan(space, states, order, step)
  if self.loop then check.fail("debug: a loop inside a loop's step is not possible") end
  local loop = { space = space, base = self.spaces[space + 1].parent, t = 0,
    lengths = self.lengths[space]:totable() }
  local longest, ragged = 0, false
  for r, length in ipairs(loop.lengths) do
    longest, ragged = math.max(longest, length), ragged or length ~= loop.lengths[1] and r > 1
  end
  if longest == 0 then check.fail("debug: all sequences are empty: there is no step to run") end
  self.loop = loop
  local s = {}
  for _, name in ipairs(order) do
    local st = states[name]
    local dtype = st.dtype or "f32"
    local shape = table.move(st.dims, 1, #st.dims, 2, { #loop.lengths })
    local first = st.init and state_rows(self, name, st.init, st.dims, dtype)
      or core.zeros(shape, dtype)
    s[name] = value(self, dtype, space, st.dims, { tensor = first, step = true })
  end

  local kept, y, whole = { y = {}, state = {} }, nil, {}
  for _, name in ipairs(order) do kept.state[name] = {} end
  for t = 1, longest do
    loop.t = t
    local next_states
    y, next_states = self:step(step, s, order)
    if record.is_value(y) and y.own.step then kept.y[t] = now(y) end
    local after = {}
    for _, name in ipairs(order) do
      local old = s[name]
      local rows = state_rows(self, name, next_states[name], old.dims, old.dtype)
      if ragged then -- what has ended keeps its state
        local width, list = 4 * product(old.dims), {}
        local new, was = rows:tobytes(), old.own.tensor:tobytes()
        for r, length in ipairs(loop.lengths) do
          list[r] = (t <= length and new or was):sub(width * (r - 1) + 1, width * r)
        end
        rows = of_rows(list, old.dims, old.dtype)
      end
      kept.state[name][t] = rows
      after[name] = value(self, old.dtype, space, old.dims, { tensor = rows, step = true })
    end
    s = after
  end
  self.loop = nil
  if #kept.y > 0 then y = stack(self, loop, kept.y, y.dims, y.dtype) end
  for _, name in ipairs(order) do
    whole[name] = stack(self, loop, kept.state[name], s[name].dims, s[name].dtype)
  end
  return y, whole
end

-- ---- looking at values ----

-- [T,B,..] for sequences over the batch, padding 0; in a loop the step's rows.
local function numbers(v)
  local rec = v.rec
  if rec.loop or v.space < 1 or rec.spaces[v.space + 1].parent ~= 0 then return now(v) end
  local bytes, width = now(v):tobytes(), 4 * product(v.dims)
  local lengths, starts, from, longest = rec.lengths[v.space]:totable(), {}, 0, 0
  for r, length in ipairs(lengths) do
    starts[r], from, longest = from, from + width * length, math.max(longest, length)
  end
  local rows = {}
  for t = 1, longest do
    for r, length in ipairs(lengths) do
      local at = starts[r] + width * (t - 1)
      rows[#rows + 1] = t <= length and bytes:sub(at + 1, at + width) or ("\0"):rep(width)
    end
  end
  return of_rows(rows, v.dims, v.dtype, { longest, #lengths })
end

function recorder:text(v) return tostring(numbers(v)) end

-- t[i], t:get(i, j) and the like of its numbers.
function recorder:look(v, key)
  if math.type(key) == "integer" then return numbers(v)[key] end
  local method = tensor_meta.methods[key]
  return method and function(_, ...) return method(numbers(v), ...) end
end

local function plain(x, seen)
  if record.is_value(x) then
    local t = numbers(x)
    return x.space < 0 and #x.dims == 0 and t:item() or t
  elseif type(x) == "table" and not getmetatable(x) and not seen[x] then
    local out = {}
    seen[x] = out
    for k, v in pairs(x) do out[k] = plain(v, seen) end
    return out
  end
  return x
end

--- Runs f at once. Inside of a cell's step the values hold the rows of the step: print(h) shows
-- them, h:get(1, 2), h:totable() and h[1] read them. Fused layers are walked through step by step
-- too. Dropout is off; what is drawn by chance is not what a run would draw.
-- @function debug
-- @param f a layer or function that takes the value of x; or, with a batch, a function for
--   neap.program, which says what its inputs are; or a task that this script has made
-- @param x a tensor [T,B,..] (i32 [T,B]: ids), or a batch as run:feed takes it
-- @tab[opt] options `{ params = program.params (else new ones are made), seed = 1,
--   lengths = i32 tensor [B] for a tensor x, input_size =, output_size =,
--   program = "learn" of a task }`
-- @return what f returns, tensors for values, a number for a value that has only one
return function(f, x, options)
  options = check.options("debug", options, { "params", "seed", "lengths", "input_size",
    "output_size", "program" })
  if options.params ~= nil and (type(options.params) ~= "userdata"
    or getmetatable(options.params) ~= params_meta) then
    check.fail("debug: params: expected the parameters of a program or task, came %s",
      check.came(options.params))
  end
  if options.seed ~= nil then check.integer("debug", "seed", options.seed) end
  for _, name in ipairs { "input_size", "output_size" } do
    if options[name] ~= nil then check.integer("debug", name, options[name], 1) end
  end
  local params, hints, build = options.params, options, f
  local batch, lengths = x, options.lengths
  if lengths ~= nil and (type(lengths) ~= "userdata" or getmetatable(lengths) ~= tensor_meta
    or lengths:dtype() ~= "i32") then
    check.fail("debug: lengths: expected an i32 tensor [B], came %s", check.came(lengths))
  end
  if options.program ~= nil and not (type(f) == "table" and f.builders) then
    check.fail("debug: program: only a task has several, came %s", check.came(options.program))
  end
  if type(f) == "table" and f.builders ~= nil and f.params then
    params, hints = f.params, f.hints
    build = f.builders[options.program == nil and "learn" or options.program]
    if not build then
      check.fail("debug: %s has no program %s", f.kind, check.came(options.program))
    end
  elseif type(f) == "table" and f.programs and f.kind then
    check.fail("debug: this %s came from a file, which holds its programs but not the Lua "
      .. "functions that made them", f.kind)
  elseif type(f) == "function" then
    layer.check("debug", f)
  elseif not layer.is_layer(f) then
    check.fail("debug: expected a layer, a function or a task, came %s", check.came(f))
  end
  if type(x) == "userdata" and getmetatable(x) == tensor_meta then
    local shape = x:shape()
    if #shape < 2 or f ~= build then
      check.fail("debug: x: expected %s, came %s", f ~= build and "a batch"
        or "a tensor [T,B,..]", check.came(x))
    end
    batch = { x = lengths and { data = x, lengths = lengths, padded = true } or x }
    build = function(rec)
      return f(rec:input("x", { space = "T", dtype = x:dtype(),
        dims = table.move(shape, 3, #shape, 1, {}) }))
    end
  elseif type(x) ~= "table" or getmetatable(x) then
    check.fail("debug: x: expected a tensor [T,B,..] or a batch, came %s", check.came(x))
  elseif layer.is_layer(f) then
    check.fail("debug: x: a layer takes a tensor [T,B,..], came %s", check.came(x))
  end
  params = params or core.params()
  local rec = setmetatable({ core = core.program(params), params = params,
    seed = options.seed or 1, scope = "", taken = {}, outputs = {}, scalars = {}, sizes = {}, lengths = {},
    batch = batch, line = core.where(), hints = { recorded = true, input_size = hints.input_size,
      output_size = hints.output_size } }, recorder)
  rec.spaces = rec.core:spaces()
  local out = table.pack(record.inside(rec, build, rec))
  if out.n == 0 then out = { n = 1, rec.outputs } end
  for i = 1, out.n do out[i] = plain(out[i], {}) end
  return table.unpack(out, 1, out.n)
end
