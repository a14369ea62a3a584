-- neap info: what a file holds.
local neap = require "neap"
local core = require "neap.core"

local function temporary()
  local path = os.tmpname()
  finally(function() os.remove(path) end)
  return path
end

--- What info writes about a file, and what it returns.
local function info(path)
  local text = {}
  local out = { write = function(_, ...) text[#text + 1] = table.concat { ... } end }
  local ok, message, code = require "neap.info" (path, out)
  return table.concat(text), ok, message, code
end

--- What it says of a file, which is removed then.
local function told(path)
  local file <close> = io.tmpfile()
  assert(require "neap.info"(path, file))
  os.remove(path)
  file:seek "set"
  return file:read "a"
end

describe("info", function()
  it("shows a task: symbols, programs, parameters, what streams", function()
    local path = temporary()
    local letters = neap.vocab.new { "a", "b", "c", unk = true }
    local model = neap.seq2class { input = letters, output = neap.vocab.new { "x", "y" },
      net = neap.chain { neap.embed { size = 3 }, neap.dropout { rate = 0.1 },
        neap.bidir { neap.lstm { size = 4 } } } }
    assert(model:save(path))
    local text, ok = info(path)
    assert.is_true(ok)
    local function has(wanted) assert.matches(wanted, text, 1, true) end
    has(path .. ": seq2class, 318 parameters in 11 tensors\n")
    has "\n  input       4 symbols        <unk> a b c\n  output      2 symbols        x y\n"
    has [[

  learn
    takes   input                        i32 [T,B]
            net.chain.dropout2.rate      a number, 0.1 if not set
            output                       i32 [B]
    gives   0 loss                       []
    streams no: reverse of layer net.chain.bidir3 reads later steps (]]
    has "    memory  "
    assert.matches("\n    memory  %d+%.%d MB for 32 rows of 100 steps; to learn from them %d+%.%d MB,%s\z
      with recompute %d+%.%d MB\n",
      text)
    has [[

    gives   0 class                      i32 [B]
            1 scores                     [B,2]
]]
    has [[

parameters
  net.chain.embed1  (embedding)
    weight                               [4,3]                12
  net.chain.bidir3.forward  (lstm)
    weight_ih                            [16,3]               48
]]
  end)

  it("shows that a model streams, and cells of a script's own", function()
    local path = temporary()
    local model = neap.forecaster { size = 2, net = neap.chain { neap.elman { size = 3 },
      neap.gru { size = 3, fused = false } } }
    assert(model:save(path))
    local text = info(path)
    assert.matches("\n  size        2 numbers a step\n", text, 1, true)
    assert(neap.seq2class { input = { rate = 8000, hop = 2 }, output = neap.vocab.new { "a" },
      net = neap.gru { size = 3 } }:save(path))
    assert.matches("\n  input       2 samples a step, 8000 a second\n", info(path), 1, true)
    assert.matches("\n  predict\n    takes   input                        [T,B,2]\n", text, 1, true)
    assert.matches("\n    streams yes, step by step\n", text, 1, true)
    assert.matches("\n  net.chain.elman1  (elman)\n", text, 1, true)
    assert.matches("\n  net.chain.gru2  (a loop of its own, linear)\n", text, 1, true)
  end)

  it("shows programs that no task made", function()
    local path = temporary()
    local pr = neap.program(function(rec)
      return { y = neap.linear { size = 1 }(rec:input("x", { space = "T", dims = { 2 } })) }
    end)
    local model = core.model(pr.params)
    model:add("only", pr.core)
    model:set_text("note", "made by hand")
    assert(model:save(path))
    local text = info(path)
    assert.matches(": programs without a task, 3 parameters in 2 tensors\nnote: \"made by hand\"\n",
      text, 1, true)
  end)

  it("shows parameters of no layer apart from those of the layer before", function()
    local pr = neap.program(function(rec)
      local y = neap.linear { size = 2 }(rec:input("x", { space = "T", dims = { 3 } }))
      return { y = y * rec:param("scale", { 2 }, "ones") }
    end)
    local path = os.tmpname()
    assert(pr:save(path))
    local text = told(path)
    assert.matches("\n    bias [^\n]*\n  of no layer\n    scale ", text)
  end)

  it("lists the tensors of any file of safetensors", function()
    local path = temporary()
    local archive = core.archive()
    archive:add("layer.weight", neap.zeros { 1000, 20 })
    archive:add("ids", core.tensor({ 1, 2 }, "i32"))
    archive:set_text("format", "pt")
    assert(archive:save(path))
    local text, ok = info(path)
    assert.is_true(ok)
    local function has(wanted) assert.matches(wanted, text, 1, true) end
    has "tensors only, no programs: 2 tensors with 20,002 numbers\nformat: \"pt\"\n"
    has "  layer\n    weight                               f32 [1000,20]        20,000\n"
    has "    ids                                  i32 [2]              2\n"
  end)

  it("shows n-grams, which are a task without programs", function()
    local v = neap.vocab.new { "a", "b" }
    local model = neap.ngram { vocab = v, order = 2 }
    model:fit(v:tensor "abba")
    local path = os.tmpname()
    assert(model:save(path))
    local text = told(path)
    assert.matches(": ngram, no programs: ", text, 1, true)
    assert.matches("vocab       2 symbols", text, 1, true)
  end)

  it("knows a checkpoint", function()
    local model = neap.forecaster { net = neap.gru { size = 2 } }
    local path = os.tmpname()
    os.remove(path)
    neap.fit(model, { optim = neap.adam {}, epochs = 1, quiet = true, checkpoint = path,
      train = function()
        local one = { model:batch { { 1, 2, 3 } } }
        return function() return table.remove(one) end
      end })
    local file = io.tmpfile()
    assert(require "neap.info"(path, file))
    os.remove(path)
    file:seek "set"
    assert.matches(": a checkpoint of a training, no programs: ", file:read "a", 1, true)
    file:close()
  end)

  it("says what is wrong with a file", function()
    local text, ok, message, code = info "no/such/file"
    assert.same({ "", nil, "EIO" }, { text, ok, code })
    assert.matches("no/such/file: expected a file to read: No such", message, 1, true)
    local path = temporary()
    local file = assert(io.open(path, "w"))
    file:write("This is a text, and no model at all.\n")
    file:close()
    _, ok, message, code = info(path)
    assert.is_nil(ok)
    assert.equal("EFORMAT", code)
    assert.matches(path .. ": no safetensors file: expected the length of a header",
      message, 1, true)

    local pipe = assert(io.popen("scripts/neap info " .. path .. " 2>&1"))
    assert.matches("^neap: " .. path .. ": no safetensors file", pipe:read "a")
    assert.equal(1, select(3, pipe:close()))
  end)
end)
