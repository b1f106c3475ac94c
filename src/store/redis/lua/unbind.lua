-- A session has ended: its own entry goes, and no newer one of the same name.
local h, name = head_of(own(1)), own(2)
for _, session in ipairs(h.sessions) do
  if session.name == name and session.node == own_node and session.epoch == own_epoch then
    take_out(h, { session })
    if not is_anybody_there(h) then tell_watchers(h, false) end
    break
  end
end
return flush(1)
