--- `neap doctor`: what this machine gives neap, what is slow or missing, and how to mend it.
-- @module neap.doctor
local core = require "neap.core"
local neap = require "neap"
local op = neap.op

local function first_line(command)
  local pipe = io.popen(command .. " 2>/dev/null")
  local line = pipe and pipe:read "l"
  if pipe then pipe:close() end
  return line
end

local function readable(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

-- GFLOP/s of a training step: an LSTM of 256, 64 rows, 16 steps.
local function training_speed(threads)
  local T, B, H = 16, 64, 256
  local pr = neap.program(function(rec)
    local _, last = neap.lstm { size = H } (rec:input("x", { space = "T", dims = { H } }))
    return { loss = op.sum(op.sum_rows(op.square(last.h))) }
  end)
  local run, best = pr:run { learn = true, pool = core.pool(threads) }, math.huge
  run:feed { x = neap.zeros { T, B, H } }
  for _ = 1, 8 do
    local began = core.clock()
    run:forward()
    run:backward()
    best = math.min(best, core.clock() - began)
  end
  return 2 * 4 * H * (2 * H + 2 * H + H) * T * B / best / 1e9
end

--- Looks. The facts may be replaced, for tests.
-- @tab[opt] facts `cpu_level`, `blas_core`, `environment` (function of a name), `processors`,
--   `speed` (function of threads), `readable` (function of a path)
-- @treturn tab lines, each `{ ok = true, false or nil (a plain fact), text, mend = how to mend it,
--   why = what may be the cause where nothing can be mended }`
local function look(facts)
  facts = facts or {}
  local environment = facts.environment or os.getenv
  local level, blas = facts.cpu_level or core.cpu_level(), facts.blas_core or core.blas_core()
  local processors = facts.processors or tonumber(first_line "nproc") or 1
  local speed, there = facts.speed or training_speed, facts.readable or readable
  local lines = {}
  local function say(ok, text, mend, why)
    lines[#lines + 1] = { ok = ok, text = text, mend = mend, why = why }
  end

  say(nil, ("neap %s, %s, %s"):format(neap.version, _VERSION,
    first_line "uname -sm" or "an unknown system"))
  local model = first_line "sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo"
  say(nil, ("%d processor%s%s"):format(processors, processors == 1 and "" or "s",
    model and ", " .. model or ""))
  if level == "generic" then
    say(false, "kernels: generic, plain C", nil,
      "this processor has neither AVX2 with FMA nor AVX-512, or the build was for neither x86-64 nor "
      .. "aarch64")
  else
    say(true, "kernels: " .. level)
  end

  -- OpenBLAS: weight gradients may go through it
  local old = { Prescott = true, Core2 = true, Nehalem = true, Generic = true, Atom = true,
    Unknown = true }
  if old[blas] and level ~= "generic" then
    say(true, ("OpenBLAS does not know this processor (it takes its kernels for %s): all products "
      .. "go through neap's own kernels"):format(blas))
  else
    say(true, ("OpenBLAS kernels: %s"):format(blas))
  end
  for _, name in ipairs { "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE" } do
    local value = environment(name)
    if value then
      say(false, ("%s=%s is set: OpenBLAS may run at half its speed, unseen"):format(name, value),
        "unset " .. name)
    end
  end
  if environment "OMP_NUM_THREADS" or environment "OPENBLAS_NUM_THREADS" then
    say(nil, "OMP_NUM_THREADS or OPENBLAS_NUM_THREADS is set; neap does not look at them, it uses the "
      .. "threads of the pool a run is given")
  end

  -- speed
  local one = speed(1)
  say(nil, ("training an LSTM of 256: %.0f GFLOP/s with one thread"):format(one))
  if processors > 1 then
    local two = speed(2)
    local gain = two / one
    say(gain > 1.4, ("with two threads: %.0f GFLOP/s, %.2f times as fast"):format(two, gain), nil,
      "something else keeps the processors busy, or they share one core")
  end

  -- what examples and comparisons want
  for _, p in ipairs {
    { "/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz", "Fashion-MNIST, for make demo",
      "dataset-fashion-mnist" },
    { "/usr/share/festival/dicts/cmu/cmudict-0.4.out", "the CMU lexicon, for make demo",
      "festlex-cmu" },
    { "/usr/include/dnnl.hpp", "oneDNN, for neap bench --peers", "libdnnl-dev" },
  } do
    if there(p[1]) then
      say(true, p[2])
    else
      say(nil, "not installed: " .. p[2] .. " (apt-get install " .. p[3] .. ")")
    end
  end
  return lines
end

--- Runs the command.
-- @return true if there is nothing that the user can mend
local function run(facts)
  local well = true
  for _, line in ipairs(look(facts)) do
    local mark = line.ok and "ok  " or line.ok == false and "SLOW" or "    "
    print(mark .. "  " .. line.text)
    if line.ok == false then
      well = well and not line.mend
      print("      " .. (line.mend and "to mend it: " .. line.mend or "the cause: " .. line.why))
    end
  end
  return well
end

return { look = look, run = run }
