-- A model call may be settled after its turn has ended, by a worker that lost the turn: the totals are mended then.
grant select (tokens_total), update (tokens_total) on user_sessions to alfred_engine;
