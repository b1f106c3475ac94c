-- A node's lease is taken, or refreshed by the life that has it. Answers 1; or 2 where there is
-- none; or 0, whose it is, and for how long.
local lease = ARGV[1] .. LEASE .. ARGV[2]
local epoch, value, lasts, from = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local found = call("GET", lease)
local owner = found and (found:match("^%d+ (%d+) ") or "0")
if not owner and from == "" then return { 2, "", 0 } end
if owner and owner ~= epoch and owner ~= from then return { 0, owner, call("PTTL", lease) } end
call("SET", lease, value, "PX", lasts)
return { 1, epoch, 0 }
