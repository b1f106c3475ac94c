-- One step of a group's work. Answers whether there is more, and what is wrong with an inbox that
-- cannot be read: it holds up nobody.
local group = own(1)
local has_more = hand_out(group, tonumber(own(2)))
if has_more then
  call("ZADD", prefix .. WORK, text(now), group)
else
  call("ZREM", prefix .. WORK, group)
  -- What a group left that has ended.
  if group:find(" ", 1, true) then call("DEL", key(GROUP, group), key(GROUP_LOG, group)) end
end
return flush({ has_more and 1 or 0, broken })
