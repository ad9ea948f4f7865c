revoke update on idempotency_keys from alfred_app;
delete from idempotency_keys where turn_id is null;
alter table idempotency_keys drop column answer;
alter table idempotency_keys alter column turn_id set not null;
