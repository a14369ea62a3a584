--- Loads what a task has saved.
-- @module neap.load
local core = require "neap.core"
local check = require "neap.check"
local cjson = require "cjson"
local program = require "neap.program"

local kinds = { seq2class = true, synced_seq2seq = true, async_seq2seq = true, language_model = true,
  forecaster = true }

--- Loads a file.
-- @function load
-- @string path
-- @return the task, ready to predict and to learn on; for a file that no task wrote a table
--   `{ params, programs, texts }`; or nil, message, code
return function(path)
  check.type("load", "path", path, "string")
  local m, message, code = core.load_model(path)
  if not m then return nil, message, code end
  local parts = { params = m:params(), programs = {}, texts = {} }
  for _, name in ipairs(m:programs()) do parts.programs[name] = program.wrap(m:program(name)) end
  for _, key in ipairs(m:texts()) do parts.texts[key] = m:text(key) end
  if not parts.texts.task then return parts end
  local ok, config = pcall(cjson.decode, parts.texts.task)
  if not ok or type(config) ~= "table" or not kinds[config.kind] then
    return nil, ("'%s': the task in it is damaged or of a later version"):format(path), "EFORMAT"
  end
  local good, task = pcall(require("neap." .. config.kind).restore, config, parts)
  if not good then
    return nil, ("'%s': the task in it is damaged: %s"):format(path, tostring(task)), "EFORMAT"
  end
  return task
end
