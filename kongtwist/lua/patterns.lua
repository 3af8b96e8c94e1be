-- Lua's patterns in Lua: where a pattern may take too many steps in C, which no hook counts, it runs here instead (Lua 5.1 reference
-- manual 5.4.1). The same results, some fifty times slower; the guard ends it at the limit of instructions.

local byte, sub, char, find = string.byte, string.sub, string.char, string.find
local error, type, tostring, concat = error, type, tostring, table.concat
local MOST = 32 -- captures
local OPEN, PLACE = -1, -2

-- One matching of `pattern` in `text`. Captures are kept in `from` and `size`.
local function matcher(text, pattern)
  local from, size, level = {}, {}, 0
  local text_end, pattern_end = #text, #pattern
  local sets = {}

  local function class_end(p)
    local c = byte(pattern, p)
    p = p + 1
    if c == 37 then
      if p > pattern_end then error("malformed pattern (ends with '%')", 0) end
      return p + 1
    end
    if c == 91 then
      if byte(pattern, p) == 94 then p = p + 1 end
      repeat
        if p > pattern_end then error("malformed pattern (missing ']')", 0) end
        local d = byte(pattern, p)
        p = p + 1
        if d == 37 then p = p + 1 end
      until byte(pattern, p) == 93
      return p + 1
    end
    return p
  end

  -- Whether a byte is in the class at p. C decides, once for each byte and class.
  local function is_in(c, p, behind)
    local set = sets[p]
    if not set then
      set = { class = "^" .. sub(pattern, p, behind - 1) }
      if set.class == "^$" or set.class == "^^" then set.class = "^%" .. sub(set.class, 2) end
      sets[p] = set
    end
    local known = set[c]
    if known == nil then
      known = find(char(c), set.class) ~= nil
      set[c] = known
    end
    return known
  end

  local function singly(s, p, behind) return s <= text_end and is_in(byte(text, s), p, behind) end

  local match

  local function balanced(s, p)
    if p + 1 > pattern_end then error("unbalanced pattern", 0) end
    local first, last = byte(pattern, p, p + 1)
    if byte(text, s) ~= first then return nil end
    local open = 1
    for at = s + 1, text_end do
      local c = byte(text, at)
      if c == last then
        open = open - 1
        if open == 0 then return at + 1 end
      elseif c == first then
        open = open + 1
      end
    end
  end

  local function longest(s, p, behind)
    local count = 0
    while singly(s + count, p, behind) do count = count + 1 end
    while count >= 0 do
      local found = match(s + count, behind + 1)
      if found then return found end
      count = count - 1
    end
  end

  local function shortest(s, p, behind)
    while true do
      local found = match(s, behind + 1)
      if found then return found end
      if not singly(s, p, behind) then return nil end
      s = s + 1
    end
  end

  local function opened(s, p, what)
    if level >= MOST then error("too many captures", 0) end
    level = level + 1
    from[level], size[level] = s, what
    local found = match(s, p)
    if not found then level = level - 1 end
    return found
  end

  local function closed(s, p)
    local at = level
    while at > 0 and size[at] ~= OPEN do at = at - 1 end
    if at == 0 then error("invalid pattern capture", 0) end
    size[at] = s - from[at]
    local found = match(s, p)
    if not found then size[at] = OPEN end
    return found
  end

  local function same_again(s, digit)
    local at = digit - 48
    if at < 1 or at > level or size[at] == OPEN then error("invalid capture index", 0) end
    if size[at] == PLACE then return nil end
    local before = sub(text, from[at], from[at] + size[at] - 1)
    if sub(text, s, s + #before - 1) == before then return s + #before end
  end

  local function frontier(s, p)
    if byte(pattern, p) ~= 91 then error("missing '[' after '%f' in pattern", 0) end
    local behind = class_end(p)
    local before = s == 1 and 0 or byte(text, s - 1)
    if is_in(before, p, behind) or not is_in(byte(text, s) or 0, p, behind) then return nil end
    return behind
  end

  function match(s, p)
    while true do
      if p > pattern_end then return s end
      local c, following = byte(pattern, p, p + 1)
      if c == 40 then
        if following == 41 then return opened(s, p + 2, PLACE) end
        return opened(s, p + 1, OPEN)
      end
      if c == 41 then return closed(s, p + 1) end
      if c == 36 and p == pattern_end then return s == text_end + 1 and s or nil end
      if c == 37 and following == 98 then
        s = balanced(s, p + 2)
        if not s then return nil end
        p = p + 4
      elseif c == 37 and following == 102 then
        p = frontier(s, p + 2)
        if not p then return nil end
      elseif c == 37 and following and following >= 48 and following <= 57 then
        s = same_again(s, following)
        if not s then return nil end
        p = p + 2
      else
        local behind = class_end(p)
        local quantifier = byte(pattern, behind)
        if quantifier == 63 then
          if singly(s, p, behind) then
            local found = match(s + 1, behind + 1)
            if found then return found end
          end
          p = behind + 1
        elseif quantifier == 42 then return longest(s, p, behind)
        elseif quantifier == 43 then return singly(s, p, behind) and longest(s + 1, p, behind) or nil
        elseif quantifier == 45 then return shortest(s, p, behind)
        else
          if not singly(s, p, behind) then return nil end
          s, p = s + 1, behind
        end
      end
    end
  end

  local function capture(at)
    if size[at] == OPEN then error("unfinished capture", 0) end
    if size[at] == PLACE then return from[at] end
    return sub(text, from[at], from[at] + size[at] - 1)
  end

  -- Captures from the one at `at` on; the whole match, where there is none and `whole` says so.
  local function captures(s, e, whole)
    local found = {}
    if level == 0 and whole then return { sub(text, s, e - 1) }, 1 end
    for at = 1, level do found[at] = capture(at) end
    return found, level
  end

  return function(s, p)
    level = 0
    return match(s, p)
  end, captures
end

local function anchored(pattern) return byte(pattern, 1) == 94 end

local function start(text, init)
  init = init or 1
  if init < 0 then init = #text + init + 1 end
  return init < 1 and 1 or init > #text + 1 and #text + 1 or init
end

local function search(text, pattern, init, as_find)
  local match, captures = matcher(text, pattern)
  local fixed = anchored(pattern)
  for s = start(text, init), #text + 1 do
    local e = match(s, fixed and 2 or 1)
    if e then
      local found, count = captures(s, e, not as_find)
      if as_find then return s, e - 1, unpack(found, 1, count) end
      return unpack(found, 1, count)
    end
    if fixed then break end
  end
  return nil
end

local patterns = {}

function patterns.find(text, pattern, init) return search(text, pattern, init, true) end

function patterns.match(text, pattern, init) return search(text, pattern, init, false) end

-- In Lua 5.1 gmatch takes ^ for a character, as one that never matches at a second place.
function patterns.gmatch(text, pattern)
  local match, captures = matcher(text, pattern)
  local s = 1
  return function()
    while s <= #text + 1 do
      local e = match(s, 1)
      if e then
        local found, count = captures(s, e, true)
        s = e == s and e + 1 or e
        return unpack(found, 1, count)
      end
      s = s + 1
    end
  end
end

local function filled(replacement, found, whole)
  local parts, at = {}, 1
  while at <= #replacement do
    local c = byte(replacement, at)
    if c == 37 then
      at = at + 1
      local digit = byte(replacement, at)
      if digit == 48 then parts[#parts + 1] = whole
      elseif digit and digit >= 49 and digit <= 57 then
        local value = found[digit - 48]
        if value == nil then error("invalid capture index", 0) end
        parts[#parts + 1] = tostring(value)
      elseif digit then parts[#parts + 1] = char(digit) end
    else
      parts[#parts + 1] = char(c)
    end
    at = at + 1
  end
  return concat(parts)
end

function patterns.gsub(text, pattern, replacement, most)
  local kind = type(replacement)
  if kind == "number" then replacement, kind = tostring(replacement), "string" end
  if kind ~= "string" and kind ~= "table" and kind ~= "function" then
    error("bad argument #3 to 'gsub' (string/function/table expected)", 3)
  end
  local match, captures = matcher(text, pattern)
  local fixed = anchored(pattern)
  local parts, s, count = {}, 1, 0
  most = most or #text + 1
  while count < most do
    local e = match(s, fixed and 2 or 1)
    if e then
      count = count + 1
      local found, number = captures(s, e, true)
      local whole, value = sub(text, s, e - 1), nil
      if kind == "string" then value = filled(replacement, found, whole)
      elseif kind == "table" then value = replacement[found[1]]
      else value = replacement(unpack(found, 1, number)) end
      if not value then value = whole
      elseif type(value) ~= "string" and type(value) ~= "number" then
        error("invalid replacement value (a " .. type(value) .. ")", 0)
      end
      parts[#parts + 1] = value
    end
    if e and e > s then s = e
    elseif s <= #text then
      parts[#parts + 1] = sub(text, s, s)
      s = s + 1
    else break end
    if fixed then break end
  end
  parts[#parts + 1] = sub(text, s)
  return concat(parts), count
end

return patterns
