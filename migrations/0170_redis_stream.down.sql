drop table redis_stream_positions;
drop index authentication_events_in_order;
alter table authentication_events drop column written_in;
