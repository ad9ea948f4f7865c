drop table idempotency_keys, tenant_slots, approvals, usage_days, model_calls, turn_steps, turns;
