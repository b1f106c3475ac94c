-- Puts what is due into the inboxes. One without room makes it wait, for as long as it would have
-- been kept there, and so does one that cannot be read. Answers how many there were, when the next
-- is due, and what is wrong with an inbox.
local delay, delayed = prefix .. DELAY, prefix .. DELAYED
local ids = call("ZRANGEBYSCORE", delay, "-inf", text(now), "LIMIT", 0, tonumber(own(1)))

-- False: there is no room for it yet.
local function fall_due(id, to, due, kind, row)
  local was_begun = head_of(to).begun
  local h = open(to)
  row = at_time(row, due)
  if make_room(h, #row) then
    local seq, book = append(h, kind, row), book_of(to)
    local held = held_in(book, id)
    if held then
      held.seq = seq
      call("HSET", book.seen, "i" .. id, write_held(held))
    end
  elseif now < due + rules.ttl then
    h.begun = was_begun
    return false
  else
    miss(h)
    h.must_save = true
  end
  return true
end

local broken = ""
for _, id in ipairs(ids) do
  local record = call("HGET", delayed, id)
  if not record or record == "" then
    call("ZREM", delay, id)
    call("HDEL", delayed, id)
  else
    local to, _, _, due, kind, row = unpack_record(record)
    local h, why = try_head(to)
    if h and fall_due(id, to, due, kind, row) then
      call("ZADD", delay, text(now + rules.seen), id)
      call("HSET", delayed, id, "")
    else
      broken = why and to .. ": " .. why or broken
      call("ZADD", delay, text(now + AGAIN_MS), id)
    end
  end
end
local nearest = call("ZRANGE", delay, 0, 0, "WITHSCORES")
return flush({ #ids, nearest[2] or "", broken })
