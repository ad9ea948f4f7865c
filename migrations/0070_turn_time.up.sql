-- How long a turn has run, over all its attempts: its time budget must not begin anew with each of them. A turn stops
-- running in many places, a worker's, the sweeper's and the api's, so a trigger counts. The time of a worker that died
-- counts until its turn is taken from it; waiting in line and for people does not.
alter table turns add column running_since timestamptz, add column ran_ms bigint not null default 0;

create function turns_count_time() returns trigger
  language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
  if new.state = 'running' then
    new.running_since := clock_timestamp();
  else
    -- At least one, so that a turn that ran at all is told from one that did not. greatest() passes over null.
    new.ran_ms := old.ran_ms + greatest(1, (extract(epoch from clock_timestamp() - old.running_since) * 1000)::bigint);
    new.running_since := null;
  end if;
  return new;
end
$$;

create trigger turns_time before update of state on turns
  for each row when ((old.state = 'running') <> (new.state = 'running')) execute function turns_count_time();
