-- What the specs share that run a saved program in a process without Lua.
local assert = require "luassert"
local neap = require "neap"

local build = os.getenv "NEAP_BUILD" or "build"
-- For another kind of processor the build has an emulator, which programs are run by.
local emulator = io.open(build .. "/run")
local prefix = emulator and emulator:close() and build .. "/run " or ""
local host = { run_model = prefix .. build .. "/embed/run_model",
  with_lua = prefix .. build .. "/embed/with_lua" }

--- Output, error output and exit status of a command that gets `input`.
function host.execute(command, input)
  local into, out, err = os.tmpname(), os.tmpname(), os.tmpname()
  local f = assert(io.open(into, "w"))
  f:write(input or "")
  f:close()
  local _, _, status = os.execute(("%s <%s >%s 2>%s"):format(command, into, out, err))
  local texts = {}
  for i, path in ipairs { out, err } do
    local file <close> = assert(io.open(path))
    texts[i] = file:read "a"
  end
  for _, path in ipairs { into, out, err } do os.remove(path) end
  return texts[1], texts[2], status
end

--- The bits of each number of a tensor.
function host.bits(t)
  local words, bytes = {}, t:tobytes()
  for i = 1, #bytes // 4 do words[i] = ("%08x"):format(("<I4"):unpack(bytes, 4 * i - 3)) end
  return words
end

--- Saves the program under "predict"; the host's lines, whole and streamed, are Lua's bits.
function host.same(pr, inputs)
  local path = os.tmpname()
  assert(pr:save(path))
  local info, order = host.execute(("%s %s --info"):format(host.run_model, path)), {}
  for name in info:gmatch "output (%S+): " do order[#order + 1] = name end
  local whole, streamed, text = {}, {}, {}
  local run, stream = pr:run(), pr:stream()
  for _, s in ipairs(inputs) do
    local ids = type(s[1]) == "number"
    local data = neap.tensor(s, ids and "i32" or "f32")
    run:feed { x = { data = data, lengths = neap.tensor({ #s }, "i32") } }
    run:forward()
    stream:reset()
    for t, row in ipairs(s) do
      stream:input(1, ids and { row } or row)
      stream:step()
      for i, name in ipairs(order) do
        local value = run:value(name, "concat")
        if pr.core:type(pr.outputs[name]) == "i32" or #value:shape() > 1 then value = value[t] end
        if type(value) == "number" then value = neap.tensor({ value }, "i32") end
        whole[#whole + 1] = name .. " " .. table.concat(host.bits(value), " ")
        streamed[#streamed + 1] = name .. " " .. table.concat(host.bits(stream:output(i)), " ")
      end
      if not ids then
        local numbers = {}
        for i, x in ipairs(row) do numbers[i] = ("%.17g"):format(x) end
        text[#text + 1] = table.concat(numbers, " ")
      end
    end
    if ids then text[#text + 1] = table.concat(s, " ") end
    text[#text + 1], whole[#whole + 1], streamed[#streamed + 1] = "", "", ""
  end
  local expected = table.concat(whole, "\n") .. "\n"
  assert.equal(expected, table.concat(streamed, "\n") .. "\n")
  for _, how in ipairs { "", " --stream" } do
    local out, err, status = host.execute(("%s %s --hex%s"):format(host.run_model, path, how),
      table.concat(text, "\n"))
    assert.equal("", err)
    assert.equal(0, status)
    assert.equal(expected, out)
  end
  os.remove(path)
  return info, expected
end

return host
