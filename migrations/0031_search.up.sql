-- Full-text search. What is searched is a table of its own: items keep their narrow rows, a message that moves its
-- chat's updated_at rewrites no word list, and one index serves all kinds.
--
-- Under row-level security `@@` may use no index (it is not leakproof: 227 ms instead of 1 over 300 000 rows), so the
-- app role has no right on these tables at all. It calls search_items(), which asks the transaction's settings who is
-- there and filters by that. It answers kinds, uids and ranks only; the items themselves are then read by the app role,
-- under row-level security like any other.
create extension if not exists btree_gin;

-- Which words are the same word. A configuration of our own, so that a deployment may change it (docs/operations.md).
create text search configuration workspace_text (copy = english);

create table search_documents (
  tenant_id uuid not null,
  uid uuid not null,
  kind text not null,
  user_id uuid not null,
  status text,
  archived boolean not null,
  words tsvector not null,
  primary key (tenant_id, uid, kind)
);
create index search_documents_by_user on search_documents (tenant_id, user_id, uid);
-- New words are first put on a list, which is searched too and emptied into the index when it is full. A short list
-- keeps both its search and its emptying short.
create index search_documents_words on search_documents using gin (tenant_id, user_id, words)
  with (fastupdate = on, gin_pending_list_limit = 1024);

-- What turns have written and nobody has indexed yet is marked in the change feed, which has a row for it anyway: a turn
-- does not wait for its words to be counted.
alter table changes add column to_index boolean not null default false;
create index changes_to_index on changes (tenant_id, xid, seq) where to_index;

-- The functions below run as the owner of the tables, whom forced row-level security binds as well.
alter table search_documents enable row level security;
alter table search_documents force row level security;
do $$ begin
  execute format('create policy search_documents_of_owner on search_documents to %I using (true) with check (true)', current_user);
  execute format('create policy changes_of_owner on changes to %I using (true) with check (true)', current_user);
  execute format('create policy items_of_search on items for select to %I using (true)', current_user);
end $$;
-- The engine deletes what belongs to a tenant that is gone. It may not read words.
create policy search_documents_of_engine on search_documents to alfred_engine using (true) with check (true);
grant select (tenant_id), delete on search_documents to alfred_engine;

-- The text of an item that snippets are cut from.
create function item_text(p_payload jsonb) returns text language sql immutable parallel safe
  return coalesce(p_payload ->> 'content', p_payload ->> 'description', '');

-- The words of an item: its title weighs most, then tags, then text, then whatever fields are not ours. Fields that are
-- codes, times or names of other items are no words. What tools answered is not indexed: it repeats what is there.
create function item_words(p_payload jsonb) returns tsvector language sql immutable parallel safe
  return case when p_payload ->> 'role' = 'tool' then ''::tsvector else
    setweight(to_tsvector('public.workspace_text', coalesce(p_payload ->> 'title', '')), 'A')
    || setweight(jsonb_to_tsvector('public.workspace_text', coalesce(p_payload -> 'tags', '[]'), '["string"]'), 'B')
    || setweight(to_tsvector('public.workspace_text', public.item_text(p_payload)), 'C')
    || setweight(jsonb_to_tsvector('public.workspace_text',
         p_payload - array['title', 'tags', 'content', 'description', 'status', 'priority', 'dueDate', 'parentType',
                           'parentUid', 'chatUid', 'author', 'role', 'sender', 'messageType', 'readAt', 'deliveredAt',
                           'toolCalls', 'participants', 'metadata'], '["string"]'), 'D')
  end;

-- As before, and marks what turns write.
create or replace function items_note_change() returns trigger language plpgsql as $$
begin
  insert into public.changes (tenant_id, user_id, kind, uid, version, change, to_index)
  values (new.tenant_id, new.user_id, new.kind, new.uid, new.version,
          case when tg_op = 'INSERT' then 'created'
               when new.deleted_at is not null and old.deleted_at is null then 'deleted'
               else 'updated' end,
          new.turn_id is not null);
  return null;
end
$$;

-- Keeps the words of what people write, in the transaction that writes it. Audited: writes the changed row's own words.
create function items_index() returns trigger
  language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
begin
  if new.deleted_at is not null then
    delete from search_documents where tenant_id = new.tenant_id and uid = new.uid and kind = new.kind;
  else
    insert into search_documents (tenant_id, uid, kind, user_id, status, archived, words)
    values (new.tenant_id, new.uid, new.kind, new.user_id, new.status, new.archived, item_words(new.payload))
    on conflict (tenant_id, uid, kind) do update
      set status = excluded.status, archived = excluded.archived, words = excluded.words;
  end if;
  return null;
end
$$;
revoke all on function items_index() from public;
create trigger items_index_new after insert on items for each row when (new.turn_id is null) execute function items_index();
create trigger items_index_changed after update on items for each row
  when (old.deleted_at is distinct from new.deleted_at or new.turn_id is null and old.payload is distinct from new.payload)
  execute function items_index();

-- Indexes what turns wrote, of one tenant or of all; answers how many changes that were. Audited: reads items only to write
-- their words where the caller cannot read them, and tells nothing but a number.
create function search_catch_up(p_tenant uuid, p_most bigint) returns bigint
  language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
  with due as (
    update changes set to_index = false where (tenant_id, xid, seq) in (
      select tenant_id, xid, seq from changes
      where to_index and tenant_id >= coalesce(p_tenant, '00000000-0000-0000-0000-000000000000')
        and tenant_id <= coalesce(p_tenant, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
      order by tenant_id, xid, seq limit p_most for update skip locked)
    returning tenant_id, kind, uid
  ), indexed as (
    insert into search_documents (tenant_id, uid, kind, user_id, status, archived, words)
    select i.tenant_id, i.uid, i.kind, i.user_id, i.status, i.archived, item_words(i.payload)
    from (select distinct tenant_id, kind, uid from due) d
    join items i on i.tenant_id = d.tenant_id and i.kind = d.kind and i.uid = d.uid
    where i.deleted_at is null
    order by i.tenant_id, i.uid, i.kind
    on conflict (tenant_id, uid, kind) do update
      set status = excluded.status, archived = excluded.archived, words = excluded.words
  )
  select count(*) from due
$$;
revoke all on function search_catch_up(uuid, bigint) from public;
grant execute on function search_catch_up(uuid, bigint) to alfred_engine;

-- The newest matches before an item, with their ranks. Audited: whose items are searched comes from the transaction's
-- settings alone, nobody's without them; every value is a parameter of the statement; nothing of an item's content is
-- answered. The statement is planned for its values, because the best plan for a rare word is the worst for a common one.
create function search_items(p_query text, p_kinds text[], p_states text[], p_archived boolean, p_before uuid, p_most bigint)
  returns table (kind text, uid uuid, rank real)
  language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
begin
  perform search_catch_up(current_tenant(), 200);
  return query execute
    'select d.kind, d.uid, ts_rank(''{0.1, 0.3, 0.6, 1}'', d.words, $3, 1)
     from search_documents d
     where d.tenant_id = $1 and d.words @@ $3 and d.uid < $7'
    || case when current_is_admin() then '' else ' and d.user_id = $2' end
    || case when p_kinds is null then '' else ' and d.kind = any ($4)' end
    || case when p_states is null then '' else ' and d.status = any ($5)' end
    || case when p_archived then '' else ' and not d.archived' end
    || ' order by d.uid desc limit $6'
    using current_tenant(), current_app_user(), websearch_to_tsquery('public.workspace_text', p_query), p_kinds, p_states,
          p_most, coalesce(p_before, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
end
$$;
revoke all on function search_items(text, text[], text[], boolean, uuid, bigint) from public;
grant execute on function search_items(text, text[], text[], boolean, uuid, bigint) to alfred_app;

-- Around matches, for a match's text: at most so many letters of it are looked at. Control characters mark the words;
-- they are taken out of the text first, so that no text can forge a mark.
create function search_snippet(p_query text, p_text text) returns text language sql immutable parallel safe
  return ts_headline('public.workspace_text', translate(left(p_text, 20000), chr(2) || chr(3), ''),
    websearch_to_tsquery('public.workspace_text', p_query),
    'StartSel=' || chr(2) || ', StopSel=' || chr(3) || ', MaxWords=30, MinWords=12, MaxFragments=2, FragmentDelimiter=" … "');

-- What was written before this migration.
insert into search_documents (tenant_id, uid, kind, user_id, status, archived, words)
select tenant_id, uid, kind, user_id, status, archived, item_words(payload) from items where deleted_at is null;
