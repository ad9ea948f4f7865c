-- When an agent said that it has dealt with an event.
alter table agent_notification_events add column acknowledged_at timestamptz;
create index agent_notification_events_by_event on agent_notification_events (tenant_id, event_id);
