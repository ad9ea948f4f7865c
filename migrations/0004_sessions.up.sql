-- A conversation is the chat of the same short id. This row is what posting, finishing and cancelling lock; the
-- chat's title and the rest are its item.
create table conversations (
  tenant_id uuid not null,
  id bigint not null,
  user_id uuid not null,
  chat_uid uuid not null,
  next_turn_no bigint not null default 1,
  created_at timestamptz not null default now(),
  primary key (tenant_id, id),
  constraint conversations_chat_key unique (tenant_id, chat_uid)
) with (fillfactor = 70);

create table user_sessions (
  tenant_id uuid not null,
  id uuid not null,
  user_id uuid not null,
  -- sha256 of the token; the token itself is only ever answered once.
  token_hash bytea not null,
  conversation_id bigint not null,
  conversation_context jsonb not null default '{}',
  active_notion_workspace text,
  tokens_total bigint not null default 0,
  created_at timestamptz not null default now(),
  last_accessed timestamptz not null default now(),
  expires_at timestamptz not null,
  primary key (tenant_id, id),
  constraint user_sessions_token_key unique (tenant_id, token_hash),
  foreign key (tenant_id, conversation_id) references conversations (tenant_id, id)
) with (fillfactor = 70);
create index user_sessions_by_conversation on user_sessions (tenant_id, conversation_id);
create index user_sessions_by_user on user_sessions (tenant_id, user_id, id);
create index user_sessions_by_expiry on user_sessions (expires_at);

alter table conversations enable row level security;
alter table conversations force row level security;
alter table user_sessions enable row level security;
alter table user_sessions force row level security;
create policy conversations_of_app on conversations to alfred_app
  using (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()))
  with check (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()));
create policy conversations_of_engine on conversations for select to alfred_engine using (true);
create policy user_sessions_of_app on user_sessions to alfred_app
  using (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()))
  with check (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()));
create policy user_sessions_of_engine on user_sessions to alfred_engine using (true) with check (true);
grant select, insert, update on conversations to alfred_app;
grant select, insert, update, delete on user_sessions to alfred_app;
grant select on conversations to alfred_engine;
-- The engine writes last_accessed in batches and removes expired sessions; it never reads a token's hash.
grant select (tenant_id, id, expires_at, last_accessed), update (last_accessed, expires_at), delete on user_sessions to alfred_engine;
