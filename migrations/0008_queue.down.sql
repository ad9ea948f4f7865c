revoke all on all functions in schema apalis from alfred_engine;
revoke all on apalis.jobs, apalis.workers from alfred_engine;
revoke all on apalis.jobs from alfred_app;
revoke usage on schema apalis from alfred_app, alfred_engine;
drop index apalis.alfred_jobs_held;
alter table apalis.jobs enable trigger notify_workers;
