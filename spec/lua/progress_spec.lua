-- The line that says how far the work is.
local progress = require "neap.progress"
local help = require "data_help"

--- A progress on a clock of ours; what it has written so far.
local function made(options)
  local now, text = 100, {}
  options.clock = function() return now end
  options.out = { write = function(_, ...) text[#text + 1] = table.concat{ ... } end,
    flush = function() end }
  return progress(options), function(seconds) now = 100 + seconds end,
    function() return table.concat(text) end
end

describe("progress", function()
  it("shows nothing for short work", function()
    for _, terminal in ipairs{ true, false } do
      local p, at, text = made{ total = 10, terminal = terminal }
      for i = 1, 10 do
        at(i * 0.19)
        p:update(i)
      end
      p:finish()
      assert.equal("", text())
    end
  end)

  it("rewrites one line on a terminal", function()
    local p, at, text = made{ total = 200, label = "epoch 2", terminal = true }
    at(2)
    p:update(50, { rate = 0.001, loss = 1.23456, words = 12, score = 0.5 })
    local line = "\r\27[Kepoch 2  [=====               ]   25 %  loss 1.235  score 0.5  rate 0.001"
      .. "  words 12  0:06 left"
    assert.equal(line, text())
    at(2.05)
    p:update(60)
    assert.equal(#line, #text(), "at most ten times a second")
    at(3)
    p:update(100, { loss = 1 })
    line = "\r\27[Kepoch 2  [==========          ]   50 %  loss 1  0:03 left"
    assert.truthy(text():find(line, 1, true))
    at(75)
    p:finish()
    assert.truthy(text():find "left\r\27%[Kepoch 2  1:15\n$")
  end)

  it("writes plain lines elsewhere, one in ten seconds", function()
    local p, at, text = made{ total = 100, label = "train", terminal = false }
    for i = 1, 100 do
      at(i * 0.25)
      p:update(i, { loss = 2 })
    end
    p:finish("epoch 1  loss 2.0  score 0.8")
    assert.equal("train   40 %  loss 2  0:15 left\ntrain   80 %  loss 2  0:05 left\n"
      .. "epoch 1  loss 2.0  score 0.8\n", text())
  end)

  it("counts where no total is known", function()
    local p, at, text = made{ terminal = true }
    at(3700)
    p:update(17)
    assert.equal("\r\27[K17  1:01:40", text())
    p:finish("done")
    assert.equal("\r\27[K17  1:01:40\r\27[Kdone\n", text())
  end)

  it("refuses wrong use", function()
    help.raises("unknown option \"totl\"; did you mean \"total\"?", function()
      progress{ totl = 1 }
    end)
    help.raises("total: expected 0 or more, came -1", function() progress{ total = -1 } end)
  end)
end)
