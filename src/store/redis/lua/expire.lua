-- Drops what has grown old in the inboxes and groups that are to be looked at. Answers whether
-- there are more of them, and what is wrong with one that cannot be read: it ends no round.
local limit = tonumber(own(1))

-- Often enough for the shortest time that anything is kept.
local pause = math.max(1000, math.min(HOUR_MS, rules.ttl / 8, rules.seen / 8))

-- Entries and ids that were looked at: while this runs, nobody else is served.
local looked = 0

local function expire(uid)
  local h, why = try_head(uid)
  if not h then error(why, 0) end
  if not h.begun then return false end
  local were_above = {}
  for _, device in ipairs(h.devices) do
    if #device.above > 0 then were_above[#were_above + 1] = device end
  end
  local last
  each_entry(h, h.dropped, h.seq, function(seq, kind, row)
    if time_of(row) + rules.ttl > now then return false end
    lose(h, seq, kind, row)
    last, looked = seq, looked + 1
  end)
  if last then drop_until(h, last) end
  -- What has gone may be all that held up a device that had passed what follows.
  for _, device in ipairs(were_above) do advance(h, device, 0) end
  drop_passed(h)
  local has_more, count = sweep_seen(book_of(uid), h.dropped)
  looked = looked + count
  local is_idle = h.entries == 0 and h.notices == 0 and h.touched + IDLE_MS <= now
  if is_idle and #h.sessions + #h.watchers == 0 then
    h.removed = true
    call("DEL", h.key, h.log)
    return false
  end
  return true, has_more
end

local function expire_group(group)
  if call("EXISTS", key(GROUP, group)) == 0 then return false end
  local has_more, count = sweep_seen(group_book(group), 1)
  looked = looked + count
  return true, has_more
end

local broken = ""

local function look_through(all, look)
  local ids = call("ZRANGEBYSCORE", all, "-inf", text(now), "LIMIT", 0, limit)
  for _, id in ipairs(ids) do
    if looked >= SWEEP_MAX then return true end
    local is_read, is_there, has_more = pcall(look, id)
    if not is_read then
      local why = is_there
      broken = id .. ": " .. (type(why) == "table" and why.err or why)
      is_there, has_more = true, false
    end
    if is_there then
      call("ZADD", all, text(has_more and now or now + pause), id)
    else
      call("ZREM", all, id)
    end
  end
  return #ids == limit
end

local more_inboxes = look_through(prefix .. DUE_INBOXES, expire)
local more_groups = look_through(prefix .. DUE_GROUPS, expire_group)
return flush({ (more_inboxes or more_groups) and 1 or 0, broken })
