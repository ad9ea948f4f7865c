-- apalis's own setup ran before this file (see the migrate command). Its insert trigger would put a NOTIFY into
-- every posting transaction, and Postgres serialises the commits of such transactions.
alter table apalis.jobs disable trigger notify_workers;
-- The orphan query of each heartbeat reads by lock_by; finished tickets must not be in its way.
create index alfred_jobs_held on apalis.jobs (lock_by) where status in ('Queued', 'Running');
grant usage on schema apalis to alfred_app, alfred_engine;
grant insert on apalis.jobs to alfred_app;
grant select, insert, update, delete on apalis.jobs, apalis.workers to alfred_engine;
grant execute on all functions in schema apalis to alfred_engine;
