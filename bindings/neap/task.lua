--- What the task modes share: a set of parameters, programs over it that are recorded when first
-- needed, learning, saving. A task can be taken apart: `task.params`, `task:program(name)`,
-- `task:run(name)`; a script's own loop is `run = task:forward(batch)`, `run:backward()`,
-- `optim:step(task.params)`.
-- @module neap.task
local core = require "neap.core"
local check = require "neap.check"
local cjson = require "cjson"
local batches = require "neap.batches"
local program = require "neap.program"
local record = require "neap.record"
local layer = require "neap.layer"
local op = require "neap.op"
local optimizers = require "neap.optim"
local vocab = require "neap.vocab"

local task = { methods = {} }
local methods = task.methods

local function is_vocab(v)
  return type(v) == "table" and type(v.symbols) == "table" and type(v.plain) == "function"
end

--- Checks that an option is a vocabulary.
-- @string who
-- @string name the option
-- @param v
-- @string[opt] what it should be, for the message
-- @return v
function task.vocab(who, name, v, what)
  if not is_vocab(v) then
    check.fail("%s: %s: expected %s, came %s", who, name, what or "a vocabulary", check.came(v))
  elseif #v.symbols == 0 then
    check.fail("%s: %s: the vocabulary is empty", who, name)
  end
  return v
end

-- { rate = 8000, hop = 80 }: sound.
local function is_sound(input)
  return type(input) == "table" and input.hop ~= nil and input.rate ~= nil
end

--- The inputs of a task in one form: a list of { name, vocab | size, nested, rate }.
-- @string who
-- @param input a vocabulary; a width; `{ rate =, hop = }`: sound, so many samples a second, in steps
--   of so many; or a table of name -> one of these or `{ vocab =, nested = true }` (a sequence at
--   each position, such as the characters of a word)
function task.inputs(who, input)
  local list = {}
  local named = type(input) == "table" and not is_vocab(input) and not is_sound(input)
  local function add(name, spec)
    if is_vocab(spec) then spec = { vocab = spec } end
    if math.type(spec) == "integer" then spec = { size = spec } end
    if type(name) == "number" then
      check.fail("%s: input: expected names of inputs, { name = vocabulary, .. }, came [%s]", who,
        name)
    end
    local full = who .. ": input" .. (named and " " .. tostring(name) or "")
    if is_sound(spec) then
      check.options(full, spec, { "rate", "hop" })
      spec = { rate = check.integer(full, "rate", spec.rate, 1),
        size = check.integer(full, "hop", spec.hop, 1) }
    elseif type(spec) ~= "table"
      or not (is_vocab(spec.vocab) or math.type(spec.size) == "integer") then
      check.fail("%s: input%s: expected a vocabulary, a width, or { vocab =, nested = true }, came %s",
        who, named and " " .. tostring(name) or "", check.came(spec))
    else
      check.options(full, spec, { "vocab", "size", "nested" })
      check.boolean(full, "nested", spec.nested)
      if spec.size ~= nil then check.integer(full, "size", spec.size, 1) end
    end
    if spec.vocab and #spec.vocab.symbols == 0 then
      check.fail("%s: the vocabulary is empty", full)
    end
    list[#list + 1] = { name = name, vocab = spec.vocab, size = spec.size, nested = spec.nested,
      rate = spec.rate }
  end
  if named then
    for name, spec in pairs(input) do add(name, spec) end
    if #list == 0 then check.fail("%s: input: expected at least one, came an empty table", who) end
    table.sort(list, function(a, b) return a.name < b.name end)
  else
    add("input", input)
  end
  list.named = named
  return list
end

--- Records the inputs; gives what the network takes: one value, or a table of them.
function task.record_inputs(rec, list, space)
  space = space or "T"
  local out = {}
  rec:sequence(space)
  for _, i in ipairs(list) do
    local t = { space = space, dtype = i.vocab and "i32" or "f32", dims = i.vocab and {} or { i.size } }
    if i.nested then t.space, t.parent = i.name, space end
    out[i.name] = rec:input(i.name, t)
    if i.vocab then rec:choices(out[i.name], #i.vocab) end
  end
  if not list.named then return out.input end
  return setmetatable(out, { __index = function(_, key)
    if type(key) ~= "string" then return nil end
    local names = {}
    for k, i in ipairs(list) do names[k] = i.name end
    local near = core.nearest(key, names)
    check.fail("the task has no input %s%s; it has %s", key,
      near and (" (did you mean %s?)"):format(near) or "", table.concat(names, ", "))
  end })
end

--- Checks that a network, or the part of one that an option names, is a layer or a function.
function task.network(who, net, option) return layer.check(who .. ": " .. (option or "net"), net) end

--- The options of a loss that tells classes apart: `smoothing`, `weights` and `focal`.
task.class_loss = { "smoothing", "weights", "focal" }

--- The cross-entropy of a task's outputs, by its options.
-- @param rec the recorder
-- @tab options of the task
-- @param output its vocabulary
-- @param logits [..,V]
-- @param ids i32 [..]
function task.cross_entropy(rec, options, output, logits, ids)
  local weights
  if options.weights then
    local list = {}
    for i = 1, #output do list[i] = options.weights[output:symbol(i)] or 1 end
    weights = rec:constant("class_weights", core.tensor(list))
  end
  return op.cross_entropy(logits, ids, { smoothing = options.smoothing, focal = options.focal,
    weights = weights })
end

-- Checks weights of classes: { symbol = number, .. }, 1 where there is none.
local function class_weights(who, weights, output)
  check.table(who, "weights", weights)
  for symbol, w in pairs(weights) do
    if type(symbol) ~= "string" or not output:has(symbol) then
      check.fail("%s: weights: expected symbols of the output and their numbers, came %s = %s", who,
        check.came(symbol), check.came(w))
    end
    check.number(who, ("weights: %s"):format(symbol), w, 0, 1e6)
  end
end

-- Checks what learning tasks have in common.
local function common(who, options)
  if options.smoothing ~= nil then check.number(who, "smoothing", options.smoothing, 0, 1) end
  if options.weights ~= nil then
    class_weights(who, options.weights, options.output or options.vocab)
  end
  if options.focal ~= nil and check.number(who, "focal", options.focal, 0, 100) > 0
    and (options.smoothing or 0) > 0 then
    check.fail("%s: focal: expected none beside smoothing, came %g", who, options.focal)
  end
  if options.threads ~= nil then check.integer(who, "threads", options.threads, 1, 1024) end
  check.boolean(who, "recompute", options.recompute)
end

--- Calls a network and checks what it gives.
function task.call(who, net, ...)
  local y, s, all = net(...)
  if not record.is_value(y) then
    check.fail("%s: the network must give a recorded value, came %s", who, check.came(y))
  end
  return y, s, all
end

-- The parameters, all of them: a set that is still empty would answer wrongly to a script that
-- freezes or counts.
local function parameters(self)
  if self.set:size() == 0 and self.builders and not record.active() then
    self:program(self.main)
  end
  return self.set
end

-- The kinds of tasks, for what one has and another has not.
local kinds = { "seq2class", "synced_seq2seq", "async_seq2seq", "language_model", "forecaster",
  "hmm" }
local no_methods = { restore = true, new = true, decoder = true }

-- A script asks for what the task has not: if that is a method of other kinds, it hears which.
local function missing(kind, key)
  if no_methods[key] or not check.is_script(3) then return end
  local having = {}
  for _, other in ipairs(kinds) do
    local method = rawget(require("neap." .. other), key)
    if type(method) == "function" then having[#having + 1] = other end
  end
  if #having > 0 then
    check.fail("%s has no method %s; %s", kind, key, #having == 1 and having[1] .. " has it"
      or table.concat(having, ", ") .. " have it")
  end
end

-- A method of a class of tasks, which says where it is called with a dot. Made once for each.
local checked = setmetatable({}, { __mode = "k" })
local function method_of(class, kind, key)
  local m = class[key]
  if m == nil then m = methods[key] end
  if type(m) ~= "function" then return m end
  local by_kind = checked[m] or {}
  checked[m] = by_kind
  local name = kind .. "." .. key
  by_kind[name] = by_kind[name] or check.method(kind, key, m, "task")
  return by_kind[name]
end

--- Makes a task object. class: its methods; spec: kind, builders (program name -> function of the
-- recorder), hints, config (plain table for the file), rng, causal (what it predicts with may not
-- read ahead), net or shown (a list of { name, network }, for print). A script that asks for its
-- `params` before anything was recorded gets them all: the predicting program is recorded then.
-- What a task of another kind has, and this one has not, raises when it is asked for: `kind` tells.
function task.new(class, spec)
  check.rng(spec.kind, spec.rng)
  local options = spec.options or {}
  common(spec.kind, options)
  local self = {
    kind = spec.kind, class = class, builders = spec.builders, hints = spec.hints or {},
    config = spec.config, set = spec.params or core.params(),
    seed = spec.seed or (spec.rng and spec.rng:seed()) or 1, programs = spec.programs or {},
    runs = {}, drawn = {}, n_threads = 1, recomputes = false, options = options, net = spec.net,
    causal = spec.causal, main = spec.main or "predict",
    shown = spec.shown or { { "net", spec.net } },
  }
  setmetatable(self, { __index = function(_, key)
    if key == "params" then return parameters(self) end
    local m = method_of(class, spec.kind, key)
    if m == nil and type(key) == "string" then missing(spec.kind, key) end
    return m
  end, names = { class, methods, { params = true } }, __tostring = methods.describe,
    __name = "neap." .. spec.kind })
  if options.threads then self:threads(options.threads) end
  if options.recompute then self:recompute(true) end
  return self
end

--- One of the task's programs ("learn", "predict", ...), recorded when first asked for.
-- @string name
function methods:program(name)
  local p = self.programs[name]
  if p then return p end
  local build = self.builders and self.builders[name]
  if not build then
    local names = {}
    for k in pairs(self.builders or self.programs) do names[#names + 1] = k end
    table.sort(names)
    check.fail("%s has no program %s; it has %s", self.kind, tostring(name),
      table.concat(names, ", "))
  end
  if self.causal and name ~= "predict" then self:program "predict" end
  p = program.new(build, { params = self.set, seed = self.seed,
    input_size = self.hints.input_size, output_size = self.hints.output_size })
  local future = self.causal and name == "predict" and p:reads_future()
  if future then
    check.fail("%s: net: expected one whose steps see nothing of those after them, which it is to "
      .. "foretell; came one in which %s", self.kind, future)
  end
  self.programs[name] = p
  return p
end

-- Opens runs anew when they are asked for. What they draw goes on as before.
local function reopen(self)
  for name, run in pairs(self.runs) do self.drawn[name] = { run:drawn() } end
  self.runs = {}
end

--- How many threads runs and optimizers use from now on.
-- @int n
function methods:threads(n)
  check.integer("threads", "n", n, 1)
  if n == self.n_threads then return self end
  self.n_threads, self.pool = n, n > 1 and core.pool(n) or nil
  self.set:pool(self.pool)
  reopen(self)
  return self
end

--- Whether learning takes sequences in segments from now on, which makes it a third slower and lets its
-- memory grow with the square root of their steps: see @{neap.program}. `self:run("learn", true):whole()`
-- names what needs whole sequences all the same.
-- @bool on
function methods:recompute(on)
  on = check.boolean("recompute", "on", on, true)
  if on ~= self.recomputes then
    self.recomputes = on
    reopen(self)
  end
  return self
end

--- A run of one of the programs, kept for later calls.
-- @string name
-- @bool[opt] learn keeps what backward needs; dropout is on
function methods:run(name, learn)
  local key = check.type("run", "name", name, "string") .. (learn and ":learn" or "")
  local run = self.runs[key]
  if not run then
    run = self:program(name):run { learn = learn or false, pool = self.pool, seed = self.seed,
      recompute = learn and self.recomputes or false }
    if self.drawn[key] then run:seed(table.unpack(self.drawn[key])) end
    self.runs[key], self.drawn[key] = run, nil
  end
  return run
end

--- The bytes that learning takes for batches of a shape, told before: `rows`, `lengths`, `recompute`
-- and what comes back as of a program's `memory`.
-- @tab[opt] options
-- @treturn tab `{ run, parameters, gradients, total }`
function methods:memory(options)
  local all = { learn = true, pool = self.pool, recompute = self.recomputes }
  for name, value in pairs(check.options("memory", options, { "rows", "lengths", "recompute" })) do
    all[name] = value
  end
  return self:program "learn":memory(all)
end

--- Feeds a batch to a run and runs it. Where a message names a row of a batch that neap.batches has
-- made, where that is from stands behind it.
-- @param run
-- @tab batch
-- @return run
function task.forward(run, batch)
  local ok, message = pcall(function() run:feed(batch):forward() end)
  if ok then return run end
  local text = type(message) == "string" and message or ""
  local row = tonumber(text:match ", row (%d+)" or text:match "sequence (%d+), step %d")
  local from
  for _, field in pairs(row and type(batch) == "table" and batch.order and batch or {}) do
    from = from or type(field) == "table" and field.from
  end
  if from then message = ("%s: %s"):format(text, from.corpus:place(batch.order[row])) end
  error(message, 0)
end

--- Runs the loss of a batch for learning; `run:backward()` may follow.
-- @tab batch
-- @return run
function methods:forward(batch) return task.forward(self:run("learn", true), batch) end

-- "file:line: " in front of a message, so that it is not put there twice.
local function plain(message) return (tostring(message):gsub("^[^%s:]+:%d+: ", "")) end

-- Vocabularies that were found to have the same symbols.
local alike = setmetatable({}, { __mode = "k" })

-- Checks that a field was encoded by the vocabulary of the task that it is for, as far as it says.
local function encoded_for(self, who, name, field)
  local from = type(field) == "table" and field.from
  local came, want = from and from.vocab, nil
  if not came then return end
  if name == "input" and self.vocab then want = self.vocab end -- of a language model
  if name == "output" or name == "previous" then want = self.output end
  for _, list in ipairs { self.inputs or {}, self.also or {} } do
    for _, i in ipairs(list) do if i.name == name then want = i.vocab or i.size end end
  end
  if type(want) == "number" then
    check.fail("%s: field %s: expected numbers, came ids of a vocabulary", who, name)
  end
  if not want or want == came or alike[came] == want then return end
  local differ = #want ~= #came and ("%d symbols, not %d"):format(#came, #want)
  for i = 1, differ and 0 or #want do
    if want:symbol(i) ~= came:symbol(i) then
      differ = ("%s as symbol %d, not %s"):format(check.came(came:symbol(i)), i,
        check.came(want:symbol(i)))
      break
    end
  end
  if differ then
    check.fail("%s: field %s: expected ids of the model's own vocabulary, came those of another one: "
      .. "it has %s", who, name, differ)
  end
  alike[came] = want
end

task.encoded_for = encoded_for

-- Does a batch have all inputs of the program that learns, but for numbers, which have presets?
local function complete(self, batch)
  if type(batch) ~= "table" then return end -- feed says what is wrong
  batches.check("learn", batch)
  encoded_for(self, "learn", "input", batch) -- of a stream
  for name, field in pairs(batch) do encoded_for(self, "learn", name, field) end
  for name, t in pairs(self:program "learn".types) do
    if t.space >= 0 and batch[name] == nil then
      local names = {}
      for key in pairs(batch) do
        if key ~= "rows" and key ~= "order" then names[#names + 1] = tostring(key) end
      end
      table.sort(names)
      check.fail("learn: the batch has no field %s; it has %s", name,
        #names > 0 and table.concat(names, ", ") or "none")
    end
  end
end

-- Lets an optimizer update parameters; where a gradient is not finite, says where that arose.
local function update(run, step, optim, params)
  local ok, message = pcall(step, optim, params)
  if not ok then
    if tostring(message):find("gradient of '", 1, true) then
      local found = run.core:find_nonfinite(run.program.outputs.loss)
      check.fail("%s", found and plain(found) .. "; nothing was updated" or plain(message))
    end
    error(message, 0)
  end
end

--- One step of learning: forward, loss, backward, clip, update.
-- @tab batch
-- @param optim neap.adam{..} and the like
-- @treturn number the loss
function methods:learn(batch, optim)
  if type(optim) ~= "table" or not (optim.step and optim.gather) then
    check.fail("learn: optim: expected an optimizer such as neap.adam{ rate = 1e-3 }, came %s",
      check.came(optim))
  end
  complete(self, batch)
  local run = self:forward(batch)
  optim:gather(self.params, function(share) run:backward("loss", share) end)
  self.latest = run
  update(run, optim.step, optim, self.params)
  return run:item()
end

--- The step of what is gathered, if anything is: the last of an epoch.
-- @param optim as for @{learn}
function methods:finish(optim)
  if self.latest then update(self.latest, optim.finish, optim, self.params) end
end

--- The loss of a batch without learning (dropout off).
-- @tab batch
function methods:loss(batch)
  batches.check("loss", batch)
  return task.forward(self:run("learn", false), batch):item()
end

--- Keeps parameters as they are when the task learns, or lets them learn again; gradients still
-- flow through them.
-- @tab names `*` in a name stands for anything: { "net.embed.*" }
-- @bool[opt=true] on
function methods:freeze(names, on)
  on = check.boolean("freeze", "on", on, true)
  self:program(self.main)
  for _, name in ipairs(optimizers.match("freeze", self.params, names)) do
    self.params:freeze(name, on)
  end
  return self
end

--- How many numbers the parameters have.
function methods:parameters() return self.params:size() end

-- A layer as it prints itself; of a function, where it stands.
local function network_text(net)
  if type(net) ~= "function" then return tostring(net) end
  local at = debug.getinfo(net, "S")
  return ("a function, %s:%d"):format(at.short_src, at.linedefined)
end

--- What it is, with its parameters.
function methods:describe()
  self:program(self.main)
  local lines = { self.kind }
  for _, part in ipairs(self.shown) do
    local name, net = part[1], part[2]
    if net then
      lines[#lines + 1] = ("  %s: %s"):format(name, (network_text(net):gsub("\n", "\n  ")))
    end
  end
  for _, name in ipairs(self.params:names()) do
    local shape = self.params:shape(name)
    lines[#lines + 1] = ("  %-40s [%s]"):format(name, table.concat(shape, ","))
  end
  lines[#lines + 1] = ("  %d parameters"):format(self.params:size())
  return table.concat(lines, "\n")
end

--- Saves programs, weights and vocabularies in one safetensors file.
-- @string path
-- @return true; or nil, message, code
function methods:save(path)
  check.type("save", "path", path, "string")
  local names, programs = {}, {}
  for name in pairs(self.builders or self.programs) do names[#names + 1] = name end
  table.sort(names) -- parameters are made as programs are recorded, always in the same order
  for _, name in ipairs(names) do programs[name] = self:program(name) end
  return program.write(path, programs, { task = cjson.encode(self.config) })
end

--- Keeps the present parameters; the result puts them back when called.
function methods:keep()
  local copy = self.params:clone()
  return function() self.params:copy(copy) end
end

-- ---- vocabularies and inputs in a file ----

function task.plain_inputs(list)
  local out = {}
  for i, x in ipairs(list) do
    out[i] = { name = x.name, size = x.size, nested = x.nested, rate = x.rate,
      vocab = x.vocab and x.vocab:plain() }
  end
  return { list = out, named = list.named }
end

function task.restore_inputs(plain_list)
  local list = { named = plain_list.named }
  for i, x in ipairs(plain_list.list) do
    list[i] = { name = x.name, size = x.size, nested = x.nested, rate = x.rate,
      vocab = x.vocab and assert(vocab.from(x.vocab)) }
  end
  return list
end

--- Checks that the fields of held-out data are there, and of the task's vocabularies.
function task.fields(who, self, fields)
  local inputs = self.inputs
  if type(fields) ~= "table" or getmetatable(fields) then
    check.fail("%s: expected a table of fields such as { input = corpus:encode(..), output = .. }, "
      .. "came %s", who, check.came(fields))
  end
  for k = 1, #inputs + 1 do
    local name = inputs[k] and inputs[k].name or "output"
    if fields[name] == nil then check.fail("%s: the field %s is missing", who, name) end
    encoded_for(self, who, name, fields[name])
  end
end

-- Sequences that a script gives by hand: strings or lists of symbols (or of rows of numbers) for the
-- one input of a task.
local function batch_of(who, inputs, sequences)
  local i = inputs[1]
  if #inputs > 1 or i.nested then
    local names = {}
    for k, input in ipairs(inputs) do
      names[k] = input.name .. (input.nested and " (nested)" or "")
    end
    check.fail("%s: expected a batch, as neap.batches makes them, of the task's inputs %s, came a "
      .. "list", who, table.concat(names, ", "))
  end
  local data, lengths = {}, {}
  for n, s in ipairs(check.list(who, sequences)) do
    if not i.vocab and check.is_tensor(s) then
      local shape = s:shape()
      if s:dtype() ~= "f32" or #shape ~= 2 and not (#shape == 1 and i.size == 1)
        or (shape[2] or 1) ~= i.size then
        check.fail("%s: sequence %d: expected a tensor [T,%d], came %s", who, n, i.size,
          check.came(s))
      end
      s = s:totable()
    end
    if type(s) ~= "table" and not (i.vocab and type(s) == "string") then
      check.fail("%s: sequence %d: expected %s, came %s", who, n,
        i.vocab and "a string or a list of symbols" or "a list of numbers or of rows or a tensor",
        check.came(s))
    end
    if type(s) == "table" then check.list(("%s: sequence %d"):format(who, n), s) end
    if i.vocab then
      local ids = i.vocab:encode(s)
      lengths[n] = #ids
      for _, id in ipairs(ids) do data[#data + 1] = id - 1 end
    else
      lengths[n] = #s
      for t, row in ipairs(s) do
        if type(row) == "number" then row = { row } end
        if type(row) ~= "table" or #row ~= i.size then
          check.fail("%s: sequence %d, step %d: expected %d numbers, came %s", who, n, t, i.size,
            type(row) == "table" and #row or check.came(row))
        end
        for _, x in ipairs(row) do data[#data + 1] = x end
      end
    end
  end
  local t
  if i.vocab then
    t = #data > 0 and core.tensor(data, "i32") or core.zeros({ 0 }, "i32")
  else
    t = #data > 0 and core.tensor(data) or core.zeros({ 0 })
    t = t:reshape({ #data // i.size, i.size })
  end
  return { [i.name] = { data = t, lengths = core.tensor(lengths, "i32") }, rows = #sequences }
end

--- What a script gives to predict as a batch: a list of sequences, or a batch already; nil if the list
-- is empty.
function task.batch(who, inputs, sequences)
  batches.check(who, sequences, "a list of sequences or a batch")
  local meta = getmetatable(sequences)
  if type(sequences) ~= "table" or meta and meta.__name ~= "neap.batch" then
    check.fail("%s: expected a list of sequences or a batch, came %s%s", who,
      check.came(sequences), type(sequences) == "string"
        and (": one sequence is { %s }"):format(check.came(sequences)) or "")
  end
  if #sequences > 0 then return batch_of(who, inputs, sequences) end
  return next(sequences) ~= nil and sequences or nil
end

return task
