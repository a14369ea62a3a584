-- What the specs of systems.md's rows share.
local neap = require "neap"

local help = {}

--- A program of one network over sequences: x [T,B,width] -> y, and its last states by name.
function help.net(f, width, options)
  return neap.program(function(rec)
    local y, last = f(rec:input("x", { space = "T", dims = { width } }))
    local out = { y = y }
    for name, v in pairs(last or {}) do out[name] = out[name] or v end
    return out
  end, options)
end

--- Sequences of vectors (lists of lists) as a field of a batch.
function help.field(sequences)
  local data, lengths = {}, {}
  for b, s in ipairs(sequences) do
    lengths[b] = #s
    table.move(s, 1, #s, #data + 1, data)
  end
  return { data = neap.tensor(data), lengths = neap.tensor(lengths, "i32") }
end

--- A run of the program, forward, on sequences; one sequence may be given without the list.
function help.run(pr, sequences, options)
  if type(sequences[1][1]) == "number" then sequences = { sequences } end
  return pr:run(options):feed { x = help.field(sequences) }:forward()
end

--- The outputs of one sequence: a list of vectors.
function help.outputs(pr, sequence)
  return help.run(pr, sequence):value("y", "concat"):totable()
end

--- Sets parameters by name.
function help.set(params, values)
  for name, v in pairs(values) do
    local t = neap.tensor(v)
    params:set(name, #t:shape() == 0 and t:reshape { 1, 1 } or t)
  end
end

--- Sets all parameters to one number.
function help.fill(params, number)
  for _, name in ipairs(params:names()) do
    local t = params:get(name)
    t:fill(number)
    params:set(name, t)
  end
end

--- Nested lists of numbers that agree up to `bound`, in absolute terms.
function help.near(expected, came, bound, path)
  bound, path = bound or 1e-6, path or ""
  if type(expected) == "number" then
    if not (type(came) == "number" and math.abs(expected - came) <= bound) then
      error(("at %s: expected %.9g, came %s"):format(path == "" and "once" or path, expected,
        tostring(came)), 0)
    end
    return
  end
  if type(came) == "userdata" then came = came:totable() end
  assert(type(came) == "table" and #came == #expected,
    ("at %s: expected %d elements, came %s"):format(path, #expected,
      type(came) == "table" and #came or tostring(came)))
  for i = 1, #expected do help.near(expected[i], came[i], bound, path .. "[" .. i .. "]") end
end

--- A list of n vectors of normally distributed numbers.
function help.noise(rng, n, width)
  local s = {}
  for t = 1, n do
    s[t] = {}
    for i = 1, width do s[t][i] = rng:normal() end
  end
  return s
end

function help.sigmoid(x) return 1 / (1 + math.exp(-x)) end
function help.tanh(x) return 1 - 2 / (math.exp(2 * x) + 1) end

return help
