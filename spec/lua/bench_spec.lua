-- `neap bench` in its smallest form: the columns, what they add up to, arguments it refuses. How fast
-- anything is, no spec says.
local cjson = require "cjson"

local function shell(command)
  local pipe = assert(io.popen("{ " .. command .. "; } 2>/dev/null", "r"))
  local text = pipe:read "a"
  local ok = pipe:close()
  return text, ok
end

local quick = "scripts/neap bench --seconds 0.001 --repeats 1 "

describe("neap bench", function()
  it("prints a table with tabs between", function()
    local text, ok = shell(quick .. "--only W3 --hidden 16 --cells lstm,gru")
    assert.is_true(ok)
    local lines = {}
    for line in text:gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.equal("peer\tworkload\tcell\tT\tB\tD\tH\tL\tthreads\tmedian_us\tGFLOPs_effective\tmin_us\z
      \tspread_pct\tpeak_mb", lines[1])
    assert.equal(7, #lines) -- two cells, through C, through Lua, in blocks
    local cell, median, rate = lines[2]:match
      "^neap\tW3\t(%w+)\t1\t1\t1\t16\t1\t1\t([%d.]+)\t([%d.]+)\t[%d.]+\t0.0\t[%d.]*$"
    assert.equal("lstm", cell)
    -- 2 * gates * H * (D + H) operations; the median is rounded to nanoseconds
    assert.near(2 * 4 * 16 * 17, tonumber(median) * tonumber(rate) * 1e3, 200)
  end)

  it("gives JSON, with the cells of a script beside the fused one", function()
    local text, ok = shell(quick .. "--only W1 --hidden 128 --cells lstm --threads 1 --json")
    assert.is_true(ok)
    local rows, known = cjson.decode(text), io.open("/proc/self/clear_refs", "w")
    assert.same({ "neap", "neap-cell", "neap-gates" }, { rows[1].peer, rows[2].peer, rows[3].peer })
    for _, row in ipairs(rows) do
      assert.same({ "W1", "lstm", 28, 64, 28, 128, 1, 1 }, { row.workload, row.cell, row.T, row.B,
        row.D, row.H, row.L, row.threads })
      assert.is_true(row.median_us >= row.min_us and row.min_us > 0)
      -- at least what backward needs of one layer: input, gates, states of all steps; no other case
      if known then assert.is_true(row.peak_mb > 4 * 28 * 64 * 7 * 128 / 1e6 and row.peak_mb < 100) end
    end
  end)

  it("refuses what it does not know", function()
    for _, wrong in ipairs { "--only W9", "--cells lstn", "--seconds 0", "--repeats 0",
      "--threads x", "--hidden 17" } do
      local pipe = io.popen(quick .. wrong .. " 2>&1; echo $?")
      local text = pipe:read "a"
      pipe:close()
      assert.matches("expected", text, 1, true)
      assert.matches("\n[12]\n$", text)
    end
    local pipe <close> = io.popen "scripts/neap bench --seconds abc 2>&1"
    assert.matches("^neap: bench: %-%-seconds: expected a number, came abc\n", pipe:read "a")
  end)

  it("explains its workloads and peers", function()
    local text = shell "scripts/neap bench --help"
    for _, name in ipairs { "W1", "W2", "W3", "W3-lua", "W3-block", "W4", "neap", "neap-cell",
      "neap-gates" } do
      assert.matches("\n   " .. name:gsub("%-", "%%-") .. "  +%l", text)
    end
    assert.matches("minutes", text, 1, true)
  end)

  it("aligns the columns on a terminal", function()
    if not os.execute "script -qec true /dev/null >/dev/null 2>&1 </dev/null" then
      return pending "no program script here, or no pseudo-terminals"
    end
    local text = shell("script -qec '" .. quick .. "--only W3 --hidden 16 --cells lstm' /dev/null "
      .. "</dev/null")
    local head, row = text:match "(peer [^\r\n]*)\r\n(neap [^\r\n]*)\r\n"
    assert.equal(#head, #row)
    assert.equal(head:find "workload", row:find "W3")
    assert.equal(select(2, head:find "median_us"), select(2, row:find "%d+%.%d%d%d"))
  end)
end)
