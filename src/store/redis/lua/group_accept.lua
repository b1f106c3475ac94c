-- A message to a group: it is accepted when it stands in the group's log.
local group, sender, msgid, hash = own(1), own(2), optional(own(3)), own(4)
local kind, row, device, connection = own(5), own(6), optional(own(7)), own(8)
local members = key(GROUP, group)
if call("EXISTS", members) == 0 then return answer({ NOT_FOUND }) end
local book = group_book(group)
local before = seen_before(book, sender, msgid, hash)
if before then return answer(before) end
if not call("ZSCORE", members, sender) then return answer({ NOT_MEMBER }) end
local id = id_of(row)
call("XADD", key(GROUP_LOG, group), "*", "m", pack(kind, row, sender, device or false, connection))
call("ZADD", prefix .. WORK, text(now), group)
-- Nothing holds it up in this book: whatever is old may go.
remember(book, id, sender, msgid, kind, hash, 1, 1)
trim_seen(book, 1)
return answer({ NEW, id })
