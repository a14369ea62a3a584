--- Cells of the script's own: a step in Lua, recorded once, looped in C.
-- @module neap.cell
local core = require "neap.core"
local check = require "neap.check"
local record = require "neap.record"
local layer = require "neap.layer"
local op = require "neap.op"

-- A parameter or state as it is declared: { d1, d2, .. , init =, dtype = } or a number.
local function dims_of(who, name, spec, names)
  if type(spec) == "number" then spec = { spec } end
  if type(spec) ~= "table" or getmetatable(spec) then
    check.fail("%s %s: expected a size or a table of sizes, came %s", who, name, check.came(spec))
  end
  local dims, rest, last = {}, {}, 0
  for k, v in pairs(spec) do
    if math.type(k) == "integer" then last = math.max(last, k) else rest[k] = v end
  end
  check.options(who .. " " .. name, rest, names)
  for i = 1, last do
    dims[i] = check.integer(who .. " " .. name, "dimension " .. i, spec[i], 1)
  end
  return dims, rest
end

-- Keys in a fixed order, whatever order pairs gives.
local function sorted(who, t)
  local keys = {}
  for k in pairs(t) do keys[#keys + 1] = check.type(who, "name", k, "string") end
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
--   width of x, the options that the layer was made with, and `defaults` for those left out. To
--   read anything else of it raises, and so does an option that the cell never reads
-- - `defaults`: options that may be left out, and what they are then: `{ keep = 1, bias = true }`
-- - `state(c)`: table of state name -> width, or { width, dtype = "i32" }
-- - `step(p, x, s, ctx, c)`: runs once, to be recorded; gives this step's output and a table of all
--   next states
-- - `context`: names of values that are the same at every step
-- - `prepare(p, ctx)`: what can be computed from the context once; a table that is added to ctx
-- @treturn function constructor of layers
-- @function cell
return function(spec)
  if spec == nil then
    check.fail("cell: expected a table, cell{ state = .., step = .. }, came nil")
  end
  check.options("cell", spec, { "name", "params", "defaults", "state", "step", "context",
    "prepare" })
  local name = check.type("cell", "name", spec.name == nil and "cell" or spec.name, "string")
  if name == "" then check.fail("cell: name: expected a string that is not empty") end
  for _, key in ipairs { "step", "state", "params", "prepare" } do
    if spec[key] ~= nil or key == "step" or key == "state" then
      check.type("cell", key, spec[key], "function")
    end
  end
  local context = spec.context == nil and {} or check.table("cell", "context", spec.context)
  for _, key in ipairs(context) do check.type("cell", "context", key, "string") end
  local defaults = spec.defaults == nil and {} or check.table("cell", "defaults", spec.defaults)
  for key in pairs(defaults) do check.type("cell", "defaults", key, "string") end

  -- The parameters as values, by the names the script gave them.
  local function params_of(rec, c)
    local declared, p = {}, {}
    if spec.params then spec.params(declared, c) end
    for _, key in ipairs(sorted("cell " .. name .. ": parameter", declared)) do
      local dims, full = dims_of(("cell %s: parameter"):format(name), key, declared[key],
        { "init" })
      p[key] = rec:param(key, dims, full.init)
    end
    return setmetatable(p, { __index = function(_, key)
      local near = core.nearest(tostring(key), sorted("cell", declared))
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

  local function make(options)
    if options == nil then options = {} end
    check.table(name, "options", options)
    local fields = {}
    for key, v in pairs(defaults) do fields[key] = v end
    for key, v in pairs(options) do
      if type(key) ~= "string" then
        check.fail("%s: expected named options, came [%s]", name, tostring(key))
      elseif key == "input" then
        check.fail("%s: input: the width of x is known when the layer is called; it is no option",
          name)
      end
      fields[key] = v
    end
    if fields.name ~= nil and check.type(name, "name", fields.name, "string") == "" then
      check.fail("%s: name: expected a string that is not empty", name)
    end
    local made = core.where()

    -- What the functions of the cell see of the options. Reading what is not there would give a nil
    -- that shortens { c.input, c.size }, and what nobody reads is a misspelt option.
    local read = { input = true, name = true }
    for key in pairs(defaults) do read[key] = true end
    local function context_of(input)
      local function of(_, key)
        if key == "input" then return input end
        local v = fields[key]
        if v == nil then
          local names = { "input" }
          for k in pairs(fields) do names[#names + 1] = k end
          table.sort(names)
          check.fail("cell %q: c has no field %q; there are %s (%s made at %s)", name,
            tostring(key), table.concat(names, ", "), name, made or "?")
        end
        read[key] = true
        return v
      end
      return setmetatable({}, { __index = of, __newindex = function(_, key)
        check.fail("cell %q: c.%s: c cannot be written to", name, tostring(key))
      end })
    end
    local function check_read()
      local names = {}
      for key in pairs(read) do
        if key ~= "input" then names[#names + 1] = key end
      end
      table.sort(names)
      for key in pairs(fields) do
        if not read[key] then
          check.options(("%s made at %s"):format(name, made or "?"), { [key] = true }, names)
        end
      end
    end
    local function states_of(c)
      local given, states = spec.state(c), {}
      if type(given) ~= "table" or getmetatable(given) then
        check.fail("cell %s: state must give a table, came %s", name, check.came(given))
      end
      local order = sorted(("cell %s: state"):format(name), given)
      for _, key in ipairs(order) do
        local dims, rest = dims_of(("cell %s: state"):format(name), key, given[key], { "dtype" })
        if rest.dtype ~= nil and rest.dtype ~= "f32" and rest.dtype ~= "i32" then
          check.fail("cell %s: state %s: dtype: expected \"f32\" or \"i32\", came %s", name, key,
            check.came(rest.dtype))
        end
        states[key] = { dims = dims, dtype = rest.dtype }
      end
      return states, order
    end
    -- What is the same at every step.
    local function still(p, given)
      local ctx = {}
      if given ~= nil then check.table(name, "its context", given) end
      for _, key in ipairs(context) do
        if not (given and record.is_value(given[key])) then
          check.fail("%s: it needs the context %s, came %s", name, key,
            check.came(given and given[key]))
        end
        ctx[key] = given[key]
      end
      if spec.prepare then
        local more = spec.prepare(p, ctx) or {}
        check.table("cell " .. name, "what prepare gives", more)
        for k, v in pairs(more) do ctx[k] = v end
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
      check_read()
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
        local y, next_states = step_once(p, x, s, still(p, given), c)
        states_of(c)
        check_read()
        return y, next_states
      end,
    })
    l.name = fields.name
    return l
  end
  return layer.constructor(make, name, "{ ... }")
end
