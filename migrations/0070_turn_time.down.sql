drop trigger turns_time on turns;
drop function turns_count_time();
alter table turns drop column running_since, drop column ran_ms;
