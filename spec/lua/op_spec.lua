-- Every op of the table through Lua: at once on tensors, recorded, its gradient, its refusals. The
-- references are written here in plain Lua, in double precision; derivatives are their differences.
local core = require "neap.core"
local neap = require "neap"
local help = require "data_help"
local run_help = require "run_help"
local op, raises = neap.op, help.raises

-- Like pairs, always in the same order: chance is drawn on the way.
local function sorted(t)
  local keys, i = {}, 0
  for k in pairs(t) do keys[#keys + 1] = k end
  table.sort(keys)
  return function()
    i = i + 1
    return keys[i], t[keys[i]]
  end
end

-- ---- plain arrays: { shape = {..}, flat numbers } ----

local function count(shape)
  local n = 1
  for _, d in ipairs(shape) do n = n * d end
  return n
end

local function array(shape, f)
  local a = { shape = shape }
  for i = 1, count(shape) do a[i] = f(i) end
  return a
end

local function tensor(a)
  if a.number then return a[1] end
  local flat = {}
  for i = 1, #a do flat[i] = a[i] end
  return neap.tensor(flat, a.dtype):reshape(a.shape)
end

local function copy(a)
  local b = { shape = a.shape, dtype = a.dtype, number = a.number }
  for i = 1, #a do b[i] = a[i] end
  return b
end

-- f element by element, operands broadcast as in NumPy.
local function each(f, ...)
  local given, rank = { ... }, 0
  for _, a in ipairs(given) do rank = math.max(rank, #a.shape) end
  local shape = {}
  for k = 1, rank do
    shape[k] = 1
    for _, a in ipairs(given) do
      shape[k] = math.max(shape[k], a.shape[k - rank + #a.shape] or 1)
    end
  end
  return array(shape, function(i)
    local at, rest = {}, i - 1
    for n = 1, #given do at[n] = 1 end
    local stride = {}
    for n = 1, #given do stride[n] = 1 end
    for k = rank, 1, -1 do
      local here = rest % shape[k]
      rest = rest // shape[k]
      for n, a in ipairs(given) do
        local d = a.shape[k - rank + #a.shape] or 1
        if d > 1 then at[n] = at[n] + here * stride[n] end
        stride[n] = stride[n] * d
      end
    end
    local x = {}
    for n, a in ipairs(given) do x[n] = a[at[n]] end
    return f(table.unpack(x))
  end)
end

-- f of each line along an axis: a list of numbers -> a list; dims is the length of the results.
local function lines(f, a, axis, dims)
  local n, inner = a.shape[axis], 1
  for k = axis + 1, #a.shape do inner = inner * a.shape[k] end
  local shape = table.move(a.shape, 1, #a.shape, 1, {})
  shape[axis] = dims or n
  local out = array(shape, function() return 0 end)
  for o = 0, #a // (n * inner) - 1 do
    for i = 1, inner do
      local line = {}
      for k = 1, n do line[k] = a[o * n * inner + (k - 1) * inner + i] end
      for k, v in ipairs(f(line, o * inner + i)) do
        out[o * shape[axis] * inner + (k - 1) * inner + i] = v
      end
    end
  end
  return out
end

local function last_lines(f, a, dims) return lines(f, a, #a.shape, dims) end

local function drop(a, axis)
  local shape = table.move(a.shape, 1, #a.shape, 1, {})
  table.remove(shape, axis)
  a.shape = shape
  return a
end

local function sum(line)
  local s = 0
  for _, v in ipairs(line) do s = s + v end
  return s
end

local function softmax(line)
  local e, top = {}, math.max(table.unpack(line))
  for i, v in ipairs(line) do e[i] = math.exp(v - top) end
  local total = sum(e)
  for i, v in ipairs(e) do e[i] = v / total end
  return e
end

local function sigmoid(x) return 1 / (1 + math.exp(-x)) end
local function tanh(x) return 1 - 2 / (math.exp(2 * x) + 1) end
local function erf(x)
  local term, total = x, x
  for n = 1, 60 do
    term = -term * x * x / n
    total = total + term / (2 * n + 1)
  end
  return 2 / math.pi ^ 0.5 * total
end

-- ---- cases on tensors: inputs, call(x1, ..) with the op, ref(a1, ..) in plain Lua ----

local rng = neap.rng(8)
local cases = {}
local function case(name, c)
  cases[name] = cases[name] or {}
  table.insert(cases[name], c)
end

-- Numbers of both signs, none nearer to 0 than a fifth, where kinks are; f32 values.
local function any(shape, scale)
  return array(shape, function()
    local v = (0.2 + 1.6 * rng:uniform()) * (rng:uniform() < 0.5 and -1 or 1) * (scale or 1)
    return string.unpack("<f", string.pack("<f", v))
  end)
end
local function positive(shape)
  local a = any(shape)
  for i = 1, #a do a[i] = math.abs(a[i]) end
  return a
end
local function whole(shape, top) -- ids; differ stays away from them
  local a = array(shape, function() return rng:int(top) - 1 end)
  a.fixed = true
  return a
end
local function number(v) return { shape = {}, number = true, v } end
local function i32(a)
  a.dtype, a.fixed = "i32", true
  return a
end

local unary = {
  neg = function(x) return -x end,
  exp = math.exp,
  log = { math.log, positive },
  sqrt = { math.sqrt, positive },
  square = function(x) return x * x end,
  abs = math.abs,
  reciprocal = function(x) return 1 / x end,
  sin = math.sin,
  cos = math.cos,
  tanh = tanh,
  sigmoid = sigmoid,
  relu = function(x) return math.max(x, 0) end,
  gelu = function(x) return x * 0.5 * (1 + erf(x / 2 ^ 0.5)) end,
  softplus = function(x) return math.log(1 + math.exp(x)) end,
  softsign = function(x) return x / (1 + math.abs(x)) end,
  stop_gradient = function(x) return x end,
}
for name, f in sorted(unary) do
  local make = any
  if type(f) == "table" then f, make = f[1], f[2] end
  for _, shape in ipairs { {}, { 3 }, { 2, 3, 5 } } do
    case(name, { inputs = { make(shape) }, call = op[name],
      ref = function(a) return each(f, a) end })
  end
end
for _, alpha in ipairs { 0.01, 0.3 } do
  local preset = alpha == 0.01
  case("leaky_relu", { inputs = { any { 4, 3 } },
    call = function(x) return op.leaky_relu(x, not preset and alpha or nil) end,
    ref = function(a) return each(function(x) return x > 0 and x or alpha * x end, a) end })
end
for _, alpha in ipairs { 1, 0.4 } do
  case("elu", { inputs = { any { 4, 3 } },
    call = function(x) return op.elu(x, alpha ~= 1 and alpha or nil) end,
    ref = function(a)
      return each(function(x) return x > 0 and x or alpha * (math.exp(x) - 1) end, a)
    end })
end
for _, ab in ipairs { { 0.2, 0.5 }, { 0.7, 0.25 } } do
  case("hard_sigmoid", { inputs = { any({ 5, 3 }, 2) },
    call = function(x)
      if ab[1] == 0.2 then return op.hard_sigmoid(x) end
      return op.hard_sigmoid(x, ab[1], ab[2])
    end,
    ref = function(a)
      return each(function(x) return math.min(math.max(ab[1] * x + ab[2], 0), 1) end, a)
    end })
end
case("clamp", { inputs = { any { 6, 3 } }, call = function(x) return op.clamp(x, -0.55, 0.95) end,
  ref = function(a) return each(function(x) return math.min(math.max(x, -0.55), 0.95) end, a) end })
case("cast", { inputs = { { shape = { 5 }, 1.9, -1.9, 0.2, -0.2, 7 } },
  call = function(x) return op.cast(x, "i32") end, dtype = "i32",
  ref = function() return { shape = { 5 }, 1, -1, 0, 0, 7 } end })
case("cast", { inputs = { i32 { shape = { 2 }, -3, 4 } },
  call = function(x) return op.cast(x, "f32") end,
  ref = function(a) return copy(a) end })

local binary = {
  add = function(a, b) return a + b end,
  sub = function(a, b) return a - b end,
  mul = function(a, b) return a * b end,
  div = function(a, b) return a / b end,
  pow = { function(a, b) return a ^ b end, positive },
  maximum = math.max,
  minimum = math.min,
}
for name, f in sorted(binary) do
  local make = any
  if type(f) == "table" then f, make = f[1], f[2] end
  for _, shapes in ipairs { { { 2, 3 }, { 2, 3 } }, { { 2, 3 }, { 3 } }, { { 4, 1, 3 }, { 2, 1 } },
    { {}, { 2, 2 } } } do
    case(name, { inputs = { make(shapes[1]), any(shapes[2]) }, call = op[name],
      ref = function(a, b) return each(f, a, b) end })
  end
  case(name, { inputs = { make { 2, 3 }, number(0.75) }, call = op[name],
    ref = function(a, b) return each(f, a, b) end })
  case(name, { inputs = { number(1.5), any { 3 } }, call = op[name],
    ref = function(a, b) return each(f, a, b) end })
end

local compare = {
  equal = function(a, b) return a == b end,
  not_equal = function(a, b) return a ~= b end,
  less = function(a, b) return a < b end,
  less_equal = function(a, b) return a <= b end,
  greater = function(a, b) return a > b end,
  greater_equal = function(a, b) return a >= b end,
}
for name, f in sorted(compare) do
  local function truth(a, b) return f(a, b) and 1 or 0 end
  local function ref(a, b) return each(truth, a, b) end
  case(name, { inputs = { { shape = { 2, 3 }, 1, 2, 3, 3, 2, 1 }, { shape = { 3 }, 2, 2, 2 } },
    call = op[name], ref = ref })
  case(name, { inputs = { i32 { shape = { 3 }, -1, 0, 2147483647 },
    i32 { shape = { 3 }, -1, 1, 2147483646 } },
    call = op[name], ref = ref })
  case(name, { inputs = { { shape = { 3 }, -0.5, 0, 0.5 }, number(0) }, call = op[name],
    ref = ref })
end
local function pick(c, a, b) return c ~= 0 and a or b end
case("where", { inputs = { whole({ 3, 4 }, 2), any { 3, 4 }, any { 4 } }, call = op.where,
  ref = function(...) return each(pick, ...) end })
case("where", { inputs = { whole({ 3, 1 }, 2), any { 2 }, number(9) }, call = op.where,
  ref = function(...) return each(pick, ...) end })
case("where", { inputs = { whole({ 4 }, 2), i32(whole({ 4 }, 9)), i32(whole({ 4 }, 9)) },
  dtype = "i32",
  call = op.where, ref = function(...) return each(pick, ...) end })
case("bce_with_logits",
  { inputs = { any({ 3, 2 }, 3), array({ 3, 2 }, function() return rng:uniform() end) },
  call = op.bce_with_logits, ref = function(x, y)
    return each(function(a, b)
      return -b * math.log(sigmoid(a)) - (1 - b) * math.log(1 - sigmoid(a))
    end, x, y)
  end })

for axis = 1, 3 do
  local shapes = { { 2, 3, 2 }, { 2, 3, 2 } }
  shapes[2][axis] = 4
  local function ref(a, b)
    local joined = lines(function(line) return line end, a, axis, a.shape[axis] + b.shape[axis])
    local from_b, inner = lines(function(line) return line end, b, axis), 1
    for k = axis + 1, 3 do inner = inner * a.shape[k] end
    local n, m = a.shape[axis], b.shape[axis]
    for o = 0, #b // (m * inner) - 1 do
      for k = 0, m - 1 do
        for i = 1, inner do
          joined[(o * (n + m) + n + k) * inner + i] = from_b[(o * m + k) * inner + i]
        end
      end
    end
    return joined
  end
  case("concat", { inputs = { any(shapes[1]), any(shapes[2]) }, ref = ref,
    call = function(a, b) return op.concat({ a, b }, axis) end })
  case("concat", { inputs = { any(shapes[1]), any(shapes[2]) }, ref = ref,
    call = function(a, b) return op.concat({ a, b }, axis - 4) end })
  case("slice", { inputs = { any { 4, 4, 4 } },
    call = function(x) return op.slice(x, 2, 3, axis) end,
    ref = function(a)
      return lines(function(line) return { line[2], line[3] } end, a, axis, 2)
    end })
end
case("slice", { inputs = { any { 2, 5 } },
  call = function(x) return select(2, op.split(x, { 1, 3, 1 })) end,
  ref = function(a)
    return last_lines(function(line) return table.move(line, 2, 4, 1, {}) end, a, 3)
  end })
case("slice", { inputs = { any { 2, 6 } }, call = function(x) return select(3, op.split(x, 3)) end,
  ref = function(a) return last_lines(function(line) return { line[5], line[6] } end, a, 2) end })
case("concat", { inputs = { any { 3 } }, call = function(x) return op.concat { x } end,
  ref = function(a) return copy(a) end })
for _, dims in ipairs { { 6 }, { 3, 2 }, { 1, 2, 3 } } do
  case("reshape", { inputs = { any { 2, 3 } }, call = function(x) return op.reshape(x, dims) end,
    ref = function(a)
      local b = copy(a)
      b.shape = dims
      return b
    end })
end
case("reshape", { inputs = { any { 1 } }, call = function(x) return op.reshape(x, {}) end,
  ref = function(a) return { shape = {}, a[1] } end })
case("transpose", { inputs = { any { 2, 3 } }, call = op.transpose, ref = function(a)
  return array({ 3, 2 }, function(i) return a[(i - 1) % 2 * 3 + (i - 1) // 2 + 1] end)
end })
case("transpose",
  { inputs = { any { 2, 3, 4 } }, call = function(x) return op.transpose(x, 1, 3) end,
  ref = function(a)
    return array({ 4, 3, 2 }, function(i)
      local k, j, l = (i - 1) // 6, (i - 1) // 2 % 3, (i - 1) % 2
      return a[l * 12 + j * 4 + k + 1]
    end)
  end })

local folds = { sum = sum, mean = function(line) return sum(line) / #line end,
  max = function(line) return math.max(table.unpack(line)) end }
for name, f in sorted(folds) do
  for axis = 1, 3 do
    local function ref(a, keep)
      local y = lines(function(line) return { f(line) } end, a, axis, 1)
      return keep and y or drop(y, axis)
    end
    case(name, { inputs = { any { 2, 3, 4 } }, call = function(x) return op[name](x, axis) end,
      ref = function(a) return ref(a) end })
    case(name, { inputs = { any { 2, 3, 4 } },
      call = function(x) return op[name](x, axis - 4, true) end,
      ref = function(a) return ref(a, true) end })
  end
  case(name, { inputs = { any { 5 } }, call = function(x) return op[name](x) end,
    ref = function(a) return { shape = {}, f(a) } end })
end
case("softmax", { inputs = { any({ 3, 5 }, 3) }, call = op.softmax,
  ref = function(a) return last_lines(softmax, a) end })
case("log_softmax", { inputs = { any({ 3, 5 }, 3) }, call = op.log_softmax, ref = function(a)
  return last_lines(function(line)
    local p = softmax(line)
    for i = 1, #p do p[i] = math.log(p[i]) end
    return p
  end, a)
end })
do
  local mask = whole({ 3, 4 }, 2)
  for i, v in ipairs { 1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0 } do mask[i] = v end
  case("masked_softmax", { inputs = { any({ 3, 4 }, 2), mask }, call = op.masked_softmax,
    ref = function(a, m)
      return last_lines(function(line, at)
        local e, total = {}, 0
        for i, v in ipairs(line) do
          e[i] = m[(at - 1) * 4 + i] ~= 0 and math.exp(v) or 0
          total = total + e[i]
        end
        for i = 1, #e do e[i] = total > 0 and e[i] / total or 0 end
        return e
      end, a)
    end })
end
for _, eps in ipairs { 1e-5, 0.5 } do
  case("layer_norm", { inputs = { any { 3, 6 }, any { 6 }, any { 6 } },
    call = function(x, gain, bias)
      return op.layer_norm(x, gain, bias, eps ~= 1e-5 and eps or nil)
    end,
    ref = function(x, gain, bias)
      return last_lines(function(line)
        local mean, var, y = sum(line) / #line, 0, {}
        for _, v in ipairs(line) do var = var + (v - mean) ^ 2 / #line end
        for i, v in ipairs(line) do y[i] = (v - mean) / (var + eps) ^ 0.5 * gain[i] + bias[i] end
        return y
      end, x)
    end })
end

local function rows_of(table_, ids, w)
  return array({ #ids, w },
    function(i) return table_[ids[(i - 1) // w + 1] * w + (i - 1) % w + 1] end)
end
local three = whole({ 4 }, 3)
for i, v in ipairs { 2, 0, 2, 1 } do three[i] = v end
case("embedding", { inputs = { three, any { 3, 2 } },
  call = function(ids, t) return op.embedding(op.cast(ids, "i32"), t) end,
  ref = function(ids, t) return rows_of(t, ids, 2) end })
case("gather", { inputs = { any { 3, 2 }, three },
  call = function(x, ids) return op.gather(x, op.cast(ids, "i32")) end,
  ref = function(x, ids) return rows_of(x, ids, 2) end })
case("scatter", { inputs = { any { 2, 4 }, { shape = { 2, 4 }, 2, 0, 2, 1, 0, 0, 0, 0 } },
  call = function(x, ids) return op.scatter(x, op.cast(ids, "i32"), 3) end,
  ref = function(x)
    return { shape = { 2, 3 }, x[2], x[4], x[1] + x[3], x[5] + x[6] + x[7] + x[8], 0, 0 }
  end })
case("one_hot", { inputs = { i32 { shape = { 3 }, 2, 0, 1 } },
  call = function(ids) return op.one_hot(ids, 3) end,
  ref = function() return { shape = { 3, 3 }, 0, 0, 1, 1, 0, 0, 0, 1, 0 } end })
-- FNV-1a of 32 bits; the numbers of "a" and "foobar" are of its authors' test vectors.
local function fnv(bytes)
  local h = 0x811c9dc5
  for i = 1, #bytes do h = ((h ~ bytes:byte(i)) * 0x01000193) & 0xffffffff end
  return h
end
assert(fnv "a" == 0xe40c292c and fnv "foobar" == 0xbf9cf968)
case("hash", { inputs = { i32 { shape = { 3, 2 }, 0, 1, 70000, -5, 1, 0 } },
  call = function(ids) return op.hash(ids, 1e6) end, dtype = "i32",
  ref = function(ids)
    local out = { shape = { 3 } }
    for i = 1, 3 do out[i] = fnv(string.pack("<i4i4", ids[2 * i - 1], ids[2 * i])) % 1000000 end
    return out
  end })
case("argmax", { inputs = { { shape = { 3, 3 }, 1, 3, 2, 5, 5, 4, -2, -2, -1 } }, call = op.argmax,
  dtype = "i32", ref = function() return { shape = { 3 }, 1, 0, 2 } end })
for _, smoothing in ipairs { 0, 0.2 } do
  local ids = whole({ 4 }, 3)
  for i, v in ipairs { 0, 2, -1, 1 } do ids[i] = v end
  case("cross_entropy", { inputs = { any { 4, 3 }, ids },
    call = function(x, y)
      return op.cross_entropy(x, op.cast(y, "i32"), { rows = true, smoothing = smoothing })
    end,
    ref = function(x, y)
      return drop(last_lines(function(line, at)
        if y[at] == -1 then return { 0 } end
        local p, e = softmax(line), 0
        for i = 1, #p do
          e = e - math.log(p[i]) * ((i == y[at] + 1 and 1 - smoothing or 0) + smoothing / #p)
        end
        return { e }
      end, x, 1), 2)
    end })
end

-- [.., M,K] times [.., K,N] for `batch` matrices; at(k, i, j) reads operand k.
local function product(shape, batch, M, N, K, a, b)
  return array(shape, function(i)
    local o, r, c, s = (i - 1) // (M * N) % batch, (i - 1) // N % M, (i - 1) % N, 0
    for k = 0, K - 1 do s = s + a(o, r, k) * b(o, k, c) end
    return s
  end)
end
case("matmul", { inputs = { any { 3, 4 }, any { 4, 5 } }, call = op.matmul, ref = function(x, w)
  return product({ 3, 5 }, 1, 3, 5, 4, function(_, r, k) return x[r * 4 + k + 1] end,
    function(_, k, c) return w[k * 5 + c + 1] end)
end })
case("matmul", { inputs = { any { 2, 3, 4 }, any { 4, 1 } }, call = op.matmul, ref = function(x, w)
  return product({ 2, 3, 1 }, 1, 6, 1, 4, function(_, r, k) return x[r * 4 + k + 1] end,
    function(_, k) return w[k + 1] end)
end })
for _, bias in ipairs { true, false } do
  case("linear", { inputs = { any { 3, 4 }, any { 5, 4 }, bias and any { 5 } or nil },
    call = op.linear,
    ref = function(x, w, b)
      local y = product({ 3, 5 }, 1, 3, 5, 4, function(_, r, k) return x[r * 4 + k + 1] end,
        function(_, k, c) return w[c * 4 + k + 1] end)
      for i = 1, #y do y[i] = y[i] + (b and b[(i - 1) % 5 + 1] or 0) end
      return y
    end })
end
for _, ta in ipairs { false, true } do
  for _, tb in ipairs { false, true } do
    case("bmm", { inputs = { any(ta and { 4, 3 } or { 3, 4 }), any(tb and { 2, 4 } or { 4, 2 }) },
      call = function(a, b) return op.bmm(a, b, { transpose_a = ta, transpose_b = tb }) end,
      ref = function(a, b)
        return product({ 3, 2 }, 1, 3, 2, 4,
          function(_, r, k) return ta and a[k * 3 + r + 1] or a[r * 4 + k + 1] end,
          function(_, k, c) return tb and b[c * 4 + k + 1] or b[k * 2 + c + 1] end)
      end })
  end
end

-- ---- cases on rows: inputs in spaces; references work on lists ----

-- The four sequences that row cases run on; one is empty.
local lengths = { 3, 1, 0, 2 }

-- An input of a space: "T" or "S" (sequences of rows), "B" (rows), or no space; width 0: a number.
local function rows(space, width, values)
  local n = space == "B" and #lengths or space == "" and 1 or 6
  local a = (values or any) { n, math.max(width, 1) }
  a.space, a.width = space, width
  return a
end
local function weight(shape)
  local a = any(shape, 0.6)
  a.space = ""
  return a
end

-- Row t (from 1) of sequence b as a list.
local function row(a, b, t)
  local at = 0
  if a.space == "B" then at = b - 1
  elseif a.space ~= "" then
    for k = 1, b - 1 do at = at + lengths[k] end
    at = at + t - 1
  end
  local w = math.max(a.width, 1)
  return table.move(a, at * w + 1, at * w + w, 1, {})
end

-- A flat list of f(b, t), a list each, for all rows of T; or of f(b) for those of the batch.
local function by_step(f)
  local out = {}
  for b, n in ipairs(lengths) do
    for t = 1, n do
      for _, v in ipairs(f(b, t)) do out[#out + 1] = v end
    end
  end
  return out
end
local function by_row(f)
  local out = {}
  for b = 1, #lengths do
    for _, v in ipairs(f(b)) do out[#out + 1] = v end
  end
  return out
end

case("spread", { rows = true, inputs = { rows("B", 2), rows("T", 1) },
  call = function(x, like) return op.spread(x, like) + like * 0 end,
  ref = function(x) return by_step(function(b) return row(x, b) end) end })
do -- a score by id; an element of the row's own padded memory, asked for at each step
  local function near_id(v) return math.floor(v + 0.5) end -- ids are moved a little for differences
  local ids = rows("T", 1, function(shape) return whole(shape, 4) end)
  case("gather", { rows = true, inputs = { rows("T", 4), ids },
    call = function(x, id) return op.gather(x, op.cast(op.reshape(id, {}), "i32")) end,
    ref = function(x, id)
      return by_step(function(b, t) return { row(x, b, t)[near_id(row(id, b, t)[1]) + 1] } end)
    end })
  local one = rows("T", 2, function(shape) return whole(shape, 1) end)
  for i, v in ipairs { 2, 0, 1, 2, 0, 0, 0, 0, 1, 0, 1, 0 } do one[i] = v end
  case("gather", { rows = true, inputs = { rows("S", 2), one },
    call = function(memory, id) return op.gather(op.padded(memory), op.cast(id, "i32")) end,
    ref = function(memory, id)
      return by_step(function(b, t)
        local out = {}
        for _, s in ipairs(row(id, b, t)) do
          s = near_id(s)
          local v = s < lengths[b] and row(memory, b, s + 1) or { 0, 0 }
          table.move(v, 1, 2, #out + 1, out)
        end
        return out
      end)
    end })
  case("attend_at", { rows = true, inputs = { ids, rows("S", 2) },
    call = function(id, memory) return op.attend_at(op.cast(op.reshape(id, {}) - 1, "i32"), memory) end,
    ref = function(id, memory)
      return by_step(function(b, t)
        local s = near_id(row(id, b, t)[1])
        return s >= 1 and s <= lengths[b] and row(memory, b, s) or { 0, 0 }
      end)
    end })
end
case("reverse", { rows = true, inputs = { rows("T", 2) }, call = op.reverse, ref = function(x)
  return by_step(function(b, t) return row(x, b, lengths[b] + 1 - t) end)
end })
for _, steps in ipairs { 2, 3 } do
  case("fold_time", { rows = true, inputs = { rows("T", 2) },
    call = function(x) return op.fold_time(x, steps ~= 2 and steps or nil) end,
    ref = function(x)
      return by_row(function(b)
        local out = {}
        for t = 1, (lengths[b] + steps - 1) // steps * steps do
          local v = t <= lengths[b] and row(x, b, t) or { 0, 0 }
          table.move(v, 1, 2, #out + 1, out)
        end
        return out
      end)
    end })
end
case("padded", { rows = true, inputs = { rows("T", 2) }, call = op.padded, ref = function(x)
  return by_row(function(b)
    local out = {}
    for t = 1, 3 do
      local v = t <= lengths[b] and row(x, b, t) or { 0, 0 }
      table.move(v, 1, 2, #out + 1, out)
    end
    return out
  end)
end })
case("padding_mask", { rows = true, inputs = { rows("T", 2) }, call = op.padding_mask,
  ref = function()
    return by_row(function(b)
      return { lengths[b] >= 1 and 1 or 0, lengths[b] >= 2 and 1 or 0, lengths[b] >= 3 and 1 or 0 }
    end)
  end })
case("lengths", { rows = true, inputs = { rows("T", 2) }, call = op.lengths,
  ref = function() return by_row(function(b) return { lengths[b] } end) end })
for _, first in ipairs { "none", "B", "" } do
  case("last", { rows = true, inputs = { rows("T", 2), first ~= "none" and rows(first, 2) or nil },
    call = op.last, ref = function(x, empty)
      return by_row(function(b)
        if lengths[b] > 0 then return row(x, b, lengths[b]) end
        return empty and row(empty, b) or { 0, 0 }
      end)
    end })
end
local function over_time(f)
  return function(x)
    return by_row(function(b)
      local out = {}
      for i = 1, 2 do
        local column = {}
        for t = 1, lengths[b] do column[t] = row(x, b, t)[i] end
        out[i] = #column > 0 and f(column) or 0
      end
      return out
    end)
  end
end
for name, f in sorted(folds) do
  case(name .. "_time", { rows = true, inputs = { rows("T", 2) }, call = op[name .. "_time"],
    ref = over_time(f) })
end
case("sum_rows", { rows = true, inputs = { rows("T", 2) }, call = op.sum_rows, ref = function(x)
  local out = { 0, 0 }
  for i = 1, #x do out[2 - i % 2] = out[2 - i % 2] + x[i] end
  return out
end })
for _, weighted in ipairs { true, false } do
  case("mean_rows",
    { rows = true, inputs = { rows("T", 2), weighted and rows("T", 1, positive) or nil },
    call = op.mean_rows, ref = function(x, w)
      local out, total = { 0, 0 }, 0
      for r = 1, 6 do
        local share = w and w[r] or 1
        total = total + share
        for i = 1, 2 do out[i] = out[i] + share * x[2 * r - 2 + i] end
      end
      return { out[1] / total, out[2] / total }
    end })
end

local function attended(score)
  return function(q, k, v, u)
    local contexts, all = {}, {}
    for b, n in ipairs(lengths) do
      for t = 1, n do
        local s = {}
        for i = 1, n do s[i] = score(row(q, b, t), row(k, b, i), u) end
        local a, c = softmax(s), { 0, 0, 0 }
        for i = 1, n do
          for d, x in ipairs(row(v, b, i)) do c[d] = c[d] + a[i] * x end
        end
        for i = n + 1, 3 do a[i] = 0 end
        table.move(c, 1, 3, #contexts + 1, contexts)
        table.move(a, 1, 3, #all + 1, all)
      end
    end
    return contexts, all
  end
end
for _, scale in ipairs { 1, 0.3 } do
  case("attend_dot", { rows = true, inputs = { rows("T", 2), rows("S", 2), rows("S", 3) },
    call = function(q, k, v) return op.attend_dot(q, k, v, scale ~= 1 and scale or nil) end,
    ref = attended(function(q, k) return scale * (q[1] * k[1] + q[2] * k[2]) end) })
end
case("attend_additive", { rows = true,
  inputs = { rows("T", 2), rows("S", 2), rows("S", 3), weight { 2 } }, call = op.attend_additive,
  ref = attended(function(q, k, u)
    return u[1] * tanh(q[1] + k[1]) + u[2] * tanh(q[2] + k[2])
  end) })

-- f of each sequence of n of the numbers 1 .. base, as a list.
local function paths(n, base, f)
  local path = {}
  local function from(k)
    if k > n then return f(path) end
    for i = 1, base do
      path[k] = i
      from(k + 1)
    end
  end
  from(1)
end

local function near_ids(ids, b)
  local out = {}
  for t = 1, lengths[b] do out[t] = math.floor(row(ids, b, t)[1] + 0.5) end
  return out
end

local function as_ids(x) return op.cast(op.reshape(x, {}), "i32") end

-- What a path reads as: repeats dropped, then the blank.
local function reading(path, blank)
  local out = {}
  for t, class in ipairs(path) do
    if class ~= blank and class ~= path[t - 1] then out[#out + 1] = class - 1 end
  end
  return out
end

-- All readings by their text: labels and probability.
local function readings(x, b, classes, blank)
  local share, all = {}, {}
  for t = 1, lengths[b] do share[t] = softmax(row(x, b, t)) end
  paths(lengths[b], classes, function(path)
    local labels, p = reading(path, blank), 1
    for t, class in ipairs(path) do p = p * share[t][class] end
    local text = table.concat(labels, " ")
    all[text] = all[text] or { labels = labels, p = 0 }
    all[text].p = all[text].p + p
  end)
  return all
end

do
  local ids = rows("S", 1, function(shape) return whole(shape, 2) end)
  for i, v in ipairs { 0, 1, 0, 1, 1, 1 } do ids[i] = v end -- the last two have no room for a blank
  for _, blank in ipairs { 3, 2 } do
    case("ctc", { rows = true, inputs = { rows("T", 3), ids },
      call = function(x, y)
        if blank == 3 then return op.ctc(x, as_ids(y), { zero = true }) end
        return op.ctc(x, as_ids(y * 2), { zero = true, blank = blank })
      end,
      ref = function(x, y)
        return by_row(function(b)
          local labels = near_ids(y, b)
          for k, v in ipairs(labels) do labels[k] = blank == 3 and v or 2 * v end
          local known = readings(x, b, 3, blank)[table.concat(labels, " ")]
          return { known and -math.log(known.p) or 0 }
        end)
      end })
  end
end
for _, beam in ipairs { 0, 40 } do
  case("ctc_decode", { rows = true, inputs = { rows("T", 4) },
    call = function(x) return op.ctc_decode(x, { blank = 2, beam = beam }) end,
    ref = function(x)
      return by_row(function(b)
        local out, best = {}, { p = 0 }
        if beam == 0 then
          local path = {}
          for t = 1, lengths[b] do
            path[t] = 1
            for i, v in ipairs(row(x, b, t)) do
              if v > row(x, b, t)[path[t]] then path[t] = i end
            end
          end
          best = { labels = reading(path, 2) }
        else
          for _, r in sorted(readings(x, b, 4, 2)) do if r.p > best.p then best = r end end
        end
        for t = 1, lengths[b] do out[t] = best.labels[t] or -1 end
        return out
      end)
    end })
end

-- The score of each sequence of classes, given to f with it.
local function chains(x, b, a, start, stop, f)
  local n = lengths[b]
  paths(n, 3, function(path)
    local score = n > 0 and (start and start[path[1]] or 0) + (stop and stop[path[n]] or 0) or 0
    for t, class in ipairs(path) do
      score = score + row(x, b, t)[class]
      if t > 1 then score = score + a[(class - 1) * 3 + path[t - 1]] end
    end
    f(path, score)
  end)
end
do
  local ids = rows("T", 1, function(shape) return whole(shape, 3) end)
  for i, v in ipairs { 2, -1, 0, 1, 1, 2 } do ids[i] = v end
  for _, ends in ipairs { true, false } do
    local a, start, stop = weight { 3, 3 }, nil, nil
    if ends then start, stop = weight { 3 }, weight { 3 } end
    case("crf", { rows = true, inputs = { rows("T", 3), ids, a, start, stop },
      call = function(x, y, ...) return op.crf(x, as_ids(y), ...) end,
      ref = function(x, y, ...)
        local given = { ... }
        return by_row(function(b)
          local all, allowed, want = 0, 0, near_ids(y, b)
          chains(x, b, given[1], given[2], given[3], function(path, score)
            all = all + math.exp(score)
            for t, class in ipairs(path) do
              if want[t] >= 0 and want[t] ~= class - 1 then return end
            end
            allowed = allowed + math.exp(score)
          end)
          return { math.log(all / allowed) }
        end)
      end })
    case("crf_marginals", { rows = true, inputs = { rows("T", 3), a, start, stop },
      call = op.crf_marginals,
      ref = function(x, ...)
        local given, out = { ... }, {}
        for b, n in ipairs(lengths) do
          local all, at = 0, #out
          for k = 1, 3 * n do out[at + k] = 0 end
          chains(x, b, given[1], given[2], given[3], function(path, score)
            all = all + math.exp(score)
            for t, class in ipairs(path) do
              local k = at + 3 * (t - 1) + class
              out[k] = out[k] + math.exp(score)
            end
          end)
          for k = 1, 3 * n do out[at + k] = out[at + k] / all end
        end
        return out
      end })
    case("viterbi", { rows = true, inputs = { rows("T", 3), a, start, stop }, call = op.viterbi,
      ref = function(x, ...)
        local given, out = { ... }, {}
        for b in ipairs(lengths) do
          local most, best = -math.huge, {}
          chains(x, b, given[1], given[2], given[3], function(path, score)
            if score > most then most, best = score, table.move(path, 1, #path, 1, {}) end
          end)
          for _, class in ipairs(best) do out[#out + 1] = class - 1 end
        end
        return out
      end })
  end
end

-- W x + b of a row block: gate g of a [gates*2, n] matrix.
local function gate(w, g, x, b)
  local y = {}
  for j = 1, 2 do
    y[j] = b and b[2 * (g - 1) + j] or 0
    for i, v in ipairs(x) do y[j] = y[j] + w[(2 * (g - 1) + j - 1) * #x + i] * v end
  end
  return y
end

-- step(x, states) -> next states, the first of them the output; all states start from inits or 0.
local function unrolled(states, step)
  return function(x, inits)
    local y, last = {}, {}
    for k = 1, states do last[k] = {} end
    for b, n in ipairs(lengths) do
      local s = {}
      for k = 1, states do s[k] = inits[k] and row(inits[k], b) or { 0, 0 } end
      for t = 1, n do
        s = step(row(x, b, t), s)
        table.move(s[1], 1, 2, #y + 1, y)
      end
      for k = 1, states do table.move(s[k], 1, 2, #last[k] + 1, last[k]) end
    end
    return y, table.unpack(last)
  end
end
local function recurrent(name, gates, states, call, step)
  for _, full in ipairs { true, false } do
    local inputs = { rows("T", 3), weight { gates * 2, 3 }, weight { gates * 2, 2 } }
    if full then
      inputs[4], inputs[5] = weight { gates * 2 }, weight { gates * 2 }
      for k = 1, states do inputs[5 + k] = rows("B", 2) end
    end
    case(name, { rows = true, inputs = inputs, call = call, ref = function(x, w, u, b, c, ...)
      return unrolled(states, function(v, s) return step(v, s, w, u, b, c) end)(x, { ... })
    end })
  end
end
local functions = { tanh = tanh, relu = function(x) return math.max(x, 0) end, sigmoid = sigmoid,
  identity = function(x) return x end }
for name, f in sorted(functions) do
  recurrent("elman", 1, 1, function(x, w, u, b, c, h)
    return op.elman(x, w, u, b, c, h, name ~= "tanh" and name or nil)
  end, function(x, s, w, u, b, c)
    local a, r = gate(w, 1, x, b), gate(u, 1, s[1], c)
    return { { f(a[1] + r[1]), f(a[2] + r[2]) } }
  end)
end
recurrent("lstm", 4, 2, function(x, w, u, b, c, h0, c0)
  return op.apply("lstm", { x, w, u, b or false, c or false, h0 or false, c0 or false })
end, function(x, s, w, u, b, c)
  local h, cell = {}, {}
  for j = 1, 2 do
    local function pre(g) return gate(w, g, x, b)[j] + gate(u, g, s[1], c)[j] end
    cell[j] = sigmoid(pre(2)) * s[2][j] + sigmoid(pre(1)) * tanh(pre(3))
    h[j] = sigmoid(pre(4)) * tanh(cell[j])
  end
  return { h, cell }
end)
for _, before in ipairs { false, true } do
  recurrent("gru", 3, 1, function(x, w, u, b, c, h) return op.gru(x, w, u, b, c, h, before) end,
    function(x, s, w, u, b, c)
      local r, h = {}, {}
      for j = 1, 2 do r[j] = sigmoid(gate(w, 1, x, b)[j] + gate(u, 1, s[1], c)[j]) end
      local reset = { r[1] * s[1][1], r[2] * s[1][2] }
      for j = 1, 2 do
        local z = sigmoid(gate(w, 2, x, b)[j] + gate(u, 2, s[1], c)[j])
        local n = before and tanh(gate(w, 3, x, b)[j] + gate(u, 3, reset, c)[j])
          or tanh(gate(w, 3, x, b)[j] + r[j] * gate(u, 3, s[1], c)[j])
        h[j] = (1 - z) * n + z * s[1][j]
      end
      return { h }
    end)
end

-- ---- what each case is put through ----

local function near(came, expected, bound, what)
  local e = run_help.error(came, expected)
  if not (e <= bound) then error(("%s: error %.2e"):format(what, e), 0) end
end

-- Weights that make one number of an output.
local function factors(n)
  local w = {}
  for i = 1, n do w[i] = 0.5 + math.sin(2.4 * i) end
  return w
end

-- The derivative of the references' weighted sum by input k.
local function difference(c, k)
  local inputs, out = {}, {}
  for i, a in ipairs(c.inputs) do
    inputs[i] = copy(a)
    inputs[i].space, inputs[i].width = a.space, a.width
  end
  local function total()
    local s = 0
    for _, y in ipairs { c.ref(table.unpack(inputs)) } do
      local w = factors(#y)
      for i = 1, #y do s = s + w[i] * y[i] end
    end
    return s
  end
  local h = 1e-5
  for i = 1, #inputs[k] do
    local v = inputs[k][i]
    inputs[k][i] = v + h
    local up = total()
    inputs[k][i] = v - h
    out[i] = (up - total()) / (2 * h)
    inputs[k][i] = v
  end
  return out
end

local function at_once(info, c)
  local given = {}
  for i, a in ipairs(c.inputs) do given[i] = tensor(a) end
  local y, expected = c.call(table.unpack(given)), c.ref(table.unpack(c.inputs))
  assert.equal(c.dtype or "f32", y:dtype())
  assert.same(expected.shape, y:shape())
  near(y, table.move(expected, 1, #expected, 1, {}), 2e-6, info.name)

  -- the gradient, by neap.grad; what is fixed (ids, masks, numbers) has none
  local trained = {}
  for i, a in ipairs(c.inputs) do
    if not (a.fixed or a.number) then trained[#trained + 1] = i end
  end
  if c.dtype == "i32" or #trained == 0 then return end
  local leaves = {}
  for i, a in ipairs(c.inputs) do
    if not a.number then leaves[#leaves + 1] = { i, given[i] } end
  end
  local w = neap.tensor(factors(#expected))
  local function loss(...)
    local values, x = { ... }, {}
    for i, a in ipairs(c.inputs) do if a.number then x[i] = a[1] end end
    for n, leaf in ipairs(leaves) do x[leaf[1]] = values[n] end
    return op.sum(op.reshape(c.call(table.unpack(x)), { #expected }) * values[#leaves + 1])
  end
  local tensors = {}
  for n, leaf in ipairs(leaves) do
    tensors[n] = leaf[2]
    if leaf[2]:dtype() == "i32" then return end -- parameters are f32
  end
  tensors[#leaves + 1] = w
  local result = { neap.grad(loss, table.unpack(tensors)) }
  local total, size = 0, 0
  for i, v in ipairs(factors(#expected)) do
    total, size = total + v * expected[i], size + math.abs(v * expected[i])
  end
  assert(math.abs(result[1] - total) <= 2e-6 * size, info.name .. " in neap.grad")
  for n, leaf in ipairs(leaves) do
    if not c.inputs[leaf[1]].fixed then
      local numeric = difference(c, leaf[1])
      if not info.differentiable then for i = 1, #numeric do numeric[i] = 0 end end
      near(result[n + 1], numeric, 1e-4, ("%s, gradient of input %d"):format(info.name, leaf[1]))
    end
  end
end

-- A number from all outputs, each with its factors: the gradient to start backward from.
local function in_rows(info, c)
  local n_inputs = #c.inputs
  local pr = neap.program(function(rec)
    local x = {}
    rec:sequence "T"
    for i, a in ipairs(c.inputs) do
      local dims = { a.width }
      if not a.width then dims = a.shape end
      x[i] = rec:input("x" .. i, { space = a.space ~= "" and a.space or nil, dims = dims })
    end
    local out, y = {}, table.pack(c.call(table.unpack(x, 1, n_inputs)))
    for i = 1, y.n do out["y" .. i] = y[i] end
    return out
  end)
  local run = pr:run { learn = true }
  for i = 1, n_inputs do run:want_gradient("x" .. i) end
  local batch, n = { rows = #lengths }, neap.tensor(lengths, "i32")
  for i, a in ipairs(c.inputs) do
    local t = tensor(a)
    if a.space == "" then
      batch["x" .. i] = a.width and t:reshape { a.width } or t
    elseif a.space == "B" then
      batch["x" .. i] = t
    else
      batch["x" .. i] = { data = t, lengths = n }
    end
  end
  local expected = { c.ref(table.unpack(c.inputs)) }
  run:feed(batch):forward()
  for k, e in ipairs(expected) do
    near(run:value("y" .. k, "concat"), e, 2e-6, ("%s, output %d"):format(info.name, k))
  end
  if not info.differentiable then
    assert.error_matches(function()
      run.core:backward(pr.outputs.y1, neap.tensor(factors(#expected[1])), "concat")
    end, "depends on no")
    return
  end
  -- outputs in turn: the gradients add up
  local sums = {}
  for k, e in ipairs(expected) do
    if k > 1 then run:feed(batch):forward() end
    run.core:backward(pr.outputs["y" .. k], neap.tensor(factors(#e)), "concat")
    for i = 1, n_inputs do
      local ok, g = pcall(run.gradient, run, "x" .. i, "concat")
      if ok then
        g = run_help.flat(g)
        for j = 1, #g do
          sums[i] = sums[i] or {}
          sums[i][j] = (sums[i][j] or 0) + g[j]
        end
      end
    end
  end
  for i = 1, n_inputs do
    local numeric = difference(c, i)
    local zero = {}
    for j = 1, #numeric do zero[j] = 0 end
    near(sums[i] or zero, numeric, 1e-4, ("%s, gradient of input %d"):format(info.name, i))
  end
end

-- ---- ops that draw numbers ----

local random = {}

function random.uniform()
  local t = op.uniform(neap.zeros { 40, 50 })
  local mean, seen = 0, {}
  for _, v in ipairs(run_help.flat(t)) do
    assert(v >= 0 and v < 1)
    mean = mean + v / 2000
    seen[v] = true
  end
  assert(math.abs(mean - 0.5) < 0.03, mean)
  local kinds = 0
  for _ in pairs(seen) do kinds = kinds + 1 end
  assert(kinds > 1950, kinds)
end

function random.dropout()
  local x = neap.tensor { { 1, 2, 3 } }
  assert.same(x:totable(), op.dropout(x, 0.5):totable()) -- nothing is dropped but in learning
  local pr = neap.program(function(rec)
    local v = rec:input("x", { space = "B", dims = { 100 } })
    return { y = op.dropout(v, rec:scalar("rate", 0.25)) }
  end)
  local run = pr:run { learn = true, seed = 3 }
  run:want_gradient "x"
  local ones = neap.zeros { 20, 100 }
  ones:fill(1)
  for _, rate in ipairs { 0.25, 0.5, 0 } do
    run:set("rate", rate)
    run:feed { x = ones }:forward()
    local y, dropped = run_help.flat(run:value "y"), 0
    for _, v in ipairs(y) do
      assert(v == 0 or math.abs(v - 1 / (1 - rate)) < 1e-6, v)
      if v == 0 then dropped = dropped + 1 end
    end
    assert(math.abs(dropped / 2000 - rate) < 0.04, dropped)
    run.core:backward(pr.outputs.y, ones)
    assert.same(y, run_help.flat(run:gradient "x")) -- d(x m)/dx = m, of the same draw
  end
  run:learning(false)
  run:set("rate", 0.25)
  assert.same(run_help.flat(ones), run_help.flat(run:feed { x = ones }:forward():value "y"))
end

function random.sample()
  local logits = neap.zeros { 3000, 3 }
  for r = 1, 3000 do
    logits:set(r, 2, math.log(2))
    logits:set(r, 3, math.log(5))
  end
  for temperature, expected in pairs { [0] = { 0, 0, 1 }, [0.5] = { 1 / 30, 4 / 30, 25 / 30 },
    [1] = { 1 / 8, 2 / 8, 5 / 8 } } do
    local seen = { 0, 0, 0 }
    for _, id in ipairs(run_help.flat(op.sample(logits, temperature))) do
      seen[id + 1] = seen[id + 1] + 1 / 3000
    end
    for k = 1, 3 do assert(math.abs(seen[k] - expected[k]) < 0.03, seen[k]) end
  end
  raises("sample: temperature -1 is not 0 or more", function() op.sample(logits, -1) end)
end

describe("op", function()
  local index = 1
  while core.op_info(index) do
    local info = core.op_info(index)
    index = index + 1
    it(info.name .. ": " .. info.formula, function()
      if random[info.name] then return random[info.name]() end
      local list = assert(cases[info.name], info.name .. " has no case here")
      for _, c in ipairs(list) do (c.rows and in_rows or at_once)(info, c) end
    end)
    it(info.name .. " refuses too few inputs, too many, and options that it lacks", function()
      assert.equal("function", type(op[info.name]))
      raises(("%s: expected %d"):format(info.name, info.min_inputs), function()
        op.apply(info.name, {})
      end)
      local x, many = neap.zeros { 2 }, {}
      for i = 1, info.max_inputs + 1 do many[i] = x end
      raises(info.name .. ": ", function() op.apply(info.name, many) end)
      local some = table.move(many, 1, info.min_inputs, 1, {})
      raises(info.name .. ": unknown option 'colour'", function()
        op.apply(info.name, some, { colour = 1 })
      end)
      raises(info.name .. ": input 1: expected a tensor or a number, came \"x\"", function()
        op.apply(info.name, { "x" })
      end)
    end)
  end

  it("every case here is of an op in the table", function()
    local known = {}
    for i = 1, index - 1 do known[core.op_info(i).name] = true end
    for name in pairs(cases) do assert(known[name], name) end
    for name in pairs(random) do assert(known[name], name) end
  end)

  it("works through the operators, with numbers on either side", function()
    local a, b = neap.tensor { 1, 2, 4 }, neap.tensor { 2, 0.5, -1 }
    local function same(expected, t) assert.same(expected, t:totable()) end
    same({ 3, 2.5, 3 }, a + b)
    same({ -1, 1.5, 5 }, a - b)
    same({ 2, 1, -4 }, a * b)
    same({ 0.5, 4, -4 }, a / b)
    same({ 1, 4, 16 }, a ^ 2)
    same({ -1, -2, -4 }, -a)
    same({ 11, 12, 14 }, 10 + a)
    same({ 9, 8, 6 }, 10 - a)
    same({ 4, 2, 1 }, 4 / a)
    same({ 2, 4, 16 }, 2 ^ a)
    local pr = neap.program(function(rec)
      local x, y = rec:input("a", { dims = { 3 } }), rec:input("b", { dims = { 3 } })
      return { y = -(x + y * 2 - 1) / 4 + 2 ^ x }
    end)
    local run = pr:run():feed { a = a, b = b }:forward()
    same({ 1, 3.5, 15.75 }, run:value "y")
  end)

  it("reads axes from 1 and from the end, parts and ranges from 1", function()
    local x = neap.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    assert.same({ 5, 7, 9 }, op.sum(x, 1):totable())
    assert.same({ 6, 15 }, op.sum(x, -1):totable())
    assert.same({ 6, 15 }, op.sum(x):totable())
    assert.same({ { 4, 5, 6 } }, op.slice(x, 2, 2, 1):totable())
    raises("sum: axis 0 is not in 1..2", function() op.sum(x, 0) end)
    raises("max: axis 3 is not in 1..2 (feature dimensions of f32 [2,3]) nor -2..-1", function()
      op.max(x, 3)
    end)
    raises("slice: from: expected an integer from 1, came 0", function() op.slice(x, 0, 1) end)
    raises("slice: to: expected an integer from 3, came 2", function() op.slice(x, 3, 2) end)
    raises("split: 3 does not divide by 2 parts", function() op.split(x, 2) end)
    raises("split: the sizes sum to 2, the axis has 3", function() op.split(x, { 1, 1 }) end)
    raises("split: expected a number of parts or a list of sizes, came \"half\"", function()
      op.split(x, "half")
    end)
    raises("concat: expected a list of values", function() op.concat(x) end)
    raises("reshape: at most 3 feature dimensions, came 4",
      function() op.reshape(x, { 1, 1, 2, 3 }) end)
    raises("cast: expected \"f32\" or \"i32\", came \"f64\"", function() op.cast(x, "f64") end)
  end)

  -- Options by place, and the same by name.
  local x, ids = neap.tensor { { 1, -2, 0.5 }, { 4, 5, -6 } }, neap.tensor({ 1, 2 }, "i32")
  local both = {
    leaky_relu = { { x, 0.3 }, { x, { alpha = 0.3 } } },
    elu = { { x, 0.3 }, { x, { alpha = 0.3 } } },
    hard_sigmoid = { { x, 0.3, 0.1 }, { x, { alpha = 0.3, beta = 0.1 } } },
    affine = { { x, 0.3, 0.1 }, { x, { alpha = 0.3, beta = 0.1 } } },
    scaled_tanh = { { x, 0.3, 0.1 }, { x, { alpha = 0.3, beta = 0.1 } } },
    thresholded_relu = { { x, 0.3 }, { x, { alpha = 0.3 } } },
    clamp = { { x, -1, 2 }, { x, { low = -1, high = 2 } } },
    cast = { { x, "i32" }, { x, { dtype = "i32" } } },
    concat = { { { x, x }, 1 }, { { x, x }, { axis = 1 } } },
    slice = { { x, 2, 2, 1 }, { x, { from = 2, to = 2, axis = 1 } } },
    reshape = { { x, { 3, 2 } }, { x, { dims = { 3, 2 } } } },
    transpose = { { x, 1, 2 }, { x, { a = 1, b = 2 } } },
    sum = { { x, 1, true }, { x, { axis = 1, keep = true } } },
    mean = { { x, 1, true }, { x, { axis = 1, keep = true } } },
    max = { { x, 1, true }, { x, { axis = 1, keep = true } } },
    layer_norm = { { x, neap.tensor { 1, 2, 3 }, neap.zeros { 3 }, 0.5 },
      { x, neap.tensor { 1, 2, 3 }, neap.zeros { 3 }, { eps = 0.5 } } },
    one_hot = { { ids, 4 }, { ids, { size = 4 } } },
    hash = { { ids, 4 }, { ids, { size = 4 } } },
    scatter = { { op.cast(ids, "f32"), ids, 4 }, { op.cast(ids, "f32"), ids, { size = 4 } } },
    cross_entropy = { { x, ids, nil, 0.1, true }, { x, ids, { smoothing = 0.1, rows = true } } },
    bmm = { { x, x, false, true }, { x, x, { transpose_b = true } } },
    split = { { x, { 1, 1 }, 1 }, { x, { 1, 1 }, { axis = 1 } } },
    mae = { { x, x * 2, neap.tensor { 1, 0 } }, { x, x * 2, { mask = neap.tensor { 1, 0 } } } },
    huber = { { x, x * 2, nil, 0.3 }, { x, x * 2, { delta = 0.3 } } },
    mse = { { x, x * 2, neap.tensor { 1, 0 } }, { x, x * 2, { mask = neap.tensor { 1, 0 } } } },
    binary_cross_entropy = { { x, x * 0, neap.tensor { 1, 0 } },
      { x, x * 0, { mask = neap.tensor { 1, 0 } } } },
    -- with sequences only: below
    ctc = false, ctc_decode = false,
    spread = false, attend_dot = false, elman = false, gru = false, fold_time = false,
  }
  local written = getmetatable(op).written

  it("takes its options by place and by name", function()
    for name, calls in pairs(both) do
      assert(written[name], name)
      if calls then
        local a = table.pack(pcall(op[name], table.unpack(calls[1], 1, 5)))
        local b = table.pack(pcall(op[name], table.unpack(calls[2], 1, 5)))
        assert(a[1], a[2])
        assert.equal(a.n, b.n)
        for i = 1, a.n do
          local one = type(a[i]) == "userdata" and a[i]:totable() or a[i]
          assert.same(one, type(b[i]) == "userdata" and b[i]:totable() or b[i], name)
        end
      end
    end
    assert.near(-0.6, op.leaky_relu(x, nil, { alpha = 0.3 }):get(1, 2), 1e-6)
    assert.near(2 * 0.3 - 1, op.affine(neap.tensor { 2 }, 0.3, -1):get(1), 1e-6)
    assert.near(1.7159 * 0.58278, op.scaled_tanh(neap.tensor { 1 }, 1.7159, 2 / 3):get(1), 1e-4)
    assert.same({ 0, 0, 3 }, op.thresholded_relu(neap.tensor { -3, 2, 3 }, 2):totable())
    for _, name in ipairs { "affine", "scaled_tanh", "thresholded_relu" } do -- ONNX's presets
      local v = neap.tensor { -0.5, 0.75, 2 }
      assert.same((name == "affine" and v or name == "scaled_tanh" and op.tanh(v)
        or neap.tensor { 0, 0, 2 }):totable(), op[name](v):totable())
    end
    local pr = neap.program(function(rec)
      local v = rec:input("x", { space = "T", dims = { 2 } })
      local h, w, u = op.last(v), neap.param("w", { 2, 2 }), neap.param("u", { 2, 2 })
      return {
        a = op.spread(h, v), b = op.spread(h, { like = v }),
        c = op.elman(v, w, u, nil, nil, nil, "relu"),
        d = op.elman(v, w, u, { activation = "relu" }),
        e = op.gru(v, neap.param("gw", { 6, 2 }), neap.param("gu", { 6, 2 }), nil, nil, nil, true),
        f = op.gru(v, neap.param("gw", { 6, 2 }), neap.param("gu", { 6, 2 }),
          { reset_before = true }),
        g = op.attend_dot(h, v, v, 3), h = op.attend_dot(h, v, v, { scale = 3 }),
        i = op.fold_time(v, 3), j = op.fold_time(v, { steps = 3 }) }
    end)
    local run = pr:run():feed { x = neap.tensor { { { 1, 2 } }, { { 3, -4 } } } }:forward()
    for one, two in pairs { a = "b", c = "d", e = "f", g = "h", i = "j" } do
      assert.equal(run:value(one):tobytes(), run:value(two):tobytes())
    end
  end)

  it("with options is called in a way that the table of ops shows", function()
    for i = 1, index - 1 do
      local info = core.op_info(i)
      assert.equal(#info.attrs > 0, written[info.name] ~= nil, info.name)
    end
    for name in pairs(written) do assert(both[name] ~= nil, name .. " has no case here") end
  end)

  it("refuses options that it lacks, that come twice, or are of another type", function()
    raises("leaky_relu: unknown option \"alhpa\"; did you mean \"alpha\"?", function()
      op.leaky_relu(x, { alhpa = 1 })
    end)
    raises("leaky_relu: the option alpha is given twice", function()
      op.leaky_relu(x, 0.1, { alpha = 1 })
    end)
    raises("leaky_relu: expected at most 2 arguments, x, alpha, got 3", function()
      op.leaky_relu(x, 0.1, 0.2)
    end)
    raises("leaky_relu: alpha: expected a number, came \"0.1\"", function()
      op.leaky_relu(x, "0.1")
    end)
    raises("clamp: high: expected a number, came nil", function() op.clamp(x, 1) end)
    raises("concat: [2] is nil, but there is a [3]", function() op.concat { x, nil, x } end)
    raises("concat: [1] is nil, but there is a [2]", function() op.concat { nil, x } end)
    raises("matmul: b: expected a matrix, a [..,K] times b [K,N], came [T,B,3]: a value with rows "
      .. "comes first", function()
        neap.program(function(rec)
          return op.matmul(rec:param("w", { 3, 3 }), rec:input("x", { space = "T", dims = { 3 } }))
        end)
      end)
    raises("sum: keep: expected true or false, came 1", function() op.sum(x, 1, 1) end)
    raises("sum: axis a table is not in 1..2", function() op.sum(x, { 1 }) end)
    raises("bmm: unknown option \"transpose\"", function() op.bmm(x, x, { transpose = true }) end)
    raises("hash: size: expected an integer from 1 to 2147483647, came 0",
      function() op.hash(ids, 0) end)
    raises("one_hot: size: expected an integer from 1, came nil", function() op.one_hot(ids) end)
    raises("reshape: dimension 1: expected an integer, came \"x\"", function()
      op.reshape(x, { "x" })
    end)
    raises("split: part 2: expected an integer from 1 to 2, came 3", function()
      op.split(x, { 1, 3 })
    end)
    raises("split: expected a value or a tensor, came 3", function() op.split(3, 3) end)
    raises('elman: activation: expected "tanh", "relu", "sigmoid" or "identity", came "elu"',
      function() op.elman(x, x, x, { activation = "elu" }) end)
    raises("cross_entropy: smoothing: expected a number from 0 to 1, came 2", function()
      op.cross_entropy(x, ids, { smoothing = 2 })
    end)
    raises("dropout: rate: expected a number in [0,1), came 1", function() op.dropout(x, 1) end)
  end)

  it("of chance draws anew at each call, and the same again after the same seed", function()
    local function draw()
      return op.uniform(neap.zeros { 4 }):totable(), op.sample(neap.zeros { 50, 9 }):totable()
    end
    neap.seed(3)
    local a, b = draw()
    local c, d = draw()
    assert.not_same(a, c)
    assert.not_same(b, d)
    neap.seed(3)
    local e, f = draw()
    assert.same({ a, b }, { e, f })
    neap.seed(4)
    assert.not_same(a, (draw()))
    raises("seed: n: expected an integer, came \"x\"", function() neap.seed "x" end)
  end)

  it("that is unknown names the nearest", function()
    raises("there is no op.tahn; did you mean op.tanh?", function() op.tahn(1) end)
    raises("there is no op.softmaxx; did you mean op.softmax?", function() op.softmaxx(1) end)
    raises("there is no op 'sigmiod'; did you mean 'sigmoid'?",
      function() op.apply("sigmiod", { 1 }) end)
    raises("leaky_relu: unknown option 'alhpa'; did you mean 'alpha'?", function()
      op.apply("leaky_relu", { 1 }, { alhpa = 1 })
    end)
    raises("cross_entropy: unknown option \"smooting\"; did you mean \"smoothing\"?", function()
      op.cross_entropy(neap.zeros { 1, 2 }, neap.zeros({ 1 }, "i32"), { smooting = 1 })
    end)
  end)
end)

-- What is wrong, in the values' own shapes: v.t2 is [T,B,2], v.b3 [B,3], v.m24 [2,4] in no space.
local refusals = {
  add = { function(v) local _ = v.t2 + v.t3 end,
    "dimensions must be equal or 1: [T,B,2] and [T,B,3]" },
  mul = { function(v) local _ = v.t2 * v.m24 end, "[T,B,2] and [2,4]" },
  tanh = { function(v) local _ = op.tanh(v.ids) end, "x must be f32, not i32 [T,B]" },
  where = { function(v) local _ = op.where(v.t2, v.ids, v.t2) end,
    "a and b must be both f32 or both i32, not i32 [T,B] and [T,B,2]" },
  sub = { function(v) local _ = v.t2 - v.s2 end,
    "values of two different sequences cannot meet: [T,B,2] and [S,B,2]" },
  bce_with_logits = { function(v) local _ = op.bce_with_logits(v.t2, v.t3) end,
    "x and y must have the same dimensions: [T,B,2] and [T,B,3]" },
  dropout = { function(v) local _ = op.dropout(v.t2, v.t3) end, "[T,B,3]" },
  concat = { function(v) local _ = op.concat { v.t22, v.b3 } end, "[T,B,2,2] and [T,B,3]" },
  slice = { function(v) local _ = op.slice(v.t3, 2, 5) end,
    "x [T,B,3]: to must be a whole number in 2..3, not 5" },
  reshape = { function(v) local _ = op.reshape(v.t22, { 3 }) end,
    "x [T,B,2,2], asked for [T,B,3]" },
  spread = { function(v) local _ = op.spread(v.t2, v.s2) end, "x [T,B,2] is not above 'S'" },
  fold_time = { function(v) local _ = op.fold_time(v.t22) end,
    "x must be vectors, such as [T,B,8], not [T,B,2,2]" },
  reverse = { function(v) local _ = op.reverse(v.b3) end,
    "x must be a sequence, such as [T,B,8], not [B,3]" },
  last = { function(v) local _ = op.last(v.t2, v.b3) end,
    "the value for empty sequences must be [B,2] or the same in no space, not [B,3]" },
  mean_time = { function(v) local _ = op.mean_time(v.m24) end, "not [2,4]" },
  mean_rows = { function(v) local _ = op.mean_rows(v.t2, v.b3) end, "x [T,B,2], weights [B,3]" },
  masked_softmax = { function(v) local _ = op.masked_softmax(v.t2, v.t3) end,
    "[T,B,2] and [T,B,3]" },
  layer_norm = { function(v) local _ = op.layer_norm(v.t3, v.v4, v.v4) end,
    "gain must be as wide as x and in no space: x [T,B,3], gain [4]" },
  softmax = { function(v) local _ = op.softmax(v.b) end, "x must have a feature dimension: [B]" },
  embedding = { function(v) local _ = op.embedding(v.ids, v.t2) end,
    "the table must be [V,w] in no space, not [T,B,2]" },
  gather = { function(v) local _ = op.gather(v.s2, v.ids) end,
    "values of two different sequences cannot meet: [S,B,2] and i32 [T,B]" },
  scatter = { function(v) local _ = op.scatter(v.t2, v.ids, 3) end,
    "x and ids must have the same shape, with a feature dimension: x [T,B,2], ids i32 [T,B]" },
  hash = { function(v) local _ = op.hash(v.t2, 3) end, "ids must be i32, not [T,B,2]" },
  one_hot = { function(v) local _ = op.one_hot(v.t2, 3) end, "ids must be i32, not [T,B,2]" },
  cross_entropy = { function(v) local _ = op.cross_entropy(v.s2, v.ids) end,
    "x [S,B,2], ids i32 [T,B]" },
  sample = { function(v) local _ = op.sample(v.t2, v.t3) end,
    "temperature must be one number, not [T,B,3]" },
  matmul = { function(v) local _ = op.matmul(v.t3, v.m24) end,
    "inner widths differ: x [T,B,3], w [2,4]" },
  linear = { function(v) local _ = op.linear(v.t3, v.m24) end,
    "inner widths differ: x [T,B,3], w [2,4]" },
  bmm = { function(v) local _ = op.bmm(v.t22, v.t32) end, "a [T,B,2,2], b [T,B,3,2]" },
  ctc = { function(v) local _ = op.ctc(v.t3, v.b) end, "the labels must be i32, not [B]" },
  ctc_decode = { function(v) local _ = op.ctc_decode(v.b3) end,
    "x must be a sequence, such as [T,B,8], not [B,3]" },
  crf = { function(v) local _ = op.crf(v.t2, v.ids, v.m24) end,
    "the transitions must be [2,2], not [2,4]: x [T,B,2]" },
  crf_marginals = { function(v) local _ = op.crf_marginals(v.t2, v.m22, v.v4) end,
    "start must be [2], not [4]: x [T,B,2]" },
  viterbi = { function(v) local _ = op.viterbi(v.b3, v.m22) end,
    "x must be a sequence, such as [T,B,8], not [B,3]" },
  attend_dot = { function(v) local _ = op.attend_dot(v.t3, v.s2, v.s2) end,
    "widths differ: q [T,B,3], k [S,B,2]" },
  attend_additive = { function(v) local _ = op.attend_additive(v.t2, v.s2, v.s2, v.v4) end,
    "u must be [2], as wide as q [T,B,2], not [4]" },
  attend_at = { function(v) local _ = op.attend_at(v.t2, v.s2) end, "ids must be i32, not [T,B,2]" },
  elman = { function(v) local _ = op.elman(v.t2, v.m24, v.m22) end,
    "weight_ih must be [2,2], not [2,4]: x [T,B,2], weight_hh [2,2]" },
  lstm = { function(v) local _ = op.apply("lstm", { v.t2, v.m24, v.m22 }) end,
    "weight_hh must be [8,2], not [2,2]: x [T,B,2], weight_hh [2,2]" },
  gru = { function(v) local _ = op.gru(v.b3, v.m24, v.m22) end,
    "x must be a sequence, such as [T,B,8], not [B,3]" },
}

describe("an op's refusal names op, shapes and the script's line:", function()
  for name, refusal in sorted(refusals) do
    it(name, function()
      local info = debug.getinfo(refusal[1], "S")
      local ok, message = pcall(neap.program, function(rec)
        local function input(at, dims, dtype)
          return rec:input(tostring(at) .. "/" .. table.concat(dims, "x") .. (dtype or ""),
            { space = at, dims = dims, dtype = dtype })
        end
        refusal[1] {
          t2 = input("T", { 2 }), t3 = input("T", { 3 }), t22 = input("T", { 2, 2 }),
          t32 = input("T", { 3, 2 }), s2 = input("S", { 2 }), b3 = input("B", { 3 }),
          b = input("B", {}),
          ids = input("T", {}, "i32"), m24 = input(nil, { 2, 4 }), m22 = input(nil, { 2, 2 }),
          v4 = input(nil, { 4 }),
        }
      end)
      assert.is_false(ok)
      local place = ("%s:%d"):format(info.short_src, info.linedefined)
      assert(message:find(place .. ": " .. name .. ": ", 1, true) == 1, message)
      assert(message:find(refusal[2], 1, true), message)
      assert(message:sub(-#place - 2) == "(" .. place .. ")", message)
    end)
  end
end)

describe("a loss", function()
  local logits = { { 1, 2, 0.5 }, { -1, 0.25, 3 }, { 0, 0, 0 }, { 2, -2, 1 } }
  local ids, mask = { 1, 2, -1, 0 }, { 1, 0.5, 1, 2 }
  local e = {}
  for r, line in ipairs(logits) do
    e[r] = ids[r] < 0 and 0 or -math.log(softmax(line)[ids[r] + 1])
  end
  local other = { { 0.5, 1, 0 }, { 1, 0, 1 }, { 0, 0.25, 1 }, { 1, 0, 0 } }
  local function mean_of(f)
    local plain, weighted, total = 0, 0, 0
    for r = 1, 4 do
      local row = 0
      for k = 1, 3 do row = row + f(logits[r][k], other[r][k]) / 3 end
      plain, weighted, total = plain + row / 4, weighted + mask[r] * row, total + mask[r]
    end
    return plain, weighted / total
  end
  local mse, masked_mse = mean_of(function(x, y) return (x - y) ^ 2 end)
  local bce, masked_bce = mean_of(function(x, y)
    return -y * math.log(sigmoid(x)) - (1 - y) * math.log(1 - sigmoid(x))
  end)
  local expected = {
    (e[1] + e[2] + e[4]) / 3, (e[1] + 0.5 * e[2] + 2 * e[4]) / 3.5, mse, masked_mse, bce,
    masked_bce,
  }
  local function losses(x, i, m, y)
    return { op.cross_entropy(x, i), op.cross_entropy(x, i, { mask = m }), op.mse(x, y),
      op.mse(x, y, { mask = m }), op.binary_cross_entropy(x, y),
      op.binary_cross_entropy(x, y, { mask = m }) }
  end
  local x, m, y = neap.tensor(logits), neap.tensor(mask), neap.tensor(other)
  local i = neap.tensor(ids, "i32")

  it("is the mean over all that counts, at once", function()
    for k, loss in ipairs(losses(x, i, m, y)) do
      assert.same({}, loss:shape())
      near({ loss:item() }, { expected[k] }, 1e-6, "loss " .. k)
    end
    assert.equal(4, op.mse(3, 1):item())
    assert.equal(0, op.cross_entropy(x, neap.tensor({ -1, -1, -1, -1 }, "i32")):item())
    assert.equal(0, op.mse(x, y, { mask = neap.zeros { 4 } }):item())
  end)

  it("is the same over rows, ragged or not", function()
    for _, space in ipairs { "T", "B" } do
      local pr = neap.program(function(rec)
        local function input(name, dims, dtype)
          return rec:input(name, { space = space, dims = dims, dtype = dtype })
        end
        local out = {}
        for k, loss in ipairs(losses(input("x", { 3 }), input("i", {}, "i32"), input("m", {}),
          input("y", { 3 }))) do
          out["loss" .. k] = loss
        end
        return out
      end)
      local batch, lengths_ = { x = x, i = i, m = m, y = y }, neap.tensor({ 1, 3 }, "i32")
      if space == "T" then
        for name, t in pairs(batch) do batch[name] = { data = t, lengths = lengths_ } end
      end
      local run = pr:run():feed(batch):forward()
      for k = 1, 6 do near({ run:item("loss" .. k) }, { expected[k] }, 1e-6, "loss " .. k) end
    end
  end)

  it("is the same on values without rows, with its gradient", function()
    for k = 1, 6 do
      local value, dx = neap.grad(function(a, f, b, c)
        return losses(a, op.cast(f, "i32"), b, c)[k]
      end, x, neap.tensor(ids), m, y)
      near({ value }, { expected[k] }, 1e-6, "loss " .. k)
      if k == 3 then
        local d = {}
        for r = 1, 4 do for n = 1, 3 do d[#d + 1] = 2 * (logits[r][n] - other[r][n]) / 12 end end
        near(dx, d, 1e-6, "gradient of mse")
      end
    end
  end)
end)

describe("neap.grad", function()
  it("gives the value and a gradient for each tensor", function()
    local value, da, db = neap.grad(function(a, b) return op.sum(a * a * b) end,
      neap.tensor { 1, 2, 3 }, neap.tensor { 2, 1, -1 })
    assert.equal(-3, value)
    assert.same({ 4, 4, -6 }, da:totable())
    assert.same({ 1, 4, 9 }, db:totable())
  end)

  it("is zero where a tensor has no part in it", function()
    local _, da, db = neap.grad(function(a, b) return op.sum(a + op.stop_gradient(b)) end,
      neap.tensor { 1, 2 }, neap.tensor { 3, 4 })
    assert.same({ 1, 1 }, da:totable())
    assert.same({ 0, 0 }, db:totable())
  end)

  it("says what it wants", function()
    local x = neap.tensor { 1, 2 }
    raises("backward: 'loss' is [2], expected a single number", function()
      neap.grad(function(a) return a end, x)
    end)
    raises("backward: 'loss' depends on no parameter", function()
      neap.grad(function(a) return op.sum(op.stop_gradient(a)) end, x)
    end)
    raises("grad: the function must give a recorded value, came nil", function()
      neap.grad(function() end, x)
    end)
  end)
end)
