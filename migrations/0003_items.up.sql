-- Every entity of the workspace. One partition a kind; the plain columns are filled from the payload by the
-- entity's projection, because row-level security only lets leakproof operators (text, uuid, timestamptz, bool,
-- bigint) use an index.
create table items (
  tenant_id uuid not null,
  kind text not null,
  uid uuid not null,
  id bigint not null,
  user_id uuid not null,
  version bigint not null default 1,
  payload jsonb not null,
  status text,
  parent_uid uuid,
  due_at timestamptz,
  pinned boolean,
  archived boolean not null default false,
  -- Position within the parent, for kinds that are a sequence (messages of a chat).
  ordinal bigint,
  -- Written by a turn: such a message cannot be changed by a person.
  turn_id uuid,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  primary key (tenant_id, kind, uid),
  constraint items_id_key unique (tenant_id, kind, id),
  constraint items_version_positive check (version > 0),
  constraint items_payload_object check (jsonb_typeof(payload) = 'object')
) partition by list (kind);

create table items_note partition of items for values in ('note');
create table items_task partition of items for values in ('task');
create table items_chat partition of items for values in ('chat');
create table items_chat_message partition of items for values in ('chat_message') with (fillfactor = 100);

create index items_by_user on items (tenant_id, user_id, uid);
create index items_chat_message_by_parent on items_chat_message (tenant_id, parent_uid, ordinal);

alter table items enable row level security;
alter table items force row level security;
create policy items_of_app on items to alfred_app
  using (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()))
  with check (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()));
grant select, insert, update on items to alfred_app;

-- Short ids for people and models: unique per tenant and kind, roughly ascending, gaps allowed.
create table counters (
  tenant_id uuid not null,
  kind text not null,
  next bigint not null,
  primary key (tenant_id, kind)
) with (fillfactor = 50);
alter table counters enable row level security;
alter table counters force row level security;
create policy counters_of_engine on counters to alfred_engine using (true) with check (true);
grant select, insert, update on counters to alfred_engine;
