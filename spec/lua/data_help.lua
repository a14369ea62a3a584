-- What the specs of tensors and data share.
local help = {}

--- f() raises a message at one of f's own lines that holds the text.
function help.raises(text, f)
  local ok, message = pcall(f)
  assert(not ok, "no error was raised")
  assert(type(message) == "string", tostring(message))
  local info = debug.getinfo(f, "S")
  local file, line = message:match "^(.-):(%d+): "
  line = tonumber(line)
  assert(file == info.short_src and line >= info.linedefined and line <= info.lastlinedefined,
    ("not at a line %d..%d of %s: %s"):format(info.linedefined, info.lastlinedefined,
      info.short_src, message))
  assert(message:find(text, 1, true), ("expected: %s\ncame: %s"):format(text, message))
end

--- The call failed as the world does: nil, a message that holds the text, the code.
function help.fails(code, text, ...)
  local value, message, came = ...
  assert(value == nil, "it succeeded")
  assert(came == code, ("expected %s, came %s: %s"):format(code, tostring(came), tostring(message)))
  assert(message:find(text, 1, true), ("expected: %s\ncame: %s"):format(text, message))
end

--- Runs f with a full collection at each line.
function help.collecting(f)
  debug.sethook(function() collectgarbage() end, "l")
  local ok, message = pcall(f)
  debug.sethook()
  if not ok then error(message, 0) end
end

--- A folder of temporary files: write(name, text) gives the path.
function help.folder()
  local pipe = assert(io.popen "mktemp -d")
  local path = pipe:read "l"
  pipe:close()
  local folder = { path = path }
  function folder.write(name, text)
    local file <close> = assert(io.open(path .. "/" .. name, "wb"))
    assert(file:write(text))
    return path .. "/" .. name
  end
  function folder.remove() os.execute("rm -rf '" .. path .. "'") end
  return folder
end

--- A file of the data sets beside the checkout; nil if they are not there.
function help.shared(name)
  local path = "../shared/data/" .. name
  local file = io.open(path, "rb")
  if file then
    file:close()
    return path
  end
end

return help
