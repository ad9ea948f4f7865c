-- Looking at the queues adds up what ended of late, and must not read every ticket that is kept for people who look.
create index alfred_jobs_ended on apalis.jobs (done_at) where job_type in ('connection-refresh', 'maintenance') and done_at is not null;
