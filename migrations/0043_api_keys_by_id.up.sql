-- The batched last use names keys by their id alone; it is a random uuid, so the order of columns tells nothing.
create index api_keys_by_id on api_keys (id);
