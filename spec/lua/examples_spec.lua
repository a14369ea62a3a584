-- The scripts of scripts/examples: each runs on data of its own, saves what neap.load reads, and
-- says in one line what is wrong with its arguments and files.
local neap = require "neap"
local help = require "data_help"
local examples = require "examples_help"

local run, result_of = examples.run, examples.result_of

-- For each script the kind of task it saves, the score it is judged by, and what it must reach or
-- stay under on its own data.
local scripts = {
  classify = { "seq2class", "dev_accuracy", 0.9 },
  rows = { "seq2class", "dev_accuracy", 0.6 },
  pixels = { "seq2class", "dev_accuracy", 0.75 },
  caption = { "async_seq2seq", "dev_f1", 0.9 },
  tag = { "synced_seq2seq", "dev_accuracy", 0.9 },
  stress = { "synced_seq2seq", "dev_accuracy", 0.9 },
  g2p = { "async_seq2seq", "dev_wer", nil, 0.2 },
  speech = { "seq2class", "dev_accuracy", 0.9 },
  translate = { "async_seq2seq", "dev_bleu", 95 },
  charlm = { "language_model", "dev_nats", nil, 1.5 },
  wordlm = { "language_model", "dev_perplexity", nil, 1.45 },
  sine = { "forecaster", "dev_rmse", nil, 0.2 },
  forecast = { "forecaster", "dev_rolled", nil, 0.5 },
  hmm = { "hmm", "counted_off", nil, 0.05 },
  memory = { "seq2class", "dev_accuracy", 0.9 },
  vanishing = { "forecaster", "dev_rmse", nil, 0.5 },
  gates = { "synced_seq2seq", "dev_accuracy", 0.85 },
  modes = { "async_seq2seq", "dev_accuracy", 0.7 },
  window = { "synced_seq2seq", "dev_accuracy", 0.95 },
}
-- Those that always make their data take no files of it.
local made = { sine = true, hmm = true, memory = true, vanishing = true, gates = true, modes = true,
  window = true }

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
      refuses(1, ": no/such/folder/model: No such", "--quick --model no/such/folder/model")
      refuses(2, "--epochs: expected a whole number from 1, came -1", "--epochs -1")
      local other = folder.write("other", "no model")
      refuses(1, other, "--quick --load " .. other)
      if not made[script] then
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

  it("take what is given beside --quick", function()
    local _, errors = run(folder, "g2p", "--quick --epochs 5 --size 8 --batch 500 --rate 0.5")
    assert.matches("epoch 5/5  loss", errors, 1, true)
    assert.matches("epoch 1/5  loss %S+  wer %S+  rate 0.433 ", errors) -- it falls at once
    local small = select(2, result_of((run(folder, "g2p", "--quick --epochs 1 --size 8"))))
    local usual = select(2, result_of((run(folder, "g2p", "--quick --epochs 1"))))
    assert.is_true(small.parameters < usual.parameters)
  end)

  it("say that the model could not be saved, give the scores, and end with 1", function()
    for script in pairs(scripts) do
      local text, errors, status = run(folder, script, "--quick --epochs 1 --model /dev/full")
      assert.equal(1, status, script)
      assert.equal(script, (result_of(text)))
      assert.matches("\n" .. script .. ": not saved: /dev/full: [^\n]*No space left", errors)
    end
  end)

  it("answer with a saved model alone, without data", function()
    local function answers(script, args, expected)
      local path = folder.path .. "/alone.safetensors"
      assert.equal(0, select(3, run(folder, script, "--quick --epochs 2 --model " .. path)))
      local text, errors, status = run(folder, script, ("--load %s %s"):format(path, args))
      assert.equal("", errors)
      assert.equal(0, status)
      assert.matches("^" .. expected .. "\nresult task=" .. script
        .. " seconds=%S+ parameters=%d+\n$", text)
    end
    answers("classify", "über dudu", "über +%l%l +0%.%d%d\ndudu +ba +[01]%.%d%d")
    answers("g2p", "--beam 1 shee", "shee\t%l[%l ]*")
    answers("translate", "'the dog sees every fish'", "the dog sees every fish\t%l[%l ]*\n"
      .. " +the dog sees every fish\n%l[%l ░▒▓█\n]*")
    answers("tag", "The 'muon lar'", "The/DET muon/%u+ lar/%u+")
    answers("charlm", "--prompt 'the t' --generate 4", "the t....")
  end)

  it("refuse texts and numbers that make no sense", function()
    local function refuses(script, args, message)
      local text, errors, status = run(folder, script, args)
      assert.same({ "", 2 }, { text, status })
      assert.equal(("%s: %s (--help shows the options)\n"):format(script, message), errors)
    end
    refuses("charlm", "--temperature -1", "--temperature: expected a number from 0, came -1")
    refuses("charlm", "--temperature=-.5", "--temperature: expected a number from 0, came -.5")
    refuses("wordlm", "--temperature -1", "--temperature: expected a number from 0, came -1")
    refuses("charlm", "--prompt ''", "expected a text, came an empty one")
    refuses("classify", "$(printf '\\377')", "expected a text in UTF-8")
    refuses("g2p", "--mix 2", "--mix: expected a number from 0 to 1, came 2")
    refuses("translate", "--smoothing 1",
      "--smoothing: expected a number from 0 to less than 1, came 1")
    refuses("g2p", "--dropout 1", "--dropout: expected a number from 0 to less than 1, came 1")
  end)

  it("say that data is too little, that it does not fit the model, and where it was looked for",
    function()
      local function says(script, args, message)
        local text, errors, status = run(folder, script, args)
        assert.same({ "", 1 }, { text, status })
        assert.equal(script .. ": " .. message .. "\n", errors)
      end
      local one, short = folder.write("one.tsv", "ab\tx\n"), folder.write("short", "ab")
      local little = one .. ": too little to keep a part of it apart: give more, or --dev FILE"
      says("classify", "--train " .. one, little)
      says("g2p", "--train " .. one, little)
      says("translate", "--train " .. one, little)
      says("charlm", ("--train %s --dev %s"):format(short, short),
        "--train: too little: expected at least 64 characters, came 2")
      says("wordlm", ("--train %s --dev %s"):format(short, short),
        "--train: too little: expected at least 64 words, came 2")
      local blank = folder.write("blank", "\n\n")
      says("wordlm", ("--train %s --dev %s"):format(blank, short), blank .. ": nothing in it")
      local long = folder.write("long", ("ab"):rep(64))
      says("charlm", ("--train %s --dev %s"):format(long, short),
        "--dev: too little: expected at least 32 characters, came 2")

      local path = folder.path .. "/other.safetensors"
      assert.equal(0, select(3, run(folder, "rows", "--quick --epochs 1 --model " .. path)))
      -- an IDX file of one picture, 2 x 3
      local picture = folder.write("images-idx3", "\0\0\8\3"
        .. "\0\0\0\1\0\0\0\2\0\0\0\3" .. "abcdef")
      folder.write("labels-idx1", "\0\0\8\1\0\0\0\1\7")
      says("rows", ("--load %s --dev %s"):format(path, picture),
        path .. ": its model reads rows of 8 pixels, the pictures have rows of 3 pixels")
      says("classify", "--quick --load " .. path,
        path .. ": its model does not read input as symbols")

      assert.equal(0, select(3, run(folder, "classify", "--quick --epochs 1 --model " .. path)))
      local text, errors, status = run(folder, "classify", ("--load %s --dev %s"):format(path, one))
      assert.equal(0, status)
      assert.equal(("classify: %s knows none of the outputs in the data: it knows ba, ki, mu, "
        .. "there are x\n"):format(path), errors)
      assert.equal(0, select(2, result_of(text)).dev_accuracy)

      -- a checkout with no data beside it
      local checkout = folder.path .. "/a/neap"
      assert(os.execute(("mkdir -p %s/scripts && cp -r scripts/neap scripts/examples %s/scripts && "
        .. "ln -s \"$PWD/bindings\" %s/bindings"):format(checkout, checkout, checkout)))
      local build = os.getenv "NEAP_BUILD" or "$PWD/build"
      local pipe <close> = assert(io.popen(("export NEAP_BUILD=%s; cd %s && scripts/neap run "
        .. "scripts/examples/classify.lua 2>&1; scripts/neap run %s/scripts/examples/classify.lua "
        .. "--help"):format(build, checkout, checkout)))
      local out = pipe:read "a"
      assert.matches("classify: no ../shared/data/names/train.tsv: give --train FILE "
        .. "(text, tab, class)\n", out, 1, true)
      assert.matches(folder.path .. "/a/shared/data/names/train.tsv\n", out, 1, true)
    end)

  it("row 43: a class for a text, tags for words, a sequence for a sequence, each has a script",
    function()
      assert.same({ "seq2class", "synced_seq2seq", "async_seq2seq" },
        { scripts.classify[1], scripts.tag[1], scripts.g2p[1] })
    end)

  it("rows 52 and 63: each use that the notes name and that is listed has a script", function()
    for use, script in pairs { ["a language model"] = "charlm", handwriting = "modes",
      video = "modes", speech = "speech", translation = "translate", stocks = "forecast",
      ["what a picture shows"] = "caption" } do
      assert(scripts[script], use)
    end
  end)

end)
