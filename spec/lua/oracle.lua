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
}

-- Row i of a matrix (n columns) times x.
local function row(w, i, n, x)
  local sum, at = 0, (i - 1) * n
  for j = 1, n do sum = sum + w[at + j] * x[j] end
  return sum
end

-- What a gate's row of W x + b and of U h + c is.
local function sums(P, path, width, size)
  local w, u = P[path .. ".weight_ih"], P[path .. ".weight_hh"]
  local b, c = P[path .. ".bias_ih"], P[path .. ".bias_hh"]
  return function(i, x) return row(w, i, width, x) + (b and b[i] or 0) end,
    function(i, h) return row(u, i, size, h) + (c and c[i] or 0) end
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

function layers.layer_norm(l, P, path, xs)
  local ys, gain, bias = {}, P[path .. ".weight"], P[path .. ".bias"]
  for t, x in ipairs(xs) do
    local mean, var = 0, 0
    for _, v in ipairs(x) do mean = mean + v / l.width end
    for _, v in ipairs(x) do var = var + (v - mean) ^ 2 / l.width end
    ys[t] = {}
    for i, v in ipairs(x) do ys[t][i] = (v - mean) / math.sqrt(var + 1e-5) * gain[i] + bias[i] end
  end
  return ys
end

function layers.elman(l, P, path, xs, first)
  local ys, h = {}, first.h or zeros(l.size)
  local of_x, of_h = sums(P, path, l.width, l.size)
  for t, x in ipairs(xs) do
    local new = {}
    for i = 1, l.size do new[i] = functions[l.fn](of_x(i, x) + of_h(i, h)) end
    ys[t], h = new, new
  end
  return ys, { h = h }
end

function layers.lstm(l, P, path, xs, first)
  local ys, n = {}, l.size
  local h, c = first.h or zeros(n), first.c or zeros(n)
  local of_x, of_h = sums(P, path, l.width, n)
  local peep = { P[path .. ".peephole_i"], P[path .. ".peephole_f"], P[path .. ".peephole_o"] }
  local function see(k, i, cell) return peep[k] and peep[k][i] * cell or 0 end
  for t, x in ipairs(xs) do
    local new_h, new_c = {}, {}
    for k = 1, n do
      local function gate(block) return of_x(block * n + k, x) + of_h(block * n + k, h) end
      local i = sigmoid(gate(0) + see(1, k, c[k]))
      local f = sigmoid(gate(1) + see(2, k, c[k]))
      new_c[k] = f * c[k] + i * tanh(gate(2))
      new_h[k] = sigmoid(gate(3) + see(3, k, new_c[k])) * tanh(new_c[k])
    end
    ys[t], h, c = new_h, new_h, new_c
  end
  return ys, { h = h, c = c }
end

function layers.gru(l, P, path, xs, first)
  local ys, n = {}, l.size
  local h = first.h or zeros(n)
  local of_x, of_h = sums(P, path, l.width, n)
  for t, x in ipairs(xs) do
    local new, kept = {}, {}
    for k = 1, n do kept[k] = sigmoid(of_x(k, x) + of_h(k, h)) * h[k] end
    for k = 1, n do
      local r, z = sigmoid(of_x(k, x) + of_h(k, h)), sigmoid(of_x(n + k, x) + of_h(n + k, h))
      local within = l.reset == "before" and of_h(2 * n + k, kept) or r * of_h(2 * n + k, h)
      new[k] = (1 - z) * tanh(of_x(2 * n + k, x) + within) + z * h[k]
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
  for i, v in ipairs(a) do out[i] = merge == "sum" and v + b[i] or v end
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
