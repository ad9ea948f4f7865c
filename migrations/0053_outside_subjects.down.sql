drop function tenancy_outside_subject(uuid);
