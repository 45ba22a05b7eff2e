-- The requests of a load, for wrk.
--
--   wrk ... -s load.lua URL -- DIALECT KIND VALUE_BYTES KEYS SKEW SEED
--
-- Keys and values are those of load.py.  Every thread draws keys with a seed of
-- its own.  Requests are made once for each key, as far as MAX_KEPT_BYTES go.

local MAX_KEPT_BYTES = 64 * 1024 * 1024
local TEXT_STEPS = 16384
local ZIPF_EXPONENT = 0.99
local READS_OF_TEN = 9
local LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
local BASE64 = LETTERS .. "+/"

local threads = 0

function setup(thread)
   thread:set("thread_number", threads)
   threads = threads + 1
end

local function base64(text)
   local parts = {}
   for place = 1, #text, 3 do
      local a, b, c = text:byte(place, place + 2)
      local bits = a * 65536 + (b or 0) * 256 + (c or 0)
      for sextet = 3, 0, -1 do
         local one = math.floor(bits / 64 ^ sextet) % 64 + 1
         parts[#parts + 1] = BASE64:sub(one, one)
      end
      if not b then
         parts[#parts - 1] = "="
      end
      if not c then
         parts[#parts] = "="
      end
   end
   return table.concat(parts)
end

-- A source of values: a function of a key's number.
local function values(size, encoded)
   local parts = {}
   for place = 1, size + 3 * TEXT_STEPS do
      local one = math.random(#LETTERS)
      parts[place] = LETTERS:sub(one, one)
   end
   local text = table.concat(parts)
   if not encoded then
      return function(key)
         local place = 3 * (key * 7919 % TEXT_STEPS)
         return text:sub(place + 1, place + size)
      end
   end
   -- Three bytes are four letters of Base64: pieces of the text are pieces of its
   -- Base64, but for the last one or two bytes.
   local whole = base64(text)
   local rest = size % 3
   local letters = (size - rest) / 3 * 4
   return function(key)
      local place = 3 * (key * 7919 % TEXT_STEPS)
      local first = place / 3 * 4
      local tail = text:sub(place + size - rest + 1, place + size)
      return whole:sub(first + 1, first + letters) .. base64(tail)
   end
end

local function uniform(keys)
   return function()
      return math.random(keys) - 1
   end
end

local function zipfian(keys)
   local sums, sum = {}, 0
   for rank = 1, keys do
      sum = sum + 1 / rank ^ ZIPF_EXPONENT
      sums[rank] = sum
   end
   return function()
      local drawn = math.random() * sum
      local low, high = 1, keys
      while low < high do
         local middle = math.floor((low + high) / 2)
         if sums[middle] < drawn then
            low = middle + 1
         else
            high = middle
         end
      end
      return low - 1
   end
end

local function name_of(key)
   return string.format("k%08d", key)
end

-- For each dialect: how a write, a read, and a read of one member are said.
local function kvdb(host, size)
   local value = values(size, false)
   local put = " HTTP/1.1\r\nHost: " .. host .. "\r\nContent-Length: " .. size .. "\r\n\r\n"
   local get = " HTTP/1.1\r\nHost: " .. host .. "\r\n\r\n"
   return {
      put = function(key)
         return "PUT /" .. name_of(key) .. put .. value(key)
      end,
      get = function(key)
         return "GET /" .. name_of(key) .. get
      end,
      stale = function(key)
         return "GET /" .. name_of(key) .. "?consistency=stale" .. get
      end,
   }
end

local function etcd(host, size)
   local value = values(size, true)
   local function post(path, body)
      return "POST " .. path .. " HTTP/1.1\r\nHost: " .. host
         .. "\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
   end
   return {
      put = function(key)
         local name = base64(name_of(key))
         return post("/v3/kv/put", '{"key":"' .. name .. '","value":"' .. value(key) .. '"}')
      end,
      get = function(key)
         return post("/v3/kv/range", '{"key":"' .. base64(name_of(key)) .. '"}')
      end,
      stale = function(key)
         local name = base64(name_of(key))
         return post("/v3/kv/range", '{"key":"' .. name .. '","serializable":true}')
      end,
   }
end

local function kept(make)
   local requests, bytes = {}, 0
   return function(key)
      local request = requests[key]
      if not request then
         request = make(key)
         if bytes + #request <= MAX_KEPT_BYTES then
            requests[key] = request
            bytes = bytes + #request
         end
      end
      return request
   end
end

local draw, write, read, kind

function init(args)
   local dialects = { kvdb = kvdb, etcd = etcd }
   kind = args[2]
   local size, keys = tonumber(args[3]), tonumber(args[4])
   math.randomseed(tonumber(args[6]) * 1000 + thread_number)
   draw = (args[5] == "zipfian" and zipfian or uniform)(keys)
   local said = dialects[args[1]](wrk.headers["Host"], size)
   write = kept(said.put)
   read = kept(kind == "stale" and said.stale or said.get)
end

function request()
   if kind == "put" or (kind == "mix" and math.random(10) > READS_OF_TEN) then
      return write(draw())
   end
   return read(draw())
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      'FIGURES {"requests": %d, "microseconds": %d,'
         .. ' "latency": {"p50": %d, "p90": %d, "p99": %d, "max": %d},'
         .. ' "errors": {"connect": %d, "read": %d, "write": %d,'
         .. ' "timeout": %d, "status": %d}}\n',
      summary.requests, summary.duration,
      latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max,
      errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
