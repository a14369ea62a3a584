--- The ops. On recorded values they append a node to the program; on tensors and numbers they run
-- at once. Axes count the feature dimensions from 1; negative axes count from the last.
-- Here are the ops with arguments of their own; all, with their formulas, are in docs/ops.md.
-- @module neap.op
local core = require "neap.core"
local check = require "neap.check"
local record = require "neap.record"

local op = {}
local is_value = record.is_value

local tensor_meta = getmetatable(core.zeros({ 1 }))
local function is_tensor(x) return type(x) == "userdata" and getmetatable(x) == tensor_meta end

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
  local run = core.run(program, { learn = false })
  for i = 1, out.n do run:keep(out[i], false) end
  for _, f in ipairs(feed) do run:input(f[1], f[2]) end
  run:forward()
  for i = 1, out.n do out[i] = run:read(out[i]) end
  return table.unpack(out, 1, out.n)
end

-- A number among recorded values or tensors; all numbers: the result is a number-like tensor.
local function apply(name, inputs, attrs)
  for i = 1, #inputs do
    if is_value(inputs[i]) then
      for k = 1, #inputs do
        if is_tensor(inputs[k]) then
          check.fail("%s: input %d is a tensor among recorded values: make it a parameter or an "
            .. "input of the program", name, k)
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
      tostring(axis), rank, check.came(x), rank)
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

function op.leaky_relu(x, alpha) return apply("leaky_relu", { x }, { alpha = alpha }) end
function op.elu(x, alpha) return apply("elu", { x }, { alpha = alpha }) end
function op.hard_sigmoid(x, alpha, beta)
  return apply("hard_sigmoid", { x }, { alpha = alpha, beta = beta })
end
function op.clamp(x, low, high) return apply("clamp", { x }, { low = low, high = high }) end

--- x as another dtype.
-- @param x
-- @string dtype "f32" or "i32" (rounded towards 0)
function op.cast(x, dtype)
  if dtype ~= "f32" and dtype ~= "i32" then
    check.fail("cast: expected \"f32\" or \"i32\", came %s", check.came(dtype))
  end
  return apply("cast", { x }, { dtype = dtype == "i32" and 1 or 0 })
end

--- x w^T + b, or x w^T.
function op.linear(x, w, b) return apply("linear", b and { x, w, b } or { x, w }) end

--- x [..,K] times w [K,N]; with two values that have rows: a product for each row.
function op.matmul(a, b)
  if is_value(b) and b.space >= 0 then return op.bmm(a, b) end
  return apply("matmul", { a, b })
end

--- A product for each row: a [..,M,K], b [..,K,N].
-- @param a
-- @param b
-- @tab[opt] options `{ transpose_a =, transpose_b = }`
function op.bmm(a, b, options)
  options = check.options("bmm", options, { "transpose_a", "transpose_b" })
  return apply("bmm", { a, b }, { transpose_a = options.transpose_a and 1 or 0,
    transpose_b = options.transpose_b and 1 or 0 })
end

--- The inputs side by side.
-- @tab list of values
-- @int[opt=-1] axis
function op.concat(list, axis)
  if type(list) ~= "table" or is_value(list) or #list == 0 then
    check.fail("concat: expected a list of values, came %s", check.came(list))
  end
  return apply("concat", list, { axis = axis_of("concat", list[1], axis) })
end

--- x from element `from` to element `to` along an axis, both included, from 1.
function op.slice(x, from, to, axis)
  check.integer("slice", "from", from, 1)
  check.integer("slice", "to", to, from)
  return apply("slice", { x }, { axis = axis_of("slice", x, axis), from = from - 1, to = to })
end

--- x cut into parts along an axis.
-- @param x
-- @param parts how many equal parts, or a list of sizes
-- @int[opt=-1] axis
-- @return the parts
function op.split(x, parts, axis)
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
    out[i] = apply("slice", { x }, { axis = at, from = from, to = from + size })
    from = from + size
  end
  if from ~= width then check.fail("split: the sizes sum to %d, the axis has %d", from, width) end
  return table.unpack(out)
end

--- The same elements with other feature dimensions.
-- @param x
-- @tab dims at most three
function op.reshape(x, dims)
  check.type("reshape", "dims", dims, "table")
  if #dims > 3 then check.fail("reshape: at most 3 feature dimensions, came %d", #dims) end
  return apply("reshape", { x }, { rank = #dims, d0 = dims[1] or 1, d1 = dims[2] or 1,
    d2 = dims[3] or 1 })
end

--- Two feature axes exchanged (the last two by default).
function op.transpose(x, a, b)
  return apply("transpose", { x }, { a = axis_of("transpose", x, a, -2),
    b = axis_of("transpose", x, b, -1) })
end

--- Each row of x repeated for all rows below it in the space of `like`.
function op.spread(x, like)
  if not is_value(x) or not is_value(like) then
    check.fail("spread: expected two recorded values")
  end
  if x.space == like.space then return x end
  return apply("spread", { x }, { space = like.space })
end

--- The sum over a feature axis; op.mean and op.max are called alike.
-- @function sum
-- @param x
-- @int[opt=-1] axis
-- @bool[opt] keep leaves the axis with length 1
for _, name in ipairs { "sum", "mean", "max" } do
  op[name] = function(x, axis, keep)
    return apply(name, { x }, { axis = axis_of(name, x, axis), keep = keep and 1 or 0 })
  end
end

function op.layer_norm(x, gain, bias, eps)
  return apply("layer_norm", { x, gain, bias }, { eps = eps })
end

--- Dropout (Srivastava et al. 2014): acts in learning runs only.
-- @param x
-- @param rate a number in [0,1) or neap.scalar
function op.dropout(x, rate) return apply("dropout", { x, rate }) end

--- A feature axis of `size` with 1 at the id.
function op.one_hot(ids, size) return apply("one_hot", { ids }, { size = size }) end

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
-- @param logits [..,V]
-- @param ids i32 [..]
-- @tab[opt] options `{ mask = [..], smoothing = 0, rows = false }`; rows: a loss for each row
-- @treturn value a number, or [..]
function op.cross_entropy(logits, ids, options)
  options = check.options("cross_entropy", options, { "mask", "smoothing", "rows" })
  local loss = apply("cross_entropy", { logits, ids }, { smoothing = options.smoothing })
  if options.rows then return loss end
  local valid = op.greater_equal(ids, 0)
  return mean_all(loss, options.mask and valid * options.mask or valid)
end

--- The mean of (x - y)^2 over all elements of the rows whose mask is not 0.
-- @param x [..,w]
-- @param y [..,w]
-- @tab[opt] options `{ mask = [..] }`
function op.mse(x, y, options)
  options = check.options("mse", options, { "mask" })
  return mean_all(op.square(op.sub(x, y)), options.mask)
end

--- Binary cross-entropy of logits against y in 0..1, the mean over all elements.
-- @param logits [..,w]
-- @param y [..,w]
-- @tab[opt] options `{ mask = [..] }`
function op.binary_cross_entropy(logits, y, options)
  options = check.options("binary_cross_entropy", options, { "mask" })
  return mean_all(apply("bce_with_logits", { logits, y }), options.mask)
end

--- Attention by dot product: c = sum_s softmax_s(scale * q.k_s) v_s.
-- @param q [..,A] of a sequence or of the batch
-- @param k [S,..,A] of a sequence
-- @param v [S,..,M]
-- @number[opt=1] scale
-- @return c [..,M]; the weights [..,S], 0 past the end of a sequence
function op.attend_dot(q, k, v, scale)
  return apply("attend_dot", { q, k, v }, { scale = scale or 1 })
end

--- A recorded elman, lstm or gru layer on given weights: what neap.elman, neap.lstm, neap.gru use.
local activations = { tanh = 0, relu = 1, sigmoid = 2, identity = 3 }
function op.elman(x, w, u, b, c, h0, activation)
  return apply("elman", { x, w, u, b or false, c or false, h0 or false },
    { activation = activations[activation or "tanh"] })
end
function op.gru(x, w, u, b, c, h0, reset_before)
  return apply("gru", { x, w, u, b or false, c or false, h0 or false },
    { reset_before = reset_before and 1 or 0 })
end

--- Keeps a value readable after a run: run:value(name).
function op.watch(name, x)
  check.type("watch", "name", name, "string")
  if is_value(x) then return x.rec:watch(name, x) end
  return x
end

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

return setmetatable(op, { __index = function(_, name)
  local names = {}
  for k in pairs(op) do names[#names + 1] = k end
  table.sort(names)
  local near = core.nearest(tostring(name), names)
  check.fail("there is no op.%s%s", tostring(name),
    near and "; did you mean op." .. near .. "?" or "")
end })
