-- Every option of every constructor with values that it was not made for: what comes is taken, or
-- refused with a message at the script's line. What is taken is listed here, so that nothing is taken
-- without anybody having said so.
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
  return neap.program(function(rec) return layer(rec:input("x", { space = "T", dtype = "i32" })) end)
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
    weight_decay = "0 0.5" } do takes[name] = taken end
  return takes
end

-- make: the constructor; with: options it takes, `layers` those without a name; use: what is done with
-- what it made; takes: the odd values that each of its options takes.
local constructors = {
  embed = { make = neap.embed, with = { size = 2, input = 3 }, use = on_ids,
    takes = { name = any_name, init = "-1 0 0.5 1e18" } },
  linear = { make = neap.linear, with = { size = 2 }, use = recorded,
    takes = { name = any_name, init = "-1 0 0.5 1e18", bias = switch } },
  dropout = { make = neap.dropout, with = { rate = 0.5 }, use = recorded,
    takes = { name = any_name, rate = "0 0.5" } },
  layer_norm = { make = neap.layer_norm, with = {}, use = recorded,
    takes = { name = any_name, eps = "0 0.5" } },
  elman = { make = neap.elman, with = { size = 2 }, use = recorded,
    takes = { name = any_name, bias = switch, fused = switch } },
  lstm = { make = neap.lstm, with = { size = 2 }, use = recorded,
    takes = { name = any_name, bias = switch, fused = switch, watch = switch, peepholes = switch,
      forget_bias = "-1 0 0.5 1e18", gates = "{}" } },
  gru = { make = neap.gru, with = { size = 2 }, use = recorded,
    takes = { name = any_name, bias = switch, fused = switch, watch = switch } },
  attention = { make = neap.attention, with = { kind = "dot" }, use = attended,
    takes = { name = any_name, scale = "-1 0 0.5 1e18" } },
  ["additive attention"] = { make = neap.attention, with = { kind = "additive", size = 2 },
    use = attended, takes = { name = any_name, scale = "-1 0 0.5 1e18" } },
  chain = { make = neap.chain, with = { neap.gru { size = 2 } }, use = recorded,
    takes = { name = any_name, [1] = "layer" } },
  bidir = { make = neap.bidir, with = { neap.gru { size = 2 } }, use = recorded,
    takes = { name = any_name, [1] = "layer" } },
  residual = { make = neap.residual, with = { neap.gru { size = 2 } }, use = recorded,
    takes = { name = any_name, [1] = "layer" } },
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
  seq2class = { make = neap.seq2class, use = learnt,
    with = { input = 2, output = classes, net = neap.gru { size = 2 } },
    takes = { net = "layer", smoothing = "0 0.5" } },
  synced_seq2seq = { make = neap.synced_seq2seq, use = learnt,
    with = { input = 2, output = letters, net = neap.gru { size = 2 } },
    takes = { net = "layer", smoothing = "0 0.5" } },
  program = { make = function(options)
    return neap.program(function(rec) return rec:input("x", { space = "T", dims = { 2 } }) end, options)
  end, with = {}, use = passed,
    takes = { seed = seeds, input_size = "1e18", output_size = "1e18", recorded = switch } },
  gradcheck = { make = function(options) return neap.gradcheck(neap.elman { size = 1 }, options) end,
    with = { T = 2, B = 1, input = 1 }, use = tostring,
    takes = { lengths = "{} {5}", seed = seeds, step = "0.5" } },
  debug = { make = function(options)
    return neap.debug(neap.elman { size = 1 }, neap.zeros { 2, 1, 1 }, options)
  end, with = {}, use = tostring,
    takes = { seed = seeds, input_size = "1e18", output_size = "1e18" } },
}

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
          elseif type(message) ~= "string" or not message:find "^spec/lua/options_spec.lua:%d+: %a"
            or message:find("bindings/", 1, true) then
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
