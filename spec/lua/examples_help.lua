-- What the specs of the example scripts share.
local help = {}

--- What a script wrote to standard output, to standard error, and its exit status.
function help.run(folder, script, args)
  local errors = folder.path .. "/errors"
  local pipe = assert(io.popen(("scripts/neap run scripts/examples/%s.lua %s 2>%s"):format(script,
    args, errors)))
  local text = pipe:read "a"
  local _, _, status = pipe:close()
  local file <close> = assert(io.open(errors))
  return text, file:read "a", status
end

--- The name of the task and the values in the last line of what was written.
function help.result_of(text)
  local line = text:match "([^\n]*)\n$"
  local name, pairs_text = line:match "^result task=(%w+) (.*)$"
  assert(name, "the last line is no result: " .. line)
  local values = {}
  for pair in pairs_text:gmatch "%S+" do
    local key, value = pair:match "^([%w_]+)=(.+)$"
    values[key] = assert(math.tointeger(value) or tonumber(value), pair)
  end
  return name, values
end

return help
