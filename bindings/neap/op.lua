--- The ops. On recorded values they append a node to the program; on tensors and numbers they run
-- at once. Axes count the feature dimensions from 1; negative axes count from the last.
-- Options follow the inputs, or stand by name in a table after them: `op.sum(x, 1, true)`,
-- `op.sum(x, { axis = 1, keep = true })`.
-- Here are the ops with arguments of their own; all, with their formulas, are in docs/ops.md.
-- @module neap.op
local core = require "neap.core"
local check = require "neap.check"
local record = require "neap.record"
local rng = require "neap.rng"

local op = {}
local is_value = record.is_value

local tensor_meta = getmetatable(core.zeros({ 1 }))
local function is_tensor(x) return type(x) == "userdata" and getmetatable(x) == tensor_meta end

-- What ops of chance draw their seeds from when they run at once.
local draws = { uniform = true, sample = true, dropout = true }
local chance = rng.new(1)

-- One op on real tensors: a program of one node. Numbers come in as parameters, and what goes out is
-- only kept, because inputs and outputs of a run must be finite.
local function eager(name, inputs, attrs)
  local params = core.params()
  local program = core.program(params)
  local ids, feed = {}, {}
  program:where(core.where())
  for i, x in ipairs(inputs) do
    if type(x) == "number" then
      ids[i] = program:constant(x)
    elseif x == false then
      ids[i] = false
    elseif is_tensor(x) then
      local shape = x:shape()
      if #shape > 3 then
        check.fail("%s: on tensors at most 3 dimensions are possible, came %d", name, #shape)
      end
      for _, d in ipairs(shape) do
        if d == 0 then check.fail("%s: a tensor without elements, %s", name, check.came(x)) end
      end
      if x:dtype() == "f32" then
        params:add("x" .. i, shape)
        params:set("x" .. i, x)
        ids[i] = program:param("x" .. i)
      else
        ids[i] = program:input("x" .. i, "i32", -1, shape)
        feed[#feed + 1] = { ids[i], x }
      end
    else
      check.fail("%s: input %d: expected a tensor or a number, came %s", name, i, check.came(x))
    end
  end
  local out = table.pack(program:add(name, ids, attrs))
  for i = 1, out.n do program:output("y" .. i, program:add("equal", { out[i], out[i] })) end
  local run = core.run(program, { learn = false, seed = draws[name] and chance:seed() or nil })
  for i = 1, out.n do run:keep(out[i], false) end
  for _, f in ipairs(feed) do run:input(f[1], f[2]) end
  run:forward()
  for i = 1, out.n do out[i] = run:read(out[i]) end
  return table.unpack(out, 1, out.n)
end

-- A number among recorded values or tensors; all numbers: the result is a number-like tensor.
local function apply(name, inputs, attrs)
  check.type("apply", "inputs", inputs, "table")
  for i = 1, #inputs do
    if is_value(inputs[i]) then
      for k = 1, #inputs do
        if is_tensor(inputs[k]) then
          check.fail("%s: input %d is a tensor among recorded values: make it a parameter or an "
            .. "input of the program, or a constant: rec:constant(name, tensor)", name, k)
        end
      end
      return inputs[i].rec:add(name, inputs, attrs)
    end
  end
  return eager(name, inputs, attrs)
end
op.apply = apply

local function rank_of(x)
  if is_value(x) then return #x.dims end
  if is_tensor(x) then return #x:shape() end
  return 0
end

-- An axis from 1 or from the end as the runtime's, from 0.
local function axis_of(who, x, axis, preset)
  local rank = rank_of(x)
  axis = axis or preset or -1
  if math.type(axis) ~= "integer" or axis == 0 or axis > rank or axis < -rank then
    check.fail("%s: axis %s is not in 1..%d (feature dimensions of %s) nor -%d..-1", who,
      check.came(axis), rank, check.came(x), rank)
  end
  return axis > 0 and axis - 1 or rank + axis
end

-- Every op without options and with a fixed number of inputs, straight from the table.
local index = 1
while true do
  local info = core.op_info(index)
  if not info then break end
  index = index + 1
  if #info.attrs == 0 then
    op[info.name] = function(...)
      local n = select("#", ...)
      local inputs = { ... }
      for i = 1, n do
        if inputs[i] == nil and i <= info.min_inputs then
          check.fail("%s: input %d: expected a value, a tensor or a number, came nil (as tonumber of "
            .. "a recorded value does: it has a shape but no number yet)", info.name, i)
        end
        if inputs[i] == nil then inputs[i] = false end
      end
      return apply(info.name, inputs)
    end
  end
end

-- How the ops with options are called: op -> names of inputs, names of options.
local written = {}

-- An op with options: fn gets the inputs and the options by place, however they were given.
local function define(name, inputs, options, fn)
  written[name] = { inputs = inputs, options = options }
  local n, lists = #inputs, options[1] == "dims"
  op[name] = function(...)
    local given, last = { ... }, select("#", ...)
    while last > 0 and given[last] == nil do last = last - 1 end
    local named, at_most = given[last], n + #options
    local key = type(named) == "table" and not getmetatable(named) and last > 1 and next(named)
    if type(key) == "string" or key == nil and last > n and not lists then
      check.options(name, named, options)
      given[last], at_most = nil, at_most + 1
      for i, option in ipairs(options) do
        if named[option] ~= nil and given[n + i] ~= nil then
          check.fail("%s: the option %s is given twice", name, option)
        elseif named[option] ~= nil then
          given[n + i] = named[option]
        end
      end
    end
    if last > at_most then
      check.fail("%s: expected at most %d arguments, %s, got %d", name, n + #options,
        table.concat(inputs, ", ") .. ", " .. table.concat(options, ", "), last)
    end
    return fn(table.unpack(given, 1, n + #options))
  end
end

-- Options that are numbers.
local function numbers(who, options)
  for name, v in pairs(options) do check.type(who, name, v, "number") end
  return options
end

define("leaky_relu", { "x" }, { "alpha" }, function(x, alpha)
  return apply("leaky_relu", { x }, numbers("leaky_relu", { alpha = alpha }))
end)
define("elu", { "x" }, { "alpha" }, function(x, alpha)
  return apply("elu", { x }, numbers("elu", { alpha = alpha }))
end)
define("hard_sigmoid", { "x" }, { "alpha", "beta" }, function(x, alpha, beta)
  return apply("hard_sigmoid", { x }, numbers("hard_sigmoid", { alpha = alpha, beta = beta }))
end)

--- alpha x + beta.
-- @function affine
-- @param x
-- @number[opt=1] alpha
-- @number[opt=0] beta
define("affine", { "x" }, { "alpha", "beta" }, function(x, alpha, beta)
  numbers("affine", { alpha = alpha, beta = beta })
  return op.add(op.mul(x, alpha or 1), beta or 0)
end)

--- alpha tanh(beta x).
-- @function scaled_tanh
-- @param x
-- @number[opt=1] alpha
-- @number[opt=1] beta
define("scaled_tanh", { "x" }, { "alpha", "beta" }, function(x, alpha, beta)
  numbers("scaled_tanh", { alpha = alpha, beta = beta })
  return op.mul(op.tanh(op.mul(x, beta or 1)), alpha or 1)
end)

--- x if x > alpha else 0.
-- @function thresholded_relu
-- @param x
-- @number[opt=1] alpha
define("thresholded_relu", { "x" }, { "alpha" }, function(x, alpha)
  numbers("thresholded_relu", { alpha = alpha })
  return op.where(op.greater(x, alpha or 1), x, 0)
end)

define("clamp", { "x" }, { "low", "high" }, function(x, low, high)
  check.type("clamp", "low", low, "number")
  check.type("clamp", "high", high, "number")
  return apply("clamp", { x }, { low = low, high = high })
end)

--- x as another dtype.
-- @function cast
-- @param x
-- @string dtype "f32" or "i32" (rounded towards 0)
define("cast", { "x" }, { "dtype" }, function(x, dtype)
  if dtype ~= "f32" and dtype ~= "i32" then
    check.fail("cast: expected \"f32\" or \"i32\", came %s", check.came(dtype))
  end
  return apply("cast", { x }, { dtype = dtype == "i32" and 1 or 0 })
end)

--- x w^T + b, or x w^T.
function op.linear(x, w, b) return apply("linear", b and { x, w, b } or { x, w }) end

--- x [..,K] times w [K,N]; with two values that have rows: a product for each row.
function op.matmul(a, b)
  if is_value(b) and b.space >= 0 then
    if #b.dims < 2 then
      check.fail("matmul: b: expected a matrix, a [..,K] times b [K,N], came %s: a value with rows "
        .. "comes first", b:shape())
    end
    return op.bmm(a, b)
  end
  return apply("matmul", { a, b })
end

--- A product for each row: a [..,M,K], b [..,K,N].
-- @function bmm
-- @param a
-- @param b
-- @bool[opt] transpose_a
-- @bool[opt] transpose_b
define("bmm", { "a", "b" }, { "transpose_a", "transpose_b" }, function(a, b, ta, tb)
  return apply("bmm", { a, b }, { transpose_a = check.boolean("bmm", "transpose_a", ta) and 1 or 0,
    transpose_b = check.boolean("bmm", "transpose_b", tb) and 1 or 0 })
end)

--- The inputs side by side.
-- @function concat
-- @tab list of values
-- @int[opt=-1] axis
define("concat", { "list" }, { "axis" }, function(list, axis)
  if type(list) ~= "table" or is_value(list) or #list == 0 then
    check.fail("concat: expected a list of values, came %s", check.came(list))
  end
  check.list("concat", list)
  return apply("concat", list, { axis = axis_of("concat", list[1], axis) })
end)

--- x from element `from` to element `to` along an axis, both included, from 1.
-- @function slice
-- @param x
-- @int from
-- @int to
-- @int[opt=-1] axis
define("slice", { "x" }, { "from", "to", "axis" }, function(x, from, to, axis)
  check.integer("slice", "from", from, 1)
  check.integer("slice", "to", to, from)
  return apply("slice", { x }, { axis = axis_of("slice", x, axis), from = from - 1, to = to })
end)

--- x cut into parts along an axis.
-- @function split
-- @param x
-- @param parts how many equal parts, or a list of sizes
-- @int[opt=-1] axis
-- @return the parts
define("split", { "x", "parts" }, { "axis" }, function(x, parts, axis)
  if not is_value(x) and not is_tensor(x) then
    check.fail("split: expected a value or a tensor, came %s", check.came(x))
  end
  local at = axis_of("split", x, axis)
  local width = is_value(x) and x.dims[at + 1] or x:shape()[at + 1]
  local sizes = parts
  if math.type(parts) == "integer" and parts > 0 then
    if width % parts ~= 0 then
      check.fail("split: %d does not divide by %d parts", width, parts)
    end
    sizes = {}
    for i = 1, parts do sizes[i] = width // parts end
  elseif type(parts) ~= "table" then
    check.fail("split: expected a number of parts or a list of sizes, came %s", check.came(parts))
  end
  local out, from = {}, 0
  for i, size in ipairs(sizes) do
    check.integer("split", ("part %d"):format(i), size, 1, width - from)
    out[i] = apply("slice", { x }, { axis = at, from = from, to = from + size })
    from = from + size
  end
  if from ~= width then check.fail("split: the sizes sum to %d, the axis has %d", from, width) end
  return table.unpack(out)
end)

--- The same elements with other feature dimensions.
-- @function reshape
-- @param x
-- @tab dims at most three
define("reshape", { "x" }, { "dims" }, function(x, dims)
  check.table("reshape", "dims", dims)
  if #dims > 3 then check.fail("reshape: at most 3 feature dimensions, came %d", #dims) end
  for i, d in ipairs(dims) do check.integer("reshape", "dimension " .. i, d) end
  return apply("reshape", { x }, { rank = #dims, d0 = dims[1] or 1, d1 = dims[2] or 1,
    d2 = dims[3] or 1 })
end)

--- Two feature axes exchanged (the last two by default).
-- @function transpose
-- @param x
-- @int[opt=-2] a
-- @int[opt=-1] b
define("transpose", { "x" }, { "a", "b" }, function(x, a, b)
  return apply("transpose", { x }, { a = axis_of("transpose", x, a, -2),
    b = axis_of("transpose", x, b, -1) })
end)

--- Each row of x repeated for all rows below it in the space of `like`.
-- @function spread
-- @param x
-- @param like a value
define("spread", { "x" }, { "like" }, function(x, like)
  if not is_value(x) or not is_value(like) then
    check.fail("spread: expected two recorded values, came %s and %s", check.came(x),
      check.came(like))
  end
  if x.space == like.space then return x end
  return apply("spread", { x }, { space = like.space })
end)

--- So many steps of a sequence side by side as one; zeros past its end (the pyramid of Chan et al.
-- 2016): [T,B,w] -> [T/2,B,2w].
-- @function fold_time
-- @param x a sequence of vectors
-- @int[opt=2] steps
define("fold_time", { "x" }, { "steps" }, function(x, steps)
  steps = check.integer("fold_time", "steps", steps == nil and 2 or steps, 2, 65536)
  if not is_value(x) or x.space < 1 then
    check.fail("fold_time: expected a recorded sequence such as [T,B,8], came %s", is_value(x)
      and x:shape() or check.came(x))
  end
  return apply("fold_time", { x }, { space = x.rec:folded(x.space, steps) })
end)

--- The sum over a feature axis; op.mean and op.max are called alike.
-- @function sum
-- @param x
-- @int[opt=-1] axis
-- @bool[opt] keep leaves the axis with length 1
for _, name in ipairs { "sum", "mean", "max" } do
  define(name, { "x" }, { "axis", "keep" }, function(x, axis, keep)
    keep = check.boolean(name, "keep", keep)
    return apply(name, { x }, { axis = axis_of(name, x, axis), keep = keep and 1 or 0 })
  end)
end

define("layer_norm", { "x", "gain", "bias" }, { "eps" }, function(x, gain, bias, eps)
  if gain == nil then check.fail("layer_norm: gain: expected a value or a tensor, came nil") end
  return apply("layer_norm", { x, gain, bias }, numbers("layer_norm", { eps = eps }))
end)

--- Dropout (Srivastava et al. 2014): acts in learning runs only.
-- @param x
-- @param rate a number in [0,1) or neap.scalar
function op.dropout(x, rate)
  if type(rate) == "number" and not (rate >= 0 and rate < 1) then
    check.fail("dropout: rate: expected a number in [0,1), came %s", check.came(rate))
  end
  return apply("dropout", { x, rate })
end

--- A feature axis of `size` with 1 at the id.
-- @function one_hot
-- @param ids
-- @int size
define("one_hot", { "ids" }, { "size" }, function(ids, size)
  return apply("one_hot", { ids }, { size = check.integer("one_hot", "size", size, 1) })
end)

--- One number for several ids together, of as many as there are to be: their hash. What stands in
-- the same order has the same number; others may share it (Weinberger et al. 2009).
-- @function hash
-- @param ids i32 [..,K] -> i32 [..]
-- @int size the numbers are 0 to size - 1
define("hash", { "ids" }, { "size" }, function(ids, size)
  return apply("hash", { ids }, { size = check.integer("hash", "size", size, 1, 2 ^ 31 - 1) })
end)

--- The sum of the x that have each id: [..,K] -> [..,size].
-- @function scatter
-- @param x [..,K]
-- @param ids i32 [..,K], 0 to size - 1
-- @int size
define("scatter", { "x", "ids" }, { "size" }, function(x, ids, size)
  return apply("scatter", { x, ids }, { size = check.integer("scatter", "size", size, 1) })
end)

--- An id drawn from softmax(x / temperature).
function op.sample(x, temperature) return apply("sample", { x, temperature or 1 }) end

-- The mean of a loss over all it has, weighted by mask or not; 0 if no weight is left. Dimensions
-- that the mask lacks are averaged first.
local function mean_all(loss, mask)
  local rank = mask and rank_of(mask) or 0
  while rank_of(loss) > rank do loss = op.mean(loss) end
  if rank == 0 then
    if not is_value(loss) then return loss end
    return op.reshape(op.mean_rows(op.reshape(loss, { 1 }), mask and op.reshape(mask, { 1 })), {})
  end
  local sum, weight = loss * mask, mask
  for _ = 1, rank do sum, weight = op.sum(sum), op.sum(weight) end
  if is_value(sum) then
    sum, weight = op.sum_rows(sum), op.sum_rows(weight)
  end
  return sum / op.where(op.equal(weight, 0), 1, weight)
end

--- The mean of -ln softmax(logits)[id] over all rows; rows whose id is -1 or whose mask is 0 do not
-- count.
-- @function cross_entropy
-- @param logits [..,V]
-- @param ids i32 [..]
-- @param[opt] mask [..]
-- @number[opt=0] smoothing (Szegedy et al. 2016); not with focal
-- @bool[opt] rows a loss for each row
-- @param[opt] weights how much a row of each class counts, [V]; the mean is divided by their sum. Each
--   row counts as its own class does with all that it loses, also what smoothing spreads (PyTorch
--   weighs that by class)
-- @number[opt=0] focal each row's loss is multiplied by (1 - p)^focal, p the probability of its id
--   (Lin et al. 2017)
-- @treturn value a number, or [..]
define("cross_entropy", { "logits", "ids" }, { "mask", "smoothing", "rows", "weights", "focal" },
  function(logits, ids, mask, smoothing, rows, weights, focal)
    if smoothing ~= nil then check.number("cross_entropy", "smoothing", smoothing, 0, 1) end
    local loss = apply("cross_entropy", { logits, ids }, { smoothing = smoothing })
    local valid = op.greater_equal(ids, 0)
    if focal ~= nil and check.number("cross_entropy", "focal", focal, 0, 100) > 0 then
      if smoothing and smoothing > 0 then
        check.fail("cross_entropy: focal: expected none beside smoothing, came %g", focal)
      end
      loss = loss * op.pow(op.maximum(1 - op.exp(-loss), 1e-7), focal)
    end
    if weights ~= nil then -- the id -1 weighs 0
      local known = op.where(valid, ids, op.cast(op.mul(valid, 0), "i32"))
      valid = valid * op.gather(weights, known)
    end
    if check.boolean("cross_entropy", "rows", rows) then
      return weights == nil and loss or loss * valid
    end
    return mean_all(loss, mask and valid * mask or valid)
  end)

--- The mean of (x - y)^2 over all elements of the rows whose mask is not 0.
-- @function mse
-- @param x [..,w]
-- @param y [..,w]
-- @param[opt] mask [..]
define("mse", { "x", "y" }, { "mask" }, function(x, y, mask)
  return mean_all(op.square(op.sub(x, y)), mask)
end)

--- The mean of |x - y|, as op.mse.
-- @function mae
-- @param x [..,w]
-- @param y [..,w]
-- @param[opt] mask [..]
define("mae", { "x", "y" }, { "mask" }, function(x, y, mask)
  return mean_all(op.abs(op.sub(x, y)), mask)
end)

--- The mean of d^2 / 2 where d = |x - y| is at most delta, of delta (d - delta / 2) beyond (Huber
-- 1964).
-- @function huber
-- @param x [..,w]
-- @param y [..,w]
-- @param[opt] mask [..]
-- @number[opt=1] delta above 0
define("huber", { "x", "y" }, { "mask", "delta" }, function(x, y, mask, delta)
  delta = delta == nil and 1 or delta
  if type(delta) ~= "number" or not (delta > 0 and delta < math.huge) then
    check.fail("huber: delta: expected a number above 0, came %s", check.came(delta))
  end
  local d = op.abs(op.sub(x, y))
  local near = op.minimum(d, delta)
  return mean_all(op.square(near) * 0.5 + (d - near) * delta, mask)
end)

--- Binary cross-entropy of logits against y in 0..1, the mean over all elements.
-- @function binary_cross_entropy
-- @param logits [..,w]
-- @param y [..,w]
-- @param[opt] mask [..]
define("binary_cross_entropy", { "logits", "y" }, { "mask" }, function(logits, y, mask)
  return mean_all(apply("bce_with_logits", { logits, y }), mask)
end)

-- The blank counts from 1 here; the last class if left out.
local function blank_of(who, x, blank)
  if blank == nil then return -1 end
  return check.integer(who, "blank", blank, 1, is_value(x) and x.width or nil) - 1
end

--- Connectionist temporal classification (Graves et al. 2006): -ln of the probability that the
-- scores read as the labels, summed over all alignments.
-- @function ctc
-- @param x scores [T,B,V], unnormalised; one class is the blank
-- @param y labels i32 [U,B], of any length, also 0
-- @int[opt] blank the class of the blank, from 1; the last one
-- @bool[opt] zero labels that need more steps than there are count 0, with no gradient; otherwise
--   they are an error that names the sequence
-- @return [B], a number for each sequence
define("ctc", { "x", "y" }, { "blank", "zero" }, function(x, y, blank, zero)
  return apply("ctc", { x, y }, { blank = blank_of("ctc", x, blank),
    zero = check.boolean("ctc", "zero", zero) and 1 or 0 })
end)

--- The labels that scores read as, by @{ctc}'s rule: repeats are dropped, then blanks.
-- @function ctc_decode
-- @param x scores [T,B,V]
-- @int[opt] blank as for ctc
-- @int[opt=0] beam how many prefixes a beam search keeps (Graves 2012; Hannun et al. 2014); 0: of
--   each step the likeliest class
-- @return i32 [T,B], the labels of each sequence and -1 after the last
define("ctc_decode", { "x" }, { "blank", "beam" }, function(x, blank, beam)
  beam = check.integer("ctc_decode", "beam", beam == nil and 0 or beam, 0, 1000)
  return apply("ctc_decode", { x }, { blank = blank_of("ctc_decode", x, blank), beam = beam })
end)

--- Attention by dot product: c = sum_s softmax_s(scale * q.k_s) v_s.
-- @function attend_dot
-- @param q [..,A] of a sequence or of the batch
-- @param k [S,..,A] of a sequence
-- @param v [S,..,M]
-- @number[opt=1] scale
-- @return c [..,M]; the weights [..,S], 0 past the end of a sequence
define("attend_dot", { "q", "k", "v" }, { "scale" }, function(q, k, v, scale)
  return apply("attend_dot", { q, k, v }, numbers("attend_dot", { scale = scale or 1 }))
end)

--- Attention to one step, whose number is given: c = v_id.
-- @function attend_at
-- @param ids i32 [..] of a sequence or of the batch, from 0
-- @param v [S,..,w] of a sequence
-- @return c [..,w], 0 where the sequence has no step of that number

-- Recorded layers on given weights: what neap.elman and neap.gru use.
local activations = { tanh = 0, relu = 1, sigmoid = 2, identity = 3 }
define("elman", { "x", "w", "u", "b", "c", "h0" }, { "activation" },
  function(x, w, u, b, c, h0, activation)
    local code = activations[activation == nil and "tanh" or activation]
    if not code then
      check.fail("elman: activation: expected \"tanh\", \"relu\", \"sigmoid\" or \"identity\", "
        .. "came %s", check.came(activation))
    end
    return apply("elman", { x, w, u, b or false, c or false, h0 or false }, { activation = code })
  end)
define("gru", { "x", "w", "u", "b", "c", "h0" }, { "reset_before" },
  function(x, w, u, b, c, h0, reset_before)
    reset_before = check.boolean("gru", "reset_before", reset_before)
    return apply("gru", { x, w, u, b or false, c or false, h0 or false },
      { reset_before = reset_before and 1 or 0 })
  end)

--- Keeps a value readable after a run: run:value(name).
function op.watch(name, x)
  check.type("watch", "name", name, "string")
  if is_value(x) then return x.rec:watch(name, x) end
  return x
end

--- Where the ops of chance begin when they run at once, on tensors: after the same seed they give
-- the same numbers. (In a program they draw from the seed of the run.)
-- @int n
function op.seed(n) chance = rng.new(check.integer("seed", "n", n)) end

--- x itself: an activation that does nothing.
function op.identity(x) return x end

-- ---- operators ----

local operators = {
  __add = op.add, __sub = op.sub, __mul = op.mul, __div = op.div, __pow = op.pow, __unm = op.neg,
}
for name, fn in pairs(operators) do
  local f = name == "__unm" and function(a) return fn(a) end or fn
  record.value_meta[name] = f
  tensor_meta[name] = f
end

return setmetatable(op, { written = written, __index = function(_, name)
  local names = {}
  for k in pairs(op) do names[#names + 1] = k end
  table.sort(names)
  local near = core.nearest(tostring(name), names)
  check.fail("there is no op.%s%s", tostring(name),
    near and "; did you mean op." .. near .. "?" or "")
end })
