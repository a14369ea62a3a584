-- busted under the Lua that runs this file, whichever Lua the system's busted would take.
assert(_VERSION == "Lua 5.4", "the specs need Lua 5.4")
require "busted.runner" { standalone = false }
