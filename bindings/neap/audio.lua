--- Sound files. WAV of plain samples (8 to 32 bits, or floats) is read here; what else there is
-- (FLAC, Ogg, AIFF, MP3, coded WAV) by libsndfile, where the system has it (Debian: libsndfile1).
-- @module neap.audio
local check = require "neap.check"
local core = require "neap.core"

local audio = {}

local function bad(code, format, ...)
  return nil, "audio: " .. format:format(...), code
end

local kinds = { -- tag of the format -> bits of a sample -> what push_pcm calls it
  [1] = { [8] = "u8", [16] = "s16", [24] = "s24", [32] = "s32" },
  [3] = { [32] = "f32", [64] = "f64" },
}

-- What the chunk "fmt " says: { kind, channels, rate }; or nil and what is wrong; or nil, why and
-- true where it is another kind of WAV.
local function read_format(text)
  if #text < 16 then return nil, ("its format takes %d bytes, expected 16"):format(#text) end
  local tag, channels, rate, _, frame, bits = string.unpack("<I2I2I4I4I2I2", text)
  if tag == 0xFFFE then -- extensible: the tag begins the sub-format
    if #text < 40 then return nil, ("its format takes %d bytes, expected 40"):format(#text) end
    tag = string.unpack("<I2", text, 25)
  end
  local kind = kinds[tag] and kinds[tag][bits]
  if not kind then
    return nil, ("expected samples of 8, 16, 24 or 32 bits or floats, came format 0x%04X of %d "
      .. "bits"):format(tag, bits), true
  elseif channels == 0 or rate == 0 then
    return nil, ("its header says %d channels and %d samples a second"):format(channels, rate)
  elseif frame ~= channels * bits // 8 then
    return nil, ("its header says %d bytes for %d channels of %d bits"):format(frame, channels,
      bits)
  end
  return { kind = kind, channels = channels, rate = rate, frame = frame }
end

-- Checks rate and channel of a file.
local function wrong_shape(o, rate, channels)
  if o.rate and rate ~= o.rate then
    return ("expected %d samples a second, came %d (sox IN -r %d OUT.wav changes that)"):format(
      o.rate, rate, o.rate)
  elseif o.channel and o.channel > channels then
    return ("expected a channel %d, came a file of %d"):format(o.channel, channels)
  end
end

-- Reads the rest of a WAV file behind "RIFF....WAVE" into floats. Gives the rate; or nil, what is
-- wrong, its code; and true where libsndfile may know it.
local function read_wav(file, o, floats)
  local format
  while true do
    local head, why = file:read(8)
    if why then return nil, why, "EIO" end
    if not head or #head < 8 then
      return nil, ("ends without %s"):format(format and "samples" or "a format"), "EFORMAT"
    end
    local name, size = string.unpack("<c4I4", head)
    if name == "fmt " then
      local text = size <= 1024 and file:read(size) or ""
      if #text < size then return nil, "ends within its format", "EFORMAT" end
      local problem, other
      format, problem, other = read_format(text)
      problem = problem or wrong_shape(o, format.rate, format.channels)
      if problem then return nil, problem, "EFORMAT", other end
      if size % 2 == 1 then file:read(1) end
    elseif name == "data" then
      if not format then return nil, "its samples come before their format", "EFORMAT" end
      local got, whole = 0, size - size % format.frame
      while got < whole do
        local chunk, trouble = file:read(math.min(whole - got, 4096 * format.frame))
        if trouble then return nil, trouble, "EIO" end
        if not chunk or #chunk % format.frame ~= 0 then
          return nil, ("ends after %d of %d bytes of samples"):format(got + #(chunk or ""), size),
            "EFORMAT"
        end
        local _, at = floats:push_pcm(chunk, format.kind, format.channels, o.channel)
        if at then
          return nil, ("sample %d is no finite number"):format(got // format.frame + at), "EFORMAT"
        end
        got = got + #chunk
      end
      return format.rate
    elseif not file:seek("cur", size + size % 2) then
      return nil, "cannot be sought in", "EIO"
    end
  end
end

local function read_other(path, o, floats)
  local file, rate, channels = core.sound(path)
  if not file then return nil, rate, "EFORMAT" end
  local problem, frames = wrong_shape(o, rate, channels), 0
  if problem then return nil, problem, "EFORMAT" end
  for chunk in function() return file:read() end do
    local _, at = floats:push_pcm(chunk, "f32", channels, o.channel)
    if at then return nil, ("sample %d is no finite number"):format(frames + at), "EFORMAT" end
    frames = frames + #chunk // (4 * channels)
  end
  return rate
end

local ZEROS, ROLLOFF, MOST = 16, 0.95, 1 << 23
local kernels = {} -- the last one: files often have all the same rate

-- How blocks of M samples become blocks of L, from a window of their own and `more` blocks after, R
-- samples early: a matrix [(more + 1) M, L]. nil where the ratio of the rates makes it too large.
local function kernel(from, to)
  if kernels.from == from and kernels.to == to then return kernels end
  local a, b = from, to
  while b > 0 do a, b = b, a % b end
  local times = math.max(1, 256 * a // from)
  local k = { from = from, to = to, M = times * from // a, L = times * to // a }
  local c = ROLLOFF * math.min(1, to / from)
  k.R = math.ceil(ZEROS / c)
  k.more = math.ceil(2 * k.R / k.M)
  local rows, h = (k.more + 1) * k.M, core.floats()
  if rows * k.L > MOST then return nil end
  for i = 0, rows - 1 do
    for j = 0, k.L - 1 do
      local t = c * (j * from / to - (i - k.R))
      local y = math.abs(t) < ZEROS and c * math.cos(math.pi * t / (2 * ZEROS)) ^ 2 or 0
      h:push(t == 0 and y or y * math.sin(math.pi * t) / (math.pi * t))
    end
  end
  k.matrix = h:tensor { rows, k.L }
  kernels = k
  return k
end

local function resampled(samples, k)
  local n = samples:size()
  local blocks = math.ceil(n / k.M)
  local padded, windows = core.floats():push_bytes(("\0"):rep(k.R)), {}
  padded:append(samples):push_bytes(("\0"):rep(math.max((blocks + k.more) * k.M - k.R - n, 0)))
  for i = 0, k.more do
    windows[i + 1] = core.floats():append(padded, i * k.M + 1, (i + blocks) * k.M)
      :tensor { blocks, k.M }
  end
  local op = require "neap.op"
  return core.floats():append(op.matmul(op.concat(windows), k.matrix), 1,
    math.ceil(n * k.to / k.from)):tensor()
end

--- Samples of another rate: those of the band-limited curve through the given ones (Smith and Gossett
-- 1984).
--
--   y(n) = sum over k of x(k) h(n from / to - k), x = 0 outside
--   h(t) = c sinc(c t) cos^2(pi c t / 32) where |c t| < 16, else 0; c = 0.95 min(1, to / from)
--
-- What lies above c from / 2 Hertz is gone, before it can fold back.
-- @param samples a tensor [n] or list
-- @int from samples a second
-- @int to samples a second
-- @treturn tensor f32 [n to / from, rounded up]
function audio.resample(samples, from, to)
  if type(samples) == "table" then samples = core.tensor(samples) end
  check.type("audio.resample", "samples", samples, "userdata")
  check.integer("audio.resample", "from", from, 1)
  check.integer("audio.resample", "to", to, 1)
  if from == to or samples:size() == 0 then return samples end
  local k = kernel(from, to)
  if not k then
    check.fail("audio.resample: expected rates in a ratio of smaller numbers, came %d and %d", from, to)
  end
  return resampled(samples, k)
end

--- Checks the options of @{read}: for readers that read many.
-- @string who
-- @tab options
function audio.check(who, options)
  if options.rate ~= nil then check.integer(who, "rate", options.rate, 1) end
  check.boolean(who, "resample", options.resample)
  if options.channel ~= nil then check.integer(who, "channel", options.channel, 1) end
end

--- Appends the samples of a file to a buffer of floats.
-- @string path
-- @tab options checked
-- @param floats
-- @treturn[1] int the rate
-- @return[2] nil, message, code
function audio.append(path, options, floats)
  if options.resample and options.rate then
    local own = core.floats()
    local rate, message, code = audio.append(path, { channel = options.channel }, own)
    if not rate then return nil, message, code end
    if rate ~= options.rate and not kernel(rate, options.rate) then
      return bad("EFORMAT", "%s: expected a rate in a ratio of smaller numbers to %d, came %d", path,
        options.rate, rate)
    end
    floats:append(audio.resample(own:tensor(), rate, options.rate))
    return options.rate
  end
  local file, message = io.open(path, "rb")
  if not file then return bad("EIO", "cannot open %s", message) end
  local head, why = file:read(12)
  if why then
    file:close()
    return bad("EIO", "cannot read %s: %s", path, why)
  end
  local wav = head and #head == 12 and head:sub(1, 4) == "RIFF" and head:sub(9) == "WAVE"
  local rate, problem, code, other = nil, "no WAV file", "EFORMAT", true
  if wav then rate, problem, code, other = read_wav(file, options, floats) end
  file:close()
  if not head then return bad("EFORMAT", "%s: nothing in it", path) end
  if not rate and other and core.has_sound_library() then
    local text
    rate, text, code = read_other(path, options, floats)
    problem = text
  elseif not rate and other then
    problem = problem .. "; with libsndfile (Debian: libsndfile1) other files are read too"
  end
  if not rate then return bad(code, "%s: %s", path, problem) end
  return rate
end

--- Reads a sound file.
-- @string path
-- @tab[opt] options `rate`: samples a second that are expected; a file of another rate is refused,
--   or with `resample` = true brought to this one by @{resample}. `channel`: which one, from 1;
--   without it the mean of all
-- @treturn[1] tensor f32 [samples], -1 to 1
-- @treturn[1] int samples a second
-- @return[2] nil
-- @treturn[2] string message
-- @treturn[2] string "EIO" or "EFORMAT"
function audio.read(path, options)
  check.type("audio.read", "path", path, "string")
  options = check.options("audio.read", options, { "rate", "channel", "resample" })
  audio.check("audio.read", options)
  local floats = core.floats()
  local rate, message, code = audio.append(path, options, floats)
  if not rate then return nil, message, code end
  return floats:tensor(), rate
end

--- Writes samples as a WAV file of 16 bits, one channel.
-- @string path
-- @param samples a tensor or list, -1 to 1; what is beyond is cut off
-- @int rate samples a second
-- @return[1] true
-- @return[2] nil
-- @treturn[2] string message
-- @treturn[2] string "EIO"
function audio.write(path, samples, rate)
  check.type("audio.write", "path", path, "string")
  if check.is_tensor(samples) then
    samples = samples:reshape { samples:size() }:totable()
  end
  check.table("audio.write", "samples", samples)
  check.integer("audio.write", "rate", rate, 1, 0x7FFFFFFF)
  local out = { "RIFF", string.pack("<I4", 36 + 2 * #samples), "WAVEfmt ",
    string.pack("<I4I2I2I4I4I2I2", 16, 1, 1, rate, 2 * rate, 2, 16), "data",
    string.pack("<I4", 2 * #samples) }
  for i, x in ipairs(samples) do
    if type(x) ~= "number" or x ~= x then
      check.fail("audio.write: samples: entry %d: expected a number, came %s", i, check.came(x))
    end
    local whole = math.floor(math.max(math.min(x * 32768, 32767), -32768) + 0.5)
    out[#out + 1] = string.pack("<i2", whole)
  end
  local file, message = io.open(path, "wb")
  if not file then return bad("EIO", "cannot open %s", message) end
  local good, why = file:write(table.concat(out))
  local closed, trouble = file:close()
  if not (good and closed) then return bad("EIO", "cannot write %s: %s", path, why or trouble) end
  return true
end

return audio
