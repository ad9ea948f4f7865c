-- Idempotency keys of requests that make or change items: their answer is kept, where a turn's is read anew.
alter table idempotency_keys alter column turn_id drop not null;
alter table idempotency_keys add column answer text;
grant update on idempotency_keys to alfred_app;
