--- `neap apply MODEL [FILE]`: what a task's model answers to lines of text, a line for each.
local audio = require "neap.audio"
local core = require "neap.core"
local check = require "neap.check"
local load = require "neap.load"
local series = require "neap.series"
local vocab = require "neap.vocab"

-- ---- lines ----

-- What a line is to a model: `steps` and, for each input, `{ data, lengths }`, where a nested input
-- has the lengths of its words. A reader gives that, or nil and what was expected.

local function cut(split, text)
  local symbols = {}
  vocab.splitter("apply", "split", split)(text, function(s) symbols[#symbols + 1] = s end)
  return symbols
end

-- A line goes to several inputs as words, if not all of them know letters alone.
local function symbols_reader(inputs)
  local split = inputs[1].vocab.split
  for _, i in ipairs(inputs) do
    if i.nested or #inputs > 1 and i.vocab.split ~= "characters" then split = "words" end
  end
  return function(text)
    if not utf8.len(text) then return nil, "expected text in UTF-8, came other bytes" end
    if #inputs == 1 and inputs[1].vocab.merges and not inputs[1].nested then
      local ids = inputs[1].vocab:encode(text)
      for k, id in ipairs(ids) do ids[k] = id - 1 end
      return { text = text, steps = #ids, { data = ids, lengths = { #ids } } }
    end
    local symbols = cut(split, text)
    local item = { text = text, steps = #symbols }
    for k, i in ipairs(inputs) do
      local data, lengths = {}, {}
      for w, symbol in ipairs(symbols) do
        local parts = i.nested and cut("characters", symbol) or { symbol }
        for _, part in ipairs(parts) do
          local id = i.vocab:id(part)
          if not id then
            return nil, "expected symbols that the model knows, came " .. check.came(part)
          end
          data[#data + 1] = id - 1
        end
        lengths[w] = #parts
      end
      item[k] = { data = data, lengths = i.nested and lengths or { #symbols } }
    end
    return item
  end
end

local function numbers_reader(size, scale)
  return function(text)
    local data = {}
    for word in text:gmatch "[^%s,]+" do
      local x = tonumber(word)
      if not x or not (math.abs(x) <= 3.4028235e38) then -- what a float holds
        return nil, "expected finite numbers with blanks or commas between, came "
          .. check.came(word)
      end
      local misfit = scale and series.misfit(scale, x)
      if misfit then return nil, ("the model's %s, came %s"):format(misfit, check.came(word)) end
      data[#data + 1] = x
    end
    if #data % size ~= 0 then
      return nil, ("expected %d numbers for each step, came %d in all"):format(size, #data)
    end
    local steps = #data // size
    return { steps = steps, { data = data, lengths = { steps } } }
  end
end

local function hears(inputs) return #(inputs or {}) == 1 and inputs[1].rate end

-- A line names a sound file.
local function sound_reader(rate, hop)
  return function(text)
    if text == "" then return { steps = 0 } end
    local samples, message = audio.read(text, { rate = rate })
    if not samples then return nil, message end
    local data = samples:totable()
    for _ = 1, -#data % hop do data[#data + 1] = 0 end
    local steps = #data // hop
    return { steps = steps, { data = data, lengths = { steps } } }
  end
end

-- The reader for a task's inputs; or nil and why a line cannot be read.
local function reader(inputs)
  if hears(inputs) then return sound_reader(inputs[1].rate, inputs[1].size) end
  local sized = 0
  for _, i in ipairs(inputs) do sized = sized + (i.vocab and 0 or 1) end
  if sized == 0 then return symbols_reader(inputs) end
  if #inputs == 1 and not inputs[1].nested then return numbers_reader(inputs[1].size) end
  return nil, "expected a model that reads symbols, or numbers from one input; it reads numbers "
    .. (#inputs > 1 and "beside other inputs" or "that are nested")
end

local function batch_of(inputs, items)
  local batch = { rows = #items }
  for k, i in ipairs(inputs) do
    local data, lengths, outer = {}, {}, {}
    for b, item in ipairs(items) do
      local part = item[k]
      table.move(part.data, 1, #part.data, #data + 1, data)
      table.move(part.lengths, 1, #part.lengths, #lengths + 1, lengths)
      outer[b] = item.steps
    end
    data = i.vocab and core.tensor(data, "i32")
      or core.tensor(data):reshape { #data // i.size, i.size }
    lengths = core.tensor(lengths, "i32")
    batch[i.name] = i.nested and { data = data, inner = lengths, outer = core.tensor(outer, "i32") }
      or { data = data, lengths = lengths }
  end
  return batch
end

-- ---- tasks ----

-- Of each kind of task: the options it has beside those of all, how it reads a line, and what it
-- answers to lines that were read: a list of texts.
local kinds = {}

-- Rows of numbers, a tab between two.
local function rows_text(rows)
  local out = {}
  for t, row in ipairs(rows) do
    out[t] = {}
    for k, x in ipairs(row) do out[t][k] = ("%.9g"):format(x) end
    out[t] = table.concat(out[t], " ")
  end
  return table.concat(out, "\t")
end

local function task_reader(model) return reader(model.inputs) end

kinds.seq2class = { takes = {}, reader = task_reader, answer = function(model, items)
  local out = model:predict(batch_of(model.inputs, items))
  for b, guess in ipairs(out) do
    out[b] = ("%s\t%.4f"):format(guess.class, guess.probability)
  end
  return out
end }

kinds.synced_seq2seq = { takes = {}, reader = task_reader, answer = function(model, items)
  local out = model:predict(batch_of(model.inputs, items))
  for b, tags in ipairs(out) do
    out[b] = type(tags) == "table" and table.concat(tags, " ") or rows_text(tags:totable())
  end
  return out
end }

kinds.hmm = { takes = {}, reader = task_reader, answer = function(model, items)
  local out = model:decode(batch_of(model.inputs, items), { zero = "skip" })
  for b, states in ipairs(out) do out[b] = states and table.concat(states, " ") or "" end
  return out
end }

kinds.async_seq2seq = { takes = { beam = true, length = true }, reader = task_reader,
  answer = function(model, items, options)
    local given = batch_of(model.inputs, items)
    if model.copy then -- the symbols themselves may be written
      given = {}
      for b, item in ipairs(items) do given[b] = item.text end
    end
    local out = model:predict(given, { beam = options.beam, max_length = options.length })
    for b, symbols in ipairs(out) do out[b] = model.output:text(symbols) end
    return out
  end }

-- A text and what follows, up to the end of the line if the model writes one.
local function write_on(model, text, length)
  local all = model:generate(text, length, { temperature = 0 })
  local stop = all:find("\n", #text + 1, true)
  if not stop then return all end
  -- the blank before a word that is the end of the line
  local before = model.vocab.split ~= "characters" and stop > #text + 1 and 2 or 1
  return all:sub(1, stop - before)
end

kinds.language_model = { takes = { length = true },
  reader = function(model, options)
    local read = symbols_reader { { name = "input", vocab = model.vocab } }
    return function(text)
      local item, why = read(text)
      if item and item.steps == 1 and not options.length then
        return nil, "expected at least 2 symbols, of which the second is scored, came 1"
      end
      return item, why
    end
  end,
  answer = function(model, items, options)
    local out = {}
    for b, item in ipairs(items) do
      out[b] = options.length and write_on(model, item.text, options.length)
        or ("%.4f"):format(model:score(core.tensor(item[1].data, "i32")).nats)
    end
    return out
  end }

kinds.ngram = kinds.language_model

kinds.forecaster = { takes = { length = true },
  reader = function(model) return numbers_reader(model.size, model.config.scale) end,
  answer = function(model, items, options)
    local out, size = {}, model.size
    for b, item in ipairs(items) do
      local series, data = {}, item[1].data
      for t = 1, item.steps do
        series[t] = table.move(data, (t - 1) * size + 1, t * size, 1, {})
      end
      local rows = model:rollout(series, options.length or 1)
      if size == 1 then for t, x in ipairs(rows) do rows[t] = { x } end end
      out[b] = rows_text(rows)
    end
    return out
  end }

-- The model and how it is applied; or nil and why not.
local function prepare(options)
  local path = options.model
  local model, message = load(path)
  if not model then return nil, message end
  local kind = type(model) == "table" and kinds[model.kind]
  if not kind then
    return nil, ("%s: expected the model of a task, came programs without one (neap info shows "
      .. "them)"):format(path)
  end
  for _, name in ipairs { "beam", "length" } do
    if options[name] and not kind.takes[name] then
      return nil, ("%s: --%s is not for its task, %s"):format(path, name, model.kind)
    end
  end
  local read, why = kind.reader(model, options)
  if not read then return nil, ("%s: %s"):format(path, why) end
  if options.threads then model:threads(options.threads) end
  return model, kind, read
end

--- Applies a model to lines. To an empty line, and to one that does not fit, it answers with an
-- empty line, so that answers and lines keep step.
-- @tab options `model`: its file; `file`: that of the lines (standard input), or to a model of sound
--   the one to hear; `batch`: lines at a time (64); `threads`, `length`, `beam`: see
--   `neap apply --help`
-- @treturn[1] bool did all lines fit? Of those that did not, standard error tells
-- @return[2] nil
-- @treturn[2] string what else went wrong
return function(options)
  local model, kind, read = prepare(options)
  if not model then return nil, kind end
  local input, file, name = io.stdin, options.file ~= "-" and options.file, ""
  local heard = file and hears(model.inputs) -- then the file is the only line
  local left = heard
  if file and not heard then
    local message
    input, message = io.open(file)
    if not input then return nil, message end
    name = file .. ": "
  end
  local function next_line()
    if not heard then return input:read "l" end
    local text = left and file
    left = false
    return text or nil
  end
  local number, fit, problem, over = 0, true, nil, false
  repeat
    local answers, items, places = {}, {}, {}
    while #answers < (options.batch or 64) do
      local text, message = next_line()
      if not text then
        over, problem = true, message and ("%sthe input cannot be read: %s"):format(name, message)
        break
      end
      number = number + 1
      local item, why = read((text:gsub("\r$", "")))
      answers[#answers + 1] = ""
      if not item then
        fit = false
        local place = heard and "" or ("%sline %d: "):format(name, number)
        io.stderr:write(("neap: %s%s\n"):format(place, why))
      elseif item.steps > 0 then
        items[#items + 1], places[#places + 1] = item, #answers
      end
    end
    if #items > 0 then
      for k, answer in ipairs(kind.answer(model, items, options)) do
        answers[places[k]] = answer:gsub("\n", "\\n")
      end
    end
    answers[#answers + 1] = ""
    local written, message = io.stdout:write(table.concat(answers, "\n"))
    if written then written, message = io.stdout:flush() end
    if not written then return nil, "the output cannot be written: " .. message end
  until over
  if input ~= io.stdin then input:close() end
  if problem then return nil, problem end
  return fit
end
