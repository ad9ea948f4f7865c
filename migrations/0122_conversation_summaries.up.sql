-- What a model is sent instead of a conversation's old turns. The messages themselves stay as they are.
create table conversation_summaries (
  tenant_id uuid not null,
  conversation_id bigint not null,
  user_id uuid not null,
  -- The summary stands for every turn up to this one; 0 while the first is being written.
  up_to_turn bigint not null default 0,
  summary text not null default '',
  -- Somebody is writing a newer one until then at the latest.
  claimed_until timestamptz,
  updated_at timestamptz not null default clock_timestamp(),
  primary key (tenant_id, conversation_id),
  foreign key (tenant_id, conversation_id) references conversations (tenant_id, id)
);
alter table conversation_summaries enable row level security;
alter table conversation_summaries force row level security;
create policy conversation_summaries_of_app on conversation_summaries to alfred_app
  using (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()))
  with check (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()));
create policy whole_tenant on conversation_summaries to current_user
  using (tenant_id = nullif(current_setting('app.whole_tenant', true), '')::uuid) with check (false);
grant select, insert, update, delete on conversation_summaries to alfred_app;
