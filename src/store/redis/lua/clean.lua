-- Takes out what a node has left of a user: the sessions of one of its lives, or, where none is
-- named, of all but the present one. Those that are named stay. Watchers that are gone go too.
-- Answers how many sessions went.
local h, node, epoch = head_of(own(1)), own(2), own(3)
local stays, gone, watchers = {}, {}, {}
for at = 4, #ARGV - HEADER do stays[own(at)] = true end
for _, session in ipairs(h.sessions) do
  local is_meant = session.epoch == epoch or (epoch == "0" and not is_live(session))
  if session.node == node and is_meant and not stays[session.name] then
    gone[#gone + 1] = session
  end
end
for _, watcher in ipairs(h.watchers) do
  if is_live(watcher) then
    watchers[#watchers + 1] = watcher
  else
    call("HDEL", h.key, "w:" .. watcher.node)
  end
end
h.watchers = watchers
take_out(h, gone)
leave_node(h, node)
if #gone > 0 and not is_anybody_there(h) then tell_watchers(h, false) end
return flush(#gone)
