-- The change feed: one row for each version of an item, written in the transaction that made the version.
--
-- Transactions commit in another order than they draw numbers, so that a reader who remembers the last number it saw
-- passes by whatever commits late. A row here carries its transaction's id, and readers stop short of the oldest
-- transaction that is still running: `(xid, seq) > cursor and xid < pg_snapshot_xmin(pg_current_snapshot())`. What lies
-- below that is complete for ever.
create table changes (
  tenant_id uuid not null,
  xid xid8 not null default pg_current_xact_id(),
  -- Orders the changes of one transaction.
  seq bigint not null generated always as identity,
  user_id uuid not null,
  kind text not null,
  uid uuid not null,
  version bigint not null,
  change text not null,
  at timestamptz not null default clock_timestamp(),
  primary key (tenant_id, xid, seq),
  constraint changes_change check (change in ('created', 'updated', 'deleted'))
);
create index changes_by_user on changes (tenant_id, user_id, xid, seq);
-- For retention. Rows come in the order of time, so that a summary of blocks finds the old ones and costs writers nothing.
create index changes_by_age on changes using brin (at) with (autosummarize = on);

-- A tenant's feed: how far retention has deleted, and a number that an operator may change so that all clients list
-- again. No row: neither has happened.
create table change_feeds (
  tenant_id uuid primary key,
  epoch uuid not null default '00000000-0000-0000-0000-000000000000',
  dropped_xid xid8 not null default '0',
  dropped_seq bigint not null default 0
);

alter table changes enable row level security;
alter table changes force row level security;
alter table change_feeds enable row level security;
alter table change_feeds force row level security;
create policy changes_of_app on changes to alfred_app
  using (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()))
  with check (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()));
create policy changes_of_engine on changes to alfred_engine using (true) with check (true);
create policy change_feeds_of_app on change_feeds for select to alfred_app using (tenant_id = current_tenant());
create policy change_feeds_of_engine on change_feeds to alfred_engine using (true) with check (true);
grant select, insert on changes to alfred_app;
grant select, delete on changes to alfred_engine;
grant select on change_feeds to alfred_app;
grant select, insert, update on change_feeds to alfred_engine;

-- Which history of transactions a cursor speaks of. Transaction ids begin anew in another cluster, may be used twice
-- after recovery to a point in time, and mean nothing in a database that a dump was loaded into: each of these gives
-- another epoch, and so does a new value in change_feeds.
create function change_epoch(p_tenant uuid) returns text language sql stable
  return substr(md5(concat_ws('.',
    (select c.system_identifier from pg_control_system() c),
    substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
    (select d.oid from pg_database d where d.datname = current_database()),
    coalesce((select f.epoch from change_feeds f where f.tenant_id = p_tenant), '00000000-0000-0000-0000-000000000000'))), 1, 16);

-- Every writer of items passes here: requests, tools, and the statements by which turns write messages. A message that
-- moves its chat's updated_at makes no version of the chat, and so no change.
create function items_note_change() returns trigger language plpgsql as $$
begin
  insert into public.changes (tenant_id, user_id, kind, uid, version, change)
  values (new.tenant_id, new.user_id, new.kind, new.uid, new.version,
          case when tg_op = 'INSERT' then 'created'
               when new.deleted_at is not null and old.deleted_at is null then 'deleted'
               else 'updated' end);
  return null;
end
$$;
create trigger items_created after insert on items for each row execute function items_note_change();
create trigger items_changed after update on items for each row when (old.version is distinct from new.version)
  execute function items_note_change();
