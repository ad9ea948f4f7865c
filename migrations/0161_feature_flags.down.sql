drop trigger agent_notification_events_wanted on agent_notification_events;
drop function agent_notification_events_wanted();
drop function flag_is_on(text, text);
drop function flag_place(text, text);
drop table feature_flags;
