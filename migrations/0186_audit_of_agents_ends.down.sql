drop function audit_log_forget_agents(bigint);
drop policy audit_log_of_agents_ends on audit_log;
drop index audit_log_of_agents;
