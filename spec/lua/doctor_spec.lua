-- `neap doctor` on machines that are made up, and once on this one.
local data = require "data_help"
local doctor = require "neap.doctor"

local function look(facts)
  facts.speed = facts.speed or function(threads) return 100 * threads end
  facts.environment = facts.environment or function() end
  local text, slow = {}, {}
  for _, line in ipairs(doctor.look(facts)) do
    text[#text + 1] = line.text
    if line.ok == false then slow[#slow + 1] = line.text .. " | " .. (line.mend or line.why) end
  end
  return table.concat(text, "\n"), slow
end

describe("neap doctor", function()
  it("finds nothing to mend on a machine that is well", function()
    local text, slow = look { cpu_level = "avx512", blas_core = "SkylakeX", processors = 2 }
    assert.same({}, slow)
    assert.matches("kernels: avx512", text, 1, true)
    assert.matches("OpenBLAS kernels: SkylakeX", text, 1, true)
    assert.matches("200 GFLOP/s, 2.00 times as fast", text, 1, true)
  end)

  it("names settings that slow OpenBLAS down", function()
    local _, slow = look { cpu_level = "avx2", blas_core = "Haswell", processors = 1,
      environment = function(name) return name == "OPENBLAS_CORETYPE" and "Haswell" or nil end }
    assert.same({ "OPENBLAS_CORETYPE=Haswell is set: OpenBLAS may run at half its speed, unseen | "
      .. "unset OPENBLAS_CORETYPE" }, slow)
  end)

  it("says when OpenBLAS does not know the processor, and what is done about it", function()
    local text, slow = look { cpu_level = "avx512", blas_core = "Prescott", processors = 1 }
    assert.same({}, slow)
    assert.matches("OpenBLAS does not know this processor (it takes its kernels for Prescott)", text,
      1, true)
  end)

  it("says when there are only plain kernels, and when a second thread does not help", function()
    local _, slow = look { cpu_level = "generic", blas_core = "Generic", processors = 2,
      speed = function() return 80 end }
    assert.equal(2, #slow)
    assert.matches("kernels: generic", slow[1], 1, true)
    assert.matches("1.00 times as fast", slow[2], 1, true)
  end)

  it("ends well unless the user can mend something", function()
    local print_before = print
    finally(function() _G.print = print_before end)
    local function run(facts)
      local text = {}
      _G.print = function(line) text[#text + 1] = line end
      facts.blas_core, facts.readable = "Haswell", function() return true end
      local well = doctor.run(facts)
      _G.print = print_before
      return well, table.concat(text, "\n")
    end
    local function none() end
    local well, text = run { cpu_level = "generic", processors = 2, environment = none,
      speed = function() return 80 end }
    assert.is_true(well)
    assert.matches("\n      the cause: something else keeps the processors busy", text, 1, true)
    well, text = run { cpu_level = "avx2", processors = 1, speed = function() return 80 end,
      environment = function(name) return name == "OPENBLAS_CORETYPE" and "Haswell" or nil end }
    assert.is_false(well)
    assert.matches("\n      to mend it: unset OPENBLAS_CORETYPE", text, 1, true)
  end)

  it("says what could be installed", function()
    local text = look { processors = 1, readable = function(path) return not path:find "festival" end }
    assert.matches("not installed: the CMU lexicon, for make demo (apt-get install festlex-cmu)", text,
      1, true)
    assert.matches("oneDNN, for neap bench --peers", text, 1, true)
  end)

  it("looks at this machine", function()
    local pipe = io.popen "scripts/neap doctor 2>&1"
    local text = pipe:read "a"
    pipe:close()
    assert.matches("neap [%d.]+.*Lua 5.4", text)
    assert.matches("kernels: %w+", text)
    assert.matches("%d GFLOP/s with one thread", text)
  end)
end)

describe("scripts/tools/deps", function()
  local function deps(flags)
    flags = flags .. " " .. (os.getenv "CPPFLAGS" or "")
    local pipe = assert(io.popen(("CPPFLAGS='%s' scripts/tools/deps --check build 2>&1")
      :format(flags)))
    local text = pipe:read "a"
    return text, (pipe:close())
  end

  it("finds here what this was built with", function()
    assert.same({ "", true }, { deps "" })
  end)

  it("does not take another library's cblas.h for OpenBLAS", function()
    local folder = data.folder()
    finally(folder.remove)
    folder.write("cblas.h", "void cblas_sgemm(void);\n")
    assert.same({ "missing:\n  OpenBLAS (Debian: libopenblas-dev)\n"
      .. "'make deps' installs it on Debian\n" }, { deps("-I" .. folder.path) })
  end)
end)
