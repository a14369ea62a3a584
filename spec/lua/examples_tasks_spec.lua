-- What each script of scripts/examples is for, at length: on data of its own, on files, with its
-- own options.
local neap = require "neap"
local help = require "data_help"
local examples = require "examples_help"
local run, result_of = examples.run, examples.result_of

describe("example", function()
  local folder
  setup(function() folder = help.folder() end)
  teardown(function() folder.remove() end)

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

  it("classify reads words of several columns, and lists of words", function()
    local lines = {}
    for i = 1, 80 do
      lines[i] = i % 2 == 0 and ("odd\tone\tand %d more\tx"):format(i)
        or ("even\tTwo\tand %d too\ty"):format(i)
    end
    local train = folder.write("columns.tsv", table.concat(lines, "\n") .. "\n")
    local path = folder.path .. "/columns.safetensors"
    local text, errors, status = run(folder, "classify", ("--train %s --columns class,a,b,a --words "
      .. "--epochs 20 --threads 1 --members 1 --model %s"):format(train, path))
    assert.equal(0, status, errors)
    assert.equal(1, select(2, result_of(text)).dev_accuracy)
    assert.matches("Two and %d+ too y +even ", text)
    text = run(folder, "classify", ("--load %s 'One and 7 more'"):format(path))
    assert.matches("^One and 7 more +odd ", text)

    local lists = {}
    for k, letters in ipairs { "abcde", "fghij" } do
      local words = { "common", "don't", "Stra\xDFe" }
      for i = 0, 124 do
        words[#words + 1] = letters:sub(i // 25 + 1, i // 25 + 1)
          .. letters:sub(i // 5 % 5 + 1, i // 5 % 5 + 1) .. letters:sub(i % 5 + 1, i % 5 + 1)
      end
      lists[k] = folder.write(k == 1 and "early" or "late", table.concat(words, "\n"))
    end
    text, errors, status = run(folder, "classify", ("--lists %s --each 120 --epochs 2 --threads 1 "
      .. "--members 2"):format(table.concat(lists, " ")))
    assert.equal(0, status, errors)
    local values = select(2, result_of(text))
    assert.is_true(values.dev_accuracy > 0.8 and values.dev_accuracy <= values.dev_possible, text)
    assert.matches("early +%d+ +[.%d]+\n", text)
    assert.matches("network 2 of 2", errors, 1, true)

    text, errors, status = run(folder, "classify", "--quick --baseline ngrams --members 1")
    assert.equal(0, status, errors)
    assert.is_true(select(2, result_of(text)).dev_accuracy > 0.9, text)

    for args, expected in pairs {
      ["--baseline ngrams --ngrams 0"] = "2 --baseline ngrams: expected --ngrams from 1, came 0",
      ["--columns a,b"] = "2 --columns: expected class and names of other columns, came a,b",
      ["--columns class"] = "2 --columns: expected class and names of other columns, came class",
      ["--quick --lists a b"] = "2 --lists is data too: expected no --quick",
      ["--lists " .. lists[1]] = "2 option '--lists' requires at least 2 arguments (--help shows "
        .. "the options)",
      [("--lists %s no/such/list"):format(lists[1])] = "1 no/such/list: No such file or directory",
      [("--lists %s %s"):format(lists[1], folder.write("few", "one\ntwo\n"))] =
        "1 " .. folder.path .. "/few: too little: expected at least 10 words, came 2",
    } do
      text, errors, status = run(folder, "classify", args)
      assert.same({ "", expected:sub(1, 1) .. " classify: " .. expected:sub(3) .. "\n" },
        { text, status .. " " .. errors })
    end
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

  it("wordlm scores a trigram beside the network, and both mixed", function()
    local path = folder.path .. "/words.safetensors"
    local text, errors = run(folder, "wordlm", "--quick --model " .. path)
    local _, values = result_of(text)
    assert.is_true(values.dev_perplexity < values.dev_trigram - 0.1, text)
    assert.is_true(values.dev_mixed < values.dev_trigram, text)
    assert.matches("\n  network +%d", text)
    assert.matches("perplexity in 16 columns", errors, 1, true)
    text = run(folder, "wordlm", ("--load %s --prompt 'The moon' --generate 5"):format(path))
    assert.matches("^The network writes:\n  The moon [^\n]+.-\nresult task=wordlm seconds", text)

    -- a text whose parts are kept apart, and a test file
    local lines = {}
    for i = 1, 200 do
      lines[i] = ("It was %s, said the \"old\" man's dog (%d).\n"):format(i % 3 == 0 and "late"
        or "dark", i)
    end
    local train = folder.write("lines", table.concat(lines, "\n"))
    local test = folder.write("test", "It was late, said the cat.\n")
    text, errors = run(folder, "wordlm", ("--train %s --test %s --epochs 1 --threads 1 "
      .. "--generate 9"):format(train, test))
    values = select(2, result_of(text))
    assert.is_true(values.test_perplexity > values.test_trigram, text .. errors)
    assert.matches("Perplexity on 9 words and marks of test, 11.1 % of them unknown", text, 1, true)

    -- fortunes: a folder; what comes twice is taken once, and a file with a dot is none
    os.execute(("mkdir -p '%s/jokes'"):format(folder.path))
    for k, name in ipairs { "a", "b", "b.dat" } do
      local jokes = {}
      for i = 1, 60 do jokes[i] = ("Knock %d, knock.\n\t-- A. Guest\n"):format(i * (k % 2)) end
      folder.write("jokes/" .. name, table.concat(jokes, "%\n"))
    end
    folder.write("jokes/c", "Who is\nthere?\n\xe9\n")
    local _, said, came = run(folder, "wordlm", ("--train %s/jokes"):format(folder.path))
    assert.equal(1, came)
    assert.matches("jokes/c:3: expected UTF-8, came other bytes\n", said, 1, true)
    os.remove(folder.path .. "/jokes/c")
    text = run(folder, "wordlm", ("--train %s/jokes --epochs 1 --threads 1"):format(folder.path))
    assert.matches("Perplexity on 33 words and marks of dev", text, 1, true)
  end)

  it("g2p learns languages one by one, and prints their scores beside published ones", function()
    local data, codes = folder.path .. "/languages", { "bul", "dut", "fre", "hun", "ice", "jpn" }
    local spelled = { "ав", "ва", "а", "в" }
    assert(os.execute("mkdir " .. data))
    for _, code in ipairs(codes) do
      local lines = {}
      for i = 1, 20 do
        local word = spelled[i % #spelled + 1]
        lines[i] = word .. "\t" .. word:gsub(utf8.charpattern, "%0 "):sub(1, -2)
      end
      folder.write("languages/" .. code .. "_train.tsv", table.concat(lines, "\n") .. "\n")
      folder.write("languages/" .. code .. "_dev.tsv", lines[1] .. "\n" .. lines[2] .. "\n")
    end
    folder.write("languages/fre_test.tsv", "ва\tв а\n")
    local args = ("--quick --size 24 --batch 4 --epochs 60 --languages %s"):format(data)
    local text, errors, status = run(folder, "g2p", args)
    assert.equal(0, status, errors)
    assert.matches("\nFrench +0.00 +0.00 +0.00 +6.22\n", text)
    assert.matches("\nHungarian +0.00 +0.00 +%- +5.33\n", text)
    local _, values = result_of(text)
    assert.same({ 0, 0, 0 }, { values.dev_wer, values.dev_per, values.dev_wer_bul })

    local function says(status, message, args)
      local text, errors, came = run(folder, "g2p", args)
      assert.same({ "", status }, { text, came })
      assert.matches(message, errors, 1, true)
    end
    says(2, "g2p: --languages: not with --load\n", ("--languages %s --load x"):format(data))
    says(1, "no/such/bul_train.tsv: No such file", "--languages no/such")
    assert.matches("--languages: 20; with --quick: 3)", run(folder, "g2p", "--help"), 1, true)
  end)

  it("g2p looks at all letters too, and says what cannot be aligned", function()
    for kind, most in pairs { general = 0.9, additive = 0.9, aligned = 0.2 } do
      local text, errors, status = run(folder, "g2p", "--quick --attention " .. kind)
      assert.equal(0, status, errors)
      assert.is_true(select(2, result_of(text)).dev_wer < most, kind .. text)
      assert.equal(kind == "aligned", errors:find "their letters stand for" ~= nil)
    end
    local lines = {}
    for i = 1, 40 do lines[i] = i % 4 == 0 and "a\tA B C" or "ab\tA B" end
    folder.write("long.tsv", table.concat(lines, "\n") .. "\n")
    local _, errors, status = run(folder, "g2p",
      ("--size 8 --epochs 1 --train %s/long.tsv --dev %s/long.tsv"):format(folder.path, folder.path))
    assert.equal(0, status, errors)
    assert.matches("30 words: their letters stand for 2 different pieces; 10 other words left out",
      errors, 1, true)
    folder.write("long.tsv", "a\tA B C\n")
    _, errors, status = run(folder, "g2p",
      ("--size 8 --epochs 1 --train %s/long.tsv --dev %s/long.tsv"):format(folder.path, folder.path))
    assert.equal(1, status)
    assert.matches("^g2p: [^\n]*long.tsv: corpus:align: most: expected some phonemes of at most 2 "
      .. "symbols for each of its word, came none of 1\n$", errors)
  end)

  it("tag has the transitions of a CRF and a hidden Markov model beside it", function()
    local text, errors, status = run(folder, "tag", "--quick --crf --baseline hmm")
    assert.equal(0, status, errors)
    assert.is_true(select(2, result_of(text)).dev_accuracy > 0.9, text)
  end)

  it("translate reads pairs, goes both ways, and shows what it looks at", function()
    local lines, numbers = {}, { "one", "two", "three", "four" }
    local letters = { one = "a", two = "b", three = "c", four = "d" }
    for i = 0, 255 do
      local said, written = {}, {}
      for k = 1, 2 + i % 3 do
        said[k] = numbers[1 + (i >> 2 * (k - 1)) % 4]
        written[k] = letters[said[k]]
      end
      lines[i + 1] = ("%s\t%s\tsomeone"):format(table.concat(said, " "), table.concat(written, " "))
    end
    local train = folder.write("pairs.tsv", table.concat(lines, "\n") .. "\n")
    -- two right translations of one sentence: the second is what the model writes
    local dev = folder.write("dev.tsv",
      "one two one two\td d d d\tx\none two one two\ta b a b\tx\n")
    local path = folder.path .. "/numbers.safetensors"
    local given = ("--train %s --dev %s --epochs 30 --size 32 --dropout 0 --rate 0.01 "):format(
      train, dev) .. "--tokens 100 "
    local text, errors, status = run(folder, "translate", given .. "--subwords 0 --test " .. dev
      .. " --model " .. path)
    assert.equal(0, status, errors)
    local _, values = result_of(text)
    assert.equal(100, values.dev_bleu, text)
    assert.equal(100, values.test_bleu)
    assert.matches("dev: BLEU 100.00, in 95 of 100 samples 100.00 to 100.00\n", text, 1, true)

    text = run(folder, "translate", ("--load %s 'three one four'"):format(path))
    local rows = {}
    for row in text:gmatch "[^\n]+" do rows[#rows + 1] = row end
    assert.equal("three one four\tc a d", rows[1])
    assert.equal("  three one four", rows[2])
    for i, letter in ipairs { "c", "a", "d" } do
      assert.matches("^" .. letter .. " ", rows[2 + i])
    end

    dev = folder.write("back.tsv", "three one two one\tc a b a\tx\n")
    text, errors, status = run(folder, "translate", given:gsub("dev%.tsv", "back.tsv")
      .. "--subwords 5 --reverse")
    assert.equal(0, status, errors)
    assert.equal(100, select(2, result_of(text)).dev_bleu, text)
    assert.matches("c a b a\n    three one two one\n", text, 1, true)
  end)

  it("tag scores a hidden Markov model beside it, with a saved network too", function()
    local path = folder.path .. "/tags.safetensors"
    local text = run(folder, "tag", "--quick --baseline hmm --model " .. path)
    local _, values = result_of(text)
    assert.is_true(values.baseline_accuracy > 0.5, text)
    local again = select(2, result_of((run(folder, "tag", "--quick --baseline hmm --load "
      .. path))))
    assert.equal(values.baseline_accuracy, again.baseline_accuracy)
    local _, errors, status = run(folder, "tag", "--quick --baseline mhm")
    assert.equal(2, status)
    assert.matches("^tag: [^\n]*must be one of 'hmm'[^\n]*\n$", errors)
  end)

  it("hmm finds the dice again, and knows as much as can be known", function()
    local _, values = result_of((run(folder, "hmm", "--quick")))
    assert.is_true(values.hidden_off < 0.2 and values.markov_off < 0.1)
    assert.is_true(math.abs(values.dev_nats - values.possible_nats) < 0.01)
    assert.is_true(values.posterior_accuracy > values.dev_accuracy)
    assert.is_true(values.network_accuracy > 0.7)
  end)

  it("vanishing shows what vanishes, what explodes, and that clipping is needed", function()
    local text = run(folder, "vanishing", "--quick")
    local _, values = result_of(text)
    assert.is_true(math.abs(values.rnn_09 / 5.154e-3 - 1) < 0.02)
    assert.is_true(math.abs(values.rnn_11 / 117.39 - 1) < 1e-3)
    assert.equal(1, values.lstm)
    assert.is_true(math.abs(values.rnn_11 - values.lstm_fed_back) < 0.01)
    assert.is_true(values.clipped > 20 and values.clipped_value > 20)
    assert.is_true(values.value_rmse < 0.5)
    assert.matches("without clipping: [^\n]* came up", text)
    assert.matches("\n  sigmoid |[^|]+#|  first beside last %d%.%de%-2%d\n", text)
    assert.matches("\n    layer 4 |[#+-.' ]+|\n    layer 3 |", text)
  end)

  it("gates shows them by hand, forced, replaced, learned, and draws them", function()
    local picture = folder.path .. "/gates.svg"
    local text, errors = run(folder, "gates", "--quick --picture " .. picture)
    local _, values = result_of(text)
    assert.is_true(math.abs(values.by_hand_6 - 6.9995) < 1e-4)
    assert.is_true(math.abs(values.by_hand_9 - 5.9998) < 1e-4)
    assert.equal(48, values.same_bits)
    assert.is_true(values.z_10 > values.z_00 + 0.1, text)
    assert.is_true(values.after_reset > 0.4 and values.correlation > 0.5, text)
    assert.matches("\n  output function tanh, +at 1: 0%.6420\n", text)
    assert.matches("signs of z's weights turned   0%.000000%d\n", text)
    assert.matches("\nf = 0.5  c   8.00   4.00   2.00   1.00\n", text, 1, true)
    assert.matches("lstm: gate: relu has no bounds", errors, 1, true)
    assert.matches("\n +%d+  |.........| |.........| |.........| |.........| |.........|  +%S+\n",
      text)
    local file = io.open(picture)
    if not file then return assert.matches("gates: no picture: [^\n]*gnuplot", errors) end
    assert.matches("c moves", file:read "a", 1, true)
    file:close()
    local status
    text, errors, status = run(folder, "sine", "--quick --epochs 1 --picture no/such/picture.svg")
    assert.equal(1, status)
    assert.equal("sine", (result_of(text)))
    assert.matches("\nsine: no picture: no/such/picture.svg cannot be written", errors, 1, true)
  end)

  it("modes learns in each of them", function()
    local text = run(folder, "modes", "--quick")
    local _, values = result_of(text)
    assert.is_true(values.one_to_one > 0.95 and values.one_to_many > 0.4, text)
    assert.is_true(values.many_to_one > 0.6 and values.one_frame < 0.4, text)
    assert.is_true(values.many_to_many > 0.6 and values.dev_ler < 0.2, text)
    assert.matches("\n  [LNOSUZ], [1-4] wide, [1-4] high:\n    [ #]+\n", text)
  end)

  it("window shows what a window holds and what not, and what remembers", function()
    local text = run(folder, "window", "--quick")
    local _, values = result_of(text)
    for _, name in ipairs { "window_2", "window_8", "elman", "gru", "lstm" } do
      assert.is_true(values[name .. "_1"] > 0.95, text)
      local far = values[name .. "_7"]
      assert.is_true(name == "window_2" and far < 0.4 or name ~= "window_2" and far > 0.9, text)
    end
    assert.is_true(values.off_16 < values.off_1 / 3, text)
  end)

  it("memory shows what an Elman network forgets and gated ones keep", function()
    local text = run(folder, "memory", "--quick")
    local _, values = result_of(text)
    for _, kind in ipairs { "elman", "gru", "lstm" } do
      assert.is_true(values[kind .. "_2"] > 0.9, text)
    end
    assert.is_true(values.elman_40 < 0.7 and values.lstm_40 > 0.9 and values.gru_40 > 0.9, text)
    assert.matches("lstm   over 40 steps: accuracy %S+\n  first |[#+-.' ]+|\n  last  |[#+-.' ]+|", text)
  end)

  it("forecast reads columns by name, with gaps, and forecasts a test file too", function()
    local rng, lines = neap.rng(3), { "day,note,up,down" }
    for t = 1, 90 do
      local x = 50 + t + 10 * math.sin(t * math.pi / 2) + rng:normal()
      lines[t + 1] = ("%d,\"a, b\",%s,%.2f"):format(t, t == 30 and "NA" or ("%.2f"):format(x),
        200 - x)
    end
    local function file(name, from, to)
      return folder.write(name, lines[1] .. "\n" .. table.concat(lines, "\n", from + 1, to + 1)
        .. "\n")
    end
    local train, test = file("train.csv", 1, 80), file("test.csv", 81, 90)
    local common = ("--train %s --columns up,down --gaps hold --season 4 "):format(train)
    local draws = os.execute "command -v gnuplot >/dev/null"
    local text, errors, status = run(folder, "forecast", common .. "--epochs 2 --test " .. test
      .. (draws and " --picture " .. folder.path .. "/up.svg" or ""))
    assert.equal(0, status, errors)
    assert.matches("\nup +1 step  [^\n]*\n +16 steps  [^\n]*\ndown +1 step  ", text)
    assert.matches("\nup: %. what came, o rolled out, @ both, %- interval of 80 %%: %d+ of 16 lie", text)
    local _, values = result_of(text)
    assert.is_number(values.test_ahead)
    assert.is_true(values.dev_rolled < 1 and values.test_rolled > 0, text)
    if draws then
      local svg <close> = assert(io.open(folder.path .. "/up.svg"))
      assert.matches("rolled out", svg:read "a", 1, true)
    end
    local function refuses(came, message, args)
      text, errors, status = run(folder, "forecast", args)
      assert.same({ "", came }, { text, status }, errors)
      assert.matches("^forecast: [^\n]*\n$", errors)
      assert.matches(message, errors, 1, true)
    end
    refuses(2, '--columns: "op" is not among the columns; did you mean "up"?',
      "--columns op --train " .. train)
    refuses(1, train .. ':31: column up: expected a number, came "NA"',
      "--columns up --train " .. train)
    refuses(1, "--train: too little: expected at least 240 steps to learn from, and three seasons, "
      .. "came 64", common .. "--season 80")
    refuses(1, "value: the same in each season: there is nothing to learn",
      "--season 2 --train " .. folder.write("same.csv", "t,value\n" .. ("1,2\n2,3\n"):rep(40)))
    refuses(2, "--series: expected no --train, --dev or --quick beside it", "--series co2 --quick")
    refuses(2, "--model is for one series: give --series, or --train", "--model x")
    refuses(2, "--dev needs --train or --load", "--dev " .. train)
    refuses(2, "must be one of 'airpassengers', 'co2'", "--series stars")
    local path = folder.path .. "/one.safetensors"
    assert.equal(0, select(3, run(folder, "forecast", "--quick --epochs 1 --model " .. path)))
    refuses(1, path .. ": its model reads 1 columns, the series has 2",
      common .. "--load " .. path)
  end)

  it("speech --ctc reads strings, shows where it has read what, and draws it", function()
    local path, picture = folder.path .. "/strings.safetensors", folder.path .. "/strings.svg"
    local text, errors, status = run(folder, "speech", "--quick --ctc --model " .. path)
    assert.equal(0, status, errors)
    local _, values = result_of(text)
    assert.is_true(values.dev_error < 0.1 and values.dev_error_greedy < 0.2, text)
    assert.matches("likeliest readings of [%d ]+, and their ln P:\n +%-%d+%.%d%d  %d", text)
    assert.matches("\n +said |[%d ]+|\n", text)
    assert.matches("\n +%d |[ .:=+*#%%@-]+|\n", text)
    assert.equal("ctc", assert(neap.load(path)).loss_name)

    local again
    again, errors, status = run(folder, "speech", ("--quick --ctc --load %s --picture %s"):format(path,
      picture))
    if os.execute "command -v gnuplot >/dev/null" then
      assert.equal("", errors)
      assert.equal(0, status)
      local file <close> = assert(io.open(picture))
      assert.matches("^<%?xml.*</svg>%s*$", file:read "a")
    end
    local _, loaded = result_of(again)
    for key, value in pairs(values) do
      if key ~= "seconds" then assert.equal(value, loaded[key], key) end
    end
    _, errors, status = run(folder, "speech", ("--quick --ctc --load %s --picture %s/no/x.png"):format(
      path, folder.path))
    assert.equal(1, status)
    assert.matches("^speech: no picture: [^\n]*/no/x.png cannot be written, or [^\n]*\n$", errors)
    _, errors, status = run(folder, "speech", "--quick --load " .. path)
    assert.equal(1, status)
    assert.equal(("speech: %s: expected a seq2class, came a synced_seq2seq\n"):format(path), errors)
  end)

  it("speech learns from sound files and hears others", function()
    local lines, rng = {}, neap.rng(1)
    for i = 1, 40 do
      local word, samples = i % 2 == 0 and "low" or "high", {}
      for t = 1, 700 + rng:int(400) do
        samples[t] = 0.3 * math.sin(t * (i % 2 == 0 and 0.3 or 1.5)) + 0.01 * rng:uniform()
      end
      assert(neap.audio.write(("%s/%d.wav"):format(folder.path, i), samples, 8000))
      lines[i] = ("%d.wav\t%s\tspeaker\n"):format(i, word)
    end
    local train = folder.write("sounds.tsv", table.concat(lines))
    local path = folder.path .. "/heard.safetensors"
    local text, errors, status = run(folder, "speech",
      ("--train %s --epochs 4 --threads 1 --model %s"):format(train, path))
    assert.equal(0, status, errors)
    assert.equal(1, select(2, result_of(text)).dev_accuracy)
    local file = folder.path .. "/1.wav"
    text, errors, status = run(folder, "speech", ("--load %s %s"):format(path, file))
    assert.same({ "", 0 }, { errors, status })
    assert.matches("^" .. file .. " +high +[01]%.%d%d\nresult task=speech ", text)
    local pipe <close> = assert(io.popen(("scripts/neap apply %s %s"):format(path, file)))
    assert.matches("^high\t[01]%.%d+\n$", pipe:read "a")

    local function says(args, message)
      local out, said, code = run(folder, "speech", args)
      assert.same({ "", 1 }, { out, code })
      assert.equal("speech: " .. message .. "\n", said)
    end
    local fast, tones = folder.path .. "/fast.wav", {}
    for t = 1, 3200 do tones[t] = 0.3 * math.sin(t * 0.15) end
    assert(neap.audio.write(fast, tones, 16000)) -- 0.3 at 8000
    text = run(folder, "speech", ("--load %s %s"):format(path, fast))
    assert.matches("^" .. fast .. " +low +[01]%.%d%d\n", text)
    assert(neap.audio.write(fast, tones, 7919))
    says(("--load %s %s"):format(path, fast), ("audio: %s: expected a rate in a ratio of smaller "
      .. "numbers to 8000, came 7919 (a script, sequence 1)"):format(fast))
    local more = folder.write("more.tsv", "1.wav\thigh\nfast.wav\tlow\n")
    says(("--train %s --dev %s"):format(train, more), ("audio: %s: expected a rate in a ratio of "
      .. "smaller numbers to 8000, came 7919 (%s, sequence 2 (line 2))"):format(fast, more))
    local gone = folder.write("gone.tsv", "1.wav\thigh\n/no/such.wav\tlow\n")
    says("--train " .. gone, ("audio: cannot open /no/such.wav: No such file or directory (%s, "
      .. "sequence 2 (line 2))"):format(gone))
    local new = folder.write("new.tsv", "1.wav\tmiddle\n")
    says(("--ctc --train %s --dev %s"):format(train, new),
      new .. ": the model has not learned the word middle")
    local other = folder.path .. "/names.safetensors"
    assert.equal(0, select(3, run(folder, "classify", "--quick --epochs 1 --model " .. other)))
    says("--quick --load " .. other, other .. ": its model does not hear sound")
  end)

  it("pixels reads in another order, with another cell, and shows the way it went", function()
    local function quick(args)
      local text, errors, status = run(folder, "pixels", "--quick --epochs 2 " .. args)
      assert.equal(0, status, errors)
      return text, select(2, result_of(text))
    end
    local text, gru = quick "--seed 2"
    assert.matches("^accuracy by minutes, 64 steps a picture:\n    0%.%d  0%.%d%d%d  #+\n", text)
    local path = folder.path .. "/permuted.safetensors"
    local _, permuted = quick("--seed 2 --permuted --model " .. path)
    assert.not_equal(gru.dev_accuracy, permuted.dev_accuracy)
    local _, again = quick("--seed 2 --permuted --load " .. path)
    assert.equal(permuted.dev_accuracy, again.dev_accuracy)
    local none, errors, status = run(folder, "pixels", "--quick --load " .. path)
    assert.same({ "", 1, ("pixels: %s: its model learned from pixels in another order: "
      .. "expected --permuted\n"):format(path) }, { none, status, errors })
    path = folder.path .. "/pixels.safetensors"
    quick("--seed 2 --model " .. path)
    none, errors, status = run(folder, "pixels", "--quick --permuted --load " .. path)
    assert.same({ "", 1, ("pixels: %s: its model learned from pixels as they stand: expected "
      .. "no --permuted\n"):format(path) }, { none, status, errors })
    local _, mean = quick "--seed 2 --pool mean --shift 1"
    assert.not_equal(gru.dev_accuracy, mean.dev_accuracy)
    local _, lstm = quick "--cell lstm --size 4"
    assert.equal(4 * 4 * (1 + 4 + 2) + 5 * 3, lstm.parameters)
    local _, elman = quick "--cell elman --size 4"
    assert.equal(4 * (1 + 4 + 2) + 5 * 3, elman.parameters)
    _, errors, status = run(folder, "pixels", "--quick --cell lstn")
    assert.equal(2, status)
    assert.matches("^pixels: [^\n]*must be one of 'elman', 'gru', 'lstm'[^\n]*\n$", errors)

    -- IDX files of 40 pictures, 2 x 2, whose first pixel tells
    local images, labels = { "\0\0\8\3\0\0\0\40\0\0\0\2\0\0\0\2" }, { "\0\0\8\1\0\0\0\40" }
    for i = 1, 40 do
      images[i + 1] = i % 2 == 0 and "\0\9\0\0" or "\255\0\0\9"
      labels[i + 1] = string.char(i % 2)
    end
    local train = folder.write("train-images-idx3", table.concat(images))
    folder.write("train-labels-idx1", table.concat(labels))
    text, errors, status = run(folder, "pixels",
      ("--train %s --test %s --size 4 --batch 8 --epochs 20 --rate 0.1"):format(train, train))
    assert.equal(0, status, errors)
    local _, values = result_of(text)
    assert.equal(1, values.test_accuracy)
    assert.is_number(values.minutes_to_95)

    path = folder.path .. "/rows.safetensors"
    assert.equal(0, select(3, run(folder, "rows", "--quick --epochs 1 --model " .. path)))
    text, errors, status = run(folder, "pixels", "--quick --load " .. path)
    assert.same({ "", 1 }, { text, status })
    assert.equal(("pixels: %s: its model does not read one pixel a step\n"):format(path), errors)
  end)

  it("caption beats the nearest picture, reads files and fonts, and says where they are wrong",
    function()
      local text = run(folder, "caption", "--quick")
      local _, values = result_of(text)
      assert.is_true(values.dev_f1 > values.nearest_f1, text)
      assert.is_true(values.gain_low > 0 and values.gain_high > values.gain_low, text)
      assert.matches("\n  [ \u{2580}\u{2584}\u{2588}]+  %u+ %u+ OVER %u+ %u+\n", text)

      local function glyph(digit, width) return (digit):rep(width // 4 * 16) end
      local lines, hex, list = {}, {}, {}
      for i = 1, 30 do
        local width, code = i % 3 == 0 and 16 or 8, ("%04X"):format(0x40 + i)
        local rows = glyph(i % 2 == 0 and "F" or "0", width)
        local name = i % 2 == 0 and "FULL BLOCK" or "NO BLOCK"
        lines[i] = ("%s\t%d\t%s\t%s\n"):format(code, width, rows, name)
        hex[i] = ("%s:%s\n"):format(code, rows)
        list[i] = ("%s;%s;So;0;ON;;;;;N;;;;;\n"):format(code, name)
      end
      list[31] = "0080;<control>;Cc;0;BN;;;;;N;;;;;\n"
      hex[31] = "0080:" .. glyph("0", 8) .. "\n"
      local tsv = folder.write("glyphs.tsv", table.concat(lines))
      local font = folder.write("font.hex", table.concat(hex))
      local names = folder.write("names.txt", table.concat(list))
      local function reads(args)
        local out, errors, status = run(folder, "caption",
          args .. " --subwords 20 --size 8 --batch 4 --epochs 50 --rate 0.02 --dropout 0 "
            .. "--samples 1")
        assert.equal(0, status, errors)
        local _, result = result_of(out)
        assert.equal(1, result.dev_exact, out)
        return result
      end
      assert.equal(1, reads(("--train %s --dev %s --test %s"):format(tsv, tsv, tsv)).test_f1)
      reads(("--train %s --names %s --dev %s"):format(font, names, tsv))
      reads("--train " .. tsv) -- a part of it is kept apart

      local function says(message, args)
        local out, errors, status = run(folder, "caption", args)
        assert.same({ "", 1 }, { out, status })
        assert.equal("caption: " .. message .. "\n", errors)
      end
      local bad = folder.write("bad.tsv", lines[1] .. "0041\t8\t00ZZ\tA\n")
      says(bad .. ", sequence 2 (line 2): expected 32 or 64 hexadecimal digits in column 3",
        "--train " .. bad)
      bad = folder.write("bad.hex", hex[1] .. "0041:00\n")
      says(bad .. ":2: expected a code, a colon and 32 or 64 hexadecimal digits",
        ("--train %s --names %s"):format(bad, names))
      says("no/names: No such file or directory", ("--train %s --names no/names"):format(font))
      local other = folder.write("other.txt", list[31])
      says(("%s: no character of it is in %s"):format(font, other),
        ("--train %s --names %s"):format(font, other))
    end)

  it("stress prints the usual pattern's score beside its own", function()
    local text = run(folder, "stress", "--quick")
    local _, values = result_of(text)
    assert.is_true(values.dev_wer < values.baseline_wer)
  end)
end)
