-- What is over a day old is deleted every minute.
create index agent_health_by_age on agent_health (at);

-- Dead letters are few among many, and are read a page at a time.
create index agent_notification_events_dead on agent_notification_events (tenant_id, id) where status = 'failed';
drop index agent_notification_events_failed;

-- Sessions that are good now are the last hour's among those of weeks.
create index agent_sessions_live on agent_sessions (tenant_id, expires_at) where is_active;
