drop function turn_events_drop_partition();
drop function turn_events_day_is_over(date);
drop function turn_events_make_partitions(integer);
drop table turn_events;
drop function uuid_day_bound(date);
