--- Pictures in IDX files.
-- @submodule neap.corpus
local core = require "neap.core"
local class = require "neap.corpus.class"
local files = require "neap.corpus.file"
local new, symbol_field, bad = class.new, class.symbols, files.bad

local corpus = {}

-- Reads an IDX file of bytes, chunk by chunk into take(string): gives the dimensions.
local function read_idx(path, rank, take)
  local plain, message, code = files.open(path, "rb")
  if not plain then return nil, message, code end
  local file = plain
  local packed = path:sub(-3) == ".gz"
  if packed then
    plain:close()
    file = io.popen("gzip -dc '" .. path:gsub("'", "'\\''") .. "' 2>/dev/null", "r")
  end
  local function fail(kind, format, ...)
    file:close()
    return bad(kind, "%s: " .. format, path, ...)
  end
  local function short(format, ...) -- gzip's own failure also shows as an early end
    if not file:close() then return bad("EFORMAT", "%s: gzip cannot unpack it", path) end
    return bad("EFORMAT", "%s: " .. format, path, ...)
  end
  local head, why = file:read(4 + 4 * rank)
  if why then return fail("EIO", "%s", why) end
  if not head then return short("nothing in it") end
  if #head < 4 then return short("ends after %d bytes, within the header", #head) end
  local zero, kind, axes = string.unpack(">I2BB", head)
  if zero ~= 0 then
    return fail("EFORMAT", "not an IDX file: begins with 0x%04X, not with 0", zero)
  elseif kind ~= 8 then
    return fail("EFORMAT", "expected unsigned bytes (type 0x08), came type 0x%02X", kind)
  elseif axes ~= rank then
    return fail("EFORMAT", "expected %d dimensions, came %d", rank, axes)
  elseif #head < 4 + 4 * rank then
    return short("ends after %d bytes, within the header", #head)
  end
  local dims, size = {}, 1
  for i = 1, rank do
    dims[i] = string.unpack(">I4", head, 1 + 4 * i)
    if dims[i] == 0 then return fail("EFORMAT", "dimension %d is 0", i) end
    if size > (1 << 31) // dims[i] then
      return fail("EFORMAT", "its header says more than 2^31 bytes")
    end
    size = size * dims[i]
  end
  local got = 0
  while got < size do
    local chunk, trouble = file:read(math.min(size - got, 1 << 20))
    if trouble then return fail("EIO", "%s", trouble) end
    if not chunk then
      return short("ends after %d bytes, its header says %d", #head + got, #head + size)
    end
    take(chunk)
    got = got + #chunk
  end
  if file:read(1) then
    return fail("EFORMAT", "goes on after the %d bytes its header says", #head + size)
  end
  if not file:close() then return bad("EFORMAT", "%s: gzip cannot unpack it", path) end
  return dims
end

--- Pictures and their labels in IDX files, as of MNIST; also packed, where the name ends in .gz.
-- @string images path of bytes [N,rows,columns]
-- @string labels path of bytes [N]
-- @treturn[1] corpus field "image": each sequence the rows [rows,columns] of a picture, f32 from 0
--   to 1 (other ways to read it: @{patches}); field "label": one symbol each, the number
-- @return[2] nil
-- @treturn[2] string message
-- @treturn[2] string "EIO" or "EFORMAT"
function corpus.idx(images, labels)
  local pixels, offsets = core.floats(), core.ints():push(0)
  local dims, message, code = read_idx(images, 3, function(s) pixels:push_bytes(s, 1 / 255) end)
  if not dims then return nil, message, code end
  local n, rows, columns = table.unpack(dims)
  local field = symbol_field()
  local label_dims
  label_dims, message, code = read_idx(labels, 1, function(s)
    for i = 1, #s do field.add(tostring(s:byte(i))) end
  end)
  if not label_dims then return nil, message, code end
  if label_dims[1] ~= n then
    return bad("EFORMAT", "%s: %d labels for the %d pictures of %s", labels, label_dims[1], n,
      images)
  end
  for i = 1, n do offsets:push(i * rows) end
  return new(images, { label = field.done(),
    image = { data = pixels:tensor{ n * rows, columns }, offsets = offsets:tensor() } })
end

return corpus
