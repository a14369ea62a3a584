--- What the example scripts share: arguments, data, and how results are shown.
local argparse = require "argparse"
local core = require "neap.core"

local common = {}
local began = core.clock()
local folder = arg[0]:match "^.*/" or ""
local script = arg[0]:match "([^/]+)%.lua$" or arg[0]

--- Ends the script with one line of explanation.
-- @int status 1: the world's fault; 2: wrong arguments
-- @string message
function common.fail(status, message)
  io.stdout:flush()
  io.stderr:write(script, ": ", message, "\n")
  os.exit(status, true)
end

--- Passes on what a call gave; where it gave nil and a message, the script ends with that.
function common.need(value, message, ...)
  if value == nil then common.fail(1, message) end
  return value, message, ...
end

--- Says something on standard error and goes on.
function common.warn(format, ...)
  io.stdout:flush()
  io.stderr:write(script, ": ", format:format(...), "\n")
end

--- What argparse shall make of a number.
-- @string option its name, for the message
-- @tab range `low`; `high` or `below` (nil: any); `whole`: no fractions
function common.range(option, range)
  local high, below = range.high or math.huge, range.below or math.huge
  return function(text)
    local n = tonumber(text)
    if n and range.whole then n = math.tointeger(n) end
    if n and n >= range.low and n <= high and n < below then return n end
    return nil, ("%s: expected a %snumber from %g%s%s, came %s"):format(option,
      range.whole and "whole " or "", range.low, range.high and " to " .. range.high or "",
      range.below and " to less than " .. range.below or "", text)
  end
end

local presets = {} -- option -> its range, see below

--- Adds an option that is a number.
-- @param parser
-- @string name such as "--size"
-- @string value what it is called in the usage
-- @tab range as for @{range}, and `preset`, `quick`: what it is where it is not given, in earnest
--   and with --quick (if that differs); `others`: what it is with further options, by their names
-- @string description
function common.number(parser, name, value, range, description)
  if range.preset then
    presets[name:match "%a+"] = range
    local with = { tostring(range.preset) }
    for option, n in pairs(range.others or {}) do
      table.insert(with, ("with --%s: %s"):format(option, n))
    end
    if range.quick then table.insert(with, "with --quick: " .. range.quick) end
    description = ("%s (default: %s)"):format(description, table.concat(with, "; "))
  end
  parser:option(name):argname(value):description(description):convert(common.range(name, range))
end

--- What argparse shall make of a text: UTF-8, and not nothing.
function common.text(text)
  if text ~= "" and utf8.len(text) then return text end
  return nil, text == "" and "expected a text, came an empty one" or "expected a text in UTF-8"
end

-- argparse takes the number of "--rate -1" for an option; that of "--rate=-1" reaches its check.
local function joined(args)
  local out = {}
  for _, text in ipairs(args) do
    if text:find "^%-%.?%d" and #out > 0 and out[#out]:find "^%-%-[%w-]+$" then
      out[#out] = out[#out] .. "=" .. text
    else
      out[#out + 1] = text
    end
  end
  return out
end

--- Reads the arguments.
-- @tab about `[1]`: what the script does; `data`: what its files hold (none: it makes its own);
--   `train`, `dev`, `test`: preset files; `whole`: a text, of which no part can be kept apart;
--   `epochs`, `quick`, `others`: how many epochs, as @{number} takes them; `texts`: a name and what
--   is done with the texts of that name, which a script can take without any data; `extend`:
--   function(parser) that adds further options
-- @treturn tab options by name; `preset`: the preset files; `alone`: texts and a saved model are
--   all there is to work on
function common.options(about)
  local parser = argparse(script .. ".lua", about[1])
  function parser.error(_, message)
    common.fail(2, message:gsub("\n", "; ") .. " (--help shows the options)")
  end
  local function option(name, value, description)
    return parser:option(name):argname(value):description(description)
  end
  local quick = parser:flag "--quick"
    :description "Show in seconds that it works, on little data made here."
  if about.data then
    parser:mutex(quick, option("--train", "FILE", "Learn from it: " .. about.data .. "."))
    option("--dev", "FILE", about.whole and "Choose by it."
      or "Choose by it; without it a part of --train is kept apart.")
    option("--test", "FILE", "Score it at the end.")
    local files = {}
    for _, name in ipairs { "train", "dev", "test" } do files[#files + 1] = about[name] end
    parser:epilog("Data that no option names is looked for in\n   "
      .. table.concat(files, "\n   "))
  end
  option("--model", "FILE", "Save what was learned.")
  option("--load", "FILE", "Use a saved model instead of learning.")
  common.number(parser, "--epochs", "N", { low = 1, whole = true, preset = about.epochs,
    quick = about.quick, others = about.others }, "How often to go through the data.")
  common.number(parser, "--minutes", "M", { low = 0 }, "Begin no epoch that would end later.")
  common.number(parser, "--seed", "S", { low = 0, whole = true, preset = 1 },
    "Another seed, other chance.")
  common.number(parser, "--threads", "N", { low = 1, whole = true, preset = 2 },
    "How many threads compute.")
  if about.extend then about.extend(parser) end
  if about.texts then
    parser:argument(about.texts[1]):args "*":convert(common.text):description(about.texts[2])
  end
  local options = parser:parse(joined(arg))
  for name, range in pairs(presets) do
    local preset = range.preset
    for option, n in pairs(range.others or {}) do
      if options[option] then preset = n end
    end
    if options.quick and range.quick then preset = range.quick end
    if options[name] == nil then options[name] = preset end
  end
  options.preset = about
  options.alone = options.load and about.texts and #options[about.texts[1]] > 0
    and not (options.quick or options.dev or options.test)
  if options.model then -- better now than after an hour
    local trial = options.model .. ".part"
    local file, message = io.open(trial, "wb")
    if not file then common.fail(1, options.model .. message:sub(#trial + 1)) end
    file:close()
    os.remove(trial)
  end
  return options
end

--- A file of the data folder that lies beside the checkout: shared/data/NAME.
function common.shared(name)
  local path, before = folder .. "../../../shared/data/" .. name, nil
  repeat -- without steps into a folder and back
    before = path
    path = path:gsub("([^/]+)/%.%./", function(step)
      if step ~= "." and step ~= ".." then return "" end
    end)
  until path == before
  return path
end

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

--- The corpora to learn from (nil with --load) and to choose by, and the one to test on or nil.
-- They are the files that the options name; else the preset ones.
-- @tab options
-- @tab from `read`: function(path); `missing`: what to do where the preset files are absent;
--   `share`: of train that is kept apart where there is no dev; `by`: the field whose equal
--   sequences stay together; `rng`
function common.corpora(options, from)
  local function read(path) return common.need(from.read(path)) end
  local train, dev, test = options.train, options.dev, options.test
  if not train and not (options.load and dev) then
    local preset = options.preset
    train, dev, test = preset.train, dev or preset.dev, test or preset.test
    for _, path in ipairs { train, dev } do
      if not exists(path) then
        common.fail(1, ("no %s: %s"):format(path, options.load and "give --dev FILE"
          .. (preset.texts and ", or texts on the command line" or "") or from.missing))
      end
    end
    common.warn("data: %s", options.load and dev or train)
  end
  if not dev and not from.share then common.fail(2, "--train needs --dev") end
  local first = not (options.load and dev) and read(train) or nil
  local second
  if dev then
    second = read(dev)
  else
    local ok, rest
    ok, second, rest = pcall(first.split, first,
      { share = from.share, rng = from.rng, by = from.by })
    if not ok and not tostring(second):find "without a sequence" then error(second, 0) end
    if not ok then
      common.fail(1, train .. ": too little to keep a part of it apart: give more, or --dev FILE")
    end
    first = rest
  end
  return first, second, test and read(test)
end

--- The task in the file that --load names; it must be of that kind.
-- @tab options
-- @string kind
-- @tab[opt] inputs names of those that must be there, with a vocabulary
function common.load(options, kind, inputs)
  local model = common.need(require "neap.load"(options.load))
  if model.kind ~= kind then
    common.fail(1, ("%s: expected a %s, came a %s"):format(options.load, kind,
      model.kind or "file that no task wrote"))
  end
  local there = {}
  for _, input in ipairs(model.inputs or {}) do there[input.name] = input.vocab end
  for _, name in ipairs(inputs or {}) do
    if not there[name] then
      common.fail(1, ("%s: its model does not read %s as symbols"):format(options.load, name))
    end
  end
  return model:threads(options.threads)
end

--- Ends the script where there is too little to learn from or to choose by.
-- @string option that names the data
-- @int n how much there is
-- @int least
-- @string what it is
function common.enough(option, n, least, what)
  if n >= least then return end
  common.fail(1, ("%s: too little: expected at least %d %s, came %d"):format(option, least, what,
    n))
end

--- Warns where a saved model knows none of the outputs that the data has: no score tells anything.
-- @tab options
-- @param corpus
-- @string field
-- @param vocab of the model's outputs
function common.known(options, corpus, field, vocab)
  local names = {}
  for name in pairs(corpus:counts(field)) do
    if vocab:has(name) then return end
    names[#names + 1] = name
  end
  table.sort(names)
  local function list(all)
    return table.concat(all, ", ", 1, math.min(#all, 5)) .. (#all > 5 and ", .." or "")
  end
  common.warn("%s knows none of the outputs in the data: it knows %s, there are %s", options.load,
    list(vocab.symbols), list(names))
end

local unsaved = false

--- Saves the model where --model says. If that fails, the script goes on and ends with status 1.
function common.save(options, model)
  if not options.model then return end
  local saved, message = model:save(options.model)
  if saved then return end
  unsaved = true
  common.warn("not saved: %s", message)
end

--- A text and blanks up to a width in characters, one at least.
function common.column(text, width)
  return text .. (" "):rep(math.max(width - (utf8.len(text) or #text), 0) + 1)
end

--- Shows some predictions that are right and some that are wrong.
-- @int n how many there are
-- @func each function(i) that gives: is it right, and a line that shows it
function common.show(n, each)
  local shown = { [true] = {}, [false] = {} }
  for i = 1, n do
    local right, text = each(i)
    if #shown[right] < 4 then table.insert(shown[right], "  " .. text) end
  end
  for _, right in ipairs { true, false } do
    if #shown[right] > 0 then
      print((right and "right:\n" or "wrong:\n") .. table.concat(shown[right], "\n"))
    end
  end
end

--- Draws curves with letters, over each other: later ones over earlier ones, @ where the last two
-- fall together.
-- @tab curves a list of `{ mark, list }`, the lists of numbers, or false where there is none, all as
--   long; of long ones some steps are left out
-- @tab[opt] options `low`, `high` (those of the curves)
function common.draw(curves, options)
  options = options or {}
  local HEIGHT, WIDTH, low, high = 13, 76, math.huge, -math.huge
  for _, curve in ipairs(curves) do
    for _, y in ipairs(curve[2]) do
      if y then low, high = math.min(low, y), math.max(high, y) end
    end
  end
  low, high = options.low or low, options.high or high
  local every, cells = math.ceil(#curves[1][2] / WIDTH), {}
  local columns = #curves[1][2] // every
  for r = 1, HEIGHT do
    cells[r] = {}
    for c = 1, columns do cells[r][c] = " " end
  end
  for i, curve in ipairs(curves) do
    local before = i > 1 and i == #curves and curves[i - 1][1]
    for c = 1, columns do
      local y = curve[2][c * every]
      if y then
        local share = high > low and (math.max(low, math.min(high, y)) - low) / (high - low) or 0.5
        local row = cells[HEIGHT - math.floor(share * (HEIGHT - 1) + 0.5)]
        row[c] = row[c] == before and "@" or curve[1]
      end
    end
  end
  for r, row in ipairs(cells) do
    local label = (r == 1 or r == HEIGHT) and ("%.4g"):format(r == 1 and high or low) or ""
    print((("%8s %s"):format(label, table.concat(row)):gsub(" +$", "")))
  end
end

--- A character for each number, from blank (0) to @ (1).
function common.shade(values)
  local text = {}
  for i, x in ipairs(values) do
    local ink = math.floor(math.max(0, math.min(x, 1)) * 9.99) + 1
    text[i] = (" .:-=+*#%@"):sub(ink, ink)
  end
  return table.concat(text)
end

--- Draws numbers from 0 to 1 in characters: a line for each name, a character for each step or,
-- where there are more than 70, the largest of several.
-- @tab names of the lines
-- @int steps
-- @func x function(line, step) that gives the number, or a character that stands for itself
function common.lines(names, steps, x)
  local several = math.ceil(steps / 70)
  for i, name in ipairs(names) do
    local line = {}
    for t = 1, steps do
      local k, value = (t - 1) // several + 1, x(i, t)
      local was = line[k] or 0
      line[k] = (type(value) == "string" or type(was) == "number" and value > was) and value or was
    end
    for k, value in ipairs(line) do
      line[k] = type(value) == "number" and common.shade { value } or value
    end
    print(("%8s |%s|"):format(name, table.concat(line)))
  end
end

--- A character for each number, by its size beside the largest: # + - . ' for a tenth less each, and
-- a blank for what is less than a hundred thousandth.
function common.decades(numbers)
  local text, ramp, most = {}, { "#", "+", "-", ".", "'", " " }, 1e-300
  for _, x in ipairs(numbers) do most = math.max(most, x) end
  for i, x in ipairs(numbers) do
    text[i] = ramp[math.min(6, 1 + math.floor(-math.log(math.max(x / most, 1e-30), 10)))]
  end
  return table.concat(text)
end

--- Adds the option --picture, for @{plot}.
function common.picture_option(parser)
  parser:option "--picture":argname "FILE"
    :description "Draw a picture too: SVG, or PNG if the name ends so (by gnuplot)."
end

-- What gnuplot reads: curves { title, list of { x, y } }, maps { title, rows of numbers }, or maps
-- and below them, over the same time, curves that are filled.
local function gnuplot(file, picture)
  local out = {}
  local function add(format, ...) out[#out + 1] = format:format(...) end
  local function quoted(text) return (text:gsub("'", "''")) end
  local function data(rows)
    for _, row in ipairs(rows) do out[#out + 1] = table.concat(row, " ") end
    out[#out + 1] = "e"
  end
  local maps, curves, step = picture.maps or {}, picture.curves or {}, picture.step
  local panels = #maps + (#curves > 0 and 1 or 0)
  add("set terminal %s size %d,%d", file:find "%.png$" and "pngcairo" or "svg background 'white'",
    (step or #maps == 0) and 860 or 200 * math.max(#maps, 3), step and 280 * panels or 360)
  add("set output '%s'", quoted(file))
  add("set multiplot layout %s title '%s'", step and panels .. ",1" or "1," .. panels,
    quoted(picture.title))
  for _, map in ipairs(maps) do
    add("set title '%s'\nunset key\nunset colorbox\nset palette gray negative", quoted(map[1]))
    add("set cbrange [0:1]\nset autoscale fix\nset yrange [*:*] reverse")
    add("set tics out nomirror\nset xlabel '%s'", step and picture.x or "step")
    if step then
      add("unset ytics\nset lmargin 8\nset rmargin 3\nset xrange [0:%g]", #map[2][1] * step)
      add("plot '-' using (($1+0.5)*%g):($2+1):3 matrix with image pixels", step)
    else
      add("plot '-' using ($1+1):($2+1):3 matrix with image pixels")
    end
    data(map[2])
  end
  if #curves > 0 then
    local names = {}
    add("set xlabel '%s'\nset key outside\n%s", picture.x, picture.log and "set logscale y" or "")
    add("set format y '%%g'\nset yrange [%s:*] noreverse", picture.least or "*")
    if step then add "unset title\nunset key\nset ytics 0,0.5,1\nset yrange [0:1.2]" end
    for _, mark in ipairs(picture.marks or {}) do
      add("set label '%s' at %g,1.12 center", quoted(mark[1]), (mark[2] + mark[3]) / 2)
      add("set arrow from %g,1.04 to %g,1.04 nohead", mark[2], mark[3])
    end
    for i, curve in ipairs(curves) do
      names[i] = step and "'-' with filledcurves y1=0 fill solid 0.5"
        or ("'-' with lines linewidth 2 dashtype %d %s title '%s'"):format(i,
          curve.color and ("linecolor '%s'"):format(curve.color) or "", curve[1])
    end
    add("plot %s", table.concat(names, ", "))
    for _, curve in ipairs(curves) do data(curve[2]) end
  end
  add("unset multiplot")
  return table.concat(out, "\n") .. "\n"
end

--- Draws what --picture asks for. If it cannot, the script goes on and ends with status 1.
-- @tab options
-- @tab picture `title`; `maps`: a list of { title, rows of numbers from 0 to 1 }; or `curves`: a
--   list of { title, list of { x, y }, color = }, with `x`, the name of that axis, and of the other:
--   `log`, `least`. With `step`, how long a column of the maps is, all stand one below the other and
--   curves are filled, with `marks` above: a list of { title, from, to }
function common.plot(options, picture)
  if not options.picture then return end
  local path = os.tmpname()
  local file = common.need(io.open(path, "w"))
  file:write(gnuplot(options.picture, picture))
  file:close()
  if not os.execute("gnuplot " .. path .. " 2>/dev/null") then
    unsaved = true
    common.warn("no picture: %s cannot be written, or gnuplot is missing (gnuplot-nox)",
      options.picture)
  end
  os.remove(path)
end

--- Pictures made here: 8 x 8, of a bar that lies, stands or leans, with noise.
-- @int n how many
-- @param rng
-- @treturn corpus fields "image" and "label", which is -, | or \
function common.bars(n, rng)
  local image, label, kinds = {}, {}, { "-", "|", "\\" }
  for i = 1, n do
    local kind, at, picture = rng:int(3), rng:int(8), {}
    for y = 1, 8 do
      picture[y] = {}
      for x = 1, 8 do
        local bars = { y == at, x == at, (x - y - at) % 8 == 0 }
        picture[y][x] = (bars[kind] and 0.6 or 0) + 0.4 * rng:uniform()
      end
    end
    image[i], label[i] = picture, kinds[kind]
  end
  return require "neap.corpus".from { image = image, label = label }
end

--- Pictures to learn from, to choose by and to test on: IDX files, or with --quick made here.
-- @tab options
-- @param rng
-- @string missing what to do where the preset files are absent
function common.pictures(options, rng, missing)
  if options.quick then return common.bars(600, rng), common.bars(200, rng) end
  return common.corpora(options, {
    read = function(path)
      return require "neap.corpus".idx(path, (path:gsub("images%-idx3", "labels-idx1")))
    end,
    missing = missing, share = 1 / 12, rng = rng,
  })
end

--- Draws a picture in characters, every second row of it, since characters are tall.
-- @param picture a tensor [rows,columns] of numbers from 0 to 1
function common.print_picture(picture)
  for y = 1, #picture, 2 do print("    " .. common.shade(picture[y]:totable())) end
end

local order = { dev = 1, test = 2, seconds = 4, parameters = 5 }

--- The last line, `result task=NAME key=value ...`, and the end of the script.
-- @tab values scores by key; seconds since the start are added
function common.result(values)
  values.seconds = core.clock() - began
  local keys = {}
  for key in pairs(values) do keys[#keys + 1] = key end
  local function place(key) return order[key] or order[key:match "^[^_]*"] or 3 end
  table.sort(keys, function(a, b)
    if place(a) ~= place(b) then return place(a) < place(b) end
    return a < b
  end)
  local line = { "result task=" .. script }
  for i, key in ipairs(keys) do
    local value = values[key]
    local form = math.type(value) == "integer" and "%d" or key == "seconds" and "%.1f" or "%.4f"
    line[i + 1] = key .. "=" .. form:format(value)
  end
  print(table.concat(line, " "))
  if unsaved then os.exit(1, true) end
end

return common
