--- Loads what a task or a program has saved.
-- @module neap.load
local core = require "neap.core"
local check = require "neap.check"
local cjson = require "cjson"
local program = require "neap.program"
local vocab = require "neap.vocab"

-- ---- does the task of a file fit its programs? ----

local function need(good, format, ...)
  if not good then error(format:format(...), 0) end
  return good
end

-- "i32", "f32 [3]"
local function type_text(dtype, dims)
  return dtype .. (#dims > 0 and " [" .. table.concat(dims, ",") .. "]" or "")
end

local function width_of(plain, name)
  local n = type(plain) == "number" and math.tointeger(plain)
  return need(n and n > 0 and n, "%s: expected a width from 1, came %s", name, check.came(plain))
end

local function symbols_of(plain, name)
  local v, message = vocab.from(plain)
  need(v, "%s: %s", name, message)
  return need(#v > 0 and v, "%s: the vocabulary is empty", name)
end

-- What an input of a program has to be: ids of so many symbols, or so many numbers.
local function ids(n) return { dtype = "i32", dims = {}, symbols = n } end
local function numbers(n) return { dtype = "f32", dims = { n } } end

local function inputs_of(plain)
  need(type(plain) == "table" and type(plain.list) == "table" and #plain.list > 0,
    "input: expected a list of inputs, came %s", check.came(plain))
  local out = {}
  for i, x in ipairs(plain.list) do
    need(type(x) == "table" and type(x.name) == "string", "input %d: it has no name", i)
    out[x.name] = x.vocab ~= nil and ids(#symbols_of(x.vocab, "input " .. x.name))
      or numbers(width_of(x.size, "input " .. x.name))
    need(x.rate == nil or x.vocab == nil and width_of(x.rate, "rate of input " .. x.name),
      "input %s: symbols have no rate", x.name)
  end
  return out
end

-- A program that takes these inputs, `more` of them, and gives these outputs: name -> dtype or
-- width.
local function has(parts, name, inputs, more, outputs)
  local pr = need(parts.programs[name], "it has no program %s", name)
  local wanted = {}
  for _, list in ipairs { inputs, more } do
    for input, t in pairs(list) do wanted[input] = t end
  end
  for input, t in pairs(wanted) do
    local came = need(pr.types[input], "program %s has no input %s", name, input)
    local expected, text = type_text(t.dtype, t.dims), type_text(came.dtype, came.dims)
    need(expected == text, "program %s: input %s is %s, the task's is %s", name, input, text,
      expected)
  end
  for input, t in pairs(pr.types) do
    need(wanted[input] or t.space < 0, "program %s: the task knows no input %s", name, input)
  end
  for output, expected in pairs(outputs) do
    local id = need(pr.outputs[output], "program %s has no output %s", name, output)
    local dtype, _, dims = pr.core:type(id)
    if type(expected) == "string" then
      need(dtype == expected, "program %s: output %s is %s, the task's is %s", name, output, dtype,
        expected)
    else
      local width = dims[#dims] or 1
      need(width == expected, "program %s: output %s has %d numbers, the task's has %d", name,
        output, width, expected)
    end
  end
  for _, node in ipairs(cjson.decode(pr.core:json()).nodes) do
    if node.op == "embedding" then
      local _, _, dims = pr.core:type(node["in"][2])
      for input, t in pairs(wanted) do
        need(node["in"][1] ~= pr.inputs[input] or dims[1] >= (t.symbols or 0),
          "program %s: input %s has %d symbols, their table is of %d", name, input, t.symbols,
          dims[1])
      end
    end
  end
  return pr
end

local kinds = {}

function kinds.seq2class(config, parts)
  local inputs, n = inputs_of(config.input), #symbols_of(config.output, "output")
  has(parts, "predict", inputs, {}, { scores = n, class = "i32" })
  has(parts, "learn", inputs, { output = ids() }, { loss = 1 })
end

function kinds.synced_seq2seq(config, parts)
  local inputs, loss = inputs_of(config.input), config.loss == nil and "cross_entropy" or config.loss
  local learnt = config.also ~= nil and inputs_of(config.also) or {}
  if loss == "mse" or loss == "mae" or loss == "huber" then
    local width = width_of(config.output, "output")
    has(parts, "predict", inputs, {}, { y = width })
    learnt.output = numbers(width)
    return has(parts, "learn", inputs, learnt, { loss = 1 })
  end
  local n = #symbols_of(config.output, "output")
  need(loss == "cross_entropy" or loss == "crf" or loss == "ctc", "it knows no loss %s",
    tostring(loss))
  has(parts, "predict", inputs, {}, { scores = loss == "ctc" and n + 1 or n, tags = "i32" })
  learnt.output = ids()
  has(parts, "learn", inputs, learnt, { loss = 1 })
end

function kinds.hmm(config, parts)
  local inputs, n = inputs_of(config.input), #symbols_of(config.output, "output")
  need(#config.input.list == 1 and config.input.list[1].vocab ~= nil,
    "input: expected one vocabulary of symbols")
  has(parts, "predict", inputs, {}, { tags = "i32", score = 1, gains = 1 })
  has(parts, "filter", inputs, {}, { states = n })
  has(parts, "learn", inputs, {}, { loss = 1, nats = 1, total = 1, gains = 1, shown = n })
  for name, shape in pairs { start = { n }, transition = { n, n },
    emission = { #symbols_of(config.input.list[1].vocab, "input"), n } } do
    need(parts.params:has(name) and table.concat(parts.params:shape(name), ",")
      == table.concat(shape, ","), "expected a parameter %s [%s]", name, table.concat(shape, ","))
  end
end

function kinds.language_model(config, parts)
  local n = #symbols_of(config.vocab, "vocab")
  has(parts, "predict", { input = ids(n) }, {}, { logits = n })
  has(parts, "learn", { input = ids(n) }, { target = ids() }, { loss = 1 })
end

function kinds.forecaster(config, parts)
  local n = width_of(config.size, "size")
  need(config.scale == nil or config.scale == "log" or config.scale == "sqrt",
    "scale: expected \"log\", \"sqrt\" or none, came %s", check.came(config.scale))
  has(parts, "predict", { input = numbers(n) }, {}, { next = n })
  has(parts, "learn", { input = numbers(n) }, { target = numbers(n) }, { loss = 1 })
end

function kinds.async_seq2seq(config, parts)
  local inputs, output = inputs_of(config.input), symbols_of(config.output, "output")
  need(output.start and output.stop, "output: the vocabulary has no start or no stop symbol")
  local n, copy = #output, config.copy and math.tointeger(config.copy)
  need(config.copy == nil or copy and copy >= 1 and output.unk,
    "copy: expected a number of symbols, and an output with unk, came %s", check.came(config.copy))
  local source = copy and { source = ids() } or {}
  local encode = has(parts, "encode", inputs, source, { memory = "f32" })
  local decoded = { previous = ids(n) }
  for name, id in pairs(encode.outputs) do -- what the encoder gives, the decoder takes
    if name == "memory" or name == "source" or name:find "^first_" then -- else it is watched
      local dtype, _, dims = encode.core:type(id)
      decoded[name] = { dtype = dtype, dims = dims }
    end
  end
  has(parts, "decode", decoded, {}, { scores = n + (copy or 0), best = "i32" })
  for _, name in ipairs { "learn", "mixed" } do
    has(parts, name, inputs, { previous = ids(n), output = ids(), source = source.source },
      { loss = 1 })
  end
end

-- What make() makes of a file's task; or nil, message, code.
local function restored(path, config, make)
  local good, task = pcall(make)
  if good then return task end
  return nil, ("'%s': the task in it, %s, is damaged: %s"):format(path, config.kind,
    tostring(task)), "EFORMAT"
end

-- The n-grams of a file without programs; or nil, that message, code.
local function table_of(path, message)
  local archive = core.load_archive(path)
  local ok, config = pcall(cjson.decode, archive and archive:text "task")
  if not ok or type(config) ~= "table" or config.kind ~= "ngram" then
    return nil, message, "EFORMAT"
  end
  return restored(path, config, function()
    return require "neap.ngram".restore(config, archive)
  end)
end

--- Loads a file. It is refused as a whole if anything in it is damaged, or if its task does not fit
-- its programs.
-- @function load
-- @string path
-- @return the task, ready to predict and to learn on; from a file of @{neap.program.save} the
--   program, or a table of programs by name if there are several, then the table of texts; or nil,
--   message, code
return function(path)
  check.type("load", "path", path, "string")
  local m, message, code = core.load_model(path)
  if not m then
    if code == "EFORMAT" and message:find "carries no neap programs" then
      return table_of(path, message .. "; neap.load_tensors reads them")
    end
    return nil, message, code
  end
  local parts = { params = m:params(), programs = {}, texts = {} }
  for _, name in ipairs(m:programs()) do
    parts.programs[name] = program.wrap(m:program(name), parts.params)
  end
  for _, key in ipairs(m:texts()) do parts.texts[key] = m:text(key) end
  if not parts.texts.task then
    local name, only = next(parts.programs)
    if not name or next(parts.programs, name) then only = parts.programs end
    return only, parts.texts
  end
  local ok, config = pcall(cjson.decode, parts.texts.task)
  local fits = ok and type(config) == "table" and kinds[config.kind]
  if not fits then
    return nil, ("'%s': the task in it is damaged or of a later version"):format(path), "EFORMAT"
  end
  return restored(path, config, function()
    fits(config, parts)
    return require("neap." .. config.kind).restore(config, parts)
  end)
end
