-- Takes back what is not due yet. What was due leaves an empty trace for a while.
local id = own(1)
local record = call("HGET", prefix .. DELAYED, id)
if not record then return answer(UNKNOWN) end
if record == "" then return answer(TOO_LATE) end
local to, sender, msgid = unpack_record(record)
forget(book_of(to), id, { sender = sender, msgid = msgid or nil })
call("ZREM", prefix .. DELAY, id)
call("HDEL", prefix .. DELAYED, id)
return answer(CANCELLED)
