--- `neap info FILE`: what a model file holds, or any file of safetensors.
-- @module neap.info
local core = require "neap.core"
local check = require "neap.check"
local cjson = require "cjson"
local record = require "neap.record"

-- 1234567 -> "1,234,567"
local function grouped(n)
  local text = tostring(n):reverse():gsub("(%d%d%d)", "%1,"):reverse()
  return (text:gsub("^,", ""))
end

local function plural(n, what) return ("%s %s%s"):format(grouped(n), what, n == 1 and "" or "s") end

local function dims_text(shape) return "[" .. table.concat(shape, ",") .. "]" end

local function count(shape)
  local n = 1
  for _, d in ipairs(shape) do n = n * d end
  return n
end

-- Names of a table whose values are numbers, in the order of these.
local function by_number(list)
  local names = {}
  for name in pairs(list) do names[#names + 1] = name end
  table.sort(names, function(a, b)
    if list[a] ~= list[b] then return list[a] < list[b] end
    return a < b
  end)
  return names
end

-- The first symbols of a vocabulary, as many as fit in a line.
local function symbols_text(symbols)
  local text = ""
  for i, symbol in ipairs(symbols) do
    local part = (i > 1 and " " or "") .. check.came(symbol):sub(2, -2)
    if #text + #part > 48 then return text .. " .." end
    text = text .. part
  end
  return text
end

-- What the recorded nodes of a layer are, in a word.
local telling = { embedding = true, linear = true, layer_norm = true, dropout = true, elman = true,
  lstm = true, gru = true, attend_dot = true, attend_additive = true,
  attend_at = true }

-- Collects from a program's JSON: numbers with their presets, the ops of each layer. Gives the
-- outputs in their order.
local function read_nodes(program, numbers, ops)
  local plain = cjson.decode(program:json())
  for _, node in ipairs(plain.nodes) do
    if node.op == "scalar" then numbers[node.name] = node.number end
    local layer = node.layer or ""
    local op = node.op == "state" and "a loop of its own" or telling[node.op] and node.op
    if op then
      ops[layer] = ops[layer] or {}
      if not ops[layer][op] then
        ops[layer][op] = true
        table.insert(ops[layer], op)
      end
    end
  end
  return plain.outputs
end

-- What runs of a program take for batches of such a shape. A sequence at each step of another one
-- has ten steps.
local function memory_text(pr, rows, steps)
  local spaces = pr:spaces()
  local function text(options)
    options.tell = true
    local run = core.run(pr, options)
    run:batch(rows)
    for i = 2, #spaces do
      local parent = spaces[i].parent
      run:lengths(i - 1, core.zeros({ run:rows(parent) }, "i32"):fill(parent == 0 and steps or 10))
    end
    return ("%.1f MB"):format(run:plan() / 1e6)
  end
  local function told(options)
    local ok, result = pcall(text, options)
    return ok and result or "more than can be (" .. tostring(result) .. ")"
  end
  local again = pcall(core.run, pr, { tell = true, recompute = true })
  return ("%s for %s%s; to learn from them %s%s"):format(told {}, plural(rows, "row"),
    #spaces > 1 and " of " .. plural(steps, "step") or "", told { learn = true },
    again and ", with recompute " .. told { learn = true, recompute = true } or "")
end

local function show_programs(model, write, ops, options)
  write("\nprograms (T, S: steps of a sequence; B: rows of the batch; outputs by their index in C)\n")
  for _, name in ipairs(model:programs()) do
    local pr, numbers = model:program(name), {}
    local outputs = read_nodes(pr, numbers, ops)
    write(("  %s\n"):format(name))
    local function line(title, value_name, id)
      local text = record.type_text(pr:spaces(), pr:type(id))
      if numbers[value_name] then text = ("a number, %g if not set"):format(numbers[value_name]) end
      write(("    %-8s%-28s %s\n"):format(title, value_name, text))
    end
    local inputs = pr:inputs()
    for i, input in ipairs(by_number(inputs)) do
      line(i == 1 and "takes" or "", input, inputs[input])
    end
    for i, output in ipairs(outputs) do
      line(i == 1 and "gives" or "", ("%d %s"):format(i - 1, output.name), output.value)
    end
    local future = pr:reads_future()
    write(("    %-8s%s\n"):format("streams", future and "no: " .. future or "yes, step by step"))
    write(("    %-8s%s\n"):format("memory", memory_text(pr, options.rows, options.steps)))
  end
end

local function show_tensors(write, names, shape_of, ops)
  local layer
  for _, name in ipairs(names) do
    local path, own = name:match "^(.*)%.([^.]*)$"
    path, own = path or "", own or name
    if path == "" and layer and layer ~= "" then write("  of no layer\n") end
    if path ~= layer and path ~= "" then
      local what = ops and ops[path] and "  (" .. table.concat(ops[path], ", ") .. ")" or ""
      write(("  %s%s\n"):format(path, what))
    end
    layer = path
    local shape, kind = shape_of(name)
    write(("    %-36s %-20s %s\n"):format(own, (kind and kind .. " " or "") .. dims_text(shape),
      grouped(count(shape))))
  end
end

local function show_vocabularies(config, write)
  local list = {}
  local function add(name, plain, rate)
    if type(plain) == "table" and type(plain.symbols) == "table" then
      list[#list + 1] = ("  %-12s%-16s %s\n"):format(name, plural(#plain.symbols, "symbol"),
        symbols_text(plain.symbols))
    elseif math.tointeger(plain) then
      list[#list + 1] = ("  %-12s%s a step%s\n"):format(name, plural(math.tointeger(plain),
        rate and "sample" or "number"), rate and (", %d a second"):format(rate) or "")
    end
  end
  if type(config.input) == "table" and type(config.input.list) == "table" then
    for _, input in ipairs(config.input.list) do
      add(input.name, input.vocab or input.size, math.tointeger(input.rate))
    end
  end
  add("output", config.output)
  add("vocab", config.vocab)
  add("size", config.size)
  if #list > 0 then write("\nsymbols and widths\n", table.concat(list)) end
end

local function show_texts(write, keys, text_of)
  for _, key in ipairs(keys) do
    if key ~= "task" then
      local text = text_of(key)
      write(("%s: %s\n"):format(key, #text > 60 and plural(#text, "byte") .. " of text"
        or check.came(text)))
    end
  end
end

-- What a file says of its task.
local function task_of(text)
  if not text then return {} end
  local ok, decoded = pcall(cjson.decode, text)
  return ok and type(decoded) == "table" and decoded or { kind = "a task that cannot be read" }
end

--- Shows what a file holds.
-- @string path
-- @param[opt] out where it goes (standard output)
-- @tab[opt] options `{ rows = 32, steps = 100 }`: the batches that memory is told for
-- @return true; or nil, message, code
return function(path, out, options)
  check.type("info", "path", path, "string")
  options = check.options("info", options, { "rows", "steps" })
  options = { rows = check.integer("info", "rows", options.rows or 32, 0, 0x7fffffff),
    steps = check.integer("info", "steps", options.steps or 100, 0, 0x7fffffff) }
  out = out or io.stdout
  local function write(...) out:write(...) end
  local model, message, code = core.load_model(path)
  if not model then
    local archive = core.load_archive(path)
    if not archive then return nil, message, code end
    local names, sum = archive:names(), 0
    for _, name in ipairs(names) do sum = sum + archive:tensor(name):size() end
    local config = task_of(archive:text "task")
    local kind = config.kind or archive:text "training" and "a checkpoint of a training"
    write(("%s: %s, no programs: %s with %s\n"):format(path, kind or "tensors only",
      plural(#names, "tensor"), plural(sum, "number")))
    show_texts(write, archive:texts(), function(key) return archive:text(key) end)
    show_vocabularies(config, write)
    show_tensors(write, names, function(name)
      local t = archive:tensor(name)
      return t:shape(), t:dtype()
    end)
    return true
  end
  local params, config = model:params(), task_of(model:text "task")
  local names = params:names()
  write(("%s: %s, %s in %s\n"):format(path, config.kind or "programs without a task",
    plural(params:size(), "parameter"), plural(#names, "tensor")))
  show_texts(write, model:texts(), function(key) return model:text(key) end)
  show_vocabularies(config, write)
  local ops = {}
  show_programs(model, write, ops, options)
  write("\nparameters\n")
  show_tensors(write, names, function(name) return params:shape(name) end, ops)
  return true
end
