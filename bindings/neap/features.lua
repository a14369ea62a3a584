--- Features of sound and of symbols, as layers: they are recorded like any other, so a saved model
-- reads samples or ids, and a C host feeds it these, whole or step by step in a stream.
--
-- Sound is a sequence x [T,B,hop] of steps of `hop` samples each, -1 to 1, as `corpus:sounds` makes
-- them. Step t of the features is about the window that ends with the last sample of step t; what
-- lies before the first sample is 0. So no feature waits for later samples, but for those of
-- @{deltas}.
-- @module neap.features
local check = require "neap.check"
local core = require "neap.core"
local layer = require "neap.layer"
local op = require "neap.op"
local record = require "neap.record"

local features = {}

local function names_of(...)
  local names = {}
  for _, list in ipairs { ... } do table.move(list, 1, #list, #names + 1, names) end
  names[#names + 1] = "name"
  return names
end

local function make(kind, options, forward)
  if options.name ~= nil then check.type(kind, "name", options.name, "string") end
  local l = layer.new(kind, options, forward)
  l.name = options.name
  return l
end

-- Reads steps back to back: y(t) = the last `size` numbers of x(1..t). edge: what lies before the
-- first step: "zeros", or "repeat", the first step's own numbers again and again (then size is a
-- multiple of the width).
local function window(rec, x, size, edge)
  if size == x.width then return x end
  local past, again = size - x.width, edge == "repeat"
  local states, order = { past = { dims = { past } } }, { "past" }
  if again then states.begun, order = { dims = { 1 } }, { "begun", "past" } end
  return (rec:scan(x.space, states, order, function(s)
    local before, next_states = s.past, {}
    if again then
      local copies = {}
      for i = 1, past // x.width do copies[i] = x end
      before = op.where(op.equal(s.begun, 0), op.concat(copies), before)
      next_states.begun = op.maximum(s.begun, 1)
    end
    local y = op.concat { before, x }
    next_states.past = op.slice(y, x.width + 1, size)
    return y, next_states
  end))
end

--- The last steps of a sequence side by side: x [T,B,I] -> y [T,B,steps·I], y(t) = x(t-steps+1),
-- .., x(t); zeros before the first step. A network on it sees a fixed window of the past.
-- @tab options `steps`: how many
-- @treturn layer
function features.window(options)
  options = check.options("window", options, names_of { "steps" })
  local steps = check.integer("window", "steps", options.steps, 1)
  return make("window", options, function(_, rec, x)
    layer.sequence_of("window", x)
    return window(rec, x, steps * x.width, "zeros")
  end)
end

--- Features of symbols: the n-grams that end at each step, of 1 to n symbols, each by a vector of
-- its own: x i32 [T,B] -> y [T,B,size], y(t) = sum over k = 1..n of E[h(x(t-k+1), .., x(t))]. Before
-- the first step stands a symbol that is none of the others. h is a hash (@{neap.op.hash}), so that
-- no list of n-grams is needed, here or in a host; n-grams that share a number share a vector
-- (Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information").
--
-- With as many numbers as there are classes, `op.sum_time` of it is a linear model of n-grams:
-- beside a recurrent network it knows by heart what is rare (Cheng et al. 2016, "Wide & Deep
-- Learning for Recommender Systems").
-- @tab options `size`; `n` (3); `buckets`: rows of E (65536); `init` of E (normal with deviation 1)
-- @treturn layer
function features.ngrams(options)
  options = check.options("ngrams", options, names_of { "size", "n", "buckets", "init" })
  local size = check.integer("ngrams", "size", options.size, 1)
  local n = check.integer("ngrams", "n", options.n or 3, 1, 64)
  local buckets = check.integer("ngrams", "buckets", options.buckets or 65536, 1, 2 ^ 31 - 1)
  record.start("ngrams", options.init)
  return make("ngrams", options, function(_, rec, x)
    if not record.is_value(x) or x.dtype ~= "i32" or x.space < 1 or #x.dims > 0 then
      check.fail("ngrams: expected a sequence of ids such as i32 [T,B], came %s",
        record.is_value(x) and x:shape() or check.came(x))
    end
    local weight = rec:param("weight", { buckets, size }, options.init or { "normal", 0, 1 })
    -- ids from 1: 0 is what stands before the first step
    local last, sum = window(rec, op.reshape(op.cast(x, "f32"), { 1 }) + 1, n, "zeros"), nil
    for k = 1, n do
      local ids = op.cast(op.slice(last, n - k + 1, n), "i32")
      local y = op.embedding(op.hash(ids, buckets), weight)
      sum = sum and sum + y or y
    end
    return sum
  end)
end

-- ---- spectra ----

-- Hertz to mel and back. HTK: O'Shaughnessy 1987, as in Young et al., "The HTK Book". Slaney:
-- Slaney 1998, "Auditory Toolbox": linear to 1000 Hz, logarithmic above.
local scales = {
  htk = {
    mel = function(f) return 2595 * math.log(1 + f / 700, 10) end,
    hertz = function(m) return 700 * (10 ^ (m / 2595) - 1) end,
  },
  slaney = {
    mel = function(f)
      return f < 1000 and f / (200 / 3) or 15 + math.log(f / 1000) / (math.log(6.4) / 27)
    end,
    hertz = function(m)
      return m < 15 and m * 200 / 3 or 1000 * math.exp((m - 15) * math.log(6.4) / 27)
    end,
  },
}

-- The window's weights, n = 0..N-1. Hann: periodic; Hamming: symmetric, as HTK's.
local shapes = {
  hann = function(n, N) return 0.5 - 0.5 * math.cos(2 * math.pi * n / N) end,
  hamming = function(n, N) return 0.54 - 0.46 * math.cos(2 * math.pi * n / (N - 1)) end,
  rectangle = function() return 1 end,
}

local function one_of(who, name, value, known)
  if not known[value] then
    local names = {}
    for k in pairs(known) do names[#names + 1] = k end
    table.sort(names)
    local near = core.nearest(tostring(value), names)
    check.fail("%s: %s: expected %s, came %s%s", who, name, "\"" .. table.concat(names, "\", \"")
      .. "\"", check.came(value), near and ("; did you mean \"%s\"?"):format(near) or "")
  end
  return value
end

-- A tensor [rows,columns] of f(row, column), both from 0.
local function matrix(rows, columns, f)
  local list = core.floats()
  for i = 0, rows - 1 do
    for j = 0, columns - 1 do list:push(f(i, j)) end
  end
  return list:tensor { rows, columns }
end

-- All that is linear in a window's samples, as one matrix [N,2K]: x -> real and imaginary parts of
-- X(k), k = 0..fft/2, K of them.
--   X(k) = sum over n = 0..N-1 of w(n) (x(n) - a x(n-1)) e^(-2 pi i k n / fft), x(-1) = x(0)
-- The sum of column k is taken by x, so what x(n) weighs is w(n) e(n) - a w(n+1) e(n+1).
local function transform(N, fft, shape, a)
  local K = fft // 2 + 1
  local function weight(n, k)
    if n >= N then return 0 end
    local part = k < K and math.cos or function(angle) return -math.sin(angle) end
    return shape(n, N) * part(2 * math.pi * (k % K * n % fft) / fft)
  end
  return matrix(N, 2 * K, function(n, k)
    local own = n == 0 and 1 - a or 1
    return own * weight(n, k) - (a == 0 and 0 or a * weight(n + 1, k))
  end)
end

-- Triangles [K,filters]: filter m rises from edge m to edge m+1 and falls to edge m+2; the edges
-- are as far apart in mel. HTK: straight in mel, 1 at the top. Slaney: straight in Hertz, of area 1
-- (in Hertz).
local function triangles(o, fft)
  local scale, edges = scales[o.scale], {}
  local low, high = scale.mel(o.low), scale.mel(o.high)
  for m = 0, o.filters + 1 do
    local mel = low + (high - low) * m / (o.filters + 1)
    edges[m] = o.scale == "htk" and mel or scale.hertz(mel)
  end
  local K, lit = fft // 2 + 1, {}
  local filters = matrix(K, o.filters, function(k, m)
    local f = k * o.rate / fft
    local at = o.scale == "htk" and scale.mel(f) or f
    local up = (at - edges[m]) / (edges[m + 1] - edges[m])
    local down = (edges[m + 2] - at) / (edges[m + 2] - edges[m + 1])
    local y = math.max(math.min(up, down), 0)
    if y > 0 then lit[m] = true end
    return o.scale == "htk" and y or y * 2 / (edges[m + 2] - edges[m])
  end)
  for m = 0, o.filters - 1 do
    if not lit[m] then
      check.fail("%s: filters: filter %d of %d lies between two lines of the spectrum, %g Hz "
        .. "apart: fewer filters, or a larger fft, are needed", o.who, m + 1, o.filters,
        o.rate / fft)
    end
  end
  return filters
end

local spectral = { "rate", "window", "fft", "shape", "preemphasis", "power", "filters", "low",
  "high", "scale", "floor" }

-- Checks the options of a spectrum and fills in the presets.
local function spectrum_options(who, options)
  local o = { who = who }
  o.rate = check.number(who, "rate", options.rate, 1)
  local seconds = check.number(who, "window", options.window or 0.025, 0)
  o.size = math.floor(seconds * o.rate + 0.5)
  if o.size < 2 then
    check.fail("%s: window: expected at least 2 samples, came %g s, which are %d at a rate of %g",
      who, seconds, o.size, o.rate)
  end
  local fft = 2
  while fft < o.size do fft = 2 * fft end
  o.fft = check.integer(who, "fft", options.fft or fft, o.size)
  o.shape = shapes[one_of(who, "shape", options.shape or "hann", shapes)]
  o.preemphasis = check.number(who, "preemphasis", options.preemphasis or 0, 0, 1)
  o.power = check.integer(who, "power", options.power or 2, 1, 2)
  o.filters = check.integer(who, "filters", options.filters or 40, 1)
  o.scale = one_of(who, "scale", options.scale or "slaney", scales)
  o.low = check.number(who, "low", options.low or 0, 0)
  o.high = check.number(who, "high", options.high or o.rate / 2, 0, o.rate / 2)
  if o.high <= o.low then
    check.fail("%s: high: expected more than low = %g, came %g", who, o.low, o.high)
  end
  o.floor = check.number(who, "floor", options.floor or 1e-10, 1e-37)
  o.transform = transform(o.size, o.fft, o.shape, o.preemphasis)
  o.triangles = triangles(o, o.fft)
  return o
end

-- x [T,B,hop] -> ln of the energies of the filters [T,B,filters].
local function energies(o, rec, x)
  layer.sequence_of(o.who, x)
  if x.width > o.size then
    check.fail("%s: its window of %d samples is shorter than the %d samples of a step, so that "
      .. "some would not count", o.who, o.size, x.width)
  end
  local K = o.fft // 2 + 1
  local spectrum = op.matmul(window(rec, x, o.size, "zeros"),
    rec:constant("transform", o.transform))
  local power = op.square(op.slice(spectrum, 1, K)) + op.square(op.slice(spectrum, K + 1, 2 * K))
  if o.power == 1 then power = op.sqrt(power) end
  return op.log(op.maximum(op.matmul(power, rec:constant("filters", o.triangles)), o.floor))
end

--- Logarithm of the energies of mel filters: x [T,B,hop] -> [T,B,filters].
--
--   y(m) = ln max(floor, sum over k of F(m,k) |X(k)|^power)
--   X(k) = sum over n = 0..N-1 of w(n) (x(n) - a x(n-1)) e^(-2 pi i k n / fft), k = 0..fft/2
--
-- x(0..N-1) are the last N samples, N = window · rate rounded; a is the preemphasis, x(-1) = x(0).
-- F(m,.) is a triangle between edges that are as far apart in mel. In scale "slaney" (Slaney 1998;
-- librosa's preset) mel = 3 f / 200 below 1000 Hz and 15 + 27 ln(f / 1000) / ln 6.4 above, the
-- triangles are straight in Hertz and have area 1. In scale "htk" (The HTK Book; Kaldi) mel = 2595
-- log10(1 + f / 700), the triangles are straight in mel and 1 at the top. The whole linear part is
-- one product with a constant matrix [N, fft + 2].
-- @tab options
--
-- - `rate`: samples a second
-- - `window`: its length in seconds (0.025)
-- - `fft`: N or more (the next power of two)
-- - `shape`: of w: "hann", 0.5 - 0.5 cos(2 pi n / N) (the preset); "hamming",
--   0.54 - 0.46 cos(2 pi n / (N - 1)); "rectangle", 1
-- - `preemphasis`: a (0)
-- - `power`: 2 (the preset) or 1
-- - `filters` (40), `low` (0), `high` (rate / 2): edges of the first and the last, in Hertz
-- - `scale`: "slaney" (the preset) or "htk"
-- - `floor` (1e-10)
-- @treturn layer
function features.log_mel(options)
  options = check.options("log_mel", options, names_of(spectral))
  local o = spectrum_options("log_mel", options)
  return make("log_mel", options, function(_, rec, x) return energies(o, rec, x) end)
end

--- Mel-frequency cepstral coefficients (Davis and Mermelstein 1980): x [T,B,hop] ->
-- [T,B,coefficients].
--
--   c(i) = l(i) sqrt((i = 0 and 1 or 2) / M) sum over m = 0..M-1 of y(m) cos(pi i (m + 0.5) / M)
--   l(i) = 1 + L / 2 sin(pi i / L), or 1 if L is 0
--
-- y(m) are the M energies of @{log_mel}; this is the orthonormal cosine transform, i = 0 first.
-- @tab options those of @{log_mel}; `coefficients`: how many (13); `lifter`: L (0; HTK's is 22)
-- @treturn layer
function features.mfcc(options)
  options = check.options("mfcc", options, names_of(spectral, { "coefficients", "lifter" }))
  local o = spectrum_options("mfcc", options)
  local M = o.filters
  local n = check.integer("mfcc", "coefficients", options.coefficients or math.min(13, M), 1, M)
  local L = check.number("mfcc", "lifter", options.lifter or 0, 0)
  local cosines = matrix(M, n, function(m, i)
    local lifter = L > 0 and 1 + L / 2 * math.sin(math.pi * i / L) or 1
    return lifter * ((i == 0 and 1 or 2) / M) ^ 0.5 * math.cos(math.pi * i * (m + 0.5) / M)
  end)
  return make("mfcc", options, function(_, rec, x)
    return op.matmul(energies(o, rec, x), rec:constant("cosines", cosines))
  end)
end

--- Features and their slopes: x [T,B,I] -> [T,B,(order + 1)·I]: x, its deltas, the deltas of these.
--
--   d(t) = sum over n = 1..W of n (x(t+n) - x(t-n)) / (2 sum over n = 1..W of n^2)
--
-- The first step is repeated before the beginning and the last one after the end (The HTK Book;
-- Furui 1986). W later steps are needed for each order: a stream needs `lookahead` = W · order.
-- @tab[opt] options `width`: W (2), at most 12; `order` (2)
-- @treturn layer
function features.deltas(options)
  options = check.options("deltas", options, names_of { "width", "order" })
  local W = check.integer("deltas", "width", options.width or 2, 1, 12)
  local order = check.integer("deltas", "order", options.order or 2, 1, 9)
  local squares = 0
  for n = 1, W do squares = squares + n * n end
  return make("deltas", options, function(_, rec, x)
    layer.sequence_of("deltas", x)
    local I = x.width
    local function side(v) -- sum of n v(t-n)
      local all, sum = window(rec, v, (W + 1) * I, "repeat"), nil
      for n = 1, W do
        local part = n * op.slice(all, (W - n) * I + 1, (W - n + 1) * I)
        sum = sum and sum + part or part
      end
      return sum
    end
    local out = { x }
    for k = 1, order do
      local v = out[k]
      out[k + 1] = (op.reverse(side(op.reverse(v))) - side(v)) / (2 * squares)
    end
    return op.concat(out)
  end)
end

-- ---- normalisation ----

--- Brings each column to mean 0 and deviation 1: y = (x - mean) / deviation, by constants that are
-- saved with the model. `corpus:moments` has them of a field.
-- @tab options `mean` and `deviation`: lists of a number for each column
-- @treturn layer
function features.standardize(options)
  options = check.options("standardize", options, names_of { "mean", "deviation" })
  local mean = check.table("standardize", "mean", options.mean)
  local deviation = check.table("standardize", "deviation", options.deviation)
  for name, list in pairs { mean = mean, deviation = deviation } do
    for i, x in ipairs(list) do
      check.number("standardize", ("%s[%d]"):format(name, i), x, name == "deviation" and 0 or nil)
    end
  end
  if #mean == 0 or #mean ~= #deviation then
    check.fail("standardize: expected a mean and a deviation of each column, came %d and %d", #mean,
      #deviation)
  end
  local scale = {}
  for i, x in ipairs(deviation) do
    scale[i] = x > 0 and 1 / x or 1 -- a column that never changes becomes 0
  end
  mean, scale = core.tensor(mean), core.tensor(scale)
  return make("standardize", { columns = #mean, name = options.name }, function(_, rec, x)
    if not record.is_value(x) or x.width ~= #mean then
      check.fail("standardize: expected rows of %d numbers, came %s", #mean, check.came(x))
    end
    return (x - rec:constant("mean", mean)) * rec:constant("scale", scale)
  end)
end

--- Brings each column of each sequence to mean 0 and deviation 1, by the sequence's own moments
-- (cepstral mean and variance normalisation). It needs the whole sequence, and cannot be streamed.
-- @tab[opt] options `variance`: false: only the mean is taken away; `eps`: added to the variance
--   (1e-5)
-- @treturn layer
function features.normalize(options)
  options = check.options("normalize", options, names_of { "variance", "eps" })
  local variance = options.variance == nil
    or check.boolean("normalize", "variance", options.variance)
  local eps = check.number("normalize", "eps", options.eps or 1e-5, 0)
  return make("normalize", options, function(_, _, x)
    layer.sequence_of("normalize", x)
    local y = x - op.spread(op.mean_time(x), x)
    if not variance then return y end
    return y / op.sqrt(op.spread(op.mean_time(op.square(y)), x) + eps)
  end)
end

for name, arguments in pairs { window = "{ steps = ... }", log_mel = "{ rate = ... }",
  mfcc = "{ rate = ... }", deltas = "{}", standardize = "{ mean = .., deviation = .. }",
  normalize = "{}" } do
  layer.constructor(features[name], "neap.features." .. name, arguments)
end

return features
