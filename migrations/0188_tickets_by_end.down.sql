drop index apalis.alfred_jobs_ended;
