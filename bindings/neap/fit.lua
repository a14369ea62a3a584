--- The usual training loop: epochs with progress, validation, early stopping that keeps the best,
-- and an end by Ctrl-C that keeps what was reached.
-- @module neap.fit
local check = require "neap.check"
local core = require "neap.core"
local progress = require "neap.progress"

--- Trains a task.
-- @function fit
-- @param model a task
-- @tab options
--
-- - `optim`: neap.adam{..} and the like
-- - `epochs`
-- - `train`: function(epoch) giving an iterator of batches (`#` of it is used for the time left)
-- - `dev`: function() giving a table of scores, called after each epoch; optional
-- - `key`: the score that decides ("accuracy"); `lower`: true if less is better
-- - `patience`: epochs without a better score before it stops; nil: never
-- - `rate`: function(epoch, first_rate) giving the rate of an epoch
-- - `minutes`: starts no epoch that would probably end later
-- - `out`: where lines go (standard error); `quiet`: no lines
-- @treturn tab `{ best = scores, epoch = of the best, epochs = done, seconds, interrupted }`; the model
--   holds the best parameters
return function(model, options)
  check.options("fit", options, { "optim", "epochs", "train", "dev", "key", "lower", "patience",
    "rate", "minutes", "out", "quiet" })
  local epochs = check.integer("fit", "epochs", options.epochs, 0)
  check.type("fit", "train", options.train, "function")
  local out = options.out or io.stderr
  local key, first_rate = options.key or "accuracy", options.optim:rate()
  local result = { epochs = 0, seconds = 0, interrupted = false }
  local restore
  local began = core.clock()
  local longest = 0

  local function epoch_of(epoch)
    if options.rate then options.optim:rate(options.rate(epoch, first_rate)) end
    local iterator = options.train(epoch)
    local counted, total = pcall(function() return #iterator end)
    total = counted and total or nil
    local bar = progress { total = total, label = ("epoch %d/%d"):format(epoch, epochs),
      out = options.out }
    local sum, n = 0, 0
    for batch in iterator do
      sum = sum + model:learn(batch, options.optim)
      n = n + 1
      if not options.quiet then
        bar:update(n, { loss = sum / n, rate = options.optim:rate(),
          score = result.best and result.best[key] })
      end
    end
    if not options.quiet then bar:finish() end
    return n > 0 and sum / n or 0
  end

  for epoch = 1, epochs do
    local start = core.clock()
    if options.minutes and start - began + longest > options.minutes * 60 then break end
    local ok, loss = pcall(epoch_of, epoch)
    local scores
    if ok and options.dev then
      ok, scores = pcall(options.dev)
      if not ok then loss = scores end
    end
    if not ok then
      -- Ctrl-C comes as an error "interrupted" from Lua or as a canceled run from C
      local text = tostring(loss)
      if not (text:find("interrupted", 1, true) or text:find("canceled", 1, true)) then
        if restore then restore() end
        error(loss, 0)
      end
      result.interrupted = true
      break
    end
    result.epochs = epoch
    longest = math.max(longest, core.clock() - start)
    local better = not result.best
    if scores and result.best then
      if options.lower then better = scores[key] < result.best[key]
      else better = scores[key] > result.best[key] end
    end
    if not options.dev then better = true end
    if better then
      result.best, result.epoch = scores or { loss = loss }, epoch
      restore = model:keep()
    end
    if not options.quiet then
      local text = ("epoch %d/%d  loss %.4f"):format(epoch, epochs, loss)
      if scores and scores[key] then
        text = text .. ("  %s %.4f%s"):format(key, scores[key], better and "" or
          ("  (best %.4f)"):format(result.best[key]))
      end
      out:write(text, ("  rate %.3g  %.0f s\n"):format(options.optim:rate(), core.clock() - start))
    end
    if options.patience and result.epoch and epoch - result.epoch >= options.patience then break end
  end
  if restore then restore() end
  result.seconds = core.clock() - began
  return result
end
