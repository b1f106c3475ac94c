-- A message that its receiver gets later. It has its id, and is told from others, from now on.
local to, sender, msgid, hash = own(1), own(2), optional(own(3)), own(4)
local kind, row, due = own(5), own(6), math.max(tonumber(own(7)), 1)
local book = book_of(to)
local before = seen_before(book, sender, msgid, hash)
if before then return answer(before) end
local id, h = id_of(row), head_of(to)
call("ZADD", prefix .. DELAY, text(due), id)
call("HSET", prefix .. DELAYED, id, pack(to, sender, msgid or false, due, kind, row))
remember(book, id, sender, msgid, kind, hash, 0, h.dropped or 0)
return flush({ NEW, id })
