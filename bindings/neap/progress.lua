--- A line that says how far a long piece of work is, on standard error: rewritten in place on a
-- terminal, else plain lines, one in ten seconds. Work of less than two seconds shows nothing.
-- @module neap.progress
local check = require "neap.check"
local core = require "neap.core"

local progress = {}
local methods = {}
local meta = { __index = methods, __name = "neap.progress" }

local PATIENCE, REDRAW, PLAIN = 2, 0.1, 10 -- seconds
local BAR = 20

--- Begins.
-- @tab options `total`: how much work there is, in any unit (none: no bar and no time left);
--   `label`: what stands first; `out` (standard error), `terminal` and `clock` (seconds) to replace
--   what is found
-- @treturn progress
function progress.new(options)
  options = check.options("progress", options, { "total", "label", "out", "terminal", "clock" })
  local total = options.total
  if total ~= nil and (math.type(total) == nil or total < 0) then
    check.fail("progress: total: expected 0 or more, came %s", check.came(total))
  end
  local terminal = options.terminal
  if terminal == nil then terminal = options.out == nil and core.terminal() end
  local clock = options.clock or core.clock
  local now = clock()
  return setmetatable({ total = total, label = options.label or "", out = options.out or io.stderr,
    terminal = terminal, clock = clock, began = now, drawn = now, shown = false }, meta)
end

local function time(seconds)
  local s = math.floor(math.max(seconds, 0) + 0.5)
  if s >= 3600 then return ("%d:%02d:%02d"):format(s // 3600, s // 60 % 60, s % 60) end
  return ("%d:%02d"):format(s // 60, s % 60)
end

-- Those of the training loop first, the others by name.
local function values_text(values)
  local first, names = { loss = 1, score = 2, rate = 3 }, {}
  for name in pairs(values) do names[#names + 1] = name end
  table.sort(names, function(a, b)
    local x, y = first[a] or 4, first[b] or 4
    if x ~= y then return x < y end
    return a < b
  end)
  local text = {}
  for i, name in ipairs(names) do
    local value = values[name]
    text[i] = name .. " " .. (math.type(value) == "float" and ("%.4g"):format(value)
      or tostring(value))
  end
  return table.concat(text, "  ")
end

local function line(self, done, values, now)
  local parts, spent = {}, now - self.began
  if self.label ~= "" then parts[1] = self.label end
  if self.total and self.total > 0 then
    local share = math.min(math.max(done / self.total, 0), 1)
    local full = math.floor(share * BAR)
    if self.terminal then
      parts[#parts + 1] = "[" .. ("="):rep(full) .. (" "):rep(BAR - full) .. "]"
    end
    parts[#parts + 1] = ("%3d %%"):format(math.floor(share * 100))
    if next(values) then parts[#parts + 1] = values_text(values) end
    if share > 0 then parts[#parts + 1] = time(spent / share - spent) .. " left" end
  else
    parts[#parts + 1] = tostring(done)
    if next(values) then parts[#parts + 1] = values_text(values) end
    parts[#parts + 1] = time(spent)
  end
  return table.concat(parts, "  ")
end

--- Tells how far the work is; shows it if it is time.
-- @number done in the unit of total
-- @tab[opt] values what else to show, such as `{ loss = 0.3, rate = 1e-3 }`
function methods:update(done, values)
  local now = self.clock()
  if now - self.began < PATIENCE or
    now - self.drawn < (self.terminal and (self.shown and REDRAW or 0) or PLAIN) then
    return
  end
  self.drawn = now
  self.shown = true
  local text = line(self, done, values or {}, now)
  self.out:write(self.terminal and "\r\27[K" .. text or text .. "\n")
  self.out:flush()
end

--- Ends: takes the bar away and leaves one line.
-- @string[opt] text that line, always shown; without it the label and the time, shown if the work
--   took two seconds
function methods:finish(text)
  local spent = self.clock() - self.began
  if self.terminal and self.shown then self.out:write("\r\27[K") end
  if not text and spent >= PATIENCE then
    text = (self.label ~= "" and self.label .. "  " or "") .. time(spent)
  end
  if text then self.out:write(text, "\n") end
  self.out:flush()
  self.shown = false
end

return setmetatable(progress, { __call = function(_, options) return progress.new(options) end })
