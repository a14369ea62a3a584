--- Cells of the script's own: a step in Lua, recorded once, looped in C.
-- @module neap.cell
local check = require "neap.check"
local record = require "neap.record"
local layer = require "neap.layer"
local op = require "neap.op"

-- A parameter or state as it is declared: { d1, d2, .. , init =, dtype = } or a number.
local function dims_of(who, name, spec)
  if type(spec) == "number" then spec = { spec } end
  if type(spec) ~= "table" then
    check.fail("%s: %s: expected a size or a table of sizes, came %s", who, name, check.came(spec))
  end
  local dims = {}
  for i, d in ipairs(spec) do
    dims[i] = check.integer(who, name .. " dimension " .. i, d, 1)
  end
  return dims, spec
end

-- Keys in a fixed order, whatever order pairs gives.
local function sorted(t)
  local keys = {}
  for k in pairs(t) do keys[#keys + 1] = k end
  table.sort(keys)
  return keys
end

--- Defines a cell. Gives a constructor of layers: `local jordan = neap.cell{..}; jordan{ size = 32 }`.
--
-- A layer made so is called with x [T,B,I], an optional table of first states, and, if the cell has
-- context, a table with its values; it gives the outputs of all steps and the last states.
-- @tab spec
--
-- - `name`: in paths and messages
-- - `params(p, c)`: declares parameters: `p.w = { c.input, c.size, init = .. }`; c has `input`, the
--   width of x, and the options that the layer was made with
-- - `state(c)`: table of state name -> width, or { width, dtype = "i32" }
-- - `step(p, x, s, ctx, c)`: runs once, to be recorded; gives this step's output and a table of all
--   next states
-- - `context`: names of values that are the same at every step
-- - `prepare(p, ctx)`: what can be computed from the context once; a table that is added to ctx
-- @treturn function constructor of layers
-- @function cell
return function(spec)
  check.options("cell", spec, { "name", "params", "state", "step", "context", "prepare" })
  local name = check.type("cell", "name", spec.name or "cell", "string")
  check.type("cell", "step", spec.step, "function")
  check.type("cell", "state", spec.state, "function")

  -- The parameters as values, by the names the script gave them.
  local function params_of(rec, c)
    local declared, p = {}, {}
    if spec.params then spec.params(declared, c) end
    for _, key in ipairs(sorted(declared)) do
      local dims, full = dims_of(name .. ": parameter", key, declared[key])
      p[key] = rec:param(key, dims, full.init)
    end
    return setmetatable(p, { __index = function(_, key)
      local near = require "neap.core".nearest(tostring(key), sorted(declared))
      check.fail("cell %s has no parameter %s%s", name, tostring(key),
        near and "; did you mean " .. near .. "?" or "")
    end })
  end

  local function step_once(p, x, s, ctx, c)
    local y, next_states = spec.step(p, x, s, ctx, c)
    if not record.is_value(y) then
      check.fail("cell %s: its step must return a recorded value and the next states, came %s",
        name, check.came(y))
    end
    return y, next_states
  end

  return function(options)
    options = options or {}
    check.type(name, "options", options, "table")
    local function context_of(input)
      local c = { input = input }
      for k, v in pairs(options) do c[k] = v end
      return c
    end
    local function states_of(c)
      local states, order = spec.state(c), nil
      if type(states) ~= "table" then
        check.fail("cell %s: state must give a table, came %s", name, check.came(states))
      end
      order = sorted(states)
      for _, key in ipairs(order) do
        local dims, full = dims_of(name .. ": state", key, states[key])
        states[key] = { dims = dims, dtype = full.dtype }
      end
      return states, order
    end
    -- What is the same at every step.
    local function still(p, given)
      local ctx = {}
      for _, key in ipairs(spec.context or {}) do
        if not (given and record.is_value(given[key])) then
          check.fail("%s: it needs the context %s, came %s", name, key,
            check.came(given and given[key]))
        end
        ctx[key] = given[key]
      end
      if spec.prepare then
        for k, v in pairs(spec.prepare(p, ctx) or {}) do ctx[k] = v end
      end
      return ctx
    end

    local l = layer.new(name, options, function(_, rec, x, init, given)
      if not record.is_value(x) or x.space < 1 then
        check.fail("%s: expected a sequence such as [T,B,64], came %s", name, check.came(x))
      end
      local c = context_of(x.width)
      local states, order = states_of(c)
      init = layer.initial(name, init, order)
      for key, v in pairs(init) do states[key].init = v end
      local p = params_of(rec, c)
      local ctx = still(p, given)
      local y, final = rec:scan(x.space, states, order, function(s)
        return step_once(p, x, s, ctx, c)
      end)
      local last = {}
      for _, key in ipairs(order) do
        last[key] = init[key] and op.last(final[key], init[key]) or op.last(final[key])
      end
      return y, last
    end, {
      describe = function() return "recorded" end,
      states = function(_, input) -- of the cell on an x of that width
        local states, order = states_of(context_of(input))
        for i, key in ipairs(order) do
          order[i] = { name = key, dims = states[key].dims, dtype = states[key].dtype }
        end
        return order
      end,
      step = function(_, rec, x, s, given)
        local c = context_of(x.width)
        local p = params_of(rec, c)
        return step_once(p, x, s, still(p, given), c)
      end,
    })
    l.name = options.name
    return l
  end
end
