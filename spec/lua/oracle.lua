-- A second implementation, scalar and plain, of what differential_spec builds from layers. It
-- shares nothing with the library but the equations: no packed rows, no matrices, one row after
-- the other.
--
-- A sequence is a list of vectors (flat tables; ids before an embedding). P[name] is a parameter as
-- a flat table, row-major. A layer is a table: kind, its options, `name` if it stands in another.
local oracle = {}

local function zeros(n)
  local v = {}
  for i = 1, n do v[i] = 0 end
  return v
end

local function sigmoid(x) return 1 / (1 + math.exp(-x)) end
local function tanh(x)
  if math.abs(x) < 1e-3 then return x - x ^ 3 / 3 + 2 * x ^ 5 / 15 end
  local e = math.exp(-2 * math.abs(x))
  local t = (1 - e) / (1 + e)
  return x < 0 and -t or t
end

local functions = {
  tanh = tanh,
  sigmoid = sigmoid,
  identity = function(x) return x end,
  relu = function(x) return x > 0 and x or 0 end,
  softplus = function(x) return math.max(x, 0) + math.log(1 + math.exp(-math.abs(x))) end,
  elu = function(x) return x > 0 and x or math.exp(x) - 1 end,
  softsign = function(x) return x / (1 + math.abs(x)) end,
  hard_sigmoid = function(x) return math.min(math.max(0.2 * x + 0.5, 0), 1) end,
  leaky_relu = function(x) return x > 0 and x or 0.01 * x end,
}

-- Row i of a matrix (n columns) times x.
local function row(w, i, n, x)
  local sum, at = 0, (i - 1) * n
  for j = 1, n do sum = sum + w[at + j] * x[j] end
  return sum
end

-- (v - mean) / deviation * gain + bias.
local function normed(v, gain, bias)
  local mean, var, out = 0, 0, {}
  for _, e in ipairs(v) do mean = mean + e / #v end
  for _, e in ipairs(v) do var = var + (e - mean) ^ 2 / #v end
  for i, e in ipairs(v) do
    out[i] = (e - mean) / math.sqrt(var + 1e-5) * gain[i] + (bias and bias[i] or 0)
  end
  return out
end

-- Rows from..to of W x + b (side "ih") or U h + c ("hh") as a function of x or h; normalised over
-- these rows if the layer is.
local function product(l, P, path, side, from, to)
  local w, b = P[path .. ".weight_" .. side], P[path .. ".bias_" .. side]
  local gain = P[path .. ".gain_" .. side]
  local function part(v) return v and table.move(v, from, to, 1, {}) end
  return function(x)
    local out = {}
    for i = from, to do
      out[i - from + 1] = row(w, i, #x, x) + (b and not l.layer_norm and b[i] or 0)
    end
    return l.layer_norm and normed(out, part(gain), part(b)) or out
  end
end

-- An activation behind the clipping.
local function clipped(l, name)
  local f, bound = functions[name], l.clip or math.huge
  return function(x) return f(math.min(math.max(x, -bound), bound)) end
end

local layers = {}

function layers.embed(l, P, path, xs)
  local ys, w = {}, P[path .. ".weight"]
  for t, id in ipairs(xs) do
    ys[t] = {}
    for j = 1, l.size do ys[t][j] = w[id * l.size + j] end
  end
  return ys
end

function layers.linear(l, P, path, xs)
  local ys, w, b = {}, P[path .. ".weight"], P[path .. ".bias"]
  for t, x in ipairs(xs) do
    ys[t] = {}
    for i = 1, l.size do ys[t][i] = row(w, i, l.width, x) + (b and b[i] or 0) end
  end
  return ys
end

function layers.activation(l, _, _, xs)
  local ys = {}
  for t, x in ipairs(xs) do
    ys[t] = {}
    for i, v in ipairs(x) do ys[t][i] = functions[l.fn](v) end
  end
  return ys
end

function layers.layer_norm(_, P, path, xs)
  local ys = {}
  for t, x in ipairs(xs) do ys[t] = normed(x, P[path .. ".weight"], P[path .. ".bias"]) end
  return ys
end

function layers.elman(l, P, path, xs, first)
  local ys, h = {}, first.h or zeros(l.size)
  local of_x, of_h = product(l, P, path, "ih", 1, l.size), product(l, P, path, "hh", 1, l.size)
  local act = clipped(l, l.fn)
  for t, x in ipairs(xs) do
    local new, a, b = {}, of_x(x), of_h(h)
    for i = 1, l.size do new[i] = act(a[i] + b[i]) end
    ys[t], h = new, new
  end
  return ys, { h = h }
end

function layers.lstm(l, P, path, xs, first)
  local ys, n, names = {}, l.size, l.coupled and { "i", "g", "o" } or { "i", "f", "g", "o" }
  local h, c = first.h or zeros(l.projection or n), first.c or zeros(n)
  local of_x, of_h = product(l, P, path, "ih", 1, #names * n),
    product(l, P, path, "hh", 1, #names * n)
  local gate, candidate = clipped(l, l.gate or "sigmoid"), clipped(l, l.candidate or "tanh")
  local out = functions[l.output or "tanh"]
  for t, x in ipairs(xs) do
    local new_c, opened, a, b = {}, {}, of_x(x), of_h(h)
    for k = 1, n do
      local sum = {}
      for block, name in ipairs(names) do
        local at = (block - 1) * n + k
        sum[name] = a[at] + b[at]
      end
      local function see(name, cell)
        local peep = P[path .. ".peephole_" .. name]
        return gate(sum[name] + (peep and peep[k] * cell or 0))
      end
      local i = see("i", c[k])
      local f = l.coupled and 1 - i or see("f", c[k])
      new_c[k] = f * c[k] + i * candidate(sum.g)
      opened[k] = see("o", new_c[k])
    end
    local seen = l.layer_norm and normed(new_c, P[path .. ".gain_c"], P[path .. ".bias_c"]) or new_c
    local new_h = {}
    for k = 1, n do new_h[k] = opened[k] * out(seen[k]) end
    if l.projection then
      local narrow = {}
      for k = 1, l.projection do narrow[k] = row(P[path .. ".weight_hr"], k, n, new_h) end
      new_h = narrow
    end
    ys[t], h, c = new_h, new_h, new_c
  end
  return ys, { h = h, c = c }
end

function layers.gru(l, P, path, xs, first)
  local ys, n = {}, l.size
  local h = first.h or zeros(n)
  local function of(side, from, to) return product(l, P, path, side, from, to) end
  local x_rz, x_n, h_rz, h_n = of("ih", 1, 2 * n), of("ih", 2 * n + 1, 3 * n),
    of("hh", 1, 2 * n), of("hh", 2 * n + 1, 3 * n)
  local gate, candidate = clipped(l, l.gate or "sigmoid"), clipped(l, l.candidate or "tanh")
  for t, x in ipairs(xs) do
    local a, b, new, r, kept = x_rz(x), h_rz(h), {}, {}, {}
    for k = 1, n do
      r[k] = gate(a[k] + b[k])
      kept[k] = r[k] * h[k]
    end
    local from_x, from_h = x_n(x), h_n(l.reset == "before" and kept or h)
    for k = 1, n do
      local z = gate(a[n + k] + b[n + k])
      local sum = from_x[k] + (l.reset == "before" and 1 or r[k]) * from_h[k]
      if l.update == "take" then z = 1 - z end
      new[k] = (1 - z) * candidate(sum) + z * h[k]
    end
    ys[t], h = new, new
  end
  return ys, { h = h }
end

local function reversed(list)
  local out = {}
  for i = #list, 1, -1 do out[#out + 1] = list[i] end
  return out
end

local function joined(a, b, merge)
  local out = {}
  for i, v in ipairs(a) do
    out[i] = merge == "sum" and v + b[i] or merge == "mean" and (v + b[i]) / 2
      or merge == "mul" and v * b[i] or v
  end
  if merge == "concat" then table.move(b, 1, #b, #a + 1, out) end
  return out
end

function layers.bidir(l, P, path, xs, first)
  local ys, last = {}, {}
  local there, s = oracle.layer(l.inner, P, path .. ".forward", xs, first.forward)
  local back, r = oracle.layer(l.inner, P, path .. ".backward", reversed(xs), first.backward)
  back = reversed(back)
  for t in ipairs(xs) do ys[t] = joined(there[t], back[t], l.merge) end
  for name in pairs(s) do last[name] = joined(s[name], r[name], l.merge) end
  return ys, last
end

function layers.residual(l, P, path, xs)
  local inner, ys = oracle.layer(l.inner, P, path .. "." .. l.inner.name, xs), {}
  for t, x in ipairs(xs) do ys[t] = joined(x, inner[t], "sum") end
  return ys
end

function layers.highway(l, P, path, xs)
  local inner, ys = oracle.layer(l.inner, P, path .. "." .. l.inner.name, xs), {}
  for t, x in ipairs(xs) do
    ys[t] = {}
    for i, v in ipairs(x) do
      local open = sigmoid(row(P[path .. ".weight"], i, #x, x) + P[path .. ".bias"][i])
      ys[t][i] = open * inner[t][i] + (1 - open) * v
    end
  end
  return ys
end

function layers.fold(l, _, _, xs)
  local ys = {}
  for from = 1, #xs, l.steps do
    local y = {}
    for t = from, from + l.steps - 1 do
      for _, v in ipairs(xs[t] or zeros(l.width)) do y[#y + 1] = v end
    end
    ys[#ys + 1] = y
  end
  return ys
end

function layers.chain(l, P, path, xs)
  for _, inner in ipairs(l.layers) do xs = oracle.layer(inner, P, path .. "." .. inner.name, xs) end
  return xs
end

--- One layer over one row's sequence, from the given first states (zero if none).
-- @return the outputs, the last states
function oracle.layer(l, P, path, xs, first) return layers[l.kind](l, P, path, xs, first or {}) end

--- One vector from a sequence; zeros from an empty one.
function oracle.pool(kind, ys, width)
  if #ys == 0 then return zeros(width) end
  if kind == "last" then return ys[#ys] end
  local out = {}
  for i = 1, width do
    local sum, most = 0, ys[1][i]
    for _, y in ipairs(ys) do sum, most = sum + y[i], math.max(most, y[i]) end
    out[i] = kind == "max" and most or kind == "mean" and sum / #ys or sum
  end
  return out
end

local function log_softmax(x)
  local most, sum, out = math.max(table.unpack(x)), 0, {}
  for _, v in ipairs(x) do sum = sum + math.exp(v - most) end
  for i, v in ipairs(x) do out[i] = v - most - math.log(sum) end
  return out
end

local losses = {}
function losses.cross_entropy(y, id, smoothing)
  local log, mean = log_softmax(y), 0
  for _, v in ipairs(log) do mean = mean + v / #log end
  return -(1 - smoothing) * log[id + 1] - smoothing * mean
end
function losses.mse(y, target)
  local sum = 0
  for i, v in ipairs(y) do sum = sum + (v - target[i]) ^ 2 end
  return sum / #y
end
function losses.binary_cross_entropy(y, target)
  local sum = 0
  for i, v in ipairs(y) do -- -ln sigmoid(v) = softplus(-v), -ln(1 - sigmoid(v)) = softplus(v)
    sum = sum + target[i] * functions.softplus(-v) + (1 - target[i]) * functions.softplus(v)
  end
  return sum / #y
end

--- The mean over the outputs, each weighted; an id of -1 does not count. 0 if nothing counts.
function oracle.loss(kind, ys, targets, weights, smoothing)
  local sum, weight = 0, 0
  for i, y in ipairs(ys) do
    local w = weights and weights[i] or 1
    if targets[i] ~= -1 then
      sum = sum + w * losses[kind](y, targets[i], smoothing)
      weight = weight + w
    end
  end
  return weight == 0 and 0 or sum / weight
end

return oracle
