-- A message for one user: dedupe, append, directory and doorbell.
local to, sender, msgid, hash = own(1), own(2), optional(own(3)), own(4)
local kind, row = own(5), own(6)
local book = book_of(to)
local before = seen_before(book, sender, msgid, hash)
if before then return flush(before) end
local h = open(to)
if not make_room(h, #row) then
  -- An inbox is not begun for what it does not take.
  h.begun = h.was_begun
  return flush({ FULL })
end
local id = id_of(row)
local seq = append(h, kind, row)
remember(book, id, sender, msgid, kind, hash, seq, h.dropped)
trim_inbox(book, h)
return flush({ NEW, id })
