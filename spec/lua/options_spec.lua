-- Every option of every constructor with values that it was not made for: what comes is taken, or
-- refused with a message at the script's line. What is taken is listed here, so that nothing is
-- taken without anybody having said so.
local neap = require "neap"
local op = neap.op

local letters, classes = neap.vocab.new { "a", "b", "c" }, neap.vocab.new { "x", "y" }

local odd = {
  { "true", true }, { "false", false }, { "empty", "" }, { "x", "x" }, { "-1", -1 }, { "0", 0 },
  { "0.5", 0.5 }, { "1e18", 1e18 }, { "nan", 0 / 0 }, { "inf", math.huge }, { "{}", {} },
  { "{5}", { 5 } }, { "function", function() end }, { "constructor", neap.lstm },
  { "layer", neap.gru { size = 2 } }, { "tensor", neap.zeros { 2 } },
}

-- Records what was made on x [T,B,2].
local function recorded(layer)
  return neap.program(function(rec) return layer(rec:input("x", { space = "T", dims = { 2 } })) end)
end
local function on_ids(layer)
  return neap.program(function(rec)
    return layer(rec:input("x", { space = "T", dtype = "i32" }))
  end)
end
local function attended(layer)
  return neap.program(function(rec)
    local x = rec:input("x", { space = "T", dims = { 2 } })
    return layer(op.last(x), x)
  end)
end
local function learnt(task)
  task:program "learn"
  return task:program "predict"
end
local function stepped(optim)
  local params = require "neap.core".params()
  params:add("w", { 2 })
  return optim:step(params)
end
local function passed(x) return x end

local cell = neap.cell { name = "mine", defaults = { keep = 1 },
  params = function(p, c) p.w = { c.input, c.size } end,
  state = function(c) return { h = c.size } end,
  step = function(p, x, s, _, c) return op.matmul(x, p.w) + c.keep * s.h, { h = s.h } end }
local switch, any_name, seeds = "true false", "x", "-1 0 1e18"

-- What the options that all optimizers have take, and more.
local function decays(takes)
  for name, taken in pairs { rate = "0 0.5", clip = "0 0.5 1e18", clip_value = "0 0.5 1e18",
    weight_decay = "0 0.5", lazy = "true false", groups = "{}", accumulate = "1e18" } do
    takes[name] = taken
  end
  return takes
end

-- What the options that all recurrent layers have take, and more.
local function of_a_cell(takes)
  for name, taken in pairs { name = any_name, bias = switch, fused = switch,
    init = "-1 0 0.5 1e18", clip = "0.5 1e18", layer_norm = switch, recurrent_dropout = "0 0.5",
    zoneout = "0 0.5 {}" } do takes[name] = taken end
  return takes
end

-- make: the constructor; with: options it takes; use: what is done with what it made; options:
-- their names, if no message lists them; takes: the odd values that each of them takes.
local constructors = {
  embed = { make = neap.embed, with = { size = 2, input = 3 }, use = on_ids,
    takes = { name = any_name, init = "-1 0 0.5 1e18", frozen = switch } },
  linear = { make = neap.linear, with = { size = 2 }, use = recorded,
    takes = { name = any_name, init = "-1 0 0.5 1e18", bias = switch, tied = "layer" } },
  dropout = { make = neap.dropout, with = { rate = 0.5 }, use = recorded,
    takes = { name = any_name, rate = "0 0.5", sequence = switch } },
  layer_norm = { make = neap.layer_norm, with = {}, use = recorded,
    takes = { name = any_name, eps = "0 0.5" } },
  elman = { make = neap.elman, with = { size = 2 }, use = recorded, takes = of_a_cell {} },
  lstm = { make = neap.lstm, with = { size = 2 }, use = recorded,
    takes = of_a_cell { watch = switch, peepholes = switch, coupled = switch, gates = "{}",
      forget_bias = "-1 0 0.5 1e18" } },
  gru = { make = neap.gru, with = { size = 2 }, use = recorded,
    takes = of_a_cell { watch = switch, gates = "{}" } },
  attention = { make = neap.attention, with = { kind = "dot" }, use = attended,
    takes = { name = any_name, scale = "-1 0 0.5 1e18", coverage = "false" } },
  ["additive attention"] = { make = neap.attention, with = { kind = "additive", size = 2 },
    use = attended,
    takes = { name = any_name, scale = "-1 0 0.5 1e18", coverage = "false" } },
  chain = { make = neap.chain, with = { neap.gru { size = 2 } }, use = recorded,
    takes = { name = any_name, [1] = "layer" } },
  bidir = { make = neap.bidir, with = { neap.gru { size = 2 } }, use = recorded,
    takes = { name = any_name, [1] = "layer" } },
  residual = { make = neap.residual, with = { neap.gru { size = 2 } }, use = recorded,
    takes = { name = any_name, [1] = "layer" } },
  fold = { make = neap.fold, with = {}, use = recorded, takes = { name = any_name } },
  highway = { make = neap.highway, with = { neap.gru { size = 2 } }, use = recorded,
    takes = { name = any_name, [1] = "layer", bias = "-1 0 0.5 1e18" } },
  cell = { make = neap.cell, use = function(make) return recorded(make { size = 2 }) end,
    with = { state = function() return { h = 2 } end,
      step = function(_, x, _, _, c) return x * c.size, { h = x } end },
    takes = { name = any_name, context = "{}", defaults = "{}", params = "function",
      prepare = "function" } },
  ["a cell's"] = { make = cell, with = { size = 2, keep = 1 }, use = recorded,
    takes = { name = any_name, keep = "-1 0 0.5 1e18" } },
  jordan = { make = neap.jordan, with = { size = 2, output = 2 }, use = recorded,
    options = { "size", "output", "activation", "out", "bias", "name" },
    takes = { name = any_name, bias = switch } },
  sgd = { make = neap.sgd, with = {}, use = stepped, takes = decays { momentum = "0 0.5" } },
  rmsprop = { make = neap.rmsprop, with = {}, use = stepped,
    takes = decays { decay = "0 0.5", momentum = "0 0.5", eps = "0 0.5" } },
  adam = { make = neap.adam, with = {}, use = stepped,
    takes = decays { beta1 = "0 0.5", beta2 = "0 0.5", eps = "0 0.5" } },
  adamw = { make = neap.adamw, with = {}, use = stepped,
    takes = decays { beta1 = "0 0.5", beta2 = "0 0.5", eps = "0 0.5" } },
  nesterov = { make = neap.nesterov, with = {}, use = stepped,
    takes = decays { momentum = "0 0.5" } },
  adagrad = { make = neap.adagrad, with = {}, use = stepped, takes = decays { eps = "0 0.5" } },
  adadelta = { make = neap.adadelta, with = {}, use = stepped,
    takes = decays { decay = "0 0.5", eps = "0 0.5" } },
  average = { make = neap.average, with = {}, use = passed,
    takes = { decay = "0 0.5", from = "1e18" } },
  seq2class = { make = neap.seq2class, use = learnt,
    with = { input = 2, output = classes, net = neap.gru { size = 2 } },
    takes = { net = "layer", smoothing = "0 0.5", weights = "{}", focal = "0 0.5",
      recompute = switch } },
  synced_seq2seq = { make = neap.synced_seq2seq, use = learnt,
    with = { input = 2, output = letters, net = neap.gru { size = 2 } },
    takes = { net = "layer", smoothing = "0 0.5", weights = "{}", focal = "0 0.5", also = "{}",
      recompute = switch } },
  ["synced_seq2seq, ctc"] = { make = function(options)
    options.loss = options.loss == nil and "ctc" or options.loss
    return neap.synced_seq2seq(options)
  end, use = learnt, with = { input = 2, output = letters, net = neap.gru { size = 2 } },
    takes = { net = "layer", zero = switch, beam = "0", also = "{}", recompute = switch } },
  hmm = { make = neap.hmm, use = function(model) model:decode { "a" } end,
    with = { input = letters, output = classes }, takes = {} },
  ngram = { make = neap.ngram, use = function(model) model:fit(letters:tensor "aba") end,
    with = { vocab = letters, order = 2 }, takes = { discount = "0.5" } },
  program = { make = function(options)
    return neap.program(function(rec)
      return rec:input("x", { space = "T", dims = { 2 } })
    end, options)
  end, with = {}, use = passed,
    takes = { seed = seeds, input_size = "1e18", output_size = "1e18", recorded = switch } },
  gradcheck = { make = function(options)
    return neap.gradcheck(neap.elman { size = 1 }, options)
  end, with = { T = 2, B = 1, input = 1 }, use = tostring,
    takes = { lengths = "{} {5}", seed = seeds, step = "0.5" } },
  debug = { make = function(options)
    return neap.debug(neap.elman { size = 1 }, neap.zeros { 2, 1, 1 }, options)
  end, with = {}, use = tostring,
    takes = { seed = seeds, input_size = "1e18", output_size = "1e18" } },
}

-- ---- arguments that are not options ----

local arguments = {}

-- f(x, value) is recorded; x [T,B,2].
local function on(name, f)
  arguments[name] = function(value)
    return recorded(function(x) return (f(x, value)) end)
  end
end
local function itself(x) return x end
for name, layer in pairs {
  embed = neap.embed { size = 2, input = 3 }, linear = neap.linear { size = 2 },
  dropout = neap.dropout { rate = 0.5 }, layer_norm = neap.layer_norm {},
  activation = neap.activation "tanh", elman = neap.elman { size = 2 },
  lstm = neap.lstm { size = 2 }, ["lstm's twin"] = neap.lstm { size = 2, fused = false },
  gru = neap.gru { size = 2 }, chain = neap.chain { itself, neap.linear { size = 2 } },
  bidir = neap.bidir { neap.gru { size = 2 } }, residual = neap.residual { neap.gru { size = 2 } },
  fold = neap.fold {}, highway = neap.highway { neap.gru { size = 2 } },
  ["dropout of sequences"] = neap.dropout { rate = 0.5, sequence = true },
  ["lstm with much"] = neap.lstm { size = 2, peepholes = true, layer_norm = true, first = "learned",
    recurrent_dropout = 0.5, zoneout = 0.5, clip = 1 },
  attention = neap.attention {}, jordan = neap.jordan { size = 2, output = 2 },
} do
  on(name .. ": x", function(_, value) return layer(value) end)
  on(name .. ": first states", function(x, value) return layer(x, value) end)
  on(name .. ": first state", function(x, value) return layer(x, { h = value }) end)
  on(name .. ": at_step's x", function(x, value) return layer:at_step(value, { h = x }) end)
  on(name .. ": at_step's states", function(x, value) return layer:at_step(x, value) end)
  on(name .. " behind a function", function(x, value)
    return neap.chain { function() return value end, layer }(x)
  end)
end
on("residual's function", function(x, value)
  return neap.residual { function() return value end }(x)
end)
for i = 1, math.huge do
  local info = require "neap.core".op_info(i)
  if not info then break end
  for k = 1, 4 do
    local function with(x, value)
      local list = { x, x, x, x }
      list[k] = value
      return op[info.name](table.unpack(list, 1, k))
    end
    on(("op.%s: argument %d"):format(info.name, k), with)
    arguments[("op.%s at once: argument %d"):format(info.name, k)] = function(value)
      return with(neap.zeros { 2, 2 }, value)
    end
  end
end
on("param's name", function(x, value) return x * neap.param(value, { 2 }) end)
on("param's dims", function(x, value) return x * neap.param("w", value) end)
on("param's start", function(x, value) return x * neap.param("w", { 2 }, value) end)
on("param's kind of start", function(x, value) return x * neap.param("w", { 2 }, { value }) end)
on("param's range", function(x, value) return x * neap.param("w", { 2 }, { "uniform", value }) end)
on("input's name", function(x, value) return x.rec:input(value, { dims = { 2 } }) * x end)
on("input's type", function(x, value) return x.rec:input("y", value) * x end)
on("input's parent", function(x, value)
  return x.rec:input("y", { space = "C", parent = value, dims = { 2 } })
end)
for _, gives in ipairs { "state", "step", "next", "params", "prepare" } do
  on("what a cell's " .. gives .. " gives", function(x, value)
    local function it() return value end
    local spec = { state = function() return { h = 2 } end,
      step = gives == "next" and function(v) return v, value end
        or function(_, v) return v, { h = v } end }
    if gives == "params" then
      spec.params = function(p) p.w = value end
    elseif gives ~= "next" then
      spec[gives] = it
    end
    return (neap.cell(spec) {}(x))
  end)
end
function arguments.grad(value) return neap.grad(op.sum, value) end
arguments["grad's function"] = function(value) return neap.grad(value, neap.zeros { 2 }) end
arguments["gradcheck's layer"] = function(value) return neap.gradcheck(value) end
arguments["gradcheck's options"] = function(value)
  return neap.gradcheck(neap.elman { size = 1 }, value)
end
arguments["what gradcheck's layer gives"] = function(value)
  return neap.gradcheck(function() return value end)
end
arguments["debug's layer"] = function(value) return neap.debug(value, neap.zeros { 2, 1, 2 }) end
arguments["debug's x"] = function(value) return neap.debug(neap.elman { size = 1 }, value) end
for _, method in ipairs { "rate", "step", "report" } do
  arguments["an optimizer's " .. method] = function(value)
    local optim = neap.adam {}
    return optim[method](optim, value)
  end
end
for _, method in ipairs { "program", "run", "forward", "learn", "loss", "predict", "score" } do
  arguments["a task's " .. method] = function(value)
    local task = neap.seq2class { input = 2, output = classes, net = neap.gru { size = 2 } }
    return task[method](task, value)
  end
end

local function good_place(message)
  return type(message) == "string" and message:find "^spec/lua/options_spec.lua:%d+: %a"
    and not message:find("bindings/", 1, true)
end

local function copy(t)
  local twin = {}
  for k, v in pairs(t) do twin[k] = v end
  return twin
end

local function call(c, key, value)
  local options = copy(c.with)
  if key then options[key] = value end
  return pcall(function()
    local made = c.make(options)
    return c.use(made)
  end)
end

-- The options, as the message about an unknown one lists them; and the layers in the braces.
local function options_of(c)
  if c.options then return c.options end
  local ok, message = call(c, "zzzzzzzzzzzzzzzz", 1)
  assert(not ok, "an unknown option is taken")
  local names = {}
  local list = assert(message:match "; there are: (.*)", message)
  for name in list:gmatch "[%w_]+" do names[#names + 1] = name end
  if c.with[1] then names[#names + 1] = 1 end
  return names
end

describe("options of", function()
  for name, c in pairs(constructors) do
    it(name, function()
      assert(call(c))
      local wrong = {}
      for _, key in ipairs(options_of(c)) do
        local taken = {}
        for _, value in ipairs(odd) do
          local ok, message = call(c, key, value[2])
          if ok then
            taken[#taken + 1] = value[1]
          elseif not good_place(message) then
            wrong[#wrong + 1] = ("%s = %s: %s"):format(key, value[1], tostring(message))
          end
        end
        taken = table.concat(taken, " ")
        local expected = c.takes[key] or ""
        if taken ~= expected then
          wrong[#wrong + 1] = ("%s takes %s, expected %s"):format(key, taken, expected)
        end
      end
      assert(#wrong == 0, table.concat(wrong, "\n"))
    end)
  end
end)

it("an argument of a wrong kind is a mistake in the script's line", function()
  local wrong, refused = {}, 0
  for name, f in pairs(arguments) do
    for i = 0, #odd do
      local value = odd[i] or { "nil", nil }
      local ok, message = pcall(function()
        local made = f(value[2])
        return made
      end)
      if not ok then
        refused = refused + 1
        if not good_place(message) then
          wrong[#wrong + 1] = ("%s, %s: %s"):format(name, value[1], tostring(message))
        end
      end
    end
  end
  assert(refused > 1000)
  assert(#wrong == 0, table.concat(wrong, "\n"))
end)
