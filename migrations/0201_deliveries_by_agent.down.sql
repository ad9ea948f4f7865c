drop function agents_to_tell();
create index agent_notification_events_due on agent_notification_events (due_at) where status in ('pending', 'retry');
drop index agent_notification_events_by_agent_due;
