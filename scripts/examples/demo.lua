--- What `make demo` shows: the example scripts of the three task modes learn from real data of
-- Debian packages, a few minutes in all; then a C program without Lua runs one of the models, to
-- the same bits.
local neap = require "neap"
local argparse = require "argparse"
local here = arg[0]:match "^.*/" or ""
local common = dofile(here .. "common.lua")

local parser = argparse("demo.lua", "Three task modes on real data, then a C program.")
parser:option "--minutes":argname "M":default "4.7":convert(common.range("--minutes", { low = 0 }))
  :description "For learning, all three together; each learns one epoch even if that takes longer."
local minutes = parser:parse().minutes

local root = here:match "^(.-)scripts/examples/$" or here .. "../../"
local build = os.getenv "NEAP_BUILD" or root .. "build"
local folder = build .. "/demo/"
common.need(os.execute(("mkdir -p '%s'"):format(folder)), "cannot make " .. folder)

-- Runs a command and calls each(line) for what it prints.
local function run(command, each)
  io.stdout:flush()
  local pipe = common.need(io.popen(command))
  for line in pipe:lines() do each(line) end
  if not pipe:close() then common.fail(1, "failed: " .. command) end
end

-- Runs an example script for its share of the time; gives the numbers of its result line.
local function learn(what, script, share, options)
  local command = ("'%sscripts/neap' run '%s%s.lua' %s --minutes %.3f --model '%s%s.safetensors'")
    :format(root, here, script, options, share * minutes, folder, script)
  print(("\n---- %s\n%s"):format(what, (command:gsub("'", ""))))
  local result
  run(command, function(line)
    print(line)
    if line:find "^result " then
      result = {}
      for key, value in line:gmatch "([%w_]+)=(%S+)" do result[key] = tonumber(value) or value end
    end
  end)
  return result or common.fail(1, script .. ".lua said no result")
end

local pictures = "/usr/share/datasets/fashion-mnist/"
local lexicon = "/usr/share/festival/dicts/cmu/cmudict-0.4.out"
local rows = learn("sequence to class: pieces of clothing, their pictures read row by row", "rows",
  0.30, "--epochs 6")
local stress = learn("synchronous sequence to sequence: syllables and stress of words", "stress",
  0.22, "--epochs 2")
local g2p = learn("asynchronous sequence to sequence: from spelling to phonemes", "g2p", 0.48,
  "--train " .. lexicon .. " --size 128 --dropout 0.1 --batch 64 --rate 0.003 --epochs 3 --beam 1")

-- ---- the same model without Lua ---------------------------------------------------------------

local path, n = folder .. "rows.safetensors", 100
print(("\n---- %d pictures through %s in Lua and in C"):format(n, path))
local test = common.need(neap.corpus.idx(pictures .. "t10k-images-idx3-ubyte.gz",
  pictures .. "t10k-labels-idx1-ubyte.gz"))

-- In Lua: all pictures as one batch, on two threads.
local model = common.need(neap.load(path)):threads(2)
local batch = neap.batches({ input = test:encode "image" }, { size = n })()
local values = model:run "predict":feed(batch):forward()
local function bits(tensor)
  local bytes, out = tensor:tobytes(), {}
  for at = 1, #bytes, 4 do out[#out + 1] = ("%08x"):format(("<I4"):unpack(bytes, at)) end
  return table.concat(out, " ")
end
local class, scores, expected = values:value "class":reshape { n, 1 }, values:value "scores", {}
for i = 1, n do expected[i] = { class = bits(class[i]), scores = bits(scores[i]) } end

-- In C: picture after picture, whole and as a stream of single rows.
local text = common.need(io.open(folder .. "rows.txt", "w"))
for i = 1, n do
  for _, row in ipairs(test:get("image", i):totable()) do
    for x, ink in ipairs(row) do row[x] = ("%.9g"):format(ink) end
    text:write(table.concat(row, " "), "\n")
  end
  text:write "\n"
end
text:close()
local same, numbers = 0, 2 * (class:size() + scores:size())
for _, how in ipairs { "", " --stream" } do
  local command = ("'%s/embed/run_model' '%s'%s --hex < '%srows.txt'"):format(build, path, how,
    folder)
  print(command)
  local picture = 1
  run(command, function(line)
    if line == "" then picture = picture + 1 return end
    local name, came = line:match "^(%S+) (.*)$"
    local wanted = (expected[picture] or {})[name] or ""
    for word in came:gmatch "%x+" do
      local other
      other, wanted = wanted:match "^(%x*) ?(.*)$"
      if word == other then same = same + 1 end
    end
  end)
end
print(("same bits: %d of %d numbers"):format(same, numbers))

-- ---- what came of it --------------------------------------------------------------------------

-- The baseline of spelling: each letter as the phoneme it most often is in words that have as many
-- letters as phonemes.
local function letters()
  local dev, train = common.need(neap.corpus.festival(lexicon)):split { share = 0.03, by = "word",
    rng = neap.rng(1) }
  local counts, usual = {}, {}
  for i = 1, #train do
    local word, phonemes = train:get("word", i), train:get("phonemes", i)
    for k, letter in ipairs(#word == #phonemes and word or {}) do
      local of = counts[letter] or {}
      counts[letter] = of
      of[phonemes[k]] = (of[phonemes[k]] or 0) + 1
      if of[phonemes[k]] > (of[usual[letter]] or 0) then usual[letter] = phonemes[k] end
    end
  end
  local hypotheses, references = {}, {}
  for i = 1, #dev do
    hypotheses[i], references[i] = {}, { dev:get("phonemes", i) }
    for k, letter in ipairs(dev:get("word", i)) do hypotheses[i][k] = usual[letter] end
  end
  return neap.metrics.symbol_error_rate(hypotheses, references),
    1 - neap.metrics.sequence_error_rate(hypotheses, references)
end

local phonemes_wrong, words_right = letters()
local lines = {
  { "task", "data", "parameters", "score on held-out data", "reference", "seconds" },
  { "seq2class", "Fashion-MNIST", rows.parameters,
    ("%.3f of pictures right"):format(rows.test_accuracy), "0.888, 0.897 (GRU+SVM, published)",
    rows.seconds },
  { "synced", "CMU lexicon", stress.parameters, ("%.3f of words right"):format(1 - stress.dev_wer),
    ("%.3f (usual marks of the shape)"):format(1 - stress.baseline_wer), stress.seconds },
  { "async", "CMU lexicon", g2p.parameters, ("%.3f of phonemes wrong"):format(g2p.dev_per),
    ("%.3f (usual phoneme of a letter)"):format(phonemes_wrong), g2p.seconds },
  { "", "", "", ("%.3f of words right"):format(1 - g2p.dev_wer), ("%.3f"):format(words_right), "" },
}
local width = {}
for _, line in ipairs(lines) do
  for k, cell in ipairs(line) do
    line[k] = math.type(cell) == "float" and ("%.0f"):format(cell) or tostring(cell)
    width[k] = math.max(width[k] or 0, #line[k])
  end
end
print()
for _, line in ipairs(lines) do
  for k, cell in ipairs(line) do line[k] = cell .. (" "):rep(width[k] - #cell) end
  print((table.concat(line, "  "):gsub("%s+$", "")))
end
os.exit(same == numbers, true)
