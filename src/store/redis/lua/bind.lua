-- A session that is there already enters the directory. It counts by its age, so it may be the one
-- that has to go. Answers: whether it stays, and which others of this node have to go.
local stays, replaced = enter(head_of(own(1)), own(2), own(3), tonumber(own(4)), false)
return flush({ stays and 1 or 0, replaced })
