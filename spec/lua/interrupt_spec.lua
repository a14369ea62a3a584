-- Ctrl-C while a script trains: the training ends, what was reached stays, the script goes on.

--- Runs a script as `neap run`: what it wrote to both streams, its exit status.
local function run(source, launcher)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(source)
  file:close()
  local pipe = assert(io.popen((launcher or "scripts/neap run") .. " " .. path .. " 2>&1"))
  local text = pipe:read "a"
  local _, _, status = pipe:close()
  os.remove(path)
  os.remove(path .. ".saved")
  return text, status, path
end

local begin = [[
local neap = require "neap"
local function press(after) io.popen(("(sleep %g; kill -INT $PPID) &"):format(after)):close() end
local rng = neap.rng(1)
local letters = neap.vocab.new { "a", "b" }
local model = neap.seq2class { input = letters, output = letters, rng = rng,
  net = neap.chain { neap.embed { size = 8 }, neap.lstm { size = 16 } } }
local texts, classes = {}, {}
for i = 1, 64 do
  local text = {}
  for t = 1, 20 do text[t] = letters:symbol(rng:int(2)) end
  texts[i], classes[i] = text, { text[20] }
end
local corpus = neap.corpus.from { text = texts, class = classes }
local data = { input = corpus:encode("text", letters), output = corpus:label("class", letters) }
local dev, scores = nil, 0
local function fit(quiet)
  return neap.fit(model, { optim = neap.adam { rate = 1e-2 }, epochs = 1000000, quiet = quiet,
    train = function() return neap.batches(data, { size = 32, rng = rng }) end,
    dev = function()
      scores = scores + 1
      return dev and dev() or model:score(data)
    end })
end
local saved = arg[0] .. ".saved"
]]

describe("Ctrl-C in neap.fit", function()
  it("keeps the best parameters; the script saves them and ends well", function()
    local text, status = run(begin .. [[
press(0.7)
local result = fit()
assert(model:save(saved))
local again = assert(neap.load(saved))
print(result.interrupted, result.epochs >= result.epoch, result.seconds > 0,
  again:score(data).accuracy == result.best.accuracy)
]])
    assert.equal(0, status, text)
    assert.matches("\ninterrupted in epoch %d+; the parameters of epoch %d+ are kept\n", text)
    assert.matches("true\ttrue\ttrue\ttrue\n$", text)
  end)

  it("scores what was reached if no epoch was finished", function()
    local text, status = run(begin .. [[
press(0.3)
dev = function()
  dev = nil
  while true do end
end
local result = fit()
print(result.interrupted, result.epochs, result.epoch, scores, result.best.accuracy <= 1)
]])
    assert.equal(0, status, text)
    assert.matches("\ninterrupted in epoch 1; the parameters stay as they are now\n", text, 1, true)
    assert.matches("true\t0\tnil\t2\ttrue\n$", text)
  end)

  it("ends the script at the second time", function()
    local text, status, path = run(begin .. [[
press(0.3)
print(fit(true).interrupted)
press(0.3)
while true do end
]])
    assert.equal(130, status)
    assert.equal(("true\nneap: %s:28: interrupted!\nstack traceback:\n\t%s:28: in main chunk\n")
      :format(path, path), text)
  end)

  it("may come again and again", function()
    local text, status = run(begin .. [[
for i = 1, 12 do
  press(0.05 + i * 0.003)
  assert(fit(true).interrupted)
end
print "through"
]])
    assert.equal("through\n", text)
    assert.equal(0, status)
  end)

  it("passes other errors on, with the best parameters put back", function()
    local text, status = run(begin .. [[
local count = 0
dev = function()
  count = count + 1
  if count == 3 then error "no more" end
  return { accuracy = 1 - count / 10 }
end
local first
local keep = model.keep
function model.keep(self)
  first = self.params:get "net.linear.bias"
  return keep(self)
end
print(pcall(fit, true))
print(model.params:get "net.linear.bias"[1] == first[1])
]])
    assert.equal(0, status, text)
    assert.matches("^false\t[^\n]*: no more\ntrue\n$", text)
  end)

  it("works in the lua5.4 program too", function()
    local lua = os.getenv "LUA" or "lua5.4"
    local text, status = run(begin .. [[
press(0.5)
local result = fit(true)
print(result.interrupted, result.best ~= nil)
]], lua)
    assert.equal(0, status, text)
    assert.equal("true\ttrue\n", text)
  end)
end)
