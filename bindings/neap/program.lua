--- Programs and runs: what a recorded function becomes, and one batch at a time through it.
--
-- A program has `params`, `inputs`, `outputs`. Parameters are a set of their own, `program.params`
-- or `task.params`: `names()`, `shape(name)`, `get(name)` (a copy, a tensor), `set(name, tensor)`,
-- `grad(name)`, `zero_grad()`, `freeze(name, on)`, `frozen(name)`, `size()`, `clone()`,
-- `copy(params)`, `pool(pool)` (threads for what goes through all numbers: clearing gradients,
-- optimizers, averages; a task's `threads` sees to it); `print` shows them.
-- @module neap.program
local core = require "neap.core"
local check = require "neap.check"
local record = require "neap.record"
local layer = require "neap.layer"
local batches = require "neap.batches"

local program = {}
local methods, meta = {}, { __name = "neap.program" }
meta.__index = methods
local run_methods, run_meta = {}, { __name = "neap.run" }
run_meta.__index = run_methods

local tensor_meta, params_meta = getmetatable(core.zeros { 1 }), getmetatable(core.params())
local function is_tensor(x) return type(x) == "userdata" and getmetatable(x) == tensor_meta end
local function is_params(x) return type(x) == "userdata" and getmetatable(x) == params_meta end

--- Wraps a program of the runtime. params: the object that holds its parameters, if there is one
-- already: layers know their paths by it.
function program.wrap(c, params)
  local self = setmetatable({ core = c, params = params or c:params(), inputs = c:inputs(),
    outputs = c:outputs(), spaces = c:spaces() }, meta)
  self.types = {}
  for name, id in pairs(self.inputs) do
    local dtype, space, dims = c:type(id)
    self.types[name] = { dtype = dtype, space = space, dims = dims }
  end
  return self
end

--- Records a function as a program.
-- @func fn called with the recorder: `rec:input(name, { space = "T", dims = { 3 } })`,
--   `rec:scalar(name, preset)`, `rec:param(name, dims, init)`; returns a table of named outputs
-- @tab[opt] options `{ params = a set to share, seed = 1, input_size =, output_size = }`
-- @treturn program
function program.new(fn, options)
  check.type("program", "function", fn, "function")
  options = check.options("program", options, { "params", "seed", "input_size", "output_size",
    "recorded" })
  if options.params ~= nil and not is_params(options.params) then
    check.fail("program: params: expected the parameters of a program or task, came %s",
      check.came(options.params))
  end
  if options.seed ~= nil then check.integer("program", "seed", options.seed) end
  for _, name in ipairs { "input_size", "output_size" } do
    if options[name] ~= nil then check.integer("program", name, options[name], 1) end
  end
  check.boolean("program", "recorded", options.recorded)
  local rec = record.program(fn, options.params, options.seed, options)
  return program.wrap(rec.core, rec.params)
end

function meta:__tostring() return (self.core:print():gsub("\n$", "")) end

--- Why it cannot be streamed; nil if it can.
function methods:reads_future() return self.core:reads_future() end

--- Opens a run: memory and shapes of one batch at a time.
--
-- `recompute`: sequences are taken in segments, and only the states at their borders are kept; backward
-- runs each segment forward once more. A training step takes about a third longer, and its memory grows
-- with the square root of the steps, but for inputs and for outputs that have something at each step.
-- What needs a whole sequence (a reversed layer, attention to it) is not taken in segments, nor is what
-- it is made of: `run:whole()` names the first such node.
-- @tab[opt] options `{ learn = false, recompute = false, double = false, check = false, pool =, seed = 0,
--   max_rows = }`
-- @treturn run
function methods:run(options)
  if type(options) == "table" and type(options.pool) == "number" then
    check.fail("run: pool: expected threads, neap.pool(%s), came %s", options.pool, options.pool)
  end
  return setmetatable({ program = self, core = core.run(self.core, options) }, run_meta)
end

local function megabytes(n) return ("%.1f MB"):format(n / 1e6) end

local function memory_text(m)
  return ("%s: %s for the run, %s of parameters%s"):format(megabytes(m.total), megabytes(m.run),
    megabytes(m.parameters), m.gradients > 0 and ", " .. megabytes(m.gradients) .. " of gradients"
    or "")
end

-- The lengths of one space's sequences, as many as the space above has rows.
local function lengths_told(name, given, rows)
  local n = core.zeros({ rows }, "i32")
  if type(given) ~= "table" then
    return n:fill(check.integer("memory", "lengths: " .. name, given, 0, 0x7fffffff))
  end
  if #given ~= rows then
    check.fail("memory: lengths: %s: expected a number or %d of them, came %d", name, rows, #given)
  end
  for i, length in ipairs(given) do
    n[i] = check.integer("memory", "lengths: " .. name, length, 0, 0x7fffffff)
  end
  return n
end

--- The bytes that a run takes for batches of a shape, told before any of them is taken: as many as
-- `run:bytes()` says, and C's `neap_memory_live` grows by, once there is such a run.
-- @tab[opt] options `{ rows = 1, lengths = 1, learn = false, recompute = false, double = false, pool = }`;
--   `lengths`: steps of each sequence; or by the name of the space, a number for all or a list: `{ T = { 5, 3 } }`
-- @treturn tab `{ run, parameters, gradients, total }`; printed, a line
function methods:memory(options)
  options = check.options("memory", options, { "rows", "lengths", "learn", "recompute", "double",
    "pool" })
  local rows = check.integer("memory", "rows", options.rows == nil and 1 or options.rows, 0,
    0x7fffffff)
  local given, known = options.lengths == nil and 1 or options.lengths, {}
  for i = 2, #self.spaces do known[#known + 1] = self.spaces[i].name end
  if type(given) == "table" then
    check.options("memory: lengths", given, known)
  else
    check.integer("memory", "lengths", given, 0, 0x7fffffff)
  end
  local run = core.run(self.core, { learn = options.learn, recompute = options.recompute,
    double = options.double, pool = options.pool, tell = true })
  run:batch(rows)
  for i, name in ipairs(known) do
    local of = type(given) == "table" and given[name] or type(given) ~= "table" and given or 1
    local above = run:rows(self.spaces[i + 1].parent)
    if type(of) == "number" and above * of > 0x7fffffff then
      check.fail("memory: %d sequences of %d steps have more rows than can be, %d", above, of, 0x7fffffff)
    end
    run:lengths(i, lengths_told(name, of, above))
  end
  local m = { run = run:plan(), parameters = 4 * self.params:size(), gradients = 0 }
  if options.learn then m.gradients = m.parameters end
  m.total = m.run + m.parameters + m.gradients
  return setmetatable(m, { __tostring = memory_text })
end

--- Opens a stream: one step at a time, the state carried; or up to `block` steps in a call. With a
-- `lookahead` the program may read so many later steps, and outputs come so many steps late.
-- `stream:input(name, x)` gives an input of the step (a tensor or a table of numbers),
-- `stream:step()` makes it, `stream:output(name)` reads what came; both also take numbers from 1, in
-- the program's order.
-- @tab[opt] options `{ rows = 1, seed = 0, block = 1, lookahead = 0 }`
function methods:stream(options) return core.stream(self.core, options) end

--- A state for that many rows.
function methods:state(rows) return core.state(self.core, rows) end

-- kinds: "inputs", "outputs" or "inputs or outputs"
local function id_of(self, kinds, name)
  local names = {}
  for kind in kinds:gmatch "%a+puts" do
    local list = self.program[kind]
    if list[name] then return list[name] end
    for k in pairs(list) do names[#names + 1] = k end
  end
  table.sort(names)
  local near = core.nearest(tostring(name), names)
  check.fail("the program has no %s %s%s", (kinds:gsub("puts", "put")), tostring(name),
    near and "; did you mean " .. near .. "?" or "")
end

--- The first sequence for which two fields of a batch have other lengths, as the end of a message;
-- "" if there is none.
function program.difference(batch, name, other)
  local a, b = batch[name], batch[other]
  if type(a) ~= "table" or type(b) ~= "table" then return "" end
  local n, m = a.outer or a.lengths, b.outer or b.lengths
  if not n or not m or #n ~= #m then return "" end
  for row = 1, #n do
    if n[row] ~= m[row] then
      local i, from = batch.order and batch.order[row] or row, a.from or b.from
      local place = from and from.corpus:place(i) or "sequence " .. i
      return (": %s: %d %s, %d %s"):format(place, n[row], a.from and a.from.name or name, m[row],
        b.from and b.from.name or other)
    end
  end
  return ""
end

-- The same, or for whole tensors where their steps differ.
local function unlike(batch, a, b, first, second)
  local text = program.difference(batch, a, b)
  for row = 1, text == "" and #first or 0 do
    if first[row] ~= second[row] then
      return (": row %d: %d %s, %d %s"):format(row, first[row], a, second[row], b)
    end
  end
  return text
end

-- The fields of a batch by input: lengths of spaces, parents before children, then data.
local function shapes(self, batch)
  local spaces, rows, lengths, by, full = self.program.spaces, batch.rows, {}, {}, {}
  local single
  local function set(space, name, given)
    if type(given) ~= "userdata" or given:dtype() ~= "i32" then
      check.fail("feed: input %s: its lengths: expected an i32 tensor, came %s", name,
        check.came(given))
    end
    local before = lengths[space]
    if before and before ~= given and before:tobytes() ~= given:tobytes() then
      local a, b = by[space], name
      if b < a then a, b = b, a end
      local first, second = before, given
      if a == name then first, second = given, before end
      check.fail("feed: inputs %s and %s are of the same sequence %s, but their %s", a, b,
        spaces[space + 1].name, #first == #second
          and "lengths differ" .. unlike(batch, a, b, first, second)
          or ("rows differ: %s has %d, %s has %d"):format(a, #first, b, #second))
    end
    lengths[space], by[space] = given, by[space] or name
  end
  for name, field in pairs(batch) do
    local t = self.program.types[name]
    if t and type(field) == "table" and t.space > 0 then
      local space = t.space
      if field.outer then
        set(space, name, field.inner)
        set(spaces[space + 1].parent, name, field.outer)
        rows = rows or #field.outer
      elseif field.lengths then
        set(space, name, field.lengths)
        rows = rows or #field.lengths
      else
        check.fail("feed: input %s is a sequence: expected { data =, lengths = }", name)
      end
    elseif t and type(field) == "userdata" and t.space > 0 then
      local shape = field:shape()
      if #shape < 2 then
        check.fail("feed: input %s is a sequence: expected [T,B,..], came %s", name,
          check.came(field))
      end
      full[#full + 1] = { t.space, name, shape }
      rows = rows or shape[2]
    elseif t and t.space == 0 then
      local data = type(field) == "table" and field.data or field
      single = single or #data
    end
  end
  rows = rows or single
  local whole = {}
  for _, f in ipairs(full) do -- all steps, unless another input of the sequence says how many
    local space, name, shape = table.unpack(f)
    if not lengths[space] or whole[space] then
      local n = core.zeros({ shape[2] }, "i32")
      n:fill(shape[1])
      set(space, name, n)
      whole[space] = true
    end
  end
  return rows, lengths
end

program.shapes = shapes

-- The tensor that an input takes, "[4,2,3]", by the rows and lengths that were fed; nil if no
-- single shape says it.
local function wanted(self, name, layout, rows, lengths)
  local t, dims = self.program.types[name], {}
  local given = t.space > 0 and lengths[t.space]
  if t.space == 0 then
    dims[1] = rows
  elseif given and layout == "concat" then
    dims[1] = 0
    for i = 1, #given do dims[1] = dims[1] + given[i] end
  elseif given and self.program.spaces[t.space + 1].parent == 0 then
    dims[1], dims[2] = 0, rows
    for i = 1, #given do dims[1] = math.max(dims[1], given[i]) end
  elseif t.space > 0 then
    return nil
  end
  for _, d in ipairs(t.dims) do
    if d < 0 then return nil end
    dims[#dims + 1] = d
  end
  return ("[%s]"):format(table.concat(dims, ","))
end

-- Has a whole tensor [T,B,..] the dimensions of its input? If not, it could be taken for one of the
-- same size with more steps.
local function alike(self, name, tensor)
  local t, shape = self.program.types[name], tensor:shape()
  if t.space < 1 or #shape ~= 2 + #t.dims then return true end
  for k, d in ipairs(t.dims) do
    if d >= 0 and shape[2 + k] ~= d then return false end
  end
  return true
end

-- Gives a tensor to an input; one of another size is told by its shape.
local function put(self, name, tensor, layout, rows, lengths)
  if layout ~= "concat" and not alike(self, name, tensor) then
    local shape = wanted(self, name, "padded", rows, lengths)
    if shape then
      check.fail("feed: input %s: expected a tensor %s, came %s", name, shape, check.came(tensor))
    end
  end
  local ok, message = pcall(self.core.input, self.core, self.program.inputs[name], tensor, layout)
  if ok then return end
  local shape = tostring(message):find(" elements, got ", 1, true)
    and wanted(self, name, layout or "padded", rows, lengths)
  if shape then
    message = ("%s: a tensor %s, came %s"):format(message, shape, check.came(tensor))
  end
  error(message, 0)
end

local function names_of(list)
  local names = {}
  for name in pairs(list) do names[#names + 1] = tostring(name) end
  table.sort(names)
  return #names > 0 and table.concat(names, ", ") or "none"
end

function run_meta:__tostring()
  return ("run: inputs %s; outputs %s; %.1f MB"):format(names_of(self.program.inputs),
    names_of(self.program.outputs), self.core:bytes() / 1e6)
end

--- Gives a batch to the run: a table of input name -> field. Other names in it are passed over.
-- A field is a tensor ([T,B,..] for a sequence, [B,..] for a row each, any shape without rows), or
-- `{ data, lengths }` (sequences one after the other, as @{neap.batches} makes them), or
-- `{ data, lengths, padded = true }` ([T,B,..]), or `{ data, inner, outer }` (nested), or a number
-- for a scalar.
-- @tab batch `rows` may say how many rows the batch has
function run_methods:feed(batch)
  if type(batch) ~= "table" then
    check.fail("feed: expected a batch, a table of input name -> field, came %s", check.came(batch))
  end
  batches.check("feed", batch)
  local some = false
  for name in pairs(batch) do some = some or self.program.inputs[name] ~= nil end
  if not some and next(self.program.inputs) then
    check.fail("feed: the batch has none of the inputs %s; it has %s",
      names_of(self.program.inputs), names_of(batch))
  end
  local rows, lengths = shapes(self, batch)
  if rows then
    self.core:batch(rows)
    for space = 1, #self.program.spaces - 1 do
      if lengths[space] then self.core:lengths(space, lengths[space]) end
    end
  end
  for name, field in pairs(batch) do
    local id = self.program.inputs[name]
    if id then
      if type(field) == "number" then
        self.core:scalar(id, field)
      elseif type(field) == "table" then
        if type(field.data) ~= "userdata" then
          check.fail("feed: input %s: its data: expected a tensor, came %s", name,
            check.came(field.data))
        end
        put(self, name, field.data, (field.padded or not (field.lengths or field.inner))
          and "padded" or "concat", rows, lengths)
      elseif type(field) == "userdata" then
        put(self, name, field, nil, rows, lengths)
      else
        check.fail("feed: input %s: expected a tensor, a table or a number, came %s", name,
          check.came(field))
      end
    end
  end
  return self
end

--- Sets a number of the program (neap.scalar).
function run_methods:set(name, number) self.core:scalar(id_of(self, "inputs", name), number) end

function run_methods:forward() self.core:forward() return self end

--- Adds the gradient of an output (one number) to the parameters' gradients.
-- @string[opt="loss"] name
-- @number[opt=1] share times this number
function run_methods:backward(name, share)
  local id = id_of(self, "outputs", name or "loss")
  if share == nil or share == 1 then return self.core:backward(id) end
  self.core:backward(id, core.tensor(check.number("backward", "share", share)))
end

--- An output or watched value as a tensor: [T,B,..] with padding 0, or as layout "concat".
-- @string name
-- @tparam[opt] string|int layout "padded", "concat", or a time step from 1
function run_methods:value(name, layout)
  local id = id_of(self, "outputs", name)
  if math.type(layout) == "integer" then
    local all = self.core:read(id)
    local part = all[layout]
    if part == nil then check.fail("value: %s has %d steps, came %d", name, #all, layout) end
    return type(part) == "userdata" and part:clone() or part -- a view would hold all steps
  end
  return self.core:read(id, layout)
end

--- An output that is one number.
function run_methods:item(name) return self.core:item(id_of(self, "outputs", name or "loss")) end

--- Keeps the gradient of an input or output, to be called before feeding.
function run_methods:want_gradient(name)
  self.core:keep(id_of(self, "inputs or outputs", name), true)
end

--- The gradient of an input or output after backward.
function run_methods:gradient(name, layout)
  return self.core:grad(id_of(self, "inputs or outputs", name), layout)
end

--- The state to start from and to leave the last state in; nil: none.
function run_methods:state(state) self.core:state(state) end

--- Draws from the next forward on as a run of that seed does after so many forwards.
-- @int seed
-- @int[opt=0] drawn
function run_methods:seed(seed, drawn) self.core:seed(seed, drawn) end

--- From which seed it draws, and for how many forwards it has.
function run_methods:drawn() return self.core:drawn() end
function run_methods:learning(on) self.core:learning(on) end
function run_methods:bytes() return self.core:bytes() end

--- Of a run with `recompute`: the first node that needs a whole sequence; nil if none does.
function run_methods:whole() return self.core:whole() end

-- ---- programs and tensors in files ----

-- Writes a model file; programs: name -> program.
local function write(path, programs, texts)
  local model
  for name, pr in pairs(programs) do
    model = model or core.model(pr.params)
    model:add(name, pr.core)
  end
  for key, text in pairs(texts) do model:set_text(key, text) end
  return model:save(path)
end

--- Saves programs that share a set of parameters, and the parameters, in one safetensors file. Each
-- parameter of the set must be used by one of them. `neap.load` and C's `neap_model_load` read it;
-- `neap_stream_open` and `scripts/embed/run_model.c` take the program "predict", or the only one.
-- @string path
-- @param programs a program, which is called "predict" then, or a table of name -> program
-- @tab[opt] texts strings by name that go with them (the symbols of a vocabulary)
-- @return true; or nil, message, code
function program.save(path, programs, texts)
  check.type("save", "path", path, "string")
  if getmetatable(programs) == meta then programs = { predict = programs } end
  if type(programs) ~= "table" or getmetatable(programs) or next(programs) == nil then
    check.fail("save: expected a program or a table of name -> program, came %s%s",
      check.came(programs), type(programs) == "table" and programs.params
        and " (a task saves itself: task:save(path))" or "")
  end
  local params
  for name, pr in pairs(programs) do
    if type(name) ~= "string" or getmetatable(pr) ~= meta then
      check.fail("save: expected a table of name -> program, came %s = %s", tostring(name),
        check.came(pr))
    end
    params = params or pr.params
    if pr.params ~= params then
      check.fail("save: the programs do not share one set of parameters: neap.program(f, { "
        .. "params = other.params })")
    end
  end
  for key, text in pairs(texts or {}) do
    if type(key) ~= "string" or type(text) ~= "string" then
      check.fail("save: texts: expected strings by name, came %s = %s", tostring(key),
        check.came(text))
    elseif key == "task" then
      check.fail("save: texts: \"task\" is the name of what neap's own tasks write")
    end
  end
  return write(path, programs, texts or {})
end

--- Saves the program alone; the same as `neap.save(path, { [name] = program })`.
-- @string path
-- @string[opt="predict"] name
-- @return true; or nil, message, code
function methods:save(path, name)
  return program.save(path, { [check.type("save", "name", name or "predict", "string")] = self })
end

check.methods("program", methods)
check.methods("run", run_methods)
program.write = write

--- Reads the tensors of a safetensors file, such as PyTorch writes: numbers of any width become
-- f32, integers i32. `program.params:set(name, tensor)` puts one into a model.
-- @string path
-- @return a table of name -> tensor, then a table of the file's texts; or nil, message, code
function program.load_tensors(path)
  check.type("load_tensors", "path", path, "string")
  local a, message, code = core.load_archive(path)
  if not a then return nil, message, code end
  local tensors, texts = {}, {}
  for _, name in ipairs(a:names()) do tensors[name] = a:tensor(name) end
  for _, key in ipairs(a:texts()) do texts[key] = a:text(key) end
  return tensors, texts
end

--- Writes tensors as a safetensors file.
-- @string path
-- @tab tensors name -> tensor
-- @return true; or nil, message, code
function program.save_tensors(path, tensors)
  check.type("save_tensors", "path", path, "string")
  if type(tensors) ~= "table" or getmetatable(tensors) then
    check.fail("save_tensors: expected a table of name -> tensor, came %s", check.came(tensors))
  end
  local a = core.archive()
  for name, t in pairs(tensors) do
    local kind = getmetatable(t)
    if type(name) ~= "string" or type(kind) ~= "table" or kind.__name ~= "neap.tensor" then
      check.fail("save_tensors: expected a table of name -> tensor, came %s = %s", tostring(name),
        check.came(t))
    end
    a:add(name, t)
  end
  return a:save(path)
end

-- ---- states in files ----

local state_methods = getmetatable(core.state(core.program(core.params()), 0)).methods

-- Which rows hold a state stands in the text "held", "1011": the others start from the program's
-- own first state.

-- The slots' names in a file: a layer that a program uses twice has two of the same name.
local function names_in_file(self)
  local names, taken = state_methods.slots(self), {}
  for i, slot in ipairs(names) do
    taken[slot] = (taken[slot] or 0) + 1
    if taken[slot] > 1 then names[i] = ("%s#%d"):format(slot, taken[slot]) end
  end
  return names
end

--- Saves a state's slots as a safetensors file, and which of its rows hold one.
-- @string path
-- @return true; or nil, message, code
function state_methods:save(path)
  local names, a = names_in_file(self), core.archive()
  local held = self:held()
  for i, name in ipairs(names) do a:add(name, self:get(i)) end
  for row, holds in ipairs(held) do held[row] = holds and "1" or "0" end
  a:set_text("held", table.concat(held))
  return a:save(path)
end

--- Reads back what save wrote: a state with the same slots and as many rows, or nothing is changed.
-- Where the file does not say which rows hold a state (another program wrote it), all do.
-- @string path
-- @return true; or nil, message, code
function state_methods:load(path)
  local names = names_in_file(self)
  local a, message, code = core.load_archive(path)
  if not a then return nil, message, code end
  local function refuse(format, ...)
    return nil, ("'%s': "):format(path) .. format:format(...), "EFORMAT"
  end
  local known, fresh = {}, {}
  for i, name in ipairs(names) do
    known[name] = true
    local t = a:tensor(name)
    if not t then return refuse("it has no state %s", name) end
    local came, expected = check.came(t), check.came(self:get(i))
    local open = self:get(i):shape()[2] == 0 and #t:shape() == 2 and #t == self:rows()
    if came ~= expected and not open then return refuse("state %s is %s, expected %s", name, came, expected) end
  end
  for _, name in ipairs(a:names()) do
    if not known[name] then
      return refuse("expected the states %s, came %s too", table.concat(names, ", "), name)
    end
  end
  local held = a:text "held" or ("1"):rep(self:rows())
  if #held ~= self:rows() or held:find "[^01]" then
    return refuse("held: expected 0 or 1 for each of %d rows, came %s", self:rows(),
      check.came(held))
  end
  for i, name in ipairs(names) do -- those whose width only a batch says
    if self:get(i):shape()[2] == 0 then
      self:set(i, a:tensor(name))
      self:reset()
    end
  end
  for row in held:gmatch "()0" do fresh[#fresh + 1] = row end
  for i, name in ipairs(names) do self:set(i, a:tensor(name)) end
  self:reset(fresh)
  return true
end

-- ---- checks and small tools ----

--- Gradients of a function of tensors.
-- @func f called with values of the tensors' shapes; gives one number
-- @param ... tensors
-- @return f's value, then the gradient of each tensor
function program.grad(f, ...)
  if not layer.is_layer(f) then check.type("grad", "function", f, "function") end
  local given = table.pack(...)
  for i = 1, math.max(given.n, 1) do
    local t = given[i]
    if not is_tensor(t) or t:dtype() ~= "f32" then
      check.fail("grad: argument %d: expected an f32 tensor, came %s", i + 1, check.came(t))
    end
  end
  local params = core.params()
  for i, t in ipairs(given) do
    params:add("x" .. i, t:shape())
    params:set("x" .. i, t)
  end
  local pr = program.new(function(rec)
    local values = {}
    for i, t in ipairs(given) do values[i] = rec:param("x" .. i, t:shape()) end
    local y = f(table.unpack(values))
    if not record.is_value(y) then
      check.fail("grad: the function must give a recorded value, came %s", check.came(y))
    end
    return { loss = y }
  end, { params = params })
  local run = pr:run { learn = true }
  run:forward()
  params:zero_grad()
  run:backward()
  local out = { run:item() }
  for i = 1, #given do out[i + 1] = params:grad("x" .. i) end
  return table.unpack(out)
end

-- Of gradcheck: most numbers of input; an error under `good` is one of rounding.
local most, good = 100000, 1e-6

-- What gradcheck compares on: options, checked, and the lengths of the sequences.
local function trial(options)
  options = check.options("gradcheck", options, { "T", "B", "input", "lengths", "seed", "step",
    "ids" })
  local function integer(name, preset, high)
    local v = options[name]
    if v == nil then v = preset end
    return check.integer("gradcheck", name, v, 1, high)
  end
  local given = options.lengths == nil and {}
    or check.table("gradcheck", "lengths", options.lengths)
  local seed = check.integer("gradcheck", "seed", options.seed == nil and 1 or options.seed)
  local t = { rng = require "neap.rng".new(seed), seed = seed, lengths = {}, rows = 0,
    ids = options.ids ~= nil and integer("ids", nil, 0x7fffffff) or nil,
    step = options.step == nil and 1e-5
      or check.number("gradcheck", "step", options.step, 1e-12, 1) }
  local T, B = integer("T", 5, most), integer("B", math.max(#given, 2), most)
  t.width = t.ids and 1 or integer("input", 3, most)
  if T * B * t.width > most then
    check.fail("gradcheck: T, B, input: %d * %d * %d numbers are too many, at most %d are possible",
      T, B, t.width, most)
  end
  if options.lengths ~= nil and options.B ~= nil and #given > B then
    check.fail("gradcheck: lengths: there are %d, but B is %d", #given, B)
  end
  for b = 1, B do
    t.lengths[b] = given[b] ~= nil and check.integer("gradcheck", "lengths", given[b], 0, most)
      or b == 1 and T or t.rng:int(T)
    t.rows = t.rows + t.lengths[b]
  end
  if t.rows == 0 or t.rows * t.width > most then
    check.fail("gradcheck: lengths: expected 1 to %d steps in all, came %d", most // t.width,
      t.rows)
  end
  return t
end

-- A line for each parameter, and whether that is good.
local function verdict(result)
  local unreached = getmetatable(result).unreached
  local lines, worst, at = {}, -1, nil
  for name, e in pairs(result) do
    local mark = not unreached[name] and "" or "  no gradient reaches it"
      .. (e > 0 and ", but the loss depends on it" or "")
    lines[#lines + 1] = ("%-32s %.2e%s"):format(name, e, mark)
    if e ~= e or e > worst then worst, at = e, name end
  end
  table.sort(lines)
  lines[#lines + 1] = ("worst %.2e, of %s: %s %g"):format(worst, at,
    worst < good and "good, under" or "WRONG, not under", good)
  return table.concat(lines, "\n")
end

--- Compares the gradients of a layer with finite differences, in double precision. The loss is a
-- weighted sum of all outputs on random input.
-- @tparam layer|function l
-- @tab options `{ T = 5, B = 2, input = width, lengths = {..}, seed = 1, step = 1e-5,
--   ids = vocabulary size for layers that take ids }`
-- @treturn tab worst relative error by parameter (over the parameter's largest gradient), but for
--   frozen ones. Printed, it ends with the worst of all and whether that is under 1e-6; parameters that no gradient
--   reaches are marked
function program.gradcheck(l, options)
  layer.check("gradcheck", l)
  local given = trial(options)
  local op = require "neap.op"
  local pr = program.new(function(rec)
    local x = given.ids and rec:input("x", { space = "T", dtype = "i32" })
      or rec:input("x", { space = "T", dims = { given.width } })
    local y = l(x)
    if not record.is_value(y) or y.dtype ~= "f32" then
      check.fail("gradcheck: the layer must give a recorded value of numbers, came %s",
        check.came(y))
    end
    local z = op.sin(y * 3 + 0.3) -- no symmetry that could hide an error
    for _ = 1, #z.dims do z = op.sum(z) end
    if z.space >= 0 then z = op.reshape(op.sum_rows(op.reshape(z, { 1 })), {}) end
    return { loss = z }
  end, { seed = given.seed, input_size = given.ids })
  local names = {}
  for _, name in ipairs(pr.params:names()) do
    if not pr.params:frozen(name) then names[#names + 1] = name end
  end
  if #names == 0 then
    check.fail("gradcheck: the layer has no parameters: there is nothing to compare")
  end
  local data
  if given.ids then
    data = core.zeros({ given.rows }, "i32")
    for i = 1, given.rows do data[i] = given.rng:int(given.ids) - 1 end
  else
    local flat = {}
    for i = 1, given.rows * given.width do flat[i] = given.rng:normal() end
    data = core.tensor(flat):reshape({ given.rows, given.width })
  end
  local run = pr:run { learn = true, double = true }
  run:learning(false)
  local h, batch = given.step, { x = { data = data, lengths = core.tensor(given.lengths, "i32") } }
  local function loss()
    run:feed(batch)
    run:forward()
    return run:item()
  end
  loss()
  run:backward()
  local grads = {}
  for _, name in ipairs(names) do grads[name] = run.core:param_grad(name) end
  local result, unreached = {}, {}
  -- The worst error of a parameter's gradient by a step of h.
  local function compared(name, h)
    local grad = grads[name]
    local worst, largest = 0, 1e-8
    unreached[name] = true
    for i = 1, #grad do
      run.core:param_shift(name, i, h)
      local up = loss()
      run.core:param_shift(name, i, -2 * h)
      local down = loss()
      run.core:param_shift(name, i, h)
      local numeric = (up - down) / (2 * h)
      local e = math.abs(numeric - grad[i])
      if e ~= e or e > worst then worst = e end -- math.max would lose NaN
      largest = math.max(largest, math.abs(numeric), math.abs(grad[i]))
      if grad[i] ~= 0 then unreached[name] = nil end
    end
    return worst / largest
  end
  for _, name in ipairs(names) do
    result[name] = compared(name, h)
    -- a loss that bends within the step (a norm of zeros) wants a shorter one
    for shorter = 1, options and options.step and 0 or 3 do
      if result[name] < good then break end
      local e = compared(name, h / 10 ^ shorter)
      if e < result[name] then result[name] = e end
    end
  end
  return setmetatable(result, { __tostring = verdict, unreached = unreached })
end

return program
