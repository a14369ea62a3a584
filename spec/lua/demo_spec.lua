-- What make demo runs, with hardly any learning.

describe("the demo #long", function()
  it("trains, saves, compares the bits of Lua and C, and ends with a table", function()
    local pipe = assert(io.popen "scripts/neap run scripts/examples/demo.lua --minutes 0.01 2>&1")
    local text = pipe:read "a"
    local _, _, status = pipe:close()
    if text:find("install dataset%-fashion%-mnist") then return pending "no Fashion-MNIST here" end
    assert.equal(0, status, text)
    assert.matches("\nsame bits: 2200 of 2200 numbers\n", text, 1, true)
    for _, task in ipairs { "seq2class", "synced", "async" } do
      assert.matches("\n" .. task .. " +%S.- +%d+ +0%.%d+ of %l+ %l+ +0%.%d+.-%d+\n", text)
    end
  end)
end)
