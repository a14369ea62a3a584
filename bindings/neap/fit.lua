--- The usual training loop: epochs with progress, validation, early stopping that keeps the best,
-- and an end by Ctrl-C that keeps what was reached.
-- @module neap.fit
local check = require "neap.check"
local checkpoint = require "neap.checkpoint"
local core = require "neap.core"
local metrics = require "neap.metrics"
local progress = require "neap.progress"
local rng = require "neap.rng"

-- Scores of which less is better.
local errors = { rmse = true, mse = true, mae = true, mase = true, nats = true, perplexity = true,
  wer = true, per = true, cer = true, error_rate = true, loss = true }

-- The generators that an option names, as a list.
local function generators(given)
  if given == nil then return {} end
  if type(given) == "table" and not getmetatable(given) then
    for i, one in ipairs(given) do check.rng(("fit: rng: %d"):format(i), one) end
    return given
  end
  return { check.rng("fit", given) }
end

--- Trains a task.
-- @function fit
-- @param model a task
-- @tab options
--
-- - `optim`: neap.adam{..} and the like
-- - `epochs`
-- - `train`: function(epoch) giving an iterator of batches (`#` of it is used for the time left)
-- - `dev`: function() giving a table of scores, called after each epoch; optional
-- - `key`: the score that decides ("accuracy"); `lower`: true if less is better (that is known of
--   scores whose names say an error, such as "rmse" and "wer", of "nats" and "perplexity"). Any
--   number is better than NaN
-- - `patience`: epochs without a better score of `dev` before it stops; nil: never
-- - `rate`: function(epoch, first_rate, done) giving the learning rate, asked for before each batch;
--   done: the share of the whole training that is over, 0 to 1, by `epochs` or, where that comes
--   first, by how many of them `minutes` allow
-- - `average`: neap.average{..}, which takes the parameters in after each batch; scored and kept
--   are its values, learning goes on from the parameters' own
-- - `minutes`: starts no epoch that would probably end later
-- - `checkpoint`: a file that is written after each epoch. Where it is there already, the training
--   goes on after its last epoch, to the same bits as if it had not been cut off, by Ctrl-C or
--   otherwise; the call has to be the same (but for `epochs` and `minutes`, which may be more). It
--   holds parameters, the best ones, the optimizer, an average, `rng`; chance within the model
--   (dropout) is drawn anew for each epoch
-- - `rng`: with a checkpoint, the generator, or a list of those, that `train` and `dev` draw from
-- - `out`: where lines go (standard error); `quiet`: no lines
-- @treturn tab `{ best = scores, epoch = of the best, epochs = done, seconds, interrupted, unsaved =
--   why the last checkpoint could not be written, or nil }`; the model holds the best parameters.
--   Ctrl-C ends the training, not the script: interrupted is true then, and if no epoch was finished,
--   best has the scores of what was reached (a second Ctrl-C ends the script)
return function(model, options)
  if type(model) ~= "table" or not (model.learn and model.keep) then
    check.fail("fit: expected a task, came %s", check.came(model))
  end
  options = check.options("fit", options, { "optim", "epochs", "train", "dev", "key", "lower",
    "patience", "rate", "average", "minutes", "out", "quiet", "checkpoint", "rng" })
  local optim = options.optim
  if type(optim) ~= "table" or type(optim.step) ~= "function" or type(optim.rate) ~= "function" then
    check.fail("fit: optim: expected an optimizer such as neap.adam{ rate = 1e-3 }, came %s",
      check.came(optim))
  end
  local epochs = check.integer("fit", "epochs", options.epochs, 0)
  check.type("fit", "train", options.train, "function")
  if options.dev ~= nil then check.type("fit", "dev", options.dev, "function") end
  if options.key ~= nil then check.type("fit", "key", options.key, "string") end
  if options.rate ~= nil then check.type("fit", "rate", options.rate, "function") end
  if options.patience then
    check.integer("fit", "patience", options.patience, 1)
    if not options.dev then
      check.fail("fit: patience: counts epochs without a better score, which needs dev, came none")
    end
  end
  if type(optim.schedule) == "table" and optim.schedule.observe and not options.dev then
    check.fail("fit: optim: its schedule waits for scores, which needs dev, came none")
  end
  local average = options.average
  if average ~= nil and not (type(average) == "table" and average.update and average.apply) then
    check.fail("fit: average: expected neap.average { .. }, came %s", check.came(average))
  end
  local minutes = options.minutes
  if minutes ~= nil and not (type(minutes) == "number" and minutes >= 0) then
    check.fail("fit: minutes: expected a number from 0, came %s", check.came(minutes))
  end
  if options.out ~= nil and not io.type(options.out) and type(options.out) ~= "table" then
    check.fail("fit: out: expected a file, came %s", check.came(options.out))
  end
  local path, rngs = options.checkpoint, generators(options.rng)
  if path ~= nil then
    check.type("fit", "checkpoint", path, "string")
    if type(optim.save) ~= "function" or not model.params then
      check.fail("fit: checkpoint: expected a task and an optimizer of the library")
    end
  end
  local out = options.out or io.stderr
  local known = optim.on and model.params -- an optimizer of the library knows its preset rate then
  if known then optim:on(model.params) end
  local key, first_rate = options.key or "accuracy", known and optim.base or optim:rate()
  local fresh = known and optim:report(model.params).steps == 0
  local lower = options.lower
  if lower == nil then lower = errors[key] end
  local result = { epochs = 0, seconds = 0, interrupted = false }
  local best -- { scores, epoch, restore }: set at one go, since Ctrl-C may come at any moment
  local began = core.clock()
  local history, last, seed = {}, 0, model.seed
  local back -- puts the parameters back that an average stands for

  -- What is drawn in an epoch does not depend on the ones before.
  local function draw_anew(epoch)
    local s = rng.new(seed or 1):fork("epoch " .. epoch):seed()
    model.seed = s -- of runs that are opened later
    if type(model.drawn) == "table" then model.drawn = {} end
    for _, run in pairs(type(model.runs) == "table" and model.runs or {}) do run:seed(s) end
  end

  -- Gradients that wait for a step are of another training.
  local function forget()
    if optim.gathered and model.params then optim.gathered[model.params] = nil end
  end

  local function save(epoch)
    local ok, message = checkpoint.save(path, { model = model, optim = optim, rngs = rngs,
      average = average, best = best and best.params, scores = best and best.scores,
      history = history, numbers = { epoch = epoch, best = best and best.epoch or 0,
        rate = optim:rate(), first_rate = first_rate,
        seconds = core.clock() - began } })
    result.unsaved = not ok and message or nil
    if not ok and not options.quiet then out:write("checkpoint not saved: ", message, "\n") end
  end

  local function resume()
    local state = { model = model, optim = optim, rngs = rngs, average = average,
      first_rate = fresh and first_rate or nil }
    local there, message = checkpoint.load(path, state)
    if there == nil then check.fail("fit: checkpoint: %s", message) end
    if not there then return end
    local n = state.numbers
    last, first_rate, history = math.tointeger(n.epoch), n.first_rate, state.history
    if optim.schedule then optim.base = first_rate else optim:rate(n.rate) end
    for _, score in ipairs(history) do optim:observe(score) end
    if n.best > 0 then
      state.scores.n = math.tointeger(state.scores.n) or state.scores.n
      best = { scores = metrics.scores(state.scores), epoch = math.tointeger(n.best),
        params = state.best, restore = function() model.params:copy(state.best) end }
    end
    began, result.epochs = began - n.seconds, last
    if not options.quiet then
      out:write((last < epochs and "goes on after epoch %d of %s\n"
        or "epoch %d, in %s, was the last one\n"):format(last, path))
    end
  end

  -- How many epochs there can be, if `epoch` begins at `start` and each takes so long.
  local function possible(epoch, start, each)
    if not minutes then return epochs end
    return math.min(epochs, epoch - 1 + (minutes * 60 - (start - began)) // each)
  end

  -- How long those before took on average: a single slow one tells little.
  local function mean(epoch, start) return (start - began) / math.max(epoch - 1, 1) end

  -- How much is over when a share of an epoch is.
  local function done(epoch, share, start)
    local all = epochs
    if epoch > 1 or share > 0.05 then
      local each = epoch > 1 and mean(epoch, start) or (core.clock() - start) / share
      all = math.max(epoch, possible(epoch, start, each))
    end
    return (epoch - 1 + share) / all
  end

  local function learn(epoch)
    local iterator = options.train(epoch)
    local meta = getmetatable(iterator)
    if type(iterator) ~= "function" and not (meta and meta.__call) then
      check.fail("fit: train: expected a function that gives batches (neap.batches), came %s",
        check.came(iterator))
    end
    local bar = progress { total = meta and meta.__len and #iterator,
      label = ("epoch %d/%d"):format(epoch, epochs), out = options.out }
    local sum, n, start, total = 0, 0, core.clock(), meta and meta.__len and #iterator
    for batch in iterator do
      if options.rate then
        local share = total and total > 0 and math.min(n / total, 1) or 0
        local rate = options.rate(epoch, first_rate, done(epoch, share, start))
        if type(rate) ~= "number" then
          check.fail("fit: rate: expected a function that gives a number, came one that gives %s",
            check.came(rate))
        end
        optim:rate(rate)
      end
      sum = sum + model:learn(batch, optim)
      local gathered = optim.gathered and optim.gathered[model.params]
      if average and not gathered then average:update(model) end
      n = n + 1
      if not options.quiet then
        bar:update(n, { loss = sum / n, rate = optim:rate(), score = best and best.scores[key] })
      end
    end
    if optim.gathered and optim.gathered[model.params] then
      if model.finish then model:finish(optim) else optim:finish(model.params) end
      if average then average:update(model) end
    end
    if not options.quiet then bar:finish() end
    if n == 0 then check.fail("fit: train gave no batch in epoch %d", epoch) end
    return sum / n
  end

  local function score()
    local scores = options.dev()
    if type(scores) ~= "table" or type(scores[key]) ~= "number" then
      local names = {}
      for name, value in pairs(type(scores) == "table" and scores or {}) do
        if type(value) == "number" and name ~= "n" then names[#names + 1] = name end
      end
      table.sort(names)
      check.fail("fit: dev: expected a table with the score %s, came %s", key, #names > 0
        and "one with " .. table.concat(names, ", ") .. ": say which counts, key = \"" .. names[1]
        .. "\"" or check.came(scores))
    end
    return scores
  end

  local function epoch_of(epoch)
    local start = core.clock()
    local loss = learn(epoch)
    back = average and average:apply(model)
    local scores = options.dev and score() or metrics.scores { loss = loss }
    local run = type(model.runs) == "table" and model.runs["learn:learn"]
    if run then result.memory_mb = run:bytes() / 1e6 end
    local better = not best or not options.dev
    if not better then
      local now, before = scores[key], best.scores[key]
      if lower then now, before = -now, -before end
      better = now > before or before ~= before and now == now
    end
    if better then
      best = { scores = scores, epoch = epoch, restore = model:keep(),
        params = path and model.params:clone() }
    end
    if back then back() end
    back = nil
    if options.dev and type(optim.observe) == "function" then optim:observe(scores[key]) end
    if options.dev then history[#history + 1] = scores[key] end
    result.epochs = epoch
    if path then save(epoch) end
    if options.quiet then return end
    local text = ("epoch %d/%d  loss %s"):format(epoch, epochs, metrics.number(loss))
    if options.dev then
      text = text .. ("  %s %s%s"):format(key, metrics.number(scores[key]), better and "" or
        ("  (best %s)"):format(metrics.number(best.scores[key])))
    end
    text = text .. ("  rate %.3g  %.0f s"):format(optim:rate(), core.clock() - start)
    if result.memory_mb then text = text .. ("  %.1f MB"):format(result.memory_mb) end
    out:write(text, "\n")
  end

  -- the loop in one protected call: Ctrl-C between two epochs is caught too
  forget()
  if path then resume() end
  local ok, message = pcall(function()
    for epoch = last + 1, epochs do
      if options.patience and best and last - best.epoch >= options.patience then break end
      if path then draw_anew(epoch) end
      local now = core.clock()
      if possible(epoch, now, mean(epoch, now)) < epoch then break end
      epoch_of(epoch)
      if options.patience and epoch - best.epoch >= options.patience then break end
    end
  end)
  model.seed = seed
  if not ok then
    if back then back() end
    forget()
    -- what Ctrl-C raises, here and in the lua5.4 program; a run that its host has canceled
    local text = type(message) == "string" and message or ""
    if not (text:find "interrupted!$" or text:find "run: canceled$") then
      if best then best.restore() end
      error(message, 0)
    end
    result.interrupted = true
    if not options.quiet then
      out:write(("\ninterrupted in epoch %d; %s\n"):format(result.epochs + 1, best
        and ("the parameters of epoch %d are kept"):format(best.epoch)
        or "the parameters stay as they are now"))
    end
  end
  if best then
    best.restore()
    result.best, result.epoch = best.scores, best.epoch
  elseif result.interrupted and options.dev then
    result.best = score()
  end
  result.seconds = core.clock() - began
  return metrics.scores(result)
end
