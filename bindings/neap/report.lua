--- Errors as people see them: a traceback through their own script, not through the library.

local library = debug.getinfo(1, "S").source:match "^@(.*/)"

-- Does a line begin with a file of the library? Lua shortens long paths to "...end/of/it.lua".
local function own(line)
  local folder = line:match "^\t?([^:]*/)[^/:]*%.lua:%d+:"
  return folder and (folder == library
    or folder:sub(1, 3) == "..." and folder:sub(4) == library:sub(3 - #folder))
end

--- Takes the library's frames out of a message with a traceback; an error of the library itself
-- keeps them. Nothing is left of the traceback if no other frame is in it.
-- @string text
-- @treturn string
return function(text)
  text = text:gsub("\n\t%[C%]: in function 'neap%.line%.protect'.*", "")
  local message, frames = text:match "^(.-)\nstack traceback:\n(.*)$"
  if not message or not library then return text end
  if own(message) and not message:find "interrupted!$" then return text end
  local kept, pending = {}, {}
  for line in frames:gmatch "[^\n]+" do
    if own(line) then
      pending = {} -- what stands between the library's frames is its own
    elseif #kept == 0 and line:find("^\t%(%.%.%.tail") then
      pending = {} -- a method's own, behind the check of its first argument
    elseif line:find("^\t%[C%]") or line:find("^\t%(%.%.%.tail") then
      pending[#pending + 1] = line
    else
      table.move(pending, 1, #pending, #kept + 1, kept)
      pending = {}
      kept[#kept + 1] = line
    end
  end
  return #kept > 0 and message .. "\nstack traceback:\n" .. table.concat(kept, "\n") or message
end
