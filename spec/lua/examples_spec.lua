-- The scripts of scripts/examples: each runs on data of its own, saves what neap.load reads, and
-- says in one line what is wrong with its arguments and files.
local neap = require "neap"
local help = require "data_help"

-- What it wrote to standard output, to standard error, and its exit status.
local function run(folder, script, args)
  local errors = folder.path .. "/errors"
  local pipe = assert(io.popen(("scripts/neap run scripts/examples/%s.lua %s 2>%s"):format(script,
    args, errors)))
  local text = pipe:read "a"
  local _, _, status = pipe:close()
  local file <close> = assert(io.open(errors))
  return text, file:read "a", status
end

local function result_of(text)
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

-- For each script the kind of task it saves, the score it is judged by, and what it must reach or
-- stay under on its own data.
local scripts = {
  classify = { "seq2class", "dev_accuracy", 0.9 },
  rows = { "seq2class", "dev_accuracy", 0.6 },
  tag = { "synced_seq2seq", "dev_accuracy", 0.9 },
  stress = { "synced_seq2seq", "dev_accuracy", 0.9 },
  g2p = { "async_seq2seq", "dev_wer", nil, 0.9 },
  charlm = { "language_model", "dev_nats", nil, 1.5 },
  sine = { "forecaster", "dev_rmse", nil, 0.2 },
}

describe("examples", function()
  local folder
  setup(function() folder = help.folder() end)
  teardown(function() folder.remove() end)

  it("are all known here", function()
    local pipe <close> = assert(io.popen "ls scripts/examples")
    local found = {}
    for file in pipe:lines() do
      local name = file:match "^(.*)%.lua$"
      if name and name ~= "common" and name ~= "demo" then found[name] = true end
    end
    local known = {}
    for name in pairs(scripts) do known[name] = true end
    assert.same(known, found)
  end)

  for script, expected in pairs(scripts) do
    local kind, key, least, most = expected[1], expected[2], expected[3], expected[4]

    it(script .. " learns, saves, and gives the same scores with what it saved", function()
      local path = folder.path .. "/" .. script .. ".safetensors"
      local text, errors, status = run(folder, script, "--quick --model " .. path)
      assert.equal(0, status, errors)
      local name, values = result_of(text)
      assert.equal(script, name)
      assert.is_true(not least or values[key] >= least, text)
      assert.is_true(not most or values[key] <= most, text)
      assert.equal("integer", math.type(values.parameters))
      assert.is_number(values.seconds)
      assert.matches("epoch 1/%d+  loss %d", errors)

      local model = assert(neap.load(path))
      assert.equal(kind, model.kind)
      assert.equal(values.parameters, model:parameters())

      text, errors, status = run(folder, script, "--quick --load " .. path)
      assert.equal(0, status, errors)
      local _, again = result_of(text)
      assert.equal(values[key], again[key])
      assert.equal("", errors)
    end)

    it(script .. " refuses wrong arguments and files in one line", function()
      local function refuses(status, message, args)
        local text, errors, came = run(folder, script, args)
        assert.equal("", text, args)
        assert.matches("^" .. script .. ": [^\n]*\n$", errors)
        assert.matches(message, errors, 1, true)
        assert.equal(status, came, args)
      end
      refuses(2, "--epochs", "--epohs 2")
      refuses(2, "expected a whole number from 1, came 0", "--epochs 0")
      refuses(2, "expected a whole number from 1, came x", "--threads x")
      refuses(1, "no/such/file", "--quick --load no/such/file")
      refuses(1, "no/such/folder/model", "--quick --model no/such/folder/model")
      local other = folder.write("other", "no model")
      refuses(1, other, "--quick --load " .. other)
      if script ~= "sine" then
        refuses(2, "--quick", "--quick --train x")
        refuses(1, "no/such/file", "--train no/such/file --dev no/such/file")
        local bad = folder.write("bad", "\255\254\0\1")
        refuses(1, bad, ("--train %s --dev %s"):format(bad, bad))
      end
    end)

    it(script .. " explains itself", function()
      local text, errors, status = run(folder, script, "--help")
      assert.equal(0, status, errors)
      assert.equal("", errors)
      for _, option in ipairs { "--quick", "--model", "--load", "--epochs", "--seed", "--threads" } do
        assert.matches(option, text, 1, true)
      end
    end)
  end

  it("refuse a model of another task", function()
    local path = folder.path .. "/sine.safetensors"
    assert.equal(0, select(3, run(folder, "sine", "--quick --epochs 1 --model " .. path)))
    local _, errors, status = run(folder, "classify", "--quick --load " .. path)
    assert.equal(1, status)
    assert.equal(("classify: %s: expected a seq2class, came a forecaster\n"):format(path), errors)
  end)

  it("classify reads files, keeps a part apart, and scores a test file", function()
    local lines = {}
    for i = 1, 60 do
      lines[i] = i % 2 == 0 and ("ab" .. i .. "\teven") or ("xy" .. i .. "\todd")
    end
    local train = folder.write("train.tsv", table.concat(lines, "\n") .. "\n")
    local test = folder.write("test.tsv", "ab7\teven\nxy8\todd\nxyz\tunheard\n")
    local text, errors, status = run(folder, "classify",
      ("--train %s --test %s --epochs 8 --threads 1 --seed 3"):format(train, test))
    assert.equal(0, status, errors)
    local _, values = result_of(text)
    assert.is_true(values.test_accuracy <= 0.6667 and values.test_accuracy >= 0.3333, text)
    local wrong = folder.write("wrong.tsv", "one\ttwo\nonly one\n")
    text, errors, status = run(folder, "classify", "--train " .. wrong)
    assert.equal(("classify: corpus: %s:2: expected 2 columns (text, class), came 1: no tab is in "
      .. "the line\n"):format(wrong), errors)
    assert.equal("", text)
    assert.equal(1, status)
  end)

  it("charlm writes on from a prompt with a saved model, and needs no text for that", function()
    local path = folder.path .. "/text.safetensors"
    assert.equal(0, select(3, run(folder, "charlm", "--quick --epochs 1 --model " .. path)))
    local text, errors, status = run(folder, "charlm",
      ("--load %s --generate 40 --prompt 'the tide ' --temperature 0"):format(path))
    assert.equal(0, status, errors)
    assert.matches("^the tide ", text)
    assert.is_true(#text > 49)
    local _, values = result_of(text)
    assert.is_nil(values.dev_nats)
  end)

  it("stress prints the usual pattern's score beside its own", function()
    local text = run(folder, "stress", "--quick")
    local _, values = result_of(text)
    assert.is_true(values.dev_accuracy > values.baseline_accuracy)
    assert.is_true(values.dev_wer < values.baseline_wer)
  end)
end)
