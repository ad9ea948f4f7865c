-- Events about users in a Redis stream too, for deployments that have readers of one.
--
-- Ids are made before their transaction commits, so an id that is seen may be followed by a lesser one. The transaction that wrote
-- an event says when nothing can come before it any more, as in the change feed.

alter table authentication_events add column written_in xid8 not null default pg_current_xact_id();
create index authentication_events_in_order on authentication_events (written_in, id);

-- How far a stream is filled, and which process fills it now.
create table redis_stream_positions (
  stream text primary key,
  written_in xid8 not null,
  event_id uuid not null,
  lease uuid,
  leased_until timestamptz not null
);
alter table redis_stream_positions enable row level security;
alter table redis_stream_positions force row level security;
create policy redis_stream_positions_of_engine on redis_stream_positions to alfred_engine using (true) with check (true);
grant select, insert, update, delete on redis_stream_positions to alfred_engine;
