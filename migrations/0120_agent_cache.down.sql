drop table agent_cache_days, agent_cache_flights, agent_cache_generations, agent_cache;
