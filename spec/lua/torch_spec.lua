-- Outputs, last states and all gradients beside PyTorch's (golden/make_torch.py).
local core = require "neap.core"
local neap = require "neap"
local help = require "run_help"

local bound = 1e-5 -- largest error over the tensor's largest value, for every tensor

local golden = assert(core.load_archive "spec/golden/recurrent.st")

local makers = {
  rnn_tanh = function(size, name) return neap.elman { size = size, name = name } end,
  rnn_relu = function(size, name)
    return neap.elman { size = size, activation = "relu", name = name }
  end,
  lstm = function(size, name) return neap.lstm { size = size, name = name } end,
  gru = function(size, name) return neap.gru { size = size, name = name } end,
  lstm_projected = function(size, name)
    return neap.lstm { size = size, projection = 4, name = name }
  end,
}

-- PyTorch's "weight_ih_l1_reverse" is our "l1.backward.weight_ih".
local function our_name(name, directions)
  local weight, k, reverse = name:match "^(.-)_l(%d+)(.*)$"
  if directions == 1 then return ("l%s.%s"):format(k, weight) end
  return ("l%s.%s.%s"):format(k, reverse == "" and "forward" or "backward", weight)
end

-- The layers in a row. first[i], last[i]: states of PyTorch's layer-major number i.
local function network(layers, directions, x, first)
  local last, y = {}, x
  for k, layer in ipairs(layers) do
    local s
    if directions == 1 then
      y, s = layer(y, first[k])
      last[k] = s
    else
      k = k - 1
      y, s = layer(y, { forward = first[2 * k + 1], backward = first[2 * k + 2] })
      last[2 * k + 1], last[2 * k + 2] = {}, {}
      for name, v in pairs(s) do
        last[2 * k + 1][name], last[2 * k + 2][name] = neap.op.split(v, 2)
      end
    end
  end
  return y, last
end

local function check(line)
  local kind, sizes = line:match "^(%S+)", {}
  for n in line:gmatch " (%d+)" do sizes[#sizes + 1] = math.tointeger(tonumber(n)) end
  local depth, directions, inputs, hidden = table.unpack(sizes)
  local layers = {}
  for k = 1, depth do
    local name = "l" .. k - 1
    layers[k] = makers[kind](hidden, name)
    if directions == 2 then layers[k] = neap.bidir { layers[k], name = name } end
  end
  local prefix = line:gsub(" ", "_") .. "."
  local function of(name) return assert(golden:tensor(prefix .. name), prefix .. name) end
  local states = kind:find "^lstm" and { h = "h", c = "c" } or { h = "h" }
  local count, op = depth * directions, neap.op

  local program = neap.program(function(rec)
    local x, first = rec:input("x", { space = "T", dims = { inputs } }), {}
    local out = {}
    local function weighted(v, factor)
      local name = "factor." .. factor
      local a = rec:input(name, { space = v.space > 0 and "T" or "B", dims = v.dims })
      local sum = op.sum_rows(op.reshape(op.sum(v * a), { 1 }))
      out.loss = out.loss and out.loss + sum or sum
    end
    for i = 1, count do
      first[i] = {}
      for s in pairs(states) do
        first[i][s] = rec:input(s .. "0." .. i,
          { space = "B", dims = { of(s .. "0"):shape()[3] } })
      end
    end
    local y, last = network(layers, directions, x, first)
    out.output = y
    weighted(y, "output")
    for i = 1, count do
      for _, s in ipairs { "h", "c" } do
        if states[s] then
          out[s .. "_n." .. i] = last[i][s]
          weighted(last[i][s], s .. "_n." .. i)
        end
      end
    end
    out.loss = op.reshape(out.loss, {})
    return out
  end)

  local lengths = golden:tensor "lengths"
  local batch = {
    x = { data = of "x", lengths = lengths, padded = true },
    ["factor.output"] = { data = of "factor.output", lengths = lengths, padded = true },
  }
  local run = program:run { learn = true }
  run:want_gradient "x"
  for i = 1, count do
    for s in pairs(states) do
      batch[s .. "0." .. i] = of(s .. "0")[i]
      batch["factor." .. s .. "_n." .. i] = of("factor." .. s .. "_n")[i]
      run:want_gradient(s .. "0." .. i)
    end
  end
  local weights = 0
  for _, name in ipairs(golden:names()) do
    local weight = name:sub(1, #prefix) == prefix
      and name:sub(#prefix + 1):match "^[wb]%a+_[ih][hr]_.*"
    if weight then
      program.params:set(our_name(weight, directions), of(weight))
      weights = weights + 1
    end
  end
  assert.equal(#program.params:names(), weights)

  run:feed(batch):forward()
  program.params:zero_grad()
  run:backward()

  local compared = 0
  local function near(came, expected, what)
    assert.same(expected:shape(), came:shape())
    help.near(came, expected, bound, line .. ": " .. what)
    compared = compared + 1
  end
  help.near({ run:item() }, of "loss", bound, line .. ": loss")
  near(run:value "output", of "output", "output")
  near(run:gradient "x", of "grad.x", "gradient of x")
  for i = 1, count do
    for s in pairs(states) do
      near(run:value(s .. "_n." .. i), of(s .. "_n")[i], s .. "_n")
      near(run:gradient(s .. "0." .. i), of("grad." .. s .. "0")[i], "gradient of " .. s .. "0")
    end
  end
  for _, name in ipairs(golden:names()) do
    local weight = name:sub(1, #prefix) == prefix
      and name:sub(#prefix + 1):match "^grad%.([wb]%a+_[ih][hr]_.*)"
    if weight then
      near(program.params:grad(our_name(weight, directions)), of("grad." .. weight),
        "gradient of " .. weight)
    end
  end
  assert.equal(2 + 2 * count * (states.c and 2 or 1) + weights, compared)
end

describe("PyTorch computes the same:", function()
  for line in golden:text "cases":gmatch "[^\n]+" do
    local kind, layers, directions = line:match "^(%S+) (%d) (%d)"
    it(("%s, %s layer%s, %s"):format(kind, layers, layers == "1" and "" or "s",
      directions == "1" and "one direction" or "both directions"), function() check(line) end)
  end
end)
