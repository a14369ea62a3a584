-- What the specs of programs and runs share.
local neap = require "neap"
local op = neap.op

local help = {}

--- The numbers of a tensor (or of a flat table) as a flat table.
function help.flat(t)
  if type(t) == "table" then return t end
  local n, flat = t:size(), {}
  local bytes, format = t:tobytes(), t:dtype() == "f32" and "<f" or "<i4"
  for i = 1, n do flat[i] = format:unpack(bytes, 4 * i - 3) end
  return flat
end

--- The largest error over the largest expected value, or over `floor` if that is larger; 0 for
-- numbers that are equal, even if all 0.
function help.error(came, expected, floor)
  came, expected = help.flat(came), help.flat(expected)
  assert(#came == #expected, ("expected %d numbers, came %d"):format(#expected, #came))
  local worst, largest = 0, floor or 0
  for i = 1, #expected do
    local e = math.abs(came[i] - expected[i])
    if e ~= e then return e end
    worst, largest = math.max(worst, e), math.max(largest, math.abs(expected[i]))
  end
  return worst == 0 and 0 or worst / largest
end

--- Fails unless the error is at most `bound`.
function help.near(came, expected, bound, what, floor)
  local e = help.error(came, expected, floor)
  if not (e <= bound) then
    error(("%s: error %.2e, at most %.0e was expected"):format(what, e, bound), 2)
  end
end

--- Fails unless the gradients of parameters are those of loss(), which runs `run`, by central
-- differences in double. The run has gone backward. `bound`: of the difference; `some`: only so many
-- elements of each, by chance.
function help.gradients(run, names, loss, bound, some)
  local grads, rng, h = {}, neap.rng(2), 1e-5
  for k, name in ipairs(names) do grads[k] = run.core:param_grad(name) end
  for k, name in ipairs(names) do
    for n = 1, some or #grads[k] do
      local i = some and rng:int(#grads[k]) or n
      run.core:param_shift(name, i, h)
      local up = loss()
      run.core:param_shift(name, i, -2 * h)
      local numeric = (up - loss()) / (2 * h)
      run.core:param_shift(name, i, h)
      if not (math.abs(numeric - grads[k][i]) <= bound) then
        error(("%s, element %d: gradient %.9g, by differences %.9g"):format(name, i, grads[k][i],
          numeric), 2)
      end
    end
  end
end

--- A tensor of normally distributed numbers.
function help.normal(rng, dims, deviation)
  local n, flat = 1, {}
  for _, d in ipairs(dims) do n = n * d end
  for i = 1, n do flat[i] = rng:normal() * (deviation or 1) end
  return neap.tensor(flat):reshape(dims)
end

--- One number from any recorded values: each weighted unevenly, so that no two elements can be
-- exchanged unseen. Rows count alike, wherever they stand in the batch.
function help.loss(...)
  local total
  for i, v in ipairs { ... } do
    local z = op.sin(v * (1 + i / 3) + 0.3)
    for _ = 1, #z.dims do
      local w = z.width
      if w > 1 then z = z * help.ramp(v.rec, w) end
      z = op.sum(z)
    end
    z = op.reshape(op.sum_rows(op.reshape(z, { 1 })), {})
    total = total and total + z or z
  end
  return total
end

--- A constant vector of different numbers, as a sum of one-hot vectors.
function help.ramp(rec, width)
  local name = "ramp" .. width
  if not rec.params:has(name) then
    rec.params:add(name, { width })
    local t = rec.params:get(name)
    for i = 1, width do t[i] = 0.5 + math.sin(2.4 * i) end
    rec.params:set(name, t)
    rec.params:freeze(name)
  end
  return rec:at("", nil, rec.param, rec, name, { width })
end

--- All parameters at random: layers may start from zeros, which hide errors.
function help.scatter(params, rng, deviation)
  for _, name in ipairs(params:names()) do
    if not params:frozen(name) then
      params:set(name, help.normal(rng, params:shape(name), deviation or 0.5))
    end
  end
end

return help
