drop index agent_sessions_live;
create index agent_notification_events_failed on agent_notification_events (tenant_id, processed_at) where status = 'failed';
drop index agent_notification_events_dead;
drop index agent_health_by_age;
