-- Groups' messages on their way to members. How far one has come stands beside the log, so a
-- step may be done by anybody, and is never done twice.
local broken = ""

local function put_into(uid, kind, row, sender, device, connection)
  local id, book = id_of(row), book_of(uid)
  if call("HEXISTS", book.seen, "i" .. id) == 1 then return end
  local h = open(uid)
  local is_own = device and uid == sender
  if is_own then know(h, device) end
  if not make_room(h, #row) then
    miss(h, is_own and device or nil)
    h.must_save = true
    return
  end
  local seq = append(h, kind, row, is_own and connection or nil)
  if is_own then
    local known = know(h, device)
    known.above[#known.above + 1] = seq
    advance(h, known, 0)
    drop_passed(h)
  end
  hold(book, id, { seq = seq, sender = sender })
  trim_inbox(book, h)
end

-- Brings the oldest message of a group to at most `limit` of its members. Says whether there is
-- more, and how many they were. One whose inbox cannot be read gets nothing.
local function hand_out(group, limit)
  local log, mark = key(GROUP_LOG, group), key(GROUP_MARK, group)
  local first = call("XRANGE", log, "-", "+", "COUNT", 1)[1]
  if not first then return false, 0 end
  local number, fields = first[1], first[2]
  local kind, row, sender, device, connection = unpack_record(fields[2])
  local from = call("GET", mark) or "-inf"
  local members = call("ZRANGEBYSCORE", key(GROUP, group), from, "+inf", "WITHSCORES", "LIMIT", 0, limit)
  for at = 1, #members, 2 do
    local h, why = try_head(members[at])
    if h then
      put_into(members[at], kind, row, sender, device or nil, connection)
    else
      broken = members[at] .. ": " .. why
    end
  end
  if #members == 2 * limit then
    call("SET", mark, "(" .. members[#members])
    return true, limit
  end
  call("DEL", mark)
  call("XDEL", log, number)
  return call("XLEN", log) > 0, #members / 2
end
