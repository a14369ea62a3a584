-- Wrong use of tasks, data and training: what a newcomer reads. (Wrong use while recording:
-- record_spec.)
local neap = require "neap"
local help = require "data_help"
local raises = help.raises
local core = require "neap.core"

local letters, classes = neap.vocab.new { "a", "b", "c" }, neap.vocab.new { "x", "y" }
local corpus = neap.corpus.from { text = { { "a", "b" }, { "c" } }, class = { { "x" }, { "y" } } }

local function classifier(more)
  local options = { input = letters, output = classes,
    net = neap.chain { neap.embed { size = 4 }, neap.lstm { size = 4 } } }
  for k, v in pairs(more or {}) do options[k] = v end
  return neap.seq2class(options)
end

local function translator(more)
  local options = { input = letters, output = neap.vocab.new { start = true, stop = true, "x" },
    encoder = neap.chain { neap.embed { size = 4 }, neap.gru { size = 4 } },
    decoder = neap.decoder { embed = 2, layers = { neap.gru { size = 3 } } } }
  for k, v in pairs(more or {}) do options[k] = v end
  return neap.async_seq2seq(options)
end

local function fields()
  return { input = corpus:encode("text", letters), output = corpus:label("class", classes) }
end

local function ids(list, lengths)
  return { data = core.tensor(list, "i32"), lengths = core.tensor(lengths, "i32") }
end

--- Each case: the message, and what raises it.
local function teaches(cases)
  for _, case in ipairs(cases) do raises(case[1], case[2]) end
end

describe("a newcomer is told", function()
  it("the line, the option, and the nearest one or all", function()
    local info = debug.getinfo(1, "Sl")
    local ok, message = pcall(function() return neap.lstm { sise = 4 } end)
    assert.is_false(ok)
    assert.equal(('lstm: unknown option "sise"; did you mean "size"?'), message:match "lstm.*")
    ok, message = pcall(function() local _ = neap.adam { lr = 0.1 } end)
    assert.is_false(ok)
    assert.equal(("%s:%d: adam: unknown option \"lr\"; here it is called \"rate\""):format(
      info.short_src, info.currentline + 4), message)
    teaches {
      { 'adam: unknown option "warmup"; there are: rate, clip, clip_value, weight_decay, lazy, '
        .. "schedule, params, groups, accumulate, beta1, beta2, eps",
        function() neap.adam { warmup = 1 } end },
      { 'lstm: unknown option "hidden_size"; here it is called "size"', function()
        neap.lstm { hidden_size = 2 }
      end },
      { 'lstm: unknown option "layers"; layers one after the other are neap.chain { a, b }',
        function() neap.lstm { size = 2, layers = 2 } end },
      { 'lstm: unknown option "dropout"; dropout is a layer of its own, neap.dropout { rate = .. }',
        function() neap.lstm { size = 2, dropout = 0.5 } end },
      { 'batches: unknown option "max_tokens"; here it is called "tokens"', function()
        neap.batches({}, { max_tokens = 3 })
      end },
      { 'log_mel: unknown option "n_mels"; here it is called "filters"', function()
        neap.features.log_mel { n_mels = 3 }
      end },
      { 'embed: unknown option "vocab_size"; here it is called "input"', function()
        neap.embed { size = 2, vocab_size = 5 }
      end },
      { 'elman: unknown option "nonlinearity"; here it is called "activation"', function()
        neap.elman { size = 2, nonlinearity = "relu" }
      end },
      { 'elman: unknown activation "linear"; did you mean "identity"?', function()
        neap.elman { size = 2, activation = "linear" }
      end },
      { 'lstm: gate: unknown activation "sigmiod"; did you mean "sigmoid"?', function()
        neap.lstm { size = 2, gate = "sigmiod" }
      end },
      { 'lstm: gate: unknown activation "concat"', function()
        neap.lstm { size = 2, gate = "concat" }
      end },
      { 'activation: unknown activation "tnah"; did you mean "tanh"?', function()
        neap.activation "tnah"
      end },
    }
  end)

  it("how layers are put together", function()
    teaches {
      { "chain: expected a list of layers, chain{ a, b }, came lstm size=2 (fused)", function()
        neap.chain(neap.lstm { size = 2 }, neap.linear { size = 2 })
      end },
      { "bidir: expected a layer in braces, bidir{ layer }, came gru size=2 (fused)", function()
        neap.bidir(neap.gru { size = 2 })
      end },
      { "residual: expected a layer in braces, residual{ layer }, came linear", function()
        neap.residual(neap.linear {})
      end },
      { "bidir: expected a layer in braces, bidir{ layer }, came 2: neap.chain { a, b } makes one "
        .. "layer of several", function()
        neap.bidir { neap.gru { size = 2 }, neap.gru { size = 2 } }
      end },
      { "residual: expected a layer in braces, residual{ layer }, came 2", function()
        neap.residual { neap.gru { size = 2 }, neap.gru { size = 2 } }
      end },
      { 'bidir: unknown option "merg"; did you mean "merge"?', function()
        neap.bidir { neap.gru { size = 2 }, merg = "sum" }
      end },
      { 'residual: unknown option "sacle"', function()
        neap.residual { neap.gru { size = 2 }, sacle = 2 }
      end },
      { 'chain: unknown option "nmae"; did you mean "name"?', function()
        neap.chain { neap.gru { size = 2 }, nmae = "x" }
      end },
      { "chain: layer 2 is nil, but there is a layer 3", function()
        neap.chain { neap.gru { size = 2 }, nil, neap.gru { size = 2 } }
      end },
      { "chain: layer 2: expected a layer or a function of the inputs, got the constructor "
        .. "neap.lstm (call it: neap.lstm { size = ... })", function()
        neap.chain { neap.gru { size = 2 }, neap.lstm }
      end },
      { "bidir: expected a layer or a function of the inputs, got the constructor neap.gru",
        function() neap.bidir { neap.gru } end },
      { "residual: expected a layer or a function of the inputs, got the constructor mine (call "
        .. "it: mine { ... })", function()
        neap.residual { neap.cell { name = "mine", state = print, step = print } }
      end },
      { "lstm: forget_bias: expected a number, came", function()
        neap.lstm { size = 2, forget_bias = 0 / 0 }
      end },
      { "lstm: forget_bias: there is none with bias = false", function()
        neap.lstm { size = 2, forget_bias = 1, bias = false }
      end },
      { "dropout: rate: expected a number in [0,1), came", function()
        neap.dropout { rate = 0 / 0 }
      end },
      { "lstm: gates: expected a table, came 1", function() neap.lstm { size = 2, gates = 1 } end },
      { "lstm: first states: expected a table such as { h = value }, came 5", function()
        neap.program(function(rec)
          return neap.lstm { size = 2 }(rec:input("x", { space = "T", dims = { 2 } }), 5)
        end)
      end },
      { "residual: the layer must give a recorded value, came nil", function()
        neap.program(function(rec)
          return neap.residual { function() end }(rec:input("x", { space = "T", dims = { 2 } }))
        end)
      end },
      { "lstm: expected a table of options, came 64", function() neap.lstm(64) end },
      { "lstm: size: expected an integer from 1, came 6.5", function()
        neap.lstm { size = 6.5 }
      end },
      { "lstm: a layer is called inside of a function that neap records (a network, a cell's step, "
        .. "neap.program); neap.debug(layer, x) runs it on a tensor at once", function()
        neap.lstm { size = 2 }(neap.zeros { 2, 2, 2 })
      end },
      { "lstm: expected a sequence of vectors such as [T,B,64], came i32 [T,B]: neap.embed{",
        function() classifier { net = neap.lstm { size = 2 } }:program "predict" end },
      { "embed: expected ids such as i32 [T,B], came [T,B,3], which are numbers already", function()
        classifier { input = 3 }:program "predict"
      end },
      { "input x: dims: expected a table such as { 3 }, came 3", function()
        neap.program(function(rec) return rec:input("x", { space = "T", dims = 3 }) end)
      end },
      { "program: the function gave no output: it should return a value or a table", function()
        neap.program(function(rec) rec:input("x", { space = "T", dims = { 3 } }) end)
      end },
    }
  end)

  it("what a task is made of", function()
    teaches {
      { "seq2class: net: expected a layer or a function of the inputs, came nil", function()
        neap.seq2class { input = letters, output = classes }
      end },
      { "seq2class: net: expected a layer or a function of the inputs, came \"lstm\"", function()
        classifier { net = "lstm" }
      end },
      { "seq2class: output: expected a vocabulary of classes, came a table", function()
        classifier { output = { "x", "y" } }
      end },
      { "seq2class: the network must give a recorded value, came nil", function()
        classifier { net = function() end }:program "predict"
      end },
      { "seq2class: rng: expected a source of chance such as neap.rng(17), came 17", function()
        classifier { rng = 17 }
      end },
      { "seq2class: net: expected a layer or a function of the inputs, got the constructor "
        .. "neap.lstm (call it: neap.lstm { size = ... })", function()
        classifier { net = neap.lstm }
      end },
      { "seq2class: net: expected a layer or a function of the inputs, came adam", function()
        classifier { net = neap.adam {} }
      end },
      { "synced_seq2seq: net: expected a layer or a function of the inputs, got the constructor "
        .. "jordan", function()
        neap.synced_seq2seq { input = letters, output = classes, net = neap.jordan }
      end },
      { "seq2class: head: expected a layer or a function of the inputs, came 5", function()
        classifier { head = 5 }
      end },
      { "seq2class: head: expected a layer or a function of the inputs, got the constructor neap.l",
        function() classifier { head = neap.linear } end },
      { "seq2class: input: expected names of inputs, { name = vocabulary, .. }, came [1]",
        function() classifier { input = { letters } } end },
      { "seq2class: input: expected at least one, came an empty table", function()
        classifier { input = {} }
      end },
      { 'seq2class: input text: unknown option "nest"', function()
        classifier { input = { text = { vocab = letters, nest = true } } }
      end },
      { "seq2class: input text: nested: expected true or false, came 1", function()
        classifier { input = { text = { vocab = letters, nested = 1 } } }
      end },
      { "seq2class: input: rate: expected an integer from 1, came 0", function()
        classifier { input = { rate = 0, hop = 80 } }
      end },
      { 'seq2class: input x: unknown option "hops"; did you mean "hop"?', function()
        classifier { input = { x = { rate = 8000, hop = 80, hops = 1 } } }
      end },
      { "seq2class: input: expected a vocabulary, a width, or", function()
        classifier { input = 0.5 }
      end },
      { "seq2class: input: size: expected an integer from 1, came 0", function()
        classifier { input = 0 }
      end },
      { "seq2class: smoothing: expected a number from 0 to 1, came 2", function()
        classifier { smoothing = 2 }
      end },
      { "synced_seq2seq: smoothing: expected a number from 0 to 1, came", function()
        neap.synced_seq2seq { input = letters, output = classes, net = neap.lstm { size = 1 },
          smoothing = 0 / 0 }
      end },
      { 'score: unknown option "batch"', function()
        classifier():score(fields(), { batch = 1 })
      end },
      { "seq2class: threads: expected an integer from 1 to 1024, came \"2\"", function()
        classifier { threads = "2" }
      end },
      { "async_seq2seq: output: the vocabulary needs start and stop symbols: neap.vocab(corpus, "
        .. "field, { start = true, stop = true })", function()
        neap.async_seq2seq { input = letters, output = classes, encoder = neap.lstm { size = 2 },
          decoder = neap.decoder { embed = 2, layers = { neap.lstm { size = 2 } } } }
      end },
      { "async_seq2seq: decoder: expected neap.decoder{..} or a table of one's own", function()
        neap.async_seq2seq { input = letters, output = neap.vocab.new { start = true, stop = true },
          encoder = neap.lstm { size = 2 }, decoder = neap.lstm { size = 2 } }
      end },
      { "without states", function()
        local nothing = function() end
        neap.async_seq2seq { input = letters, output = neap.vocab.new { start = true, stop = true },
          encoder = neap.lstm { size = 2 }, decoder = { teacher = nothing, step = nothing } }
      end },
      { "async_seq2seq: encoder: expected a layer or a function of the inputs, came false", function()
        translator { encoder = false }
      end },
      { "async_seq2seq: max_length: expected an integer from 1, came 0", function()
        translator { max_length = 0 }
      end },
      { "decoder: layers: expected a list of at least one layer, such as { neap.gru { size = 64 } "
        .. "}, came gru size=2 (fused)", function()
        neap.decoder { embed = 2, layers = neap.gru { size = 2 } }
      end },
      { "decoder: layers: expected a list of at least one layer, such as { neap.gru { size = 64 } "
        .. "}, came nil", function() neap.decoder { embed = 2 } end },
      { "decoder: layers: 1: expected a layer that steps (elman, lstm, gru, a cell of one's own, or "
        .. "these in residual, highway and chain), came chain", function()
        neap.decoder { embed = 2, layers = { neap.chain { neap.bidir { neap.gru { size = 2 } } } } }
      end },
      { "decoder: layers: expected a list, came [x] = gru size=2 (fused)", function()
        neap.decoder { embed = 2, layers = { x = neap.gru { size = 2 } } }
      end },
      { "decoder: dropout: expected a number in [0,1), came -0.5", function()
        neap.decoder { embed = 2, layers = { neap.gru { size = 2 } }, dropout = -0.5 }
      end },
      { "decoder: dropout: expected a number in [0,1), came ", function()
        neap.decoder { embed = 2, layers = { neap.gru { size = 2 } }, dropout = 0 / 0 }
      end },
      { "decoder: mix: expected an integer from 1, came 0", function()
        neap.decoder { embed = 2, layers = { neap.gru { size = 2 } }, mix = 0 }
      end },
      { 'decoder: bridge: expected "dense", "copy" or "zero", came "copie"; did you mean "copy"?',
        function()
          neap.decoder { embed = 2, layers = { neap.gru { size = 2 } }, bridge = "copie" }
        end },
      { "decoder: bridge: activation: only the dense one has it, came \"relu\"", function()
        neap.decoder { embed = 2, layers = { neap.gru { size = 2 } },
          bridge = { "copy", activation = "relu" } }
      end },
      { "decoder: bridge: activation: unknown activation \"tanhh\"; did you mean \"tanh\"?",
        function()
          neap.decoder { embed = 2, layers = { neap.gru { size = 2 } },
            bridge = { "dense", activation = "tanhh" } }
        end },
      { 'decoder: bridge: unknown option "activate"; did you mean "activation"?', function()
        neap.decoder { embed = 2, layers = { neap.gru { size = 2 } },
          bridge = { "dense", activate = "relu" } }
      end },
      { "seq2class has no program predicts; it has learn, predict", function()
        classifier():program "predicts"
      end },
      { "there is no neap.sequence2class; did you mean neap.seq2class?", function()
        return neap.sequence2class
      end },
    }
  end)

  it("of parameters, all from the start", function()
    local model = classifier()
    model.params:freeze "net.chain.lstm2.weight_hh"
    assert.equal(model:parameters(), model.params:size())
    assert.is_true(model:parameters() > 0)
    raises("there is no parameter 'net.chain.lstm2.weigth_hh'; did you mean", function()
      classifier().params:freeze "net.chain.lstm2.weigth_hh"
    end)
    -- what is wrong with the network is said each time, not once
    local wrong = classifier { net = function() end }
    for _ = 1, 2 do
      raises("seq2class: the network must give a recorded value, came nil", function()
        local _ = wrong.params
      end)
    end
    local sizes = {}
    local inner
    inner = classifier { net = function(x)
      sizes[#sizes + 1] = inner.params:size() -- while it is recorded: what there is so far
      return neap.lstm { size = 2 }(neap.embed { size = 2 }(x))
    end }
    assert.is_true(inner.params:size() > 0)
    assert.equal(0, sizes[1])
  end)

  it("gradcheck tells an embedding how many ids there are", function()
    local result = neap.gradcheck(neap.embed { size = 2 }, { ids = 5 })
    local name, worst = next(result)
    assert.matches("embed", name)
    assert.is_true(worst < 1e-6)
  end)

  it("what a check of gradients and a gradient take", function()
    local x = neap.tensor { 1, 2 }
    local layer, f = neap.elman { size = 2 }, neap.op.sum
    teaches {
      { "gradcheck: expected a layer or a function of the inputs, came nil", function()
        neap.gradcheck()
      end },
      { "gradcheck: expected a layer or a function of the inputs, got the constructor neap.lstm",
        function() neap.gradcheck(neap.lstm) end },
      { "gradcheck: the layer must give a recorded value of numbers, came nil", function()
        neap.gradcheck(function() end)
      end },
      { "gradcheck: T: expected an integer from 1 to 100000, came inf", function()
        neap.gradcheck(layer, { T = math.huge })
      end },
      { "gradcheck: B: expected an integer from 1 to 100000, came 1e+18", function()
        neap.gradcheck(layer, { B = 1e18 })
      end },
      { "gradcheck: T, B, input: 5 * 50000 * 3 numbers are too many, at most 100000", function()
        neap.gradcheck(layer, { B = 50000 })
      end },
      { "gradcheck: lengths: expected a table, came 3", function()
        neap.gradcheck(layer, { lengths = 3 })
      end },
      { "gradcheck: lengths: expected an integer from 0 to 100000, came \"x\"", function()
        neap.gradcheck(layer, { lengths = { "x" } })
      end },
      { "gradcheck: lengths: there are 3, but B is 2", function()
        neap.gradcheck(layer, { lengths = { 1, 2, 3 }, B = 2 })
      end },
      { "gradcheck: lengths: expected 1 to 33333 steps in all, came 0", function()
        neap.gradcheck(layer, { lengths = { 0, 0 } })
      end },
      { "gradcheck: step: expected a number from 1e-12 to 1, came inf", function()
        neap.gradcheck(layer, { step = math.huge })
      end },
      { "grad: argument 3: expected an f32 tensor, came 3", function()
        neap.grad(f, x, 3)
      end },
      { "grad: argument 2: expected an f32 tensor, came nil", function() neap.grad(f) end },
      { "grad: function: expected a function, came f32 [2]", function() neap.grad(x, x) end },
      { "program: params: expected the parameters of a program or task, came 5", function()
        neap.program(f, { params = 5 })
      end },
      { "program: seed: expected an integer, came 0.5", function()
        neap.program(f, { seed = 0.5 })
      end },
      { "debug: expected a layer or a function of the inputs, got the constructor neap.lstm",
        function() neap.debug(neap.lstm, x) end },
      { "debug: params: expected the parameters of a program or task, came 5", function()
        neap.debug(layer, neap.zeros { 2, 2, 2 }, { params = 5 })
      end },
    }
  end)

  it("what a check of gradients has found", function()
    local op = neap.op
    local function check(f) return tostring(neap.gradcheck(f, { T = 3, B = 2, input = 2 })) end
    local lengths = { 2 }
    neap.gradcheck(neap.elman { size = 2 }, { lengths = lengths })
    assert.same({ 2 }, lengths)
    assert.matches("\nworst %d%.%d%de%-%d+, of elman%.%w+_%w+: good, under 1e%-06$",
      check(neap.elman { size = 2 }))
    local wrong = check(function(x)
      return x * neap.param("a", { 2 }, "ones") * op.stop_gradient(neap.param("b", { 2 }, "ones"))
        + 0 * neap.param("c", { 2 })
    end)
    assert.matches("b +1%.00e%+00  no gradient reaches it, but the loss depends on it\n", wrong)
    assert.matches("c +0%.00e%+00  no gradient reaches it\n", wrong)
    assert.not_matches("a +%d%.%d+e%-%d+  no", wrong)
    assert.matches("\nworst 1%.00e%+00, of b: WRONG, not under 1e%-06$", wrong)
    raises("gradcheck: the layer has no parameters: there is nothing to compare", function()
      neap.gradcheck(op.tanh)
    end)
    local one, two = neap.gradcheck(neap.gru { size = 2 }), neap.gradcheck(neap.gru { size = 2 })
    for name, e in pairs(one) do assert.equal(e, two[name]) end
  end)

  it("what predicting takes", function()
    local model, translate = classifier(), translator()
    teaches {
      { "predict: length_penalty: expected a finite number, came \"x\"", function()
        translate:predict({ "a" }, { length_penalty = "x" })
      end },
      { "predict: length_penalty: expected a finite number, came ", function()
        translate:predict({ "a" }, { beam = 2, length_penalty = 0 / 0 })
      end },
      { "score: expected a list of sequences and as many references, came 1 and 2", function()
        translate:score({ "a" }, { { { "x" } }, { { "y" } } })
      end },
      { "score: expected a list of sequences and as many references, came \"a\" and 1", function()
        translate:score("a", { { { "x" } } })
      end },
      { "score: references: entry 1: expected a list of right outputs, each a list of symbols, "
        .. "such as { { \"a\", \"b\" } }, came \"x\"", function()
        translate:score({ "ab" }, { "x" })
      end },
      { "score: references: entry 1: expected a list of right outputs, each a list of symbols, "
        .. "such as { { \"a\", \"b\" } }, came \"x\"", function()
        translate:score({ "ab" }, { { "x" } })
      end },
      { "score: references: entry 2: expected a list of right outputs, each a list of symbols, "
        .. "such as { { \"a\", \"b\" } }, came a table", function()
        translate:score({ "ab", "a" }, { { { "x" } }, {} })
      end },
      { "score: unknown option \"beem\"; did you mean \"beam\"?", function()
        translate:score({ "ab" }, { { { "x" } } }, { beem = 2 })
      end },
      { "async_seq2seq: mix: expected a number from 0 to 1, came 2", function()
        translate.mix = 2
        translate:forward {}
      end },
      { "async_seq2seq: mix: expected a number from 0 to 1, came -1", function()
        translate:forward { mix = -1 }
      end },
      { 'predict: expected a list of sequences or a batch, came "abc": one sequence is { "abc" }',
        function() model:predict "abc" end },
      { "predict: expected a list of sequences or a batch, came nil", function()
        model:predict()
      end },
      { "predict: sequence 2: expected a string or a list of symbols, came 5", function()
        model:predict { "ab", 5 }
      end },
      { 'vocab:encode: unknown symbol "z", and no unk (a vocabulary made with unk = true takes',
        function() model:predict { "abz" } end },
      { "vocab:encode: expected symbols, which are strings, came 1", function()
        model:predict { { 1, 2 } }
      end },
    }
    assert.same({}, model:predict {})
    assert.equal(1, #model:predict { "" })
    local series = neap.forecaster { size = 2, net = neap.elman { size = 2 } }
    teaches {
      { "predict: step 1: expected 2 numbers, came 3", function()
        series:predict { { 1, 2, 3 } }
      end },
      { "predict: step 2: expected 2 numbers, came \"x\"", function()
        series:predict { { 1, 2 }, "x" }
      end },
      { "rollout: the series is empty: at least one step is needed", function()
        series:rollout({}, 3)
      end },
    }
    local text = neap.language_model { vocab = letters,
      net = neap.chain { neap.embed { size = 2 }, neap.elman { size = 2 } } }
    local ahead = neap.language_model { vocab = letters,
      net = neap.chain { neap.embed { size = 2 }, neap.bidir { neap.elman { size = 2 } } } }
    teaches {
      { "generate: the prompt is empty: say at least one symbol", function()
        text:generate("", 3)
      end },
      { "language_model: net: expected one whose steps see nothing of those after them, which it is "
        .. "to foretell; came one in which reverse of layer net.chain.bidir2 reads later steps", function()
        ahead:generate("a", 3)
      end },
      { "1 ids do not make 1 columns of at least 2", function()
        text:score(letters:tensor "a")
      end },
    }
  end)

  it("what a batch is", function()
    local model = classifier()
    local function feed(batch) return function() model:run("predict"):feed(batch):forward() end end
    teaches {
      { "feed: expected a batch, a table of input name -> field, came nil", feed(nil) },
      { "feed: the batch has none of the inputs input; it has inputs",
        feed { inputs = ids({ 1 }, { 1 }) } },
      { "feed: input input: expected a tensor, a table or a number, came \"abc\"",
        feed { input = "abc" } },
      { "input 'input': expected i32, got f32", feed { input = { data = neap.tensor { 1 },
        lengths = core.tensor({ 1 }, "i32") } } },
      { "input 'input' i32 [T,B]: expected 2 elements, got 3",
        feed { input = ids({ 1, 2, 0 }, { 2 }) } },
      { "feed: input input: its lengths: expected an i32 tensor, came f32 [1]", feed { input = {
        data = core.tensor({ 1 }, "i32"), lengths = neap.tensor { 1 } } } },
      { "embedding of layer net.chain.embed1: id 3 is not in 0..2, sequence 1, step 2",
        feed { input = ids({ 1, 3 }, { 2 }) } },
      { "batches: expected a table of fields such as { input = corpus:encode(..) }, came corpus",
        function() neap.batches(corpus, { size = 3 }) end },
      { "batches: rng: expected a source of chance such as neap.rng(17), came 17", function()
        neap.batches(fields(), { rng = 17 })
      end },
      { "score: expected a table of fields such as", function() model:score(corpus) end },
      { "score: the field output is missing", function()
        model:score { input = fields().input }
      end },
      { "corpus:encode: no field \"txt\"; did you mean \"text\"?", function()
        corpus:encode("txt", letters)
      end },
      { "run: pool: expected threads, neap.pool(2), came 2", function()
        model:program "predict":run { pool = 2 }
      end },
      { "the program has no output score; did you mean scores?", function()
        model:run "predict":feed { input = ids({ 1 }, { 1 }) }:forward():value "score"
      end },
    }
  end)

  it("what learning takes", function()
    local model = classifier()
    local batch = neap.batches(fields())()
    local function fit(more)
      return function()
        local options = { epochs = 1, optim = neap.adam { rate = 1e-3 }, quiet = true,
          train = function() return neap.batches(fields()) end,
          dev = function() return model:score(fields()) end }
        for k, v in pairs(more) do options[k] = v end
        local result = neap.fit(model, options)
        return result
      end
    end
    teaches {
      { "learn: optim: expected an optimizer such as neap.adam{ rate = 1e-3 }, came nil", function()
        model:learn(batch)
      end },
      { "expected an optimizer such as neap.adam{ rate = 1e-3 }, came a table", function()
        model:learn(batch, { rate = 1 })
      end },
      { "learn: the batch has no field output; it has input", function()
        model:learn({ input = batch.input }, neap.adam { rate = 1e-3 })
      end },
      { "learn: the batch has no field input; it has inp, output", function()
        model:learn({ inp = batch.input, output = batch.output }, neap.adam { rate = 1e-3 })
      end },
      { "adam: rate: expected a number, came \"0.1\"", function() neap.adam { rate = "0.1" } end },
      { "expected rate in 0..1e+06, got -1", function() neap.adam { rate = -1 } end },
      { "expected rate in 0..1e+06, got", function() neap.adam { rate = 0 / 0 } end },
      { "adam: rate: expected a number from 0 to 1e+06, came",
        fit { rate = function() return 0 / 0 end } },
      { 'adam: unknown option "momentum"', function() neap.adam { momentum = 0.9 } end },
      { 'sgd: unknown option "beta1"', function() neap.sgd { beta1 = 0.9 } end },
      { 'sgd: params: expected a list of names of parameters, { "net.linear.weight", .. }, came ',
        function() neap.sgd { params = "w" } end },
      { "sgd: params: expected a list of names", function()
        neap.sgd { params = { w = true } }
      end },
      { "sgd: params: expected a list of names", function() neap.sgd { params = {} } end },
      { "sgd: params: name: expected a string, came 1", function()
        neap.sgd { params = { 1 } }
      end },
      { 'sgd: schedule: expected a function of the step and the rate, came "linear"', function()
        neap.sgd { schedule = "linear" }
      end },
      { "sgd: schedule: rate of step 1: expected a number from 0 to 1e+06, came nil", function()
        model:learn(batch, neap.sgd { schedule = function() end })
      end },
      { "fit: optim: expected an optimizer such as neap.adam{ rate = 1e-3 }, came 0.1",
        fit { optim = 0.1 } },
      { "fit: train: expected a function, came neap.batches",
        fit { train = neap.batches(fields()) } },
      { "fit: train gave no batch in epoch 1", fit { train = function()
        local empty = neap.corpus.from { text = {} }
        return neap.batches { input = empty:encode("text", letters) }
      end } },
      { "fit: train: expected a function that gives batches (neap.batches), came a table",
        fit { train = function() return { batch } end } },
      { "fit: dev: expected a table with the score acc, came one with accuracy, macro_f1: "
        .. "say which counts, key = \"accuracy\"", fit { key = "acc" } },
      { "fit: dev: expected a table with the score accuracy, came 0.5", fit { dev = function()
        return 0.5
      end } },
      { "fit: expected a task, came lstm size=2 (fused)", function()
        neap.fit(neap.lstm { size = 2 }, {})
      end },
    }
  end)

  it("that training ran away, where, and that nothing was updated", function()
    local model, optim = classifier(), neap.sgd { rate = 0.1 }
    local batch = neap.batches(fields())()
    model:learn(batch, optim)
    local huge = core.zeros { 2, 4 }:fill(3e38)
    model.params:set("net.linear.weight", huge)
    model.params:set("net.linear.bias", neap.tensor { 3e38, -3e38 })
    local before = model.params:get "net.chain.embed1.weight":tobytes()
    raises("linear of layer net.linear: infinity came up", function()
      model.params:set("net.chain.lstm2.bias_ih", core.zeros { 16 }:fill(50))
      model:learn(batch, optim)
    end)
    assert.equal(before, model.params:get "net.chain.embed1.weight":tobytes())
    assert.equal(huge:tobytes(), model.params:get "net.linear.weight":tobytes())
  end)

  it("what is wrong with a file, without an error", function()
    local path = os.tmpname()
    finally(function() os.remove(path) end)
    local file = assert(io.open(path, "w"))
    file:write "local x = 1 -- a script, and no model\n"
    file:close()
    local function fails(code, text, model, message, came)
      assert.is_nil(model)
      assert.equal(code, came)
      assert.matches(text, message, 1, true)
    end
    fails("EFORMAT", path .. ": no safetensors file: expected the length of a header",
      neap.load(path))
    fails("EIO", "no/such/file: expected a file to read: No such file", neap.load "no/such/file")
    local model = classifier()
    fails("EIO", "no/such/m.safetensors: expected a file to write: No such file",
      model:save "no/such/m.safetensors")
    fails("EIO", "spec: expected a file to write: Is a directory", model:save "spec")
    raises("save: path: expected a string, came nil", function() model:save() end)
    raises("load: path: expected a string, came nil", function() neap.load() end)
  end)

  it("what an op on tensors takes", function()
    local op = neap.op
    teaches {
      { "tanh: input 1: expected a tensor or a number, came a table", function()
        op.tanh { 1, 2 }
      end },
      { "tanh: expected 1 input, got 0", function() op.tanh() end },
      { "concat: expected a list of values, came f32 [1]", function()
        op.concat(neap.tensor { 1 }, neap.tensor { 2 })
      end },
      { "matmul: inner widths differ: x [1,2], w [1,2]", function()
        op.matmul(neap.tensor { { 1, 2 } }, neap.tensor { { 1, 2 } })
      end },
      { "sum: axis 3 is not in 1..2 (feature dimensions of f32 [1,2]) nor -2..-1", function()
        op.sum(neap.tensor { { 1, 2 } }, 3)
      end },
      { 'tensor: expected a number at [1], came "1"', function() neap.tensor { "1" } end },
    }
    local stream = neap.program(function(rec)
      return neap.lstm { size = 2 }(rec:input("x", { space = "T", dims = { 2 } }))
    end):stream()
    teaches {
      { "stream: input 1 has 2 numbers, got 1", function() stream:input(1, { 1 }) end },
      { 'stream: input 1, number 2: expected a number, came "b"', function()
        stream:input(1, { 1, "b" })
      end },
    }
  end)
end)
