-- Where a tool's result came from, for the turn's meta.
alter table turn_steps
  add column cache_key text,
  add column cache_hit boolean not null default false,
  -- Seconds that the answer was still good for when it was given.
  add column cache_ttl bigint;
