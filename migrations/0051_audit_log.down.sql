drop table audit_log;
drop function uuid_v7();
