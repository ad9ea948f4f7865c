drop index api_keys_by_id;
