-- Corpora: what readers take, and what they say about bad files.
local core = require "neap.core"
local corpus = require "neap.corpus"
local rng = require "neap.rng"
local vocab = require "neap.vocab"
local help = require "data_help"
local raises, fails = help.raises, help.fails

describe("a corpus", function()
  local folder

  setup(function() folder = help.folder() end)
  teardown(function() folder.remove() end)

  local function big(magic, ...)
    local s = string.pack(">I4", magic)
    for _, n in ipairs{ ... } do s = s .. string.pack(">I4", n) end
    return s
  end

  describe("of lines with tabs", function()
    local two = { columns = { "input", "target" },
      split = { input = "characters", target = "words" } }

    it("is cut as asked", function()
      local path = folder.write("a.tsv", "\xEF\xBB\xBFéa\tX Y\r\n\nb\tY\na\t\nlast\tZ")
      local c = assert(corpus.tsv(path, two))
      assert.equal(4, #c)
      assert.same({ "input", "target" }, c:names())
      assert.same({ "é", "a" }, c:get("input", 1))
      assert.equal("éa", c:string("input", 1))
      assert.same({ "X", "Y" }, c:get("target", 1))
      assert.equal("X Y", c:string("target", 1))
      assert.equal(0, c:length("target", 3))
      assert.equal("Z", c:string("target", 4))
      assert.same({ X = 1, Y = 2, Z = 1 }, c:counts "target")
      assert.equal("corpus " .. path .. ": 4 sequences; input, target", tostring(c))
      assert.matches(": 1 sequence; input, target", tostring(c:select { 4 }), 1, true)
      local plain = assert(corpus.tsv(path, { columns = { "input", "target" } }))
      assert.same({ "X Y" }, plain:get("target", 1))
    end)

    it("may have a header", function()
      local path = folder.write("head.tsv", "word\tkind\n\nto be\tX\n")
      local c = assert(corpus.tsv(path, { header = true, split = { word = "words" } }))
      assert.equal(1, #c)
      assert.same({ "to", "be" }, c:get("word", 1))
      c = assert(corpus.tsv(path, { header = true, columns = { "a", "b" } }))
      assert.same({ 1, { "a", "b" } }, { #c, c:names() })
      assert.equal(2, #assert(corpus.tsv(path, { columns = { "a", "b" } })))
      raises("split: \"wort\" is not among the columns; did you mean \"word\"?", function()
        corpus.tsv(path, { header = true, split = { wort = "words" } })
      end)
      fails("EFORMAT", ":1: header: column 2 has the name of another",
        corpus.tsv(folder.write("twice.tsv", "a\ta\n1\t2\n"), { header = true }))
      fails("EFORMAT", "no lines in it",
        corpus.tsv(folder.write("only.tsv", "a\tb\n"), { header = true }))
    end)

    it("knows the line of each sequence", function()
      local path = folder.write("lines.tsv", "a\tX\n\nb\tY Z\nc\tX\n")
      local c = assert(corpus.tsv(path, two))
      assert.equal(path .. ", sequence 2 (line 3)", c:place(2))
      assert.equal(path .. ", sequence 1 (line 4)", c:select{ 3, 1 }:place(1))
      raises("lines.tsv, sequence 2 (line 3): expected one symbol, came 2", function()
        c:label("target", vocab(c, "target"))
      end)
      path = folder.write("lines.conllu", "# one\n1\ta\t_\t_\t_\t_\t_\t_\t_\t_\n\n\n# two\n"
        .. "1\ta\t_\t_\t_\t_\t_\t_\t_\t_\n2\ta\t_\t_\t_\t_\t_\t_\t_\t_\n\n")
      assert.equal(path .. ", sequence 2 (line 6)", assert(corpus.conllu(path)):place(2))
      assert.equal("a script, sequence 1", corpus.from{ a = { "x" } }:place(1))
    end)

    it("names file and line of what is wrong", function()
      local path = folder.write("b.tsv", "a\tb\na\nc\td\n")
      fails("EFORMAT",
        path .. ":2: expected 2 columns (input, target), came 1: no tab is in the line",
        corpus.tsv(path, two))
      path = folder.write("c.tsv", "a\tb\nc\td\te\n")
      fails("EFORMAT", path .. ":2: expected 2 columns (input, target), came 3",
        corpus.tsv(path, two))
      path = folder.write("d.tsv", "a\tb\nc\td\xFFe\n")
      fails("EFORMAT", path .. ":2: not UTF-8: byte 4 of the line is 0xFF", corpus.tsv(path, two))
      path = folder.write("e.tsv", "\n\n")
      fails("EFORMAT", path .. ": no lines in it", corpus.tsv(path, two))
      fails("EFORMAT", "no lines in it", corpus.tsv(folder.write("f.tsv", ""), two))
      fails("EIO", "No such file", corpus.tsv(folder.path .. "/none.tsv", two))
      fails("EIO", "directory", corpus.tsv(folder.path, two))
    end)

    it("may have more cells than are read", function()
      local path = folder.write("more.tsv", "a\tx\t1\nb\ty\nc\tz\t1\t2\n")
      local c = assert(corpus.tsv(path, { columns = { "text", "kind" }, more = true }))
      assert.same({ "kind", "text" }, c:names())
      assert.equal("z", c:string("kind", 3))
      fails("EFORMAT", "more.tsv:2: expected 3 columns or more (text, kind, n), came 2",
        corpus.tsv(path, { columns = { "text", "kind", "n" }, more = true }))
      raises("corpus.tsv: more: expected true or false, came 1", function()
        corpus.tsv(path, { columns = { "text" }, more = 1 })
      end)
    end)

    it("refuses wrong use", function()
      raises("columns: expected a table, came nil", function() corpus.tsv("x") end)
      raises("header: expected a boolean, came 1", function()
        corpus.tsv("x", { columns = { "a" }, header = 1 })
      end)
      raises("columns: \"a\" came twice", function()
        corpus.tsv("x", { columns = { "a", "a" } })
      end)
      raises("path: expected a string, came nil", function() corpus.tsv(nil, two) end)
      raises("at least one name", function() corpus.tsv("x", { columns = {} }) end)
      raises("\"inputs\" is not among the columns", function()
        corpus.tsv("x", { columns = { "input" }, split = { inputs = "words" } })
      end)
      raises("came \"word\"; did you mean \"words\"?", function()
        corpus.tsv("x", { columns = { "input" }, split = { input = "word" } })
      end)
      raises("unknown option \"column\"; did you mean \"columns\"?", function()
        corpus.tsv("x", { column = { "input" } })
      end)
    end)
  end)

  describe("of a text", function()
    it("is one sequence of characters or words", function()
      local path = folder.write("a.txt", "aé\nb a\n")
      local c = assert(corpus.text(path))
      assert.equal(1, #c)
      assert.same({ "a", "é", "\n", "b", " ", "a", "\n" }, c:get("text", 1))
      assert.same({ "aé", "b", "a" }, assert(corpus.text(path, { split = "words" })):get("text", 1))
    end)

    it("names line and byte of what is not UTF-8", function()
      local path = folder.write("b.txt", "ab\ncd\nxy\xC0z\n")
      fails("EFORMAT", path .. ":3: not UTF-8: byte 3 of the line is 0xC0", corpus.text(path))
      path = folder.write("c.txt", "\x80")
      fails("EFORMAT", path .. ":1: not UTF-8: byte 1 of the line is 0x80", corpus.text(path))
      fails("EFORMAT", "nothing in it", corpus.text(folder.write("d.txt", "")))
      fails("EIO", "No such file", corpus.text(folder.path .. "/none.txt"))
      fails("EIO", "directory", corpus.text(folder.path))
    end)
  end)

  describe("in CoNLL-U", function()
    local function word(id, form, upos)
      return ("%s\t%s\t%s\t%s\tX\t_\t0\troot\t_\t_\n"):format(id, form, form:lower(), upos)
    end
    local good = "# text\n" .. word("1-2", "Dont", "_") .. word("1", "Do", "AUX") ..
      word("2", "n't", "PART") .. word("2.1", "go", "VERB") .. "\n\n# next\n" ..
      word("1", "Go", "VERB") .. "\n"

    it("passes over multi-word tokens and empty nodes", function()
      local c = assert(corpus.conllu(folder.write("a.conllu", good)))
      assert.equal(2, #c)
      assert.same({ "form", "lemma", "upos", "xpos" }, c:names())
      assert.same({ "Do", "n't" }, c:get("form", 1))
      assert.same({ "AUX", "PART" }, c:get("upos", 1))
      assert.same({ "go" }, c:get("lemma", 2))
      local path = folder.write("b.conllu", good:sub(1, -2))
      c = assert(corpus.conllu(path, { fields = { "deprel" } }))
      assert.same({ "root" }, c:get("deprel", 2))
      assert.same({ "deprel" }, c:names())
    end)

    it("names file and line of what is wrong", function()
      local path = folder.write("c.conllu", word("1", "a", "X") .. "2\tb\n\n")
      fails("EFORMAT", path .. ":2: expected 10 columns, came 2", corpus.conllu(path))
      path = folder.write("d.conllu", word("1", "a", "X") .. word("3", "b", "X") .. "\n")
      fails("EFORMAT", path .. ":2: expected word number 2, came 3", corpus.conllu(path))
      path = folder.write("e.conllu", word("x", "a", "X") .. "\n")
      fails("EFORMAT", path .. ":1: expected a word number, came \"x\"", corpus.conllu(path))
      path = folder.write("f.conllu", good .. word("1", "a", "X"):sub(1, -2))
      fails("EFORMAT", "ends within a sentence", corpus.conllu(path))
      path = folder.write("g.conllu", good .. word("1", "a\xE9", "X") .. "\n")
      fails("EFORMAT", path .. ":11: not UTF-8", corpus.conllu(path))
      path = folder.write("h.conllu", word("1", "", "X") .. "\n")
      fails("EFORMAT", path .. ":1: column form is empty", corpus.conllu(path))
      path = folder.write("i.conllu", "# only comments\n\n")
      fails("EFORMAT", "no sentences in it", corpus.conllu(path))
      fails("EIO", "No such file", corpus.conllu(folder.path .. "/none.conllu"))
      raises("no column \"upo\"; did you mean \"upos\"?", function()
        corpus.conllu(path, { fields = { "upo" } })
      end)
    end)

    it("holds the English treebank", function()
      local path = help.shared "ud-english-ewt/dev.conllu"
      if not path then return pending "the data sets are not there" end
      local c = assert(corpus.conllu(path))
      local words = 0
      for i = 1, #c do words = words + c:length("form", i) end
      assert.same({ 2001, 25147 }, { #c, words })
      assert.equal(17, #vocab(c, "upos"))
    end)
  end)

  describe("of pictures", function()
    local pixels = "\0\51\102\153\204\255" .. "\255\0\255\0\255\0"
    local images = big(0x803, 2, 3, 2) .. pixels
    local labels = big(0x801, 2) .. "\7\0"

    it("has rows from 0 to 1 and labels", function()
      local i, l = folder.write("i", images), folder.write("l", labels)
      local c = assert(corpus.idx(i, l))
      assert.equal(2, #c)
      local t = c:get("image", 1)
      assert.equal("f32 [3,2]", tostring(t))
      for k, wanted in ipairs{ 0, 0.2, 0.4, 0.6, 0.8, 1 } do
        assert.is_true(math.abs(t:get((k + 1) // 2, (k - 1) % 2 + 1) - wanted) < 1e-7)
      end
      assert.same({ "7" }, c:get("label", 1))
      assert.same({ "0" }, c:get("label", 2))
      local e = c:encode "image"
      assert.same({ 6, 2 }, e.data:shape())
      assert.same({ 0, 3, 6 }, e.offsets:totable())
    end)

    it("is unpacked on the way", function()
      local i, l = folder.write("it's i", images), folder.write("l2", labels)
      assert(os.execute(("gzip -kf %q '%s'"):format(i, l)))
      local c = assert(corpus.idx(i .. ".gz", l .. ".gz"))
      assert.equal("f32 [3,2]", tostring(c:get("image", 2)))
      local file <close> = assert(io.open(i .. ".gz", "rb"))
      local packed = file:read "a"
      local cut = folder.write("cut.gz", packed:sub(1, -6))
      fails("EFORMAT", cut .. ": gzip cannot unpack it", corpus.idx(cut, l))
      fails("EFORMAT", "gzip cannot unpack it", corpus.idx(folder.write("not.gz", images), l))
      fails("EIO", "No such file", corpus.idx(folder.path .. "/none.gz", l))
    end)

    it("names what is wrong with a file", function()
      local l = folder.write("l3", labels)
      local function try(code, text, content)
        local path = folder.write("bad", content)
        fails(code, path .. ": " .. text, corpus.idx(path, l))
      end
      try("EFORMAT", "nothing in it", "")
      try("EFORMAT", "ends after 3 bytes, within the header", "\0\0\8")
      try("EFORMAT", "ends after 8 bytes, within the header", images:sub(1, 8))
      try("EFORMAT", "ends after 27 bytes, its header says 28", images:sub(1, -2))
      try("EFORMAT", "goes on after the 28 bytes", images .. "\0")
      try("EFORMAT", "not an IDX file: begins with 0x504B", "PK\3\4" .. images)
      try("EFORMAT", "expected unsigned bytes (type 0x08), came type 0x0D",
        big(0xD03, 1, 1, 1) .. "\0\0\0\0")
      try("EFORMAT", "expected 3 dimensions, came 1", labels)
      try("EFORMAT", "its header says more than 2^31 bytes", big(0x803, 0xFFFFFFFF, 0xFFFFFFFF, 28))
      try("EFORMAT", "dimension 2 is 0", big(0x803, 1, 0, 1))
      fails("EFORMAT", "expected 1 dimensions, came 3",
        corpus.idx(folder.write("i4", images), folder.write("l4", images)))
      fails("EFORMAT", "3 labels for the 2 pictures",
        corpus.idx(folder.write("i5", images), folder.write("l5", big(0x801, 3) .. "\1\2\3")))
      fails("EIO", "No such file", corpus.idx(folder.path .. "/none", l))
      fails("EIO", "No such file", corpus.idx(folder.write("i6", images), folder.path .. "/none"))
      fails("EIO", "directory", corpus.idx(folder.path, l))
    end)

    it("are read as rows, columns, pixels or patches", function()
      local c = corpus.from { image = { { { 1, 2, 3, 4 }, { 5, 6, 7, 8 } },
        { { 11, 12, 13, 14 }, { 15, 16, 17, 18 } } }, label = { "a", "b" } }
      local function of(how, options)
        return c:patches("image", how, options):get("image", 1):totable()
      end
      assert.same({ { 1, 2, 3, 4 }, { 5, 6, 7, 8 } }, of "rows")
      assert.same({ { 1, 5 }, { 2, 6 }, { 3, 7 }, { 4, 8 } }, of "columns")
      assert.same({ { 1 }, { 2 }, { 3 }, { 4 }, { 5 }, { 6 }, { 7 }, { 8 } }, of "pixels")
      assert.same({ { 1, 2, 5, 6 }, { 3, 4, 7, 8 } }, of { 2, 2 })
      assert.same({ { 1, 2 }, { 3, 4 }, { 5, 6 }, { 7, 8 } }, of { 1, 2 })
      assert.same({ { 3, 7 }, { 1, 5 }, { 4, 8 }, { 2, 6 } },
        of("columns", { order = { 3, 1, 4, 2 } }))
      local p = c:patches("image", { 2, 2 }, { order = core.tensor({ 2, 1 }, "i32") })
      assert.same({ { 13, 14, 17, 18 }, { 11, 12, 15, 16 } }, p:get("image", 2):totable())
      assert.same({ "b" }, p:get("label", 2))
      assert.same({ 0, 2, 4 }, p:encode("image").offsets:totable())
      raises("corpus:patches: patches of 3 x 2 do not fill pictures of 2 x 4", function()
        c:patches("image", { 3, 2 })
      end)
      raises("expected \"rows\", \"columns\", \"pixels\" or { height, width }, came \"cols\"",
        function() c:patches("image", "cols") end)
      raises("height: expected an integer from 1, came 0", function()
        c:patches("image", { 0, 1 })
      end)
      raises("patches: order: expected 4 numbers, came 3", function()
        c:patches("image", "columns", { order = { 1, 2, 3 } })
      end)
      raises("patches: order: 2 comes twice", function()
        c:patches("image", "columns", { order = { 1, 2, 2, 4 } })
      end)
      raises("order[4]: expected a sequence number in 1..4, came 5", function()
        c:patches("image", "columns", { order = { 1, 2, 3, 5 } })
      end)
      raises("corpus:patches: field label: expected a field of numbers", function()
        c:patches("label", "rows")
      end)
      local odd = corpus.from { image = { { { 1 }, { 2 } }, { { 1 } } } }
      raises("field image: a script, sequence 2: expected 2 rows as in the first picture, came 1",
        function() odd:patches("image", "rows") end)
    end)

    it("are moved by a few pixels each its own way", function()
      local image, label = {}, {}
      for i = 1, 200 do
        image[i], label[i] = { { 0, 1, 0 }, { 2, 3, 4 }, { 0, 5, 0 }, { 6, 7, 8 } }, "a"
      end
      local c = corpus.from { image = image, label = label }
      local moved, seen, ways = c:shift("image", { most = 1, rng = rng.new(1) }), {}, 0
      for i = 1, #moved do
        local there, found = moved:get("image", i):totable(), nil
        for down = -1, 1 do
          for right = -1, 1 do
            local wanted = {}
            for y = 1, 4 do
              wanted[y] = {}
              for x = 1, 3 do wanted[y][x] = (image[1][y - down] or {})[x - right] or 0 end
            end
            local same = true
            for y = 1, 4 do
              for x = 1, 3 do same = same and wanted[y][x] == there[y][x] end
            end
            found = same and 3 * down + right or found
          end
        end
        assert.is_number(found)
        if not seen[found] then seen[found], ways = true, ways + 1 end
      end
      assert.equal(9, ways)
      assert.same({ "a" }, moved:get("label", 200))
      assert.same(image[1], c:get("image", 1):totable())
      assert.same(image[1], c:shift("image", { most = 0, rng = rng.new(1) }):get("image", 7)
        :totable())
      local far = c:shift("image", { most = 9, rng = rng.new(2) }) -- out of the picture, too
      assert.same({ 4, 3 }, far:get("image", 1):shape())
      local ragged = corpus.from { image = { { { 1 }, { 2 } }, { { 3 } } } }
      assert.equal(2, ragged:shift("image", { rng = rng.new(1) }):length("image", 1))
      raises("corpus:shift: field label: expected a field of numbers", function()
        c:shift("label", { rng = rng.new(1) })
      end)
      raises("corpus:shift: most: expected an integer from 0, came -1", function()
        c:shift("image", { most = -1, rng = rng.new(1) })
      end)
      raises("corpus:shift: rng: expected", function() c:shift("image", { most = 1 }) end)
      raises("corpus:shift", function() c:shift("image", { far = 1 }) end)
    end)

    it("holds the digits", function()
      local path = help.shared "mnist/dev-images-idx3-ubyte"
      if not path then return pending "the data sets are not there" end
      local c = assert(corpus.idx(path, help.shared "mnist/dev-labels-idx1-ubyte"))
      assert.equal(1000, #c)
      assert.equal("f32 [28,28]", tostring(c:get("image", 1000)))
      assert.equal(10, #vocab(c, "label"))
    end)
  end)

  describe("of Festival's lexicon", function()
    local good = 'MNCL\n("adversity" nil (((ae d) 0) ((v er) 1) ((s ih) 0) ((t iy) 0)))\n' ..
      '("a" dt (((ax) 0)))\n'

    it("has words, phonemes and stress", function()
      local c = assert(corpus.festival(folder.write("a.out", good)))
      assert.equal(2, #c)
      assert.same({ "marks", "phonemes", "pos", "stress", "word" }, c:names())
      assert.equal("adversity", c:string("word", 1))
      assert.equal("ae d v er s ih t iy", c:string("phonemes", 1))
      assert.equal("0 1 0 0", c:string("stress", 1))
      assert.equal("0 - 1 - 0 - 0 -", c:string("marks", 1))
      assert.equal("dt", c:string("pos", 2))
    end)

    it("names file and line of what is wrong", function()
      for _, line in ipairs{ '("a" dt (((ax) 0))', '("a" dt ((ax) 0)))', '("" n (((ax) 0)))',
        '("a" n ())', 'a n (((ax) 0)))', '("a" n (((ax) 0) ((b) x)))', '("a" n ((() 0)))' } do
        local path = folder.write("b.out", good .. line .. "\n")
        fails("EFORMAT", path .. ":4: expected (\"word\" pos (((ph ...) stress) ...)), came "
          .. line, corpus.festival(path))
      end
      fails("EFORMAT", "no entries in it", corpus.festival(folder.write("c.out", "MNCL\n")))
      fails("EIO", "No such file", corpus.festival(folder.path .. "/none.out"))
    end)
  end)

  describe("of a series", function()
    it("has a column of times and columns of numbers", function()
      local path = folder.write("a.csv", "time,\"one\",two\n1949-01,1.5,-2\n1949-02,2.5,3e2\n")
      local c = assert(corpus.series(path))
      assert.equal(1, #c)
      assert.same({ "1949-01", "1949-02" }, c:get("time", 1))
      assert.same({ { 1.5 }, { 2.5 } }, c:get("one", 1):totable())
      assert.same({ { -2 }, { 300 } }, c:get("two", 1):totable())
    end)

    it("needs no header", function()
      local function names(text, options)
        local c = assert(corpus.series(folder.write("no.csv", text), options))
        return { c:length(c:names()[1], 1), table.unpack(c:names()) }
      end
      assert.same({ 2, "1", "2", "3" }, names("1,2.5,-3\n2,3,4\n"))
      assert.same({ 2, "1", "2" }, names("1949-01-01,2.5\n1949-01-02,3\n"))
      assert.same({ 2, "1", "2", "3" }, names("1,,3\n2,1,1\n3,1,1\n", { gaps = "skip" }))
      assert.same({ 2, "t", "v" }, names("1,2\n2,3\n", { columns = { "t", "v" } }))
      assert.same({ 1, "1", "2" }, names("1,2\n2,3\n", { header = true }))
      assert.same({ 1, "t", "v" }, names("a,b\n2,3\n", { columns = { "t", "v" } }))
      assert.same({ 1, "a", "b" }, names("a,b\n2,3\n"))
      local path = folder.write("no2.csv", "a,b\n2,3\n")
      fails("EFORMAT", path .. ":1: column 2: expected a number, came \"b\"",
        corpus.series(path, { header = false }))
      fails("EFORMAT", path .. ":1: expected 3 columns, came 2",
        corpus.series(path, { columns = { "x", "y", "z" } }))
      raises("corpus.series: header: expected a boolean, came \"yes\"", function()
        corpus.series(path, { header = "yes" })
      end)
    end)

    local function series(text, options)
      return corpus.series(folder.write("s.csv", text), options)
    end
    local function field(c, name) return c:get(name, 1):totable() end

    it("puts columns together, and leaves others out", function()
      local text = "t,a,b,note\n1,1,10,x\n2,2,20,y\n"
      local c = assert(series(text, { fields = { "a", "b" }, join = { both = { "b", "a" } } }))
      assert.same({ "both", "t" }, c:names())
      assert.same({ { 10, 1 }, { 20, 2 } }, field(c, "both"))
      c = assert(series(text, { fields = { "b" }, time = "note" }))
      assert.same({ "b", "note" }, c:names())
      assert.same({ "x", "y" }, c:get("note", 1))
      c = assert(series("1\n2\n", { time = false }))
      assert.same({ "1" }, c:names())
      assert.same({ { 1 }, { 2 } }, field(c, "1"))
    end)

    it("fills gaps as told", function()
      local text = "t,a,b\n1,,1\n2,2,\n3,NA,\n4,8,4\n5,,?\n"
      local function both(gap)
        local c = assert(series(text, { gaps = gap, missing = { "NA", "?" } }))
        local a, b = {}, {}
        for t = 1, c:length("a", 1) do
          a[t], b[t] = c:get("a", 1):get(t, 1), c:get("b", 1):get(t, 1)
        end
        return a, b, c
      end
      local a, b, c = both "linear"
      assert.same({ { 2, 2, 5, 8, 8 }, { 1, 2, 3, 4, 4 } }, { a, b })
      a, b = both "skip"
      assert.same({ { 8 }, { 4 } }, { a, b })
      a, b, c = both "mask"
      assert.same({ { 0, 2, 0, 8, 0 }, { 1, 0, 0, 4, 0 } }, { a, b })
      assert.same({ { 0 }, { 1 }, { 0 }, { 1 }, { 0 } }, field(c, "a known"))
      assert.same({ mean = { 5 }, deviation = { 3 } }, c:moments "a") -- of 2 and 8
      assert.same({ 5 }, c:select({ 1 }):moments("a").mean)
      assert.same({ 2 }, c:only({ "a" }):moments("a").mean) -- without the mask 0 0 2 8 0
      c = assert(series(text, { gaps = "mask", missing = { "NA", "?" },
        join = { x = { "a", "b" } } }))
      assert.same({ { 0, 1 }, { 1, 0 }, { 0, 0 }, { 1, 1 }, { 0, 0 } }, field(c, "x known"))
      assert.same({ "t", "x", "x known" }, c:names())
      fails("EFORMAT", "s.csv:2: column a: a gap before the first value",
        series(text, { gaps = "hold", missing = { "NA", "?" } }))
      c = assert(series("t,a\n1,3\n2,\n3,\n4,5\n", { gaps = "hold" }))
      assert.same({ { 3 }, { 3 }, { 3 }, { 5 } }, field(c, "a"))
      fails("EFORMAT", "s.csv:4: column a: expected a number, came \"NA\"",
        series(text, { gaps = "linear" }))
      fails("EFORMAT", "s.csv:2: column a: expected a number, came \"\" (gaps = \"skip\", "
        .. "\"hold\", \"linear\" or \"mask\" lets it pass)", series(text))
      fails("EFORMAT", "s.csv: column a: no value", series("t,a\n1,\n", { gaps = "linear" }))
    end)

    it("holds several series in one file", function()
      local text = "shop,day,sold\nA,1,5\nB,1,7\n\nA,2,\nB,2,9\nA,3,6\n"
      local c = assert(series(text, { by = "shop", gaps = "linear" }))
      assert.equal(2, #c)
      assert.same({ "day", "shop", "sold" }, c:names())
      assert.same({ { 5 }, { 5.5 }, { 6 } }, c:get("sold", 1):totable())
      assert.same({ { 7 }, { 9 } }, c:get("sold", 2):totable())
      assert.same({ "1", "2", "3" }, c:get("day", 1))
      assert.same({ "B" }, c:get("shop", 2))
      assert.matches("s.csv, sequence 2 (line 3)", c:place(2), 1, true)
      fails("EFORMAT", "s.csv: column sold: no value of shop C",
        series(text .. "C,1,\n", { by = "shop", gaps = "linear" }))
    end)

    it("has quotes and other separators", function()
      local c = assert(series('t;"a;""b""" ; c\n1; "2" ;3\n', { separator = ";" }))
      assert.same({ 'a;"b"', "c", "t" }, c:names())
      assert.same({ { 2 } }, field(c, 'a;"b"'))
      assert.same({ { 5 } }, field(assert(series("1\t5\n", { separator = "\t" })), "2"))
      fails("EFORMAT", "s.csv:2: a quote in column 2 is not closed", series('t,a\n1,"2\n'))
      fails("EFORMAT", "s.csv:2: a quote in column 2 is not closed", series('t,a\n1,"2""\n'))
      fails("EFORMAT", "s.csv:2: column 2 goes on after its quotes", series('t,a\n1,"2"3\n'))
      fails("EFORMAT", "s.csv:1: expected 2 columns or more, came 1: no \";\" is in the line",
        series("1,5\n", { separator = ";" }))
      assert.same({ { 2 }, { 4 } }, field(assert(series("a,b\r\n1,2\r\n3,4\r\n")), "b"))
    end)

    it("refuses options that do not fit", function()
      local function refuse(text, options)
        raises(text, function() series("t,a,b\n1,2,3\n", options) end)
      end
      refuse("gaps: expected \"skip\", \"hold\", \"linear\" or \"mask\", came \"drop\"",
        { gaps = "drop" })
      refuse("separator: expected a character such as \";\", came \"ab\"", { separator = "ab" })
      refuse("fields: \"c\" is not among the columns t, a, b", { fields = { "c" } })
      refuse("time: \"x\" is not among the columns", { time = "x" })
      refuse("by: \"x\" is not among the columns", { by = "x" })
      refuse("join: \"x\" is not among the columns", { join = { y = { "x" } } })
      refuse("join: column b is not among the fields", { fields = { "a" }, join = { y = { "b" } } })
      refuse("join: y: expected columns, came none", { join = { y = {} } })
      refuse("join: a field cannot be called t: a column is", { join = { t = { "a" } } })
      refuse("missing: expected a table, came \"NA\"", { missing = "NA" })
      fails("EFORMAT", "s.csv:1: expected a column of numbers beside the time, came t",
        series("t,a\n1,2\n", { fields = { "t" } }))
      raises("header: expected true or false for a part of a file, came nil", function()
        assert(corpus.parts(folder.write("s.csv", "1,2\n"), corpus.series)):read(1)
      end)
    end)

    it("names file and line of what is wrong", function()
      local path = folder.write("b.csv", "t,v\n1,2\n2,x\n")
      fails("EFORMAT", path .. ":3: column v: expected a number, came \"x\"", corpus.series(path))
      path = folder.write("c.csv", "t,v\n1,2\n2\n")
      fails("EFORMAT", path .. ":3: expected 2 columns, came 1: no comma is in the line",
        corpus.series(path))
      path = folder.write("d.csv", "t,v\n1,\n2,5\n")
      fails("EFORMAT", path .. ":2: column v: expected a number, came \"\"", corpus.series(path))
      assert.same({ { 5 } }, assert(corpus.series(path, { gaps = "skip" })):get("v", 1):totable())
      path = folder.write("e.csv", "t,v\n1,inf\n")
      fails("EFORMAT", path .. ":2: column v", corpus.series(path))
      path = folder.write("e2.csv", "t,v\n1,1e999\n")
      fails("EFORMAT", path .. ":2: column v", corpus.series(path))
      path = folder.write("f.csv", "t,v,v\n1,2,3\n")
      fails("EFORMAT", path .. ":1: header: column 3 has the name of another", corpus.series(path))
      path = folder.write("g.csv", "t\n1\n")
      fails("EFORMAT", path .. ":1: expected 2 columns or more, came 1: no comma",
        corpus.series(path))
      fails("EFORMAT", "no values in it", corpus.series(folder.write("h.csv", "t,v\n")))
    end)
  end)

  describe("made by a script", function()
    it("takes strings, lists and numbers", function()
      local c = corpus.from({ word = { "ab", "c" }, tags = { { "X", "Y" }, { "Z" } },
        value = { { 1, 2 }, { 3 } }, pair = { { { 1, 2 }, { 3, 4 } }, { { 5, 6 } } } },
        { split = { word = "characters" } })
      assert.equal(2, #c)
      assert.same({ "a", "b" }, c:get("word", 1))
      assert.same({ "Z" }, c:get("tags", 2))
      assert.same({ { 1 }, { 2 } }, c:get("value", 1):totable())
      assert.same({ { 5, 6 } }, c:get("pair", 2):totable())
    end)

    it("takes tensors, such as it gives", function()
      local c = corpus.from { x = { { { 1, 2 }, { 3, 4 } }, { { 5, 6 } } },
        y = { { 7 }, { 8, 9 } } }
      local again = corpus.from { x = c:lists "x", y = c:lists "y" }
      for i = 1, 2 do
        assert.same(c:get("x", i):totable(), again:get("x", i):totable())
        assert.same(c:get("y", i):totable(), again:get("y", i):totable())
      end
      local flat = corpus.from { x = { core.tensor { 1, 2 } } }
      assert.same({ { 1 }, { 2 } }, flat:get("x", 1):totable())
      raises("sequence 1 of x: expected a tensor [T] or [T,width] of numbers, came f32 [1,1,1]",
        function() corpus.from { x = { core.zeros { 1, 1, 1 } } } end)
      raises("sequence 1 of x: expected a tensor [T] or [T,width] of numbers, came i32 [2]",
        function() corpus.from { x = { core.zeros({ 2 }, "i32") } } end)
      raises("sequence 2 of x, step 1: expected 2 numbers, came 3", function()
        corpus.from { x = { c:get("x", 1), core.zeros { 1, 3 } } }
      end)
    end)

    it("refuses what does not fit", function()
      raises("2 sequences in b, 1 in a", function()
        corpus.from{ a = { "x" }, b = { "x", "y" } }
      end)
      raises("at least one field", function() corpus.from{} end)
      raises("corpus.from: sequence 1 of a: [3] is nil, but there is a [4]", function()
        corpus.from{ a = { { 1, 2, nil, 4 } } }
      end)
      raises("corpus.from: sequence 1 of a: [2] is nil, but there is a [3]", function()
        corpus.from{ a = { { "x", nil, "y" } } }
      end)
      raises("corpus.from: field a: [2] is nil, but there is a [3]", function()
        corpus.from{ a = { "x", nil, "y" } }
      end)
      raises("sequence 1 of a: expected a string, came 1", function()
        corpus.from{ a = { 1 } }
      end)
      local nan = 0 / 0
      for _, x in ipairs{ nan, 1 / 0, -1 / 0 } do
        raises("corpus.from: sequence 2 of a, step 3: expected a finite number, came", function()
          corpus.from{ a = { { 1 }, { 1, 2, x } } }
        end)
      end
      raises("sequence 1 of a, step 2: expected a number, came \"x\"", function()
        corpus.from{ a = { { 1, "x" } } }
      end)
      raises("sequence 2 of a, step 1: expected 2 numbers, came 3", function()
        corpus.from{ a = { { { 1, 2 } }, { { 1, 2, 3 } } } }
      end)
      raises("sequence 1 of a, step 2: expected a number, came a table", function()
        corpus.from{ a = { { 1, { 2, 3 } } } }
      end)
      raises("corpus.from: split: expected a table such as { a = \"words\" }, came \"words\"",
        function() corpus.from({ a = { "x" } }, { split = "words" }) end)
      raises("corpus.from: split: \"aa\" is not among the fields; did you mean \"a\"?", function()
        corpus.from({ a = { "x" } }, { split = { aa = "words" } })
      end)
      raises("sequence 2 of a is not UTF-8", function() corpus.from{ a = { "x", "\xFF" } } end)
    end)
  end)

  describe("in parts", function()
    local function lines(n)
      local list = {}
      for i = 1, n do list[i] = ("word%d\t%s\n"):format(i, ("x"):rep(i % 7)) end
      return table.concat(list)
    end
    local columns = { columns = { "word", "x" } }
    local function read(part) return corpus.tsv(part, columns) end

    it("has every line once, whatever the size of a part", function()
      local path = folder.write("parts.tsv", lines(50))
      local size = #lines(50)
      for bytes = 1, size + 2 do
        local parts = assert(corpus.parts(path, read, { bytes = bytes }))
        local words, seen = {}, 0
        for i = 1, #parts do
          local c = assert(parts:read(i))
          for k = 1, #c do
            words[#words + 1] = c:string("word", k)
            if bytes == 30 then
              assert.matches((", sequence %d of bytes %%d+ to %%d+ %%(line %d%%)$"):format(k,
                #words), c:place(k))
            end
          end
          seen = seen + parts:bytes(i)
        end
        assert.equal(size, seen)
        assert.equal(50, #words)
        for i, word in ipairs(words) do assert.equal("word" .. i, word) end
      end
      assert.equal(1, #assert(corpus.parts(path, read)))
      assert.equal(path .. " in 1 part", tostring(assert(corpus.parts(path, read))))
    end)

    it("is counted like the whole", function()
      local path = folder.write("parts.tsv", lines(50))
      local parts = assert(corpus.parts(path, read, { bytes = 100 }))
      local whole = assert(corpus.tsv(path, columns))
      assert.is_true(#parts > 3)
      assert.same(vocab(whole, "x").symbols, vocab(parts, "x").symbols)
      assert.same(vocab.bpe(whole, "word").symbols, vocab.bpe(parts, "word").symbols)
      assert.equal("symbol", vocab(parts, "x").split)
    end)

    it("takes the header from the beginning", function()
      local path = folder.write("head.tsv", "\xEF\xBB\xBF\na\tb\n1\t2\n3\t4\n5\t6\n")
      local parts = assert(corpus.parts(path, function(part)
        return corpus.tsv(part, { header = true })
      end, { bytes = 12 }))
      assert.equal(2, #parts)
      local c = assert(parts:read(2))
      assert.same({ { "a", "b" }, "5" }, { c:names(), c:string("a", #c) })
    end)

    it("begins between sentences", function()
      local sentence = "1\ta\t_\tX\t_\t_\t_\t_\t_\t_\n2\tb\t_\tX\t_\t_\t_\t_\t_\t_\n\n"
      local path = folder.write("p.conllu", sentence:rep(6))
      for bytes = 1, #sentence * 6 do
        local parts = assert(corpus.parts(path, corpus.conllu,
          { bytes = bytes, between = "paragraphs" }))
        local n = 0
        for i = 1, #parts do n = n + #assert(parts:read(i)) end
        assert.equal(6, n)
      end
    end)

    it("is of text too", function()
      local path = folder.write("p.txt", "one\ntwo é\nthree\n")
      local parts, text = assert(corpus.parts(path, corpus.text, { bytes = 5 })), {}
      for i = 1, #parts do text[i] = assert(parts:read(i)):string("text", 1) end
      assert.is_true(#parts > 1)
      assert.equal("one\ntwo é\nthree\n", table.concat(text))
    end)

    it("names file and line of what is wrong", function()
      local text = "a\tb\n"
      local path = folder.write("bad.tsv", text:rep(20) .. "a\n" .. text)
      local parts = assert(corpus.parts(path, read, { bytes = 10 }))
      assert(parts:read(1))
      fails("EFORMAT", path .. ":21: expected 2 columns (word, x), came 1", parts:read(7))
      raises("parts:counts: corpus: " .. path .. ":21: expected 2 columns", function()
        vocab(parts, "word")
      end)
      path = folder.write("bad.txt", ("abc\n"):rep(9) .. "x\xFF\n")
      parts = assert(corpus.parts(path, corpus.text, { bytes = 8 }))
      fails("EFORMAT", path .. ":10: not UTF-8: byte 2 of the line is 0xFF", parts:read(#parts))
      fails("EFORMAT", "nothing in it", corpus.parts(folder.write("e", ""), read))
      fails("EIO", "No such file", corpus.parts(folder.path .. "/none", read))
      fails("EIO", "directory", corpus.parts(folder.path, read))
      raises("corpus.parts: bytes: expected an integer from 1, came 0", function()
        corpus.parts(path, read, { bytes = 0 })
      end)
      raises("corpus.parts: read: expected a function, came nil", function() corpus.parts(path) end)
      raises("between: expected \"lines\" or \"paragraphs\", came \"words\"", function()
        corpus.parts(path, read, { between = "words" })
      end)
      raises("parts:read: i: expected an integer from 1 to", function() parts:read(0) end)
      raises("parts:counts: expected a reader that gives a corpus, came 5", function()
        assert(corpus.parts(path, function() return 5 end)):counts "word"
      end)
    end)
  end)

  describe("in use", function()
    local c

    before_each(function()
      c = corpus.from({ form = { "to be", "or not to", "be" }, class = { "A", "B", "A" } },
        { split = { form = "words" } })
    end)

    it("gives encoded fields", function()
      local v = vocab(c, "form", { start = true, stop = true }) -- <s> </s> be to not or
      assert.same({ "<s>", "</s>", "be", "to", "not", "or" }, v.symbols)
      local e = c:encode("form", v)
      assert.same({ 3, 2, 5, 4, 3, 2 }, e.data:totable())
      assert.same({ 0, 2, 5, 6 }, e.offsets:totable())
      e = c:encode("form", v, { start = true, stop = true })
      assert.same({ 0, 3, 2, 1, 0, 5, 4, 3, 1, 0, 2, 1 }, e.data:totable())
      assert.same({ 0, 4, 9, 12 }, e.offsets:totable())
      e = c:label("class", vocab(c, "class"))
      assert.same({ 0, 1, 0 }, e.data:totable())
      assert.is_nil(e.offsets)
    end)

    it("treats unknown symbols as told", function()
      local v = vocab.new{ "be", "to" }
      raises("field form of a script, sequence 2: symbol \"or\" is not in the vocabulary, which has no unk",
        function() c:encode("form", v) end)
      assert.same({ 1, 0, -1, -1, 1, 0 },
        c:encode("form", v, { unknown = "ignore" }).data:totable())
      assert.same({ 2, 1, 0, 0, 2, 1 },
        c:encode("form", vocab.new{ "be", "to", unk = true }).data:totable())
      -- a symbol of the other part of a split corpus is not missed
      assert.same({ 1, 0 }, c:select{ 1 }:encode("form", v).data:totable())
    end)

    it("gives the characters of words", function()
      local chars = vocab.count(c, "form", { characters = true }) -- o t b e n r
      assert.same({ "o", "t", "b", "e", "n", "r" }, chars.symbols)
      local e = c:characters("form", chars)
      assert.same({ 1, 0, 2, 3, 0, 5, 4, 0, 1, 1, 0, 2, 3 }, e.data:totable())
      assert.same({ 0, 2, 4, 6, 9, 11, 13 }, e.inner:totable())
      assert.same({ 0, 2, 5, 6 }, e.outer:totable())
      e = c:characters("form", chars, { max = 1 })
      assert.same({ 1, 2, 0, 4, 1, 2 }, e.data:totable())
      local accents = corpus.from{ form = { "éàb" } }
      e = accents:characters("form", vocab.new{ "é", "à" }, { max = 2 })
      assert.same({ 0, 1 }, e.data:totable())
      raises("symbol \"b\" is not in the vocabulary", function()
        accents:characters("form", vocab.new{ "é", "à" })
      end)
    end)

    it("is selected from and cut in two", function()
      local s = c:select{ 3, 1 }
      assert.equal(2, #s)
      assert.equal("be", s:string("form", 1))
      assert.equal("to be", s:string("form", 2))
      assert.same({ be = 2, to = 1 }, s:counts "form")
      local many = {}
      for i = 1, 100 do many[i] = "w" .. (i - 1) // 2 end
      local a, b = corpus.from{ word = many }:split{ share = 0.8, rng = rng(1), by = "word" }
      assert.same({ 80, 20 }, { #a, #b })
      local seen = a:counts "word"
      for word in pairs(b:counts "word") do assert.is_nil(seen[word]) end
      local a2 = corpus.from{ word = many }:split{ share = 0.8, rng = rng(1), by = "word" }
      assert.same(seen, a2:counts "word")
      raises("leaves one part of 3 without a sequence", function()
        c:split{ share = 0.01, rng = rng(1) }
      end)
      raises("expected at least one sequence, came none", function() c:select{} end)
      raises("corpus:split: rng: expected a source of chance such as neap.rng(17), came a table",
        function() c:split{ share = 0.5, rng = {} } end)
      raises("corpus:split: rng: expected a source of chance such as neap.rng", function()
        c:split{ share = 0.5, rng = 1 }
      end)
    end)

    it("is put together from several", function()
      local path = folder.write("some.tsv", "ab\tx\n\nba\ty\n")
      local a = assert(corpus.tsv(path, { columns = { "text", "kind" },
        split = { text = "characters" } }))
      local b = corpus.from({ text = { { "c", "b" }, {} }, kind = { "y", "z" } })
      local c = corpus.concat { a, b, a }
      assert.equal(6, #c)
      assert.same({ "ab", "ba", "cb", "", "ab", "ba" }, (function()
        local texts = {}
        for i = 1, 6 do texts[i] = c:string("text", i) end
        return texts
      end)())
      assert.same({ a = 4, b = 5, c = 1 }, c:counts "text")
      assert.same({ x = 2, y = 3, z = 1 }, c:counts "kind")
      assert.equal(path .. ", sequence 2 (line 3)", c:place(2))
      assert.equal("a script, sequence 1", c:place(3))
      assert.equal(path .. ", sequence 1 (line 1)", c:place(5))
      assert.equal(path .. ", sequence 2 (line 3)", c:select({ 4, 6 }):place(2))
      local n = corpus.from { x = { { { 1, 2 } }, { { 3, 4 }, { 5, 6 } } } }
      assert.same({ { 3, 4 }, { 5, 6 } }, corpus.concat({ n, n }):get("x", 4):totable())

      raises("corpus.concat: expected at least one corpus, came none", function()
        corpus.concat {}
      end)
      raises("corpus.concat: entry 2: expected a corpus, came 3", function()
        corpus.concat { a, 3 }
      end)
      raises("corpus.concat: entry 2: field kind: expected symbols as in entry 1, came none",
        function() corpus.concat { a:only { "kind" }, b:only { "text" } } end)
      raises("corpus.concat: entry 2: field x: expected steps of 2 numbers as in entry 1, came steps "
        .. "of 1 numbers", function() corpus.concat { n, corpus.from { x = { { 1 } } } } end)
      raises("corpus.concat: entry 2: field text: expected symbols as in entry 1, came steps of 1 "
        .. "numbers", function()
        corpus.concat { a:only { "text" }, corpus.from { text = { { 1 } } } }
      end)
      raises("corpus:only: no field \"txt\"; did you mean \"text\"?", function() a:only { "txt" } end)
      raises("corpus:only: expected at least one field, came none", function() a:only {} end)
    end)

    it("has its sequences joined and their steps folded", function()
      local c = corpus.from { sound = { { 1, 2, 3 }, { 4 }, {}, { 5, 6 } },
        word = { { "one" }, { "two" }, {}, { "one" } } }
      local j = c:join { { 1, 3, 2 }, { 4, 4 }, {} }
      assert.same({ { 1 }, { 2 }, { 3 }, { 4 } }, j:get("sound", 1):totable())
      assert.same({ { 5 }, { 6 }, { 5 }, { 6 } }, j:get("sound", 2):totable())
      assert.equal(0, j:length("sound", 3))
      assert.same({ "one", "two" }, j:get("word", 1))
      assert.same({ "one", "one" }, j:get("word", 2))
      assert.equal("a script, sequence 1, joined from 1, 3, 2", j:place(1))
      assert.equal("a script, sequence 2, joined from 4, 4", j:select({ 2 }):place(1))
      local f = j:fold("sound", 3)
      assert.same({ { 1, 2, 3 }, { 4, 0, 0 } }, f:get("sound", 1):totable())
      assert.same({ { 5, 6, 5 }, { 6, 0, 0 } }, f:get("sound", 2):totable())
      assert.same({ 0, 2, 4, 4 }, f:encode("sound").offsets:totable())
      assert.same({ { 1, 2, 3, 4, 0, 0 } }, f:fold("sound", 2):get("sound", 1):totable())
      assert.equal(j:place(1), f:place(1))
      raises("corpus:join: expected at least one group, came none", function() c:join {} end)
      raises("corpus:join: group 2: expected a table, came 3", function() c:join { { 1 }, 3 } end)
      raises("corpus:join: group 1: entry 2: expected an integer from 1 to 4, came 5", function()
        c:join { { 1, 5 } }
      end)
      raises("corpus:fold: steps: expected an integer from 1, came 0", function()
        c:fold("sound", 0)
      end)
      raises("corpus:fold: field word: expected a field of numbers, came one of symbols", function()
        c:fold("word", 2)
      end)
    end)

    it("refuses wrong use", function()
      raises("no field \"from\"; did you mean \"form\"?", function() c:encode("from") end)
      raises("no field \"zzz\"; there are: class, form", function() c:get("zzz", 1) end)
      raises("field form of symbols needs a vocabulary", function() c:encode "form" end)
      raises("vocab: expected a vocabulary, came \"x\"", function() c:encode("form", "x") end)
      raises("a script, sequence 1: expected one symbol, came 2", function()
        c:label("form", vocab(c, "form"))
      end)
      raises("corpus:select: order[2]: expected an integer from 1 to 3, came 1.5", function()
        c:select { 1, 1.5 }
      end)
      raises("corpus:select: order: expected a table, came 1", function() c:select(1) end)
      raises("corpus:split: rng: expected a source of chance such as neap.rng(17), came nil",
        function() c:split { share = 0.5 } end)
      raises("corpus.encode: expected a corpus first, came \"form\": call it with a colon, "
        .. "corpus:encode(..)", function() c.encode("form", vocab(c, "form")) end)
      raises("corpus.names: expected a corpus first, came nil: call", function() c.names() end)
      raises("the vocabulary has no stop symbol", function()
        c:encode("form", vocab(c, "form"), { stop = true })
      end)
      raises("i: expected an integer from 1 to 3, came 4", function() c:get("form", 4) end)
      local n = corpus.from{ x = { { 1, 2 } } }
      raises("field x: expected a field of symbols, came one of numbers", function()
        n:encode("x", vocab.new{ "a" })
      end)
    end)

    it("stays out of Lua's memory", function()
      local words = {}
      for i = 1, 20000 do words[i] = ("abcdefghij"):rep(5) end
      collectgarbage()
      local lua, outside = collectgarbage "count", core.memory_live()
      local many = corpus.from({ word = words }, { split = { word = "characters" } })
      collectgarbage()
      assert.is_true(core.memory_live() - outside >= 4 * 1000000)
      assert.is_true(collectgarbage "count" - lua < 100, "kB per million symbols")
      assert.equal(20000, #many)
    end)
  end)
end)
