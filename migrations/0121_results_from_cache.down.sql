alter table turn_steps drop column cache_key, drop column cache_hit, drop column cache_ttl;
