-- Search by meaning: what items mean, as a model of embeddings sees it. The tables need no extension, so that every server
-- can have them; where the extension `vector` (pgvector) is there, it compares the vectors (`api migrate` asks for it, see
-- shared/src/db.rs), and where it is not, SQL does, over fewer of the newest items.
--
-- No approximate index: a search compares with what its caller may see and with nothing else, and an index over all tenants
-- finds others' neighbours first and then has none left for a small tenant.

-- The model that embeddings are made with, as long as a worker that has one was the last to start; and how far the items
-- from before it have been put on the list.
create table embedding_models (
  only_one boolean primary key default true,
  model text not null,
  since timestamptz not null default now(),
  reached_tenant uuid not null default '00000000-0000-0000-0000-000000000000',
  reached_uid uuid not null default '00000000-0000-0000-0000-000000000000',
  reached_kind text not null default '',
  reached_all boolean not null default false,
  constraint embedding_models_one check (only_one)
);

-- Items whose text may have changed since it was embedded; written in the transaction that changes them.
create sequence embedding_outbox_seq;
create table embedding_outbox (
  tenant_id uuid not null,
  uid uuid not null,
  kind text not null,
  user_id uuid not null,
  -- Another one with each change: what was embedded before the change takes nothing off the list.
  seq bigint not null default nextval('embedding_outbox_seq'),
  -- When to try, or until when somebody is trying.
  due_at timestamptz not null default clock_timestamp(),
  attempts bigint not null default 0,
  primary key (tenant_id, uid, kind)
);
alter sequence embedding_outbox_seq owned by embedding_outbox.seq;
create index embedding_outbox_due on embedding_outbox (due_at);

create table item_embeddings (
  tenant_id uuid not null,
  uid uuid not null,
  kind text not null,
  user_id uuid not null,
  model text not null,
  -- Of the text that was embedded: the same text is not sent twice.
  text_hash bytea not null,
  -- Of length 1, so that the product of two is how alike they are.
  embedding real[] not null,
  -- Vectors of other lengths cannot be compared.
  dimensions integer not null generated always as (cardinality(embedding)) stored,
  at timestamptz not null default now(),
  primary key (tenant_id, uid, kind)
);
-- A vector of 1536 stays in its row's page: fetching it from elsewhere takes longer than comparing it.
alter table item_embeddings alter column embedding set storage main, set (toast_tuple_target = 8160);
create index item_embeddings_by_user on item_embeddings (tenant_id, user_id, uid);

alter table embedding_models enable row level security;
alter table embedding_models force row level security;
alter table embedding_outbox enable row level security;
alter table embedding_outbox force row level security;
alter table item_embeddings enable row level security;
alter table item_embeddings force row level security;
do $$
declare
  place text;
begin
  -- The functions below run as the owner, whom forced row-level security binds as well.
  foreach place in array array['embedding_models', 'embedding_outbox', 'item_embeddings'] loop
    execute format('create policy %I on %I to %I using (true) with check (true)', place || '_of_owner', place, current_user);
  end loop;
  foreach place in array array['embedding_outbox', 'item_embeddings'] loop
    execute format('create policy whole_tenant on %I to %I using (tenant_id = nullif(current_setting(''app.whole_tenant'', true), '''')::uuid) with check (false)',
                   place, current_user);
  end loop;
end
$$;
create policy embedding_models_of_engine on embedding_models to alfred_engine using (true) with check (true);
create policy embedding_outbox_of_engine on embedding_outbox to alfred_engine using (true) with check (true);
-- A worker writes embeddings as the item's owner, like everything that it writes of a person's.
create policy item_embeddings_of_app on item_embeddings to alfred_app
  using (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()))
  with check (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()));
grant select, insert, update, delete on embedding_models to alfred_engine;
grant select, update, delete on embedding_outbox to alfred_engine;
grant select, insert, update on item_embeddings to alfred_app;

-- Notes what has to be embedded, and forgets what was deleted. Audited: writes the changed row's own names.
create function items_to_embed() returns trigger
  language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
begin
  if new.deleted_at is not null then
    delete from item_embeddings where tenant_id = new.tenant_id and uid = new.uid and kind = new.kind;
    delete from embedding_outbox where tenant_id = new.tenant_id and uid = new.uid and kind = new.kind;
  elsif exists (select from embedding_models) then
    insert into embedding_outbox (tenant_id, uid, kind, user_id) values (new.tenant_id, new.uid, new.kind, new.user_id)
    on conflict (tenant_id, uid, kind) do update
      set seq = nextval('embedding_outbox_seq'), due_at = clock_timestamp(), attempts = 0;
  end if;
  return null;
end
$$;
revoke all on function items_to_embed() from public;
-- What tools answered repeats what is there.
create trigger items_to_embed_new after insert on items for each row
  when (new.payload ->> 'role' is distinct from 'tool') execute function items_to_embed();
create trigger items_to_embed_changed after update on items for each row
  when (old.deleted_at is distinct from new.deleted_at or old.payload is distinct from new.payload)
  execute function items_to_embed();

-- Puts some items from before the model on the list, in the order of a key, and remembers how far it came; answers how many.
-- Audited: engine only; reads names of items and nothing of their content.
create function embeddings_backfill(p_most bigint) returns bigint
  language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
declare
  place embedding_models;
  found_items bigint;
  last_tenant uuid;
  last_uid uuid;
  last_kind text;
begin
  select * into place from embedding_models where not reached_all for update skip locked;
  if not found then
    return 0;
  end if;
  -- What turns wrote is found by its words' rows, too.
  if exists (select from changes where to_index) then
    perform search_catch_up(null, p_most);
  end if;
  with next_items as materialized (
    select tenant_id, uid, kind, user_id from search_documents
    where (tenant_id, uid, kind) > (place.reached_tenant, place.reached_uid, place.reached_kind)
    order by tenant_id, uid, kind limit p_most
  ), listed as (
    insert into embedding_outbox (tenant_id, uid, kind, user_id) select tenant_id, uid, kind, user_id from next_items
    on conflict (tenant_id, uid, kind) do nothing
  )
  select count(*), (array_agg(tenant_id order by tenant_id desc, uid desc, kind desc))[1],
         (array_agg(uid order by tenant_id desc, uid desc, kind desc))[1],
         (array_agg(kind order by tenant_id desc, uid desc, kind desc))[1]
  into found_items, last_tenant, last_uid, last_kind from next_items;
  update embedding_models
  set reached_tenant = coalesce(last_tenant, reached_tenant), reached_uid = coalesce(last_uid, reached_uid),
      reached_kind = coalesce(last_kind, reached_kind), reached_all = found_items < p_most;
  return found_items;
end
$$;
revoke all on function embeddings_backfill(bigint) from public;
grant execute on function embeddings_backfill(bigint) to alfred_engine;

-- How far apart two vectors of length 1 are, 0 to 2, without any extension.
create function embedding_distance(p_one real[], p_other real[]) returns double precision
  language sql immutable strict parallel safe
  return 1 - (select sum(u.x * u.y) from unnest(p_one, p_other) u (x, y));

-- The items nearest to a vector. Audited like search_items: whose items are compared comes from the transaction's settings
-- alone, nobody's without them; every value is a parameter of the statement; nothing of an item's content is answered.
-- Compared are the newest 100 000 of what the filters let through, or without the extension 2 000.
create function search_embeddings(p_vector real[], p_model text, p_kinds text[], p_states text[], p_archived boolean, p_most bigint)
  returns table (kind text, uid uuid, distance real)
  language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
declare
  has_extension boolean := to_regtype('public.vector') is not null;
begin
  if exists (select from changes c where c.tenant_id = current_tenant() and c.to_index) then
    perform search_catch_up(current_tenant(), 200);
  end if;
  return query execute
    'select n.kind, n.uid, n.distance::real from (
       select c.kind, c.uid, '
    || case when has_extension then '1 + (c.embedding::public.vector operator(public.<#>) $3::public.vector)'
            else 'embedding_distance(c.embedding, $3)' end
    || ' as distance
       from (
         select e.kind, e.uid, e.embedding
         from item_embeddings e
         join search_documents d on d.tenant_id = e.tenant_id and d.uid = e.uid and d.kind = e.kind
         where e.tenant_id = $1 and e.model = $7 and e.dimensions = cardinality($3)'
    || case when current_is_admin() then '' else ' and e.user_id = $2' end
    || case when p_kinds is null then '' else ' and e.kind = any ($4)' end
    || case when p_states is null then '' else ' and d.status = any ($5)' end
    || case when p_archived then '' else ' and not d.archived' end
    || '  order by e.uid desc limit ' || case when has_extension then 100000 else 2000 end
    || ') c) n order by n.distance, n.uid desc limit $6'
    using current_tenant(), current_app_user(), p_vector, p_kinds, p_states, p_most, p_model;
end
$$;
revoke all on function search_embeddings(real[], text, text[], text[], boolean, bigint) from public;
grant execute on function search_embeddings(real[], text, text[], text[], boolean, bigint) to alfred_app;
