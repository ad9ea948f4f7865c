-- What was decided about agents' requests is kept for 90 days: there is an entry for each request, and agents are programs. What
-- people did is kept for ever, and no role that serves has DELETE on either.

create index audit_log_of_agents on audit_log (at) where acted_as = 'agent';
-- All that whoever owns the log may see and remove of it, but for one tenant's while that is exported.
do $$ begin
  execute format('create policy audit_log_of_agents_ends on audit_log to %I using (acted_as = ''agent'' and at < now() - interval ''90 days'') with check (false)', current_user);
end $$;

-- Removes some of what has had its time; answers how many. Audited: the policy above leaves it nothing else.
create function audit_log_forget_agents(p_limit bigint) returns bigint
  language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
  with gone as (
    delete from audit_log where (tenant_id, id) in (
      select tenant_id, id from audit_log where acted_as = 'agent' and at < now() - interval '90 days' limit p_limit)
    returning 1
  )
  select count(*) from gone
$$;
revoke all on function audit_log_forget_agents(bigint) from public;
grant execute on function audit_log_forget_agents(bigint) to alfred_engine;
