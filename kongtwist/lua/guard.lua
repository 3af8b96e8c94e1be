-- Runs untrusted functions within limits, and offers them names.
--
-- A count hook is set once for the whole VM (LuaJIT; without JIT, which would not call it) and for each coroutine (Lua 5.1). It counts
-- instructions, and looks at memory and processor time, which functions in C take without instructions.
-- What exceeds a limit, and what a function of the gateway ends, is an error that no pcall keeps: `stopped` is set until the run is over.

local limits = ...
local soft, most, period, seconds = limits.memory, limits.instructions, limits.period, limits.seconds
local collect, clock, sethook, getinfo = collectgarbage, os.clock, debug.sethook, debug.getinfo
local pcall, error, type, tostring = pcall, error, type, tostring
local setmetatable, setfenv, next, rawget, gsub, lower = setmetatable, setfenv, next, rawget, string.gsub, string.lower
local create, resume = coroutine.create, coroutine.resume

-- What Lua holds for itself, and of compiled code, is no part of what scripts may hold.
local own, held = 0, 0

local function hold(code)
  held = code
  soft = limits.memory + own + held
end

local function begin()
  collect()
  own = collect "count"
  hold(held)
end

local busy, used, started, stopped = false, 0, nil, nil

local function stop(text, level)
  stopped = text
  error(text, level + 1)
end

-- Memory is held by garbage, too: it is an excess only if it is left after a collection.
local function crowded()
  if collect "count" <= soft then return false end
  collect()
  return collect "count" > soft
end

local function look(level)
  if used > most then stop(limits.too_long, level + 1) end
  if started == nil then
    started = clock()
  elseif clock() - started > seconds then
    stop(limits.too_slow, level + 1)
  end
  if crowded() then stop("not enough memory", level + 1) end
end

local run, over

-- An error in `run` or `over` themselves would be nobody's: pcall is over by then.
local function hook()
  if not busy then return end
  local where = getinfo(2, "f").func
  if where == run or where == over then return end
  if stopped then error(stopped, 2) end
  used = used + period
  look(2)
end

-- Work of functions in C, in instructions.
local function charge(amount)
  used = used + amount
  if used > most then stop(limits.too_long, 3) end
end

sethook(hook, "", period)

local function text_of(value)
  if type(value) == "string" then return value end
  local ok, text = pcall(tostring, value)
  return ok and text or "error"
end

function over(ok, ...)
  busy = false
  if stopped then
    local text = stopped
    stopped = nil
    if crowded() then return false, text, true end
    if not ok and type((...)) == "string" then return false, (...) end
    return false, text
  end
  if collect "count" > soft and crowded() then return false, "not enough memory", true end
  if ok then return true, ... end
  return false, text_of((...))
end

function run(f, ...)
  busy, used, started, stopped = true, 0, nil, nil
  return over(pcall(f, ...))
end

-- What scripts have in place of functions that keep errors.

local function kept(ok, ...)
  if stopped then error(stopped, 0) end
  return ok, ...
end

local function handled(handler, ok, ...)
  if stopped then error(stopped, 0) end
  if ok then return true, ... end
  return false, handler(...)
end

local safe = {}

function safe.pcall(f, ...) return kept(pcall(f, ...)) end

-- The stack is unwound by then: no hook runs in a handler of xpcall.
function safe.xpcall(f, handler, ...) return handled(handler, pcall(f, ...)) end

local function create_guarded(f)
  local co = create(f)
  if limits.per_coroutine then sethook(co, hook, "", period) end
  return co
end

local function passed(ok, ...)
  if stopped then error(stopped, 0) end
  if not ok then error((...), 0) end
  return ...
end

safe.coroutine = {
  create = create_guarded,
  resume = function(co, ...) return kept(resume(co, ...)) end,
  wrap = function(f)
    local co = create_guarded(f)
    return function(...) return passed(resume(co, ...)) end
  end,
}

-- What the gateway offers.

local caller = limits.per_coroutine and 3 or 2 -- Lua 5.1 counts a tail call as a level

local function results(depth, ok, ...)
  if ok then return ... end
  if ok == nil then stopped = (...) end
  error((...), caller + depth)
end

-- Each call counts as instructions, and every few are looked at: they take time without instructions, and bring values.
local calls = 0

-- `depth`: functions of ours between it and the script, whose place an error names.
local function offer(f, depth)
  depth = depth or 0
  return function(...)
    used = used + 100
    calls = calls + 1
    if calls > 16 or collect "count" > soft then
      calls = 0
      look(2)
    end
    return results(depth, f(...))
  end
end

-- Tables that nobody may change, not even through table.insert, which asks no metatable.
local protected = setmetatable({}, { __mode = "k" })

local function kept_whole(table)
  protected[table] = true
  return table
end

function safe.check(table)
  if protected[table] then error("the table is read-only here", 3) end
end

-- A member without a name is what the table is as a function: kong.log("..."). One named * has the members that depend on the request.
local function read_only(table, name)
  local itself, rest = table[""], table["*"]
  return kept_whole(setmetatable({}, {
    __index = rest and function(_, key)
      local value = table[key]
      if value == nil then return rest[key] end
      return value
    end or table,
    __call = itself and function(_, ...) return itself(...) end,
    __newindex = function(_, key, value)
      if rest then
        rest[key] = value
        return
      end
      error("cannot change " .. name .. ": '" .. text_of(key) .. "' is read-only here", 2)
    end,
    __metatable = false,
  }))
end

local function members(get, set)
  local put = set and offer(set, 1)
  local got = offer(get, 1)
  return kept_whole(setmetatable({}, {
    __index = function(_, key) return got(key) end,
    __newindex = function(_, key, value)
      if not put then error("'" .. text_of(key) .. "' cannot be set", 2) end
      put(key, value)
    end,
    __metatable = false,
  }))
end

-- Fields of a head: names in any case, with _ for -.
local headers = {
  __index = function(table, name)
    if type(name) == "string" then return rawget(table, (gsub(lower(name), "_", "-"))) end
  end,
  __metatable = false,
}

local function head(table) return setmetatable(table, headers) end

-- Programs. `environment` is the table of all names; globals that a chunk sets stay in a table of its own.

local function own_globals(environment)
  return setmetatable({}, { __index = environment, __metatable = false })
end

-- Each run has globals of its own.
local function fresh(f, environment)
  local meta = { __index = environment, __metatable = false }
  local globals = setmetatable({}, meta)
  setfenv(f, globals)
  return function(...)
    if next(globals) ~= nil then
      globals = setmetatable({}, meta)
      setfenv(f, globals)
    end
    return f(...)
  end
end

-- Kong's functions of pre-function and its like: globals stay, and a chunk that gives a function is that function from then on.
local function lasting(f, environment)
  setfenv(f, own_globals(environment))
  local known
  local function first(...)
    if known == nil then
      known = f
      local got = f(...)
      if type(got) == "function" then
        known = got
        return got(...)
      end
      return got
    end
    return known(...)
  end
  return first
end

return {
  run = run, charge = charge, safe = safe, offer = offer, read_only = read_only, members = members, fresh = fresh, lasting = lasting,
  head = head, hold = hold, begin = begin, kept_whole = kept_whole,
}
