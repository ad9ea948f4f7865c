-- What is counted about items, so that counting reads an index and no payloads (half the time over 300 000 items).
create index items_facts on items (tenant_id, user_id, kind) include (status, archived, created_at, due_at, deleted_at);
