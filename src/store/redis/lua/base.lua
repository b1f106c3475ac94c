-- What every script begins with: its arguments, the names of keys, what it answers.
-- Values stand for the names in capitals before Redis gets it: see names.rs.
local call, format = redis.call, string.format
local prefix, run = ARGV[1], ARGV[2]
local fresh, now = tonumber(ARGV[3]), tonumber(ARGV[4])
local rules = {
  entries = tonumber(ARGV[5]), bytes = tonumber(ARGV[6]), notices = tonumber(ARGV[7]),
  devices = tonumber(ARGV[8]), ttl = tonumber(ARGV[9]), seen = tonumber(ARGV[10]),
  seen_max = tonumber(ARGV[11]),
}
-- Who asks, in which of its lives, and whether everybody hears every doorbell.
local own_node, own_epoch, is_broadcast = ARGV[12], ARGV[13], ARGV[14] == "b"
-- What the node that asks would hear on its channel: it hears it in the answer.
local rings = {}

local function own(at)
  return ARGV[HEADER + at]
end

-- Text that may be missing travels with a mark before it.
local function optional(value)
  if value ~= "" then return value:sub(2) end
end

local function escape(id)
  if not id:find("[^A-Za-z0-9_.@%-]") then return id end
  return (id:gsub("[^A-Za-z0-9_.@%-]", function(c) return format("%%%02X", c:byte()) end))
end

local function key(kind, id)
  return prefix .. kind .. "{" .. escape(id) .. "}"
end

-- Lua writes large numbers with an exponent, or without their last digits.
local function text(number)
  return format("%.0f", number)
end

local function check_version(version)
  if version > FORMAT or version < FORMAT - 1 then
    error("what is stored has the format version " .. version, 0)
  end
end

-- Records that only scripts read.
local function pack(...)
  return cmsgpack.pack(FORMAT, ...)
end

local function without_version(version, ...)
  check_version(version)
  return ...
end

local function unpack_record(record)
  return without_version(cmsgpack.unpack(record))
end

local function answer(reply)
  return { reply, rings }
end
