-- What is remembered of messages: that they were accepted, and where they stand. A book is one
-- hash (`m` sender msgid, `i` id, `p` sender) and the ids in order of their age.
local function book_of(uid)
  return { seen = key(SEEN, uid), ages = key(AGES, uid) }
end

local function group_book(group)
  return { seen = key(GROUP_SEEN, group), ages = key(GROUP_AGES, group) }
end

local function name_of(sender, msgid)
  return "m" .. sender .. "\0" .. msgid
end

-- The first id that can be given at a time.
local function first_id_at(ms)
  local bytes = {}
  for at = 6, 1, -1 do
    bytes[at] = string.char(ms % 256)
    ms = math.floor(ms / 256)
  end
  return table.concat(bytes)
end

local function time_of_id(id)
  local ms = 0
  for at = 1, 6 do ms = ms * 256 + id:byte(at) end
  return ms
end

-- What became of this message when it came before.
local function seen_before(book, sender, msgid, hash)
  local record = msgid and call("HGET", book.seen, name_of(sender, msgid))
  if not record then return nil end
  local id, before = unpack_record(record)
  if before == hash then return { AGAIN, id } end
  return { CONFLICT }
end

local function held_in(book, id)
  local record = call("HGET", book.seen, "i" .. id)
  if not record then return nil end
  local seq, owes, sender, msgid = unpack_record(record)
  return { seq = seq, owes = owes, sender = sender, msgid = msgid or nil }
end

local function write_held(held)
  return pack(held.seq, held.owes or false, held.sender, held.msgid or false)
end

local function hold(book, id, held)
  call("HSET", book.seen, "i" .. id, write_held(held))
  call("ZADD", book.ages, 0, id)
end

local function pair_of(book, sender)
  local record = call("HGET", book.seen, "p" .. sender)
  if not record then return 0, nil end
  local count, oldest = unpack_record(record)
  return count, oldest or nil
end

local function set_pair(book, sender, count, oldest)
  if count == 0 then
    call("HDEL", book.seen, "p" .. sender)
  else
    call("HSET", book.seen, "p" .. sender, pack(count, oldest or false))
  end
end

local function is_scheduled(id)
  local record = call("HGET", prefix .. DELAYED, id)
  return record and record ~= ""
end

local function forget(book, id, held)
  call("HDEL", book.seen, "i" .. id)
  call("ZREM", book.ages, id)
  if held.msgid then
    call("HDEL", book.seen, name_of(held.sender, held.msgid))
    local count, oldest = pair_of(book, held.sender)
    set_pair(book, held.sender, math.max(count - 1, 0), oldest)
  end
end

-- Goes through ids, oldest first; those for which `choose` says true are forgotten, except what
-- is not due yet. It stops at nil. Says how many were forgotten.
local function forget_chosen(book, ids, choose)
  local chosen = {}
  for _, id in ipairs(ids) do
    local held = held_in(book, id)
    local may_go = choose(id, held)
    if may_go == nil then break end
    if may_go then chosen[#chosen + 1] = { id, held } end
  end
  local count = 0
  for _, one in ipairs(chosen) do
    if one[2].seq ~= 0 or not is_scheduled(one[1]) then
      forget(book, one[1], one[2])
      count = count + 1
    end
  end
  return count
end

local function old_ids(book, limit)
  local first_young = first_id_at(math.max(now - rules.seen, -1) + 1)
  return call("ZRANGEBYLEX", book.ages, "-", "(" .. first_young, "LIMIT", 0, limit)
end

-- Forgets the oldest messages while they are old and have left the log; a few of them.
local function trim_seen(book, dropped)
  forget_chosen(book, old_ids(book, 4), function(_, held)
    if held.seq > dropped then return nil end
    return true
  end)
end

-- The same for an inbox, which knows from when on there may be something to forget.
local function trim_inbox(book, h)
  if h.aged + rules.seen > now then return end
  trim_seen(book, h.dropped)
  local oldest = call("ZRANGE", book.ages, 0, 0)[1]
  h.aged = oldest and time_of_id(oldest) or now
end

-- Forgets all that are old and have left the log. Says whether there may be more of them, and how
-- many were looked at.
local function sweep_seen(book, dropped)
  local ids = old_ids(book, SWEEP_IDS)
  local count = forget_chosen(book, ids, function(_, held) return held.seq <= dropped end)
  return #ids == SWEEP_IDS and count > 0, #ids
end

-- Forgets the oldest messages of one sender that have left the log, as many as are too many.
local function forget_oldest(book, sender, dropped, count, oldest)
  local left = count - rules.seen_max
  local from = oldest and "[" .. oldest or "-"
  local ids = call("ZRANGEBYLEX", book.ages, from, "+", "LIMIT", 0, LOOK)
  forget_chosen(book, ids, function(id, held)
    local is_own = held.sender == sender and held.msgid ~= nil
    if left == 0 or (is_own and held.seq > dropped) then return nil end
    oldest = id
    if is_own then left = left - 1 end
    return is_own
  end)
  set_pair(book, sender, (pair_of(book, sender)), oldest)
end

local function remember(book, id, sender, msgid, kind, hash, seq, dropped)
  local held = { seq = seq, owes = kind == CHAT, sender = sender, msgid = msgid }
  call("ZADD", book.ages, 0, id)
  if not msgid then
    call("HSET", book.seen, "i" .. id, write_held(held))
    return
  end
  local count, oldest = pair_of(book, sender)
  count = count + 1
  call("HSET", book.seen, "i" .. id, write_held(held), name_of(sender, msgid), pack(id, hash),
    "p" .. sender, pack(count, oldest or false))
  if count > rules.seen_max then forget_oldest(book, sender, dropped, count, oldest) end
end
