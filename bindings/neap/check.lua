--- Errors that point at the script: what the other modules check their arguments with.
-- @module neap.check
local core = require "neap.core"

-- Lines of the files beside this one are never named; the script's line that led there is.
core.library(debug.getinfo(1, "S").source:match("^.*/") or "@check.lua")

local check = {}

-- "f32 [2,3]"
local function tensor_type(t) return ("%s [%s]"):format(t:dtype(), table.concat(t:shape(), ",")) end

--- A value in one line, for messages.
-- @param value
-- @treturn string
function check.came(value)
  local kind, meta = type(value), getmetatable(value)
  if kind == "string" then
    if #value > 40 then value = value:sub(1, (utf8.offset(value, 0, 38) or 38) - 1) .. ".." end
    return (("%q"):format(value):gsub("\\\n", "\\n"))
  elseif kind == "userdata" and meta and meta.__name == "neap.tensor" then
    local open, text = pcall(tensor_type, value)
    return open and text or "a closed tensor"
  elseif kind == "table" or kind == "userdata" then
    local name = type(meta) == "table" and meta.__name
    if not (meta and meta.__tostring) then return name or "a " .. kind end
    local ok, text = pcall(tostring, value)
    text = ok and text or name or "a " .. kind
    return text:match "[^\n]*"
  elseif kind == "function" then
    return "a function"
  end
  return tostring(value)
end

--- Raises at the script's line.
-- @string format as for `string.format`: *who: what was expected, what came, where*
-- @param ... its values
function check.fail(format, ...)
  local where = core.where()
  error((where and where .. ": " or "") .. format:format(...), 0)
end

--- Options by name: an unknown one raises and names the nearest known one.
-- @string who the function, for the message
-- @tab[opt] options
-- @tab names the known ones
-- @treturn tab options, or a new empty table
function check.options(who, options, names)
  if options == nil then return {} end
  if type(options) ~= "table" then
    check.fail("%s: expected a table of options, came %s", who,
      check.came(options))
  end
  local known = {}
  for _, name in ipairs(names) do known[name] = true end
  for name in pairs(options) do
    if type(name) ~= "string" then
      check.fail("%s: expected named options, came [%s]", who, tostring(name))
    elseif not known[name] then
      local near = core.nearest(name, names)
      check.fail("%s: unknown option \"%s\"%s", who, name, near
        and ("; did you mean \"%s\"?"):format(near) or "; there are: " .. table.concat(names, ", "))
    end
  end
  return options
end

--- An argument or option of a certain type.
-- @string who the function
-- @string name the argument
-- @param value
-- @string expected what `type` shall say
-- @return value
function check.type(who, name, value, expected)
  if type(value) ~= expected then
    check.fail("%s: %s: expected a %s, came %s", who, name, expected,
      check.came(value))
  end
  return value
end

--- An integer from low to high.
-- @string who the function
-- @string name the argument
-- @param value
-- @int[opt] low
-- @int[opt] high
-- @treturn int
function check.integer(who, name, value, low, high)
  local whole = type(value) == "number" and math.tointeger(value)
  if not whole or (low and whole < low) or (high and whole > high) then
    check.fail("%s: %s: expected an integer%s%s, came %s", who, name,
      low and (" from %d"):format(low) or "", high and (" to %d"):format(high) or "",
      check.came(value))
  end
  return whole
end

--- A source of chance, if there is one.
function check.rng(who, rng)
  if rng ~= nil and (type(rng) ~= "table" or type(rng.shuffle) ~= "function") then
    check.fail("%s: rng: expected a source of chance such as neap.rng(17), came %s", who,
      check.came(rng))
  end
  return rng
end

return check
